"""Prices in US dollars that a product's text names: `$89.95`, `USD 89.95`, `89.95 dollars`; not `89,95 €`, not `C$90`.

A text that says what the thing costs would only be read back by a model. So they can be taken out before it reads.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_AMOUNT = r"(?:\d{1,3}(?:,\d{3})+|\d{1,7})(?:\.\d{1,2})?"
_ENDS = r"(?![\w%]|[.,]\d)"  # `$20V` and `$5k` are no prices, and `89.955` is no amount
_NAMED = re.compile(
    # A letter before the sign makes it another country's dollar, but for US$.
    rf"(?:\bUS\s?\$|\bUSD\s?\$?|(?<![A-Za-z\d$])\$)\s?(?P<behind>{_AMOUNT})(?:\s?USD\b)?{_ENDS}"
    rf"|(?<![\w.,$€£¥-])(?P<before>{_AMOUNT})\s?(?:(?:US\s?)?\$(?![\d$\w])|USD\b|(?:US\s)?dollars\b)",
    re.IGNORECASE,
)
_LABEL_CHARS = 60  # at most
# What would be left standing without its price: `Price: `, `Now only `.
_LABEL = re.compile(
    r"(?:\b(?:(?:list|sale|our|retail|regular|unit)\s+)?(?:price|msrp|rrp|was|now|only|for|costs?)\b\s*(?:is\b|:)?\s*)+$",
    re.IGNORECASE,
)


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
    parts, at = [], 0
    for price in named:
        parts.append(text[at : price.start].rstrip(" \t"))
        at = price.end
    kept = parts[0] if parts else ""
    for part in [*parts[1:], text[at:]] if parts else []:
        part = part.lstrip(" \t")
        if part[:1] in (",", "."):  # one sign between two halves, not two
            kept = kept.rstrip(",")
        glue = "" if not kept or kept.endswith("\n") or part[:1] in ("", "\n", ",", ".", ";", ")") else " "
        kept += glue + part
    return (kept if parts else text).strip()
