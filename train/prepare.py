"""Clean listings and cut them into train / validation / calibration so that near-duplicates never straddle.

    python -m train.prepare ed-donner/pricer-data --against ed-donner/pricer-data:test --out out/data

Three passes: read and clean every listing into one parquet file; find near-duplicates and seller templates
among its texts; deal the groups out. In memory are one batch of rows, and the hashes: 512 bytes a row and
what sorting them takes, some 1.5 kB a row in all.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field, fields
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pricer.errors import InputError, PricerError, report
from pricer.files import alone
from pricer.prompt import QUESTION, build_prompt, completion
from train.data_card import data_card
from train.groups import Likeness, cut, find_groups
from train.listings import Tally, clean_rows, listing_row, test_item
from train.sources import Source, find_source

SPLITS = ("train", "validation", "calibration")
BATCH_ROWS = 4_096
_ASIDE = ".part-"  # what is not whole yet
SCHEMA = pa.schema(
    [
        ("text", pa.string()),
        ("price", pa.float64()),
        ("category", pa.string()),
        ("title", pa.string()),
        ("target_like", pa.bool_()),
        ("source", pa.string()),
    ]
)
TEXT_ONLY = pa.schema([("text", pa.string())])


def _option(default: Any, help: str) -> Any:
    return field(default=default, metadata={"help": help})


@dataclass(frozen=True)
class Options:
    """What can be chosen on the command line, one flag per field."""

    out: str = field(metadata={"help": "folder for the three parquet files and data_card.json"})
    against: tuple[str, ...] = _option((), "test items (named as sources are): rows near one are left out")
    columns: tuple[str, ...] = _option(
        (), "OURS=THEIRS, where a source has other names for title, description, price, category, text …"
    )
    validation: int = _option(500, "about how many rows for validation")
    calibration: int = _option(600, "about how many rows for calibration")
    seed: int = _option(0, "seed of the hashes and of the cut")
    limit: int = _option(0, "read at most this many records of each source; 0: all")
    min_chars: int = _option(200, "leave out texts with fewer characters")
    near: float = _option(
        0.85, "similarity (0 to 1) from which two texts are one listing, of which one stays"
    )
    near_test: float = _option(0.7, "similarity to a text of --against from which a row is left out")
    family: float = _option(0.5, "similarity of texts, titles or prose from which two rows share a group")
    drop_test_families: bool = _option(
        False, "also leave out rows of the same seller template as a test item"
    )
    tokenizer: str = _option("", "Hub id or folder: also store the final prompt and completion")
    question: str = _option(QUESTION, "the prompt's question, with --tokenizer")
    max_text_tokens: int = _option(160, "the text's token budget, with --tokenizer")

    def __post_init__(self) -> None:
        for name in ("near", "near_test", "family"):
            if not 0 < getattr(self, name) <= 1:
                raise InputError(f"{_flag(name)} is a similarity: give a number above 0, up to 1.")
        if min(self.near, self.near_test) < self.family:
            raise InputError("--near and --near-test must not be below --family: raise them, or lower it.")
        for name in ("validation", "calibration", "seed", "limit", "min_chars"):
            if getattr(self, name) < 0:
                raise InputError(f"{_flag(name)} must be 0 or more.")
        if self.max_text_tokens < 1:
            raise InputError("--max-text-tokens must be 1 or more.")
        if not all(all(pair.partition("=")) for pair in self.columns):
            raise InputError("--columns takes OURS=THEIRS, for example price=list_price.")

    @property
    def column_names(self) -> dict[str, str]:
        """Their name of each column that is named otherwise."""
        return dict(pair.split("=", 1) for pair in self.columns)


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


# --- pass 1: read and clean (train/listings.py) ---


def write_rows(path: Path, rows: Iterable[dict[str, Any]], schema: pa.Schema) -> None:
    """Write rows as they come, a batch at a time."""
    with pq.ParquetWriter(path, schema) as writer:
        batch = []
        for row in rows:
            batch.append(row)
            if len(batch) == BATCH_ROWS:
                writer.write_table(pa.Table.from_pylist(batch, schema))
                batch = []
        writer.write_table(pa.Table.from_pylist(batch, schema))


def write_clean(path: Path, sources: list[Source], options: Options) -> Tally:
    """All sources' listings, cleaned, one after the other."""
    tally, choice = Tally(), {"columns": options.column_names, "limit": options.limit}
    rows = (
        row
        for source in sources
        for row in clean_rows(
            source,
            tally,
            partial(listing_row, source=source, min_chars=options.min_chars),
            needed=("text", "price_usd"),
            **choice,
        )
    )
    write_rows(path, rows, SCHEMA)
    print(tally, file=sys.stderr)
    for theirs in options.column_names.values():
        if theirs not in tally.columns_found:
            raise InputError(f"The sources have no column {theirs}: correct --columns.")
    if not tally.kept:
        raise InputError("No row is left after cleaning: see the reasons above.")
    return tally


