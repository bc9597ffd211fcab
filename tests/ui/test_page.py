"""The whole page in a real browser, on a tiny random Llama."""

import re
from dataclasses import replace
from itertools import islice

import pytest
from playwright.sync_api import expect

from pricer.figures.style import usd
from pricer.llama.predictor import VARIANTS
from pricer.llama.shared import SharedPredictor
from pricer.ui import text
from pricer.ui.compare import html
from pricer.ui.compare import text as words
from pricer.ui.compare.answer import Reader, View, compared, load_examples, off_by
from pricer.ui.compare.why import explain, shown
from tests.ui.waiting import comes_to, drawn

pytestmark = pytest.mark.browser

PRICE = re.compile(r"^\$\d[\d,]*(\.\d\d)?$")
HOSTILE = "<script>window.x=1</script><img src=x onerror=window.x=1>"
WHICH = ("base", "tuned")


@pytest.fixture
def visit(seen_page, tiny_url):
    """`visit()`: the page once its first answer is on it."""

    def visit(**look):
        page = seen_page(tiny_url, **look)
        for which in WHICH:
            expect(price(page, which)).to_have_text(PRICE)
        drawn(page, "#chart-answer")
        done(page)
        return page

    return visit


def price(page, which):
    return page.locator(f"#head-{which} .price")


HEIGHT = "document.querySelector('#product-text textarea').offsetHeight"


def product(page):
    return page.locator("#product-text textarea")


def predict(page, predictor, product_text, send=None, read=None):
    """Fill in the text, send it, and wait until both sides show what the predictor says of it, or of `read`."""
    product(page).fill(product_text)
    (send or page.locator("#predict").click)()
    expect_prices(page, predictor, read or product_text)


def expect_prices(page, predictor, product_text, rule="log-mean"):
    answer = predictor.compare(product_text).to_dict(rule)
    for which in WHICH:
        expect(price(page, which)).to_have_text(usd(answer[which]["price_usd"]))
    lead = answer["tuned"]["price_usd"]
    expect(page.locator("#lead .price")).to_have_text(usd(lead))
    done(page)


def done(page):
    expect(page.locator("#status .busy")).to_have_count(0)
    expect(page.locator("#verdict")).not_to_have_text("")
    expect(page.locator("#stale")).to_be_hidden()


def shown_prices(page):
    return [price(page, which).inner_text() for which in WHICH]


def clean(page):
    return page.errors == [] and page.foreign == []


def test_opens_with_an_answer_and_asks_no_other_host(visit, tiny_predictor):
    page = visit()
    first = load_examples()[0]["text"]
    expect(product(page)).to_have_value(first)
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
    expect(product(page)).to_have_value(other)
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
    expect(page.locator("#notice [role=alert]")).to_have_text(words.ACTUAL_BAD)
    expect(page.locator(".outcome")).to_have_count(0)
    assert shown_prices(page) == before
    actual.fill("$1,299")
    expect(page.locator("#notice [role=alert]")).to_have_count(0)
    expect(page.locator(".outcome")).to_have_count(2)
    assert clean(page)


@pytest.mark.parametrize(
    ("price", "words"),
    [
        (101, None),
        (134, "34 % more than"),
        (66, "34 % less than"),
        (200, "2 times as much as"),
        (255, "2.5 times as much as"),
        (1240, "12 times as much as"),
    ],
)
def test_two_prices_are_compared_in_words(price, words):
    assert compared(price, 100) == words


def test_how_far_off_is_said_in_percent_until_it_is_far():
    assert (off_by(0.666), off_by(3), off_by(5)) == ("67 %", "300 %", "5 times the price")


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
    page.unfold(words.HOW)
    product_text = product(page).input_value()
    facts = [page.locator(f"#facts-{which}").inner_text() for which in WHICH]
    intervals = [page.locator(f"#head-{which} .interval").inner_text() for which in WHICH]
    for rule in ("mode", "mean"):
        page.get_by_role("radio", name=words.RULES[rule][0], exact=True).check()
        expect(page.locator("#rule")).to_contain_text(words.RULES[rule][1])
        expect_prices(page, tiny_predictor, product_text, rule)
    assert [page.locator(f"#facts-{which}").inner_text() for which in WHICH] == facts
    assert [page.locator(f"#head-{which} .interval").inner_text() for which in WHICH] == intervals

    before = shown_prices(page)
    kind = "document.querySelector('#chart-answer .chart-plot')._fullLayout.xaxis.type"
    comes_to(page, kind, "log")
    page.get_by_role("radio", name="Linear", exact=True).check()
    comes_to(page, kind, "linear")
    assert shown_prices(page) == before
    assert clean(page)


