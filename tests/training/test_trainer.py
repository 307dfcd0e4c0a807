"""The loop on transformers' Trainer: groups, accumulation, precision, what a step costs."""

import pytest
import torch

from lexome.catalog import new
from lexome.core import InputError
from lexome.training.pretraining import pretrain
from lexome.training.trainer import Task


def test_the_task_gives_the_loss_of_the_model():
    model = new("gpn", width=8, depth=1)
    ids = torch.randint(3, 7, (2, 9))
    at = (torch.tensor([0, 1, 1]), torch.tensor([2, 0, 8]))
    labels = torch.full((2, 9), -100)
    labels[at] = ids[at]
    batch = {"input_ids": ids, "targets": ids[at], "positions": at}
    torch.testing.assert_close(Task(model)(batch), model(ids, labels=labels).loss)


def losses(result):
    return [each.loss for each in result.history if each.loss is not None]


def test_accumulated_micro_batches_give_the_same_curve(tiny, tmp_path):
    """A causal model without dropout has no other randomness than its windows."""
    sizes = {"width": 16, "mlp_width": 32, "length": 98, "filter_width": 16, "dropout": 0.0}
    found = [
        pretrain(**tiny("hyenadna", out=tmp_path / str(n), sizes=sizes, steps=10, accumulate=n))
        for n in (1, 4)
    ]
    assert losses(found[0]) == pytest.approx(losses(found[1]), abs=1e-5)


def test_bfloat16_learns_and_leaves_the_weights_in_float32(tiny, tmp_path):
    exact = pretrain(**tiny("gpn", out=tmp_path / "a"))
    fast = pretrain(**tiny("gpn", out=tmp_path / "b", precision="bfloat16"))
    assert fast.precision == "bfloat16"
    assert losses(fast) == pytest.approx(losses(exact), abs=0.05)
    assert losses(fast) != losses(exact)
    from lexome.catalog import load

    assert load(fast.model).dtype == torch.float32


def test_a_loss_that_is_no_number_stops_the_run(tiny, tmp_path):
    with pytest.raises(InputError, match=r"the loss became nan by step \d+. Lower learning_rate"):
        pretrain(**tiny("hyenadna", out=tmp_path, learning_rate=1e30, clip=0.0))


def test_measurements_reach_the_caller_as_they_are_made(tiny, tmp_path):
    heard = []
    result = pretrain(**tiny("gpn", out=tmp_path, progress=heard.append))
    assert tuple(heard) == result.history


def test_where_there_is_no_terminal_lines_are_told_instead_of_a_bar(tiny, tmp_path, capsys):
    pretrain(**tiny("gpn", out=tmp_path, progress=True))
    told = capsys.readouterr().err
    assert "\r" not in told
    steps = [line.split(":")[0] for line in told.splitlines() if line.startswith("step ")]
    assert 3 <= len(steps) <= 20
    assert steps[-1] == "step 30 of 30"
    assert told.count(": loss ") == len(steps)


def test_tensorboard_has_the_same_curve(tiny, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    result = pretrain(**tiny("gpn", out=tmp_path, evaluate_every=15))
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    noted = [(e.step, e.value) for e in events.Scalars("train/loss")]
    assert [step for step, _ in noted] == [h.step for h in result.history if h.loss is not None]
    assert [value for _, value in noted] == pytest.approx(losses(result), rel=1e-5)
    assert [e.step for e in events.Scalars("eval/bits_per_base")] == [15, 30]
