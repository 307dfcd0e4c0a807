"""What `lexome.load` returns: a backbone, a head, a tokenizer and where they came from.

Axes: B batch, L tokens, D width, V vocabulary.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lexome.blocks import Stack
from lexome.checkpoints import (
    Family,
    Layout,
    Revision,
    Weights,
    explain,
    to_ours,
    to_published,
    write_weights,
)
from lexome.core import CheckpointError, CheckpointMismatch, InputError, atomic_path, pick
from lexome.tokenizers import Tokenizer


@dataclass(frozen=True, kw_only=True)
class Output:
    """What a model gives for one batch.

    Attributes
    ----------
    last_hidden_state
        Final hidden state (B, L, D), after the final norm where the system has one.
    logits
        Scores of the head, or None for a bare backbone or where none were asked for.
    predictions
        All that the head gives, by name, for heads that give more than one thing; the first of
        them is `logits`.
    loss
        Mean loss in nats where `labels` were given.
    hidden_states
        The stream after 0, 1, 2, ... layers where asked for.
    """

    last_hidden_state: Tensor
    logits: Tensor | None = None
    predictions: Mapping[str, Tensor] = field(default_factory=dict)
    loss: Tensor | None = None
    hidden_states: tuple[Tensor, ...] = ()


@dataclass(kw_only=True)
class Origin:
    """The files a model was read from; what saving needs to give them back unchanged.

    Attributes
    ----------
    folder
        Where they lay.
    release
        Name of the release, or the folder's name.
    layout, files
        The published form and its weight files.
    raw_config, config_copied
        The published configuration, and whether it is a side file that is copied as it is.
    side_files
        {file name: content} of tokenizer and other small files.
    unused
        Published tensors that the model does not need.
    places
        {published key: the file that held it}, in file order.
    dtypes
        {published key: number type in the file}.
    sha256
        Hash of the weight files, once computed.
    revision
        What they were downloaded as, where that can be told.
    """

    folder: Path
    release: str
    layout: Layout
    files: tuple[Path, ...]
    raw_config: Mapping[str, Any]
    config_copied: bool = False
    side_files: Mapping[str, bytes] = field(default_factory=dict)
    unused: Mapping[str, Tensor] = field(default_factory=dict)
    places: Mapping[str, Path] = field(default_factory=dict)
    dtypes: Mapping[str, torch.dtype] = field(default_factory=dict)
    sha256: str | None = None
    revision: Revision | None = None


class Model(nn.Module):
    """A genomic language model.

    Attributes
    ----------
    family
        The published system.
    config
        Its sizes.
    backbone, head
        The network and what stands on it; `head` is None for a bare backbone.
    head_name
        Name of the head in the family.
    tokenizer
        Items to ids, as the authors' tokenizer does; None for a new model that has none yet.
    origin
        The files it came from; None for a new model.
    rounded
        Whether `cast` has narrowed the weights, so that they are no longer the published ones.
    """

    backbone: Stack
    head: Any

    def __init__(
        self,
        family: Family,
        config: Any,
        *,
        head: str | None,
        tokenizer: Tokenizer | None = None,
    ):
        super().__init__()
        self.family, self.config, self.tokenizer = family, config, tokenizer
        self.head_name = None if head is None else pick("head", head, family.heads)
        self.backbone = family.backbone(config)  # type: ignore[assignment]
        self.head = family.heads[head](config, self.backbone) if head else None
        self.origin: Origin | None = None
        self.rounded = False

    # ---------------------------------------------------------------- running

    def forward(
        self,
        input_ids: Tensor | None = None,
        *,
        labels: Tensor | None = None,
        output_hidden_states: bool = False,
        positions: tuple[Tensor, Tensor] | None = None,
        **inputs: Any,
    ) -> Output:
        """Run one batch.

        Parameters
        ----------
        input_ids
            Token ids (B, L).
        labels
            Targets of the head: ids for token heads (-100 where there is no target), numbers for
            heads that predict values (NaN where there is no target), classes for classifiers.
        output_hidden_states
            Whether to return the stream between the layers.
        positions
            (rows, columns) of the tokens at which scores are wanted; the head then runs on these
            alone and `logits` has shape (positions, V).
        **inputs
            What else the system takes: ``attention_mask``, ``values``, ``inputs_embeds``, ...

        Raises
        ------
        InputError
            If text is given instead of ids, or labels and the model has no head.
        """
        if input_ids is not None:
            if not isinstance(input_ids, Tensor):
                raise InputError(
                    f"a model was called with a {type(input_ids).__name__}. Expected token ids: "
                    "model(**model.tokenizer(['ACGT'])), or lexome.embed(model, ['ACGT'])."
                )
            inputs["input_ids"] = input_ids
        extra = {k: inputs.pop(k) for k in ("loss_weight",) if k in inputs}
        # A head may want the pieces of a long input by themselves.
        pieces = getattr(self.head, "piece_tokens", None)
        hidden = self.backbone(keep=output_hidden_states, piece_tokens=pieces, **inputs)
        batch = inputs | extra
        scores = loss = None
        if self.head is not None:
            at = hidden.last if positions is None else hidden.last[positions]
            scores = self.head(at, batch)
        if labels is not None:
            if self.head is None:
                raise InputError(
                    "labels were given, but this model has no head to make scores. Load it with "
                    f"head= one of {', '.join(self.family.heads)}."
                )
            loss = self.head.loss(scores, labels, batch)
        named = scores if isinstance(scores, Mapping) else {}
        return Output(
            last_hidden_state=hidden.last,
            logits=next(iter(named.values())) if named else scores,
            predictions=named,
            loss=loss,
            hidden_states=hidden.states,
        )

    def attention(
        self, input_ids: Tensor | None = None, *, layers: Sequence[int] = (-1,), **inputs: Any
    ) -> tuple[Tensor, ...]:
        """Return how much each token takes of each other in some layers.

        Parameters
        ----------
        input_ids
            Token ids (B, L).
        layers
            Which layers, 0-based; negative ones count from the end.
        **inputs
            What else the system takes.

        Returns
        -------
        For each layer asked for, (B, heads, L, L); what a token takes stands in a row and sums to
        1, with nothing from padding. Rows of padding mean nothing.

        Raises
        ------
        InputError
            If the model has no such layer, or no attention.
        """
        if input_ids is not None:
            inputs["input_ids"] = input_ids
        return self.backbone.attention(layers, **inputs)

    def to_score(self) -> "Model":
        """Return the same model with the tokenizer that the authors score sequences with."""
        if self.tokenizer is None or self.tokenizer.to_score() is self.tokenizer:
            return self
        other = copy(self)  # of the shell: the network is the same
        other.tokenizer = self.tokenizer.to_score()
        return other

    @property
    def device(self) -> torch.device:
        """Where the parameters lie."""
        return next(self.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """Number type of the token embedding, that is of most parameters."""
        return next(self.parameters()).dtype

    @property
    def objective(self) -> str:
        """How it was pretrained; the configuration says it where a family has both ways."""
        return getattr(self.config, "objective", self.family.objective)

    @property
    def context(self) -> int | None:
        """Longest input in tokens, special tokens included; None where nothing limits it.

        Soft tokens, if there are any, take places of their own.
        """
        limit, prompt = self.family.context(self.config), self.backbone.prompt
        return limit if limit is None or prompt is None else limit - len(prompt)

    @property
    def name(self) -> str:
        """Release or folder name, or the family's name for a new model."""
        return self.origin.release if self.origin else self.family.name

    def count_parameters(self) -> int:
        """Count parameters, ties once."""
        return sum(p.numel() for p in self.parameters())

    def provenance(self) -> dict[str, Any]:
        """Say what this model is, for the head of an output file."""
        revision = self.origin.revision if self.origin else None
        return {
            "model": self.name,
            "family": self.family.name,
            "checkpoint_sha256": self.checkpoint_sha256(),
            **({"revision": str(revision)} if revision else {}),
            "precision": str(self.dtype).removeprefix("torch."),
            "parameters": self.count_parameters(),
            **(self.tokenizer.settings() if self.tokenizer else {}),
        }

    def checkpoint_sha256(self) -> str | None:
        """Hash of the weight files; None for a new model. Computed once."""
        if self.origin is None:
            return None
        if self.origin.sha256 is None:
            self.origin.sha256 = Weights(tensors={}, files=self.origin.files, rest={}).sha256()
        return self.origin.sha256

    def cast(self, dtype: torch.dtype) -> "Model":
        """Cast all floating parameters but those of modules that must stay float32.

        Only a type that cannot hold what the file has counts as rounding.
        """
        for value, wanted in self._wanted(dtype):
            if value.dtype != wanted:
                self.rounded |= torch.promote_types(value.dtype, wanted) != wanted
                value.data = value.data.to(wanted)
        return self

    def cast_bytes(self, dtype: torch.dtype, *, everything: bool = False) -> int:
        """Return what `cast` would take for the tensors that it must copy.

        Parameters
        ----------
        dtype
            What would be cast to.
        everything
            Count also those that have this type, as a move to another device copies them.
        """
        values = {id(value): (value, wanted) for value, wanted in self._wanted(dtype)}
        return sum(
            value.numel() * wanted.itemsize
            for value, wanted in values.values()
            if everything or value.dtype != wanted
        )

    def _wanted(self, dtype: torch.dtype) -> Iterator[tuple[Tensor, torch.dtype]]:
        """Yield the floating parameters and buffers with the type that `cast` gives them."""
        kept = {
            part
            for module in self.modules()
            if getattr(module, "float32", False)
            for part in module.modules()
        }
        for module in self.modules():
            wanted = torch.float32 if module in kept else dtype
            for store in (module._parameters, module._buffers):
                for value in store.values():
                    if value is not None and value.is_floating_point():
                        yield value, wanted

    # ---------------------------------------------------------------- files

    def replace_head(self, head: str, config: Any) -> "Model":
        """Put a fresh head on the backbone, for fine-tuning.

        Parameters
        ----------
        head
            Name of one of the family's heads.
        config
            The configuration with the head's sizes in it; the backbone's must not change.
        """
        self.head_name = pick("head", head, self.family.heads)
        self.config = config
        self.head = self.family.heads[head](config, self.backbone).to(self.device)
        return self

    def names(self) -> tuple[dict[str, Tensor], dict[str, str]]:
        """Return (our tensors by key-map name, {second name of a tie: first name})."""
        tensors: dict[str, Tensor] = {}
        ties: dict[str, str] = {}
        first: dict[int, str] = {}
        for name, value in _tensors(self):
            name = name.removeprefix("backbone.")
            if id(value) in first:
                ties[name] = first[id(value)]
            else:
                first[id(value)] = name
                tensors[name] = value
        return tensors, ties

    def fill(self, layout: Layout, weights: Weights, where: str) -> dict[str, Tensor]:
        """Take the tensors of a checkpoint; return those that the layout calls unused.

        Raises
        ------
        CheckpointMismatch
            If a key is missing, unexpected or claimed twice, or a shape or a tie differs. The
            model is left as it was.
        """
        tensors, ties = self.names()
        resolution = layout.keys.resolve(weights.tensors.keys())
        if resolution.faults(tensors, ties):
            raise explain(resolution, layout.keys, where, tensors, ties)
        filled = to_ours(resolution, weights.tensors, weights.join)
        wrong = [
            f"  {', '.join(claim.published)}: the file has {tuple(filled[name].shape)}, the "
            f"model {tuple(tensors[ties.get(name, name)].shape)}"
            for claim in resolution.claims
            for name in claim.ours
            if filled[name].shape != tensors[ties.get(name, name)].shape
        ]
        if wrong:
            raise CheckpointMismatch(
                f"{where}: {len(wrong)} tensors have another shape than the configuration "
                "says.\n" + "\n".join(wrong[:8]) + "\nThe weights and the configuration belong to "
                "different models."
            )
        odd = [
            f"  {', '.join(claim.published)}: {str(filled[name].dtype).removeprefix('torch.')}"
            for claim in resolution.claims
            for name in claim.ours
            if not _fits_type(filled[name].dtype, tensors[ties.get(name, name)].dtype)
        ]
        if odd:
            raise CheckpointMismatch(
                f"{where}: {len(odd)} tensors have another type of numbers than is known here.\n"
                + "\n".join(odd[:8])
                + "\nExpected float16, bfloat16, float32 or float64 where there are fractions. "
                "Quantised weights must be turned back first."
            )
        for second, name in ties.items():
            if second in filled and not torch.equal(filled.pop(second), filled[name]):
                raise CheckpointMismatch(
                    f"{where}: the published model ties {second} to {name}, but the file holds "
                    "two different tensors. It belongs to another model or was edited."
                )
        slots: dict[int, list[tuple[dict[str, Any], str]]] = {}
        for module in self.modules():
            for store in (module._parameters, module._buffers):
                for key, value in store.items():
                    if value is not None:
                        slots.setdefault(id(value), []).append((store, key))
        for name, value in tensors.items():
            new: Tensor = filled[name]
            if isinstance(value, nn.Parameter):
                new = nn.Parameter(new, requires_grad=value.requires_grad)
            for store, key in slots[id(value)]:
                store[key] = new
        return {name: weights.tensors[name] for name in resolution.unused}

    def published(self, layout: Layout | None = None, *, ties: bool = True) -> dict[str, Tensor]:
        """Return the tensors under their published names.

        Parameters
        ----------
        layout
            The published form; by default the one the model was read from.
        ties
            Whether to give tied parameters under all their names. Buffers always are.
        """
        layout = layout or self._layout()
        tensors, tied = self.names()
        tensors = tensors | {
            second: tensors[name]
            for second, name in tied.items()
            if ties or not isinstance(tensors[name], nn.Parameter)
        }
        return to_published(layout.keys.published_names(tensors), tensors)

    def _layout(self) -> Layout:
        if self.origin is not None and self.origin.layout.head == self.head_name:
            return self.origin.layout
        forms = [la for la in self.family.layouts if la.head == self.head_name]
        forms = [layout for layout in forms if layout.fits(self.config)]
        if forms:
            ours, _ = self.names()
            return next((layout for layout in forms if layout.keys.names_all(ours)), forms[0])
        raise CheckpointError(
            f"{self.family.title} has no published form with a {self.head_name!r} head. "
            f"Published forms: {', '.join(la.name for la in self.family.layouts)}."
        )

    def save(self, folder: str | Path) -> Path:
        """Write the model in the official layout, with the official key names.

        A model that was loaded is written with the same files, keys, order and number types; what
        the model itself does not need is written back unchanged. A tensor that was trained and no
        longer fits the file's number type is written in the model's.

        Parameters
        ----------
        folder
            Created if missing. Files of the same names are replaced, each atomically.

        Returns
        -------
        The folder.
        """
        folder = Path(folder)
        if self.backbone.prompt is not None or getattr(self.backbone, "peft_config", None):
            raise CheckpointError(
                f"{self.name} has an adapter, which the official layout has no place for. Merge it "
                "into the weights first, or save the adapter alone."
            )
        layout, origin = self._layout(), self.origin
        same = origin is not None and origin.layout is layout
        if same and origin is not None:
            tensors = self.published(layout) | dict(origin.unused)
            tensors = {name: _narrow(tensors[name], t) for name, t in origin.dtypes.items()}
            files: dict[str, dict[str, Tensor]] = {path.name: {} for path in origin.files}
            for name, path in origin.places.items():
                files[path.name][name] = tensors[name]
            raw, side = dict(origin.raw_config), dict(origin.side_files)
            if self.rounded:
                raise CheckpointError(
                    f"the weights were rounded to {str(self.dtype).removeprefix('torch.')} when "
                    "the model was loaded. Load it with precision='float32' to save it."
                )
        else:
            filename = layout.weights[0]
            files = {filename: self.published(layout, ties=not filename.endswith(".safetensors"))}
            raw, side = self.family.write_config(self.config), {}
            if origin is not None:
                side = dict(origin.side_files)
        if self.tokenizer is not None:
            side = {**self.tokenizer.files(), **side}
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in side.items():
            with atomic_path(folder / name) as temporary:
                temporary.write_bytes(content)
        for filename, tensors in files.items():
            write_weights(folder / filename, tensors, layout.state)
        if not (same and origin is not None and origin.config_copied):
            with atomic_path(folder / self.family.config_file) as temporary:
                temporary.write_text(json.dumps(raw, indent=2) + "\n", encoding="utf-8")
        return folder


_FRACTIONS = {torch.float16, torch.bfloat16, torch.float32, torch.float64}


def _fits_type(found: torch.dtype, wanted: torch.dtype) -> bool:
    """Say whether a file's number type can stand for a parameter's."""
    if wanted.is_floating_point or wanted.is_complex:
        return found in _FRACTIONS or found == wanted
    return not (found.is_floating_point or found.is_complex)


def _narrow(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """Return the tensor in a file's number type if that loses nothing."""
    narrow = tensor.detach().to(dtype)
    return narrow if torch.equal(narrow.to(tensor.dtype), tensor) else tensor


def _tensors(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from module.named_parameters(remove_duplicate=False)
    yield from module.named_buffers(remove_duplicate=False)


def _owners(root: nn.Module, module: nn.Module) -> Iterator[nn.Module]:
    for candidate in root.modules():
        if candidate is not module and any(m is module for m in candidate.modules()):
            yield candidate