def test_says_which_interval_was_checked_against_real_prices(
    visit, open_page, calibrated_url, calibrated_predictor
):
    page = visit()
    page.unfold(words.HOW)
    for which in WHICH:
        expect(page.locator(f"#head-{which} .interval")).to_contain_text(words.NOT_CALIBRATED)
    expect(page.locator("#rule input:checked")).to_have_value("log-mean")

    page = open_page(calibrated_url)
    tuned, base = (page.locator(f"#head-{which} .interval") for which in ("tuned", "base"))
    expect(tuned.locator("abbr")).to_have_text("checked on 1,234 listings")
    expect(tuned.locator("abbr")).to_have_attribute(
        "data-tip", re.compile("did not learn from.* held 91.2 %")
    )
    expect(base.locator("abbr")).to_have_text(words.NOT_CALIBRATED)
    product_text = product(page).input_value()
    for which, where in (("tuned", tuned), ("base", base)):
        answer = calibrated_predictor.compare(product_text).to_dict()[which]
        expect(where).to_contain_text(f"${answer['low_usd']:,.0f} to ${answer['high_usd']:,.0f} · ")
    page.unfold(words.HOW)
    expect(page.locator("#rule input:checked")).to_have_value("median")
    expect(page.locator("#rule")).to_contain_text(words.DEFAULT_RULE.strip())
    expect_prices(page, calibrated_predictor, product_text, "median")
    page.get_by_role("radio", name=words.RULES["mode"][0], exact=True).check()
    expect_prices(page, calibrated_predictor, product_text, "mode")
    expect(page.locator("#rule")).not_to_contain_text(words.DEFAULT_RULE.strip())
    assert clean(page)


def test_raw_text(visit):
    page = visit()
    page.unfold(words.HOW)
    assert page.locator(".raw").count() == 0
    page.locator("#raw").click()
    for which in WHICH:
        expect(page.locator(f"#facts-{which} .raw")).to_contain_text(words.RAW_LABEL)
    assert clean(page)


def test_hostile_text_is_text(visit, tiny_predictor, monkeypatch):
    monkeypatch.setattr(tiny_predictor, "greedy_text", lambda prompt, which: HOSTILE)
    page = visit()
    predict(page, tiny_predictor, HOSTILE)
    page.unfold(words.HOW)
    page.locator("#raw").click()
    for which in WHICH:
        expect(page.locator(f"#facts-{which} .raw code")).to_have_text(HOSTILE)
    page.locator("#actual input, #actual textarea").first.fill(HOSTILE)
    expect(page.locator("#notice [role=alert]")).to_have_count(1)
    assert page.evaluate("typeof window.x") == "undefined"
    assert page.locator("img[onerror]").count() == 0
    assert clean(page)


def test_example_fills_the_box_and_predicts(visit, tiny_predictor):
    page = visit()
    example = load_examples()[1]
    page.get_by_role("button", name=example["label"], exact=True).hover()
    expect(page.locator("#tip")).to_have_text(example["typical"])
    page.get_by_role("button", name=example["label"], exact=True).click()
    expect(product(page)).to_have_value(example["text"])
    expect_prices(page, tiny_predictor, example["text"])
    assert clean(page)


def test_long_text_is_said_to_be_cut(visit, tiny_predictor):
    page = visit()
    predict(page, tiny_predictor, "a long description " * 100)
    cut = page.locator("#cut")
    expect(cut).to_contain_text("The models read the first 60 of 1,899 characters")
    above, answer = cut.bounding_box(), page.locator("#answer").bounding_box()
    assert above["y"] + above["height"] <= answer["y"]
    tall = page.evaluate(HEIGHT)
    product(page).fill("a lamp")
    comes_to(page, f"{HEIGHT} < {tall}")
    assert clean(page)


def test_a_full_queue_is_said_and_the_page_waits_no_longer(visit):
    page = visit()
    full = {"detail": text.QUEUE_FULL.format(seconds=7)}
    page.route("**/queue/join*", lambda route: route.fulfill(status=429, json=full))
    page.locator("#predict").click()
    expect(page.get_by_text(full["detail"])).to_be_visible()
    expect(page.locator("#status .busy")).to_have_count(0)


