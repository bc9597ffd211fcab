"""Where listings come from: local tables, the Hub dataset, raw McAuley metadata; one row at a time.

A source is named as

    listings.parquet, .csv, .tsv, .jsonl (or .gz)      a local file, raw McAuley metadata or columns of any shop
    ed-donner/pricer-data[:split]                      a dataset on the Hub with `text` and `price`, streamed
    raw_meta_Appliances                                a category of McAuley-Lab/Amazon-Reviews-2023, streamed
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from pricer.errors import InputError, SetupError
from pricer.llama.hub import expect_answers
from pricer.tables.reading import FORMATS, Table, json_object, open_table
from pricer.tables.row import Row

RAW_DATASET = "McAuley-Lab/Amazon-Reviews-2023"
_RAW_NAME = re.compile(rf"^(?:{re.escape(RAW_DATASET)}:)?raw_meta_(\w+)$")
_HUB_NAME = re.compile(r"^[\w.-]+/[\w.-]+(?::[\w.-]+)?$")
_FILE_ENDING = re.compile(r"\.(parquet|csv|tsv|jsonl?|gz)$", re.IGNORECASE)


@dataclass(frozen=True)
class Source:
    """A named source. `category` stands in where a record names none; `path` is None on the Hub."""

    name: str
    path: Path | None = None
    category: str = ""

    @cached_property
    def table(self) -> Table | None:
        """The local file's table; None on the Hub. Raises InputError."""
        return open_table(self.path) if self.path else None

    def rows(self) -> Iterator[Row]:
        """The source's rows in order."""
        return self.table.rows() if self.table else _hub(self.name)


def find_source(name: str) -> Source:
    """The source that a word on the command line names. Raises InputError when it names none."""
    path = Path(name)
    if path.is_file():
        category = re.fullmatch(r"(?:raw_)?meta_([A-Z]\w+)\.\w+(?:\.gz)?", path.name)
        return Source(path.name, path, category[1] if category else "")
    raw = _RAW_NAME.match(name)
    if raw:
        return Source(name, category=raw[1])
    if _HUB_NAME.match(name) and not _FILE_ENDING.search(name):
        return Source(name)
    raise InputError(
        f"There is no file {name}: name a {FORMATS} file, a Hub dataset (owner/name[:split]) "
        "or a raw McAuley category (raw_meta_Appliances)."
    )


def _hub(name: str) -> Iterator[Row]:
    # Imported here: datasets takes seconds, and local files do without it.
    from datasets import load_dataset

    raw = _RAW_NAME.match(name)
    expect_answers()
    try:
        if raw:
            # The raw files hold JSON whose fields differ from row to row: read as text, parsed here.
            url = f"hf://datasets/{RAW_DATASET}/raw/meta_categories/meta_{raw[1]}.jsonl"
            rows = load_dataset("text", data_files=url, split="train", streaming=True)
            for number, row in enumerate(rows, 1):
                yield Row(number, *json_object(row["text"]))
        else:
            repository, _, split = name.partition(":")
            rows = load_dataset(repository, split=split or "train", streaming=True)
            yield from (Row(number, cells) for number, cells in enumerate(rows, 1))
    except Exception as error:  # what the Hub's client raises has no common type
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise SetupError(
            f"{name} could not be read from the Hub ({reason}): check its name and the network, "
            "or download it and name the file."
        ) from error
