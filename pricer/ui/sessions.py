"""A visitor's state as Gradio keeps it, without what this page has no use for."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import gradio as gr
from gradio.state_holder import SessionState


class LightSession(SessionState):
    """Gradio's own holds a copy of every component's settings and follows what becomes of them, for links to a page as it
    stands, which are not offered here. That takes memory, and time of the one thread that serves everybody,
    for every new visitor and for every request of a program."""

    def __init__(self, blocks: gr.Blocks):
        super().__init__(SimpleNamespace(default_config=blocks.default_config, blocks={}))

    def _update_config(self, key: int) -> None:
        pass

    def _update_value_in_config(self, key: int, value: Any) -> None:
        pass


def use_light_sessions() -> None:
    """Before `launch`; Gradio takes the class from its module."""
    import gradio.state_holder

    gradio.state_holder.SessionState = LightSession
