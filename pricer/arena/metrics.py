"""How good a run's guesses are, and whether one run is really better than another.

Every function takes arrays of shape (items,) in dollars and nothing else: no files, no models, no
tables. The definitions of error, RMSLE and hits are those under which the published systems were
scored, so a number from here can stand beside a number from there.

A guess must be a finite number, zero or more; a price a finite number above zero. A system that wrote no
price at all is **not** NaN here: either its guess is 0, the published protocol, and the item is marked in
`unparsed`, or the caller leaves the item out before scoring. NaN raises `InputError`, because every way
of averaging over it would quietly favour the system that failed to answer.

Uncertainty is over items: a 95 % percentile bootstrap (Efron and Tibshirani 1993, ch. 13);
see `resampling`.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pricer.arena.resampling import (
    PERMUTATIONS,
    RESAMPLES,
    SEED,
    Estimate,
    Floats,
    bootstrap,
    estimate,
    sign_flip_p_value,
)
from pricer.errors import InputError

HIT_USD, HIT_SHARE = 40.0, 0.20
NEAR_USD, NEAR_SHARE = 80.0, 0.40
OUTCOMES = ("hit", "near", "miss")


@dataclass(frozen=True)
class Summary:
    """The headline metrics of one run. `None`: the run does not carry what the metric needs."""

    items: int
    error_usd: Estimate
    rmsle: Estimate
    hits_pct: Estimate
    near_pct: Estimate
    miss_pct: Estimate
    median_error_usd: Estimate
    mape_pct: Estimate
    r2: Estimate
    skill: Estimate | None = None
    coverage_pct: Estimate | None = None
    width_usd: Estimate | None = None
    crps_usd: Estimate | None = None
    unparsed_pct: Estimate | None = None


@dataclass(frozen=True)
class Comparison:
    """Two runs on the same items. Differences are a minus b: a negative error difference favours a."""

    items: int
    error_usd: Estimate
    rmsle: Estimate
    hits_pct: Estimate
    median_error_usd: Estimate
    wins: int  # items on which a is closer to the price
    ties: int
    losses: int
    p_value: float  # two-sided, sign-flip permutation of the paired absolute errors


# One metric at a time ------------------------------------------------------------------------------------


def outcome(price_usd: ArrayLike, guess_usd: ArrayLike) -> NDArray[np.str_]:
    """'hit', 'near' or 'miss' for each item; shape (items,).

    A hit is less than $40 or less than 20 % of the price away, near less than $80 or 40 %.
    """
    price, guess = _checked(price_usd, guess_usd)
    away_usd = np.abs(guess - price)
    hit = is_hit(away_usd, price)
    near = (away_usd < NEAR_USD) | (away_usd / price < NEAR_SHARE)
    return np.select([hit, near], OUTCOMES[:2], OUTCOMES[2])


def outcome_by_share(price_usd: ArrayLike, guess_usd: ArrayLike) -> NDArray[np.str_]:
    """The same by ratio alone: less than 20 % of the price away, less than 40 %, the rest. $40 excuses nothing."""
    price, guess = _checked(price_usd, guess_usd)
    share = np.abs(guess - price) / price
    return np.select([share < HIT_SHARE, share < NEAR_SHARE], OUTCOMES[:2], OUTCOMES[2])


def is_hit(away_usd: Floats, price_usd: Floats) -> NDArray[np.bool_]:
    """Whether guesses that lie `away_usd` from their prices are hits; shapes broadcast, NaN is none."""
    return (away_usd < HIT_USD) | (away_usd / price_usd < HIT_SHARE)


def predict_error(price_usd: ArrayLike, guess_usd: ArrayLike) -> float:
    """Mean absolute error in dollars."""
    price, guess = _checked(price_usd, guess_usd)
    return float(np.abs(guess - price).mean())


def rmsle(price_usd: ArrayLike, guess_usd: ArrayLike) -> float:
    """Root mean squared difference of ln(1 + price) and ln(1 + guess)."""
    price, guess = _checked(price_usd, guess_usd)
    return float(np.sqrt(((np.log1p(price) - np.log1p(guess)) ** 2).mean()))


def hits_pct(price_usd: ArrayLike, guess_usd: ArrayLike) -> float:
    """Share of items, in percent, whose outcome is 'hit'."""
    return float(100 * (outcome(price_usd, guess_usd) == "hit").mean())


def median_error(price_usd: ArrayLike, guess_usd: ArrayLike) -> float:
    """Median absolute error in dollars."""
    price, guess = _checked(price_usd, guess_usd)
    return float(np.median(np.abs(guess - price)))


def mape_pct(price_usd: ArrayLike, guess_usd: ArrayLike) -> float:
    """Mean absolute error as a percentage of each item's price."""
    price, guess = _checked(price_usd, guess_usd)
    return float(100 * (np.abs(guess - price) / price).mean())


