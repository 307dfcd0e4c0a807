"""Weight files: safetensors, sharded or whole, and pickles through a reader that runs no code."""

import hashlib
import json
import pickle
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path, PurePosixPath
from types import FunctionType
from typing import Any

import numpy as np
import torch
import yaml
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from lexome.core import (
    CheckpointError,
    CheckpointMismatch,
    FormatError,
    UnsafeCheckpoint,
    atomic_path,
)

# Globals that a tensor pickle needs. Everything here builds data and runs nothing else.
_ALLOWED = {
    ("collections", "OrderedDict"),
    ("collections", "defaultdict"),
    ("builtins", "dict"),
    ("builtins", "list"),
    ("builtins", "set"),
    ("builtins", "tuple"),
    ("builtins", "int"),
    ("builtins", "float"),
    ("builtins", "complex"),
    ("builtins", "bytearray"),
    ("__builtin__", "dict"),
    ("__builtin__", "list"),
    ("__builtin__", "set"),
    ("__builtin__", "long"),
    ("_codecs", "encode"),
    ("torch._utils", "_rebuild_tensor"),
    ("torch._utils", "_rebuild_tensor_v2"),
    ("torch._utils", "_rebuild_parameter"),
    ("torch._tensor", "_rebuild_from_type_v2"),
    ("torch", "Tensor"),
    ("torch", "Size"),
    ("torch", "device"),
    ("torch.nn.parameter", "Parameter"),
    ("torch.serialization", "_get_layout"),
}
_DTYPES = {n for n in dir(torch) if isinstance(getattr(torch, n), torch.dtype)}
_STORAGES = {n for n in dir(torch) if n.endswith("Storage")}
# Training left-overs that stand in published checkpoints. They become inert objects: the class
# is never imported, its arguments and state are kept as data.
_INERT_PACKAGES = {
    "argparse",
    "datetime",
    "functools",
    "lightning",
    "lightning_fabric",
    "lightning_utilities",
    "numpy",
    "omegaconf",
    "pathlib",
    "pytorch_lightning",
    "torchmetrics",
    "transformers",
    "typing",
}


_POINTER = b"version https://git-lfs"  # how the files begin that stand for large ones


class Inert:
    """Stands for an object of a pickle whose class is not imported; holds its state as data."""

    def __init__(self, *args: Any, **kwargs: Any):
        self.args, self.kwargs, self.state = args, kwargs, None

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def __call__(self, *args: Any, **kwargs: Any) -> "Inert":
        """Stand for what calling the object would make; nothing is called."""
        return Inert(*args, **kwargs)

    def __setitem__(self, key: Any, value: Any) -> None:
        self.kwargs[key] = value

    def append(self, value: Any) -> None:
        """Take a list item, as a pickled list subclass would."""
        self.args = (*self.args, value)

    def extend(self, values: Any) -> None:
        """Take list items, as a pickled list subclass would."""
        self.args = (*self.args, *values)


def _guarded(found: Any) -> Any:
    """Wrap PyTorch's functions: a pickle may set attributes of what it is given.

    Tensors may not reach beyond their storage either, which would be made as large as they say.
    """
    if not isinstance(found, FunctionType):
        return found

    def call(*args: Any) -> Any:
        if found.__name__.startswith("_rebuild_tensor"):
            storage, offset, shape, strides = args[:4]
            room = storage._untyped_storage.nbytes() // storage.dtype.itemsize
            reach = offset + 1 + sum((n - 1) * step for n, step in zip(shape, strides, strict=True))
            if min((offset, *shape, *strides)) < 0 or (0 not in shape and reach > room):
                raise ValueError(f"a tensor of shape {tuple(shape)} in a storage of {room} numbers")
        return found(*args)

    return call


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        known = (module, name) in _ALLOWED
        known |= module == "torch" and (name in _DTYPES or name in _STORAGES)
        known |= module == "torch.storage" and name in {"UntypedStorage", "TypedStorage"}
        if known:
            module = "builtins" if module == "__builtin__" else module
            return int if name == "long" else _guarded(super().find_class(module, name))
        if module.split(".")[0] in _INERT_PACKAGES:
            return type(name, (Inert,), {"__module__": "inert"})
        raise UnsafeCheckpoint(
            f"the pickle asks for {module}.{name}, which is not plain tensor data. Nothing of it "
            "was run. Convert the file to safetensors in the environment that wrote it, or get it "
            "from the publisher again."
        )


class _RestrictedPickle:
    """What `torch.load` needs of a pickle module."""

    __name__ = "lexome restricted pickle"
    Unpickler = _Unpickler

    @staticmethod
    def load(file: Any, **options: Any) -> Any:
        """Read one pickle."""
        return _Unpickler(file, **options).load()


