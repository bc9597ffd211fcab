"""How passes share the cores of a CPU.

Two passes side by side, each on half of the cores, are faster than one after the other on all of them: the threads of a
product wait for each other at its end, and whichever of them has lost its core to another process holds up the rest.
A pass that is alone has all cores.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache
from typing import TypeVar

import torch

AT_ONCE = 2  # passes

Result = TypeVar("Result")


class Cores:
    """Runs passes, in the order of asking. count: the cores there are."""

    def __init__(self, count: int):
        self.count = count
        self._threads = ThreadPoolExecutor(min(AT_ONCE, count), "pass")
        self._running = 0
        self._lock = threading.Lock()

    def submit(self, work: Callable[[], Result]) -> Future[Result]:
        return self._threads.submit(self._run, work)

    def share(self) -> None:
        """Called within a pass, between its products: from here on it has its part of the cores."""
        torch.set_num_threads(max(1, self.count // max(1, self._running)))

    def _run(self, work: Callable[[], Result]) -> Result:
        with self._lock:
            self._running += 1
        try:
            with torch.inference_mode():
                return work()
        finally:
            with self._lock:
                self._running -= 1
            torch.set_num_threads(self.count)  # which threads that begin later take over


@cache
def cores() -> Cores:
    """Those that torch uses when this is first asked."""
    return Cores(torch.get_num_threads())
