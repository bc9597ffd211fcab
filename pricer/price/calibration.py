"""Intervals whose coverage was measured on held-out listings, and the point rule that did best on them.

A model's own central interval holds the actual price less often than it says. Calibration keeps the
distribution and corrects the two cumulative probabilities between which an interval runs: "90 %" may then mean
from the model's 3 % to its 98 %. Those two are order statistics of where the actual prices of held-out
listings entered the distribution, one for each tail, so that of new listings like them at most 5 % cost less
than the interval's low end, and at most 5 % more than its high end.

That is distributional conformal prediction (Chernozhukov, Wüthrich & Zhu 2021, PNAS 118 (48)) with the two tails
apart (conformalised quantile regression, Romano, Patterson & Candès 2019, theorem 2), within bands of the predicted
price (Mondrian: Vovk, Lindsay, Nouretdinov & Gammerman 2003). Why this variant: a correction in dollars is
too much for a $20 item and too little for a $700 one; in cumulative probability it follows each item's own
uncertainty, ends on prices that the model believes in, cannot leave $1..$999, and intervals nest by
themselves. Tails apart, because a model's errors lean to one side: one shared correction would leave most misses
at one end.
"""

from __future__ import annotations

import datetime
import math
from itertools import pairwise
from typing import ClassVar

import numpy as np
from pydantic import Field, field_validator, model_validator

from pricer.errors import InputError
from pricer.price.distribution import INTERVAL_LEVEL, RULES, PriceDistribution
from pricer.price.lattice import PRICES
from pricer.price.prior import PricePrior
from pricer.price.record import Record

CALIBRATION_FILE = "calibration.json"
LEVELS = (0.5, 0.8, 0.9)
BANDS = 4  # of the predicted price, with about as many listings each
BAND_ITEMS = 100  # listings per band, where there are enough for more than one band
MIN_ITEMS = 50  # in a band and altogether: fewer say nothing about the outer 5 %
_GRAINS = 1_000_000  # cumulative probabilities are stored in millionths


class Band(Record):
    """Listings predicted at `from_usd` or more, up to the next band's. `tails`: for each level the cumulative
    probabilities at which the interval begins and ends."""

    from_usd: float = Field(ge=0)
    items: int = Field(ge=1)
    tails: dict[float, tuple[float, float]]

    @model_validator(mode="after")
    def _is_nested(self) -> Band:
        if tuple(sorted(self.tails)) != LEVELS:
            raise ValueError(f"every band needs tails for {LEVELS}")
        inwards = [self.tails[level] for level in reversed(LEVELS)]
        edges = [0.0, *(low for low, _ in inwards), 0.5, *(high for _, high in reversed(inwards)), 1.0]
        if edges != sorted(edges):
            raise ValueError("the tails must go outwards from 0.5 with the level")
        return self


class Calibration(Record):
    """What `fit` found. `rule` is the adapter's default point rule; it also gives the predicted price that
    chooses an item's band. `coverage`: share of held-out prices inside, by level, as cross-validated."""

    rule: str
    bands: tuple[Band, ...] = Field(min_length=1)
    coverage: dict[float, float] = {}
    data: str = ""  # the file that the listings came from
    date: datetime.date | None = None
    prior_sha256: str | None = (
        None  # of the price prior that it belongs to; None: the model's own distribution
    )
    adapter_sha256: str | None = None  # of the weights that it belongs to; None: not said

    @field_validator("rule")
    @classmethod
    def _is_known(cls, rule: str) -> str:
        if rule not in RULES:
            raise ValueError(f"rule must be one of {', '.join(RULES)}")
        return rule

    @model_validator(mode="after")
    def _bands_rise(self) -> Calibration:
        starts = [band.from_usd for band in self.bands]
        if starts[0] != 0 or any(a >= b for a, b in pairwise(starts)):
            raise ValueError("the bands must begin at 0 and rise")
        return self

    @property
    def items(self) -> int:
        """How many listings the intervals were checked on."""
        return sum(band.items for band in self.bands)

    def band(self, distribution: PriceDistribution) -> np.ndarray:
        """(...) indices into `bands`; they depend on the prediction alone."""
        edges = [band.from_usd for band in self.bands[1:]]
        return np.searchsorted(edges, distribution.point(self.rule), side="right")

    def interval(
        self, distribution: PriceDistribution, level: float = INTERVAL_LEVEL
    ) -> tuple[np.ndarray, np.ndarray]:
        """(low, high) in whole dollars, each of the distribution's leading shape, around the median.

        `level` is one of `LEVELS`; intervals of a higher one contain those of a lower one. Raises ValueError
        for another level.
        """
        if level not in LEVELS:
            raise ValueError(f"calibrated intervals have one of the levels {LEVELS}, not {level}")
        tails = np.array([band.tails[level] for band in self.bands])  # (bands, 2)
        begin, end = np.moveaxis(tails[self.band(distribution)], -1, 0)
        # A tail may lie beyond all prices that the model holds possible: then the interval goes to the edge.
        low = np.where(begin <= 0, float(PRICES[0]), distribution.quantile(begin))
        high = np.where(end >= 1, float(PRICES[-1]), distribution.quantile(end))
        return low, high


