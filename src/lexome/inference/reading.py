"""Items of a source to pieces that a model can take: tokenized, checked, cut where they are long.

All of it runs beside the model, in the thread of :func:`lexome.inference.batching.ahead`.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from lexome.core import InputError
from lexome.formats import CellRecord, Genome, SequenceRecord, read_cells, read_sequences
from lexome.model import Model
from lexome.tokenizers import Encoded, Tokenizer

Source = str | Path | Iterable[str | tuple[str, str] | SequenceRecord | CellRecord]

LONGEST = 4096
"""Tokens of a piece where neither the model nor the user sets a limit."""

_TOGETHER = 256  # items tokenized in one call
_TOGETHER_LETTERS = 1 << 20
_SAMPLE = 1000
_MANY = 0.05  # letters unknown or of lower case, of which a word is said
_NO_BASES = frozenset("EFILPQ")  # of proteins, and no code of IUPAC for nucleotides


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of an item that goes through the model at once.

    Attributes
    ----------
    tokens
        The part with the special tokens around it.
    keep
        Which of them give the item's results: start and stop, special tokens counted but never
        inside. Every token of the item is kept in exactly one piece.
    """

    tokens: Encoded
    keep: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Item:
    """One record of the source, ready for the model or refused.

    Attributes
    ----------
    id, fields
        Its name and what else the source says of it.
    status
        ``"ok"``; ``"empty"`` if there is nothing in it; ``"too short"`` if it has letters but too
        few for a token; ``"unknown letters"`` (``"unknown genes"`` for cells) if too much of it
        is unknown to the model.
    length
        Letters of a sequence, expressed genes of a cell.
    tokens
        Tokens, special ones not counted.
    unknown
        How much of `length` the vocabulary does not know.
    pieces
        What goes through the model; none unless the status is ``"ok"``.
    spans
        Letters that each token covers, shape (tokens, 2), where they were asked for.
    remarks
        What else to know of how it was read; None if the tokenizer makes none.
    sample
        Of a refused item, what it begins with; of a sequence with many letters that are unknown or
        of lower case, letters from all over it.
    content
        The sequence or cell itself, where it was asked for.
    """

    id: str
    fields: Mapping[str, str]
    status: str
    length: int
    tokens: int
    unknown: int
    pieces: tuple[Piece, ...] = ()
    spans: np.ndarray | None = None
    remarks: tuple[str, ...] | None = None
    sample: str = ""
    content: Any = None


