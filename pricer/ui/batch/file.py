"""A visitor's file: what it looks like, and its rows as products to price. `pricer.tables` reads it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from pricer.errors import InputError
from pricer.settings import Limits
from pricer.tables.cells import Amounts, show, text_cell
from pricer.tables.checks import MAX_USD
from pricer.tables.columns import TEXT_NAMES, choose, is_there
from pricer.tables.reading import check_packed, open_table
from pricer.tables.stream import Part, Source, open_source
from pricer.ui.batch import text

PREVIEW_ROWS = 5
LOOKED_AT = 50  # rows, to guess which column is the text
CELL_CHARS = 120  # of a preview


@dataclass(frozen=True)
class Upload:
    """A file that was looked at. `usual`: the columns that hold the text by their names; empty where none does, then
    `text_column` is the one with the most words. `first`: rows as shown, or the reason why one cannot be used."""

    path: Path
    title: str  # the file's name, fit to be shown; escape it all the same
    rows: int
    names: tuple[str, ...]
    usual: tuple[str, ...]
    text_column: str | None
    price_column: str | None
    first: tuple[tuple[int, Mapping[str, str], str], ...]

    @property
    def text_columns(self) -> tuple[str, ...]:
        return (self.text_column,) if self.text_column else self.usual


@dataclass(frozen=True)
class Products(Part):
    """A file's first rows. `price_usd`: (usable rows,) dollars, NaN where there is none."""

    price_usd: np.ndarray


def look_at(path: Path | str, limits: Limits) -> Upload:
    """Raises InputError when the file is no table, too large, or empty."""
    if not Path(path).is_file():
        raise InputError(text.GONE)
    table = open_table(path, most_bytes=limits.upload_bytes)
    check_packed(table.path, limits.upload_bytes)
    names = table.names
    if not names:
        raise InputError(text.NO_ROWS.format(title=table.shown))
    usual = choose(names, TEXT_NAMES, table.shown)
    head = list(islice(table.rows(), LOOKED_AT))
    if not head:
        raise InputError(text.NO_ROWS.format(title=table.shown))
    text_column = None if is_there("text", usual) else _wordiest(names, [row.cells for row in head])
    price = choose(names, ["price_usd"], table.shown).get("price_usd")
    source = _source(table.path, text_column, limits)
    first = tuple(
        (row.number, {name: _shown(row.cells.get(name)) for name in names if row.cells}, row.full_reason)
        for row in head[:PREVIEW_ROWS]
    )
    return Upload(
        table.path,
        table.shown,
        source.rows,
        tuple(names),
        tuple(source.text_columns) if text_column is None else (),
        text_column,
        price if price not in source.text_columns else None,
        first,
    )


def read_products(
    upload: Upload, text_column: str | None, price_column: str | None, limits: Limits, most: int
) -> Products:
    """The products in the file's first `most` rows. Raises InputError."""
    if not upload.path.is_file():
        raise InputError(text.GONE)
    source = _source(upload.path, text_column, limits)
    if price_column in source.text_columns:
        raise InputError(text.SAME_COLUMN)
    if price_column is not None and price_column not in source.schema.names:
        raise InputError(text.GONE)
    found = source.first(most)
    if not found.rows:
        row, reason = found.rejected[0]
        raise InputError(text.ALL_REJECTED.format(row=row, reason=reason))
    return Products(**vars(found), price_usd=_prices(found.table, price_column))


def _source(path: Path, text_column: str | None, limits: Limits) -> Source:
    return open_source(path, text_column=text_column, max_chars=limits.text_chars)


def _wordiest(names: list[str], rows: list[Mapping[str, Any]]) -> str:
    """The column whose cells have the most words in them."""

    def words(name: str) -> int:
        return sum(len(_text(row.get(name)).split()) for row in rows)

    return max(names, key=words)


def _text(cell: Any) -> str:
    try:
        return text_cell(cell) if not isinstance(cell, int | float | bool) else ""
    except InputError:
        return ""


def _shown(cell: Any) -> str:
    if cell is None or cell != cell:
        return ""
    try:
        return show(text_cell(cell), CELL_CHARS)
    except InputError:
        return show(str(cell), CELL_CHARS)


def _prices(table: pa.Table, column: str | None) -> np.ndarray:
    """(rows,) dollars above 0, to MAX_USD, NaN where a cell holds no such price."""
    if column is None:
        return np.full(table.num_rows, np.nan)
    cells = table.column(column).to_pylist()
    amounts, found = Amounts(cells), []
    for cell in cells:
        try:
            price = amounts.read(cell)
        except InputError:
            price = 0.0
        found.append(price if 0 < price <= MAX_USD else np.nan)
    return np.array(found)
