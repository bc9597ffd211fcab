"""The leaderboard in HTML: figures, the error's interval drawn on one scale, buttons that make a run A or B or pin it."""

from __future__ import annotations

from collections.abc import Callable
from html import escape

import numpy as np
import pandas as pd

from pricer.arena.arena import Arena
from pricer.arena.records import FEWEST_ITEMS, Leaderboard, Standing
from pricer.arena.resampling import Estimate
from pricer.arena.runs import RunInfo
from pricer.arena.view import SORTS, View
from pricer.tables.writing import csv_text
from pricer.ui.evaluate import text
from pricer.ui.evaluate.html import (
    badges,
    between,
    button,
    dollars,
    interval_end,
    notice,
    signed_dollars,
    signed_ends,
)
from pricer.ui.parts import term

FEW_RUNS = 5
BEST = 10  # runs that are shown until all are asked for


def shown_standings(arena: Arena, view: View, found: Leaderboard) -> list[tuple[int, Standing]]:
    """(rank, standing) of the runs that the board shows: those that search and kinds leave, and of these the best,
    A, B, pinned ones and a visitor's own, or all."""
    ranked = list(enumerate(found.standings, 1))
    words = view.find.casefold().split()
    kept = [
        (rank, standing)
        for rank, standing in ranked
        if (not view.kinds or arena.infos[standing.name].kind in view.kinds)
        and all(word in _described(arena.infos[standing.name]) for word in words)
    ]
    if view.everyone or words or view.kinds:
        return kept
    always = {view.run_a, view.run_b, *view.pins}
    return [
        (rank, standing)
        for place, (rank, standing) in enumerate(kept)
        if place < BEST or standing.name in always or arena.infos[standing.name].kind == "own"
    ]


def board(arena: Arena, view: View, found: Leaderboard) -> str:
    """The shown runs in a table, under a note on how many items it stands on."""
    if not found.standings:
        return f'<p class="verdict">{text.BOARD_EMPTY}</p>'
    shown = shown_standings(arena, view, found)
    if not shown:
        return notice(text.BOARD_NO_MATCH)
    scale = _log_scale([end for _, s in shown for end in (s.error_usd.low, s.error_usd.high)])
    rows = "".join(
        _row(rank, standing, arena.infos[standing.name], view, scale, found.items) for rank, standing in shown
    )
    return (
        f'<p class="hint">{_note(arena, found)}</p>'
        f'<table class="board" role="table"><thead role="rowgroup"><tr role="row">{_heads(view)}</tr></thead>'
        f'<tbody role="rowgroup">{rows}</tbody></table>{_foot(view, len(shown), len(found.standings))}'
    )


def board_csv(arena: Arena, view: View, found: Leaderboard) -> str:
    """The shown runs with every figure of the board and the ends of its intervals."""
    rows = []
    for rank, standing in shown_standings(arena, view, found):
        info = arena.infos[standing.name]
        row = {"rank": rank, "run": info.name, "label": info.label, "kind": info.kind, "items": found.items}
        for metric in ("error_usd", "rmsle", "hits_pct", "within_pct", "behind_best", "behind_a"):
            figure: Estimate = getattr(standing, metric)
            row |= {metric: figure.value, f"{metric}_low": figure.low, f"{metric}_high": figure.high}
        rows.append(row)
    return csv_text(pd.DataFrame(rows).round(3))


def _described(info: RunInfo) -> str:
    words = (info.label, info.name, text.KINDS[info.kind], info.base_model or "", info.adapter or "")
    return " ".join(words).casefold()


def _note(arena: Arena, found: Leaderboard) -> str:
    note = text.BOARD_ITEMS.format(items=found.items, runs=len(found.standings))
    if found.left_out:
        names = [f"{escape(arena.infos[n].label)} ({k:,})" for n, k in found.left_out.items() if k]
        if none := len(found.left_out) - len(names):
            names.append(text.BOARD_HAVE_NONE.format(runs=none))
        note += text.BOARD_LEFT_OUT.format(runs=", ".join(names))
    elif len(found.standings) < FEW_RUNS:
        note += " " + text.BOARD_FEW_RUNS
    few = text.BOARD_FEW.format(fewest=FEWEST_ITEMS)
    return f"{note} {text.BOARD_NOISE if found.items >= FEWEST_ITEMS else few}"


