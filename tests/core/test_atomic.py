"""A file is either whole or not there."""

import errno
import stat
from pathlib import Path
from types import SimpleNamespace

import pytest

from lexome.core import InputError, atomic_path, free_path


def test_a_file_appears_when_the_block_succeeds(tmp_path: Path):
    target = tmp_path / "new" / "scores.vcf.gz"
    with atomic_path(target) as temporary:
        assert temporary.name.endswith("scores.vcf.gz")
        assert not target.exists()
        temporary.write_text("whole")
    assert target.read_text() == "whole"
    assert list(target.parent.iterdir()) == [target]


def test_an_error_leaves_the_old_file_and_no_other(tmp_path: Path):
    def fail_halfway() -> None:
        with atomic_path(target) as temporary:
            temporary.write_text("half")
            raise ZeroDivisionError

    target = tmp_path / "scores.tsv"
    target.write_text("old")
    with pytest.raises(ZeroDivisionError):
        fail_halfway()
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_a_new_file_is_as_readable_as_any_other(tmp_path: Path):
    plain, target = tmp_path / "plain", tmp_path / "atomic"
    plain.write_text("")
    with atomic_path(target) as temporary:
        temporary.write_text("")
    assert stat.S_IMODE(target.stat().st_mode) == stat.S_IMODE(plain.stat().st_mode)


@pytest.mark.parametrize(("free", "kind"), [(0, OSError), (1 << 30, RuntimeError)])
def test_a_full_disk_is_told_from_other_errors(tmp_path: Path, monkeypatch, free, kind):
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=free))
    with pytest.raises(kind) as caught, atomic_path(tmp_path / "weights.pt"):
        raise RuntimeError("unexpected pos 576 vs 534")
    assert getattr(caught.value, "errno", errno.ENOSPC) == errno.ENOSPC
    assert list(tmp_path.iterdir()) == []


def test_what_is_there_is_replaced_only_on_request(tmp_path: Path):
    target = tmp_path / "scores.tsv"
    assert free_path(target, overwrite=False) == target
    target.touch()
    assert free_path(str(target), overwrite=True) == target
    with pytest.raises(InputError, match=r"scores.tsv is there already. Pass overwrite=True"):
        free_path(target, overwrite=False)
