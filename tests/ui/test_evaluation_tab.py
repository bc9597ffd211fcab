"""The Evaluation tab in a real browser: every link between its parts, on the shipped runs and a tiny Llama."""

import re
from dataclasses import replace

import pytest
from playwright.sync_api import expect

from pricer.arena.arena import Arena
from pricer.arena.runs import load_items, load_runs
from pricer.arena.view import EMBEDDED_PAIR, SEED_PAIR, View
from pricer.settings import Settings
from pricer.ui import build_demo, page_options, theme
from pricer.ui.evaluate import text

pytestmark = pytest.mark.browser
expect.set_options(timeout=60_000)

ITEMS = load_items()
ARENA = Arena(load_runs()["benchmark"], ITEMS)
SEED, EMBEDDED = View(*SEED_PAIR), View(*EMBEDDED_PAIR)
HOSTILE = "<script>window.x=1</script><img src=x onerror=window.x=1>"


def item_text(index):
    """Hand-made; with markup in it, as a listing may have."""
    return f"Hand-made text of item {index} {HOSTILE}"


@pytest.fixture(scope="module")
def url(tiny_predictor, tiny_settings, serve, tmp_path_factory):
    file = tmp_path_factory.mktemp("texts") / "items.parquet"
    texts = [item_text(index) for index in ITEMS["index"]]
    ITEMS.assign(text=texts, price=ITEMS["price_usd"])[["index", "text", "price"]].to_parquet(file)
    demo = build_demo(tiny_predictor, "", replace(tiny_settings, test_items=file))
    return serve(theme.silence(demo), **page_options(), show_error=True)


@pytest.fixture
def visit(open_page, url):
    """`visit()`: the page with the Evaluation tab open; `visit(query)`: the page at a link."""

    def visit(query="", **options):
        page = open_page(f"{url}?{query}" if query else url, **options)
        page.set_default_timeout(60_000)
        if not query:
            page.get_by_role("tab", name=text.EVALUATE_TAB).click()
        drawn(page, "#scatter-a")
        drawn(page, "#scatter-b")
        return page

    return visit


def label(index):
    return ARENA.item(int(index)).label


def drawn(page, chart):
    page.locator(f"{chart} .chart-drawn .main-svg").first.wait_for()
    return page.locator(f"{chart} .chart-plot")


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
        plot.scrollIntoView({block: 'center'});
        const {xaxis, yaxis} = plot._fullLayout, box = plot.getBoundingClientRect();
        for (const trace of plot._fullData) {
            const at = (trace.customdata ?? []).findIndex((row) => row[0] === index);
            if (at >= 0) return [box.x + xaxis._offset + xaxis.d2p(trace.x[at]),
                                 box.y + yaxis._offset + yaxis.d2p(trace.y[at])];
        }
    }"""
    return drawn(page, chart).evaluate(script, index)


def lonely_item(view, end):
    """The item whose mark is furthest from any other one, so that a click can only mean it."""
    import numpy as np

    table = ARENA.pair(view.run_a, view.run_b)
    at = np.log(table[["price_usd", f"guess_usd_{end}"]].clip(lower=0.5).to_numpy())
    distance = np.abs(at[:, None] - at[None]).max(axis=2) + np.diag(np.full(len(at), np.inf))
    return int(table["index"].iloc[distance.min(axis=1).argmax()])


def drag(page, start, end):
    page.mouse.move(*start)
    page.mouse.down()
    page.mouse.move(*end, steps=8)
    page.mouse.up()


def box_around(page, chart, low_usd, high_usd):
    """Drag a box over all guesses for prices between the two."""
    script = """(plot, [low, high]) => {
        plot.scrollIntoView({block: 'center'});
        const {xaxis, yaxis} = plot._fullLayout, box = plot.getBoundingClientRect();
        const x = (value) => box.x + xaxis._offset + xaxis.d2p(value);
        return [[x(low), box.y + yaxis._offset + 1], [x(high), box.y + yaxis._offset + yaxis._length - 1]];
    }"""
    drag(page, *drawn(page, chart).evaluate(script, [low_usd, high_usd]))


def clean(page):
    return page.errors == [] and page.foreign == []


def open_panel(page, panel):
    page.locator("#panels").get_by_role("tab", name=text.PANELS[panel], exact=True).click()


def first_cell(page):
    """The item number in the table's first row."""
    return page.locator("#items .virtual-row").first.locator("[role=gridcell]").first


