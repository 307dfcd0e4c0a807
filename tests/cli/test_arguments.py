"""Signatures become flags; YAML files and flags give the same arguments."""

from collections.abc import Iterable, Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest

from lexome.cli.arguments import bind, in_flags, shell_type
from lexome.core import InputError, UnknownName


class Model:
    """What only Python code can pass."""


class Side(Enum):
    LEFT = 1


def score(
    model: str | Path | Model,
    source: str | Path | Iterable[bytes],
    genome: Path | None = None,
    *,
    out: str | Path | None = None,
    pooling: Literal["mean", "max"] = "mean",
    layers: Sequence[int] = (-1,),
    both_strands: bool = True,
    batch: int | Literal["auto"] = "auto",
    threshold: float = 0.05,
    sizes: Mapping[str, int | bool] | None = None,
    stages: Sequence[Mapping[str, int]] = (),
    on_record: Model | None = None,
) -> None:
    """Score things."""


def bound(*tokens: str) -> dict[str, Any]:
    arguments = bind(score, tokens, "lexome score")
    assert arguments is not None
    return arguments


def complaint(*tokens: str) -> str:
    with pytest.raises(InputError) as caught:
        bind(score, tokens, "lexome score")
    return str(caught.value)


@pytest.mark.parametrize(
    ("given", "reduced"),
    [
        (str | Path | Model, str | Path),
        (str | Iterable[str], str),
        (str | Mapping[str, str], str),
        (int | Model | None, int | None),
        (Sequence[str] | None, list[str] | None),
        (Iterable[Path], list[Path]),
        (tuple[int, int], tuple[int, int]),
        (Mapping[str, float] | None, Mapping[str, float] | None),
        (Sequence[Mapping[str, int]], list[Mapping[str, int]]),
        (Literal["a"] | Path, Literal["a"] | Path),
        (Annotated[int | Model, "bp"], Annotated[int, "bp"]),
        (Side, Side),
        (Model | None, None),
        (list[Model], None),
        (Any, None),
        (list, None),
    ],
)
def test_types_are_reduced_to_what_a_shell_can_say(given, reduced):
    assert shell_type(given) == reduced


@pytest.mark.parametrize("tokens", [("gpn", "-"), ("gpn", "--source", "-"), ("gpn", "--source=-")])
def test_a_lone_dash_is_a_value(tokens):
    assert bound(*tokens) == {"model": "gpn", "source": "-"}
    assert bound("gpn", "a.fa", "-")["genome"] == Path("-")
    assert "unexpected '-'" in complaint("gpn", "a.fa", "b.fa", "-")
    assert '"-"' in complaint("gpn", "a.fa", "--threshold", "-")


@pytest.mark.parametrize(
    ("message", "in_a_shell"),
    [
        ("Pass both_strands=False or source='-'.", "Pass --no-both-strands or --source '-'."),
        ("Raise threshold, or give batch=16.", "Raise threshold, or give --batch 16."),
        ("both_strands is for variants; name both_strands.fa", None),
        ("'both_strands' is no column, nor a/both_strands", None),
        ("no_such=True is no argument", "no_such=True is no argument"),
        ("other(batch=1, source='a')", "other(batch=1, source='a')"),
        ("score(..., layers=[1, 2], source='a')", "lexome score ... --layers 1 2 --source a"),
        ("expect less (give batch=)", "expect less (give --batch)"),
    ],
)
def test_errors_name_flags(message, in_a_shell):
    in_a_shell = in_a_shell or message.replace("both_strands is", "--both-strands is")
    assert in_flags(message, score) == in_a_shell


def test_positions_and_flags_give_the_same_arguments():
    by_place = bound("gpn", "calls.vcf", "genome.fa")
    assert by_place == {"model": "gpn", "source": "calls.vcf", "genome": Path("genome.fa")}
    assert by_place == bound("--genome", "genome.fa", "--model=gpn", "--source", "calls.vcf")


def test_values_have_the_types_of_the_signature():
    given = bound("m", "s", "--layers", "1", "2", "--no-both-strands", "--batch=8")
    assert given["layers"] == [1, 2]
    assert given["both_strands"] is False
    assert given["batch"] == 8
    assert bound("m", "s", "--batch", "auto")["batch"] == "auto"
    assert bound("m", "s", "--threshold", "1e-4")["threshold"] == 1e-4


