"""The probability distribution over $1..$999, and the ways to say it in one number.

A *point rule* turns the distribution into one price. Each is the best answer to another question:

    median    least absolute error       minimises E|g - Y|
    log-mean  least squared log error    minimises E(ln(1+g) - ln(1+Y))^2, the square of RMSLE
    mean      least squared error        minimises E(g - Y)^2
    mode      the likeliest price        what greedy decoding writes
    best-hit  most likely a hit          maximises P(|g - Y| < 40 or |g - Y| < 0.2 Y)
    top-3     the three likeliest, weighted by their probability (ed-donner's rule)
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np

from pricer.errors import InputError
from pricer.price.lattice import PRICES

HIT_USD, HIT_SHARE = 40.0, 0.20  # a guess is a hit within $40 or within 20 % of the price
RULES = ("log-mean", "median", "mean", "mode", "best-hit", "top-3")
DEFAULT_RULE = "log-mean"
INTERVAL_LEVEL = 0.9  # of the interval that the page, the command line and the runs show


class PriceDistribution:
    """P($1) .. P($999) for a batch of texts or for one.

    `probabilities` (..., 999) as the model gave them, `unpriced_mass` (...) what they lack to 1: text
    that spells no whole price in range. Everything below is conditional on a price being spelled.
    All results have the leading shape of `probabilities`; prices are in dollars.

    Raises ValueError for a wrong shape, a negative or non-finite probability, or no probability at all.
    """

    def __init__(self, probabilities: np.ndarray):
        p = np.asarray(probabilities, dtype=np.float64)
        if p.shape[-1:] != PRICES.shape:
            raise ValueError(f"expected {len(PRICES)} probabilities per text, got shape {p.shape}")
        total = p.sum(axis=-1)
        if not np.isfinite(total).all() or (p < 0).any() or (total <= 0).any():
            raise ValueError("probabilities must be finite, not negative, and not all zero")
        self.probabilities = p
        self.unpriced_mass = np.clip(1 - total, 0.0, 1.0)
        self.conditional = p / total[..., None]
        self.cdf = np.cumsum(self.conditional, axis=-1)

    def __len__(self) -> int:
        return len(self.probabilities)

    def __getitem__(self, i) -> PriceDistribution:
        return PriceDistribution(self.probabilities[i])

    @classmethod
    def stack(cls, parts: Sequence[PriceDistribution]) -> PriceDistribution:
        return cls(np.stack([part.probabilities for part in parts]))

    def point(self, rule: str = DEFAULT_RULE) -> np.ndarray:
        """One price per text by the named rule. Raises InputError for an unknown rule."""
        p = self.conditional
        if rule == "median":
            return self.quantile(0.5)
        if rule == "log-mean":
            return np.expm1(p @ np.log1p(PRICES))
        if rule == "mean":
            return p @ PRICES
        if rule == "mode":
            return PRICES[p.argmax(axis=-1)].astype(float)
        if rule == "best-hit":
            hits = p @ _hit_matrix()
            # Neighbouring guesses often tie: the least of them, whatever the last digit of a sum says,
            # so that a text gets the same price alone and in a batch.
            tied = hits >= hits.max(axis=-1, keepdims=True) - 1e-9
            return PRICES[tied.argmax(axis=-1)].astype(float)
        if rule == "top-3":
            top = np.argpartition(p, -3, axis=-1)[..., -3:]
            weight = np.take_along_axis(p, top, axis=-1)
            return (weight * PRICES[top]).sum(axis=-1) / weight.sum(axis=-1)
        raise InputError(f"There is no rule {rule!r}: choose one of {', '.join(RULES)}.")

    def points(self) -> dict[str, np.ndarray]:
        return {rule: self.point(rule) for rule in RULES}

    def quantile(self, level: float | np.ndarray) -> np.ndarray:
        """The least whole-dollar price whose cumulative probability reaches `level` (0 to 1): one for all texts,
        or one for each (...)."""
        # The last sum of a long float addition may fall just short of 1.
        reached = self.cdf >= np.clip(level, 1e-12, 1 - 1e-12)[..., None]
        return PRICES[np.where(reached.any(axis=-1), reached.argmax(axis=-1), len(PRICES) - 1)].astype(float)

    def interval(self, level: float = INTERVAL_LEVEL) -> tuple[np.ndarray, np.ndarray]:
        """The central interval: as much probability below as above. Not calibrated."""
        return self.quantile((1 - level) / 2), self.quantile((1 + level) / 2)

    def crps(self, price_usd: np.ndarray) -> np.ndarray:
        """Continuous ranked probability score in dollars (lower is better), the expected absolute error less
        half the distribution's own spread: Gneiting & Raftery 2007, eq. 20. `price_usd` (...) may be any
        price; the integral runs over $0 to $1000."""
        y = np.asarray(price_usd, dtype=np.float64)[..., None]
        miss = (self.conditional * np.abs(PRICES - y)).sum(axis=-1)
        # E|X - X'| / 2 is the integral of F(1 - F), here a sum over dollar steps.
        return miss - (self.cdf[..., :-1] * (1 - self.cdf[..., :-1])).sum(axis=-1)

    def log_score(self, price_usd: np.ndarray) -> np.ndarray:
        """-ln P(whole-dollar price) in nats (lower is better), conditional on a price being spelled; 691 at most, as
        for a probability of 1e-300."""
        nearest = np.clip(np.rint(price_usd), PRICES[0], PRICES[-1]).astype(int) - PRICES[0]
        p = np.take_along_axis(self.conditional, np.asarray(nearest)[..., None], axis=-1)[..., 0]
        return -np.log(np.maximum(p, 1e-300))


@cache
def _hit_matrix() -> np.ndarray:
    """(price, guess): 1 where the guess is a hit at that price."""
    off = np.abs(PRICES[:, None] - PRICES[None, :])
    return ((off < HIT_USD) | (off / PRICES[:, None] < HIT_SHARE)).astype(np.float64)
