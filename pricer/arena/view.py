"""What a visitor of the Evaluation tab looks at: two runs, filters, a preset, a selection, the axes.

A `View` is a value: every control of the page is a step from one view to the next, and a link is a view
written as a query string. Nothing here knows the runs' data; see `arena`.
"""

from __future__ import annotations

import base64
import binascii
import zlib
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import get_args
from urllib.parse import parse_qs, urlencode

import numpy as np

from pricer.arena.metrics import OUTCOMES
from pricer.arena.own_runs import PREFIX
from pricer.arena.runs import ITEM_SETS, Kind

SEED_PAIR = ("llama-3.1-8b-base", "llama-3.1-8b-qlora-seed")
EMBEDDED_PAIR = ("embedded-base", "embedded-tuned")
EVERYDAY_PAIR = ("everyday-embedded-base", "everyday-embedded-tuned-shop")  # as the Compare tab prices
PRESETS = ("worst-b", "b-beats-a", "a-beats-b", "both-wrong", "overpriced", "disagree")
PANELS = (
    "board",
    "slices",
    "guess",
    "groups",
    "several",
    "spread",
    "pair",
    "running",
    "coverage",
    "items",
    "terms",
)
MEASURES = ("bands", "running", "share")  # of several runs in one plot
SORTS = ("error_usd", "rmsle", "hits_pct", "within_pct")
COLUMNS = (
    "rmsle",
    "hits_pct",
    "within_pct",
    "behind_best",
    "behind_a",
    "made",
)  # of the board, beside the error
MOST_PINS = 5
SETS = tuple(ITEM_SETS)  # of items
MAX_WORDS = 60  # letters of a search in the labels

MAX_INDEX = 1 << 24  # of an item in a link's selection: a bit each before packing, 2 MB
MAX_SELECTION_CHARS = 1_200  # a longer one is left out of the link: browsers and chats cut long addresses


@dataclass(frozen=True)
class View:
    """Empty tuples, None, 0 and "" set no limit. Item numbers are positions in the test split."""

    run_a: str = SEED_PAIR[0]
    run_b: str = SEED_PAIR[1]
    item_set: str = SETS[0]
    categories: tuple[str, ...] = ()
    low_usd: float | None = None  # actual price
    high_usd: float | None = None
    outcomes_a: tuple[str, ...] = ()
    outcomes_b: tuple[str, ...] = ()
    apart_usd: float = 0.0  # |guess of A - guess of B| at least
    words: str = ""  # all of them in the item's label
    preset: str = ""
    selection: tuple[int, ...] = ()  # items picked in a plot
    log_axis: bool = True
    by_share: bool = False  # marks are coloured by 20 % and 40 % alone
    panel: str = PANELS[0]
    sort: str = SORTS[0]
    everyone: bool = False  # the whole board, not the best runs of it
    find: str = ""  # words in a run's name
    kinds: tuple[str, ...] = ()  # of runs on the board
    columns: tuple[str, ...] = ("rmsle", "hits_pct", "behind_best")
    pins: tuple[str, ...] = ()  # runs that are drawn beside A and B
    measure: str = MEASURES[0]
    item: int | None = None  # the open one

    @property
    def filtered(self) -> bool:
        """Whether anything but the two runs narrows the items."""
        return any(getattr(self, name) != getattr(_DEFAULT, name) for name in NARROWING)

    @property
    def chosen_by_guess(self) -> bool:
        """Whether items were picked by how the runs did on them: figures then describe, and prove nothing."""
        return bool(self.preset or self.outcomes_a or self.outcomes_b or self.apart_usd or self.selection)

    def reset(self) -> View:
        """The same runs, axes and panel on all their items."""
        return self.without(*NARROWING)

    def without(self, *names: str) -> View:
        """The view with those fields back at their defaults."""
        return replace(self, **{name: getattr(_DEFAULT, name) for name in names})

    def swapped(self) -> View:
        """A is B and B is A, and each outcome filter goes with its run."""
        return replace(
            self,
            run_a=self.run_b,
            run_b=self.run_a,
            outcomes_a=self.outcomes_b,
            outcomes_b=self.outcomes_a,
        )

    # As a link -------------------------------------------------------------------------------------------

    def to_query(self) -> str:
        """The view as a query string; what stands at its default is left out, so a plain view is short."""
        given = {key: getattr(self, field) for key, field in _KEYS.items()}
        given = {key: value for key, value in given.items() if value != getattr(_DEFAULT, _KEYS[key])}
        words = {"tab": "evaluation", "a": self.run_a, "b": self.run_b}
        for key, value in given.items():
            words[key] = {"axis": "linear", "colours": "share", "all": "yes"}.get(
                key, "none" if value == () else value
            )
        if (code := _pack(self.selection)) and len(code) <= MAX_SELECTION_CHARS:
            words["sel"] = code
        short = {k: str(v).removesuffix(".0") if isinstance(v, float) else v for k, v in words.items()}
        return urlencode(short, doseq=True)

    def from_query(
        self, query: str, *, runs: Collection[str], categories: Collection[str]
    ) -> tuple[View, list[str]]:
        """This view as a link changes it, and one sentence for each part of the link that cannot be had.

        Keys that are not ours pass without a word: hosts add their own.
        """
        values, complaints = {}, []
        for key, given in _words(query).items():
            if key not in _READERS:
                continue
            field, read = _READERS[key]
            allowed = {"a": runs, "b": runs, "pin": runs, "cat": categories}.get(key, ())
            try:
                values[field] = read(given, allowed)
            except ValueError:
                complaints.append(_unknown(key, given))
        view = replace(self, **values)
        if view.low_usd is not None and view.high_usd is not None and view.low_usd > view.high_usd:
            complaints.append("The link’s lowest price is above its highest; both were left out.")
            view = view.without("low_usd", "high_usd")
        return view, complaints


