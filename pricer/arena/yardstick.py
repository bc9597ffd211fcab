"""What a visitor's run is measured by where nobody else has its items: always guessing their median price."""

from __future__ import annotations

import pandas as pd

from pricer.arena.own_runs import OWN_INDEX, PREFIX, OwnRuns
from pricer.arena.runs import Run, RunInfo

LABEL = "Always the median of {label}"


def alone(own: OwnRuns, name: str) -> pd.DataFrame:
    """The items (index, category, price_usd) of the own run `name` that no other run has; test items others have."""
    others = {i for other, run in own.runs.items() if other != name for i in run.table["index"]}
    mine = own.runs[name].table["index"]
    lonely = mine[(mine >= OWN_INDEX) & ~mine.isin(others)]
    return own.items[own.items["index"].isin(lonely)].reset_index(drop=True)


def with_yardstick(own: OwnRuns, name: str) -> OwnRuns:
    """With a run beside `name` that always says the median price of the items that only `name` has."""
    items = alone(own, name)
    if items.empty:
        return own
    label = LABEL.format(label=own.runs[name].info.label)[:120]
    info = RunInfo(
        name=own.free_name(f"{name.removeprefix(PREFIX)}-median"),
        label=label,
        kind="baseline",
        origin="the median of this file's own prices",
    )
    guess = items[["index"]].assign(guess_usd=float(items["price_usd"].median()))
    return own.with_runs(Run(info, guess.sort_values("index", ignore_index=True)))
