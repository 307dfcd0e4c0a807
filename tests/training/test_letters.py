"""Genomes as bytes: letters, runs of unknown ones, and the files they are kept in."""

import pickle

import numpy as np
import pytest

from lexome.core import FormatError, InputError
from lexome.training import letters as module
from lexome.training.letters import encode_letters, joined


def write(path, text):
    path.write_text(text)
    return path


@pytest.fixture
def two_files(tmp_path):
    return [
        write(tmp_path / "a.fa", ">a\nACgtn\nNRT\n>empty\n>b\nAC\n"),
        write(tmp_path / "b.fa", ">a\nTTUu\n"),
    ]


def test_contigs_follow_each_other_with_a_place_between(two_files, tmp_path):
    letters = encode_letters(two_files, tmp_path / "cache")
    found = [(c.name, letters.text(c.start, c.end - c.start)) for c in letters.contigs]
    assert found == [("a", "ACgtnNRT"), ("b", "AC"), ("a", "TTUu")]
    assert [c.start for c in letters.contigs] == [0, 9, 12]
    assert len(letters) == 14


def test_runs_of_unknown_letters_are_found(two_files, tmp_path):
    assert encode_letters(two_files, tmp_path / "cache").unknown.tolist() == [[4, 7]]


@pytest.mark.parametrize("piece", [1, 2, 3, 5, 100])
def test_pieces_of_any_length_give_the_same(piece, two_files, tmp_path, monkeypatch):
    whole = encode_letters(two_files, tmp_path / "whole")
    monkeypatch.setattr(module, "_READ_BP", piece)
    cut = encode_letters(two_files, tmp_path / "cut")
    assert cut.unknown.tolist() == whole.unknown.tolist()
    assert cut.sha256 == whole.sha256
    assert cut.text(0, 16) == whole.text(0, 16)


def test_the_other_strand_is_the_reverse_complement_with_its_case(two_files, tmp_path):
    letters = encode_letters(two_files, tmp_path / "cache")
    assert letters.text(0, 4, reverse=True) == "acGT"


def test_the_files_are_used_again_until_a_fasta_changes(two_files, tmp_path):
    cache = tmp_path / "cache"
    first = encode_letters(two_files, cache)
    made = (first.folder / "letters.npy").stat().st_mtime_ns
    again = encode_letters(two_files, cache)
    assert again.folder == first.folder
    assert (again.folder / "letters.npy").stat().st_mtime_ns == made
    write(two_files[1], ">a\nTTUuA\n")
    (two_files[1].parent / "b.fa.fai").unlink()
    changed = encode_letters(two_files, cache)
    assert changed.folder != first.folder
    assert changed.sha256 != first.sha256


def test_what_a_killed_process_left_is_removed(two_files, tmp_path):
    folder = encode_letters(two_files, tmp_path / "cache").folder
    left = write(folder / ".writing-x-letters.npy", "half")
    (folder / "letters.json").unlink()
    encode_letters(two_files, tmp_path / "cache")
    assert not left.exists()


def test_another_process_maps_the_same_file(two_files, tmp_path):
    letters = encode_letters(two_files, tmp_path / "cache")
    packed = pickle.dumps(letters)
    assert len(packed) < 1000
    assert pickle.loads(packed).text(0, 8) == "ACgtnNRT"


def test_headers_without_bases_are_an_error(tmp_path):
    with pytest.raises(InputError, match="headers but no bases"):
        encode_letters([write(tmp_path / "a.fa", ">a\n>b\n")], tmp_path / "cache")


def test_a_gap_in_a_sequence_is_named_with_its_place(tmp_path):
    path = write(tmp_path / "a.fa", ">a\nACGT\nAC-T\n")
    with pytest.raises(FormatError, match=r"contig 'a' has '-' where base 7 should be.*alignment"):
        encode_letters([path], tmp_path / "cache")


def test_a_missing_fasta_is_an_error(tmp_path):
    with pytest.raises(InputError, match="there is no file"):
        encode_letters([tmp_path / "a.fa"], tmp_path / "cache")


def test_no_spans_have_no_union():
    assert joined(np.array([[3, 3]])).shape == (0, 2)
