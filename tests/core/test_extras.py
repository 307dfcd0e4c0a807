"""Optional packages are imported when needed, or the message says how to get them."""

import json
import sys

import pytest

from lexome.core import MissingExtra, need


def test_an_installed_package_is_imported():
    assert need("json", "cells", "to read") is json


def test_a_missing_package_names_the_extra_that_brings_it():
    message = r"nosuch is needed to read \.h5ad files .* pip install 'lexome\[cells\]'"
    with pytest.raises(MissingExtra, match=message):
        need("nosuch.part", "cells", "to read .h5ad files")


def test_a_package_that_misses_one_of_its_own_is_not_called_missing(tmp_path, monkeypatch):
    (tmp_path / "half_installed.py").write_text("import nosuch")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="nosuch"):
        need("half_installed", "cells", "to read")
    assert "half_installed" not in sys.modules
