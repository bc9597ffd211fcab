"""The Evaluation tab as a visitor meets it: the first screen, the open product, keys and fingers, the address."""

import re
from dataclasses import replace

import pytest
from playwright.sync_api import expect

from pricer.arena.arena import Arena
from pricer.arena.runs import Run, RunInfo, load_items, load_runs
from pricer.arena.view import EMBEDDED_PAIR, SEED_PAIR, View
from pricer.settings import Settings
from pricer.ui import build_demo, page_options, theme
from pricer.ui.evaluate import text

pytestmark = pytest.mark.browser
expect.set_options(timeout=60_000)

ARENA = Arena(load_runs()["benchmark"], load_items())
SEED, EMBEDDED = View(*SEED_PAIR), View(*EMBEDDED_PAIR)
LOOKS = pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])


@pytest.fixture(scope="module")
def url(serve):
    demo = build_demo(None, "There is no adapter at /nowhere.", Settings.from_env({}))
    return serve(theme.silence(demo), **page_options(), show_error=True)


@pytest.fixture
def visit(open_page, url):
    def visit(query="", **options):
        page = open_page(f"{url}?{query}" if query else url, **options)
        if not query:
            page.get_by_role("tab", name=text.EVALUATE_TAB).click()
        for chart in ("#scatter-a", "#scatter-b"):
            page.locator(f"{chart} .chart-drawn .main-svg").first.wait_for()
        return page

    return visit


def label(index):
    return ARENA.item(int(index)).label


def clean(page):
    return page.errors == [] and page.foreign == []


def bottom(page, selector):
    return page.locator(selector).evaluate("e => e.getBoundingClientRect().bottom")


# The first screen ----------------------------------------------------------------------------------------


@LOOKS
def test_both_plots_are_on_the_first_screen_of_a_desktop(visit, dark):
    page = visit(width=1440, height=900, dark=dark)
    assert max(bottom(page, "#scatter-a"), bottom(page, "#scatter-b")) <= 900
    expect(page.locator("#head-to-head .verdict")).to_contain_text("the fine-tuned Llama 3.1 8B is closer")
    expect(page.locator("#pairs")).to_contain_text(text.SEED_SHOWN)
    page.locator("#opening").get_by_role("button", name=text.BEGIN).click()
    expect(page.locator("#active .count")).to_have_text("25 of 250 items")
    expect(page.locator("#head-to-head .verdict")).to_contain_text(text.TOO_FEW)
    assert clean(page)


@LOOKS
def test_the_first_plot_is_on_the_first_screen_of_a_phone(visit, dark):
    page = visit(width=390, height=844, dark=dark)
    assert bottom(page, "#scatter-a") <= 844
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.locator("#pairs").get_by_role("button", name=text.PAIRS["compare"]).click()
    expect(page.locator("#head-to-head .verdict")).to_contain_text("the fine-tuned SmolLM2 135M is closer")
    assert clean(page)


def test_marks_can_be_coloured_by_ratio_alone(visit):
    page = visit()
    page.locator("#evaluate-colours").get_by_label("Within 20 %").check()
    expect(page.locator("#legend")).to_contain_text("within 40 %")
    within = (ARENA.pair(*SEED_PAIR).eval("error_usd_b / price_usd") < 0.2).mean()
    expect(page.locator(".scatter h4.run-b .hits")).to_have_text(text.WITHIN.format(pct=100 * within))
    assert clean(page)


# The open product ----------------------------------------------------------------------------------------


def test_the_open_product_stands_beside_the_plots_and_escape_closes_it(visit):
    page = visit(width=1440, height=900)
    page.locator("#starters .starter").first.click()
    worst = ARENA.pair(*SEED_PAIR).sort_values("error_usd_b").iloc[-1]
    expect(page.locator("#detail-head h4")).to_have_text(worst["label"])
    assert page.locator("#detail").bounding_box()["x"] > page.locator("#scatter-b").bounding_box()["x"] + 300
    guesses = ARENA.item(worst["index"]).guesses
    expect(page.locator("#detail-guesses tbody tr")).to_have_count(len(guesses))
    expect(page.locator("#detail-guesses tbody th").first).to_have_text(guesses[0].info.label)
    by_price = ARENA.walk(SEED).tolist()
    page.get_by_role("button", name=text.PREVIOUS_ITEM).click()
    expect(page.locator("#detail-head h4")).to_have_text(label(by_price[by_price.index(worst["index"]) - 1]))
    page.keyboard.press("Escape")
    expect(page.locator("#detail")).to_be_hidden()
    expect(page.locator("#starters .starter").first).to_be_visible()
    assert clean(page)


def test_arrow_keys_walk_the_dots_by_price_and_enter_opens_one(visit):
    page = visit()
    plot = page.locator("#scatter-b .chart-plot")
    plot.focus()
    for key in ("Home", "ArrowRight", "ArrowRight", "ArrowLeft"):
        page.keyboard.press(key)
    second = label(ARENA.walk(SEED)[1])
    expect(page.locator("#scatter-b .hoverlayer")).to_contain_text(second[:20])
    expect(page.locator("#scatter-b .chart-spoken")).to_contain_text(second)
    page.keyboard.press("Enter")
    expect(page.locator("#detail-head h4")).to_have_text(second)
    stops = "[...document.querySelectorAll('#scatter-b .modebar-btn')].filter(b => b.tabIndex === 0).length"
    assert page.evaluate(stops) == 1
    assert clean(page)


