"""Rows of products and prices, as every training script reads them."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq

from pricer.errors import InputError
from pricer.tables.arrow import check_unpacked
from pricer.tables.cells import read_price, show
from train.clean import curated_text

BOMB_BYTES, BOMB_RATIO = 256_000_000, 50  # a .gz may unpack to so much, or to so many times its size
# Passed on as they are where the file has them.
KEPT = ("category", "title", "target_like", "split", "group", "weight", "index", "source")


def load_rows(
    path: str | Path, columns: dict[str, str] | None = None, *, priced: bool = True
) -> pd.DataFrame:
    """The rows of a parquet, CSV or JSONL (also .gz) file, in the file's order.

    `columns` maps a name used here to the file's name for it, for example {"price": "price_usd"}. With priced=False
    prices are not read: `price` is NaN.

    Returns columns `text` (title, newline, description, as the prompt wants it, at most MAX_CHARS characters;
    taken from `prompt` where that is set, else from `text`, else from `title` and `description`) and `price`
    (float, US dollars), and those of category, title, target_like, split, group, weight, index and source
    that the file has.

    Raises InputError when the file cannot be read, lacks these columns, or has a row without text or price.
    """
    path = Path(path)
    rows = _read(path)
    for ours, theirs in (columns or {}).items():
        if theirs not in rows:
            raise InputError(f"{path.name} has no column {theirs}: name the one that holds the {ours}.")
        rows[ours] = rows[theirs]
    price = ["price"] if priced else []
    if not set(price) <= set(rows.columns) or not {"prompt", "text", "title"} & set(rows.columns):
        found = ", ".join(show(str(name)) for name in rows.columns[:12]) or "none"
        wanted = "a column price and one" if priced else "one"
        raise InputError(f"{path.name} needs {wanted} of prompt, text or title; it has {found}.")

    columns_read = [name for name in ("prompt", "text", "title", "description") if name in rows]
    texts, prices = [], []
    for number, row in enumerate(rows[[*columns_read, *price]].to_dict("records"), 1):
        try:
            texts.append(_text(row))
            prices.append(read_price(row["price"]) if priced else float("nan"))
        except InputError as reason:
            raise InputError(
                f"Row {number:,} of {path.name} cannot be used ({reason}): complete or remove it."
            ) from None
    kept = {name: rows[name] for name in KEPT if name in rows}
    return pd.DataFrame({"text": texts, "price": prices, **kept}).astype({"price": float})


def _text(row: dict[str, Any]) -> str:
    for name in ("prompt", "text"):
        if _given(row.get(name)):
            return curated_text(str(row[name]))
    return curated_text(
        "\n".join(str(row[name]) for name in ("title", "description") if _given(row.get(name)))
    )


def _given(value: Any) -> bool:
    return value is not None and value == value and bool(str(value).strip())


def _read(path: Path) -> pd.DataFrame:
    kind = path.with_suffix("").suffix.lower() if path.suffix.lower() == ".gz" else path.suffix.lower()
    readers = {
        ".parquet": pd.read_parquet,
        ".csv": pd.read_csv,
        ".jsonl": lambda file: pd.read_json(file, lines=True, dtype=False, convert_dates=False),
    }
    if kind not in readers:
        raise InputError(
            f"{path.name} cannot be read as rows: give a .parquet, .csv or .jsonl (also .gz) file."
        )
    if not path.is_file():
        raise InputError(f"There is no file {path}: name a file of products with their prices.")
    try:
        _check_size(path)
        return readers[kind](path)
    except InputError:
        raise
    except Exception as error:  # pandas and pyarrow raise many unrelated classes on a damaged file
        raise InputError(
            f"{path.name} is not a readable {kind} file: write it again or give another."
        ) from error


def _check_size(path: Path) -> None:
    """Raise InputError for a packed file that unpacks to far more than it is: all of it is to be held in memory."""
    if path.suffix.lower() == ".parquet":
        check_unpacked(pq.read_metadata(path), path.name)
    if path.suffix.lower() == ".gz":
        most, unpacked = max(BOMB_BYTES, BOMB_RATIO * path.stat().st_size), 0
        with gzip.open(path) as file:
            while block := file.read(2**20):
                unpacked += len(block)
                if unpacked > most:
                    raise InputError(
                        f"{path.name} unpacks to more than {most / 1e6:,.0f} MB: give the file itself, or fewer rows."
                    )
