"""Bytes from outside as lines of text: UTF-8 with or without its mark, UTF-16 with one; plain or .gz; of bounded length."""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, TypeVar

from pricer.errors import InputError
from pricer.tables.cells import NO_UTF8, ZERO_BYTE

ROW_BYTES = 16 * 2**20  # a longer row is rejected unread
TOO_LONG = f"longer than {ROW_BYTES // 2**20} MB"
# What is held in memory, or written aside, may unpack to so much, or to so many times its size.
BOMB_BYTES, BOMB_RATIO = 256_000_000, 50

T = TypeVar("T")
_BLOCK = 2**18
DAMAGED = (OSError, EOFError, zlib.error)


class TooLong(Exception):
    """A row is too long, in words. Reading can go on behind the line at hand."""


class Damaged(Exception):
    """The rest of a file cannot be read, in words."""


def decode(data: bytes) -> str:
    """A whole text. Raises InputError, whose message is what it is instead."""
    try:
        text = data.decode(_encoding(data[:2]))
    except UnicodeDecodeError:
        raise InputError(NO_UTF8) from None
    if "\0" in text:
        raise InputError(ZERO_BYTE)
    return text


def _encoding(start: bytes) -> str:
    return "utf-16" if start in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) else "utf-8-sig"


class Lines:
    """A file's lines, ended by LF, CR or CRLF, with `number` as that of the last one.

    One with which the row at hand would be longer than it may be is skipped without being held, and raises TooLong.
    Bytes that are no UTF-8 become halves of characters: `cells.is_utf8` finds them.
    """

    def __init__(self, file: BinaryIO):
        try:
            encoding = _encoding(file.peek(2)[:2])
        except DAMAGED:
            encoding = "utf-8-sig"
        errors = "surrogateescape" if encoding == "utf-8-sig" else "surrogatepass"
        self._file = io.TextIOWrapper(file, encoding, errors, newline="")
        self.number = 0
        self.begin_row()

    def begin_row(self, most: int | None = None) -> None:
        """From here on lines are those of another row, of at most so many characters, or ROW_BYTES."""
        self._left = most or ROW_BYTES

    def __iter__(self) -> Lines:
        return self

    def __next__(self) -> str:
        line = self._readline(self._left + 1)
        if not line:
            raise StopIteration
        self.number += 1
        self._left -= len(line)
        if self._left < 0:
            while line and not line.endswith(("\n", "\r")):
                line = self._readline(_BLOCK)
            raise TooLong(TOO_LONG)
        return line

    def records(self, made: Iterator[T]) -> Iterator[tuple[T | None, str, tuple[int, int], int]]:
        """What is made of these lines, one record after another: (it, or None and the reason why there is none, its
        first and last line, its characters)."""
        damaged = False
        while not damaged:
            self.begin_row()
            first, record, reason = self.number + 1, None, ""
            try:
                record = next(made)
            except StopIteration:
                return
            except (TooLong, Damaged) as error:
                reason, damaged = str(error), isinstance(error, Damaged)
            except csv.Error as error:
                closed = "unexpected end" not in str(error)
                reason = f"a quotation mark {'out of place' if closed else 'that is never closed'}"
            yield record, reason, (first, max(self.number, first)), ROW_BYTES - self._left

    def _readline(self, most: int) -> str:
        try:
            return self._file.readline(most)
        except (*DAMAGED, UnicodeDecodeError) as error:  # the last: UTF-16 that ends within a character
            raise Damaged("the rest of the file is damaged") from error


def is_packed(path: Path) -> bool:
    return path.suffix.lower() == ".gz"


def open_bytes(path: Path) -> BinaryIO:
    """The file's bytes, unpacked."""
    return gzip.open(path) if is_packed(path) else path.open("rb")


def blocks(path: Path, most: int | None = None) -> Iterator[bytes]:
    """The unpacked bytes; raises InputError as soon as there are more than `most`, or than an honest file packs."""
    most = most or max(BOMB_BYTES, BOMB_RATIO * path.stat().st_size)
    with open_bytes(path) as file:
        size = 0
        while block := file.read(_BLOCK):
            if (size := size + len(block)) > most:
                raise InputError(
                    f"{path.name} unpacks to more than {most / 1e6:,.0f} MB: give the file itself, or fewer rows."
                )
            yield block
