"""Checks for tables from outside: what a run and the items may hold, and one sentence for what they may not.

Every complaint is an `InputError` that names the row, counted from 1 without the header, and the column.
"""

import numpy as np
import pandas as pd

from pricer.errors import InputError

LABEL_CHARS = 80  # of an item's label: a name, no text
MAX_USD = 1_000_000.0  # beyond this a number is a parsing mistake (an article number), not a guess

# Column -> (lowest, highest) value. The first two columns are required in every run.
COLUMNS = {
    "index": (0, 2**53),
    "guess_usd": (0.0, MAX_USD),
    "low_usd": (0.0, MAX_USD),
    "high_usd": (0.0, MAX_USD),
    "unpriced_mass": (0.0, 1.0 + 1e-6),
    "crps_usd": (0.0, MAX_USD),
    "unparsed": (0, 1),  # the system wrote no price; its guess then stands at 0, the published protocol
    "seconds": (0.0, np.inf),
}
REQUIRED = ("index", "guess_usd")


def check_table(table: pd.DataFrame, name: str, items: pd.DataFrame | None = None) -> pd.DataFrame:
    """A run's table, sorted by index, its columns in order and of the right type, or an InputError.

    Rows are counted from 1, without the header. With `items`, every index must be one of theirs.
    """
    _check_columns(table, name, REQUIRED, COLUMNS)
    checked = pd.DataFrame({c: _check_numbers(table, c, *COLUMNS[c], name) for c in COLUMNS if c in table})
    checked["index"] = _check_index(checked["index"], name)
    if "unparsed" in checked:
        checked["unparsed"] = checked["unparsed"] > 0
    if "low_usd" in checked and "high_usd" in checked:
        _check_rows(checked["low_usd"] > checked["high_usd"], name, "low_usd", "is above high_usd")
    if items is not None:
        check_known(checked["index"], items, name)
    return checked.sort_values("index", ignore_index=True)


def check_items(items: pd.DataFrame, name: str) -> pd.DataFrame:
    """The items' table, sorted by index, without any other column, or an InputError. `label` is a few words that name
    the item, "" where there are none."""
    required = ("index", "category", "price_usd")
    _check_columns(items, name, required, None)
    index = _check_index(_check_numbers(items, "index", *COLUMNS["index"], name), name)
    price_usd = _check_numbers(items, "price_usd", 0.0, MAX_USD, name)
    _check_rows(price_usd <= 0, name, "price_usd", "is not above $0")
    category = items["category"].reset_index(drop=True)
    _check_rows(category.isna() | (category.astype(str) == ""), name, "category", "is empty")
    label = items["label"] if "label" in items else pd.Series("", index=items.index)
    label = label.fillna("").astype(str).reset_index(drop=True)
    _check_rows(label.str.len() > LABEL_CHARS, name, "label", f"has more than {LABEL_CHARS} characters")
    columns = {"index": index, "category": category.astype(str), "price_usd": price_usd, "label": label}
    return pd.DataFrame(columns).sort_values("index", ignore_index=True)


def _check_columns(table: pd.DataFrame, name: str, required, allowed) -> None:
    if not table.columns.is_unique:
        raise InputError(f"{name}: a column stands there twice: keep one of each.")
    if missing := [column for column in required if column not in table]:
        raise InputError(f"{name}: column {missing[0]} is missing: a table needs {', '.join(required)}.")
    if allowed and (unknown := [str(column) for column in table.columns if column not in allowed]):
        raise InputError(f"{name}: column {unknown[0]} is not known: use {', '.join(allowed)}.")
    if table.empty:
        raise InputError(f"{name}: the table has no rows: give one row per item.")


def _check_numbers(table: pd.DataFrame, column: str, lowest: float, highest: float, name: str) -> pd.Series:
    """The column as finite float64 numbers from `lowest` to `highest`."""
    try:
        numbers = pd.to_numeric(table[column], errors="coerce").astype("float64").reset_index(drop=True)
    except (TypeError, ValueError):  # a column of lists, of complex numbers …
        raise InputError(f"{name}: column {column} does not hold numbers.") from None
    _check_rows(~np.isfinite(numbers), name, column, "is missing or not a number")
    wrong = (numbers < lowest) | (numbers > highest)
    _check_rows(wrong, name, column, f"is not between {lowest:,.0f} and {highest:,.0f}")
    return numbers


def _check_index(index: pd.Series, name: str) -> pd.Series:
    _check_rows(index % 1 != 0, name, "index", "is not a whole number")
    _check_rows(index.duplicated(), name, "index", "stands there twice")
    return index.astype("int64")


def check_known(index: pd.Series, items: pd.DataFrame, name: str) -> None:
    _check_rows(~index.isin(items["index"]), name, "index", "is not one of the test items")


def _check_rows(wrong: pd.Series, name: str, column: str, complaint: str) -> None:
    if wrong.any():
        row = int(np.argmax(wrong.to_numpy())) + 1
        raise InputError(f"{name}: row {row}, column {column} {complaint}: correct it or leave the row out.")
