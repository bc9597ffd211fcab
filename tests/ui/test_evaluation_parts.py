"""What the Evaluation tab's parts say of a view, and what each step makes of it: without a browser."""

import io
import re
from dataclasses import replace
from html import unescape

import numpy as np
import pandas as pd
import pytest

from pricer.arena.arena import Arena
from pricer.arena.export import view_csv
from pricer.arena.own_runs import OwnRuns
from pricer.arena.runs import Run, RunInfo, load_items, load_runs
from pricer.arena.view import EMBEDDED_PAIR, EVERYDAY_PAIR, MOST_PINS, PRESETS, SEED_PAIR, View
from pricer.errors import InputError
from pricer.settings import Settings
from pricer.ui import build_demo
from pricer.ui.evaluate import text
from pricer.ui.evaluate.board import board_csv
from pricer.ui.evaluate.guess import Game, as_run, deal, question, read_guess, result
from pricer.ui.evaluate.item_texts import ItemTexts
from pricer.ui.evaluate.panels import look_at_slice, slice_name, slice_value, terms
from pricer.ui.evaluate.render import PARTS, Place, render
from pricer.ui.evaluate.steps import read_usd, step

ITEMS = load_items()
ARENA = Arena(load_runs()["benchmark"], ITEMS)
SEED, EMBEDDED = View(*SEED_PAIR), View(*EMBEDDED_PAIR)
TEXTS = ItemTexts(None, ITEMS)
PLACE = Place({"benchmark": EMBEDDED_PAIR}, {"benchmark": 1, "everyday": 1})


def words(html):
    """What a reader sees of it."""
    return " ".join(unescape(re.sub(r"<[^>]*>", " ", html)).split())


def parts(view, arena=ARENA):
    return dict(zip(PARTS, render(arena, view, TEXTS, place=PLACE), strict=True))


def said(view, part):
    return words(parts(view)[part])


# Entrance and verdict ------------------------------------------------------------------------------------


def test_opens_on_the_seeds_pair_with_its_published_figures():
    shown = parts(SEED)
    assert words(shown["verdict"]).startswith(
        "On the 250 items that both have, the fine-tuned Llama 3.1 8B is closer to the price: its error is $343.63 lower"
    )
    assert text.SEED_SHOWN in shown["pairs"] and text.PAIRS["compare"] in shown["pairs"]
    for value in ("$395.72", "$52.09", "1.49", "0.39", "28.0 %", "68.4 %", "+40.4 points"):
        assert shown["metrics"].count(f"<b>{value}</b>") == 1, value
    assert f"A closer on {ARENA.head_to_head(SEED).wins_a:,}" in words(shown["metrics"])
    assert text.SEED_SHOWN not in parts(EMBEDDED)["pairs"]


def test_every_figure_explains_itself():
    meanings = {name: meaning for name, meaning, *_ in text.METRICS.values()}
    found = re.findall(r'data-tip="([^"]*)">([^<]*)</abbr></th>', parts(EMBEDDED)["metrics"])
    assert len(found) >= 7  # those that these runs have
    assert [unescape(meaning) for meaning, _ in found] == [meanings[name] for _, name in found]


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_are_few_items_and_prove_nothing(preset):
    view = step(ARENA, SEED, "preset", preset)
    left = len(ARENA.narrowed(view).rows)
    assert said(view, "active").startswith(f"{left} of 250 items")
    assert text.PICKED_BY_GUESS in said(view, "verdict")
    if left < 30:
        assert text.TOO_FEW in said(view, "verdict") and "closer to the price" not in said(view, "verdict")
        assert " better" not in said(view, "metrics")
    assert step(ARENA, view, "preset", preset) == SEED  # once more takes it off


def test_where_interval_and_permutation_test_disagree_nothing_is_concluded():
    rng = np.random.default_rng(0)
    items = ITEMS.head(40)
    for spread in np.linspace(0.05, 3, 400):
        away = rng.normal(0.3, spread, 40)
        guess = {"x": items["price_usd"] + 50, "y": items["price_usd"] + 50 + away}
        arena = Arena(
            {
                name: Run(
                    RunInfo(name=name, label=name, kind="own"),
                    pd.DataFrame({"index": items["index"], "guess_usd": values}),
                )
                for name, values in guess.items()
            },
            items,
        )
        found = arena.head_to_head(View("x", "y"))
        gap = found.difference["error_usd"]
        if (gap.low > 0 or gap.high < 0) != (found.p_value < 0.05):
            break
    shown = parts(View("x", "y"), arena=arena)["verdict"]
    assert text.TOO_FEW in words(shown) and text.TESTS_DISAGREE in unescape(shown)


def test_filters_that_leave_nothing_are_named():
    assert said(replace(SEED, low_usd=5000.0), "verdict") == words(
        text.NOTHING_LEFT.format(filter="“from $5,000”")
    )
    both = f"“from $100” {text.AND} “up to $50”"
    view = replace(SEED, low_usd=100.0, high_usd=50.0, words="lamp")
    assert said(view, "verdict") == text.CONTRADICTION.format(filters=both)
    assert parts(view)["scatter_a"] is None and said(view, "board") == text.BOARD_EMPTY


