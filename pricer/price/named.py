"""Prices in US dollars that a product's text names: `$89.95`, `USD 89.95`, `89.95 dollars`; not `89,95 €`, not `C$90`.

A text that says what the thing costs would only be read back by a model. So they can be taken out before it reads.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_AMOUNT = r"(?:\d{1,3}(?:,\d{3})+|\d{1,7})(?:\.\d{1,2})?"
_OTHERS = r"(?:CAD|AUD|NZD|MXN|HKD|SGD|TWD|BRL|ARS|CLP|COP)"  # whose sign is $ as well
# `$20V` and `$5k` are no prices, `89.955` is no amount, `$5 off` is not what the thing costs.
_ENDS = rf"(?![\w%]|[.,]\d|\s?{_OTHERS}\b|\soff\b)"
_UNIT = r"(?:\s?/\s?[a-z]+|\s(?:each|apiece|per\s[a-z]+)\b)?"
_NAMED = re.compile(
    # A letter before the sign makes it another country's dollar, but for US$.
    rf"(?<!\bsave\s)(?<!\b{_OTHERS}\s)(?:\bUS\s?\$|\bUSD\s?\$?|(?<![A-Za-z\d$])\$)\s?(?P<behind>{_AMOUNT})(?:\s?USD\b)?{_ENDS}{_UNIT}"
    rf"|(?<!\bsave\s)(?<![\w.,$€£¥-])(?P<before>{_AMOUNT})\s?(?:(?:US\s?)?\$(?![\d$\w])|USD\b|(?:US\s)?dollars\b){_ENDS}{_UNIT}",
    re.IGNORECASE,
)
_LABEL_CHARS = 60  # at most
# What would be left standing without its price: `Price: `, `Now only `, the hyphen of `$5-$10`, brackets around one.
_WORDS = r"(?:(?:list|sale|our|retail|regular|unit)\s+)?(?:price|msrp|rrp|was|now|only|for|from|starting at|costs?)"
_MARK = r"\*\*\*|\*\*|\*|~~"  # of Markdown, on both sides of what it sets off
_LABEL = re.compile(
    rf"(?:(?P<mark>{_MARK})\b{_WORDS}\s*(?:is|:)?(?P=mark)\s*(?:is\b|:)?\s*|\b{_WORDS}\b\s*(?:is\b|:)?\s*)+$",
    re.IGNORECASE,
)
_MARK_BEFORE, _MARK_BEHIND = re.compile(rf"(?:{_MARK})$"), re.compile(_MARK)
_BETWEEN = re.compile(r"\s*(?:-|–|—|/|,|to|or|and)?\s*", re.IGNORECASE)
_EMPTY = re.compile(r"[ \t]*(?:\(\s*\)|\[\s*\])")


@dataclass(frozen=True)
class NamedPrice:
    """`usd` as the text has it between `start` and `end`, its label and Markdown's marks around both included."""

    usd: float
    start: int
    end: int


def named_prices(text: str) -> list[NamedPrice]:
    """Every price in US dollars that a text names, in its order; $0 is none."""
    found, last = [], 0
    for match in _NAMED.finditer(text):
        usd = float((match["behind"] or match["before"]).replace(",", ""))
        if usd > 0:
            start, end = match.span()
            start, end = _with_marks(text, last, start, end)
            before = max(text.rfind("\n", 0, start) + 1, start - _LABEL_CHARS, last)
            if label := _LABEL.search(text[before:start]):
                start, end = _with_marks(text, last, before + label.start(), end)
            found.append(NamedPrice(usd, start, end))
            last = end
    return found


def _with_marks(text: str, first: int, start: int, end: int) -> tuple[int, int]:
    """`start` and `end` with the mark that stands on both sides, if one does and not before `first`."""
    before = _MARK_BEFORE.search(text[max(first, start - 3) : start])
    behind = _MARK_BEHIND.match(text, end)
    if before and behind and before[0] == behind[0]:
        return start - len(before[0]), end + len(before[0])
    return start, end


def without_prices(text: str, named: list[NamedPrice]) -> str:
    """The text with these prices taken out, and the blanks around them closed up."""
    if not named:
        return text.strip()
    kept, at = text[: named[0].start].rstrip(" \t"), named[0].end
    for price in named[1:]:
        part = text[at : price.start]
        if not _BETWEEN.fullmatch(part):
            kept = _joined(kept, part.rstrip(" \t"))
        at = price.end
    return _EMPTY.sub("", _joined(kept, text[at:])).strip()


def _joined(kept: str, part: str) -> str:
    """Two halves between which a price stood: with one sign between them, not two, and none at a line's beginning."""
    part = part.lstrip(" \t")
    if not kept or kept.endswith("\n"):
        return kept + part.lstrip(" \t,.;!")
    if part[:1] in (",", ".", ";", "!", ")", "]"):
        return kept.rstrip(",") + part
    return kept + ("" if part[:1] in ("", "\n") or kept[-1] in "([" else " ") + part
