"""The arena against `metrics` and against counting by hand; filters never lose an item or show one twice."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pricer.arena import answers, metrics
from pricer.arena.arena import Arena
from pricer.arena.metrics import OUTCOMES
from pricer.arena.narrowing import PRESET_ITEMS
from pricer.arena.runs import Run, RunInfo, join_pair, load_items, load_runs
from pricer.arena.view import EMBEDDED_PAIR, PRESETS, SEED_PAIR, View
from pricer.errors import InputError

RUNS, ITEMS = load_runs()["benchmark"], load_items()
ARENA = Arena(RUNS, ITEMS)
SEED, EMBEDDED = View(*SEED_PAIR), View(*EMBEDDED_PAIR)


def run(name, index, guess_usd, **more):
    info = RunInfo(name=name, label=name.upper(), kind="tuned")
    return Run(info, pd.DataFrame({"index": index, "guess_usd": np.asarray(guess_usd, dtype=float), **more}))


def small(**guesses):
    """Six items at 10, 20, 30, 40, 500, 600 dollars in two categories; a guess per item, None: it has none."""
    price_usd = [10.0, 20, 30, 40, 500, 600]
    items = pd.DataFrame({"index": [3, 4, 7, 8, 9, 12], "category": list("xxxyyy"), "price_usd": price_usd})
    runs = {}
    for name, guess in guesses.items():
        has = [g is not None for g in guess]
        runs[name] = run(name, items["index"][has], [g for g in guess if g is not None])
    return Arena(runs, items)


def test_the_seeds_pair_is_the_first_view_and_has_the_published_figures():
    view = ARENA.first_view()
    assert (view.run_a, view.run_b) == SEED_PAIR
    figures = ARENA.head_to_head(view)
    assert figures.items == 250
    for end, error_usd, rmsle, hits_pct in ((figures.a, 395.72, 1.49, 28.0), (figures.b, 52.09, 0.39, 68.4)):
        assert round(end["error_usd"].value, 2) == error_usd
        assert round(end["rmsle"].value, 2) == rmsle
        assert round(end["hits_pct"].value, 1) == hits_pct


@pytest.mark.parametrize("view", [SEED, EMBEDDED, View("gpt-5", "embedded-tuned", low_usd=50)])
def test_head_to_head_is_what_metrics_say_of_the_shared_items(view):
    both = join_pair(RUNS[view.run_a], RUNS[view.run_b], ITEMS)
    both = both[both["price_usd"] >= (view.low_usd or 0)]
    comparison = metrics.compare(both["price_usd"], both["guess_usd_a"], both["guess_usd_b"])
    figures = ARENA.head_to_head(view)
    assert figures.items == comparison.items == len(both)
    assert (figures.wins_a, figures.ties, figures.wins_b) == (
        comparison.wins,
        comparison.ties,
        comparison.losses,
    )
    assert figures.p_value == comparison.p_value
    for name in ("error_usd", "rmsle", "hits_pct", "median_error_usd"):
        forward, backward = getattr(comparison, name), figures.difference[name]
        expected = (-forward.value, -forward.high, -forward.low)
        assert (backward.value, backward.low, backward.high) == pytest.approx(expected), name
    alone = metrics.summarise(both["price_usd"], both["guess_usd_b"], constant_usd=ARENA.constant_usd)
    for name in ("error_usd", "mape_pct", "r2", "skill"):
        assert figures.b[name] == getattr(alone, name)


def test_metrics_that_one_run_cannot_have():
    figures = ARENA.head_to_head(View("gpt-5", "embedded-tuned"))
    assert "coverage_pct" in figures.b and "coverage_pct" not in figures.a
    assert "coverage_pct" not in figures.difference
    assert "coverage_pct" in ARENA.head_to_head(EMBEDDED).difference


def test_the_constant_is_the_training_mean_and_without_it_there_is_no_skill():
    assert pytest.approx(220.46) == ARENA.constant_usd
    assert ARENA.head_to_head(View("constant", SEED_PAIR[1])).a["skill"].value == 0
    assert "skill" not in small(a=[1] * 6, b=[2] * 6).head_to_head(View("a", "b")).a


def test_wins_by_hand_and_no_items():
    arena = small(a=[10, 30, 30, 41, 500, None], b=[11, 10, 30, 40, 700, 600])
    figures = arena.head_to_head(View("a", "b"))
    assert (figures.items, figures.wins_a, figures.ties, figures.wins_b) == (5, 2, 2, 1)
    assert arena.head_to_head(View("a", "b", low_usd=550)) is None
    assert arena.leaderboard(View("a", "b", low_usd=550)).standings == []
    assert arena.groups(View("a", "b", low_usd=550)) == ([], [])
    assert arena.coverage(View("a", "b")) == []


# Leaderboard ---------------------------------------------------------------------------------------------


def test_leaderboard_is_what_metrics_say_of_each_run():
    board = ARENA.leaderboard(SEED)
    assert board.items == 250
    assert {standing.name for standing in board.standings} == set(RUNS)
    best = board.standings[0].name
    for standing in board.standings[::5]:
        both = join_pair(RUNS[standing.name], RUNS[best], ITEMS).query("index < 250")
        alone = metrics.summarise(both["price_usd"], both["guess_usd_a"])
        for name in ("error_usd", "rmsle", "hits_pct"):
            mine, theirs = getattr(standing, name), getattr(alone, name)
            assert (mine.value, mine.low, mine.high) == pytest.approx((theirs.value, theirs.low, theirs.high))
        behind = metrics.compare(both["price_usd"], both["guess_usd_a"], both["guess_usd_b"]).error_usd
        assert standing.behind_best.low == pytest.approx(behind.low)
        assert standing.ties_best == (behind.low <= 0 <= behind.high)
    errors = [standing.error_usd.value for standing in board.standings]
    assert errors == sorted(errors)
    assert board.standings[0].ties_best and not board.standings[-1].ties_best


def test_leaderboard_by_hits_and_against_a():
    board = ARENA.leaderboard(replace(SEED, sort="hits_pct"))
    hits = [standing.hits_pct.value for standing in board.standings]
    assert hits == sorted(hits, reverse=True)
    mine = next(standing for standing in board.standings if standing.name == SEED.run_a)
    assert (mine.behind_a.value, mine.behind_a.low, mine.behind_a.high) == (0, 0, 0)


def test_leaderboard_is_on_common_items_and_leaves_out_who_has_hardly_any():
    arena = small(a=[10] * 6, b=[20] * 6, c=[30, 30, 30, None, None, None], d=[None] * 5 + [600])
    board = arena.leaderboard(View("a", "b"))
    assert board.items == 3
    assert {standing.name for standing in board.standings} == {"a", "b", "c"}
    assert board.left_out == {"d": 1}
    assert ARENA.leaderboard(EMBEDDED).items == 250


# Filters, presets, selection -----------------------------------------------------------------------------

outcome_sets = st.sets(st.sampled_from(OUTCOMES)).map(lambda chosen: tuple(sorted(chosen)))
categories = st.sets(st.sampled_from(sorted(set(ITEMS["category"])))).map(tuple)
bounds = st.none() | st.floats(0, 1_000)


@given(
    categories, bounds, bounds, outcome_sets, outcome_sets, st.floats(0, 500), st.sampled_from(["", *PRESETS])
)
def test_filters_show_exactly_the_items_that_pass(cats, low, high, was_a, was_b, apart, preset):
    view = replace(
        EMBEDDED,
        categories=cats,
        low_usd=low,
        high_usd=high,
        outcomes_a=was_a,
        outcomes_b=was_b,
        apart_usd=apart,
        preset=preset,
    )
    narrowed = ARENA.narrowed(view)
    assert narrowed.shared == 1_000
    table = ARENA.pair(view.run_a, view.run_b)
    wanted = [
        index
        for index, category, price, a, b, out_a, out_b in zip(
            *(table[c] for c in ("index", "category", "price_usd", "guess_usd_a", "guess_usd_b")),
            *(table[c] for c in ("outcome_a", "outcome_b")),
            strict=True,
        )
        if (not cats or category in cats)
        and (low is None or price >= low)
        and (high is None or price <= high)
        and (not was_a or out_a in was_a)
        and (not was_b or out_b in was_b)
        and abs(a - b) >= apart
    ]
    assert ARENA.index[narrowed.filtered].tolist() == wanted
    assert len(set(narrowed.ranked)) == len(narrowed.ranked)
    assert sorted(narrowed.ranked) == narrowed.rows.tolist()
    assert set(narrowed.rows) <= set(narrowed.filtered)
    if not preset:
        assert narrowed.rows.tolist() == narrowed.filtered.tolist()


@given(outcome_sets, bounds, st.sampled_from(["", *PRESETS]))
def test_a_filter_and_its_opposite_share_the_items_out(was_b, bound, preset):
    rest = tuple(sorted(set(OUTCOMES) - set(was_b)))
    if was_b and rest:
        parts = [ARENA.narrowed(replace(EMBEDDED, outcomes_b=part)).filtered for part in (was_b, rest)]
        assert sorted(np.concatenate(parts)) == list(range(1_000))
    whole = ARENA.narrowed(replace(EMBEDDED, preset=preset))
    picked = ARENA.index[whole.rows]
    selected = ARENA.narrowed(replace(EMBEDDED, selection=tuple(picked[::2].tolist()), preset=preset))
    others = ARENA.narrowed(replace(EMBEDDED, selection=tuple(picked[1::2].tolist()), preset=preset))
    if len(picked) > 1:
        assert sorted([*selected.rows, *others.rows]) == whole.rows.tolist()


def test_presets_by_hand():
    #          price 10   20  30   40  500  600
    arena = small(a=[200, 25, 30, 35, 490, 100], b=[15, 100, 200, 45, 900, 101])
    wanted = {
        "worst-b": [12, 9, 7, 4],  # 499, 400, 170 and 80 dollars off
        "b-beats-a": [3, 12],
        "a-beats-b": [9, 7, 4],
        "both-wrong": [12],
        "overpriced": [7, 4],
        "disagree": [9, 3, 7, 4, 8, 12],
    }
    assert set(wanted) == set(PRESETS)
    for preset, indexes in wanted.items():
        narrowed = arena.narrowed(View("a", "b", preset=preset))
        assert arena.index[narrowed.ranked].tolist() == indexes, preset


def test_ranking_presets_stop_at_their_number_and_filters_come_first():
    view = replace(EMBEDDED, preset="worst-b", high_usd=100)
    table = ARENA.table(view, ARENA.narrowed(view).ranked)
    assert len(table) == PRESET_ITEMS
    assert table["price_usd"].max() <= 100
    assert table["error_usd_b"].is_monotonic_decreasing
    everything = ARENA.pair(view.run_a, view.run_b).query("price_usd <= 100")
    assert table["error_usd_b"].max() == everything["error_usd_b"].max()


# The rest ------------------------------------------------------------------------------------------------


def test_groups_hold_every_item_once_and_their_errors_add_up():
    error = ARENA.head_to_head(EMBEDDED).b["error_usd"].value
    for groups in ARENA.groups(EMBEDDED):
        assert sum(group.items for group in groups) == 1_000
        assert sum(group.items * group.b.value for group in groups) / 1_000 == pytest.approx(error)
        assert all(group.a.low <= group.a.value <= group.a.high for group in groups)


def test_a_groups_interval_is_the_groups_own_bootstrap():
    """Resampling all items and looking at one group is, but for its varying size, resampling the group."""
    table = ARENA.pair(*EMBEDDED_PAIR)
    bands, _ = ARENA.groups(EMBEDDED)
    band = next(group for group in bands if group.label == "$200–400")
    inside = table[(table["price_usd"] >= 200) & (table["price_usd"] < 400)]
    own = metrics.summarise(inside["price_usd"], inside["guess_usd_a"]).error_usd
    assert band.a.value == pytest.approx(own.value)
    assert (band.a.low, band.a.high) == pytest.approx((own.low, own.high), rel=0.03)


def test_coverage_is_of_the_runs_that_have_intervals():
    measured = {c.info.name: c for c in ARENA.coverage(EMBEDDED)}
    assert set(EMBEDDED_PAIR) <= set(measured)
    assert "gpt-5" not in measured
    table = RUNS["embedded-tuned"].table.merge(ITEMS, on="index")
    inside = (table["low_usd"] <= table["price_usd"]) & (table["price_usd"] <= table["high_usd"])
    assert measured["embedded-tuned"].coverage_pct.value == pytest.approx(100 * inside.mean())


def test_item_lists_every_guess_closest_first():
    item = ARENA.item(7)
    assert item.price_usd == ITEMS["price_usd"][7]
    assert {guess.info.name for guess in item.guesses} == set(RUNS)
    away = [abs(guess.guess_usd - item.price_usd) for guess in item.guesses]
    assert away == sorted(away)
    assert {g.info.name for g in ARENA.item(900).guesses} < set(RUNS)
    with pytest.raises(InputError, match="no test item 5000"):
        ARENA.item(5000)


def test_own_runs_join_without_touching_the_others():
    mine = run("mine", [0, 1, 2], ITEMS["price_usd"][:3])
    more = ARENA.with_runs({"mine": mine})
    assert "mine" not in ARENA.runs
    assert more.head_to_head(View("embedded-base", "mine")).b["error_usd"].value == 0
    assert more.head_to_head(EMBEDDED) == ARENA.head_to_head(EMBEDDED)
    assert ARENA.with_runs({}) is ARENA
    with pytest.raises(InputError, match="mine: row 1"):
        ARENA.with_runs({"mine": run("mine", [999_999], [1])})


def test_the_same_name_with_other_guesses_gets_its_own_answers():
    one, two = (ARENA.with_runs({"mine": run("mine", range(9), [guess] * 9)}) for guess in (50, 500))
    view = View("embedded-base", "mine")
    assert one.head_to_head(view).b != two.head_to_head(view).b
    errors = [
        next(s for s in a.leaderboard(view).standings if s.name == "mine").error_usd for a in (one, two)
    ]
    assert errors[0] != errors[1]


def test_first_view_without_the_usual_runs():
    assert small(a=[1] * 6, b=[2] * 6).first_view() == View("a", "b")
    pair = {name: RUNS[name] for name in EMBEDDED_PAIR}
    assert Arena(pair, ITEMS).first_view() == EMBEDDED
    with pytest.raises(InputError, match="no run"):
        Arena({}, ITEMS).first_view()


def test_kept_answers_are_bounded(monkeypatch):
    monkeypatch.setattr(answers, "KEPT_ANSWERS", 5)
    for low in range(10):
        ARENA.narrowed(replace(EMBEDDED, low_usd=low))
        ARENA.head_to_head(replace(EMBEDDED, low_usd=990 + low / 2))
    assert len(answers._answers) <= 5


def test_a_hundred_thousand_items():
    rng = np.random.default_rng(0)
    price_usd = rng.uniform(1, 999, 100_000).round(2)
    items = pd.DataFrame({"index": np.arange(100_000), "category": "x", "price_usd": price_usd})
    runs = {
        n: run(n, items["index"], price_usd * rng.lognormal(0, s, 100_000))
        for n, s in (("a", 0.5), ("b", 0.4))
    }
    figures = Arena(runs, items).head_to_head(View("a", "b"))
    assert figures.items == 100_000
    assert figures.difference["error_usd"].high < 0
    assert figures.p_value < 0.001
