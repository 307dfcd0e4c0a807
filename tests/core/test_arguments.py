"""Files of arguments: mappings only, with known keys."""

import pytest

from lexome.core import FormatError, UnknownName
from lexome.core.arguments import read_arguments


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"- a\n- b\n", "holds a list"),
        (b"pooling: [mean\n", "line 2: is not valid YAML"),
        (b"a: b: c\n", "line 1: is not valid YAML"),
        (b"\xff\xfe\x00", "is not text"),
        (b"!!python/object:os.system {}\n", "is not valid YAML"),
    ],
)
def test_a_file_that_is_no_mapping_is_refused(content, message, tmp_path):
    path = tmp_path / "odd.yaml"
    path.write_bytes(content)
    with pytest.raises(FormatError, match=message):
        read_arguments(path, ["pooling"])


def test_an_empty_file_gives_no_arguments(tmp_path):
    path = tmp_path / "empty.yaml"
    path.write_text("# nothing yet\n")
    assert read_arguments(path, ["pooling"]) == {}


def test_numbers_with_an_exponent_are_numbers(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text("rate: 1e-4\nword: 1e4x\nname: e5\nsteps: 500_000\n")
    values = read_arguments(path, ["rate", "word", "name", "steps"])
    assert values == {"rate": 1e-4, "word": "1e4x", "name": "e5", "steps": 500_000}


def test_a_misspelt_key_gets_a_suggestion_and_the_file(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text("poling: max\n")
    with pytest.raises(UnknownName, match=r"'poling'. Did you mean 'pooling'") as caught:
        read_arguments(path, ["pooling"])
    assert caught.value.__notes__ == [f"in {path}"]
