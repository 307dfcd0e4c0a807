import pytest

from lexome.checkpoints import Revision, find_revision
from lexome.core import CheckpointError

ONE, TWO = "a" * 40, "b" * 40


@pytest.fixture
def cache(tmp_path):
    """A hub's cache with two snapshots of one repository; only one of them has names."""
    repository = tmp_path / "models--owner--some--name"
    for commit in (ONE, TWO):
        (repository / "snapshots" / commit).mkdir(parents=True)
    for name in ("main", "pr/1", "v2"):
        path = repository / "refs" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(TWO if name == "v2" else ONE)
    return repository / "snapshots"


def test_a_snapshot_tells_repository_commit_and_names(cache):
    assert find_revision(cache / ONE) == Revision(
        commit=ONE, names=("main", "pr/1"), repository="owner/some/name", others=("v2",)
    )
    assert str(find_revision(cache / ONE)) == "aaaaaaaaaaaa (main, pr/1)"


def test_a_link_to_a_snapshot_tells_it_too(cache, tmp_path):
    (tmp_path / "link").symlink_to(cache / TWO)
    assert find_revision(tmp_path / "link").names == ("v2",)


def test_what_is_known_of_a_revision_decides(cache):
    main = find_revision(cache / ONE)
    assert [main.is_other_than(n) for n in ("main", "pr/1", "a" * 12, "v2", "v3")] == [
        *(False, False, False),
        *(True, True),
    ]
    # Without names nothing is known of it, but that it is not where a name stands.
    bare = Revision(commit=ONE, others=("v2",))
    assert [bare.is_other_than(n) for n in ("v2", "v3")] == [True, False]


def metadata(folder, **commits):
    place = folder / ".cache" / "huggingface" / "download"
    place.mkdir(parents=True, exist_ok=True)
    for name, commit in commits.items():
        (place / f"{name}.bin.metadata").write_text(f"{commit}\nan-etag\n1700000000.0\n")
    return [folder / f"{name}.bin" for name in commits]


def test_a_downloaded_folder_tells_the_commit(tmp_path):
    assert find_revision(tmp_path, [tmp_path / "one.bin"]) is None
    files = metadata(tmp_path, one=ONE, two=ONE)
    assert find_revision(tmp_path, files) == Revision(commit=ONE)


def test_files_of_different_revisions_are_refused(tmp_path):
    files = metadata(tmp_path, one=ONE, two=TWO)
    with pytest.raises(CheckpointError, match=r"one\.bin from aaaaaaaaaaaa, two\.bin from bbbb"):
        find_revision(tmp_path, files)
    assert find_revision(tmp_path, files[:1]) == Revision(commit=ONE)


def test_empty_metadata_tells_nothing(tmp_path):
    assert find_revision(tmp_path, metadata(tmp_path, one="")) is None
