"""The Evaluation tab in a real browser: every link between its parts, on the shipped runs and a tiny Llama.

What the parts say is tested in test_evaluation_parts.py, without a browser.
"""

import re
from dataclasses import replace

import numpy as np
import pytest
from playwright.sync_api import expect

from pricer.arena.arena import Arena
from pricer.arena.runs import load_items, load_runs
from pricer.arena.view import EMBEDDED_PAIR, PANELS, SEED_PAIR, View
from pricer.ui.evaluate import text
from pricer.ui.evaluate.panels import slice_name
from tests.ui.waiting import UNCHANGED, comes_to, drawn, still

pytestmark = pytest.mark.browser

ITEMS = load_items()
ARENA = Arena(load_runs()["benchmark"], ITEMS)
SEED, EMBEDDED = View(*SEED_PAIR), View(*EMBEDDED_PAIR)


def label(index):
    return ARENA.item(int(index)).label


def expect_figures(page, view):
    """Verdict, count and headline figures are those of the view."""
    narrowed, figures = ARENA.narrowed(view), ARENA.head_to_head(view)
    expect(page.locator("#active .count")).to_have_text(f"{figures.items:,} of {narrowed.shared:,} items")
    for end in ("a", "b"):
        for metric, form in (("error_usd", "${:,.2f}"), ("hits_pct", "{:.1f} %")):
            shown = page.locator(f".headline tr.{end} td.{metric} b")
            expect(shown).to_have_text(form.format(getattr(figures, end)[metric].value))


def mark(page, chart, index):
    """Where on the screen an item's mark is."""
    script = """(plot, index) => {
        const {xaxis, yaxis} = plot._fullLayout, box = plot.getBoundingClientRect();
        for (const trace of plot._fullData) {
            const at = (trace.customdata ?? []).findIndex((row) => row[0] === index);
            if (at >= 0) return [box.x + xaxis._offset + xaxis.d2p(trace.x[at]),
                                 box.y + yaxis._offset + yaxis.d2p(trace.y[at])];
        }
    }"""
    return still(page, chart).evaluate(script, index)


def lonely_item(view, end):
    """The item whose mark is furthest from any other one, so that a click can only mean it."""
    table = ARENA.pair(view.run_a, view.run_b)
    at = np.log(table[["price_usd", f"guess_usd_{end}"]].clip(lower=0.5).to_numpy())
    distance = np.abs(at[:, None] - at[None]).max(axis=2) + np.diag(np.full(len(at), np.inf))
    return int(table["index"].iloc[distance.min(axis=1).argmax()])


def box_around(page, chart, low_usd, high_usd):
    """Drag a box over all guesses for prices between the two."""
    script = """(plot, [low, high]) => {
        const {xaxis, yaxis} = plot._fullLayout, box = plot.getBoundingClientRect();
        const x = (value) => box.x + xaxis._offset + xaxis.d2p(value);
        return [[x(low), box.y + yaxis._offset + 1], [x(high), box.y + yaxis._offset + yaxis._length - 1]];
    }"""
    start, end = still(page, chart).evaluate(script, [low_usd, high_usd])
    page.mouse.move(*start)
    page.mouse.down()
    page.mouse.move(*end, steps=8)
    page.mouse.up()


def check_clean(page):
    assert (page.errors, page.foreign) == ([], [])
    assert page.evaluate("typeof window.x") == "undefined"


def open_panel(page, panel):
    """By its tab, or by the menu of those that have no room."""
    tabs, name = page.locator("#panels"), text.PANELS[panel]
    tabs.locator(".tab-wrapper").first.evaluate(UNCHANGED)  # Gradio moves those without room into the menu
    tab = tabs.get_by_role("tab", name=name, exact=True)
    if not tab.is_visible():
        tabs.locator(".overflow-menu > button").click()
        tab = tabs.locator(".overflow-dropdown").get_by_role("button", name=name, exact=True)
    tab.click()


def preset(page, name):
    return page.get_by_role("button", name=text.PRESETS[name][0], exact=True)


# Runs ----------------------------------------------------------------------------------------------------


def test_plots_are_made_only_when_the_tab_is_opened(seen_page, evaluation_url):
    page = seen_page(evaluation_url)
    page.locator("#chart-answer .chart-drawn").wait_for()
    assert page.locator("#scatter-a").count() == 0
    page.get_by_role("tab", name=text.EVALUATE_TAB).click()
    expect_figures(page, SEED)
    check_clean(page)