def read_pickle(path: Path) -> Any:
    """Read a pickled checkpoint (zip or legacy form) without running code from it.

    Raises
    ------
    UnsafeCheckpoint
        If the pickle needs anything but tensors, plain containers and known training left-overs.
    FormatError
        If the file is no checkpoint or is cut short.
    """
    with path.open("rb") as handle:
        zipped = handle.read(4) == b"PK\x03\x04"
    try:
        if zipped:
            _check_archive(path)
        with warnings.catch_warnings():
            # What PyTorch says before it would run a program that `_check_archive` had not seen.
            warnings.filterwarnings("error", message=".*TorchScript")
            return torch.load(
                path,
                map_location="cpu",
                pickle_module=_RestrictedPickle,
                weights_only=False,
                mmap=zipped,
            )
    except UnsafeCheckpoint as error:
        error.add_note(f"while reading {path}")
        raise
    except Exception as error:  # torch and pickle raise a dozen kinds for a damaged file
        raise FormatError(
            path,
            f"cannot be read as a PyTorch checkpoint ({type(error).__name__}: {error}). "
            "The download may be incomplete: compare its size with the publisher's.",
        ) from error


def _check_archive(path: Path) -> None:
    """Refuse archives that hold a program or are packed; PyTorch writes weights unpacked."""
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
    if any(PurePosixPath(entry.filename).name == "constants.pkl" for entry in entries):
        raise UnsafeCheckpoint(
            "the file is a TorchScript program, and reading it would run parts of it. Nothing of "
            "it was run. Save the module's state_dict instead, in the environment that wrote it."
        )
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        raise ValueError("its entries are packed, and may be larger than any memory unpacked")


@dataclass(frozen=True, kw_only=True)
class Weights:
    """Tensors of a checkpoint under their published names.

    Attributes
    ----------
    tensors
        {published name: tensor}; safetensors are memory-mapped.
    files
        The files they came from.
    places
        {published name: its file}, in the order of the files.
    rest
        What a pickle held beside the tensors (epochs, hyper-parameters); empty for safetensors.
    spans
        {published name: (first byte, last byte + 1) in its file}; empty for pickles.
    """

    tensors: Mapping[str, Tensor]
    files: tuple[Path, ...]
    rest: Mapping[str, Any]
    places: Mapping[str, Path] = field(default_factory=dict)
    spans: Mapping[str, tuple[int, int]] = field(default_factory=dict)

    def join(self, names: Sequence[str]) -> Tensor:
        """Lay tensors one after the other along the first axis.

        Where they lie so in a file, the result is mapped from there, and takes no memory of its
        own until it is changed.
        """
        parts = [self.tensors[name] for name in names]
        spans = [self.spans.get(name, (-1, -2)) for name in names]
        files = {self.places.get(name) for name in names}
        kinds = {(part.dtype, part.shape[1:]) for part in parts}
        adjacent = all(one[1] == other[0] for one, other in pairwise(spans))
        if not adjacent or len(files) > 1 or len(kinds) > 1 or parts[0].ndim == 0:
            return torch.cat(parts)
        ((dtype, behind),), (path,) = kinds, files
        assert path is not None, "what has a span has a file"
        start, stop = spans[0][0], spans[-1][1]
        whole = np.memmap(path, np.uint8, mode="c", offset=start, shape=(stop - start,))
        return torch.from_numpy(whole).view(dtype).view(-1, *behind)

    def sha256(self) -> str:
        """Hash the files, in order."""
        digest = hashlib.sha256()
        for path in self.files:
            with path.open("rb") as handle:
                while block := handle.read(1 << 22):
                    digest.update(block)
        return digest.hexdigest()


def find_weights(folder: Path, names: Sequence[str]) -> Path | None:
    """Return the first of `names` that lies in `folder`, whole or as a sharded index."""
    for name in names:
        for candidate in (folder / name, folder / f"{name}.index.json"):
            if candidate.is_file():
                return candidate
    return None