def r2(price_usd: ArrayLike, guess_usd: ArrayLike) -> float:
    """Coefficient of determination; NaN where all prices are the same."""
    price, guess = _checked(price_usd, guess_usd)
    total = ((price - price.mean()) ** 2).sum()
    return float(1 - ((guess - price) ** 2).sum() / total) if np.ptp(price) > 0 else float("nan")


def skill(price_usd: ArrayLike, guess_usd: ArrayLike, constant_usd: float) -> float:
    """1 - error / error of always guessing `constant_usd`, the mean price of the training data.

    1 is perfect, 0 no better than the constant, negative worse; NaN where the constant is never wrong.
    """
    price, guess = _checked(price_usd, guess_usd)
    constant_error = np.abs(price - constant_usd).mean()
    return float(1 - np.abs(guess - price).mean() / constant_error) if constant_error > 0 else float("nan")


def coverage_pct(price_usd: ArrayLike, low_usd: ArrayLike, high_usd: ArrayLike) -> float:
    """Share of prices, in percent, that lie in [low_usd, high_usd], both ends included."""
    price = _array(price_usd, "price_usd")
    low, high = _checked_interval(low_usd, high_usd, len(price))
    return float(100 * ((low <= price) & (price <= high)).mean())


def mean_width_usd(low_usd: ArrayLike, high_usd: ArrayLike) -> float:
    """Mean width of the intervals: of two with the same coverage, the narrower says more."""
    low, high = _checked_interval(low_usd, high_usd, None)
    return float((high - low).mean())


# Everything at once, with intervals ----------------------------------------------------------------------


def summarise(
    price_usd: ArrayLike,
    guess_usd: ArrayLike,
    *,
    resamples: int = RESAMPLES,
    seed: int = SEED,
    **known: ArrayLike,
) -> Summary:
    """Every headline metric of one run with its 95 % bootstrap interval over items.

    `known`: what else is known of the run, as in `resampled`. The same seed gives the same intervals.
    Raises `InputError` for no items, unequal lengths and values out of range.
    """
    values = resampled(price_usd, guess_usd, resamples=resamples, seed=seed, **known)
    return Summary(items=len(np.asarray(price_usd)), **{name: estimate(v) for name, v in values.items()})


def resampled(
    price_usd: ArrayLike,
    guess_usd: ArrayLike,
    *,
    constant_usd: float | None = None,
    low_usd: ArrayLike | None = None,
    high_usd: ArrayLike | None = None,
    crps_usd: ArrayLike | None = None,
    unparsed: ArrayLike | None = None,
    resamples: int = RESAMPLES,
    seed: int = SEED,
) -> dict[str, Floats]:
    """Every metric of `Summary` on the real items and on each resample, (1 + resamples,), by name.

    Two runs on the same items get the same resamples, so the difference of two of these arrays is the
    paired bootstrap of the metric's difference.

    `constant_usd`: mean training price, for skill. `low_usd`, `high_usd`: each item's interval, both or
    neither. `crps_usd`: each item's CRPS. `unparsed`: True where the system wrote no price.
    Raises `InputError` for no items, unequal lengths and values out of range.
    """
    price, guess = _checked(price_usd, guess_usd)
    outcomes = outcome(price, guess)
    away_usd = np.abs(guess - price)
    centred_usd = price - price.mean()
    per_item = {
        "away": away_usd,
        "squared_log": (np.log1p(price) - np.log1p(guess)) ** 2,
        "hit": outcomes == "hit",
        "near": outcomes == "near",
        "miss": outcomes == "miss",
        "relative": away_usd / price,
        "squared": away_usd**2,
        "centred": centred_usd,
        "centred_squared": centred_usd**2,
    }
    if constant_usd is not None:
        per_item["constant"] = np.abs(price - constant_usd)
    if (low_usd is None) != (high_usd is None):
        raise InputError("An interval needs both low_usd and high_usd: give both or neither.")
    if low_usd is not None:
        low, high = _checked_interval(low_usd, high_usd, len(price))
        per_item |= {"covered": (low <= price) & (price <= high), "width": high - low}
    if crps_usd is not None:
        per_item["crps"] = _array(crps_usd, "crps_usd", len(price))
    if unparsed is not None:
        per_item["unparsed"] = _array(unparsed, "unparsed", len(price))

    mean, median = bootstrap(per_item, {"away": away_usd}, resamples, seed)
    spread = mean["centred_squared"] - mean["centred"] ** 2  # the resample's own price variance
    # A resample of one repeated price leaves rounding noise where the variance should be 0.
    spread = np.where(spread > 1e-12 * mean["centred_squared"], spread, np.nan)
    values = {
        "error_usd": mean["away"],
        "rmsle": np.sqrt(mean["squared_log"]),
        "hits_pct": 100 * mean["hit"],
        "near_pct": 100 * mean["near"],
        "miss_pct": 100 * mean["miss"],
        "median_error_usd": median["away"],
        "mape_pct": 100 * mean["relative"],
        "r2": 1 - mean["squared"] / spread,
    }
    if "constant" in mean:
        values["skill"] = 1 - mean["away"] / np.where(mean["constant"] > 0, mean["constant"], np.nan)
    for field, name, scale in (
        ("coverage_pct", "covered", 100),
        ("width_usd", "width", 1),
        ("crps_usd", "crps", 1),
        ("unparsed_pct", "unparsed", 100),
    ):
        if name in mean:
            values[field] = scale * mean[name]
    return values


