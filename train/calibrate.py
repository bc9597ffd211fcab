"""Check an adapter's intervals against real prices, correct them, and pick its default point rule.

    python -m train.calibrate --data out/data [--prior benchmark] [--profile embedded] [--adapter out/smollm2-135m]
        [--out FOLDER] [--check ITEMS] [--kept out/distributions]
    python -m train.calibrate --data natural.parquet --prior shop

An adapter has one calibration for each price prior that its answers are given under (`--prior`): shop, benchmark, or a
file of train.prior. `--data` is a folder of train.prepare, of which it takes calibration.parquet, or any items file; its
rows are such as the adapter was not trained on, with prices as the prior has them. Writes calibration.json beside the
adapter (or into --out) and prints how much of the actual prices the 50, 80 and 90 % intervals held before, and hold
after: by cross-validation, so that no listing is judged by intervals that it had a part in. `--check` does the same on
another items file, with the calibration as it is; without --data, with the adapter's own. The default rule is the one
with the least mean absolute error, since that is the headline figure. Scored rows are kept, so a second start costs
nothing.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Mapping
from dataclasses import replace
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import binomtest
from sklearn.model_selection import GroupKFold

from pricer.arena.metrics import Summary, coverage_pct, mean_width_usd, summarise
from pricer.errors import InputError, PricerError, SetupError, report
from pricer.llama.adapter import Adapter, weights_sha256
from pricer.llama.predictor import load_predictor
from pricer.price.calibration import CALIBRATION_FILE, LEVELS, MIN_ITEMS, Calibration, Calibrations, fit
from pricer.price.distribution import PriceDistribution
from pricer.price.prior import correct
from pricer.settings import PROFILES, ModelRef, Settings
from train.data import load_rows
from train.distributions import score_rows
from train.prepared import check_whole

FOLDS = 5
MIN_ROWS = 2 * MIN_ITEMS  # so that every fold leaves enough

Intervals = Mapping[float, tuple[np.ndarray, np.ndarray]]  # level -> low (items,), high (items,) in USD


def load_calibration_rows(path: str | Path) -> pd.DataFrame:
    """The calibration rows of a train.prepare folder, or of a file. Raises InputError for too few."""
    path = Path(path)
    if path.is_dir():
        path /= "calibration.parquet"
        if not path.is_file():
            raise InputError(
                f"{path.parent} holds no {path.name}: name a folder that train.prepare made with --calibration "
                "above 0, or a file."
            )
        check_whole(path.parent, ["calibration"])
    rows = load_rows(path)
    if len(rows) < MIN_ROWS:
        raise InputError(f"{path.name} has {len(rows)} rows: calibration needs at least {MIN_ROWS}.")
    return rows


def compare_rules(distribution: PriceDistribution, price_usd: np.ndarray) -> dict[str, Summary]:
    """Every point rule's metrics, least error first."""
    found = {rule: summarise(price_usd, guess) for rule, guess in distribution.points().items()}
    return dict(sorted(found.items(), key=lambda entry: entry[1].error_usd.value))


def central(distribution: PriceDistribution) -> Intervals:
    return {level: distribution.interval(level) for level in LEVELS}


def calibrated(calibration: Calibration, distribution: PriceDistribution) -> Intervals:
    return {level: calibration.interval(distribution, level) for level in LEVELS}


def cross_validated(
    distribution: PriceDistribution, price_usd: np.ndarray, group: np.ndarray, rule: str
) -> Intervals:
    """Each item's intervals by a calibration on the other folds; a group (items,) of like listings is in one fold."""
    found = {level: (np.zeros(len(price_usd)), np.zeros(len(price_usd))) for level in LEVELS}
    for rest, held_out in GroupKFold(FOLDS, shuffle=True, random_state=0).split(price_usd, groups=group):
        calibration = fit(distribution[rest], price_usd[rest], rule=rule)
        for level, (low, high) in found.items():
            low[held_out], high[held_out] = calibration.interval(distribution[held_out], level)
    return found


def groups(rows: pd.DataFrame) -> np.ndarray:
    """Which rows are near-duplicates or of one seller's template, as train.prepare marked them; else each its own."""
    if "group" in rows and rows["group"].nunique() >= FOLDS:
        return pd.factorize(rows["group"])[0]
    return np.arange(len(rows))


def rules_table(found: dict[str, Summary]) -> str:
    lines = [f"{'rule':<10}{'error $ [95 %]':>26}{'RMSLE':>8}{'hits %':>8}"]
    for rule, figures in found.items():
        error = figures.error_usd
        error = f"{error.value:.2f} [{error.low:.2f}, {error.high:.2f}]"
        lines.append(f"{rule:<10}{error:>26}{figures.rmsle.value:>8.3f}{figures.hits_pct.value:>8.1f}")
    return "\n".join(lines)


def coverage_table(
    calibration: Calibration,
    distribution: PriceDistribution,
    price_usd: np.ndarray,
    before: Intervals,
    after: Intervals,
) -> str:
    """Share of prices held (with its 95 % interval) and mean width, by level, overall and by band."""
    band = calibration.band(distribution)
    where = {"all": np.full(len(price_usd), True)}
    starts = [b.from_usd for b in calibration.bands]
    if len(starts) > 1:
        for b, (start, end) in enumerate(zip(starts, [*starts[1:], 1000.0], strict=True)):
            where[f"${start:,.0f} to ${end:,.0f}"] = band == b
    lines = [
        f"{'interval':<10}{'predicted':<14}{'items':>6}{'held % before':>22}{'width $':>9}{'held % after':>22}{'width $':>9}"
    ]
    for level in LEVELS:
        for name, chosen in where.items():
            if not chosen.any():
                continue
            cells = ""
            for low, high in (before[level], after[level]):
                price, low, high = price_usd[chosen], low[chosen], high[chosen]
                cells += f"{_held(price, low, high):>22}{mean_width_usd(low, high):>9.0f}"
            lines.append(f"{f'{level:.0%}':<10}{name:<14}{chosen.sum():>6,}{cells}")
    return "\n".join(lines)


