"""The steps of the Evaluation tab: what a press, a box or a value makes of a view.

Values come from the browser: what makes no sense changes nothing.
"""

from __future__ import annotations

from dataclasses import replace

import gradio as gr

from pricer.arena.arena import Arena
from pricer.arena.slices import PRICE_BANDS_USD
from pricer.arena.view import EMBEDDED_PAIR, NARROWING, PRESETS, SEED_PAIR, SORTS, View
from pricer.errors import InputError
from pricer.ui.chart import ChartEvent
from pricer.ui.evaluate import text

SHIPPED_PAIRS = {"seed": SEED_PAIR, "embedded": EMBEDDED_PAIR}


def step(arena: Arena, view: View, name: str, value: str = "") -> View:
    """What the button `name` with `value` makes of a view; one that makes no sense changes nothing."""
    if name in ("make_a", "make_b") and value in arena.runs:
        return replace(view, **{f"run_{name[-1]}": value})
    if name == "pair" and value in SHIPPED_PAIRS and set(SHIPPED_PAIRS[value]) <= set(arena.runs):
        run_a, run_b = SHIPPED_PAIRS[value]
        return replace(view, run_a=run_a, run_b=run_b)
    if name == "swap":
        return view.swapped()
    if name == "preset" and value in PRESETS:
        return replace(view, preset="" if view.preset == value else value, selection=())
    if name == "remove" and value in NARROWING:
        return view.without(value)
    if name == "reset":
        return view.reset()
    if name == "sort" and value in SORTS:
        return replace(view, sort=value)
    if name == "close":
        return replace(view, item=None)
    if name == "step" and value in ("1", "-1"):
        ranked = arena.index[arena.narrowed(view).ranked].tolist()
        if view.item in ranked:
            at = ranked.index(view.item) + int(value)
            return replace(view, item=ranked[min(max(at, 0), len(ranked) - 1)])
    return view


def select(arena: Arena, view: View, event: ChartEvent) -> View:
    """The view of the items inside a box; an empty box selects nothing."""
    indexes = {_item(arena, row) for row in event.customdata} - {None}
    return replace(view, selection=tuple(sorted(indexes)))


def open_mark(arena: Arena, view: View, event: ChartEvent) -> View:
    """The view with the item of the clicked mark open."""
    index = _item(arena, event.customdata[0]) if event.points else None
    return view if index is None else replace(view, item=index)


def open_row(arena: Arena, view: View, event: gr.SelectData) -> View:
    """The same for a row of the table. Its event's index is wrong after sorting; the row's values are right."""
    index = _item(arena, event.row_value)
    return view if index is None else replace(view, item=index)


def look_at_group(arena: Arena, view: View, event: ChartEvent) -> View:
    """The view of the clicked category, or of the clicked price band."""
    kind, label = (event.customdata[0] or ("", ""))[:2] if event.points else ("", "")
    if kind == "category" and label in arena.categories:
        return replace(view, categories=(label,))
    for i, low in enumerate(PRICE_BANDS_USD):
        higher = PRICE_BANDS_USD[i + 1 :]
        if kind == "price" and label == (f"${low:,g}–{higher[0]:,g}" if higher else f"${low:,g}+"):
            # A band's upper end belongs to the next one, and prices have cents.
            high = round(higher[0] - 0.01, 2) if higher else None
            return replace(view, low_usd=float(low) or None, high_usd=high)
    return view


def known_run(arena: Arena, name: str) -> str:
    if name not in arena.runs:
        raise InputError(text.RUN_GONE.format(name=name))
    return name


def read_usd(value: float | None) -> float | None:
    """A dollar box as a filter: empty or 0 is no limit. Raises InputError for what is no amount."""
    if not value:
        return None
    if not 0 <= value < 1e9:
        raise InputError(text.AMOUNT_BAD)
    return float(value)


def _item(arena: Arena, row: list | None) -> int | None:
    """The number of the item that a mark's customdata or a table's row begins with."""
    try:
        index = int(float(row[0]))
    except (TypeError, ValueError, IndexError, OverflowError):
        return None
    return index if index in arena.known_indexes else None