def test_the_runs_are_chosen_by_pair_swap_list_and_board(evaluation):
    page = evaluation()
    page.get_by_role("button", name=text.PAIRS["embedded"]).click()
    expect_figures(page, EMBEDDED)
    expect(page.get_by_role("button", name=text.PAIRS["embedded"])).to_have_attribute("aria-pressed", "true")
    page.get_by_role("button", name=text.SWAP).click()
    expect_figures(page, EMBEDDED.swapped())
    page.locator("#run-a input").click()
    page.get_by_role("option", name=re.compile("^GPT-5 ")).click()
    expect_figures(page, View("gpt-5", EMBEDDED_PAIR[0]))
    page.get_by_role("button", name=text.MAKE.format(label="GPT-4.1", end="B")).click()
    expect_figures(page, View("gpt-5", "gpt-4.1"))
    check_clean(page)


def test_the_board_is_sorted_searched_and_saved_and_pins_runs(evaluation):
    page = evaluation()
    page.get_by_role("button", name=text.BOARD_ALL.format(runs=len(ARENA.runs))).click()
    rows = page.locator("#board tbody tr")
    expect(rows).to_have_count(len(ARENA.runs))
    page.locator("#board").get_by_role("button", name="Hits").click()
    expect(page.locator("#board th[aria-sort]")).to_contain_text("Hits")
    page.locator("#board-find textarea, #board-find input").first.fill("gpt-4o mini")
    expect(rows).to_have_count(3)
    page.wait_for_url(re.compile("find=gpt-4o"))
    with page.expect_download() as saved:
        page.get_by_role("button", name=text.BOARD_EXPORT).click()
    assert saved.value.path().read_text(encoding="utf-8-sig").count("\n") == 4
    rows.first.locator(".pick-pin").click()
    page.wait_for_url(re.compile("pin="))
    open_panel(page, "several")
    drawn(page, "#chart-several")
    several = "document.querySelector('#chart-several .chart-plot')"
    comes_to(page, f"{several}.data.length", 3)
    page.locator("#several-measure").get_by_label(text.MEASURES["share"]).check()
    comes_to(page, f"{several}._fullLayout.xaxis.type", "log")
    check_clean(page)


# Looking closer ------------------------------------------------------------------------------------------


def test_a_click_on_a_mark_opens_its_item_which_can_be_sent_to_compare(evaluation, held_predictor, item_text):
    page = evaluation()
    index = lonely_item(SEED, "b")
    item = ARENA.item(index)
    page.mouse.click(*mark(page, "#scatter-b", index))
    expect(page.locator("#detail-head h4")).to_have_text(label(index))
    expect(page.locator("#detail-head")).to_contain_text(f"${item.price_usd:,.2f}")
    expect(page.locator("#detail-foot .item-text")).to_have_text(item_text(index))
    strip = "document.querySelector('#strip .chart-plot').data.flatMap(t => t.customdata ?? []).length"
    comes_to(page, strip, len(item.guesses))
    page.get_by_role("button", name=text.SEND).click()
    expect(page.locator("#product-text textarea")).to_have_value(item_text(index))
    expect(page.locator("#actual input, #actual textarea").first).to_have_value(f"{item.price_usd:.2f}")
    answer = held_predictor.compare(item_text(index)).to_dict(held_predictor.rule)
    usd = answer["tuned"]["price_usd"]
    expect(page.locator("#head-tuned .price")).to_have_text(f"${usd:,.2f}" if usd < 10 else f"${usd:,.0f}")
    check_clean(page)


