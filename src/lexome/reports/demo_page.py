"""The demo's report: what was found, in figures, tables and plain words."""

import hashlib
import os
import shlex
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from lexome.reports.demo_experiments import (
    CODING,
    COPY_BP,
    GENOME,
    LONG_CODONS,
    MARKOV,
    MINUS,
    MODEL,
    OUTSIDE,
    PLUS,
    STRAND,
    VECTORS,
    WINDOW_BP,
)
from lexome.reports.figures import (
    Line,
    Mark,
    Span,
    bar_chart,
    histogram,
    line_chart,
    map_chart,
    principal_components,
    sequence_strip,
)
from lexome.reports.page import Column, KeyNumber, Page
from lexome.tasks import Auc, auc, bundled_genome

if TYPE_CHECKING:
    from lexome.reports.demo import DemoResult, Findings

_COMPONENTS = 6


def demo_page(result: "DemoResult", findings: "Findings") -> tuple[Page, dict[str, str]]:
    """Return the report and what its numbers come from."""
    minutes = findings.seconds / 60
    verdict = (
        f"needs {result.gain:.4f} bits per base less than"
        if result.is_reached
        else f"does not need {_goal()} bits per base less than"
    )
    page = Page(
        "A language model of a bacterial genome",
        f"In {minutes:.1f} minutes, a network of {result.parameters / 1e6:.2f} million parameters "
        "learned the genome of Escherichia coli 536 letter by letter, from nothing. On half a "
        f"megabase that it never saw it {verdict} the best of "
        f"{len(findings.markov.bits_per_base)} Markov models.",
    )
    page.numbers(
        KeyNumber(
            value=f"{result.bits_per_base:.4f}",
            label="bits per base, the model",
            detail="2 is guessing",
        ),
        KeyNumber(
            value=f"{result.best_markov_bits_per_base:.4f}",
            label="bits per base, best Markov model",
            detail=f"order {result.markov_order}",
        ),
        KeyNumber(
            value=_signed(result.gain, 4),
            label="bits per base gained",
            detail=f"the goal was {_goal()}",
            verdict="good" if result.is_reached else "bad",
        ),
        KeyNumber(
            value=f"{result.tokens / 1e6:.2f} M",
            label="tokens read in training",
            detail=f"{findings.run.seconds:.0f} s of {findings.seconds:.0f} s",
        ),
    )
    if not result.is_reached:
        page.text(
            "The goal was missed. The model was trained on too few letters, most likely because "
            "this machine was slow or busy. Give it more time: lexome demo --seconds 900."
        )
    _prediction(page, result, findings)
    _codons(page, findings)
    _windows(page, findings)
    _variants(page, findings)
    _writing(page, findings)
    _by_hand(page, result, findings)
    return page, _provenance(findings)


def _goal() -> str:
    from lexome.reports.demo import GOAL_BITS

    return str(GOAL_BITS)


def _signed(value: float, decimals: int) -> str:
    return f"{value:+.{decimals}f}".replace("-", "\N{MINUS SIGN}")


def _prediction(page: Page, result: "DemoResult", findings: "Findings") -> None:
    data, markov, run = findings.data, findings.markov, findings.run
    page.heading("How well it predicts the next letter")
    page.text(
        f"Bases {data.held_out.start + 1:,} to {data.held_out.end:,} were held out: no training "
        "window touches them. Bits per base is the mean of −log2 p over these letters, where p is "
        "what a model gave the letter that came. Four equally likely letters cost 2 bits; what "
        "repeats itself costs less. Both sides learned from the same letters, on both strands."
    )
    orders = list(markov.bits_per_base)
    page.figure(
        line_chart(
            [Line(name="", x=orders, y=list(markov.bits_per_base.values()), points=True)],
            x_label="order of the Markov model: letters of context",
            y_label="bits per base",
            marks=[Mark(name=f"the model: {result.bits_per_base:.4f}", value=result.bits_per_base)],
        ),
        "Interpolated Markov models: each order is blended with the one below it, so that long "
        "contexts count only where they were seen often. The best order was chosen on the "
        "held-out letters themselves, which favours this baseline.",
    )
    history = run.history
    training = [(h.tokens, h.loss / np.log(2)) for h in history if h.loss is not None]
    held_out = [
        (h.tokens, h.validation_bits_per_base)
        for h in history
        if h.validation_bits_per_base is not None
    ]
    page.figure(
        line_chart(
            [
                Line(
                    name="training",
                    x=[x for x, _ in training],
                    y=[y if y < _HIGHEST_SHOWN else np.nan for _, y in training],
                    faint=True,
                ),
                Line(
                    name="a sample of the held-out region",
                    x=[x for x, _ in held_out],
                    y=[y for _, y in held_out],
                    points=True,
                ),
            ],
            x_label="tokens read in training",
            y_label="bits per letter",
            marks=[
                Mark(
                    name=f"best Markov model: {result.best_markov_bits_per_base:.4f}",
                    value=result.best_markov_bits_per_base,
                )
            ],
            height=320,
        ),
        "The held-out letters are only watched here: nothing was chosen by them, and the model "
        "of the last step is the one that counts. The sample is a twentieth of the region, so its "
        "level may differ from that of the whole. Each letter of the genome was read "
        f"{result.tokens / sum(map(len, data.training)):.1f} times on average.",
    )