@dataclass(frozen=True, kw_only=True)
class Cutting:
    """How items that are too long for the model are cut.

    Attributes
    ----------
    room
        Most tokens of a piece, special ones not counted; None never cuts.
    overlap
        Fewest tokens that neighbouring pieces share.
    causal
        Whether a token's result comes from what stands before it only.
    suffix
        Whether pieces end in the tokenizer's suffix.
    """

    room: int | None
    overlap: int
    causal: bool
    suffix: bool = True

    def pieces(self, tokens: int) -> list[tuple[int, int, int, int]]:
        """Place the pieces of an item of so many tokens.

        The fewest pieces of equal length that cover the item with the overlap, at even distances.
        A token belongs to the piece in which it stands farthest from a cut, the earlier one of
        two; in a causal model, to the earliest piece that holds it, where most stands before it.

        Returns
        -------
        (start, stop, first kept, last kept + 1) of each piece, in tokens of the item.

        Examples
        --------
        >>> Cutting(room=6, overlap=2, causal=False).pieces(10)
        [(0, 6, 0, 5), (4, 10, 5, 10)]
        >>> Cutting(room=6, overlap=2, causal=True).pieces(10)
        [(0, 6, 0, 6), (4, 10, 6, 10)]
        """
        if self.room is None or tokens <= self.room:
            return [(0, tokens, 0, tokens)]
        count = -(-(tokens - self.overlap) // (self.room - self.overlap))
        starts = [i * (tokens - self.room) // (count - 1) for i in range(count)]
        stops = [start + self.room for start in starts]
        borders = [
            stop if self.causal else (start + stop - 1) // 2 + 1
            for start, stop in zip(starts[1:], stops[:-1], strict=True)
        ]
        return list(zip(starts, stops, [0, *borders], [*borders, tokens], strict=True))


def cutting(
    model: Model,
    max_tokens: int | None,
    overlap_tokens: int | None,
    *,
    longest: int = LONGEST,
    suffix: bool = True,
) -> Cutting:
    """Decide how items that are too long for a model are cut.

    Parameters
    ----------
    model
        The model; a causal one keeps tokens where most stands before them.
    max_tokens
        Most tokens of a piece, special ones counted. None takes the model's own limit, or
        `longest` where it has none.
    overlap_tokens
        Fewest tokens that neighbouring pieces share, at most half of a piece; by default an
        eighth.
    longest
        See `max_tokens`.
    suffix
        Whether pieces end in the tokenizer's suffix.

    Raises
    ------
    InputError
        If the numbers contradict each other or the model.
    """
    tokenizer = tokenizer_of(model)
    causal = model.objective == "causal"
    if tokenizer.item != "sequence":
        if overlap_tokens is not None:
            raise InputError(
                f"overlap_tokens is for pieces of sequences, and {model.family.title} reads "
                f"{tokenizer.item}s, which have no order to cut along. Leave it out."
            )
        return Cutting(room=None, overlap=0, causal=causal)
    limit = model.context
    if max_tokens is not None and limit is not None and max_tokens > limit:
        raise InputError(
            f"max_tokens is {max_tokens:,}, but {model.name} takes at most {limit:,} tokens. "
            "Give at most that; what is longer is cut into overlapping pieces."
        )
    most = next(each for each in (max_tokens, limit, longest) if each is not None)
    around = len(tokenizer.prefix) + (len(tokenizer.suffix) if suffix else 0)
    room = most - around
    if max_tokens is not None and room < 2:
        raise InputError(
            f"max_tokens is {max_tokens}, of which special tokens take {around}. Expected at least "
            f"{around + 2}; give more."
        )
    overlap = room // 8 if overlap_tokens is None else overlap_tokens
    if not 0 <= overlap <= room // 2:
        raise InputError(
            f"overlap_tokens is {overlap:,}, and a piece has room for {room:,} tokens. Expected 0 "
            f"to half of it, {room // 2:,}; give less, or larger max_tokens."
        )
    return Cutting(room=room, overlap=overlap, causal=causal, suffix=suffix)


def share(max_unknown: float) -> float:
    """Return the share of unknown letters that is allowed, or say that it is none."""
    if not 0 <= max_unknown <= 1:
        raise InputError(f"max_unknown is {max_unknown}. Expected a share from 0 to 1.")
    return max_unknown


def tokenizer_of(model: Model) -> Tokenizer:
    """Return a model's tokenizer, or say how to give it one."""
    if model.tokenizer is None:
        raise InputError(
            f"this {model.family.title} model has no tokenizer: it was made from scratch, or its "
            "folder holds none. Train one with `lexome tokenizer`, or read the published one, and "
            "set model.tokenizer."
        )
    return model.tokenizer


def read_records(
    tokenizer: Tokenizer,
    source: Source,
    *,
    genome: str | Path | Genome | None = None,
    sequence_column: str = "sequence",
    id_column: str | None = None,
    upper: bool = False,
    counts_layer: str | None = None,
    gene_column: str | None = None,
) -> Iterator[tuple[str, Any, int, Mapping[str, str]]]:
    """Yield (id, item, length, other fields) of what a tokenizer takes, sequences or cells.

    Parameters
    ----------
    tokenizer
        Says which of the two.
    source, genome, sequence_column, id_column, upper
        For sequences as in :func:`lexome.formats.read_sequences`; for cells `source` is an
        ``.h5ad`` file or an iterable of `CellRecord`, and the others must be left out.
    counts_layer, gene_column
        For cells, see `layer` and `genes` of :func:`lexome.formats.read_cells`.
    """
    for_sequences = {
        "genome": genome,
        "sequence_column": None if sequence_column == "sequence" else sequence_column,
        "id_column": id_column,
        "upper": upper or None,
    }
    for_cells = {"counts_layer": counts_layer, "gene_column": gene_column}
    is_cell = tokenizer.item == "cell"
    wrong = [n for n, v in (for_sequences if is_cell else for_cells).items() if v is not None]
    if wrong:
        kinds = ("sequences", "cells") if is_cell else ("cells", "sequences")
        raise InputError(
            f"{' and '.join(wrong)} {'is' if len(wrong) == 1 else 'are'} for models of "
            f"{kinds[0]}, and this model reads {kinds[1]}. Leave it out."
        )
    if not is_cell:
        sequences = read_sequences(
            source,  # type: ignore[arg-type]
            sequence_column=sequence_column,
            id_column=id_column,
            genome=genome,
            upper=upper,
        )
        return ((r.id, r.sequence, len(r.sequence), r.fields) for r in sequences)
    if isinstance(source, str | Path):
        if str(source) == "-" or not str(source).lower().endswith((".h5ad", ".h5")):
            raise InputError(
                f"this model reads cells, and {source} is no .h5ad file. Give one that holds "
                "counts of genes."
            )
        known = frozenset(tokenizer.vocabulary)
        source = read_cells(source, layer=counts_layer, genes=gene_column, known=known)
    return ((c.id, c, len(c.indices), c.fields) for c in _cells(source))


def _cells(source: Iterable[Any]) -> Iterator[CellRecord]:
    for number_1based, cell in enumerate(source, 1):
        if not isinstance(cell, CellRecord):
            raise InputError(
                f"item {number_1based} is {cell!r:.80}. Expected a CellRecord, since this model "
                "reads cells."
            )
        yield cell


def prepare(
    records: Iterable[tuple[str, Any, int, Mapping[str, str]]],
    tokenizer: Tokenizer,
    *,
    cutting: Cutting,
    max_unknown: float,
    letters: bool = False,
    content: bool = False,
) -> Iterator[Item]:
    """Yield records tokenized, checked and cut, in order, none left out.

    Parameters
    ----------
    records
        As :func:`read_records` gives them.
    tokenizer
        The model's.
    cutting
        How to cut.
    max_unknown
        Largest share of unknown letters or genes, 0 to 1; what has more is refused.
    letters
        Whether to find the letters that each token covers.
    content
        Whether items keep the sequence or cell itself.
    """
    for group in _groups(records):
        for record, encoded in zip(group, tokenizer.encode([r[1] for r in group]), strict=True):
            item = _item(record, encoded, tokenizer, cutting, max_unknown, letters=letters)
            yield replace(item, content=record[1]) if content else item


def _groups(
    records: Iterable[tuple[str, Any, int, Mapping[str, str]]],
) -> Iterator[list[tuple[str, Any, int, Mapping[str, str]]]]:
    records = iter(records)
    while group := list(islice(records, 1)):
        size = group[0][2]
        while len(group) < _TOGETHER and size < _TOGETHER_LETTERS:
            more = next(records, None)
            if more is None:
                break
            group.append(more)
            size += more[2]
        yield group


def _item(
    record: tuple[str, Any, int, Mapping[str, str]],
    encoded: Encoded,
    tokenizer: Tokenizer,
    cutting: Cutting,
    max_unknown: float,
    *,
    letters: bool,
) -> Item:
    id, content, length, fields = record
    tokens = len(encoded["input_ids"])
    unknown, measured = tokenizer.measure_unknown(content, encoded)
    status = "ok"
    if length == 0:
        status = "empty"
    elif unknown > max_unknown * measured:
        status = "unknown genes" if tokenizer.item == "cell" else "unknown letters"
    elif tokens == 0:
        status = "too short"
    return Item(
        id=id,
        fields=fields,
        status=status,
        length=length,
        tokens=tokens,
        unknown=unknown,
        pieces=tuple(_cut(encoded, tokenizer, cutting)) if status == "ok" else (),
        spans=tokenizer.spans(content) if letters and status == "ok" else None,
        remarks=tokenizer.remarks(content, encoded) if tokenizer.makes_remarks else None,
        sample=_sample(content, status, unknown / max(1, measured)),
    )


def _sample(content: Any, status: str, unknown: float) -> str:
    if status == "ok":
        if not isinstance(content, str):
            return ""
        letters = content[:: -(-len(content) // _SAMPLE)]
        lower = 0 if letters == letters.upper() else sum(map(str.islower, letters))
        strange = sum(letter in _NO_BASES for letter in letters) / len(letters)
        return letters if max(unknown, lower / len(letters), strange) > _MANY else ""
    if isinstance(content, str):
        return content[:_SAMPLE]
    return ", ".join(map(str, content.genes[content.indices][:3]))


def advise(tokenizer: Tokenizer, sample: str, *, some_allowed: bool = True) -> str:
    """Say what helps where the letters or genes of a sample are unknown to a tokenizer.

    Parameters
    ----------
    tokenizer, sample
        Who does not know what.
    some_allowed
        Whether `max_unknown` of what was asked for allows a share of them.
    """
    if tokenizer.item == "cell":
        return (
            "Expected gene names as the model's vocabulary has them; name the column of .var that "
            "holds them with gene_column."
        )

    check = "Check that the letters are those of the model's alphabet"
    return _remedy(tokenizer, sample) or (
        f"{check}, or raise max_unknown." if some_allowed else f"{check}."
    )


def hint(tokenizer: Tokenizer, item: Item) -> str:
    """Say what would help a model to read a sequence that it takes; nothing if nothing would.

    Parameters
    ----------
    tokenizer
        The model's.
    item
        As `prepare` gives it.
    """
    if item.status != "ok" or not item.sample:
        return ""
    if remedy := _remedy(tokenizer, item.sample):
        return f"{item.unknown:,} of {item.length:,} letters of {item.id!r} are unknown. {remedy}"
    if strange := sorted(_NO_BASES & set(item.sample)):
        return (
            f"{item.id!r} has the letters {' '.join(strange)}, which stand for amino acids and for "
            "no nucleotides. Expected DNA or RNA; give the sequence that codes for it."
        )
    as_it_is, upper = (e["input_ids"] for e in tokenizer.encode([item.sample, item.sample.upper()]))
    if item.unknown or np.array_equal(as_it_is, upper):
        return ""
    return (
        f"{item.id!r} has letters of lower case, which are other letters to this model. If they "
        "only mark repeats, pass upper=True."
    )


def _remedy(tokenizer: Tokenizer, sample: str) -> str | None:
    """Return what makes less than half as many letters of a sample unknown."""

    def unknown(text: str) -> int:
        return tokenizer.measure_unknown(text, tokenizer.encode([text])[0])[0]

    remedies = {
        "This model knows upper-case letters only; pass upper=True.": sample.upper(),
        "This model knows no U; turn it into T.": sample.replace("U", "T").replace("u", "t"),
        "This model knows no T; turn it into U.": sample.replace("T", "U").replace("t", "u"),
        "Pass upper=True and turn U into T.": sample.upper().replace("U", "T"),
    }
    before = unknown(sample)
    return next((r for r, mended in remedies.items() if 2 * unknown(mended) < before), None)


def known_thymine(model: Model) -> str | None:
    """Return the one of T and U that a model of sequences knows; None if both or neither."""
    tokenizer = model.tokenizer
    if tokenizer is None or tokenizer.item != "sequence":
        return None
    unknown = {
        letter: tokenizer.measure_unknown(text, tokenizer.encode([text])[0])[0]
        for letter, text in ((letter, f"GC{letter}A{letter}C" * 4) for letter in "TU")
    }
    if unknown["T"] == unknown["U"]:
        return None
    return min(unknown, key=unknown.__getitem__)


def _cut(encoded: Encoded, tokenizer: Tokenizer, cutting: Cutting) -> Iterator[Piece]:
    shift = len(tokenizer.prefix)
    for start, stop, first, last in cutting.pieces(len(encoded["input_ids"])):
        tokens = tokenizer.wrap({name: row[start:stop] for name, row in encoded.items()})
        if not cutting.suffix and tokenizer.suffix:
            tokens = {name: row[: -len(tokenizer.suffix)] for name, row in tokens.items()}
        yield Piece(tokens, (first - start + shift, last - start + shift))
