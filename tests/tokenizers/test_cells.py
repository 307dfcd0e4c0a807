"""Cells to tokens: matching, binning, ties, draws, and what is refused."""

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from lexome.core import InputError, UnknownName
from lexome.formats.h5ad import CellRecord
from lexome.tokenizers import CellTokenizer, read_vocabulary
from lexome.tokenizers.cells import bin_values, looks_logged

GENES = np.array([f"G{i}" for i in range(400)])
VOCABULARY = read_vocabulary({gene: i for i, gene in enumerate(GENES)}, ("<pad>", "<cls>", "<eoc>"))


def cell(values, genes=GENES, name="c"):
    values = np.asarray(values, np.float32)
    places = np.flatnonzero(values)
    return CellRecord(name, genes, places, values[places], {})


def counts(seed, genes=300):
    return np.random.default_rng(seed).poisson(1.5, genes)


def tokens(encoded):
    return dict(zip(encoded["input_ids"].tolist(), encoded["values"].tolist(), strict=True))


def edges_by_hand(values, bins):
    """Give the range (low, high] of bins of each value from the definition of a quantile."""
    ordered = np.sort(values.astype(np.float64))
    places = np.linspace(0, 1, bins - 1) * (len(values) - 1)
    edges = np.interp(places, np.arange(len(values)), ordered)
    return [(np.sum(edges < v), np.sum(edges <= v)) for v in values]


@hypothesis.given(st.lists(st.integers(1, 9), min_size=1, max_size=40), st.integers(3, 12))
def test_bins_are_between_the_edges_of_the_values(values, bins):
    values = np.array(values, np.float32)
    share = np.random.default_rng(0).random(len(values))
    for draws in (None, share):
        for chosen, (low, high) in zip(
            bin_values(values, bins, draws), edges_by_hand(values, bins), strict=True
        ):
            assert low < chosen <= high or chosen == high == low


def test_a_tie_takes_the_lower_middle_of_its_bins():
    # Four equal values lie on 4 of 5 edges: the bins 1 to 4 are possible, 2 and 3 in the middle.
    assert bin_values(np.array([1, 1, 1, 1, 1, 5], np.float32), bins=6).tolist()[:5] == [2.0] * 5
    assert bin_values(np.array([3.0], np.float32), bins=51).tolist() == [25.0]


def test_random_ties_reach_every_bin_of_their_range():
    draws = (np.arange(4000) + 0.5) / 4000
    bins, times = np.unique(bin_values(np.ones(4000, np.float32), 51, draws), return_counts=True)
    assert bins.tolist() == list(range(1, 51))
    assert times.tolist() == [80] * 50


def test_names_match_exactly_and_with_their_case():
    tokenizer = CellTokenizer(VOCABULARY)
    genes = np.array(["G1", "g1", "ENSG00000000003", "G2", "G1"])
    (encoded,) = tokenizer.encode([cell([1, 2, 3, 4, 5], genes)])
    assert encoded["input_ids"].tolist() == [1, 2, 1]
    assert tokenizer.measure_unknown(cell([1, 2, 3, 0, 5], genes), encoded) == (2, 4)


def test_genes_without_a_match_do_not_move_the_bins():
    tokenizer = CellTokenizer(VOCABULARY)
    genes = np.array(["G1", "unheard", "G2", "G3"])
    (encoded,) = tokenizer.encode([cell([1, 900, 2, 3], genes)])
    (without,) = tokenizer.encode([cell([1, 2, 3], genes[[0, 2, 3]])])
    assert tokens(encoded) == tokens(without)


def test_files_with_other_genes_do_not_mix():
    tokenizer = CellTokenizer(VOCABULARY)
    first, second = cell([1, 2], np.array(["G1", "G2"])), cell([1, 2], np.array(["G3", "G4"]))
    ids = [e["input_ids"].tolist() for e in tokenizer.encode([first, second, first])]
    assert ids == [[1, 2], [3, 4], [1, 2]]


def test_cls_comes_first_with_the_value_of_padding():
    batch = CellTokenizer(VOCABULARY)([cell([0, 3, 0, 1]), cell([2])])
    assert batch["input_ids"].tolist() == [[401, 1, 3], [401, 0, 400]]
    assert batch["values"].tolist() == [[-2.0, 50.0, 1.0], [-2.0, 25.0, -2.0]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 1, 0]]


def test_a_cell_without_genes_is_its_cls_token_alone():
    batch = CellTokenizer(VOCABULARY)([cell(np.zeros(400)), cell([5], np.array(["unheard"]))])
    assert batch["input_ids"].tolist() == [[401], [401]]


