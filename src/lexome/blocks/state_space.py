"""State spaces: what a token leaves behind decays, and every output reads what is left.

One recurrence, state(t) = decay(t) * state(t-1) + drive(t), runs through all of them: Mamba-1,
where each state decays at a rate of its own (Gu and Dao 2023, arXiv:2312.00752), Mamba-2, where
those of a head share one and the sum becomes multiplications of matrices (Dao and Gu 2024,
arXiv:2405.21060), and Hyena's modal filters (`blocks.modal`), whose decay never changes.
Axes: B batch, L tokens, T tokens of a stretch, I inner channels, N states, H heads, P head width,
G groups, D width.
"""

import math
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from lexome.blocks.causal import Past
from lexome.blocks.hyena import short_convolution
from lexome.blocks.initialise import numbers
from lexome.blocks.linear import Linear
from lexome.blocks.precision import without_autocast
from lexome.blocks.stack import DecodeCache

_CACHED = 1 << 19  # numbers of a state over a stretch of tokens: few enough for the caches
_STRETCH = 64  # tokens of a stretch whose pairs are multiplied one by one


class _Recurrence(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, decay: Tensor, drive: Tensor, start: Tensor) -> Tensor:  # type: ignore[override]
        states = torch.empty_like(drive)
        state = start
        for now, kept, new in zip(states.unbind(), decay.unbind(), drive.unbind(), strict=True):
            state = torch.addcmul(new, kept, state, out=now)
        ctx.save_for_backward(decay, states, start)
        return states

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:  # type: ignore[override]
        decay, states, start = ctx.saved_tensors
        decay = decay.conj()
        for_drive = torch.empty_like(states)
        left = torch.zeros_like(start)
        steps = zip(for_drive.unbind(), grad.unbind(), decay.unbind(), strict=True)
        for now, given, kept in reversed(list(steps)):
            torch.add(given, left, out=now)
            left = kept * now
        before = torch.cat([start[None], states[:-1]])
        return for_drive * before.conj(), for_drive, left


def recurrence(decay: Tensor, drive: Tensor, start: Tensor) -> Tensor:
    """Compute state(t) = decay(t) * state(t-1) + drive(t) for all t.

    One multiply-add per step on contiguous memory; real or complex.

    Parameters
    ----------
    decay, drive
        Shape (T, ...); `decay` may be broadcast.
    start
        The state before, shape (...).

    Returns
    -------
    States (T, ...).

    Examples
    --------
    >>> half, ones = torch.full((3, 1), 0.5), torch.ones(3, 1)
    >>> recurrence(half, ones, torch.zeros(1)).tolist()
    [[1.0], [1.5], [1.75]]
    """
    shape = torch.broadcast_shapes(decay.shape, drive.shape)
    start = start.expand(shape[1:])
    if drive.is_meta:
        return torch.empty_like(drive.expand(shape))  # no step changes the shape
    return _Recurrence.apply(decay.expand(shape), drive.expand(shape), start)  # type: ignore[return-value]


