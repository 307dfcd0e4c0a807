"""Which parameters get weight decay, and which are kept within bounds."""

from fnmatch import fnmatch
from typing import Any

from torch.optim import Optimizer

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


def keep_bounds(model: Model, optimizer: Optimizer) -> None:
    """Let every module that has a `holder` and is stepped use it after each of these steps."""
    stepped = {id(p) for group in optimizer.param_groups for p in group["params"]}
    holds = [
        module.holder()
        for module in model.modules()
        if hasattr(module, "holder") and stepped & {id(p) for p in module.parameters()}
    ]

    def hold_all(*_: Any) -> None:
        for hold in holds:
            hold()

    if holds:
        optimizer.register_step_post_hook(hold_all)
