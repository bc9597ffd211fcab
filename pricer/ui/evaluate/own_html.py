"""What the boxes for a visitor's own runs say, in HTML: the runs as chips, progress, complaints, the question."""

from __future__ import annotations

from html import escape

import gradio as gr

from pricer.arena.live import LiveStep
from pricer.arena.own_runs import OwnRuns
from pricer.ui.evaluate import text
from pricer.ui.evaluate.html import button


def chips(own: OwnRuns) -> str:
    """A removable chip per run."""
    made = [
        button(
            f'{escape(run.info.label)} · {len(run.table):,} <span aria-hidden="true">✕</span>',
            "remove-run",
            name,
            classes="chip on",
            aria_label=text.REMOVE.format(name=run.info.label),
        )
        for name, run in own.runs.items()
    ]
    return (
        f'<div class="chips"><span class="hint">{text.OWN_RUNS}</span>{"".join(made)}</div>' if made else ""
    )


def buttons(status: str, *, running: bool) -> list:
    return [status, gr.update(interactive=not running), gr.update(interactive=running)]


def progress(now: LiveStep) -> str:
    seconds = now.seconds_left
    left = text.SECONDS.format(seconds) if seconds < 90 else text.MINUTES.format(seconds / 60)
    words = text.LIVE_PROGRESS.format(done=now.done, total=now.total, left=left)
    return f'<progress max="{now.total}" value="{now.done}"></progress>{line(words)}'


def line(words: str) -> str:
    return f'<p class="hint" role="status">{words}</p>'


def question(label: str, items: int, most: int, name: str) -> str:
    """Whether both models shall price the products of the run `name` too, or the first `most` of them."""
    words = text.OWN_ASK if items <= most else text.OWN_ASK_FIRST
    words = words.format(label=escape(label), items=items, most=most)
    yes, no = button(text.OWN_YES, "score-own", name), button(text.OWN_NO, "dismiss", classes="chip plain")
    return f'<div class="chips notice" data-reveal="{name}"><span>{words}</span>{yes}{no}</div>'
