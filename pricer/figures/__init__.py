"""Plotly figures from data: pure functions, no page, no model.

Figures leave paper, plot background, type and grid to the page, so that they fit light and dark.

    style         colours, marks and axes that all figures share
    distribution  the Compare tab: distributions over prices on one axis
    guesses       the Evaluation tab, item by item: guess against price, A against B, one item's strip
    prices        the Batch tab: how the prices of many products spread
    errors        the Evaluation tab, in sum: spread of errors, by group, running, coverage
"""

from pricer.figures.distribution import Row, binned, price_bins, price_comparison
from pricer.figures.style import ACTUAL_COLOUR, BASE_COLOUR, COLOURS, TUNED_COLOUR

__all__ = [
    "ACTUAL_COLOUR",
    "BASE_COLOUR",
    "COLOURS",
    "TUNED_COLOUR",
    "Row",
    "binned",
    "price_bins",
    "price_comparison",
]