# The first view ------------------------------------------------------------------------------------------


def test_opens_on_the_seeds_pair_with_its_published_figures(visit):
    page = visit()
    expect_figures(page, SEED)
    expect(page.locator("#head-to-head")).to_contain_text(
        "On the 250 items that both have, the fine-tuned Llama 3.1 8B is closer to the price: its error is $343.63 lower"
    )
    expect(page.locator("#pairs")).to_contain_text(text.SEED_SHOWN)
    page.unfold(text.MORE_FIGURES)
    for value in ("$395.72", "$52.09", "1.49", "0.39", "28.0 %", "68.4 %", "+40.4 points"):
        expect(page.locator("#metrics").get_by_text(value, exact=True)).to_have_count(1)
    figures = ARENA.head_to_head(SEED)
    expect(page.locator(".counts")).to_contain_text(f"A closer on {figures.wins_a:,}")
    page.get_by_role("button", name=text.BOARD_ALL.format(runs=len(ARENA.runs))).click()
    expect(page.locator("#board tbody tr")).to_have_count(len(ARENA.runs))
    expect(page.locator("#board").get_by_text(text.PUBLISHED, exact=True)).to_have_count(22)
    assert clean(page)


def test_every_term_explains_itself_on_hover_and_focus(visit):
    page = visit()
    page.unfold(text.MORE_FIGURES)
    for name, meaning, *_ in text.METRICS.values():
        term = page.locator("#metrics abbr", has_text=re.compile(f"^{name}$"))
        if term.count():
            assert term.get_attribute("title") == meaning
            page.keyboard.press("Shift")  # a focus that follows a key is shown
            term.focus()
            expect(page.locator("#tip")).to_have_text(meaning)


def test_plots_are_made_only_when_the_tab_is_opened(open_page, url):
    page = open_page(url)
    page.locator("#chart-answer .chart-drawn").wait_for()
    assert page.locator("#scatter-a").count() == 0


def test_one_click_to_the_embedded_pair_swap_and_any_other_run(visit):
    page = visit()
    page.get_by_role("button", name=text.PAIRS["embedded"]).click()
    expect_figures(page, EMBEDDED)
    expect(page.get_by_role("button", name=text.PAIRS["embedded"])).to_have_attribute("aria-pressed", "true")
    page.get_by_role("button", name=text.SWAP).click()
    expect_figures(page, EMBEDDED.swapped())
    page.get_by_role("listbox", name=text.RUN_LABELS["a"]).or_(page.locator("#run-a input")).first.click()
    page.get_by_role("option", name=re.compile("^GPT-5 ")).click()
    expect_figures(page, View("gpt-5", EMBEDDED_PAIR[0]))
    assert clean(page)


def test_leaderboard_sorts_and_makes_a_run_a_or_b(visit):
    page = visit()
    page.get_by_role("button", name=text.BOARD_ALL.format(runs=len(ARENA.runs))).click()
    expect(page.locator("#board tbody tr")).to_have_count(len(ARENA.runs))
    first = page.locator("#board tbody tr .label").first
    labels = [ARENA.infos[s.name].label for s in ARENA.leaderboard(SEED).standings]
    expect(first).to_have_text(labels[0])
    page.locator("#board").get_by_role("button", name="Hits").click()
    by_hits = [ARENA.infos[s.name].label for s in ARENA.leaderboard(replace(SEED, sort="hits_pct")).standings]
    expect(page.locator("#board tbody tr .label")).to_have_text(by_hits)
    assert by_hits != labels
    expect(page.locator("#board th[aria-sort]")).to_contain_text("Hits")
    ties = sum(standing.ties_best for standing in ARENA.leaderboard(SEED).standings)
    expect(page.locator("#board .behind_best").get_by_text(text.TIES_BEST)).to_have_count(ties)
    page.get_by_role("button", name=text.MAKE.format(label="GPT-5", end="A")).click()
    expect_figures(page, View("gpt-5", SEED_PAIR[1]))
    assert clean(page)


# Looking closer ------------------------------------------------------------------------------------------


