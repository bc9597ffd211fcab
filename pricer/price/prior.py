"""What listings cost before a word of them is read, and how to exchange one such prior for another.

A model trained on price-balanced listings has that balance in it: it expects a median of some $170 where a shop's is
some $25, and prices a mouse accordingly. Since the whole distribution is there, Bayes' rule takes the one prior out and
puts the other in (Saerens, Latinne & Decaestecker 2002, "Adjusting the outputs of a classifier to new a priori
probabilities"):

    p'(n) ~ p(n) * to(n) / trained(n)

A prior is a histogram over log price, eight bins to a factor of e, smoothed 1-2-1. `python -m train.prior` makes one.
"""

from __future__ import annotations

import datetime
import hashlib
import json
from functools import cached_property
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field, field_validator

from pricer.errors import SetupError
from pricer.price.distribution import PriceDistribution
from pricer.price.lattice import PRICES
from pricer.price.record import Record
from pricer.settings import ASSETS

PRIOR_FILE = "prior.json"  # in an adapter's folder: the prior that it was trained under
PRIORS_FOLDER = ASSETS / "priors"
SHIPPED = ("shop", "benchmark")
PRIOR_HELP = "what prices the fine-tuned model expects: shop, benchmark, or a file of train.prior; default: PRICER_PRIOR, or shop"
BINS_PER_E = 8
_PLACE = BINS_PER_E * np.log(PRICES)  # (999,) where each price lies on the bins' scale
BINS = int(_PLACE[-1]) + 1
_SMOOTH = (0.25, 0.5, 0.25)


def price_bins(price_usd: np.ndarray) -> np.ndarray:
    """Bin numbers on the log scale, from $1 on; prices out of range count as $1 and $999."""
    return np.floor(BINS_PER_E * np.log(np.clip(price_usd, PRICES[0], PRICES[-1]))).astype(int)


def dollar_mass(price_usd: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """(999,) the weight of the prices (n,) that are nearest to each whole dollar."""
    nearest = np.clip(np.rint(price_usd), PRICES[0], PRICES[-1]).astype(int) - PRICES[0]
    return np.bincount(nearest, weights=weight, minlength=len(PRICES))


class PricePrior(Record):
    """`shares`: the smoothed share of the prices, rounded to whole dollars, in each bin; none is 0."""

    damaged: ClassVar[str] = (
        "{path} is damaged or no price prior ({reason}): make it again with python -m train.prior."
    )
    name: str = Field(min_length=1, max_length=60)
    source: str = ""  # what the prices came from
    items: int = Field(ge=1)  # how many they were
    date: datetime.date | None = None
    unit: Literal["USD"] = "USD"
    bins_per_e: Literal[8] = BINS_PER_E
    shares: tuple[float, ...]

    @field_validator("shares")
    @classmethod
    def _is_a_distribution(cls, shares: tuple[float, ...]) -> tuple[float, ...]:
        if len(shares) != BINS or min(shares) <= 0 or not np.isclose(sum(shares), 1.0, atol=1e-4):
            raise ValueError(f"there must be {BINS} shares above 0 that sum to 1")
        return shares

    @classmethod
    def fit(
        cls, price_usd: np.ndarray, weight: np.ndarray | None = None, *, name: str, source: str = ""
    ) -> PricePrior:
        """The prior of n prices in dollars, each of which counts `weight` (n,), by default 1. Prices out of range count
        as $1 and $999. Raises ValueError for no price, a price that is no number, or weights as `of_mass` does."""
        price = np.asarray(price_usd, dtype=np.float64)
        weight = np.ones(len(price)) if weight is None else np.asarray(weight, dtype=np.float64)
        if not len(price) or price.shape != weight.shape or not np.isfinite(price).all():
            raise ValueError(
                f"expected prices with one weight for each, got {price.shape} and {weight.shape}"
            )
        return cls.of_mass(dollar_mass(price, weight), items=len(price), name=name, source=source)

    @classmethod
    def of_mass(cls, mass: np.ndarray, *, items: int, name: str, source: str = "") -> PricePrior:
        """The prior of `items` prices of which `mass` (999,), up to a factor, lie at each whole dollar.

        One more item is spread over all bins, so that no price is impossible. Raises ValueError for mass that is
        negative, not finite, or all 0.
        """
        if mass.shape != PRICES.shape or not (
            np.isfinite(mass).all() and (mass >= 0).all() and mass.sum() > 0
        ):
            raise ValueError("mass must be finite, not negative, not all 0, and of each of the 999 prices")
        found = np.bincount(price_bins(PRICES), weights=mass / mass.sum() * items, minlength=BINS) + 1 / BINS
        # What would leave at an end stays in the end's bin.
        smooth = np.convolve(np.pad(found, 1, mode="edge"), _SMOOTH, mode="valid")
        shares = tuple(float(f"{share:.6g}") for share in smooth / smooth.sum())
        return cls(name=name, source=source, items=items, date=datetime.date.today(), shares=shares)

    @cached_property
    def density(self) -> np.ndarray:
        """(999,) how likely each whole-dollar price is, per step of log price and up to a factor: between the bins'
        centres in proportion, so that no price's neighbour is of another order."""
        return np.exp(np.interp(_PLACE, np.arange(BINS) + 0.5, np.log(self.shares)))

    @cached_property
    def median_usd(self) -> float:
        """In dollars, to the bin's width."""
        below = np.concatenate([[0.0], np.cumsum(self.shares)])
        return float(np.exp(np.interp(0.5 * below[-1], below, np.arange(BINS + 1)) / BINS_PER_E))

    @cached_property
    def sha256(self) -> str:
        """What tells one prior from another of the same name: of its shares alone."""
        return hashlib.sha256(json.dumps(self.shares).encode()).hexdigest()

    @property
    def key(self) -> list[str]:
        """For a manifest: which prior it is, to read and to compare."""
        return [self.name, self.sha256[:8]]


def correct(distribution: PriceDistribution, trained: PricePrior, to: PricePrior) -> PriceDistribution:
    """What a model trained under the prior `trained` would say under `to`; any leading shape. The unpriced mass stays
    as it is: whether a price is spelled at all is no matter of prices."""
    if to.shares == trained.shares:
        return distribution
    p = distribution.conditional * (to.density / trained.density)
    priced = distribution.probabilities.sum(axis=-1, keepdims=True)
    return PriceDistribution(p / p.sum(axis=-1, keepdims=True) * priced)


def load_prior(name: str) -> PricePrior:
    """A prior that ships with the app, by its name, or one in a file. Raises SetupError."""
    if name in SHIPPED:
        return PricePrior.load(PRIORS_FOLDER / f"{name}.json")
    path = Path(name).expanduser()
    if not path.is_file():
        raise SetupError(
            f"There is no price prior {name}: name {' or '.join(SHIPPED)}, or a file that python -m train.prior wrote."
        )
    return PricePrior.load(path)
