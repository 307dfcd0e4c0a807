"""Which revision of a repository a folder of files was downloaded from, where that can be told."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from lexome.core import CheckpointError

_METADATA = Path(".cache") / "huggingface" / "download"


@dataclass(frozen=True, kw_only=True)
class Revision:
    """A commit of a repository.

    Attributes
    ----------
    commit
        Its hash.
    names
        Branches and tags that stood there when they were downloaded last.
    repository
        ``owner/name``, or None where the folder does not tell.
    others
        Branches and tags of the repository that are known to stand at other commits.
    """

    commit: str
    names: tuple[str, ...] = ()
    repository: str | None = None
    others: tuple[str, ...] = ()

    def __str__(self) -> str:
        names = f" ({', '.join(self.names)})" if self.names else ""
        return self.commit[:12] + names

    def is_other_than(self, wanted: str) -> bool:
        """Say whether this is known to be another revision than the one that is wanted."""
        if wanted in self.names or self.commit.startswith(wanted):
            return False
        return wanted in self.others or bool(self.names)


def find_revision(folder: Path, files: Iterable[Path] = ()) -> Revision | None:
    """Tell where a folder was downloaded from by what the hub's tools leave beside the files.

    Parameters
    ----------
    folder
        A snapshot in the hub's cache, a clone of its git repository, or what ``hf download
        --local-dir`` wrote.
    files
        Weight files in it.

    Returns
    -------
    None if nothing tells.

    Raises
    ------
    CheckpointError
        If the files come from different revisions, as after a download that was broken off.
    """
    place = folder.resolve()
    kind, _, name = place.parent.parent.name.partition("--")
    if place.parent.name == "snapshots" and kind == "models" and name:
        found, others = [], []
        refs = place.parent.parent / "refs"
        for ref in sorted(path for path in refs.rglob("*") if path.is_file()):
            here = _text(ref).strip() == place.name
            (found if here else others).append(ref.relative_to(refs).as_posix())
        return Revision(
            commit=place.name,
            names=tuple(found),
            repository=name.replace("--", "/"),
            others=tuple(others),
        )
    if (folder / ".git" / "HEAD").is_file():
        return _cloned(folder / ".git")
    commits = {path.name: commit for path in files if (commit := _commit(folder, path.name))}
    if len(set(commits.values())) > 1:
        listing = ", ".join(f"{name} from {commit[:12]}" for name, commit in commits.items())
        raise CheckpointError(
            f"the weight files of {folder} come from different revisions: {listing}. A download "
            "was broken off; download the folder again."
        )
    return Revision(commit=next(iter(commits.values()))) if commits else None


def _cloned(git: Path) -> Revision | None:
    """Read where a clone stands; git itself is not asked, for it runs what a folder configures."""
    refs = {
        path.relative_to(git).as_posix(): _text(path).strip()
        for path in sorted((git / "refs").rglob("*"))
        if path.is_file()
    }
    packed = git / "packed-refs"
    for line in _text(packed).splitlines() if packed.is_file() else ():
        commit, _, ref = line.partition(" ")
        if ref.startswith("refs/"):
            refs.setdefault(ref, commit)
    head = _text(git / "HEAD").strip()
    commit = refs.get(head.removeprefix("ref: "), "") if head.startswith("ref: ") else head
    if not commit:
        return None
    config = _text(git / "config") if (git / "config").is_file() else ""
    url = re.search(r"huggingface\.co[/:]([\w.-]+/[\w.-]+)", config)
    places = {ref: re.sub(r"^refs/(heads|tags|remotes/[^/]+)/", "", ref) for ref in refs}
    names = {places[ref] for ref, at in refs.items() if at == commit}
    return Revision(
        commit=commit,
        names=tuple(sorted(names - {"HEAD"})),
        repository=url[1].removesuffix(".git") if url else None,
        others=tuple(sorted(set(places.values()) - names - {"HEAD"})),
    )


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace")


def _commit(folder: Path, name: str) -> str | None:
    """Return the commit that a file was downloaded from; it is the first line of its metadata."""
    path = folder / _METADATA / f"{name}.metadata"
    if not path.is_file():
        return None
    first, *_ = [*_text(path).splitlines(), ""]
    return first.strip() or None
