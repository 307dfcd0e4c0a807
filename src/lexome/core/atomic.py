"""Files that are either whole or not there."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lexome.core.errors import InputError


def free_path(path: str | Path, *, overwrite: bool) -> Path:
    """Return a path that may be written.

    Raises
    ------
    InputError
        If something is there already and `overwrite` is false.
    """
    if Path(path).exists() and not overwrite:
        raise InputError(
            f"{path} is there already. Pass overwrite=True to replace it, or give another output."
        )
    return Path(path)


@contextmanager
def atomic_path(target: str | Path) -> Iterator[Path]:
    """Give a temporary path beside `target` and rename it onto `target` if the block succeeds.

    A crash or an exception leaves `target` as it was. The temporary name keeps the suffixes of
    `target`, so writers that look at suffixes do the right thing.
    """
    target = Path(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=".writing-", suffix=f"-{target.name}")
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
