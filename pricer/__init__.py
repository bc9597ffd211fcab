"""Pricer: what a base Llama and its fine-tuned sibling think a product costs."""

from __future__ import annotations

import math
import os
from collections.abc import MutableMapping
from pathlib import Path

__version__ = "0.1.0"

# The threads of a product wait for each other at its end. Asleep they are late for the next one, which costs a fifth of a
# pass on a quiet machine; spinning they keep those that they wait for off the cores where another process computes, and a
# pass takes twice as long. So they spin for a few microseconds and then sleep.
SPINS = 3000
CGROUP = Path("/sys/fs/cgroup")


def settle(environ: MutableMapping[str, str] = os.environ) -> None:
    """Tell torch, which reads it when it is loaded, how many threads it has and how they wait for each other, where
    `OMP_WAIT_POLICY`, `GOMP_SPINCOUNT` and `OMP_NUM_THREADS` do not. A container with fewer cores than the machine has
    as many threads: the system stops all of them when their time is used up."""
    if "OMP_WAIT_POLICY" not in environ:
        environ.setdefault("GOMP_SPINCOUNT", str(SPINS))
    if (cores := quota(CGROUP)) and cores < (os.cpu_count() or 1):
        environ.setdefault("OMP_NUM_THREADS", str(cores))


def quota(cgroup: Path) -> int | None:
    """How many cores' time this container may use, rounded up; None where nothing limits it, or nothing is known."""
    try:
        if (both := cgroup / "cpu.max").is_file():
            most, period = both.read_text().split()
        else:
            most, period = (
                (cgroup / "cpu" / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period")
            )
        return max(1, math.ceil(int(most) / int(period))) if int(most) > 0 else None
    except (OSError, ValueError):
        return None


settle()
