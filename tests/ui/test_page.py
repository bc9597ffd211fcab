"""The whole page in a real browser, on a tiny random Llama."""

import re

import pytest
from playwright.sync_api import expect

from pricer.errors import SetupError
from pricer.settings import Settings
from pricer.ui import build_demo, page_options, text, theme
from pricer.ui.compare.tab import load_examples

pytestmark = pytest.mark.browser
expect.set_options(timeout=60_000)

PRICE = re.compile(r"^\$\d[\d,]*(\.\d\d)?$")
HOSTILE = "<script>window.x=1</script><img src=x onerror=window.x=1>"
WHICH = ("base", "tuned")


@pytest.fixture(scope="module")
def url(tiny_predictor, tiny_settings, serve):
    demo = theme.silence(build_demo(tiny_predictor, "", tiny_settings))
    return serve(demo, **page_options(), show_error=True)


@pytest.fixture
def visit(open_page, url):
    """`visit()`: the page once its first answer is on it."""

    def visit(**options):
        page = open_page(url, **options)
        page.set_default_timeout(60_000)
        for which in WHICH:
            expect(price(page, which)).to_have_text(PRICE)
            page.locator(f"#chart-{which} .chart-drawn .main-svg").first.wait_for()
        return page

    return visit


def price(page, which):
    return page.locator(f"#head-{which} .price")


def product(page):
    return page.locator("#product-text textarea")


def predict(page, predictor, product_text, send=None):
    """Fill in the text, send it, and wait until both cards show what the predictor says."""
    product(page).fill(product_text)
    (send or page.locator("#predict").click)()
    expect_prices(page, predictor, product_text)


def expect_prices(page, predictor, product_text, rule="log-mean"):
    answer = predictor.compare(product_text).to_dict(rule)
    for which in WHICH:
        usd = answer[which]["price_usd"]
        expect(price(page, which)).to_have_text(f"${usd:,.2f}" if usd < 10 else f"${usd:,.0f}")
        expect(page.locator(f"#foot-{which} .facts")).to_have_count(1)


def shown_prices(page):
    return [price(page, which).inner_text() for which in WHICH]


def clean(page):
    return page.errors == [] and page.foreign == []


def test_opens_with_an_answer_and_asks_no_other_host(visit, tiny_predictor):
    page = visit()
    first = load_examples()[0]["text"]
    assert product(page).input_value() == first
    expect_prices(page, tiny_predictor, first)
    assert page.title() == text.TITLE
    assert page.errors == []
    assert page.foreign == []


def test_click_and_ctrl_enter_predict(visit, tiny_predictor):
    page = visit()
    one, other = "Small lamp made of wood", "A large garden table with four chairs"
    first = shown_prices(page)
    predict(page, tiny_predictor, one)
    second = shown_prices(page)
    assert second != first
    predict(page, tiny_predictor, other, send=lambda: product(page).press("Control+Enter"))
    assert shown_prices(page) != second
    assert product(page).input_value() == other
    assert clean(page)


def test_actual_price(visit):
    page = visit()
    actual = page.locator("#actual input, #actual textarea").first
    actual.fill("129.99")
    for which in WHICH:
        expect(page.locator(f"#head-{which} .outcome")).to_have_text(re.compile("Hit|Near|Miss"))
    said = page.locator("#head-tuned .outcome").inner_text()
    actual.fill("5")
    expect(page.locator("#head-tuned .outcome")).not_to_have_text(said)
    actual.fill("129,99")
    expect(page.locator("#head-tuned .outcome")).to_have_text(said)
    before = shown_prices(page)
    actual.fill("many dollars")
    expect(page.locator("#notice [role=alert]")).to_have_text(text.ACTUAL_BAD)
    expect(page.locator(".outcome")).to_have_count(0)
    assert shown_prices(page) == before
    actual.fill("$1,299")
    expect(page.locator("#notice [role=alert]")).to_have_count(0)
    expect(page.locator(".outcome")).to_have_count(2)
    assert clean(page)


def test_blank_text_is_said_and_the_old_answer_stays(visit):
    page = visit()
    before = shown_prices(page)
    product(page).fill("  \n ")
    page.locator("#predict").click()
    expect(page.locator("#notice [role=alert]")).to_contain_text("There is no text yet")
    for which, old in zip(WHICH, before, strict=True):
        expect(price(page, which)).to_have_text(old)
    assert clean(page)


def test_rule_and_axis_read_the_same_answer_otherwise(visit, tiny_predictor):
    page = visit()
    product_text = product(page).input_value()
    facts = [page.locator(f"#foot-{which} .facts").inner_text() for which in WHICH]
    intervals = [page.locator(f"#head-{which} .interval b").inner_text() for which in WHICH]
    for rule in ("mode", "mean"):
        page.get_by_role("radio", name=text.RULES[rule][0], exact=True).check()
        expect(page.locator("#rule")).to_contain_text(text.RULES[rule][1])
        expect_prices(page, tiny_predictor, product_text, rule)
    assert [page.locator(f"#foot-{which} .facts").inner_text() for which in WHICH] == facts
    assert [page.locator(f"#head-{which} .interval b").inner_text() for which in WHICH] == intervals

    before = shown_prices(page)
    kind = "[...document.querySelectorAll('.chart-plot')].every(p => p._fullLayout?.xaxis.type === '{}')"
    page.wait_for_function(kind.format("log"))
    page.get_by_role("radio", name="Linear", exact=True).check()
    page.wait_for_function(kind.format("linear"))
    assert shown_prices(page) == before
    assert clean(page)


