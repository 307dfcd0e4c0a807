"""Lines for people."""

from lexome.core.messages import tab_table, teller


def test_lines_go_to_standard_error_or_nowhere(capsys):
    teller(aloud=True)("heard")
    teller(aloud=False)("unheard")
    told = capsys.readouterr()
    assert told.err == "heard\n"
    assert told.out == ""


def test_a_table_has_the_columns_that_are_named_or_those_of_all_rows():
    rows = [{"id": "a", "score": 0.5}, {"id": "b", "status": "empty", "score": None}]
    assert tab_table(rows) == "id\tscore\tstatus\na\t0.5\t\nb\t\tempty"
    assert tab_table(rows, ["status", "id"]) == "status\tid\n\ta\nempty\tb"
    assert tab_table([], ["id"]) == "id"
