"""Tables written: CSV that no spreadsheet runs as a formula, and parquet in row groups of a size that reads well."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from pricer.tables.arrow import as_text, escaped, values
from pricer.tables.stream import PART_BYTES


def write_table(path: Path, schema: pa.Schema, tables: Iterable[pa.Table], kind: str) -> None:
    """All tables as one file of `kind` (.csv or .parquet), in order."""
    if kind == ".csv":
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(map(harmless, schema.names))
            for table in tables:
                columns = [values(column) for column in table.columns]
                writer.writerows([_cell(value) for value in row] for row in zip(*columns, strict=True))
        return
    with pq.ParquetWriter(path, schema) as writer:
        held: list[pa.Table] = []
        size = 0
        for table in tables:
            held.append(table)
            size += table.nbytes
            if size > PART_BYTES:  # row groups of a size that reads well
                writer.write_table(pa.concat_tables(held))
                held, size = [], 0
        if held:
            writer.write_table(pa.concat_tables(held))


def _cell(value: Any) -> Any:
    if value is None or value != value:
        return ""
    if isinstance(value, list | tuple | dict):
        value = as_text(value)
    value = escaped(value)
    return harmless(value) if isinstance(value, str) else value


def csv_text(table: pd.DataFrame) -> str:
    """The table as CSV, its words harmless."""
    written = table.copy()
    for column in table.select_dtypes(exclude=["number", "bool"]):
        written[column] = table[column].astype(str).map(harmless)
    return written.rename(columns=harmless).to_csv(index=False, lineterminator="\n")


_FORMULA = re.compile(r"[\t\r]|\s*[=+\-@＝＋－＠]")
_SIGNED_NUMBER = re.compile(r"[+-]\s*[$€£]?\d[\d.,]*(e[+-]?\d+)?\s*%?", re.ASCII | re.IGNORECASE)


def harmless(cell: str) -> str:
    """Text from outside as a cell of a CSV: spreadsheets run what begins with = + - or @ as a formula, some behind a
    tab or a line's end, so it gets an apostrophe in front. Plain numbers (-5, +1.5e3, -$3.20, -12 %) stay numbers.
    Lines end in \\n: csv puts no lone \\r into quotation marks, behind which a spreadsheet would begin a new row."""
    mark = "'" if _FORMULA.match(cell) and not _SIGNED_NUMBER.fullmatch(cell) else ""
    return mark + cell.replace("\r\n", "\n").replace("\r", "\n")
