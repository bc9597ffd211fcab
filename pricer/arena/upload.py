"""A visitor's file as a checked table: a CSV, or a run as train/evaluate.py writes one.

Nothing about a file is trusted: not its size, its encoding, its columns, nor what it says of itself. Whatever
cannot be used ends in an `InputError` of one sentence, which names row (from 1, without the header) and column.
"""

from __future__ import annotations

import csv
import io
import math
import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pyarrow.types as kinds

from pricer.arena.runs import RunInfo, parse_info
from pricer.errors import InputError
from pricer.prompt import clean, product_text
from pricer.settings import Limits
from pricer.tables.checks import COLUMNS, check_prices, check_table

# What a CSV's columns mean, by their names in small letters with everything else as "_"; others are ignored.
NAMES = {
    "index": ("index", "item"),
    "text": ("text", "prompt", "description", "product"),
    "category": ("category",),
    "price_usd": ("price_usd", "price", "actual_price", "actual"),
    "guess_usd": ("guess_usd", "guess", "prediction", "predicted_price", "predicted"),
    "low_usd": ("low_usd", "low"),
    "high_usd": ("high_usd", "high"),
}
DELIMITERS = ",;\t|"
CATEGORIES = 40  # of a file; more would make no readable figure
CATEGORY_CHARS = 60
JSON_BYTES = 64_000
CELL_CHARS = 131_072

_COLUMN = {name: column for column, names in NAMES.items() for name in names}
_WAYS = "a file needs the columns index and guess, or text, price and guess"
_CSV_ENDINGS = (".csv", ".tsv", ".txt")

_PLAIN = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d{1,3})?", re.ASCII | re.IGNORECASE)
_THOUSANDS = re.compile(r"[+-]?\d{1,3}(,\d{3})+(\.\d*)?", re.ASCII)
_DECIMAL_COMMA = re.compile(
    r"[+-]?(\d+|\d{1,3}(\.\d{3})+),\d{1,2}", re.ASCII
)  # as spreadsheets in Europe write
_WHOLE = re.compile(r"\d{1,15}(\.0*)?", re.ASCII)


@dataclass(frozen=True)
class Upload:
    """A file's rows in its order. `table` has `index` (test items) or `text` and `price_usd` (any items)."""

    title: str  # of the file, fit to be shown; escape it all the same
    table: pd.DataFrame
    info: RunInfo | None = None  # what the run's JSON says, if there was one


def read_upload(paths: Sequence[Path | str], limits: Limits | None = None) -> Upload:
    """A run: one CSV or parquet file, and the JSON beside it if there is one. Raises InputError."""
    paths, limits = [Path(path) for path in paths], limits or Limits()
    notes = [path for path in paths if path.suffix.lower() == ".json"]
    tables = [path for path in paths if path not in notes]
    if len(tables) != 1 or len(notes) > 1:
        raise InputError("Give one CSV or parquet file, and with it at most the run's JSON file.")
    path, title = tables[0], show(tables[0].stem) or "run"
    info = parse_info(_read_bytes(notes[0], JSON_BYTES), show(notes[0].name)) if notes else None
    if path.suffix.lower() == ".parquet":
        return Upload(title, _read_parquet(path, limits), info)
    table = _read_csv(path, limits)
    by_text = "index" not in table
    needed = ("text", "price_usd", "guess_usd") if by_text else ("index", "guess_usd")
    _check_columns(table, needed, path, _WAYS)
    if by_text:
        return Upload(title, table, info)
    name = show(path.name)
    if (table["index"].duplicated()).any():
        row = int(np.argmax(table["index"].duplicated())) + 1
        raise InputError(
            f"{name}: row {row}, column index stands there twice: correct it or leave the row out."
        )
    return Upload(title, table.drop(columns=["text", "category"], errors="ignore"), info)


def read_products(path: Path | str, limits: Limits | None = None) -> Upload:
    """Products to score: a CSV with text and price, and where known category. Raises InputError."""
    path = Path(path)
    table = _read_csv(path, limits or Limits())
    _check_columns(table, ("text", "price_usd"), path, "a file needs the columns text and price")
    kept = [column for column in ("text", "price_usd", "category") if column in table]
    return Upload(show(path.stem) or "products", table[kept])


