"""What a visitor looks at, as a CSV."""

from __future__ import annotations

from collections.abc import Mapping

from pricer.arena.arena import Arena
from pricer.arena.view import View
from pricer.tables.writing import csv_text

_COLUMNS = ("guess_usd", "error_usd", "outcome")


def view_csv(arena: Arena, view: View, own_texts: Mapping[int, str]) -> str:
    """The items in view, in the view's order, with both runs' guesses; text only where it is the visitor's own."""
    shown = arena.table(view, arena.narrowed(view).ranked)
    table = shown[["index", "label", "category", "price_usd"]].copy()
    for end in ("a", "b"):
        table[f"run_{end}"] = getattr(view, f"run_{end}")
        for column in _COLUMNS:
            table[f"{column}_{end}"] = shown[f"{column}_{end}"]
    if own_texts and table["index"].isin(own_texts).any():
        table["text"] = [own_texts.get(index, "") for index in table["index"]]
    return csv_text(table.round(2))