def test_a_box_is_a_chip_that_everything_follows_and_a_link_that_others_can_open(evaluation, open_page):
    page = evaluation()
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    board_before = page.locator("#board tbody td.error_usd b").first.inner_text()
    box_around(page, "#scatter-a", 101, 303)
    chip = page.get_by_role("button", name=re.compile("^Remove selected"))
    chip.wait_for()
    inside = ITEMS[(ITEMS["price_usd"] > 101) & (ITEMS["price_usd"] < 303)].query("index < 250")
    count = int(re.search(r"[\d,]+", chip.inner_text()).group().replace(",", ""))
    assert abs(count - len(inside)) <= 3  # the box ends on whole pixels
    expect(page.locator("#active .count")).to_have_text(f"{count} of 250 items")
    expect(page.locator("#board tbody td.error_usd b").first).not_to_have_text(board_before)
    expect(page.locator("#head-to-head .hint")).to_have_text(text.PICKED_BY_GUESS)
    selected = "document.querySelector('#scatter-b .chart-plot')._fullData.flatMap(t => t.selectedpoints ?? []).length"
    comes_to(page, selected, count)  # the other plot shows the same items
    page.get_by_role("button", name=text.COPY_LINK).click()
    expect(page.get_by_role("button", name=text.COPIED)).to_be_visible()
    other = open_page(page.evaluate("navigator.clipboard.readText()"))
    expect(other.locator("#active .count")).to_have_text(f"{count} of 250 items")
    chip.click()
    expect_figures(page, SEED)
    comes_to(page, selected, 0)
    expect(page.get_by_role("button", name=text.COPY_LINK)).to_be_visible()  # again, after a moment
    check_clean(page)


def test_filters_are_chips_that_can_be_taken_off_and_bad_ones_are_said(evaluation):
    page = evaluation()
    page.unfold(text.FILTERS)
    low = page.locator("#filter-low_usd input")
    low.fill("100")
    low.press("Enter")
    expect_figures(page, replace(SEED, low_usd=100.0))
    page.locator("#filter-outcomes-b").get_by_label("miss").check()
    view = replace(SEED, low_usd=100.0, outcomes_b=("miss",))
    expect_figures(page, view)
    page.locator("#filter-categories input").click()
    page.get_by_role("option", name="Electronics", exact=True).click()
    expect_figures(page, replace(view, categories=("Electronics",)))
    expect(page.locator("#active .chip.on")).to_have_count(3)
    page.get_by_role("button", name=re.compile("^Remove B: miss")).click()
    expect_figures(page, replace(SEED, low_usd=100.0, categories=("Electronics",)))
    expect(page.locator("#filter-outcomes-b").get_by_label("miss")).not_to_be_checked()
    high = page.locator("#filter-high_usd input")
    high.fill("50")
    high.press("Enter")
    contradiction = text.CONTRADICTION.format(filters=f"“from $100” {text.AND} “up to $50”")
    expect(page.locator("#head-to-head")).to_have_text(contradiction)
    expect(page.locator("#scatter-a")).to_contain_text(text.NO_FIGURE)
    high.fill("-3")
    high.press("Enter")
    expect(page.locator("#evaluate-notice [role=alert]")).to_have_text(text.AMOUNT_BAD)
    page.get_by_role("button", name=text.RESET, exact=True).click()
    expect_figures(page, SEED)
    expect(low).to_have_value("")
    check_clean(page)


def test_a_preset_fills_the_table_whose_rows_open_items(evaluation):
    page = evaluation()
    preset(page, "worst-b").focus()
    page.keyboard.press("Enter")
    expect_figures(page, replace(SEED, preset="worst-b"))
    expect(preset(page, "worst-b")).to_have_attribute("aria-pressed", "true")
    expect(preset(page, "worst-b")).to_be_focused()
    expect(preset(page, "worst-b")).to_have_css("outline-style", "solid")
    open_panel(page, "items")
    table = ARENA.table(SEED, ARENA.narrowed(replace(SEED, preset="worst-b")).ranked)
    first = page.locator("#items .virtual-row").first.locator("[role=gridcell]").first
    expect(first).to_have_text(str(table["index"].iloc[0]))
    head = page.locator(f"#items th[title='{text.TABLE_HEADS['price_usd']}']")
    head.hover()
    head.locator(".cell-menu-button").click()
    page.get_by_role("menuitem", name="Sort ascending").click()
    cheapest = int(table.sort_values("price_usd")["index"].iloc[0])
    expect(first).to_have_text(str(cheapest))
    first.click()
    expect(page.locator("#detail-head h4")).to_have_text(label(cheapest))
    check_clean(page)


