"""Runs that are scored while someone watches: step by step, with a stop that keeps what is done."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import pandas as pd

from pricer.arena.runs import RunInfo
from pricer.errors import InputError
from pricer.llama.prediction import Prediction
from pricer.llama.predictor import Predictor
from pricer.price.prior import PricePrior
from pricer.scoring.engine import Task
from pricer.scoring.steps import STEP_SECONDS, score_in_steps
from pricer.settings import ModelRef, Settings


@dataclass(frozen=True)
class LiveStep:
    """How far it is. `tables`: for each pass a run's table of the items that are done, by index."""

    done: int
    total: int
    seconds_left: float
    tables: dict[str, pd.DataFrame]


def score_live(
    predictor: Predictor,
    items: pd.DataFrame,
    task: Task,
    *,
    prior: PricePrior | None = None,
    stop: threading.Event | None = None,
    step_seconds: float = STEP_SECONDS,
) -> Iterator[LiveStep]:
    """Score `items` (index, text, price_usd) by the task's passes, in their order and in the steps of
    `scoring.steps`, the tuned pass under `prior`, by default the predictor's.

    Raises InputError, before anything is scored, for a text that cannot be used.
    """
    if items.empty:
        raise InputError("There is no item to score: choose at least one.")
    texts = items["text"].tolist()
    for text in texts:
        predictor.prepare(text)
    rows: dict[str, list[dict[str, Any]]] = {which: [] for which in task.passes}

    def keep(which: str, at: int, prediction: Prediction) -> None:
        item = items.iloc[at]
        rows[which].append(table_row(item["index"], prediction, task.rule, item["price_usd"]))

    steps = score_in_steps(
        predictor, texts, task, prior=prior, stop=stop, step_seconds=step_seconds, on_answer=keep
    )
    for step in steps:
        tables = {
            which: pd.DataFrame(of).sort_values("index", ignore_index=True) for which, of in rows.items()
        }
        yield LiveStep(step.done, step.total, step.seconds_left, tables)


def live_info(
    settings: Settings, which: str, *, name: str, label: str, rule: str, prior: str | None = None
) -> RunInfo:
    """What made a live run; no path of this machine in it."""
    tuned = which == "tuned"
    return RunInfo(
        name=name,
        label=label,
        kind=which,
        base_model=_shown(settings.base),
        base_revision=settings.base.revision,
        adapter=_shown(settings.adapter) if tuned else None,
        adapter_revision=settings.adapter.revision if tuned else None,
        rule=rule,
        prior=prior if tuned else None,
        date=date.today(),
        origin="scored live on this page",
    )


def _shown(model: ModelRef) -> str:
    return Path(model.name).name if model.is_folder else model.name


def table_row(index: int, prediction: Prediction, rule: str, price_usd: float) -> dict[str, Any]:
    crps = float(prediction.distribution.crps(price_usd))
    return {"index": int(index), **prediction.run_row(rule), "crps_usd": crps}