def test_a_stopped_why_says_how_far_it_came(tiny_predictor):
    predictor, view = SharedPredictor(tiny_predictor), View()
    *_, answer = Reader(predictor).read("Red lamp, of glass, 20 W")
    now = list(islice(explain(predictor, answer), 2))[-1]
    assert words.WHY_PROGRESS.format(done=VARIANTS, total=6) in shown(now, "tuned", view)
    assert words.WHY_STOPPED.format(done=VARIANTS, total=6) in shown(
        replace(now, stopped=True), "tuned", view
    )


def test_dark_page(visit):
    page = visit(dark=True)
    comes_to(page, "document.body.classList.contains('dark')")
    colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert max(int(part) for part in re.findall(r"\d+", colour)[:3]) < 60, colour
    assert clean(page)


def test_a_price_in_the_text_is_hidden_from_the_models_and_can_be_shown(visit, tiny_predictor):
    page = visit()
    bare, named = "a red lamp.", "a red lamp. Price: $89.95"
    predict(page, tiny_predictor, named, read=bare)
    status, actual = page.locator("#status"), page.locator("#actual input, #actual textarea").first
    expect(status).to_contain_text(
        "The text names $89.95: hidden from the models and taken as the actual price"
    )
    expect(actual).to_have_value("89.95")
    expect(page.locator(".outcome")).to_have_count(2)
    page.locator("#cut summary").click()
    expect(page.locator("#cut")).to_contain_text("Left out: $89.95")
    page.get_by_role("button", name=words.SHOW_PRICE).click()
    expect_prices(page, tiny_predictor, named)
    expect(status).to_contain_text("the models read it")
    expect(actual).to_have_value("")
    page.get_by_role("button", name=words.HIDE_PRICE).click()
    expect_prices(page, tiny_predictor, bare)
    predict(page, tiny_predictor, "a red lamp, 89,95 €")
    expect(status).not_to_contain_text("names")
    expect(actual).to_have_value("")
    assert clean(page)


def test_what_is_no_product_is_said_and_not_called_checked(visit, tiny_predictor):
    page = visit()
    predict(page, tiny_predictor, "?!")
    expect(page.locator("#lead .note")).to_have_text(words.NO_PRODUCT)
    expect(page.locator("#lead .sureness")).to_have_count(0)
    expect(page.locator("#sides")).not_to_contain_text("checked")
    assert clean(page)


def test_prices_as_in_the_benchmark_change_the_fine_tuned_model_alone(visit, tiny_predictor):
    page = visit()
    text = product(page).input_value()
    base = price(page, "base").inner_text()
    page.get_by_role("radio", name=words.PRIORS["benchmark"], exact=True).check()
    found = tiny_predictor.compare(text).under(tiny_predictor.prior_named("benchmark"))
    expect(price(page, "tuned")).to_have_text(usd(found.to_dict("log-mean")["tuned"]["price_usd"]))
    expect(price(page, "base")).to_have_text(base)
    expect(page.locator(".prior-note")).to_contain_text("as in the benchmark")
    assert clean(page)


def test_on_a_phone_the_answer_comes_into_view_and_the_text_folds(visit, tiny_predictor):
    page = visit(width=390, height=844)
    comes_to(page, "document.documentElement.scrollWidth <= 390")
    height = page.evaluate(HEIGHT)
    predict(page, tiny_predictor, "a lamp of glass\n" * 8)
    comes_to(page, "Math.abs(document.querySelector('#answer').getBoundingClientRect().top) < 40")
    comes_to(page, f"{HEIGHT} < {height}")
    product(page).focus()
    comes_to(page, f"{HEIGHT} >= {height}")
    predict(page, tiny_predictor, "a table")
    tuned, base = (page.locator(f"#head-{which}").bounding_box() for which in ("tuned", "base"))
    assert base["y"] >= tuned["y"] + tuned["height"]
    comes_to(page, "document.documentElement.scrollWidth <= 390")
    assert clean(page)


def test_an_edited_text_marks_the_answer_until_asked_again(visit, tiny_predictor):
    page = visit()
    stale, first = page.locator("#stale"), product(page).input_value()
    expect(stale).to_be_hidden()
    product(page).press_sequentially(" x")
    expect(stale).to_have_text(words.STALE)
    product(page).fill(first)
    expect(stale).to_be_hidden()
    predict(page, tiny_predictor, "a wooden chair")
    product(page).fill("a wooden table")
    expect(stale).to_be_visible()
    assert clean(page)


