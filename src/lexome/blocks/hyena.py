"""The Hyena operator: gates around a long convolution with an implicit filter.

Poli et al. 2023, arXiv:2302.10866. Axes: B batch, L tokens, D width, N FFT length.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lexome.blocks.linear import Linear
from lexome.blocks.stack import DecodeCache


def fast_fft_length(least: int) -> int:
    """Return the smallest of 2^a, 3*2^a and 5*2^a (a even lengths) not below `least`.

    Few distinct lengths mean that transformed filters are reused; small primes mean fast FFTs.

    Examples
    --------
    >>> [fast_fft_length(n) for n in (1, 9, 11, 1000, 1030)]
    [2, 10, 12, 1024, 1280]
    """
    best = 2
    while best < least:
        best *= 2
    for odd in (3, 5):
        length = 2 * odd
        while length < least:
            length *= 2
        best = min(best, length)
    return best


def causal_convolution(u_BDL: Tensor, filter_DN: Tensor, n: int) -> Tensor:
    """Convolve with a filter given by its real FFT of length `n`, at least 2L - 1; float32."""
    spectrum = torch.fft.rfft(u_BDL.float(), n=n)
    spectrum = spectrum * filter_DN if spectrum.requires_grad else spectrum.mul_(filter_DN)
    return torch.fft.irfft(spectrum, n=n)[..., : u_BDL.shape[-1]]


class ShortConvolution(nn.Module):
    """Depthwise causal convolution of a few taps over (B, C, L)."""

    def __init__(self, channels: int, taps: int):
        super().__init__()
        # The weight has the shape of a grouped Conv1d, (channels, 1, taps); the last tap is now.
        self.weight = nn.Parameter(torch.empty(channels, 1, taps))
        self.bias = nn.Parameter(torch.empty(channels))
        bound = taps**-0.5
        nn.init.uniform_(self.weight, -bound, bound)
        nn.init.uniform_(self.bias, -bound, bound)

    @property
    def taps(self) -> int:
        """Length of the convolution."""
        return self.weight.shape[-1]

    def forward(self, x_BCL: Tensor, before: Tensor | None = None) -> Tensor:
        """Convolve; `before` holds the taps - 1 inputs that came earlier, zeros by default."""
        if before is None:
            x_BCL = F.pad(x_BCL, (self.taps - 1, 0))
        else:
            x_BCL = torch.cat([before, x_BCL], dim=-1)
        return F.conv1d(x_BCL, self.weight, self.bias, groups=self.weight.shape[0])


class Sine(nn.Module):
    """sin(frequency * x) with one learned frequency per channel."""

    def __init__(self, width: int, frequency: float):
        super().__init__()
        self.freq = nn.Parameter(torch.full((1, width), float(frequency)))

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., width) to (..., width)."""
        return torch.sin(self.freq * x)


