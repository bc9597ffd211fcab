"""Both passes over a few items while someone watches: small batches, and a stop that keeps what is done."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import pandas as pd

from pricer.arena.runs import RunInfo
from pricer.errors import InputError
from pricer.llama.prediction import Prediction, default_rule
from pricer.llama.predictor import Predictor
from pricer.price.prior import PricePrior
from pricer.settings import PASSES, ModelRef, Settings

STEP_SECONDS = 1.0  # about so often there is something new to see


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
    *,
    prior: PricePrior | None = None,
    stop: threading.Event | None = None,
    step_seconds: float = STEP_SECONDS,
) -> Iterator[LiveStep]:
    """Score `items` (index, text, price_usd) by both passes, in their order, a batch at a time; the tuned pass under
    `prior`, by default the predictor's.

    The first batch is one item; the next are as large as fits into `step_seconds`. `stop` is looked at between
    batches. Between them, too, other requests get the model. Raises InputError, before anything is scored, for a
    text that cannot be used.
    """
    prior, stop = prior or predictor.prior, stop or threading.Event()
    rule = default_rule(predictor.pair.adapter, prior)
    if items.empty:
        raise InputError("There is no item to score: choose at least one.")
    prompts = [predictor.prepare(text) for text in items["text"]]
    rows: dict[str, list[dict[str, Any]]] = {which: [] for which in PASSES}
    done, size, spent = 0, 1, 0.0
    while done < len(items) and not stop.is_set():
        batch = items.iloc[done : done + size]
        start = time.perf_counter()
        for which in PASSES:
            found = predictor.predict(prompts[done : done + size], which)
            predictions = [prediction.under(prior) for prediction in found]
            rows[which] += [
                table_row(index, prediction, rule, price_usd)
                for index, price_usd, prediction in zip(
                    batch["index"], batch["price_usd"], predictions, strict=True
                )
            ]
        took = time.perf_counter() - start
        done, spent = done + len(batch), spent + took
        size = max(1, min(4 * size, int(step_seconds * len(batch) / max(took, 1e-6))))
        tables = {
            which: pd.DataFrame(rows[which]).sort_values("index", ignore_index=True) for which in PASSES
        }
        yield LiveStep(done, len(items), spent / done * (len(items) - done), tables)


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
