import numpy as np
import pytest
import torch

from lexome.core import InputError
from lexome.tokenizers import LetterPreset, LetterTokenizer

LEFT = LetterTokenizer(
    LetterPreset(
        name="x",
        vocabulary=("[PAD]", "[UNK]", "[CLS]", "[SEP]", "A", "C"),
        mask=None,
        layout="[CLS] {sequence} [SEP]",
        padding_side="left",
    )
)


def test_a_batch_is_padded_on_the_authors_side():
    batch = LEFT(["AC", "A"])
    assert batch["input_ids"].tolist() == [[2, 4, 5, 3], [0, 2, 4, 3]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 1], [0, 1, 1, 1]]
    assert batch["input_ids"].dtype == torch.int64


def test_the_side_can_be_chosen():
    assert LEFT(["AC", "A"], padding_side="right")["input_ids"].tolist()[1] == [2, 4, 3, 0]


def test_one_string_is_a_batch_of_one():
    assert LEFT("A")["input_ids"].tolist() == [[2, 4, 3]]


def test_special_tokens_can_be_left_out():
    assert LEFT(["AC"], special_tokens=False)["input_ids"].tolist() == [[4, 5]]


def test_cutting_is_done_only_when_asked_and_keeps_the_special_tokens():
    assert LEFT(["ACACAC"])["input_ids"].shape == (1, 8)
    assert LEFT(["ACACAC"], truncate_tokens=4)["input_ids"].tolist() == [[2, 4, 5, 3]]
    with pytest.raises(InputError, match="special tokens alone take 2"):
        LEFT(["ACACAC"], truncate_tokens=1)


def test_unknown_letters_are_counted():
    (encoded,) = LEFT.encode(["AXXC"])
    assert LEFT.count_unknown(encoded) == 2
    assert LEFT.measure_unknown("AXXC", encoded) == (2, 4)


def test_decoding_gives_the_text_back():
    ids = LEFT(["ACCA"])["input_ids"][0]
    assert LEFT.decode(ids) == "[CLS]ACCA[SEP]"
    assert LEFT.decode(ids, special_tokens=False) == "ACCA"


def test_an_empty_batch_and_an_empty_sequence_are_possible():
    assert LEFT([""])["input_ids"].tolist() == [[2, 3]]
    assert LEFT([])["input_ids"].shape == (0, 0)


def test_float_fields_are_padded_with_their_own_value():
    LEFT.padding["values"] = -2.0
    rows = [
        {"input_ids": np.array([4, 5]), "values": np.array([0.5, 1.5], np.float32)},
        {"input_ids": np.array([4]), "values": np.array([2.5], np.float32)},
    ]
    batch = LEFT.collate(rows)
    del LEFT.padding["values"]
    assert batch["values"].tolist() == [[0.5, 1.5], [-2.0, 2.5]]
