from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
)

from lexome.catalog import load
from lexome.checkpoints.download import fetch_dataset, fetch_hub
from lexome.core import CheckpointError, Offline


@pytest.fixture
def hub(monkeypatch, tmp_path, fixtures):
    """A hub of one repository, the official folder of a small GPN."""
    asked = []

    def listing(self, repo_id, revision):
        return sorted(p.name for p in (fixtures / "gpn" / "convnet").iterdir())

    def snapshot(repo_id, revision=None, allow_patterns=None, local_files_only=False):
        if local_files_only:
            raise LocalEntryNotFoundError("not in the cache")
        asked.append((repo_id, revision, allow_patterns))
        return str(fixtures / "gpn" / "convnet")

    monkeypatch.setattr(huggingface_hub.HfApi, "list_repo_files", listing)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    return asked


def test_only_the_preferred_weights_are_fetched(hub):
    fetch_hub("songlab/x@v2", ("model.safetensors", "pytorch_model.bin"))
    (repository, revision, patterns) = hub[0]
    assert (repository, revision) == ("songlab/x", "v2")
    assert "model.safetensors" in patterns
    assert "*.json" in patterns
    assert not {"pytorch_model.bin", "*.bin"} & set(patterns)


def test_a_release_name_and_a_hub_id_load(hub):
    assert load("gpn-brassicales", device="cpu").family.name == "gpn"
    assert load("songlab/gpn-brassicales", device="cpu").count_parameters() > 0
    assert [repository for repository, _, _ in hub] == ["songlab/gpn-brassicales"] * 2


@pytest.mark.parametrize(
    ("kind", "ours", "words"),
    [
        (OSError, Offline, "hf download songlab/x"),
        (HfHubHTTPError.__bases__[0], Offline, "hf download songlab/x"),
        (RepositoryNotFoundError, CheckpointError, "the hub has no"),
        (GatedRepoError, CheckpointError, "Accept them on its page"),
    ],
)
def test_what_goes_wrong_is_said_with_the_way_out(hub, monkeypatch, kind, ours, words):
    def broken(repo_id, revision=None, allow_patterns=None, local_files_only=False):
        if local_files_only:
            raise LocalEntryNotFoundError("not in the cache")
        raise kind.__new__(kind)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", broken)
    with pytest.raises(ours, match=words):
        fetch_hub("songlab/x")


def test_the_cache_serves_without_a_network(hub, monkeypatch, tmp_path):
    def offline(repo_id, revision=None, allow_patterns=None, local_files_only=False):
        if not local_files_only:
            raise OSError("no network")
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", offline)
    assert fetch_hub("songlab/x") == Path(tmp_path)


def test_data_sets_are_fetched_as_such(monkeypatch, tmp_path):
    asked = []

    def snapshot(repo_id, **options):
        asked.append({"repo_id": repo_id, **options})
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    assert fetch_dataset("someone/sets@v1", ["a/*"]) == tmp_path
    assert asked == [
        {
            "repo_id": "someone/sets",
            "revision": "v1",
            "repo_type": "dataset",
            "allow_patterns": ["a/*"],
        }
    ]


def test_how_to_carry_a_data_set_over_is_said(monkeypatch):
    def offline(repo_id, **options):
        raise LocalEntryNotFoundError("not in the cache")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", offline)
    with pytest.raises(Offline, match="hf download someone/sets --repo-type dataset --local-dir"):
        fetch_dataset("someone/sets", [])