def write_tests(path: Path, tests: list[Source], options: Options) -> Tally:
    """The texts of the test items."""
    tally = Tally()
    rows = (row for test in tests for row in clean_rows(test, tally, test_item, columns=options.column_names))
    write_rows(path, rows, TEXT_ONLY)
    if tests:
        print(f"test items: {tally}", file=sys.stderr)
    return tally


# --- pass 2: groups (train/groups.py) ---


def read_texts(*paths: Path) -> Iterator[list[str]]:
    """The texts of clean files, one batch at a time."""
    for path in paths:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(BATCH_ROWS, columns=["text"]):
                yield batch.column(0).to_pylist()


def print_examples(paths: list[Path], examples: dict[str, list[tuple[int, int, float]]]) -> None:
    """Titles of example pairs, on the terminal only: listing text is not stored in a report."""
    wanted = {row for pairs in examples.values() for pair in pairs for row in pair[:2]}
    titles, first = {}, 0
    for texts in read_texts(*paths):
        titles |= {row: texts[row - first] for row in wanted if first <= row < first + len(texts)}
        first += len(texts)
    for name, pairs in examples.items():
        for left, right, alike in pairs:
            shown = " | ".join(titles[row].partition("\n")[0][:60] for row in (left, right))
            print(f"  {name}, {alike:.2f} alike: {shown}", file=sys.stderr)


# --- pass 3: write the splits ---


def split_rows(clean: Path, stays: np.ndarray, group: np.ndarray, options: Options) -> np.ndarray:
    """The split of every clean row, "" for those that are left out."""
    table = pq.read_table(clean, columns=["price", "target_like"])
    price_usd, eligible = (table[name].to_numpy() for name in ("price", "target_like"))
    if not eligible[stays].any():
        eligible = np.ones(len(stays), dtype=bool)
    wanted = {"validation": options.validation, "calibration": options.calibration}
    split = np.full(len(stays), "", dtype=object)
    split[stays] = cut(group[stays], price_usd[stays], eligible[stays], wanted, options.seed)
    rows = {name: int((split == name).sum()) for name in SPLITS}
    if not rows["train"] or any(rows[name] < count / 2 for name, count in wanted.items()):
        raise InputError(
            f"{int(eligible[stays].sum()):,} rows are too few to cut {options.validation:,} for validation "
            f"and {options.calibration:,} for calibration from: lower --validation and --calibration."
        )
    return split


def write_splits(
    folder: Path, clean: Path, group: np.ndarray, split: np.ndarray, finish: Callable[[pa.Table], pa.Table]
) -> None:
    """The parquet file of each split, in the order of the sources, each table passed through `finish`."""
    schema = finish(pa.schema([*SCHEMA, ("group", pa.int64())]).empty_table()).schema
    for name in SPLITS:
        with pq.ParquetWriter(folder / f"{name}.parquet", schema) as out:
            for table in chosen_rows(clean, split == name, group):
                out.write_table(finish(table))


def chosen_rows(clean: Path, chosen: np.ndarray, group: np.ndarray) -> Iterator[pa.Table]:
    """The chosen rows with their groups, in tables of about BATCH_ROWS."""
    waiting, done = [], 0
    with pq.ParquetFile(clean) as file:
        for batch in file.iter_batches(BATCH_ROWS):
            part = slice(done, done + batch.num_rows)
            done += batch.num_rows
            table = pa.Table.from_batches([batch])
            table = table.append_column("group", pa.array(group[part], pa.int64()))
            waiting.append(table.filter(pa.array(chosen[part])))
            if sum(table.num_rows for table in waiting) >= BATCH_ROWS:
                yield pa.concat_tables(waiting)
                waiting = []
    if waiting:
        yield pa.concat_tables(waiting)


