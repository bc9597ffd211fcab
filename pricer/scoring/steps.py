"""Texts scored while somebody waits: in steps of about a second, between which the model is free for other requests."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from pricer.llama.prediction import Prediction
from pricer.llama.predictor import Predictor
from pricer.price.prior import PricePrior
from pricer.scoring.engine import Task, score_texts

STEP_SECONDS = 1.0


@dataclass(frozen=True)
class Step:
    """How far it is. `columns`: what scoring adds, of the first `done` of `total` texts."""

    done: int
    total: int
    seconds_left: float
    columns: dict[str, list]


def score_in_steps(
    predictor: Predictor,
    texts: Sequence[str],
    task: Task,
    *,
    prior: PricePrior | None = None,
    stop: threading.Event | None = None,
    step_seconds: float = STEP_SECONDS,
    on_answer: Callable[[str, int, Prediction], None] = lambda which, at, prediction: None,
) -> Iterator[Step]:
    """Score texts in their order with the engine of `python -m pricer.score`.

    `prior`: another one than the predictor's. `on_answer` is told of every answer: pass, place among `texts`, and all
    that the model said. The first step is one text; the next are as many as fit into `step_seconds`. `stop` is looked
    at between steps. Raises InputError for a text that cannot be used.
    """
    stop = stop or threading.Event()
    columns: dict[str, list] = {field.name: [] for field in task.fields}
    done, size, spent = 0, 1, 0.0
    while done < len(texts) and not stop.is_set():
        start = time.perf_counter()
        part = texts[done : done + size]

        def tell(which: str, at: int, prediction: Prediction, before: int = done) -> None:
            on_answer(which, before + at, prediction)

        for name, values in score_texts(predictor, part, task, prior=prior, on_answer=tell).items():
            columns[name] = columns[name] + values  # a new list: what was given out stays as it was
        took = time.perf_counter() - start
        done, spent = done + len(part), spent + took
        size = max(1, min(4 * size, int(step_seconds * len(part) / max(took, 1e-6))))
        yield Step(done, len(texts), spent / done * (len(texts) - done), dict(columns))
