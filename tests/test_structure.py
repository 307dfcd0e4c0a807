"""The shape of the house: who may import whom, where tests stand, what a family file looks like."""

import ast
import re
import subprocess
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import lexome

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src"
PACKAGE = SOURCE / "lexome"

LAYERS = (
    *("core", "sequence", "formats", "tokenizers", "blocks", "checkpoints", "objectives"),
    *("families", "model", "catalog", "inference", "training", "tasks", "reports", "cli"),
)
MODULES = {
    ".".join(path.relative_to(SOURCE).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
}
FAMILIES = [path for path in sorted((PACKAGE / "families").glob("*.py")) if path.stem[0] != "_"]

TESTED_ELSEWHERE = {  # source that has no test file of its own, with the reason
    "families/": "tests/families runs every test over every family of the catalog",
}


def _module_of(name: str) -> str:
    """Return the longest prefix of a dotted name that is a module of ours."""
    while name not in MODULES:
        name = name.rpartition(".")[0]
    return name


def _imports(path: Path, *, at_import_time: bool = False) -> set[str]:
    """Return our modules that a file names in import statements and in `import_module` calls."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = _run_at_import(tree) if at_import_time else ast.walk(tree)
    names: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif (
            isinstance(node, ast.Call)
            and ast.unparse(node.func).endswith("import_module")
            and isinstance(node.args[0], ast.Constant)
        ):
            names.add(node.args[0].value)
    return {_module_of(name) for name in names if name.split(".")[0] == "lexome"}


def _run_at_import(tree: ast.AST) -> list[ast.AST]:
    """Return the nodes that run when the module is imported: no function bodies, no type hints."""
    nodes: list[ast.AST] = []
    for child in ast.iter_child_nodes(tree):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING":
            continue
        nodes += [child, *_run_at_import(child)]
    return nodes


def _layer(module: str) -> int:
    """Return how far right a module stands; lexome itself (its version) is left of everything."""
    parts = module.split(".")
    return LAYERS.index(parts[1]) if len(parts) > 1 else -1


def test_every_module_stands_in_a_known_layer():
    strangers = [m for m in MODULES if m != "lexome" and m.split(".")[1] not in LAYERS]
    assert not strangers, f"add {strangers} to LAYERS or move them into a folder that is there"


@pytest.mark.parametrize("module", [m for m in MODULES if m != "lexome"])
def test_imports_point_left(module: str):
    wrong = [i for i in _imports(MODULES[module]) if _layer(i) > _layer(module)]
    assert not wrong, f"{module} imports {wrong}, which stand right of it in {LAYERS}"


@pytest.mark.parametrize("family", FAMILIES, ids=lambda path: path.stem)
def test_families_do_not_import_each_other(family: Path):
    others = {f"lexome.families.{path.stem}" for path in FAMILIES if path != family}
    assert not _imports(family) & others, "move what both need into blocks/ or objectives/"


def test_no_module_comes_in_by_the_front_door():
    for module, path in MODULES.items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module == "lexome":
                taken = {alias.name for alias in node.names} & set(lexome.__all__)
                assert not taken, f"{module}: import {taken} from the module that defines them"


def test_imports_have_no_cycle():
    graph = {
        module: _imports(path, at_import_time=True) - {module, "lexome"}
        for module, path in MODULES.items()
        if module != "lexome"
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"import cycle: {' <- '.join(error.args[1])}")


@pytest.mark.parametrize(
    "path",
    [p for m, p in MODULES.items() if p.name != "__init__.py"],
    ids=lambda path: path.relative_to(PACKAGE).as_posix(),
)
def test_tests_mirror_the_source(path: Path):
    place = path.relative_to(PACKAGE)
    if any(place.as_posix().startswith(prefix) for prefix in TESTED_ELSEWHERE):
        return
    test = ROOT / "tests" / place.parent / f"test_{place.name.lstrip('_')}"
    assert test.is_file(), f"{place} is tested by {test.relative_to(ROOT)}, which is not there"


def test_files_are_named_after_what_they_hold():
    vague = {"utils", "util", "misc", "common", "helpers", "helper"}
    tree = [*PACKAGE.rglob("*"), *(ROOT / "tests").rglob("*")]
    assert not [path for path in tree if path.stem.removeprefix("test_") in vague]


@pytest.mark.parametrize("family", FAMILIES, ids=lambda path: path.stem)
def test_a_family_file_can_be_read_in_one_sitting(family: Path):
    lines = family.read_text(encoding="utf-8").count("\n")
    assert 150 <= lines <= 450, f"{family.name} has {lines} lines"


def _passages(path: Path) -> set[tuple[str, ...]]:
    """Return the runs of five code lines of a file, class names and constants made equal."""
    code = [
        re.sub(r"\b[A-Z]\w+", "N", line.strip())
        for line in path.read_text(encoding="utf-8").splitlines()
        if line.strip() and not line.strip().startswith(("#", "import ", "from ", '"""'))
    ]
    return {tuple(code[i : i + 5]) for i in range(len(code) - 4)}


@pytest.mark.parametrize("family", FAMILIES, ids=lambda path: path.stem)
def test_a_family_does_not_repeat_its_siblings(family: Path):
    own = _passages(family)
    siblings = set().union(*(_passages(path) for path in FAMILIES if path != family))
    share = len(own & siblings) / max(1, len(own))
    assert share < 0.12, f"{share:.0%} of {family.name} stands in its siblings too: move it once"


def _text_files() -> list[Path]:
    """Return the text files that git knows or would add; without git, all in our folders."""
    listing = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        check=False,
        text=True,
    )
    if listing.returncode == 0:
        paths = [ROOT / name for name in listing.stdout.split("\0") if name]
    else:
        paths = [p for d in ("src", "tests", "benchmarks", "docs") for p in (ROOT / d).rglob("*")]
    endings = {".py", ".md", ".toml", ".yaml", ".yml", ".txt", ".json", ".html", ".cfg", ""}
    return [p for p in paths if p.is_file() and p.suffix in endings and b"\0" not in p.read_bytes()]


def test_no_file_knows_the_place_it_was_written_in():
    place = re.compile(
        r"(?<![\w.~*)}\]])/(?:home|root|Users|work|scratch|mnt)/[\w.-]+"  # a machine's folders
        r"|\bissues? #?\d"  # a tracker's numbers
    )
    found = [
        f"{path.relative_to(ROOT)}: {match[0]}"
        for path in _text_files()
        for match in [place.search(path.read_text(encoding="utf-8", errors="replace"))]
        if match
    ]
    assert not found
