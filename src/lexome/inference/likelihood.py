"""How likely a model finds a sequence: log-likelihood and pseudo-log-likelihood.

Axes: V vocabulary, N scored tokens.
"""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from lexome.inference.batching import collate_rows, plan_batches
from lexome.model import Model
from lexome.tokenizers import Encoded


def token_logprobs(
    model: Model, inputs: Mapping[str, Tensor], rows_N: Tensor, columns_N: Tensor
) -> Tensor:
    """Return the log-probability of tokens given all tokens before them, by a causal model.

    Parameters
    ----------
    model
        A causal model with its token head.
    inputs
        A batch as :func:`lexome.inference.batching.batches` makes it, on the model's device.
    rows_N, columns_N
        The tokens to score. No column may be 0: nothing stands before it.

    Returns
    -------
    Shape (N,), float32, natural log.
    """
    with torch.no_grad():
        scores_NV = model(**inputs, positions=(rows_N, columns_N - 1)).logits.float()
    targets_N = inputs["input_ids"][rows_N, columns_N]
    return scores_NV.gather(1, targets_N[:, None])[:, 0] - scores_NV.logsumexp(1)


def masked_logprobs(
    model: Model,
    queries: Sequence[tuple[Encoded, Sequence[int]]],
    *,
    max_tokens: int,
) -> Iterator[tuple[int, Tensor]]:
    """Yield log-probabilities of all tokens at masked places, by a masked model.

    Parameters
    ----------
    model
        A masked model with its token head.
    queries
        Pairs of an item with its special tokens and the places in it, 0-based and special tokens
        counted, that are masked together and scored. One item may come many times.
    max_tokens
        Most tokens of a batch, padding included.

    Yields
    ------
    Index of the query and its log-probabilities, shape (places, V), float32, natural log, in the
    order of the places given. Queries come longest first, not in order.
    """
    tokenizer = model.tokenizer
    assert tokenizer is not None, "a model without a tokenizer has no mask token"
    for batch in plan_batches([len(item["input_ids"]) for item, _ in queries], max_tokens):
        rows = [_mask(*queries[i], tokenizer.mask) for i in batch]
        inputs = collate_rows(tokenizer, rows, model.device)
        counts = [len(queries[i][1]) for i in batch]
        rows_N = torch.arange(len(batch)).repeat_interleave(torch.tensor(counts))
        columns_N = torch.tensor([place for i in batch for place in queries[i][1]])
        with torch.no_grad():
            at = (rows_N.to(model.device), columns_N.to(model.device))
            scores_NV = model(**inputs, positions=at).logits.float().log_softmax(-1)
        yield from zip(batch, scores_NV.split(counts), strict=True)


def _mask(item: Encoded, places: Sequence[int], mask: int | None) -> Encoded:
    assert mask is not None, "a masked model's tokenizer has a mask token"
    ids = np.array(item["input_ids"])
    ids[list(places)] = mask
    return {**item, "input_ids": ids}
