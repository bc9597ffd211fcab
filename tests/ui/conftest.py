"""A real browser for the page's tests: `url = serve(demo)`, `page = open_page(url)`, then look.

Every page keeps what went wrong with it: `page.errors` (console errors, uncaught exceptions, failed requests)
and `page.foreign` (requests to any other host). `page.unfold(title)` opens a fold.
"""

import shutil
import socket
import threading
from dataclasses import replace
from functools import partial
from urllib.parse import urlsplit

import pytest
from playwright import sync_api

from pricer.arena.runs import load_items
from pricer.arena.view import View
from pricer.llama.predictor import Predictor
from pricer.price.prior import load_prior
from pricer.settings import Settings
from pricer.ui import build_demo, page_options, theme
from pricer.ui.text import EVALUATE_TAB
from tests.ui.waiting import UNCHANGED, drawn

CHROMIUM_ARGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


# Opening a fold makes Gradio mount what is in it and, a frame or two later, write its first values into it once
# more: what was typed in between (no person can) would be lost.
def unfold(page, title):
    """Opens the fold of that title, and comes back when what is in it can be used."""
    heading = page.locator("button.label-wrap", has_text=title)
    heading.click()
    page.locator(".gr-accordion").filter(has=heading).evaluate(UNCHANGED)


@pytest.fixture(scope="session")
def browser():
    """Debian's chromium where there is one, else the one that playwright installed."""
    sync_api.expect.set_options(timeout=60_000)
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=CHROMIUM_ARGS)
        yield chromium
        chromium.close()


def new_page(browser, width=1280, height=900, dark=False):
    """A visitor with nothing kept; `page.host` is the only one that they may ask."""
    context = browser.new_context(
        viewport={"width": width, "height": height},
        color_scheme="dark" if dark else "light",
        reduced_motion="reduce",
    )
    context.set_default_timeout(60_000)
    return watched(context.new_page())


def watched(page):
    page.errors, page.foreign, page.host = [], [], ""
    page.unfold = partial(unfold, page)
    page.on("console", lambda m: page.errors.append(m.text) if m.type == "error" else None)
    page.on("pageerror", lambda error: page.errors.append(str(error)))
    page.on("dialog", lambda dialog: (page.errors.append(f"dialog: {dialog.message}"), dialog.dismiss()))

    def on_request(request):
        parts = urlsplit(request.url)
        if parts.scheme in ("http", "https", "ws", "wss") and parts.netloc != page.host:
            page.foreign.append(request.url)

    page.on("request", on_request)
    return page


def go(page, url):
    page.host = urlsplit(url).netloc
    page.goto(url)
    return page


@pytest.fixture
def open_page(browser):
    """`open_page(url, width, height, dark)`: a fresh visitor, who asks for a dark page or a light one."""
    pages = []

    def open_page(url, before=None, beside=None, **look):
        # `beside` another page: a second window of the same browser, which has the page's scripts at hand
        pages.append(watched(beside.context.new_page()) if beside else new_page(browser, **look))
        if before:  # for routes and init scripts
            before(pages[-1])
        return go(pages[-1], url)

    yield open_page
    for context in {page.context for page in pages}:
        context.close()


@pytest.fixture(scope="session")
def seen_page(browser):
    """`seen_page(url, width, height, dark)`: a visitor who has been there before, so that their browser has the page's
    scripts at hand, which is most of a visit's time, and has kept nothing else. Each visit is a session of its own."""
    page = new_page(browser)

    def seen_page(url, width=1280, height=900, dark=False):
        page.set_viewport_size({"width": width, "height": height})
        page.emulate_media(color_scheme="dark" if dark else "light")
        before = page.host
        go(page, "about:blank")
        if before:
            kept = {"origin": f"http://{before}", "storageTypes": "cookies,local_storage"}
            page.context.new_cdp_session(page).send("Storage.clearDataForOrigin", kept)
        page.unroute_all()
        page.errors.clear()
        page.foreign.clear()
        return go(page, url)

    yield seen_page
    page.context.close()


class HeldPredictor(Predictor):
    """A model that a test can hold: while it is not `open` it answers as often as `let` says."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.open, self.gate = True, threading.Semaphore(0)

    def predict_batches(self, prompts, which):
        if not self.open and which == "base":
            assert self.gate.acquire(timeout=100)
        return super().predict_batches(prompts, which)

    def let(self, steps):
        for _ in range(steps):
            self.gate.release()


@pytest.fixture(scope="session")
def held_predictor(tiny_pair):
    return HeldPredictor(tiny_pair, prior=load_prior("benchmark"))


@pytest.fixture(scope="session")
def item_text():
    """`item_text(index)`: a test item's, hand-made, with markup in it, as a listing may have."""
    return "Hand-made text of item {} <script>window.x=1</script><img src=x onerror=window.x=1>".format


@pytest.fixture(scope="session")
def evaluation_url(held_predictor, item_text, tiny_settings, serve, tmp_path_factory):
    """One app for all tests of the Evaluation tab: the shipped runs, a tiny Llama, texts by `item_text`."""
    file = tmp_path_factory.mktemp("texts") / "items.parquet"
    items = load_items()
    texts = [item_text(index) for index in items["index"]]
    items.assign(text=texts, price=items["price_usd"])[["index", "text", "price"]].to_parquet(file)
    limits = replace(tiny_settings.limits, upload_bytes=1_000_000)
    demo = build_demo(held_predictor, "", replace(tiny_settings, test_items=file, limits=limits))
    return serve(theme.silence(demo), **page_options(limits), show_error=True)


@pytest.fixture(scope="session")
def tiny_url(tiny_predictor, tiny_settings, serve):
    """The whole app on a tiny Llama."""
    demo = theme.silence(build_demo(tiny_predictor, "", tiny_settings))
    return serve(demo, **page_options(), show_error=True)


@pytest.fixture(scope="session")
def calibrated_url(calibrated_predictor, tiny_settings, serve):
    """The same with a calibration."""
    demo = theme.silence(build_demo(calibrated_predictor, "", tiny_settings))
    return serve(demo, **page_options(), show_error=True)


@pytest.fixture(scope="session")
def without_models(serve):
    """An app whose models could not be loaded: (its address, what it says)."""
    problem = (
        "There is no adapter at /nowhere <script>window.x=1</script><img src=x onerror=window.x=1>: set it."
    )
    demo = theme.silence(build_demo(None, problem, Settings.from_env({})))
    return serve(demo, **page_options(), show_error=True), problem


@pytest.fixture
def evaluation(seen_page, evaluation_url):
    """`evaluation()`: the page with the Evaluation tab opened by its button; `evaluation(view)`: the page at a link;
    both plots are drawn."""

    def evaluation(query="", **size):
        query = query.to_query() if isinstance(query, View) else query
        page = seen_page(f"{evaluation_url}?{query}" if query else evaluation_url, **size)
        if not query:
            page.get_by_role("tab", name=EVALUATE_TAB).click()
        for end in ("a", "b"):
            drawn(page, f"#scatter-{end}")
        return page

    return evaluation


@pytest.fixture(scope="session")
def serve():
    """`serve(demo, **launch)` starts an app on a free port and returns its address."""
    demos = []

    def serve(demo, **launch):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        launch = {"quiet": True, "prevent_thread_lock": True, "server_port": port} | launch
        _, url, _ = demo.launch(**launch)
        demos.append(demo)
        return url

    yield serve
    for demo in demos:
        demo.close(verbose=False)
