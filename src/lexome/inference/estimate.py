"""How much memory a model needs, before a byte of its weights is read.

The model runs on tensors that have shapes and no numbers, and every allocation and release is
counted, so that the estimate follows the code of each family. What libraries take for themselves
(workspaces of convolutions and Fourier transforms, the driver) and what the allocator keeps of
small freed tensors is not seen; `RESERVED_BYTES` and `USABLE` leave room for it. All tokens are
counted at a time, as on a GPU. On a CPU many steps take few tokens at a time, so that the estimate
errs on the high side there, by up to three times for families with wide layers.
"""

import weakref
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from lexome.blocks.initialise import shapes_only
from lexome.catalog import Card, read, releases
from lexome.catalog import info as card_of
from lexome.core import InputError
from lexome.core.memory import machine_bytes
from lexome.model import Model

GPUS_GB = (24, 48, 80)
"""Memory of common GPUs."""
USABLE = 0.92
"""Share of a memory that tensors can fill before they no longer find room side by side."""
RESERVED_BYTES = 1200 << 20
"""What a process takes beside its tensors: the driver's context, code, workspaces."""

_LENGTHS = (256, 1024, 2048, 4096)
"""Tokens of the sequences that are measured, where the context allows; and the context itself."""
_LONGEST = 1 << 24
_OF_A_KIND = 2  # equal layers that are measured; the others repeat them
_MANY = 32_768  # tokens of a batch that tells what each sequence adds; in few, shared bytes hide it
_PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}


