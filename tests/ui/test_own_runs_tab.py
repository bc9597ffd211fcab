"""A visitor's own runs in a real browser: upload, compare, remove, export, and a live run that can be stopped."""

import re
import threading
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from playwright.sync_api import expect

from pricer.arena.arena import Arena
from pricer.arena.runs import Run, RunInfo, load_items, load_runs
from pricer.arena.view import SEED_PAIR, View
from pricer.tables.writing import csv_text
from pricer.ui import build_demo, page_options, theme
from pricer.ui.evaluate import item_texts, own, text
from tests.ui.waiting import comes_to

pytestmark = pytest.mark.browser

ITEMS = load_items()
HOSTILE = "<img src=x onerror=window.x=1>"
NAMES = ["Cordless drill", "Phone case", "Guitar", "Desk lamp", "Brake pads", "Office chair"]
PRICES = [89.0, 9.5, 310.0, 25.0, 44.0, 185.0]


def give(page, words, name="my run.csv", box="#own-file"):
    words = words.encode() if isinstance(words, str) else words
    page.locator(f"{box} input[type=file]").set_input_files(
        [{"name": name, "mimeType": "text/csv", "buffer": words}]
    )


def expect_marks(page, chart, count):
    """The scatter draws that many items; it follows the page's words by a moment."""
    plot = f"document.querySelector('{chart} .chart-plot')"
    comes_to(page, f"{plot}._fullData.flatMap(t => t.customdata ?? []).length", count)


def figures(page):
    return page.locator(".headline td.error_usd b")


def expect_about(page, number, usd):
    """A figure is that one, but for what a batch changes at its last digit."""
    shown = (
        f"document.querySelectorAll('.headline td.error_usd b')[{number}].textContent.replace(/[$,]/g, '')"
    )
    comes_to(page, f"Math.abs({shown} - {usd}) <= 0.05")


def check_clean(page):
    assert (page.errors, page.foreign) == ([], [])
    assert page.evaluate("typeof window.x") == "undefined"


def test_an_uploaded_run_is_compared_and_can_be_a_or_b_or_taken_away(evaluation, open_page, evaluation_url):
    rng = np.random.default_rng(0)
    guess = (ITEMS["price_usd"][:100] * rng.uniform(0.9, 1.1, 100)).round(2)
    page = evaluation()
    page.unfold(text.OWN_TITLE)
    give(page, csv_text(pd.DataFrame({"index": ITEMS["index"][:100], "guess": guess})), f"{HOSTILE}.csv")
    run = Run(
        RunInfo(name="own-x", label="x", kind="own"),
        pd.DataFrame({"index": ITEMS["index"][:100], "guess_usd": guess}),
    )
    arena = Arena(load_runs()["benchmark"], ITEMS).with_runs({"own-x": run})
    found = arena.head_to_head(View(SEED_PAIR[0], "own-x"))
    expect(page.locator("#active .count")).to_have_text("100 of 100 items")
    expect(figures(page).nth(1)).to_have_text(f"${found.b['error_usd'].value:,.2f}")
    expect(page.locator("#board .badge.kind-own")).to_have_text(text.KINDS["own"])
    expect_marks(page, "#scatter-b", 100)
    other = open_page(f"{evaluation_url}?{View(*SEED_PAIR).to_query()}")
    expect(other.locator("#active .count")).to_have_text("250 of 250 items")
    assert "own-img" not in other.content()  # a run is with the visitor who added it alone
    page.get_by_role("button", name=re.compile("^Make .*img src=x.* run A$")).click()
    expect(figures(page).nth(0)).to_have_text(f"${found.b['error_usd'].value:,.2f}")
    page.locator("#own-runs .chip").click()
    expect(page.locator("#own-runs .chip")).to_have_count(0)
    expect(page.locator("#active .count")).to_have_text("250 of 250 items")
    expect(page.locator("#board .badge.kind-own")).to_have_count(0)
    check_clean(page)


BAD = [
    ("index,guess\n0,1\n1,abc\n", "bad.csv", "bad.csv: row 2, column guess: “abc” is no price in dollars"),
    (f"index,guess\n0,{HOSTILE}\n", "bad.csv", f"row 1, column guess: “{HOSTILE}” is "),
    (b"\x00\x01\x02", "bad.parquet", "bad.parquet is damaged or no parquet file"),
    (b"x" * 1_200_000, "big.csv", "big.csv has 1.2 MB: give at most 1 MB"),
]


