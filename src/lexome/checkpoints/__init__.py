"""Key maps, containers, verification and download of published checkpoints."""

from lexome.checkpoints.containers import (
    Weights,
    find_weights,
    read_json,
    read_weights,
    write_weights,
)
from lexome.checkpoints.family import Family, Layout, Release, Shapes
from lexome.checkpoints.hyena import hyena_keys
from lexome.checkpoints.keymap import KeyMap, Resolution, explain, to_ours, to_published
from lexome.checkpoints.revisions import Revision, find_revision
from lexome.checkpoints.settings import expect_settings
from lexome.checkpoints.sizes import CLASS_DEFAULTS, read_sizes, write_sizes

__all__ = [
    "CLASS_DEFAULTS",
    "Family",
    "KeyMap",
    "Layout",
    "Release",
    "Resolution",
    "Revision",
    "Shapes",
    "Weights",
    "expect_settings",
    "explain",
    "find_revision",
    "find_weights",
    "hyena_keys",
    "read_json",
    "read_sizes",
    "read_weights",
    "to_ours",
    "to_published",
    "write_sizes",
    "write_weights",
]
