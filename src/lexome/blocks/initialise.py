"""How weights start."""

from torch import nn


def start_small(module: nn.Module) -> None:
    """Draw matrices and tables from N(0, 0.02) and zero biases, as BERT does; for `apply`.

    Devlin et al. 2018, in the released code; norms keep PyTorch's ones and zeros.
    """
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=0.02)
    if isinstance(module, nn.Linear) and module.bias is not None:
        nn.init.zeros_(module.bias)
