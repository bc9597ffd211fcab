"""Figures show the numbers they are given, leave the ground to the page, and take any table."""

import dataclasses
import json

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import plotly.io as pio
import pytest

from pricer.arena.arena import Arena
from pricer.arena.metrics import OUTCOMES
from pricer.arena.records import Group
from pricer.arena.resampling import Estimate
from pricer.arena.runs import load_items, load_runs
from pricer.arena.view import EMBEDDED_PAIR, SEED_PAIR, View
from pricer.figures import errors, guesses, several, style
from pricer.ui.evaluate import text

ARENA = Arena(load_runs()["benchmark"], load_items())
TABLE = ARENA.pair(*EMBEDDED_PAIR)
ITEM = ARENA.item(7)


def scatter(table=TABLE, end="b", **more):
    return guesses.guess_against_price(table, end, **({"label": "run", "picked": None, "log": True} | more))


def marks(figure):
    """Traces with items on them."""
    return [trace for trace in figure.data if trace.customdata is not None and len(trace.customdata)]


SEVERAL = ARENA.several(View(*EMBEDDED_PAIR, pins=("gpt-5", "human")))
FIGURES = {
    "scatter": scatter,
    "pair": lambda: guesses.error_against_error(TABLE, labels=("a", "b"), picked=None),
    "strip": lambda: guesses.item_strip(ITEM, SEED_PAIR, text.KINDS),
    "spread": lambda: errors.error_spread(TABLE["guess_usd_a"] - TABLE["price_usd"], np.zeros(1000)),
    "bands": lambda: several.error_by_band(SEVERAL, EMBEDDED_PAIR),
    "running means": lambda: several.running_errors(SEVERAL, EMBEDDED_PAIR),
    "shares": lambda: several.error_shares(SEVERAL, EMBEDDED_PAIR),
    "share": lambda: errors.error_share(TABLE["error_usd_a"].to_numpy(), TABLE["error_usd_b"].to_numpy()),
    "groups": lambda: errors.error_by_group(ARENA.groups(View(*EMBEDDED_PAIR))[0], "price"),
    "running": lambda: errors.running_error(TABLE["error_usd_a"].to_numpy(), TABLE["error_usd_b"].to_numpy()),
    "coverage": lambda: errors.interval_coverage(ARENA.coverage(View(*EMBEDDED_PAIR)), EMBEDDED_PAIR),
}


@pytest.mark.parametrize("name", FIGURES)
def test_figures_are_valid_describe_themselves_and_leave_the_ground_to_the_page(name):
    figure = FIGURES[name]()
    go.Figure(json.loads(pio.to_json(figure)))  # valid as JSON, which is what the page gets
    assert figure.layout.paper_bgcolor == figure.layout.plot_bgcolor == style.CLEAR
    assert figure.layout.meta["description"]
    assert figure.layout.font.color is None


def test_scatter_has_every_item_once_by_outcome():
    figure = scatter()
    assert sorted(int(row[0]) for trace in marks(figure) for row in trace.customdata) == list(range(1_000))
    for trace, result in zip(marks(figure), OUTCOMES, strict=True):
        rows = TABLE[TABLE["outcome_b"] == result]
        assert np.allclose(trace.x, rows["price_usd"])
        assert trace.name == result
    looks = {(trace.marker.color, trace.marker.symbol) for trace in marks(figure)}
    assert len({colour for colour, _ in looks}) == len({symbol for _, symbol in looks}) == 3


def test_both_runs_of_a_pair_share_their_axes():
    for log in (True, False):
        a, b = scatter(end="a", log=log).layout, scatter(end="b", log=log).layout
        assert a.xaxis.range == b.xaxis.range == a.yaxis.range == b.yaxis.range


def test_picked_items_are_the_selected_points():
    picked = TABLE["price_usd"].to_numpy() < 50
    chosen = {
        int(trace.customdata[i][0]) for trace in marks(scatter(picked=picked)) for i in trace.selectedpoints
    }
    assert chosen == set(TABLE["index"][picked])
    assert all(trace.selectedpoints is None for trace in marks(scatter()))


def test_the_open_item_has_a_ring():
    ring = scatter(open_index=7).data[-1]
    assert (ring.x[0], ring.y[0]) == (TABLE["price_usd"][7], TABLE["guess_usd_b"][7])
    assert len(scatter(open_index=5_000).data) == len(scatter().data)


def test_guesses_of_nothing_and_of_millions_stay_on_the_axes():
    table = TABLE.head(3).assign(guess_usd_b=[0.0, 1_000_000.0, 50.0])
    for log in (True, False):
        figure = scatter(table, log=log)
        low, high = figure.layout.yaxis.range
        ends = (10**low, 10**high) if log else (low, high)
        shown = np.concatenate([trace.y for trace in marks(figure)])
        assert np.isfinite(shown).all()
        assert shown.min() >= ends[0] * 0.999 and shown.max() <= ends[1] * 1.001
        assert ends[1] < 10 * table["price_usd"].max()
        assert any("$1,000,000" in row for trace in marks(figure) for row in trace.customdata)


def test_many_items_are_sampled_with_those_picked_first_and_drawn_with_webgl():
    n = 100_000
    table = pd.concat([TABLE] * 100, ignore_index=True).assign(index=np.arange(n))
    picked = np.zeros(n, dtype=bool)
    picked[::1000] = True
    drawn = guesses.drawn_items(table, picked)
    assert len(drawn) == guesses.DRAWN_ITEMS
    assert drawn["index"].is_monotonic_increasing
    assert set(table["index"][picked]) <= set(drawn["index"])
    assert drawn.equals(guesses.drawn_items(table, picked))
    assert {trace.type for trace in marks(scatter(drawn))} == {"scattergl"}
    assert {trace.type for trace in marks(scatter())} == {"scatter"}


