"""Published files from the Hugging Face hub, kept in its own cache."""

from collections.abc import Callable, Sequence
from pathlib import Path

from lexome.core import CheckpointError, Offline

# Weights first in this order; a repository that holds several forms is fetched once.
_WEIGHTS = ("*.safetensors", "*.bin", "*.ckpt", "*.pt", "*.pth", "*.pdparams")
_SIDE = ("*.json", "*.txt", "*.yml", "*.yaml", "*.model", "*.pickle")


def fetch_hub(source: str, wanted: tuple[str, ...] = ()) -> Path:
    """Download a repository's weights and side files and return the folder.

    Parameters
    ----------
    source
        ``owner/name`` or ``owner/name@revision``.
    wanted
        Weight file names to fetch, the preferred first; only the first that the repository
        holds is downloaded. Empty for all weights.

    Raises
    ------
    Offline
        If the hub cannot be reached and the files are not in the cache.
    CheckpointError
        If the repository, the revision or the permission is missing.
    """
    from huggingface_hub import HfApi, snapshot_download

    def download(options: dict[str, str | None]) -> str:
        patterns = [*_SIDE, *(_WEIGHTS if not wanted else ())]
        if wanted:
            present = set(HfApi().list_repo_files(**options))  # type: ignore[arg-type]
            first = next((w for w in wanted if {w, f"{w}.index.json"} & present), None)
            if first is not None:
                stem, suffix = first.rsplit(".", 1)
                patterns += [first, f"{stem}-*.{suffix}"]
        return snapshot_download(**options, allow_patterns=patterns)  # type: ignore[arg-type]

    return _fetched(source, download)


def fetch_dataset(source: str, patterns: Sequence[str]) -> Path:
    """Download files of a repository of data sets and return the folder.

    Parameters
    ----------
    source
        ``owner/name`` or ``owner/name@revision``.
    patterns
        Which files, with ``*``; empty for all.

    Raises
    ------
    Offline
        If the hub cannot be reached and the files are not in the cache.
    CheckpointError
        If the repository, the revision or the permission is missing.
    """
    from huggingface_hub import snapshot_download

    def download(options: dict[str, str | None]) -> str:
        return snapshot_download(**options, allow_patterns=list(patterns) or None)  # type: ignore[arg-type]

    return _fetched(source, download, repo_type="dataset")


def _fetched(source: str, download: Callable[[dict[str, str | None]], str], **kind: str) -> Path:
    """Download, else take what is cached, else say what is wrong and what to do."""
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    repository, _, revision = source.partition("@")
    try:
        return Path(download({"repo_id": repository, "revision": revision or None, **kind}))
    except GatedRepoError as error:
        raise CheckpointError(
            f"{repository} asks for consent to its terms. Accept them on its page, then log in "
            "with `hf auth login`."
        ) from error
    except (RepositoryNotFoundError, RevisionNotFoundError) as error:
        raise CheckpointError(
            f"the hub has no {source!r} (or it is private). Check the name, or log in with "
            "`hf auth login`."
        ) from error
    except (LocalEntryNotFoundError, *HfHubHTTPError.__bases__, OSError) as error:
        # The bases are what the hub's HTTP library raises, whichever it is, where nobody answers.
        cached = _cached(repository, revision, kind)
        if cached is not None:
            return cached
        flags = [f"--repo-type {kind['repo_type']}"] if kind else []
        flags += [f"--revision {revision}"] if revision else []
        raise Offline(
            f"{source} is not in the local cache and the hub cannot be reached "
            f"({type(error).__name__}). On a machine with internet run\n"
            f"  hf download {' '.join([repository, *flags])} --local-dir "
            f"{repository.split('/')[-1]}\n"
            "copy that folder here and pass its path instead of the name."
        ) from error


def _cached(repository: str, revision: str, kind: dict[str, str]) -> Path | None:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return Path(
            snapshot_download(
                repository,
                revision=revision or None,
                local_files_only=True,
                **kind,  # type: ignore[arg-type]
            )
        )
    except (LocalEntryNotFoundError, OSError):
        return None
