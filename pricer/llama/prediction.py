"""What a pass, or both, say of one text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pricer.price.calibration import Calibration
from pricer.price.distribution import DEFAULT_RULE, INTERVAL_LEVEL, PriceDistribution
from pricer.prompt import Prompt


@dataclass(frozen=True)
class Prediction:
    """One pass's answer to one text. `seconds` is its share of the batch it was computed in; `calibration` the
    adapter's, in the tuned pass."""

    distribution: PriceDistribution
    seconds: float
    calibration: Calibration | None = None

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
            "rule": rule,
            "rules": {name: round(float(price), 2) for name, price in self.distribution.points().items()},
            "unpriced_mass": round(float(self.distribution.unpriced_mass), 6),
            "seconds": round(self.seconds, 3),
        }


@dataclass(frozen=True)
class Comparison:
    """Both passes' answers to one text. `rule` is the adapter's default; both are read by the same one, so that
    the models are compared and not the rules."""

    prompt: Prompt
    base: Prediction
    tuned: Prediction
    rule: str = DEFAULT_RULE

    def to_dict(self, rule: str | None = None) -> dict[str, Any]:
        rule = rule or self.rule
        return {
            "truncated": self.prompt.truncated,
            "base": self.base.to_dict(rule),
            "tuned": self.tuned.to_dict(rule),
        }
