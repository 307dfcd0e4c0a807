"""Sizes under the names that transformers' configurations give them: one table for both ways."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

_NAMES = {
    "vocab_size": "vocab_size",
    "width": "hidden_size",
    "depth": "num_hidden_layers",
    "heads": "num_attention_heads",
    "mlp_width": "intermediate_size",
    "positions": "max_position_embeddings",
    "segments": "type_vocab_size",
    "norm_eps": "layer_norm_eps",
    "dropout": "hidden_dropout_prob",
    "attention_dropout": "attention_probs_dropout_prob",
}


def read_sizes(raw: Mapping[str, Any], config: type) -> dict[str, Any]:
    """Read those fields of a family's configuration that transformers has a name for.

    Parameters
    ----------
    raw
        The published configuration.
    config
        The family's, a dataclass.

    Raises
    ------
    KeyError
        If one is missing; there is no guessing of sizes.

    Examples
    --------
    >>> from dataclasses import make_dataclass
    >>> Config = make_dataclass("Config", ["width", "depth", "wiring"])
    >>> read_sizes({"hidden_size": 8, "num_hidden_layers": 2, "split": 1}, Config)
    {'width': 8, 'depth': 2}
    """
    named = (field.name for field in fields(config) if field.name in _NAMES)
    return {name: raw[_NAMES[name]] for name in named}


def write_sizes(config: Any) -> dict[str, Any]:
    """Give a configuration's fields the names of transformers, the inverse of `read_sizes`.

    The number of ``classes``, if it has one, becomes as many labels.
    """
    named = (field.name for field in fields(config) if field.name in _NAMES)
    sizes = {_NAMES[name]: getattr(config, name) for name in named}
    if hasattr(config, "classes"):
        sizes["id2label"] = {str(i): f"LABEL_{i}" for i in range(config.classes)}
    return sizes
