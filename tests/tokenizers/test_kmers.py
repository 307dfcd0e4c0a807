import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lexome.core import InputError
from lexome.tokenizers import KmerPreset, KmerTokenizer
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
