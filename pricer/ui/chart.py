"""A plotly figure on the page whose clicks and selections reach Python.

`gr.Plot` knows only a change event; this is `gr.HTML` around plotly.js. The library is the file inside the
`plotly` package, served by the app itself under a name with its version, so that a browser keeps it for good:

    demo.launch(app_kwargs={"routes": [plotly_route()]})

    chart = Chart(figure, description="Error of both models by category")
    chart.select(on_select, outputs=table)          # on_select(event: ChartEvent)
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr
import plotly
import plotly.graph_objects as go
import plotly.io as pio
from starlette.responses import FileResponse
from starlette.routing import Route

from pricer.figures import BASE_COLOUR, TUNED_COLOUR
from pricer.ui.scripted import Scripted, quiet_event

PLOTLY_JS = Path(plotly.__file__).parent / "package_data" / "plotly.min.js"
PLOTLY_PATH = f"plotly-{plotly.__version__}.min.js"

# Nothing in it depends on a prop: gr.HTML would patch the nodes that plotly made when it changed.
# The label is beside the plot, not around it: what is inside role="img" is no button to a screen reader.
HTML = """
<div class="chart">
  <div class="chart-label" role="img"></div><div class="chart-plot"></div><p class="chart-note"></p>
  <p class="chart-spoken" aria-live="polite"></p>
</div>
"""
CSS = """
.chart { position: relative; height: HEIGHTpx; border-radius: var(--radius-md);
         background: var(--background-fill-secondary); transition: background 0.2s; }
.chart-drawn { background: none; }
.chart-plot { height: 100%; }
.chart-plot .modebar:focus-within { opacity: 1; }
.chart-label, .chart-note { position: absolute; inset: 0; pointer-events: none; }
.chart-spoken { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); }
.chart-note { display: grid; place-items: center; margin: 0; padding: 1rem; text-align: center;
              color: var(--body-text-color-subdued); }
.chart-drawn .chart-note { display: none; }
"""


def plotly_route() -> Route:
    """The route that serves plotly.js. Its name carries the version, so a browser need not ask again."""

    def plotly_js(_request) -> FileResponse:
        headers = {"Cache-Control": "public, max-age=31536000, immutable"}
        return FileResponse(PLOTLY_JS, media_type="text/javascript", headers=headers)

    return Route(f"/{PLOTLY_PATH}", plotly_js)


@dataclass(frozen=True)
class ChartPoint:
    """A row of a trace's data. `customdata` is what the figure gave it, as JSON; x and y are the mark's."""

    curve: int
    index: int | list[int]
    x: Any = None
    y: Any = None
    customdata: Any = None


class ChartEvent(gr.EventData):
    """What was clicked or selected. It comes from the browser: look things up by it, do not trust it."""

    def __init__(self, target: gr.blocks.Block | None, _data: Any):
        super().__init__(target, _data)
        self.points = [ChartPoint(**point) for point in (_data or {}).get("points", [])]

    @property
    def customdata(self) -> list[Any]:
        return [point.customdata for point in self.points]


class Chart(Scripted):
    """A plotly figure. Handlers may return a figure, None, or `gr.update(value=…, description=…)`.

    Where `layout.meta["walk"]` is true the marks are reached by arrow keys and opened by Enter, and a finger picks the
    nearest one; where its "toolbar" is false there is none. Zoom and selection outlive an update as long as the figure's `layout.uirevision` stays the same; it does
    when the figure sets none. Colours and type that the figure leaves open follow the page, light or dark.
    Hover text and labels understand a few tags (`<b>`, `<br>`, links): escape text that is not your own.

    Parameters:
        value: the figure, or a function that makes it when the page opens
        height: in pixels, kept while the library loads
        description: what a screen reader says; a figure's own `layout.meta["description"]` goes before it
        empty: what stands in place of the figure when there is none
    """

    click = quiet_event("click")  # on a mark
    select = quiet_event("select")  # by box or lasso; no points when it holds none
    deselect = quiet_event("deselect")  # by a double click

    def __init__(
        self,
        value: go.Figure | Any | None = None,
        *,
        height: int = 360,
        description: str = "",
        empty: str = "",
        failed: str = "The chart could not be drawn. Reload the page to try again.",
        **kwargs: Any,
    ):
        self.height = int(height)
        self.description = description
        self.empty = empty
        self.failed = failed
        # In the script, not among the props: those Gradio now and then loses when the first value of a chart in a
        # hidden tab comes in while the tab is being opened.
        given = {
            "plotly_path": PLOTLY_PATH,
            "colours": [BASE_COLOUR, TUNED_COLOUR],
            "description": description,
            "empty": empty,
            "failed": failed,
            "toolbar": "Toolbar of the chart",
            "walk": "Arrow keys go from mark to mark, Enter opens one.",
        }
        super().__init__(
            value,
            html=HTML,
            prelude=f"const given = {json.dumps(given)};\n",
            css_template=CSS.replace("HEIGHT", str(self.height)),
            description=description,
            empty=empty,
            **kwargs,
        )

    def postprocess(self, value: go.Figure | None) -> str | None:
        """JSON text: the page parses it as data, and Gradio compares it cheaply. NaN becomes null."""
        if value is None:
            return None
        figure = value.to_dict()
        figure["layout"].pop("template", None)  # plotly's own, 7 kB; the browser puts the page's there
        return pio.to_json(figure, validate=False)
