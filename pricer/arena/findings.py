"""Where B loses and wins most against A: slices of the items, in words, with the many looked at counted in.

A slice is a category within a price band, or a word of the labels, with at least FEWEST items. Each is tested
(a paired t-test of the errors' difference), and Benjamini and Hochberg's rule (1995) keeps the share of false
finds among those named below LEVEL. Their intervals are as much wider: to 1 - LEVEL * named / looked at, so that
of the intervals shown, too, no more than that share is wrong (Benjamini and Yekutieli 2005). Slices that are
mostly the same items are named once.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pricer.arena import slices

FEWEST = 20  # items of a slice
LEVEL = 0.05
SHOWN = 3  # slices that B loses, and that it wins
SAME = 0.6  # of two slices' items in common, of all that they have: they say the same
# Words that tell nothing about a product.
COMMON = frozenset(
    [
        "a",
        "an",
        "and",
        "by",
        "for",
        "from",
        "in",
        "of",
        "on",
        "or",
        "the",
        "to",
        "with",
        "your",
        "inch",
        "inches",
        "pack",
        "set",
    ]
)


@dataclass(frozen=True)
class Slice:
    """`gap_usd`: B's mean error minus A's there, with its corrected interval. What picks it: a category within a
    price band (upper end open: None), or a word."""

    items: int
    gap_usd: float
    low_usd: float
    high_usd: float
    category: str = ""
    from_usd: float = 0.0
    below_usd: float | None = None
    word: str = ""


@dataclass(frozen=True)
class Findings:
    """`looked_at`: slices with items enough; `level`: that of the intervals shown."""

    looked_at: int
    level: float
    losses: list[Slice]  # of B, the largest first
    wins: list[Slice]


def findings(table: pd.DataFrame) -> Findings:
    """The slices of a pair's table (label, category, price_usd, error_usd_a, error_usd_b) that stand out."""
    from scipy import stats  # half a second, which no start waits for

    made = _slices(table)
    if not made:
        return Findings(0, 1 - LEVEL, [], [])
    masks = np.array([mask for _, mask in made], dtype=np.float64)  # (slices, items)
    gap = (table["error_usd_b"] - table["error_usd_a"]).to_numpy()
    items = masks.sum(axis=1)
    mean = masks @ gap / items
    variance = np.maximum(masks @ gap**2 / items - mean**2, 0) * items / (items - 1)
    error = np.sqrt(variance / items)
    t = np.divide(mean, error, out=np.zeros_like(mean), where=error > 0)
    p_values = 2 * stats.t.sf(np.abs(t), items - 1)
    named = stats.false_discovery_control(p_values, method="bh") < LEVEL
    level = 1 - LEVEL * max(1, int(named.sum())) / len(made)
    reach = stats.t.ppf((1 + level) / 2, items - 1) * error

    def found(i: int) -> Slice:
        picks, _ = made[i]
        return Slice(
            int(items[i]), float(mean[i]), float(mean[i] - reach[i]), float(mean[i] + reach[i]), **picks
        )

    def best(of: NDArray[np.intp]) -> list[Slice]:
        kept: list[int] = []
        for i in of:
            if all(_overlap(masks[i], masks[k]) < SAME for k in kept):
                kept.append(int(i))
            if len(kept) == SHOWN:
                break
        return [found(i) for i in kept]

    order = np.argsort(-mean, kind="stable")
    losses = [i for i in order if named[i] and mean[i] > 0]
    wins = [i for i in order[::-1] if named[i] and mean[i] < 0]
    return Findings(len(made), level, best(losses), best(wins))


def _slices(table: pd.DataFrame) -> list[tuple[dict, slices.Mask]]:
    made = []
    bands = list(slices.PRICE_BANDS_USD)
    band = np.searchsorted(bands[1:], table["price_usd"].to_numpy(), side="right")
    for category, in_category in slices.by_category(table).items():
        for i, low in enumerate(bands):
            mask = in_category & (band == i)
            if mask.sum() >= FEWEST:
                below = float(bands[i + 1]) if i + 1 < len(bands) else None
                made.append(({"category": category, "from_usd": float(low), "below_usd": below}, mask))
    rows_of: dict[str, list[int]] = {}
    for row, label in enumerate(table["label"]):
        for word in set(re.findall(r"\w+(?:[-'’.]\w+)*", label.casefold())):
            rows_of.setdefault(word, []).append(row)
    for word, rows in sorted(rows_of.items()):
        if len(rows) >= FEWEST and len(word) > 1 and word not in COMMON and not word.isdigit():
            mask = np.zeros(len(table), dtype=bool)
            mask[rows] = True
            made.append(({"word": word}, mask))
    return made


def _overlap(one: NDArray, other: NDArray) -> float:
    return float(np.minimum(one, other).sum() / np.maximum(one, other).sum())
