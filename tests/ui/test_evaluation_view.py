"""The Evaluation tab as a visitor meets it: the first screen, the open product, keys and fingers, the address."""

import re

import pytest
from playwright.sync_api import expect

from pricer.arena.arena import Arena
from pricer.arena.runs import load_items, load_runs
from pricer.arena.view import SEED_PAIR, View
from pricer.ui.evaluate import text
from tests.ui.waiting import comes_to, still

pytestmark = pytest.mark.browser

ARENA = Arena(load_runs()["benchmark"], load_items())
SEED = View(*SEED_PAIR)


def label(index):
    return ARENA.item(int(index)).label


def check_clean(page):
    assert (page.errors, page.foreign) == ([], [])


def ends_above(page, selector, y):
    """Wait until the whole element is above that height of the window."""
    comes_to(page, f"document.querySelector('{selector}').getBoundingClientRect().bottom <= {y}")


# The first screen ----------------------------------------------------------------------------------------


def test_the_plots_are_on_the_first_screen(evaluation):
    page = evaluation(width=1440, height=900)
    for end in ("a", "b"):
        ends_above(page, f"#scatter-{end}", 900)
    page.locator("#opening").get_by_role("button", name=text.BEGIN).click()
    expect(page.locator("#active .count")).to_have_text("25 of 250 items")
    expect(page.locator("#head-to-head .verdict")).to_contain_text(text.TOO_FEW)
    check_clean(page)


def test_the_first_plot_is_on_the_first_screen_of_a_phone(evaluation):
    page = evaluation(width=390, height=844)
    ends_above(page, "#scatter-a", 844)
    comes_to(page, "document.documentElement.scrollWidth <= 390")
    check_clean(page)


# The open product, keys and fingers ----------------------------------------------------------------------


def test_the_open_product_stands_beside_the_plots_and_escape_closes_it(evaluation):
    page = evaluation(width=1440, height=900)
    page.locator("#starters .starter").first.click()
    worst = ARENA.pair(*SEED_PAIR).sort_values("error_usd_b").iloc[-1]
    expect(page.locator("#detail-head h4")).to_have_text(worst["label"])
    left = "document.querySelector('{}').getBoundingClientRect().x"
    comes_to(page, f"{left.format('#detail')} > {left.format('#scatter-b')} + 300")
    by_price = ARENA.walk(SEED).tolist()
    page.get_by_role("button", name=text.PREVIOUS_ITEM).click()
    expect(page.locator("#detail-head h4")).to_have_text(label(by_price[by_price.index(worst["index"]) - 1]))
    page.keyboard.press("Escape")
    expect(page.locator("#detail")).to_be_hidden()
    expect(page.locator("#starters .starter").first).to_be_visible()
    check_clean(page)


def test_the_keyboard_skips_the_plots_walks_their_dots_and_leaves_lists(evaluation):
    page = evaluation()
    link = page.get_by_role("link", name=text.SKIP_PLOTS)
    link.focus()
    expect(link).to_be_in_viewport()
    page.keyboard.press("Enter")
    expect(page.locator("#panels")).to_be_in_viewport()
    page.locator("#scatter-b .chart-plot").focus()
    for key in ("Home", "ArrowRight", "ArrowRight", "ArrowLeft"):
        page.keyboard.press(key)
    second = label(ARENA.walk(SEED)[1])
    expect(page.locator("#scatter-b .hoverlayer")).to_contain_text(second[:20])
    expect(page.locator("#scatter-b .chart-spoken")).to_contain_text(second)
    page.keyboard.press("Enter")
    expect(page.locator("#detail-head h4")).to_have_text(second)
    stops = "[...document.querySelectorAll('#scatter-b .modebar-btn')].filter(b => b.tabIndex === 0).length"
    comes_to(page, stops, 1)
    page.locator("#run-a input").click()
    page.get_by_role("option").first.wait_for()
    page.keyboard.press("Tab")
    expect(page.locator("#run-a input")).to_have_attribute("aria-expanded", "false")
    expect(page.locator("#run-b input")).to_be_focused()
    check_clean(page)


def test_a_finger_opens_the_nearest_dot_and_is_led_to_it(browser, evaluation_url):
    context = browser.new_context(viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    context.set_default_timeout(60_000)
    page = context.new_page()
    page.goto(f"{evaluation_url}?{SEED.to_query()}")
    where = still(page, "#scatter-a").evaluate("""plot => {
        const {xaxis, yaxis} = plot._fullLayout, box = plot.getBoundingClientRect();
        const all = plot._fullData.filter(t => t.customdata).flatMap(t => [...t.x].map((x, i) =>
            [xaxis._offset + xaxis.d2p(x), yaxis._offset + yaxis.d2p(t.y[i]), t.customdata[i][1]]));
        const away = (one, other) => one === other ? 999 : Math.hypot(one[0] - other[0], one[1] - other[1]);
        const alone = (one) => Math.min(...all.map(other => away(one, other)));
        const [x, y, label] = all.reduce((best, one) => alone(one) > alone(best) ? one : best);
        return [box.x + x, box.y + y, label];
    }""")
    page.touchscreen.tap(where[0] + 7, where[1] + 6)
    expect(page.locator("#detail-head h4")).to_have_text(where[2])
    expect(page.locator("#detail-head")).to_be_in_viewport()
    context.close()


# The address ---------------------------------------------------------------------------------------------


def test_the_address_follows_the_view_through_reload_back_and_forward(evaluation):
    page = evaluation()
    page.wait_for_url(re.compile("tab=evaluation"))
    page.locator("#starters .starter").first.click()
    page.wait_for_url(re.compile("item="))
    opened = page.locator("#detail-head h4").inner_text()
    page.get_by_role("button", name=text.PRESETS["worst-b"][0], exact=True).click()
    page.wait_for_url(re.compile("preset=worst-b"))  # in place of the last address: Back closes the item
    page.reload()
    expect(page.locator("#detail-head h4")).to_have_text(opened)
    expect(page.locator("#active .count")).to_have_text("25 of 250 items")
    page.get_by_role("button", name=text.SWAP).click()
    page.wait_for_url(re.compile(f"a={SEED_PAIR[1]}&b={SEED_PAIR[0]}"))
    page.go_back()
    expect(page.locator("#head-to-head .verdict")).to_contain_text(text.TOO_FEW)
    page.wait_for_url(re.compile(f"a={SEED_PAIR[0]}"))
    page.go_forward()
    expect(page.locator(".headline tr.a")).to_contain_text("fine-tuned")
    check_clean(page)


def test_back_leads_to_the_other_tab_and_leaving_takes_the_address_away(evaluation):
    page = evaluation()
    page.wait_for_url(re.compile("tab=evaluation"))
    page.go_back()
    expect(page.get_by_role("tab", name=text.COMPARE_TAB)).to_have_attribute("aria-selected", "true")
    page.go_forward()
    expect(page.get_by_role("tab", name=text.EVALUATE_TAB)).to_have_attribute("aria-selected", "true")
    page.get_by_role("tab", name=text.COMPARE_TAB).click()
    comes_to(page, "location.search", "")
    check_clean(page)
