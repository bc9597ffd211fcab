"""A view as a value and as a link."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pricer.arena import view as views
from pricer.arena.arena import Arena
from pricer.arena.metrics import OUTCOMES
from pricer.arena.runs import load_items, load_runs
from pricer.arena.view import COLUMNS, EVERYDAY_PAIR, PANELS, PRESETS, SETS, SORTS, View, is_link

RUNS = ("one", "two", "llama-3.1-8b-base", "llama-3.1-8b-qlora-seed")
CATEGORIES = ("Toys & Games", "Office=Products", "Büro", "plain")


def usd(low=0.0):
    return st.floats(low, 999_999, allow_nan=False)


def some(values):
    return st.sets(st.sampled_from(values)).map(lambda chosen: tuple(sorted(chosen)))


@st.composite
def any_view(draw):
    low, high = sorted([draw(usd()), draw(usd())])
    return View(
        run_a=draw(st.sampled_from(RUNS)),
        run_b=draw(st.sampled_from(RUNS)),
        categories=draw(some(CATEGORIES)),
        low_usd=draw(st.sampled_from([None, low])),
        high_usd=draw(st.sampled_from([None, high])),
        outcomes_a=draw(some(OUTCOMES)),
        outcomes_b=draw(some(OUTCOMES)),
        apart_usd=draw(usd()),
        preset=draw(st.sampled_from(("", *PRESETS))),
        selection=tuple(sorted(draw(st.sets(st.integers(0, 2_000), max_size=300)))),
        log_axis=draw(st.booleans()),
        panel=draw(st.sampled_from(PANELS)),
        sort=draw(st.sampled_from(SORTS)),
        item_set=draw(st.sampled_from(SETS)),
        words=draw(st.sampled_from(("", "drill", 'two "kit"', "a&b=c"))),
        by_share=draw(st.booleans()),
        everyone=draw(st.booleans()),
        find=draw(st.sampled_from(("", "gpt 4", "é"))),
        kinds=draw(some(("base", "own", "tuned"))),
        columns=tuple(c for c in COLUMNS if draw(st.booleans())),
        pins=draw(some(RUNS)),
        item=draw(st.none() | st.integers(0, 100_000)),
    )


def read(query):
    return View().from_query(query, runs=RUNS, categories=CATEGORIES)


@given(any_view())
def test_a_link_restores_the_view(view):
    query = view.to_query()
    assert read(query) == (view, [])
    assert is_link(query)
    assert len(query) < 1_700


def test_a_plain_view_is_a_short_link():
    assert View("one", "two").to_query() == "tab=evaluation&a=one&b=two"


@pytest.mark.parametrize(
    "part",
    [
        "a=three",
        "cat=Cars",
        "from=NaN",
        "from=-1",
        "to=much",
        "was_b=luck",
        "preset=all",
        "sel=!!",
        "sel=AAAA",
        "axis=round",
        "panel=x",
        "sort=x",
        "item=-3",
        "item=" + "9" * 30,
        "item=" + "9" * 5_000,
        "from=10&to=5",
    ],
)
def test_what_a_link_cannot_have_is_said_and_the_rest_stays(part):
    view, complaints = read(f"b=two&{part}&apart=12.5")
    assert view == View(run_b="two", apart_usd=12.5)
    assert len(complaints) == 1
    assert len(complaints[0]) < 150


@pytest.mark.parametrize("query", ["", "__theme=dark&utm=x", "%%%=&&==", "&".join("x=1" for _ in range(300))])
def test_foreign_keys_pass_without_a_word(query):
    assert read(query) == (View(), [])
    assert not is_link(query)


def test_a_selection_that_claims_gigabytes_is_refused():
    import base64
    import zlib

    bomb = base64.urlsafe_b64encode(zlib.compress(bytes(1 << 22), 9)).decode().rstrip("=")
    view, complaints = read(f"sel={bomb}")
    assert view.selection == ()
    assert len(complaints) == 1


def test_a_selection_too_large_for_a_link_is_left_out():
    import random

    scattered = tuple(sorted(random.Random(0).sample(range(100_000), 5_000)))
    assert read(View(selection=scattered).to_query()) == (View(), [])


@given(any_view())
def test_reset_keeps_runs_and_axes_and_swapping_twice_is_nothing(view):
    plain = view.reset()
    assert not plain.filtered
    kept = ("run_a", "run_b", "log_axis", "panel", "sort", "item")
    assert [getattr(plain, name) for name in kept] == [getattr(view, name) for name in kept]
    assert view.swapped().swapped() == view
    assert (view.swapped().run_a, view.swapped().outcomes_a) == (view.run_b, view.outcomes_b)


def test_every_field_can_stand_in_a_link():
    assert {field for field, _ in views._READERS.values()} == {f.name for f in dataclasses.fields(View)}


def test_a_link_with_a_run_of_ones_own_says_who_has_it():
    view, complaints = read("tab=evaluation&a=own-mine&b=two&pin=own-x")
    assert view.run_b == "two" and view.pins == ()
    assert complaints == [
        "The link’s a=own-mine is a run that only the visitor who added it has; it was left out.",
        "The link’s pin=own-x is a run that only the visitor who added it has; it was left out.",
    ]


def test_the_everyday_items_open_with_what_compare_shows():
    arena = Arena(load_runs()["everyday"], load_items(item_set="everyday"))
    first = arena.first_view()
    assert (first.run_a, first.run_b) == EVERYDAY_PAIR
    assert arena.infos[first.run_b].prior == "shop" and len(arena.pair(*EVERYDAY_PAIR)) == 750
