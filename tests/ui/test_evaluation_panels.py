"""The Evaluation tab's panels in a real browser: the board's search and pins, slices in words, the game, the terms."""

import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from playwright.sync_api import expect

from pricer.arena.arena import Arena
from pricer.arena.runs import load_items, load_runs
from pricer.arena.view import EMBEDDED_PAIR, MOST_PINS, SEED_PAIR, View
from pricer.settings import Settings
from pricer.ui import build_demo, page_options, theme
from pricer.ui.evaluate import text
from pricer.ui.evaluate.panels import slice_name

pytestmark = pytest.mark.browser
expect.set_options(timeout=60_000)

ARENA = Arena(load_runs()["benchmark"], load_items())
SEED, EMBEDDED = View(*SEED_PAIR), View(*EMBEDDED_PAIR)
DARK, PHONE_SIZE = pytest.param(1280, True, id="dark"), pytest.param(390, False, id="phone")
DARK_AND_PHONE = pytest.mark.parametrize(("width", "dark"), [DARK, PHONE_SIZE])
PHONE = pytest.mark.parametrize(("width", "dark"), [PHONE_SIZE])


@pytest.fixture(scope="module")
def url(serve):
    demo = build_demo(None, "There is no adapter at /nowhere.", Settings.from_env({}))
    return serve(theme.silence(demo), **page_options(), show_error=True)


@pytest.fixture
def visit(open_page, url):
    def visit(view, **options):
        page = open_page(f"{url}?{view.to_query()}", **options)
        page.locator("#scatter-b .chart-drawn .main-svg").first.wait_for()
        return page

    return visit


def check(page, width):
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert (page.errors, page.foreign) == ([], [])


@DARK_AND_PHONE
def test_the_board_shows_the_best_and_the_pair_and_is_searched(visit, width, dark):
    page = visit(SEED, width=width, height=900, dark=dark)
    expect(page.locator("#board tbody tr")).to_have_count(
        11
    )  # ten and A, which is among the last; B is third
    page.locator("#board-find textarea, #board-find input").first.fill("gpt-4o mini")
    expect(page.locator("#board tbody tr")).to_have_count(3)
    page.wait_for_url(re.compile("find=gpt-4o"))
    check(page, width)


def test_columns_are_chosen_and_the_board_is_saved(visit):
    page = visit(replace(SEED, columns=("within_pct", "behind_a"), kinds=("human", "tuned")))
    expect(page.locator("#board thead th")).to_have_text(
        ["#", "Run", re.compile("Error"), "Within 20 %", "Against A", text.BOARD_HEADS["pick"]]
    )
    with page.expect_download() as saved:
        page.get_by_role("button", name=text.BOARD_EXPORT).click()
    table = pd.read_csv(saved.value.path())
    standings = {s.name: s for s in ARENA.leaderboard(SEED).standings}
    assert set(table["kind"]) == {"human", "tuned"}
    for run, error, within in zip(table["run"], table["error_usd"], table["within_pct"], strict=True):
        assert error == pytest.approx(standings[run].error_usd.value, abs=0.001)
        assert within == pytest.approx(standings[run].within_pct.value, abs=0.001)
    check(page, 1280)


@DARK_AND_PHONE
def test_pinned_runs_share_a_plot(visit, width, dark):
    page = visit(replace(SEED, pins=("gpt-5",)), width=width, height=900, dark=dark)
    page.get_by_role("button", name=text.PIN.format(label="GPT-4.1"), exact=True).click()
    page.wait_for_url(re.compile("pin=gpt-4.1&pin=gpt-5"))
    other = visit(
        replace(SEED, pins=("gpt-4.1", "gpt-5"), panel="several"), width=width, height=900, dark=dark
    )
    other.locator("#chart-several .chart-drawn .main-svg").first.wait_for()
    names = "document.querySelector('#chart-several .chart-plot').data.map(t => t.name)"
    assert other.evaluate(names) == [
        "A · Llama 3.1 8B base, 4-bit (seed)",
        "B · Llama 3.1 8B QLoRA (seed)",
        "GPT-4.1",
        "GPT-5",
    ]
    other.locator("#several-measure").get_by_label(text.MEASURES["share"]).check()
    other.wait_for_function(
        "document.querySelector('#chart-several .chart-plot')._fullLayout.xaxis.type === 'log'"
    )
    check(page, width)
    check(other, width)


def test_more_pins_than_fit_are_refused(visit):
    names = tuple(sorted(name for name in ARENA.runs if name not in SEED_PAIR)[:MOST_PINS])
    page = visit(replace(SEED, pins=names))
    page.locator("#board .pick-pin[aria-pressed=false]").first.click()
    expect(page.locator("#evaluate-notice [role=alert]")).to_have_text(text.PINS_FULL.format(most=MOST_PINS))


@DARK_AND_PHONE
def test_slices_are_sentences_with_one_click_to_look(visit, width, dark):
    page = visit(replace(EMBEDDED, panel="slices"), width=width, height=900, dark=dark)
    found = ARENA.findings(EMBEDDED)
    win = found.wins[0]
    item = page.locator("#slices li", has_text=slice_name(win))
    expect(item).to_contain_text(f"{win.items} items")
    expect(item).to_contain_text(f"${abs(win.gap_usd):,.2f} smaller")
    item.get_by_role("button").click()
    expect(page.locator("#active .count")).to_have_text(f"{win.items} of 1,000 items")
    check(page, width)


@PHONE
def test_ten_guesses_end_on_the_board(visit, width, dark):
    page = visit(replace(SEED, panel="guess"), width=width, height=900, dark=dark)
    page.get_by_role("button", name=text.GUESS_BEGIN).click()
    box = page.locator("#guess-price").locator("textarea, input").first
    box.fill("cheap")
    box.press("Enter")
    expect(page.locator("#guess-notice [role=alert]")).to_have_text(text.GUESS_BAD)
    prices = dict(zip(ARENA.items["label"], ARENA.price_usd, strict=True))
    for number in range(1, 11):
        expect(page.locator("#guess .question .hint").first).to_contain_text(f"Product {number} of 10")
        cost = prices[page.locator("#guess .question h4").inner_text()]
        box.fill(f"{cost + 5:.2f}")
        page.locator("#guess-go").click()
        expect(page.locator("#guess .answer")).to_contain_text(f"cost ${cost:,.2f}")
    expect(page.locator("#guess .verdict")).to_contain_text(
        "off by $5.00 on average (95 % interval $5.00 – $5.00), with 10 hits"
    )
    expect(page.locator("#guess .verdict")).to_contain_text(f"place 1 of {len(ARENA.runs) + 1} runs")
    expect(page.locator("#own-runs .chip")).to_have_text(re.compile("You · 10"))
    page.get_by_role("button", name=text.GUESS_LOOK).click()
    expect(page.locator("#active .count")).to_have_text("10 of 10 items")
    expect(page.locator(".headline tr.b")).to_contain_text("You")
    check(page, width)


@PHONE
def test_every_term_has_its_meaning(visit, width, dark):
    page = visit(replace(SEED, panel="terms"), width=width, height=900, dark=dark)
    terms = page.locator("#terms dt").all_inner_texts()
    assert {name for name, *_ in text.METRICS.values()} | set(text.TERMS) == set(terms)
    assert len(terms) == page.locator("#terms dd").count()
    assert all(page.locator("#terms dd").all_inner_texts())
    assert not np.any(["{" in meaning for meaning in page.locator("#terms dd").all_inner_texts()])
    check(page, width)
