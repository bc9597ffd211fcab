"""What columns are called: by which names of a file a caller's columns are found, the same for every caller.

Names are compared in small letters with everything else as _: "Guess ($)" is guess. A mapping that somebody gave
always wins over what would be found.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from pricer.errors import InputError
from pricer.prompt import product_text
from pricer.tables.cells import show, text_cell

# Column -> the names that a file may give it besides its own.
NAMES = {
    "index": ("item",),
    "price_usd": ("price", "actual_price", "actual"),
    "guess_usd": ("guess", "prediction", "predicted_price", "predicted"),
    "low_usd": ("low",),
    "high_usd": ("high",),
}
# Where a row's text is, the best place first: it is the first of these in whose first column the row has any words.
TEXTS = (("prompt",), ("text",), ("title", "description"), ("product", "description"), ("description",))
TEXT_NAMES = tuple(dict.fromkeys(name for names in TEXTS for name in names))
# Of anything: a product's title only where a description stands beside it, and no other title.
A_NAME = "name"
KNOWN = {*NAMES, *TEXT_NAMES, A_NAME, "category", "features", "details"}.union(*NAMES.values())


def normal(name: str) -> str:
    """A column's name in small letters, everything but letters and digits as one _."""
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")


def check_once(names: Sequence[str], file_name: str) -> None:
    """Raise InputError for a name that two columns have."""
    if twice := next((name for at, name in enumerate(names) if name in names[:at]), None):
        raise InputError(
            f"{file_name}: the column {show(twice)} stands there twice: keep or rename one of them."
        )


def choose(
    names: Sequence[str],
    wanted: Collection[str],
    file_name: str,
    mapping: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """The file's name for each of the `wanted` columns that it has. Texts are wanted as TEXT_NAMES.

    Raises InputError for a mapping to a column that is not there, and where two columns mean the same.
    """
    ours = {alias: column for column in wanted for alias in (column, *NAMES.get(column, ()))}
    if unknown := [asked for asked in mapping or () if normal(asked) not in ours]:
        raise InputError(
            f"There is no column {show(unknown[0])} to be mapped: name one of {', '.join(ours)}."
        )
    mapping = {ours[normal(column)]: name for column, name in (mapping or {}).items()}
    found: dict[str, str] = {}
    for name in names:
        column = ours.get(normal(name))
        if column is None or column in mapping:
            continue
        if column in found:
            twice = f"{show(found[column])} and {show(name)}"
            raise InputError(f"{file_name}: the columns {twice} mean the same: keep one of them.")
        found[column] = name
    for column, asked in mapping.items():
        alike = [name for name in names if name == asked] or [n for n in names if normal(n) == normal(asked)]
        if not alike:
            raise InputError(
                f"{file_name} has no column {show(asked)}: choose one of its own ({listed(names)})."
            )
        found[column] = alike[0]
    if texts := [place for place in TEXTS if any(name in mapping for name in place)]:
        # Somebody said where the text is: it is nowhere else.
        found = {
            column: name for column, name in found.items() if column not in TEXT_NAMES or column in texts[0]
        }
    called = [name for name in names if normal(name) == A_NAME and name not in found.values()]
    if called and "title" in ours and "description" in found and not {"title", "product"} & found.keys():
        found = {"title": called[0], **found}
    return found


def listed(names: Sequence[str]) -> str:
    return ", ".join(show(name, 40) or "one without a name" for name in names[:12]) or "none"


def is_there(column: str, chosen: Mapping[str, str]) -> bool:
    """Whether `chosen` has one of our columns; `text` is there wherever a text can be."""
    return any(first in chosen for first, *_ in TEXTS) if column == "text" else column in chosen


def check_there(
    needed: Collection[str], chosen: Mapping[str, str], names: Sequence[str], file_name: str, ways: str
) -> None:
    """Raise InputError for the first of the `needed` columns that is not there. ways: what to do."""
    if missing := next((column for column in needed if not is_there(column, chosen)), None):
        column = missing.removesuffix("_usd")
        raise InputError(f"{file_name}: column {column} is missing (it has: {listed(names)}): {ways}.")


def row_text(cells: Mapping[str, Any], chosen: Mapping[str, str]) -> str:
    """A row's product text, out of its prompt's frame; "" for none. Raises InputError, whose message is the reason."""

    def part(name: str) -> str:
        return product_text(text_cell(cells.get(chosen[name]), chosen[name])) if name in chosen else ""

    for first, *rest in TEXTS:
        if text := part(first):
            return "\n".join(filter(None, [text, *map(part, rest)]))
    return ""
