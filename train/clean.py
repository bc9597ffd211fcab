"""From a seller's raw listing to the product text and price that the models are trained on.

The rules are those of the curation behind `ed-donner/pricer-data`, so that freshly prepared rows look like
its rows: one line of title, one line of description + features + details, brackets and colons removed,
boilerplate fields dropped, and no word of seven or more characters that holds a digit (part numbers say
nothing about a price and cost the most tokens).
"""

from __future__ import annotations

import html
import json
import math
import re
from typing import Any

from pricer.errors import InputError
from pricer.prompt import is_framed, product_text
from pricer.tables.cells import Amounts, product_cell, read_price, text_cell

MIN_PRICE_USD, MAX_PRICE_USD = 0.50, 999.49
# Some four times what any token budget here keeps; the rest of a description is never read.
MAX_CHARS = 3_000
PART_NUMBER_CHARS = 7

# Details that say nothing about the product, by how the field's name starts (in lower case).
_NOISE_FIELDS = (
    "asin", "batteries included", "batteries required", "best sellers rank", "customer reviews",
    "date first", "domestic shipping", "international shipping", "is discontinued", "item model number",
    "item part number", "manufacturer part number", "model number", "part number", "shipping weight",
    "upc", "ean", "gtin",
)  # fmt: skip
# The same fields in a description into which the details were already written. Their value is a date, or
# ends at the next comma or quote if that is near, or is one word: prose that follows must survive.
_NOISE_IN_TEXT = re.compile(
    r"\"?\b(?:ASIN|Batteries (?:Included|Required)\??|Best Sellers Rank|Date First Available"
    r"|Is Discontinued By Manufacturer|Item model number|(?:Item |Manufacturer )?Part Number|UPC)"
    r"\"?\s*:\s*\"?(?:[A-Z][a-z]+ \d{1,2}, \d{4}|[^,\"{}\n]{0,60}(?=[,\"}\n]|$)|\S+)\"?,?",
    re.IGNORECASE,
)
_FIELD_PREFIX = re.compile(r"^(?:item|product|package)\s+", re.IGNORECASE)
_SIZE_PREFIX = re.compile(r"\b(?:Item|Product|Package) (?=Weight\b|Dimensions\b)")
_MARKUP = re.compile(r"<[a-zA-Z/!][^<>]{0,200}>")
# "['First.', 'Second.']": a list that was written as Python text.
_LISTED = re.compile(r"'\s*,\s*'|\[\s*'|'\s*\]")
_BRACKETS_AND_BLANKS = re.compile(r"[:\[\]\"{}【】\s]+")
_DIGIT = re.compile(r"\d")
_COMMAS = re.compile(r"\s*,(?:\s*,)*")


def parse_price(value: Any, amounts: Amounts | None = None) -> float:
    """An amount in US dollars, within $0.50 to $999.49; `amounts` know how its column writes them.

    Raises InputError, whose message is the reason that the counts show.
    """
    price_usd = amounts.read(value) if amounts else read_price(value)
    if not MIN_PRICE_USD <= price_usd <= MAX_PRICE_USD:
        raise InputError(f"price outside ${MIN_PRICE_USD:.2f} to ${MAX_PRICE_USD:.2f}")
    return price_usd


def record_text(record: dict[str, Any]) -> str:
    """The product text of a record: from `prompt` or `text` where set, else from the listing's fields.

    Raises InputError, whose message is the reason to leave the record out, when there is no text.
    """
    for name in ("prompt", "text"):
        if ready := text_cell(record.get(name), name).strip():
            return curated_text(ready) if is_framed(ready) else listing_text(*ready.split("\n", 1))
    title, description, product = (
        product_text(text_cell(record.get(n), n)) for n in ("title", "description", "product")
    )
    return listing_text(title or product, description, record.get("features"), record.get("details"))


def curated_text(text: str) -> str:
    """The product text of a row that is already in the prompt's format; other text as it is."""
    return product_cell(product_text(text)[:MAX_CHARS], MAX_CHARS)


def listing_text(title: Any, description: Any = None, features: Any = None, details: Any = None) -> str:
    """Title, newline, and description, features and details on one line, scrubbed; at most MAX_CHARS.

    Description and features are text or lists of text; details are a mapping or its JSON.
    """
    body = "\n".join(part for part in (_joined(description), _joined(features), _listed(details)) if part)
    text = f"{scrub(_joined(title)[:MAX_CHARS])}\n{scrub(body[: 2 * MAX_CHARS])}"
    return product_cell(text.strip()[:MAX_CHARS], MAX_CHARS)


def scrub(text: str) -> str:
    """One line without markup, brackets, colons, boilerplate fields and part numbers."""
    text = _MARKUP.sub(" ", html.unescape(text))
    if ":" in text:
        text = _NOISE_IN_TEXT.sub(" ", text)
    text = _BRACKETS_AND_BLANKS.sub(" ", _LISTED.sub(" ", text))
    words = (word for word in _SIZE_PREFIX.sub("", text).split(" ") if not _is_part_number(word))
    return _COMMAS.sub(",", " ".join(words)).strip(" ,")


def plain(value: Any) -> str:
    """A label (category, source) as text that any file can hold; "" for none."""
    return _joined(value).encode("utf-8", "ignore").decode().strip()


def _is_part_number(word: str) -> bool:
    return len(word) >= PART_NUMBER_CHARS and bool(not word.isalpha() and _DIGIT.search(word))


def _joined(value: Any) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, list | tuple):
        return "\n".join(map(_joined, value))
    return str(value)


def _listed(details: Any) -> str:
    if isinstance(details, str):
        try:
            details = json.loads(details)
        except (ValueError, RecursionError):
            return details
    if not isinstance(details, dict):
        return _joined(details)
    kept = (
        f"{_FIELD_PREFIX.sub('', name)} {_joined(value)}"
        for name, value in details.items()
        if value not in (None, "") and not name.lower().lstrip().startswith(_NOISE_FIELDS)
    )
    return ", ".join(kept)