def test_every_panel_draws_and_a_click_on_a_group_narrows_to_it(evaluation):
    page = evaluation(EMBEDDED)
    charts = {
        "spread": ["spread", "share"],
        "pair": ["pair"],
        "running": ["running"],
        "coverage": ["coverage"],
        "groups": ["by_price", "by_category"],
    }
    for panel, names in charts.items():
        open_panel(page, panel)
        for name in names:
            drawn(page, f"#chart-{name}")
    script = """plot => {
        const {xaxis, yaxis} = plot._fullLayout, box = plot.getBoundingClientRect(), trace = plot._fullData[0];
        return [box.x + xaxis._offset + xaxis.d2p(trace.x[0]), box.y + yaxis._offset + yaxis.d2p(trace.y[0])];
    }"""
    page.mouse.click(*still(page, "#chart-by_category").evaluate(script))
    expect_figures(page, replace(EMBEDDED, categories=("Automotive",)))
    page.get_by_role("button", name=text.RESET, exact=True).click()
    open_panel(page, "slices")
    win = ARENA.findings(EMBEDDED).wins[0]
    page.locator("#slices li", has_text=slice_name(win)).get_by_role("button").click()
    expect(page.locator("#active .count")).to_have_text(f"{win.items} of 1,000 items")
    check_clean(page)


def test_axis_and_colours_are_switched(evaluation):
    page = evaluation()
    kinds = "[...document.querySelectorAll('.scatter .chart-plot')].map(p => p._fullLayout.xaxis.type)"
    comes_to(page, kinds, ["log", "log"])
    page.locator("#evaluate-axis").get_by_label("Linear").check()
    comes_to(page, kinds, ["linear", "linear"])
    page.locator("#evaluate-colours").get_by_label("Within 20 %").check()
    expect(page.locator("#legend")).to_contain_text("within 40 %")
    check_clean(page)


def test_ten_guesses_end_on_the_board(evaluation):
    page = evaluation(replace(SEED, panel="guess"), width=390, height=844)
    expect(page.locator("#guess")).to_contain_text("Ten of the benchmark items")
    page.get_by_role("button", name=text.GUESS_BEGIN).click()
    box = page.locator("#guess-price").locator("textarea, input").first
    box.fill("cheap")
    box.press("Enter")
    expect(page.locator("#guess-notice [role=alert]")).to_have_text(text.GUESS_BAD)
    prices = dict(zip(ARENA.items["label"], ARENA.price_usd, strict=True))
    for number in range(1, 11):
        expect(page.locator("#guess .question .hint").first).to_contain_text(f"Benchmark item {number} of 10")
        cost = prices[page.locator("#guess .question h4").inner_text()]
        box.fill(f"{cost + 5:.2f}")
        page.locator("#guess-go").click()
        expect(page.locator("#guess .answer")).to_contain_text(f"cost ${cost:,.2f}")
    expect(page.locator("#guess .verdict")).to_contain_text("off by $5.00 on average")
    expect(page.locator("#own-runs .chip")).to_have_text(re.compile("You · 10"))
    page.get_by_role("button", name=text.GUESS_LOOK).click()
    expect(page.locator("#active .count")).to_have_text("10 of 10 items")
    expect(page.locator(".headline tr.b")).to_contain_text("You")
    check_clean(page)


# Links ---------------------------------------------------------------------------------------------------


def test_a_link_restores_the_view_and_names_what_it_cannot(evaluation):
    view = replace(
        EMBEDDED,
        categories=("Electronics",),
        high_usd=400.0,
        preset="disagree",
        log_axis=False,
        panel="items",
        item=17,
    )
    unknown = "&pin=own-mine&kind=robot"
    page = evaluation(view.to_query() + unknown)
    expect_figures(page, view)
    expect(page.get_by_role("tab", name=text.PANELS["items"])).to_have_attribute("aria-selected", "true")
    expect(page.locator("#evaluate-axis").get_by_label("Linear")).to_be_checked()
    expect(page.locator("#detail-head h4")).to_have_text(label(17))
    expect(page.locator("#items .virtual-row").first).to_contain_text("Electronics")
    notice = page.locator("#evaluate-notice [role=alert]")
    expect(notice).to_contain_text("pin=own-mine is a run that only the visitor who added it has")
    expect(notice).to_contain_text("kind=robot is not known here")
    page.get_by_role("button", name=text.SWAP).click()
    expect(notice).to_have_count(0)
    check_clean(page)


def test_everyday_items_are_a_set_of_their_own(evaluation):
    page = evaluation()
    page.get_by_role("button", name=text.SETS["everyday"][0]).click()
    expect(page.locator("#active .count")).to_have_text("750 of 750 items")
    page.locator("#starters .starter").first.click()
    expect(page.locator("#detail-foot")).to_contain_text(text.TEXT_NEVER)
    page.wait_for_url(re.compile("set=everyday.*item="))
    opened = page.locator("#detail-head h4").inner_text()
    page.reload()
    expect(page.locator("#detail-head h4")).to_have_text(opened)
    page.get_by_role("button", name=text.SETS["benchmark"][0]).click()
    expect(page.locator("#active .count")).to_have_text("250 of 250 items")
    check_clean(page)