def test_mappings_and_lists_of_them_are_json_on_the_command_line():
    given = bound("m", "s", "--sizes", '{"depth": 1, "tied": true}', "--stages", '[{"steps": 9}]')
    assert given["sizes"] == {"depth": 1, "tied": True}
    assert given["stages"] == [{"steps": 9}]
    assert complaint("m", "s", "--sizes", "depth=1").startswith("--sizes is not JSON: 'depth=1'.")


def test_what_stands_behind_a_list_is_given_by_its_flag(capsys):
    def train(fasta: Sequence[str | Path], out: str, *, size: int = 1) -> None:
        """Do it."""

    assert bind(train, ["a.fa", "b.fa", "--out", "o"], "lexome train") == {
        "fasta": ["a.fa", "b.fa"],
        "out": "o",
    }
    with pytest.raises(InputError, match="--out is missing"):
        bind(train, ["a.fa", "o"], "lexome train")
    bind(train, ["--help"], "lexome train")
    assert capsys.readouterr().out.startswith("Usage: lexome train FASTA... --out OUT [OPTIONS]\n")


def test_what_only_python_can_pass_is_no_flag():
    assert "--on-record" in complaint("m", "s", "--on-record", "x")


def test_a_parameter_that_has_no_name_is_refused():
    def join(*paths: str) -> None:
        """Do it."""

    with pytest.raises(AssertionError, match=r"join\(paths\) cannot be given by name"):
        bind(join, [], "lexome join")


def test_a_parameter_that_only_python_can_pass_must_be_optional():
    def needs_a_model(model: Model) -> None:
        """Do it."""

    with pytest.raises(AssertionError, match=r"needs_a_model\(model\)"):
        bind(needs_a_model, [], "lexome x")


@pytest.mark.parametrize(
    ("tokens", "start"),
    [
        ((), "MODEL is missing."),
        (("m", "s", "--out"), "--out needs a value."),
        (("m", "s", "g", "more"), "unexpected 'more'"),
        (("m", "s", "--poling", "max"), "unknown option: --poling. Did you mean --pooling?"),
        (("m", "s", "--pooling", "men"), 'invalid value "men" for --pooling. Choose from:'),
        (("m", "s", "--batch", "fast"), 'invalid value for --batch: unable to convert "fast"'),
    ],
)
def test_a_wrong_command_line_is_explained(tokens, start):
    message = complaint(*tokens)
    assert message.startswith(start)
    assert message.endswith("See: lexome score --help")


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "score.yaml"
    path.write_text(
        "model: gpn\nsource: calls.vcf\nlayers: [1, 2]\nboth_strands: false\n"
        "out: null\nthreshold: 1e-4\nbatch: 8\n"
        "sizes: {depth: 1, tied: true}\nstages:\n- {steps: 9}\n- {steps: 3}\n"
    )
    return path


def test_a_file_gives_the_same_arguments_as_flags(config: Path):
    assert bound("--config", str(config)) == {
        "model": "gpn",
        "source": "calls.vcf",
        "layers": [1, 2],
        "both_strands": False,
        "out": None,
        "threshold": 1e-4,
        "batch": 8,
        "sizes": {"depth": 1, "tied": True},
        "stages": [{"steps": 9}, {"steps": 3}],
    }


def test_flags_win_over_the_file(config: Path):
    given = bound("other", "--config", str(config), "--layers", "3", "--both-strands")
    assert given["model"] == "other"
    assert given["layers"] == [3]
    assert given["both_strands"] is True
    assert given["batch"] == 8


def test_an_unknown_key_is_an_error_with_a_suggestion(config: Path):
    config.write_text("poling: max\n")
    with pytest.raises(UnknownName, match=r"'poling'. Did you mean 'pooling'") as caught:
        bind(score, ["--config", str(config)], "lexome score")
    assert caught.value.__notes__ == [f"in {config}"]


def test_a_wrong_value_in_the_file_names_the_file(config: Path):
    config.write_text("model: m\nsource: s\nthreshold: high\n")
    message = complaint("--config", str(config))
    assert "threshold" in message
    assert str(config) in message
