"""Figures of single items: guess against price, A's error against B's, every run's guess for one item.

They take the tables of `arena.Arena.pair`; a mark's first customdata is its item's index.
"""

from __future__ import annotations

from html import escape

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from pricer.arena.metrics import HIT_SHARE, HIT_USD, OUTCOMES, outcome_by_share
from pricer.arena.records import Item
from pricer.figures.style import (
    ACTUAL_COLOUR,
    OPEN_COLOUR,
    OUTCOME_COLOURS,
    OUTCOME_SYMBOLS,
    PAIR_COLOURS,
    finish,
    linear_axis,
    log_axis,
    usd,
    with_alpha,
)

DRAWN_ITEMS = 5_000  # more are sampled: marks would cover one another, and the page would crawl
SVG_ITEMS = 1_500  # more are drawn with WebGL, which is faster but blurs when zoomed and printed
FLOOR_USD = 0.5  # where a logarithmic axis draws a guess of $0
FADED = 0.10  # opacity of items that are not in view


def drawn_items(table: pd.DataFrame, always: np.ndarray | None = None) -> pd.DataFrame:
    """At most DRAWN_ITEMS rows in their order, a fixed random choice; those at the mask `always` first of all."""
    if len(table) <= DRAWN_ITEMS:
        return table
    score = np.random.default_rng(0).random(len(table))
    if always is not None:
        score -= always
    return table.iloc[np.sort(np.argsort(score, kind="stable")[:DRAWN_ITEMS])]


def guess_against_price(
    table: pd.DataFrame,
    end: str,
    *,
    label: str,
    picked: np.ndarray | None,
    log: bool,
    by_share: bool = False,
    open_index: int | None = None,
    revision: str = "",
) -> go.Figure:
    """One run's guesses over actual prices, with the diagonal and the hit region; `end` is "a" or "b".

    Hits, near ones and misses differ by colour and by shape; with `by_share` they are those within 20 % and 40 % of
    the price, and $40 is no excuse. `picked`, a mask over the table's rows, fades
    the others. Both runs of a pair get the same axes, for they are made from the whole table.
    """
    price, guess = table["price_usd"].to_numpy(), table[f"guess_usd_{end}"].to_numpy()
    low, high = _price_range(table, log)
    figure = go.Figure()
    _add_hit_region(figure, low, high, 0.0 if by_share else HIT_USD)
    outcomes = (
        outcome_by_share(price, guess) if by_share and len(table) else table[f"outcome_{end}"].to_numpy()
    )
    Scatter = go.Scattergl if len(table) > SVG_ITEMS else go.Scatter
    for result in OUTCOMES:
        at = np.flatnonzero(outcomes == result)
        marks = {
            "color": OUTCOME_COLOURS[result],
            "symbol": OUTCOME_SYMBOLS[result],
            "size": 7,
            "opacity": 0.72,
        }
        figure.add_trace(
            Scatter(
                x=price[at],
                y=np.clip(guess[at], low, high),
                mode="markers",
                name=result,
                marker=marks,
                customdata=_custom(table.iloc[at], end),
                hovertemplate=_HOVER.format(result=_BY_SHARE[result] if by_share else result),
                selectedpoints=None if picked is None else np.flatnonzero(picked[at]).tolist(),
                unselected={"marker": {"opacity": FADED}},
                selected={"marker": {"opacity": 0.85}},
            )
        )
    opened = table["index"].to_numpy() == open_index
    if opened.any():
        figure.add_scatter(
            x=price[opened],
            y=np.clip(guess[opened], low, high),
            mode="markers",
            marker={
                "symbol": "circle-open",
                "size": 17,
                "color": OPEN_COLOUR,
                "line": {"width": 2.5},
                "opacity": 1,
            },
            hoverinfo="skip",
        )
    axis = log_axis(low, high) if log else linear_axis(low, high)
    figure.update_xaxes(axis, title="Actual price", showgrid=True, zeroline=False)
    figure.update_yaxes(axis, title="Guess", zeroline=False)
    return finish(
        figure,
        f"{label}: guess against actual price of {len(table):,} items, hits near the diagonal",
        f"{revision} {log}",
        walk=True,
        dragmode="select",
        selectionrevision=f"{revision} {log} {picked is None or picked.tobytes()}",
        clickmode="event",
        hovermode="closest",
    )


