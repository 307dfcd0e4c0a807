import gzip
import itertools
import math
from collections import Counter

import numpy as np
import pytest

from lexome.core import InputError
from lexome.sequence import reverse_complement
from lexome.tasks import MAX_ORDER, MarkovModel, best_markov, bundled_genome
from lexome.tasks import markov as module


def random_dna(length, seed, letters="ACGT"):
    rng = np.random.default_rng(seed)
    return "".join(rng.choice(list(letters), length))


def slow_counts(sequences, order):
    """All (k + 1)-mers of A C G T for k = 0..order, by plain slicing."""
    counts = Counter()
    for sequence, k in itertools.product(sequences, range(order + 1)):
        words = (sequence[i : i + k + 1] for i in range(len(sequence) - k))
        counts.update(w for w in words if set(w) <= set("ACGT"))
    return counts


def slow_probability(counts, context, letter, prior_counts):
    lower = (
        slow_probability(counts, context[1:], letter, prior_counts)
        if context
        else 0.25  # the order below 0
    )
    seen = counts[context + letter]
    total = sum(counts[context + x] for x in "ACGT")
    return (seen + prior_counts * lower) / (total + prior_counts)


@pytest.mark.parametrize("both_strands", [False, True])
@pytest.mark.parametrize("chunk", [7, 1 << 20])
def test_likelihood_equals_the_formula_by_hand(both_strands, chunk, monkeypatch):
    monkeypatch.setattr(module, "_CHUNK", chunk)
    order, prior = 3, 5.0
    train = [random_dna(300, 1), random_dna(50, 2, "ACGTN"), "NNACGNNTTNA", "", "A"]
    test = "ACGTTNNACGGATNACACACATTTGCGCGAAN"
    model = MarkovModel.fit(train, order, both_strands=both_strands, prior_counts=prior)
    strands = train + ([reverse_complement(s) for s in train] if both_strands else [])
    counts = slow_counts(strands, order)
    expected = []
    for i, letter in enumerate(test):
        context = test[max(0, i - order) : i].rpartition("N")[2]
        p = slow_probability(counts, context, letter, prior) if letter != "N" else math.nan
        expected.append(math.log2(p))
    np.testing.assert_allclose(model.log2_likelihood(test), expected, rtol=1e-12)


def test_probabilities_of_the_four_letters_sum_to_one():
    model = MarkovModel.fit([random_dna(500, 3)], 4)
    context = "ACGTACC"
    total = sum(2 ** model.log2_likelihood(context + x)[-1] for x in "ACGT")
    assert total == pytest.approx(1.0)


def test_both_strands_score_a_genome_like_its_reverse_complement():
    genome, other = random_dna(2000, 4, "AACGT"), random_dna(300, 5)
    forward = MarkovModel.fit([genome], 5)
    backward = MarkovModel.fit([reverse_complement(genome)], 5)
    np.testing.assert_array_equal(forward.log2_likelihood(other), backward.log2_likelihood(other))


def test_case_and_uracil_do_not_matter():
    model = MarkovModel.fit([random_dna(500, 6)], 3)
    expected = model.log2_likelihood("ACGTTGCA")
    np.testing.assert_array_equal(model.log2_likelihood("acguUgca"), expected)
    np.testing.assert_array_equal(model.log2_likelihood(b"ACGTTGCA"), expected)


def test_unknown_letters_are_nan_and_left_out_of_the_mean():
    model = MarkovModel.fit([random_dna(500, 7)], 2)
    scores = model.log2_likelihood("ACNG\N{GREEK SMALL LETTER ALPHA}T")
    assert np.isnan(scores).tolist() == [False, False, True, False, True, False]
    assert model.bits_per_base(["ACNGNT"]) == pytest.approx(-np.nanmean(scores))


def test_all_orders_in_one_pass_equal_one_fit_per_order():
    train, test = [random_dna(3000, 8, "AAACGT")], [random_dna(400, 9, "AAACGT"), "ACGT"]
    table = best_markov(train, test, orders=[0, 3, 6])
    for order, bits in table.bits_per_base.items():
        assert MarkovModel.fit(train, order).bits_per_base(test) == pytest.approx(bits)
    assert table.best_bits_per_base == min(table.bits_per_base.values())
    assert table.bits_per_base[table.best_order] == table.best_bits_per_base


def test_a_repeat_is_learnt_and_random_dna_is_not():
    repeat = MarkovModel.fit(["ACGGT" * 2000], 4, both_strands=False)
    assert repeat.bits_per_base(["ACGGT" * 100]) < 0.2
    noise = MarkovModel.fit([random_dna(20_000, 10)], 6)
    assert noise.bits_per_base([random_dna(5000, 11)]) == pytest.approx(2.0, abs=0.01)


def test_order_twelve_reads_a_bacterial_genome():
    letters = b"".join(gzip.decompress(bundled_genome().read_bytes()).split(b"\n")[1:400])
    table = best_markov([letters[5000:]], [letters[:5000]])
    assert list(table.bits_per_base) == list(range(MAX_ORDER + 1))
    assert 1.85 < table.best_bits_per_base < 2.0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: MarkovModel.fit(["ACGT"], 13), "order 13"),
        (lambda: MarkovModel.fit(["ACGT"], -1), "order -1"),
        (lambda: MarkovModel.fit(["ACGT"], 2, prior_counts=0), "prior_counts is 0"),
        (lambda: MarkovModel.fit(["NNNN", ""], 2), "no letter"),
        (lambda: MarkovModel.fit("ACGT", 2), r"Pass \[sequence\]"),
        (lambda: MarkovModel.fit(["ACGT"], 2).bits_per_base(["NN"]), "no letter"),
        (lambda: best_markov(["ACGT"], ["ACGT"], orders=[]), "no Markov order"),
        (lambda: best_markov(["ACGT"], ["ACGT"], orders=[-1, 2]), "orders start at 0"),
    ],
)
def test_what_cannot_be_fitted_is_refused_with_advice(call, message):
    with pytest.raises(InputError, match=message):
        call()


def test_sampled_letters_come_as_often_as_the_model_says():
    model = MarkovModel.fit([random_dna(2000, 1, "AACGT")], order=2, prior_counts=3)
    (text,) = model.sample(["AC"], 40_000, seed=5)
    assert set(text) == set("ACGT")
    counts = Counter(text[i : i + 3] for i in range(len(text) - 2))
    log2_likelihood = {w: model.log2_likelihood(w)[2] for w in counts}
    for context in map("".join, itertools.product("ACGT", repeat=2)):
        total = sum(counts[context + x] for x in "ACGT")
        for x in "ACGT":
            p = 2 ** log2_likelihood[context + x]
            assert abs(counts[context + x] - total * p) < 5 * math.sqrt(total * p)


def test_a_sample_depends_on_seed_and_prompt_and_continues_it():
    model = MarkovModel.fit(["ACGT" * 500], order=4, prior_counts=0.01)
    assert model.sample(["xxACGT", "TACG"], 8, seed=1) == ["ACGTACGT", "TACGTACG"]
    flat = MarkovModel.fit([random_dna(500, 1)], order=0)
    assert flat.sample([""], 50, seed=1) == flat.sample([""], 50, seed=1)
    assert flat.sample([""], 50, seed=1) != flat.sample([""], 50, seed=2)


@pytest.mark.parametrize("prompt", ["ACG", "ACNT"])
def test_a_prompt_without_enough_known_letters_cannot_be_continued(prompt):
    model = MarkovModel.fit(["ACGT" * 500], order=4)
    with pytest.raises(InputError, match="to be continued by a model of order 4"):
        model.sample([prompt], 5)
