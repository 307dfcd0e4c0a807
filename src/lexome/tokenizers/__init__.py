"""Strings and cells to the authors' token ids."""

from lexome.tokenizers.base import Encoded, Tokenizer
from lexome.tokenizers.cells import CellTokenizer, read_vocabulary
from lexome.tokenizers.kmer_letters import KmerLetterPreset, KmerLetterTokenizer
from lexome.tokenizers.kmers import KmerPreset, KmerTokenizer, KmerVocabulary, read_kmers
from lexome.tokenizers.letters import LetterPreset, LetterTokenizer
from lexome.tokenizers.published import PublishedTokenizer, read_tokenizer, read_trained

__all__ = [
    "CellTokenizer",
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
    "read_kmers",
    "read_tokenizer",
    "read_trained",
    "read_vocabulary",
]
