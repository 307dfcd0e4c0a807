"""Downstream analyses, benchmark declarations, metrics and the baselines to beat."""

from lexome.tasks.genomes import ECOLI, ECOLI_HELD_OUT, ECOLI_LENGTH, bundled_genome
from lexome.tasks.markov import MAX_ORDER, MarkovComparison, MarkovModel, best_markov
from lexome.tasks.separation import Auc, auc, probe

__all__ = [
    "ECOLI",
    "ECOLI_HELD_OUT",
    "ECOLI_LENGTH",
    "MAX_ORDER",
    "Auc",
    "MarkovComparison",
    "MarkovModel",
    "auc",
    "best_markov",
    "bundled_genome",
    "probe",
]
