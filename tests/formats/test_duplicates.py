import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lexome.core import FormatError
from lexome.formats import duplicates
from lexome.formats.duplicates import SeenIds


@given(st.lists(st.text(max_size=3), max_size=50))
def test_a_name_is_new_exactly_once(names):
    seen = SeenIds()
    assert [seen.add(name) for name in names] == [
        name not in names[:number] for number, name in enumerate(names)
    ]


def test_a_hash_that_lies_across_two_others_is_new(monkeypatch):
    codes = [bytes(range(1, 7)), bytes(range(7, 13)), bytes(range(4, 10))]
    hashes = {name: int.from_bytes(c, "little") << 16 for name, c in zip("abc", codes, strict=True)}
    monkeypatch.setattr(duplicates, "hash", hashes.__getitem__, raising=False)
    seen = SeenIds()
    assert all(seen.add(name) for name in "abc")
    assert not any(seen.add(name) for name in "abc")


def test_a_name_costs_few_bytes():
    names = [f"read{i}" for i in range(50_000)]
    tracemalloc.start()
    seen = SeenIds()
    for name in names:
        seen.add(name)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    empty_buckets = 65536 * 160
    assert peak < empty_buckets + 20 * len(names)


def test_a_second_occurrence_is_named_with_its_line():
    seen = SeenIds()
    seen.check("a", "x.fa", 1)
    with pytest.raises(FormatError, match=r"x\.fa, line 9: the name 'a' comes a second time"):
        seen.check("a", "x.fa", 9)
