"""Which rows of a pair's table a view's filters and preset leave."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pandas as pd

from pricer.arena import slices
from pricer.arena.view import NARROWING, View

PRESET_ITEMS = 25  # a preset that ranks items shows so many
CHEAP_USD = 50.0


def filter_mask(table: pd.DataFrame, view: View) -> slices.Mask:
    """Which rows of a pair's table the view's filters leave; preset and selection come after."""
    masks = (
        slices.has_category(table, view.categories or None),
        slices.has_price(table, view.low_usd, view.high_usd),
        slices.has_outcome(table, view.outcomes_a or None, "outcome_a"),
        slices.has_outcome(table, view.outcomes_b or None, "outcome_b"),
        slices.differs(table["guess_usd_a"], table["guess_usd_b"], view.apart_usd),
        slices.has_words(table, view.words),
    )
    return np.logical_and.reduce(masks)


def preset_rows(table: pd.DataFrame, preset: str) -> pd.DataFrame:
    """The rows that a preset picks, the most telling first; at most PRESET_ITEMS where it ranks."""
    a, b, price = table["error_usd_a"], table["error_usd_b"], table["price_usd"]
    missed_b = table["outcome_b"] == "miss"
    over_usd = table["guess_usd_b"] - price
    apart_usd = (table["guess_usd_a"] - table["guess_usd_b"]).abs()
    picks, score, top = {
        "worst-b": (missed_b, b, PRESET_ITEMS),
        "b-beats-a": (b < a, a - b, PRESET_ITEMS),
        "a-beats-b": (a < b, b - a, PRESET_ITEMS),
        "both-wrong": (missed_b & (table["outcome_a"] == "miss"), np.minimum(a, b), None),
        "overpriced": ((price <= CHEAP_USD) & (over_usd > 0) & (table["outcome_b"] != "hit"), over_usd, None),
        "disagree": (apart_usd > 0, apart_usd, PRESET_ITEMS),
    }[preset]
    picked = table[picks]
    order = np.argsort(-np.asarray(score)[picks], kind="stable")  # equal ones by index
    return picked.iloc[order[:top]]


def narrowed_table(table: pd.DataFrame, view: View) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The rows that pass the filters, and those of them that preset and selection leave, in the preset's order."""
    filtered = chosen = table[filter_mask(table, view)]
    if view.preset:
        chosen = preset_rows(chosen, view.preset)
    if view.selection:
        chosen = chosen[chosen["index"].isin(view.selection)]
    return filtered, chosen


def contradiction(table: pd.DataFrame, view: View) -> tuple[str, ...]:
    """The fewest fields of a view that together leave no row, in the order of NARROWING; none where rows are left."""
    plain = view.reset()
    used = [name for name in NARROWING if getattr(view, name) != getattr(plain, name)]
    for size in (1, 2, len(used)):
        for fields in combinations(used, size):
            alone = view.without(*[name for name in used if name not in fields])
            if narrowed_table(table, alone)[1].empty:
                return fields
    return ()
