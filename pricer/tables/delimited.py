"""CSV as programs and people write it: what separates the cells, the header, and every row or the reason it is none.

Python's csv module reads the cells, strictly. Around it stands what it and pyarrow.csv lack: the delimiter, line
numbers, and going on behind a quotation mark out of place.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from itertools import islice

from pricer.errors import InputError
from pricer.tables.cells import NO_UTF8, ZERO_BYTE, is_utf8, show
from pricer.tables.columns import normal
from pricer.tables.lines import ROW_BYTES, Damaged, Lines, TooLong

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
    return Header(tuple(_named(names, file_name)), delimiter, at)


def _first_line(lines: list[str], at: int) -> int:
    """Where the first line from `at` on is that is not empty."""
    return next((at for at in range(at, len(lines)) if lines[at].strip()), len(lines))


def _sense(lines: list[str], delimiter: str, known: Collection[str]) -> tuple:
    """How well a delimiter explains a file's first lines: the header's known names, then rows as long as the header."""
    header, *rows = [row for row in csv.reader(lines, delimiter=delimiter) if row] or [[]]
    alike = sum(len(row) == len(header) for row in rows) / max(len(rows), 1)
    return len(header) > 1, sum(normal(name) in known for name in header), alike, len(header)


def _named(names: list[str], file_name: str) -> Iterator[str]:
    """The names without outer blanks. One column may have none, as the numbers of pandas' rows; more are numbered."""
    seen: set[str] = set()
    for at, name in enumerate(map(str.strip, names), 1):
        if name in seen and name:
            raise InputError(
                f"{file_name}: the column {show(name)} stands there twice: keep or rename one of them."
            )
        name = name if name not in seen else f"column {at}"
        seen.add(name)
        yield name


def read_rows(lines: Lines, header: Header) -> Iterator[tuple[int, tuple[int, int], list[str], str, int]]:
    """(number, first and last line, cells, reason it cannot be used, bytes) of each row that is not empty."""
    csv.field_size_limit(ROW_BYTES)
    for _ in range(header.lines):
        next(lines)
    reader = csv.reader(lines, delimiter=header.delimiter, strict=True)
    next(reader)
    number, damaged = 0, False
    while not damaged:
        lines.begin_row()
        first, cells, reason = lines.number + 1, [], ""
        number += 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except (TooLong, Damaged) as error:
            reason, damaged = str(error), isinstance(error, Damaged)
        except csv.Error as error:
            closed = "unexpected end" not in str(error)
            reason = f"a quotation mark {'out of place' if closed else 'that is never closed'}"
        taken = (first, max(lines.number, first))
        if not reason:
            if not any(map(str.strip, cells)):
                continue
            together = "".join(cells)
            if not is_utf8(together):
                reason = NO_UTF8
            elif "\0" in together:
                reason = ZERO_BYTE
            elif len(cells) != len(header.names):
                reason = f"{len(cells)} cells where the header has {len(header.names)}"
        yield number, taken, cells, reason, lines.size
