"""Product text of the test items, looked up once in the background: the Hub may take long to say no."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from pricer.arena.runs import load_item_texts


class ItemTexts:
    """`get(index)` answers at once, with None while the texts are `waiting` or where there is none."""

    def __init__(self, path: Path | None, items: pd.DataFrame):
        self._path, self._items = path, items
        self._texts: pd.Series | None = None
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()

    def start(self) -> None:
        """Look them up, the first time this is called."""
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._load, name="item texts", daemon=True)
                self._thread.start()

    @property
    def waiting(self) -> bool:
        return self._thread is None or self._thread.is_alive()

    def get(self, index: int) -> str | None:
        if self._texts is None or index not in self._texts.index:
            return None
        return str(self._texts[index])

    @property
    def found(self) -> pd.Series | None:
        """All of them by item index, as far as they are known now."""
        return self._texts

    def _load(self) -> None:
        self._texts = load_item_texts(self._path, self._items)


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