def test_zeros_that_are_written_out_are_no_tokens():
    record = CellRecord("c", GENES, np.arange(3), np.array([1, 0, 2], np.float32), {})
    (encoded,) = CellTokenizer(VOCABULARY).encode([record])
    assert encoded["input_ids"].tolist() == [0, 2]


@pytest.mark.parametrize("ties", ["middle", "random"])
def test_a_cell_gets_the_same_tokens_in_any_order_and_company(ties):
    tokenizer = CellTokenizer(VOCABULARY, max_tokens=100, ties=ties)
    values = counts(1)
    genes = GENES[:300]
    order = np.random.default_rng(2).permutation(300)
    (alone,) = tokenizer.encode([cell(values, genes)])
    _, among = tokenizer.encode([cell(counts(3), genes), cell(values, genes, "other name")])
    (shuffled,) = tokenizer.encode([cell(values[order], genes[order])])
    assert len(alone["input_ids"]) == 99
    assert tokens(alone) == tokens(among) == tokens(shuffled)


def test_other_cells_and_other_seeds_draw_other_genes():
    def kept(values, seed):
        tokenizer = CellTokenizer(VOCABULARY, max_tokens=51, seed=seed)
        return {*tokenizer.encode([cell(values)])[0]["input_ids"].tolist()}

    values = counts(1)
    other = values.copy()
    other[np.flatnonzero(values)[0]] = 0
    assert kept(values, 0) == kept(values, 0)
    assert kept(values, 0) != kept(values, 1)
    assert kept(values, 0) != kept(other, 0)


def test_draws_are_fair():
    tokenizer = CellTokenizer(VOCABULARY, max_tokens=101)
    chosen = np.zeros(400)
    for seed in range(400):
        tokenizer.seed = seed
        (encoded,) = tokenizer.encode([cell(np.ones(400))])
        chosen[encoded["input_ids"]] += 1
    # Binomial with 400 draws of 1/4: mean 100, standard deviation 8.7.
    assert chosen.mean() == 100
    assert 60 < chosen.min() < chosen.max() < 140


def test_a_draw_is_the_same_on_every_machine():
    tokenizer = CellTokenizer(VOCABULARY, max_tokens=6, ties="random")
    (encoded,) = tokenizer.encode([cell(np.arange(20) % 3)])
    assert tokens(encoded) == {1: 13.0, 2: 32.0, 4: 6.0, 10: 17.0, 11: 40.0}


def test_a_draw_keeps_the_bins_of_the_whole_cell():
    whole = tokens(CellTokenizer(VOCABULARY).encode([cell(counts(1))])[0])
    drawn = tokens(CellTokenizer(VOCABULARY, max_tokens=20).encode([cell(counts(1))])[0])
    assert len(drawn) == 19
    assert drawn.items() <= whole.items()


def test_cutting_on_request_is_a_draw_too():
    tokenizer = CellTokenizer(VOCABULARY)
    assert tokenizer(cell(counts(1)), truncate_tokens=20)["input_ids"].shape == (1, 20)
    drawn = CellTokenizer(VOCABULARY, max_tokens=20)(cell(counts(1)))["input_ids"]
    assert tokenizer(cell(counts(1)), truncate_tokens=20)["input_ids"].equal(drawn)


@pytest.mark.parametrize("bad", [-0.5, np.nan, np.inf])
def test_values_that_are_no_counts_are_refused(bad):
    record = CellRecord("AAAC-1", GENES, np.arange(3), np.array([1, bad, 2], np.float32), {})
    with pytest.raises(InputError, match=r"cell AAAC-1 has the value .*Expected counts"):
        CellTokenizer(VOCABULARY).encode([record])


def test_log_normalised_values_are_recognised():
    raw = counts(1)[counts(1) > 0].astype(np.float32)
    assert not looks_logged(raw)
    assert looks_logged(np.log1p(raw * 3.7))
    assert not looks_logged(raw * 100.5)  # corrected counts, as some tools make them
    assert not looks_logged(np.zeros(0, np.float32))


def test_special_tokens_that_are_missing_come_last():
    assert read_vocabulary({"A": 0, "<pad>": 1}, ("<pad>", "<cls>")) == {
        "A": 0,
        "<pad>": 1,
        "<cls>": 2,
    }


def test_the_vocabulary_is_listed_by_id():
    assert list(CellTokenizer({"<cls>": 3, "B": 0, "<pad>": 1}).vocabulary) == [
        "B",
        "<pad>",
        "",
        "<cls>",
    ]


def test_an_unknown_rule_for_ties_is_an_error():
    with pytest.raises(UnknownName, match="rule for ties"):
        CellTokenizer(VOCABULARY, ties="upper")  # type: ignore[arg-type]
