"""Markup in everything that has a name, in a real browser: it is shown as it stands, and nothing of it runs."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from playwright.sync_api import expect

from pricer.arena.runs import Run, RunInfo, save_run
from pricer.arena.view import PANELS
from pricer.settings import ModelRef
from pricer.ui import build_demo, page_options, theme
from pricer.ui.evaluate import text
from tests.ui.waiting import drawn

pytestmark = pytest.mark.browser

HOSTILE = "<script>window.x=1</script><img src=x onerror=window.x=1>"
SVG = "<svg onload=window.x=1><a href='javascript:window.x=1'>a</a>{{x}}"
ITEMS = pd.DataFrame(
    {
        "index": np.arange(40),
        "label": [SVG, HOSTILE] * 20,
        "category": [HOSTILE, SVG] * 20,
        "price_usd": np.linspace(5, 900, 40).round(2),
    }
)


def run(name, **about):
    info = RunInfo(name=name, label=f"{name} {HOSTILE}", kind="tuned", rule=HOSTILE, notes=SVG, **about)
    guess = ITEMS["price_usd"] * np.random.default_rng(len(name)).uniform(0.5, 1.5, 40)
    table = {"index": ITEMS["index"], "guess_usd": guess, "low_usd": guess / 2, "high_usd": guess * 2}
    return Run(info, pd.DataFrame(table))


@pytest.fixture(scope="module")
def url(tiny_predictor, tiny_settings, serve, tmp_path_factory):
    """An app on runs, items, categories and texts of that kind, under a model's name of that kind."""
    shipped = {name: run(name, published=True, origin=SVG) for name in ("one", "two", "three")}
    texts = ITEMS.assign(text=f"Item {HOSTILE} {SVG}", price=ITEMS["price_usd"])
    file = tmp_path_factory.mktemp("texts") / "texts.parquet"
    texts[["index", "text", "price"]].to_parquet(file)
    settings = replace(tiny_settings, test_items=file, label=HOSTILE, base=ModelRef(HOSTILE))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pricer.ui.evaluate.tab.load_runs", lambda: {"benchmark": shipped})
        patch.setattr("pricer.ui.evaluate.tab.load_items", lambda item_set: ITEMS)
        demo = theme.silence(build_demo(tiny_predictor, "", settings))
    return serve(demo, **page_options(), show_error=True)


@pytest.fixture
def page(url, seen_page):
    """Its Evaluation tab."""
    page = seen_page(url, width=1440)
    page.get_by_role("tab", name=text.EVALUATE_TAB).click()
    drawn(page, "#scatter-b")
    return page


def check_nothing_ran(page):
    assert page.evaluate("typeof window.x") == "undefined"
    assert page.locator("img[onerror], svg[onload], a[href^=javascript]").count() == 0
    assert (page.errors, page.foreign) == ([], [])


def hover_everywhere(page):
    """The words of every mark, in all charts that are drawn."""
    return page.evaluate(
        """() => {
            const words = [];
            for (const plot of document.querySelectorAll('.chart-drawn .chart-plot')) {
                (plot._fullData ?? []).forEach((trace, curveNumber) => {
                    try { Plotly.Fx.hover(plot, [{curveNumber, pointNumber: 0}]); } catch { return; }
                    words.push(plot.querySelector('.hoverlayer')?.textContent ?? '');
                });
            }
            return words;
        }"""
    )


def test_markup_in_names_categories_and_texts_does_not_run(page):
    expect(page.locator("#scatter-b")).to_be_visible()
    for panel in PANELS:
        page.locator("#panels").get_by_role("tab", name=text.PANELS[panel], exact=True).click()
        if panel not in ("board", "items", "slices", "guess", "terms"):
            chart = {"groups": "by_category"}.get(panel, panel)
            page.locator(f"#chart-{chart} .chart-drawn .main-svg").first.wait_for()
        hover_everywhere(page)
        check_nothing_ran(page)
    page.locator("#panels").get_by_role("tab", name=text.PANELS["items"], exact=True).click()
    expect(page.locator("#items .virtual-row").first).to_contain_text("<")
    page.locator("#items .virtual-row").first.locator("[role=gridcell]").first.click()
    expect(page.locator("#detail-foot .item-text")).to_contain_text(f"Item {HOSTILE} {SVG}")
    page.locator("#strip .chart-drawn .main-svg").first.wait_for()
    assert any("<script>" in words for words in hover_everywhere(page))
    page.locator("#panels").get_by_role("tab", name=text.PANELS["board"], exact=True).click()
    expect(page.locator("#board th .label").first).to_contain_text(HOSTILE)
    page.unfold(text.FILTERS)
    page.locator("#filter-categories input").click()
    page.get_by_role("option").first.click()
    expect(page.locator("#active .chip").first).to_contain_text("<")
    page.get_by_role("tab", name=text.COMPARE_TAB).click()
    expect(page.locator("#head-base .subtitle")).to_contain_text(HOSTILE)
    check_nothing_ran(page)


def test_markup_in_an_uploaded_run_and_its_json_does_not_run(page, tmp_path):
    note = save_run(tmp_path, run("mine", origin=SVG, published=True, data_set=HOSTILE))
    assert HOSTILE in json.loads(note.read_text())["label"]
    page.locator(".fold > button", has_text=text.OWN_TITLE).click()
    box = page.locator("#own-file input[type=file]")
    box.set_input_files([str(note), str(note.with_suffix(".parquet"))])
    expect(page.locator("#own-runs .chip")).to_contain_text("mine <script>")
    hover_everywhere(page)
    check_nothing_ran(page)
    rows = [{"text": f"{SVG} lamp", "price": 20, "guess": 30, "category": f"{SVG[:40]}"}]
    rows.append({"text": f"{HOSTILE} lamp", "price": 30, "guess": 30, "category": HOSTILE})
    words = pd.DataFrame(rows).to_csv(index=False).encode()
    file = {"name": f"{SVG} {HOSTILE}.csv".replace("/", "∕"), "mimeType": "text/csv", "buffer": words}
    page.locator("#own-file input[type=file]").set_input_files([file])
    expect(page.locator("#active .count")).to_have_text("2 of 2 items")
    expect(page.locator("#own-runs .chip")).to_have_count(
        3
    )  # the file's own, and the median it is measured by
    expect(page.locator("#own-ask")).to_contain_text(text.OWN_YES)
    hover_everywhere(page)
    bad = {"name": f"{HOSTILE}.csv", "mimeType": "text/csv", "buffer": f"index,{HOSTILE}\n1,2".encode()}
    page.locator("#own-file input[type=file]").set_input_files([bad])
    expect(page.locator("#own-notice [role=alert]")).to_contain_text("column guess is missing")
    check_nothing_ran(page)
