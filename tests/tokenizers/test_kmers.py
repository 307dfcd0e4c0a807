import json
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lexome.core import FormatError, InputError
from lexome.tokenizers import KmerPreset, KmerTokenizer, find_kmers, read_kmers
from lexome.tokenizers.kmers import kmer_codes


def plain(letters, k):
    """The definition, one k-mer after the other."""
    out = []
    for i in range(len(letters) - k + 1):
        kmer = letters[i : i + k]
        code = 0
        for letter in kmer:
            code = 4 * code + int(letter)
        out.append(4**k if max(kmer) > 3 else code)
    return out


@given(st.lists(st.integers(0, 5), max_size=40), st.integers(1, 11))
def test_numbers_are_those_of_the_definition(letters, k):
    assert kmer_codes(np.array(letters, np.uint8), k).tolist() == plain(letters, k)


@given(st.lists(st.text(alphabet="ACGTN", max_size=15), max_size=5), st.sampled_from([1, 2, 3]))
def test_a_batch_equals_its_items_one_by_one(texts, stride):
    tokenizer = KmerTokenizer(KmerPreset(name="x", k=3, stride=stride))
    together = [e["input_ids"].tolist() for e in tokenizer.encode(texts)]
    assert together == [tokenizer.encode([t])[0]["input_ids"].tolist() for t in texts]
    for text, ids in zip(texts, together, strict=True):
        spans = tokenizer.spans(text)
        assert len(spans) == len(ids)
        words = [text[a:b] for a, b in spans]
        vocabulary = tokenizer.vocabulary
        assert [vocabulary[i] for i in ids] == [w if "N" not in w else "[UNK]" for w in words]


def test_the_order_of_the_letters_is_the_vocabularys():
    tokenizer = KmerTokenizer(KmerPreset(name="x", k=6, letters="ATCG"))
    assert tokenizer.vocabulary[5:7] == ("AAAAAA", "AAAAAT")
    assert tokenizer(["AAAAAT"])["input_ids"].tolist() == [[2, 6, 3]]


def test_too_short_is_empty_not_an_error():
    tokenizer = KmerTokenizer(KmerPreset(name="x", k=6))
    assert tokenizer(["ACGTA", ""])["input_ids"].tolist() == [[2, 3], [2, 3]]


def test_lower_case_is_unknown_unless_folded():
    assert KmerTokenizer(KmerPreset(name="x", k=2)).encode(["ac"])[0]["input_ids"].tolist() == [1]
    folded = KmerTokenizer(KmerPreset(name="x", k=2, fold_case=True))
    assert folded.encode(["ac"])[0]["input_ids"].tolist() == [6]


def test_k_has_a_limit():
    with pytest.raises(InputError, match="1 to 12"):
        KmerTokenizer(KmerPreset(name="x", k=13))


def test_published_ids_of_clean_sequences(fixtures):
    path = fixtures / "dnabert" / "mlm_k6_tiny" / "io.json"
    if not path.is_file():
        pytest.skip("the fixtures in use hold no DNABERT case")
    tokenizer = KmerTokenizer(KmerPreset(name="dnabert-6", k=6, letters="ATCG"))
    for item in json.loads(path.read_text())["tokenizer"]:
        ids = item.get("input_ids", item.get("hub_input_ids"))
        if set(item["sequence"]) <= set("ACGTN") and len(ids) < 512:
            assert tokenizer([item["sequence"]])["input_ids"][0].tolist() == ids


WORDS = KmerTokenizer(KmerPreset(name="x", k=3, letters="ATCG", words=True))


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("ACG", [16]),
        ("AC-", [1, 1]),  # AC and -
        ("A-C", [1, 1, 1]),
        ("---", [1, 1, 1]),
        ("A C", [1, 1]),
        ("A  ", [1]),
        ("   ", []),
        ("\x00\x01\x02", []),
        ("A\x00C", [1]),  # what is dropped parts nothing
        ("A\u4e2dC", [1, 1, 1]),  # an ideograph is a word
        ("A\u00e9C", [1]),
        ("A\u3001C", [1, 1, 1]),  # punctuation beyond ASCII
        ("A\u2028C", [1, 1]),
    ],
)
def test_words_part_where_berts_tokenizer_parts_them(text, ids):
    (encoded,) = WORDS.encode([text])
    assert encoded["input_ids"].tolist() == ids
    spans = WORDS.spans(text).tolist()
    assert len(spans) == len(ids)
    assert all(0 <= start < stop <= len(text) for start, stop in spans)


