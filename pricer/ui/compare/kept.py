"""What a visitor keeps: an answer pinned beside the next one, and a strip of what was tried, in the browser alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gradio as gr

from pricer.ui.chart import quiet_event
from pricer.ui.compare import text as words

MOST_TRIED = 12
# The strip and its rows never leave the browser: the events below have no Python.
STORAGE = {"storage_key": "pricer-tried", "secret": "kept by the browser alone"}


class AgainEvent(gr.EventData):
    """What to ask again, as text. It comes from the browser, or from a link: look things up by it, do not trust it."""

    def __init__(self, target: gr.blocks.Block | None, _data: Any):
        super().__init__(target, _data)
        given = _data if isinstance(_data, dict) else {}
        self.text, self.rule, self.prior, self.actual = (
            str(given.get(name) or "") for name in ("text", "rule", "prior", "actual")
        )


class Strip(gr.HTML):
    """What was tried, the latest first: rows as `latest` in pricer/ui/compare/tab.py makes them."""

    again = quiet_event("again")  # ask again for a row, as it was read
    clear = quiet_event("clear")

    def __init__(self, typical: list[str], **kwargs: Any):
        """`typical`: what each example typically costs, for the mouse over its chip."""
        script = Path(__file__).with_name("strip.js").read_text(encoding="utf-8")
        super().__init__(
            [],
            html_template='<div class="strip-root"></div>',
            js_on_load=script.replace("WORDS", words.STRIP_WORDS).replace("TYPICAL", json.dumps(typical)),
            apply_default_css=False,
            **kwargs,
        )

    @property
    def skip_api(self) -> bool:
        return True
