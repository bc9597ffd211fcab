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
        """The reason, and where a quotation mark took other lines along."""
        return (
            f"{self.reason} ({self.span})"
            if "lines" in self.span or "quotation" in self.reason
            else self.reason
        )

    @property
    def place(self) -> str:
        """Where it stands, with its line where that is not what the number leads to expect."""
        plain = (
            not self.lines
            or self.lines[0] in (self.number, self.number + 1)
            or self.full_reason != self.reason
        )
        return f"row {self.number:,}" if plain else f"row {self.number:,} ({self.span})"