def test_special_tokens_in_words_are_themselves():
    tokenizer = KmerTokenizer(KmerPreset(name="x", k=6, letters="ATCG", words=True))
    (encoded,) = tokenizer.encode(["A[MASK]"])
    assert encoded["input_ids"].tolist() == [1, 1, 1, 4]  # A [ MASK and then [MASK]
    assert tokenizer.spans("A[MASK]").tolist() == [[0, 1], [1, 2], [2, 6], [1, 7]]


@given(st.lists(st.text(alphabet="ACGTn- \u00e9", max_size=12), max_size=5))
def test_words_of_a_batch_are_those_of_its_items(texts):
    together = [e["input_ids"].tolist() for e in WORDS.encode(texts)]
    assert together == [WORDS.encode([t])[0]["input_ids"].tolist() for t in texts]
    assert [len(row) for row in together] == [len(WORDS.spans(t)) for t in texts]


@pytest.mark.parametrize(
    ("count", "pieces"), [(0, [0]), (5, [5]), (6, [6, 0]), (7, [6, 1]), (12, [6, 6, 0])]
)
def test_pieces_have_special_tokens_of_their_own(count, pieces):
    preset = KmerPreset(name="x", k=1, letters="ATCG", piece_tokens=8)
    ids = KmerTokenizer(preset)(["A" * count])["input_ids"][0].tolist()
    assert ids == [i for n in pieces for i in [2, *[5] * n, 3]]
    assert KmerTokenizer(preset).wrap({"input_ids": np.full(6, 5)})["input_ids"].shape == (8,)


def test_a_published_list_of_kmers_says_order_and_length(tmp_path):
    path = tmp_path / "vocab.txt"
    path.write_text("<pad>\nAA\nAC\nAG\nAT\nCA\nCC\nCG\nCT\nGA\nGC\nGG\nGT\nTA\nTC\nTG\nTT\nN")
    words = read_kmers(path)
    assert (words.specials, words.letters, words.k) == (("<pad>",), "ACGT", 2)
    assert (words.rest, words.size) == (("N",), 18)


@pytest.mark.parametrize("content", ["", "[PAD]\n[UNK]\n", "AA\nAC\nAG\nAT\n", "AA\nAA\nAA\nAA\n"])
def test_a_list_of_other_words_is_refused(content, tmp_path):
    path = tmp_path / "vocab.txt"
    path.write_text(content)
    with pytest.raises(FormatError, match=r"vocab\.txt.*count through"):
        read_kmers(path)


def test_a_list_that_is_no_text_is_refused(tmp_path):
    (tmp_path / "vocab.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(FormatError, match="no text"):
        read_kmers(tmp_path / "vocab.txt")


def test_words_are_read_from_a_fast_tokenizers_file_too(tmp_path):
    words = ["[PAD]", "[UNK]", *map("".join, product("GCTA", repeat=2)), "N"]
    ids = {word: i for i, word in enumerate(words)}
    path = tmp_path / "tokenizer.json"
    added = [{"content": word, "id": ids.pop(word)} for word in words[:2]]
    path.write_text(json.dumps({"model": {"vocab": ids}, "added_tokens": added}))
    assert find_kmers(tmp_path) == path
    found = read_kmers(path)
    assert (found.specials, found.letters, found.k) == (("[PAD]", "[UNK]"), "GCTA", 2)
    assert found.rest == ("N",)
    (tmp_path / "vocab.txt").write_text("\n".join(words))
    assert find_kmers(tmp_path) == tmp_path / "vocab.txt"
    assert read_kmers(tmp_path / "vocab.txt") == found


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "[]",
        "{}",
        '{"model": {"vocab": [["A", 0.1]]}}',
        '{"model": {"vocab": {"A": 0, "C": 2}}}',
    ],
)
def test_other_tokenizers_do_not_count_through_kmers(tmp_path, content):
    path = tmp_path / "tokenizer.json"
    path.write_text(content)
    with pytest.raises(FormatError, match=r"tokenizer\.json"):
        read_kmers(path)
    assert find_kmers(None) is None
