"""The one door: a CSV, TSV, JSONL or parquet file, plain or .gz, row by row, each whole or with the reason it is not.

Memory holds one row (of parquet, a few), however long the file. Rows count from 1 without the header, in JSONL by line.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pyarrow.types as kinds
from tqdm import tqdm

from pricer.errors import InputError
from pricer.tables import lines as text_lines
from pricer.tables.arrow import (
    as_text,
    check_unpacked,
    holds_dates,
    opens,
    plain,
    sound_batch,
    sound_schema,
)
from pricer.tables.cells import NO_UTF8, Amounts, is_utf8, show
from pricer.tables.columns import KNOWN, check_once
from pricer.tables.delimited import Header, read_header, read_rows
from pricer.tables.lines import DAMAGED, Lines, blocks, is_packed, open_bytes
from pricer.tables.row import Row

ENDINGS = {
    **dict.fromkeys((".csv", ".tsv", ".txt"), "csv"),
    **dict.fromkeys((".jsonl", ".ndjson", ".json"), "jsonl"),
    **dict.fromkeys((".parquet", ".pq"), "parquet"),
}
FORMATS = ".csv, .tsv, .jsonl or .parquet (also .gz)"
DAMAGED_PARQUET = "{name} is damaged or no parquet file: make or download it again."
COLUMNS_MOST = 1_000  # in JSONL, where every line may name new ones
NESTED_MOST = 50  # lists and objects in one another: who goes through deeper ones would run out of stack
_PARQUET_ROWS = 64  # unpacked at once


@dataclass(frozen=True)
class Survey:
    """What looking a file through once has found."""

    rows: int
    schema: pa.Schema  # of the columns as they are passed on
    amounts: Mapping[str, Amounts]  # how each column that was asked for writes its numbers


@dataclass(frozen=True)
class Table:
    """A file that can be opened as a table; see `open_table`."""

    path: Path
    kind: str  # csv, jsonl or parquet
    shown: str  # its name as complaints call it

    @cached_property
    def header(self) -> Header:
        with open_bytes(self.path) as file:
            return read_header(Lines(file), self.shown, KNOWN)

    @cached_property
    def schema(self) -> pa.Schema:
        """Of a parquet file, as it lies there."""
        with self._parquet() as file:
            return file.schema_arrow

    @cached_property
    def _sound_schema(self) -> pa.Schema:
        """Of a parquet file, as it is passed on: a column with a date that pandas lacks becomes text as a whole, since
        it opens no file that holds one."""
        asked = [column.name for column in self.schema if holds_dates(column.type)]
        lacking: set[str] = set()
        with self._parquet() as file:
            for group in range(file.metadata.num_row_groups if asked else 0):
                with suppress(Exception):  # a damaged page: the rows say so
                    for batch in file.iter_batches(row_groups=[group], columns=asked):
                        pairs = zip(batch.schema.names, batch.columns, strict=True)
                        lacking |= {name for name, column in pairs if not opens(column)}
        return sound_schema(self.schema, lacking)

    @cached_property
    def names(self) -> list[str]:
        """The file's names for its columns; those of JSONL are read from all its lines."""
        if self.kind == "csv":
            return list(self.header.names)
        return self.schema.names if self.kind == "parquet" else self.survey().schema.names

    def rows(self) -> Iterator[Row]:
        """All rows in order but the empty ones."""
        if self.kind == "parquet":
            yield from self._parquet_rows()
            return
        with open_bytes(self.path) as file:
            lines = Lines(file)
            yield from read_rows(lines, self.header) if self.kind == "csv" else _json_rows(lines)

    def frame(self, most_rows: int) -> pd.DataFrame:
        """A parquet file as a whole, as pandas reads it. Raises InputError, also for more than `most_rows`."""
        with self._parquet() as file:
            self._check_rows(file.metadata.num_rows, most_rows)
            try:
                return file.read().to_pandas()
            except Exception:  # as above
                raise InputError(DAMAGED_PARQUET.format(name=self.shown)) from None

    def survey(self, amounts_of: Collection[str] = (), most_rows: int | None = None) -> Survey:
        """Look the file through: how many rows, which columns, and how those of `amounts_of` write their numbers.
        Raises InputError when it is no such table, or has more than `most_rows`."""
        found = {name: Amounts() for name in amounts_of}
        types: dict[str, set[str]] = {}
        rows = 0
        if self.kind == "parquet":
            with self._parquet() as file:
                self._check_rows(file.metadata.num_rows, most_rows)
                asked = [self.schema.field(name).type for name in found]
                if all(kinds.is_integer(kind) or kinds.is_floating(kind) for kind in asked):
                    return Survey(file.metadata.num_rows, self._sound_schema, found)
        seen = tqdm(self.rows(), desc=f"reading {self.shown}", unit=" rows", delay=2, mininterval=1)
        for rows, row in enumerate(seen, 1):
            self._check_rows(rows, most_rows)
            for name, amounts in found.items():
                amounts.see(row.cells.get(name))
            for name, value in row.cells.items() if self.kind == "jsonl" else ():
                types.setdefault(name, set()).add(_json_type(value))
            if len(types) > COLUMNS_MOST:
                raise InputError(
                    f"{self.shown} names more than {COLUMNS_MOST:,} columns: give fewer per file."
                )
        return Survey(rows, self._passed_on(types), found)

    def _check_rows(self, rows: int, most: int | None) -> None:
        if most is not None and rows > most:
            raise InputError(f"{self.shown}: there are more than {most:,} rows: leave some out.")

    def _passed_on(self, types: dict[str, set[str]]) -> pa.Schema:
        if self.kind == "parquet":
            return self._sound_schema
        if self.kind == "csv":
            return pa.schema([pa.field(name, pa.string()) for name in self.header.names])
        if not types:
            raise InputError(f"{self.shown} is no JSONL file: each line must be a JSON object.")
        return pa.schema([pa.field(name, _arrow_type(some)) for name, some in types.items()])

    def pass_on(self, rows: list[Row], schema: pa.Schema) -> pa.Table:
        """The rows with all their columns, to be written again."""
        if self.kind == "parquet":
            return pa.Table.from_batches([row.cells.batch for row in rows], schema=schema)
        arrays = []
        for column in schema:
            cells = [row.cells.get(column.name) for row in rows]
            arrays.append(pa.array(map(as_text, cells) if column.type == pa.string() else cells, column.type))
        return pa.Table.from_arrays(arrays, schema=schema)

    @contextmanager
    def _parquet(self) -> Iterator[pq.ParquetFile]:
        with _unpacked(self.path) as source:
            try:
                file = pq.ParquetFile(source)
            except Exception:  # pyarrow raises several unrelated classes on a damaged file
                raise InputError(DAMAGED_PARQUET.format(name=self.shown)) from None
            with file:
                check_unpacked(file, self.path.stat().st_size, self.shown)
                yield file

    def _parquet_rows(self) -> Iterator[Row]:
        schema, behind = self._sound_schema, 0  # the rows of the groups so far
        with self._parquet() as file:
            for group in range(file.metadata.num_row_groups):
                number, behind = behind, behind + file.metadata.row_group(group).num_rows
                batches = file.iter_batches(_PARQUET_ROWS, row_groups=[group])
                while number < behind:
                    try:
                        batch, rejected = sound_batch(raw := next(batches), schema)
                    except Exception:  # as above; what stands behind a damaged page is lost with it
                        reason = f"rows {number + 1:,} to {behind:,} are damaged"
                        yield Row(number + 1, reason=reason)
                        break
                    for at in range(batch.num_rows):
                        number += 1
                        cells = _ParquetCells(raw, batch.slice(at, 1), at)
                        size, reason = cells.size, rejected.get(at, "")
                        if size > text_lines.ROW_BYTES:
                            reason = text_lines.TOO_LONG
                        yield Row(number, {} if reason else cells, reason, size)


