"""Figures of errors in sum: their spread, by group, as they settle, and how often intervals hold."""

from __future__ import annotations

from html import escape

import numpy as np
import plotly.graph_objects as go

from pricer.arena.records import Coverage, Group
from pricer.arena.resampling import Floats
from pricer.figures.style import PAIR_COLOURS, finish, log_axis, usd, with_alpha

SPREAD_EDGES_USD = np.arange(-500, 501, 25)
NORMAL_95 = 1.959964
RUNNING_POINTS = 400  # of a line; more items are thinned out
SYMBOLS = {"a": "circle", "b": "diamond"}
DASHES = {"a": "solid", "b": "dash"}


def error_spread(over_a_usd: Floats, over_b_usd: Floats) -> go.Figure:
    """Share of items by guess minus price: right of zero is too dear. The outermost bins hold the rest."""
    figure = go.Figure()
    edges = SPREAD_EDGES_USD
    for end, over in (("a", over_a_usd), ("b", over_b_usd)):
        counts, _ = np.histogram(np.clip(over, edges[0], edges[-1] - 1), edges)
        share = 100 * counts / max(1, len(over))
        names = [f"{_signed(x)} to {_signed(y)}" for x, y in zip(edges, edges[1:], strict=False)]
        names[0], names[-1] = f"{_signed(edges[1])} or lower", f"{_signed(edges[-2])} or higher"
        figure.add_scatter(
            x=edges,
            y=[*share, share[-1]],
            mode="lines",
            name=end.upper(),
            line={"shape": "hv", "color": PAIR_COLOURS[end], "width": 1.75},
            fill="tozeroy",
            fillcolor=with_alpha(PAIR_COLOURS[end], 0.18),
            customdata=[*names, names[-1]],
            hovertemplate=f"{end.upper()}: %{{y:.1f}} % of items<br>off by %{{customdata}}<extra></extra>",
        )
    figure.add_vline(x=0, line={"color": "#94a3b8", "width": 1.25, "dash": "dot"})
    ticks = [-500, -250, 0, 250, 500]
    names = ["≤ −$500", "−$250", "$0", "+$250", "≥ +$500"]
    figure.update_xaxes(title="Guess minus price", tickvals=ticks, ticktext=names, zeroline=False)
    figure.update_yaxes(title="Items", ticksuffix=" %", rangemode="tozero", zeroline=False)
    return finish(
        figure,
        "Distribution of the errors of A and B, signed",
        legend=True,
        hovermode="x",
        dragmode="zoom",
        margin={"l": 56, "r": 36, "t": 32, "b": 44},  # the last tick's words have room
    )


def error_share(away_a_usd: Floats, away_b_usd: Floats) -> go.Figure:
    """Share of items whose error is at most so many dollars: the higher curve is the better run."""
    figure = go.Figure()
    top = float(max(away_a_usd.max(initial=1), away_b_usd.max(initial=1), 2))
    for end, away in (("a", away_a_usd), ("b", away_b_usd)):
        if not len(away):
            continue
        at = np.geomspace(1, top, 200)
        share = 100 * np.searchsorted(np.sort(away), at, side="right") / len(away)
        figure.add_scatter(
            x=at,
            y=share,
            mode="lines",
            name=end.upper(),
            line={"color": PAIR_COLOURS[end], "width": 2, "dash": DASHES[end]},
            hovertemplate=f"{end.upper()}: %{{y:.0f}} % of items are off by %{{x:$,.0f}} or less<extra></extra>",
        )
    figure.update_xaxes(log_axis(1, top), title="Error at most", zeroline=False)
    figure.update_yaxes(title="Items", ticksuffix=" %", range=[0, 101], zeroline=False)
    return finish(
        figure, "Share of items within an error, A and B", legend=True, hovermode="x", dragmode="zoom"
    )


def error_by_group(groups: list[Group], kind: str) -> go.Figure:
    """Mean errors of A and B with their 95 % intervals, a line per group; `kind` goes into customdata."""
    figure = go.Figure()
    names = [f"{escape(group.label.replace('_', ' '))}  ({group.items:,})" for group in groups]
    rows = np.arange(len(groups), dtype=float)
    for end, shift in (("a", -0.04), ("b", 0.2)):
        estimates = [getattr(group, end) for group in groups]
        values = np.array([e.value for e in estimates])
        figure.add_scatter(
            x=values,
            y=rows + shift,
            mode="markers",
            name=end.upper(),
            marker={"color": PAIR_COLOURS[end], "symbol": SYMBOLS[end], "size": 10},
            error_x={
                "type": "data",
                "symmetric": False,
                "array": np.nan_to_num([e.high for e in estimates] - values),
                "arrayminus": np.nan_to_num(values - [e.low for e in estimates]),
                "thickness": 1.75,
                "width": 0,
                "color": PAIR_COLOURS[end],
            },
            customdata=[
                [kind, group.label, name, f"{usd(e.low)} to {usd(e.high)}"]
                for group, name, e in zip(groups, names, estimates, strict=True)
            ],
            hovertemplate=f"<b>%{{customdata[2]}}</b><br>{end.upper()}: error %{{x:$,.2f}}"
            "<br>95 % interval %{customdata[3]}<extra></extra>",
        )
    figure.update_xaxes(title="Mean error", tickprefix="$", rangemode="tozero", zeroline=False, nticks=5)
    figure.update_xaxes(tickangle=0)
    _name_rows(figure, names)
    description = f"Mean error of A and B by {kind}, with 95 % intervals"
    return finish(
        figure, description, kind, hovermode="closest", dragmode=False, clickmode="event", legend=True
    )


