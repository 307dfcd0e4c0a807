"""Batches keep to the budget, threads end, errors surface."""

import threading
import time
from itertools import count

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lexome.catalog import new
from lexome.core import InputError
from lexome.inference.batching import (
    ahead,
    batches,
    enough_memory,
    plan_batches,
    progress_bar,
    token_budget,
    windows,
)
from lexome.tokenizers import LetterPreset, LetterTokenizer

LETTERS = LetterTokenizer(
    LetterPreset(name="x", vocabulary=("[PAD]", "[UNK]", "[MASK]", "A", "C", "G", "T"))
)


@given(
    st.lists(st.integers(0, 300), max_size=60),
    st.integers(1, 1000),
)
def test_every_item_is_in_one_batch_and_no_batch_is_over_the_budget(lengths, budget):
    plan = plan_batches(lengths, budget)
    assert sorted(i for batch in plan for i in batch) == list(range(len(lengths)))
    for batch in plan:
        longest = max(lengths[i] for i in batch)
        assert len(batch) == 1 or len(batch) * longest <= budget


@given(st.lists(st.integers(1, 1000), min_size=1, max_size=200), st.integers(1000, 8000))
def test_little_of_a_batch_is_padding(lengths, budget):
    for batch in plan_batches(lengths, budget):
        longest = max(lengths[i] for i in batch)
        padding = sum(longest - lengths[i] for i in batch)
        # A tenth of a full batch, or rows that came before an eighth of the budget was reached.
        assert padding <= 0.1 * len(batch) * longest + budget / 8


def test_a_mask_is_made_only_where_rows_are_padded():
    rows = LETTERS.encode(["ACGT", "ACG", "ACGT"])
    device = torch.device("cpu")
    mixed = list(batches(rows, LETTERS, max_tokens=100, device=device))
    assert [b.indices for b in mixed] == [(0, 2, 1)]
    assert mixed[0].lengths == (4, 4, 3)
    assert mixed[0].inputs["attention_mask"].tolist() == [[1] * 4, [1] * 4, [1, 1, 1, 0]]
    equal = list(batches(rows, LETTERS, max_tokens=8, device=device))
    assert [b.indices for b in equal] == [(0, 2), (1,)]
    assert all("attention_mask" not in b.inputs for b in equal)


def test_windows_are_bounded_in_items_and_in_tokens():
    assert list(windows([5, 5, 1, 1, 1, 9], int, max_size=10, max_items=2)) == [
        [5, 5],
        [1, 1],
        [1, 9],
    ]
    assert list(windows([], int, max_size=10)) == []


def test_reading_ahead_keeps_order_and_stops_at_the_end():
    assert list(ahead(range(100), depth=3)) == list(range(100))


def test_an_error_of_the_reader_surfaces_after_the_items_before_it():
    def reader():
        yield 1
        yield 2
        raise InputError("line 3 is broken")

    seen = []
    with pytest.raises(InputError, match="line 3 is broken"):
        seen.extend(ahead(reader()))
    assert seen == [1, 2]


def test_the_thread_ends_when_the_caller_stops():
    for item in ahead(count(), depth=2):
        if item == 5:
            break
    deadline = time.monotonic() + 5
    while any(t.name == "lexome-ahead" for t in threading.enumerate()):
        assert time.monotonic() < deadline, "the reading thread still runs"
        time.sleep(0.02)


def test_a_reader_waits_until_its_items_are_wanted():
    made = []

    def reader():
        for i in range(100):
            made.append(i)
            yield i

    items = ahead(reader(), depth=2)
    next(items)
    time.sleep(0.2)
    assert len(made) <= 5
    items.close()


def test_the_progress_bar_is_silent_off_a_terminal(capfd):
    with progress_bar("records") as bar:
        bar.update(3)
    assert capfd.readouterr().err == ""
    with progress_bar("records", total=3, show=True) as bar:
        bar.update(3)
    assert "3.00" in capfd.readouterr().err


def test_the_budget_is_the_users_or_fits_the_machine():
    model = new("gpn", width=16, depth=2, mlp_width=16)
    assert token_budget(model, 77) == 77
    assert token_budget(model) >= 1024
    with pytest.raises(InputError, match="max_tokens_per_batch is 0"):
        token_budget(model, 0)


def test_memory_that_runs_out_is_explained():
    with (
        pytest.raises(InputError, match=r"2 x 100 tokens .* max_tokens_per_batch=100"),
        enough_memory([100, 80]),
    ):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB")
    with pytest.raises(InputError, match="max_tokens=2500, so that"), enough_memory([5000]):
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: 9 bytes")
    with pytest.raises(RuntimeError, match="shapes"), enough_memory([5000]):
        raise RuntimeError("shapes do not match")


def test_batch_rows_hold_the_items_they_name():
    texts = ["ACGTACGT", "A", "CCC", "GGGGGGG", "TTTTTTTT"]
    for batch in batches(LETTERS.encode(texts), LETTERS, max_tokens=16, device=torch.device("cpu")):
        for index, length, ids in zip(
            batch.indices, batch.lengths, batch.inputs["input_ids"], strict=True
        ):
            assert LETTERS.decode(ids[:length]) == texts[index]
            assert np.all(ids[length:].numpy() == LETTERS.pad)
