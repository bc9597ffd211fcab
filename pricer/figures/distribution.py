"""The Compare tab's figure: one model's distribution over prices."""

from __future__ import annotations

from functools import cache

import numpy as np
import plotly.graph_objects as go

from pricer.figures.style import ACTUAL_COLOUR, COLOURS, with_alpha
from pricer.price.distribution import PriceDistribution

LOG_TICKS = [1, 3, 10, 30, 100, 300, 999]
LINEAR_TICKS = [0, 200, 400, 600, 800, 999]


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


def distribution_height(distributions: list[PriceDistribution], log_axis: bool) -> float:
    """The highest point of several distributions: the end of their shared vertical axis."""
    return max(float(binned(d, log_axis)[1].max()) for d in distributions)


def price_distribution(
    distribution: PriceDistribution,
    which: str,
    *,
    price_usd: float,
    interval_usd: tuple[float, float],
    height: float,
    log_axis: bool = True,
    actual_usd: float | None = None,
) -> go.Figure:
    """One model's distribution over prices as a filled step curve, with its price and interval.

    `which` is "base" or "tuned"; `height` ends the vertical axis, so that two figures can share it.
    """
    colour = COLOURS[which]
    edges = price_bins(log_axis)
    mass, heights = binned(distribution, log_axis)
    first, last = np.ceil(edges[:-1]).astype(int), np.floor(edges[1:]).astype(int)
    labels = [f"${a}" if a == b else f"${a} to ${b}" for a, b in zip(first, last, strict=True)]
    figure = go.Figure(
        go.Scatter(
            x=edges,
            y=np.append(heights, heights[-1]),
            customdata=[[label, f"{m:.1%}"] for label, m in zip(labels, mass, strict=True)] + [["$999", ""]],
            mode="lines",
            line={"shape": "hv", "color": colour, "width": 1.5},
            fill="tozeroy",
            fillcolor=with_alpha(colour, 0.28),
            hovertemplate="%{customdata[0]}: %{customdata[1]}<extra></extra>",
        )
    )
    low, high = interval_usd
    figure.add_vrect(x0=low - 0.5, x1=high + 0.5, fillcolor=colour, opacity=0.10, line_width=0)
    figure.add_vline(x=price_usd, line={"color": colour, "width": 2.5})
    if actual_usd is not None:
        x = min(max(actual_usd, 1), 999)
        figure.add_vline(x=x, line={"color": ACTUAL_COLOUR, "width": 1.5, "dash": "dash"})
        figure.add_annotation(  # on a log axis an annotation, unlike a line, is placed by the logarithm
            x=np.log10(x) if log_axis else x,
            y=1,
            yref="paper",
            yanchor="bottom",
            text="actual",
            font={"size": 11},
            showarrow=False,
        )
    figure.update_xaxes(
        type="log" if log_axis else "linear",
        range=[np.log10(0.9), np.log10(1050)] if log_axis else [0, 1000],
        tickvals=LOG_TICKS if log_axis else LINEAR_TICKS,
        ticktext=[f"${tick}" for tick in (LOG_TICKS if log_axis else LINEAR_TICKS)],
        tickangle=0,
        tickfont={"size": 11},
        automargin=False,
        fixedrange=True,
        showgrid=False,
    )
    figure.update_yaxes(visible=False, range=[0, height * 1.08 or 1], fixedrange=True)
    figure.update_layout(
        margin={"l": 14, "r": 14, "t": 18, "b": 24},
        showlegend=False,
        dragmode=False,
        hovermode="x",
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
    )
    return figure
