"""A table of any length, read and written a part at a time, so that memory does not grow with the file.

A part is always the same rows of the same file: what was done for one part stays true when the program is
started again. Every row of the input ends in exactly one part, as a row to use or as a rejected one with its
reason. Row numbers count from 1 without the header; in JSONL they are the numbers of the lines.
"""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from pricer.errors import InputError
from pricer.prompt import clean, product_text

INPUTS, OUTPUTS = (".csv", ".parquet", ".jsonl"), (".csv", ".parquet")
PART_ROWS = 512  # enough to sort by length; few enough that a part is soon done
PART_BYTES = 64 * 2**20  # a part ends earlier when its rows are this long together
ROW_BYTES = 16 * 2**20  # a longer row is rejected unread
COLUMNS_MOST = 1_000  # in JSONL, where every line may name new ones
DELIMITERS = ",;\t"

_BLOCK = 2**20
_PARQUET_ROWS = 64  # unpacked at once
# Of one column in one row group, unpacked: at most as much as one page may hold; and, as no honest table packs
# this well, far less where it was packed to a two-hundredth.
_PARQUET_BYTES, _BOMB_BYTES, _BOMB_RATIO = 2 * 2**30, 2**28, 200
_TOO_LONG = f"longer than {ROW_BYTES // 2**20} MB"
_NO_UTF8 = "not UTF-8 text"


@dataclass(frozen=True)
class Part:
    """Rows that are scored and kept together. `rows`, `texts` and `table` are of the usable ones, in order."""

    number: int
    rows: list[int]
    texts: list[str]
    table: pa.Table  # the columns of the input
    rejected: list[tuple[int, str]]  # (row, reason)


@dataclass(frozen=True)
class _Row:
    number: int
    cells: Any = None  # a list in the columns' order; of a parquet file a record batch with one row
    size: int = 0  # bytes
    reason: str = ""  # why it cannot be used


@dataclass(frozen=True)
class Source:
    """A file that was looked through once: see `open_source`."""

    path: Path
    sha256: str
    rows: int
    schema: pa.Schema
    text_at: tuple[int, ...]  # the columns that hold the text
    max_chars: int
    part_rows: int

    @property
    def text_columns(self) -> list[str]:
        return [self.schema.names[at] for at in self.text_at]

    def parts(self, done: Collection[int] = ()) -> Iterator[Part]:
        """The file's parts in order, without those whose numbers are in `done`."""
        number, size = 0, 0
        rows, texts, cells, rejected = [], [], [], []
        for row in _readers[self.path.suffix.lower()](self.path, self.schema, hashlib.sha256()):
            text, reason = ("", row.reason) if row.reason else self._text(row.cells)
            if reason:
                rejected.append((row.number, reason))
            else:
                rows.append(row.number)
                texts.append(text)
                cells.append(row.cells)
                size += row.size
            if len(rows) + len(rejected) == self.part_rows or size >= PART_BYTES:
                if number not in done:
                    yield Part(number, rows, texts, self._table(cells), rejected)
                number, size = number + 1, 0
                rows, texts, cells, rejected = [], [], [], []
        if (rows or rejected) and number not in done:
            yield Part(number, rows, texts, self._table(cells), rejected)

    def _text(self, cells: Any) -> tuple[str, str]:
        """(text, "") or ("", why there is none)."""
        found = []
        for at in self.text_at:
            value = cells[at] if isinstance(cells, list) else cells.column(at)[0].as_py()
            if isinstance(value, list) and all(isinstance(line, str) for line in value):
                value = "\n".join(value)  # as raw listings have their description
            if value is None or value != value:
                continue
            if not isinstance(value, str):
                return "", f"not text: {self.schema.names[at]} holds another kind of value"
            found.append(product_text(value))
        text = "\n".join(part for part in found if part)
        if len(text) > self.max_chars:
            return "", f"text of {len(text):,} characters, at most {self.max_chars:,} are read"
        try:
            return clean(text, max_chars=self.max_chars), ""
        except InputError:
            return "", "no text"

    def _table(self, cells: list) -> pa.Table:
        if self.path.suffix.lower() == ".parquet":
            return pa.Table.from_batches(cells, schema=self.schema)
        columns = list(zip(*cells, strict=True)) or [()] * len(self.schema)
        arrays = [
            pa.array([_fit(value, field.type) for value in column], field.type)
            for column, field in zip(columns, self.schema, strict=True)
        ]
        return pa.Table.from_arrays(arrays, schema=self.schema)


@dataclass(frozen=True)
class TextReader:
    """The texts of the parts that are not done, one row per part, as Ray Data reads them (pricer.scoring.ray; here,
    since a process that only reads need not import torch)."""

    source: Source
    done: frozenset[int]

    def __call__(self, _: Any) -> Iterator[pa.Table]:
        for part in self.source.parts(self.done):
            yield pa.table({"texts": pa.array([part.texts], pa.list_(pa.large_string()))})


