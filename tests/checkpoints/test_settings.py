"""Settings that change what a model computes are followed or refused, never passed over."""

import pytest

from lexome.checkpoints import expect_settings
from lexome.core import CheckpointError

KNOWN = {"act": ("silu", "swish"), "layers": ([], None)}


def test_what_is_usual_or_left_out_is_taken():
    for raw in ({}, {"act": "swish"}, {"act": "silu", "layers": None}, {"other": 3}):
        expect_settings(raw, KNOWN, "Mamba")


def test_another_value_is_named_with_the_usual_one():
    with pytest.raises(CheckpointError) as caught:
        expect_settings({"act": "gelu", "layers": [1]}, KNOWN, "Mamba")
    assert "act 'gelu', layers [1]" in str(caught.value)
    assert "Expected act 'silu', layers []" in str(caught.value)