def test_bad_files_are_said_in_a_sentence_and_change_nothing(evaluation):
    page = evaluation()
    page.unfold(text.OWN_TITLE)
    for words, name, complaint in BAD:
        give(page, words, name)
        expect(page.locator("#own-notice [role=alert]")).to_contain_text(complaint)
        expect(page.locator("#active .count")).to_have_text("250 of 250 items")
    give(page, "index,guess\n1,2\n")  # and the next one is taken
    expect(page.locator("#own-runs .chip")).to_have_count(1)
    expect(page.locator("#own-notice [role=alert]")).to_have_count(0)
    check_clean(page)


def test_own_products_have_their_text_in_the_detail_and_in_the_export(evaluation):
    page = evaluation()
    page.unfold(text.OWN_TITLE)
    words = pd.DataFrame(
        {
            "text": ["=cmd|' /C calc'!A0", f"Lamp {HOSTILE}"],
            "price": [89.0, 20.0],
            "guess": [70.0, 30.0],
            "category": ["@SUM(1)", f"x{HOSTILE}"],
        }
    )
    give(page, words.to_csv(index=False), "mine.csv")
    expect(page.locator("#active .count")).to_have_text("2 of 2 items")
    page.locator("#panels").get_by_role("tab", name=text.PANELS["items"], exact=True).click()
    page.locator("#items .virtual-row").nth(1).locator("[role=gridcell]").first.click()
    expect(page.locator("#detail-foot .item-text")).to_have_text(f"Lamp {HOSTILE}")
    with page.expect_download() as saved:
        page.get_by_role("button", name=text.EXPORT).click()
    assert saved.value.suggested_filename == "pricer-own-mine-median-own-mine.csv"
    table = pd.read_csv(saved.value.path())
    assert table["text"].tolist() == ["'=cmd|' /C calc'!A0", f"Lamp {HOSTILE}"]
    assert table["category"].tolist() == ["'@SUM(1)", f"x{HOSTILE}"]
    assert table["guess_usd_b"].tolist() == [70, 30]
    page.get_by_role("button", name=text.SEND).click()
    expect(page.locator("#product-text textarea")).to_have_value(f"Lamp {HOSTILE}")
    check_clean(page)


def test_both_models_are_asked_for_products_that_nobody_else_has_guessed(evaluation, held_predictor):
    page = evaluation()
    page.unfold(text.OWN_TITLE)
    table = pd.DataFrame({"text": NAMES, "price": PRICES, "guess": [80, 10, 200, 30, 40, 150]})
    give(page, csv_text(table), "mine.csv")
    expect(page.locator("#own-ask")).to_contain_text(text.OWN_ASK.format(label="mine", items=6))
    expect(page.locator(".headline tr.a")).to_contain_text(
        "Always the median of mine"
    )  # never against itself
    error = np.abs(np.median(PRICES) - np.array(PRICES)).mean()
    expect(figures(page).nth(0)).to_have_text(f"${error:,.2f}")
    page.get_by_role("button", name=text.OWN_YES).click()
    expect(page.locator("#own-ask")).to_have_text(text.LIVE_DONE.format(done=6))
    expect(page.locator(".headline tr.b")).to_contain_text("mine")
    guesses = [held_predictor.predict([held_predictor.prepare(name)], "tuned")[0] for name in NAMES]
    guesses = [float(guess.distribution.point(held_predictor.rule)) for guess in guesses]
    expect_about(page, 0, np.abs(np.array(guesses) - PRICES).mean())
    expect(page.locator("#own-runs .chip")).to_have_count(4)
    check_clean(page)


# Live ----------------------------------------------------------------------------------------------------


def products(ending=""):
    return csv_text(pd.DataFrame({"text": [name + ending for name in NAMES], "price": PRICES}))


def begin(page, products):
    page.unfold(text.LIVE_TITLE)
    page.locator("#live-source").get_by_label(text.LIVE_SOURCES["csv"]).check()
    give(page, products, "products.csv", "#live-file")
    expect(page.locator("#live-status")).to_contain_text("6 products from products")
    page.locator("#live-start").click()


def test_a_live_run_joins_the_session_and_is_compared(evaluation, held_predictor):
    page = evaluation()
    begin(page, products())
    expect(page.locator("#live-status")).to_have_text(text.LIVE_DONE.format(done=6))
    expect(page.locator("#active .count")).to_have_text("6 of 6 items")
    for i, which in enumerate(("base", "tuned")):
        answers = held_predictor.predict([held_predictor.prepare(name) for name in NAMES], which)
        guesses = [float(answer.distribution.point(held_predictor.rule)) for answer in answers]
        expect_about(page, i, np.abs(np.array(guesses) - PRICES).mean())
    expect(page.locator("#own-runs .chip")).to_have_count(2)
    for chart in ("#scatter-a", "#scatter-b"):
        expect_marks(page, chart, 6)
    expect(page.locator("#live-start")).to_be_enabled()
    expect(page.locator("#live-stop")).to_be_disabled()
    check_clean(page)


