"""Layers that look back only: what they share in a call, attention, the block around a mixer.

Axes: B batch, L tokens, S tokens so far with those of this call, D width, H heads, E head width.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lexome.blocks.attention import SelfAttention, attend
from lexome.blocks.linear import by_rows
from lexome.blocks.positions import Rotary, Turns, turn
from lexome.blocks.stack import DecodeCache

_CACHED = 1 << 19  # numbers that the MLP makes at a time


@dataclass(frozen=True, kw_only=True)
class Past:
    """What the layers of a causal backbone share in one call.

    Attributes
    ----------
    cache
        Memory of the tokens of earlier calls.
    mask_BL
        0 at padding of this call; None where nothing is padded.
    bias
        On the scores of attention, (B, 1, L, S); None where every token sees itself and all before
        it.
    turns
        Rotary positions of this call's tokens.
    rooms
        Memory in which layers may work, one after the other.
    """

    cache: DecodeCache | None = None
    mask_BL: Tensor | None = None
    bias: Tensor | None = None
    turns: Turns | None = None
    rooms: dict[str, Tensor] = field(default_factory=dict)

    def room(self, name: str, shape: tuple[int, ...], like: Tensor) -> Tensor:
        """Return a tensor with anything in it, the same for every layer that asks for it.

        Parameters
        ----------
        name
            Of what it is for.
        shape
            Of the tensor.
        like
            Its dtype and device are taken.
        """
        found = self.rooms.get(name)
        if found is None or (found.shape, found.dtype) != (shape, like.dtype):
            found = self.rooms[name] = like.new_empty(shape)
        return found

    @classmethod
    def of(cls, mask_BL: Tensor | None, cache: DecodeCache | None) -> "Past":
        """Return what layers without attention need."""
        if mask_BL is not None and bool(mask_BL.all()):
            mask_BL = None
        return cls(cache=cache, mask_BL=mask_BL)

    @classmethod
    def attending(
        cls,
        owner: nn.Module,
        x_BLD: Tensor,
        mask_BL: Tensor | None,
        cache: DecodeCache | None,
        turns: Turns | None = None,
    ) -> "Past":
        """Return what layers with attention need; asked once a call, for the cache keeps masks.

        Parameters
        ----------
        owner
            The backbone.
        x_BLD
            Tokens of this call.
        mask_BL, cache, turns
            As the attributes.
        """
        before, length = 0 if cache is None else cache.position, x_BLD.shape[1]
        apart = cache is not None and cache.parts(length)
        seen_BS = seen_mask(owner, mask_BL, x_BLD, cache)
        bias = causal_bias(seen_BS, length, before, x_BLD, apart=apart)
        if cache is not None and apart and turns is not None:
            place_L = cache.places(length, x_BLD.device) - before
            turns = turns[0][place_L], turns[1][place_L]
        return cls(cache=cache, mask_BL=cls.of(mask_BL, None).mask_BL, bias=bias, turns=turns)


def seen_mask(
    owner: nn.Module, mask_BL: Tensor | None, like: Tensor, cache: DecodeCache | None
) -> Tensor | None:
    """Return which of all tokens so far are no padding, (B, S), or None where all are not.

    Parameters
    ----------
    owner
        The backbone, under which the cache remembers the masks of earlier calls.
    mask_BL
        This call's mask.
    like
        Tokens of this call, (B, L, ...).
    cache
        None outside generation.
    """
    if mask_BL is not None and bool(mask_BL.all()):
        mask_BL = None
    slot = {} if cache is None else cache.slot(owner)
    if mask_BL is None and "mask" not in slot:
        return None
    B, L = like.shape[:2]
    before = 0 if cache is None else cache.position
    mask_BS = like.new_ones(B, before + L, dtype=torch.bool)
    if "mask" in slot:  # up to the last call that had one
        mask_BS[:, : slot["mask"].shape[1]] = slot["mask"]
    if mask_BL is not None:
        mask_BS[:, before:] = mask_BL > 0
        if cache is not None:
            slot["mask"] = mask_BS
    return mask_BS


def causal_bias(
    mask_BS: Tensor | None, length: int, seen: int, like: Tensor, *, apart: bool = False
) -> Tensor | None:
    """Return the bias that hides later tokens and padding, or None where plain causality does.

    Parameters
    ----------
    mask_BS
        What `seen_mask` returns.
    length
        Tokens of this call.
    seen
        Tokens before it.
    like
        Its dtype and device are taken.
    apart
        Whether the tokens of this call after the first do not see one another.

    Returns
    -------
    Shape (B, 1, length, seen + length): 0 at what a token may see, else the lowest number. Padding
    behind all tokens of a row needs no bias: nothing looks there.
    """
    hides = mask_BS is not None and bool((mask_BS[:, 1:] & ~mask_BS[:, :-1]).any())
    if not hides and not apart:
        return None
    place = torch.arange(seen + length, device=like.device)
    visible = (place[None, :] <= place[seen:, None])[None]
    if apart:
        visible[:, 1:, seen + 1 :] = torch.eye(length - 1, dtype=torch.bool, device=like.device)
    if mask_BS is not None:
        visible = visible & mask_BS[:, None, :]
    bias = torch.zeros(visible.shape, dtype=like.dtype, device=like.device)
    return bias.masked_fill_(~visible, torch.finfo(like.dtype).min)[:, None]


def _after(count: int, last: int) -> Any:
    """Return what hides later tokens from the last ones: no table, for kernels that need none."""
    from torch.nn.attention.bias import causal_lower_right  # imports half of PyTorch's compiler

    return causal_lower_right(last, count)


class CausalSelfAttention(SelfAttention):
    """Softmax attention to the tokens before, with rotary positions where `Past` has turns.

    The layers of a backbone share `rotary`, whose frequencies stand in published files once a
    layer, and what it gives for a call.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        *,
        rotary: Rotary | None = None,
        dropout: float = 0.0,
        bias: bool = True,
        out_bias: bool | None = None,
    ):
        super().__init__(width, heads, dropout=dropout, bias=bias, out_bias=out_bias)
        self.rotary = rotary

    def forward(self, x_BLD: Tensor, shared: Past) -> Tensor:  # type: ignore[override]
        """Attend; with a cache, also to the tokens of earlier calls."""
        q_BHLE, k_BHLE, v_BHLE, bias = self._project(x_BLD, shared)
        if shared.cache is not None:
            k_BHLE, v_BHLE = self._remember(shared.cache, k_BHLE, v_BHLE)
        dropout = self.dropout if self.training else 0.0
        L, S = q_BHLE.shape[2], k_BHLE.shape[2]
        if bias is None and L > 1:
            mixed_BHLE = F.scaled_dot_product_attention(
                q_BHLE,
                k_BHLE,
                v_BHLE,
                attn_mask=None if L == S else _after(S, L),
                is_causal=L == S,
                dropout_p=dropout,
            )
        else:
            mixed_BHLE = attend(q_BHLE, k_BHLE, v_BHLE, bias, dropout=dropout)
        return self.out(mixed_BHLE.transpose(1, 2).flatten(2))

    def weights(self, x_BLD: Tensor, shared: Past) -> Tensor:  # type: ignore[override]
        """Return how much each token takes of each other, (B, H, L, L); rows sum to 1."""
        q_BHLE, k_BHLE, _, bias = self._project(x_BLD, shared)
        scores = q_BHLE @ k_BHLE.transpose(-1, -2) / q_BHLE.shape[-1] ** 0.5
        if bias is None:
            later = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).triu(1)
            return scores.masked_fill(later, float("-inf")).softmax(-1)
        return (scores + bias).softmax(-1)

    def _project(self, x_BLD: Tensor, shared: Past) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        packed = self.qkv(x_BLD).unflatten(-1, (3, self.heads, -1))
        both = packed[:, :, :2] if shared.turns is None else turn(packed[:, :, :2], shared.turns)
        q_BHLE, k_BHLE = both.transpose(1, 3).unbind(2)
        return q_BHLE, k_BHLE, packed[:, :, 2].transpose(1, 2), shared.bias

    def _remember(
        self, cache: DecodeCache, k_BHLE: Tensor, v_BHLE: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Add keys and values to the cache; return all so far, (B, H, S, E) each."""
        slot, (B, H, L, E) = cache.slot(self), k_BHLE.shape
        if "keys" not in slot:
            room = cache.capacity + cache.choices
            slot["keys"], slot["values"] = k_BHLE.new_empty(2, B, H, room, E).unbind()
        if cache.parts(L):
            cache.ahead(self)
        end = cache.position + L
        slot["keys"][:, :, cache.position : end] = k_BHLE
        slot["values"][:, :, cache.position : end] = v_BHLE
        return slot["keys"][:, :, :end], slot["values"][:, :, :end]

    def keep(self, cache: DecodeCache, choice_B: Tensor) -> None:
        """Move keys and values of a choice behind those of the token before it."""
        at, row_B = cache.position, torch.arange(len(choice_B), device=choice_B.device)
        slot = cache.slot(self)
        for memory in (slot["keys"], slot["values"]):
            memory[:, :, at] = memory[row_B, :, at + choice_B]


class MixerBlock(nn.Module):
    """x = x + mixer(norm(x)), then, where there is an MLP, x = x + mlp(norm(x)).

    Parameters
    ----------
    mixer
        Called with the tokens (B, L, D) and what the layers share.
    norm
        Makes a norm.
    mlp
        None for systems whose mixers do it all.
    widest
        Numbers in a row of the widest tensor that the MLP makes.
    """

    def __init__(
        self,
        mixer: nn.Module,
        norm: Callable[[], nn.Module],
        *,
        mlp: nn.Module | None = None,
        widest: int = 1,
    ):
        super().__init__()
        self.norm1 = norm()
        self.mixer = mixer
        self.widest = widest
        if mlp is not None:
            self.norm2 = norm()
        self.mlp = mlp

    def forward(self, x_BLD: Tensor, shared: Past) -> Tensor:
        """Run the block."""
        if getattr(self.mixer, "norms", False):
            mixed_BLD = self.mixer(x_BLD, shared, norm=self.norm1)
        else:
            mixed_BLD = self.mixer(self.norm1(x_BLD), shared)
        if self.mlp is None:
            return x_BLD + mixed_BLD
        return by_rows(
            self._feed, x_BLD, mixed_BLD, widest=self.widest, cached=_CACHED, into=mixed_BLD
        )

    @property
    def attends(self) -> bool:
        """Whether the mixer is attention, so that `weights` has an answer."""
        return hasattr(self.mixer, "weights")

    def weights(self, x_BLD: Tensor, shared: Past) -> Tensor:
        """Return the attention weights of the mixer, (B, H, L, L)."""
        return self.mixer.weights(self.norm1(x_BLD), shared)  # type: ignore[operator]

    def _feed(self, x: Tensor, mixed: Tensor) -> Tensor:
        x = x + mixed
        assert self.mlp is not None
        return x + self.mlp(self.norm2(x))
