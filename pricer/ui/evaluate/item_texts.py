"""Product text of the test items, looked up once in the background: the Hub may take long to say no."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from pricer.arena.runs import load_item_texts


class ItemTexts:
    """`get(index)` answers at once, with None while the texts are `waiting` or where there is none."""

    def __init__(self, path: Path | None, items: pd.DataFrame):
        self._path, self._items = path, items
        self._lookup: Future | None = None
        self._lock = threading.Lock()

    def start(self) -> None:
        """Look them up, the first time this is called."""
        with self._lock:
            if self._lookup is None:
                lookup: Future = Future()
                lookup.set_running_or_notify_cancel()  # it is everybody's: one who leaves does not end it
                threading.Thread(target=self._load, args=[lookup], name="item texts", daemon=True).start()
                self._lookup = lookup

    async def looked_up(self, seconds: float) -> bool:
        """Whether they have been looked up, waited for so long at most."""
        self.start()
        await asyncio.wait([asyncio.wrap_future(self._lookup)], timeout=seconds)
        return not self.waiting

    @property
    def waiting(self) -> bool:
        return self._lookup is None or not self._lookup.done()

    def get(self, index: int) -> str | None:
        texts = self.found
        return None if texts is None or index not in texts.index else str(texts[index])

    @property
    def found(self) -> pd.Series | None:
        """All of them by item index, as far as they are known now."""
        return None if self.waiting else self._lookup.result()

    def _load(self, lookup: Future) -> None:
        texts = None
        try:
            texts = load_item_texts(self._path, self._items)
        finally:  # whatever comes, nobody waits for ever
            lookup.set_result(texts)


@dataclass(frozen=True)
class SessionTexts:
    """The same with the texts of a visitor's own items."""

    shared: ItemTexts
    own: Mapping[int, str]

    @property
    def waiting(self) -> bool:
        return self.shared.waiting

    def get(self, index: int) -> str | None:
        return self.own.get(index) or self.shared.get(index)