class ImplicitFilter(nn.Module):
    """A filter of any length from a small network over positions, times an exponential window.

    The positions `z`, times `t` and decay rates `deltas` are part of published checkpoints and
    are loaded, not recomputed. The filter depends on the length it was made for, not on the
    input; a shorter one is its beginning.
    """

    float32 = True  # never cast to a narrower type with the rest of the model
    z: Tensor
    t: Tensor
    deltas: Tensor

    def __init__(
        self,
        width: int,
        length: int,
        *,
        features: int = 5,
        inner: int = 64,
        inner_layers: int = 2,
        frequency: float = 10.0,
        shift: float = 0.05,
    ):
        super().__init__()
        self.length, self.shift = length, shift
        sine = Sine(inner, frequency)  # one module, used after every inner layer
        parts: list[nn.Module] = [Linear(features, inner), sine]
        for _ in range(inner_layers):
            parts += [Linear(inner, inner), sine]
        self.net = nn.Sequential(*parts, Linear(inner, width, bias=False))
        self.bias = nn.Parameter(torch.randn(width))
        bands = (features - 1) // 2
        t = torch.linspace(0, 1, length)[None, :, None]
        angle = 2 * torch.pi * torch.arange(length)[None, :, None] / length
        phase = torch.linspace(1e-4, bands - 1, bands)[None, None] * angle
        self.register_buffer("z", torch.cat([t, phase.cos(), -phase.sin()], dim=-1))
        self.register_buffer("t", t)
        # Decay to 1 % of the height after 1.5 (slowest channel) to 0.3 (fastest) of the length.
        slow, fast = math.log(1e-2) / 1.5, math.log(1e-2) / 0.3
        self.register_buffer("deltas", torch.linspace(slow, fast, width)[None, None])
        self._state: tuple[float, ...] = ()
        self._filter: Tensor | None = None
        self._spectra: dict[int, Tensor] = {}

    def build(self, length: int) -> Tensor:
        """Compute the first `length` taps, shape (D, length), float32."""
        z, t = self.z[:, :length], self.t[:, :length]
        window = torch.exp(-t * self.deltas.abs()) + self.shift
        with torch.autocast(z.device.type, enabled=False):
            return (self.net(z) * window)[0].T.contiguous()

    def taps(self, length: int) -> Tensor:
        """Return the first `length` taps, kept between calls while no gradient is wanted."""
        if torch.is_grad_enabled() and self.bias.requires_grad:
            return self.build(length)
        self._forget_if_changed()
        taps = self._filter
        if taps is None or taps.shape[-1] < length:
            taps = self.build(min(self.length, 1 << (length - 1).bit_length()))
            self._filter = taps
        return taps[:, :length]

    def spectrum(self, length: int, n: int) -> Tensor:
        """Return the real FFT of length `n` of the first `length` taps."""
        if torch.is_grad_enabled() and self.bias.requires_grad:
            return torch.fft.rfft(self.build(length), n=n)
        self._forget_if_changed()
        # All taps that cannot wrap around: n - L + 1 of them, so inputs up to L share a spectrum.
        if n not in self._spectra:
            if len(self._spectra) == 4:
                self._spectra.pop(next(iter(self._spectra)))
            fitting = min(self.length, n // 2)
            self._spectra[n] = torch.fft.rfft(self.taps(fitting), n=n)
        return self._spectra[n]

    def _forget_if_changed(self) -> None:
        tensors = [*self.net.parameters(), self.z, self.t, self.deltas]
        state = (self.shift, *(x for p in tensors for x in (p._version, p.data_ptr())))
        if state != self._state:
            self._state, self._filter, self._spectra = state, None, {}


class Hyena(nn.Module):
    """Order-2 Hyena: project to two gates and a value, short convolution, long convolution.

    y = x0 * (h conv (x1 * v) + bias * (x1 * v)). Channels first throughout, so that no layout is
    copied between projection, convolutions and gates.
    """

    def __init__(self, width: int, filter: ImplicitFilter, *, taps: int = 3, bias: bool = True):
        super().__init__()
        self.in_proj = Linear(width, 3 * width, bias=bias)
        self.short = ShortConvolution(3 * width, taps)
        self.filter = filter
        self.out_proj = Linear(width, width, bias=bias)

    def forward(
        self, x_BLD: Tensor, cache: DecodeCache | None = None, mask_BL: Tensor | None = None
    ) -> Tensor:
        """Mix along the sequence.

        Parameters
        ----------
        x_BLD
            Input.
        cache
            Memory of the tokens before; with it, one token costs one dot product per channel.
        mask_BL
            0 at padding: what stands there then contributes nothing, on either side.
        """
        z_BCL = torch.matmul(self.in_proj.weight, x_BLD.transpose(1, 2))
        if self.in_proj.bias is not None:
            z_BCL = z_BCL + self.in_proj.bias[:, None]
        if mask_BL is not None:
            z_BCL = z_BCL * mask_BL[:, None].to(z_BCL.dtype)
        if cache is not None and cache.position:
            return self._continue(z_BCL, cache)
        gate, inner, value = self.short(z_BCL).chunk(3, dim=1)
        u_BDL = value * inner
        if mask_BL is not None:
            u_BDL = u_BDL * mask_BL[:, None].to(u_BDL.dtype)
        L = u_BDL.shape[-1]
        n = fast_fft_length(2 * L)
        y_BDL = causal_convolution(u_BDL, self.filter.spectrum(L, n), n)
        y_BDL = (y_BDL + u_BDL * self.filter.bias[:, None]).to(gate.dtype)
        if cache is not None:
            self._remember(z_BCL, u_BDL, cache)
        return self.out_proj((y_BDL * gate).transpose(1, 2))

    def _remember(self, z_BCL: Tensor, u_BDL: Tensor, cache: DecodeCache) -> None:
        slot, (B, D, L) = cache.slot(self), u_BDL.shape
        slot["raw"] = F.pad(z_BCL, (self.short.taps - 1, 0))[..., -(self.short.taps - 1) :].clone()
        slot["u"] = u_BDL.new_zeros(B, D, cache.capacity, dtype=torch.float32)
        slot["u"][..., :L] = u_BDL
        slot["backwards"] = self.filter.taps(cache.capacity).flip(-1).contiguous()

    def _continue(self, z_BCL: Tensor, cache: DecodeCache) -> Tensor:
        slot, first, L = cache.slot(self), cache.position, z_BCL.shape[-1]
        gate, inner, value = self.short(z_BCL, slot["raw"]).chunk(3, dim=1)
        slot["raw"] = torch.cat([slot["raw"], z_BCL], dim=-1)[..., -(self.short.taps - 1) :]
        u_BDL = (value * inner).float()
        slot["u"][..., first : first + L] = u_BDL
        past, backwards = slot["u"], slot["backwards"]
        columns = [
            torch.linalg.vecdot(past[..., : t + 1], backwards[:, cache.capacity - 1 - t :])
            for t in range(first, first + L)
        ]
        y_BDL = torch.stack(columns, dim=-1) + u_BDL * self.filter.bias[:, None]
        return self.out_proj((y_BDL.to(gate.dtype) * gate).transpose(1, 2))