def test_a_click_on_a_mark_opens_its_item(visit):
    page = visit()
    index = lonely_item(SEED, "b")
    item = ARENA.item(index)
    page.mouse.click(*mark(page, "#scatter-b", index))
    expect(page.locator("#detail-head h4")).to_have_text(label(index))
    expect(page.locator("#detail-head")).to_contain_text(f"${item.price_usd:,.2f}")
    expect(page.locator("#detail-foot .item-text")).to_have_text(item_text(index))
    drawn(page, "#strip")
    guesses = page.locator("#strip .chart-plot").evaluate(
        "plot => plot.data.filter(t => t.customdata).map(t => t.customdata.length).reduce((a, b) => a + b)"
    )
    assert guesses == len(item.guesses)
    assert page.evaluate("typeof window.x") == "undefined"
    page.get_by_role("button", name=text.CLOSE_ITEM).click()
    expect(page.locator("#detail")).to_be_hidden()
    assert clean(page)


def test_box_selection_is_a_chip_that_everything_follows(visit):
    page = visit()
    board_before = page.locator("#board tbody td.error_usd b").first.inner_text()
    box_around(page, "#scatter-a", 101, 303)
    chip = page.get_by_role("button", name=re.compile("^Remove selected"))
    chip.wait_for()
    inside = ITEMS[(ITEMS["price_usd"] > 101) & (ITEMS["price_usd"] < 303)].query("index < 250")
    count = int(re.search(r"[\d,]+", chip.inner_text()).group().replace(",", ""))
    assert abs(count - len(inside)) <= 3  # the box ends on whole pixels
    expect(page.locator("#active .count")).to_have_text(f"{count} of 250 items")
    expect(page.locator("#board tbody td.error_usd b").first).not_to_have_text(board_before)
    expect(page.locator("#head-to-head .hint")).to_contain_text("picked")
    page.wait_for_function(  # the other plot shows the same items
        """count => document.querySelector("#scatter-b .chart-plot")._fullData
            .filter(t => t.selectedpoints).reduce((n, t) => n + t.selectedpoints.length, 0) === count""",
        arg=count,
    )
    chip.click()
    expect_figures(page, SEED)
    expect(page.locator("#scatter-a .chart-drawn")).to_have_count(1)
    page.wait_for_function(
        "document.querySelector('#scatter-b .chart-plot')._fullData.every(t => !t.selectedpoints)"
    )
    assert clean(page)


def test_filters_chips_and_reset(visit):
    page = visit()
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
    page.get_by_role("button", name=text.RESET, exact=True).click()
    expect_figures(page, SEED)
    expect(low).to_have_value("")
    assert clean(page)


def test_nothing_left_is_said(visit):
    page = visit()
    page.unfold(text.FILTERS)
    low = page.locator("#filter-low_usd input")
    low.fill("5000")
    low.press("Enter")
    expect(page.locator("#head-to-head")).to_have_text(text.NOTHING_LEFT.format(filter="“from $5,000”"))
    expect(page.locator("#scatter-a")).to_contain_text(text.NO_FIGURE)
    expect(page.locator("#board")).to_contain_text(text.BOARD_EMPTY)
    page.get_by_role("button", name=text.RESET, exact=True).click()
    expect_figures(page, SEED)
    assert clean(page)


@pytest.mark.parametrize("preset", ["worst-b", "both-wrong"])
def test_presets(visit, preset):
    page = visit()
    button = page.get_by_role("button", name=text.PRESETS[preset][0], exact=True)
    button.click()
    expect_figures(page, replace(SEED, preset=preset))
    expect(button).to_have_attribute("aria-pressed", "true")
    button.click()
    expect_figures(page, SEED)
    assert clean(page)


def test_sorting_the_table_and_clicking_a_row_opens_that_item(visit):
    page = visit()
    page.get_by_role("button", name=text.PRESETS["worst-b"][0], exact=True).click()
    open_panel(page, "items")
    table = ARENA.table(SEED, ARENA.narrowed(replace(SEED, preset="worst-b")).ranked)
    first = first_cell(page)
    expect(first).to_have_text(str(table["index"].iloc[0]))
    head = page.locator(f"#items th[title='{text.TABLE_HEADS['price_usd']}']")
    head.hover()
    head.locator(".cell-menu-button").click()
    page.get_by_role("menuitem", name="Sort ascending").click()
    cheapest = int(table.sort_values("price_usd")["index"].iloc[0])
    expect(first).to_have_text(str(cheapest))
    first.click()
    expect(page.locator("#detail-head h4")).to_have_text(label(cheapest))
    assert clean(page)