def show(words: str, chars: int = 60) -> str:
    """Words from outside in one short line, without what cannot be seen or turns the writing direction."""
    seen = "".join(" " if unicodedata.category(c) in ("Cc", "Zl", "Zp") else c for c in words)
    seen = " ".join("".join(c for c in seen if unicodedata.category(c)[0] != "C").split())
    return seen if len(seen) <= chars else f"{seen[: chars - 1]}…"


def read_usd(cell: str) -> float | None:
    """Dollars as people write them: 1299, $1,299.00, 1299.00 USD, 12,50; None for anything else."""
    written = "".join(cell.split()).removesuffix("USD").removeprefix("US").removeprefix("$").removesuffix("$")
    if _THOUSANDS.fullmatch(written):
        written = written.replace(",", "")
    elif _DECIMAL_COMMA.fullmatch(written):
        written = written.replace(".", "").replace(",", ".")
    if not _PLAIN.fullmatch(written):
        return None
    value = float(written)
    return value if math.isfinite(value) else None


# CSV -----------------------------------------------------------------------------------------------------


def _read_csv(path: Path, limits: Limits) -> pd.DataFrame:
    """The known columns, in the right types; texts clean, categories short."""
    name = show(path.name)
    if path.suffix.lower() not in _CSV_ENDINGS:
        raise InputError(
            f"{name}: this is no CSV file: its name must end in {' or '.join(_CSV_ENDINGS[:1])}."
        )
    written = _decode(_read_bytes(path, limits.upload_bytes), name)
    header, rows = _split(written, name, limits.upload_rows)
    columns: dict[str, int] = {}
    for at, head in enumerate(header):
        column = _column(head)
        if column in columns:
            twice = f"{show(header[columns[column]])} and {show(head)}"
            raise InputError(f"{name}: the columns {twice} mean the same: keep one of them.")
        if column:
            columns[column] = at
    if not rows:
        raise InputError(f"{name}: there are no rows: give one row per item.")

    def cells(column: str, read: Callable[[str], object], complaint: str) -> list:
        at, values = columns[column], []
        for number, row in enumerate(rows, 1):
            values.append(read(row[at]))
            if values[-1] is None:
                raise _bad_cell(name, number, header[at], row[at], complaint)
        return values

    table = {}
    for column in columns:
        if column == "index":
            table[column] = cells(column, _whole, "is no item number")
        elif column == "text":
            table[column] = cells(column, lambda cell: _text(cell, limits), "is no product text")
        elif column == "category":
            table[column] = cells(column, lambda cell: show(cell, CATEGORY_CHARS), "is no category")
        else:
            table[column] = cells(column, read_usd, "is no price in dollars")
    table = pd.DataFrame(table)
    _check_money(table, {column: header[at] for column, at in columns.items()}, name)
    if "category" in table and table["category"].nunique() > CATEGORIES:
        raise InputError(
            f"{name}: column category has more than {CATEGORIES} different ones: leave the column out."
        )
    return table


def _decode(data: bytes, name: str) -> str:
    """UTF-8, with or without its mark, or UTF-16 with one; a guess at anything else would garble texts."""
    encoding = "utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        written = data.decode(encoding)
    except UnicodeDecodeError:
        raise InputError(f"{name}: this is no UTF-8 text: save the file as “CSV UTF-8”.") from None
    if "\0" in written:
        raise InputError(f"{name}: this is no text file: save the table as “CSV UTF-8”.")
    return written


def _split(written: str, name: str, most: int) -> tuple[list[str], list[list[str]]]:
    """Header and rows, without empty ones. The delimiter is the one by which the header makes most sense."""
    first = next((line for line in io.StringIO(written, newline="") if line.strip()), "")
    if not first:
        raise InputError(f"{name}: the file is empty: {_WAYS}.")

    def sense(delimiter: str) -> int:
        return len({_column(head) for head in first.strip("\r\n").replace('"', "").split(delimiter)} - {None})

    delimiter = max(DELIMITERS, key=sense)
    header, rows = None, []
    reader = csv.reader(io.StringIO(written, newline=""), delimiter=delimiter, strict=True)
    try:
        for row in reader:
            if not any(cell.strip() for cell in row):
                continue
            if header is None:
                header = row
                continue
            if len(row) != len(header):
                raise InputError(
                    f"{name}: row {len(rows) + 1} has {len(row)} cells where the header has {len(header)}: put a text "
                    "with commas into quotation marks."
                )
            # The csv module has a limit of its own, which any code of the process may have raised.
            if max(map(len, row)) > CELL_CHARS:
                raise csv.Error("field larger than the limit")
            if len(rows) == most:
                raise InputError(f"{name}: there are more than {most:,} rows: leave some out.")
            rows.append(row)
    except csv.Error as error:
        reason = (
            "holds a cell that is too long" if "limit" in str(error) else "has a quotation mark out of place"
        )
        raise InputError(f"{name}: row {len(rows) + 1} {reason}: correct it or leave the row out.") from None
    return header or [], rows


