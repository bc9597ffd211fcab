"""Where listings come from: local files, the Hub dataset, raw McAuley metadata; one record at a time.

A source is named as

    listings.parquet, .csv, .jsonl (or .gz)      a local file, raw McAuley metadata or columns of any shop
    ed-donner/pricer-data[:split]                a dataset on the Hub with `text` and `price`, streamed
    raw_meta_Appliances                          a category of McAuley-Lab/Amazon-Reviews-2023, streamed

Nothing is held in memory but the record at hand. A record that cannot be read comes as `Corrupt`, so that
the caller counts it and goes on.
"""

from __future__ import annotations

import csv
import gzip
import json
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pricer.errors import InputError, SetupError
from pricer.llama.hub import expect_answers
from pricer.tables.arrow import check_unpacked

RAW_DATASET = "McAuley-Lab/Amazon-Reviews-2023"
FORMATS = ".parquet, .csv or .jsonl (also .gz)"
_RAW_NAME = re.compile(rf"^(?:{re.escape(RAW_DATASET)}:)?raw_meta_(\w+)$")
_HUB_NAME = re.compile(r"^[\w.-]+/[\w.-]+(?::[\w.-]+)?$")
_BATCH_ROWS = 1_024
_PARQUET_ROWS = 64  # unpacked at once: each may be long
_LINE_CHARS = 10_000_000


@dataclass(frozen=True)
class Corrupt:
    """A record that could not be read: where it is and why."""

    place: str
    reason: str


@dataclass(frozen=True)
class Source:
    """A named source. `category` stands in where a record names none; `path` is None on the Hub."""

    name: str
    path: Path | None = None
    category: str = ""

    def records(self) -> Iterator[dict[str, Any] | Corrupt]:
        """The source's records in order."""
        if self.path is not None:
            return _local(self.path)
        return _hub(self.name)


def find_source(name: str) -> Source:
    """The source that a word on the command line names. Raises InputError when it names none."""
    path = Path(name)
    if path.is_file():
        category = re.fullmatch(r"(?:raw_)?meta_([A-Z]\w+)\.\w+(?:\.gz)?", path.name)
        return Source(path.name, path, category[1] if category else "")
    raw = _RAW_NAME.match(name)
    if raw:
        return Source(name, category=raw[1])
    if _HUB_NAME.match(name) and not path.suffix.startswith((".parquet", ".csv", ".json", ".gz")):
        return Source(name)
    raise InputError(
        f"There is no file {name}: name a {FORMATS} file, a Hub dataset (owner/name[:split]) "
        "or a raw McAuley category (raw_meta_Appliances)."
    )


def _local(path: Path) -> Iterator[dict[str, Any] | Corrupt]:
    suffixes = [suffix.lower() for suffix in path.suffixes[-2:]]
    kind = suffixes[0] if suffixes[-1:] == [".gz"] else (suffixes[-1:] or [""])[0]
    if kind in (".parquet", ".pq"):
        return _parquet(path)
    if kind in (".csv", ".tsv"):
        return _csv(path, "\t" if kind == ".tsv" else ",")
    if kind in (".jsonl", ".ndjson", ".json"):
        return _json_lines(_lines(path), path.name)
    raise InputError(f"{path.name} cannot be read as listings: give a {FORMATS} file.")


def _parquet(path: Path) -> Iterator[dict[str, Any] | Corrupt]:
    try:
        file = pq.ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path.name} is not a parquet file: give a {FORMATS} file.") from error
    with file:
        check_unpacked(file.metadata, path.name)
        done = 0
        try:
            for batch in file.iter_batches(_PARQUET_ROWS):
                yield from batch.to_pylist()
                done += batch.num_rows
        except (pa.ArrowException, OSError):
            # A damaged page ends the file: parquet cannot be resynchronised.
            yield Corrupt(f"{path.name} after row {done:,}", "the rest of the file cannot be read")


def _lines(path: Path) -> Iterator[str | Corrupt]:
    """The file's lines; one that is too long is left out without being held, packed or not."""
    opener = gzip.open if path.suffix.lower() == ".gz" else open
    number = 0
    try:
        with opener(path, "rt", encoding="utf-8-sig", errors="replace", newline="") as file:
            while line := file.readline(_LINE_CHARS + 1):
                number += 1
                if len(line) <= _LINE_CHARS:
                    yield line
                    continue
                while line and not line.endswith(("\n", "\r")):
                    line = file.readline(_LINE_CHARS)
                yield Corrupt(f"{path.name} line {number:,}", f"longer than {_LINE_CHARS:,} characters")
    except (OSError, EOFError, zlib.error) as error:
        if number == 0:
            raise InputError(f"{path.name} cannot be read ({error}): give a {FORMATS} file.") from error
        yield Corrupt(f"{path.name} after line {number:,}", "the rest of the file cannot be read")


def _json_lines(lines: Iterator[str | Corrupt], name: str) -> Iterator[dict[str, Any] | Corrupt]:
    good = False
    for number, line in enumerate(lines, 1):
        if isinstance(line, Corrupt):
            yield line
            continue
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            record = None
        if isinstance(record, dict):
            good = True
            yield record
        else:
            yield Corrupt(f"{name} line {number:,}", "not a JSON object")
        if not good and number >= _BATCH_ROWS:
            break
    if not good:
        raise InputError(
            f"{name} holds no listing: each line must be a JSON object with a title and a price."
        )


def _csv(path: Path, delimiter: str) -> Iterator[dict[str, Any] | Corrupt]:
    csv.field_size_limit(_LINE_CHARS)
    broken: list[Corrupt] = []

    def text_lines() -> Iterator[str]:
        for line in _lines(path):
            if isinstance(line, Corrupt):
                broken.append(line)
            else:
                yield line.replace("\0", "")

    reader = csv.reader(text_lines(), delimiter=delimiter)
    header = [name.strip() for name in next(reader, [])]
    while True:
        try:
            row = next(reader)
        except StopIteration:
            break
        except csv.Error as error:
            yield Corrupt(f"{path.name} line {reader.line_num:,}", f"not CSV: {error}")
            continue
        if not row:
            continue
        if len(row) == len(header):
            yield dict(zip(header, row, strict=True))
        else:
            yield Corrupt(f"{path.name} line {reader.line_num:,}", "another number of fields than the header")
    yield from broken


def _hub(name: str) -> Iterator[dict[str, Any] | Corrupt]:
    # Imported here: datasets takes seconds, and local files do without it.
    from datasets import load_dataset

    raw = _RAW_NAME.match(name)
    expect_answers()
    try:
        if raw:
            # The raw files hold JSON whose fields differ from row to row: read as text, parsed here.
            url = f"hf://datasets/{RAW_DATASET}/raw/meta_categories/meta_{raw[1]}.jsonl"
            rows = load_dataset("text", data_files=url, split="train", streaming=True)
            yield from _json_lines((row["text"] for row in rows), name)
        else:
            repository, _, split = name.partition(":")
            yield from load_dataset(repository, split=split or "train", streaming=True)
    except InputError:
        raise
    except Exception as error:  # what the Hub's client raises has no common type
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise SetupError(
            f"{name} could not be read from the Hub ({reason}): check its name and the network, "
            "or download it and name the file."
        ) from error
