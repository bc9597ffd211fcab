"""What all figures share: colours, marks, dollars on axes, a transparent ground."""

from __future__ import annotations

import numpy as np
import plotly.graph_objects as go

# 3:1 or better on the light and on the dark page; apart in hue (which all common colour blindness leaves
# apart) and in lightness (so in print too).
BASE_COLOUR = "#64748b"
TUNED_COLOUR = "#d97706"
ACTUAL_COLOUR = "#dc2626"
COLOURS = {"base": BASE_COLOUR, "tuned": TUNED_COLOUR}

# In the Evaluation tab A stands where the base stands in the Compare tab, and B where the tuned model does.
PAIR_COLOURS = {"a": BASE_COLOUR, "b": TUNED_COLOUR}
PIN_COLOURS = ("#2563eb", "#0d9488", "#9333ea", "#db2777", "#65a30d")
PIN_DASHES = ("dot", "dashdot", "longdash", "longdashdot", "dot")
OUTCOME_COLOURS = {"hit": "#0d9488", "near": "#a97b00", "miss": "#dc2626"}
OUTCOME_SYMBOLS = {"hit": "circle", "near": "diamond", "miss": "x"}
OPEN_COLOUR = "#2563eb"  # the ring around the item that is open
CLEAR = "rgba(0,0,0,0)"

TICKS = (1, 3)  # a line at these times a power of ten; words at powers of ten, which do not crowd on a phone
FINE_TICKS = (1, 2, 5)  # on an axis that spans little, each with its words


def with_alpha(colour: str, alpha: float) -> str:
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},{alpha})"


def usd(value: float) -> str:
    """As short as it can be said: $0.99, $9.50, $317, $12,500."""
    return f"${value:,.2f}" if abs(value) < 10 else f"${value:,.0f}"


def log_axis(low: float, high: float) -> dict:
    """A logarithmic axis in dollars over [low, high]."""
    fine = high / low < 60
    powers = [10.0**n for n in range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)]
    ticks = [
        k * power for power in powers for k in (FINE_TICKS if fine else TICKS) if low <= k * power <= high
    ]
    return {
        "type": "log",
        "range": [float(np.log10(low)), float(np.log10(high))],
        "tickvals": ticks,
        "ticktext": [_short(tick) if fine or tick in powers else "" for tick in ticks],
        "tickangle": 0,
    }


def linear_axis(low: float, high: float) -> dict:
    return {"type": "linear", "range": [low, high], "tickprefix": "$", "nticks": 6, "separatethousands": True}


def finish(
    figure: go.Figure,
    description: str,
    revision: str = "",
    *,
    legend: bool = False,
    walk: bool = False,
    toolbar: bool = True,
    **layout,
) -> go.Figure:
    """The layout of every Evaluation figure. `revision`: while it stays the same, zoom outlives an update. `walk`: its
    marks, those with customdata, are reached by arrow keys, and a finger picks the nearest. `toolbar`: whether there is
    something to zoom into or to save."""
    settings = {
        "margin": {"l": 56, "r": 12, "t": 32, "b": 44},  # the plot begins below the toolbar
        "paper_bgcolor": CLEAR,
        "plot_bgcolor": CLEAR,
        "showlegend": legend,
        "uirevision": revision or "keep",
        "meta": {"description": description, "walk": walk, "toolbar": toolbar},
    }
    return figure.update_layout(**(settings | layout))


def _short(tick: float) -> str:
    if tick >= 1_000:
        return f"${tick / 1_000:g}k"
    return f"${tick:.2f}" if tick < 1 else f"${tick:g}"