# Looks ---------------------------------------------------------------------------------------------------


# Those of the selectors whose first element's words have less than 4.5:1 (WCAG AA) against the ground behind.
LOW_CONTRAST = """(selectors => {
    const rgb = (colour) => colour.match(/[\\d.]+/g).map(Number);
    const light = ([r, g, b]) => [r, g, b].map((c) => c / 255)
        .map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
        .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
    const contrast = (element) => {
        let ground = element;
        while (ground && (rgb(getComputedStyle(ground).backgroundColor)[3] ?? 1) < 1) ground = ground.parentElement;
        const two = [rgb(getComputedStyle(element).color),
                     rgb(getComputedStyle(ground ?? document.body).backgroundColor)].map(light).sort((x, y) => x - y);
        return (two[1] + 0.05) / (two[0] + 0.05);
    };
    return selectors.filter((selector) => {
        const element = document.querySelector(selector);
        return !element || contrast(element) < 4.5;
    });
})"""


WORDS = [
    ".verdict",
    ".verdict .run-b",
    ".headline td b",
    ".headline .interval",
    ".opening",
    "#sets .chip",
    "#presets .chip",
    "#active .count",
    "#board .label",
    "#board .badge",
    "#board .interval",
    "#board .pick-a",
    "#board .pick-b",
    "#board [aria-pressed=true]",
    ".scatter h4",
    ".hits",
    ".legend",
    "#filters button",
    "#detail-head h4",
    "#detail-head .facts",
    "#detail-head .outcome b",
    "#detail-guesses td.off",
    "#detail-guesses td.hit",
    "#detail-guesses td.miss",
]


def test_words_are_legible_in_light_and_dark_and_plots_follow_the_page(evaluation):
    page = evaluation(replace(SEED, item=3))
    page.locator("#board tbody tr").first.wait_for()
    tick = "getComputedStyle(document.querySelector('#scatter-a .xtick text')).fill"
    for _ in range(2):
        comes_to(page, f"{LOW_CONTRAST}({WORDS})", [])
        before = page.evaluate(tick)
        page.locator("#theme-switch").click()
        page.wait_for_function(f"before => {tick} !== before", arg=before)
    check_clean(page)


def test_nothing_is_wider_than_a_phone(evaluation):
    page = evaluation(replace(EMBEDDED, item=3, pins=("gpt-5",)), width=390, height=844)
    for title in (text.MORE_FIGURES, text.FILTERS, text.OWN_TITLE, text.LIVE_TITLE):
        page.unfold(title)
    for panel in PANELS:
        open_panel(page, panel)
        page.wait_for_url(re.compile(f"panel={panel}" if panel != PANELS[0] else "tab=evaluation"))
        comes_to(page, "document.documentElement.scrollWidth <= 390")
    still(page, "#scatter-b")
    a, b = (page.locator(f"#scatter-{end}").bounding_box() for end in ("a", "b"))
    assert b["y"] >= a["y"] + a["height"] and a["x"] >= 0 and a["x"] + a["width"] <= 390
    for box in ("#own-file", "#live-start", "#live-stop"):
        place = page.locator(box).bounding_box()
        assert place["x"] >= 0 and place["x"] + place["width"] <= 390
    check_clean(page)


def test_works_without_models_and_texts_and_says_why(seen_page, without_models):
    url, problem = without_models
    page = seen_page(f"{url}?{replace(SEED, item=7).to_query()}")
    expect_figures(page, SEED)
    expect(page.locator("#detail-head h4")).to_have_text(label(7))
    expect(page.locator("#detail-foot")).to_contain_text("text is")
    expect(page.get_by_role("button", name=text.SEND)).to_have_count(0)
    page.unfold(text.LIVE_TITLE)
    expect(page.locator("#live")).to_contain_text(text.LIVE_NO_MODEL.format(problem=problem))
    page.unfold(text.OWN_TITLE)
    page.locator("#own-file input[type=file]").set_input_files(
        [{"name": "mine.csv", "mimeType": "text/csv", "buffer": b"index,guess\n1,2\n"}]
    )
    expect(page.locator("#own-runs .chip")).to_have_count(1)
    check_clean(page)