def prompt_writer(options: Options) -> Callable[[pa.Table], pa.Table]:
    """What adds the final prompt and completion to a table's rows; without --tokenizer it adds nothing."""
    if not options.tokenizer:
        return lambda table: table
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(options.tokenizer)
    except (OSError, ValueError) as error:
        raise InputError(
            f"--tokenizer {options.tokenizer} cannot be loaded: give a Hub id or folder."
        ) from error
    budget = {"question": options.question, "max_text_tokens": options.max_text_tokens}

    def add_prompts(table: pa.Table) -> pa.Table:
        prompts = [build_prompt(text, tokenizer, **budget).text for text in table["text"].to_pylist()]
        completions = [completion(price) for price in table["price"].to_pylist()]
        table = table.append_column("prompt", pa.array(prompts, pa.string()))
        return table.append_column("completion", pa.array(completions, pa.string()))

    return add_prompts


# --- all of it ---


def prepare(names: list[str], options: Options) -> dict[str, Any]:
    """Prepare the named sources; returns the data card. Files appear in the folder when all is done."""
    with alone(Path(options.out), "preparing rows into"):
        return _prepare(names, options)


def _prepare(names: list[str], options: Options) -> dict[str, Any]:
    sources, tests = [[find_source(name) for name in some] for some in (names, options.against)]
    finish = prompt_writer(options)
    folder = Path(options.out)
    folder.mkdir(parents=True, exist_ok=True)
    for left in folder.glob(f"{_ASIDE}*"):  # of a preparation that was killed here
        shutil.rmtree(left)
    with tempfile.TemporaryDirectory(dir=folder, prefix=_ASIDE) as scratch:
        part = Path(scratch)
        clean, test_texts = paths = [part / "clean.parquet", part / "tests.parquet"]
        tests_read = write_tests(test_texts, tests, options)
        tally = write_clean(clean, sources, options)
        found = find_groups(
            lambda: read_texts(*paths),
            pq.read_table(clean, columns=["target_like"])["target_like"].to_numpy(),
            tests_read.kept,
            Likeness(options.near, options.near_test, options.family),
            drop_test_families=options.drop_test_families,
            seed=options.seed,
        )
        print_examples(paths, found.examples)
        split = split_rows(clean, found.stays, found.group, options)
        write_splits(part, clean, found.group, split, finish)
        counts = {
            "read": tally.read,
            "left_out_in_cleaning": dict(tally.reasons.most_common()),
            "clean": tally.kept,
            "test_items": tests_read.kept,
            **found.counts,
            # Rows that are not like the target, in a group that validation or calibration got.
            "left_out_beside_validation_or_calibration": int((found.stays & (split == "")).sum()),
        }
        files = {name: part / f"{name}.parquet" for name in SPLITS}
        chosen = {name: value for name, value in asdict(options).items() if name not in ("out", "against")}
        if Path(options.tokenizer).exists():
            chosen["tokenizer"] = Path(options.tokenizer).name
        card = data_card(chosen, sources, tests, counts, files)
        (part / "data_card.json").write_text(
            json.dumps(card, indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
        )
        for path in (*files.values(), part / "data_card.json"):
            os.replace(path, folder / path.name)
    return card


def arguments_of(arguments: list[str] | None) -> dict[str, Any]:
    """The command line: sources, then one flag per field of Options."""
    parser = argparse.ArgumentParser(
        prog="python -m train.prepare",
        description=__doc__.splitlines()[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument(
        "sources",
        nargs="+",
        help=".parquet, .csv, .jsonl (or .gz) files, Hub datasets (owner/name[:split]), "
        "raw McAuley categories (raw_meta_Appliances)",
    )
    for option in fields(Options):
        settings: dict[str, Any] = {"help": option.metadata["help"], "default": option.default}
        if option.name == "out":
            settings = {"help": option.metadata["help"], "required": True}
        elif option.default == ():
            settings["nargs"] = "+"
        elif option.default is False:
            settings["action"] = "store_true"
        else:
            settings["type"] = type(option.default)
        parser.add_argument(_flag(option.name), **settings)
    return {k: tuple(v) if isinstance(v, list) else v for k, v in vars(parser.parse_args(arguments)).items()}


def main(arguments: list[str] | None = None) -> None:
    chosen = arguments_of(arguments)
    try:
        card = prepare(list(chosen.pop("sources")), Options(**chosen))
    except (PricerError, OSError) as error:
        sys.exit(report(error))
    for name, split in card["splits"].items():
        middle = split["price_usd"].get("median", 0)
        print(f"{name}: {split['rows']:,} rows in {split['groups']:,} groups, median ${middle:.2f}")
    print(f"written to {chosen['out']}")


if __name__ == "__main__":
    main()
