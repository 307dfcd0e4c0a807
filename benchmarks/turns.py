"""Time things in turn (A B A B ...), so that what else the machine does hits all alike."""

import ctypes
import gc
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch


@dataclass(frozen=True)
class Timing:
    """Wall times of one contestant, and what the processor spent on it, all threads added."""

    seconds: tuple[float, ...]
    cpu_seconds: tuple[float, ...]

    @property
    def best(self) -> float:
        """The shortest; what the machine does when nothing else disturbs."""
        return min(self.seconds)

    @property
    def median(self) -> float:
        """The middle one; what can be expected."""
        return statistics.median(self.seconds)

    @property
    def cpu(self) -> float:
        """The least processor time, which other programs disturb less than wall time."""
        return min(self.cpu_seconds)


def in_turn(contestants: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, Timing]:
    """Run all once unmeasured, then each in turn, `rounds` times."""
    for run in contestants.values():
        run()
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in contestants}
    for _ in range(rounds):
        for name, run in contestants.items():
            start, cpu_start = time.perf_counter(), time.process_time()
            run()
            times[name].append((time.perf_counter() - start, time.process_time() - cpu_start))
    return {name: Timing(*zip(*pairs, strict=True)) for name, pairs in times.items()}


def peak_memory_mb(run: Callable[[], object]) -> float | None:
    """Return by how many megabytes a run raises the process's memory; None where unknown."""
    status = Path("/proc/self/status")
    if not status.is_file():
        return None
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # the peak is the present state again
    before = _kilobytes(status, "VmRSS")
    run()
    return (_kilobytes(status, "VmHWM") - before) / 1e3


def _kilobytes(status: Path, name: str) -> int:
    line = next(line for line in status.read_text().splitlines() if line.startswith(name))
    return int(line.split()[1])


def matmul_peak(dtype: torch.dtype) -> float:
    """Return the most multiply-adds times two a second that this machine reaches, on any path."""
    size = 2048
    a, b = (torch.randn(size, size).to(dtype) for _ in range(2))
    paths = [lambda: a @ b]
    if torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        paths.append(lambda: torch.ops.mkldnn._linear_pointwise(a, b, None, "none", [], ""))
    with torch.inference_mode():
        timings = in_turn({str(i): path for i, path in enumerate(paths)}, rounds=8)
    return 2 * size**3 / min(t.best for t in timings.values())


def machine() -> str:
    """Describe the machine in one line."""
    cpu = Path("/proc/cpuinfo")
    names = (
        [x for x in cpu.read_text().splitlines() if x.startswith("model name")]
        if cpu.is_file()
        else []
    )
    name = names[0].partition(":")[2].strip() if names else "unknown CPU"
    return f"{name}, {torch.get_num_threads()} threads, torch {torch.__version__}"
