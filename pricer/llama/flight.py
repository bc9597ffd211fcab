"""A batch of texts on its way through the model."""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

import numpy as np

from pricer.llama.forward import Texts
from pricer.llama.rows import Rows
from pricer.llama.tree import Batch
from pricer.price.lattice import Growth
from pricer.settings import PASSES


@dataclass
class Flight:
    """A batch on its way. begun, past, whole: as for `Predictor._score`."""

    which: str
    indices: list[int]
    ids: list[list[int]]
    begun: Texts | Rows | Batch | None = None
    past: Sequence[int] = ()
    whole: Growth | None = None
    steps: Generator[None, None, np.ndarray] | None = None
    future: Future[None] | None = None
    started: float = field(default_factory=time.perf_counter)
    ended: float = 0.0
    probabilities: np.ndarray | None = None

    def __post_init__(self) -> None:
        if self.which not in PASSES:
            raise ValueError(f"a pass is one of {PASSES}, not {self.which!r}")

    @property
    def batch(self) -> tuple:
        return self.ids, self.which, self.begun, self.past, self.whole

    def to_the_end(self, steps: Generator[None, None, np.ndarray]) -> None:
        self.started = time.perf_counter()
        while True:
            try:
                next(steps)
            except StopIteration as end:
                return self.arrive(end.value)

    def arrive(self, probabilities: np.ndarray) -> None:
        self.probabilities, self.ended = probabilities, time.perf_counter()