def test_stepping_through_the_items_of_a_preset(visit):
    page = visit(replace(SEED, preset="worst-b", panel="items").to_query())
    ranked = ARENA.index[ARENA.narrowed(replace(SEED, preset="worst-b")).ranked]
    first_cell(page).click()
    expect(page.locator("#detail-head h4")).to_have_text(label(ranked[0]))
    expect(page.get_by_role("button", name=text.PREVIOUS_ITEM)).to_have_count(0)
    page.get_by_role("button", name=text.NEXT_ITEM).click()
    expect(page.locator("#detail-head h4")).to_have_text(label(ranked[1]))
    assert clean(page)


def test_every_panel_draws(visit):
    page = visit(EMBEDDED.to_query())
    charts = {
        "spread": ["spread", "share"],
        "groups": ["by_price", "by_category"],
        "pair": ["pair"],
        "running": ["running"],
        "coverage": ["coverage"],
    }
    for panel, names in charts.items():
        open_panel(page, panel)
        for name in names:
            drawn(page, f"#chart-{name}")
    assert clean(page)


def test_a_click_on_a_group_narrows_to_it(visit):
    page = visit(replace(EMBEDDED, panel="groups").to_query())
    plot = drawn(page, "#chart-by_category")
    script = """plot => {
        plot.scrollIntoView({block: 'center'});
        const {xaxis, yaxis} = plot._fullLayout, box = plot.getBoundingClientRect(), trace = plot._fullData[0];
        return [box.x + xaxis._offset + xaxis.d2p(trace.x[0]), box.y + yaxis._offset + yaxis.d2p(trace.y[0])];
    }"""
    page.mouse.click(*plot.evaluate(script))
    expect_figures(page, replace(EMBEDDED, categories=("Automotive",)))
    assert clean(page)


def test_axis(visit):
    page = visit()
    kind = "[...document.querySelectorAll('#scatter-a .chart-plot, #scatter-b .chart-plot')].every(p => p._fullLayout.xaxis.type === '{}')"
    assert page.evaluate(kind.format("log"))
    page.locator("#evaluate-axis").get_by_label("Linear").check()
    page.wait_for_function(kind.format("linear"))
    assert clean(page)


# Links and the other tab ---------------------------------------------------------------------------------


def test_a_link_restores_the_view(visit):
    view = replace(
        EMBEDDED,
        categories=("Electronics",),
        high_usd=400.0,
        preset="disagree",
        log_axis=False,
        panel="items",
        item=17,
    )
    page = visit(view.to_query())
    expect_figures(page, view)
    expect(page.get_by_role("tab", name=text.PANELS["items"])).to_have_attribute("aria-selected", "true")
    expect(page.locator("#evaluate-axis").get_by_label("Linear")).to_be_checked()
    expect(page.locator("#detail-head h4")).to_have_text(label(17))
    expect(page.locator("#items .virtual-row").first).to_contain_text("Electronics")
    assert clean(page)


def test_copied_link_opens_the_same_view(visit, open_page):
    page = visit()
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    box_around(page, "#scatter-b", 20, 90)
    chip = page.get_by_role("button", name=re.compile("^Remove selected"))
    chip.wait_for()
    count = page.locator("#active .count").inner_text()
    page.get_by_role("button", name=text.COPY_LINK).click()
    expect(page.get_by_role("button", name=text.COPIED)).to_be_visible()
    link = page.evaluate("navigator.clipboard.readText()")
    other = open_page(link)
    expect(other.locator("#active .count")).to_have_text(count)
    assert clean(page) and clean(other)


def test_a_link_to_what_is_not_there_says_so_and_shows_the_rest(visit):
    page = visit("tab=evaluation&a=nobody&b=gpt-5&preset=luck")
    expect(page.locator("#evaluate-notice [role=alert]")).to_contain_text("a=nobody")
    expect(page.locator("#evaluate-notice [role=alert]")).to_contain_text("preset=luck")
    expect_figures(page, View(SEED_PAIR[0], "gpt-5"))
    page.get_by_role("button", name=text.SWAP).click()
    expect(page.locator("#evaluate-notice [role=alert]")).to_have_count(0)
    assert clean(page)


