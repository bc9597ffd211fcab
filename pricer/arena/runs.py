"""Evaluation runs: what a system guessed for each test item, and what that system was.

A run is a table, one row per item (`index` is the item's position in the test split), and a small JSON
saying what made it: `<name>.parquet` and `<name>.json` in one folder, next to one table for each item set
(`items.parquet` is the benchmark's) that holds every item's category, price and label. An item's text is not
stored here: it is joined when the dataset can be read, see `load_item_texts`; without it the plots show the label.

Files may come from outside, so each is checked as it is read (`tables`), and one that cannot be used ends
in an `InputError` of one sentence.
"""

import datetime
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from pricer.arena.metrics import outcome
from pricer.errors import InputError
from pricer.files import write_whole
from pricer.llama.hub import expect_answers
from pricer.price.record import complaint
from pricer.prompt import product_text
from pricer.settings import ASSETS
from pricer.tables.checks import check_items, check_known, check_table
from pricer.tables.frames import Column, read_frame
from pricer.tables.reading import open_table

log = logging.getLogger(__name__)

RUNS_FOLDER = ASSETS / "runs"
HUB_DATASET = "ed-donner/pricer-data"
BENCHMARK, EVERYDAY = "benchmark", "everyday"
# Item set -> the table of its items. The benchmark's are of price-balanced listings, everyday ones as shops have them.
ITEM_SETS = {BENCHMARK: "items.parquet", EVERYDAY: "items-everyday.parquet"}
ITEMS_FILE = ITEM_SETS[BENCHMARK]
# Item set -> where its listings come from, as a run says it.
SOURCES = {
    BENCHMARK: {"data_set": HUB_DATASET, "split": "test"},
    EVERYDAY: {"data_set": "McAuley-Lab/Amazon-Reviews-2023", "split": "everyday"},
}
MOST_ROWS = 10_000_000  # of a table; equal numbers by the billion fit into a small file

# "own": a visitor's, who did not say what made it.
Kind = Literal["base", "tuned", "classical", "frontier", "human", "baseline", "ensemble", "own"]


class PublishedFigures(BaseModel):
    """What the origin of a published run reports for it, rounded as there."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    items: int
    error_usd: float
    rmsle: float
    hits_pct: float


class RunInfo(BaseModel):
    """What made a run. `None` or empty: not known, or not meaningful for this kind of system."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    # Also the file name, hence no slashes, no blanks and, for file systems that ignore case, no capitals.
    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]*$", max_length=80)
    label: str = Field(min_length=1, max_length=120)
    kind: Kind
    base_model: str | None = None
    base_revision: str | None = None
    adapter: str | None = None
    adapter_revision: str | None = None
    rule: str | None = None
    prior: str | None = None  # the price prior that a tuned model's answers are under
    calibrated_on: int | None = None  # held-out listings; None: the intervals are the model's own
    precision: str | None = None
    device: str | None = None
    date: datetime.date | None = None
    items: Literal["benchmark", "everyday"] = BENCHMARK  # which item set its indexes are of
    data_set: str = HUB_DATASET
    split: str = "test"
    origin: str = ""
    published: bool = False
    published_figures: PublishedFigures | None = None
    notes: str = ""

    @field_validator("name")
    @classmethod
    def _is_free(cls, name: str) -> str:
        if name == "items" or name.startswith("items-") or name.endswith((".json", ".parquet")):
            raise ValueError("a run cannot be called items or items-…, nor end in .json or .parquet")
        return name


@dataclass(frozen=True)
class Run:
    """`table`: columns of `tables.COLUMNS`, sorted by `index`, one row per item."""

    info: RunInfo
    table: pd.DataFrame


# Reading and writing -------------------------------------------------------------------------------------


def load_items(folder: Path | str = RUNS_FOLDER, item_set: str = BENCHMARK) -> pd.DataFrame:
    """The test items of a set: index, category, price_usd, label ("": none), sorted by index."""
    path = Path(folder) / ITEM_SETS[item_set]
    return check_items(_read_table(path), path.name)


def save_items(folder: Path | str, items: pd.DataFrame, item_set: str = BENCHMARK) -> Path:
    """Write the set's table; no text but the labels, whatever columns `items` has."""
    path = Path(folder) / ITEM_SETS[item_set]
    items = check_items(items, path.name)
    return write_whole(path, lambda path: _write_table(items, path))


def load_run(path: Path | str) -> Run:
    """The run at `<folder>/<name>`; the path may also name its .json or its .parquet."""
    path = Path(path)
    name = path.name.removesuffix(".json").removesuffix(".parquet")
    info = _load_info(path.parent / f"{name}.json")
    table = _read_table(path.parent / f"{name}.parquet")
    return Run(info, check_table(table, name))


def save_run(folder: Path | str, run: Run) -> Path:
    """Write a run's two files, each of them whole or not at all, and return the JSON's path.

    The JSON comes last: a run that is not there yet appears only once its table is complete.
    """
    folder, name = Path(folder), run.info.name
    table = check_table(run.table, name)
    write_whole(folder / f"{name}.parquet", lambda path: _write_table(table, path))
    text = run.info.model_dump_json(indent=2, exclude_none=True) + "\n"
    return write_whole(folder / f"{name}.json", lambda path: path.write_text(text, encoding="utf-8"))


