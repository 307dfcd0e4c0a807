"""Which parameters get weight decay."""

from fnmatch import fnmatch
from typing import Any

from lexome.model import Model


def parameter_groups(model: Model, weight_decay: float) -> list[dict[str, Any]]:
    """Divide the parameters into those with weight decay and those without.

    None have biases and norms, that is whatever has one dimension, and what the family's
    `undecayed` names.
    """
    patterns = [f"backbone.{pattern}" for pattern in type(model.backbone).undecayed]
    decayed, undecayed = [], []
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            free = parameter.dim() < 2 or any(fnmatch(name, pattern) for pattern in patterns)
            (undecayed if free else decayed).append(parameter)
    groups = ((decayed, weight_decay), (undecayed, 0.0))
    return [{"params": group, "weight_decay": decay} for group, decay in groups if group]
