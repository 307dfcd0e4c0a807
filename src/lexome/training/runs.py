"""The folder of a training run: what it was asked, what it measured, where it can go on."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from lexome.core import InputError, atomic_path
from lexome.core.json_files import without_nan, write_json


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """What was measured after a step; None where it was not.

    Attributes
    ----------
    step
        Steps done.
    tokens
        Tokens trained on so far, over all processes.
    seconds
        Time so far, without pauses between a stop and a resumption.
    loss
        Mean training loss in nats per target since the last measurement.
    learning_rate
        Of the last step.
    validation_nats
        Mean surprise of a held-out target.
    validation_bits_per_base
        The same in bits per letter.
    validation_nats_error, validation_bits_per_base_error
        Their standard errors over the held-out windows.
    """

    step: int
    tokens: int
    seconds: float
    loss: float | None = None
    learning_rate: float | None = None
    validation_nats: float | None = None
    validation_bits_per_base: float | None = None
    validation_nats_error: float | None = None
    validation_bits_per_base_error: float | None = None


class Watcher(Protocol):
    """What wants to hear of every measurement as it is made."""

    def __call__(self, measurement: Measurement, /) -> object:
        """Take note."""
        ...


class Run:
    """The folder of a run.

    Parameters
    ----------
    folder
        ``run.json`` says what was asked, ``metrics.jsonl`` has one measurement a line,
        ``checkpoints/`` what a resumption needs, ``tensorboard/`` the same curves, ``model/`` the
        final model, ``best/`` that of the best validation, ``windows/`` what each held-out window
        cost, ``result.json`` the end.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.model, self.best = folder / "model", folder / "best"
        self.checkpoints, self.tensorboard = folder / "checkpoints", folder / "tensorboard"
        self.cache = folder / "cache"
        self._windows = folder / "windows"
        self._metrics = folder / "metrics.jsonl"
        self._asked, self._result = folder / "run.json", folder / "result.json"

    def claim(self, asked: Mapping[str, Any], *, resume: bool) -> None:
        """Take the folder for a run, or the run in it up again.

        Parameters
        ----------
        asked
            All that decides the loss curve, as JSON can hold it.
        resume
            Whether to go on with what is there; otherwise a run in the folder is deleted.

        Raises
        ------
        InputError
            If the folder holds another run, or files that are no run.
        """
        asked = json.loads(json.dumps(without_nan(asked)))  # as it is written
        if not resume:
            self._clear()
        if self._asked.is_file() and self._has_begun():
            before = json.loads(self._asked.read_text(encoding="utf-8"))
            other = [key for key in asked if asked[key] != before.get(key)]
            if other:
                raise InputError(
                    f"{self.folder} holds a run with other settings: "
                    + "; ".join(
                        f"{key} was {before.get(key)!r}, now {asked.get(key)!r}" for key in other
                    )
                    + ". Choose another folder for out, or resume=False to delete that run."
                )
            return
        strange = [path.name for path in self._own_names() if path.exists()]
        if strange and not self._asked.is_file():
            raise InputError(
                f"{self.folder} has {', '.join(strange)} but no run.json, so it is not known what "
                "run they belong to. Choose another folder for out, or remove them."
            )
        self.folder.mkdir(parents=True, exist_ok=True)
        write_json(self._asked, asked)

    def confirm(self, what: str, value: str) -> None:
        """Write down what a run was made of, or check that it still is.

        Raises
        ------
        InputError
            If the run in the folder was made of something else.
        """
        asked = json.loads(self._asked.read_text(encoding="utf-8"))
        if what not in asked or not self._has_begun():
            write_json(self._asked, asked | {what: value})
        elif asked[what] != value:
            raise InputError(
                f"{self.folder} holds a run with other contents of {what}. Give what that run was "
                "started with, choose another folder for out, or resume=False to delete it."
            )

    def _has_begun(self) -> bool:
        """Tell whether there is anything yet that other settings could spoil."""
        return self.latest_checkpoint() is not None or bool(self.history())

    def _own_names(self) -> list[Path]:
        own = [self.model, self.best, self.checkpoints, self._windows]
        return [*own, self._metrics, self._result]

    def _clear(self) -> None:
        if self._asked.is_file():
            for path in (*self._own_names(), self.tensorboard, self._asked):
                if path.is_dir():
                    shutil.rmtree(path)
                else:
                    path.unlink(missing_ok=True)

    # ------------------------------------------------------------ measurements

    def history(self) -> list[Measurement]:
        """Return all measurements so far."""
        if not self._metrics.is_file():
            return []
        known = {field.name for field in fields(Measurement)}
        lines = self._metrics.read_text(encoding="utf-8").splitlines()
        return [
            Measurement(**{k: v for k, v in json.loads(line).items() if k in known})
            for line in lines
            if line.endswith("}")  # the last line may be cut off by a kill
        ]

    def note(self, measurement: Measurement) -> None:
        """Add a measurement."""
        with self._metrics.open("a", encoding="utf-8") as stream:
            stream.write(_line(measurement))

    def note_windows(self, when: str, windows_W3: np.ndarray) -> None:
        """Keep what each held-out window cost: ``"before"`` the first step, or ``"last"``."""
        self._windows.mkdir(exist_ok=True)
        with atomic_path(self._windows / f"{when}.npy") as temporary, temporary.open("wb") as out:
            np.save(out, windows_W3)

    def windows(self, when: str) -> np.ndarray | None:
        """Return what `note_windows` kept, if it has."""
        path = self._windows / f"{when}.npy"
        return np.load(path) if path.is_file() else None

    # ------------------------------------------------------------- checkpoints

    def seal(self, checkpoint: Path, *, keep: int) -> None:
        """Mark a checkpoint as whole and delete all but the newest `keep`."""
        (checkpoint / "whole").touch()
        for old in self._whole_checkpoints()[:-keep]:
            (old / "whole").unlink()
            shutil.rmtree(old)

    def latest_checkpoint(self) -> Path | None:
        """Return the newest checkpoint that was written to its end."""
        return next(reversed(self._whole_checkpoints()), None)

    def tidy(self, checkpoint: Path | None) -> None:
        """Drop what was done after a checkpoint and is now done again."""
        step = step_of(checkpoint) if checkpoint else 0
        kept = [each for each in self.history() if each.step <= step]
        with atomic_path(self._metrics) as temporary:
            temporary.write_text("".join(map(_line, kept)), encoding="utf-8")
        whole = self._whole_checkpoints()
        for path in self.checkpoints.glob("checkpoint-*"):
            if path not in whole:
                shutil.rmtree(path)

    def _whole_checkpoints(self) -> list[Path]:
        found = [p.parent for p in self.checkpoints.glob("checkpoint-*/whole")]
        return sorted(found, key=step_of)

    # ------------------------------------------------------------------ result

    def finish(self, result: Mapping[str, Any]) -> None:
        """Write down that the run is done, and what came out."""
        write_json(self._result, result)

    def asked(self) -> dict[str, Any]:
        """Return what was asked of the run that claimed the folder."""
        return json.loads(self._asked.read_text(encoding="utf-8"))

    def result(self) -> dict[str, Any] | None:
        """Return what came out, None while the run is not done."""
        if not self._result.is_file():
            return None
        return json.loads(self._result.read_text(encoding="utf-8"))


def step_of(checkpoint: Path) -> int:
    """Return after which step a checkpoint was written."""
    return int(checkpoint.name.rpartition("-")[2])


def _line(measurement: Measurement) -> str:
    values = {key: value for key, value in asdict(measurement).items() if value is not None}
    return json.dumps(values) + "\n"
