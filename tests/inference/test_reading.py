"""Cutting covers every token once; nothing a source holds is lost on the way."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lexome.catalog import new
from lexome.core import InputError
from lexome.formats import CellRecord
from lexome.inference.reading import (
    Cutting,
    advise,
    cutting,
    known_thymine,
    prepare,
    read_records,
    share,
    tokenizer_of,
)
from lexome.tokenizers import CellTokenizer

GPN = new("gpn", width=8, depth=1, mlp_width=8)
HYENA = new("hyenadna", width=8, depth=1, mlp_width=8, length=34, bracketed=True)
CELLS = CellTokenizer({"<pad>": 0, "<cls>": 1, "CD4": 2, "MS4A1": 3})


def items(texts, model=GPN, *, room=None, overlap=0, max_unknown=0.5, **options):
    cut = Cutting(room=room, overlap=overlap, causal=False)
    records = read_records(model.tokenizer, texts)
    return list(prepare(records, model.tokenizer, cutting=cut, max_unknown=max_unknown, **options))


def cell(values, genes):
    genes, values = np.array(genes), np.array(values, np.float32)
    return CellRecord("c", genes, np.flatnonzero(values), values[values > 0], {"donor": "d"})


@given(
    st.integers(0, 500),
    st.integers(2, 60),
    st.integers(0, 30),
    st.booleans(),
)
def test_every_token_is_kept_once_where_it_stands_farthest_from_a_cut(n, room, overlap, causal):
    overlap = min(overlap, room // 2)
    pieces = Cutting(room=room, overlap=overlap, causal=causal).pieces(n)
    kept = [t for _, _, first, last in pieces for t in range(first, last)]
    assert kept == list(range(n))
    assert all(stop - start == min(n, room) for start, stop, _, _ in pieces)
    for (_, stop, _, _), (start, _, _, _) in pairwise(pieces):
        assert stop - start >= overlap
    assert len(pieces) == 1 or (len(pieces) - 1) * (room - overlap) + overlap < n

    def from_cut(token, start, stop):
        left = n if start == 0 else token - start
        right = n if stop == n else stop - 1 - token
        return left if causal else min(left, right)

    for start, stop, first, last in pieces:
        for token in range(first, last):
            best = max(from_cut(token, a, b) for a, b, _, _ in pieces if a <= token < b)
            assert from_cut(token, start, stop) == best


def test_pieces_are_wrapped_and_keep_no_special_token():
    tokenizer = HYENA.tokenizer
    (item,) = items(["ACGTACGTAC"], HYENA, room=6, overlap=2)
    assert [tokenizer.decode(p.tokens["input_ids"]) for p in item.pieces] == [
        "[CLS]ACGTAC[SEP]",
        "[CLS]ACGTAC[SEP]",
    ]
    kept = [tokenizer.decode(p.tokens["input_ids"][slice(*p.keep)]) for p in item.pieces]
    assert kept == ["ACGTA", "CGTAC"]


def test_the_suffix_can_be_left_out():
    cut = cutting(HYENA, None, None, suffix=False)
    (item,) = prepare(
        read_records(HYENA.tokenizer, ["ACG"]), HYENA.tokenizer, cutting=cut, max_unknown=0
    )
    assert HYENA.tokenizer.decode(item.pieces[0].tokens["input_ids"]) == "[CLS]ACG"


def test_every_record_comes_out_with_its_status():
    found = items([("a", "ACGT"), ("b", ""), ("c", "NNNA"), ("d", " "), ("e", "AN")])
    assert [(i.id, i.status, i.length, i.unknown) for i in found] == [
        ("a", "ok", 4, 0),
        ("b", "empty", 0, 0),
        ("c", "unknown letters", 4, 3),
        ("d", "too short", 1, 0),
        ("e", "ok", 2, 1),
    ]
    assert [len(i.pieces) for i in found] == [1, 0, 0, 0, 1]


def test_the_allowed_share_of_unknown_letters_is_the_users():
    assert items(["NNNA"], max_unknown=0.75)[0].status == "ok"
    assert items(["NNNN"], max_unknown=1.0)[0].status == "ok"
    assert items(["ACGN"], max_unknown=0.0)[0].status == "unknown letters"
    for bad in (-0.1, 1.5, 50):
        with pytest.raises(InputError, match="Expected a share from 0 to 1"):
            share(bad)


def test_letters_under_tokens_are_counted_on_request():
    assert items(["ACGT"])[0].spans is None
    assert items(["ACGT"], letters=True)[0].spans.tolist() == [[0, 1], [1, 2], [2, 3], [3, 4]]


def test_many_records_keep_their_order():
    texts = [(f"r{i}", "ACGT" * (i % 7)) for i in range(1000)]
    assert [(i.id, i.length) for i in items(texts)] == [(n, len(t)) for n, t in texts]


def test_the_models_limit_is_the_default_and_cannot_be_passed():
    assert cutting(HYENA, None, None).room == 32
    assert cutting(HYENA, 20, None) == Cutting(room=18, overlap=2, causal=True)
    assert cutting(GPN, None, None) == Cutting(room=4096, overlap=512, causal=False)
    assert cutting(GPN, 10_000, 0).room == 10_000
    with pytest.raises(InputError, match="takes at most 34 tokens"):
        cutting(HYENA, 35, None)
    with pytest.raises(InputError, match=r"max_tokens is 0, of which special tokens take 0"):
        cutting(GPN, 0, None)
    with pytest.raises(InputError, match=r"special tokens take 2\. Expected at least 4"):
        cutting(HYENA, 3, None)
    with pytest.raises(InputError, match="Expected 0 to half of it, 9"):
        cutting(HYENA, 20, 10)


def test_cells_are_not_cut():
    model = new("gpn", width=8, depth=1, mlp_width=8)
    model.tokenizer = CELLS
    assert cutting(model, None, None).room is None
    with pytest.raises(InputError, match="have no order to cut along"):
        cutting(model, None, 100)


def test_options_of_the_other_kind_of_input_are_refused():
    with pytest.raises(InputError, match="counts_layer is for models of cells"):
        read_records(GPN.tokenizer, ["A"], counts_layer="counts")
    with pytest.raises(InputError, match="genome and upper are for models of sequences"):
        read_records(CELLS, "x.h5ad", genome="g.fa", upper=True)
    with pytest.raises(InputError, match=r"reads cells, and reads\.fa is no \.h5ad file"):
        read_records(CELLS, "reads.fa")
    with pytest.raises(InputError, match=r"item 1 is 'ACGT'\. Expected a CellRecord"):
        list(read_records(CELLS, ["ACGT"]))


def test_cells_come_with_their_genes_counted_and_their_annotations():
    records = read_records(CELLS, [cell([1, 2, 3], ["CD4", "MS4A1", "XYZ"]), cell([0], ["CD4"])])
    cut = Cutting(room=None, overlap=0, causal=False)
    first, second = prepare(records, CELLS, cutting=cut, max_unknown=0.5)
    assert (first.status, first.length, first.unknown, first.tokens) == ("ok", 3, 1, 2)
    assert first.fields == {"donor": "d"}
    assert second.status == "empty"


def test_advice_names_what_helps():
    hyena = HYENA.tokenizer
    assert "pass upper=True" in advise(hyena, "acgtacgt")
    assert "knows no U" in advise(hyena, "UUUUAC")
    assert "upper=True and turn U into T" in advise(hyena, "uuuu")
    assert "raise max_unknown" in advise(hyena, "MKLVFFAE" * 3)
    assert "gene_column" in advise(CELLS, "ENSG00000000003")


def test_models_of_dna_want_thymine_and_models_of_codons_take_either():
    sizes = {"width": 16, "depth": 1, "heads": 2, "mlp_width": 16}
    assert known_thymine(GPN) == "T"
    assert known_thymine(new("nucleotide_transformer", vocab_size=75, **sizes)) == "T"
    assert known_thymine(new("helm", width=16, depth=1, mlp_width=32)) is None


def test_a_model_without_a_tokenizer_says_how_to_get_one():
    model = new("gpn", width=8, depth=1, mlp_width=8)
    model.tokenizer = None
    with pytest.raises(InputError, match="has no tokenizer"):
        tokenizer_of(model)
