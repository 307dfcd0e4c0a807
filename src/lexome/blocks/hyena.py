"""The Hyena operator: gates around a long convolution with an implicit filter.

Poli et al. 2023, arXiv:2302.10866. Axes: B batch, L tokens, D width, C some of its channels,
N frequencies, R places from the first token to the last that will be seen.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from lexome.blocks.causal import Past
from lexome.blocks.initialise import numbers
from lexome.blocks.linear import Linear
from lexome.blocks.precision import without_autocast
from lexome.blocks.stack import DecodeCache
from lexome.blocks.versions import versions
from lexome.core import InputError

_CACHED = 1 << 20  # numbers that are transformed at a time
_PROJECTED = 1 << 19  # numbers that a projection makes at a time, few enough for the caches
_FEWEST_TOKENS = 256  # for which it is worth reading the weights of a projection again
_APART = 16  # numbers between channels, so that a token's do not all meet in one line of the cache
_PLACES = 1 << 14  # places of a filter that are computed at a time
_FEWEST = 4  # places; fewer rows go to another kernel, and the sines enlarge how that rounds
_KEPT = 400 << 20  # bytes of transformed filters that one layer keeps
_BLOCK = 64  # tokens whose products are added one by one while generating


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


def causal_convolution(
    u_BDL: Tensor, spectrum_DN: Tensor, n: int, length: int | None = None
) -> Tensor:
    """Convolve with a filter given by its real FFT; float32.

    Parameters
    ----------
    u_BDL
        Input (..., L).
    spectrum_DN
        Real FFT of length `n` of the filter; broadcasts over the rest.
    n
        At least L + `length` - 1, so that nothing wraps around.
    length
        Outputs wanted, L by default; more give what the input still causes after its end.
    """
    spectrum = torch.fft.rfft(u_BDL.float(), n=n)
    spectrum = spectrum * spectrum_DN if spectrum.requires_grad else spectrum.mul_(spectrum_DN)
    return torch.fft.irfft(spectrum, n=n)[..., : length or u_BDL.shape[-1]]


def short_convolution(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Convolve the last axis causally with few taps, zeros before its beginning.

    One multiply-add per tap and place, without the copies into a blocked layout that general
    convolutions make.

    Parameters
    ----------
    x
        Input (..., L).
    weight
        Taps (..., K), the last for now; broadcasts over the other axes of `x`.
    bias
        Added to every place.
    """
    y = torch.addcmul(bias, x, weight[..., -1:])
    for back in range(1, weight.shape[-1]):
        y[..., back:].addcmul_(x[..., :-back], weight[..., -1 - back, None])
    return y


def short_convolution_after(
    before_BR: Tensor, x_BL: Tensor, weight_K: Tensor, bias: Tensor
) -> Tensor:
    """Convolve the second axis causally with few taps, after what stood before.

    Parameters
    ----------
    before_BR
        The K - 1 places before the first, (B, K - 1, ...).
    x_BL
        Input (B, L, ...).
    weight_K
        Taps (K, ...), the last for now.
    bias
        Added to every place, (...).
    """
    y_BL = torch.addcmul(bias, x_BL, weight_K[-1])
    taps, length = len(weight_K), x_BL.shape[1]
    for back in range(1, taps):
        first = min(back, length)
        y_BL[:, :first].addcmul_(before_BR[:, taps - 1 - back :][:, :first], weight_K[-1 - back])
        y_BL[:, back:].addcmul_(x_BL[:, : length - first], weight_K[-1 - back])
    return y_BL


