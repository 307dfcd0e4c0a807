"""Files that are either whole or not there."""

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lexome.core.errors import InputError

_FULL_BYTES = 1 << 16  # writers give up before the last block


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
    `target`, so writers that look at suffixes do the right thing. Where the disk is full the error
    says so, whatever the writer made of it.

    Raises
    ------
    OSError
        If nothing can be written there.
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
    except OSError:
        raise
    except Exception as error:  # PyTorch and safetensors have errors of their own for a full disk
        if shutil.disk_usage(target.parent).free > _FULL_BYTES:
            raise
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(target)) from error
    finally:
        temporary.unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