def _column(head: str) -> str | None:
    return _COLUMN.get(re.sub(r"[^a-z0-9]+", "_", head.lower()).strip("_"))


def _whole(cell: str) -> int | None:
    return int(cell.strip().split(".")[0]) if _WHOLE.fullmatch(cell.strip()) else None


def _text(cell: str, limits: Limits) -> str | None:
    try:
        return clean(product_text(cell), max_chars=limits.text_chars)
    except InputError:
        return None


def _bad_cell(name: str, row: int, head: str, cell: str, complaint: str) -> InputError:
    shown = f"“{show(cell, 30)}”" if cell.strip() else "an empty cell"
    return InputError(
        f"{name}: row {row}, column {show(head, 30)}: {shown} {complaint}: correct it or leave the row out."
    )


def _check_money(table: pd.DataFrame, heads: dict[str, str], name: str) -> None:
    for column in ("price_usd", "guess_usd", "low_usd", "high_usd"):
        if column in table:
            check_prices(table[column], show(heads[column], 30), name, above_zero=column == "price_usd")
    if "low_usd" in table and "high_usd" in table and (wrong := table["low_usd"] > table["high_usd"]).any():
        row = int(np.argmax(wrong)) + 1
        raise InputError(
            f"{name}: row {row}, column {show(heads['low_usd'], 30)} is above {show(heads['high_usd'], 30)}: "
            "correct it or leave the row out."
        )


def _check_columns(table: pd.DataFrame, needed: Sequence[str], path: Path, ways: str) -> None:
    if missing := [column for column in needed if column not in table]:
        raise InputError(f"{show(path.name)}: column {missing[0].removesuffix('_usd')} is missing: {ways}.")


# A run's own files ---------------------------------------------------------------------------------------


def _read_parquet(path: Path, limits: Limits) -> pd.DataFrame:
    """A run's table. Its columns must be plain numbers and its rows few before anything is unpacked."""
    name = show(path.name)
    _check_size(path, limits.upload_bytes)
    try:
        with pq.ParquetFile(path) as file:
            schema, rows = file.schema_arrow, file.metadata.num_rows
            for field in schema:
                plain = (kinds.is_integer, kinds.is_floating, kinds.is_boolean)
                if field.name in COLUMNS and not any(is_kind(field.type) for is_kind in plain):
                    raise InputError(f"{name}: column {field.name} does not hold numbers.")
                if field.name not in COLUMNS:
                    raise InputError(
                        f"{name}: column {show(field.name)} is not known: use {', '.join(COLUMNS)}, or give a CSV file."
                    )
            if rows > limits.upload_rows:
                raise InputError(f"{name}: there are more than {limits.upload_rows:,} rows: leave some out.")
            table = file.read().to_pandas(ignore_metadata=True)
    except InputError:
        raise
    except Exception:  # pyarrow raises several unrelated classes on a damaged file
        raise InputError(f"{name} is damaged or no parquet file: make or download it again.") from None
    return check_table(table, name)


def _check_size(path: Path, most: int) -> None:
    if not path.is_file():
        raise InputError(f"{show(path.name)} did not arrive: choose the file again.")
    if (size := path.stat().st_size) > most:
        raise InputError(
            f"{show(path.name)} has {size / 1e6:,.1f} MB: give at most {most / 1e6:,.3g} MB, or fewer rows."
        )


def _read_bytes(path: Path, most: int) -> bytes:
    _check_size(path, most)
    return path.read_bytes()
