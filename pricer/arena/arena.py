"""The evaluation arena: all runs side by side on the same items, and what a `View` of them says.

`Arena` joins runs and items once into wide arrays, (items, runs), NaN where a run has no guess. Answers are
computed on demand and kept by what they depend on, the guesses and the set of items, so that going back
and forth costs nothing, and visitors share what the shipped runs need. All runs meet the same resamples of
the same items: the difference of two resampled metrics is their paired bootstrap.

A `row` is a position in the arena's arrays; an `index` is an item's position in the test split.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pricer.arena import slices
from pricer.arena.answers import digest, kept
from pricer.arena.findings import Findings, findings
from pricer.arena.metrics import HIT_SHARE, is_hit, outcome, resampled
from pricer.arena.narrowing import contradiction, narrowed_table
from pricer.arena.records import (
    Coverage,
    Group,
    HeadToHead,
    Item,
    ItemGuess,
    Leaderboard,
    Narrowed,
    Rows,
    Several,
    Standing,
)
from pricer.arena.resampling import (
    PERMUTATIONS,
    RESAMPLES,
    SEED,
    Floats,
    bootstrap,
    estimate,
    sign_flip_p_value,
)
from pricer.arena.runs import Run
from pricer.arena.view import EMBEDDED_PAIR, EVERYDAY_PAIR, SEED_PAIR, SORTS, View
from pricer.errors import InputError
from pricer.price.distribution import INTERVAL_LEVEL
from pricer.tables.checks import check_known

BOARD_SHARE = 0.2  # a run with a smaller part of the items in view does not shrink the leaderboard to its own
CONSTANT_RUN = "constant"  # its one guess is the training mean, against which skill is measured
RESAMPLED_CELLS = (
    20_000_000  # (resamples, items) per bootstrap: beyond 10,000 items there are fewer resamples
)
MIN_RESAMPLES = 200

_OPTIONAL = ("low_usd", "high_usd", "crps_usd", "unparsed")


class Arena:
    """Raises InputError when a run has an item that `items` does not know."""

    def __init__(self, runs: Mapping[str, Run], items: pd.DataFrame):
        self.runs = dict(runs)
        self.items = _labelled(items.reset_index(drop=True))
        self.index = self.items["index"].to_numpy()
        self.known_indexes = set(self.index.tolist())
        self.price_usd = self.items["price_usd"].to_numpy(dtype=np.float64)
        self.categories = sorted(self.items["category"].unique())
        self.infos = {name: run.info for name, run in self.runs.items()}
        self._column = {name: i for i, name in enumerate(self.runs)}
        self.guess_usd = self._wide("guess_usd")
        self._known = {name: self._wide(name) for name in _OPTIONAL}
        self.away_usd = np.abs(self.guess_usd - self.price_usd[:, None])
        words = "\n".join([*self.items["label"], *self.items["category"]]).encode()
        self._items_digest = np.frombuffer(
            digest(self.index, self.price_usd, np.frombuffer(words, np.uint8)), np.uint8
        )
        self._digest = {name: self._column_digest(i) for name, i in self._column.items()}
        constant = self.guess_usd[:, self._column[CONSTANT_RUN]] if CONSTANT_RUN in self.runs else []
        constant = np.unique([guess for guess in constant if np.isfinite(guess)])
        self.constant_usd = float(constant[0]) if len(constant) == 1 else None

    def with_runs(self, more: Mapping[str, Run], items: pd.DataFrame | None = None) -> Arena:
        """The arena with a visitor's own runs beside the others; `items` that only those have come behind."""
        if not more:
            return self
        own = None if items is None or items.empty else _labelled(items)
        both = self.items if own is None else pd.concat([self.items, own])
        return Arena(self.runs | dict(more), both)

    def first_view(self) -> View:
        """The seed's pair; without it the embedded pair, or a base and a tuned run, or whatever there is."""
        for pair in (SEED_PAIR, EMBEDDED_PAIR, EVERYDAY_PAIR):
            if set(pair) <= set(self.runs):
                return View(*pair)
        if not self.runs:
            raise InputError("There is no run to show: put evaluation runs into the runs folder.")
        names = list(self.runs)
        kinds = {info.kind: name for name, info in reversed(self.infos.items())}
        if {"base", "tuned"} <= set(kinds):
            return View(kinds["base"], kinds["tuned"])
        return View(names[0], names[-1])

    # Which items -----------------------------------------------------------------------------------------

    def pair(self, run_a: str, run_b: str) -> pd.DataFrame:
        """The items that both runs have: index, label, category, price_usd, and guess, error, outcome of each, as
        `runs.join_pair` names them; `row` is the position in the arena."""

        def make() -> pd.DataFrame:
            a, b = self._column[run_a], self._column[run_b]
            rows = np.flatnonzero(np.isfinite(self.guess_usd[:, a]) & np.isfinite(self.guess_usd[:, b]))
            table = self.items.iloc[rows][["index", "label", "category", "price_usd"]].assign(row=rows)
            for end, column in (("a", a), ("b", b)):
                table[f"guess_usd_{end}"] = self.guess_usd[rows, column]
                table[f"error_usd_{end}"] = self.away_usd[rows, column]
                table[f"outcome_{end}"] = (
                    outcome(self.price_usd[rows], self.guess_usd[rows, column]) if len(rows) else ""
                )
            return table.reset_index(drop=True)

        return kept(("table", self._digest[run_a], self._digest[run_b]), make)

    def narrowed(self, view: View) -> Narrowed:
        """Filters first, then the preset among what they leave, then the selection."""
        table = self.pair(view.run_a, view.run_b)
        filtered, chosen = narrowed_table(table, view)
        ranked = chosen["row"].to_numpy()
        return Narrowed(len(table), filtered["row"].to_numpy(), np.sort(ranked), ranked)

    def contradiction(self, view: View) -> tuple[str, ...]:
        """The fewest fields of the view that leave no item between them."""
        return contradiction(self.pair(view.run_a, view.run_b), view)

    def walk(self, view: View) -> NDArray[np.integer]:
        """The indexes of the items in view, in the order in which one goes from one to the next: a preset's own, else
        by price."""
        narrowed = self.narrowed(view)
        rows = narrowed.ranked if view.preset else narrowed.rows
        if not view.preset:
            rows = rows[np.argsort(self.price_usd[rows], kind="stable")]
        return self.index[rows]

    def table(self, view: View, rows: Rows) -> pd.DataFrame:
        """The pair's table at `rows`, in their order."""
        return self.pair(view.run_a, view.run_b).set_index("row", drop=False).loc[rows]

    # What they say ---------------------------------------------------------------------------------------

    def head_to_head(self, view: View) -> HeadToHead | None:
        """None where no item is left."""
        rows = self.narrowed(view).rows
        key = ("pair", self._digest[view.run_a], self._digest[view.run_b], self.constant_usd, digest(rows))
        return kept(key, lambda: self._head_to_head(view, rows)) if len(rows) else None

    def _head_to_head(self, view: View, rows: Rows) -> HeadToHead:
        a, b = (self._metrics(name, rows) for name in (view.run_a, view.run_b))
        better = self._away(view.run_b, rows) - self._away(view.run_a, rows)  # above 0: A is closer
        tied = np.isclose(better, 0, rtol=0, atol=1e-9)
        return HeadToHead(
            items=len(rows),
            a={name: estimate(values) for name, values in a.items()},
            b={name: estimate(values) for name, values in b.items()},
            difference={name: estimate(b[name] - a[name]) for name in a if name in b},
            wins_a=int((~tied & (better > 0)).sum()),
            ties=int(tied.sum()),
            wins_b=int((~tied & (better < 0)).sum()),
            p_value=sign_flip_p_value(better, permutations=PERMUTATIONS),
        )

    def leaderboard(self, view: View) -> Leaderboard:
        """All runs on the items in view that all of them have, best first by `view.sort`.

        A run that has less than BOARD_SHARE of them would shrink the board to its own few: it is left out.
        """
        rows = self.narrowed(view).rows
        runs = tuple((name, self._digest[name]) for name in self.runs)  # the name: two runs may guess alike
        key = ("board", runs, view.run_a, view.sort, digest(rows))
        return kept(key, lambda: self._leaderboard(view, rows))

    def _leaderboard(self, view: View, rows: Rows) -> Leaderboard:
        has = np.isfinite(self.guess_usd[rows])
        enough = has.sum(axis=0) >= max(1, BOARD_SHARE * len(rows))
        names = [name for name, column in self._column.items() if enough[column]]
        left_out = {name: int(has[:, c].sum()) for name, c in self._column.items() if not enough[c]}
        common = rows[has[:, enough].all(axis=1)] if names else rows[:0]
        if not len(common):
            return Leaderboard(0, [], left_out)
        values = self._board_metrics(names, common)
        error = {name: values[name, "error_usd"] for name in names}
        best = min(names, key=lambda name: error[name][0])
        standings = [
            Standing(
                name,
                *[estimate(values[name, metric]) for metric in SORTS],
                behind_best=estimate(error[name] - error[best]),
                behind_a=estimate(error[name] - error[view.run_a]),
            )
            for name in names
        ]
        sign = -1 if view.sort in ("hits_pct", "within_pct") else 1
        standings.sort(key=lambda s: (sign * getattr(s, view.sort).value, s.name))
        return Leaderboard(len(common), standings, left_out)

    def groups(self, view: View) -> tuple[list[Group], list[Group]]:
        """Errors by price band, cheapest first, and by category, the largest first."""
        rows = self.narrowed(view).rows
        key = ("groups", self._digest[view.run_a], self._digest[view.run_b], digest(rows))

        def make() -> tuple[list[Group], list[Group]]:
            table = self.items.iloc[rows]
            kinds = (slices.by_price(table), slices.by_category(table))
            per_item = {}
            for i, masks in enumerate(kinds):
                for label, mask in masks.items():
                    per_item[i, label, "n"] = mask
                    per_item[i, label, "a"] = mask * self._away(view.run_a, rows)
                    per_item[i, label, "b"] = mask * self._away(view.run_b, rows)
            mean, _ = bootstrap(per_item, {}, RESAMPLES, SEED)

            def group(i: int, label: str, mask: slices.Mask) -> Group:
                share = np.where(mean[i, label, "n"] > 0, mean[i, label, "n"], np.nan)
                errors = (estimate(mean[i, label, end] / share) for end in ("a", "b"))
                return Group(label, int(mask.sum()), *errors)

            return tuple([group(i, *of) for of in masks.items()] for i, masks in enumerate(kinds))

        return kept(key, make) if len(rows) else ([], [])

    def findings(self, view: View) -> Findings:
        """The slices of the items in view in which B loses and wins most against A."""
        rows = self.narrowed(view).rows
        key = ("findings", self._digest[view.run_a], self._digest[view.run_b], digest(rows))
        return kept(key, lambda: findings(self.table(view, rows)))

    def several(self, view: View) -> Several:
        """A, B and the pinned runs on the items in view that all of them have; without items where there are none."""
        names = list(dict.fromkeys((view.run_a, view.run_b, *view.pins)))
        rows = self.narrowed(view).rows
        rows = rows[np.isfinite(self.guess_usd[np.ix_(rows, [self._column[n] for n in names])]).all(axis=1)]
        return Several(
            {name: self.infos[name] for name in names},
            self.price_usd[rows],
            {name: self._away(name, rows) for name in names},
        )

    def coverage(self, view: View) -> list[Coverage]:
        """Every run with intervals, on those of the items in view that it has them for."""
        rows = self.narrowed(view).rows
        low, high = (self._known[end][rows] for end in ("low_usd", "high_usd"))
        has = np.isfinite(low) & np.isfinite(high)  # (rows, runs)
        held = has & (low <= self.price_usd[rows, None]) & (self.price_usd[rows, None] <= high)
        names = [name for name, column in self._column.items() if has[:, column].any()]
        if not names:
            return []
        per_item = {(name, "has"): has[:, self._column[name]] for name in names}
        per_item |= {(name, "held"): held[:, self._column[name]] for name in names}
        mean, _ = bootstrap(per_item, {}, RESAMPLES, SEED)
        measured = []
        for name in names:
            column = self._column[name]
            share = np.where(mean[name, "has"] > 0, mean[name, "has"], np.nan)
            width_usd = float((high - low)[has[:, column], column].mean())
            found = estimate(100 * mean[name, "held"] / share)
            items = int(has[:, column].sum())
            measured.append(Coverage(self.infos[name], items, 100 * INTERVAL_LEVEL, found, width_usd))
        return measured

    def item(self, index: int) -> Item:
        """One item and what every run guessed. Raises InputError for an item that is not there."""
        found = np.flatnonzero(self.index == index)
        if not len(found):
            raise InputError(f"There is no test item {index}.")
        row = int(found[0])
        price_usd = float(self.price_usd[row])
        guesses = []
        for name, column in self._column.items():
            guess_usd = float(self.guess_usd[row, column])
            if np.isfinite(guess_usd):
                low, high = (self._known[end][row, column] for end in ("low_usd", "high_usd"))
                ends = (float(low), float(high)) if np.isfinite(low) and np.isfinite(high) else (None, None)
                result = str(outcome([price_usd], [guess_usd])[0])
                guesses.append(ItemGuess(self.infos[name], guess_usd, result, *ends))
        guesses.sort(key=lambda guess: abs(guess.guess_usd - price_usd))
        label, category = (str(self.items[column].iloc[row]) for column in ("label", "category"))
        return Item(index, label, category, price_usd, guesses)

    # Inside ----------------------------------------------------------------------------------------------

    def _wide(self, column: str) -> Floats:
        wide = np.full((len(self.items), len(self.runs)), np.nan)
        for name, run in self.runs.items():
            if column in run.table:
                check_known(run.table["index"], self.items, name)
                rows = np.searchsorted(self.index, run.table["index"])
                wide[rows, self._column[name]] = run.table[column]
        return wide

    def _column_digest(self, column: int) -> bytes:
        """What a run's answers depend on: its guesses and what else it has, and the items."""
        parts = [self.guess_usd[:, column], *[known[:, column] for known in self._known.values()]]
        return digest(self._items_digest, *parts)

    def _away(self, run: str, rows: Rows) -> Floats:
        return self.away_usd[rows, self._column[run]]

    def _metrics(self, run: str, rows: Rows) -> dict[str, Floats]:
        """Every metric that the run can have, on `rows` and on their resamples."""

        def make() -> dict[str, Floats]:
            column = self._column[run]
            known = {name: wide[rows, column] for name, wide in self._known.items()}
            known = {name: values for name, values in known.items() if np.isfinite(values).all()}
            if not {"low_usd", "high_usd"} <= set(known):
                known = {
                    name: values for name, values in known.items() if name not in ("low_usd", "high_usd")
                }
            return resampled(
                self.price_usd[rows],
                self.guess_usd[rows, column],
                constant_usd=self.constant_usd,
                **known,
            )

        return kept(("metrics", self._digest[run], self.constant_usd, digest(rows)), make)

    def _board_metrics(self, names: list[str], rows: Rows) -> dict[tuple[str, str], Floats]:
        """The board's metrics of every run, from one product of resamples and per-item values."""

        def make() -> dict[tuple[str, str], Floats]:
            per_item = {}
            log_price = np.log1p(self.price_usd[rows])
            for name in names:
                guess_usd = self.guess_usd[rows, self._column[name]]
                per_item[name, "error_usd"] = self._away(name, rows)
                per_item[name, "rmsle"] = (log_price - np.log1p(guess_usd)) ** 2
                per_item[name, "hits_pct"] = 100.0 * is_hit(self._away(name, rows), self.price_usd[rows])
                per_item[name, "within_pct"] = 100.0 * (
                    self._away(name, rows) / self.price_usd[rows] < HIT_SHARE
                )
            mean, _ = bootstrap(per_item, {}, RESAMPLES, SEED)
            return {key: np.sqrt(v) if key[1] == "rmsle" else v for key, v in mean.items()}

        runs = tuple((name, self._digest[name]) for name in names)
        return kept(("board metrics", runs, digest(rows)), make)


def _labelled(items: pd.DataFrame) -> pd.DataFrame:
    """Every item has a label; one without is called by its number."""
    numbered = "Item " + items["index"].astype(str)
    labels = items["label"].where(items["label"].fillna("") != "", numbered) if "label" in items else numbered
    return items.assign(label=labels)
