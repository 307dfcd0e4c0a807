"""A causal model's scores of next tokens, two tokens for one pass over its weights where it pays.

Axes: B rows, L tokens, V vocabulary, N tokens that are thought likely to come.
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

from lexome.blocks import DecodeCache, large_layers, packed, packed_bytes
from lexome.core.memory import free_bytes
from lexome.inference.reading import tokenizer_of
from lexome.model import Model
from lexome.tokenizers import Tokenizer

_FEW = 8  # tokens of which all are tried ahead
_LETTERS = frozenset("ACGT")  # those tried ahead where there are more
_FREE_ROWS = 12  # that a pass takes along for less than another pass would cost
_PATIENCE = 4  # misses more than hits until nothing is tried ahead any more
_WORTH_PACKING = 64  # tokens of a row, so that bringing weights into another order pays


def prepared(model: Model, steps: int) -> AbstractContextManager[None]:
    """Return a context in which a model makes many steps quickly, where there is room for it.

    Parameters
    ----------
    model
        A model whose weights do not change meanwhile.
    steps
        How many.
    """
    free = free_bytes()
    if steps < _WORTH_PACKING or free is None or 2 * packed_bytes(model) > free:
        return nullcontext()
    return packed(model)


class Decoder:
    """Scores of the token that comes next in each row.

    Few rows take as long as the weights take to be read. So the token just drawn goes through
    together with some of which each could follow it, the four letters, as choices of a
    `DecodeCache`. The next token is drawn from the scores after the first, as always; if it is one
    of the others, the scores after it are there already. What is drawn is what one token at a time
    would give.

    Parameters
    ----------
    model
        A causal model with its token head.
    inputs
        What it begins with, on its device.
    steps
        Tokens that will be drawn, at most.
    allowed
        Ids that may be drawn.
    """

    def __init__(
        self, model: Model, inputs: Mapping[str, Tensor], steps: int, allowed: Sequence[int]
    ):
        self._model, self._inputs = model, inputs
        ids_BL = inputs["input_ids"]
        choices = _likely(tokenizer_of(model), allowed)
        if len(ids_BL) * (len(choices) - 1) > _free_rows(model):
            choices = []
        self._cache = DecodeCache(ids_BL.shape[1] + steps, choices=len(choices))
        self._row_B = torch.arange(len(ids_BL), device=ids_BL.device)
        self._choices_N = ids_BL.new_tensor(choices)
        self._tries, self._certain = bool(choices), set(choices) >= set(allowed)
        self._lead = _PATIENCE  # hits more than misses, at first with some credit
        self._ahead_BNV: Tensor | None = None

    def start(self) -> Tensor:
        """Return the scores after the inputs, (B, V), float32."""
        last_B = torch.full_like(self._row_B, self._inputs["input_ids"].shape[1] - 1)
        output = self._model(**self._inputs, cache=self._cache, positions=(self._row_B, last_B))
        return output.logits.float()

    def follow(self, ids_B: Tensor) -> Tensor:
        """Return the scores after one more token of each row, (B, V), float32."""
        ahead_BNV, self._ahead_BNV = self._ahead_BNV, None
        if ahead_BNV is not None:
            is_it_BN = ids_B[:, None] == self._choices_N
            hit = self._certain or bool(is_it_BN.any(1).all())
            self._lead += 1 if hit else -1
            self._tries = self._lead > 0
            if hit:
                choice_B = is_it_BN.int().argmax(1)
                self._cache.keep(choice_B)
                return ahead_BNV[self._row_B, choice_B]
        ids_BL = ids_B[:, None]
        # The last token that is drawn need not go through.
        if self._tries and self._cache.position + 2 < self._cache.capacity:
            ids_BL = torch.cat([ids_BL, self._choices_N.expand(len(ids_B), -1)], 1)
        scores_BLV = self._model(ids_BL, cache=self._cache).logits.float()
        if ids_BL.shape[1] > 1:
            self._ahead_BNV = scores_BLV[:, 1:]
        return scores_BLV[:, 0]


def _free_rows(model: Model) -> int:
    """Return how many rows a pass takes along; mixers may say that they take fewer.

    Of a small model it is a processor's calls that take the time, not the weights.
    """
    if model.device.type == "cpu" and not large_layers(model):
        return 0
    return min(getattr(module, "free_rows", _FREE_ROWS) for module in model.backbone.modules())


def _likely(tokenizer: Tokenizer, allowed: Sequence[int]) -> list[int]:
    """Return the tokens that are worth trying: all if there are few, else the four letters."""
    if len(allowed) <= _FEW:
        return list(allowed)
    return [i for i in allowed if tokenizer.vocabulary[i] in _LETTERS]
