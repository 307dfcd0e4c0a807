import gzip
from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def cache_home(tmp_path_factory, monkeypatch):
    """Keep what readers cache out of the user's home."""
    home = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(home))
    return home


@pytest.fixture
def make_file(tmp_path):
    """Write text or bytes to a new file, compressed as its suffix says; `.bgz` means bgzip."""

    def make(name: str, content: str | bytes) -> Path:
        path = tmp_path / name
        data = content.encode() if isinstance(content, str) else content
        if path.suffix == ".bgz":
            from pysam import BGZFile

            with BGZFile(str(path), "wb") as stream:
                stream.write(data)
        elif path.suffix == ".gz":
            path.write_bytes(gzip.compress(data))
        else:
            path.write_bytes(data)
        return path

    return make