_HIGHEST_SHOWN = 2.1  # bits; the first steps would flatten all that follows


def _codons(page: Page, findings: "Findings") -> None:
    codons, data = findings.codons, findings.data
    page.heading("What it knows: the reading frame")
    wins = [m < b for m, b in zip(codons.model, codons.markov, strict=True)]
    best = int(np.argmax(np.subtract(codons.markov, codons.model)))
    page.text(
        f"The held-out region has {len(data.genes)} open reading frames of at least {LONG_CODONS} "
        f"codons that do not overlap much; its letters in random order have {data.chance_frames}. "
        "They are taken for genes here, without any annotation. The letters of a codon follow "
        "different rules, and who keeps track of the frame can use them; nobody told the model "
        "about codons. The bars show how much is known of a letter before it comes: 2 bits minus "
        "its surprise."
    )
    bars = {}
    for i, which in enumerate(("first", "second", "third")):
        bars[f"{which} letter, model"] = 2 - codons.model[i]
        bars[f"{which} letter, Markov"] = 2 - codons.markov[i]
    page.figure(
        bar_chart(bars, value_label="bits known in advance", decimals=3, highlight=_OURS),
        f"Middle parts of {codons.genes} genes in reading direction, {codons.letters:,} letters "
        f"of each kind, each with at least {WINDOW_BP // 2} letters before it, of which the Markov "
        f"model sees the last {findings.markov.best_order}. The model "
        f"is ahead at {_count(sum(wins))} of the three places, most at the "
        f"{('first', 'second', 'third')[best]} letter "
        f"({_signed(codons.markov[best] - codons.model[best], 3)} bits).",
    )
    start = codons.strip_start
    page.figure(
        sequence_strip(
            codons.strip,
            codons.strip_bits,
            value_label="bits of surprise",
            spans=[Span(name="open frame", start=start, end=len(codons.strip))],
        ),
        f"The start of one of them (bases {codons.strip_name}), letter by letter as the model "
        "reads on. Dark letters surprised it.",
    )


_OURS = ("first letter, model", "second letter, model", "third letter, model")


def _count(number: int) -> str:
    return ("none", "one", "two", "all")[number]


def _windows(page: Page, findings: "Findings") -> None:
    found = findings.map
    page.heading("Windows on a map")
    counts = {name: found.classes.count(name) for name in (PLUS, MINUS, OUTSIDE)}
    page.text(
        f"The vector of a window of {found.window_bp} letters is the mean of the model's final "
        f"states. {counts[PLUS]} windows lie in genes on the strand that is read, {counts[MINUS]} "
        f"in genes on the other, and {counts[OUTSIDE]} touch no open frame of 100 codons or more "
        "that a longer one does not overlap: spacers, and genes too short to find this way."
    )
    scaled = found.vectors - found.vectors.mean(0)
    components = principal_components(scaled / scaled.std(0).clip(min=1e-9), _COMPONENTS)
    coordinates = components.coordinates
    plus, minus = (np.array([c == name for c in found.classes]) for name in (PLUS, MINUS))
    areas = [auc(coordinates[plus, i], coordinates[minus, i]).value for i in range(1, _COMPONENTS)]
    other = 1 + int(np.argmax(np.abs(np.array(areas) - 0.5)))
    shares = [f"{components.explained[i]:.0%}" for i in (0, other)]
    order = sorted(
        range(len(found.classes)), key=lambda i: (PLUS, MINUS, OUTSIDE).index(found.classes[i])
    )
    page.figure(
        map_chart(
            coordinates[order][:, [0, other]],
            [found.classes[i] for i in order],
            x_label=f"principal component 1 ({shares[0]} of the variance)",
            y_label=f"principal component {other + 1} ({shares[1]})",
            names=[found.names[i] for i in order],
        ),
        "Principal components, found without the classes. The first follows the share of G and C "
        f"(correlation {_signed(float(np.corrcoef(coordinates[:, 0], found.gc)[0, 1]), 2)}), "
        f"low outside genes. Component {other + 1} is shown because of components 2 to "
        f"{_COMPONENTS} it tells the two strands apart best.",
    )
    sources = list(found.probes[STRAND])
    page.table(
        [
            Column(name="a linear function of", values=sources),
            *(
                Column(name=f"AUC, {question}", values=[str(areas[s]) for s in sources])
                for question, areas in found.probes.items()
            ),
        ],
        caption="How often such a function ranks a window of one class above one of the other; "
        "0.5 is chance. Ridge regression, judged on 50,000 bases at a time that it was not fitted "
        "on; ± is 1.96 standard errors.",
        chosen_row=0,
    )
    page.text(f"{_probe_verdict(STRAND, found.probes)} {_probe_verdict(CODING, found.probes)}")


