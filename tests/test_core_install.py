"""Every module can be imported when only the core dependencies are installed."""

import re
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, packages_distributions, requires
from pathlib import Path

import lexome

NEEDS_AN_EXTRA = {  # modules that are themselves imported inside functions, with the reason
    "lexome.training.trainer": "its classes extend those of transformers",
}
CORE_LIMIT = 25  # packages beyond torch and what torch itself needs

BLOCK = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in blocked:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

blocked = set(sys.argv[1].split(","))
sys.meta_path.insert(0, Absent())
for name in sys.argv[2].split(","):
    __import__(name)
"""


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _closure(*roots: str) -> set[str]:
    """Return the installed packages that `roots` need, without extras, themselves included."""
    found: set[str] = set()
    waiting = list(roots)
    while waiting:
        name = _normal(waiting.pop())
        try:
            needed = requires(name) or []
        except PackageNotFoundError:  # for another platform or Python
            continue
        if name not in found:
            found.add(name)
            waiting += [
                re.split(r"[^\w.-]", n, maxsplit=1)[0] for n in needed if "extra ==" not in n
            ]
    return found


def test_all_modules_import_without_optional_packages():
    core = _closure("lexome")
    optional = {
        module
        for module, packages in packages_distributions().items()
        if module not in sys.stdlib_module_names
        and not core & {_normal(package) for package in packages}
    }
    source = Path(lexome.__file__).parent
    modules = {
        ".".join(path.relative_to(source.parent).with_suffix("").parts).removesuffix(".__init__")
        for path in source.rglob("*.py")
        if path.stem != "__main__"
    } - set(NEEDS_AN_EXTRA)
    run = subprocess.run(
        [sys.executable, "-c", BLOCK, ",".join(optional), ",".join(sorted(modules))],
        check=False,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr


def test_the_core_stays_small():
    beyond = _closure("lexome") - _closure("torch") - {"lexome"}
    assert len(beyond) <= CORE_LIMIT, sorted(beyond)
