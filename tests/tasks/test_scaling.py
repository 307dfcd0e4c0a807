"""Architectures compared: equal sizes, equal letters, honest measures, work not done twice."""

import json
from dataclasses import replace

import numpy as np
import pytest

from lexome.catalog import load, new
from lexome.core import InputError, UnknownName
from lexome.formats.fasta import write_fasta
from lexome.formats.records import SequenceRecord
from lexome.tasks import scaling
from lexome.tasks.markov import best_markov
from lexome.tasks.scaling import (
    SHAPES,
    TOLERANCE,
    ScalingPlan,
    layer_parameters,
    run_scaling,
    solve_shape,
)


def text(length, seed):
    """Return letters among which some words are frequent."""
    draws = np.random.default_rng(seed)
    return "".join(draws.choice(["ACGTTG", "GGCA", "TTAAAC", "C", "G"], length))[:length]


@pytest.fixture(scope="module")
def plan(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scaling")
    records = [SequenceRecord("one", text(8000, 1)), SequenceRecord("two", text(1000, 2))]
    write_fasta(folder / "genome.fa", records)
    return ScalingPlan(
        fasta=(str(folder / "genome.fa"),),
        out=folder / "out",
        validation=("two",),
        parameters=(20_000,),
        tokens=(128, 300),
        length_bp=32,
        batch_size=4,
    )


@pytest.fixture(scope="module")
def study(plan):
    return run_scaling(plan, lambda line: None, progress=False)


@pytest.mark.parametrize("family", SHAPES)
@pytest.mark.parametrize("parameters", [30_000, 80_000, 300_000])
def test_sizes_are_within_three_percent_of_what_is_asked(family, parameters):
    model = new(family, **solve_shape(family, parameters, 512))
    assert abs(layer_parameters(model) / parameters - 1) <= TOLERANCE


def test_a_size_that_cannot_be_met_is_refused():
    with pytest.raises(InputError, match=r"no Mamba has within 3%.*the nearest is"):
        solve_shape("mamba", 1000, 64)


def test_layers_alone_count(plan):
    model = new("evo", **solve_shape("evo", 20_000, 32))
    assert model.count_parameters() - layer_parameters(model) == 129 * model.config.width


def test_every_model_reads_the_same_letters_at_each_budget(study):
    assert {(r.family, r.tokens) for r in study.results} == {
        (family, tokens) for family in SHAPES for tokens in (128, 256)
    }
    for r in study.results:
        assert r.operations == 3 * r.operations_per_token * r.tokens
        assert abs(r.parameters / 20_000 - 1) <= TOLERANCE
    assert study.training_bases == 8000
    assert study.held_out_windows == 31


def test_the_markov_model_learns_from_the_same_letters(study):
    expected = best_markov([text(8000, 1)], [text(1000, 2)], range(7))  # 4^6 < 8000 < 4^7
    assert study.markov == expected.bits_per_base
    assert study.markov_bits_per_base == expected.best_bits_per_base
    assert study.markov_order == expected.best_order


def test_the_files_hold_the_study_and_the_models(study, plan):
    kept = json.loads((plan.out / "scaling.json").read_text())
    assert [r["bits_per_base"] for r in kept["results"]] == [r.bits_per_base for r in study.results]
    assert len((plan.out / "scaling.tsv").read_text().splitlines()) == 1 + 8
    model = load(plan.out / "mamba" / "20000" / "128-0.003" / "model", device="cpu")
    assert model.config.width == next(r.width for r in study.results if r.family == "mamba")
    assert "Markov model of order" in str(study)


def test_the_best_learning_rate_stands_for_a_model(study):
    worse = [
        replace(r, learning_rate=1.0, bits_per_base=r.bits_per_base + 1) for r in study.results
    ]
    both = replace(study, results=(*worse, *study.results))
    assert both.best == study.results


def test_the_rate_of_the_smallest_budget_and_the_next_are_taken_for_larger_ones(plan, tmp_path):
    found = run_scaling(
        replace(
            plan,
            out=tmp_path,
            families=("hyenadna", "evo"),
            learning_rates=(1e-9, 1e-7, 5e-3),
            rate_from_smallest=True,
        ),
        lambda line: None,
        progress=False,
    )
    tried = {(r.family, r.tokens, r.learning_rate) for r in found.results}
    families = {"hyenadna", "evo"}
    small = {(family, 128, rate) for family in families for rate in (1e-9, 1e-7, 5e-3)}
    large = {(family, 256, rate) for family in families for rate in (1e-7, 5e-3)}
    assert tried == small | large


def test_a_front_leaves_out_what_is_dearer_and_worse_and_laws_go_through_it(study):
    first = study.results[0]
    made = [
        replace(first, size=n, operations=10.0**n, bits_per_base=bits)
        for n, bits in ((9, 2.0), (10, 1.98), (11, 1.99), (12, 1.96), (13, 1.94))
    ]
    some = replace(study, results=tuple(made))
    assert [r.size for r in some.front(first.title)] == [9, 10, 12, 13]
    law = some.laws[first.title]
    assert (law.least, law.greatest) == (1e9, 1e13)
    for n, bits in ((9, 2.0), (10, 1.98), (12, 1.96), (13, 1.94)):
        assert law(10.0**n) == pytest.approx(bits, abs=0.01)
    assert replace(study, results=tuple(made[:2])).laws == {}


def test_what_is_done_is_not_done_again_and_budgets_can_be_added(study, plan, monkeypatch):
    trained = []
    pretrain = scaling.pretrain

    def watched(**given):
        before = (given["out"] / "model").is_dir()
        trained.extend([] if before else [given["steps"]])
        return pretrain(**given)

    watched.__signature__ = scaling.inspect.signature(pretrain)
    monkeypatch.setattr(scaling, "pretrain", watched)
    more = replace(plan, tokens=(128, 384), families=("hyenadna",))
    added = run_scaling(more, lambda line: None, progress=False)
    assert trained == [3]
    assert added.results[0] == next(r for r in study.results if r.family == "hyenadna")
    assert set(added.results) > set(study.results)  # what earlier calls did is shown too
    assert len(added.results) == len(study.results) + 1


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"seed": 1}, InputError, "other settings: seed was 0, now 1"),
        ({"families": ()}, InputError, "at least one"),
        ({"families": ("dnabert2",)}, UnknownName, "can be compared"),
        ({"parameters": (0,)}, InputError, "whole numbers above 0"),
        ({"tokens": (100,)}, InputError, "a step of 4 windows of 32 letters has 128"),
        ({"pretraining": {"steps": 3}}, UnknownName, "no setting of pretraining named 'steps'"),
    ],
)
def test_mistakes_are_explained(study, plan, given, error, message):
    with pytest.raises(error, match=message):
        run_scaling(replace(plan, **given), lambda line: None, progress=False)


def test_something_has_to_be_held_out(plan, tmp_path):
    with pytest.raises(InputError, match="validation names nothing"):
        run_scaling(replace(plan, out=tmp_path, validation=()), lambda line: None, progress=False)
