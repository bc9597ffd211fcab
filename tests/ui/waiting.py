"""What a page comes to show is waited for, never read once: it may come a moment after what brought it."""

import json

from playwright.sync_api import TimeoutError

# Six frames in which an element keeps its place: what stands above it may come later and push it down.
STILL = """element => new Promise(resolve => {
    element.scrollIntoView({block: 'center'});
    let last, still = 0;
    const frame = () => {
        const {x, y, width} = element.getBoundingClientRect(), now = `${x} ${y} ${width}`;
        still = now === last ? still + 1 : 0;
        last = now;
        still < 6 ? requestAnimationFrame(frame) : resolve();
    };
    frame();
})"""

# Six frames in which nothing in an element changes.
UNCHANGED = """element => new Promise(resolve => {
    let still = 0;
    const changes = new MutationObserver(() => { still = 0; });
    changes.observe(element, { subtree: true, childList: true, attributes: true, characterData: true });
    const frame = () => {
        if (++still < 6) return requestAnimationFrame(frame);
        changes.disconnect();
        resolve();
    };
    requestAnimationFrame(frame);
})"""


def drawn(page, chart):
    """The plot in the chart of that selector, once it is drawn."""
    comes_to(page, f"document.querySelector('{chart} .chart-drawn .main-svg').checkVisibility()")
    return page.locator(f"{chart} .chart-plot")


def still(page, chart):
    """The same, in the middle of the window and at rest: only then does a place on it count."""
    plot = drawn(page, chart)
    plot.evaluate(STILL)
    return plot


def comes_to(page, script, wanted=True):
    """Wait until the expression gives the wanted value; one that fails has not come to it yet."""
    text = json.dumps(wanted, separators=(",", ":"), ensure_ascii=False)
    now = f"(() => {{ try {{ return JSON.stringify({script}); }} catch {{ return null; }} }})()"
    try:
        page.wait_for_function(f"{now} === {json.dumps(text)}")
    except TimeoutError:
        found = page.evaluate(now)
        assert found == text, f"{found} instead of {text}: {script}"
