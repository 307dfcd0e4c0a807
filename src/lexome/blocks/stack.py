"""A pile of layers with a beginning and an end: what every backbone here is.

Axes: B batch, L tokens, D width.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


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
    """

    capacity: int
    position: int = 0
    _slots: dict[nn.Module, dict[str, Tensor]] = field(default_factory=dict)

    def slot(self, module: nn.Module) -> dict[str, Tensor]:
        """Return the memory of one module, empty at first."""
        return self._slots.setdefault(module, {})


class Stack(nn.Module):
    """Base of all backbones: begin, layers one after the other, finish.

    A subclass sets `layers` and defines `begin`, which turns inputs into the first stream and
    into whatever the layers share (masks, position biases, caches), computed once per call. Early
    exit, intermediate states and recomputation in the backward pass then work for every system.
    """

    layers: nn.ModuleList
    recompute: bool = False
    """Whether training keeps only layer inputs and recomputes the rest (less memory, slower)."""
    undecayed: ClassVar[tuple[str, ...]] = ()
    """Patterns of parameter names that, like all biases and norms, get no weight decay."""

    def begin(self, **inputs: Any) -> tuple[Tensor, Any]:
        """Return the first stream and what the layers share."""
        raise NotImplementedError

    def finish(self, x: Tensor) -> Tensor:
        """Turn the stream after the last layer into the final hidden state."""
        return x

    def forward(self, *, depth: int | None = None, keep: bool = False, **inputs: Any) -> Hidden:
        """Run the layers.

        Parameters
        ----------
        depth
            Stop after so many layers and return that stream as it is; None runs all and finishes.
        keep
            Whether to return the streams between the layers too.
        **inputs
            What `begin` takes.
        """
        x, shared = self.begin(**inputs)
        states = [x] if keep else []
        for layer in self.layers[:depth]:
            x = self._run(layer, x, shared)
            if keep:
                states.append(x)
        cache = inputs.get("cache")
        if cache is not None:
            cache.position += x.shape[1]
        return Hidden(last=x if depth is not None else self.finish(x), states=tuple(states))

    def _run(self, layer: Callable[..., Tensor], x: Tensor, shared: Any) -> Tensor:
        if self.recompute and self.training and x.requires_grad:
            return checkpoint(layer, x, shared, use_reentrant=False)  # type: ignore[return-value]
        return layer(x, shared)