class Calibrations(Record):
    """An adapter's calibration.json: for each price prior, by its name, the calibration under it."""

    damaged: ClassVar[str] = (
        "{path} is damaged or no calibration ({reason}): copy the adapter again, or delete this file to go on without "
        "calibrated intervals."
    )
    by_prior: dict[str, Calibration] = {}

    def under(self, prior: PricePrior | None) -> Calibration | None:
        """The one of that very prior, whatever it is called; None: of the model's own distribution."""
        wanted = prior.sha256 if prior else None
        return next((found for found in self.by_prior.values() if found.prior_sha256 == wanted), None)

    def with_one(self, prior: PricePrior, calibration: Calibration) -> Calibrations:
        """These, with `calibration` as that under `prior`."""
        found = calibration.model_copy(update={"prior_sha256": prior.sha256})
        return Calibrations(by_prior=self.by_prior | {prior.name: found})


def fit(
    distribution: PriceDistribution, price_usd: np.ndarray, *, rule: str, bands: int = BANDS
) -> Calibration:
    """The calibration by n held-out listings: distributions of shape (n, 999), actual prices (n,) in dollars.

    `bands` at most, and fewer where listings are few. A price of $29.99 is inside an interval from $29, or
    to $30, exactly as coverage counts it; one below $1 or above $999 is inside no interval.

    Raises InputError for fewer than MIN_ITEMS listings or an unknown rule, ValueError for shapes that do not
    agree or a price that is no number.
    """
    price = np.asarray(price_usd, dtype=np.float64)
    if price.shape != distribution.unpriced_mass.shape or price.ndim != 1 or not np.isfinite(price).all():
        raise ValueError(f"expected one finite price for each of {distribution.unpriced_mass.shape} items")
    if len(price) < MIN_ITEMS:
        raise InputError(
            f"Calibration needs at least {MIN_ITEMS} listings with their prices, and there are {len(price)}: give more."
        )
    predicted = distribution.point(rule)
    starts = _band_starts(predicted, bands)
    band = np.searchsorted(starts[1:], predicted, side="right")

    # P(price <= floor(y)) and P(price < ceil(y)): an interval holds y when it begins at no higher cumulative
    # probability than the first, and ends above the second.
    cdf = np.concatenate([np.zeros((len(price), 1)), distribution.cdf], axis=1)  # (n, 1000), from $0
    row = np.arange(len(price))
    upto = cdf[row, np.clip(np.floor(price), 0, PRICES[-1]).astype(int)]
    below = cdf[row, np.clip(np.ceil(price) - 1, 0, PRICES[-1]).astype(int)]
    return Calibration(
        rule=rule,
        bands=tuple(
            Band(
                from_usd=start,
                items=int((band == b).sum()),
                tails={level: _tails(upto[band == b], below[band == b], level) for level in LEVELS},
            )
            for b, start in enumerate(starts)
        ),
    )


def _band_starts(predicted: np.ndarray, bands: int) -> list[float]:
    """Where bands of the predicted price begin: 0 and quantiles, as far as MIN_ITEMS lie between them."""
    count = max(1, min(bands, len(predicted) // BAND_ITEMS))
    starts = [0.0]
    for quantile in np.quantile(predicted, np.arange(1, count) / count):
        edge = round(float(quantile), 2)
        in_band, above = (starts[-1] <= predicted) & (predicted < edge), predicted >= edge
        if min(in_band.sum(), above.sum()) >= MIN_ITEMS:
            starts.append(edge)
    return starts


def _tails(upto: np.ndarray, below: np.ndarray, level: float) -> tuple[float, float]:
    """Where the interval of one band begins and ends, from its n listings.

    In each tail k of n + 1 may lie outside, the new listing counted in: (n + 1) is what makes the promise
    hold for any number of listings. Too few for any to lie outside: the interval has no end on that side.
    """
    n = len(upto)
    k = math.floor((n + 1) * (1 - level) / 2 + 1e-9)
    if k == 0:
        return 0.0, 1.0
    # Outwards by at most a grain, so that the listing at the end itself is inside.
    begin = (math.ceil(np.sort(upto)[k - 1] * _GRAINS) - 1) / _GRAINS
    end = (math.floor(np.sort(below)[n - k] * _GRAINS) + 1) / _GRAINS
    # Never past the median, so that an interval is never empty.
    return min(max(begin, 0.0), 0.5), max(min(end, 1.0), 0.5)
