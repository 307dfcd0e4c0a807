import pytest
import torch

from lexome.checkpoints import KeyMap, explain, to_ours, to_published
from lexome.core import CheckpointMismatch

KEYS = KeyMap(
    rename={"net.{i}.dense.{p}": "layers.{i}.mlp.{p}", "emb": "embed.weight"},
    join={"layers.{i}.qkv.{p}": ("net.{i}.q.{p}", "net.{i}.k.{p}", "net.{i}.v.{p}")},
    split={"gates.{p}": ("gate.{p}", "value.{p}")},
    turn={"net.{i}.conv1d": "layers.{i}.mix.weight"},
    unused={"counter.{rest}": "a counter"},
)
PUBLISHED = {
    "emb": torch.arange(6.0).view(3, 2),
    "net.0.dense.weight": torch.ones(2, 2),
    "net.0.q.weight": torch.full((2, 2), 1.0),
    "net.0.k.weight": torch.full((2, 2), 2.0),
    "net.0.v.weight": torch.full((2, 2), 3.0),
    "gates.bias": torch.arange(4.0),
    "net.0.conv1d": torch.arange(6.0).view(2, 3),
}
OURS = (
    *("embed.weight", "layers.0.mlp.weight", "layers.0.qkv.weight", "gate.bias", "value.bias"),
    "layers.0.mix.weight",
)


def test_every_key_finds_its_place():
    resolution = KEYS.resolve(PUBLISHED)
    assert resolution.ours == set(OURS)
    assert resolution.faults(OURS) == 0


def test_the_way_there_and_back_is_the_identity():
    ours = to_ours(KEYS.resolve(PUBLISHED), PUBLISHED)
    assert torch.equal(ours["layers.0.qkv.weight"][2:4], torch.full((2, 2), 2.0))
    assert ours["value.bias"].tolist() == [2.0, 3.0]
    assert ours["layers.0.mix.weight"].tolist() == [[0.0, 3.0], [1.0, 4.0], [2.0, 5.0]]
    again = to_published(KEYS.published_names(ours), ours)
    assert set(again) == set(PUBLISHED)
    assert all(torch.equal(again[name], PUBLISHED[name]) for name in PUBLISHED)


@pytest.mark.parametrize(
    ("name", "odd"),
    [
        ("net.0.k.weight", torch.ones(2, 3)),  # of a join
        ("net.0.k.weight", torch.ones(2, 2, dtype=torch.int8)),
        ("gates.bias", torch.arange(5.0)),  # of a split
        ("gates.bias", torch.tensor(1.0)),
        ("net.0.conv1d", torch.ones(2, 3, 1)),  # turned
    ],
)
def test_tensors_that_do_not_fit_a_rule_are_named_with_their_shapes(name, odd):
    with pytest.raises(CheckpointMismatch, match="shape") as caught:
        to_ours(KEYS.resolve(PUBLISHED), {**PUBLISHED, name: odd})
    assert f"{name} {tuple(odd.shape)}" in str(caught.value)


def test_a_key_claimed_twice_is_a_fault():
    table = KeyMap(rename={"a.{p}": "x.{p}", "a.weight": "y.weight"})
    assert table.resolve(["a.weight"]).doubly == ("a.weight",)


def test_a_join_with_a_missing_part_is_a_fault():
    published = {k: v for k, v in PUBLISHED.items() if k != "net.0.k.weight"}
    resolution = KEYS.resolve(published)
    assert resolution.incomplete == {"net.0.k.weight": "layers.0.qkv.weight"}
    assert resolution.faults(OURS) > 0


def test_unused_keys_keep_their_reason():
    assert KEYS.resolve(["counter.steps.n"]).unused == {"counter.steps.n": "a counter"}


def test_optional_names_may_be_filled_or_not():
    table = KeyMap(rename={"a": "x", "b": "y"})
    assert table.resolve(["a"]).faults(["x"], ["y"]) == 0
    assert table.resolve(["a", "b"]).faults(["x"], ["y"]) == 0
    assert table.resolve(["a", "b"]).faults(["x"]) == 1


def test_a_name_without_a_rule_cannot_be_saved():
    with pytest.raises(CheckpointMismatch, match=r"no published name for head\.bias"):
        KEYS.published_names(["head.bias"])
    assert not KEYS.names_all([*OURS, "head.bias"])
    assert KEYS.names_all(OURS)


def test_the_error_names_what_is_missing_and_what_looks_like_it():
    published = {k.replace("dense", "dens"): v for k, v in PUBLISHED.items()}
    text = str(explain(KEYS.resolve(published), KEYS, "f.bin", OURS))
    assert "f.bin: 1 keys missing and 1 not expected" in text
    assert "missing     net.0.dense.weight   (the file has net.0.dens.weight)" in text
    assert "unexpected  net.0.dens.weight   (nearest: net.0.dense.weight)" in text


def test_long_lists_are_cut():
    table = KeyMap(rename={"a.{i}": "x.{i}"})
    wanted = [f"x.{i}" for i in range(30)]
    assert "and 22 more" in str(explain(table.resolve([]), table, "f", wanted))


def test_a_table_without_its_prefix_is_the_same_in_all_parts():
    keymap = KeyMap(
        rename={"x.a": "a", "head": "head"},
        join={"qk": ("x.q", "x.k")},
        split={"x.v": ("v", "w")},
        unused={"x.b": "a reason"},
    ).without("x.")
    assert keymap.rename == {"a": "a", "head": "head"}
    assert keymap.join == {"qk": ("q", "k")}
    assert keymap.split == {"v": ("v", "w")}
    assert keymap.unused == {"b": "a reason"}