def test_says_which_interval_was_checked_against_real_prices(
    visit, open_page, serve, calibrated_predictor, tiny_settings
):
    page = visit()
    for which in WHICH:
        expect(page.locator(f"#head-{which} .interval")).to_contain_text(text.NOT_CALIBRATED)
    expect(page.locator("#rule input:checked")).to_have_value("log-mean")

    demo = theme.silence(build_demo(calibrated_predictor, "", tiny_settings))
    page = open_page(serve(demo, **page_options(), show_error=True))
    tuned, base = (page.locator(f"#head-{which} .interval") for which in ("tuned", "base"))
    expect(tuned.locator("abbr")).to_have_text("checked on 1,234 listings")
    expect(tuned.locator("abbr")).to_have_attribute("title", re.compile("not trained on.* held 91.2%"))
    expect(base.locator("abbr")).to_have_text(text.NOT_CALIBRATED)
    product_text = product(page).input_value()
    for which, where in (("tuned", tuned), ("base", base)):
        answer = calibrated_predictor.compare(product_text).to_dict()[which]
        expect(where.locator("b")).to_have_text(f"${answer['low_usd']:,.0f} to ${answer['high_usd']:,.0f}")
    expect(page.locator("#rule input:checked")).to_have_value("median")
    expect(page.locator("#rule")).to_contain_text(text.DEFAULT_RULE.strip())
    expect_prices(page, calibrated_predictor, product_text, "median")
    page.get_by_role("radio", name=text.RULES["mode"][0], exact=True).check()
    expect_prices(page, calibrated_predictor, product_text, "mode")
    expect(page.locator("#rule")).not_to_contain_text(text.DEFAULT_RULE.strip())
    assert clean(page)


def test_raw_text(visit):
    page = visit()
    assert page.locator(".raw").count() == 0
    page.locator("#raw").click()
    for which in WHICH:
        expect(page.locator(f"#foot-{which} .raw")).to_contain_text(text.RAW_LABEL)
    assert clean(page)


def test_hostile_text_is_text(visit, tiny_predictor, monkeypatch):
    monkeypatch.setattr(tiny_predictor, "greedy_text", lambda prompt, which: HOSTILE)
    page = visit()
    predict(page, tiny_predictor, HOSTILE)
    page.locator("#raw").click()
    for which in WHICH:
        expect(page.locator(f"#foot-{which} .raw code")).to_have_text(HOSTILE)
    page.locator("#actual input, #actual textarea").first.fill(HOSTILE)
    expect(page.locator("#notice [role=alert]")).to_have_count(1)
    assert page.evaluate("typeof window.x") == "undefined"
    assert page.locator("img[onerror]").count() == 0
    assert clean(page)


def test_example_fills_the_box_and_predicts(visit, tiny_predictor):
    page = visit()
    example = load_examples()[1]
    page.get_by_role("button", name=example["label"], exact=True).click()
    expect(product(page)).to_have_value(example["text"])
    expect_prices(page, tiny_predictor, example["text"])
    assert clean(page)


def test_long_text_is_said_to_be_cut(visit, tiny_predictor):
    page = visit()
    predict(page, tiny_predictor, "a long description " * 100)
    expect(page.locator("#cut")).to_contain_text("The text was cut")
    assert clean(page)


def test_dark_page(visit):
    page = visit(dark=True)
    assert page.evaluate("document.body.classList.contains('dark')")
    colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert max(int(part) for part in re.findall(r"\d+", colour)[:3]) < 60, colour
    assert clean(page)


def test_narrow_page(visit):
    page = visit(width=390, height=844)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    base, tuned = (page.locator(f".card.{which}").bounding_box() for which in WHICH)
    assert tuned["y"] >= base["y"] + base["height"]
    assert base["x"] >= 0 and base["x"] + base["width"] <= 390
    assert clean(page)


def test_opens_without_models(open_page, serve):
    problem = f"There is no adapter at /nowhere {HOSTILE}: set PRICER_ADAPTER."
    demo = theme.silence(build_demo(None, str(SetupError(problem)), Settings.from_env({})))
    page = open_page(serve(demo, **page_options(), show_error=True))
    expect(page.locator(".prose.problem")).to_contain_text(problem)
    expect(page.locator("#predict")).to_be_disabled()
    expect(page.locator("#head-tuned")).to_contain_text(text.EMPTY_CARD)
    assert page.evaluate("typeof window.x") == "undefined"
    assert clean(page)
