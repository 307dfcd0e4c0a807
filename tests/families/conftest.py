"""Fixture cases for the family tests: one folder per case, found, never listed.

A case is a folder with an io.json. `Case.take` hands out expected tensors and remembers them;
`Case.finish` fails if a tensor was never compared, so a case that a test does not understand
fails instead of passing.
"""

import json
import os
from functools import cached_property
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from lexome.catalog import families, load
from lexome.model import Model

HOUSE = (Path(__file__).parents[1] / "fixtures").resolve()
FIXTURES = Path(os.environ.get("LEXOME_FIXTURES", HOUSE)).resolve()

# Cases of systems that are here in part: what they need is not built yet.
NOT_YET = {
    "scgpt/attention_grn": "gene networks from attention",
    "scgpt/preprocess": "the fine-tuning preprocessor",
    "scgpt/release_files": "only lists the published vocabulary",
}
# Cases that describe published files without holding them.
DESCRIPTIONS = {"dnabert2/real_tokenizer", "gpn/golden_real_weights"}


class Case:
    """One fixture case."""

    def __init__(self, folder: Path):
        self.folder, self.system = folder, folder.parent.name
        self.taken: set[str] = set()

    def __repr__(self) -> str:
        return f"{self.system}/{self.folder.name}"

    @cached_property
    def io(self) -> dict:
        return json.loads((self.folder / "io.json").read_text())

    @cached_property
    def tensors(self) -> dict[str, torch.Tensor]:
        return load_file(self.folder / "io.safetensors")

    @property
    def checkpoint(self) -> Path:
        """Folder of the published files; some cases reuse a neighbour's, some keep a subfolder."""
        if "checkpoint" in self.io:
            return (self.folder / self.io["checkpoint"]).resolve()
        return self.folder / "checkpoint" if (self.folder / "checkpoint").is_dir() else self.folder

    def load(self, **options) -> Model:
        return load(self.checkpoint, device="cpu", **options)

    def take(self, name: str) -> torch.Tensor:
        self.taken.add(name)
        return self.tensors[name]

    def has(self, name: str) -> bool:
        return name in self.tensors

    def skip(self, *names: str) -> None:
        """Mark tensors that are inputs or are compared elsewhere."""
        self.taken.update(names)

    def check(self, name: str, actual: torch.Tensor, *, atol=1e-5, rtol=1e-5, where=None) -> None:
        """Compare with the stored tensor, at the positions where `where` is true."""
        expected = self.take(name)
        actual = actual.detach().reshape(expected.shape)
        if where is not None:
            actual, expected = actual[where], expected[where]
        torch.testing.assert_close(
            actual, expected, atol=atol, rtol=rtol, msg=lambda text: f"{self}: {name}\n{text}"
        )

    def finish(self) -> None:
        left = sorted(set(self.tensors) - self.taken)
        assert not left, f"{self} holds tensors that no test reads: {left}"


def cases(system: str | None = None) -> list[Case]:
    """Return all cases of a system, or of every system that has a family here."""
    found = []
    paths = sorted(FIXTURES.glob("*/*/io.json"))
    # Systems that another folder does not have, such as those whose cases were made here.
    missing = {p.parent.parent.name for p in HOUSE.glob("*/*/io.json")}
    missing -= {p.parent.parent.name for p in paths}
    paths += [p for name in sorted(missing) for p in sorted(HOUSE.glob(f"{name}/*/io.json"))]
    for path in paths:
        known = path.parent.parent.name
        if known in families() and system in (None, known):
            found.append(Case(path.parent))
    return found


def checkpoints(system: str | None = None) -> list[Case]:
    """Return the cases that hold a checkpoint of their own."""
    return [
        case
        for case in cases(system)
        if "checkpoint" not in case.io
        and repr(case) not in DESCRIPTIONS
        and any((case.checkpoint / family.config_file).is_file() for family in families().values())
    ]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    system = getattr(metafunc.module, "SYSTEM", None)
    for name, find in (("case", cases), ("checkpoint_case", checkpoints)):
        if name in metafunc.fixturenames:
            params = [
                pytest.param(
                    case,
                    id=repr(case),
                    marks=pytest.mark.skip(reason=f"not built yet: {NOT_YET[repr(case)]}")
                    if repr(case) in NOT_YET
                    else (),
                )
                for case in find(system)
                if repr(case) not in DESCRIPTIONS
            ]
            metafunc.parametrize(name, params)


def pytest_report_header() -> str:
    here = {p.parent.parent.name for p in FIXTURES.glob("*/*/io.json")}
    without = sorted(here - set(families()))
    return f"fixtures: {FIXTURES}" + (
        f"; no family yet for {', '.join(without)}" if without else ""
    )
