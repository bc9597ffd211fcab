"""The Batch tab's figure: how the prices of many products spread."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import plotly.graph_objects as go

from pricer.figures.style import ACTUAL_COLOUR, COLOURS, finish, log_axis, usd, with_alpha

BINS_PER_DECADE = 8
_COLOURS = COLOURS | {"actual": ACTUAL_COLOUR}


def price_histogram(
    prices_usd: Mapping[str, np.ndarray], *, names: Mapping[str, str], description: str, count_axis: str
) -> go.Figure:
    """Products by price on a logarithmic axis. `prices_usd`: "base", "tuned" and "actual", each (n,) in dollars above 0;
    one alone is filled, several are drawn as steps. `names` are those of the legend."""
    drawn = {name: prices for name, prices in prices_usd.items() if len(prices)}
    everything = np.concatenate(list(drawn.values())) if drawn else np.array([1.0, 999.0])
    first = np.floor(BINS_PER_DECADE * np.log10(max(everything.min(), 0.01)))
    last = np.ceil(BINS_PER_DECADE * np.log10(everything.max()) + 1e-9)
    edges = 10 ** (np.arange(first, max(last, first + 2) + 1) / BINS_PER_DECADE)
    figure, highest = go.Figure(), 0
    for name, prices in drawn.items():
        counts = np.histogram(prices, edges)[0]
        highest = max(highest, counts.max())
        hover = [
            f"{names[name]}<br>{usd(low)} to {usd(high)}: {count:,}"
            for low, high, count in zip(edges[:-1], edges[1:], counts, strict=True)
        ]
        figure.add_scatter(
            x=np.repeat(edges, 2),
            y=np.concatenate([[0], np.repeat(counts, 2), [0]]),
            mode="lines",
            name=names[name],
            line={"color": _COLOURS[name], "width": 2, "dash": "dot" if name == "actual" else "solid"},
            fill="tozeroy" if len(drawn) == 1 else None,
            fillcolor=with_alpha(_COLOURS[name], 0.25),
            text=["", *np.repeat(hover, 2), ""],
            hovertemplate="%{text}<extra></extra>",
        )
    figure.update_xaxes(log_axis(edges[0], edges[-1]), zeroline=False, fixedrange=True)
    whole = {"dtick": 1} if highest <= 5 else {"nticks": 5}  # no halves of a product
    figure.update_yaxes(
        title=count_axis, rangemode="tozero", zeroline=False, fixedrange=True, tickformat=",d", **whole
    )
    finish(figure, description, legend=len(drawn) > 1, dragmode=False, hovermode="closest")
    return figure.update_layout(legend={"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"})
