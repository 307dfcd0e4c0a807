"""A pile of layers with a beginning and an end: what every backbone here is.

Axes: B batch, L tokens, D width.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from lexome.blocks.prompt import SoftTokens
from lexome.core import InputError


@dataclass(frozen=True, kw_only=True)
class Hidden:
    """What a backbone gives.

    Attributes
    ----------
    last
        Final hidden state (B, L, D), after the final norm where the system has one.
    states
        The stream after 0, 1, 2, ... layers if asked for, else empty. The last of them is the
        stream before the final norm.
    """

    last: Tensor
    states: tuple[Tensor, ...] = ()


@dataclass(eq=False)
class DecodeCache:
    """What a causal backbone remembers between calls while it generates.

    Attributes
    ----------
    capacity
        Most tokens that will be seen.
    position
        Tokens seen so far.
    choices
        With N of them, a later call may bring 1 + N tokens: the next one, and N that could each
        follow it. None of these sees the others. The memory moves on by the first; `keep` then
        makes one of the others the token after it.
    """

    capacity: int
    position: int = 0
    choices: int = 0
    _slots: dict[nn.Module, dict[str, Tensor]] = field(default_factory=dict)
    _ahead: dict[nn.Module, dict[str, Tensor]] = field(default_factory=dict)

    def slot(self, module: nn.Module) -> dict[str, Tensor]:
        """Return the memory of one module, empty at first."""
        return self._slots.setdefault(module, {})

    def ahead(self, module: nn.Module) -> dict[str, Tensor]:
        """Return what one module needs to keep a choice of the last call, empty at first."""
        return self._ahead.setdefault(module, {})

    def parts(self, tokens: int) -> bool:
        """Return whether a call of so many tokens brings choices."""
        return bool(self.choices and self.position and tokens > 1)

    def places(self, tokens: int, device: torch.device) -> Tensor:
        """Return where the tokens of a call stand, counted from the first of all."""
        place_L = torch.arange(self.position, self.position + tokens, device=device)
        return place_L.clamp_(max=self.position + 1) if self.parts(tokens) else place_L

    def move(self, tokens: int) -> None:
        """Move on behind a call of so many tokens."""
        self.position += 1 if self.parts(tokens) else tokens

    def keep(self, choice_B: Tensor) -> None:
        """Make one choice of the last call the next token.

        Parameters
        ----------
        choice_B
            Which one in each row, 0 to N - 1.
        """
        for module in self._ahead:
            module.keep(self, choice_B)  # type: ignore[operator]
        self.position += 1

    def fork(self, rows_N: Tensor) -> "DecodeCache":
        """Return a memory of its own for some rows, of which each may come many times.

        Rows are the first axis of what a module remembers, unless it says otherwise in
        `row_axes`, {name: axis}; what that leaves out belongs to no row and is shared.

        Parameters
        ----------
        rows_N
            Which rows, 0-based.
        """
        made = DecodeCache(self.capacity, self.position, self.choices)
        for module, slot in self._slots.items():
            axes = getattr(module, "row_axes", dict.fromkeys(slot, 0))
            made._slots[module] = {
                name: value.index_select(axes[name], rows_N) if name in axes else value
                for name, value in slot.items()
            }
        return made


class Stack(nn.Module):
    """Base of all backbones: begin, layers one after the other, finish.

    A subclass sets `layers` and defines `begin`, which turns inputs into the first stream and
    into whatever the layers share (masks, position biases, caches), computed once per call. Early
    exit, intermediate states and recomputation in the backward pass then work for every system.
    With a `prompt`, its soft tokens stand before every input, and nowhere in what is returned.
    """

    layers: nn.ModuleList
    prompt: SoftTokens | None
    recompute: bool = False
    """Whether training keeps only layer inputs and recomputes the rest (less memory, slower)."""
    undecayed: ClassVar[tuple[str, ...]] = ()
    """Patterns of parameter names that, like all biases and norms, get no weight decay."""

    def __init__(self):
        super().__init__()
        self.prompt = None

    def token_vectors(self, input_ids: Tensor) -> Tensor:
        """Return the vectors of tokens that `begin` starts from, (B, L, D)."""
        return self.embed(input_ids)  # type: ignore[operator]

    def begin(self, **inputs: Any) -> tuple[Tensor, Any]:
        """Return the first stream and what the layers share."""
        raise NotImplementedError

    def finish(self, x: Tensor) -> Tensor:
        """Turn the stream after the last layer into the final hidden state."""
        return x

    def forward(
        self,
        *,
        depth: int | None = None,
        keep: bool = False,
        piece_tokens: int | None = None,
        **inputs: Any,
    ) -> Hidden:
        """Run the layers.

        Parameters
        ----------
        depth
            Stop after so many layers and return that stream as it is; None runs all and finishes.
        keep
            Whether to return the streams between the layers too.
        piece_tokens
            Let every stretch of so many tokens of a longer input be an input of its own. What is
            returned is put together again.
        **inputs
            What `begin` takes.
        """
        x, shared, join = self._start(inputs, piece_tokens)
        states = [join(x)] if keep else []
        for layer in self.layers[:depth]:
            x = self._run(layer, x, shared)
            if keep:
                states.append(join(x))
        _advance(inputs, x)
        last = x if depth is not None else self.finish(x)
        return Hidden(last=join(last), states=tuple(states))

    def streams(self, depths: Collection[int], **inputs: Any) -> Iterator[tuple[int, Tensor]]:
        """Yield the streams after so many layers one by one, so that only one is held in memory.

        Parameters
        ----------
        depths
            0 to the number of layers; -1 is the final hidden state. Layers behind all of them are
            not computed.
        **inputs
            What `begin` takes.

        Yields
        ------
        A depth, ascending and the final state last, and its stream (B, L, D). A cache has seen
        the tokens once all are taken.
        """
        x, shared, join = self._start(inputs)
        for depth in range(len(self.layers) + 1):
            if depth in depths:
                yield depth, join(x)
            if depth == max(depths) and -1 not in depths:
                break
            if depth < len(self.layers):
                x = self._run(self.layers[depth], x, shared)
        else:
            yield -1, join(self.finish(x))
        _advance(inputs, x)

    def _start(
        self, inputs: dict[str, Any], piece_tokens: int | None = None
    ) -> tuple[Tensor, Any, Callable[[Tensor], Tensor]]:
        """Return the first stream, what layers share, and what gives a stream its own shape."""
        join = _same
        if piece_tokens is not None:
            inputs, join = _cut(inputs, piece_tokens)
        if self.prompt is None:
            return *self.begin(**inputs), join
        made, strip = self.prompt.insert(inputs, self.token_vectors)
        return *self.begin(**made), lambda x: join(strip(x))

    def state_at(self, column: int, **inputs: Any) -> Tensor:
        """Return the final hidden state of one column, (B, D).

        Parameters
        ----------
        column
            0-based.
        **inputs
            What `begin` takes.
        """
        return self(**inputs).last[:, column]

    def attention(self, layers: Sequence[int], **inputs: Any) -> tuple[Tensor, ...]:
        """Return the attention weights of some layers, (B, H, L, L) each, in the order asked.

        They are computed beside the ordinary run, which never makes them.

        Parameters
        ----------
        layers
            0-based; negative ones count from the end.
        **inputs
            What `begin` takes.

        Raises
        ------
        InputError
            If there is no such layer, or layers mix tokens by other means, or there are soft
            tokens, which would take a share that no row shows.
        """
        found = dict(self.each_attention(layers, **inputs))
        return tuple(found[i % len(self.layers)] for i in layers)

    def each_attention(self, layers: Sequence[int], **inputs: Any) -> Iterator[tuple[int, Tensor]]:
        """Yield what `attention` returns layer by layer, so that only one is held in memory.

        Parameters
        ----------
        layers, **inputs
            As for `attention`.

        Yields
        ------
        The number of a layer, 0-based and ascending, and its attention weights, (B, H, L, L).

        Raises
        ------
        InputError
            As `attention` does, before the model runs.
        """
        count = len(self.layers)
        if self.prompt is not None:
            raise InputError(
                f"the model has {len(self.prompt)} soft tokens, which take attention from all "
                "others. Ask the model without them for its attention."
            )
        if any(not -count <= i < count for i in layers):
            raise InputError(
                f"layers {list(layers)} were asked for, and the model has {count}. Expected "
                f"numbers from {-count} to {count - 1}."
            )
        attending = [i for i, layer in enumerate(self.layers) if _attends(layer)]
        if not attending:
            raise InputError(
                f"{type(self).__name__} mixes tokens without attention, so that there are no "
                "weights to look at. Ask a model that has attention, or attribute by gradients."
            )
        blind = sorted({i % count for i in layers} - set(attending))
        if blind:
            raise InputError(
                f"layers {blind} of {type(self).__name__} mix tokens without attention. Expected "
                f"some of {attending}, counted from 0."
            )
        return self._each_attention({i % count for i in layers}, inputs)

    def _each_attention(
        self, wanted: set[int], inputs: dict[str, Any]
    ) -> Iterator[tuple[int, Tensor]]:
        last = max(wanted, default=-1)
        x, shared = self.begin(**inputs)
        for i, layer in enumerate(self.layers[: last + 1]):
            if i in wanted:
                yield i, layer.weights(x, shared)
            if i < last:
                x = layer(x, shared)

    def _run(self, layer: Callable[..., Tensor], x: Tensor, shared: Any) -> Tensor:
        if self.recompute and self.training and x.requires_grad:
            return checkpoint(layer, x, shared, use_reentrant=False)  # type: ignore[return-value]
        return layer(x, shared)


def _advance(inputs: dict[str, Any], x: Tensor) -> None:
    """Tell the memory of a call, if there is one, how many tokens it has seen."""
    cache = inputs.get("cache")
    if cache is not None:
        cache.move(x.shape[1])


def _same(x: Tensor) -> Tensor:
    return x


def _attends(layer: nn.Module) -> bool:
    return bool(getattr(layer, "attends", hasattr(layer, "weights")))


def _cut(
    inputs: dict[str, Any], piece_tokens: int
) -> tuple[dict[str, Any], Callable[[Tensor], Tensor]]:
    """View rows (B, L) as rows (B * pieces, piece); the last piece is padded, without attention."""
    given = {name: value for name, value in inputs.items() if value is not None}
    rows, length = next(iter(given.values())).shape[:2]
    if length <= piece_tokens:
        return inputs, _same
    short = -length % piece_tokens
    if short and "attention_mask" not in given:
        shape = (rows, length)
        place = next(iter(given.values())).device
        given["attention_mask"] = torch.ones(shape, dtype=torch.long, device=place)
    cut = {}
    for name, value in given.items():
        end = value.new_zeros(rows, short, *value.shape[2:])
        cut[name] = torch.cat([value, end], 1).view(-1, piece_tokens, *value.shape[2:])
    return cut, lambda x: x.reshape(rows, length + short, -1)[:, :length]
