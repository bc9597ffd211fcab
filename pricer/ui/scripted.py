"""A component whose browser side is the script beside its Python file.

    class Bell(Scripted):                  # pricer/ui/bell.py; pricer/ui/bell.js has element, props, trigger, watch …
        rung = quiet_event("rung")

The script is the body of a function, run once when the component is on the page.
"""

from __future__ import annotations

import inspect
from functools import wraps
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.events import EventListener


def quiet_event(event: str):
    """An event of an HTML component with the settings that every linked view wants.

    Gradio's defaults would drop a selection made while the last one is still being answered, lay a spinner
    over the outputs, and list the handler among the app's API endpoints.
    """
    listener = EventListener(event).listener

    @wraps(listener)
    def listen(component: gr.HTML, *args, **kwargs):
        quiet = {"trigger_mode": "always_last", "show_progress": "hidden", "api_visibility": "private"}
        return listener(component, *args, **(quiet | kwargs))

    return listen


class Scripted(gr.HTML):
    """`html`: what is there before the script runs; `prelude`: JavaScript in front of it."""

    def __init__(self, value: Any = None, *, html: str, prelude: str = "", **kwargs: Any):
        script = Path(inspect.getfile(type(self))).with_suffix(".js").read_text(encoding="utf-8")
        super().__init__(
            value, html_template=html, js_on_load=prelude + script, apply_default_css=False, **kwargs
        )

    @property
    def skip_api(self) -> bool:
        return True  # nothing for API clients


class Unseen(Scripted):
    """One that has nothing to show: its script does something with each value."""

    def __init__(self, **kwargs: Any):
        super().__init__(html="<span></span>", elem_classes="unseen", **kwargs)
