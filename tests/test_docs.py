r"""The commands in README.md and docs/ run as they stand there.

All ```bash and ```python blocks of a page run in the page's order, in one empty folder; the Python
blocks of a page share their names. Comments, which a reader of the page does not see, direct this:

    <!-- test: setup          bash lines up to the closing mark, run at this place; $FIXTURES and
    cp $FIXTURES/... .        $REPOSITORY name the fixture folder and the checkout
    -->
    <!-- test: save as run.yaml -->      above a block: it is written to that file, not run
    <!-- test: skip, REASON -->          above a block: it is not run
"""

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]

_PART = re.compile(
    r"<!-- test: (?P<order>.*?)-->"
    r"|^(?P<indent> *)```(?P<language>\w+)[^\n]*\n(?P<block>.*?)^(?P=indent)```",
    re.DOTALL | re.MULTILINE,
)


@dataclass(frozen=True)
class Step:
    """One thing to do: `action` is "bash", "python" or "save as FILE"."""

    action: str
    text: str
    line_1based: int


def steps(page: str) -> list[Step]:
    """Return what a page says is to be run, in its order."""
    found: list[Step] = []
    order = ""
    for part in _PART.finditer(page):
        line = page.count("\n", 0, part.start()) + 1
        if part["order"] is not None:
            order = part["order"].strip()
            if order.startswith("setup"):
                found.append(Step("bash", order.removeprefix("setup"), line))
                order = ""
            assert re.match(r"$|save as \S+$|skip, \w+", order), f"line {line}: {order!r}?"
            continue
        text = re.sub(f"^{part['indent']}", "", part["block"], flags=re.MULTILINE)
        if order.startswith("save as "):
            found.append(Step(order, text, line))
        elif not order and part["language"] in ("bash", "python"):
            found.append(Step(part["language"], text, line))
        order = ""
    return found


def run(page: str, name: str) -> None:
    """Run a page's steps in the current folder."""
    names: dict[str, object] = {"__name__": "__main__"}
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "FIXTURES": os.environ.get("LEXOME_FIXTURES", str(ROOT / "tests" / "fixtures")),
        "REPOSITORY": str(ROOT),
        "HF_HUB_OFFLINE": "1",
    }
    for step in steps(page):
        place = f"{name}, line {step.line_1based}"
        if step.action == "python":
            code = "\n" * step.line_1based + step.text  # so that tracebacks give the page's lines
            exec(compile(code, name, "exec"), names)
        elif step.action == "bash":
            command = ["bash", "-euo", "pipefail", "-c", step.text]
            done = subprocess.run(
                command, env=environment, capture_output=True, text=True, check=False
            )
            assert done.returncode == 0, f"{place}:\n{step.text}\n{done.stdout}{done.stderr}"
        else:
            Path(step.action.removeprefix("save as ")).write_text(step.text, encoding="utf-8")


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_the_commands_of_a_page_run(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run(page.read_text(encoding="utf-8"), page.relative_to(ROOT).as_posix())


PAGE = """
<!-- test: setup
echo made > made.txt
-->
Text.
```python
from pathlib import Path

words = Path("made.txt").read_text().split()
```
1. In a list:
   ```bash
   cat made.txt run.yaml > both.txt
   ```
"""


def test_a_page_runs_in_order_with_its_hidden_setup(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    saved = "<!-- test: save as run.yaml -->\n```yaml\na: 1\n```\n"
    check = "```python\nassert words == ['made']\n```\n```bash\ngrep -q 'a: 1' both.txt\n```"
    run(saved + PAGE + check, "page.md")


def test_a_skipped_block_needs_a_reason():
    block = "```bash\nfalse\n```"
    assert steps(f"<!-- test: skip, needs a GPU -->\n{block}") == []
    assert len(steps(block)) == 1
    with pytest.raises(AssertionError, match="line 1: 'skip'"):
        steps(f"<!-- test: skip -->\n{block}")


def test_a_failing_command_is_shown_with_its_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(AssertionError, match=r"page.md, line 3:\n *ls nowhere"):
        run("\n\n```bash\nls nowhere\n```", "page.md")
