"""A visitor's own runs: on the test items, or on items of their own, which nobody else has.

Own items are numbered beyond any test split, so that they meet the shipped runs nowhere: they are compared
only among runs that have them. Two files with the same text at the same price speak of the same item.
Nothing here is written anywhere; an `OwnRuns` lives as long as the visitor's session.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas as pd

from pricer.arena.runs import Run, RunInfo
from pricer.arena.upload import read_upload
from pricer.errors import InputError
from pricer.settings import Limits
from pricer.tables.cells import show
from pricer.tables.checks import check_table

OWN_INDEX = 1_000_000  # of the first own item; no test split is that long
OWN_CATEGORY = "your items"
PREFIX = "own-"  # of a name, so that none can be a shipped run's
CENT = 0.01


def _no_items() -> pd.DataFrame:
    columns = {"index": np.empty(0, np.int64), "category": np.empty(0, object), "price_usd": np.empty(0)}
    return pd.DataFrame(columns)


@dataclass(frozen=True, eq=False)
class OwnRuns:
    """A value: whoever adds or takes away gets another one.

    `items`: index, category, price_usd of the visitor's own items; `texts`: their texts by index.
    """

    runs: Mapping[str, Run] = field(default_factory=dict)
    items: pd.DataFrame = field(default_factory=_no_items)
    texts: Mapping[int, str] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.runs)

    def with_runs(self, *runs: Run) -> OwnRuns:
        """With those runs as well, or instead of those of the same names."""
        return replace(self, runs={**self.runs, **{run.info.name: run for run in runs}})

    def without(self, name: str) -> OwnRuns:
        return replace(self, runs={n: run for n, run in self.runs.items() if n != name}).pruned()

    def pruned(self) -> OwnRuns:
        """Without own items that no run has."""
        used = {index for run in self.runs.values() for index in run.table["index"] if index >= OWN_INDEX}
        items = self.items[self.items["index"].isin(used)].reset_index(drop=True)
        return replace(self, items=items, texts={i: text for i, text in self.texts.items() if i in used})

    def place(
        self, products: pd.DataFrame, items: pd.DataFrame, texts: pd.Series | None = None
    ) -> tuple[OwnRuns, np.ndarray]:
        """Find or make room for products (text, price_usd, maybe category), and the index of each, in their order.

        A product is a test item where one of `items` has its price and, in `texts`, its text; else an own item.
        Raises InputError for a product that stands there twice.
        """
        known = {_key(text, price): index for index, text, price in _texts_and_prices(items, texts)}
        prices = dict(zip(self.items["index"], self.items["price_usd"], strict=True))
        known |= {_key(text, prices[index]): index for index, text in self.texts.items()}
        free = max([OWN_INDEX, *(index + 1 for index in self.texts)])
        category = products["category"] if "category" in products else [OWN_CATEGORY] * len(products)
        indexes, new, new_texts = [], [], dict(self.texts)
        for row in zip(products["text"], products["price_usd"], category, strict=True):
            text, price_usd, kind = row
            key = _key(text, price_usd)
            if key not in known:
                known[key] = free + len(new)
                new_texts[known[key]] = text
                new.append((known[key], kind or OWN_CATEGORY, price_usd))
            indexes.append(known[key])
        twice = pd.Series(indexes, dtype="int64").duplicated()
        if twice.any():
            row = products.index[int(np.argmax(twice))]
            raise InputError(f"Row {row}, column text stands there twice at this price: leave the row out.")
        added = pd.DataFrame(new, columns=["index", "category", "price_usd"])
        both = pd.concat([self.items, added], ignore_index=True) if new else self.items
        return replace(self, items=both, texts=new_texts), np.array(indexes, dtype=np.int64)

    def free_name(self, title: str) -> str:
        return _unused(PREFIX + (_slug(title) or "run"), self.runs, "-{}")

    def free_label(self, title: str) -> str:
        return _unused(title, {run.info.label for run in self.runs.values()}, " ({})")


def read_run(
    paths: Sequence[Path | str],
    own: OwnRuns,
    items: pd.DataFrame,
    texts: pd.Series | None = None,
    limits: Limits | None = None,
) -> tuple[OwnRuns, str]:
    """A run from a visitor's files joins `own`: (the new OwnRuns, the run's name).

    The files are those of `upload.read_upload`. Rows with an index are test items, and where they have a price
    it must be that item's; rows with text and price are placed as `OwnRuns.place` does. Raises InputError.
    """
    limits = limits or Limits()
    check_room(own, limits)
    upload = read_upload(paths, limits)
    return add_run(upload.table, upload.title, own, items, texts, upload.info)


def check_room(own: OwnRuns, limits: Limits) -> None:
    """Raise InputError where the visitor has as many runs as one may have."""
    if len(own.runs) >= limits.own_runs:
        raise InputError(f"You have added {limits.own_runs} runs already: remove one first.")


def add_run(
    table: pd.DataFrame,
    title: str,
    own: OwnRuns,
    items: pd.DataFrame,
    texts: pd.Series | None = None,
    given: RunInfo | None = None,
) -> tuple[OwnRuns, str]:
    """The same for a table that is there: guess_usd, and index or text and price_usd; maybe low_usd, high_usd and
    category. `given`: what the run says about itself. Raises InputError."""
    if "index" in table:
        _check_items(table, items, title)
    else:
        own, index = own.place(table, items, texts)
        table = table.assign(index=index)
    table = check_table(table.drop(columns=["text", "category", "price_usd"], errors="ignore"), title)
    label = own.free_label(show(given.label) or title if given else title)
    what = given or RunInfo(name="run", label="run", kind="own")
    info = what.model_copy(
        update={
            "name": own.free_name(given.name if given else title),
            "label": label,
            "published": False,
            "published_figures": None,
        }
    )
    return own.with_runs(Run(info, table)), info.name


def _check_items(table: pd.DataFrame, items: pd.DataFrame, name: str) -> None:
    """Rows are numbered test items, and at their prices: a table of other items would be scored against these."""
    price_usd = table["index"].map(items.set_index("index")["price_usd"])
    unknown = price_usd.isna().to_numpy()
    if unknown.any():
        at = int(np.argmax(unknown))
        raise InputError(
            f"{name}: row {table.index[at]}, column index: there is no test item {table['index'].iloc[at]}: for items of "
            "your own give text and price instead of index."
        )
    if "price_usd" in table:
        other = ((table["price_usd"] - price_usd).abs() > CENT + 1e-9).to_numpy()
        if other.any():
            at = int(np.argmax(other))
            raise InputError(
                f"{name}: row {table.index[at]}, column price: test item {table['index'].iloc[at]} costs "
                f"${price_usd.iloc[at]:,.2f}, so this is another one: for items of your own leave the column index out."
            )


def _texts_and_prices(items: pd.DataFrame, texts: pd.Series | None) -> list[tuple[int, str, float]]:
    if texts is None:
        return []
    prices = items.set_index("index")["price_usd"]
    return [(int(i), text, float(prices[i])) for i, text in texts.items() if i in prices.index]


def _key(text: str, price_usd: float) -> tuple[str, float]:
    return " ".join(text.split()), round(price_usd, 2)


def _slug(title: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")[:60].strip("-")


def _unused(wanted: str, taken: Collection[str], ending: str) -> str:
    names = (wanted + (ending.format(n) if n > 1 else "") for n in range(1, len(taken) + 2))
    return next(name for name in names if name not in taken)
