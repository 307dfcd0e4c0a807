"""Learning a vocabulary: DNABERT-2's form, read by us and by transformers."""

import json

import pytest

from lexome.core import InputError
from lexome.formats.fasta import write_fasta
from lexome.formats.records import SequenceRecord
from lexome.sequence import reverse_complement
from lexome.tokenizers import PublishedTokenizer, read_tokenizer
from lexome.training import vocabulary
from lexome.training.vocabulary import train_tokenizer


def learn(genome, out, **given):
    return train_tokenizer([genome], out, **({"size": 64, "progress": False} | given))


def test_special_tokens_and_letters_come_first(words):
    tokenizer = read_tokenizer(words)
    assert isinstance(tokenizer, PublishedTokenizer)
    assert list(tokenizer.vocabulary[:9]) == [
        *("[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]"),
        *"ACGT",
    ]
    assert len(tokenizer.vocabulary) == 64
    assert (tokenizer.unknown, tokenizer.pad, tokenizer.mask) == (0, 3, 4)
    assert (tokenizer.prefix, tokenizer.suffix) == ((1,), (2,))


def test_transformers_reads_it(words):
    transformers = pytest.importorskip("transformers")
    theirs = transformers.PreTrainedTokenizerFast.from_pretrained(words)
    ours = read_tokenizer(words)
    assert ours is not None
    text = ["ACGTTGCATTNACGac", "T"]
    assert theirs(text)["input_ids"] == [ours([t])["input_ids"][0].tolist() for t in text]
    assert (theirs.mask_token_id, theirs.pad_token_id) == (4, 3)


def test_the_file_has_the_form_of_the_published_one(words):
    content = json.loads((words / "tokenizer.json").read_text())
    assert content["normalizer"] is None
    assert content["pre_tokenizer"] == {"type": "Whitespace"}
    assert content["model"]["unk_token"] == "[UNK]"
    assert content["model"]["fuse_unk"] is False
    assert [t["content"] for t in content["added_tokens"]] == list(vocabulary.SPECIALS.values())
    assert content["post_processor"]["type"] == "TemplateProcessing"


def test_frequent_words_are_learnt(genome, tmp_path):
    result = learn(genome, tmp_path / "words")
    assert result.bases == 23_600  # 400 N left out
    assert result.size == 64
    assert result.longest > 8
    assert result.tokens_per_base < 0.2  # a letter each would be 1
    assert "tokens per base" in str(result)


def test_no_token_holds_an_unknown_letter(words):
    tokenizer = read_tokenizer(words)
    assert tokenizer is not None
    assert all(set(word) <= set("ACGT") for word in tokenizer.vocabulary[5:])


def test_the_same_seed_learns_the_same(genome, tmp_path):
    files = []
    for name in "ab":
        learn(genome, tmp_path / name, max_bases=5000, seed=3)
        files.append((tmp_path / name / "tokenizer.json").read_bytes())
    assert files[0] == files[1]


def test_no_more_letters_are_read_than_asked_for(genome, tmp_path):
    result = learn(genome, tmp_path / "words", max_bases=4096)
    assert 3000 < result.bases <= 4096


def test_regions_limit_what_is_learnt_from(genome, tmp_path):
    bed = tmp_path / "r.bed"
    bed.write_text("two\t0\t1000\none\t10\t510\n")
    assert learn(genome, tmp_path / "words", regions=bed).bases == 1500


def test_one_strand_or_both(tmp_path):
    path = tmp_path / "a.fa"
    text = "AACCGATTTGAC" * 200
    write_fasta(path, [SequenceRecord("a", text)])
    found = {}
    for both in (False, True):
        folder = tmp_path / str(both)
        train_tokenizer(path, folder, size=24, both_strands=both, progress=False)
        tokenizer = read_tokenizer(folder)
        assert tokenizer is not None
        found[both] = max(tokenizer.vocabulary[9:], key=len)
    assert found[False] in text
    assert found[True] in text + reverse_complement(text)


def test_too_little_sequence_for_so_many_tokens_is_an_error(tmp_path):
    path = tmp_path / "a.fa"
    path.write_text(">a\nACGTACGT\n")
    with pytest.raises(InputError, match=r"8 letters of .* gave 1. tokens, but 64 were asked for"):
        learn(path, tmp_path / "words")
    assert not (tmp_path / "words").exists()


def test_a_size_below_the_letters_is_an_error(genome, tmp_path):
    with pytest.raises(InputError, match="size is 9"):
        learn(genome, tmp_path / "words", size=9)


def test_nothing_to_learn_from_is_an_error(genome, tmp_path):
    empty = tmp_path / "a.fa"
    empty.write_text(">a\n")
    with pytest.raises(InputError, match="nothing to learn from"):
        learn(empty, tmp_path / "words")
    bed = tmp_path / "r.bed"
    bed.write_text("chr9\t0\t10\n")
    with pytest.raises(InputError, match="no FASTA file has a contig 'chr9'"):
        learn(genome, tmp_path / "words", regions=bed)
