"""HTML whose buttons reach Python: chips, table rows, anything that Gradio has no component for.

    board = Actions('<button data-do="sort" data-value="rmsle">RMSLE</button>')
    board.act(on_act, outputs=board)            # on_act(event: ActionEvent): event.name, event.value

A button with `data-copy` instead copies the page's address with that query string, without Python. One with
`data-key="Escape"` is also pressed by that key, and what has `data-reveal="which one"` is scrolled to when it is new.
The HTML is set as it stands: escape text that is not your own.
"""

from __future__ import annotations

from typing import Any

import gradio as gr

from pricer.ui.scripted import Scripted, quiet_event


class ActionEvent(gr.EventData):
    """Which button was pressed. It comes from the browser: look things up by it, do not trust it."""

    def __init__(self, target: gr.blocks.Block | None, _data: Any):
        super().__init__(target, _data)
        self.name = str((_data or {}).get("name", ""))
        self.value = str((_data or {}).get("value", ""))


class Actions(Scripted):
    act = quiet_event("act")

    def __init__(self, value: str | None = None, **kwargs: Any):
        # filled by the script, which keeps the focus
        super().__init__(value, html='<div class="actions-root"></div>', **kwargs)
