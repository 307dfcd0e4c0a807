"""A model with a head for classes, labels or values; how it is kept in a folder.

Beside the backbone's official files, or in their stead where the backbone is as published or only
has an adapter: ``head.safetensors`` and ``finetune.json``. Where the head is one that the family is
published with, it stands in the official files too, and there is no ``head.safetensors``.
Axes: N items, D width, L letters, C scores: classes, labels or values.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from math import nan
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor

from lexome.catalog import load
from lexome.core import CheckpointError, CheckpointMismatch, InputError, atomic_path, pick
from lexome.core.json_files import write_json
from lexome.inference.adapters import ADAPTER, ADAPTERS, read_adapter, save_adapter
from lexome.inference.batching import windows
from lexome.inference.embedding import POOLINGS, How, item_vectors
from lexome.inference.heads import Head, is_official, put_official, read_head, take_official
from lexome.inference.letters import letter_places, letter_scores
from lexome.inference.reading import Cutting, Item, cutting, prepare, tokenizer_of
from lexome.model import Model
from lexome.sequence.alphabets import reverse_complement

SETTINGS, HEAD = "finetune.json", "head.safetensors"
OF_LETTERS = frozenset({"token_classification", "token_regression"})
"""The tasks whose items are the letters of the sequences."""

Pooling = Literal["mean", "max", "cls", "last", "concat"]

_WINDOW_BATCHES = 16  # batches' worth of tokens whose letters are in memory together
_PROBLEMS = {  # our task -> what transformers calls it
    "classification": "single_label_classification",
    "multilabel": "multi_label_classification",
    "regression": "regression",
}


@dataclass(eq=False, kw_only=True)
class Predictor:
    """A model whose vectors a head turns into classes, labels or values.

    Attributes
    ----------
    model
        The backbone; its pretraining head, if it has one, is not used.
    head
        Vector -> C scores, float32.
    task
        ``classification``, ``multilabel``, ``regression``, or one of `OF_LETTERS`, whose vectors
        are those of tokens and whose scores those of letters.
    classes
        Labels in the order of the scores; none where values are predicted.
    columns
        Names of the values.
    pooling
        How the vector of a sequence is made, one of `POOLINGS`; ``token`` for letters.
    piece_tokens, overlap_tokens
        How longer sequences are cut, as in `embed`; special tokens counted.
    centre, scale
        A value is the head's score times `scale` plus `centre`; one number each for all values,
        or one for each.
    both_strands
        Whether the vector of a sequence is the mean of those of its two strands.
    unlabelled
        Mark of a letter that has no class.
    method
        What of the model was trained: ``"full"``, ``"head"``, or one of `ADAPTERS`.
    base
        Where the model came from: ``source`` and ``sha256``.
    facts
        What else is to be kept with it: scores, settings of the training.
    """

    model: Model
    head: Head
    task: str
    classes: tuple[str, ...]
    columns: tuple[str, ...] = ("label",)
    pooling: str
    piece_tokens: int
    overlap_tokens: int
    centre: tuple[float, ...] = (0.0,)
    scale: tuple[float, ...] = (1.0,)
    both_strands: bool = False
    unlabelled: str = ""
    method: str
    base: Mapping[str, str | None]
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def how(self) -> How:
        """What is pooled."""
        return How(
            parts=POOLINGS[self.pooling],
            layer=-1,
            # A letter of a class follows the sequence, and not the mark of its end.
            special_tokens=self.pooling != "token" and self.head.kind != "letters",
            normalise=False,
            width=self.model.config.width,
        )

    @property
    def cutting(self) -> Cutting:
        """How longer sequences are cut."""
        return cutting(self.model, self.piece_tokens, self.overlap_tokens)

    def vectors(self, items: list[Item], budget: int, advance: Callable[[float], object]) -> Any:
        """Return pooled vectors, shape (N, parts * D), NaN where an item is refused.

        With `both_strands`, items must hold their sequence. For a head that reads tokens, a list
        of (T, D), without tokens where an item is refused.
        """
        if self.head.reads_tokens:
            return item_vectors(self.model, self.how, budget, items, advance)
        if not items:
            return np.zeros((0, len(self.how.parts) * self.how.width), np.float32)
        found = np.stack(item_vectors(self.model, self.how, budget, items, advance))
        if not self.both_strands:
            return found
        others = item_vectors(self.model, self.how, budget, self.other_strands(items), lambda _: 0)
        return (found + np.stack(others)) * np.float32(0.5)

    def other_strands(self, items: Sequence[Item]) -> list[Item]:
        """Return the reverse complements of items that hold their sequence; not of refused ones."""
        ready = [item for item in items if item.status == "ok"]
        turned = iter(
            prepare(
                ((i.id, reverse_complement(i.content), i.length, i.fields) for i in ready),
                tokenizer_of(self.model),
                cutting=self.cutting,
                max_unknown=1.0,
            )
        )
        return [next(turned) if item.status == "ok" else item for item in items]

    def outputs(self, vectors: Any) -> NDArray:
        """Turn what `vectors` gives into what `measure` takes.

        Returns
        -------
        Probabilities (N, C), float32, or values (N,) or (N, C), float64.
        """
        head = self._still_head()
        with torch.no_grad():
            # One item at a time, so that the sums do not depend on how many there are.
            scores = [
                head(torch.from_numpy(vector)) if vector.size else torch.full((head.scores,), nan)
                for vector in vectors
            ]
        return self._outputs(torch.stack(scores) if scores else torch.zeros(0, head.scores))

    def letter_outputs(
        self, items: list[Item], budget: int, advance: Callable[[float], object]
    ) -> Iterator[NDArray]:
        """Yield what :meth:`outputs` gives, of the letters of each item; no rows if refused.

        Parameters
        ----------
        items
            Prepared with the letters of their tokens.
        budget, advance
            As for :meth:`vectors`.
        """
        head = self._still_head()
        for window in windows(items, lambda i: i.tokens, max_size=_WINDOW_BATCHES * budget):
            found = item_vectors(self.model, self.how, budget, window, advance)
            for item, tokens_TD in zip(window, found, strict=True):
                if item.status != "ok":
                    yield self._outputs(torch.zeros(0, head.scores))
                    continue
                assert item.spans is not None, "asked for when the items were prepared"
                places = letter_places(item.spans, item.length, head.places or 1)
                with torch.no_grad():
                    scores_LC = letter_scores(head(torch.from_numpy(tokens_TD)), places)
                yield self._outputs(scores_LC)

    def _still_head(self) -> Head:
        """Return the head as it is now, on the CPU."""
        return deepcopy(self.head).cpu().eval()

    def _outputs(self, scores_NC: Tensor) -> NDArray:
        if not self.classes:
            values = scores_NC.double().numpy() * np.array(self.scale) + np.array(self.centre)
            return values[:, 0] if len(self.columns) == 1 else values
        if self.task == "multilabel":
            return scores_NC.sigmoid().numpy()
        return scores_NC.softmax(-1).numpy()

    # ---------------------------------------------------------------- files

    def save(self, folder: str | Path) -> Path:
        """Write what :func:`load_predictor` reads.

        With ``"full"`` the model is written in its official layout, with its official head if the
        head is that; otherwise the folder points to the base, and an adapter stands beside it in
        PEFT's form.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        official = self.method == "full" and is_official(self.model, self.head, self.pooling)
        centre, scale = self.centre, self.scale
        if official:
            self._save_official(folder)
            centre, scale = (0.0,), (1.0,)
        elif self.method == "full":
            self.model.save(folder)
        elif self.method in ADAPTERS:
            save_adapter(self.model, folder, self.base["source"])
        if official:
            (folder / HEAD).unlink(missing_ok=True)
        else:
            _write_tensors(folder / HEAD, self.head.state_dict())
        settings = {
            "method": self.method,
            "task": self.task,
            "classes": list(self.classes),
            "columns": list(self.columns),
            "pooling": self.pooling,
            **self.head.settings(),
            "official_head": official,
            "piece_tokens": self.piece_tokens,
            "overlap_tokens": self.overlap_tokens,
            "centre": list(centre),
            "scale": list(scale),
            "both_strands": self.both_strands,
            "unlabelled": self.unlabelled,
            "base": dict(self.base),
            **self.facts,
        }
        write_json(folder / SETTINGS, settings)
        return folder

    def _save_official(self, folder: Path) -> None:
        """Write the model with its official head; units of values go into the last matrix."""
        head = deepcopy(self.head).cpu()
        scale = torch.tensor(self.scale).expand(head.scores)
        centre = torch.tensor(self.centre).expand(head.scores)
        with torch.no_grad():
            head.out.weight.mul_(scale[:, None])
            head.out.bias.mul_(scale).add_(centre)
        model = put_official(self.model, head)
        model.save(folder)
        # transformers wants to know more than the sizes.
        path = folder / model.family.config_file
        raw = json.loads(path.read_text(encoding="utf-8"))
        before = model.origin.raw_config if model.origin else {}
        names = [str(n) for n in raw.get("architectures") or before.get("architectures") or ()]
        labels = self.classes or self.columns
        raw = {**before, **raw} | {
            "id2label": {str(i): label for i, label in enumerate(labels)},
            "label2id": {label: i for i, label in enumerate(labels)},
            "problem_type": _PROBLEMS[self.task],
            "architectures": [
                name.replace("ForMaskedLM", "ForSequenceClassification") for name in names
            ],
        }
        write_json(path, raw)


