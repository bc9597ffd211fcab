"""The pictures of README, taken of the page as it is, with what ships and what requirements-test.txt installs.

python docs/pictures.py [compare] [evaluation]
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
sys.path.insert(0, str(Path(__file__).parents[1]))

from playwright.sync_api import Page, sync_playwright

from pricer.llama.predictor import load_predictor
from pricer.settings import Settings
from pricer.ui import build_demo, launch

PORT = 7900
WIDTH = 1440


def compare(page: Page, url: str) -> None:
    """The first example's answer, and why."""
    page.set_viewport_size({"width": WIDTH, "height": 1220})
    page.goto(url)
    page.locator("#chart-answer .chart-drawn .main-svg").first.wait_for()
    page.locator("#why").click()
    page.locator("#why-out .phrase").first.wait_for()
    page.locator("#why-stop").wait_for(state="hidden")


def evaluation(page: Page, url: str) -> None:
    """What one comes to."""
    page.set_viewport_size({"width": WIDTH, "height": 900})
    page.goto(f"{url}?tab=evaluation")
    page.locator("#scatter-b .chart-drawn .main-svg").first.wait_for()
    page.locator("#starters .starter").first.wait_for()


PICTURES: dict[str, Callable[[Page, str], None]] = {"compare": compare, "evaluation": evaluation}


def main() -> None:
    wanted = sys.argv[1:] or list(PICTURES)
    settings = Settings.from_env({"PORT": str(PORT)})
    demo = build_demo(load_predictor(settings), "", settings)
    _, url, _ = launch(demo, settings, prevent_thread_lock=True, quiet=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(reduced_motion="reduce", color_scheme="light")
        for name in wanted:
            PICTURES[name](page, url)
            page.screenshot(path=Path(__file__).with_name(f"{name}.png"))
        browser.close()
    demo.close(verbose=False)


if __name__ == "__main__":
    main()
