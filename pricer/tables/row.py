"""One row of a table from outside: its cells, or the reason why it cannot be used, and where it stands."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Row:
    """`cells` by the file's names for the columns; empty where there is a `reason` why the row cannot be used."""

    number: int
    cells: Mapping[str, Any] = field(default_factory=dict)
    reason: str = ""
    size: int = 0  # bytes
    lines: tuple[int, int] | None = None  # the file's first and last line of it; None for parquet

    @property
    def span(self) -> str:
        """The lines of the file that it took; "" for parquet."""
        first, last = self.lines or (0, 0)
        return f"lines {first:,} to {last:,}" if last > first else f"line {first:,}" if self.lines else ""

    @property
    def full_reason(self) -> str:
        """The reason, and the lines where a quotation mark may have taken some along."""
        told = "lines" in self.span or "quotation" in self.reason
        return f"{self.reason} ({self.span})" if told else self.reason

    @property
    def place(self) -> str:
        """Where it stands, with its lines where they are not the one that the number leads to expect."""
        usual = self.lines in (None, (self.number,) * 2, (self.number + 1,) * 2)
        return f"row {self.number:,}" if usual else f"row {self.number:,} ({self.span})"
