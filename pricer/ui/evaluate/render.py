"""From a view to what every part of the Evaluation tab shows.

A part names the fields of the view that it depends on: after a click only the parts whose fields changed
are made again. That keeps a click short, and a plot that did not change keeps its zoom.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from html import escape
from typing import Any

import gradio as gr
import numpy as np
import pandas as pd

from pricer.arena.arena import Arena
from pricer.arena.metrics import HIT_SHARE
from pricer.arena.records import HeadToHead, Item, Narrowed
from pricer.arena.view import NARROWING, SETS, View
from pricer.errors import InputError
from pricer.figures import errors, guesses, several
from pricer.ui.evaluate import board, heads, item, panels, text
from pricer.ui.evaluate.html import button, category
from pricer.ui.evaluate.item_texts import ItemTexts, SessionTexts

TABLE_ROWS = 2_000  # the browser holds them all

PAIR = ("item_set", "run_a", "run_b")
ITEMS = (*PAIR, *NARROWING)
SCATTER = (*ITEMS, "log_axis", "by_share", "item")
BOARD = (*ITEMS, "sort", "everyone", "find", "kinds", "columns", "pins")


@dataclass(frozen=True)
class Place:
    """What the page knows besides the view: for each item set the runs of the Compare tab's pair, if it has been
    evaluated there, and how many runs there are."""

    compared: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    runs_of: Mapping[str, int] = field(default_factory=lambda: {SETS[0]: 1})


class Scene:
    """What a view shows, computed when a part asks for it."""

    def __init__(self, arena: Arena, view: View, texts: ItemTexts | SessionTexts, place: Place):
        self.arena, self.view, self.texts, self.place = arena, view, texts, place

    @cached_property
    def narrowed(self) -> Narrowed:
        return self.arena.narrowed(self.view)

    @cached_property
    def figures(self) -> HeadToHead | None:
        return self.arena.head_to_head(self.view)

    @cached_property
    def drawn(self) -> tuple[pd.DataFrame, np.ndarray | None]:
        """The items that the scatters draw, all that pass the filters if there are not too many, and which
        of them preset and selection leave (None: all)."""
        table = self.arena.table(self.view, self.narrowed.filtered)
        whole = len(self.narrowed.rows) == len(table)
        picked = None if whole else table["row"].isin(self.narrowed.rows).to_numpy()
        drawn = guesses.drawn_items(table, picked)
        return drawn, None if whole else drawn["row"].isin(self.narrowed.rows).to_numpy()

    @cached_property
    def table(self) -> pd.DataFrame:
        """The items in view, by index."""
        return self.arena.table(self.view, self.narrowed.rows)

    @cached_property
    def item(self) -> Item | None:
        if self.view.item is None:
            return None
        try:
            return self.arena.item(self.view.item)
        except InputError:
            return None

    @property
    def away(self) -> tuple[np.ndarray, np.ndarray]:
        return tuple(self.table[f"error_usd_{end}"].to_numpy() for end in ("a", "b"))

    def label(self, end: str) -> str:
        return self.arena.infos[getattr(self.view, f"run_{end}")].label


@dataclass(frozen=True)
class Part:
    fields: tuple[str, ...]
    show: Callable[[Scene], Any]
    panel: str = ""  # made only while this panel is open


def render(
    arena: Arena,
    view: View,
    texts: ItemTexts | SessionTexts,
    before: View | None = None,
    only: Collection[str] = (),
    place: Place = Place(),
) -> list:
    """A value or an update for each of PARTS, in their order; `before` is what the page shows now. `only`: make
    these parts and no others."""
    scene = Scene(arena, view, texts, place)
    return [
        gr.skip()
        if (only and name not in only) or (before is not None and _same(part, view, before))
        else part.show(scene)
        for name, part in PARTS.items()
    ]


def _same(part: Part, view: View, before: View) -> bool:
    if part.panel and view.panel != part.panel:
        return True
    fields = (*part.fields, "panel") if part.panel else part.fields
    return all(getattr(view, name) == getattr(before, name) for name in fields)


# The parts -----------------------------------------------------------------------------------------------


def run_choices(arena: Arena) -> list[tuple[str, str]]:
    """(label, name) of every run, by kind as text.KINDS has them, then by label."""
    order = list(text.KINDS)
    infos = sorted(arena.infos.values(), key=lambda info: (order.index(info.kind), info.label.lower()))
    words = {True: text.RUN_CHOICE_PUBLISHED, False: text.RUN_CHOICE}
    return [(words[i.published].format(label=i.label, kind=text.KINDS[i.kind]), i.name) for i in infos]


def _picker(end: str) -> Callable[[Scene], Any]:
    def show(scene: Scene):
        return gr.update(choices=run_choices(scene.arena), value=getattr(scene.view, f"run_{end}"))

    return show


def _value(field: str) -> Callable[[Scene], Any]:
    def show(scene: Scene):
        value = getattr(scene.view, field)
        return gr.update(value=list(value) if isinstance(value, tuple) else value)

    return show


def _categories(scene: Scene) -> Any:
    choices = [(category(name), name) for name in scene.arena.categories]
    return gr.update(choices=choices, value=list(scene.view.categories))


def _scatter(end: str) -> Callable[[Scene], Any]:
    def show(scene: Scene):
        table, picked = scene.drawn
        if table.empty:
            return None
        return guesses.guess_against_price(
            table,
            end,
            label=scene.label(end),
            picked=picked,
            log=scene.view.log_axis,
            by_share=scene.view.by_share,
            open_index=scene.view.item,
            revision=f"{scene.view.run_a} {scene.view.run_b}",
        )

    return show


def _scatter_hint(scene: Scene) -> str:
    drawn, items = len(scene.drawn[0]), len(scene.narrowed.filtered)
    sampled = text.SCATTER_SAMPLED.format(drawn=drawn, items=items) if drawn < items else ""
    return f'<p class="hint">{text.SCATTER_HINT} {sampled}</p>'


def _title(end: str) -> Callable[[Scene], Any]:
    def show(scene: Scene):
        within = None
        if scene.view.by_share and len(scene.table):
            within = 100 * float(
                (scene.table[f"error_usd_{end}"] / scene.table["price_usd"] < HIT_SHARE).mean()
            )
        info = scene.arena.infos[getattr(scene.view, f"run_{end}")]
        return heads.scatter_title(end, info, scene.figures, within)

    return show


def _starters(scene: Scene) -> Any:
    shown = scene.item is None
    return gr.update(value=item.starters(scene.arena, scene.view) if shown else "", visible=shown)


def _detail_head(scene: Scene) -> Any:
    if scene.item is None:
        return ""
    walk = scene.arena.walk(scene.view)
    at = np.flatnonzero(walk == scene.item.index)
    return item.item_head(scene.item, scene.view, (int(at[0]), len(walk)) if len(at) else None)


def _strip(scene: Scene) -> Any:
    if scene.item is None:
        return None
    return guesses.item_strip(scene.item, (scene.view.run_a, scene.view.run_b), text.KINDS)


def _detail_foot(scene: Scene) -> str:
    if scene.item is None:
        return ""
    if scene.view.item_set != SETS[0]:
        return f'<p class="hint">{text.TEXT_NEVER}</p>'
    return item.item_foot(scene.texts.get(scene.item.index), scene.texts.waiting)


def _signed_errors(scene: Scene) -> Any:
    table = scene.table
    over = [(table[f"guess_usd_{end}"] - table["price_usd"]).to_numpy() for end in ("a", "b")]
    return errors.error_spread(*over) if len(table) else None


def _groups(which: int) -> Callable[[Scene], Any]:
    def show(scene: Scene):
        groups = scene.arena.groups(scene.view)[which]
        if not groups:
            return None
        return errors.error_by_group(groups, ("price", "category")[which])

    return show


def _pair(scene: Scene) -> Any:
    table, picked = scene.drawn
    if table.empty:
        return None
    labels = (scene.label("a"), scene.label("b"))
    revision = f"{scene.view.run_a} {scene.view.run_b}"
    return guesses.error_against_error(
        table, labels=labels, picked=picked, open_index=scene.view.item, revision=revision
    )


SEVERAL = {
    "bands": several.error_by_band,
    "running": several.running_errors,
    "share": several.error_shares,
}


def _several(scene: Scene) -> Any:
    runs = scene.arena.several(scene.view)
    pair = (scene.view.run_a, scene.view.run_b)
    return SEVERAL[scene.view.measure](runs, pair) if len(runs.price_usd) else None


def _several_note(scene: Scene) -> str:
    runs = scene.arena.several(scene.view)
    note = text.SEVERAL_ITEMS.format(items=len(runs.price_usd), runs=len(runs.infos))
    pins = "" if scene.view.pins else f" {text.PIN_FIRST}"
    chips = "".join(
        button(
            f'{escape(scene.arena.infos[name].label)} <span aria-hidden="true">✕</span>',
            "pin",
            name,
            classes="chip on",
            aria_label=text.UNPIN.format(label=scene.arena.infos[name].label),
        )
        for name in scene.view.pins
    )
    return f'<p class="hint">{note}{pins}</p><div class="chips">{chips}</div>'


def _coverage(scene: Scene) -> Any:
    measured = scene.arena.coverage(scene.view)
    return errors.interval_coverage(measured, (scene.view.run_a, scene.view.run_b)) if measured else None


def _items_table(scene: Scene) -> Any:
    rows = scene.narrowed.ranked[:TABLE_ROWS]
    table = scene.arena.table(scene.view, rows)[list(text.TABLE_HEADS)]
    table = table.assign(category=table["category"].map(category)).round(2)
    return gr.update(value=table.rename(columns=text.TABLE_HEADS))


def _items_note(scene: Scene) -> str:
    cut = ""
    if len(scene.narrowed.ranked) > TABLE_ROWS:
        cut = " " + text.TABLE_CUT.format(shown=TABLE_ROWS, items=len(scene.narrowed.ranked))
    return f'<p class="hint">{text.PANEL_NOTES["items"]}{cut}</p>'


def _board(scene: Scene) -> str:
    return board.board(scene.arena, scene.view, scene.arena.leaderboard(scene.view))


PARTS: dict[str, Part] = {
    "sets": Part(("item_set",), lambda s: heads.sets(s.view, s.place.runs_of)),
    "run_a": Part(("item_set", "run_a"), _picker("a")),
    "run_b": Part(("item_set", "run_b"), _picker("b")),
    "pairs": Part(
        tuple(View.__dataclass_fields__),
        lambda s: heads.pairs(s.arena, s.view, s.place.compared.get(s.view.item_set)),
    ),
    "verdict": Part(ITEMS, lambda s: heads.verdict(s.arena, s.view, s.narrowed, s.figures)),
    "metrics": Part(ITEMS, lambda s: heads.more_figures(s.view, s.figures)),
    "presets": Part(("preset",), lambda s: heads.presets(s.view)),
    "active": Part(ITEMS, lambda s: heads.active(s.view, s.narrowed)),
    "words": Part(("words",), _value("words")),
    "categories": Part(("item_set", "categories"), _categories),
    "low_usd": Part(("low_usd",), _value("low_usd")),
    "high_usd": Part(("high_usd",), _value("high_usd")),
    "outcomes_a": Part(("outcomes_a",), _value("outcomes_a")),
    "outcomes_b": Part(("outcomes_b",), _value("outcomes_b")),
    "apart_usd": Part(("apart_usd",), lambda s: gr.update(value=s.view.apart_usd or None)),
    "log_axis": Part(("log_axis",), lambda s: gr.update(value=_name_of(text.AXES, s.view.log_axis))),
    "by_share": Part(("by_share",), lambda s: gr.update(value=_name_of(text.COLOURINGS, s.view.by_share))),
    "legend": Part(("by_share",), lambda s: heads.legend(s.view)),
    "title_a": Part((*ITEMS, "by_share"), _title("a")),
    "title_b": Part((*ITEMS, "by_share"), _title("b")),
    "scatter_a": Part(SCATTER, _scatter("a")),
    "scatter_b": Part(SCATTER, _scatter("b")),
    "hint": Part(ITEMS, _scatter_hint),
    "starters": Part((*ITEMS, "item"), _starters),
    "detail": Part(("item_set", "item"), lambda s: gr.update(visible=s.item is not None)),
    "detail_head": Part((*ITEMS, "item"), _detail_head),
    "strip": Part((*PAIR, "item"), _strip),
    "detail_guesses": Part((*PAIR, "item"), lambda s: item.item_guesses(s.item, s.view) if s.item else ""),
    "detail_foot": Part(("item_set", "item"), _detail_foot),
    "panels": Part(("panel",), lambda s: gr.update(selected=s.view.panel)),
    "find": Part(("find",), _value("find"), "board"),
    "kinds": Part(("kinds",), _value("kinds"), "board"),
    "columns": Part(("columns",), _value("columns"), "board"),
    "board": Part(BOARD, _board, "board"),
    "slices": Part(ITEMS, lambda s: panels.slices(s.arena, s.view), "slices"),
    "measure": Part(("measure",), _value("measure"), "several"),
    "several_note": Part((*ITEMS, "pins"), _several_note, "several"),
    "several": Part((*ITEMS, "pins", "measure"), _several, "several"),
    "spread": Part(ITEMS, _signed_errors, "spread"),
    "share": Part(ITEMS, lambda s: errors.error_share(*s.away) if len(s.table) else None, "spread"),
    "by_price": Part(ITEMS, _groups(0), "groups"),
    "by_category": Part(ITEMS, _groups(1), "groups"),
    "pair": Part((*ITEMS, "item"), _pair, "pair"),
    "running": Part(ITEMS, lambda s: errors.running_error(*s.away) if len(s.table) else None, "running"),
    "coverage": Part(ITEMS, _coverage, "coverage"),
    "items_note": Part(ITEMS, _items_note, "items"),
    "items": Part(ITEMS, _items_table, "items"),
}


def _name_of(words: Mapping[str, bool], value: bool) -> str:
    return next(name for name, means in words.items() if means == value)