def read_weights(path: Path, state: str | None = None) -> Weights:
    """Read a weight file or a sharded index.

    Parameters
    ----------
    path
        ``*.safetensors``, ``*.index.json``, or a pickle (``.bin``, ``.pt``, ``.pth``, ``.ckpt``).
    state
        Key under which a training checkpoint keeps its tensors, such as ``"state_dict"``.
    """
    if path.name.endswith(".index.json"):
        return _read_shards(path, state)
    with path.open("rb") as handle:
        if handle.read(len(_POINTER)) == _POINTER:
            raise FormatError(
                path,
                "is a pointer of Git LFS and not the file that it stands for. Run `git lfs pull` "
                "where it was cloned, or download the file itself.",
            )
    if path.suffix == ".safetensors":
        try:
            with safe_open(path, framework="pt") as handle:
                tensors = {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118
        except Exception as error:  # safetensors has one exception type that it does not export
            raise FormatError(
                path, f"is no whole safetensors file ({error}). Download it again."
            ) from error
        return Weights(
            tensors=tensors,
            files=(path,),
            rest={},
            places=dict.fromkeys(tensors, path),
            spans=_spans(path),
        )
    content = read_pickle(path)
    if state is not None and isinstance(content, dict) and state in content:
        rest = {k: v for k, v in content.items() if k != state}
        content = content[state]
    else:
        rest = {}
    if not isinstance(content, Mapping):
        raise FormatError(path, f"holds a {type(content).__name__}, expected a table of tensors.")
    tensors = {k: v.detach() for k, v in content.items() if isinstance(v, Tensor)}
    rest |= {k: v for k, v in content.items() if not isinstance(v, Tensor)}
    if odd := [name for name in tensors if not isinstance(name, str)]:
        raise FormatError(path, f"calls a tensor {odd[0]!r}, expected names of letters.")
    if not tensors:
        raise FormatError(path, f"holds no tensors, only {', '.join(map(str, list(rest)[:6]))}.")
    return Weights(tensors=tensors, files=(path,), rest=rest, places=dict.fromkeys(tensors, path))


def _read_shards(path: Path, state: str | None) -> Weights:
    """Read the files that an index names; each must hold what the index says, and no more."""
    index = _json(path)
    named = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(named, dict):
        raise FormatError(path, "has no table `weight_map` of names and files. Get it again.")
    shards = sorted({str(shard) for shard in named.values()})
    if odd := [s for s in shards if not _is_plain(s) or s.endswith(".index.json")]:
        raise FormatError(
            path, f"names the shard {odd[0][:200]!r}. Expected names of weight files beside it."
        )
    if missing := [s for s in shards if not (path.parent / s).is_file()]:
        raise FormatError(path, f"names shards that are not there: {', '.join(missing)}.")
    parts = [read_weights(path.parent / s, state) for s in shards]
    held = {(name, s) for part, s in zip(parts, shards, strict=True) for name in part.tensors}
    wanted = set(named.items())
    if held != wanted:
        differing = [("missing", *pair) for pair in sorted(wanted - held)]
        differing += [("unexpected", *pair) for pair in sorted(held - wanted)]
        raise CheckpointMismatch(
            f"{path}: its shards lack {len(wanted - held)} tensors that it names there, and hold "
            f"{len(held - wanted)} that it does not.\n"
            + "\n".join(f"  {what:<11} {name} in {shard}" for what, name, shard in differing[:8])
            + "\nThe files belong to different models, or a download is incomplete."
        )
    return Weights(
        tensors={k: v for part in parts for k, v in part.tensors.items()},
        files=tuple(path for part in parts for path in part.files),
        rest={},
        places={k: v for part in parts for k, v in part.places.items()},
        spans={k: v for part in parts for k, v in part.spans.items()},
    )


def _is_plain(name: str) -> bool:
    """Say whether a name is that of a file in the same folder."""
    return name not in {"", ".", ".."} and len(name) < 256 and not {*name} & {"/", "\\", "\0"}


def _spans(path: Path) -> dict[str, tuple[int, int]]:
    """Return where the tensors of a safetensors file lie: {name: (first byte, last byte + 1)}."""
    with path.open("rb") as handle:
        length = int.from_bytes(handle.read(8), "little")
        header = json.loads(handle.read(length))
    header.pop("__metadata__", None)
    start = 8 + length
    offsets = {name: entry["data_offsets"] for name, entry in header.items()}
    return {name: (start + first, start + stop) for name, (first, stop) in offsets.items()}


def write_weights(path: Path, tensors: Mapping[str, Tensor], state: str | None = None) -> None:
    """Write tensors in the container that the suffix of `path` names, atomically.

    Ties are stored once per name; safetensors wants them as separate memory.
    """
    tensors = {k: v.detach().cpu().contiguous() for k, v in tensors.items()}
    with atomic_path(path) as temporary:
        if path.suffix == ".safetensors":
            save_file({k: v.clone() for k, v in tensors.items()}, temporary, {"format": "pt"})
        else:
            content: dict[str, Any] = OrderedDict(tensors)
            torch.save({state: content} if state else content, temporary)


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise FormatError(path, f"is no valid JSON ({error}).") from error


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object, or a YAML one where the file is called so.

    Raises
    ------
    CheckpointError
        If the file holds another kind of value.
    FormatError
        If the file is no JSON or YAML.
    """
    is_yaml = path.suffix in {".yml", ".yaml"}
    content = _yaml(path) if is_yaml else _json(path)
    if not isinstance(content, dict):
        kind = "YAML mapping" if is_yaml else "JSON object"
        raise CheckpointError(f"{path}: expected a {kind}, found {type(content).__name__}.")
    return content


def _yaml(path: Path) -> Any:
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise FormatError(path, f"is no valid YAML ({error}).") from error
