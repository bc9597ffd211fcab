"""Which rows stay, which belong together, and which split each of them goes to.

A group is a connected component of near-duplicates and of seller templates. No group is ever cut across
splits: a model that has seen one filled-in template knows the price of the others, and its validation error
would flatter it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from train.duplicates import TEMPLATES, WHOLE, components, find_pairs

# How many example pairs of each kind are shown.
EXAMPLES = 5


@dataclass(frozen=True)
class Likeness:
    """From which similarity (0 to 1) two texts are one listing, a row is too near a test item, and two texts
    share a group."""

    near: float = 0.85
    near_test: float = 0.7
    family: float = 0.5


@dataclass(frozen=True)
class Found:
    """What the hashes say of every row: its group, whether it stays; and in sum, how many of what, and
    example pairs (row, row, similarity), where rows beyond the last one are test items."""

    group: np.ndarray  # (rows,) int64
    stays: np.ndarray  # (rows,) bool
    counts: dict[str, int]
    examples: dict[str, list[tuple[int, int, float]]]


def find_groups(
    batches: Callable[[], Iterator[list[str]]],
    target_like: np.ndarray,
    test_items: int,
    likeness: Likeness,
    *,
    drop_test_families: bool = False,
    seed: int = 0,
) -> Found:
    """Compare all texts. `batches` begins a new run over the texts of the rows and then of the test items.

    Of the copies of one listing the first stays, but one that is like the target before any other.
    """
    rows = len(target_like)
    pairs, alike = find_pairs(batches(), rows + test_items, WHOLE, likeness.family, seed)
    within, across = pairs[:, 1] < rows, (pairs[:, 0] < rows) & (pairs[:, 1] >= rows)

    near_test = across & (alike >= likeness.near_test)
    stays = np.ones(rows, dtype=bool)
    stays[pairs[near_test, 0]] = False
    counts = {"near_a_test_item": int((~stays).sum())}

    near = within & (alike >= likeness.near)
    counts["near_duplicate_pairs"] = int(near.sum())
    copies = stays & ~_first_of_each(components(rows, pairs[within & (alike == 1)]), target_like, stays)
    counts["exact_duplicates"] = int(copies.sum())
    copies = stays & ~_first_of_each(components(rows, pairs[near]), target_like, stays)
    counts["exact_and_near_duplicates"] = int(copies.sum())
    stays &= ~copies

    linked = [pairs]
    for view in TEMPLATES:
        linked.append(find_pairs(batches(), rows + test_items, view, likeness.family, seed)[0])
    group = components(rows + test_items, np.concatenate(linked))
    group, test_group = group[:rows], group[rows:]
    shared = stays & np.isin(group, test_group)
    counts["rows_sharing_a_template_with_test"] = int(shared.sum())
    counts["test_items_sharing_a_template"] = int(np.isin(test_group, group[stays]).sum())
    if drop_test_families:
        stays &= ~shared
    sizes = np.bincount(group[stays])
    counts["groups"] = int((sizes > 0).sum())
    counts["rows_in_the_largest_group"] = int(sizes.max(initial=0))
    examples = {
        "near-duplicates": _examples(pairs[near], alike[near]),
        "near a test item": _examples(pairs[near_test], alike[near_test]),
    }
    return Found(group.astype(np.int64), stays, counts, examples)


def _first_of_each(component: np.ndarray, preferred: np.ndarray, stays: np.ndarray) -> np.ndarray:
    """One row of each component: of those that stay, the preferred first, then the earliest."""
    order = np.lexsort((np.arange(len(component)), ~preferred, ~stays))
    first = np.zeros(len(component), dtype=bool)
    first[order[np.unique(component[order], return_index=True)[1]]] = True
    return first


def _examples(pairs: np.ndarray, alike: np.ndarray) -> list[tuple[int, int, float]]:
    """A few pairs, the least alike first: they show where the line was drawn."""
    chosen = np.argsort(alike, kind="stable")[:EXAMPLES]
    return [(int(pairs[at, 0]), int(pairs[at, 1]), float(alike[at])) for at in chosen]


def cut(
    group: np.ndarray, price_usd: np.ndarray, eligible: np.ndarray, wanted: dict[str, int], seed: int
) -> np.ndarray:
    """The split of each row; no group has rows in two splits.

    `wanted` names the splits to be made of `eligible` rows, with about how many rows each. Groups are lined
    up by price and taken at even distances (systematic sampling), so that each split has the price
    distribution of all eligible rows. Rows of a chosen group that are not eligible belong to no split (""),
    everything else is "train". A group larger than a twentieth of the wanted rows stays in train: one seller
    must neither dominate a figure nor take his other rows away from training.
    """
    rows = pd.DataFrame({"group": group, "price": price_usd})
    groups = rows[eligible].groupby("group")["price"].agg(["size", "median"])
    whole = rows.groupby("group").size().reindex(groups.index)
    generator = np.random.default_rng(seed)
    split_of_group: dict[int, str] = {}
    for name, count in wanted.items():
        free = groups[~groups.index.isin(split_of_group) & (whole <= max(1, count // 20))]
        free = free.sample(frac=1, random_state=generator).sort_values("median", kind="stable")
        if not count or free.empty:
            continue
        each = min(1.0, count / free["size"].sum())
        line = np.floor(np.arange(len(free) + 1) * each + generator.random())
        split_of_group |= dict.fromkeys(free.index[np.diff(line) > 0], name)
    split = np.array([split_of_group.get(number, "train") for number in group.tolist()], dtype=object)
    split[(split != "train") & ~eligible] = ""
    return split