def error_against_error(
    table: pd.DataFrame,
    *,
    labels: tuple[str, str],
    picked: np.ndarray | None,
    open_index: int | None = None,
    revision: str = "",
) -> go.Figure:
    """A's error over B's on logarithmic axes: above the diagonal B is closer, below it A."""
    floor = FLOOR_USD
    a, b = (table[f"error_usd_{end}"].to_numpy() for end in ("a", "b"))
    high = max(2 * floor, 1.3 * float(max(a.max(initial=0), b.max(initial=0))))
    figure = go.Figure()
    figure.add_scatter(x=[floor, high], y=[floor, high], mode="lines", line=_DIAGONAL, hoverinfo="skip")
    Scatter = go.Scattergl if len(table) > SVG_ITEMS else go.Scatter
    for end, mask, symbol in (("a", a < b, "circle"), ("b", b <= a, "diamond")):
        at = np.flatnonzero(mask)
        figure.add_trace(
            Scatter(
                x=np.maximum(b[at], floor),
                y=np.maximum(a[at], floor),
                mode="markers",
                marker={"color": PAIR_COLOURS[end], "symbol": symbol, "size": 7, "opacity": 0.65},
                customdata=np.column_stack(
                    [
                        table["index"].to_numpy(dtype=object)[at],
                        _labels(table.iloc[at]),
                        [usd(p) for p in table["price_usd"].to_numpy()[at]],
                        [usd(e) for e in a[at]],
                        [usd(e) for e in b[at]],
                    ]
                )
                if len(at)
                else [],
                hovertemplate="<b>%{customdata[1]}</b><br>actual %{customdata[2]}"
                "<br>A is off by %{customdata[3]}<br>B is off by %{customdata[4]}<extra></extra>",
                selectedpoints=None if picked is None else np.flatnonzero(picked[at]).tolist(),
                unselected={"marker": {"opacity": FADED}},
            )
        )
    opened = table["index"].to_numpy() == open_index
    if opened.any():
        ring = {"symbol": "circle-open", "size": 17, "color": OPEN_COLOUR, "line": {"width": 2.5}}
        figure.add_scatter(
            x=np.maximum(b[opened], floor),
            y=np.maximum(a[opened], floor),
            mode="markers",
            marker=ring,
            hoverinfo="skip",
        )
    corners = (("B is closer", 0.02, 0.98, "left", "top"), ("A is closer", 0.98, 0.02, "right", "bottom"))
    for words, x, y, xanchor, yanchor in corners:
        figure.add_annotation(
            text=words,
            x=x,
            y=y,
            xref="paper",
            yref="paper",
            xanchor=xanchor,
            yanchor=yanchor,
            showarrow=False,
            font={"size": 12},
        )
    figure.update_xaxes(log_axis(floor, high), title="B’s error", zeroline=False)
    figure.update_yaxes(log_axis(floor, high), title="A’s error", zeroline=False)
    return finish(
        figure,
        f"Error of {labels[0]} against error of {labels[1]}, {len(table):,} items",
        revision,
        walk=True,
        dragmode="select",
        selectionrevision=f"{revision} {picked is None or picked.tobytes()}",
        clickmode="event",
        hovermode="closest",
    )


