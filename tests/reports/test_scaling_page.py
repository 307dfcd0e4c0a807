"""The page of a comparison of architectures, and the command behind it."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lexome.core import InputError
from lexome.formats.fasta import write_fasta
from lexome.formats.records import SequenceRecord
from lexome.reports.scaling_page import scaling, scaling_page
from lexome.tasks.scaling import Scaling, ScalingPlan, ScalingResult

PLAN = ScalingPlan(fasta=("genome.fa",), out=Path("out"), validation=("two",))


def result(title, size, tokens, bits, rate=1e-3):
    return ScalingResult(
        family=title.lower(),
        title=title,
        size=size,
        parameters=size + 10,
        all_parameters=size + 200,
        width=32,
        depth=2,
        tokens=tokens,
        learning_rate=rate,
        operations_per_token=2.0 * size,
        operations=6.0 * size * tokens,
        bits_per_base=bits,
        bits_per_base_error=0.004,
        seconds=1.0,
    )


def study(*results, markov=1.93):
    return Scaling(
        out=Path("out"),
        results=results,
        training_bases=20_000,
        held_out_windows=50,
        markov={2: 1.97, 5: markov + 0.005, 7: markov},
        seconds=1.0,
    )


def test_the_page_shows_the_least_surprise_beside_the_markov_model():
    made = study(
        result("Mamba", 1000, 500, 1.95),
        result("Mamba", 1000, 900, 1.92),
        result("Evo", 1000, 500, 1.94),
        result("Evo", 3000, 500, 1.91),
    )
    page, facts = scaling_page(PLAN, made)
    html = page.html(facts)
    assert "<b>1.9100</b><span>bits per base: the least, Evo" in html
    assert "the best model has 0.0200 less" in html
    assert "Markov, order 7: 1.9300" in html
    assert html.count("<svg") == 2
    assert "two (50 windows of 512 bases" in html


def test_a_dearer_and_worse_model_is_not_on_the_coloured_line():
    small, large = result("Mamba", 1000, 500, 1.93), result("Mamba", 3000, 500, 1.95)
    page, facts = scaling_page(PLAN, study(small, large))
    first = page.html(facts).split("<svg")[1]
    assert first.count('stroke-width="2.2"') == 0  # one point makes no line
    assert first.count('r="3.5"') == 1


def test_markov_models_among_the_models_are_shown_and_the_best_in_any_case():
    near = study(result("Mamba", 1000, 500, 1.95), result("Mamba", 1000, 900, 1.92))
    far = study(result("Mamba", 1000, 500, 1.85), result("Mamba", 1000, 900, 1.82))
    wide = study(result("Mamba", 1000, 500, 1.99), result("Mamba", 1000, 900, 1.85))
    for made, orders in ((near, {"5", "7"}), (far, {"7"}), (wide, {"2", "7"})):
        page, facts = scaling_page(PLAN, made)
        shown = re.findall(r">Markov, order (\d+): 1.9", page.html(facts))
        assert set(shown) == orders


def test_power_laws_stand_where_there_are_points_for_them():
    made = [result("Mamba", 1000, 10**n, 2 * 10 ** (-0.01 * n)) for n in (3, 4, 5)]
    page, facts = scaling_page(PLAN, study(*made))
    html = page.html(facts)
    assert "Power laws" in html
    assert ">0.0100<" in html
    assert ">2.3<" in html  # % less by ten times the compute: 1 - 10^-0.01
    assert 'stroke-dasharray="2 4"' in html
    page, facts = scaling_page(PLAN, study(*made[:2]))
    assert "Power laws" not in page.html(facts)


def test_a_size_has_a_row_and_a_budget_a_column():
    made = study(
        result("Mamba", 1000, 500, 1.95),
        result("Mamba", 1000, 900, 1.9211),
        result("Evo", 1000, 900, 1.9122),
    )
    page, facts = scaling_page(PLAN, made)
    table = page.html(facts).split("<table>")[1]
    rows = [re.findall(r"<t[hd][^>]*>([^<]*)", row) for row in table.split("<tr>")[1:]]
    assert rows[0][-2:] == ["500 letters", "900 letters"]
    assert [(row[0], *row[-2:]) for row in rows[1:]] == [
        ("Evo", "–", "1.9122"),
        ("Mamba", "1.9500", "1.9211"),
    ]


def test_the_page_says_how_rates_were_chosen():
    made = study(result("Mamba", 1000, 500, 1.95))
    for early, words in ((True, "with the smallest budget at"), (False, "was trained at")):
        plan = replace(PLAN, learning_rates=(1e-3, 2e-3), rate_from_smallest=early)
        page, facts = scaling_page(plan, made)
        assert f"{words} learning rates of 0.001, 0.002" in page.html(facts)


def test_the_better_learning_rate_is_shown():
    made = study(result("Mamba", 1000, 500, 1.95), result("Mamba", 1000, 500, 1.94, rate=0.02))
    page, facts = scaling_page(PLAN, made)
    html = page.html(facts)
    assert "0.02" in html
    assert "1.9500" not in html


def test_the_command_writes_the_page_from_a_recipe(tmp_path):
    draws = np.random.default_rng(0)
    records = [
        SequenceRecord(name, "".join(draws.choice(["ACGT", "GGTA", "T"], 1000))[:count])
        for name, count in (("one", 2000), ("two", 400))
    ]
    write_fasta(tmp_path / "genome.fa", records)
    found = scaling(
        "scaling-small",
        fasta=tmp_path / "genome.fa",
        validation="two",
        out=tmp_path / "study",
        families=["evo", "hyenadna"],
        parameters=[20_000],
        tokens=[128],
        length_bp=32,
        batch_size=4,
        pretraining={"precision": "float32"},
        progress=False,
    )
    figure = (tmp_path / "study" / "scaling.svg").read_text(encoding="utf-8")
    assert figure in (tmp_path / "study" / "report.html").read_text(encoding="utf-8")
    assert [r.title for r in found.best] == ["Evo 1", "HyenaDNA"]


@pytest.mark.parametrize(
    ("given", "missing"),
    [
        ({}, "fasta"),
        ({"fasta": "a.fa"}, "out"),
        ({"fasta": "a.fa", "out": "x"}, "validation"),
    ],
)
def test_what_is_missing_is_named(given, missing):
    with pytest.raises(InputError, match=f"{missing} is missing"):
        scaling(**given)