_KEPT = (  # settings that are attributes of a predictor
    *("method", "task", "classes", "columns", "pooling", "piece_tokens", "overlap_tokens"),
    *("centre", "scale", "both_strands", "unlabelled", "base"),
)


def load_predictor(
    folder: str | Path,
    *,
    base: str | Path | None = None,
    device: str = "auto",
    precision: str = "float32",
) -> Predictor:
    """Read a fine-tuned model.

    Parameters
    ----------
    folder
        What `lexome finetune` wrote: ``out/model``, or `out` itself.
    base
        Where the model is now that it was fine-tuned from, if that has moved. Only heads and
        adapters need it.
    device, precision
        As for `lexome.load`.

    Raises
    ------
    CheckpointError
        If the folder holds no fine-tuned model, or the base is not there.
    CheckpointMismatch
        If the base is not the one that head or adapter were trained on.
    """
    folder = Path(folder)
    if not (folder / SETTINGS).is_file() and (folder / "model" / SETTINGS).is_file():
        folder = folder / "model"
    if not folder.exists():
        raise CheckpointError(
            f"there is no folder {folder}. Expected what `lexome finetune` wrote, its out/model."
        )
    if not (folder / SETTINGS).is_file():
        raise CheckpointError(
            f"{folder} holds no fine-tuned model (no {SETTINGS}). Expected what `lexome finetune` "
            "wrote; give its out/model."
        )
    try:
        settings = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
        kept: dict[str, Any] = {name: settings.pop(name) for name in _KEPT}
        kept |= {n: tuple(kept[n]) for n in ("classes", "columns", "centre", "scale")}
        form = {name: settings.pop(name) for name in ("head", "activation", "places")}
        official = settings.pop("official_head")
        head = None if official else read_head(load_file(folder / HEAD), form)
        pick("pooling", kept["pooling"], POOLINGS)
    except (KeyError, ValueError, RuntimeError, FileNotFoundError) as error:
        raise CheckpointError(
            f"{folder} is no whole fine-tuned model ({type(error).__name__}: {error}). Expected "
            f"{SETTINGS} and {HEAD} as `lexome finetune` wrote them; run it again."
        ) from error
    if kept["method"] == "full":
        if base is not None:
            raise InputError(
                f"base was given, but {folder} holds a whole model, which needs none. Leave it out."
            )
        model = load(folder, family=settings.get("family"), device=device, precision=precision)
    else:
        model = _load_base(folder, kept["base"], base, device=device, precision=precision)
    if kept["method"] in ADAPTERS:
        read_adapter(model, folder)
    head = head or take_official(model)
    return Predictor(model=model.eval(), head=head, facts=settings, **kept)


def _load_base(
    folder: Path,
    recorded: Mapping[str, str | None],
    given: str | Path | None,
    *,
    device: str,
    precision: str,
) -> Model:
    source = given or recorded["source"]
    assert source is not None, "a base has a source"
    try:
        model = load(source, device=device, precision=precision)
    except CheckpointError as error:
        error.add_note(
            f"{folder} needs the model that it was trained on; if that has moved, give base=."
        )
        raise
    found = model.checkpoint_sha256()
    if found != recorded["sha256"]:
        raise CheckpointMismatch(
            f"{folder} was trained on {recorded['source']} with the SHA-256 {recorded['sha256']}, "
            f"but {source} has {found}. Expected the very same weights; give their folder as base."
        )
    return model


def digest(folder: str | Path) -> str:
    """Return a hash of what a folder holds beside the backbone."""
    found = hashlib.sha256()
    for name in (SETTINGS, HEAD, ADAPTER):
        path = Path(folder) / name
        if path.is_file():
            found.update(path.read_bytes())
    return found.hexdigest()


def _write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    with atomic_path(path) as temporary:
        save_file({k: v.detach().cpu().contiguous() for k, v in tensors.items()}, temporary)
