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
    "tied": "tie_word_embeddings",
    "problem": "problem_type",
}


_USUAL = {
    "attention_probs_dropout_prob": 0.1,
    "hidden_dropout_prob": 0.1,
    "problem_type": None,
    "tie_word_embeddings": True,
}
CLASS_DEFAULTS: dict[str, dict[str, Any]] = {
    "bert": _USUAL
    | {"layer_norm_eps": 1e-12, "max_position_embeddings": 512, "type_vocab_size": 2},
    "deberta-v2": _USUAL
    | {
        "layer_norm_eps": 1e-7,
        "max_position_embeddings": 512,
        "max_relative_positions": -1,
        "position_biased_input": True,
        "relative_attention": False,
        "type_vocab_size": 0,
    },
    "esm": _USUAL
    | {
        "add_bias_fnn": True,  # of the authors' own class, which adds to that of transformers
        "emb_layer_norm_before": False,
        "layer_norm_eps": 1e-12,
        "max_position_embeddings": 1026,
        "position_embedding_type": "absolute",
        "token_dropout": False,
    },
}
"""{model type: what its configuration class in transformers fills in, but for the sizes}."""


def read_sizes(
    raw: Mapping[str, Any], config: type, defaults: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Read those fields of a family's configuration that transformers has a name for.

    Parameters
    ----------
    raw
        The published configuration.
    config
        The family's, a dataclass.
    defaults
        What the authors' configuration class fills in for what is left out, under its names.

    Raises
    ------
    KeyError
        If one is missing and has no default; there is no guessing of sizes.
    ValueError
        If one is no number where a number is due, or is negative.

    Examples
    --------
    >>> from dataclasses import make_dataclass
    >>> Config = make_dataclass("Config", ["width", "depth", "wiring"])
    >>> read_sizes({"hidden_size": 8, "num_hidden_layers": 2, "split": 1}, Config)
    {'width': 8, 'depth': 2}
    """
    raw = {**(defaults or {}), **raw}
    read = {}
    for field in fields(config):
        if field.name in _NAMES:
            name = _NAMES[field.name]
            read[field.name] = _checked(name, raw[name], field.type)
    return read


def _checked(name: str, value: Any, kind: Any) -> Any:
    numbers = {int: (int,), float: (int, float)}.get(kind)
    right = isinstance(value, numbers) and not isinstance(value, bool) if numbers else True
    if not right or (numbers and not value >= 0):
        what = "a whole number" if kind is int else "a number"
        raise ValueError(f"{name} is {value!r}, expected {what} of at least 0")
    return value


def write_sizes(config: Any) -> dict[str, Any]:
    """Give a configuration's fields the names of transformers, the inverse of `read_sizes`.

    The number of ``classes``, if it has one, becomes as many labels.
    """
    named = (field.name for field in fields(config) if field.name in _NAMES)
    sizes = {_NAMES[name]: getattr(config, name) for name in named}
    if sizes.get("problem_type", 0) is None:
        del sizes["problem_type"]
    if hasattr(config, "classes"):
        sizes["id2label"] = {str(i): f"LABEL_{i}" for i in range(config.classes)}
    return sizes
