"""Linear layers, alone and with what follows them, made for the caches of a CPU.

PyTorch multiplies float32 matrices on x86 with MKL, which keeps its AVX-512 kernels for Intel's
processors. oneDNN, which PyTorch carries for convolutions, has them for all: measured on an AMD
Zen 5 core, 200 instead of 90 Gflop/s in float32. The arithmetic is the same but for the order of
the sums. It also shares the reading of the weights for a single row among the cores, which MKL
leaves to one. In bfloat16 PyTorch goes to oneDNN by itself, but adds the bias in a pass of its own.
It works on weights in an order of its own, into which it brings them anew for every product unless
they are `packed`: with few rows that is up to half of the time.
Other devices have their own kernels.
"""

import platform
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

Activation = Callable[[Tensor], Tensor]

_FEWEST_PRODUCTS = 1_000_000  # below, the call costs more than it saves

_LEAST_LARGE = 1 << 15  # numbers of a matrix below which the call is most of the time
_LEAST_SHARED = 1 << 20  # below, threads that share a product wait longer than they work
_PACKED_ROWS = 16  # the order of weights is chosen for so many; it differs for one row only

_CACHED = 1 << 21  # numbers at a time: few enough for the caches, many enough to share among cores
_FEWEST_TOGETHER = 256  # rows for which it is worth reading large weights again

_X86 = platform.machine().lower() in {"x86_64", "amd64"}


def gelu_tanh(x: Tensor) -> Tensor:
    """GELU by its tanh formula (Hendrycks and Gimpel 2016, arXiv:1606.08415)."""
    return F.gelu(x, approximate="tanh")


# The names that oneDNN's operator in PyTorch takes.
_GELU: dict[Activation | None, str] = {F.gelu: "none", gelu_tanh: "tanh"}


def _onednn(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, gelu: str | None = None
) -> Tensor:
    after = ("none", [], "") if gelu is None else ("gelu", [], gelu)
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, *after)


class _OneDnnLinear(torch.autograd.Function):
    """x W^T + b and its gradients."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _onednn(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:  # type: ignore[override]
        x, weight = ctx.saved_tensors
        for_x, for_weight, for_bias = ctx.needs_input_grad
        rows = grad.flatten(0, -2)
        return (
            _onednn(grad, weight.T) if for_x else None,
            _onednn(rows.T, x.flatten(0, -2).T) if for_weight else None,
            rows.sum(0) if for_bias else None,
        )


def linear(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, activation: Activation | None = None
) -> Tensor:
    """Compute activation(x W^T + b) by the fastest kernel for the place.

    Parameters
    ----------
    x
        Input (..., inputs).
    weight, bias
        Shapes (outputs, inputs) and (outputs,).
    activation
        What follows, if anything; GELU costs nothing where oneDNN multiplies.

    Returns
    -------
    Shape (..., outputs).

    Examples
    --------
    >>> linear(torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, 4.0]]), torch.tensor([0.5]))
    tensor([[11.5000]])
    """
    learning = torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad)
    if not _use_onednn(x, weight) or (learning and x.dtype is not torch.float32):
        y = F.linear(x, weight, bias)
    elif learning:
        y: Tensor = _OneDnnLinear.apply(x, weight, bias)  # type: ignore[assignment]
    else:
        return _fused(x, weight, bias, activation)
    return y if activation is None else activation(y)


def _fused(x: Tensor, weight: Tensor, bias: Tensor | None, activation: Activation | None) -> Tensor:
    if activation in _GELU:
        return _onednn(x, weight, bias, _GELU[activation])
    y = _onednn(x, weight, bias)
    return y if activation is None else activation(y)


@cache
def _multiplies(dtype: torch.dtype) -> bool:
    if dtype is torch.bfloat16:
        return torch.backends.mkldnn.is_available() and (
            torch.ops.mkldnn._is_mkldnn_bf16_supported()
        )
    return dtype is torch.float32 and torch.backends.mkldnn.is_available()


def _has_onednn(weight: Tensor) -> bool:
    return (
        _X86
        and weight.device.type == "cpu"
        and _multiplies(weight.dtype)
        and torch.backends.mkldnn.enabled
    )


def _use_onednn(x: Tensor, weight: Tensor) -> bool:
    return (
        x.dtype is weight.dtype
        and x.device == weight.device
        and x.numel() * weight.shape[0] >= _FEWEST_PRODUCTS
        and _has_onednn(weight)
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()
    )


class Linear(nn.Linear):
    """x W^T + b by :func:`linear`."""

    packed: Tensor | None = None
    """The weight in oneDNN's order, inside of :func:`packed`."""

    def forward(self, input: Tensor, activation: Activation | None = None) -> Tensor:
        """Map (..., inputs) to (..., outputs); `activation` is what follows, if anything."""
        if self.packed is not None and not torch.is_grad_enabled():
            return _fused(input, self.packed, self.bias, activation)
        return linear(input, self.weight, self.bias, activation)


