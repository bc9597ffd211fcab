"""Bootstrap and permutation over items, vectorised and bounded in memory; used by `metrics`.

One matrix of resampling counts, (resamples, items), serves every metric of a call: a mean over resampled
items is a row of counts times the values, so a whole bootstrap is one matrix product, and only medians
need a second step. Rows are drawn in chunks. Of many items, GROUPS groups dealt at random are resampled in
their place: the sum over a group of m items varies by m times what one item's does, so intervals come out the
same, and 100,000 items take the time and memory of 2,000. The same seed gives the same result.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from math import erfc, sqrt

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csr_array

Floats = NDArray[np.float64]

RESAMPLES = 2_000
PERMUTATIONS = 10_000
SEED = 0
GROUPED_ITEMS = 5_000  # beyond these, groups of items are resampled
GROUPS = 2_000
MEDIAN_STEPS = 256
TOSSED_ITEMS = 20_000  # beyond these the permutation test uses its normal limit
KEPT_CELLS = 1 << 22  # a whole matrix of counts up to 8 MB is kept for the next call on as many items
CHUNK_CELLS = 1 << 20  # (resamples, items) cells held at once: a few tens of MB, whatever the number of items


@dataclass(frozen=True)
class Estimate:
    """A metric and the 95 % bootstrap interval around it; NaN where it is undefined."""

    value: float
    low: float
    high: float


def bootstrap(
    means_of: dict[str, ArrayLike], medians_of: dict[str, Floats], resamples: int, seed: int
) -> tuple[dict[str, Floats], dict[str, Floats]]:
    """Means and medians of per-item values; each array is (1 + resamples,), the first over the real items."""
    columns = np.column_stack([np.asarray(values, dtype=np.float64) for values in means_of.values()])
    items = len(columns)
    means = [columns.mean(axis=0, keepdims=True)]
    medians = {name: [np.median(values, keepdims=True)] for name, values in medians_of.items()}
    if items > GROUPED_ITEMS:
        group = np.random.default_rng(seed).permutation(items) % GROUPS
        in_group = csr_array((np.ones(items), (group, np.arange(items))), shape=(GROUPS, items))
        weights = _all_counts(GROUPS, resamples, seed).astype(np.float64)
        sizes = weights @ np.bincount(group, minlength=GROUPS)  # items in each resample, (resamples,)
        means.append(weights @ (in_group @ columns) / sizes[:, None])
        for name, values in medians_of.items():
            medians[name].append(_grouped_medians(values, group, weights, sizes))
    else:
        orders = {name: np.argsort(values) for name, values in medians_of.items()}
        whole = resamples * items <= KEPT_CELLS
        for counts in [_all_counts(items, resamples, seed)] if whole else _counts(items, resamples, seed):
            weights = counts.astype(np.float64)
            means.append(weights @ columns / items)
            for name, values in medians_of.items():
                medians[name].append(_resampled_medians(values, orders[name], counts, weights))
    return (
        dict(zip(means_of, np.concatenate(means).T, strict=True)),
        {name: np.concatenate(parts) for name, parts in medians.items()},
    )


def estimate(values: Floats) -> Estimate:
    """`values`: the metric on the real items, then on each resample, (1 + resamples,)."""
    resampled = values[1:][np.isfinite(values[1:])]
    if not resampled.size or not np.isfinite(values[0]):
        return Estimate(float(values[0]), float("nan"), float("nan"))
    low, high = np.quantile(resampled, [0.025, 0.975])
    return Estimate(float(values[0]), float(low), float(high))


def sign_flip_p_value(difference: ArrayLike, *, permutations: int = PERMUTATIONS, seed: int = SEED) -> float:
    """Two-sided p-value that paired differences, shape (items,), are symmetric around zero.

    If neither run were better, the sign of each item's difference would be a coin toss. The observed
    difference counts as one of the tosses, (1 + count) / (1 + n), so p is never 0 (Phipson and Smyth 2010).
    Of very many items the tossed sum is normal (a sum of independent, bounded terms): no tosses are needed,
    and the same floor holds.
    """
    difference = np.asarray(difference, dtype=np.float64)
    items = len(difference)
    if items > TOSSED_ITEMS:
        deviation = sqrt(float(difference @ difference))
        z = abs(float(difference.sum())) / deviation if deviation else 0.0
        return max(erfc(z / sqrt(2)), 1 / (1 + permutations))
    # Sums that are equal on paper differ in their last bits; without this slack ties would be missed.
    reach = abs(difference.sum()) - 1e-12 * np.abs(difference).sum()
    # A byte of tosses decides on eight items: their signed sum is looked up, 256 sums per byte.
    width = -(-items // 8)
    eights = np.pad(difference, (0, 8 * width - items)).reshape(width, 8)
    signs = 2.0 * np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1) - 1  # (256, 8)
    sums = signs @ eights.T  # (256, width)
    rng = np.random.default_rng(seed)
    count = 0
    for rows in _chunks(permutations, items):
        tosses = rng.integers(0, 256, size=(rows, width), dtype=np.uint8)
        count += int((np.abs(sums[tosses, np.arange(width)].sum(axis=1)) >= reach).sum())
    return (1 + count) / (1 + permutations)


def _counts(items: int, resamples: int, seed: int) -> Iterator[NDArray[np.intp]]:
    """How often each item is in each resample, in chunks of (rows, items)."""
    rng = np.random.default_rng(seed)
    for rows in _chunks(resamples, items):
        draws = rng.integers(items, size=(rows, items))
        draws += items * np.arange(rows)[:, None]
        yield np.bincount(draws.ravel(), minlength=rows * items).reshape(rows, items)


@lru_cache(maxsize=16)
def _all_counts(items: int, resamples: int, seed: int) -> NDArray[np.uint16]:
    """The same in one piece, kept: whoever looks at many runs on the same items draws once."""
    return np.concatenate([counts.astype(np.uint16) for counts in _counts(items, resamples, seed)])


def _resampled_medians(
    values: Floats, order: NDArray[np.intp], counts: NDArray[np.integer], weights: Floats
) -> Floats:
    """Median of each resample from its counts, (rows, items): the middle one or two of the sorted values.

    The middle of a resample lies within a few times sqrt(items) / 2 ranks of the middle of the items, so
    only that window is searched; what is below it is counted in one product. `weights`: counts as floats.
    """
    items = len(values)
    reach = int(3 * sqrt(items)) + 1  # six standard deviations
    start, stop = max(0, items // 2 - reach), min(items, items // 2 + reach)
    below = np.zeros(items)
    below[order[:start]] = 1
    seen = np.cumsum(counts[:, order[start:stop]], axis=1, dtype=np.int32)
    seen += (weights @ below).astype(np.int32)[:, None]
    middle = [start + (seen <= rank).sum(axis=1) for rank in ((items - 1) // 2, items // 2)]
    return values[order][np.minimum(middle, items - 1)].mean(axis=0)


def _grouped_medians(values: Floats, group: NDArray[np.intp], weights: Floats, sizes: Floats) -> Floats:
    """Median of each resample of groups, to MEDIAN_STEPS steps over six standard deviations to either side."""
    items = len(values)
    order = np.argsort(values)
    reach = 3 * sqrt(items)
    ranks = np.linspace(items / 2 - reach, items / 2 + reach, MEDIAN_STEPS).astype(int)
    place = np.empty(items, dtype=np.intp)
    place[order] = np.arange(items)
    step = np.searchsorted(ranks, place)  # the first of `ranks` that is not below the item
    cells = np.bincount(group * (MEDIAN_STEPS + 1) + step, minlength=GROUPS * (MEDIAN_STEPS + 1))
    up_to = cells.reshape(GROUPS, -1)[:, :MEDIAN_STEPS].cumsum(axis=1)  # items of a group up to each rank
    reached = weights @ up_to >= sizes[:, None] / 2
    return values[order[ranks[reached.argmax(axis=1)]]]


def _chunks(rows: int, items: int) -> Iterator[int]:
    """Split `rows` so that (chunk, items) stays near CHUNK_CELLS cells."""
    size = max(1, CHUNK_CELLS // items)
    for start in range(0, rows, size):
        yield min(size, rows - start)
