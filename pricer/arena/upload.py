"""A visitor's files: a run, with or without the JSON that train/evaluate.py writes beside it, or products to score.

Nothing about a file is trusted: not its size, its columns, nor what it says of itself (`pricer.tables` reads it).
Whatever cannot be used ends in an `InputError` of one sentence, which names row and column.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pandas as pd

from pricer.arena.runs import RunInfo, parse_info
from pricer.errors import InputError
from pricer.settings import Limits
from pricer.tables.cells import product_cell, show
from pricer.tables.columns import choose
from pricer.tables.frames import Column, read_frame
from pricer.tables.reading import open_table

CATEGORIES = 40  # of a file; more would make no readable figure
JSON_BYTES = 64_000

_GUESSES = [
    Column("guess_usd", "amount", needed=True),
    Column("low_usd", "amount"),
    Column("high_usd", "amount"),
]
_FIGURES = [Column(name, "number") for name in ("unpriced_mass", "crps_usd", "seconds")] + [
    Column("unparsed", "flag")
]
_BY_INDEX = [Column("index", "index", needed=True), *_GUESSES, *_FIGURES, Column("price_usd", "price")]
_PRODUCTS = [
    Column("text", "text", needed=True),
    Column("price_usd", "price", needed=True),
    Column("category", "label"),
]


@dataclass(frozen=True)
class Upload:
    """A file's rows in its order, their numbers as the table's index. `table` has `index` (test items) or `text` and
    `price_usd` (any items)."""

    title: str  # of the file, fit to be shown; escape it all the same
    table: pd.DataFrame
    info: RunInfo | None = None  # what the run's JSON says, if there was one


def read_upload(paths: Sequence[Path | str], limits: Limits | None = None) -> Upload:
    """A run: one table, and the JSON beside it if there is one. Raises InputError."""
    paths, limits = [Path(path) for path in paths], limits or Limits()
    notes = [path for path in paths if path.suffix.lower() == ".json"]
    tables = [path for path in paths if path not in notes]
    if len(tables) != 1 or len(notes) > 1:
        raise InputError("Give one CSV, JSONL or parquet file, and with it at most the run's JSON file.")
    info = parse_info(_note(notes[0]), show(notes[0].name)) if notes else None
    ways = "a file needs the columns index and guess, or text, price and guess"
    table = _read(tables[0], _BY_INDEX, [*_PRODUCTS, *_GUESSES, *_FIGURES], limits, ways)
    if "low_usd" in table and "high_usd" in table and (wrong := table["low_usd"] > table["high_usd"]).any():
        raise InputError(
            f"{show(tables[0].name)}: row {wrong.idxmax()}, column low is above high: correct it or leave the row out."
        )
    return Upload(_title(tables[0], "run"), table, info)


def read_products(path: Path | str, limits: Limits | None = None) -> Upload:
    """Products to score: a table with text and price, and where known category. Raises InputError."""
    table = _read(
        Path(path), _PRODUCTS, _PRODUCTS, limits or Limits(), "a file needs the columns text and price"
    )
    return Upload(_title(Path(path), "products"), table)


def _read(
    path: Path, by_index: list[Column], by_text: list[Column], limits: Limits, ways: str
) -> pd.DataFrame:
    """The rows of a file of test items, if it has an index, or else of any items."""
    if not path.is_file():
        raise InputError(f"{show(path.name)} did not arrive: choose the file again.")
    table = open_table(path, most_bytes=limits.upload_bytes)
    columns = by_index if choose(table.names, ["index"], table.shown) else by_text
    found = read_frame(
        path,
        columns,
        to_text=partial(product_cell, max_chars=limits.text_chars),
        most_rows=limits.upload_rows,
        most_bytes=limits.upload_bytes,
        ways=ways,
    )
    if "category" in found and found["category"].nunique() > CATEGORIES:
        raise InputError(
            f"{table.shown}: column category has more than {CATEGORIES} different ones: leave the column out."
        )
    return found


def _title(path: Path, otherwise: str) -> str:
    return show(path.stem.removesuffix(".csv").removesuffix(".jsonl")) or otherwise


def _note(path: Path) -> bytes:
    if not path.is_file():
        raise InputError(f"{show(path.name)} did not arrive: choose the file again.")
    if (size := path.stat().st_size) > JSON_BYTES:
        raise InputError(
            f"{show(path.name)} has {size / 1e6:,.1f} MB: a run's JSON has at most {JSON_BYTES / 1e6} MB."
        )
    return path.read_bytes()
