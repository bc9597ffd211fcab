"""CSV as programs and people write it: what separates the cells, the header, and every row or the reason it is none.

Python's csv module reads the cells, strictly. Around it stands what it and pyarrow.csv lack: the delimiter, line
numbers, and going on behind a quotation mark out of place. A line ends at LF, CR or CRLF, mixed or not, wherever that
stands outside quotation marks.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from itertools import islice

from pricer.errors import InputError
from pricer.tables.cells import NO_UTF8, ZERO_BYTE, is_utf8
from pricer.tables.columns import check_once, normal
from pricer.tables.lines import ROW_BYTES, Damaged, Lines, TooLong
from pricer.tables.row import Row

DELIMITERS = ",;\t|"
_SAMPLE_LINES, _SAMPLE_CHARS = 50, 100_000
_NAMED = re.compile(r'"?sep=(.)"?\s*', re.IGNORECASE)


@dataclass(frozen=True)
class Header:
    names: tuple[str, ...]
    delimiter: str
    lines: int  # before the header: empty ones, and sep=


def read_header(lines: Lines, file_name: str, known: Collection[str]) -> Header:
    """The names of the columns; `known` are normal names by which the delimiter is told. Raises InputError."""
    sample = []
    lines.begin_row(_SAMPLE_CHARS)
    try:
        for line in islice(lines, _SAMPLE_LINES):
            sample.append(line)
    except (TooLong, Damaged):
        if not sample:
            raise InputError(
                f"{file_name} is no CSV file: its first line cannot be read as a header."
            ) from None
    at = _first_line(sample, 0)
    if at < len(sample) and (named := _NAMED.fullmatch(sample[at])):
        delimiter, at = named[1], _first_line(sample, at + 1)
    else:
        first = "\t" if ".tsv" in file_name.lower() else ""  # where nothing tells
        delimiter = max(first + DELIMITERS, key=lambda mark: _sense(sample[at:], mark, known))
    try:
        csv.field_size_limit(ROW_BYTES)
        names = next(csv.reader(sample[at:], delimiter=delimiter, strict=True), [])
    except csv.Error:
        raise InputError(f"{file_name} is no CSV file: its first line cannot be read as a header.") from None
    if not is_utf8("".join(names)) or "\0" in "".join(names):
        raise InputError(f"{file_name} is no UTF-8 text: save the file as “CSV UTF-8”.")
    if not names:
        raise InputError(f"{file_name}: the file is empty: give a header line and a line per row.")
    return Header(_named(names, file_name), delimiter, at)


def _first_line(lines: list[str], at: int) -> int:
    """Where the first line from `at` on is that is not empty."""
    return next((at for at in range(at, len(lines)) if lines[at].strip()), len(lines))


def _sense(lines: list[str], delimiter: str, known: Collection[str]) -> tuple:
    """How well a delimiter explains a file's first lines: the header's known names, then rows as long as the header."""
    header, *rows = [row for row in csv.reader(lines, delimiter=delimiter) if row] or [[]]
    alike = sum(len(row) == len(header) for row in rows) / max(len(rows), 1)
    return len(header) > 1, sum(normal(name) in known for name in header), alike, len(header)


def _named(names: list[str], file_name: str) -> tuple[str, ...]:
    """The names without outer blanks. One column may have none, as the numbers of pandas' rows; more are numbered."""
    bare = list(map(str.strip, names))
    named = [name or f"column {at}" * ("" in bare[: at - 1]) for at, name in enumerate(bare, 1)]
    check_once(named, file_name)
    return tuple(named)


def read_rows(lines: Lines, header: Header) -> Iterator[Row]:
    """The rows that are not empty."""
    csv.field_size_limit(ROW_BYTES)
    for _ in range(header.lines):
        next(lines)
    reader = csv.reader(lines, delimiter=header.delimiter, strict=True)
    next(reader)
    for number, (cells, reason, span, size) in enumerate(lines.records(reader), 1):
        if reason or any(map(str.strip, cells)):
            reason = reason or _wrong(cells, header)
            yield Row(
                number, {} if reason else dict(zip(header.names, cells, strict=True)), reason, size, span
            )


def _wrong(cells: list[str], header: Header) -> str:
    together = "".join(cells)
    if not is_utf8(together):
        return NO_UTF8
    if "\0" in together:
        return ZERO_BYTE
    return f"{len(cells)} cells where the header has {len(header.names)}" * (len(cells) != len(header.names))