def open_source(path: Path | str, *, text_column: str | None = None, max_chars: int) -> Source:
    """Look a .csv, .parquet or .jsonl file through once: its columns, how many rows, and its fingerprint.

    A row's text is in the column `text_column`, else in prompt or text, else in title and description
    (capitals do not matter). Raises InputError when the file is no such table.
    """
    path = Path(path)
    kind = path.suffix.lower()
    if kind not in INPUTS:
        raise InputError(f"{path.name} cannot be read as a table: give a {', '.join(INPUTS)} file.")
    if not path.is_file():
        raise InputError(f"There is no file {path}: name a {', '.join(INPUTS)} file.")
    schema, rows, sha256 = _surveys[kind](path)
    text_at = _find_text(schema.names, text_column, path)
    return Source(path, sha256, rows, schema, text_at, max_chars, PART_ROWS)


def _find_text(names: Sequence[str], asked: str | None, path: Path) -> tuple[int, ...]:
    places = {name.strip().lower(): at for at, name in reversed(list(enumerate(names)))}
    has = ", ".join(" ".join(name.split())[:40] for name in names[:12]) or "none"
    if asked is not None:
        at = names.index(asked) if asked in names else places.get(asked.strip().lower())
        if at is None:
            raise InputError(f"{path.name} has no column {asked}: choose one of its own ({has}).")
        return (at,)
    for name in ("prompt", "text"):
        if name in places:
            return (places[name],)
    if "title" in places:
        return tuple(places[name] for name in ("title", "description") if name in places)
    raise InputError(
        f"{path.name} has no column text, prompt or title (it has: {has}): name the one with --text-column."
    )


# CSV and JSONL: lines of bounded length -------------------------------------------------------------------


class _TooLong(Exception):
    pass


class _Lines:
    """A file's lines. One with which the row at hand would be longer than `left` bytes is skipped without
    being held, and raises _TooLong; reading can go on behind it. Bytes that are no UTF-8 become surrogates."""

    def __init__(self, file: BinaryIO, sha256: Any):
        self._file, self._sha256, self._first = file, sha256, True
        self.left = ROW_BYTES

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        line = self._file.readline(self.left + 1)
        if not line:
            raise StopIteration
        self._sha256.update(line)
        self.left -= len(line)
        if self.left < 0:
            while not line.endswith(b"\n") and (line := self._file.readline(_BLOCK)):
                self._sha256.update(line)
            raise _TooLong
        if self._first:
            self._first, line = False, line.removeprefix(b"\xef\xbb\xbf")
        return line.decode("utf-8", "surrogateescape").replace("\0", "")


def _survey_csv(path: Path) -> tuple[pa.Schema, int, str]:
    sha256 = hashlib.sha256()
    header = _csv_header(path)
    schema = pa.schema([pa.field(name, pa.string()) for name in header])
    rows = sum(1 for _ in _looked_through(path, _csv_rows(path, schema, sha256)))
    return schema, rows, sha256.hexdigest()


def _csv_header(path: Path) -> list[str]:
    with path.open("rb") as file:
        lines = _Lines(file, hashlib.sha256())
        try:
            header = next(csv.reader(lines, delimiter=_delimiter(path), strict=True), [])
            "".join(header).encode()
        except (_TooLong, csv.Error):
            raise InputError(
                f"{path.name} is no CSV file: its first line cannot be read as a header."
            ) from None
        except UnicodeEncodeError:
            raise InputError(f"{path.name} is no UTF-8 text: save the file as “CSV UTF-8”.") from None
    return [name.strip() for name in header]


def _delimiter(path: Path) -> str:
    """What separates the header's names; spreadsheets in Europe write semicolons."""
    with path.open("rb") as file:
        first = file.readline(_BLOCK).decode("utf-8", "replace")
    return max(DELIMITERS, key=first.count)


def _csv_rows(path: Path, schema: pa.Schema, sha256: Any) -> Iterator[_Row]:
    number, most = 0, csv.field_size_limit(ROW_BYTES)
    try:
        with path.open("rb") as file:
            lines = _Lines(file, sha256)
            reader = csv.reader(lines, delimiter=_delimiter(path), strict=True)
            next(reader, None)  # the header
            while True:
                lines.left = ROW_BYTES
                number += 1
                try:
                    cells = next(reader, None)
                except _TooLong:
                    yield _Row(number, reason=_TOO_LONG)
                    continue
                except csv.Error as error:
                    yield _Row(number, reason=f"not CSV: {error}")
                    continue
                if cells is None:
                    return
                if not cells:
                    continue
                if len(cells) != len(schema):
                    reason = f"{len(cells)} cells where the header has {len(schema)}"
                elif not _is_utf8(cells):
                    reason = _NO_UTF8
                else:
                    reason = ""
                yield _Row(number, cells, ROW_BYTES - lines.left, reason)
    finally:
        csv.field_size_limit(most)


def _is_utf8(cells: Iterable[str]) -> bool:
    try:
        "".join(cells).encode()
    except UnicodeEncodeError:
        return False
    return True


