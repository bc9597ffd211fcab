"""A whole table in memory, every cell of the kind that its caller needs, or one sentence for the first that is not."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from pricer.errors import InputError
from pricer.tables.arrow import escaped
from pricer.tables.cells import Amounts, show, text_cell
from pricer.tables.checks import MAX_USD
from pricer.tables.columns import TEXT_NAMES, choose, has_text, listed, row_text
from pricer.tables.reading import Table, check_packed, open_table
from pricer.tables.row import Row

LABEL_CHARS = 60
WRITE_AGAIN = "make or download the file again"
_AMOUNTS = {
    "price": MAX_USD,
    "amount": MAX_USD,
    "number": math.inf,
}  # the kinds that are amounts, and their most
_WHOLE = re.compile(r"\d{1,15}(\.0*)?", re.ASCII)
_YES, _NO = ("true", "yes", "1", "1.0"), ("false", "no", "0", "0.0", "", "none", "nan")


@dataclass(frozen=True)
class Column:
    """A column that a caller needs, or takes where it is there.

    kind: text (a row's product text, wherever it stands; see `columns.TEXTS`), index (whole numbers, each once), price
    (dollars above 0), amount (dollars from 0 on), number (from 0 on), flag, label (a few words) or any (as it is).
    """

    name: str
    kind: str
    needed: bool = False


def read_frame(
    path: Path | str,
    columns: Sequence[Column],
    *,
    mapping: Mapping[str, str] | None = None,
    to_text: Callable[[str], str] = str.strip,
    most_rows: int | None = None,
    most_bytes: int | None = None,
    ways: str = "",
    may_be_empty: bool = False,
) -> pd.DataFrame:
    """The rows of a file in its order, with those of `columns` that it has; the index holds the rows' numbers.

    to_text: what a product text must pass; its InputError is the reason that the row is refused. ways: what is said
    when a needed column is missing. Raises InputError for the first row that cannot be used.
    """
    table = open_table(path, most_bytes=most_bytes)
    check_packed(table.path, most_bytes)
    chosen = _chosen(table, columns, mapping, ways)
    read = [
        column for column in columns if column.name in chosen or column.kind == "text" and has_text(chosen)
    ]
    found = table.survey([chosen[c.name] for c in read if c.kind in _AMOUNTS], most_rows=most_rows)
    cells: dict[str, list] = {column.name: [] for column in read}
    seen: dict[str, set[int]] = {column.name: set() for column in read if column.kind == "index"}
    numbers = []
    for row in table.rows():
        where = f"{table.shown}: {row.place}"
        if row.reason:
            raise InputError(f"{where} {_said(row)}")
        for column in read:
            head = chosen.get(column.name, "text")
            try:
                if column.kind == "text":
                    value = _text(row, chosen, to_text)
                else:
                    value = _value(
                        column.kind, row.cells.get(head), found.amounts.get(head), table.kind == "csv"
                    )
                    if value in seen.get(column.name, ()):
                        raise InputError("stands there twice")
            except InputError as reason:
                words = (
                    f"{where}, column {show(head, 30)}{'' if str(reason)[0] == ':' else ' '}{reason}".rstrip(
                        "."
                    )
                )
                raise InputError(f"{words}: correct it or leave the row out.") from None
            cells[column.name].append(value)
            if column.name in seen:
                seen[column.name].add(value)
        numbers.append(row.number)
    if not numbers and not may_be_empty:
        raise InputError(f"{table.shown}: there are no rows: give one row per item.")
    return pd.DataFrame(cells, index=pd.Index(numbers, name="row"))


def _chosen(
    table: Table, columns: Sequence[Column], mapping: Mapping[str, str] | None, ways: str
) -> dict[str, str]:
    wanted = [name for c in columns for name in (TEXT_NAMES if c.kind == "text" else (c.name,))]
    chosen = choose(table.names, wanted, table.shown, mapping)
    for column in columns:
        there = has_text(chosen) if column.kind == "text" else column.name in chosen
        if column.needed and not there:
            raise InputError(
                f"{table.shown}: column {column.name.removesuffix('_usd')} is missing (it has: {listed(table.names)}): "
                f"{ways or 'rename the one that holds it, or add it'}."
            )
    return chosen


def _said(row: Row) -> str:
    """The rest of a sentence that begins with the row."""
    if "where the header has" in row.reason:
        return f"has {row.reason}: put a text with commas into quotation marks."
    if row.reason.startswith("the rest"):
        return f"cannot be read, nor what stands behind it: {WRITE_AGAIN}."
    if row.reason.startswith("damaged"):
        return f"is {row.full_reason}: {WRITE_AGAIN}."
    if row.reason.startswith("column "):
        return f"cannot be used, {row.full_reason}: correct it or leave the row out."
    return f"{'has' if row.reason.startswith('a ') else 'is'} {row.full_reason}: correct it or leave the row out."


def _text(row: Row, chosen: Mapping[str, str], to_text: Callable[[str], str]) -> str:
    try:
        text = row_text(row.cells, chosen)
        if not text.strip():
            raise InputError("an empty cell is no product text")
        return to_text(text)
    except InputError as reason:
        raise InputError(f": {reason}") from None


def _value(kind: str, cell: Any, amounts: Amounts | None, written: bool) -> Any:
    """The cell as a value of its kind. Raises InputError, whose message goes on behind the column's name."""
    try:
        value = amounts.read(cell) if amounts else _READ[kind](cell, written)
    except InputError as reason:
        shown = "an empty cell" if _is_empty(cell) else f"“{show(str(escaped(cell))[:100], 30)}”"
        words = re.sub("price( in dollars)?", "number", str(reason)) if kind == "number" else reason
        raise InputError(f": {shown} is {words}") from None
    if amounts and kind == "price" and value == 0:
        raise InputError("is not above $0")
    if amounts and not 0 <= value <= _AMOUNTS[kind]:
        raise InputError(f"is not between 0 and {_AMOUNTS[kind]:,.0f}" if kind != "number" else "is below 0")
    return value


def _is_empty(cell: Any) -> bool:
    return cell is None or cell != cell or (isinstance(cell, str) and not cell.strip())


def _whole(cell: Any, written: bool) -> int:
    """An item's number: as people write it in a CSV, elsewhere a number of the file's own."""
    if written and isinstance(cell, str) and _WHOLE.fullmatch(cell.strip()):
        return int(cell.strip().split(".")[0])
    number = isinstance(cell, int | float) and not isinstance(cell, bool)
    if number and 0 <= cell <= 2**53 and cell == int(cell):
        return int(cell)
    raise InputError("no item number")


def _flag(cell: Any, written: bool) -> bool:
    said = str(cell).strip().lower()
    if said not in _YES + _NO:
        raise InputError("neither true nor false")
    return said in _YES


_READ: dict[str, Callable[[Any, bool], Any]] = {
    "index": _whole,
    "flag": _flag,
    "label": lambda cell, written: show(text_cell(cell), LABEL_CHARS),
    "any": lambda cell, written: cell,
}
