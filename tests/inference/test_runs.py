"""What runs share: rows in order whatever the windows, a sample of the weights, a last line."""

import numpy as np
import torch

from lexome.catalog import new
from lexome.inference import runs
from lexome.inference.reading import Item
from lexome.inference.runs import Collected, Summary, _Waiting, item_row, weights_digest


def item(**fields):
    return Item(id="a", fields=fields, status="ok", length=4, tokens=4, unknown=0, pieces=())


def test_columns_of_the_input_never_hide_ours():
    row = item_row(item(status="old", score="7", strand="-"), {"score": 0.5})
    assert row["status"] == "ok"
    assert (row["input_status"], row["input_score"]) == ("old", "7")
    assert (row["score"], row["strand"]) == (0.5, "-")


def test_a_result_may_change_the_status():
    assert item_row(item(), status="too short")["status"] == "too short"


def test_rows_wait_together_and_arrive_in_order(monkeypatch):
    sink = Collected()
    waiting = _Waiting(sink)
    for i in range(3):
        waiting.append([{"id": str(i)}], {"x": np.full((1, 2), i), "y": [np.arange(i)]})
    assert not sink.rows
    waiting.flush()
    assert [row["id"] for row in sink.rows] == ["0", "1", "2"]
    (x,), (y,) = sink.arrays["x"], sink.arrays["y"]
    assert x.tolist() == [[0, 0], [1, 1], [2, 2]]
    assert [part.tolist() for part in y] == [[], [0], [0, 1]]


def test_a_record_with_a_long_array_is_stored_by_itself(monkeypatch):
    monkeypatch.setattr(runs, "_WAITING_BYTES", 100)
    stored = []

    class Sink:
        def append(self, rows, arrays=None):
            assert [len(a) for a in arrays["token"]] == rows
            stored.append(rows)

    waiting = _Waiting(Sink())
    lengths = [1, 2, 50, 3, 0, 4]
    waiting.append(lengths, {"token": [np.zeros(n, np.float64) for n in lengths]})
    assert stored == [[1, 2], [50], [3, 0, 4]]


def test_training_changes_the_digest_of_the_weights():
    model, twin = (new("gpn", width=8, depth=2, mlp_width=8) for _ in range(2))
    assert weights_digest(model) == weights_digest(twin)
    assert weights_digest(model) != weights_digest(new("gpn", width=8, depth=2, seed=1))
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.add_(1e-4 * torch.randn_like(parameter))
    assert weights_digest(model) != weights_digest(twin)


def test_the_line_names_only_what_happened():
    plain = {"records": 2, "cut": 0, "length": 1200, "unknown": 0, "seconds": 1.25, "unit": "bases"}
    assert Summary(**plain, refused={}).line() == "2 records, 1,200 bases in 1.2 s"
    full = Summary(**plain | {"cut": 1, "unknown": 3}, refused={"empty": 1, "too short": 1})
    assert full.line() == (
        "2 records, 2 refused (1 empty, 1 too short), 1 cut into overlapping pieces, "
        "1,200 bases (3 unknown) in 1.2 s"
    )
