import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lexome.tokenizers import KmerLetterPreset, KmerLetterTokenizer

TOKENIZERS = {k: KmerLetterTokenizer(KmerLetterPreset(name="x", k=k)) for k in (2, 3, 6)}


def plain(tokenizer, text):
    """The definition: the longest token at each place, one unknown token per run of others."""
    words = tokenizer.vocabulary
    index = {word: i for i, word in enumerate(words)}
    found = sorted(words, key=len, reverse=True)
    ids, spans, at, was_unknown = [], [], 0, False
    while at < len(text):
        word = next((w for w in found if text.startswith(w, at)), None)
        if word:
            ids.append(index[word])
            spans.append((at, at + len(word)))
            was_unknown = False
        elif text[at].isspace():
            was_unknown = False
        elif was_unknown:
            spans[-1] = (spans[-1][0], at + 1)
        else:
            ids.append(tokenizer.unknown)
            spans.append((at, at + 1))
            was_unknown = True
        at += len(word or " ")
    return ids, spans


TEXTS = st.text(alphabet="AAACCCGGGTTTNNac \t-é\u3000", max_size=40)


@given(TEXTS, st.sampled_from([2, 3, 6]))
def test_ids_and_spans_are_those_of_the_definition(text, k):
    tokenizer = TOKENIZERS[k]
    (encoded,) = tokenizer.encode([text])
    assert (encoded["input_ids"].tolist(), list(map(tuple, tokenizer.spans(text)))) == plain(
        tokenizer, text
    )


@given(st.lists(TEXTS, max_size=5))
def test_a_batch_equals_its_items_one_by_one(texts):
    tokenizer = TOKENIZERS[3]
    together = [e["input_ids"].tolist() for e in tokenizer.encode(texts)]
    assert together == [tokenizer.encode([t])[0]["input_ids"].tolist() for t in texts]


@given(st.text(alphabet="ACGTN", max_size=40), st.sampled_from(["<mask>", "<cls>", "<pad>"]))
def test_special_tokens_written_out_are_themselves(text, special):
    tokenizer = TOKENIZERS[3]
    whole = text[:20] + special + text[20:]
    (encoded,) = tokenizer.encode([whole])
    ids, spans = plain(tokenizer, whole)
    assert encoded["input_ids"].tolist() == ids
    assert list(map(tuple, tokenizer.spans(whole))) == spans


def test_the_vocabulary_counts_in_the_published_order():
    words = TOKENIZERS[6].vocabulary
    assert len(words) == 4105
    assert words[3:6] == ("<cls>", "AAAAAA", "AAAAAT")
    assert words[-5:] == ("A", "T", "C", "G", "N")


def test_six_letters_are_one_token_and_the_rest_single_letters():
    assert TOKENIZERS[6](["AAAAAATCG"])["input_ids"].tolist() == [[3, 4, 4101, 4102, 4103]]
    assert TOKENIZERS[6](["", "N"])["input_ids"].tolist() == [[3, 1], [3, 4104]]


def test_unknown_letters_are_counted_however_few_tokens_hide_them():
    tokenizer = TOKENIZERS[6]
    text = "ACGTAC" + "acgt" * 100 + "AC"
    (encoded,) = tokenizer.encode([text])
    assert encoded["input_ids"].tolist()[1] == tokenizer.unknown
    assert tokenizer.count_unknown(encoded) == 1
    assert tokenizer.measure_unknown(text, encoded) == (400, 408)
    (clean,) = tokenizer.encode(["ACGTAC"])
    assert tokenizer.measure_unknown("ACGTAC", clean) == (0, 6)


@pytest.mark.parametrize("k", [2, 3, 6])
def test_decoding_gives_the_text_back(k):
    text = "ACGTTGCANNACGTA"
    ids = TOKENIZERS[k]([text])["input_ids"][0]
    assert TOKENIZERS[k].decode(ids, special_tokens=False) == text


def test_the_files_rebuild_the_vocabulary():
    files = TOKENIZERS[3].files()
    assert tuple(files["vocab.txt"].decode().split("\n")) == tuple(TOKENIZERS[3].vocabulary)
    assert re.search(r'"eos_token": null', files["tokenizer_config.json"].decode())


def test_ids_are_small_integers():
    (encoded,) = TOKENIZERS[6].encode(["ACGTACGT"])
    assert encoded["input_ids"].dtype == np.int32
