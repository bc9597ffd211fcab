"""The endpoints for programs as MCP tools too, where the package `mcp` is installed (requirements-mcp.txt)."""

from __future__ import annotations

import json
from importlib.util import find_spec
from typing import Any

from gradio.mcp import GradioMCPServer

AVAILABLE = find_spec("mcp") is not None


class JsonAnswers(GradioMCPServer):
    """Gradio's server writes an answer as Python does ('truncated': False); this one writes JSON."""

    def postprocess_output_data(self, data: Any, root_url: str) -> list:
        return super().postprocess_output_data([json.dumps(answer) for answer in data], root_url)


def use_json_answers() -> None:
    """Before `launch`, which takes the class from Gradio's module."""
    import gradio.mcp

    gradio.mcp.GradioMCPServer = JsonAnswers
