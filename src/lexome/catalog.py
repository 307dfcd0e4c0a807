"""Families and releases by name, how a model is loaded, and what is known about it."""

import importlib
import pkgutil
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch

from lexome import families as _families
from lexome.blocks.initialise import shapes_only
from lexome.checkpoints import (
    Family,
    Layout,
    Release,
    Revision,
    Weights,
    find_revision,
    find_weights,
    read_json,
    read_weights,
)
from lexome.checkpoints.download import fetch_hub
from lexome.core import CheckpointError, CheckpointMismatch, InputError, UnknownName, nearest, pick
from lexome.core.memory import free_bytes
from lexome.core.precision import choose_device, choose_precision
from lexome.model import Model, Origin

_WEIGHT_SUFFIXES = {".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".json"}  # .json: an index


@cache
def families() -> Mapping[str, Family]:
    """Return all families by name; every file of the folder that declares FAMILY is one."""
    found = {}
    for module in pkgutil.iter_modules(_families.__path__):
        declared = importlib.import_module(f"{_families.__name__}.{module.name}")
        found[declared.FAMILY.name] = declared.FAMILY
    return found


@cache
def releases() -> Mapping[str, tuple[Family, Release]]:
    """Return all published releases by name, with their family."""
    return {r.name: (family, r) for family in families().values() for r in family.releases}


def load(
    source: str | Path,
    *,
    family: str | None = None,
    device: str = "auto",
    precision: str = "float32",
    head: str | None = None,
) -> Model:
    """Load a published model.

    Parameters
    ----------
    source
        A release name (`lexome models` lists them), a hub id ``owner/name[@revision]``, a folder
        that holds the official files, or one weight file in such a folder.
    family
        Name of the family, where the files do not tell it.
    device
        ``"auto"`` (a GPU where there is one), ``"cpu"``, ``"cuda"``, ``"cuda:1"``, ...
    precision
        ``"float32"`` gives the authors' numbers. ``"auto"`` takes bfloat16 where the hardware
        multiplies it natively: several times faster, about three significant digits.
    head
        Put this head on the backbone instead of the published one; its weights start random.

    Returns
    -------
    The model in evaluation mode.

    Raises
    ------
    UnknownName
        If no release has this name.
    CheckpointMismatch
        If keys or shapes differ from the model's.
    Offline
        If the files must be downloaded and cannot be.
    CheckpointError
        If a weight is NaN or infinite (models of more than 10^9 parameters are not searched).
    InputError
        If the weights do not fit the free memory in this precision.
    """
    where = choose_device(device)
    choice = choose_precision(precision, where)
    model = read(source, family=family)
    if head is not None and head != model.head_name:
        model.replace_head(head, model.config)
    _fits(model, choice.dtype, where)
    _refuse_damaged(model)
    return model.cast(choice.dtype).to(where).eval()


def read(source: str | Path, *, family: str | None = None) -> Model:
    """Open a published model on the CPU, in the number types of its files.

    Weights of safetensors are mapped from the files, not copied: they are read when they are used,
    and nothing is taken for what has the type that is computed in.

    Parameters
    ----------
    source, family
        As for :func:`load`.
    """
    folder, wanted, release = _locate(source, family)
    return _read(folder, wanted, release, family).eval()


def _fits(model: Model, dtype: torch.dtype, device: torch.device) -> None:
    """Refuse what would end in swapping or in being killed."""
    if device.type == "cuda":
        needed, free = model.cast_bytes(dtype, everything=True), torch.cuda.mem_get_info(device)[0]
    else:
        needed, free = model.cast_bytes(dtype), free_bytes()
    if free is None or needed <= free:
        return
    stored, asked = (str(kind).removeprefix("torch.") for kind in (model.dtype, dtype))
    if model.dtype.itemsize < dtype.itemsize:
        place = "mapped from the files" if device.type == "cpu" else "loaded as they are"
        advice = f"Its files hold {stored}: with precision {stored!r} the weights are {place}."
    else:
        advice = "Take a device with more memory" + (
            "." if dtype.itemsize < 4 else ", or precision 'bfloat16', which needs half as much."
        )
    raise InputError(
        f"the weights of {model.name} take {_bytes(needed)} in {asked}, and {_bytes(free)} of "
        f"memory are free. {advice}"
    )


_LOOKED_AT = 1 << 30  # parameters; reading more than that takes longer than opening the files


def _refuse_damaged(model: Model) -> None:
    """Refuse weights that are no numbers, which would make all results so.

    Very large models, which are mapped from their files and read when they run, are not looked at.
    """
    if model.count_parameters() > _LOOKED_AT:
        return
    for name, value in model.named_parameters():
        # A sum is fast, and what is no number makes it no number either.
        total = value.detach().sum(dtype=torch.float32)
        if not total.isfinite() and not value.isfinite().all():
            raise CheckpointError(
                f"{name.removeprefix('backbone.')} of {model.name} holds NaN or infinity. The file "
                "is damaged, or its training had diverged. Get it again, or an earlier one."
            )


def new(family: str, *, head: str | None = None, seed: int = 0, **sizes: Any) -> Model:
    """Make a model with random weights, as the family's authors initialise it.

    Parameters
    ----------
    family
        Name of the family.
    head
        Name of its head; the pretraining head by default.
    seed
        Seed of the weights.
    **sizes
        Fields of the family's configuration.
    """
    known = families()[pick("family", family, families())]
    config = _configure(known, sizes)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Model(known, config, head=head or known.pretraining_head(config))
    try:
        model.tokenizer = known.tokenizer(None, config)
    except CheckpointError:  # a tokenizer that must be trained first
        model.tokenizer = None
    return model


def _configure(family: Family, sizes: Mapping[str, Any]) -> Any:
    kind = family.backbone.__init__.__annotations__["config"]
    for name in sizes:
        pick(f"setting of {family.title}", name, kind.__dataclass_fields__)
    return kind(**sizes)


def _locate(source: str | Path, family: str | None) -> tuple[Path, str | None, str]:
    """Return (folder, weight file name if one was named, release name)."""
    path = Path(source).expanduser()
    if path.is_dir():
        return path, None, path.resolve().name
    if path.is_file():
        if path.suffix not in _WEIGHT_SUFFIXES:
            raise CheckpointError(
                f"{path} holds no weights (such end in {', '.join(sorted(_WEIGHT_SUFFIXES))}). "
                "Expected a release name, or the folder with a model's official files."
            )
        return path.parent, path.name, path.resolve().parent.name
    name = str(source)
    if name in releases():
        known, release = releases()[name]
        if not release.source.startswith("hf:"):
            raise CheckpointError(
                f"{name} is published at {release.source}, which cannot be fetched by name. "
                "Download its files by hand and pass their folder."
            )
        layout = known.layout(release.layout)
        folder = fetch_hub(release.source[3:], layout.weights)
        _verify(folder, layout, release)
        return folder, None, name
    looks_like_hub = name.count("/") == 1 and not name.startswith((".", "/", "~"))
    if looks_like_hub and path.suffix not in _WEIGHT_SUFFIXES:
        return _fetch(name), None, name.split("/")[1]
    if "/" in name or path.suffix:
        raise CheckpointError(f"{name}: there is no such file or folder.")
    close = nearest(name, releases())
    hint = f" Did you mean {' or '.join(map(repr, close))}?" if close else ""
    raise UnknownName(
        f"no release named {name!r}, and no folder of that name here.{hint} "
        "`lexome models` lists all releases."
    )


def _fetch(name: str) -> Path:
    """Download a hub id; of a repository that has one right revision, that one."""
    repository, _, revision = name.partition("@")
    only = _only_revision(repository)
    if only is None or revision == only.revision:
        return fetch_hub(name)
    if not revision:
        return fetch_hub(f"{repository}@{only.revision}")
    if not re.fullmatch(r"[0-9a-f]{7,40}", revision):  # of a commit it is told afterwards
        raise _wrong_revision(f"{name} is revision {revision} of {repository}", only)
    return fetch_hub(name)


def _only_revision(repository: str | None) -> Release | None:
    """Return a release whose repository has one right revision, and no other."""
    known = (release for _, release in releases().values() if release.revision)
    return next((r for r in known if r.repository == repository), None)


def _revision(folder: Path, weights: Weights) -> Revision | None:
    """Tell the revision of a folder's files, and refuse one that is known to be wrong."""
    found = find_revision(folder, weights.files)
    only = _only_revision(found.repository) if found else None
    if found and only and only.revision and found.is_other_than(only.revision):
        raise _wrong_revision(f"{folder} is revision {found} of {found.repository}", only)
    return found


def _wrong_revision(what: str, only: Release) -> CheckpointError:
    return CheckpointError(
        f"{what}, and the weights of {only.name} are right in revision {only.revision} alone: its "
        f"authors corrected them. Pass {only.name!r}, or the folder of that revision. If it must "
        "be this one, copy its files out of the hub's cache and pass their folder."
    )


def _verify(folder: Path, layout: Layout, release: Release) -> None:
    """Refuse a download that is not the publisher's file, where its hash is known."""
    path = find_weights(folder, layout.weights)
    if release.sha256 is None or path is None:
        return
    found = Weights(tensors={}, files=(path,), rest={}).sha256()
    if found != release.sha256:
        raise CheckpointMismatch(
            f"{path} has the SHA-256 {found}, the publisher's {path.name} of {release.name} has "
            f"{release.sha256}. The download is damaged or was changed: delete it and try again."
        )


def _read(folder: Path, wanted: str | None, release: str, name: str | None) -> Model:
    family, raw = _recognise(folder, name)
    names = list(dict.fromkeys(w for layout in family.layouts for w in layout.weights))
    path = folder / wanted if wanted else find_weights(folder, names)
    if path is None:
        raise CheckpointError(
            f"{folder} has the configuration of {family.title} but none of its weight files: "
            f"{', '.join(names)}. It holds: {_listing(folder)}."
        )
    state = next((layout.state for layout in family.layouts if layout.state), None)
    weights = read_weights(path, state)
    shapes = {name: tuple(tensor.shape) for name, tensor in weights.tensors.items()}
    try:
        config = family.complete_config(family.read_config(raw, shapes), weights.tensors)
        if getattr(config, "depth", 0) > len(shapes):
            raise ValueError(f"{config.depth:,} layers, and the weights are {len(shapes)} tensors")
        with shapes_only():  # sizes that no model can have
            parts = list(Model(family, config, head=None).modules())
        heads = getattr(config, "heads", 1)
        if any(getattr(part, "heads", 0) == heads and config.width % heads for part in parts):
            raise ValueError(f"{heads} heads do not divide a width of {config.width}")
    except (ArithmeticError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise CheckpointMismatch(
            f"{family.find_config(folder)} is no whole configuration of {family.title}: "
            f"{type(error).__name__}: {error}. Get the file from the publisher again."
        ) from error
    return _build(family, config, raw, path, weights, folder=folder, release=release)


def _recognise(folder: Path, name: str | None) -> tuple[Family, Mapping[str, Any]]:
    """Find the family that a folder's configuration belongs to."""
    known = families()
    if name is not None:
        family = known[pick("family", name, known)]
        path = family.find_config(folder)
        return family, {} if path is None else read_json(path)
    found = []
    for family in known.values():
        path = family.find_config(folder)
        if path is not None and family.recognise(raw := read_json(path)):
            found.append((family, raw))
    if not found:
        raise CheckpointError(
            f"{folder} is not the folder of a family that is known here. It holds: "
            f"{_listing(folder)}. If it is one of {', '.join(known)}, name it with family=."
        )
    if len(found) > 1:
        raise InputError(
            f"{folder} could be {' or '.join(f.name for f, _ in found)}. Name one with family=."
        )
    return found[0]


def _build(
    family: Family,
    config: Any,
    raw: Mapping[str, Any],
    path: Path,
    weights: Weights,
    *,
    folder: Path,
    release: str,
) -> Model:
    """Choose the layout that takes the file's keys and fill a model with them."""
    revision = _revision(folder, weights)
    best: tuple[int, Layout, Model] | None = None
    for layout in family.layouts:
        if not layout.fits(config):
            continue
        with shapes_only():
            model = Model(family, config, head=layout.head)
        faults = layout.keys.resolve(weights.tensors.keys()).faults(*model.names())
        if best is None or faults < best[0]:
            best = (faults, layout, model)
        if not faults:
            break
    assert best is not None, f"{family.name} declares no layout"
    _, layout, model = best
    unused = model.fill(layout, weights, str(path))
    model.tokenizer = family.tokenizer(folder, config)
    model.origin = Origin(
        folder=folder,
        release=release,
        layout=layout,
        files=weights.files,
        raw_config=raw,
        config_copied=family.find_config(folder) not in {None, folder / family.config_file},
        side_files={
            name: (folder / name).read_bytes()
            for name in _beside(family, folder, path)
            if (folder / name).is_file()
        },
        unused=unused,
        places=weights.places,
        dtypes={name: tensor.dtype for name, tensor in weights.tensors.items()},
        revision=revision,
    )
    return model


def _beside(family: Family, folder: Path, weights: Path) -> list[str]:
    """Return the names of the files of a release that are copied as they are."""
    config = family.find_config(folder)
    names = list(family.side_files)
    if weights.suffix == ".json":  # the index of shards
        names.append(weights.name)
    if config is not None and config.name != family.config_file:
        names.append(config.name)
    return list(dict.fromkeys(names))


def _listing(folder: Path) -> str:
    names = sorted(p.name for p in folder.iterdir())
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")


@dataclass(frozen=True)
class Listing:
    """Rows for the terminal; `str` of it is an aligned table."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def __str__(self) -> str:
        table = [self.columns, *self.rows]
        widths = [max(len(row[k]) for row in table) for k in range(len(self.columns))]
        return "\n".join(
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in table
        )


def models(*, family: str | None = None) -> Listing:
    """List the published releases that can be loaded by name.

    Parameters
    ----------
    family
        Only this family's, by its name or title.

    Returns
    -------
    One row per release: name, family, parameters, context in tokens, licence, paper and source.
    """
    if family is not None:
        titles = {known.title.lower(): name for name, known in families().items()}
        family = pick("family", titles.get(family.lower(), family), families())
    rows = tuple(
        (
            name,
            known.title,
            _count(release.parameters),
            "any" if release.context is None else f"{release.context:,}",
            release.licence,
            known.paper,
            release.source,
        )
        for name, (known, release) in releases().items()
        if family in (None, known.name)
    )
    columns = ("release", "family", "parameters", "context", "licence", "paper", "source")
    return Listing(columns, rows)


@dataclass(frozen=True)
class Card:
    """What is known about one release or folder; `str` of it is a card for the terminal."""

    title: str
    facts: Mapping[str, str]

    def __str__(self) -> str:
        width = max(map(len, self.facts))
        lines = [f"  {key:<{width}}  {value}" for key, value in self.facts.items()]
        return "\n".join([self.title, *lines])


def info(source: str | Path) -> Card:
    """Show the card of a release or of a folder with official files.

    A release is described without downloading anything.

    Parameters
    ----------
    source
        A release name, or a folder that holds the official files.
    """
    path = Path(source).expanduser()
    if path.exists():
        model = read(source)
        assert model.origin is not None
        size = sum(f.stat().st_size for f in model.origin.files)
        files = ", ".join(f.name for f in model.origin.files)
        extra = {
            "layout": model.origin.layout.name,
            "weights": f"{files} ({_bytes(size)})",
            "sha256": str(model.checkpoint_sha256()),
        }
        if model.origin.revision:
            extra["revision"] = str(model.origin.revision)
        unused = sorted(model.origin.unused)
        if unused:
            extra["carried along"] = ", ".join(unused[:4]) + (" ..." if len(unused) > 4 else "")
        return _card(model.name, model, extra)
    name = pick("release", str(source), releases(), listing="`lexome models` lists all of them.")
    family, release = releases()[name]
    layout = family.layout(release.layout)
    with shapes_only():
        config = family.read_config(release.config, {})
        model = Model(family, config, head=layout.head)
    return _card(
        name,
        model,
        {
            "source": release.source,
            "licence": release.licence,
            "weights": f"{layout.weights[0]} (about {_bytes(4 * release.parameters)} in float32)",
        },
    )


def _card(name: str, model: Model, extra: Mapping[str, str]) -> Card:
    family = model.family
    parameters = model.count_parameters()
    sizes = ", ".join(
        f"{key} {getattr(model.config, key)}"
        for key in ("width", "depth", "heads", "vocab_size")
        if hasattr(model.config, key)
    )
    context = "any length" if model.context is None else f"{model.context:,} tokens"
    return Card(
        name,
        {
            "family": f"{family.title} ({family.name})",
            "paper": family.paper,
            "trained on": family.organism,
            "reads": f"{family.inputs}s, objective {model.objective}",
            "head": model.head_name or "none",
            "parameters": f"{parameters:,}",
            "sizes": sizes,
            "context": context,
            "memory": f"{_bytes(4 * parameters)} in float32, {_bytes(2 * parameters)} in bfloat16",
            **extra,
        },
    )


def _count(number: int) -> str:
    for size, unit in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.3g} {unit}"
    return str(number)


def _bytes(number: int) -> str:
    for size, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if number >= size:
            return f"{number / size:.3g} {unit}"
    return f"{number} B"