def test_another_product_clears_the_actual_price_and_an_edit_keeps_it(visit):
    page = visit()
    actual = page.locator("#actual input, #actual textarea").first
    actual.fill("129.99")
    expect(page.locator(".outcome")).to_have_count(2)
    product(page).press("End")
    product(page).press_sequentially(" New.")
    expect(actual).to_have_value("129.99")
    product(page).fill("a wooden table")
    expect(actual).to_have_value("")
    expect(page.locator(".outcome")).to_have_count(0)
    actual.fill("20")
    page.get_by_role("button", name=load_examples()[2]["label"], exact=True).click()
    expect(actual).to_have_value("")
    done(page)
    expect(page.locator(".outcome")).to_have_count(0)
    assert clean(page)


def test_nothing_moves_while_an_answer_comes(visit, tiny_predictor):
    page = visit()
    product(page).fill("a wooden table")
    page.evaluate(
        """() => {
            window.moved = [];
            const note = (e) => window.moved.push(e.sources.map(s => [s.node?.id || s.node?.className?.baseVal || s.node?.className || "", s.previousRect.y, s.currentRect.y, s.previousRect.height, s.currentRect.height].join(" ")));
            new PerformanceObserver(list => list.getEntries().forEach(note)).observe({ type: "layout-shift" });
        }"""
    )
    page.locator("#predict").click()
    expect_prices(page, tiny_predictor, "a wooden table")
    page.evaluate("() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
    assert page.evaluate("window.moved") == []
    assert clean(page)


def test_a_term_opens_by_mouse_by_focus_and_by_tap(visit):
    page = visit()
    tip, term = page.locator("#tip"), page.locator("#lead .ranges abbr").first
    expect(tip).to_be_hidden()
    term.hover()
    expect(tip).to_have_text(words.WIDE_HELP)
    page.mouse.move(0, 0)
    expect(tip).to_be_hidden()
    term.focus()
    expect(tip).to_have_text(words.WIDE_HELP)
    page.keyboard.press("Escape")
    expect(tip).to_be_hidden()
    page.keyboard.press("Enter")
    expect(tip).to_have_text(words.WIDE_HELP)
    page.locator("#head-base abbr").dispatch_event("click")
    expect(tip).to_have_text(re.compile("not checked against real prices"))
    box = "document.querySelector('#tip').getBoundingClientRect()"
    comes_to(page, f"{box}.left >= 0 && {box}.right <= 1280")
    assert clean(page)


def test_the_switch_turns_dark_and_stays_so(visit):
    page = visit()
    is_dark = "document.body.classList.contains('dark')"
    comes_to(page, is_dark, False)
    page.locator("#theme-switch").click()
    comes_to(page, is_dark, True)
    page.reload()
    comes_to(page, is_dark, True)
    page.locator("#theme-switch").click()
    comes_to(page, is_dark, False)


def test_opens_without_models(seen_page, without_models):
    url, problem = without_models
    page = seen_page(url)
    expect(page.locator(".prose.problem")).to_contain_text(problem)
    expect(page.locator("#predict")).to_be_disabled()
    expect(page.locator("#answer")).to_have_count(0)  # where there cannot be one
    page.get_by_role("tab", name=text.BATCH_TAB).click()
    expect(page.locator(".batch .prose.problem")).to_contain_text(problem)
    assert page.evaluate("typeof window.x") == "undefined"
    assert clean(page)


def test_why_colours_the_phrases_of_either_model_and_a_new_answer_clears_it(visit, tiny_predictor):
    page = visit()
    predict(page, tiny_predictor, "Red lamp, of glass, 20 W, new. For a desk")
    page.locator("#why").click()
    expect(page.locator("#why-out [role=status]")).to_have_text(words.WHY_DONE)
    expect(page.locator("#why-out .phrase")).to_have_text(
        [re.compile(p) for p in ("^Red lamp,", "^of glass,", "^20 W,", "^new.", "^For a desk")]
    )
    expect(page.locator("#why-out .phrase.open")).to_have_count(0)
    first = page.locator("#why-out .phrases").inner_html()
    page.get_by_role("radio", name=text.NAMES["base"], exact=True).check()
    expect(page.locator("#why-out .phrases")).not_to_have_text(re.compile("^$"))
    page.wait_for_function(
        "first => document.querySelector('#why-out .phrases').innerHTML !== first", arg=first
    )
    page.locator("#why-out .phrase").first.hover()
    expect(page.locator("#tip")).to_have_text(re.compile("Adds|Takes off|Changes"))
    predict(page, tiny_predictor, "one")
    expect(page.locator("#why-out .phrase")).to_have_count(0)
    page.locator("#why").click()
    expect(page.locator("#why-out [role=alert]")).to_have_text(words.WHY_ONE_PHRASE)
    assert clean(page)


def test_back_reload_and_a_link_bring_a_text_and_its_answer_again(visit, open_page, tiny_predictor):
    page = visit()
    first, second = "a small lamp of wood", "a large table of glass"
    predict(page, tiny_predictor, first)
    page.locator("#actual input, #actual textarea").first.fill("20")
    predict(page, tiny_predictor, second)
    page.go_back()
    expect(product(page)).to_have_value(first)
    expect_prices(page, tiny_predictor, first)
    page.reload()
    expect(product(page)).to_have_value(first)
    expect_prices(page, tiny_predictor, first)
    page.unfold(words.HOW)
    page.get_by_role("radio", name=words.RULES["mode"][0], exact=True).check()
    expect_prices(page, tiny_predictor, first, "mode")
    page.evaluate("navigator.clipboard.writeText = async (words) => { window.copied = words; }")
    page.locator("#copy-text").click()
    page.wait_for_function("window.copied")
    assert page.evaluate("window.copied").splitlines()[0] == first
    assert len(page.evaluate("window.copied").splitlines()) == 3
    page.evaluate("window.copied = null")
    page.locator("#copy-link").click()
    page.wait_for_function("window.copied")
    link = page.evaluate("window.copied")
    asked = []
    other = open_page(link, before=lambda page: page.on("request", lambda request: asked.append(request.url)))
    expect(product(other)).to_have_value(first)
    expect_prices(other, tiny_predictor, first, "mode")
    assert not any("lamp" in url for url in asked if url != link)
    assert clean(page) and clean(other)


def test_a_pinned_answer_stays_beside_the_next_one(visit, tiny_predictor):
    page = visit()
    predict(page, tiny_predictor, "a small lamp of wood")
    rows = "document.querySelector('#chart-answer .chart-plot')._fullLayout.annotations.map(a => a.text)"
    page.locator("#pin").click()
    expect(page.locator("#pin")).to_have_text(words.UNPIN)
    predict(page, tiny_predictor, "a large table of glass")
    expect(page.locator("#pinned")).to_contain_text("pinned $")
    comes_to(page, f"{rows}.some(text => text.includes('{words.PINNED}'))")
    page.locator("#pin").click()
    expect(page.locator("#pinned")).to_have_count(0)
    assert clean(page)


def test_what_was_tried_is_kept_in_the_browser_and_can_be_cleared(visit, tiny_predictor):
    page = visit()
    rows = page.locator("#tried tbody tr")
    expect(rows).to_have_count(0)
    predict(page, tiny_predictor, f"a lamp {HOSTILE}")
    predict(page, tiny_predictor, "a large table of glass")
    expect(rows).to_have_count(2)
    page.locator("#actual input, #actual textarea").first.fill("20")  # what it cost comes to be known later
    expect(rows.nth(0).locator("td").nth(3)).to_have_text("$20")
    product(page).fill("something else")  # clears it, and leaves what was tried
    expect(page.locator("#actual input, #actual textarea").first).to_have_value("")
    expect(rows.nth(0).locator("td").nth(3)).to_have_text("$20")
    page.reload()
    expect(rows).to_have_count(2)
    rows.nth(1).get_by_role("button").click()
    expect(product(page)).to_have_value(f"a lamp {HOSTILE}")
    expect_prices(page, tiny_predictor, f"a lamp {HOSTILE}")
    expect(rows).to_have_count(2)
    assert page.evaluate("typeof window.x") == "undefined"
    page.locator("#clear-tried").click()
    expect(rows).to_have_count(0)
    page.reload()
    done(page)
    expect(rows).to_have_count(0)
    assert clean(page)


def test_the_cut_lies_where_the_models_stopped_reading_though_prices_are_hidden_before_it(tiny_predictor):
    sentence = "Oak lamp for a desk, $49.99 today. "
    *_, answer = Reader(SharedPredictor(tiny_predictor)).read(sentence * 40)
    assert answer.prompt.truncated and answer.hidden
    kept = answer.prompt.kept_chars
    assert answer.given[:kept] == answer.read and "49.99" not in answer.given
    behind = re.search('class="unread">(.*?)</span>', html.what_was_read(answer)).group(1)
    assert (answer.read + behind.removesuffix(" …")).replace(" ", "") in answer.given.replace(" ", "")
