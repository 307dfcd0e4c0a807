import pytest
import torch

from lexome.core import InputError, UnknownName
from lexome.core import precision as precision_module
from lexome.core.precision import choose_device, choose_precision

CPU = torch.device("cpu")


def test_a_named_precision_is_taken_as_asked():
    assert choose_precision("bfloat16", CPU).dtype == torch.bfloat16
    assert choose_precision("float32", CPU).reason == "as asked"


@pytest.mark.parametrize(("native", "expected"), [(True, "bfloat16"), (False, "float32")])
def test_auto_follows_the_hardware_and_says_why(monkeypatch, native, expected):
    monkeypatch.setattr(precision_module, "native_bfloat16_cpu", lambda: native)
    choice = choose_precision("auto", CPU)
    assert choice.name == expected
    assert "bfloat16" in choice.reason


def test_a_misspelt_precision_is_an_error():
    with pytest.raises(UnknownName, match="Did you mean 'bfloat16'"):
        choose_precision("bfloat", CPU)


def test_a_device_that_is_not_there_is_an_error():
    assert choose_device("cpu") == CPU
    assert choose_device("auto").type in {"cpu", "cuda", "mps"}
    with pytest.raises(InputError, match="cannot be used here"):
        choose_device("xpu:7")
    with pytest.raises(InputError, match="cannot be used here"):
        choose_device("gpu")
