"""Linear layers that are as fast on every x86 CPU as on Intel's.

PyTorch multiplies float32 matrices on x86 with MKL, which keeps its AVX-512 kernels for Intel's
processors. oneDNN, which PyTorch carries for convolutions, has them for all: measured on an AMD
Zen 5 core, 200 instead of 90 Gflop/s in float32. The arithmetic is the same but for the order of
the sums. Narrower types and other devices go to PyTorch's own kernels.
"""

import platform
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

_FEWEST_ROWS = 16  # below, the time goes into reading the weights, and MKL is as good
_FEWEST_PRODUCTS = 2_000_000  # below, the call costs more than it saves

_X86 = platform.machine().lower() in {"x86_64", "amd64"}


def _onednn(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")


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


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Compute x W^T + b by the fastest kernel for the place.

    Parameters
    ----------
    x
        Input (..., inputs).
    weight, bias
        Shapes (outputs, inputs) and (outputs,).

    Returns
    -------
    Shape (..., outputs).

    Examples
    --------
    >>> linear(torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, 4.0]]), torch.tensor([0.5]))
    tensor([[11.5000]])
    """
    if not _use_onednn(x, weight):
        return F.linear(x, weight, bias)
    if torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad):
        return _OneDnnLinear.apply(x, weight, bias)  # type: ignore[return-value]
    return _onednn(x, weight, bias)


def _use_onednn(x: Tensor, weight: Tensor) -> bool:
    return (
        _X86
        and x.dtype is weight.dtype is torch.float32
        and x.device.type == "cpu"
        and x.numel() >= _FEWEST_ROWS * x.shape[-1]
        and x.numel() * weight.shape[0] >= _FEWEST_PRODUCTS
        and torch.backends.mkldnn.enabled
        and torch.backends.mkldnn.is_available()
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()
    )


class Linear(nn.Linear):
    """x W^T + b by :func:`linear`."""

    def forward(self, input: Tensor) -> Tensor:
        """Map (..., inputs) to (..., outputs)."""
        return linear(input, self.weight, self.bias)
