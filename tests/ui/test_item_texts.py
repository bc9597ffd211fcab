"""The lookup of the test items' texts: once for everybody, and nobody waits for ever."""

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pandas as pd
import pytest

from pricer.arena.runs import load_items
from pricer.ui.evaluate import item_texts
from pricer.ui.evaluate.item_texts import ItemTexts

ITEMS = load_items()


def run(work):
    """In a thread of its own: the browser of other tests has a loop in this one."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, work).result()


@pytest.fixture
def held(monkeypatch):
    """`held.set()` ends the lookup; `held.count` of them were begun."""
    ended = threading.Event()
    ended.count = 0

    def load(path, items):
        ended.count += 1
        assert ended.wait(60)
        return pd.Series(["a hand-made lamp"], index=[7])

    monkeypatch.setattr(item_texts, "load_item_texts", load)
    yield ended
    ended.set()


def test_all_wait_for_one_lookup_and_one_who_leaves_does_not_end_it(held):
    texts = ItemTexts(None, ITEMS)

    async def visitors():
        leaves, *stay = [asyncio.create_task(texts.looked_up(60)) for _ in range(20)]
        await asyncio.sleep(0)
        leaves.cancel()
        assert texts.waiting and texts.found is None and texts.get(7) is None
        held.set()
        return await asyncio.gather(*stay)

    assert run(visitors()) == [True] * 19
    assert (held.count, texts.get(7), texts.get(8), texts.waiting) == (1, "a hand-made lamp", None, False)


def test_who_has_waited_long_enough_is_told_and_may_ask_again(held):
    texts = ItemTexts(None, ITEMS)
    start = time.monotonic()
    assert not run(texts.looked_up(0.05))
    assert time.monotonic() - start < 30
    held.set()
    assert run(texts.looked_up(60)) and held.count == 1


def test_a_lookup_that_dies_finds_nothing(monkeypatch):
    class Panic(BaseException):
        """As a library in another language raises it."""

    def load(path, items):
        raise Panic

    monkeypatch.setattr(item_texts, "load_item_texts", load)
    monkeypatch.setattr(threading, "excepthook", lambda died: None)
    texts = ItemTexts(None, ITEMS)
    assert run(texts.looked_up(60))
    assert not texts.waiting and texts.found is None