def selective_scan(
    u_BLI: Tensor,
    dt_BLI: Tensor,
    rate_IN: Tensor,
    into_BLN: Tensor,
    out_BLN: Tensor,
    state_BIN: Tensor,
) -> tuple[Tensor, Tensor]:
    """Run Mamba-1's state space: state = exp(dt rate) state + dt into u; y = out . state.

    Gu and Dao 2023, algorithm 2, with their simplified discretisation of the input. A stretch of
    tokens at a time, so that memory does not grow with the length where no gradient is wanted.

    Parameters
    ----------
    u_BLI
        Input, float32.
    dt_BLI
        Step sizes, positive.
    rate_IN
        Rates, negative.
    into_BLN, out_BLN
        How an input enters the states, and how they are read.
    state_BIN
        States before the first token.

    Returns
    -------
    Outputs (B, L, I) and the states after the last token (B, I, N).
    """
    if u_BLI.shape[1] == 1:
        return _selective_step(u_BLI, dt_BLI, rate_IN, into_BLN, out_BLN, state_BIN)
    step = max(1, _CACHED // state_BIN.numel())
    outputs = []
    inputs = (x.transpose(0, 1).split(step) for x in (u_BLI, dt_BLI, into_BLN, out_BLN))
    with without_autocast(u_BLI):
        for u_TBI, dt_TBI, into_TBN, out_TBN in zip(*inputs, strict=True):
            decay_TBIN = torch.exp(dt_TBI[..., None] * rate_IN)
            drive_TBIN = (dt_TBI * u_TBI)[..., None] * into_TBN[:, :, None]
            states_TBIN = recurrence(decay_TBIN, drive_TBIN, state_BIN)
            outputs.append((states_TBIN @ out_TBN[..., None])[..., 0])
            state_BIN = states_TBIN[-1]
    return torch.cat(outputs).transpose(0, 1), state_BIN


def _selective_step(
    u_B1I: Tensor,
    dt_B1I: Tensor,
    rate_IN: Tensor,
    into_B1N: Tensor,
    out_B1N: Tensor,
    state_BIN: Tensor,
) -> tuple[Tensor, Tensor]:
    """Run `selective_scan` for one token, in as few operations as there can be."""
    with without_autocast(u_B1I):
        decay_BIN = (dt_B1I.mT * rate_IN).exp()
        state_BIN = torch.addcmul(decay_BIN * state_BIN, (dt_B1I * u_B1I).mT, into_B1N)
        return (state_BIN @ out_B1N.mT).mT, state_BIN


def paired_scan(
    u_BLHP: Tensor,
    dt_BLH: Tensor,
    rate_H: Tensor,
    into_BLGN: Tensor,
    out_BLGN: Tensor,
    state_BHPN: Tensor,
) -> tuple[Tensor, Tensor]:
    """Run Mamba-2's state space, in which the states of a head decay alike.

    Within a stretch of tokens each pair is multiplied, as attention does; from stretch to stretch
    goes the state (Dao and Gu 2024, section 6).

    Parameters
    ----------
    u_BLHP
        Input, float32.
    dt_BLH
        Step sizes, positive.
    rate_H
        Rates, negative.
    into_BLGN, out_BLGN
        How an input enters the states, and how they are read; heads of a group share them.
    state_BHPN
        States before the first token.

    Returns
    -------
    Outputs (B, L, H, P) and the states after the last token (B, H, P, N).
    """
    if u_BLHP.shape[1] == 1:
        return _paired_step(u_BLHP, dt_BLH, rate_H, into_BLGN, out_BLGN, state_BHPN)
    repeats = u_BLHP.shape[2] // into_BLGN.shape[2]
    outputs = []
    inputs = (x.split(_STRETCH, dim=1) for x in (u_BLHP, dt_BLH, into_BLGN, out_BLGN))
    with without_autocast(u_BLHP):
        for u_BTHP, dt_BTH, into_BTGN, out_BTGN in zip(*inputs, strict=True):
            u_BHTP = (u_BTHP * dt_BTH[..., None]).transpose(1, 2)
            into_BHTN = into_BTGN.repeat_interleave(repeats, 2).transpose(1, 2)
            out_BHTN = out_BTGN.repeat_interleave(repeats, 2).transpose(1, 2)
            # Logarithm, since the start. Differences of such sums need more digits than they keep.
            decayed_BHT = (dt_BTH * rate_H).double().cumsum(1).transpose(1, 2)
            between = (decayed_BHT[..., :, None] - decayed_BHT[..., None, :]).float()
            later = torch.ones(between.shape[-2:], dtype=torch.bool, device=between.device).triu(1)
            pairs = (out_BHTN @ into_BHTN.mT) * between.masked_fill(later, -math.inf).exp()
            kept_BHT1 = decayed_BHT.exp().float()[..., None]
            y_BHTP = pairs @ u_BHTP + kept_BHT1 * (out_BHTN @ state_BHPN.mT)
            outputs.append(y_BHTP.transpose(1, 2))
            left_BHT1 = (decayed_BHT[..., -1:] - decayed_BHT).exp().float()[..., None]
            state_BHPN = kept_BHT1[..., -1:, :] * state_BHPN + (u_BHTP * left_BHT1).mT @ into_BHTN
    return torch.cat(outputs, 1), state_BHPN


def _paired_step(
    u_B1HP: Tensor,
    dt_B1H: Tensor,
    rate_H: Tensor,
    into_B1GN: Tensor,
    out_B1GN: Tensor,
    state_BHPN: Tensor,
) -> tuple[Tensor, Tensor]:
    """Run `paired_scan` for one token, in as few operations as there can be."""
    groups = into_B1GN.shape[2], -1
    with without_autocast(u_B1HP):
        decay_BH = (dt_B1H * rate_H).exp()[:, 0]
        fed_BGKP = (u_B1HP * dt_B1H[..., None])[:, 0].unflatten(1, groups)  # K: heads of a group
        drive_BHPN = (fed_BGKP[..., None] * into_B1GN[:, 0, :, None, None]).flatten(1, 2)
        state_BHPN = torch.addcmul(drive_BHPN, decay_BH[..., None, None], state_BHPN)
        read_BGN1 = out_B1GN[:, 0, :, :, None]
        y_BGK = state_BHPN.unflatten(1, groups).flatten(2, 3) @ read_BGN1
        return y_BGK.view_as(u_B1HP), state_BHPN


class StateSpace(nn.Module):
    """Rates and skip of a state space, which stay float32."""

    float32 = True  # a rate is applied once per token, thousands of times

    def __init__(self, rates: tuple[int, ...], skips: int):
        super().__init__()
        # Real S4D start: rates 1, 2, ..., N for each channel (Gu et al. 2022, arXiv:2206.11893).
        rising = lambda: torch.arange(1.0, rates[-1] + 1).log().expand(rates).clone()  # noqa: E731
        self.log_rate = nn.Parameter(numbers(rates, rising))
        self.skip = nn.Parameter(torch.ones(skips))

    @property
    def rate(self) -> Tensor:
        """Rates, negative."""
        return -self.log_rate.float().exp()


def step_bias(count: int) -> Tensor:
    """Draw biases whose softplus spreads evenly in logarithm from 0.001 to 0.1, as Mamba does."""

    def even() -> Tensor:
        dt = torch.exp(torch.rand(count) * math.log(0.1 / 0.001) + math.log(0.001)).clamp(min=1e-4)
        return dt + torch.log(-torch.expm1(-dt))

    return numbers((count,), even)


class _Mixer(nn.Module):
    """What both Mambas do before their state space: a short causal convolution with memory."""

    row_axes: ClassVar = {"raw": 0, "state": 0}  # of what the cache remembers

    def __init__(
        self,
        width: int,
        projected: int,
        inner: int,
        channels: int,
        taps: int,
        *,
        bias: bool,
        conv_bias: bool,
    ):
        super().__init__()
        self.in_proj = Linear(width, projected, bias=bias)
        self.conv = nn.Conv1d(channels, channels, taps, groups=channels, bias=conv_bias)
        self.out_proj = Linear(inner, width, bias=bias)

    def forward(self, x_BLD: Tensor, past: Past) -> Tensor:
        """Mix along the sequence."""
        return self.out_proj(self._mix(self.in_proj(x_BLD), past).to(x_BLD.dtype))

    def keep(self, cache: DecodeCache, choice_B: Tensor) -> None:
        """Remember a choice of the last call."""
        row_B = torch.arange(len(choice_B), device=choice_B.device) * cache.choices + choice_B
        ahead = cache.ahead(self)
        for name in self.row_axes:
            cache.slot(self)[name] = ahead[name].index_select(0, row_B)

    def _mix(self, projected_BLC: Tensor, past: Past) -> Tensor:
        """Mix what comes from the first projection, up to the last."""
        cache, L = past.cache, projected_BLC.shape[1]
        if cache is None:
            return self._flow(projected_BLC, past.mask_BL, {})
        slot = cache.slot(self)
        if not cache.parts(L):
            return self._flow(projected_BLC, past.mask_BL, slot)
        next_B1I = self._flow(projected_BLC[:, :1], None, slot)
        ahead = cache.ahead(self)
        ahead.update({name: slot[name].repeat_interleave(L - 1, 0) for name in self.row_axes})
        choices_BNI = self._flow(projected_BLC[:, 1:].flatten(0, 1)[:, None], None, ahead)
        return torch.cat([next_B1I, choices_BNI.unflatten(0, (-1, L - 1))[:, :, 0]], 1)

    def _flow(
        self, projected_BLC: Tensor, mask_BL: Tensor | None, slot: dict[str, Tensor]
    ) -> Tensor:
        """Go on from the memory in `slot`, and leave it there."""
        raise NotImplementedError

    def _convolve(self, x_BLC: Tensor, mask_BL: Tensor | None, slot: dict[str, Tensor]) -> Tensor:
        """Convolve, apply SiLU and leave nothing at padding."""
        x_BLC = x_BLC.float()
        L, taps = x_BLC.shape[1], self.conv.kernel_size[0]
        mask_BL1 = None if mask_BL is None else mask_BL[..., None].to(x_BLC.dtype)
        if mask_BL1 is not None:
            x_BLC = x_BLC * mask_BL1
        weight_CT, bias_C = self.conv.weight[:, 0].float(), self.conv.bias
        bias_C = weight_CT.new_zeros(1) if bias_C is None else bias_C.float()
        if "raw" in slot:
            x_BLC = torch.cat([slot["raw"], x_BLC], 1)
        if x_BLC.shape[1] == taps and L == 1 and mask_BL1 is None:
            slot["raw"] = x_BLC[:, 1:]
            return F.silu((x_BLC * weight_CT.T).sum(1, keepdim=True) + bias_C)
        missing = taps - 1 - x_BLC.shape[1]  # where negative, the beginning is cut off
        slot["raw"] = F.pad(x_BLC, (0, 0, missing, 0))
        y_BCL = short_convolution(x_BLC.transpose(1, 2), weight_CT, bias_C[:, None])
        y_BLC = F.silu(y_BCL.transpose(1, 2)[:, -L:])
        return y_BLC if mask_BL1 is None else y_BLC * mask_BL1


class SelectiveMixer(_Mixer):
    """Mamba-1: gate * state space of a short convolution, whose rates of flow the tokens choose.

    Every choice of a cache has a state of its own, so that few cost less than they save.

    Parameters
    ----------
    width, inner, states, taps
        Numbers D, I and N, and the length of the short convolution.
    rank
        Width in which step sizes are chosen.
    bias, conv_bias
        Whether the projections into and out of it have one, and whether the convolution has.
    """

    free_rows: ClassVar = 3

    def __init__(
        self,
        width: int,
        *,
        inner: int,
        states: int,
        rank: int,
        taps: int = 4,
        bias: bool = False,
        conv_bias: bool = True,
    ):
        super().__init__(width, 2 * inner, inner, inner, taps, bias=bias, conv_bias=conv_bias)
        self.rank, self.states = rank, states
        self.x_proj = Linear(inner, rank + 2 * states, bias=False)
        self.dt_proj = Linear(rank, inner)
        self.ssm = StateSpace((inner, states), inner)
        nn.init.uniform_(self.dt_proj.weight, -(rank**-0.5), rank**-0.5)
        with torch.no_grad():
            self.dt_proj.bias.copy_(step_bias(inner))

    def _flow(
        self, projected_BLC: Tensor, mask_BL: Tensor | None, slot: dict[str, Tensor]
    ) -> Tensor:
        u_BLI, gate_BLI = projected_BLC.chunk(2, dim=-1)
        u_BLI = self._convolve(u_BLI, mask_BL, slot)
        chosen = self.x_proj(u_BLI.to(projected_BLC.dtype))
        dt_BLR, into_BLN, out_BLN = chosen.split([self.rank, self.states, self.states], dim=-1)
        dt_BLI = F.softplus(self.dt_proj(dt_BLR).float())
        before = slot.get("state", u_BLI.new_zeros(len(u_BLI), u_BLI.shape[-1], self.states))
        y_BLI, slot["state"] = selective_scan(
            u_BLI, dt_BLI, self.ssm.rate, into_BLN.float(), out_BLN.float(), before
        )
        return torch.addcmul(y_BLI, u_BLI, self.ssm.skip) * F.silu(gate_BLI.float())


class GroupedNorm(nn.Module):
    """RMS norm of groups of channels that lie side by side."""

    def __init__(self, width: int, groups: int, eps: float):
        super().__init__()
        self.groups, self.eps = groups, eps
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., width) to (..., width)."""
        parts = x.unflatten(-1, (self.groups, -1))
        return F.rms_norm(parts, parts.shape[-1:], None, self.eps).flatten(-2) * self.weight


class PairedMixer(_Mixer):
    """Mamba-2: heads of channels that decay alike, a gated norm before the way out.

    States are large: a choice of a cache, which has one of its own, costs more than it saves.

    Parameters
    ----------
    width, heads, head_width, states, groups, taps
        Numbers D, H, P, N and G, and the length of the short convolution.
    eps
        Of the gated norm: RMS norm of (state space * SiLU(gate)), each group by itself.
    least_step, largest_step
        Bounds of the step sizes.
    bias, conv_bias
        Whether the projections into and out of it have one, and whether the convolution has.
    """

    free_rows: ClassVar = 0

    def __init__(
        self,
        width: int,
        *,
        heads: int,
        head_width: int,
        states: int,
        groups: int = 1,
        taps: int = 4,
        eps: float = 1e-5,
        least_step: float = 0.0,
        largest_step: float = math.inf,
        bias: bool = False,
        conv_bias: bool = True,
    ):
        inner, shared = heads * head_width, 2 * groups * states
        projected, channels = 2 * inner + shared + heads, inner + shared
        super().__init__(width, projected, inner, channels, taps, bias=bias, conv_bias=conv_bias)
        self.heads, self.groups, self.states = heads, groups, states
        self.steps = (least_step, largest_step)
        self.ssm = StateSpace((heads,), heads)
        self.ssm.step_bias = nn.Parameter(step_bias(heads))
        self.norm = GroupedNorm(inner, groups, eps)

    scan = staticmethod(paired_scan)

    def _flow(
        self, projected_BLC: Tensor, mask_BL: Tensor | None, slot: dict[str, Tensor]
    ) -> Tensor:
        inner, shared = self.norm.weight.shape[0], self.groups * self.states
        parts = projected_BLC.split([inner, inner + 2 * shared, self.heads], -1)
        gate_BLI, mixed_BLC, dt_BLH = parts
        mixed_BLC = self._convolve(mixed_BLC, mask_BL, slot)
        u_BLI, into, out = mixed_BLC.split([inner, shared, shared], dim=-1)
        dt_BLH = F.softplus(dt_BLH.float() + self.ssm.step_bias).clamp(*self.steps)
        u_BLHP = u_BLI.unflatten(-1, (self.heads, -1))
        into_BLGN, out_BLGN = (x.unflatten(-1, (self.groups, -1)) for x in (into, out))
        P = u_BLHP.shape[-1]
        before = slot.get("state", u_BLI.new_zeros(len(u_BLI), self.heads, P, self.states))
        y_BLHP, slot["state"] = self.scan(
            u_BLHP, dt_BLH, self.ssm.rate, into_BLGN, out_BLGN, before
        )
        y_BLI = torch.addcmul(y_BLHP, u_BLHP, self.ssm.skip[:, None]).flatten(2)
        return self.norm(y_BLI * F.silu(gate_BLI.float()))
