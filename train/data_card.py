"""The data card: what was made of what, with counts and hashes, so that it can be checked and repeated."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from pricer.files import file_sha256
from train.sources import Source


def describe(path: Path) -> dict[str, Any]:
    """Rows, groups, price quantiles (dollars), categories, sources and hash of a split's file."""
    rows = pq.read_table(path, columns=["price", "category", "source", "group", "target_like"]).to_pandas()
    levels = {"min": 0, "q10": 0.1, "q25": 0.25, "median": 0.5, "q75": 0.75, "q90": 0.9, "max": 1}
    price_usd = {name: rows["price"].quantile(level) for name, level in levels.items()}
    price_usd["mean"] = rows["price"].mean()
    return {
        "rows": len(rows),
        "groups": int(rows["group"].nunique()),
        "target_like": int(rows["target_like"].sum()),
        "price_usd": {name: round(float(value), 2) for name, value in price_usd.items()} if len(rows) else {},
        "categories": {name: int(count) for name, count in rows["category"].value_counts().items()},
        "sources": {name: int(count) for name, count in rows["source"].value_counts().items()},
        "sha256": file_sha256(path),
    }


def source_card(source: Source) -> dict[str, Any]:
    """A source by name, with its hash where it is a file; of the Hub, what it answered is not hashed."""
    return {"name": source.name} | (
        {"sha256": file_sha256(source.path)} if source.path else {"from": "Hugging Face Hub"}
    )


def data_card(
    options: dict[str, Any],
    sources: list[Source],
    tests: list[Source],
    counts: dict[str, Any],
    files: dict[str, Path],
) -> dict[str, Any]:
    """The card of the splits in `files`: names of files, but no paths and no listing text."""
    return {
        "made_by": "python -m train.prepare",
        "options": options,
        "sources": [source_card(source) for source in sources],
        "against": [source_card(test) for test in tests],
        "counts": counts,
        "splits": {name: describe(path) for name, path in files.items()},
    }
