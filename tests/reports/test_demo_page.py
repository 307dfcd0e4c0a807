from pathlib import Path

import numpy as np
import pytest

from lexome.reports.demo import DemoResult, Findings, Pace, Sizes
from lexome.reports.demo_experiments import (
    CODING,
    GENOME,
    MARKOV,
    MINUS,
    MODEL,
    OUTSIDE,
    PLUS,
    STRAND,
    VECTORS,
    Codons,
    Data,
    Effects,
    Map,
    Pairs,
    Text,
)
from lexome.reports.demo_page import demo_page
from lexome.sequence import Interval
from lexome.tasks import Auc, MarkovComparison, auc
from lexome.training.pretraining import Pretraining
from lexome.training.runs import Measurement

GOOD, CHANCE, WRONG = Auc(0.9, 0.01), Auc(0.51, 0.03), Auc(0.3, 0.03)


def page_of(*, bits=1.89, ours=GOOD, words=GOOD, pair=GOOD, open_codons=150, copied=0.0):
    """Return the report of made-up findings."""
    rng = np.random.default_rng(0)
    run = Pretraining(
        model=Path("model"),
        best=None,
        steps=20,
        tokens=80_000,
        seconds=10.0,
        parameters=1000,
        precision="float32",
        loss=1.33,
        validation_nats=1.32,
        validation_bits_per_base=1.9,
        history=(
            Measurement(step=10, tokens=40_000, seconds=5.0, loss=1.9),
            Measurement(step=20, tokens=80_000, seconds=10.0, loss=1.33),
            Measurement(step=20, tokens=80_000, seconds=10.0, validation_bits_per_base=1.9),
        ),
    )
    data = Data(
        genome=Path("genome.fa"),
        training=("ACGT" * 100, "ACGT" * 100),
        region="ACGT" * 500,
        held_out=Interval("c", 400, 2400),
        frames=(Interval("c", 0, 1200),),
        chance_frames=0,
    )
    classes = (PLUS,) * 20 + (MINUS,) * 20 + (OUTSIDE,) * 20
    areas = {VECTORS: ours, "counts of 3-letter words": words}

    def text(codons, copied=0.0):
        values = rng.integers(codons - 20, codons + 20, 30)
        return Text(first="ACGT" * 100, gc=0.5, divergence=0.01, open_codons=values, copied=copied)

    milder = (
        ("synonymous", "missense"),
        ("synonymous", "stop gained"),
        ("missense", "stop gained"),
    )
    findings = Findings(
        sizes=Sizes(),
        seed=0,
        data=data,
        markov=MarkovComparison({0: 2.0, 1: 1.95, 2: 1.92}),
        pace=Pace(tokens_per_second={1: 9000.0}, threads=1, limit="time", steps=20),
        run=run,
        bits_per_base=bits,
        codons=Codons(
            model=(1.9, 1.95, 1.8),
            markov=(1.95, 1.94, 1.85),
            letters=100,
            genes=1,
            strip="ACGTATGCCC",
            strip_bits=np.linspace(0, 3, 10),
            strip_start=4,
            strip_name="1-10",
        ),
        map=Map(
            vectors=rng.normal(size=(60, 8)).astype(np.float32),
            classes=classes,
            gc=rng.random(60),
            names=tuple(map(str, range(60))),
            window_bp=256,
            probes={STRAND: areas, CODING: areas},
        ),
        effects=Effects(
            scores={
                name: rng.normal(size=30) for name in ("synonymous", "missense", "stop gained")
            },
            pairs={each: Pairs(anywhere=pair, same_site=0.7, pairs=12) for each in milder},
        ),
        texts={GENOME: text(350), MODEL: text(open_codons, copied), MARKOV: text(130)},
        seconds=120.0,
        cpu_seconds=100.0,
    )
    result = DemoResult(
        report=Path("demo/report.html"),
        bits_per_base=bits,
        best_markov_bits_per_base=1.92,
        markov_order=2,
        seconds=120.0,
        parameters=1000,
        tokens=80_000,
    )
    page, provenance = demo_page(result, findings)
    return page.html(provenance)


def test_a_reached_goal_is_green_and_a_missed_one_is_red_and_said():
    assert 'class="good"><b>+0.0300' in page_of(bits=1.89)
    assert "The goal was missed" not in page_of(bits=1.89)
    missed = page_of(bits=1.915)
    assert 'class="bad"><b>+0.0050' in missed
    assert "The goal was missed" in missed
    assert "does not need 0.01 bits per base less" in missed


@pytest.mark.parametrize(
    ("ours", "words", "said"),
    [
        (GOOD, CHANCE, "the vectors say nearly all, more than counts of 3-letter words (0.51)"),
        (CHANCE, GOOD, "the vectors say nothing, less than counts of 3-letter words (0.90)"),
        (GOOD, GOOD, "which counts of 3-letter words (0.90) equal within the error"),
    ],
)
def test_vectors_are_compared_with_counted_words(ours, words, said):
    assert said in page_of(ours=ours, words=words)


@pytest.mark.parametrize(
    ("pair", "said"),
    [
        (GOOD, "The scores tell stop-making from synonymous changes well."),
        (CHANCE, "The scores cannot tell stop-making from synonymous changes."),
        (WRONG, "The scores rank stop-making from synonymous changes the wrong way round."),
    ],
)
def test_scores_that_do_not_separate_are_said_not_to(pair, said):
    assert said in page_of(pair=pair)


def test_what_was_written_is_judged_by_numbers():
    assert "longer than the Markov model&#x27;s" in page_of(open_codons=200)
    assert "not longer than the Markov model&#x27;s" in page_of(open_codons=125)
    assert "it does not copy" in page_of().lower()
    assert "It copies: 5.0%" in page_of(copied=0.05)


def test_numbers_of_the_table_are_those_of_the_groups():
    area = auc([3, 4, 5], [1, 2, 3])
    assert str(area) in page_of(ours=area)
