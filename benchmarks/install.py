"""Measure what installing and starting lexome costs.

Installs the package with its core dependencies into a fresh environment in a temporary folder and
prints how many packages and megabytes that brings beyond torch and what torch itself needs, the
time of `import lexome`, and the time of `lexome --help` and `lexome --version`.

    python benchmarks/install.py
"""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent
REPEATS = 10
TARGETS = {"packages": 25, "MB": 200, "seconds to --help": 0.3}

MEASURE = """
import json, re
from importlib.metadata import PackageNotFoundError, distribution

def normal(name):
    return re.sub(r"[-_.]+", "-", name).lower()

def closure(root):
    found, waiting = {}, [root]
    while waiting:
        name = normal(waiting.pop())
        try:
            package = distribution(name)
        except PackageNotFoundError:
            continue
        if name not in found:
            found[name] = package
            plain = [need for need in package.requires or [] if "extra ==" not in need]
            waiting += [re.split(r"[^\\w.-]", need, maxsplit=1)[0] for need in plain]
    return found

def megabytes(package):
    files = [package.locate_file(path) for path in package.files or []]
    return sum(file.stat().st_size for file in files if file.is_file()) / 1e6

torch = closure("torch")
everything = {name: megabytes(package) for name, package in closure("lexome").items()}
print(json.dumps({
    "torch": {name: everything[name] for name in torch},
    "beyond": {name: size for name, size in everything.items() if name not in torch},
}))
"""


def fastest(command: list[str | Path]) -> float:
    """Return the shortest wall time of a command in seconds, out of a few runs."""
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        times.append(time.perf_counter() - start)
    return min(times)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        python = Path(folder) / "bin" / "python"
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        start = time.perf_counter()
        install = ["-m", "pip", "install", "--quiet", "-c", ROOT / "constraints.txt", ROOT]
        subprocess.run([python, *install], check=True)
        print(f"installed in {time.perf_counter() - start:.0f} s")

        measured = subprocess.run(
            [python, "-c", MEASURE], check=True, capture_output=True, text=True, cwd=folder
        )
        sizes = json.loads(measured.stdout)
        lexome_mb = sizes["beyond"].pop("lexome")
        print("\nnot counted, torch and what it needs:", ", ".join(sorted(sizes["torch"])))
        print(f"{sum(sizes['torch'].values()):.0f} MB")
        print("\ncounted, by size:")
        for name, size in sorted(sizes["beyond"].items(), key=lambda item: -item[1]):
            print(f"  {name:<20} {size:6.1f} MB")

        bare = fastest([python, "-c", "pass"])
        imported = fastest([python, "-c", "import lexome"])
        answered = fastest([python.with_name("lexome"), "--help"])
        version = fastest([python.with_name("lexome"), "--version"])
        reached = {
            "packages": len(sizes["beyond"]),
            "MB": round(sum(sizes["beyond"].values()) + lexome_mb, 1),
            "seconds to --help": round(answered, 3),
        }
        print(f"\nlexome itself: {lexome_mb:.1f} MB")
        print(f"import lexome: {imported:.3f} s (python alone {bare:.3f} s)")
        print(f"lexome --version: {version:.3f} s")
        for what, limit in TARGETS.items():
            verdict = "" if reached[what] <= limit else "  MISSED"
            print(f"{what}: {reached[what]} (at most {limit}){verdict}")


if __name__ == "__main__":
    main()
