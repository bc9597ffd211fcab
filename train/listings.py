"""From a source's records to clean rows, with a tally of those that cannot be used."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

from tqdm import tqdm

from pricer.errors import InputError
from train.clean import parse_price, plain, record_text
from train.sources import Corrupt, Source

# How many places of each reason are shown.
SHOWN = 5
# After so many records without the columns of a listing, a file is taken to be the wrong one.
PATIENCE = 4_096


class Tally:
    """What became of the records: how many were left out and why, with the first places of each reason."""

    def __init__(self) -> None:
        self.read = self.kept = 0
        self.reasons: Counter[str] = Counter()
        self.places: dict[str, list[str]] = {}
        self.columns_found: set[str] = set()

    def leave_out(self, reason: str, place: str) -> None:
        self.reasons[reason] += 1
        places = self.places.setdefault(reason, [])
        if len(places) < SHOWN:
            places.append(place)

    def __str__(self) -> str:
        lines = [f"{self.read:,} records read, {self.kept:,} kept"]
        for reason, count in self.reasons.most_common():
            lines.append(f"  {count:,} left out: {reason} ({'; '.join(self.places[reason])})")
        return "\n".join(lines)


def listing_row(record: dict[str, Any], source: Source, min_chars: int) -> dict[str, Any]:
    """The row that a record becomes. Raises InputError, whose message is the reason to leave it out."""
    price_usd = parse_price(record.get("price"))
    text = record_text(record)
    if len(text) < min_chars:
        raise InputError("too little text")
    return {
        "text": text,
        "price": price_usd,
        "category": source.category or plain(record.get("category") or record.get("main_category")),
        "title": text.partition("\n")[0],
        "target_like": str(record.get("target_like")).strip().lower() in ("true", "1", "1.0"),
        "source": plain(record.get("source")) or source.name,
    }


def test_item(record: dict[str, Any]) -> dict[str, Any]:
    """What is compared of a test item: its text, however short, whatever its price."""
    return {"text": record_text(record)}


def clean_rows(
    source: Source,
    tally: Tally,
    to_row: Callable[[dict[str, Any]], dict[str, Any]],
    *,
    needed: tuple[str, ...] = (),
    columns: dict[str, str] | None = None,
    limit: int = 0,
) -> Iterator[dict[str, Any]]:
    """The source's rows that can be used; the rest is tallied. `columns` maps our names to the source's.

    Raises InputError when no record has a text and the `needed` columns, so that a wrong file is not taken
    for one in which every row happens to be bad.
    """
    usable, seen = False, ""
    records = tqdm(source.records(), desc=source.name, unit=" records", disable=None)
    for number, record in enumerate(records, 1):
        if limit and number > limit:
            break
        tally.read += 1
        if isinstance(record, Corrupt):
            tally.leave_out(record.reason, record.place)
            continue
        for ours, theirs in (columns or {}).items():
            if theirs in record:
                record[ours] = record[theirs]
                tally.columns_found.add(theirs)
        if not usable:
            usable = record.keys() >= set(needed) and not record.keys().isdisjoint(
                ("prompt", "text", "title")
            )
            seen = ", ".join(map(str, list(record)[:12]))
            if not usable and number >= PATIENCE:
                break
        try:
            row = to_row(record)
        except InputError as reason:
            tally.leave_out(str(reason), f"{source.name} record {number:,}")
            continue
        tally.kept += 1
        yield row
    if not usable:
        columns = " and ".join((*needed, "one of prompt, text or title"))
        raise InputError(
            f"{source.name} has no {columns} (it has: {seen or 'nothing'}): name them with --columns."
        )
