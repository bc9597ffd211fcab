"""Slices in which B stands out: what is found is there, and chance alone is not."""

import numpy as np
import pandas as pd
import pytest

from pricer.arena.findings import FEWEST, findings
from pricer.arena.narrowing import contradiction
from pricer.arena.records import HeadToHead
from pricer.arena.resampling import Estimate
from pricer.arena.slices import has_words
from pricer.arena.view import View


def table(seed=0, items=800):
    rng = np.random.default_rng(seed)
    words = rng.choice(["lamp", "drill", "piano", "cable"], items)
    return pd.DataFrame(
        {
            "index": np.arange(items),
            "label": [f"Green {word} for a car" for word in words],
            "category": rng.choice(["Tools", "Music"], items),
            "price_usd": np.exp(rng.uniform(0, 6.5, items)),
            "error_usd_a": rng.exponential(50, items),
            "error_usd_b": rng.exponential(50, items),
        }
    )


def test_a_slice_that_is_worse_is_found_and_named():
    items = table()
    piano = items["label"].str.contains("piano")
    items.loc[piano, "error_usd_b"] += 60
    found = findings(items)
    assert found.losses[0].word == "piano" and found.losses[0].items == piano.sum()
    gap = (items["error_usd_b"] - items["error_usd_a"])[piano].mean()
    assert found.losses[0].gap_usd == pytest.approx(gap)
    assert 0 < found.losses[0].low_usd < gap < found.losses[0].high_usd
    assert found.level > 0.95  # wider than for a slice that was chosen beforehand


def test_chance_alone_is_hardly_ever_a_finding():
    found = [findings(table(seed)) for seed in range(20)]
    assert all(one.looked_at >= 5 for one in found)
    assert sum(bool(one.losses or one.wins) for one in found) <= 3


def test_few_items_are_no_slice():
    assert findings(table(items=FEWEST - 1)).looked_at == 0


@pytest.mark.parametrize(
    ("words", "kept"),
    [("", 3), ("exhau", 1), ("KIT", 2), ('"kit"', 1), ("a.c", 0), ("ford exhaust", 1), ('"', 0)],
)
def test_words_are_found_whole_or_from_their_beginning(words, kept):
    labels = pd.DataFrame({"label": ["Exhaust pipe for a Ford", "Tool kit, 30 parts", "Kitchen scale"]})
    assert has_words(labels, words).sum() == kept


def _pair(low, high, items, p_value):
    gap = {"error_usd": Estimate(-5.0, low, high)}
    return HeadToHead(items, {}, {}, gap, 0, 0, items, p_value)


@pytest.mark.parametrize(
    ("low", "high", "items", "p_value", "verdict"),
    [
        (-9, -1, 100, 0.01, "b"),
        (-9, 1, 100, 0.2, "unclear"),
        (-9, -1, 29, 0.01, "few"),
        (-9, 1, 29, 0.5, "few"),
        (-9, -1, 100, 0.06, "few"),
        (-9, 1, 100, 0.04, "few"),
    ],
)
def test_no_verdict_without_evidence(low, high, items, p_value, verdict):
    assert _pair(low, high, items, p_value).verdict == verdict


def test_the_fewest_filters_that_exclude_each_other_are_named():
    items = table().assign(guess_usd_a=1.0, guess_usd_b=2.0, outcome_a="hit", outcome_b="miss")
    view = View("a", "b", categories=("Tools",), low_usd=300.0, high_usd=20.0, words="green")
    assert contradiction(items, view) == ("low_usd", "high_usd")
    assert contradiction(items, View("a", "b", words="submarine", low_usd=3.0)) == ("words",)
    assert contradiction(items, View("a", "b", low_usd=3.0)) == ()
    assert contradiction(items, View("a", "b", preset="overpriced", low_usd=90.0)) == ("low_usd", "preset")
