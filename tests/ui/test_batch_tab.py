"""The Batch tab in a real browser: empty, preview, running, done, stopped, rejected rows, error, phone, dark."""

import io
import threading
from dataclasses import replace

import pandas as pd
import pytest
from playwright.sync_api import expect

from pricer.llama.predictor import Predictor
from pricer.settings import Limits
from pricer.ui import build_demo, page_options, text, theme
from pricer.ui.batch import text as batch_text

pytestmark = pytest.mark.browser
ROWS = 30
CSV = "sku,title,description,price\n" + "".join(
    f"{n},Lamp {n},made of wood {'and steel ' * (n % 6)},{20 + 9 * n}.50\n" for n in range(ROWS)
)
HOSTILE = "<img src=x onerror=window.x=1>"


class Held(Predictor):
    """A model that stops before its n-th step of a batch until it may `go`."""

    def __init__(self, pair, limits):
        super().__init__(pair, limits)
        self.go, self.left = threading.Event(), 10**9
        self.go.set()

    def predict_batches(self, prompts, which):
        self.left -= 1
        if self.left < 0:
            assert self.go.wait(100)
        yield from super().predict_batches(prompts, which)


@pytest.fixture(scope="module")
def app(tiny_pair, tiny_settings, serve):
    limits = Limits(batch_rows=ROWS)
    predictor = Held(tiny_pair, limits)
    demo = theme.silence(build_demo(predictor, "", replace(tiny_settings, limits=limits)))
    return serve(demo, **page_options(limits), show_error=True), predictor


@pytest.fixture
def open_tab(app, seen_page):
    def open_tab(**look):
        page = seen_page(app[0], **look)
        page.get_by_role("tab", name=text.BATCH_TAB).click()
        page.locator("#batch-file input[type=file]").wait_for(state="attached")
        return page

    return open_tab


def give(page, content, name="products.csv"):
    content = content if isinstance(content, bytes) else content.encode()
    page.locator("#batch-file input[type=file]").set_input_files(
        {"name": name, "mimeType": "text/csv", "buffer": content}
    )


def taken(page, button):
    with page.expect_download() as download:
        page.locator(button).click()
    return download.value.suggested_filename, download.value.path().read_bytes()


def check(page):
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    assert page.evaluate("typeof window.x") == "undefined"
    assert (page.errors, page.foreign) == ([], [])


def test_from_a_file_to_the_evaluation(app, open_tab):
    page = open_tab()
    expect(page.locator("#batch-start")).to_be_hidden()
    give(page, CSV + "no cells\n,,,\n")
    marked = page.locator("#batch-preview thead .read")
    expect(marked).to_have_text(["title", "description"])
    expect(page.locator("#batch-preview .notice")).to_contain_text(f"first {ROWS} of its {ROWS + 1} rows")
    expect(page.locator("#batch-price input")).to_have_value("price")
    page.locator("#batch-text input").click()
    page.get_by_role("option", name="description", exact=True).click()
    expect(marked).to_have_text(["description"])
    expect(page.locator("#batch-preview code")).to_contain_text("--text-column description")
    page.get_by_label(batch_text.MODEL_CHOICES["both"]).check()
    expect(page.locator("#batch-preview code")).to_contain_text("--passes base tuned")

    page.locator("#batch-start").click()
    expect(page.locator("#batch-summary tbody th")).to_have_text(["Base", "Fine-tuned"])
    expect(page.locator("#batch-status")).to_contain_text(f"{ROWS} rows priced")
    for chart in ("histogram", "scatter-base", "scatter-tuned"):
        page.locator(f"#batch-{chart} .chart-drawn .main-svg").first.wait_for()
    expect(page.locator("#batch-table")).to_contain_text("and steel")
    expect(page.locator("#batch-rejected")).to_be_hidden()

    name, content = taken(page, "#batch-parquet")
    table = pd.read_parquet(io.BytesIO(content))
    assert name == "products-priced.parquet" and len(table) == ROWS and "base_usd" in table
    name, content = taken(page, "#batch-csv")
    assert name == "products-priced.csv"
    assert pd.read_csv(io.BytesIO(content))["tuned_usd"].tolist() == table["tuned_usd"].tolist()

    page.locator("#batch-send").click()
    chips = page.locator("#own-runs .chip")
    expect(chips).to_have_count(2)
    expect(chips.last).to_contain_text("products.csv, fine-tuned · 30")
    expect(page.get_by_role("tab", name=text.EVALUATE_TAB)).to_have_attribute("aria-selected", "true")
    page.locator("#scatter-b .chart-drawn .main-svg").first.wait_for()
    check(page)


def test_stopped_what_is_done_is_kept(app, open_tab):
    url, predictor = app
    page = open_tab()
    predictor.left = 2
    predictor.go.clear()
    try:
        give(page, CSV)
        page.locator("#batch-start").press("Enter")
        expect(page.locator("#batch-status progress")).to_be_visible()
        expect(page.locator("#batch-status")).to_contain_text(f"of {ROWS} rows")
        expect(page.locator("#batch-start")).to_be_disabled()
        page.locator("#batch-stop").click()
        expect(page.locator("#batch-status")).to_contain_text(batch_text.STOPPING)
    finally:
        predictor.left = 10**9
        predictor.go.set()
    expect(page.locator("#batch-status")).to_contain_text("Stopped; what was done is kept")
    expect(page.locator("#batch-summary .verdict")).to_be_visible()
    name, content = taken(page, "#batch-csv")
    assert 1 <= len(pd.read_csv(io.BytesIO(content))) < ROWS
    expect(page.locator("#batch-start")).to_be_enabled()
    check(page)


def test_rejected_rows_on_a_phone_in_the_dark(open_tab):
    page = open_tab(width=390, height=844, dark=True)
    give(page, f'"{HOSTILE}",what\nA,a lamp of oak {HOSTILE}\nB,\n=1,"a table, made of =wood"\n', "mine.csv")
    expect(page.locator("#batch-preview thead .read")).to_have_text(["what"])
    page.locator("#batch-start").click()
    expect(page.locator("#batch-summary .notice")).to_contain_text("Not usable: 1 row. Row 2: no text.")
    expect(page.locator("#batch-send")).to_be_hidden()
    name, content = taken(page, "#batch-rejected")
    assert (name, content.decode("utf-8-sig")) == ("mine-priced.rejected.csv", "row,reason\n2,no text\n")
    page.locator("#batch-histogram .chart-drawn .main-svg").first.wait_for()
    check(page)


def test_what_cannot_be_used_is_one_sentence_and_the_next_file_is_taken(open_tab):
    page = open_tab(width=1024)
    alert = page.locator("#batch-notice [role=alert]")
    give(page, bytes(range(256)) * 9)
    expect(alert).to_contain_text("no UTF-8 text")
    give(page, "text,tuned_usd\na lamp,5\n")
    expect(alert).to_have_count(0)
    page.locator("#batch-start").click()
    expect(page.locator("#batch-status [role=alert]")).to_contain_text("has a column tuned_usd already")
    give(page, "text\na lamp\n")
    expect(page.locator("#batch-status [role=alert]")).to_have_count(0)
    page.locator("#batch-start").press("Enter")
    expect(page.locator("#batch-status")).to_contain_text("1 row priced")
    expect(page.locator("#batch-start")).to_be_focused()
    check(page)
