"""From a source's records to clean rows, with a tally of those that cannot be used."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

from tqdm import tqdm

from pricer.errors import InputError
from pricer.tables.cells import Amounts
from pricer.tables.columns import TEXT_NAMES, check_there, choose, is_there, normal
from train.clean import parse_price, plain, record_text
from train.sources import Source

# How many places of each reason are shown.
SHOWN = 5
# After so many records without the columns of a listing, a file is taken to be the wrong one.
PATIENCE = 4_096
_WAYS = "name the one that holds it with --columns"


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


def listing_row(
    record: dict[str, Any], source: Source, min_chars: int, amounts: Amounts | None = None
) -> dict[str, Any]:
    """The row that a record becomes; `amounts` know how its column writes prices. Raises InputError, whose message is
    the reason to leave it out."""
    price_usd = parse_price(record.get("price_usd"), amounts)
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


def test_item(record: dict[str, Any], amounts: Amounts | None = None) -> dict[str, Any]:
    """What is compared of a test item: its text, however short, whatever its price."""
    return {"text": record_text(record)}


COLUMNS = (
    *TEXT_NAMES,
    "price_usd",
    "features",
    "details",
    "category",
    "main_category",
    "target_like",
    "source",
)


def clean_rows(
    source: Source,
    tally: Tally,
    to_row: Callable[..., dict[str, Any]],
    *,
    needed: tuple[str, ...] = ("text",),
    columns: dict[str, str] | None = None,
    limit: int = 0,
) -> Iterator[dict[str, Any]]:
    """The source's rows that can be used; the rest is tallied. `columns` maps our names to the source's.

    Raises InputError when the source has not the `needed` columns, so that a wrong file is not taken
    for one in which every row happens to be bad. Of the Hub that is known when no record had them.
    """
    table, usable, seen, chosen, amounts = source.table, False, (), {}, None
    if table:
        usable, seen = True, tuple(table.names)
        chosen = _choose(seen, source, columns, tally)
        check_there(needed, chosen, seen, source.name, _WAYS)
        priced = [chosen["price_usd"]] if "price_usd" in needed else []
        amounts = next(iter(table.survey(priced).amounts.values()), None)
    for count, row in enumerate(tqdm(source.rows(), desc=source.name, unit=" records", disable=None), 1):
        if limit and count > limit:
            break
        tally.read += 1
        place = f"{source.name} {row.span or f'record {row.number:,}'}"
        if not table and not row.reason and seen != (seen := tuple(row.cells)):
            chosen = _choose(seen, source, columns, tally)
            usable = usable or all(is_there(column, chosen) for column in needed)
        if not usable and count >= PATIENCE:
            break
        try:
            if row.reason:
                raise InputError(row.reason)
            record = {ours: row.cells.get(theirs) for ours, theirs in chosen.items()}
            made = to_row(record, amounts=amounts)
        except InputError as reason:
            tally.leave_out(str(reason), place)
            continue
        tally.kept += 1
        yield made
    if not usable:
        check_there(needed, chosen, seen, source.name, _WAYS)


def _choose(
    names: tuple[str, ...], source: Source, columns: dict[str, str] | None, tally: Tally
) -> dict[str, str]:
    """Our name -> the source's, for those that it has; of several sources each may lack some of the mapping's."""
    known = set(map(normal, names))
    there = {ours: theirs for ours, theirs in (columns or {}).items() if normal(theirs) in known}
    tally.columns_found.update(there.values())
    return choose(names, COLUMNS, source.name, there)