def open_table(path: Path | str, *, most_bytes: int | None = None) -> Table:
    """The table in a file of one of ENDINGS, plain or .gz, whose name says which. Raises InputError.

    most_bytes: of the file, and of what it unpacks to.
    """
    path = Path(path)
    shown = show(path.name)
    kind = ENDINGS.get((path.with_suffix("") if is_packed(path) else path).suffix.lower())
    if kind is None:
        raise InputError(f"{shown} cannot be read as a table: give a {FORMATS} file.")
    if not path.is_file():
        raise InputError(f"There is no file {path}: name a {FORMATS} file.")
    if most_bytes and (size := path.stat().st_size) > most_bytes:
        raise InputError(
            f"{shown} has {size / 1e6:,.1f} MB: give at most {most_bytes / 1e6:,.3g} MB, or fewer rows."
        )
    if is_packed(path):
        with path.open("rb") as file:
            if (start := file.read(2)) and start != b"\x1f\x8b":
                raise InputError(
                    f"{shown} is not packed, or not as .gz: leave .gz off its name, or pack it with gzip."
                )
    table = Table(path, kind, shown)
    if kind == "parquet":
        check_once(list(map(str.strip, table.schema.names)), shown)
    return table


def check_packed(path: Path, most: int | None = None) -> None:
    """Raise InputError for a .gz file that unpacks to far more than it is."""
    if is_packed(path):
        try:
            for _ in blocks(path, most):
                pass
        except DAMAGED:
            pass  # the reader says where


