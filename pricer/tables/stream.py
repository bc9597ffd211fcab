"""A table of any length in parts, so that memory does not grow with the file.

A part is always the same rows of the same file: what was done for one part stays true when the program is
started again. Every row of the input ends in exactly one part, as a row to use or as a rejected one with its reason.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa

from pricer.errors import InputError
from pricer.files import file_sha256
from pricer.tables.cells import product_cell
from pricer.tables.columns import TEXT_NAMES, check_there, choose, row_text
from pricer.tables.reading import Table, open_table
from pricer.tables.row import Row

OUTPUTS = (".csv", ".parquet")
PART_ROWS = 512  # enough to sort by length; few enough that a part is soon done
PART_BYTES = 64 * 2**20  # a part ends earlier when its rows are this long together


@dataclass(frozen=True)
class Part:
    """Rows that are scored and kept together. `rows`, `texts` and `table` are of the usable ones, in order."""

    number: int
    rows: list[int]
    texts: list[str]
    table: pa.Table  # the columns of the input
    rejected: list[tuple[int, str]]  # (row, reason)


@dataclass(frozen=True)
class Source:
    """A file that was looked through once: see `open_source`."""

    input: Table
    sha256: str
    rows: int
    schema: pa.Schema
    chosen: dict[str, str]  # the columns that hold the text, by their part in it
    max_chars: int
    part_rows: int

    @property
    def path(self) -> Path:
        return self.input.path

    @property
    def text_columns(self) -> list[str]:
        return list(self.chosen.values())

    def parts(self, done: Collection[int] = ()) -> Iterator[Part]:
        """The file's parts in order, without those whose numbers are in `done`."""
        for number, rows in enumerate(self._in_parts()):
            if number not in done:
                yield self._part(number, rows)

    def first(self, most: int) -> Part:
        """The first `most` rows as one part."""
        return self._part(0, islice(self.input.rows(), most))

    def _in_parts(self) -> Iterator[list[Row]]:
        rows, size = [], 0
        for row in self.input.rows():
            rows.append(row)
            size += row.size
            if len(rows) == self.part_rows or size >= PART_BYTES:
                yield rows
                rows, size = [], 0
        if rows:
            yield rows

    def _part(self, number: int, rows: Iterable[Row]) -> Part:
        usable, texts, rejected = [], [], []
        for row in rows:
            try:
                if row.reason:
                    raise InputError(row.full_reason)
                texts.append(product_cell(row_text(row.cells, self.chosen), self.max_chars))
                usable.append(row)
            except InputError as reason:
                rejected.append((row.number, str(reason)))
        table = self.input.pass_on(usable, self.schema)
        return Part(number, [row.number for row in usable], texts, table, rejected)


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
    """Look a file through once: its columns, how many rows, and its fingerprint.

    A row's text is in the column `text_column`, else where `columns.TEXTS` says. Raises InputError when the file is
    no such table.
    """
    table = open_table(path)
    found = table.survey()
    names = found.schema.names
    chosen = choose(names, TEXT_NAMES, table.shown, {} if text_column is None else {"text": text_column})
    check_there(["text"], chosen, names, table.shown, "name the one that holds it with --text-column")
    return Source(table, file_sha256(table.path), found.rows, found.schema, chosen, max_chars, PART_ROWS)
