"""Bootstrap and permutation over items, vectorised and bounded in memory; used by `metrics`.

One matrix of resampling counts, (resamples, items), serves every metric of a call: a mean over resampled
items is a row of counts times the values, so a whole bootstrap is one matrix product, and only medians
need a second step. Rows are drawn in chunks, so 100,000 items take no more memory than 1,000. The same
seed gives the same result.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

RESAMPLES = 2_000
PERMUTATIONS = 10_000
SEED = 0
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
    orders = {name: np.argsort(values) for name, values in medians_of.items()}
    means = [columns.mean(axis=0, keepdims=True)]
    medians = {name: [np.median(values, keepdims=True)] for name, values in medians_of.items()}
    rng = np.random.default_rng(seed)
    for rows in _chunks(resamples, items):
        draws = rng.integers(items, size=(rows, items))
        draws += items * np.arange(rows)[:, None]
        counts = np.bincount(draws.ravel(), minlength=rows * items).reshape(rows, items)
        means.append(counts.astype(np.float64) @ columns / items)
        for name, values in medians_of.items():
            medians[name].append(_resampled_medians(values, orders[name], counts))
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
    """
    difference = np.asarray(difference, dtype=np.float64)
    items = len(difference)
    # Sums that are equal on paper differ in their last bits; without this slack ties would be missed.
    reach = abs(difference.sum()) - 1e-12 * np.abs(difference).sum()
    rng = np.random.default_rng(seed)
    count = 0
    for rows in _chunks(permutations, items):
        tosses = rng.integers(0, 256, size=(rows, -(-items // 8)), dtype=np.uint8)
        heads = np.unpackbits(tosses, axis=1, count=items).astype(np.float64)  # (rows, items) of 0 and 1
        flipped_sum = 2 * (heads @ difference) - difference.sum()
        count += int((np.abs(flipped_sum) >= reach).sum())
    return (1 + count) / (1 + permutations)


def _resampled_medians(values: Floats, order: NDArray[np.intp], counts: NDArray[np.intp]) -> Floats:
    """Median of each resample from its counts, (rows, items): the middle one or two of the sorted values."""
    items = len(values)
    seen = np.cumsum(counts[:, order], axis=1, dtype=np.int32)
    middle = [(seen <= rank).sum(axis=1) for rank in ((items - 1) // 2, items // 2)]
    return values[order][np.array(middle)].mean(axis=0)


def _chunks(rows: int, items: int) -> Iterator[int]:
    """Split `rows` so that (chunk, items) stays near CHUNK_CELLS cells."""
    size = max(1, CHUNK_CELLS // items)
    for start in range(0, rows, size):
        yield min(size, rows - start)
