"""The Compare tab's figure: distributions over prices, one below the other on one axis."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import plotly.graph_objects as go

from pricer.figures.style import ACTUAL_COLOUR, CLEAR, with_alpha
from pricer.price.distribution import PriceDistribution

LOG_TICKS = [1, 3, 10, 30, 100, 300, 999]
LINEAR_TICKS = [0, 200, 400, 600, 800, 999]
CURVE = 0.68  # of a row's height, at most; the bars lie below the curve
BARS = -0.1  # where they lie


@dataclass(frozen=True)
class Row:
    """One distribution with its price, and the ranges that hold 90 % and 50 %, in dollars."""

    name: str
    colour: str
    distribution: PriceDistribution
    price_usd: float
    wide_usd: tuple[float, float]
    half_usd: tuple[float, float]
    dashed: bool = False  # of an earlier answer


@cache
def price_bins(log_axis: bool) -> np.ndarray:
    """Edges (bins + 1,) of bins of whole prices, on half dollars: 38 wider and wider ones on a log axis,
    fifty of $20 on a linear one."""
    if not log_axis:
        return np.append(np.arange(0.5, 999, 20), 999.5)
    return np.unique(np.round(np.geomspace(1, 1000, 48)).astype(int)) - 0.5


def binned(distribution: PriceDistribution, log_axis: bool) -> tuple[np.ndarray, np.ndarray]:
    """Mass (bins,) in each bin, and height (bins,): mass per unit of the axis, so that areas show mass."""
    edges = price_bins(log_axis)
    total = np.concatenate([[0.0], distribution.cdf])
    mass = np.diff(total[(edges - 0.5).astype(int)])
    width = np.diff(np.log10(edges)) if log_axis else np.diff(edges)
    return mass, mass / width


def price_comparison(
    rows: Sequence[Row], *, log_axis: bool = True, actual_usd: float | None = None, places: int | None = None
) -> go.Figure:
    """Distributions on one axis, the first on top, in one scale: equal areas are equal probability.

    Below each curve a thin bar is the wide range, a thick one the half range, and the line through it the price.
    `places` leaves room for that many rows, so that nothing moves when the rest comes.
    """
    figure = go.Figure()
    places = places or len(rows)
    heights = [binned(row.distribution, log_axis)[1] for row in rows]
    scale = CURVE / max((float(h.max()) for h in heights), default=1.0)
    for i, (row, height) in enumerate(zip(rows, heights, strict=True)):
        _add_row(figure, row, places - 1 - i, height * scale, log_axis)
    if actual_usd is not None:
        x = min(max(actual_usd, 1), 999)
        figure.add_vline(x=x, line={"color": ACTUAL_COLOUR, "width": 1.5, "dash": "dash"})
        _annotate(figure, np.log10(x) if log_axis else x, places - 0.12, "actual price", ACTUAL_COLOUR)
    figure.update_xaxes(
        type="log" if log_axis else "linear",
        range=[np.log10(0.9), np.log10(1060)] if log_axis else [-10, 1010],
        tickvals=LOG_TICKS if log_axis else LINEAR_TICKS,
        ticktext=[f"${tick}" for tick in (LOG_TICKS if log_axis else LINEAR_TICKS)],
        tickangle=0,
        tickfont={"size": 11},
        automargin=False,
        fixedrange=True,
        showgrid=True,
    )
    figure.update_yaxes(visible=False, range=[-0.24, places - 0.04], fixedrange=True)
    return figure.update_layout(
        margin={"l": 8, "r": 8, "t": 4, "b": 24},
        showlegend=False,
        dragmode=False,
        hovermode="closest",
        paper_bgcolor=CLEAR,
        plot_bgcolor=CLEAR,
    )


def _add_row(figure: go.Figure, row: Row, y: float, height: np.ndarray, log_axis: bool) -> None:
    """One curve over its ground line at `y`, and its ranges below."""
    edges = price_bins(log_axis)
    mass, _ = binned(row.distribution, log_axis)
    first, last = np.ceil(edges[:-1]).astype(int), np.floor(edges[1:]).astype(int)
    labels = [f"${a}" if a == b else f"${a} to ${b}" for a, b in zip(first, last, strict=True)]
    ground = {"x": [edges[0], edges[-1]], "y": [y, y], "mode": "lines", "hoverinfo": "skip"}
    figure.add_scatter(**ground, line={"color": row.colour, "width": 1})
    figure.add_scatter(
        x=edges,
        y=np.append(y + height, y + height[-1]),
        customdata=[[label, f"{100 * m:.1f} %"] for label, m in zip(labels, mass, strict=True)]
        + [["$999", ""]],
        mode="lines",
        name=row.name,
        line={"shape": "hv", "color": row.colour, "width": 1.5, "dash": "dot" if row.dashed else "solid"},
        fill="tonexty",
        fillcolor=with_alpha(row.colour, 0.10 if row.dashed else 0.28),
        hovertemplate=f"{row.name}, %{{customdata[0]}}: %{{customdata[1]}}<extra></extra>",
    )
    for (low, high), width, alpha in ((row.wide_usd, 4, 0.45), (row.half_usd, 9, 0.8)):
        line = {"color": with_alpha(row.colour, alpha), "width": width}
        bar = {"x": [max(low - 0.5, 0.9), high + 0.5], "y": [y + BARS] * 2, "mode": "lines", "line": line}
        figure.add_scatter(**bar, hoverinfo="skip")
    price = max(row.price_usd, 1)
    line = {"color": row.colour, "width": 2.5, "dash": "dot" if row.dashed else "solid"}
    figure.add_scatter(
        x=[price, price], y=[y + BARS - 0.08, y + CURVE], mode="lines", line=line, hoverinfo="skip"
    )
    left = np.log10(0.95) if log_axis else 0
    _annotate(figure, left, y + CURVE - 0.02, f"<b>{row.name}</b>", row.colour, anchor="left")


def _annotate(figure: go.Figure, x: float, y: float, words: str, colour: str, anchor: str = "center") -> None:
    """On a log axis an annotation, unlike a line, is placed by the logarithm."""
    font = {"size": 12, "color": colour}
    figure.add_annotation(
        x=x, y=y, xanchor=anchor, yanchor="middle", text=words, font=font, showarrow=False, bgcolor=CLEAR
    )
