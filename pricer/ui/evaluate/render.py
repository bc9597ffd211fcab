"""From a view to what every part of the Evaluation tab shows.

A part names the fields of the view that it depends on: after a click only the parts whose fields changed
are made again. That keeps a click short, and a plot that did not change keeps its zoom.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import cached_property
from html import escape
from typing import Any

import gradio as gr
import numpy as np
import pandas as pd

from pricer.arena.arena import Arena
from pricer.arena.records import HeadToHead, Item, Narrowed
from pricer.arena.view import NARROWING, View
from pricer.errors import InputError
from pricer.figures import errors, guesses
from pricer.ui.evaluate import html, text
from pricer.ui.evaluate.item_texts import ItemTexts, SessionTexts

TABLE_ROWS = 2_000  # the browser holds them all

PAIR = ("run_a", "run_b")
ITEMS = (*PAIR, *NARROWING)
SCATTER = (*ITEMS, "log_axis", "item")


class Scene:
    """What a view shows, computed when a part asks for it."""

    def __init__(self, arena: Arena, view: View, texts: ItemTexts | SessionTexts):
        self.arena, self.view, self.texts = arena, view, texts

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
) -> list:
    """A value or an update for each of PARTS, in their order; `before` is what the page shows now. `only`: make
    these parts and no others."""
    scene = Scene(arena, view, texts)
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
    choices = [(name.replace("_", " "), name) for name in scene.arena.categories]
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
            open_index=scene.view.item,
            revision=f"{scene.view.run_a} {scene.view.run_b}",
        )

    return show


def _scatter_hint(scene: Scene) -> str:
    drawn, items = len(scene.drawn[0]), len(scene.narrowed.filtered)
    sampled = text.SCATTER_SAMPLED.format(drawn=drawn, items=items) if drawn < items else ""
    return f'<p class="hint">{text.SCATTER_HINT} {sampled}</p>'


def _detail_head(scene: Scene) -> Any:
    if scene.item is None:
        return ""
    ranked = scene.arena.index[scene.narrowed.ranked]
    at = np.flatnonzero(ranked == scene.item.index)
    return html.item_head(scene.item, scene.view, (int(at[0]), len(ranked)) if len(at) else None)


def _strip(scene: Scene) -> Any:
    if scene.item is None:
        return None
    return guesses.item_strip(scene.item, (scene.view.run_a, scene.view.run_b), text.KINDS)


def _detail_foot(scene: Scene) -> str:
    if scene.item is None:
        return ""
    return html.item_foot(scene.texts.get(scene.item.index), scene.texts.waiting)


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


def _coverage(scene: Scene) -> Any:
    measured = scene.arena.coverage(scene.view)
    return errors.interval_coverage(measured, (scene.view.run_a, scene.view.run_b)) if measured else None


def _items_table(scene: Scene) -> Any:
    rows = scene.narrowed.ranked[:TABLE_ROWS]
    table = scene.arena.table(scene.view, rows)[list(text.TABLE_HEADS)]
    table = table.assign(category=table["category"].str.replace("_", " ")).round(2)
    return gr.update(value=table.rename(columns=text.TABLE_HEADS))


def _items_note(scene: Scene) -> str:
    cut = ""
    if len(scene.narrowed.ranked) > TABLE_ROWS:
        cut = " " + text.TABLE_CUT.format(shown=TABLE_ROWS, items=len(scene.narrowed.ranked))
    return f'<p class="hint">{text.PANEL_NOTES["items"]}{cut}</p>'


PARTS: dict[str, Part] = {
    "run_a": Part(("run_a",), _picker("a")),
    "run_b": Part(("run_b",), _picker("b")),
    "pairs": Part(tuple(View.__dataclass_fields__), lambda s: html.pairs(s.arena, s.view)),
    "verdict": Part(ITEMS, lambda s: html.verdict(s.view, s.narrowed, s.figures)),
    "metrics": Part(ITEMS, lambda s: html.metrics_table(s.figures)),
    "presets": Part(("preset",), lambda s: html.presets(s.view)),
    "active": Part(ITEMS, lambda s: html.active(s.view, s.narrowed)),
    "categories": Part(("categories",), _categories),
    "low_usd": Part(("low_usd",), _value("low_usd")),
    "high_usd": Part(("high_usd",), _value("high_usd")),
    "outcomes_a": Part(("outcomes_a",), _value("outcomes_a")),
    "outcomes_b": Part(("outcomes_b",), _value("outcomes_b")),
    "apart_usd": Part(("apart_usd",), lambda s: gr.update(value=s.view.apart_usd or None)),
    "log_axis": Part(("log_axis",), lambda s: gr.update(value=_axis_name(s.view))),
    "title_a": Part(ITEMS, lambda s: html.scatter_title("a", s.arena.infos[s.view.run_a], s.figures)),
    "title_b": Part(ITEMS, lambda s: html.scatter_title("b", s.arena.infos[s.view.run_b], s.figures)),
    "scatter_a": Part(SCATTER, _scatter("a")),
    "scatter_b": Part(SCATTER, _scatter("b")),
    "hint": Part(ITEMS, _scatter_hint),
    "detail": Part(("item",), lambda s: gr.update(visible=s.item is not None)),
    "detail_head": Part((*ITEMS, "item"), _detail_head),
    "strip": Part((*PAIR, "item"), _strip),
    "detail_foot": Part(("item",), _detail_foot),
    "panels": Part(("panel",), lambda s: gr.update(selected=s.view.panel)),
    "board": Part(
        (*ITEMS, "sort"), lambda s: html.board(s.arena, s.view, s.arena.leaderboard(s.view)), "board"
    ),
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


def _axis_name(view: View) -> str:
    return next(name for name, log in text.AXES.items() if log == view.log_axis)


def complaint(sentences: list[str]) -> str:
    words = " ".join(escape(sentence) for sentence in sentences)
    return f'<p class="notice problem" role="alert">{words}</p>' if words else ""