def test_send_to_compare(visit, tiny_predictor):
    page = visit(replace(SEED, item=3).to_query())
    open_panel(page, "items")
    page.locator("#items .virtual-row [role=gridcell]").get_by_text("5", exact=True).first.click()
    expect(page.locator("#detail-head h4")).to_have_text(label(5))
    page.get_by_role("button", name=text.SEND).click()
    expect(page.locator("#product-text textarea")).to_have_value(item_text(5))
    expect(page.locator("#actual input, #actual textarea").first).to_have_value(
        f"{ITEMS['price_usd'][5]:.2f}"
    )
    answer = tiny_predictor.compare(item_text(5)).to_dict(tiny_predictor.rule)
    usd = answer["tuned"]["price_usd"]
    expect(page.locator("#head-tuned .price")).to_have_text(f"${usd:,.2f}" if usd < 10 else f"${usd:,.0f}")
    assert page.evaluate("typeof window.x") == "undefined"
    assert clean(page)


# Looks ---------------------------------------------------------------------------------------------------


def contrast_of(page, selector):
    """WCAG contrast of an element's words against the ground that shows through behind them."""
    return page.locator(selector).first.evaluate("""element => {
        const rgb = (colour) => colour.match(/[\\d.]+/g).map(Number);
        let ground = element;
        while (ground && (rgb(getComputedStyle(ground).backgroundColor)[3] ?? 1) < 1) ground = ground.parentElement;
        const light = ([r, g, b]) => [r, g, b].map((c) => c / 255)
            .map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
            .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
        const two = [rgb(getComputedStyle(element).color),
                     rgb(getComputedStyle(ground ?? document.body).backgroundColor)].map(light).sort((x, y) => x - y);
        return (two[1] + 0.05) / (two[0] + 0.05);
    }""")


WORDS = [
    ".verdict",
    ".verdict .run-b",
    ".headline td b",
    ".headline .interval",
    ".opening",
    "#sets .chip",
    "#starters .starter span",
    "#starters .starter small",
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
]


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_words_are_legible_and_plots_follow_the_page(visit, dark):
    page = visit(dark=dark)
    page.locator("#board tbody tr").first.wait_for()
    assert {word: contrast_of(page, word) for word in WORDS if contrast_of(page, word) < 4.5} == {}
    tick = page.locator("#scatter-a .xtick text").first.evaluate("t => getComputedStyle(t).fill")
    assert tick == page.evaluate("getComputedStyle(document.body).color")
    assert clean(page)


def test_focus_is_visible_and_stays_where_it_was(visit):
    page = visit()
    preset = page.get_by_role("button", name=text.PRESETS["worst-b"][0], exact=True)
    preset.focus()
    page.keyboard.press("Enter")
    expect(preset).to_have_attribute("aria-pressed", "true")
    expect(preset).to_be_focused()
    assert preset.evaluate("b => getComputedStyle(b).outlineStyle") == "solid"


@pytest.mark.parametrize("panel", ["board", "groups", "items"])
def test_narrow_page(visit, panel):
    page = visit(replace(EMBEDDED, panel=panel, item=3).to_query(), width=390, height=844)
    expect(page.locator("#detail-head h4")).to_have_text(label(3))
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    a, b = (page.locator(f"#scatter-{end}").bounding_box() for end in ("a", "b"))
    assert b["y"] >= a["y"] + a["height"]
    assert a["x"] >= 0 and a["x"] + a["width"] <= 390
    assert clean(page)


# Without models, without texts, without runs -------------------------------------------------------------


def test_works_without_models_and_says_that_there_is_no_text(open_page, serve):
    demo = theme.silence(build_demo(None, "There is no adapter at /nowhere.", Settings.from_env({})))
    page = open_page(f"{serve(demo, **page_options(), show_error=True)}?{replace(SEED, item=7).to_query()}")
    expect_figures(page, SEED)
    expect(page.locator("#detail-head h4")).to_have_text(label(7))
    expect(page.locator("#detail-foot")).to_contain_text("Its text is")
    expect(page.get_by_role("button", name=text.SEND)).to_have_count(0)
    assert clean(page)


def test_without_runs_the_page_says_so(open_page, serve, monkeypatch):
    monkeypatch.setattr("pricer.ui.evaluate.tab.load_runs", lambda: {"benchmark": {}})
    demo = theme.silence(build_demo(None, "no models", Settings.from_env({})))
    page = open_page(serve(demo, **page_options(), show_error=True))
    page.get_by_role("tab", name=text.EVALUATE_TAB).click()
    expect(page.locator(".prose.problem").filter(has_text="no evaluation runs")).to_be_visible()
    assert clean(page)