def running_error(away_a_usd: Floats, away_b_usd: Floats) -> go.Figure:
    """Mean error of the first n items with its normal 95 % interval: how many items it takes to settle."""
    figure = go.Figure()
    n = np.arange(1, len(away_a_usd) + 1)
    at = np.unique(np.linspace(min(9, len(n) - 1), len(n) - 1, RUNNING_POINTS).astype(int)) if len(n) else n
    for end, away in (("a", away_a_usd), ("b", away_b_usd)):
        mean = np.cumsum(away) / n
        variance = np.maximum(np.cumsum(away**2) / n - mean**2, 0) * n / np.maximum(n - 1, 1)
        reach = NORMAL_95 * np.sqrt(variance / n)
        x, y, half = n[at], mean[at], reach[at]
        figure.add_scatter(
            x=[*x, *x[::-1]],
            y=[*(y + half), *(y - half)[::-1]],
            fill="toself",
            fillcolor=with_alpha(PAIR_COLOURS[end], 0.16),
            line={"width": 0},
            hoverinfo="skip",
            showlegend=False,
        )
        figure.add_scatter(
            x=x,
            y=y,
            mode="lines",
            name=end.upper(),
            line={"color": PAIR_COLOURS[end], "width": 2, "dash": DASHES[end]},
            customdata=half,
            hovertemplate=f"{end.upper()}: %{{y:$,.2f}} ± %{{customdata:$,.2f}} after %{{x:,}} items<extra></extra>",
        )
    figure.update_xaxes(title="Items so far", zeroline=False, nticks=6)
    figure.update_yaxes(title="Mean error", tickprefix="$", zeroline=False, rangemode="tozero", nticks=6)
    return finish(figure, "Running mean error of A and B", legend=True, hovermode="x", dragmode="zoom")


def interval_coverage(measured: list[Coverage], pair: tuple[str, str]) -> go.Figure:
    """How many prices each run's intervals held, against the level they promise (dotted)."""
    figure = go.Figure()
    rows = np.arange(len(measured), dtype=float)
    colours = [
        PAIR_COLOURS["a" if c.info.name == pair[0] else "b"] if c.info.name in pair else "#94a3b8"
        for c in measured
    ]
    for row, colour, one in zip(rows, colours, measured, strict=True):
        found = one.coverage_pct
        figure.add_scatter(
            x=[found.value],
            y=[row],
            mode="markers",
            marker={"color": colour, "size": 11},
            error_x={
                "type": "data",
                "symmetric": False,
                "array": [np.nan_to_num(found.high - found.value)],
                "arrayminus": [np.nan_to_num(found.value - found.low)],
                "thickness": 2,
                "width": 0,
                "color": colour,
            },
            hovertemplate=f"<b>{escape(one.info.label)}</b><br>{one.level_pct:.0f} % intervals held "
            f"{found.value:.1f} % of {one.items:,} prices<br>95 % interval {found.low:.1f} to {found.high:.1f} %"
            f"<br>mean width {usd(one.width_usd)}<extra></extra>",
        )
    for level in sorted({one.level_pct for one in measured}):
        figure.add_vline(x=level, line={"color": "#94a3b8", "width": 1.5, "dash": "dot"})
    lowest = min([one.coverage_pct.low for one in measured if np.isfinite(one.coverage_pct.low)] or [50])
    figure.update_xaxes(title="Prices inside the interval", ticksuffix=" %", zeroline=False)
    figure.update_xaxes(range=[min(60.0, lowest - 5), 102], nticks=5, tickangle=0)
    _name_rows(figure, [escape(one.info.label) for one in measured])
    description = "Measured coverage of intervals by run, against the promised one"
    return finish(figure, description, margin=_WIDE, hovermode="closest", dragmode=False)


# Names of rows stand above their marks: beside the plot they would take half of a phone.
_WIDE = {"l": 12, "r": 12, "t": 32, "b": 44}


def _name_rows(figure: go.Figure, names: list[str]) -> None:
    above = min(0.44, len(names) / 16)  # of a row: few rows are high, and a name stays by its mark
    for row, name in enumerate(names):
        figure.add_annotation(
            text=name,
            x=0,
            xref="paper",
            xanchor="left",
            y=row - above,
            yanchor="middle",
            showarrow=False,
            font={"size": 12},
        )
    figure.update_yaxes(visible=False, range=[len(names) - 0.5, -0.75], fixedrange=True)


def _signed(value: float) -> str:
    return f"{'−' if value < 0 else '+' if value > 0 else ''}${abs(value):,.0f}"
