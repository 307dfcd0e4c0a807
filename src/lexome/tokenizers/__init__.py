"""Strings and cells to the authors' token ids."""

from lexome.tokenizers.base import Encoded, Tokenizer
from lexome.tokenizers.bytes import ByteTokenizer
from lexome.tokenizers.cells import CellTokenizer, read_vocabulary
from lexome.tokenizers.codons import CODON_PRESETS, CodonTokenizer, codon_tokenizer
from lexome.tokenizers.kmer_letters import KmerLetterPreset, KmerLetterTokenizer
from lexome.tokenizers.kmers import (
    KmerPreset,
    KmerTokenizer,
    KmerVocabulary,
    find_kmers,
    read_kmers,
)
from lexome.tokenizers.letters import CHARACTERS, LetterPreset, LetterTokenizer
from lexome.tokenizers.published import PublishedTokenizer, read_tokenizer, read_trained

__all__ = [
    "CHARACTERS",
    "CODON_PRESETS",
    "ByteTokenizer",
    "CellTokenizer",
    "CodonTokenizer",
    "Encoded",
    "KmerLetterPreset",
    "KmerLetterTokenizer",
    "KmerPreset",
    "KmerTokenizer",
    "KmerVocabulary",
    "LetterPreset",
    "LetterTokenizer",
    "PublishedTokenizer",
    "Tokenizer",
    "codon_tokenizer",
    "find_kmers",
    "read_kmers",
    "read_tokenizer",
    "read_trained",
    "read_vocabulary",
]