class ShortConvolution(nn.Module):
    """Depthwise causal convolution of a few taps, channels first."""

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

    def forward(self, x_CBL: Tensor) -> Tensor:
        """Convolve (C, B, L) along its last axis."""
        return short_convolution(x_CBL, self.weight, self.bias[:, None, None])


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

        def waves() -> Tensor:
            angle = 2 * torch.pi * torch.arange(length)[None, :, None] / length
            phase = torch.linspace(1e-4, bands - 1, bands)[None, None] * angle
            return torch.cat([t, phase.cos(), -phase.sin()], dim=-1)

        self.register_buffer("z", numbers((1, length, 1 + 2 * bands), waves))
        self.register_buffer("t", t)
        # Decay to 1 % of the height after 1.5 (slowest channel) to 0.3 (fastest) of the length.
        slow, fast = math.log(1e-2) / 1.5, math.log(1e-2) / 0.3
        self.register_buffer("deltas", torch.linspace(slow, fast, width)[None, None])
        self._state: tuple[float, ...] = ()
        self._kept: dict[tuple[int, int], Tensor] = {}

    def taps(self, length: int) -> Tensor:
        """Compute the first `length` taps, shape (D, length), float32."""
        rows = max(length, _FEWEST)
        z_LF, t_L1 = self.z[0, :rows], self.t[0, :rows]
        with without_autocast(z_LF):
            if torch.is_grad_enabled() or length <= _PLACES:
                return self._heights(z_LF, t_L1)[:length].T.contiguous()
            taps_DL = z_LF.new_empty(len(self.bias), length)
            for first in range(0, length, _PLACES):
                some = slice(first, first + _PLACES)
                taps_DL[:, some] = self._heights(z_LF[some], t_L1[some]).T
            return taps_DL

    def _heights(self, z_LF: Tensor, t_L1: Tensor) -> Tensor:
        """Return the taps at some places, shape (L, D)."""
        return self.net(z_LF) * (torch.exp(-t_L1 * self.deltas[0].abs()) + self.shift)

    def spectra(
        self, length: int, n: int, channels: int, *, exact: bool = False
    ) -> Iterable[Tensor]:
        """Return the real FFT of length `n` of the first `length` taps, `channels` at a time.

        Where no gradient is wanted and there is room it is kept for later calls. It then holds
        more taps, all that inputs of up to n / 2 can meet, so that these share it; but not if
        `exact`, for those who look at places that later taps reach.
        """
        training = torch.is_grad_enabled() and self.bias.requires_grad
        if training:
            self._kept = {}  # a fused optimizer changes weights without a trace in `_version`
        if training or 4 * n * len(self.bias) > _KEPT:
            return (torch.fft.rfft(part, n=n) for part in self.taps(length).split(channels))
        return self._spectrum(n, length if exact else n // 2).split(channels)

    def _spectrum(self, n: int, length: int) -> Tensor:
        tensors = [*self.net.parameters(), self.z, self.t, self.deltas]
        state = (self.shift, *versions(tensors))
        if state != self._state:
            self._state, self._kept = state, {}
        name = n, length
        if name not in self._kept:
            # What is kept must also serve later calls that compute gradients.
            with torch.inference_mode(False), torch.no_grad():
                spectrum = torch.fft.rfft(self.taps(min(self.length, length)), n=n)
            while self._kept and _bytes(spectrum, *self._kept.values()) > _KEPT:
                self._kept.pop(next(iter(self._kept)))
            self._kept[name] = spectrum
        return self._kept[name]


def _bytes(*tensors: Tensor) -> int:
    return sum(t.nbytes for t in tensors)


Convolver = Callable[[Tensor, slice], Tensor]
"""Convolves some channels (C, B, L) of which the slice says which they are."""
Norm = Callable[[Tensor], Tensor]
"""Norms every token by itself."""


class Hyena(nn.Module):
    """Order-2 Hyena: project to two gates and a value, short convolution, long convolution.

    y = x0 * (h conv (x1 * v) + bias * (x1 * v)). Few tokens at a time go through the projections,
    and few channels at a time through the long convolution, so that most of what is made in
    between stays in the processor's cache.

    Parameters
    ----------
    width
        Number of channels D.
    filter
        The long convolution, with the `bias` of the formula.
    taps
        Length of the short convolution.
    bias
        Whether the projections have one.
    heads
        The projection's outputs are x0, x1 and v of the channels of the first head, then of the
        second, and so on; with one, all x0, all x1, all v.
    """

    row_axes: ClassVar = {"raw": 2, "stream": 1, "state": 1}  # of what the cache remembers
    norms: ClassVar = True  # `forward` takes the norm before it, to apply it to few tokens a time

    def __init__(
        self, width: int, filter: nn.Module, *, taps: int = 3, bias: bool = True, heads: int = 1
    ):
        super().__init__()
        self.heads = heads
        self.in_proj = Linear(width, 3 * width, bias=bias)
        self.short = ShortConvolution(3 * width, taps)
        self.filter: Any = filter
        self.out_proj = Linear(width, width, bias=bias)

    def forward(self, x_BLD: Tensor, past: Past | None = None, norm: Norm | None = None) -> Tensor:
        """Mix along the sequence.

        Parameters
        ----------
        x_BLD
            Input.
        past
            Its cache is a memory of the tokens before; with it a token costs some dot products
            and, averaged over many tokens, a few short FFTs. Its mask is 0 at padding: what stands
            there then contributes nothing, on either side.
        norm
            Applied to the input first.

        Returns
        -------
        Shape (B, L, D), in memory that nobody else has.
        """
        past = past or Past()
        if past.cache is not None and past.cache.position:
            self._admit(past.cache.position + x_BLD.shape[1])
            x_BLD = x_BLD if norm is None else norm(x_BLD)
            return self.out_proj(self._next(x_BLD, past.cache))
        return self._mix(x_BLD, past, norm)

    def _admit(self, tokens: int) -> None:
        """Refuse more tokens than the filter has places for."""
        places = getattr(self.filter, "length", tokens)
        if tokens > places:
            raise InputError(
                f"{tokens:,} tokens were given, and the filters were made for at most {places:,}. "
                "Cut the sequence, or take a model with a longer context."
            )

    def _mix(self, x_BLD: Tensor, past: Past, norm: Norm | None = None) -> Tensor:
        """Mix all tokens at once, after those that the cache has raw inputs of."""
        B, L, _ = x_BLD.shape
        self._admit(L)
        slot = {} if past.cache is None else past.cache.slot(self)
        before_BR = self._before(x_BLD, slot)
        few, convolve, finish = self._convolver(B, L, past.cache)
        u_DBL, gate_BLD = self._enter(x_BLD, before_BR, past, norm)
        y_DBL = self._convolved(u_DBL, few, convolve)
        if past.cache is not None:
            finish(slot)
        return self._leave(y_DBL, gate_BLD, before_BR[..., 0, :].flatten(2))

    def _before(self, x_BLD: Tensor, slot: dict[str, Tensor]) -> Tensor:
        """Return raw outputs of the projection before the first token, (B, K - 1, H, 3, E)."""
        if "raw" in slot:
            return slot["raw"].unflatten(1, (self.heads, -1)).permute(3, 4, 1, 0, 2)
        shape = len(x_BLD), self.short.taps - 1, self.heads, 3, x_BLD.shape[-1] // self.heads
        return x_BLD.new_zeros(shape, dtype=torch.float32)

    def _enter(
        self, x_BLD: Tensor, before_BR: Tensor, past: Past, norm: Norm | None
    ) -> tuple[Tensor, Tensor]:
        """Return what the filter gets, (D, B, L), and the gates before their short convolution."""
        B, L, D = x_BLD.shape
        weight, bias = self._short_by_head()
        weight, bias = weight[:, :, 1:].contiguous(), bias[:, 1:].contiguous()
        u_DBL = gate_BLD = None
        seen_BR, last = before_BR, []
        for rows, places in _pieces(x_BLD, 3 * D):
            x = x_BLD[rows, places]
            z = self.in_proj(x if norm is None else norm(x)).unflatten(-1, (self.heads, 3, -1))
            mask_BL = None if past.mask_BL is None else past.mask_BL[rows, places]
            if mask_BL is not None:
                z = z * mask_BL[..., None, None, None].to(z.dtype)
            if places.start == 0:
                seen_BR = before_BR[rows]
            mixed = short_convolution_after(
                seen_BR[..., 1:, :], z[..., 1:, :].float(), weight, bias
            )
            u_CBL = (mixed[..., 0, :] * mixed[..., 1, :]).flatten(2).permute(2, 0, 1)
            u_CBL = u_CBL if mask_BL is None else u_CBL * mask_BL
            gate = z[..., 0, :].flatten(2)
            seen_BR = _latest(seen_BR, z)
            if past.cache is not None and places.stop == L:
                last.append(seen_BR)
            if torch.is_grad_enabled():
                u_DBL, gate_BLD = u_CBL, gate
                continue
            if u_DBL is None or gate_BLD is None:
                u_DBL = past.room("channels first", (D, B, L + _APART), mixed)[..., :L]
                gate_BLD = gate.new_empty(x_BLD.shape)
            u_DBL[:, rows, places] = u_CBL
            gate_BLD[rows, places] = gate
        if past.cache is not None:
            raw = torch.cat(last).permute(3, 2, 4, 0, 1)
            past.cache.slot(self)["raw"] = raw.flatten(1, 2).contiguous()
        assert u_DBL is not None
        assert gate_BLD is not None
        return u_DBL, gate_BLD

    def _convolved(self, u_DBL: Tensor, few: int, convolve: Convolver) -> Tensor:
        """Return filter conv u + bias * u, in the place of u where no gradient is wanted."""
        outputs = []
        for first in range(0, len(u_DBL), few):
            some = slice(first, first + few)
            u_CBL, skip = u_DBL[some], self.filter.bias[some, None, None]
            y_CBL = convolve(u_CBL, some)
            if torch.is_grad_enabled():
                outputs.append(torch.addcmul(y_CBL, u_CBL, skip))
            else:
                torch.addcmul(y_CBL, u_CBL, skip, out=u_CBL)
        return torch.cat(outputs) if outputs else u_DBL

    def _leave(self, y_DBL: Tensor, gate_BLD: Tensor, before_BRD: Tensor) -> Tensor:
        """Apply the gates, of which `before_BRD` stood before the first, and project."""
        weight, bias = self._short_by_head()
        weight, bias = weight[:, :, 0].flatten(1), bias[:, 0].flatten()
        seen_BRD = before_BRD
        for rows, places in _pieces(gate_BLD, 3 * gate_BLD.shape[-1]):
            z = gate_BLD[rows, places]
            if places.start == 0:
                seen_BRD = before_BRD[rows]
            gate = short_convolution_after(seen_BRD, z.float(), weight, bias)
            y = y_DBL[:, rows, places].permute(1, 2, 0)
            if torch.is_grad_enabled():
                return self.out_proj((gate * y).to(z.dtype))
            seen_BRD = _latest(seen_BRD, z)
            gate_BLD[rows, places] = self.out_proj(gate.mul_(y).to(z.dtype))
        return gate_BLD

    def _short_by_head(self) -> tuple[Tensor, Tensor]:
        """Return taps (K, H, 3, E) and bias (H, 3, E) of the short convolution, float32."""
        shape = self.heads, 3, -1
        weight = self.short.weight[:, 0].float().T.unflatten(1, shape)
        return weight.contiguous(), self.short.bias.float().unflatten(0, shape)

    def _convolver(
        self, B: int, L: int, cache: DecodeCache | None
    ) -> tuple[int, Convolver, Callable[[dict[str, Tensor]], None]]:
        """Return channels at a time, what convolves them, and what remembers when all are done."""
        reach = cache.capacity if cache else L
        n = fast_fft_length(2 * reach)
        few = max(1, _CACHED // (B * n))
        spectra, later = iter(self.filter.spectra(reach, n, few)), []

        def convolve(u_CBL: Tensor, some: slice) -> Tensor:
            y_CBR = causal_convolution(u_CBL, next(spectra)[:, None], n, reach)
            if cache is not None:
                later.append(y_CBR[..., L:].clone())
            return y_CBR[..., :L]

        def finish(slot: dict[str, Tensor]) -> None:
            slot["stream"] = torch.cat(later)
            slot["taps"] = self.filter.taps(reach)[:, None]
            slot["backwards"] = slot["taps"][..., :_BLOCK].flip(-1)

        return few, convolve, finish

    def _by_part(self, x: Tensor) -> Tensor:
        """Reorder outputs of the projection (3 D, ...) as gates, gates, values (3, D, ...)."""
        parts = x.unflatten(0, (self.heads, 3, -1)).transpose(0, 1)
        return parts.reshape(3, -1, *x.shape[1:])

    def _next(self, x_BLD: Tensor, cache: DecodeCache) -> Tensor:
        """Mix tokens one after the other, or one and those of which each could follow it."""
        slot, place, length = cache.slot(self), cache.position, x_BLD.shape[1]
        if "gain" not in slot:
            self._prepare(slot)
        z_3DBL = self._by_part(self.in_proj(x_BLD).float().permute(2, 0, 1))
        mixed = []
        for one_3DB1 in z_3DBL.split(1, -1)[: 1 if cache.parts(length) else None]:
            y_DB1, u_DB1 = self._look(one_3DB1, cache, place)
            self._take(one_3DB1[..., 0], u_DB1[..., 0], cache, place)
            mixed.append(y_DB1)
            place += 1
        if cache.parts(length):
            choices_3DBN = z_3DBL[..., 1:]
            y_DBN, u_DBN = self._look(choices_3DBN, cache, place)
            cache.ahead(self).update(raw=choices_3DBN, input=u_DBN)
            mixed.append(y_DBN)
        y_DBL = torch.cat(mixed, -1) if len(mixed) > 1 else mixed[0]
        return y_DBL.permute(1, 2, 0).to(x_BLD.dtype)

    def keep(self, cache: DecodeCache, choice_B: Tensor) -> None:
        """Remember a choice of the last call."""
        ahead, row_B = cache.ahead(self), torch.arange(len(choice_B), device=choice_B.device)
        z_3DB, u_DB = (ahead[name][..., row_B, choice_B] for name in ("raw", "input"))
        self._take(z_3DB, u_DB, cache, cache.position)

    def _prepare(self, slot: dict[str, Tensor]) -> None:
        """Make what steps share; it belongs to no row."""
        slot["short"] = self._by_part(self.short.weight.float()).view(3, -1, 1, self.short.taps)
        slot["offset"] = self._by_part(self.short.bias.float()).view(3, -1, 1)
        slot["gain"] = (self.filter.bias + self._first_tap(slot))[:, None, None]

    def _look(self, z_3DBN: Tensor, cache: DecodeCache, place: int) -> tuple[Tensor, Tensor]:
        """Mix each of N tokens as if it were the one at `place`, the next.

        Returns
        -------
        Outputs (D, B, N), and what goes into the long convolution, of the same shape.
        """
        slot = cache.slot(self)
        mixed_3DB = slot["offset"]
        *taps, last = slot["short"].unbind(-1)
        for tap, before in zip(taps, slot["raw"].unbind(-1), strict=True):
            mixed_3DB = torch.addcmul(mixed_3DB, before, tap)
        gate, inner, value = torch.addcmul(mixed_3DB[..., None], z_3DBN, last[..., None])
        u_DBN = value * inner
        before_DB1 = self._recall(cache, place)[..., None]
        return torch.addcmul(before_DB1, u_DBN, slot["gain"]).mul_(gate), u_DBN

    def _take(self, z_3DB: Tensor, u_DB: Tensor, cache: DecodeCache, place: int) -> None:
        """Remember the token at `place`, the last that was looked at."""
        slot = cache.slot(self)
        slot["raw"] = torch.cat([slot["raw"][..., 1:], z_3DB[..., None]], dim=-1)
        self._record(u_DB, cache, place)

    def _first_tap(self, slot: dict[str, Tensor]) -> Tensor:
        """Return what the long convolution makes of the present input, (D)."""
        return slot["taps"][:, 0, 0]

    def _recall(self, cache: DecodeCache, place: int) -> Tensor:
        """Return what the inputs before a place give to it by the long convolution, (D, B).

        `stream` holds the inputs since the prompt and, from the next token on, what all but the
        latest block of them contribute to the places to come. That block is added here.
        """
        slot = cache.slot(self)
        stream_DBR = slot["stream"]
        at = place - (cache.capacity - stream_DBR.shape[-1])
        inside = at % _BLOCK
        if not inside:
            return stream_DBR[..., at]
        latest = stream_DBR[..., at - inside : at]
        taps = slot["backwards"][..., -1 - inside : -1]
        return stream_DBR[..., at] + torch.linalg.vecdot(latest, taps)

    def _record(self, u_DB: Tensor, cache: DecodeCache, place: int) -> None:
        """Put an input of the long convolution to the others.

        When a block is full, it and as many before it as divide the count evenly contribute to as
        many places ahead by one FFT, so that every input meets every later place once (van der
        Hoeven 1997, relaxed multiplication; Oncescu et al. 2024, arXiv:2410.12982).
        """
        slot = cache.slot(self)
        at = place - (cache.capacity - slot["stream"].shape[-1])
        slot["stream"][..., at] = u_DB
        if (at + 1) % _BLOCK == 0:
            _contribute(slot, at + 1)


class WrappedHyena(Hyena):
    """Hyena as HELM made it two-sided: the value is moved half a length on, around a circle of two.

    y(t) = sum_j h(j) u(t - j - L / 2), indices modulo 2 L, for an input of L tokens. Outputs of the
    second half thus see the first, and those of the first half the ends of the sequence, as far
    as the filter is long. With padding, each row is a circle of its own length.
    """

    def forward(self, x_BLD: Tensor, past: Past | None = None, norm: Norm | None = None) -> Tensor:
        """Mix along the sequence; there is nothing to generate from, and no cache."""
        if past is None or past.mask_BL is None:
            return self._mix(x_BLD, Past(), norm)
        x_BLD = x_BLD if norm is None else norm(x_BLD)
        present_BL = past.mask_BL > 0
        starts, counts = present_BL.int().argmax(1), present_BL.sum(1)
        y_BLD = torch.zeros_like(x_BLD)
        for start, count in {*zip(starts.tolist(), counts.tolist(), strict=True)}:
            rows = ((starts == start) & (counts == count)).nonzero()[:, 0]
            if count:
                mixed_BLD = self._mix(x_BLD[rows, start : start + count], Past())
                y_BLD[rows, start : start + count] = mixed_BLD.to(y_BLD.dtype)
        return y_BLD

    def _convolver(
        self, B: int, L: int, cache: DecodeCache | None
    ) -> tuple[int, Convolver, Callable[[dict[str, Tensor]], None]]:
        n = fast_fft_length(2 * L)
        few = max(1, _CACHED // (B * n))
        spectra = iter(self.filter.spectra(L, n, few, exact=True))

        def convolve(u_CBL: Tensor, some: slice) -> Tensor:
            y_CBR = causal_convolution(u_CBL, next(spectra)[:, None], n, 2 * L)
            return y_CBR.roll(L // 2, -1)[..., :L]

        return few, convolve, lambda slot: None


def _pieces(x_BLD: Tensor, width: int) -> Iterator[tuple[slice, slice]]:
    """Yield which rows and which places of them go together: whole rows, or parts of one.

    With gradients and on other devices than a CPU, that is all of them.
    """
    B, L, _ = x_BLD.shape
    tokens = max(_FEWEST_TOKENS, _PROJECTED // width)
    if torch.is_grad_enabled() or x_BLD.device.type != "cpu":
        tokens = max(tokens, B * L)
    rows = max(1, tokens // L)
    for row in range(0, B, rows):
        for place in range(0, L, tokens):
            yield slice(row, min(B, row + rows)), slice(place, min(L, place + tokens))


def _latest(before_BR: Tensor, x_BL: Tensor) -> Tensor:
    """Return the last places, as many as `before_BR` has, of both together; a copy."""
    count = before_BR.shape[1]
    new = x_BL[:, max(0, x_BL.shape[1] - count) :].to(before_BR.dtype)
    return torch.cat([before_BR, new], 1)[:, new.shape[1] :]


def _contribute(slot: dict[str, Tensor], done: int) -> None:
    """Add what the latest of `done` inputs cause to as many places after them."""
    size = done & -done  # the largest power of two that divides the count
    stream_DBR = slot["stream"]
    ahead_DBR = stream_DBR[..., done : done + size]
    if not ahead_DBR.shape[-1]:
        return
    name, n = f"spectrum of {size}", 2 * size
    if name not in slot:
        slot[name] = torch.fft.rfft(slot["taps"][..., :n], n=n)
    caused = causal_convolution(stream_DBR[..., done - size : done], slot[name], n, n)
    ahead_DBR += caused[..., size : size + ahead_DBR.shape[-1]]
