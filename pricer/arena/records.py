"""What the arena answers with."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pricer.arena.resampling import (
    Estimate,
)
from pricer.arena.runs import RunInfo

Rows = NDArray[np.intp]

FEWEST_ITEMS = 30  # that can show a difference
SIGNIFICANT = 0.05  # the permutation test's level: that of a 95 % interval


@dataclass(frozen=True)
class Narrowed:
    """The items of a view. `rows`: what everything is computed on, by index; `ranked`: in the preset's order."""

    shared: int  # items that both runs have
    filtered: Rows  # those that pass the filters
    rows: Rows  # those that preset and selection leave
    ranked: Rows


@dataclass(frozen=True)
class HeadToHead:
    """A and B on the same items, by field of `metrics.Summary`; a metric that a run cannot have is absent."""

    items: int
    a: dict[str, Estimate]
    b: dict[str, Estimate]
    difference: dict[str, Estimate]  # b minus a, paired
    wins_a: int
    ties: int
    wins_b: int
    p_value: float

    @property
    def verdict(self) -> str:
        """Who is closer: "a" or "b", "unclear" where the items tell no difference, "few" where there are too few of
        them: less than FEWEST_ITEMS, or so few that the interval and the permutation test disagree."""
        gap = self.difference["error_usd"]
        apart, unlikely = gap.low > 0 or gap.high < 0, self.p_value < SIGNIFICANT
        if self.items < FEWEST_ITEMS or apart != unlikely:
            return "few"
        return ("b" if gap.value < 0 else "a") if apart else "unclear"


@dataclass(frozen=True)
class Standing:
    """A run's row in the leaderboard. Differences are this run's error minus the other's, paired."""

    name: str
    error_usd: Estimate
    rmsle: Estimate
    hits_pct: Estimate
    within_pct: Estimate  # guesses within 20 % of the price
    behind_best: Estimate
    behind_a: Estimate

    @property
    def ties_best(self) -> bool:
        """Whether the data cannot tell this run's error from the best one's."""
        return self.behind_best.low <= 0 <= self.behind_best.high


@dataclass(frozen=True)
class Leaderboard:
    items: int  # those in view that every run on the board has
    standings: list[Standing]  # best first
    left_out: dict[str, int]  # runs with too few of the items in view, and how many they have


@dataclass(frozen=True)
class Group:
    """A price band or a category: mean errors of A and B there."""

    label: str
    items: int
    a: Estimate
    b: Estimate


@dataclass(frozen=True)
class Several:
    """Runs on the same items: price_usd (items,) in the split's order, and each run's error there, by name."""

    infos: dict[str, RunInfo]
    price_usd: NDArray[np.float64]
    away_usd: dict[str, NDArray[np.float64]]


@dataclass(frozen=True)
class Coverage:
    """How often a run's intervals held the price, against how often they should."""

    info: RunInfo
    items: int
    level_pct: float
    coverage_pct: Estimate
    width_usd: float


@dataclass(frozen=True)
class ItemGuess:
    info: RunInfo
    guess_usd: float
    outcome: str
    low_usd: float | None
    high_usd: float | None


@dataclass(frozen=True)
class Item:
    index: int
    label: str
    category: str
    price_usd: float
    guesses: list[ItemGuess]  # closest first
