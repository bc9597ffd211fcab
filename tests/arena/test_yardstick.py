"""A run that nobody else's items meet is measured against their median price, never against itself."""

import pandas as pd

from pricer.arena.arena import Arena
from pricer.arena.own_runs import OWN_INDEX, OwnRuns
from pricer.arena.runs import Run, RunInfo, load_items, load_runs
from pricer.arena.view import SEED_PAIR, View
from pricer.arena.yardstick import alone, with_yardstick


def own_with(name, indexes, prices):
    products = pd.DataFrame({"text": [f"Lamp {i}" for i in indexes], "price_usd": prices})
    own, placed = OwnRuns().place(products, load_items())
    table = pd.DataFrame({"index": placed, "guess_usd": 10.0})
    return own.with_runs(Run(RunInfo(name=name, label="mine", kind="own"), table))


def test_own_items_get_a_yardstick():
    own = with_yardstick(own_with("own-mine", range(3), [10.0, 20.0, 90.0]), "own-mine")
    assert list(own.runs) == ["own-mine", "own-mine-median"]
    assert own.runs["own-mine-median"].table["guess_usd"].tolist() == [20.0] * 3
    assert len(alone(own, "own-mine")) == 0  # now somebody else has them
    arena = Arena(load_runs()["benchmark"], load_items()).with_runs(own.runs, own.items)
    figures = arena.head_to_head(View("own-mine-median", "own-mine"))
    assert figures.items == 3 and figures.verdict == "few"


def test_test_items_need_none():
    table = pd.DataFrame({"index": [1, 2], "guess_usd": [3.0, 4.0]})
    own = OwnRuns().with_runs(Run(RunInfo(name="own-x", label="x", kind="own"), table))
    assert with_yardstick(own, "own-x") is own


def test_two_visitors_items_of_the_same_prices_keep_their_own_names():
    runs, items = load_runs()["benchmark"], load_items()
    own = own_with("own-mine", range(2), [10.0, 20.0])
    names = []
    for label in ("mine", "yours"):
        arena = Arena(runs, items).with_runs(own.runs, own.items.assign(label=label))
        names.append(arena.pair("own-mine", "own-mine")["label"].tolist())
    assert names == [["mine"] * 2, ["yours"] * 2]
    assert arena.item(OWN_INDEX).label == "yours"


def test_one_walks_by_price_or_in_the_presets_order():
    arena = Arena(load_runs()["benchmark"], load_items())
    walk = arena.walk(View(*SEED_PAIR))
    prices = arena.items.set_index("index")["price_usd"][walk]
    assert len(walk) == 250 and prices.is_monotonic_increasing
    preset = View(*SEED_PAIR, preset="worst-b")
    assert arena.walk(preset).tolist() == arena.index[arena.narrowed(preset).ranked].tolist()
