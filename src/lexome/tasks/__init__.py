"""Downstream analyses, benchmark declarations, metrics and the baselines to beat."""

from lexome.tasks.genomes import ECOLI, ECOLI_HELD_OUT, ECOLI_LENGTH, bundled_genome
from lexome.tasks.markov import MAX_ORDER, MarkovComparison, MarkovModel, best_markov

__all__ = [
    "ECOLI",
    "ECOLI_HELD_OUT",
    "ECOLI_LENGTH",
    "MAX_ORDER",
    "MarkovComparison",
    "MarkovModel",
    "best_markov",
    "bundled_genome",
]
