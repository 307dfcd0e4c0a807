"""`import lexome`: instant, complete, and helpful about misspelt names."""

import ast
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import lexome

LIGHT = ("core", "sequence", "formats", "cli")


def _python(code: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    ).stdout


def test_importing_lexome_imports_neither_torch_nor_numpy():
    loaded = _python("import sys, lexome; print(*sys.modules)").split()
    assert not {"torch", "numpy", "transformers"} & set(loaded)


def test_the_light_folders_do_not_import_torch():
    source = Path(lexome.__file__).parent
    names = [
        "lexome." + ".".join(path.relative_to(source).with_suffix("").parts)
        for folder in LIGHT
        for path in (source / folder).glob("*.py")
        if path.stem not in ("__init__", "__main__")
    ]
    assert names
    code = "import sys\n" + "\n".join(
        f"import {name}; 'torch' in sys.modules and sys.exit('{name} imports torch')"
        for name in names
    )
    run = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


def test_editors_see_the_same_names_as_python():
    tree = ast.parse(Path(lexome.__file__).read_text(encoding="utf-8"))
    seen = {
        node.names[0].name: f"{node.module}:{node.names[0].name}"
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("lexome.")
    }
    seen.pop("nearest")
    assert seen == lexome._FRONT_DOOR
    assert lexome.__all__ == sorted(lexome._FRONT_DOOR)


@pytest.mark.parametrize("name", sorted(lexome._FRONT_DOOR))
def test_every_name_is_the_function_it_promises(name: str):
    module, _, function = lexome._FRONT_DOOR[name].partition(":")
    assert getattr(lexome, name) is getattr(import_module(module), function)


def test_dir_lists_what_is_not_imported_yet():
    assert {"load", "embed", "__version__"} <= set(dir(lexome))


def test_a_misspelt_name_gets_a_suggestion():
    with pytest.raises(AttributeError, match=r"'score_variant'. Did you mean 'score_variants'"):
        _ = lexome.score_variant  # pyright: ignore[reportAttributeAccessIssue]


def test_a_private_name_gets_no_list():
    with pytest.raises(AttributeError, match=r"has no attribute '__wrapped__'\.$"):
        _ = lexome.__wrapped__  # pyright: ignore[reportAttributeAccessIssue]