def test_a_skip_link_leads_past_the_plots(visit):
    page = visit()
    link = page.get_by_role("link", name=text.SKIP_PLOTS)
    link.focus()
    expect(link).to_be_in_viewport()
    page.keyboard.press("Enter")
    expect(page.locator("#panels")).to_be_in_viewport()
    assert clean(page)


def test_a_finger_opens_the_nearest_dot_and_is_led_to_it(browser, url):
    context = browser.new_context(viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    context.set_default_timeout(60_000)
    page = context.new_page()
    page.goto(f"{url}?{SEED.to_query()}")
    plot = page.locator("#scatter-a .chart-plot")
    page.locator("#scatter-a .chart-drawn .main-svg").first.wait_for()
    where = plot.evaluate("""plot => {
        plot.scrollIntoView({block: 'center'});
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


def test_the_address_follows_the_view_through_reload_back_and_forward(visit):
    page = visit()
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
    assert clean(page)


def test_back_leads_to_the_other_tab_and_leaving_takes_the_address_away(visit):
    page = visit()
    page.wait_for_url(re.compile("tab=evaluation"))
    page.go_back()
    expect(page.get_by_role("tab", name=text.COMPARE_TAB)).to_have_attribute("aria-selected", "true")
    page.go_forward()
    expect(page.get_by_role("tab", name=text.EVALUATE_TAB)).to_have_attribute("aria-selected", "true")
    page.get_by_role("tab", name=text.COMPARE_TAB).click()
    page.wait_for_function("!location.search")
    assert clean(page)


def test_unknown_parts_of_a_link_are_named(visit):
    page = visit("tab=evaluation&a=own-mine&b=gpt-5&kind=robot&item=5000000")
    notice = page.locator("#evaluate-notice [role=alert]")
    expect(notice).to_contain_text("a=own-mine is a run that only the visitor who added it has")
    expect(notice).to_contain_text("kind=robot is not known here")
    expect(notice).to_contain_text("item 5000000 is not among these")
    assert clean(page)


def test_filters_that_contradict_each_other_are_named_and_a_bad_price_is_said(visit):
    page = visit(replace(EMBEDDED, low_usd=100.0).to_query())
    page.unfold(text.FILTERS)
    high = page.locator("#filter-high_usd input")
    high.fill("50")
    high.press("Enter")
    contradiction = text.CONTRADICTION.format(filters=f"“from $100” {text.AND} “up to $50”")
    expect(page.locator("#head-to-head")).to_have_text(contradiction)
    high.fill("-3")
    high.press("Enter")
    expect(page.locator("#evaluate-notice [role=alert]")).to_have_text(text.AMOUNT_BAD)
    assert clean(page)


def test_a_copied_link_says_so_for_a_moment(visit):
    page = visit()
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.get_by_role("button", name=text.COPY_LINK).click()
    expect(page.get_by_role("button", name=text.COPIED)).to_be_visible()
    expect(page.get_by_role("button", name=text.COPY_LINK)).to_be_visible()
    assert clean(page)


# Item sets, and tables of other tabs ---------------------------------------------------------------------


@pytest.fixture
def everyday(serve, monkeypatch):
    """The page where two runs have been scored on the everyday items, and a button that hands a table over."""
    items = load_items(item_set="everyday")

    made = {}
    for kind, factor in (("base", 0.5), ("tuned", 1.1)):
        info = RunInfo(name=f"{kind}-everyday", label=f"{kind} everyday", kind=kind, items="everyday")
        made[info.name] = Run(info, items[["index"]].assign(guess_usd=(factor * items["price_usd"]).round(2)))
    found = load_runs() | {"everyday": made}
    monkeypatch.setattr("pricer.ui.evaluate.tab.load_runs", lambda: found)
    return serve(theme.silence(build_demo(None, "no models", Settings.from_env({}))), **page_options())


def test_everyday_items_are_a_set_of_their_own(everyday, open_page):
    page = open_page(everyday)
    page.get_by_role("tab", name=text.EVALUATE_TAB).click()
    page.get_by_role("button", name=text.SETS["everyday"][0]).click()
    expect(page.locator("#active .count")).to_have_text("750 of 750 items")
    expect(page.locator(".headline tr.b")).to_contain_text("tuned everyday")
    expect(page.locator("#board")).to_contain_text(text.BOARD_FEW_RUNS)
    names = load_items(item_set="everyday")["label"].tolist()
    assert page.locator("#starters .starter span").first.inner_text() in names
    page.locator("#starters .starter").first.click()
    expect(page.locator("#detail-foot")).to_contain_text(text.TEXT_NEVER)
    page.wait_for_url(re.compile("set=everyday.*item="))
    opened = page.locator("#detail-head h4").inner_text()
    page.reload()
    expect(page.locator("#detail-head h4")).to_have_text(opened)
    page.get_by_role("button", name=text.SETS["benchmark"][0]).click()
    expect(page.locator("#active .count")).to_have_text("250 of 250 items")
    assert clean(page)


def test_tab_leaves_an_open_list_of_runs_for_the_next_control(visit):
    page = visit()
    page.locator("#run-a input").click()
    page.get_by_role("option").first.wait_for()
    page.keyboard.press("Tab")
    expect(page.locator("#run-a input")).to_have_attribute("aria-expanded", "false")
    expect(page.locator("#run-b input")).to_be_focused()
    assert clean(page)