def _heads(view: View) -> str:
    heads = [f'<th scope="col" class="rank">{text.BOARD_HEADS["rank"]}</th>']
    heads.append(f'<th scope="col">{text.BOARD_HEADS["run"]}</th>')
    for column in ("error_usd", *view.columns):
        if column not in SORTS:
            heads.append(f'<th scope="col" class="{column}">{text.BOARD_COLUMNS[column]}</th>')
            continue
        more_is_better = column in ("hits_pct", "within_pct")
        order = ' aria-sort="descending"' if more_is_better else ' aria-sort="ascending"'
        mark = (" ↓" if more_is_better else " ↑") if view.sort == column else ""
        name = text.BOARD_COLUMNS[column]
        head = button(name + mark, "sort", column, classes="sort", title=text.SORTED.format(name=name))
        heads.append(f'<th scope="col" class="{column}"{order if view.sort == column else ""}>{head}</th>')
    heads.append(f'<th scope="col" class="pick">{text.BOARD_HEADS["pick"]}</th>')
    return "".join(heads)


def _row(rank: int, standing: Standing, info: RunInfo, view: View, scale: Callable, items: int) -> str:
    ends = [end for end, name in (("a", view.run_a), ("b", view.run_b)) if name == standing.name]
    cells = "".join(
        f'<td role="cell" class="{column}">{_cell(column, standing, info, view, items)}</td>'
        for column in view.columns
    )
    return (
        f'<tr role="row" class="{" ".join(f"is-{end}" for end in ends)}"><td role="cell" class="rank">{rank}</td>'
        f'<th scope="row" role="rowheader"><span class="label">{escape(info.label)}</span>{badges(info)}</th>'
        f'<td role="cell" class="error_usd">{_error(standing.error_usd, scale)}</td>{cells}'
        f'<td role="cell" class="pick">{_picks(info, ends, view)}</td></tr>'
    )


def _error(error: Estimate, scale: Callable) -> str:
    low = error.low if np.isfinite(error.low) else error.value
    high = error.high if np.isfinite(error.high) else error.value
    return (
        f"<b>{dollars(error.value)}</b>"
        f'<span class="interval">{between(interval_end("${:,.2f}", low), interval_end("${:,.2f}", high), "–")}</span>'
        f'<span class="bar" aria-hidden="true"><span style="left:{scale(low):.2f}%;width:{scale(high) - scale(low):.2f}%">'
        f'</span><i style="left:{scale(error.value):.2f}%"></i></span>'
    )


def _cell(column: str, standing: Standing, info: RunInfo, view: View, items: int) -> str:
    if column == "behind_best" and standing.ties_best and items >= FEWEST_ITEMS:
        return f'<span class="tag">{term(text.TIES_BEST, text.NOISE_HELP)}</span>'
    if column in ("behind_best", "behind_a"):
        found: Estimate = getattr(standing, column)
        if found.value == found.low == found.high == 0:  # it is that run
            return '<span class="none">–</span>'
        return (
            f'<span class="gap">{signed_dollars(found.value)}</span>'
            f'<span class="interval">{between(*signed_ends(found), "to")}</span>'
        )
    if column == "made":
        parts = (info.base_model, info.adapter, info.rule, str(info.date or ""))
        return (
            escape(" · ".join(part for part in parts if part))
            or f'<span class="none">{text.NOT_KNOWN}</span>'
        )
    form = "{:.2f}" if column == "rmsle" else "{:.1f} %"
    return form.format(getattr(standing, column).value)


def _picks(info: RunInfo, ends: list[str], view: View) -> str:
    picks = "".join(
        button(
            end.upper(),
            f"make_{end}",
            info.name,
            classes=f"pick-{end}",
            aria_pressed="true" if end in ends else "false",
            aria_label=text.MAKE.format(label=info.label, end=end.upper()),
        )
        for end in ("a", "b")
    )
    pinned = info.name in view.pins
    return picks + button(
        text.PIN_SIGN,
        "pin",
        info.name,
        classes="pick-pin",
        aria_pressed="true" if pinned else "false",
        title=(text.UNPIN if pinned else text.PIN).format(label=info.label),
        aria_label=(text.UNPIN if pinned else text.PIN).format(label=info.label),
    )


def _foot(view: View, shown: int, runs: int) -> str:
    parts = []
    if not (view.find or view.kinds) and (shown < runs or view.everyone):
        words = text.BOARD_BEST.format(best=BEST) if view.everyone else text.BOARD_ALL.format(runs=runs)
        parts.append(button(words, "everyone", aria_expanded="true" if view.everyone else "false"))
    parts.append(button(text.BOARD_EXPORT, "export-board", classes="chip plain"))
    return f'<div class="chips foot">{"".join(parts)}</div>'


def _log_scale(values: list[float]) -> Callable[[float], float]:
    """Dollars to percent of the bar's width, on a log scale: else the worst run squeezes all others together."""
    known = np.maximum([value for value in values if np.isfinite(value)] or [1.0], 0.01)
    low, high = np.log(known.min()) - 0.03, np.log(known.max()) + 0.03

    def scale(value: float) -> float:
        return float(100 * (np.log(max(value, 0.01)) - low) / (high - low))

    return scale
