"""Labels are read, checked and divided; what cannot be learnt from is said."""

from collections import Counter

import pytest

from lexome.core import FormatError, InputError
from lexome.training.labelled import (
    Labelled,
    count_shared,
    decide_target,
    hold_out,
    read_labelled,
)


def table(folder, text, name="data.csv"):
    path = folder / name
    path.write_text(text)
    return path


def labelled(labels, sequences=None):
    from lexome.formats import SequenceRecord

    sequences = sequences or [f"ACGT{'ACGT' * i}" for i in range(len(labels))]
    records = tuple(SequenceRecord(str(i + 1), s) for i, s in enumerate(sequences))
    return Labelled("data.csv", records, tuple(labels))


def test_tables_and_fasta_give_the_same(tmp_path):
    csv = read_labelled(table(tmp_path, "sequence,label\nACGT,x\nGG,y\n"))
    tsv = read_labelled(
        table(tmp_path, "dna\tkind\nACGT\tx\nGG\ty\n", "data.tsv"),
        sequence_column="dna",
        label_column="kind",
    )
    named = read_labelled(table(tmp_path, ">a label=x\nACGT\n>b other label=y\nGG\n", "a.fa"))
    barred = read_labelled(table(tmp_path, ">a|x\nACGT\n>b|y\nGG\n", "b.fa"))
    for each in (csv, tsv, named, barred):
        assert (each.letters(), each.labels) == (["ACGT", "GG"], ("x", "y"))


def test_a_misnamed_label_column_gets_a_suggestion(tmp_path):
    path = table(tmp_path, "sequence,labels\nACGT,x\n")
    with pytest.raises(FormatError, match=r"no column 'label'.*Did you mean 'labels'.*label_colu"):
        read_labelled(path)


@pytest.mark.parametrize("cell", ["", " ", "nan", "NaN"])
def test_a_missing_label_is_an_error_with_its_record(tmp_path, cell):
    path = table(tmp_path, f"sequence,label\nACGT,x\nGG,{cell}\n")
    with pytest.raises(FormatError, match=r"record 2 .*has no label in the column 'label'"):
        read_labelled(path)


def test_a_fasta_without_labels_is_an_error(tmp_path):
    with pytest.raises(FormatError, match=r"named 'a'.*no label in its header"):
        read_labelled(table(tmp_path, ">a\nACGT\n", "a.fa"))
    with pytest.raises(InputError, match="holds no labels"):
        read_labelled(table(tmp_path, "ACGT\n", "a.txt"))


@pytest.mark.parametrize(
    ("labels", "task", "classes"),
    [
        (["1", "0", "10", "2"] * 4, "classification", ("0", "1", "2", "10")),
        (["b", "a"] * 4, "classification", ("a", "b")),
        (["0.5", "1", "-2e3"], "regression", ()),
        ([str(i) for i in range(31)], "regression", ()),
    ],
)
def test_the_task_is_guessed_from_the_labels(labels, task, classes):
    target = decide_target(labelled(labels), None)
    assert (target.task, target.classes) == (task, classes)


@pytest.mark.parametrize(
    ("labels", "task", "message"),
    [
        (["1"] * 5, None, "have the label '1'. Expected at least two classes"),
        (["0.5"] * 5, None, "have the value 0.5"),
        (["0.5", "inf"], "regression", r"record 2 .*'inf'. Expected a finite number"),
        (["1", "x"], "regression", r"record 2 .*'x'. Expected a finite number"),
        (["a", "b", "c", "d"], None, "4 different labels"),
    ],
)
def test_labels_that_cannot_be_learnt_are_refused(labels, task, message):
    with pytest.raises(InputError, match=message):
        decide_target(labelled(labels), task)


def test_a_label_that_training_lacks_is_an_error():
    target = decide_target(labelled(["a", "b"] * 3), None)
    with pytest.raises(InputError, match=r"label 'c' 2 times.*no training sequence has.*'a', 'b'"):
        target.encode(labelled(["a", "c", "c"]))


def test_parts_keep_equal_sequences_together_and_the_shares_of_classes():
    sequences = [f"{'ACGT' * (i % 50 + 1)}" for i in range(100)]
    data = labelled(["a" if i % 50 < 10 else "b" for i in range(100)], sequences)
    kept, held = hold_out(data, 0.2, seed=1, by_class=True)
    assert len(kept) + len(held) == 100
    assert not set(kept.letters()) & set(held.letters())
    assert Counter(held.labels) == {"a": 4, "b": 16}
    assert hold_out(data, 0.2, seed=1, by_class=True)[1] == held
    assert hold_out(data, 0.2, seed=2, by_class=True)[1] != held


def test_a_class_of_one_sequence_cannot_be_divided():
    with pytest.raises(InputError, match=r"of the class 'b'.*none is left"):
        hold_out(labelled(["a", "a", "a", "b"]), 0.1, seed=0, by_class=True)


def test_duplicates_between_parts_are_counted_whatever_their_case():
    parts = {
        "train": labelled("ab", ["ACGT", "GG"]),
        "test": labelled("aab", ["acgt", "ACGT", "C"]),
    }
    assert count_shared(parts) == {"test in train": 2}
