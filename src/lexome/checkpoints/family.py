"""What a published system declares about itself: releases, file layouts, how to build it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from lexome.checkpoints.keymap import KeyMap

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True, kw_only=True)
class Layout:
    """One form in which a system's weights are published.

    Attributes
    ----------
    name
        What the form is called in messages, e.g. ``"lightning"``.
    keys
        The table between published names and ours.
    weights
        File names, the preferred one first; sharded indexes of them are found too.
    head
        Which head of the family the form carries; None for a bare backbone.
    state
        Key under which a training checkpoint keeps its tensors.
    fits
        Configuration -> whether its model may have this form, where the keys do not tell.
    """

    name: str
    keys: KeyMap
    weights: tuple[str, ...] = ("model.safetensors", "pytorch_model.bin")
    head: str | None = None
    state: str | None = None
    fits: Callable[[Any], bool] = field(default=lambda config: True)


@dataclass(frozen=True, kw_only=True)
class Release:
    """A published checkpoint.

    Attributes
    ----------
    name
        `family-size[-variant]` in the publisher's own words.
    source
        ``hf:owner/name``, ``hf:owner/name@revision`` or a page where a person gets it.
    licence
        SPDX name of the weights' licence.
    parameters
        Number of parameters, ties counted once.
    context
        Longest input in tokens, special tokens included; None where nothing limits it.
    layout
        Name of the family's layout that the published file has.
    config
        The published configuration, as far as it decides shapes.
    published
        The publisher's own name, where the source does not end in it.
    sha256
        Hash of the published weight file, where it is known; what is loaded by name must have it.
    """

    name: str
    source: str
    licence: str
    parameters: int
    context: int | None
    layout: str
    config: Mapping[str, Any]
    published: str | None = None
    sha256: str | None = None

    @property
    def repository(self) -> str | None:
        """``owner/name`` on the hub, or None for what is published elsewhere."""
        return self.source[3:].split("@")[0] if self.source.startswith("hf:") else None

    @property
    def revision(self) -> str | None:
        """The one revision whose weights are right, where not all are."""
        return self.source.partition("@")[2] or None

    @property
    def published_name(self) -> str:
        """The publisher's own name: by default the last part of the source."""
        return self.published or self.source.split("@")[0].rstrip("/").split("/")[-1].split(":")[-1]


@dataclass(frozen=True, kw_only=True)
class Family:
    """A published system: its parts and how its files are read.

    Attributes
    ----------
    name, title, paper, organism
        The short name, the authors' name, where it is described, and what it reads.
    inputs
        What an item is: ``"sequence"`` or ``"cell"``.
    objective
        How it was pretrained: ``"masked"``, ``"causal"`` or ``"expression"``. Where a family has
        several ways, its configurations have a field `objective` that says which.
    recognise
        Published configuration -> whether it is this family's.
    read_config
        (published configuration, shapes of the published tensors) -> our configuration.
    complete_config
        (our configuration, published tensors) -> our configuration with what only they tell.
    write_config
        Our configuration -> a published one, for models that did not come from a file.
    backbone
        Configuration -> the network below the heads.
    heads
        {head name: (configuration, backbone) -> module}; the pretraining head is the one that is
        called as the configuration's `objective`, or else the first.
    layouts
        Published forms, tried in order; the first is what a new model is saved as.
    tokenizer
        (folder of the release or None, configuration) -> tokenizer.
    config_file, yaml_configs, side_files
        Names of the configuration file, patterns of YAML files that some publish in its place, and
        names of files that belong to a release and are copied on saving.
    context
        Configuration -> longest input in tokens, or None.
    pooling, normalise
        How the authors make one vector of an item: ``"mean"`` over its tokens, ``"cls"`` or
        ``"last"``, and whether they scale it to length 1.
    """

    name: str
    title: str
    paper: str
    organism: str
    inputs: str = "sequence"
    objective: str
    recognise: Callable[[Mapping[str, Any]], bool]
    read_config: Callable[[Mapping[str, Any], Shapes], Any]
    write_config: Callable[[Any], dict[str, Any]]
    backbone: Callable[[Any], nn.Module]
    heads: Mapping[str, Callable[[Any, Any], nn.Module]]
    layouts: tuple[Layout, ...]
    tokenizer: Callable[[Path | None, Any], Any]
    releases: tuple[Release, ...]
    config_file: str = "config.json"
    yaml_configs: tuple[str, ...] = ()
    side_files: tuple[str, ...] = (
        "tokenizer.json",
        "tokenizer_config.json",
        "special_tokens_map.json",
        "vocab.txt",
        "generation_config.json",
    )
    complete_config: Callable[[Any, Mapping[str, Tensor]], Any] = field(
        default=lambda config, tensors: config
    )
    context: Callable[[Any], int | None] = field(default=lambda config: None)
    pooling: str = "mean"
    normalise: bool = False

    def find_config(self, folder: Path) -> Path | None:
        """Return the configuration file that lies in a folder, or None."""
        if (folder / self.config_file).is_file():
            return folder / self.config_file
        return next((p for one in self.yaml_configs for p in sorted(folder.glob(one))), None)

    def pretraining_head(self, config: Any) -> str:
        """Return the name of the head that a model of this configuration is pretrained with."""
        objective = getattr(config, "objective", None)
        return str(objective) if objective in self.heads else next(iter(self.heads))

    def layout(self, name: str) -> Layout:
        """Return the layout called `name`."""
        return next(layout for layout in self.layouts if layout.name == name)
