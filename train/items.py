"""The items of an evaluation set, with a label of a few words for each and no other text.

    python -m train.items pricer_test.parquet --labels labels.tsv --out pricer/assets/runs
    python -m train.items everyday_test.parquet --labels everyday.tsv --set everyday --out pricer/assets/runs

The labels' file has a line `index<TAB>label` for each item: 2 to 8 words of one's own. One that takes more than three
words in a row over from its listing is refused. Categories of fewer than 8 items become "Other".
"""

from __future__ import annotations

import argparse
import re
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd

from pricer.arena.runs import ITEM_SETS, save_items
from pricer.errors import InputError, PricerError, report
from pricer.tables.lines import decode
from train.data import load_items

LABEL_WORDS, LABEL_CHARS, SHARED_WORDS = (2, 8), 60, 3
FEW = 8  # items: a category of fewer says nothing on its own
_WORD = re.compile(r"[a-z0-9]+(?:[.'][a-z0-9]+)*")


def load_labels(path: Path) -> dict[int, str]:
    """Label by index. Raises InputError for a line that is none or an index that stands there twice."""
    labels: dict[int, str] = {}
    try:
        lines = decode(path.read_bytes()).splitlines()
    except InputError as reason:
        raise InputError(f"{path.name} is {reason}: save it as UTF-8.") from None
    for number, line in enumerate(lines, 1):
        index, _, label = line.partition("\t")
        if not index.isdecimal() or int(index) in labels or not label.strip() or "\t" in label:
            raise InputError(
                f"Line {number} of {path.name} is no `index<TAB>label` of a new item: correct it."
            )
        labels[int(index)] = label.strip()
    return labels


def shared_words(label: str, text: str) -> int:
    """How many words in a row the label has in common with the listing, at most."""
    words, listing = _WORD.findall(label.lower()), f" {' '.join(_WORD.findall(text.lower()))} "
    runs = (words[start:end] for start in range(len(words)) for end in range(start + 1, len(words) + 1))
    return max((len(run) for run in runs if f" {' '.join(run)} " in listing), default=0)


def items_of(rows: pd.DataFrame, labels: dict[int, str]) -> pd.DataFrame:
    """index (position in the file, where it has none), category, price_usd and label of each row.

    Raises InputError for a row without a label, or one that is too long, too short or copied.
    """
    index = rows["index"] if "index" in rows else pd.Series(np.arange(len(rows)))
    category = rows["category"].fillna("").replace("", "Not stated")
    many = category.map(category.value_counts()) >= FEW
    for at, text in zip(index, rows["text"], strict=True):
        label = labels.get(int(at), "")
        words = len(label.split())
        if not LABEL_WORDS[0] <= words <= LABEL_WORDS[1] or len(label) > LABEL_CHARS:
            raise InputError(
                f"Item {at} has the label {label!r}: write {LABEL_WORDS[0]} to {LABEL_WORDS[1]} words, "
                f"at most {LABEL_CHARS} characters."
            )
        if (run := shared_words(label, text)) > SHARED_WORDS:
            raise InputError(
                f"The label of item {at} has {run} words in a row from its listing: use words of your own."
            )
    return pd.DataFrame(
        {
            "index": index.astype(int),
            "category": category.where(many, "Other"),
            "price_usd": rows["price"],
            "label": [labels[int(at)] for at in index],
        }
    )


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m train.items", description=__doc__.split("\n")[0])
    parser.add_argument("file", help="csv, parquet or jsonl with prompt, text or title, price and category")
    parser.add_argument("--labels", required=True, type=Path, help="a line index<TAB>label for each item")
    parser.add_argument("--set", choices=ITEM_SETS, default="benchmark", help="default: benchmark")
    parser.add_argument("--out", required=True, type=Path, help="folder of the runs")
    options = parser.parse_args(argv)
    try:
        rows, labels = load_items(options.file), load_labels(options.labels)
        items = items_of(rows, labels)
        path = save_items(options.out, items, options.set)
    except (PricerError, OSError) as error:
        return report(error)
    shared = Counter(shared_words(*pair) for pair in zip(items["label"], rows["text"], strict=True))
    runs = ", ".join(f"{count:,} of {words}" for words, count in sorted(shared.items()))
    print(f"{len(items):,} items: {path}; longest runs of words in common with the listing: {runs}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
