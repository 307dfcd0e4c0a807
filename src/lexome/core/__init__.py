"""Errors, names, extras, atomic files, precision and provenance; imports nothing of ours."""

from lexome.core.atomic import atomic_path, free_path
from lexome.core.errors import (
    CheckpointError,
    CheckpointMismatch,
    FormatError,
    InputError,
    LexomeError,
    MissingExtra,
    Offline,
    ReferenceMismatch,
    UnknownLetters,
    UnknownName,
    UnsafeCheckpoint,
)
from lexome.core.extras import need
from lexome.core.names import nearest, pick

__all__ = [
    "CheckpointError",
    "CheckpointMismatch",
    "FormatError",
    "InputError",
    "LexomeError",
    "MissingExtra",
    "Offline",
    "ReferenceMismatch",
    "UnknownLetters",
    "UnknownName",
    "UnsafeCheckpoint",
    "atomic_path",
    "free_path",
    "nearest",
    "need",
    "pick",
]