class _Count(TorchFunctionMode):
    """Bytes of tensors that live at the same time, and the most there were.

    Attention counts as its fast kernels do it: without a matrix of all pairs of tokens.
    """

    def __init__(self, known: Iterable[Tensor]):
        super().__init__()
        self.live = self.most = 0
        self._seen = {tensor.untyped_storage()._cdata for tensor in known}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is F.scaled_dot_product_attention:
            query, _, value = args[:3]
            made = query.new_empty(*query.shape[:-1], value.shape[-1])
        else:
            made = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, Tensor):
                self._add(tensor.untyped_storage())
        return made

    def _add(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self._seen:
            return
        self._seen.add(key)
        self.live += size
        self.most = max(self.most, self.live)
        weakref.finalize(storage, self._remove, key, size)

    def _remove(self, key: int, size: int) -> None:
        self.live -= size
        self._seen.discard(key)


def peak_bytes(model: Model, tokens: int, rows: int = 1) -> int:
    """Return the most bytes that tensors other than the weights take in one forward pass.

    Parameters
    ----------
    model
        A model on the ``meta`` device, as :func:`skeleton` gives it.
    tokens
        Of each sequence, special ones counted.
    rows
        Sequences of a batch, all equally long. Scores of all tokens are made.
    """
    inputs: dict[str, Tensor] = {
        "input_ids": torch.zeros(rows, tokens, dtype=torch.long, device="meta")
    }
    if model.family.inputs == "cell":
        inputs["values"] = torch.zeros(rows, tokens, device="meta")
    held = [*model.parameters(), *model.buffers(), *inputs.values()]
    with torch.no_grad(), _Count(held) as count:
        model(**inputs)
    return count.most


def skeleton(source: str | Path | Model, precision: str = "float32") -> Model:
    """Return a model without numbers: of a release's published sizes, or of a loaded model's.

    Parameters
    ----------
    source
        A release name, a folder with official files, or a model.
    precision
        ``float32`` or ``bfloat16``.
    """
    if isinstance(source, Model):
        family, config, head = source.family, source.config, source.head_name
    elif Path(source).expanduser().exists():
        return skeleton(read(source), precision)
    else:
        family, release = releases()[str(source)]
        config = family.read_config(release.config, {})
        head = family.layout(release.layout).head
    with shapes_only():
        model = Model(family, config, head=head)
    return model.cast(_PRECISIONS[precision]).eval()


def _shortened(source: Model, precision: str, *, extra: int = 0) -> Model:
    """Return a skeleton with two layers of each kind at most, and `extra` of the commonest."""
    model = skeleton(source, precision)
    kinds = [repr(layer) for layer in model.backbone.layers]
    ((commonest, _),) = Counter(kinds).most_common(1)
    left = {kind: _OF_A_KIND + (extra if kind == commonest else 0) for kind in kinds}
    kept = []
    for kind, layer in zip(kinds, model.backbone.layers, strict=True):
        if left[kind]:
            left[kind] -= 1
            kept.append(layer)
    model.backbone.layers = torch.nn.ModuleList(kept)
    return model


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """What one forward pass takes, by the length of a sequence.

    Attributes
    ----------
    precision
        Of the weights.
    weight_bytes
        Of all parameters and buffers.
    measured
        {tokens: peak bytes of one sequence beside the weights}.
    context
        The model's limit in tokens; None for none.
    shared, each
        {tokens: bytes}: what many equally long sequences share, such as filters, and what each of
        them adds. Without them, each adds what one takes.
    cpu_bytes
        What convolutions keep and work in besides on a CPU, whatever the sequences.
    """

    precision: str
    weight_bytes: int
    measured: Mapping[int, int]
    context: int | None
    shared: Mapping[int, int] = field(default_factory=dict)
    each: Mapping[int, int] = field(default_factory=dict)
    cpu_bytes: int = 0

    @cached_property
    def _growths(self) -> tuple[np.ndarray, ...]:
        return tuple(map(_grown, (self.measured, self.shared, self.each or self.measured)))

    def peak(self, tokens: int, rows: int = 1) -> int:
        """Return bytes beside the weights for sequences of so many tokens.

        Examples
        --------
        >>> Estimate(precision="float32", weight_bytes=0, measured={1: 2, 2: 4, 4: 8},
        ...          context=None).peak(100, rows=3)
        600
        """
        one, shared, each = self._parts(tokens)
        return round(one if rows == 1 else max(one, shared + rows * each))

    def _parts(self, tokens: int) -> tuple[float, ...]:
        """Return bytes for one sequence, what many share, and what each of many adds."""
        powers = np.array([1.0, tokens, tokens**2])
        known = self.measured, self.shared, self.each or self.measured
        return tuple(
            float(sizes.get(tokens, growth @ powers))
            for sizes, growth in zip(known, self._growths, strict=True)
        )

    def longest(self, memory_bytes: float) -> int:
        """Return the longest sequence that fits a memory, 0 if not even the weights do."""
        room = self._room(memory_bytes)
        most = self.context or _LONGEST
        if self.peak(most) <= room:
            return most
        low, high = 0, most
        while high - low > max(1, low // 1000):
            middle = (low + high) // 2
            low, high = (middle, high) if self.peak(middle) <= room else (low, middle)
        return low

    def rows(self, tokens: int, memory_bytes: float) -> int:
        """Return how many sequences of so many tokens fit a memory together."""
        one, shared, each = self._parts(tokens)
        room = self._room(memory_bytes)
        return 0 if one > room else max(1, int((room - shared) / max(1.0, each)))

    def _room(self, memory_bytes: float) -> float:
        return memory_bytes * USABLE - RESERVED_BYTES - self.weight_bytes


def _grown(sizes: Mapping[int, int]) -> np.ndarray:
    """Return a, b, c of a + b tokens + c tokens², none of them negative."""
    lengths, peaks = (np.array(list(x), float)[-3:] for x in (sizes.keys(), sizes.values()))
    whole = np.zeros(3)
    if not peaks.any():
        return whole
    weights = 1 / np.maximum(peaks, 1)
    for terms in ((0, 1, 2), (0, 1), (1, 2), (1,)):
        if len(terms) > len(lengths):
            continue
        powers = lengths[:, None] ** np.array(terms)
        found, *_ = np.linalg.lstsq(powers * weights[:, None], peaks * weights, rcond=None)
        if (found >= -1e-9).all() or terms == (1,):
            whole[list(terms)] = found.clip(min=0)
            return whole
    raise AssertionError("the last form always fits")


def estimate(source: str | Path | Model, *, precision: str = "float32") -> Estimate:
    """Estimate the memory that a model needs, without loading its weights.

    Parameters
    ----------
    source
        A release name, a folder with official files, or a model.
    precision
        ``float32`` or ``bfloat16``.

    Returns
    -------
    What was measured at 256, 1,024, 2,048 and 4,096 tokens and at the model's limit. Other lengths
    follow by a polynomial of degree 2.

    Raises
    ------
    InputError
        If the precision is another, or the family's inputs are not known here.
    """
    if precision not in _PRECISIONS:
        raise InputError(f"precision is {precision!r}. Expected {' or '.join(_PRECISIONS)}.")
    model = skeleton(source, precision)
    held = {t.untyped_storage()._cdata: t for t in [*model.parameters(), *model.buffers()]}
    weight_bytes = sum(t.untyped_storage().nbytes() for t in held.values())
    limit = model.context or _LONGEST
    lengths = sorted({min(n, limit) for n in _LENGTHS} | ({limit} if model.context else set()))
    few, more = _shortened(model, precision), _shortened(model, precision, extra=1)
    times = len(model.backbone.layers) - len(few.backbone.layers)
    measured, shared, each = {}, {}, {}
    for tokens in lengths:
        half = max(1, _MANY // tokens // 2)
        try:
            one, some, many = (
                _of_all(peak_bytes(few, tokens, rows), peak_bytes(more, tokens, rows), times)
                for rows in (1, half, 2 * half)
            )
        except TypeError as error:
            raise InputError(
                f"there is no estimate for {model.family.title}, whose inputs are of a kind of "
                f"their own ({error}). Give one of the families that read sequences or cells."
            ) from error
        measured[tokens], each[tokens] = one, (many - some) // half
        shared[tokens] = max(0, many - 2 * half * each[tokens])
    own = [m.cpu_bytes(_PRECISIONS[precision]) for m in model.modules() if hasattr(m, "cpu_bytes")]  # type: ignore[operator]
    return Estimate(
        precision=precision,
        weight_bytes=weight_bytes,
        measured=measured,
        context=model.context,
        shared=shared,
        each=each,
        cpu_bytes=sum(kept for kept, _ in own) + max((working for _, working in own), default=0),
    )


def _of_all(few: int, more: int, times: int) -> int:
    """Return the peak of all layers, given it for few layers, and for one more.

    What each layer keeps for the next call, or until the last is done, grows with depth.
    """
    return round(few + times * max(0, more - few))


def info(source: str | Path, *, estimate: bool = False) -> Card:
    """Show the card of a release or of a folder with official files.

    A release is described without downloading anything.

    Parameters
    ----------
    source
        A release name, or a folder that holds the official files.
    estimate
        Say also how long a sequence may be on GPUs of 24, 48 and 80 GB and in this machine's
        memory, for one forward pass with the scores of all tokens. Takes some seconds, and needs
        no weights.
    """
    card = card_of(source)
    if not estimate:
        return card
    found = {name: _estimate(source, precision=name) for name in _PRECISIONS}
    places = {f"{gb} GB GPU": gb * 1e9 for gb in GPUS_GB}
    places[f"this machine, {machine_bytes() / 1e9:.0f} GB"] = float(machine_bytes())
    facts = {
        name: "; ".join(
            _capacity(each, memory - ("machine" in name) * each.cpu_bytes)
            for each in found.values()
        )
        for name, memory in places.items()
    }
    reference = next(iter(found.values()))
    tokens = min(1024, reference.context or 1024)
    facts["one pass"] = "; ".join(
        f"{each.precision}: {_gigabytes(each.weight_bytes)} of weights, and for {tokens:,} tokens "
        f"{_gigabytes(each.peak(tokens))}"
        for each in found.values()
    )
    order = ["one pass", *places]
    return replace(card, facts={**card.facts, **{name: facts[name] for name in order}})


_estimate = estimate  # the flag of `info` has its name


def _capacity(found: Estimate, memory: float) -> str:
    longest = found.longest(memory)
    if not longest:
        return f"{found.precision}: too small"
    rows = found.rows(longest, memory)
    if longest == found.context:
        return f"{found.precision}: {rows:,} x {longest:,} tokens (its context)"
    if longest == _LONGEST:
        return f"{found.precision}: {longest:,} tokens and more"
    return f"{found.precision}: 1 x {_round(longest):,} tokens"


def _round(number: int) -> int:
    """Return two digits of a number, rounded down: more would pretend to be exact."""
    unit = 10 ** max(0, len(str(number)) - 2)
    return number // unit * unit


def _gigabytes(number: int) -> str:
    return f"{number / 1e9:.3g} GB" if number >= 1e8 else f"{number / 1e6:.3g} MB"
