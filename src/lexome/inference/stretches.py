"""Sequences of any length through models that remember: stretch by stretch, the memory carried on.

Axes: B batch, L tokens.
"""

import sys
from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor

from lexome.blocks import CausalSelfAttention, DecodeCache, ImplicitFilter
from lexome.catalog import releases
from lexome.core import InputError
from lexome.inference.reading import LONGEST, Cutting, cutting
from lexome.model import Model

_PAIRS = 1 << 24  # of tokens that attention compares at a time, where it looks back
_FEWEST = 64  # tokens of a stretch, however far attention looks back


def carries_state(model: Model) -> bool:
    """Return whether a causal model can go on from what it remembers of earlier tokens.

    Not so HyenaDNA, whose filters leave no state, nor a model with soft tokens before every input.
    """
    return not _why_not(model)


def cutting_with_state(
    model: Model,
    max_tokens: int | None,
    overlap_tokens: int | None,
    *,
    longest: int = LONGEST,
    suffix: bool = True,
) -> Cutting:
    """Decide how long items are cut: not at all where a memory is carried from end to end.

    Parameters
    ----------
    model, max_tokens, overlap_tokens, longest, suffix
        As for :func:`lexome.inference.reading.cutting`. Where one of the two numbers is given, or
        the model has a limit, items are cut as there.
    """
    limited = (model.context, max_tokens, overlap_tokens) != (None, None, None)
    if carries_state(model) and not limited:
        return Cutting(room=None, overlap=0, causal=True, suffix=suffix)
    return cutting(model, max_tokens, overlap_tokens, longest=longest, suffix=suffix)


def stretch_tokens(model: Model, tokens: int, asked: int | None, budget: int) -> int | None:
    """Return how many tokens of a sequence go through the model at a time.

    Parameters
    ----------
    model
        The model.
    tokens
        Length of the sequence.
    asked
        The user's number, which wins.
    budget
        Tokens of a batch.

    Returns
    -------
    None where a sequence goes through at once. Where there is attention, fewer for longer
    sequences, so that the pairs of tokens do not fill the memory.

    Raises
    ------
    InputError
        If a number is asked of a model that has no state to carry.
    """
    if not carries_state(model):
        if asked is not None:
            raise InputError(
                f"chunk_tokens was given, and {model.name} cannot go on from the middle of a "
                f"sequence: {_why_not(model)}. Leave it out; max_tokens cuts sequences into pieces "
                "by themselves."
            )
        return None
    if asked is not None:
        if asked < 1:
            raise InputError(f"chunk_tokens is {asked}. Expected at least 1; leave it out.")
        return asked
    if any(isinstance(module, CausalSelfAttention) for module in model.backbone.modules()):
        return min(budget, max(_FEWEST, _PAIRS // max(1, tokens)))
    return budget


def _why_not(model: Model) -> str:
    """Return why no state can be carried; nothing where it can."""
    if model.objective != "causal":
        return "it does not read from left to right"
    if model.backbone.prompt is not None:
        return "soft tokens stand before every input"
    if any(isinstance(module, ImplicitFilter) for module in model.backbone.modules()):
        return "its filters are as long as the input"
    return ""


def stretches(
    inputs: Mapping[str, Tensor], stretch: int | None, cache: DecodeCache | None = None
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield a batch in stretches, for a backbone to take one after the other.

    Parameters
    ----------
    inputs
        What the backbone takes, (B, L) each.
    stretch
        Columns at a time; None takes all at once.
    cache
        Memory of earlier tokens to go on from.

    Yields
    ------
    The first column of a stretch and what the backbone takes for it, with the memory of those
    before it. A batch that goes through at once, and after nothing, needs no memory.
    """
    length = next(iter(inputs.values())).shape[1]
    if cache is None and (stretch is None or length <= stretch):
        yield 0, dict(inputs)
        return
    cache = cache or DecodeCache(length)
    step = stretch or length
    for first in range(0, length, step):
        part = {name: x[:, first : first + step] for name, x in inputs.items()}
        yield first, {**part, "cache": cache}


class LengthNote:
    """A word, said once, where records are longer than those that a release was trained on.

    Nothing is said where that is not known, nor of models that carry no state.
    """

    def __init__(self, model: Model):
        self.name = model.name
        known = releases().get(model.name) if carries_state(model) else None
        self.trained = None if known is None else known[1].context
        self.is_told = False

    def tell(
        self,
        tokens: int,
        what: str = "a record",
        instead: str = "max_tokens cuts it into pieces instead",
    ) -> None:
        """Say it if it is so, and has not been said.

        Parameters
        ----------
        tokens
            How long something is, tokens that scoring puts in front not counted.
        what
            Its name.
        instead
            What the user can do.
        """
        if self.trained is not None and tokens > self.trained and not self.is_told:
            self.is_told = True
            print(
                f"note: {self.name} was trained on sequences of up to {self.trained:,} tokens, and "
                f"{what} has {tokens:,}. It goes through whole, its state carried on; {instead}.",
                file=sys.stderr,
            )
