"""The names of Hyena's layers claim every tensor of a stack, once."""

import pytest

from lexome.catalog import new
from lexome.checkpoints import KeyMap, hyena_keys


@pytest.mark.parametrize("wrap", ["", "layer."])
def test_every_tensor_of_the_stack_has_one_name(wrap):
    model = new("hyenadna", width=8, depth=2, mlp_width=8, length=18, filter_width=4)
    keys = KeyMap(rename=hyena_keys("some.", wrap=wrap))
    tensors, ties = model.names()
    ours = {name for name in {*tensors, *ties} if not name.startswith("head.")}
    published = [p for claim in keys.published_names(ours) for p in claim.published]
    assert len(published) == len(ours) == len(set(published))
    resolution = keys.resolve(published)
    assert resolution.ours == ours
    assert not resolution.unclaimed
    assert not resolution.doubly
    parts = {name.split(".")[4] for name in published if ".mixer." in name}
    assert (parts == {"layer"}) == bool(wrap)
