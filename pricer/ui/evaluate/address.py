"""The page's address follows the view: reload, Back, Forward and a copied address lead to what was seen.

address = Address()
button.click(lambda: Address.show("tab=evaluation&item=3", step=True), None, address)
address.go(on_go, outputs=…)            # on_go(event: AddressEvent): event.query, after Back or Forward
"""

from __future__ import annotations

import json
import time
from typing import Any

import gradio as gr

from pricer.ui.scripted import Unseen, quiet_event


class AddressEvent(gr.EventData):
    """The query string that Back or Forward led to. It comes from the browser: read it as one reads a link."""

    def __init__(self, target: gr.blocks.Block | None, _data: Any):
        super().__init__(target, _data)
        self.query = str((_data or {}).get("query", ""))[:20_000]


class Address(Unseen):
    go = quiet_event("go")

    @staticmethod
    def show(query: str, *, step: bool) -> str:
        """The value that puts `query` into the address: as a step that Back undoes, or in place of what is there.
        An empty one takes away what this tab has put there."""
        return json.dumps({"query": query, "step": step, "at": time.time_ns()})  # each is another value

    @staticmethod
    def answered(query: str) -> str:
        """The value after a `go` to `query`: where the browser has gone on meanwhile it asks again, so that of Back and
        Forward in quick turn the last one counts."""
        return json.dumps({"answered": query, "at": time.time_ns()})
