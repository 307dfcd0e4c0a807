import gzip

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lexome.core import FormatError, MissingExtra
from lexome.formats import SequenceRecord, read_table


def as_pairs(records):
    return [(r.id, r.sequence) for r in records]


def test_other_columns_are_kept_as_text(make_file):
    path = make_file("a.tsv", "sequence\tlabel\tid\tsplit\nACGT\t1\tx\ttrain\nTT\t\ty\t\n")
    assert list(read_table(path)) == [
        SequenceRecord("x", "ACGT", fields={"label": "1", "split": "train"}),
        SequenceRecord("y", "TT", fields={"label": "", "split": ""}),
    ]


def test_rows_without_an_id_column_are_numbered(make_file):
    path = make_file("a.csv", "Sequence,label\nACGT,1\n\nTT,0\n")
    assert as_pairs(read_table(path)) == [("1", "ACGT"), ("2", "TT")]


def test_named_columns_are_used(make_file):
    path = make_file("a.csv.gz", "name,dna,id\na,ACGT,7\n")
    (record,) = read_table(path, sequence="dna", id="name")
    assert record == SequenceRecord("a", "ACGT", fields={"id": "7"})


def test_quoted_cells_may_hold_delimiters_quotes_and_line_ends(make_file):
    path = make_file("a.csv", 'sequence,note\r\nACGT,"one, ""two""\nthree"\r\nTT,x\r\n')
    assert [r.fields["note"] for r in read_table(path)] == ['one, "two"\nthree', "x"]


def test_semicolons_separate_a_csv_without_commas(make_file):
    assert as_pairs(read_table(make_file("a.csv", "id;sequence\nx;ACGT\n"))) == [("x", "ACGT")]


def test_comments_before_the_column_names_are_passed_over(make_file):
    path = make_file("a.tsv", "# tool: lexome\n## more\n#id\tsequence\nx\tACGT\n")
    assert as_pairs(read_table(path)) == [("x", "ACGT")]


def test_a_sequence_may_be_longer_than_the_csv_module_allows_by_default(make_file):
    path = make_file("a.tsv", f"sequence\n{'ACGT' * 100_000}\n")
    assert len(next(read_table(path)).sequence) == 400_000


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        (
            "a.tsv",
            "id\tseq\nx\tAC\n",
            "no column 'sequence'; it has 'id', 'seq'. Did you mean 'seq'",
        ),
        (
            "a.tsv",
            "id\tdna\nx\tAC\n",
            "Did you mean 'dna'. Name the right one with sequence_column",
        ),
        ("a.tsv", "id\tsequence\nx\tAC\t1\n", "line 2: 3 cells. Expected 2"),
        ("a.csv", "# c\nid,sequence\nx,AC\ny\n", "line 4: 1 cells. Expected 2"),
        ("a.csv", "id,sequence\nx,AC\nx,AC\n", "line 3: the name 'x' comes a second time"),
        ("a.csv", "id,sequence\n ,AC\n", "line 2: the column 'id' is blank"),
        ("a.csv", "id,sequence\nx,A-C\n", "line 2: the sequence of 'x' has '-' where letter 2"),
        ("a.csv", "id,sequence\nx,ACG CGT\n", "line 2: the sequence of 'x' has ' ' where letter 4"),
        ("a.csv", "sequence,sequence\nA,C\n", "line 1: the column 'sequence' comes more than once"),
        ("a.tsv", 'sequence\tnote\nAC\t"open\nGT\tx\n', "line 2: a cell begins with a quotation"),
        ("a.tsv", "id\tsequence\rx\tACGT\r", "line 1: cannot be split into cells"),
        ("a.tsv", "id\tsequence\nx\tAC\ry\n", "line 2: cannot be split into cells"),
        ("a.csv", 'sequence,note\nAC,"open\nGT,x\n', "line 2: cannot be split into cells"),
        ("a.csv", "\n# only\n", "holds no line of column names"),
        ("a.csv", "", "the file is empty"),
        ("a.parquet", "", "the file is empty"),
        ("a.parquet", "sequence\nACGT\n", "cannot be read as a Parquet table"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(make_file, name, content, says):
    with pytest.raises(FormatError, match=says):
        list(read_table(make_file(name, content)))


@pytest.fixture
def parquet_path(tmp_path):
    table = pa.table(
        {
            "id": [f"s{i}" for i in range(1000)],
            "sequence": ["ACGT" * (i % 3) for i in range(1000)],
            "score": [i / 2 if i else None for i in range(1000)],
            "vector": [[1.0, 2.0]] * 1000,
        }
    )
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=300)
    return tmp_path / "a.parquet"


def test_parquet_is_read_without_its_nested_columns(parquet_path):
    records = list(read_table(parquet_path))
    assert len(records) == 1000
    assert records[0] == SequenceRecord("s0", "", fields={"score": ""})
    assert records[4] == SequenceRecord("s4", "ACGT", fields={"score": "2.0"})


def test_a_damaged_parquet_file_is_named(parquet_path):
    whole = bytearray(parquet_path.read_bytes())
    parquet_path.write_bytes(whole[:-10])
    with pytest.raises(FormatError, match=r"a\.parquet: cannot be read as a Parquet table"):
        list(read_table(parquet_path))


def test_parquet_without_pyarrow_says_which_extra_brings_it(parquet_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pyarrow.parquet", None)
    with pytest.raises(MissingExtra, match=r"lexome\[report\]"):
        list(read_table(parquet_path))


def test_a_truncated_gzip_table_is_named(make_file):
    rows = "".join(f"s{i},ACGT\n" for i in range(1000))
    whole = gzip.compress(f"id,sequence\n{rows}".encode())
    with pytest.raises(FormatError, match="cut off"):
        list(read_table(make_file("a.csv", whole[:-9])))