def list_runs(folder: Path | str = RUNS_FOLDER) -> list[RunInfo]:
    """What every run in the folder says about itself, by name; one that cannot be read is logged."""
    return [info for path in _run_files(folder) if (info := _or_log(_load_info, path))]


def load_runs(folder: Path | str = RUNS_FOLDER) -> dict[str, dict[str, Run]]:
    """Every run in the folder: of each item set that has any, and of the benchmark, its runs by name. One broken file
    is logged, and takes no other run with it."""
    found: dict[str, dict[str, Run]] = {BENCHMARK: {}}
    for path in _run_files(folder):
        if run := _or_log(load_run, path):
            found.setdefault(run.info.items, {})[run.info.name] = run
    return found


# Joining -------------------------------------------------------------------------------------------------


def join_items(run: Run, items: pd.DataFrame) -> pd.DataFrame:
    """The run's rows with `category`, `price_usd`, `label`, `error_usd` (absolute) and `outcome` of each item.

    Raises InputError for a row whose index is no item's.
    """
    check_known(run.table["index"], items, run.info.name)
    table = items.merge(run.table, on="index", how="inner", validate="one_to_one")
    table["error_usd"] = (table["guess_usd"] - table["price_usd"]).abs()
    table["outcome"] = outcome(table["price_usd"], table["guess_usd"])
    return table


def join_pair(run_a: Run, run_b: Run, items: pd.DataFrame) -> pd.DataFrame:
    """The items that both runs have, their columns ending in `_a` and `_b`, for paired comparison."""
    shared = [name for name in ("index", "category", "price_usd", "label") if name in items]
    a, b = join_items(run_a, items), join_items(run_b, items)
    return a.merge(b, on=shared, how="inner", validate="one_to_one", suffixes=("_a", "_b"))


def load_item_texts(path: Path | str | None = None, items: pd.DataFrame | None = None) -> pd.Series | None:
    """Product text by item index, or None, with the reason logged: the pages do without.

    Read from `path` (a table with a text and a price; the row's place is the index where there is no `index`
    column), else from the Hub, where a missing network takes half a minute to show: call this off the page's path.
    Given `items`, prices must agree, so that no item is ever shown
    with another one's text.
    """
    try:
        texts = _read_texts(path) if path else _read_hub()
        if items is not None:
            texts = texts.merge(items, on="index", suffixes=("", "_items"))
            if texts.empty or not np.allclose(texts["price_usd"], texts["price_usd_items"], atol=0.01):
                raise InputError("its prices are not those of the test items, so its texts are not theirs")
        return texts.set_index("index")["text"].map(product_text)
    except Exception as error:  # whatever fails here, the evaluation can be shown without text
        reason = str(error).rstrip(".")
        log.warning("No item text from %s, showing the items' names: %s.", path or HUB_DATASET, reason)
        return None


# Files ---------------------------------------------------------------------------------------------------


def _run_files(folder: Path | str) -> list[Path]:
    return sorted(Path(folder).glob("[!.]*.json"), key=lambda path: path.stem)


def _or_log(load: Callable, path: Path):
    try:
        return load(path)
    except InputError as error:
        log.warning("%s", error)
        return None


def parse_info(data: bytes, file_name: str) -> RunInfo:
    """What a run's JSON says. Raises InputError."""
    try:
        return RunInfo.model_validate_json(data)
    except ValidationError as error:
        raise InputError(f"{file_name}: {complaint(error)}: correct it.") from None


def _load_info(path: Path) -> RunInfo:
    try:
        info = parse_info(path.read_bytes(), path.name)
    except OSError:
        raise InputError(f"There is no run at {path}: check the name and the folder.") from None
    if path.name != f"{info.name}.json":
        raise InputError(f"{path.name} says that its name is {info.name}: rename the file or the run.")
    return info


def _read_table(path: Path) -> pd.DataFrame:
    if not path.is_file():
        raise InputError(f"There is no table at {path}: check the name and the folder.")
    return open_table(path).frame(MOST_ROWS)


def _read_texts(path: Path | str) -> pd.DataFrame:
    columns = [Column("text", "text", needed=True), Column("price_usd", "price", needed=True)]
    table = read_frame(path, [*columns, Column("index", "index")]).reset_index(drop=True)
    return table if "index" in table else table.assign(index=np.arange(len(table)))


def _read_hub() -> pd.DataFrame:
    from datasets import load_dataset  # slow to import, and needed only without a local file

    expect_answers()
    table = load_dataset(HUB_DATASET, split="test").to_pandas()
    text = table["prompt"] if "prompt" in table else table["text"]
    return pd.DataFrame({"index": np.arange(len(table)), "text": text, "price_usd": table["price"]}).dropna()


def _write_table(table: pd.DataFrame, path: Path) -> None:
    table.to_parquet(path, index=False, compression="zstd")
