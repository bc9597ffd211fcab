"""A price prior from any file of prices: what the models are to expect before they have read a word.

    python -m train.prior prices.csv --out prior.json [--column price] [--name "My shop"]
    PRICER_PRIOR=prior.json python app.py

Several files count as one. Some hundred prices are enough; rows without a usable price are counted and left out. It is
as good as the prices are like those of the products that will be priced.
"""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

import numpy as np
import pandas as pd

from pricer.errors import InputError, PricerError, report
from pricer.price.lattice import PRICES
from pricer.price.prior import PricePrior, dollar_mass
from train.data import load_prices

MIN_PRICES = 50  # fewer say little about 56 bins
TEACHER_ROWS = 8_192  # whose distributions are in memory in full precision at once


def trained_prior(rows: pd.DataFrame, weight: np.ndarray, teacher: np.ndarray | None = None) -> PricePrior:
    """The prior that a run of train.finetune trains under: the mean of all that its rows teach.

    weight: (rows,); teacher: (texts, 999), of which `teacher_share` of a row's target comes, from the text that it is
    `taught_by` (by default its own); the rest is its own price.
    """
    weight = np.asarray(weight, dtype=np.float64)
    share = rows["teacher_share"].to_numpy(float) if teacher is not None else np.zeros(len(rows))
    own = np.flatnonzero(share < 1)  # the others have no price
    mass = dollar_mass(rows["price"].to_numpy(float)[own], (weight * (1 - share))[own])
    if teacher is not None:
        text = rows["taught_by"].to_numpy() if "taught_by" in rows else np.arange(len(rows))
        counts = np.bincount(text, weights=weight * share, minlength=len(teacher))
        for start in range(0, len(teacher), TEACHER_ROWS):
            part = np.asarray(teacher[start : start + TEACHER_ROWS], dtype=np.float64)
            mass += counts[start : start + TEACHER_ROWS] @ (part / part.sum(axis=1, keepdims=True))
    source = f"{len(rows):,} training rows, each as it counted in training (recipe.yaml)"
    return PricePrior.of_mass(mass, items=len(rows), name="trained", source=source)


def main(argv: list[str] | None = None) -> int:
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    parser = argparse.ArgumentParser(prog="python -m train.prior", description=__doc__.split("\n")[0])
    parser.add_argument("files", nargs="+", help="tables with a column of prices in US dollars")
    parser.add_argument("--out", required=True, type=Path, help="the prior's file, .json")
    parser.add_argument("--column", default="price", help="the column that holds the price; default: price")
    parser.add_argument("--name", help="what the page calls it; default: the output's name")
    parser.add_argument("--source", help="where the prices come from; default: the files' names")
    options = parser.parse_args(argv)
    try:
        name = options.name or options.out.stem
        found = [load_prices(path, options.column) for path in options.files]
        price = np.concatenate([prices for prices, _ in found])
        left_out = sum(unusable for _, unusable in found)
        in_range = (price >= PRICES[0] - 0.5) & (price < PRICES[-1] + 0.5)
        if in_range.sum() < MIN_PRICES:
            raise InputError(
                f"{', '.join(map(str, options.files))}: {in_range.sum():,} prices from $0.50 to $999.49 in the column "
                f"{options.column}, and a prior needs {MIN_PRICES}: give more."
            )
        source = options.source or ", ".join(Path(path).name for path in options.files)
        prior = PricePrior.fit(price[in_range], name=name, source=source)
        options.out.parent.mkdir(parents=True, exist_ok=True)
        prior.save(options.out)
    except (PricerError, OSError) as error:
        return report(error)
    print(f"{prior.items:,} prices, median ${np.median(price[in_range]):,.2f}: {options.out}")
    if left_out or not in_range.all():
        print(f"Left out: {left_out:,} without a price, {(~in_range).sum():,} not from $0.50 to $999.49.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
