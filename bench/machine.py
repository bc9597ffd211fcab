"""What a benchmark on a CPU says of the machine: its name, its cores, what it can compute, and how fast."""

from __future__ import annotations

import platform
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil
import torch

VECTORS = ("avx", "avx2", "fma", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8", "amx_bf16")
SAMPLE_SECONDS = 0.02  # between two looks at the memory


def about(packages: Sequence[str]) -> dict[str, Any]:
    """Machine, versions and date, without anything that names this one machine."""
    processor, flags = platform.processor() or platform.machine(), []
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        found = dict(
            (part.strip() for part in line.split(":", 1))
            for line in cpuinfo.read_text(encoding="utf-8").split("\n\n")[0].splitlines()
            if ":" in line
        )
        processor = found.get("model name", processor)
        flags = [name for name in VECTORS if name in found.get("flags", "").split()]
    return {
        "cpu": processor,
        "cores": psutil.cpu_count(),
        "threads": torch.get_num_threads(),
        "vectors": flags,
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "python": platform.python_version(),
        "versions": {name: number for name in packages if (number := _version(name))},
        "date": date.today().isoformat(),
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def sentence(about: dict[str, Any]) -> str:
    """The line above a table of bench/README.md."""
    versions = ", ".join(f"{name} {number}" for name, number in about["versions"].items())
    return (
        f"{about['cpu']}, {about['cores']} cores ({about['threads']} threads), {' '.join(about['vectors'])}, "
        f"{about['memory_gb']:g} GB; Python {about['python']}, {versions}; {about['date']}."
    )


class MatrixProduct:
    """A product of two n x n matrices in fp32: what this machine reaches at its best."""

    def __init__(self, n: int = 2048):
        self.operations = 2 * n**3
        self._a, self._b = torch.randn(n, n), torch.randn(n, n)
        self._a @ self._b  # the first one warms up

    def rate(self) -> float:
        """Operations a second, of one product."""
        start = time.perf_counter()
        self._a @ self._b
        return self.operations / (time.perf_counter() - start)


@contextmanager
def peak_memory() -> Iterator[list[int]]:
    """A list that grows by this process's resident bytes, again and again, until the block ends."""
    process, seen, ended = psutil.Process(), [], threading.Event()

    def look() -> None:
        while True:
            seen.append(process.memory_info().rss)
            if ended.wait(SAMPLE_SECONDS):
                return

    watcher = threading.Thread(target=look, daemon=True)
    watcher.start()
    try:
        yield seen
    finally:
        ended.set()
        watcher.join()