def test_a_price_below_nothing_has_a_sentence():
    with pytest.raises(InputError, match=re.escape(text.AMOUNT_BAD)):
        read_usd(-3)
    assert (read_usd(None), read_usd(0), read_usd(12.5)) == (None, None, 12.5)


def test_marks_can_be_judged_by_the_ratio_alone():
    view = replace(SEED, by_share=True)
    within = (ARENA.pair(*SEED_PAIR).eval("error_usd_b / price_usd") < 0.2).mean()
    assert said(view, "title_b").endswith(text.WITHIN.format(pct=100 * within))
    assert "within 40 %" in said(view, "legend") and "68.4 % hits" in said(SEED, "title_b")


# One product ---------------------------------------------------------------------------------------------


def test_the_open_product_is_named_with_every_guess_and_the_way_on():
    walk = ARENA.walk(SEED).tolist()
    first, second = (ARENA.item(index) for index in walk[:2])
    shown = parts(replace(SEED, item=walk[0]))
    assert first.label in words(shown["detail_head"]) and f"costs ${first.price_usd:,.2f}" in words(
        shown["detail_head"]
    )
    assert text.NEXT_ITEM in shown["detail_head"] and text.PREVIOUS_ITEM not in shown["detail_head"]
    assert [found.info.label in shown["detail_guesses"] for found in first.guesses] == [True] * len(
        first.guesses
    )
    assert step(ARENA, replace(SEED, item=walk[0]), "step", "1").item == second.index
    assert step(ARENA, replace(SEED, item=walk[0]), "step", "-1").item == walk[0]
    assert step(ARENA, replace(SEED, item=walk[0]), "close").item is None


def test_a_presets_products_are_gone_through_in_its_order():
    view = replace(SEED, preset="worst-b")
    ranked = ARENA.index[ARENA.narrowed(view).ranked].tolist()
    errors = ARENA.pair(*SEED_PAIR).set_index("index")["error_usd_b"]
    assert errors[ranked].is_monotonic_decreasing
    saved = pd.read_csv(io.StringIO(view_csv(ARENA, view, {}).lstrip("\ufeff")))
    assert saved["index"].tolist() == ranked and "text" not in saved
    assert saved["label"].tolist() == [ARENA.item(index).label for index in ranked]
    starters = re.findall(r'data-do="open" data-value="(\d+)"', parts(view)["starters"]["value"])
    assert [int(index) for index in starters] == ranked[: len(starters)]
    assert step(ARENA, replace(view, item=ranked[0]), "step", "1").item == ranked[1]


# The board -----------------------------------------------------------------------------------------------


def labels(html):
    return [unescape(found) for found in re.findall(r'class="label">([^<]*)<', html)]


def test_the_board_has_ten_and_the_pair_and_all_on_demand():
    found = ARENA.leaderboard(SEED)
    everyone = [ARENA.infos[s.name].label for s in found.standings]
    assert labels(parts(SEED)["board"]) == everyone[:10] + [ARENA.infos[SEED_PAIR[0]].label]  # B is third
    whole = parts(step(ARENA, SEED, "everyone"))["board"]
    assert labels(whole) == everyone and len(everyone) == len(ARENA.runs)
    assert whole.count(f">{text.TIES_BEST}</abbr>") == sum(s.ties_best for s in found.standings)
    by_hits = replace(SEED, everyone=True, sort="hits_pct")
    order = [ARENA.infos[s.name].label for s in ARENA.leaderboard(by_hits).standings]
    assert labels(parts(by_hits)["board"]) == order != everyone


def test_the_board_is_searched_filtered_and_saved_as_it_is_shown():
    assert {
        "GPT-4o mini" in label for label in labels(parts(replace(SEED, find="gpt-4o mini"))["board"])
    } == {True}
    assert said(replace(SEED, find="nobody"), "board") == text.BOARD_NO_MATCH
    view = replace(SEED, columns=("within_pct", "behind_a"), kinds=("human", "tuned"))
    heads = [words(head) for head in re.findall(r"<th scope=\"col\"[^>]*>.*?</th>", parts(view)["board"])]
    assert heads == ["#", "Run", "Error ↑", "Within 20 %", "Against A", text.BOARD_HEADS["pick"]]
    table = pd.read_csv(io.StringIO(board_csv(ARENA, view, ARENA.leaderboard(view)).lstrip("\ufeff")))
    standings = {s.name: s for s in ARENA.leaderboard(SEED).standings}
    assert set(table["kind"]) == {"human", "tuned"}
    for run, error, within in zip(table["run"], table["error_usd"], table["within_pct"], strict=True):
        assert error == pytest.approx(standings[run].error_usd.value, abs=0.001)
        assert within == pytest.approx(standings[run].within_pct.value, abs=0.001)


