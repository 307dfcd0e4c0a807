import gzip
import io
import random
import sys
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lexome.core import FormatError, InputError
from lexome.formats.streams import (
    BGZF_END,
    BLOCK_BYTES,
    as_text,
    byte_blocks,
    existing_file,
    lines_of,
    writing,
)

LONG_TEXT = random.Random(0).randbytes(3 * BLOCK_BYTES).hex().encode()


@pytest.mark.parametrize("name", ["a.txt", "a.txt.gz", "a.txt.bgz"])
def test_plain_gzip_and_bgzip_give_the_same_text(make_file, name):
    assert b"".join(byte_blocks(make_file(name, LONG_TEXT))) == LONG_TEXT


def test_compression_is_told_by_content_and_not_by_name(make_file):
    assert b"".join(byte_blocks(make_file("a.txt", gzip.compress(b"ACGT")))) == b"ACGT"


def test_gzip_members_may_follow_each_other_and_be_padded_with_zeros(make_file):
    members = gzip.compress(b"one ") + b"\0" * 7 + gzip.compress(b"two") + b"\0" * 600_000
    assert b"".join(byte_blocks(make_file("a.bin", members))) == b"one two"


def test_a_highly_compressed_file_comes_in_small_blocks(make_file):
    path = make_file("a.gz", b"N" * 50_000_000)
    sizes = [len(block) for block in byte_blocks(path)]
    assert sum(sizes) == 50_000_000
    assert max(sizes) <= 2 * BLOCK_BYTES


def test_stdin_is_read_and_decompressed(monkeypatch):
    stream = io.TextIOWrapper(io.BytesIO(gzip.compress(b"ACGT")))
    monkeypatch.setattr(sys, "stdin", stream)
    assert b"".join(byte_blocks("-")) == b"ACGT"


@pytest.mark.parametrize("content", [b"", gzip.compress(b"")], ids=["empty", "gzip of nothing"])
def test_an_empty_file_is_named(make_file, content):
    with pytest.raises(FormatError, match=r"a\.fa: the file is empty"):
        list(byte_blocks(make_file("a.fa", content)))


@pytest.mark.parametrize("kept_bytes", [3, 20, 1000, -8, -1])
def test_a_gzip_file_that_is_cut_off_is_named(make_file, kept_bytes):
    whole = gzip.compress(LONG_TEXT)
    with pytest.raises(FormatError, match="cut off"):
        list(byte_blocks(make_file("a.bin", whole[:kept_bytes])))


def test_a_bgzip_file_cut_between_blocks_is_named_before_anything_is_read(make_file):
    path = make_file("a.bgz", LONG_TEXT)
    path.write_bytes(path.read_bytes().removesuffix(BGZF_END))
    with pytest.raises(FormatError, match="marks its end"):
        next(byte_blocks(path))


def test_damaged_gzip_data_are_named(make_file):
    whole = bytearray(gzip.compress(LONG_TEXT))
    whole[5000:5100] = b"\xff" * 100
    with pytest.raises(FormatError, match="gzip data are damaged"):
        list(byte_blocks(make_file("a.bin", bytes(whole))))


def test_rubbish_behind_gzip_data_is_named(make_file):
    with pytest.raises(FormatError, match="after the end of the gzip data"):
        list(byte_blocks(make_file("a.bin", gzip.compress(b"ACGT") + b"rubbish")))


@pytest.mark.parametrize(
    ("start", "what"),
    [
        (b"\x89PNG\r\n", "PNG image"),
        (b"PAR1....", "Parquet"),
        (b"BAM\x01....", "BAM file"),
        (b"\x28\xb5\x2f\xfd", "zstd"),
        (b"BZh91AY", "bzip2"),
        ("ACGT".encode("utf-16"), "UTF-16"),
        (bytes(range(256)), "not text: it begins with the bytes 00 01"),
    ],
)
def test_binary_files_are_named_for_what_they_are(make_file, start, what):
    with pytest.raises(FormatError, match=what):
        list(byte_blocks(make_file("a.fa", start)))


def test_a_byte_order_mark_is_left_out(make_file):
    assert b"".join(byte_blocks(make_file("a.txt", b"\xef\xbb\xbfACGT"))) == b"ACGT"


def test_a_missing_file_suggests_its_neighbours(make_file):
    path = make_file("genome.fa", "x")
    with pytest.raises(InputError, match=r"no file .*genom\.fa.* Did you mean genome\.fa"):
        existing_file(path.with_name("genom.fa"))


def test_a_folder_is_not_taken_for_a_file(tmp_path):
    with pytest.raises(InputError, match="is a folder"):
        existing_file(tmp_path)


@given(st.text(alphabet="AC\r\n", max_size=60), st.lists(st.integers(0, 60), max_size=5))
def test_lines_do_not_depend_on_where_blocks_end(text, cuts):
    data = text.encode()
    edges = [0, *sorted(min(c, len(data)) for c in cuts), len(data)]
    blocks = (data[a:b] for a, b in pairwise(edges) if b > a)
    expected = [line.removesuffix(b"\r") for line in data.split(b"\n")]
    if data.endswith(b"\n") or not data:
        expected.pop()
    assert list(lines_of(blocks)) == expected


def test_text_that_is_not_utf_8_is_read_as_latin_1():
    assert as_text("Köln".encode()) == "Köln"
    assert as_text("Köln".encode("latin-1")) == "Köln"


@pytest.mark.parametrize("name", ["a.txt", "a.txt.gz", "a.txt.bgz"])
def test_what_is_written_is_read_back(tmp_path, name):
    with writing(tmp_path / name) as stream:
        stream.write(LONG_TEXT)
    assert b"".join(byte_blocks(tmp_path / name)) == LONG_TEXT
    assert (tmp_path / name).read_bytes().startswith(b"\x1f\x8b") == (name != "a.txt")


@pytest.mark.parametrize("name", ["a.txt", "a.txt.gz"])
def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, name):
    (tmp_path / name).write_bytes(b"old")
    with pytest.raises(TypeError), writing(tmp_path / name) as stream:
        stream.write("text where bytes belong")
    assert [p.name for p in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_bytes() == b"old"