def _probe_verdict(question: str, probes: Mapping[str, Mapping[str, Auc]]) -> str:
    """Compare the vectors with the best of the simple descriptions."""
    ours = probes[question][VECTORS]
    others = {name: area for name, area in probes[question].items() if name != VECTORS}
    name = max(others, key=lambda other: others[other].value)
    best = others[name]
    noise = 1.96 * float(np.hypot(ours.standard_error, best.standard_error))
    if ours.value - best.value > noise:
        against = f"more than {name} ({best.value:.2f})"
    elif best.value - ours.value > noise:
        against = f"less than {name} ({best.value:.2f})"
    else:
        against = f"which {name} ({best.value:.2f}) equal within the error"
    return f"{question.capitalize()}: the vectors say {_strength(ours)}, {against}."


def _strength(area: Auc) -> str:
    if not area.is_above_chance:
        return "nothing"
    words = ((0.6, "hardly anything"), (0.7, "a little"), (0.8, "something"), (0.9, "much"))
    return next((word for limit, word in words if area.value < limit), "nearly all")


_SEPARATES = ((0.55, "hardly"), (0.65, "weakly"), (0.75, "clearly"))


def _variants(page: Page, findings: "Findings") -> None:
    effects = findings.effects
    page.heading("Substitutions in genes")
    total = sum(map(len, effects.scores.values()))
    page.text(
        f"At {findings.sizes.sites} sites in these genes, all three other letters were put in, "
        f"{total:,} variants in all, and scored by log-likelihood: the window of {WINDOW_BP} "
        "letters with the variant minus the one without, both strands averaged. Below 0, the "
        "model finds the change unlikely. It knows the genome of one strain only, no protein and "
        "no other species, so what it can know of harm is how unlike a gene the sequence becomes. "
        "At half of the sites one of the changes makes a stop codon, which is rare otherwise."
    )
    page.figure(
        histogram(
            effects.scores,
            x_label="log-likelihood difference in nats",
            mark=Mark(name="no difference", value=0.0),
            bins=30,
        ),
        "Medians: "
        + ", ".join(
            f"{name} {_signed(float(np.median(scores)), 2)}"
            for name, scores in effects.scores.items()
        )
        + ".",
    )
    rows = list(effects.pairs.items())
    page.table(
        [
            Column(name="expected lower", values=[graver for (_, graver), _ in rows]),
            Column(name="expected higher", values=[mild for (mild, _), _ in rows]),
            Column(name="AUC, all variants", values=[str(p.anywhere) for _, p in rows]),
            Column(
                name="lower at the same site",
                values=[
                    f"{p.same_site:.0%} of {p.pairs} pairs" if p.pairs else "" for _, p in rows
                ],
            ),
        ],
        caption="Synonymous changes sit mostly at third letters of codons, stops at first ones, "
        "and letters differ in how well they are predicted. Pairs at the same site are free of "
        "that: same place, same context, two different new letters. Chance is 50 %.",
    )
    verdicts = [_pair_verdict(mild, graver, p.anywhere) for (mild, graver), p in rows]
    page.text(" ".join(verdicts))


def _pair_verdict(mild: str, graver: str, area: Auc) -> str:
    which = f"{_ADJECTIVES[graver]} from {_ADJECTIVES[mild]} changes"
    if area.is_above_chance:
        word = next((text for limit, text in _SEPARATES if area.value < limit), "well")
        return f"The scores tell {which} {word}."
    if area.value + 1.96 * area.standard_error < 0.5:
        return f"The scores rank {which} the wrong way round."
    return f"The scores cannot tell {which}."


_ADJECTIVES = {"synonymous": "synonymous", "missense": "missense", "stop gained": "stop-making"}


