import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lexome.tokenizers import LetterPreset, LetterTokenizer

FOLDED = LetterTokenizer(
    LetterPreset(
        name="x",
        vocabulary=("[PAD]", "[MASK]", "[UNK]", "a", "c", "g", "t"),
        fold_case=True,
        drop_whitespace=True,
    )
)
STRICT = LetterTokenizer(
    LetterPreset(name="y", vocabulary=("[PAD]", "[UNK]", "[MASK]", "A", "C", "G", "T", "N"))
)


def ids(tokenizer, text):
    return tokenizer.encode([text])[0]["input_ids"].tolist()


def test_case_is_folded_only_where_the_authors_fold_it():
    assert ids(FOLDED, "aCgT") == [3, 4, 5, 6]
    assert ids(STRICT, "aC") == [1, 4]


def test_special_tokens_in_the_text_are_recognised_in_their_own_case():
    assert ids(FOLDED, "A[MASK]C") == [3, 1, 4]
    assert ids(FOLDED, "[mask]") == [2, 2, 3, 2, 2, 2]


def test_white_space_vanishes_or_is_a_letter():
    assert ids(FOLDED, "A C\n\tG") == [3, 4, 5]
    assert ids(STRICT, "A C") == [3, 1, 4]


@pytest.mark.parametrize("letter", ["é", "Ж", "🧬", "\x00", "ｱ"])
def test_letters_beyond_the_alphabet_are_one_unknown_each(letter):
    assert ids(STRICT, f"A{letter}C") == [3, 1, 4]


def test_a_batch_equals_its_items_one_by_one():
    texts = ["ACGT", "", "A C", "[MASK]", "é", "NNNN"]
    together = [e["input_ids"].tolist() for e in FOLDED.encode(texts)]
    assert together == [ids(FOLDED, t) for t in texts]


@given(st.lists(st.text(alphabet="ACGTNacgt *-", max_size=20), max_size=6))
def test_any_batch_equals_its_items_one_by_one(texts):
    for tokenizer in (FOLDED, STRICT):
        together = [e["input_ids"].tolist() for e in tokenizer.encode(texts)]
        assert together == [ids(tokenizer, t) for t in texts]


@given(st.text(alphabet="ACGT []MASKx", max_size=30))
def test_spans_cover_the_letters_of_each_token(text):
    spans = FOLDED.spans(text)
    (encoded,) = FOLDED.encode([text])
    assert len(spans) == len(encoded["input_ids"])
    for (start, stop), i in zip(spans, encoded["input_ids"], strict=True):
        token = FOLDED.vocabulary[i]
        assert text[start:stop].lower() == token or token in ("[MASK]", "[UNK]")


def test_ids_are_bytes_until_they_are_batched():
    assert STRICT.encode(["ACGT"])[0]["input_ids"].dtype == np.uint8
