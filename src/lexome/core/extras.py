"""Optional packages, imported where they are used."""

from importlib import import_module
from types import ModuleType

from lexome.core.errors import MissingExtra


def need(package: str, extra: str, purpose: str) -> ModuleType:
    """Import an optional package or say which extra brings it.

    Parameters
    ----------
    package
        Import name, e.g. ``"anndata"`` or ``"pyarrow.parquet"``.
    extra
        The extra of lexome that installs it.
    purpose
        What it is needed for, in the user's words ("to read .h5ad files").

    Raises
    ------
    MissingExtra
        If the package is not installed.
    """
    try:
        return import_module(package)
    except ModuleNotFoundError as error:
        if error.name is None or not package.startswith(error.name.split(".")[0]):
            raise
        raise MissingExtra(
            f"{package.split('.')[0]} is needed {purpose} and is not installed. "
            f"Install it with: pip install 'lexome[{extra}]'"
        ) from None