def test_runs_are_pinned_up_to_five():
    names = sorted(name for name in ARENA.runs if name not in SEED_PAIR)[: MOST_PINS + 1]
    view = SEED
    for name in names[:MOST_PINS]:
        view = step(ARENA, view, "pin", name)
    assert view.pins == tuple(names[:MOST_PINS])
    with pytest.raises(InputError, match=re.escape(text.PINS_FULL.format(most=MOST_PINS))):
        step(ARENA, view, "pin", names[MOST_PINS])
    assert step(ARENA, view, "pin", names[0]).pins == tuple(names[1:MOST_PINS])
    for measure in text.MEASURES:
        figure = parts(replace(view, panel="several", measure=measure))["several"]
        assert [trace.name for trace in figure.data] == [
            f"A · {ARENA.infos[SEED_PAIR[0]].label}",
            f"B · {ARENA.infos[SEED_PAIR[1]].label}",
            *[ARENA.infos[name].label for name in view.pins],
        ]


# Words ---------------------------------------------------------------------------------------------------


def test_slices_are_sentences_with_one_click_to_look():
    found = ARENA.findings(EMBEDDED)
    shown = said(replace(EMBEDDED, panel="slices"), "slices")
    assert found.wins
    for one in (*found.wins, *found.losses):
        assert f"{slice_name(one)} ({one.items} items): the error is ${abs(one.gap_usd):,.2f}" in shown
        there = look_at_slice(ARENA, EMBEDDED, slice_value(one))
        assert len(ARENA.narrowed(there).rows) == one.items
    assert said(replace(EMBEDDED, panel="slices", preset="worst-b"), "slices") == text.PICKED_BY_GUESS


def test_every_term_has_its_meaning():
    pairs = re.findall(r"<dt>(.*?)</dt><dd>(.*?)</dd>", terms())
    assert {name for name, *_ in text.METRICS.values()} | set(text.TERMS) == {unescape(n) for n, _ in pairs}
    assert all(meaning and "{" not in meaning for _, meaning in pairs)


# Guess it yourself ---------------------------------------------------------------------------------------


def play(arena, game, factor=1.0, over_usd=5.0):
    for index in game.indexes:
        game = game.guessed(round(factor * arena.item(index).price_usd + over_usd, 2))
    return game


def test_ten_guesses_end_in_a_place_on_the_board():
    game = deal(ARENA, SEED)
    assert len(set(game.indexes)) == 10 and not game.over
    first = ARENA.item(game.indexes[0])
    assert first.label in words(question(ARENA, game, TEXTS))
    game = game.guessed(first.price_usd)
    answered = words(question(ARENA, game, TEXTS))
    assert f"{first.label} cost ${first.price_usd:,.2f}" in answered and "You" in answered
    assert "the fine-tuned Llama 3.1 8B" in answered and "the base Llama 3.1 8B" in answered

    game = play(ARENA, replace(game, guesses_usd=()))
    assert game.over
    run = as_run(game, OwnRuns())
    shown = words(result(ARENA.with_runs({run.info.name: run}), game, run.info.name))
    assert "off by $5.00 on average (95 % interval $5.00 – $5.00 ), with 10 hits" in shown
    assert f"place 1 of {len(ARENA.runs) + 1} runs" in shown


def test_a_game_outlives_the_runs_that_it_began_with():
    """Begun on everyday items, or against an own run that is taken away in its middle."""
    game = play(ARENA, Game(deal(ARENA, SEED).indexes, ("own-gone", SEED_PAIR[1])))
    run = as_run(game, OwnRuns())
    shown = words(result(ARENA.with_runs({run.info.name: run}), game, run.info.name))
    assert f"place 1 of {len(ARENA.runs) + 1} runs" in shown


@pytest.mark.parametrize("written", ["cheap", "", "-3", "1e9"])
def test_a_guess_that_is_no_price_has_a_sentence(written):
    with pytest.raises(InputError, match=re.escape(text.GUESS_BAD)):
        read_guess(written)
    assert (read_guess("$24.50"), read_guess("0")) == (24.5, 0)


# Item sets, and none -------------------------------------------------------------------------------------


def test_everyday_items_are_a_set_of_their_own():
    arena = Arena(load_runs()["everyday"], load_items(item_set="everyday"))
    view = replace(View(*EVERYDAY_PAIR), item_set="everyday", item=3)
    shown = parts(view, arena=arena)
    assert "750 of 750 items" in words(shown["active"]) and text.TEXT_NEVER in shown["detail_foot"]
    assert arena.item(3).label in shown["detail_head"]
    assert set(labels(shown["board"])) <= {info.label for info in arena.infos.values()}
    other = step(arena, view, "set", "benchmark")
    assert other.item_set == "benchmark"


def test_without_runs_the_page_says_so(monkeypatch):
    monkeypatch.setattr("pricer.ui.evaluate.tab.load_runs", lambda: {"benchmark": {}})
    demo = build_demo(None, "no models", Settings.from_env({}))
    shown = [str(getattr(block, "value", "")) for block in demo.blocks.values()]
    assert any("no evaluation runs" in value for value in shown)
