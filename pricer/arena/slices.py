"""Which items to look at: filters as boolean masks, and slices that share the items out.

Masks have shape (items,) and combine with `&`. They are made from the table of `runs.join_items`, are in
its row order whatever its pandas index, and change nothing.
"""

import re
from collections.abc import Collection

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from pricer.arena.metrics import OUTCOMES
from pricer.errors import InputError

Mask = NDArray[np.bool_]

PRICE_BANDS_USD = (0, 25, 50, 100, 200, 400, 700)  # each band's lower end; the last one has no upper end


def has_category(table: pd.DataFrame, categories: Collection[str] | None) -> Mask:
    """Items in one of `categories`; None lets all pass, an empty list none."""
    if categories is None:
        return np.ones(len(table), dtype=bool)
    return table["category"].isin(list(categories)).to_numpy(dtype=bool)


def has_price(table: pd.DataFrame, low_usd: float | None = None, high_usd: float | None = None) -> Mask:
    """Items whose price lies in [low_usd, high_usd], both ends included; None is no limit."""
    price_usd = table["price_usd"].to_numpy(dtype=np.float64)
    mask = np.ones(len(table), dtype=bool)
    if low_usd is not None:
        mask &= price_usd >= low_usd
    if high_usd is not None:
        mask &= price_usd <= high_usd
    return mask


def has_outcome(table: pd.DataFrame, outcomes: Collection[str] | None, column: str = "outcome") -> Mask:
    """Items whose outcome is one of `outcomes`; `column` is outcome_a or outcome_b in a joined pair."""
    if outcomes is None:
        return np.ones(len(table), dtype=bool)
    if unknown := set(outcomes) - set(OUTCOMES):
        raise InputError(f"There is no outcome {min(unknown)}: choose from {', '.join(OUTCOMES)}.")
    return table[column].isin(list(outcomes)).to_numpy(dtype=bool)


def has_words(table: pd.DataFrame, words: str) -> Mask:
    """Items whose label has all of the words, in any order and case, each whole or as the beginning of one; a word in
    quotes must be whole. None: all pass."""
    mask = np.ones(len(table), dtype=bool)
    for word in words.casefold().split():
        whole = len(word) > 2 and word[0] == word[-1] == '"'
        pattern = r"(?<!\w)" + re.escape(word.strip('"') if whole else word) + (r"(?!\w)" if whole else "")
        mask &= table["label"].str.casefold().str.contains(pattern).to_numpy(dtype=bool)
    return mask


def differs(guess_a_usd: ArrayLike, guess_b_usd: ArrayLike, at_least_usd: float) -> Mask:
    """Items on which two runs' guesses are at least `at_least_usd` apart."""
    return np.abs(np.asarray(guess_a_usd, dtype=float) - np.asarray(guess_b_usd, dtype=float)) >= at_least_usd


def by_price(table: pd.DataFrame, bands_usd: Collection[float] = PRICE_BANDS_USD) -> dict[str, Mask]:
    """A mask per price band that has items, cheapest first; every item is in exactly one.

    A price on a boundary belongs to the upper band. `bands_usd`: each band's lower end, ascending; what is
    cheaper than the first belongs to the first.
    """
    bands = list(bands_usd)
    if not bands or bands != sorted(set(bands)):
        raise InputError("Price bands need at least one lower end, in ascending order, each once.")
    band = np.searchsorted(bands[1:], table["price_usd"].to_numpy(dtype=np.float64), side="right")
    labels = [f"${low:,g}–{high:,g}" for low, high in zip(bands, bands[1:], strict=False)] + [
        f"${bands[-1]:,g}+"
    ]
    return {label: band == i for i, label in enumerate(labels) if (band == i).any()}


def by_category(table: pd.DataFrame) -> dict[str, Mask]:
    """A mask per category that has items, the largest category first, equal ones by name."""
    counts = table["category"].value_counts()
    names = sorted(counts.index, key=lambda name: (-counts[name], name))
    return {name: (table["category"] == name).to_numpy(dtype=bool) for name in names}