def activated(layer: nn.Module, activation: Activation, x: Tensor) -> Tensor:
    """Compute activation(layer(x)), in one kernel where there is one."""
    if type(layer) is Linear:  # and not an adapter around one
        return layer(x, activation)
    return activation(layer(x))


def large_layers(network: nn.Module) -> list[Linear]:
    """Return the linear layers in which reading the weights takes the time of a few rows."""
    least = _LEAST_LARGE if torch.get_num_threads() == 1 else _LEAST_SHARED
    layers = [module for module in network.modules() if type(module) is Linear]
    return [layer for layer in layers if layer.weight.numel() >= least]


def packed_bytes(network: nn.Module) -> int:
    """Return what `packed` takes in addition."""
    return sum(layer.weight.nbytes for layer in _packable(network))


@contextmanager
def packed(network: nn.Module) -> Iterator[None]:
    """Hold the weights of linear layers a second time, in the order that their products need.

    For many products of few rows; what it costs at first is some twenty products of one row.

    Parameters
    ----------
    network
        Its weights must not change meanwhile.
    """
    layers = _packable(network)
    try:
        with torch.no_grad():
            for layer in layers:
                layer.packed = torch.ops.mkldnn._reorder_linear_weight(layer.weight, _PACKED_ROWS)
        yield
    finally:
        for layer in layers:
            layer.packed = None


def _packable(network: nn.Module) -> list[Linear]:
    return [layer for layer in large_layers(network) if _has_onednn(layer.weight)]


def by_rows(
    function: Callable[..., Tensor],
    *inputs: Tensor,
    widest: int,
    cached: int | None = None,
    into: Tensor | None = None,
) -> Tensor:
    """Apply a function that treats every row by itself to so many rows as fit a CPU's cache.

    Parameters
    ----------
    function
        Maps tensors (rows, ...) to one tensor (rows, ...).
    *inputs
        Tensors (..., D) that agree in all but the last axis.
    widest
        Numbers in a row of the widest tensor that `function` makes.
    cached
        Numbers that such a tensor may have at a time; 2 million by default.
    into
        Where the result may be written: a tensor of its shape and type that nobody else has, such
        as one of the inputs.

    Returns
    -------
    What `function` gives for all rows at once, shape (..., D). With gradients and on other
    devices, it is asked just that.
    """
    leading = inputs[0].shape[:-1]
    rows = max(_FEWEST_TOGETHER, (cached or _CACHED) // widest)
    if torch.is_grad_enabled() or inputs[0].device.type != "cpu" or leading.numel() <= rows:
        return function(*inputs)
    flat = [x.flatten(0, -2) for x in inputs]
    made = function(*(x[:rows] for x in flat))
    shape = leading.numel(), *made.shape[1:]  # all of it, never twice in memory
    fits = into is not None and into.is_contiguous() and into.dtype is made.dtype
    whole = into.view(shape) if into is not None and fits else made.new_empty(shape)
    whole[:rows] = made
    for first in range(rows, len(whole), rows):
        whole[first : first + rows] = function(*(x[first : first + rows] for x in flat))
    return whole.unflatten(0, leading)