def item_strip(item: Item, pair: tuple[str, str], kind_names: dict[str, str]) -> go.Figure:
    """Every run's guess for one item, a line per kind of system, against the price and its hit region.

    `pair`: the runs A and B, which are drawn larger, in their colours, with a letter.
    """
    guesses = np.array([g.guess_usd for g in item.guesses] + [item.price_usd])
    low = max(FLOOR_USD, 0.7 * guesses.min())
    high = max(1.4 * guesses.max(), 2 * low)
    kinds = [kind for kind in kind_names if any(g.info.kind == kind for g in item.guesses)]
    figure = go.Figure()
    reach = max(HIT_USD, HIT_SHARE * item.price_usd)
    figure.add_vrect(
        x0=max(item.price_usd - reach, low),
        x1=item.price_usd + reach,
        fillcolor=OUTCOME_COLOURS["hit"],
        opacity=0.13,
        line_width=0,
    )
    figure.add_vline(x=item.price_usd, line={"color": ACTUAL_COLOUR, "width": 2})
    at = np.log10(
        max(item.price_usd, low)
    )  # on a log axis an annotation, unlike a line, is placed by the logarithm
    across = (at - np.log10(low)) / np.log10(high / low)
    figure.add_annotation(
        x=at,
        xanchor="left" if across < 0.2 else "right" if across > 0.8 else "center",
        y=1,
        yref="paper",
        yanchor="bottom",
        text=f"actual {usd(item.price_usd)}",
        showarrow=False,
        font={"size": 12},
    )
    for end, name in (("", None), ("a", pair[0]), ("b", pair[1])):
        group = [g for g in item.guesses if (g.info.name == name if name else g.info.name not in pair)]
        figure.add_scatter(
            x=[max(g.guess_usd, low) for g in group],
            y=[kind_names[g.info.kind] for g in group],
            mode="markers+text" if name else "markers",
            text=[end.upper()] * len(group),
            textposition="middle right",
            textfont={"size": 12},
            cliponaxis=False,
            marker={
                "color": PAIR_COLOURS.get(end, with_alpha("#64748b", 0.55)),
                "size": 13 if name else 9,
                "symbol": [OUTCOME_SYMBOLS[g.outcome] for g in group],
            },
            customdata=[[escape(g.info.label), usd(g.guess_usd), _off(g.guess_usd, item)] for g in group],
            hovertemplate="<b>%{customdata[0]}</b><br>guess %{customdata[1]}, %{customdata[2]}<extra></extra>",
        )
    figure.update_xaxes(log_axis(low, high), fixedrange=True, zeroline=False)
    figure.update_yaxes(
        type="category",
        categoryorder="array",
        categoryarray=[kind_names[kind] for kind in reversed(kinds)],
        range=[-0.6, len(kinds) - 0.4],
        fixedrange=True,
        tickfont={"size": 12},
    )
    description = f"{item.label}: guesses of {len(item.guesses)} runs, actual price {usd(item.price_usd)}"
    margin = {"l": 90, "r": 12, "t": 26, "b": 32}
    return finish(
        figure,
        description,
        str(item.index),
        toolbar=False,
        margin=margin,
        dragmode=False,
        hovermode="closest",
    )


# Inside --------------------------------------------------------------------------------------------------

_DIAGONAL = {"color": "#94a3b8", "width": 1.25, "dash": "dot"}
_HOVER = (
    "<b>%{{customdata[1]}}</b><br>actual %{{customdata[2]}}, guess %{{customdata[3]}}"
    "<br>off by %{{customdata[4]}}: {result}<extra></extra>"
)
_BY_SHARE = {"hit": "within 20 %", "near": "within 40 %", "miss": "40 % or more"}


def _custom(table: pd.DataFrame, end: str) -> np.ndarray | list:
    """(items, 5): index, label, price, guess, error, the last three as shown."""
    if table.empty:
        return []
    columns = (table["price_usd"], table[f"guess_usd_{end}"], table[f"error_usd_{end}"])
    shown = [[usd(value) for value in column] for column in columns]
    return np.column_stack([table["index"].to_numpy(dtype=object), _labels(table), *shown])


def _labels(table: pd.DataFrame) -> list[str]:
    return [escape(label) for label in table["label"]]


def _off(guess_usd: float, item: Item) -> str:
    away = guess_usd - item.price_usd
    return f"{usd(abs(away))} too {'high' if away > 0 else 'low'}" if round(away, 2) else "exactly right"


def _price_range(table: pd.DataFrame, log: bool) -> tuple[float, float]:
    """Ends of both axes. A guess beyond three times the dearest price would squeeze all others into a
    corner: it is drawn at the edge, and its label tells."""
    columns = table[["price_usd", "guess_usd_a", "guess_usd_b"]].to_numpy()
    if not columns.size:
        return (1.0, 1_000.0) if log else (0.0, 1_000.0)
    dearest = float(columns[:, 0].max())
    high = 1.08 * min(float(columns.max()), 3 * dearest)
    if not log:
        return 0.0, high
    low = max(FLOOR_USD, 0.8 * min(float(columns.min()), float(columns[:, 0].min())))
    return low, max(1.3 * high / 1.08, 2 * low)


def _add_hit_region(figure: go.Figure, low: float, high: float, least_usd: float) -> None:
    """The band of guesses within 20 % of the price, and at least `least_usd` to either side."""
    x = np.geomspace(max(low, FLOOR_USD), high, 60)
    reach = np.maximum(least_usd, HIT_SHARE * x)
    figure.add_scatter(
        x=[*x, *x[::-1]],
        y=np.clip([*(x + reach), *(x - reach)[::-1]], low, high),
        mode="lines",
        line={"width": 0},
        fill="toself",
        fillcolor=with_alpha(OUTCOME_COLOURS["hit"], 0.10),
        hoverinfo="skip",
    )
    figure.add_scatter(x=[x[0], high], y=[x[0], high], mode="lines", line=_DIAGONAL, hoverinfo="skip")
