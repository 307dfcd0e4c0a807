"""Items of any length to batches: read ahead, sorted by length, filled to a token budget.

A sequence's result does not depend on the batch it lands in: every backbone keeps padding out
when it is given a mask, and a mask is given exactly when there is padding.
"""

import queue
import sys
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from tqdm import tqdm

from lexome.core import InputError
from lexome.model import Model
from lexome.tokenizers import Encoded, Tokenizer

T = TypeVar("T")

FULLEST = 0.9
"""Least share of the longest length that the shortest item of a batch must have."""


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Items that go through the model together.

    Attributes
    ----------
    indices
        Where the rows stood in the input, 0-based.
    lengths
        Tokens of each row; what lies behind is padding.
    inputs
        What the model takes, on its device; with ``attention_mask`` only where rows are padded.
    """

    indices: tuple[int, ...]
    lengths: tuple[int, ...]
    inputs: dict[str, Tensor]


def plan_batches(
    lengths: Sequence[int], max_tokens: int, *, fullest: float = FULLEST
) -> list[list[int]]:
    """Group items so that rows times longest stays within a budget and little is padding.

    Parameters
    ----------
    lengths
        Tokens of each item.
    max_tokens
        Most tokens of a batch, padding included. An item longer than that is a batch of its own.
    fullest
        A batch ends where the next item has less than this share of the first one's length,
        unless it is still small enough that one more call would cost more than the padding.

    Returns
    -------
    Indices into `lengths`, longest items first, equal lengths in the order given.

    Examples
    --------
    >>> plan_batches([3, 10, 9, 3, 10], max_tokens=20)
    [[1, 4], [2], [0, 3]]
    """
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    plan: list[list[int]] = []
    longest = 0
    for i in order:
        rows = len(plan[-1]) if plan else 0
        full = (rows + 1) * longest > max_tokens
        ragged = lengths[i] < fullest * longest and rows * longest >= max_tokens / 8
        if not plan or full or ragged:
            plan.append([])
            longest = max(1, lengths[i])
        plan[-1].append(i)
    return plan


def collate_rows(
    tokenizer: Tokenizer, rows: Sequence[Encoded], device: torch.device
) -> dict[str, Tensor]:
    """Pad rows on the right and move them; a mask is made only where lengths differ."""
    lengths = {len(row["input_ids"]) for row in rows}
    inputs = tokenizer.collate(rows, padding_side="right", mask=len(lengths) > 1)
    return {name: value.to(device, non_blocking=True) for name, value in inputs.items()}


def batches(
    encoded: Sequence[Encoded],
    tokenizer: Tokenizer,
    *,
    max_tokens: int,
    device: torch.device,
) -> Iterator[Batch]:
    """Yield encoded items as batches, longest first.

    Parameters
    ----------
    encoded
        Items with their special tokens, of any lengths.
    tokenizer
        Their tokenizer.
    max_tokens
        Most tokens of a batch, padding included; see :func:`plan_batches`.
    device
        Where the model lies.
    """
    lengths = [len(e["input_ids"]) for e in encoded]
    for indices in plan_batches(lengths, max_tokens):
        yield Batch(
            indices=tuple(indices),
            lengths=tuple(lengths[i] for i in indices),
            inputs=collate_rows(tokenizer, [encoded[i] for i in indices], device),
        )


def windows(
    items: Iterable[T], size: Callable[[T], int], *, max_size: int, max_items: int = 4096
) -> Iterator[list[T]]:
    """Yield consecutive items in lists that are worth sorting and bounded in memory.

    Parameters
    ----------
    items
        A stream.
    size
        Tokens of an item.
    max_size
        A list ends when it holds this many tokens.
    max_items
        A list ends when it holds this many items.
    """
    window: list[T] = []
    total = 0
    for item in items:
        window.append(item)
        total += size(item)
        if total >= max_size or len(window) >= max_items:
            yield window
            window, total = [], 0
    if window:
        yield window


@dataclass(frozen=True)
class _Ended:
    error: BaseException | None = None


def ahead(source: Iterable[T], depth: int = 2) -> Generator[T, None, None]:
    """Yield what `source` yields, made by a thread that runs up to `depth` items ahead.

    An exception of the source is raised here, after the items before it. When the caller stops
    early (``break``, an exception, Ctrl-C), the thread ends after the item it is at.
    """
    line: queue.Queue[Any] = queue.Queue(maxsize=depth)
    stopped = threading.Event()

    def put(item: Any) -> None:
        while not stopped.is_set():
            try:
                line.put(item, timeout=0.1)
                return
            except queue.Full:
                continue

    def work() -> None:
        try:
            for item in source:
                put(item)
                if stopped.is_set():
                    return
        except BaseException as error:
            put(_Ended(error))
        else:
            put(_Ended())

    # A daemon, so that a thread that waits for stdin does not keep the program alive.
    thread = threading.Thread(target=work, name="lexome-ahead", daemon=True)
    thread.start()
    try:
        while not isinstance(item := line.get(), _Ended):
            yield item
        if item.error is not None:
            raise item.error
    finally:
        stopped.set()


def progress_bar(unit: str, *, total: int | None = None, show: bool | None = None) -> tqdm:
    """Return a progress bar on stderr.

    Parameters
    ----------
    unit
        What is counted.
    total
        How many there will be, if known.
    show
        None shows it on a terminal only.
    """
    return tqdm(
        total=total,
        unit=f" {unit}",
        unit_scale=True,
        dynamic_ncols=True,
        file=sys.stderr,
        disable=None if show is None else not show,
    )


def token_budget(model: Model, asked: int | None = None) -> int:
    """Return how many tokens a batch should hold, padding included.

    Parameters
    ----------
    model
        The model, on its device.
    asked
        The user's number, which wins.

    Returns
    -------
    On a CPU, so many that a layer's widest output is 4 million numbers: measured on two sizes of
    DNABERT-2, GPN and HyenaDNA, larger batches leave the caches, smaller ones feed the cores in
    crumbs. On a GPU, so many that the activations of one layer fit a quarter of the free memory.
    """
    if asked is not None:
        if asked < 1:
            raise InputError(
                f"max_tokens_per_batch is {asked}. Expected at least 1; leave it out for a number "
                "that fits this machine."
            )
        return asked
    layers = (m for m in model.backbone.modules() if isinstance(m, nn.Linear | nn.Conv1d))
    widest = max((layer.weight.shape[0] for layer in layers), default=1)
    if model.device.type == "cuda":
        free_bytes, _ = torch.cuda.mem_get_info(model.device)
        fitting = free_bytes // 4 // (4 * widest * model.dtype.itemsize)
        return max(4096, min(65_536, fitting))
    many_cores = max(1, torch.get_num_threads() // 4)
    return many_cores * max(2048, min(4096, 4_194_304 // widest))


@contextmanager
def enough_memory(lengths: Sequence[int]) -> Iterator[None]:
    """Turn a failed allocation into advice.

    Parameters
    ----------
    lengths
        Tokens of the rows of the batch at work.

    Raises
    ------
    InputError
        If memory runs out within the block.
    """
    try:
        yield
    except RuntimeError as error:
        text = str(error)
        if not isinstance(error, torch.OutOfMemoryError) and "allocate memory" not in text:
            raise
        rows, longest = len(lengths), max(lengths)
        raise InputError(
            f"memory ran out over a batch of {rows:,} x {longest:,} tokens "
            f"({text.splitlines()[0]}). "
            + (
                f"Pass max_tokens_per_batch={max(longest, rows * longest // 4)}."
                if rows > 1
                else f"Pass max_tokens={longest // 2}, so that long sequences are cut, or use a "
                "machine with more memory."
            )
        ) from error