def is_link(query: str) -> bool:
    """Whether a page's query string asks for the Evaluation tab."""
    return "evaluation" in _words(query).get("tab", [])


def _unknown(key: str, given: list[str]) -> str:
    shown = ", ".join(given)
    shown = shown if len(shown) <= 60 else f"{shown[:60]}…"
    if key in ("a", "b", "pin") and any(name.startswith(PREFIX) for name in given):
        return f"The link’s {key}={shown} is a run that only the visitor who added it has; it was left out."
    return f"The link’s {key}={shown} is not known here and was left out."


# Reading and writing one value ---------------------------------------------------------------------------


def _words(query: str) -> dict[str, list[str]]:
    try:
        return parse_qs(query, max_num_fields=200)
    except ValueError:  # too many fields: no link of ours
        return {}


def _one_of(given: list[str], allowed: Collection[str]) -> str:
    if given[-1] not in allowed:
        raise ValueError
    return given[-1]


def _some_of(given: list[str], allowed: Collection[str]) -> tuple[str, ...]:
    if not set(given) <= set(allowed):
        raise ValueError
    return tuple(sorted(set(given)))


def _usd(given: list[str], _allowed=()) -> float:
    value = float(given[-1])
    if not 0 <= value < 1e9:  # NaN too
        raise ValueError
    return value


def _pack(selection: tuple[int, ...]) -> str:
    """Item numbers as a compressed bit per number, in letters that need no escape."""
    if not selection or min(selection) < 0 or max(selection) >= MAX_INDEX:
        return ""
    bits = np.zeros(max(selection) + 1, dtype=bool)
    bits[list(selection)] = True
    packed = zlib.compress(np.packbits(bits).tobytes(), 9)
    return base64.urlsafe_b64encode(packed).decode().rstrip("=")


def _unpack(given: list[str], _allowed=()) -> tuple[int, ...]:
    code = given[-1]
    if len(code) > MAX_SELECTION_CHARS:
        raise ValueError
    try:
        packed = base64.urlsafe_b64decode(code + "=" * (-len(code) % 4))
        unzip = zlib.decompressobj()
        raw = unzip.decompress(packed, MAX_INDEX // 8)  # no more, whatever the code claims
    except (binascii.Error, zlib.error) as error:
        raise ValueError from error
    if not unzip.eof:
        raise ValueError
    return tuple(np.flatnonzero(np.unpackbits(np.frombuffer(raw, np.uint8))).tolist())


def _index(given: list[str], _allowed=()) -> int:
    value = int(given[-1])
    if not 0 <= value < 2**53:
        raise ValueError
    return value


def _columns(given: list[str]) -> tuple[str, ...]:
    return () if given == ["none"] else tuple(c for c in COLUMNS if c in _some_of(given, COLUMNS))


def _search(given: list[str], _allowed=()) -> str:
    words = " ".join(given[-1].split())
    if len(words) > MAX_WORDS:
        raise ValueError
    return words


_DEFAULT = View()
NARROWING = (
    "categories",
    "low_usd",
    "high_usd",
    "outcomes_a",
    "outcomes_b",
    "apart_usd",
    "words",
    "preset",
    "selection",
)

# Key in the link -> (field, reader).
_READERS = {
    "set": ("item_set", lambda given, _: _one_of(given, SETS)),
    "a": ("run_a", _one_of),
    "b": ("run_b", _one_of),
    "cat": ("categories", _some_of),
    "from": ("low_usd", _usd),
    "to": ("high_usd", _usd),
    "was_a": ("outcomes_a", lambda given, _: _some_of(given, OUTCOMES)),
    "was_b": ("outcomes_b", lambda given, _: _some_of(given, OUTCOMES)),
    "apart": ("apart_usd", _usd),
    "q": ("words", _search),
    "preset": ("preset", lambda given, _: _one_of(given, PRESETS)),
    "sel": ("selection", _unpack),
    "axis": ("log_axis", lambda given, _: _one_of(given, ("log", "linear")) == "log"),
    "colours": ("by_share", lambda given, _: _one_of(given, ("hits", "share")) == "share"),
    "panel": ("panel", lambda given, _: _one_of(given, PANELS)),
    "sort": ("sort", lambda given, _: _one_of(given, SORTS)),
    "all": ("everyone", lambda given, _: _one_of(given, ("yes",)) == "yes"),
    "find": ("find", _search),
    "kind": ("kinds", lambda given, _: _some_of(given, get_args(Kind))),
    "columns": ("columns", lambda given, _: _columns(given)),
    "pin": ("pins", lambda given, allowed: _some_of(given[:MOST_PINS], allowed)),
    "measure": ("measure", lambda given, _: _one_of(given, MEASURES)),
    "item": ("item", _index),
}
_KEYS = {key: field for key, (field, _) in _READERS.items() if key not in ("a", "b", "sel")}
