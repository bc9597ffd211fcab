"""How passes share the cores of a CPU.

Two passes side by side, each on half of the cores, are faster than one after the other on all of them: the threads of a
product wait for each other at its end, and whichever of them has lost its core to another process holds up the rest.
A pass that is alone has all cores.

Where two passes have one core each, each keeps to its own: the system leaves both on one for as long as a whole pass where
another process has the other. And Python's lock, which a pass asks for thousands of times, comes round ten times as fast as
usual, so that neither the passes nor who serves the page wait for each other's turn.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import cache
from typing import TypeVar

import torch

AT_ONCE = 2  # passes
SWITCH_SECONDS = 5e-4  # that a thread keeps Python's lock while another waits for it

Result = TypeVar("Result")


class Cores:
    """Runs passes, in the order of asking. count: the cores there are."""

    def __init__(self, count: int):
        self.count = count
        self._threads = ThreadPoolExecutor(min(AT_ONCE, count), "pass")
        self._free = list(range(AT_ONCE))  # places, of which each pass has one
        self._own = threading.local()  # of each pass: its place, the cores it may use, and those it keeps to
        self._lock = threading.Lock()

    def submit(self, work: Callable[[], Result]) -> Future[Result]:
        return self._threads.submit(self._run, work)

    def share(self) -> None:
        """Called within a pass, between its products: from here on it has its part of the cores. (In a thread that is not
        one of these passes': as many threads as each of those.)"""
        running = AT_ONCE - len(self._free)
        torch.set_num_threads(max(1, self.count // max(1, running)))
        may_use = getattr(self._own, "may_use", ())
        if len(may_use) == self.count == AT_ONCE:  # with more, the system finds an idle one
            self._keep_to({sorted(may_use)[self._own.place]} if running == AT_ONCE else may_use)

    def _run(self, work: Callable[[], Result]) -> Result:
        with self._lock:
            self._own.place = self._free.pop(0)
        self._own.may_use = self._own.keeps_to = _usable()
        try:
            with torch.inference_mode():
                return work()
        finally:
            with self._lock:
                self._free.insert(0, self._own.place)
            torch.set_num_threads(self.count)  # which threads that begin later take over
            self._keep_to(self._own.may_use)

    def _keep_to(self, cores: set[int]) -> None:
        if cores != self._own.keeps_to:
            with suppress(OSError):  # a sandbox forbids it, or the container has other cores by now
                os.sched_setaffinity(0, cores)
            self._own.keeps_to = cores


def _usable() -> set[int]:
    """The cores that this thread may use; none where the system does not say."""
    with suppress(AttributeError, OSError):
        return os.sched_getaffinity(0)
    return set()


@cache
def cores() -> Cores:
    """Those that torch uses when this is first asked."""
    sys.setswitchinterval(min(sys.getswitchinterval(), SWITCH_SECONDS))
    return Cores(torch.get_num_threads())