def test_points_appear_and_a_stop_keeps_what_is_done(evaluation, held_predictor):
    page = evaluation()
    held_predictor.open = False
    try:
        begin(page, products(", used"))  # those of before are kept
        expect(page.locator("#live-stop")).to_be_enabled()
        held_predictor.let(1)
        expect(page.locator("#live-status")).to_contain_text("1 of 6 items")
        comes_to(page, "document.querySelector('#scatter-b .chart-plot')._fullData.some(t => t.customdata)")
        expect(page.locator("#active .count")).to_have_text("1 of 1 items")
        page.unfold(text.OWN_TITLE)
        give(page, "index,guess\n1,2\n")  # not while a live run writes to the same place
        expect(page.locator("#own-notice [role=alert]")).to_have_text(text.LIVE_RUNNING)
        page.locator("#live-stop").click()
        expect(page.locator("#live-status")).to_have_text(text.LIVE_STOPPING)
        held_predictor.let(1)
        expect(page.locator("#live-status")).to_contain_text(re.compile(r"Stopped: the \d items"))
    finally:
        held_predictor.open = True
        held_predictor.let(9)
    done = int(re.search(r"\d", page.locator("#live-status").inner_text()).group())
    assert 2 <= done < 6
    expect(page.locator("#active .count")).to_have_text(f"{done} of {done} items")
    expect_marks(page, "#scatter-a", done)
    expect(page.locator("#own-runs .chip")).to_have_count(2)
    expect(page.locator("#live-start")).to_be_enabled()
    check_clean(page)


def test_test_items_can_be_scored_live_where_their_text_is_at_hand(evaluation):
    page = evaluation()
    page.unfold(text.LIVE_TITLE)
    page.locator("#live-count input[type=number]").fill("3")
    page.locator("#live-count input[type=number]").press("Tab")
    page.locator("#live-start").click()
    expect(page.locator("#live-status")).to_have_text(text.LIVE_DONE.format(done=3))
    expect(page.locator("#active .count")).to_have_text("3 of 3 items")
    expect(page.locator("#board tbody tr").filter(has_text="live")).to_have_count(2)
    check_clean(page)


def test_a_source_goes_off_when_the_lookup_ends_after_the_fold_was_opened(
    seen_page, serve, held_predictor, tiny_settings, monkeypatch
):
    ended = threading.Event()

    def find_none(path, items):
        ended.wait(300)

    monkeypatch.setattr(item_texts, "load_item_texts", find_none)
    monkeypatch.setattr(own, "LOOKUP_SECONDS", 300)  # however slow the machine is
    page = seen_page(serve(theme.silence(build_demo(held_predictor, "", tiny_settings)), **page_options()))
    page.get_by_role("tab", name=text.EVALUATE_TAB).click()
    page.unfold(text.LIVE_TITLE)
    page.locator("#live-start").click()
    expect(page.locator("#live-status [role=alert]")).to_have_text(text.LIVE_TEXTS_WAITING)
    ended.set()
    expect(page.locator("#live-why")).to_have_text(text.LIVE_NO_TEXTS)
    expect(page.locator("#live-source").get_by_label(text.LIVE_SOURCES["test"])).to_have_count(0)
    check_clean(page)


def test_a_live_run_without_a_file_or_without_texts_says_what_to_do(
    seen_page, serve, held_predictor, tiny_settings, tmp_path
):
    settings = replace(tiny_settings, test_items=tmp_path / "nothing.parquet")
    url = serve(theme.silence(build_demo(held_predictor, "", settings)), **page_options())
    page = seen_page(url)
    page.get_by_role("tab", name=text.EVALUATE_TAB).click()
    page.unfold(text.LIVE_TITLE)
    expect(page.locator("#live-why")).to_have_text(text.LIVE_NO_TEXTS)  # the source that cannot work is off
    expect(page.locator("#live-source").get_by_label(text.LIVE_SOURCES["csv"])).to_be_checked()
    expect(page.locator("#live-source").get_by_label(text.LIVE_SOURCES["test"])).to_have_count(0)
    page.locator("#live-start").click()
    expect(page.locator("#live-status [role=alert]")).to_have_text(text.LIVE_NO_FILE)
    give(page, "text,price\nDrill,free\n", "bad.csv", "#live-file")
    expect(page.locator("#live-status [role=alert]")).to_contain_text(
        "row 1, column price: “free” is no price"
    )
    check_clean(page)
