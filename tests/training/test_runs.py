"""The folder of a run: claimed by one, tidy after a kill."""

import numpy as np
import pytest

from lexome.core import InputError
from lexome.training.runs import Measurement, Run, step_of

ASKED = {"steps": 10, "betas": (0.9, 0.98), "sizes": {"width": 8}}


@pytest.fixture
def run(tmp_path):
    run = Run(tmp_path / "run")
    run.claim(ASKED, resume=True)
    return run


def checkpoint(run, step, *, whole=True):
    folder = run.checkpoints / f"checkpoint-{step}"
    folder.mkdir(parents=True)
    (folder / "weights").touch()
    if whole:
        run.seal(folder, keep=2)
    return folder


def test_the_same_run_may_claim_its_folder_again(run):
    run.claim(ASKED, resume=True)


def test_a_run_knows_what_was_asked_of_it(run):
    assert run.asked() == {"steps": 10, "betas": [0.9, 0.98], "sizes": {"width": 8}}


def test_a_setting_that_json_does_not_know_is_the_same_again(tmp_path):
    run = Run(tmp_path)
    run.claim(ASKED | {"largest": float("inf")}, resume=True)
    checkpoint(run, 5)
    run.claim(ASKED | {"largest": float("inf")}, resume=True)
    with pytest.raises(InputError, match=r"largest was None, now 2.0"):
        run.claim(ASKED | {"largest": 2.0}, resume=True)


def test_a_run_that_came_to_nothing_holds_no_claim(run):
    run.confirm("fasta", "abc")
    run.claim(ASKED | {"steps": 20}, resume=True)
    run.confirm("fasta", "abd")
    checkpoint(run, 5)
    with pytest.raises(InputError, match="other contents of fasta"):
        run.confirm("fasta", "abc")


def test_another_run_is_told_what_differs(run):
    checkpoint(run, 5)
    with pytest.raises(InputError, match=r"other settings: steps was 10, now 20. Choose another"):
        run.claim(ASKED | {"steps": 20}, resume=True)


def test_other_contents_are_refused(run):
    run.confirm("fasta", "abc")
    checkpoint(run, 5)
    run.confirm("fasta", "abc")
    run.claim(ASKED, resume=True)
    with pytest.raises(InputError, match="other contents of fasta"):
        run.confirm("fasta", "abd")


def test_a_run_can_be_deleted_for_a_new_one(run):
    checkpoint(run, 5)
    run.note(Measurement(step=5, tokens=1, seconds=1.0, loss=1.0))
    (run.folder / "notes.txt").write_text("mine")
    run.claim({"steps": 20}, resume=False)
    assert run.latest_checkpoint() is None
    assert run.history() == []
    assert (run.folder / "notes.txt").exists()


def test_a_folder_with_results_of_nobody_knows_what_is_refused(tmp_path):
    (tmp_path / "model").mkdir()
    for resume in (True, False):
        with pytest.raises(InputError, match=r"has model but no run.json"):
            Run(tmp_path).claim(ASKED, resume=resume)
    assert (tmp_path / "model").exists()


def test_measurements_come_back_as_they_were(run):
    noted = [
        Measurement(step=5, tokens=10, seconds=0.5, loss=1.25, learning_rate=1e-3),
        Measurement(step=5, tokens=10, seconds=0.6, validation_nats=1.0),
    ]
    for each in noted:
        run.note(each)
    assert run.history() == noted


def test_a_measurement_that_a_kill_cut_off_is_not_read(run):
    run.note(Measurement(step=5, tokens=10, seconds=0.5, loss=1.25))
    with (run.folder / "metrics.jsonl").open("a") as stream:
        stream.write('{"step": 10, "tok')
    assert [each.step for each in run.history()] == [5]


def test_only_whole_checkpoints_count_and_the_newest_is_taken(run):
    for step in (5, 10):
        checkpoint(run, step)
    checkpoint(run, 15, whole=False)
    assert step_of(run.latest_checkpoint()) == 10


def test_old_checkpoints_go(run):
    for step in (900, 1000, 1100):
        checkpoint(run, step)
    left = sorted(step_of(path) for path in run.checkpoints.iterdir())
    assert left == [1000, 1100]


def test_what_came_after_the_checkpoint_is_dropped(run):
    for step in (5, 10, 15):
        run.note(Measurement(step=step, tokens=step, seconds=1.0, loss=1.0))
    kept = checkpoint(run, 10)
    checkpoint(run, 15, whole=False)
    run.tidy(kept)
    assert [each.step for each in run.history()] == [5, 10]
    assert list(run.checkpoints.iterdir()) == [kept]


def test_without_a_checkpoint_all_starts_over(run):
    run.note(Measurement(step=5, tokens=5, seconds=1.0, loss=1.0))
    run.tidy(None)
    assert run.history() == []


def test_the_end_is_written_down(run):
    assert run.result() is None
    run.finish({"seconds": 3.5})
    assert run.result() == {"seconds": 3.5}


def test_what_windows_cost_is_kept_and_deleted_with_the_run(tmp_path):
    run = Run(tmp_path / "run")
    run.claim({"seed": 0}, resume=True)
    assert run.windows("before") is None
    run.note_windows("before", np.ones((2, 3)))
    assert run.windows("before").tolist() == [[1, 1, 1]] * 2
    run.claim({"seed": 1}, resume=False)
    assert run.windows("before") is None