class _ParquetCells(Mapping):
    """One row's cells, each unpacked when it is asked for; `batch` is the row as it is passed on."""

    def __init__(self, raw: pa.RecordBatch, batch: pa.RecordBatch, at: int):
        self._raw, self.batch, self._at = raw, batch, at

    @property
    def size(self) -> int:
        """Bytes of the row. A dictionary is shared by all rows, and counts when its cell is asked for."""
        return sum(c.nbytes for c in self.batch.columns if not pa.types.is_dictionary(c.type))

    def __getitem__(self, name: str) -> Any:
        at = self._raw.schema.get_field_index(name)
        if at < 0:
            raise KeyError(name)
        return plain(self._raw.column(at)[self._at])

    def __iter__(self) -> Iterator[str]:
        return iter(self._raw.schema.names)

    def __len__(self) -> int:
        return self._raw.num_columns


@contextmanager
def _unpacked(path: Path) -> Iterator[Path | BinaryIO]:
    """The file itself; of a .gz, whose places cannot be jumped to, what it unpacks to."""
    if not is_packed(path):
        yield path
        return
    with tempfile.TemporaryFile() as aside:
        try:
            for block in blocks(path):
                aside.write(block)
        except DAMAGED:
            raise InputError(f"{show(path.name)} is damaged: its end cannot be unpacked.") from None
        aside.seek(0)
        yield aside


# JSONL ----------------------------------------------------------------------------------------------------


def _json_rows(lines: Lines) -> Iterator[Row]:
    for line, reason, span, size in lines.records(lines):
        if reason or line.strip():
            cells, reason = ({}, reason) if reason else json_object(line)
            yield Row(span[0], cells, reason, size, span)


def json_object(line: str) -> tuple[dict[str, Any], str]:
    """(its members, "") or ({}, why it is none)."""
    if not is_utf8(line):
        return {}, NO_UTF8
    try:
        found = json.loads(line, object_pairs_hook=_members)
    except _Twice as error:
        return {}, f"the name {show(error.args[0])} stands there twice"
    except (ValueError, RecursionError):
        return {}, "not a JSON object"
    if line.count("[") + line.count("{") > NESTED_MOST and _is_deep(found):
        return {}, f"nested more than {NESTED_MOST} deep"
    whole = isinstance(found, dict) and is_utf8("".join(found))
    return (found, "") if whole else ({}, "not a JSON object")


def _is_deep(value: Any, left: int = NESTED_MOST) -> bool:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return bool(inner) and (left == 0 or any(_is_deep(one, left - 1) for one in inner))


class _Twice(ValueError):
    """A name that an object has twice."""


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        names = [name for name, _ in pairs]
        raise _Twice(next(name for name in names if names.count(name) > 1))
    return members


def _json_type(value: Any) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return "int" if abs(value) <= 2**53 else "long" if abs(value) < 2**63 else "other"
    return {type(None): "none", bool: "bool", float: "float", str: "text"}.get(type(value), "other")


def _arrow_type(found: set[str]) -> pa.DataType:
    """A column's type by the kinds of its values; what does not go together is kept as JSON text."""
    found = found - {"none"}
    if found == {"bool"}:
        return pa.bool_()
    if found and found <= {"int", "long"}:
        return pa.int64()
    return pa.float64() if found and found <= {"int", "float"} else pa.string()
