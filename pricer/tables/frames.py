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
from pricer.tables.arrow import as_text, escaped
from pricer.tables.cells import Amounts, product_cell, show, text_cell
from pricer.tables.checks import MAX_USD
from pricer.tables.columns import TEXT_NAMES, check_there, choose, is_there, row_text
from pricer.tables.reading import check_packed, open_table

LABEL_CHARS = 60
MEND, WRITE_AGAIN = "correct it or leave the row out", "make or download the file again"
_MOST = {"price": MAX_USD, "amount": MAX_USD, "number": math.inf}  # of the kinds that are amounts
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
    to_text: Callable[[str], str] = product_cell,
    most_rows: int | None = None,
    most_bytes: int | None = None,
    ways: str = "rename the one that holds it, or add it",
    may_be_empty: bool = False,
) -> pd.DataFrame:
    """The rows of a file in its order, with those of `columns` that it has; the index holds the rows' numbers.

    to_text: what a product text must pass; its InputError is the reason that the row is refused. ways: what is said
    when a needed column is missing. Raises InputError for the first row that cannot be used.
    """
    table = open_table(path, most_bytes=most_bytes)
    check_packed(table.path, most_bytes)
    wanted = [name for c in columns for name in (TEXT_NAMES if c.kind == "text" else (c.name,))]
    chosen = choose(table.names, wanted, table.shown, mapping)
    check_there([c.name for c in columns if c.needed], chosen, table.names, table.shown, ways)
    read = [column for column in columns if is_there(column.name, chosen)]
    amounts = table.survey([chosen[c.name] for c in read if c.kind in _MOST], most_rows=most_rows).amounts
    cells: dict[str, list] = {column.name: [] for column in read}
    numbers, seen = [], set()
    for row in table.rows():
        where = f"{table.shown}: {row.place}"
        if row.reason:
            raise InputError(f"{where}: {row.reason}: {WRITE_AGAIN if 'damaged' in row.reason else MEND}.")
        for column in read:
            theirs = chosen.get(column.name, "text")
            try:
                if column.kind == "text":
                    value = to_text(row_text(row.cells, chosen))
                else:
                    value = _value(
                        column.kind, row.cells.get(theirs), amounts.get(theirs), table.kind == "csv"
                    )
                if column.kind == "index" and value in seen:
                    raise InputError(f"{value} stands there twice")
            except InputError as reason:
                words = str(reason).rstrip(".")
                raise InputError(f"{where}, column {show(theirs, 30)}: {words}: {MEND}.") from None
            if column.kind == "index":
                seen.add(value)
            cells[column.name].append(value)
        numbers.append(row.number)
    if not numbers and not may_be_empty:
        raise InputError(f"{table.shown}: there are no rows: give one row per item.")
    return pd.DataFrame(cells, index=pd.Index(numbers, name="row"))


def _value(kind: str, cell: Any, amounts: Amounts | None, written: bool) -> Any:
    """The cell as a value of its kind. Raises InputError, whose message says what the cell is instead."""
    try:
        return _amount(kind, amounts.read(cell)) if amounts else _READ[kind](cell, written)
    except InputError as reason:
        is_empty = cell is None or cell != cell or (isinstance(cell, str) and not cell.strip())
        shown = "an empty cell" if is_empty else f"“{show(str(escaped(cell))[:100], 30)}”"
        words = re.sub("price( in dollars)?", "number", str(reason)) if kind == "number" else reason
        raise InputError(f"{shown} is {words}") from None


def _amount(kind: str, value: float) -> float:
    if value < 0 or value > _MOST[kind]:
        raise InputError("below 0" if kind == "number" else f"not between 0 and {_MOST[kind]:,.0f}")
    if kind == "price" and value == 0:
        raise InputError("not above $0")
    return value


def _is_number(cell: Any) -> bool:
    return isinstance(cell, int | float) and not isinstance(cell, bool) and cell == cell


def _whole(cell: Any, written: bool) -> int:
    """An item's number: as people write it in a CSV, elsewhere a number of the file's own."""
    if written and isinstance(cell, str) and _WHOLE.fullmatch(cell.strip()):
        return int(cell.strip().split(".")[0])
    if _is_number(cell) and 0 <= cell <= 2**53 and cell == int(cell):
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
    "label": lambda cell, written: show(text_cell(as_text(cell) if _is_number(cell) else cell), LABEL_CHARS),
    "any": lambda cell, written: cell,
}
