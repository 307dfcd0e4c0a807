"""Settings of published configurations that a family has one way for."""

from collections.abc import Mapping
from typing import Any

from lexome.core import CheckpointError


def expect_settings(
    raw: Mapping[str, Any], known: Mapping[str, tuple[Any, ...]], title: str
) -> None:
    """Refuse a configuration that asks for what is not built here, rather than compute another.

    Parameters
    ----------
    raw
        The published configuration, or a part of it. What it leaves out is as usual.
    known
        {setting: the values that are known}, the usual one first.
    title
        The system, for the message.

    Raises
    ------
    CheckpointError
        If a setting has another value.

    Examples
    --------
    >>> expect_settings({"act": "silu", "depth": 3}, {"act": ("silu", "swish")}, "Mamba")
    """
    odd = {
        name: raw[name] for name, values in known.items() if raw.get(name, values[0]) not in values
    }
    if odd:
        given = ", ".join(f"{name} {value!r}" for name, value in odd.items())
        usual = ", ".join(f"{name} {known[name][0]!r}" for name in odd)
        raise CheckpointError(
            f"this {title} sets {given}, which is not known here. Expected {usual}. Run it "
            "with the code that it was made with."
        )
