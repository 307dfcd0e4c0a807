"""The folder of a fine-tuning: whose it is, and whether a stopped run can go on in it."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lexome.core import InputError
from lexome.core.json_files import write_json
from lexome.inference.predictor import SETTINGS
from lexome.training.outcome import HISTORY, OUTPUTS, PREDICTIONS, SCORES
from lexome.training.search import SEARCH
from lexome.training.tuning import CHECKPOINT

_OWN = (
    *("asked.json", "model", HISTORY, SCORES, PREDICTIONS, OUTPUTS),
    *(CHECKPOINT, "runs", SEARCH),
)


def claim(folder: Path, asked: Mapping[str, Any], *, resume: bool, overwrite: bool) -> None:
    """Take a folder for a fine-tuning, or one that was killed up again.

    Parameters
    ----------
    folder
        Made if missing.
    asked
        All that decides what comes out.
    resume
        Whether to go on with what a kill has left.
    overwrite
        Whether to delete another run.

    Raises
    ------
    InputError
        If the folder holds something else.
    """
    asked = json.loads(json.dumps(asked, default=str))
    there = [folder / name for name in _OWN if (folder / name).exists()]
    note = folder / "asked.json"
    model = folder / "model"
    if there and model.exists() and not (note.is_file() or (model / SETTINGS).is_file()):
        raise InputError(
            f"{model} holds something that no fine-tuning wrote. Choose another folder for out, or "
            "remove it."
        )
    finished = (folder / SCORES).exists()
    begun = [p for p in there if p != note and (p.is_file() or any(p.rglob("*.*")))]
    if begun and not overwrite:
        if finished or not note.is_file():
            raise InputError(
                f"{begun[-1]} is there already. Pass overwrite=True to replace that run, or give "
                "another folder for out."
            )
        if resume:
            before = json.loads(note.read_text(encoding="utf-8"))
            other = [key for key in asked if asked[key] != before.get(key)]
            if not other:
                return
            raise InputError(
                f"{folder} holds an unfinished run with other settings: "
                + "; ".join(f"{k} was {before.get(k)!r}, now {asked[k]!r}" for k in other[:5])
                + ". Give the same to go on, pass overwrite=True to begin anew, or choose another "
                "folder for out."
            )
    for path in there:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    folder.mkdir(parents=True, exist_ok=True)
    write_json(note, asked)
