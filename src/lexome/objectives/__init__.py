"""What models are trained to do."""

from lexome.objectives.causal import next_token_loss
from lexome.objectives.masked import IGNORED, masked_token_loss

__all__ = ["IGNORED", "masked_token_loss", "next_token_loss"]
