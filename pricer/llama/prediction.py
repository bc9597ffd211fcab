"""What a pass, or both, say of one text, under a price prior."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from pricer.llama.adapter import Adapter
from pricer.price.calibration import Calibration
from pricer.price.distribution import DEFAULT_RULE, INTERVAL_LEVEL, PriceDistribution
from pricer.price.prior import PricePrior, correct
from pricer.prompt import Prompt


def default_rule(adapter: Adapter, prior: PricePrior | None) -> str:
    """The point rule that did best for the adapter under the prior, where that was tried."""
    calibration = adapter.calibrations.under(prior)
    return calibration.rule if calibration else DEFAULT_RULE


@dataclass(frozen=True)
class Prediction:
    """One pass's answer to one text. `own` is the distribution as the model gave it, `seconds` its share of the batch
    it was computed in; `adapter` that of the tuned pass, whose answer is given under `prior` (None: as it is). The
    base was trained under no prior that anyone knows, and so is shown as published."""

    own: PriceDistribution
    seconds: float
    adapter: Adapter | None = None
    prior: PricePrior | None = None

    @cached_property
    def distribution(self) -> PriceDistribution:
        """What is shown and read."""
        if self.adapter is None or self.adapter.prior is None or self.prior is None:
            return self.own
        return correct(self.own, self.adapter.prior, self.prior)

    @property
    def calibration(self) -> Calibration | None:
        """The adapter's under this prior."""
        return self.adapter.calibrations.under(self.prior) if self.adapter else None

    def under(self, prior: PricePrior | None) -> Prediction:
        """The same answer under another prior: no new forward pass. The base's is the same under all."""
        return replace(self, prior=prior) if self.adapter else self

    def interval(self, level: float = INTERVAL_LEVEL) -> tuple[float, float]:
        """(low, high) in USD: calibrated where there is a calibration, else the distribution's central one."""
        if self.calibration:
            low, high = self.calibration.interval(self.distribution, level)
        else:
            low, high = self.distribution.interval(level)
        return float(low), float(high)

    def run_row(self, rule: str) -> dict[str, float]:
        """What an evaluation run's table holds of it, by column."""
        low, high = self.interval()
        return {
            "guess_usd": round(float(self.distribution.point(rule)), 2),
            "low_usd": low,
            "high_usd": high,
            "unpriced_mass": float(self.distribution.unpriced_mass),
            "seconds": self.seconds,
        }

    def to_dict(self, rule: str = DEFAULT_RULE) -> dict[str, Any]:
        """Plain values, prices in USD: price_usd by `rule`, the 90 % interval, all rules, and more."""
        low, high = self.interval()
        return {
            "price_usd": round(float(self.distribution.point(rule)), 2),
            "low_usd": low,
            "high_usd": high,
            "calibrated": self.calibration is not None,
            "prior": self.prior.name if self.prior else None,
            "rule": rule,
            "rules": {name: round(float(price), 2) for name, price in self.distribution.points().items()},
            "unpriced_mass": round(float(self.distribution.unpriced_mass), 6),
            "seconds": round(self.seconds, 3),
        }


@dataclass(frozen=True)
class Comparison:
    """Both passes' answers to one text."""

    prompt: Prompt
    base: Prediction
    tuned: Prediction

    @property
    def rule(self) -> str:
        """The adapter's default under this prior; both are read by the same one, so that the models are compared and
        not the rules."""
        return default_rule(self.tuned.adapter, self.tuned.prior) if self.tuned.adapter else DEFAULT_RULE

    def under(self, prior: PricePrior | None) -> Comparison:
        """The same answers with the tuned one's under another prior."""
        return replace(self, tuned=self.tuned.under(prior))

    def to_dict(self, rule: str | None = None) -> dict[str, Any]:
        rule = rule or self.rule
        return {
            "truncated": self.prompt.truncated,
            "base": self.base.to_dict(rule),
            "tuned": self.tuned.to_dict(rule),
        }
