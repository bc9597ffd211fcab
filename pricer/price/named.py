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
_LABEL = re.compile(
    r"(?:\b(?:(?:list|sale|our|retail|regular|unit)\s+)?(?:price|msrp|rrp|was|now|only|for|from|starting at|costs?)\b\s*(?:is\b|:)?\s*)+$",
    re.IGNORECASE,
)
_BETWEEN = re.compile(r"\s*(?:-|–|—|/|,|to|or|and)?\s*", re.IGNORECASE)
_EMPTY = re.compile(r"[ \t]*(?:\(\s*\)|\[\s*\])")


@dataclass(frozen=True)
class NamedPrice:
    """`usd` as the text has it between `start` and `end`, its label included."""

    usd: float
    start: int
    end: int


def named_prices(text: str) -> list[NamedPrice]:
    """Every price in US dollars that a text names, in its order; $0 is none."""
    found = []
    for match in _NAMED.finditer(text):
        usd = float((match["behind"] or match["before"]).replace(",", ""))
        if usd > 0:
            before = max(text.rfind("\n", 0, match.start()) + 1, match.start() - _LABEL_CHARS)
            label = _LABEL.search(text[before : match.start()])
            found.append(NamedPrice(usd, before + label.start() if label else match.start(), match.end()))
    return found


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