def compare(
    price_usd: ArrayLike,
    guess_a_usd: ArrayLike,
    guess_b_usd: ArrayLike,
    *,
    resamples: int = RESAMPLES,
    permutations: int = PERMUTATIONS,
    seed: int = SEED,
) -> Comparison:
    """Two runs on the same items, in the same order: paired bootstrap, win/tie/loss, permutation test.

    Pairing takes out what the items have in common (a dear item is hard for both), so differences are
    seen that the two runs' separate intervals would hide.
    """
    price, guess_a = _checked(price_usd, guess_a_usd)
    _, guess_b = _checked(price, guess_b_usd)
    away_a, away_b = np.abs(guess_a - price), np.abs(guess_b - price)
    log_price = np.log1p(price)
    hit_a, hit_b = outcome(price, guess_a) == "hit", outcome(price, guess_b) == "hit"
    per_item = {
        "away": away_a - away_b,
        "squared_log_a": (log_price - np.log1p(guess_a)) ** 2,
        "squared_log_b": (log_price - np.log1p(guess_b)) ** 2,
        "hit": hit_a.astype(float) - hit_b,
    }
    mean, median = bootstrap(per_item, {"a": away_a, "b": away_b}, resamples, seed)
    same = np.isclose(away_a, away_b, rtol=0, atol=1e-9)  # $10 above and $10 below: a tie despite rounding
    wins = int((~same & (away_a < away_b)).sum())
    return Comparison(
        items=len(price),
        error_usd=estimate(mean["away"]),
        rmsle=estimate(np.sqrt(mean["squared_log_a"]) - np.sqrt(mean["squared_log_b"])),
        hits_pct=estimate(100 * mean["hit"]),
        median_error_usd=estimate(median["a"] - median["b"]),
        wins=wins,
        ties=int(same.sum()),
        losses=len(price) - wins - int(same.sum()),
        p_value=sign_flip_p_value(away_a - away_b, permutations=permutations, seed=seed),
    )


# Inside --------------------------------------------------------------------------------------------------


def _array(values: ArrayLike, name: str, items: int | None = None) -> Floats:
    try:
        array = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        raise InputError(f"{name} must hold numbers only.") from None
    if array.ndim != 1 or not array.size:
        raise InputError(f"{name} must be a list of at least one number: there are no items to score.")
    if items is not None and len(array) != items:
        raise InputError(f"{name} has {len(array)} values for {items} items: give one per item.")
    if not np.isfinite(array).all():
        at = int(np.flatnonzero(~np.isfinite(array))[0])
        raise InputError(f"{name} of item {at} is {array[at]}: leave items without a number out first.")
    return array


def _checked(price_usd: ArrayLike, guess_usd: ArrayLike) -> tuple[Floats, Floats]:
    price = _array(price_usd, "price_usd")
    guess = _array(guess_usd, "guess_usd", len(price))
    if (price <= 0).any():
        raise InputError(
            f"price_usd of item {int(np.argmax(price <= 0))} is not above zero: check the prices."
        )
    if (guess < 0).any():
        raise InputError(f"guess_usd of item {int(np.argmax(guess < 0))} is negative: a guess is $0 or more.")
    return price, guess


def _checked_interval(low_usd: ArrayLike, high_usd: ArrayLike, items: int | None) -> tuple[Floats, Floats]:
    low = _array(low_usd, "low_usd", items)
    high = _array(high_usd, "high_usd", len(low))
    if (low > high).any():
        raise InputError(f"low_usd of item {int(np.argmax(low > high))} is above its high_usd: swap them.")
    return low, high
