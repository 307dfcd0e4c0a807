"""Hyena with modal filters: sums of decaying oscillations, whose memory is a state of fixed size.

h(t) = sum_s Re(R_s p_s^t) (Massaroli et al. 2023, arXiv:2310.18780; Nguyen et al. 2024, Evo,
doi:10.1126/science.ado9336). A filter of this form is a state space whose decay never changes, so
that it is computed as one: within a block of tokens by multiplying each pair, from block to block
by the recurrence of the states. Cost grows with the length, memory does not.
Axes: C channels, D all of them, B batch, L tokens, Q tokens of a block, K blocks, S states.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from lexome.blocks.causal import Past
from lexome.blocks.hyena import Convolver, Hyena, Norm
from lexome.blocks.initialise import numbers
from lexome.blocks.precision import without_autocast
from lexome.blocks.stack import DecodeCache
from lexome.blocks.state_space import recurrence
from lexome.blocks.versions import versions
from lexome.core import InputError

_MEMORY = 131_072  # tokens over which what a filter remembers falls to 1 / e, at most
_MOST_GROWTH = 70.0  # logarithm of what a tap may grow to; float32 ends at 88
_BLOCK = 32  # tokens of a block: pairs within cost as much as the ways through the states
_CACHED = 1 << 20  # numbers that the steps between the projections work on at a time


class ModalFilter(nn.Module):
    """Poles and residues of a filter for each channel, the complex numbers themselves.

    The start of the authors' code is all but zero, to be loaded into. Ours follows Orvieto et al.
    2023, arXiv:2303.06349, section 3: angles from all of the half circle, so that periods such as
    that of codons are there to be found, and residues near sqrt(1 - |p|^2), so that long memories
    are not louder than short ones. The taps of a channel have a norm of about 1.

    Parameters
    ----------
    width
        Number of channels D.
    states
        Oscillations of each.
    """

    float32 = True  # a pole is raised to the power of the length

    def __init__(self, width: int, states: int):
        super().__init__()

        def sizes() -> Tensor:  # decay over 2 to 2,000 tokens
            return torch.exp(-torch.logspace(math.log10(0.5), math.log10(5e-4), states))

        def poles() -> Tensor:
            angles = torch.pi * torch.rand(width, states)
            return torch.view_as_real(torch.polar(sizes().expand_as(angles), angles))[:, :, None]

        def residues() -> Tensor:
            height = ((1 - sizes() ** 2) / states).sqrt()
            return height[:, None, None] * torch.randn(width, states, 1, 2)

        self.poles = nn.Parameter(numbers((width, states, 1, 2), poles))
        self.residues = nn.Parameter(numbers((width, states, 1, 2), residues))
        self.bias = nn.Parameter(torch.randn(width))
        self._state: tuple[int, ...] = ()
        self._kept: tuple[Tensor, ...] = ()
        self._farthest = 0.0

    def holder(self) -> Callable[[], None]:
        """Return what to call after each step of training: it keeps the filter from exploding.

        Outside of the unit circle a tap is greater than the one before. That a window of training
        is too short to show this helps no longer sequence, so poles are moved back to where a
        memory lasts 131,072 tokens, the longest that Evo was trained on. Poles of a checkpoint
        that are further out may stay, but go no further.
        """
        allowed = _farthest(self.poles)

        @torch.no_grad()
        def hold() -> None:
            nonlocal allowed
            sizes = self.poles.norm(dim=-1, keepdim=True)
            self.poles.mul_((allowed.to(sizes) / sizes).clamp(max=1))
            allowed = _farthest(self.poles)

        return hold

    def as_complex(self) -> tuple[Tensor, Tensor]:
        """Return poles and residues, (D, S) each, in double precision."""
        pair = (self.poles[:, :, 0], self.residues[:, :, 0])
        poles, residues = (torch.view_as_complex(x.double().contiguous()) for x in pair)
        return poles, residues

    def taps(self, length: int) -> Tensor:
        """Compute the first `length` taps, shape (D, length), float32."""
        poles, residues = self.as_complex()
        powers_DSL = poles[..., None] ** torch.arange(length, device=poles.device)
        return (residues[..., None] * powers_DSL).real.sum(1).float()

    def tables(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return what a block needs, kept until a weight changes.

        Returns
        -------
        (D, Q, Q): what a token gives to a later one. (D, 2 S, Q): what a token gives to the state
        after the block, real above imaginary parts. (D, Q, 2 S): what the state before the block
        gives to a token. (D, S, Q + 1): powers of the poles.
        """
        if torch.is_grad_enabled() and self.poles.requires_grad:
            self._kept = ()  # a fused optimizer changes weights without a trace in `_version`
            return self._make()
        tensors = (self.poles, self.residues)
        state = versions(tensors)
        if not self._kept or state != self._state:
            with torch.inference_mode(False), torch.no_grad():
                self._state, self._kept = state, self._make()
                if not self.poles.is_meta:  # without numbers there is nothing to look at
                    self._farthest = float(self.as_complex()[0].abs().max())
        within, into, out, powers = self._kept
        return within, into, out, powers

    def check_reach(self, tokens: int) -> None:
        """Refuse so many tokens if the filter outgrows float32 before the last of them.

        `tables` has been called, and no gradient is wanted: training looks at its loss.

        Raises
        ------
        InputError
            If a pole lies that far outside of the unit circle.
        """
        if self._farthest > 1 and tokens * math.log(self._farthest) > _MOST_GROWTH:
            most = int(_MOST_GROWTH / math.log(self._farthest))
            raise InputError(
                f"a filter of this model grows with every token (a pole of size "
                f"{self._farthest:.6g}, outside of the unit circle), so that its numbers overflow "
                f"within the {tokens:,} tokens that were given. Give at most {most:,} at a time."
            )

    def _make(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        poles, residues = self.as_complex()
        powers_DSQ = poles[..., None] ** torch.arange(_BLOCK + 1, device=poles.device)
        scaled_DSQ = residues[..., None] * powers_DSQ
        taps_DQ = scaled_DSQ[..., :-1].real.sum(1)
        place = torch.arange(_BLOCK, device=poles.device)
        behind = place[:, None] - place[None]
        within_DQQ = taps_DQ[:, behind.clamp(min=0)] * (behind >= 0)
        into_DSQ = powers_DSQ[..., :-1].flip(-1)
        out_DSQ = scaled_DSQ[..., 1:]
        return (
            within_DQQ.float(),
            torch.cat([into_DSQ.real, into_DSQ.imag], 1).float(),
            torch.cat([out_DSQ.real, -out_DSQ.imag], 1).mT.contiguous().float(),
            powers_DSQ.to(torch.complex64),
        )

    def convolve(
        self, u_CBL: Tensor, state_CBS: Tensor, tables: tuple[Tensor, ...]
    ) -> tuple[Tensor, Tensor]:
        """Convolve causally some channels after what came before.

        Parameters
        ----------
        u_CBL
            Input, float32.
        state_CBS
            State before the first token, complex: the sum of p^(t - 1 - j) u(j) over all before t.
        tables
            What `tables` gives, of these channels.

        Returns
        -------
        Outputs (C, B, L), and the state after the last token.
        """
        whole = u_CBL.shape[-1] // _BLOCK * _BLOCK
        parts = []
        with without_autocast(u_CBL):
            for part, size in ((u_CBL[..., :whole], _BLOCK), (u_CBL[..., whole:], None)):
                if part.shape[-1]:
                    size = size or part.shape[-1]
                    y_CBL, state_CBS = _through_blocks(part, size, state_CBS, tables)
                    parts.append(y_CBL)
        return torch.cat(parts, -1) if len(parts) > 1 else parts[0], state_CBS


def _farthest(poles: Tensor) -> Tensor:
    """Return how far from 0 each pole may be after the next step of training."""
    return poles.detach().norm(dim=-1, keepdim=True).clamp(min=1 - 1 / _MEMORY)


def _through_blocks(
    u_CBL: Tensor, size: int, state_CBS: Tensor, tables: tuple[Tensor, ...]
) -> tuple[Tensor, Tensor]:
    """Convolve an input of whole blocks of `size` tokens."""
    within, into, out, powers = tables
    (C, B, _), S = u_CBL.shape, state_CBS.shape[-1]
    u_CQN = u_CBL.reshape(C, -1, size).mT  # N: batch and block
    left = (into[:, :, _BLOCK - size :] @ u_CQN).view(C, 2, S, B, -1)
    drive_KCBS = torch.complex(left[:, 0], left[:, 1]).permute(3, 0, 2, 1).contiguous()
    states_KCBS = recurrence(powers[None, :, None, :, size], drive_KCBS, state_CBS)
    before_CSBK = torch.cat([state_CBS[None], states_KCBS[:-1]]).permute(1, 3, 2, 0).flatten(2)
    before_CTN = torch.cat([before_CSBK.real, before_CSBK.imag], 1)  # T: parts and states
    y_CQN = within[:, :size, :size] @ u_CQN + out[:, :size] @ before_CTN
    return y_CQN.mT.reshape(u_CBL.shape), states_KCBS[-1]


class ModalHyena(Hyena):
    """Hyena whose filter is modal: any number of tokens go on from a state of fixed size."""

    def forward(self, x_BLD: Tensor, past: Past | None = None, norm: Norm | None = None) -> Tensor:
        """Mix along the sequence, after the tokens that the cache of `past` has seen."""
        past = past or Past()
        cache, length = past.cache, x_BLD.shape[1]
        if cache is None or past.mask_BL is not None or "state" not in cache.slot(self):
            return self._mix(x_BLD, past, norm)
        if length == 1 or cache.parts(length):
            return self.out_proj(self._next(x_BLD if norm is None else norm(x_BLD), cache))
        return self._mix(x_BLD, past, norm)

    def _prepare(self, slot: dict[str, Tensor]) -> None:
        poles, residues = self.filter.as_complex()
        slot["poles"] = poles.to(torch.complex64)[:, None]
        parts = torch.stack([residues.real, -residues.imag], -1)
        slot["residues"] = parts.flatten(1).float()[..., None]
        super()._prepare(slot)

    def _first_tap(self, slot: dict[str, Tensor]) -> Tensor:
        return slot["residues"][:, ::2, 0].sum(-1)

    def _recall(self, cache: DecodeCache, place: int) -> Tensor:
        slot = cache.slot(self)
        left_DBS = slot["left"] = slot["poles"] * slot["state"]
        # A product of matrices is faster than `vecdot`, which writes down what it sums.
        return (torch.view_as_real(left_DBS).flatten(2) @ slot["residues"])[..., 0]

    def _record(self, u_DB: Tensor, cache: DecodeCache, place: int) -> None:
        slot = cache.slot(self)
        slot["state"] = slot.pop("left").add_(u_DB[..., None])

    def _convolver(
        self, B: int, L: int, cache: DecodeCache | None
    ) -> tuple[int, Convolver, Callable[[dict[str, Tensor]], None]]:
        slot = {} if cache is None else cache.slot(self)
        tables = self.filter.tables()
        if not torch.is_grad_enabled():
            self.filter.check_reach(L if cache is None else cache.position + L)
        states, before = [], slot.get("state")

        def convolve(u_CBL: Tensor, some: slice) -> Tensor:
            chosen = tuple(table[some] for table in tables)
            if before is None:
                start = torch.zeros(
                    (*u_CBL.shape[:2], chosen[-1].shape[1]),
                    dtype=torch.complex64,
                    device=u_CBL.device,
                )
            else:
                start = before[some]
            y_CBL, state_CBS = self.filter.convolve(u_CBL, start, chosen)
            states.append(state_CBS)
            return y_CBL

        def finish(slot: dict[str, Tensor]) -> None:
            slot["state"] = torch.cat(states)

        return max(1, _CACHED // (B * L)), convolve, finish
