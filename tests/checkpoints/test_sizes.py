from dataclasses import dataclass

import pytest

from lexome.checkpoints import read_sizes, write_sizes


@dataclass
class Config:
    width: int = 8
    heads: int = 2
    wiring: str = "v1"
    classes: int = 3
    problem: str | None = None


def test_what_is_written_is_read_again():
    raw = write_sizes(Config(width=16))
    assert raw["hidden_size"] == 16
    assert raw["id2label"] == {"0": "LABEL_0", "1": "LABEL_1", "2": "LABEL_2"}
    assert "problem_type" not in raw
    usual = {"problem_type": None, "hidden_size": 4}
    read = read_sizes(raw | {"wiring": "v2"}, Config, usual)
    assert read == {"width": 16, "heads": 2, "problem": None}
    raw = write_sizes(Config(problem="regression"))
    assert read_sizes(raw, Config, usual)["problem"] == "regression"


def test_a_missing_size_is_not_guessed():
    with pytest.raises(KeyError, match="num_attention_heads"):
        read_sizes({"hidden_size": 8}, Config)


@pytest.mark.parametrize("size", ["8", 8.0, True, None, [8], -8])
def test_what_is_no_size_is_refused(size):
    with pytest.raises(ValueError, match=r"hidden_size is .* expected a whole number"):
        read_sizes({"hidden_size": size, "num_attention_heads": 2}, Config, {"problem_type": None})
