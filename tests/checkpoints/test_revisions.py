import shutil
import subprocess

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


@pytest.fixture
def clone(tmp_path):
    """A clone with two branches and a tag, as git lays it out."""
    git = tmp_path / ".git"
    for name, commit in (("heads/main", ONE), ("remotes/origin/1.1_fix", TWO), ("tags/v1", ONE)):
        path = git / "refs" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(commit + "\n")
    (git / "packed-refs").write_text(f"# pack-refs with: peeled\n{TWO} refs/tags/old\n^{ONE}\n")
    (git / "HEAD").write_text("ref: refs/heads/main\n")
    url = "https://huggingface.co/owner/name.git"
    (git / "config").write_text(f'[remote "origin"]\n\turl = {url}\n')
    return tmp_path


def test_a_clone_tells_repository_branch_and_tags(clone):
    found = find_revision(clone)
    assert (found.commit, found.repository) == (ONE, "owner/name")
    assert (found.names, found.others) == (("main", "v1"), ("1.1_fix", "old"))
    assert found.is_other_than("1.1_fix")


def test_a_clone_may_stand_beside_its_branches(clone):
    (clone / ".git" / "HEAD").write_text(TWO + "\n")
    assert find_revision(clone).names == ("1.1_fix", "old")
    (clone / ".git" / "config").unlink()
    assert find_revision(clone).repository is None
    (clone / ".git" / "HEAD").write_text("ref: refs/heads/nothing-yet\n")
    assert find_revision(clone) is None


def test_what_git_itself_writes_is_read(tmp_path):
    if shutil.which("git") is None:
        pytest.skip("git is not installed")
    who = ["-c", "user.name=x", "-c", "user.email=x@example.org"]
    for command in (
        ["init", "--quiet", "--initial-branch=main"],
        [*who, "commit", "--quiet", "--allow-empty", "--message=one"],
        ["tag", "v1"],
        ["remote", "add", "origin", "git@huggingface.co:owner/name"],
        ["pack-refs", "--all"],
        [*who, "commit", "--quiet", "--allow-empty", "--message=two"],
    ):
        subprocess.run(["git", *command], cwd=tmp_path, check=True)
    found = find_revision(tmp_path)
    assert (found.names, found.others, found.repository) == (("main",), ("v1",), "owner/name")
