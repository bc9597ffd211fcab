"""What scoring a file brought: figures in sum, rows for the table on the page, files to take away, runs to evaluate."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

from pricer.arena.live import live_info
from pricer.arena.metrics import Summary, outcome, summarise
from pricer.arena.runs import RunInfo
from pricer.scoring.engine import Task
from pricer.tables.cells import show
from pricer.tables.writing import write_table
from pricer.ui.batch import text
from pricer.ui.batch.file import Products

LABEL_CHARS = 40  # of a product at its mark
TEXT_CHARS = 90  # of a product in the table
TABLE_ROWS = 1_000  # on the page
CSV, PARQUET = ".csv", ".parquet"


@dataclass(frozen=True)
class Result:
    """The first rows of `products` with what scoring adds; they may be fewer, where the visitor stopped. `base_said`: by
    place among them the base's own 90 % range, in dollars, and its unpriced mass; the columns have the tuned pass's."""

    title: str
    products: Products
    task: Task
    columns: dict[str, list]
    prior: str | None = None  # the name of the price prior
    base_said: Mapping[int, tuple[float, float, float]] = field(default_factory=dict)

    @property
    def done(self) -> int:
        return len(self.columns["text_cut"])

    @property
    def passes(self) -> tuple[str, ...]:
        return self.task.passes

    def usd(self, which: str) -> np.ndarray:
        """(done,) a pass's prices in dollars."""
        return np.array(self.columns[f"{which}_usd"])

    @cached_property
    def priced(self) -> np.ndarray:
        """Which of the done rows have an actual price: (done,) bool."""
        return np.isfinite(self.products.price_usd[: self.done])

    @property
    def price_usd(self) -> np.ndarray:
        """The actual prices of the rows that have one."""
        return self.products.price_usd[: self.done][self.priced]

    def summaries(self) -> dict[str, Summary]:
        """By pass, on the rows with an actual price; empty where there are none."""
        if not self.priced.any():
            return {}
        return {which: summarise(self.price_usd, self.usd(which)[self.priced]) for which in self.passes}

    def scatter_table(self) -> pd.DataFrame:
        """The rows with an actual price as `figures.guesses` draws them; A is the base, where it was asked."""
        table = pd.DataFrame({"index": np.array(self.products.rows[: self.done])[self.priced]})
        at = np.flatnonzero(self.priced)
        texts = [show(self.products.texts[i], LABEL_CHARS) for i in at]
        table["label"] = [
            text.MARK.format(row=row, text=t) for row, t in zip(table["index"], texts, strict=True)
        ]
        table["price_usd"] = self.price_usd
        for end, which in zip("ab", (self.passes[0], self.passes[-1]), strict=True):
            table[f"guess_usd_{end}"] = self.usd(which)[self.priced]
            table[f"error_usd_{end}"] = (table[f"guess_usd_{end}"] - table["price_usd"]).abs()
            table[f"outcome_{end}"] = outcome(table["price_usd"], table[f"guess_usd_{end}"])
        return table

    def page_table(self) -> pd.DataFrame:
        """At most TABLE_ROWS rows, headed in words."""
        n = min(self.done, TABLE_ROWS)
        table = {
            "row": self.products.rows[:n],
            "text": [show(t, TEXT_CHARS) for t in self.products.texts[:n]],
        }
        for name in (*(f"{which}_usd" for which in self.passes), "low_usd", "high_usd"):
            table[name] = self.columns[name][:n]
        if self.priced.any():
            actual = self.products.price_usd[:n]
            table["price_usd"] = actual
            table["off_usd"] = np.abs(self.usd(self.passes[-1])[:n] - actual).round(2)
        return pd.DataFrame(table).rename(columns=text.TABLE_HEADS)

    # Files -----------------------------------------------------------------------------------------------

    def file(self, kind: str) -> bytes:
        """What `python -m pricer.score` would write: the file's own columns and behind them the added ones."""
        table = self.products.table.slice(0, self.done)
        for added in self.task.fields:
            table = table.append_column(added, pa.array(self.columns[added.name], added.type))
        return _written(table.schema, [table], kind)

    def rejected_file(self) -> bytes:
        """CSV: row, reason."""
        rows, reasons = zip(*self.products.rejected, strict=True) if self.products.rejected else ((), ())
        table = pa.table({"row": pa.array(rows, pa.int64()), "reason": pa.array(reasons, pa.string())})
        return _written(table.schema, [table], CSV)

    # Runs ------------------------------------------------------------------------------------------------

    def runs(self) -> list[tuple[pd.DataFrame, str, RunInfo]]:
        """A run per pass, over the rows with an actual price: its table as `own_runs.add_run` takes it, its title, and
        how it was made."""
        products = pd.DataFrame({"text": self.products.texts[: self.done]})[self.priced]
        products["price_usd"] = self.price_usd
        # A product that stands there twice at the same price is one item.
        keys = products.assign(text=[" ".join(t.split()) for t in products["text"]]).round({"price_usd": 2})
        products = products[~keys.duplicated()]
        at, made = products.index.to_numpy(), []
        for which in self.passes:
            table = products.assign(guess_usd=self.usd(which)[at])
            for column, values in self._ranges(which).items():
                table[column] = values[at]
            label = show(text.RUN_LABEL.format(title=self.title, name=text.PASS_NAMES[which]))
            about = {"name": f"batch-{which}", "label": label, "rule": self.task.rule, "prior": self.prior}
            origin = text.RUN_ORIGIN + (text.OWN_RANGES if which == "base" else "")
            info = live_info(self.task.settings, which, **about).model_copy(update={"origin": origin})
            made.append((table.reset_index(drop=True), label, info))
        return made

    def _ranges(self, which: str) -> dict[str, np.ndarray]:
        """(done,) each: a pass's range and unpriced mass, where they are known."""
        names = ("low_usd", "high_usd", "unpriced_mass")
        if which == self.passes[-1]:  # the pass that the columns belong to
            return {name: np.array(self.columns[name]) for name in names}
        if not self.base_said:
            return {}
        said = np.array([self.base_said[at] for at in range(self.done)])
        return dict(zip(names, said.T, strict=True))


def _written(schema: pa.Schema, tables: Iterable[pa.Table], kind: str) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"table{kind}"
        write_table(path, schema, tables, kind)
        return path.read_bytes()
