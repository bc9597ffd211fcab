"""A real browser for the page's tests: `url = serve(demo)`, `page = open_page(url)`, then look.

Every page keeps what went wrong with it: `page.errors` (console errors, uncaught exceptions, failed requests)
and `page.foreign` (requests to any other host). `page.unfold(title)` opens a fold.
"""

import shutil
import socket
from functools import partial
from urllib.parse import urlsplit

import pytest

CHROMIUM_ARGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


# Opening a fold makes Gradio mount what is in it and, a frame or two later, write its first values into it once
# more: what was typed in between (no person can) would be lost. So wait for six frames in which nothing changes.
UNFOLDED = """fold => new Promise(resolve => {
    let still = 0;
    const changes = new MutationObserver(() => { still = 0; });
    changes.observe(fold, { subtree: true, childList: true, attributes: true, characterData: true });
    const frame = () => {
        if (++still < 6) return requestAnimationFrame(frame);
        changes.disconnect();
        resolve();
    };
    requestAnimationFrame(frame);
})"""


def unfold(page, title):
    """Opens the fold of that title, and comes back when what is in it can be used."""
    heading = page.locator("button.label-wrap", has_text=title)
    heading.click()
    page.locator(".gr-accordion").filter(has=heading).evaluate(UNFOLDED)


@pytest.fixture(scope="session")
def browser():
    """Debian's chromium where there is one, else the one that playwright installed."""
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=CHROMIUM_ARGS)
        yield chromium
        chromium.close()


@pytest.fixture
def open_page(browser):
    """`open_page(url, width, height, dark)`: a fresh visitor, who asks for a dark page or a light one."""
    contexts = []

    def open_page(url, width=1280, height=900, dark=False, before=None):
        scheme = "dark" if dark else "light"
        context = browser.new_context(
            viewport={"width": width, "height": height}, color_scheme=scheme, reduced_motion="reduce"
        )
        contexts.append(context)
        context.set_default_timeout(60_000)
        page = context.new_page()
        page.errors, page.foreign = [], []
        page.unfold = partial(unfold, page)
        host = urlsplit(url).netloc
        page.on("console", lambda m: page.errors.append(m.text) if m.type == "error" else None)
        page.on("pageerror", lambda error: page.errors.append(str(error)))
        page.on("dialog", lambda dialog: (page.errors.append(f"dialog: {dialog.message}"), dialog.dismiss()))

        def on_request(request):
            parts = urlsplit(request.url)
            if parts.scheme in ("http", "https", "ws", "wss") and parts.netloc != host:
                page.foreign.append(request.url)

        page.on("request", on_request)
        if before:  # for routes and init scripts
            before(page)
        page.goto(url)
        return page

    yield open_page
    for context in contexts:
        context.close()


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
