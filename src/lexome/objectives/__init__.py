"""What models are trained to do."""

from lexome.objectives.causal import next_token_loss
from lexome.objectives.expression import masked_value_loss, nonzero_loss, similarity_loss
from lexome.objectives.masked import IGNORED, corrupt, masked_token_loss
from lexome.objectives.spans import corrupt_spans

__all__ = [
    "IGNORED",
    "corrupt",
    "corrupt_spans",
    "masked_token_loss",
    "masked_value_loss",
    "next_token_loss",
    "nonzero_loss",
    "similarity_loss",
]
