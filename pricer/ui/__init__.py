"""The page: one file per tab; the only part of the library that knows Gradio."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pricer.arena.arena import Arena
from pricer.llama.predictor import Predictor
from pricer.llama.shared import SharedPredictor
from pricer.settings import Limits, Settings

from pricer.ui import theme  # first: it keeps Gradio from sending statistics  # isort: skip

import gradio as gr  # isort: skip
from starlette.middleware import Middleware

from pricer.ui import mcp, text
from pricer.ui.api import add_api
from pricer.ui.batch.tab import BatchTab
from pricer.ui.chart import plotly_route
from pricer.ui.compare.tab import build_compare
from pricer.ui.evaluate.tab import build_evaluate, load_arenas
from pricer.ui.guard import MOST_IN_LINE, THREADS, Guard, RequestLimit
from pricer.ui.sessions import use_light_sessions
from pricer.ui.zero_gpu import share_gpu

__all__ = ["build_demo", "launch", "load_arenas", "page_options"]

PAGE_CSS = "".join(
    (Path(__file__).parent / name).read_text(encoding="utf-8")
    for name in ("page.css", "compare/compare.css", "batch/batch.css", "evaluate/evaluate.css")
)
# Gradio confines the page's `css` to what is above its footer. On a phone it does not offer the API's page there.
FOOTER_STYLE = "<style>@media (max-width: 640px) { footer .divider { display: none !important; } }</style>"
MAX_UPLOAD_BYTES = 100_000_000  # not even taken from the network; each upload has its own limit below that
KEPT_SECONDS = 600  # an uploaded file that nothing has read
SCRIPTS = ("page.js", "compare/compare.js", "evaluate/evaluate.js")
# Each a block of its own, run once when the page is there.
PAGE_JS = "() => {{{}}}".format(
    "".join(f"{{\n{(Path(__file__).parent / name).read_text(encoding='utf-8')}}}\n" for name in SCRIPTS)
)


def build_demo(
    predictor: Predictor | SharedPredictor | None,
    problem: str,
    settings: Settings,
    arenas: tuple[dict[str, Arena], str] | None = None,
) -> gr.Blocks:
    """The whole page. Without a predictor it still opens, and says `problem`. `arenas`: what `load_arenas` gave."""
    if predictor and settings.zero_gpu:
        share_gpu(predictor, settings.gpu_seconds)
    shared = predictor
    if isinstance(predictor, Predictor):
        shared = SharedPredictor(predictor, together=0 if settings.zero_gpu else None)
    limit = RequestLimit(settings.limits.requests_per_minute)
    kept = (KEPT_SECONDS, KEPT_SECONDS)
    with gr.Blocks(title=text.TITLE, fill_width=False, delete_cache=kept) as demo:
        gr.HTML(
            f'<h1>{text.TITLE}</h1><p class="intro">{text.INTRO}</p>'
            f'<button type="button" id="theme-switch" aria-label="{text.THEME_SWITCH}" title="{text.THEME_SWITCH}">◐</button>',
            elem_classes="masthead",
        )
        with gr.Tabs() as tabs:
            with gr.Tab(text.COMPARE_TAB, id="compare"):
                box = build_compare(shared, problem, settings, limit)
            with gr.Tab(text.BATCH_TAB, id="batch"):
                batch = BatchTab(shared, problem, settings, limit)
                batch.layout()
            with gr.Tab(text.EVALUATE_TAB, id="evaluation", elem_id="evaluation") as tab:
                evaluate = build_evaluate(tab, tabs, settings, box, limit, shared, problem, arenas)
        box.link(demo)
        if evaluate:
            evaluate.link(demo)
            batch.send(evaluate.take)
        add_api(shared, problem, settings, limit)
        gr.HTML(f'<p class="footer-note">{text.FOOTER}</p>', elem_classes="footer")
    # Nobody passes the queue by: without api_open=False a direct call would. How many may wait, `Guard` says.
    demo.queue(default_concurrency_limit=1, api_open=False)
    demo.shared = shared
    return demo


def launch(demo: gr.Blocks, settings: Settings, **options: Any) -> Any:
    """Serve the page where the settings say."""
    address = {"server_name": settings.host, "server_port": settings.port}
    return theme.silence(demo).launch(**page_options(settings.limits), **address, show_error=True, **options)


def page_options(limits: Limits | None = None) -> dict[str, Any]:
    """What `launch` needs to serve the page: looks, the page's script, the chart library's address, and limits."""
    look, limits = theme.launch_options(), limits or Limits()
    mcp.use_json_answers()
    use_light_sessions()
    upload_bytes = max(MAX_UPLOAD_BYTES, limits.upload_bytes)
    return look | {
        "css": look["css"] + PAGE_CSS,
        "head": FOOTER_STYLE,
        "js": PAGE_JS,
        "max_file_size": upload_bytes,
        "max_threads": THREADS + min(limits.queue, MOST_IN_LINE),
        "state_session_capacity": limits.sessions,
        "mcp_server": mcp.AVAILABLE,
        "app_kwargs": {
            "routes": [plotly_route()],
            "middleware": [Middleware(Guard, limits=limits, upload_bytes=2 * upload_bytes)],
        },
    }
