"""How much of a sequence goes through at a time, and what is carried from part to part."""

import pytest
import torch

from lexome.catalog import new
from lexome.core import InputError
from lexome.inference.stretches import (
    carries_state,
    cutting_with_state,
    stretch_tokens,
    stretches,
)


def test_an_implicit_filter_takes_a_sequence_in_one_pass(tiny):
    model = tiny("hyenadna/hf_tiny")
    assert not carries_state(model)
    assert stretch_tokens(model, 50, None, 8) is None
    with pytest.raises(InputError, match="chunk_tokens"):
        stretch_tokens(model, 50, 8, 8)


def test_stretches_are_shorter_where_attention_looks_far_back(tiny):
    evo, mamba = tiny("evo/sh_8k_like"), tiny("mamba/mamba2_hf")
    assert stretch_tokens(mamba, 10**6, None, 2048) == 2048
    assert stretch_tokens(evo, 2000, None, 2048) == 2048
    assert stretch_tokens(evo, 131_072, None, 2048) == 128
    assert stretch_tokens(evo, 131_072, 512, 2048) == 512
    with pytest.raises(InputError, match="at least 1"):
        stretch_tokens(mamba, 100, 0, 2048)


def test_an_encoder_has_no_state_to_carry(tiny):
    model = tiny("gpn/convnet")
    assert not carries_state(model)
    with pytest.raises(InputError, match="does not read from left to right"):
        stretch_tokens(model, 50, 8, 8)


def test_sequences_are_whole_where_a_state_is_carried_and_nothing_else_is_asked(tiny):
    mamba, hyena = tiny("mamba/mamba2_hf"), tiny("hyenadna/hf_tiny")
    assert cutting_with_state(mamba, None, None).room is None
    assert cutting_with_state(mamba, 100, None).room == 99  # and a special token
    assert cutting_with_state(mamba, None, 10).room == 4095
    assert cutting_with_state(hyena, None, None).room == hyena.context - 1


def test_stretches_cover_a_batch_with_one_memory():
    inputs = {"input_ids": torch.arange(10)[None], "attention_mask": torch.ones(1, 10)}
    ((first, part),) = stretches(inputs, 10)
    assert (first, set(part)) == (0, set(inputs))
    parts = list(stretches(inputs, 4))
    assert [first for first, _ in parts] == [0, 4, 8]
    assert torch.cat([part["input_ids"] for _, part in parts], 1).equal(inputs["input_ids"])
    assert len({id(part["cache"]) for _, part in parts}) == 1


def test_many_streams_of_a_stretch_advance_the_memory_as_one_does():
    model = new("mamba", width=8, depth=2, states=4).eval()
    ids_BL = torch.randint(7, 10, (2, 9), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        whole = dict(model.backbone.streams([1, -1], input_ids=ids_BL))
        found = {1: [], -1: []}
        for _, part in stretches({"input_ids": ids_BL}, 4):
            for layer, x_BLD in model.backbone.streams([1, -1], **part):
                found[layer].append(x_BLD)
            assert part["cache"].position in {4, 8, 9}
    for layer, parts in found.items():
        torch.testing.assert_close(torch.cat(parts, 1), whole[layer])