def _held(price_usd: np.ndarray, low_usd: np.ndarray, high_usd: np.ndarray) -> str:
    held = coverage_pct(price_usd, low_usd, high_usd)
    range_ = binomtest(round(held / 100 * len(price_usd)), len(price_usd)).proportion_ci(method="wilson")
    return f"{held:.1f} [{100 * range_.low:.1f}, {100 * range_.high:.1f}]"


def calibrate(distribution: PriceDistribution, rows: pd.DataFrame) -> tuple[Calibration, str]:
    """The calibration by all rows, with its cross-validated coverage, and the report on it."""
    price = rows["price"].to_numpy(float)
    rules = compare_rules(distribution, price)
    rule = next(iter(rules))
    after = cross_validated(distribution, price, groups(rows), rule)
    coverage = {level: round(coverage_pct(price, *after[level]) / 100, 4) for level in LEVELS}
    found = fit(distribution, price, rule=rule).model_copy(update={"coverage": coverage})
    report = (
        f"{rules_table(rules)}\nDefault rule: {rule}, which has the least mean absolute error.\n\n"
        f"Intervals, before: the model's own; after: calibrated, {FOLDS}-fold cross-validation.\n"
        f"{coverage_table(found, distribution, price, central(distribution), after)}"
    )
    return found, report


def calibrations_in(folder: Path, adapter: Adapter) -> Calibrations:
    """What a folder has for these weights already, under other priors; nothing where there is none."""
    path, own = folder / CALIBRATION_FILE, weights_sha256(adapter.folder)
    found = Calibrations.load(path).by_prior if path.is_file() else {}
    return Calibrations(by_prior={name: one for name, one in found.items() if one.adapter_sha256 == own})


def save(calibrations: Calibrations, folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return calibrations.save(folder / CALIBRATION_FILE)
    except OSError as error:
        raise SetupError(
            f"{folder} cannot be written ({error.strerror}): name another folder in --out."
        ) from error


def main(argv: list[str] | None = None) -> int:
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    parser = argparse.ArgumentParser(prog="python -m train.calibrate", description=__doc__.split("\n")[0])
    parser.add_argument("--data", help="folder made by train.prepare, or an items file")
    parser.add_argument(
        "--prior",
        default="benchmark",
        help="shop, benchmark, or a file of train.prior: which of the adapter's calibrations; default: benchmark",
    )
    parser.add_argument("--profile", choices=PROFILES, help="default: PRICER_PROFILE, or embedded")
    parser.add_argument("--adapter", help="another adapter than the profile's")
    parser.add_argument("--out", help="folder for calibration.json; default: the adapter's")
    parser.add_argument("--check", metavar="ITEMS", help="another items file to report the coverage on")
    parser.add_argument("--kept", default="out/distributions", help="folder where scored rows are kept")
    options = parser.parse_args(argv)
    try:
        run(options)
    except (PricerError, OSError) as error:
        return report(error)
    return 0


def run(options: argparse.Namespace) -> None:
    if not (options.data or options.check):
        raise InputError("There is nothing to do: name calibration rows in --data, or items in --check.")
    settings = Settings.from_env(profile=options.profile, prior=options.prior)
    if options.adapter:
        settings = replace(settings, adapter=ModelRef.parse(options.adapter))
    if options.data and not options.out and not settings.adapter.is_folder:
        raise InputError(f"{settings.adapter} is not a folder of yours: name one for the result in --out.")
    rows = load_calibration_rows(options.data) if options.data else None
    items = load_rows(options.check) if options.check else None

    predictor = load_predictor(settings)
    adapter, prior = predictor.pair.adapter, predictor.prior
    calibration = adapter.calibrations.under(prior)

    def distribution(rows: pd.DataFrame) -> PriceDistribution:
        return correct(score_rows(predictor, rows, settings, options.kept), adapter.prior, prior)

    if rows is not None:
        calibration, report = calibrate(distribution(rows), rows)
        about = {
            "data": Path(options.data).name,
            "date": date.today(),
            "adapter_sha256": weights_sha256(adapter.folder),
        }
        calibration = calibration.model_copy(update=about)
        print(f"{len(rows):,} calibration rows of {options.data}, under the prior {prior.name}\n\n{report}\n")
        folder = Path(options.out or adapter.folder)
        print(f"Written: {save(calibrations_in(folder, adapter).with_one(prior, calibration), folder)}")
    if items is not None:
        if calibration is None:
            raise InputError(
                f"{settings.adapter} has no calibration under the prior {prior.name} yet: make one with --data."
            )
        found = distribution(items)
        before, after = central(found), calibrated(calibration, found)
        table = coverage_table(calibration, found, items["price"].to_numpy(float), before, after)
        print(f"\n{len(items):,} items of {options.check}, with the calibration as it is\n\n{table}")


if __name__ == "__main__":
    sys.exit(main())