def _survey_jsonl(path: Path) -> tuple[pa.Schema, int, str]:
    """Every line may bring new columns and other kinds of values: all are looked at once."""
    sha256, rows, columns = hashlib.sha256(), 0, {}
    for row in _looked_through(path, _json_objects(path, sha256)):
        rows += 1
        for name, value in (row.cells or {}).items():
            columns.setdefault(name, set()).add(_kind(value))
        if len(columns) > COLUMNS_MOST:
            raise InputError(f"{path.name} names more than {COLUMNS_MOST:,} columns: give fewer per file.")
    if rows and not columns:
        raise InputError(f"{path.name} is no JSONL file: each line must be a JSON object.")
    return (
        pa.schema([pa.field(name, _type(kinds)) for name, kinds in columns.items()]),
        rows,
        sha256.hexdigest(),
    )


def _json_rows(path: Path, schema: pa.Schema, sha256: Any) -> Iterator[_Row]:
    for row in _json_objects(path, sha256):
        cells = [row.cells.get(name) for name in schema.names] if row.cells is not None else None
        yield _Row(row.number, cells, row.size, row.reason)


def _json_objects(path: Path, sha256: Any) -> Iterator[_Row]:
    number = 0
    with path.open("rb") as file:
        lines = _Lines(file, sha256)
        while True:
            lines.left = ROW_BYTES
            number += 1
            try:
                line = next(lines)
            except StopIteration:
                return
            except _TooLong:
                yield _Row(number, reason=_TOO_LONG)
                continue
            if not line.strip():
                continue
            try:
                found = json.loads(line)
            except (ValueError, RecursionError):
                found = None
            if not _is_utf8([line]):
                yield _Row(number, reason=_NO_UTF8)
            elif isinstance(found, dict) and _is_utf8(found):
                yield _Row(number, found, ROW_BYTES - lines.left)
            else:
                yield _Row(number, reason="not a JSON object")


def _kind(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 2**63:
        return "other"
    return {bool: "bool", int: "int", float: "float", str: "text"}.get(type(value), "other")


def _type(kinds: set[str]) -> pa.DataType:
    """A column's type by the kinds of its values; what does not go together is kept as JSON text."""
    kinds = kinds - {"none"}
    if kinds == {"bool"}:
        return pa.bool_()
    if kinds == {"int"}:
        return pa.int64()
    return pa.float64() if kinds and kinds <= {"int", "float"} else pa.string()


def _fit(value: Any, type_: pa.DataType) -> Any:
    if type_ != pa.string() or value is None:
        return value
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text.encode("utf-8", "replace").decode()  # JSON may hold half a surrogate pair


# Parquet --------------------------------------------------------------------------------------------------


def _survey_parquet(path: Path) -> tuple[pa.Schema, int, str]:
    try:
        with pq.ParquetFile(path) as file:
            about, schema = file.metadata, file.schema_arrow.remove_metadata()
    except (pa.ArrowException, OSError):
        raise InputError(f"{path.name} is damaged or no parquet file: write it again.") from None
    check_unpacked(about, path.name)
    sha256 = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            sha256.update(block)
    return schema, about.num_rows, sha256.hexdigest()


def check_unpacked(about: pq.FileMetaData, name: str) -> None:
    """Raise InputError for a parquet file that would unpack to far more than it is, before it is unpacked."""
    for group in map(about.row_group, range(about.num_row_groups)):
        for column in map(group.column, range(group.num_columns)):
            size = column.total_uncompressed_size
            bomb = size > _BOMB_BYTES and size > _BOMB_RATIO * column.total_compressed_size
            if bomb or size > _PARQUET_BYTES or size > ROW_BYTES * max(column.num_values, 1):
                raise InputError(
                    f"{name} unpacks to {size / 2**30:,.1f} GB in one piece (column {column.path_in_schema}): "
                    "leave out rows that are too long, or write it again with smaller row groups."
                )


def _parquet_rows(path: Path, schema: pa.Schema, sha256: Any) -> Iterator[_Row]:
    behind = 0  # the rows of the groups so far
    with pq.ParquetFile(path) as file:
        for group in range(file.metadata.num_row_groups):
            number, behind = behind, behind + file.metadata.row_group(group).num_rows
            try:
                for batch in file.iter_batches(_PARQUET_ROWS, row_groups=[group]):
                    batch = batch.replace_schema_metadata(None)
                    for at in range(batch.num_rows):
                        number += 1
                        cells = batch.slice(at, 1)
                        # A dictionary is shared by all rows.
                        size = sum(c.nbytes for c in cells.columns if not pa.types.is_dictionary(c.type))
                        yield _Row(number, cells, size, _TOO_LONG if size > ROW_BYTES else "")
            except (pa.ArrowException, OSError):
                yield _Row(number + 1, reason=f"damaged: rows {number + 1:,} to {behind:,} cannot be read")


def _looked_through(path: Path, rows: Iterator[_Row]) -> Iterator[_Row]:
    return iter(tqdm(rows, desc=f"reading {path.name}", unit=" rows", delay=2, mininterval=1))


_surveys = {".csv": _survey_csv, ".jsonl": _survey_jsonl, ".parquet": _survey_parquet}
_readers = {".csv": _csv_rows, ".jsonl": _json_rows, ".parquet": _parquet_rows}
