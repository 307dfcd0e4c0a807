"""What is no letter, and what to do about it."""

from pathlib import Path

from lexome.core import FormatError

_ODD_LETTERS = {
    "-": "It is the gap of an alignment: remove the gaps first.",
    ".": "It is the gap of an alignment: remove the gaps first.",
    "*": "It is a stop in a protein: check that these are nucleotides, or remove it.",
    ">": "A line end seems to be missing before this header.",
    " ": "Remove the blanks within and after the sequence.",
    "\t": "Remove the blanks within and after the sequence.",
}


def describe_letter(letter: str) -> str:
    """Return advice on a character that has no place in a sequence."""
    if letter.isdigit():
        return "Digits come with GenBank or EMBL sequences: take the FASTA form."
    return _ODD_LETTERS.get(letter, "Expected letters only; correct the record.")


def check_letters(sequence: str, what: str, path: str | Path, line_1based: int | None) -> None:
    """Raise if `sequence` holds anything but letters of the English alphabet.

    Raises
    ------
    FormatError
        With the first such character and its place.
    """
    if not sequence or (sequence.isascii() and sequence.isalpha()):
        return
    at, letter = next((i, c) for i, c in enumerate(sequence) if not (c.isascii() and c.isalpha()))
    hint = describe_letter(letter)
    if letter == ">" and at == 0:
        hint = "This looks like FASTA; name the file .fasta."
    elif letter in "\t,;":
        hint = "This looks like a table; name the file .tsv or .csv and give it column names."
    elif letter == " " and _are_kmers(sequence):
        hint = "These look like overlapping k-mers: give the plain sequence, tokenizers cut it."
    raise FormatError(
        path,
        f"{what} has {letter!r} where letter {at + 1:,} should be. {hint}",
        line_1based,
    )


def _are_kmers(sequence: str) -> bool:
    one, *others = sequence[:40].split(" ", 2)
    return len(one) > 1 and one[1:] == others[0][: len(one) - 1] and len(others[0]) == len(one)
