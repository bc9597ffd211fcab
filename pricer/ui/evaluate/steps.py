"""The steps of the Evaluation tab: what a press, a box or a value makes of a view.

Values come from the browser: what makes no sense changes nothing.
"""

from __future__ import annotations

from dataclasses import replace

import gradio as gr

from pricer.arena.arena import Arena
from pricer.arena.slices import PRICE_BANDS_USD
from pricer.arena.view import (
    COLUMNS,
    EMBEDDED_PAIR,
    MAX_WORDS,
    MEASURES,
    MOST_PINS,
    NARROWING,
    PANELS,
    PRESETS,
    SEED_PAIR,
    SETS,
    SORTS,
    View,
)
from pricer.errors import InputError
from pricer.ui.chart import ChartEvent
from pricer.ui.evaluate import text
from pricer.ui.evaluate.panels import look_at_slice


def step(
    arena: Arena, view: View, name: str, value: str = "", compared: tuple[str, str] | None = None
) -> View:
    """What the button `name` with `value` makes of a view; one that makes no sense changes nothing. `compared`: the
    runs of the Compare tab's pair."""
    if name in ("make_a", "make_b") and value in arena.runs:
        return replace(view, **{f"run_{name[-1]}": value})
    pair = (
        {"seed": SEED_PAIR, "embedded": EMBEDDED_PAIR, "compare": compared}.get(value)
        if name == "pair"
        else None
    )
    if pair and set(pair) <= set(arena.runs):
        return replace(view, run_a=pair[0], run_b=pair[1])
    if name == "panel" and value in PANELS:
        return replace(view, panel=value)
    if name == "set" and value in SETS:
        return replace(view, item_set=value)
    if name == "open":
        index = _item(arena, [value])
        return view if index is None else replace(view, item=index)
    if name == "slice":
        return look_at_slice(arena, view, value)
    if name == "everyone":
        return replace(view, everyone=not view.everyone)
    if name == "pin" and value in arena.runs:
        return toggle_pin(view, value)
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
        walk = arena.walk(view).tolist()
        if view.item in walk:
            at = walk.index(view.item) + int(value)
            return replace(view, item=walk[min(max(at, 0), len(walk) - 1)])
    return view


def toggle_pin(view: View, name: str) -> View:
    """With the run pinned, or no longer. Raises InputError where MOST_PINS are."""
    if name in view.pins:
        return replace(view, pins=tuple(pin for pin in view.pins if pin != name))
    if len(view.pins) >= MOST_PINS:
        raise InputError(text.PINS_FULL.format(most=MOST_PINS))
    return replace(view, pins=tuple(sorted((*view.pins, name))))


def settled(arena: Arena, view: View) -> View:
    """The view with what this arena does not have taken out: runs that are gone, and what only they or another item
    set had."""
    first = arena.first_view()
    if not {view.run_a, view.run_b} <= set(arena.runs):
        view = replace(view, run_a=first.run_a, run_b=first.run_b)
    return replace(
        view,
        categories=tuple(name for name in view.categories if name in arena.categories),
        selection=tuple(index for index in view.selection if index in arena.known_indexes),
        pins=tuple(name for name in view.pins if name in arena.runs),
        item=view.item if view.item in arena.known_indexes else None,
    )


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


def known_measure(name: str) -> str:
    return name if name in MEASURES else MEASURES[0]


def read_usd(value: float | None) -> float | None:
    """A dollar box as a filter: empty or 0 is no limit. Raises InputError for what is no amount."""
    if not value:
        return None
    if not 0 <= value < 1e9:
        raise InputError(text.AMOUNT_BAD)
    return float(value)


def read_choices(name: str, value: list[str] | None) -> tuple[str, ...]:
    """Several choices as a view holds them: columns in their own order, all else by name."""
    chosen = set(value or ())
    return (
        tuple(column for column in COLUMNS if column in chosen)
        if name == "columns"
        else tuple(sorted(chosen))
    )


def read_words(value: str | None) -> str:
    """A search box's words. Raises InputError for more than a link could carry."""
    words = " ".join(str(value or "").split())
    if len(words) > MAX_WORDS:
        raise InputError(text.WORDS_LONG.format(most=MAX_WORDS))
    return words


def _item(arena: Arena, row: list | None) -> int | None:
    """The number of the item that a mark's customdata or a table's row begins with."""
    try:
        index = int(float(row[0]))
    except (TypeError, ValueError, IndexError, OverflowError):
        return None
    return index if index in arena.known_indexes else None
