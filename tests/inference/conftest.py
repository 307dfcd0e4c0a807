"""Tiny published models, one for each wiring, loaded once."""

from functools import cache
from pathlib import Path

import pytest

from lexome.catalog import load
from lexome.model import Model

CASES = (
    "gpn/convnet",
    "gpn/convnet_v2",
    "gpn/bytenet",
    "dnabert2/mlm_4heads",
    "hyenadna/hf_tiny",
    "hyenadna/orig_tiny_ckpt",
)


@cache
def _loaded(folder: Path) -> Model:
    return load(folder, device="cpu")


@pytest.fixture
def tiny(fixtures: Path):
    """Return a function from a case's name to its model."""

    def model(case: str) -> Model:
        if not (fixtures / case).is_dir():
            pytest.skip(f"{fixtures} has no case {case}")
        return _loaded(fixtures / case)

    return model


@pytest.fixture(params=CASES)
def each(request: pytest.FixtureRequest, tiny) -> Model:
    """Return the model of every case in turn."""
    return tiny(request.param)
