"""Turn the published guesses of other systems into evaluation runs that the app can show.

    python -m train.import_published FOLDER --items TEST.parquet --out pricer/assets/runs

FOLDER holds published_guesses.csv (run, index, guess_usd), published_runs.csv (run, label, kind, items,
origin, error_usd, rmsle, hits_pct) and test_prices.csv (index, price_usd); TEST.parquet adds the
categories (index, category, price). Only index, category and price of an item are stored, never text.
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd

from pricer.arena.runs import PublishedFigures, Run, RunInfo, save_items, save_run
from pricer.errors import InputError, PricerError
from pricer.tables.checks import check_table
from pricer.tables.frames import Column, read_frame

KINDS = {
    "llama base": "base",
    "llama tuned": "tuned",
    "frontier": "frontier",
    "frontier tuned": "frontier",
    "frontier + retrieval": "frontier",
    "ensemble": "ensemble",
    "classical": "classical",
    "human": "human",
    "baseline": "baseline",
}
INDEX, PRICE = Column("index", "index", needed=True), Column("price_usd", "price", needed=True)
GUESSES = [
    Column("run", "any", needed=True),
    Column("index", "number", needed=True),  # of a run each once, which check_table sees to
    Column("guess_usd", "amount", needed=True),
]
RUNS = [
    *(Column(name, "any", needed=True) for name in ("run", "label", "kind", "origin")),
    *(Column(name, "number", needed=True) for name in ("items", "error_usd", "rmsle", "hits_pct")),
]
# What is known of a run beyond the table: the two systems that this project started from, and the adapter's
# author, whose label names his rule.
LLAMA = "meta-llama/Llama-3.1-8B"
KNOWN = {
    "llama-3.1-8b-base": {"base_model": LLAMA, "precision": "4-bit"},
    "llama-3.1-8b-qlora-seed": {"base_model": LLAMA, "adapter": "omkarbare/amazon-pricing-model-finetuned"},
    "llama-3.1-8b-qlora-ed": {"base_model": LLAMA, "rule": "top-3"},
    "llama-3.1-8b-qlora-ed-1000": {"base_model": LLAMA, "rule": "top-3"},
}


def published_items(prices: pd.DataFrame, categories: pd.DataFrame) -> pd.DataFrame:
    """Items with category and price; the two sources must agree on every price to the cent."""
    items = prices.merge(categories, on="index", how="left", validate="one_to_one", suffixes=("", "_there"))
    apart = ~np.isclose(items["price_usd"], items["price_usd_there"], rtol=0, atol=0.005)
    if apart.any():
        index = items["index"][apart].iloc[0]
        raise InputError(f"Item {index} has another price in --items: name the file of the same test split.")
    return items[["index", "category", "price_usd"]]


def published_run(row: pd.Series, guesses: pd.DataFrame, items: pd.DataFrame) -> Run:
    """The run that a row of published_runs.csv describes."""
    if row["kind"] not in KINDS:
        raise InputError(f"Run {row['run']} is of kind {row['kind']}: add it to KINDS.")
    table = guesses.loc[guesses["run"] == row["run"], ["index", "guess_usd"]]
    if len(table) != row["items"]:
        raise InputError(
            f"Run {row['run']} has {len(table)} guesses for {row['items']:g} items: complete them."
        )
    figures = PublishedFigures(
        items=int(row["items"]), error_usd=row["error_usd"], rmsle=row["rmsle"], hits_pct=row["hits_pct"]
    )
    info = RunInfo(
        name=row["run"],
        label=row["label"],
        kind=KINDS[row["kind"]],
        origin=row["origin"],
        published=True,
        published_figures=figures,
        **KNOWN.get(row["run"], {}),
    )
    return Run(info, check_table(table, info.name, items))


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "folder", type=Path, help="folder of the three published_*.csv / test_prices.csv files"
    )
    parser.add_argument("--items", type=Path, required=True, help="table with index, category, price")
    parser.add_argument("--out", type=Path, required=True, help="folder for items.parquet and the runs")
    options = parser.parse_args(arguments)
    try:
        prices = read_frame(options.folder / "test_prices.csv", [INDEX, PRICE])
        guesses = read_frame(options.folder / "published_guesses.csv", GUESSES)
        described = read_frame(options.folder / "published_runs.csv", RUNS)
        categories = read_frame(options.items, [INDEX, Column("category", "any", needed=True), PRICE])
        items = published_items(prices, categories)
        runs = [published_run(row, guesses, items) for _, row in described.iterrows()]
        save_items(options.out, items)
        for run in runs:
            save_run(options.out, run)
    except (PricerError, OSError) as error:
        parser.exit(1, f"{error}\n")
    print(f"{len(items)} items and {len(runs)} runs written to {options.out}")


if __name__ == "__main__":
    main()
