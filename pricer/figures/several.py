"""Two to seven runs in one plot: error by price band, running mean, distribution of errors."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from pricer.arena.records import Several
from pricer.arena.slices import by_price
from pricer.figures.style import PAIR_COLOURS, PIN_COLOURS, PIN_DASHES, finish, log_axis

POINTS = 300  # of a line; more items are thinned out
FIRST = 10  # items before a running mean is drawn


def error_by_band(runs: Several, pair: tuple[str, str]) -> go.Figure:
    """Mean error by price band, a line per run."""
    masks = by_price(pd.DataFrame({"price_usd": runs.price_usd}))
    bands = [f"{label} ({mask.sum():,} items)" for label, mask in masks.items()]
    # The whole bands do not fit beside each other on a phone: they are what the mouse says.
    short = [f"{label.split('–')[0]}<br>({mask.sum():,})" for label, mask in masks.items()]
    figure = go.Figure()
    for name, look in _looks(runs, pair):
        figure.add_scatter(
            x=bands,
            y=[float(runs.away_usd[name][mask].mean()) for mask in masks.values()],
            mode="lines+markers",
            marker={"size": 8, "color": look["line"]["color"]},
            hovertemplate="%{fullData.name}: error %{y:$,.2f}<extra></extra>",
            **look,
        )
    figure.update_xaxes(title="Actual price from (items)", type="category", tickangle=0)
    figure.update_xaxes(tickvals=list(range(len(bands))), ticktext=short, tickfont={"size": 11})
    figure.update_yaxes(title="Mean error", tickprefix="$", rangemode="tozero", zeroline=False, nticks=6)
    return _finish(figure, runs, "Mean error by price band")


def running_errors(runs: Several, pair: tuple[str, str]) -> go.Figure:
    """Mean error of the first n items, a line per run."""
    items = len(runs.price_usd)
    n = np.unique(np.linspace(min(FIRST, items), items, POINTS).astype(int))
    figure = go.Figure()
    for name, look in _looks(runs, pair):
        mean = np.cumsum(runs.away_usd[name]) / np.arange(1, items + 1)
        figure.add_scatter(
            x=n,
            y=mean[n - 1],
            mode="lines",
            hovertemplate="%{fullData.name}: %{y:$,.2f} after %{x:,} items<extra></extra>",
            **look,
        )
    figure.update_xaxes(title="Items so far", zeroline=False, nticks=6)
    figure.update_yaxes(title="Mean error", tickprefix="$", rangemode="tozero", zeroline=False, nticks=6)
    return _finish(figure, runs, "Running mean error")


def error_shares(runs: Several, pair: tuple[str, str]) -> go.Figure:
    """Share of items whose error is at most so many dollars, a line per run: the higher, the better."""
    top = float(max([away.max(initial=1) for away in runs.away_usd.values()] + [2]))
    at = np.geomspace(1, top, 200)
    figure = go.Figure()
    for name, look in _looks(runs, pair):
        share = 100 * np.searchsorted(np.sort(runs.away_usd[name]), at, side="right") / len(runs.price_usd)
        figure.add_scatter(
            x=at,
            y=share,
            mode="lines",
            hovertemplate="%{fullData.name}: %{y:.0f} % off by %{x:$,.0f} or less<extra></extra>",
            **look,
        )
    figure.update_xaxes(log_axis(1, top), title="Error at most", zeroline=False)
    figure.update_yaxes(title="Items", ticksuffix=" %", range=[0, 101], zeroline=False)
    return _finish(figure, runs, "Share of items within an error")


def _looks(runs: Several, pair: tuple[str, str]) -> Iterator[tuple[str, dict]]:
    """Each run with its name and line: A and B as everywhere, the others in colours and dashes of their own."""
    others = iter(zip(PIN_COLOURS, PIN_DASHES, strict=True))
    for name, info in runs.infos.items():
        if name in pair:
            end = "a" if name == pair[0] else "b"
            colour, dash, label = PAIR_COLOURS[end], "solid", f"{end.upper()} · {info.label}"
        else:
            (colour, dash), label = next(others), info.label
        yield name, {"name": escape(label), "line": {"color": colour, "dash": dash, "width": 2}}


def _finish(figure: go.Figure, runs: Several, what: str) -> go.Figure:
    figure.update_layout(legend={"orientation": "h", "x": 0, "y": -0.24, "yanchor": "top"})
    names = ", ".join(info.label for info in runs.infos.values())
    description = f"{what} of {names}, {len(runs.price_usd):,} items"
    margin = {"l": 64, "r": 12, "t": 32, "b": 120}
    return finish(
        figure, description, what, legend=True, hovermode="x unified", dragmode="zoom", margin=margin
    )
