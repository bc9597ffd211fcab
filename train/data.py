"""Rows of products and prices, as every training script reads them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import pandas as pd

from pricer.errors import InputError
from pricer.tables.columns import check_there, choose
from pricer.tables.frames import Column, read_frame
from pricer.tables.reading import open_table
from train.clean import curated_text

# Taken where the file has them.
KEPT = (
    *(Column(name, "label") for name in ("category", "split", "source")),
    Column("target_like", "flag"),
    Column("group", "any"),
    Column("weight", "number"),
)


def load_rows(
    path: str | Path,
    columns: dict[str, str] | None = None,
    *,
    priced: bool = True,
    kept: Sequence[Column] = KEPT,
) -> pd.DataFrame:
    """The rows of a table, in the file's order: `text`, `price`, and those of the `kept` columns that it has.

    `text` is as the prompt wants it (title, newline, description), at most MAX_CHARS characters; `price` is in US
    dollars, NaN with priced=False. `columns` maps a name used here to the file's name for it, for example
    {"price": "list_price"}.

    Raises InputError when the file cannot be read, lacks these columns, or has a row that cannot be used.
    """
    price = [Column("price_usd", "price", needed=True)] if priced else []
    wanted = [Column("text", "text", needed=True), *price, *kept]
    rows = read_frame(path, wanted, mapping=columns, to_text=curated_text, may_be_empty=True).reset_index(
        drop=True
    )
    rows = rows.rename(columns={"price_usd": "price"}) if priced else rows.assign(price=np.nan)
    return rows.astype({"price": float})


def load_prices(path: str | Path, column: str = "price") -> tuple[np.ndarray, int]:
    """The prices (US dollars) in a column of a table, and how many rows held none.

    Raises InputError when the file cannot be read or lacks the column.
    """
    table = open_table(path)
    mapping = None if column == "price" and "price" not in table.names else {"price_usd": column}
    chosen = choose(table.names, ["price_usd"], table.shown, mapping)
    check_there(["price_usd"], chosen, table.names, table.shown, "name the one that holds it in --column")
    found = table.survey(chosen.values())
    amounts, prices = found.amounts[chosen["price_usd"]], []
    for row in table.rows():
        with suppress(InputError):
            prices.append(amounts.read(row.cells.get(chosen["price_usd"])))
    return np.array(prices, dtype=np.float64), found.rows - len(prices)


def load_items(path: str | Path, limit: int = 0) -> pd.DataFrame:
    """Items to be scored: `load_rows` with `index`, whole numbers, each once; the rows' places where there is none."""
    if limit < 0:
        raise InputError(f"--limit {limit} is below 0: give the number of items, or 0 for all.")
    items = load_rows(path, kept=[*KEPT, Column("index", "index")])
    if items.empty:
        raise InputError(f"{Path(path).name} has no items: give one row per item.")
    if "index" not in items:
        items["index"] = np.arange(len(items))
    return items.head(limit) if limit else items
