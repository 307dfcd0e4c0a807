"""The folder of a study: what was asked, the letters its trainings share, and what came out."""

import csv
import json
import os
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from lexome import __version__
from lexome.core import InputError, atomic_path
from lexome.core.json_files import without_nan, write_json


def claim_study(
    plan: Any, *, may_change: Collection[str], first: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Write a plan to its folder, or check that it is the one that is there.

    Parameters
    ----------
    plan
        A dataclass with the folder as `out`.
    may_change
        Fields that a later call may have otherwise, such as lists that grow.
    first
        Facts of the first call that later ones keep.

    Returns
    -------
    The plan as it is written, with `first` as of the first call.

    Raises
    ------
    InputError
        If the folder holds a study with other settings.
    """
    path = Path(plan.out) / "plan.json"
    asked = json.loads(json.dumps(without_nan(asdict(plan)), default=str))
    del asked["out"]
    kept = dict(first or {})
    if path.is_file():
        before = json.loads(path.read_text(encoding="utf-8"))
        kept = {name: before[name] for name in kept}
        other = [k for k in asked if k not in may_change and asked[k] != before.get(k)]
        if other:
            raise InputError(
                f"{plan.out} holds a study with other settings: "
                + "; ".join(f"{k} was {before.get(k)!r}, now {asked[k]!r}" for k in other)
                + ". Choose another folder for out, or delete this one."
            )
    asked |= kept
    write_json(path, asked)
    return asked


def share_letters(run: Path, cache: Path) -> None:
    """Let a training find its letters in the study's cache."""
    link = run / "cache"
    if not link.exists():
        run.mkdir(parents=True, exist_ok=True)
        with suppress(OSError):  # where links are not allowed, each run makes its own
            # relative, so that the study can be moved
            link.symlink_to(os.path.relpath(cache, run), target_is_directory=True)


def write_study(study: Any, results: Sequence[Any], name: str) -> None:
    """Write ``NAME.json`` with all of a study and ``NAME.tsv`` with a line for each result.

    Parameters
    ----------
    study
        A dataclass with the folder as `out`.
    results
        Dataclasses of one kind, at least one.
    name
        Of the files.
    """
    kept = {"lexome": __version__, **asdict(study), "out": str(study.out)}
    write_json(study.out / f"{name}.json", kept)
    names = [each.name for each in fields(results[0])]
    with (
        atomic_path(study.out / f"{name}.tsv") as temporary,
        temporary.open("w", encoding="utf-8", newline="") as stream,
    ):
        writer = csv.writer(stream, delimiter="\t", lineterminator="\n")
        writer.writerow(names)
        writer.writerows([getattr(result, n) for n in names] for result in results)
