"""Cells as people write them: texts, and numbers and prices whose decimal mark only their whole column tells.

Whatever cannot be read raises an `InputError` whose message is the reason, in the words that counts and rejected rows
show: "no price", "a range of prices".
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Iterable
from decimal import Decimal
from numbers import Real
from typing import Any

import numpy as np

from pricer.errors import InputError
from pricer.prompt import clean
from pricer.settings import Limits

NO_UTF8, ZERO_BYTE = "not UTF-8 text", "not text: it holds a zero byte"
NO_PRICE, PRICE_RANGE, NO_DOLLARS = "no price", "a range of prices", "no price in dollars"

_NONE = ("", "none", "nan", "null", "na", "n/a", "nat", "-", "–", "—")
_RANGE = re.compile(
    r"\d\s*(?:-|–|—|~|to|/)\s*(?:us)?\s*\$?\s*\d|\d\s*\+$"
    r"|^\s*(?:from|under|over|starting|start|up to|upto|as low as|about|approx|ca\b|between|min\b|max\b|[<>≤≥~])",
    re.IGNORECASE,
)
_CURRENCY = re.compile(r"^([+-]?)(?:us\s*)?\$|^([+-]?)usd(?=[\s\d])|(?:\$|usd|us\$|dollars?)$", re.IGNORECASE)
_GROUPED_BY_BLANKS = re.compile(
    r"[+-]?\d{1,3}(?:([ \u00a0\u2009\u202f'’])\d{3})(?:\1\d{3})*(?:[.,]\d{1,2})?", re.ASCII
)
_PLAIN = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d{1,3})?", re.ASCII | re.IGNORECASE)
# What only one of the two marks can have written. A mark before exactly three digits may be either.
_POINT = re.compile(
    r"[+-]?(?:(?:\d{1,3}(?:,\d{3})+|\d*)\.\d+(?:e[+-]?\d{1,3})?|\d{1,3}(?:,\d{3}){2,}\.?)", re.ASCII | re.I
)
_COMMA = re.compile(r"[+-]?(?:(?:\d{1,3}(?:\.\d{3})+|\d*),\d+|\d{1,3}(?:\.\d{3}){2,},?)", re.ASCII)
_EITHER = re.compile(r"[+-]?[1-9]\d{0,2}([.,])\d{3}", re.ASCII)


class Amounts:
    """How one column writes its numbers: `see` every cell first, then `read` them.

    `1.299` is 1299 where another cell has 12,50, and 1.299 where another has 12.50; where none tells, it is ambiguous.
    `1,299` is 1299 unless other cells have commas for their decimals.
    """

    def __init__(self, cells: Iterable[Any] = ()):
        self.point = self.comma = False
        for cell in cells:
            self.see(cell)

    def see(self, cell: Any) -> None:
        if isinstance(cell, bytes):
            cell = cell.decode("utf-8", "replace")
        if isinstance(cell, str) and not _EITHER.fullmatch(written := _bare(cell)):
            self.point |= bool(_POINT.fullmatch(written))
            self.comma |= bool(_COMMA.fullmatch(written))

    def read(self, cell: Any) -> float:
        """The cell's finite number. Raises InputError."""
        if isinstance(cell, bytes):
            cell = text_cell(cell)
        if isinstance(cell, str):
            return self._written(cell)
        if cell is None or isinstance(cell, bool | np.bool_):
            raise InputError(NO_PRICE)
        try:
            number = float(cell) if isinstance(cell, Real | Decimal | np.number) else None
        except (ValueError, OverflowError):
            number = None
        if number is None or math.isinf(number):
            raise InputError(NO_DOLLARS)
        if math.isnan(number):
            raise InputError(NO_PRICE)
        return number

    def _written(self, cell: str) -> float:
        if cell.strip().lower() in _NONE:
            raise InputError(NO_PRICE)
        if _RANGE.search(cell):
            raise InputError(PRICE_RANGE)
        written = _bare(cell)
        if either := _EITHER.fullmatch(written):
            comma = either[1] == ","
            if (self.comma and (self.point or comma)) or not (comma or self.point or self.comma):
                whole, decimal = written.replace(either[1], ""), float(written.replace(",", "."))
                raise InputError(f"ambiguous: write {whole} or {decimal:.2f}")
            if comma or self.comma:
                written = written.replace(either[1], "")
        elif _POINT.fullmatch(written):
            written = written.replace(",", "")
        elif _COMMA.fullmatch(written):
            written = written.replace(".", "").replace(",", ".")
        if not _PLAIN.fullmatch(written) or math.isinf(number := float(written)):
            raise InputError(NO_DOLLARS)
        return number


def _bare(cell: str) -> str:
    """The amount without its currency and without blanks between groups of three digits."""
    written = cell.strip()
    for _ in range(2):  # $12 USD
        written = _CURRENCY.sub(r"\1\2", written, count=1).strip()
    return (
        re.sub(r"[ \u00a0\u2009\u202f'’]", "", written) if _GROUPED_BY_BLANKS.fullmatch(written) else written
    )


def read_price(cell: Any) -> float:
    """One price on its own, in dollars: 129,99 is 129.99. Raises InputError."""
    return Amounts([cell]).read(cell)


def text_cell(cell: Any, column: str = "it") -> str:
    """A text, bytes of UTF-8, or a list of them joined by line; "" for none. Raises InputError for anything else."""
    if cell is None or (isinstance(cell, float) and math.isnan(cell)):
        return ""
    if isinstance(cell, bytes):
        try:
            cell = cell.decode("utf-8")
        except UnicodeDecodeError:
            raise InputError(NO_UTF8) from None
    if isinstance(cell, list | tuple | np.ndarray):
        return "\n".join(filter(None, (text_cell(line, column) for line in cell)))
    if not isinstance(cell, str):
        raise InputError(f"not text: {column} holds another kind of value")
    if "\0" in cell:
        raise InputError(ZERO_BYTE)
    if not is_utf8(cell):
        raise InputError(NO_UTF8)
    return cell


def product_cell(text: str, max_chars: int = Limits.text_chars) -> str:
    """`prompt.clean` for a row's text: its InputError is the reason that the row cannot be used."""
    if len(text) > max_chars:
        raise InputError(f"text of {len(text):,} characters, at most {max_chars:,} are read")
    try:
        return clean(text, max_chars=max_chars)
    except InputError:
        raise InputError("no text") from None


def is_utf8(text: str) -> bool:
    """Whether a text can be written as UTF-8: bytes that were none are halves of characters in it."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def show(words: str, chars: int = 60) -> str:
    """Words from outside in one short line, without what cannot be seen or turns the writing direction."""
    seen = "".join(" " if unicodedata.category(c) in ("Cc", "Zl", "Zp") else c for c in words)
    seen = " ".join("".join(c for c in seen if unicodedata.category(c)[0] != "C").split())
    return seen if len(seen) <= chars else f"{seen[: chars - 1]}…"