def _writing(page: Page, findings: "Findings") -> None:
    texts, sizes = findings.texts, findings.sizes
    page.heading("What it writes")
    page.text(
        f"From {sizes.sequences} places in the held-out region the model wrote on for "
        f"{sizes.sequence_bp:,} letters, drawn at temperature 1, each letter seeing the "
        f"{WINDOW_BP // 2} to {WINDOW_BP - 1} before it. The best Markov model did the same, and "
        "the genome's own continuation shows what would be right."
    )
    names = [GENOME, MODEL, MARKOV]
    some = [texts[name] for name in names]
    page.table(
        [
            Column(name="text of", values=[f"the {name}" for name in names]),
            Column(name="G and C, %", values=[100 * t.gc for t in some], format=".1f"),
            Column(
                name="divergence, bits",
                values=[t.divergence for t in some],
                format=".4f",
            ),
            Column(
                name="open stretch, codons",
                values=[float(np.median(t.open_codons)) for t in some],
                format=".0f",
            ),
            Column(
                name="copied words, %",
                values=[100 * t.copied for t in some],
                format=".2f",
            ),
        ],
        caption="Divergence: Jensen-Shannon's, between the 6-letter words and those of the "
        "training letters; that of the genome itself is what such a sample has. Open stretch: the "
        "longest without a stop codon in any of six frames, median over the sequences. Copied "
        f"words: those of {COPY_BP} letters that the training letters have too, on either strand.",
        chosen_row=1,
    )
    page.figure(
        histogram(
            {f"the {name}": texts[name].open_codons for name in names},
            x_label="codons in the longest open stretch of a sequence",
            bins=16,
            height=320,
        ),
        f"One value per sequence, {sizes.sequences} sequences each.",
    )
    page.text(_writing_verdict(findings))
    first = texts[MODEL].first[:300]
    page.code("\n".join([">generated_1, its first letters", *_lines(first)]))


def _lines(letters: str, per_line: int = 75) -> list[str]:
    return [letters[i : i + per_line] for i in range(0, len(letters), per_line)]


def _writing_verdict(findings: "Findings") -> str:
    texts = findings.texts
    longer = auc(texts[MODEL].open_codons, texts[MARKOV].open_codons)
    shorter = auc(texts[GENOME].open_codons, texts[MODEL].open_codons)
    say = [
        "Its open stretches are longer than the Markov model's"
        if longer.is_above_chance
        else "Its open stretches are not longer than the Markov model's",
        f"(AUC {longer})",
        "but shorter than the genome's" if shorter.is_above_chance else "and like the genome's",
        f"(AUC {shorter}):",
        "it writes in the style of genes for some hundred letters and loses the thread; these are "
        "no genes."
        if shorter.is_above_chance
        else "that alone makes no genes; nothing here was tested for function.",
    ]
    words = (
        "Its short words are closer to the genome's than the Markov model's are."
        if texts[MODEL].divergence < texts[MARKOV].divergence
        else "Its short words are no closer to the genome's than those of the Markov model, which "
        "counted them."
    )
    copied = texts[MODEL].copied
    copies = (
        "It does not copy: long words are as rare in its text as in any other."
        if copied < max(0.001, 2 * texts[MARKOV].copied)
        else f"It copies: {copied:.1%} of its words of {COPY_BP} letters are in the training "
        "letters."
    )
    return " ".join([*say, words, copies])


def _by_hand(page: Page, result: "DemoResult", findings: "Findings") -> None:
    page.heading("The same by hand")
    folder = shlex.quote(str(result.report.parent))
    reading = f"--max-tokens {WINDOW_BP} --overlap-tokens {WINDOW_BP // 2}"
    page.text(
        "Every step was an ordinary command on files in the folder of this report; about.txt says "
        "what they are."
    )
    page.code(
        f"cd {folder}\n"
        "lexome pretrain recipe.yaml --out again\n"
        f"lexome likelihood model held_out.bed --genome genome.fa {reading}\n"
        "lexome embed model windows.bed --genome genome.fa --pooling mean --out again.npz\n"
        f"lexome score model variants.vcf genome.fa --window-bp {WINDOW_BP} --out again.vcf\n"
        f"lexome generate model {findings.data.region[:30]} --length 400 --letters ACGT"
    )


def _provenance(findings: "Findings") -> dict[str, str]:
    import torch

    genome, pace = bundled_genome(), findings.pace
    network = ", ".join(f"{name} {value}" for name, value in findings.sizes.network.items())
    rates = ", ".join(f"{rate:,.0f} on {n}" for n, rate in pace.tokens_per_second.items())
    return {
        "genome": f"{genome.name}, sha256 {hashlib.sha256(genome.read_bytes()).hexdigest()[:16]}",
        "model": f"HyenaDNA, {network}",
        "training": f"{pace.steps:,} steps of {findings.sizes.batch} windows of {WINDOW_BP} "
        f"letters, products in {findings.run.precision}, weights in float32",
        "all else": "float32",
        "tokens a second": f"{rates} threads; {pace.threads} used",
        "time": f"{findings.seconds:.0f} s, {findings.cpu_seconds:.0f} s of processor time, "
        f"{os.cpu_count()} cores",
        "seed": str(findings.seed),
        "torch": torch.__version__,
    }