def test_markup_in_categories_and_labels_is_escaped():
    table = TABLE.head(5).assign(label="<img src=x>")
    infos = [
        dataclasses.replace(guess, info=guess.info.model_copy(update={"label": "<b>x</b>"}))
        for guess in ITEM.guesses
    ]
    group = Group("<i>g</i>", 3, Estimate(1, 0, 2), Estimate(2, 1, 3))
    for figure in (
        scatter(table),
        guesses.error_against_error(table, labels=("a", "b"), picked=None),
        guesses.item_strip(dataclasses.replace(ITEM, guesses=infos), SEED_PAIR, text.KINDS),
    ):
        words = json.dumps([np.asarray(trace.customdata).tolist() for trace in marks(figure)])
        assert "&lt;" in words and "<img" not in words and "<b>" not in words
    assert "<i>" not in pio.to_json(errors.error_by_group([group], "category").layout.annotations[0])


def test_pair_puts_items_above_the_diagonal_where_b_is_closer():
    figure = guesses.error_against_error(TABLE, labels=("a", "b"), picked=None)
    a, b = marks(figure)
    assert (np.array(a.y) <= np.array(a.x)).all()
    assert (np.array(b.y) >= np.array(b.x)).all()
    assert len(a.x) + len(b.x) == 1_000


def test_strip_shows_every_guess_and_the_price():
    figure = guesses.item_strip(ITEM, SEED_PAIR, text.KINDS)
    shown = [row[0] for trace in marks(figure) for row in trace.customdata]
    assert len(shown) == len(ITEM.guesses)
    assert [list(trace.text) for trace in marks(figure)[1:]] == [["A"], ["B"]]
    lines = [shape.x0 for shape in figure.layout.shapes if shape.type == "line"]
    assert lines == [ITEM.price_usd]


def test_spread_and_share_hold_all_items():
    over = np.array([-10_000.0, -1, 0, 30, 499.99, 500, 10_000])
    spread = errors.error_spread(over, over)
    assert sum(spread.data[0].y[:-1]) == pytest.approx(100)
    assert spread.data[0].y[0] == pytest.approx(100 / 7)
    assert spread.data[0].y[-2] == pytest.approx(300 / 7)
    share = errors.error_share(np.array([1.0, 10, 100]), np.array([2.0, 2, 2]))
    assert share.data[0].y[-1] == share.data[1].y[-1] == 100
    assert (np.diff(share.data[0].y) >= 0).all()


def test_running_mean_ends_at_the_mean_with_its_normal_interval():
    away = np.random.default_rng(0).uniform(0, 100, 777)
    lines = [trace for trace in errors.running_error(away, away).data if trace.customdata is not None]
    assert lines[0].x[-1] == 777
    assert lines[0].y[-1] == pytest.approx(away.mean())
    assert lines[0].customdata[-1] == pytest.approx(1.959964 * away.std(ddof=1) / np.sqrt(777))


@pytest.mark.parametrize("items", [1, 2])
def test_one_or_two_items_draw(items):
    table = TABLE.head(items)
    a, b = table["error_usd_a"].to_numpy(), table["error_usd_b"].to_numpy()
    for figure in (
        scatter(table),
        guesses.error_against_error(table, labels=("a", "b"), picked=None),
        errors.running_error(a, b),
        errors.error_share(a, b),
        errors.error_spread(a, b),
    ):
        assert "NaN" not in pio.to_json(figure)


@pytest.mark.parametrize("ends", [(0.5, 2_000), (20, 80), (1, 1_000_000), (100, 101)])
def test_log_axes_always_have_words_on_them(ends):
    axis = style.log_axis(*ends)
    words = [word for word in axis["ticktext"] if word]
    assert 1 <= len(words) <= 7 or ends == (100, 101)
    assert all(ends[0] <= tick <= ends[1] for tick in axis["tickvals"])


def luminance(colour):
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("ground", ["#ffffff", "#f8fafc", "#111827", "#0b1018"])
def test_marks_stand_out_on_the_light_and_the_dark_page(ground):
    colours = [*style.OUTCOME_COLOURS.values(), *style.PAIR_COLOURS.values(), style.OPEN_COLOUR]
    for colour in colours:
        low, high = sorted([luminance(colour), luminance(ground)])
        assert (high + 0.05) / (low + 0.05) >= 3, colour


def test_by_share_forty_dollars_excuse_nothing():
    cheap = TABLE.head(2).assign(price_usd=[10.0, 100.0], guess_usd_b=[45.0, 85.0], outcome_b=["hit", "hit"])
    named = {trace.name: len(trace.customdata) for trace in marks(scatter(cheap, by_share=True))}
    assert named == {"hit": 1, "miss": 1}


def test_several_runs_are_drawn_on_the_items_that_all_have():
    figure = several.error_by_band(SEVERAL, EMBEDDED_PAIR)
    names = [trace.name for trace in figure.data]
    assert names[:2] == ["A · SmolLM2 135M base", "B · SmolLM2 135M fine-tuned"] and len(names) == 4
    assert len(SEVERAL.price_usd) == 250
    cheap = SEVERAL.price_usd < 25
    assert figure.data[2].y[0] == pytest.approx(SEVERAL.away_usd["gpt-5"][cheap].mean())
    last = several.running_errors(SEVERAL, EMBEDDED_PAIR).data[0]
    assert last.y[-1] == pytest.approx(SEVERAL.away_usd["embedded-base"].mean())
