"""The command table, and what happens when something goes wrong."""

import os
import subprocess
import sys
import time
from importlib import import_module
from types import ModuleType

import pytest

import lexome
from lexome.cli.arguments import bind
from lexome.cli.main import COMMANDS, main
from lexome.core import InputError


def _greet(name: str, *, times: int = 1) -> str:
    """Greet someone.

    Parameters
    ----------
    name
        Whom to greet.
    times
        How often.
    """
    return " ".join([f"hello {name}"] * times)


def _fail(how: str, *, out: str | None = None, resume: bool = True) -> None:
    error = {
        "user": InputError("3 letters were given. Expected 4. Add one."),
        "missing": FileNotFoundError(2, "No such file or directory", "genome.fa"),
        "forbidden": PermissionError(13, "Permission denied", "genome.fa"),
        "folder": IsADirectoryError(21, "Is a directory", "genomes"),
        "full": OSError(28, "No space left on device"),
        "flags": InputError("out.fa is large. Pass resume=False, or name another with out=."),
        "ctrl-c": KeyboardInterrupt(),
        "ours": ZeroDivisionError("bug"),
    }[how]
    error.add_note("while reading chr2")
    raise error


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> dict[str, tuple[str, str]]:
    module = ModuleType("greetings")
    module.greet, module.fail = _greet, _fail  # pyright: ignore[reportAttributeAccessIssue]
    monkeypatch.setitem(sys.modules, "greetings", module)
    monkeypatch.delenv("LEXOME_DEBUG", raising=False)
    return {"greet": ("greetings:greet", "say hello"), "fail": ("greetings:fail", "go wrong")}


def test_a_command_runs_its_function_and_prints_what_it_returns(commands, capsys):
    assert main(["greet", "Ada", "--times", "2"], commands) == 0
    assert capsys.readouterr().out == "hello Ada hello Ada\n"


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"]])
def test_help_lists_the_commands_in_aligned_columns(arguments, commands, capsys):
    assert main(arguments, commands) == 0
    out = capsys.readouterr().out
    assert "  greet  say hello\n  fail   go wrong\n" in out
    assert "\033" not in out


def test_version_is_the_package_version(commands, capsys):
    assert main(["--version"], commands) == 0
    assert capsys.readouterr().out == f"lexome {lexome.__version__}\n"


def test_help_of_a_command_does_not_run_it(commands, capsys):
    assert main(["greet", "--help"], commands) == 0
    out = capsys.readouterr().out
    assert out.startswith("Usage: lexome greet NAME [OPTIONS]\n\nGreet someone.\n")
    assert "--times INT" in out


def test_an_unknown_command_gets_a_suggestion(commands, capsys):
    assert main(["gret"], commands) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: no command named 'gret'. Did you mean 'greet'?")


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("user", "error: 3 letters were given. Expected 4. Add one.\n  while reading chr2\n"),
        ("missing", "error: there is no file 'genome.fa'. Check the path.\n  while reading chr2\n"),
        (
            "forbidden",
            "error: no permission for 'genome.fa'. Check who owns it.\n  while reading chr2\n",
        ),
        ("folder", "error: genomes: Is a directory\n  while reading chr2\n"),
        (
            "full",
            "error: the disk is full. Make room, or give an output elsewhere; then run it again."
            "\n  while reading chr2\n",
        ),
        (
            "flags",
            "error: out.fa is large. Pass --no-resume, or name another with --out."
            "\n  while reading chr2\n",
        ),
    ],
)
def test_a_users_mistake_is_one_message_without_traceback(how, message, commands, capsys):
    assert main(["fail", how], commands) == 2
    assert capsys.readouterr() == ("", message)


def test_ctrl_c_exits_with_130(commands, capsys):
    assert main(["fail", "ctrl-c"], commands) == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_ctrl_c_says_whether_the_same_command_goes_on(commands, capsys):
    assert main(["fail", "ctrl-c", "--out", "x.tsv"], commands) == 130
    assert capsys.readouterr().err == "interrupted; the same command goes on from here\n"
    assert main(["fail", "ctrl-c", "--out", "x.tsv", "--no-resume"], commands) == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_our_own_bugs_keep_their_traceback(commands):
    with pytest.raises(ZeroDivisionError):
        main(["fail", "ours"], commands)


@pytest.mark.parametrize("arguments", [["--debug", "fail", "user"], ["fail", "user", "--debug"]])
def test_debug_shows_where_an_error_comes_from(arguments, commands):
    with pytest.raises(InputError):
        main(arguments, commands)


def test_debug_can_be_set_in_the_environment(commands, monkeypatch):
    monkeypatch.setenv("LEXOME_DEBUG", "1")
    with pytest.raises(InputError):
        main(["fail", "user"], commands)


def test_a_reader_that_goes_away_ends_the_command_quietly(tmp_path):
    (tmp_path / "endless.py").write_text("def talk():\n    while True:\n        print('line')\n")
    code = (
        "import sys; from lexome.cli.main import main; "
        "sys.exit(main(['talk'], {'talk': ('endless:talk', '')}))"
    )
    command = f'"{sys.executable}" -c "{code}" | head -n 1; echo "status ${{PIPESTATUS[0]}}"'
    run = subprocess.run(
        ["bash", "-c", command],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert (run.stdout, run.stderr) == ("line\nstatus 141\n", "")


def test_help_answers_without_torch_or_a_wait():
    code = (
        "import sys; from lexome.cli.main import main; main(['--help']); "
        "assert not {'torch', 'numpy', 'cyclopts'} & set(sys.modules)"
    )
    fastest = 9.0
    for _ in range(3):
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
        fastest = min(fastest, time.perf_counter() - start)
    assert fastest < 1.0  # generous for a busy machine; benchmarks/install.py has the real figure


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_each_of_its_arguments(name, capsys):
    module, _, attribute = COMMANDS[name][0].partition(":")
    function = getattr(import_module(module), attribute)
    assert bind(function, ["--help"], f"lexome {name}") is None
    lines = capsys.readouterr().out.splitlines()
    start = next(i for i, line in enumerate(lines) if line in ("Arguments", "Options"))
    wordless = [
        line
        for line, following in zip(lines[start:], [*lines[start + 1 :], ""], strict=True)
        if line.startswith("  -") or line[2:3].isupper()
        if "  " not in line.strip() and not following.startswith("      ")
    ]
    assert not wordless, "say in the docstring what these do"
