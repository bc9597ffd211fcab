"""The Batch tab: choose a file, look at it, have it priced, look at the prices, take them away.

What a visitor gave and got lives in their session and nowhere else. Scoring waits in a queue of its own and lets the
model go every second, so that nobody's single question waits behind a whole file.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

import gradio as gr
import pandas as pd

from pricer.errors import InputError
from pricer.figures.guesses import drawn_items, guess_against_price
from pricer.figures.prices import price_histogram
from pricer.llama.prediction import Prediction
from pricer.llama.predictor import Predictor
from pricer.scoring.engine import Task
from pricer.scoring.steps import score_in_steps
from pricer.settings import PASSES, Settings
from pricer.ui.batch import html, text
from pricer.ui.batch.file import Upload, look_at, read_products
from pricer.ui.batch.result import CSV, PARQUET, TABLE_ROWS, Result
from pricer.ui.chart import Chart
from pricer.ui.download import Download
from pricer.ui.guard import BATCH_QUEUE, BATCHES_AT_ONCE, RequestLimit

FILE_TYPES = [".csv", ".tsv", ".txt", ".jsonl", ".ndjson", ".json", ".parquet", ".pq", ".gz"]
CHART_HEIGHT = 300  # pixels
# In the lists of columns, none of which is the one without a name:
USUAL = ""  # the text is where it is found by the columns' names
NO_PRICE = ""

AT_ONCE = {"api_visibility": "private", "show_progress": "hidden", "queue": False}


@dataclass
class Control:
    """A scoring as its visitor's buttons see it."""

    stop: threading.Event = field(default_factory=threading.Event)
    running: bool = True


class BatchTab:
    """`layout` inside the tab; `send` once the Evaluation tab stands."""

    def __init__(self, predictor: Predictor | None, problem: str, settings: Settings, limit: RequestLimit):
        self.predictor, self.problem, self.settings, self.limit = predictor, problem, settings, limit
        self.limits = settings.limits
        self.most = self.limits.rows_at_once(predictor.pair.device.type) if predictor else 0

    # Layout ----------------------------------------------------------------------------------------------

    def layout(self) -> None:
        with gr.Column(elem_classes="batch"):
            if self.predictor is None:
                words = text.NO_MODEL.format(problem=escape(self.problem))
                gr.Markdown(words, elem_classes="notice problem")
                return
            gr.HTML(text.HELP.format(most=self.most), elem_classes="batch-help")
            self.file = gr.File(label=text.FILE, file_types=FILE_TYPES, height=140, elem_id="batch-file")
            self.notice = gr.HTML(elem_id="batch-notice", elem_classes="hide-when-empty")
            with gr.Column(visible=False, elem_id="batch-setup") as self.setup:
                self._layout_setup()
            with gr.Row(elem_classes="batch-bar", visible=False) as self.bar:
                self.start = gr.Button(
                    text.START, variant="primary", elem_id="batch-start", scale=0, min_width=150
                )
                self.stop = gr.Button(
                    text.STOP, interactive=False, elem_id="batch-stop", scale=0, min_width=100
                )
                self.status = gr.HTML(elem_id="batch-status", elem_classes="hide-when-empty")
            with gr.Column(visible=False, elem_id="batch-result") as self.outcome:
                self._layout_result()
        self._wire()

    def _layout_setup(self) -> None:
        self.preview = gr.HTML(elem_id="batch-preview")
        with gr.Row(elem_classes="batch-choices"):
            self.text_column = gr.Dropdown(
                [], label=text.TEXT_COLUMN, info=text.TEXT_COLUMN_INFO, elem_id="batch-text", min_width=220
            )
            self.price_column = gr.Dropdown(
                [], label=text.PRICE_COLUMN, info=text.PRICE_COLUMN_INFO, elem_id="batch-price", min_width=220
            )
            self.models = gr.Radio(
                [(words, name) for name, words in text.MODEL_CHOICES.items()],
                value="tuned",
                label=text.MODELS,
                info=text.MODELS_INFO,
                elem_id="batch-models",
                min_width=260,
            )

    def _layout_result(self) -> None:
        self.summary = gr.HTML(elem_id="batch-summary")
        with gr.Row(elem_classes="batch-charts"):
            with gr.Column(min_width=300):
                gr.HTML(f"<h4>{text.HISTOGRAM}</h4>")
                self.histogram = Chart(height=CHART_HEIGHT, empty=text.NO_FIGURE, elem_id="batch-histogram")
            self.scatters, self.scatter_columns, self.scatter_titles = {}, {}, {}
            for which in PASSES:
                with gr.Column(min_width=300, visible=False) as self.scatter_columns[which]:
                    gr.HTML(f"<h4>{text.SCATTER.format(name=text.MODEL_NAMES[which])}</h4>")
                    self.scatters[which] = Chart(
                        height=CHART_HEIGHT, empty=text.NO_FIGURE, elem_id=f"batch-scatter-{which}"
                    )
        with gr.Row(elem_classes="batch-take", visible=False) as self.take:
            self.downloads = {
                kind: gr.Button(words, size="sm", scale=0, min_width=140, elem_id=f"batch-{name}")
                for kind, words, name in (
                    (CSV, text.DOWNLOAD_CSV, "csv"),
                    (PARQUET, text.DOWNLOAD_PARQUET, "parquet"),
                    ("rejected", text.DOWNLOAD_REJECTED, "rejected"),
                )
            }
            self.to_evaluation = gr.Button(
                text.SEND, size="sm", scale=0, min_width=160, visible=False, elem_id="batch-send"
            )
        self.table_note = gr.HTML(elem_classes="batch-help")
        self.table = gr.Dataframe(
            interactive=False,
            show_search="search",
            max_height=420,
            buttons=["fullscreen"],
            elem_id="batch-table",
        )
        self.saved = Download()

    # Events ----------------------------------------------------------------------------------------------

    def _wire(self) -> None:
        upload, control = gr.State(None), gr.State(None)
        self.result = gr.State(None)
        choices = [self.text_column, self.price_column, self.models]
        buttons = [self.status, self.start, self.stop]
        shown = [
            self.result,
            self.outcome,
            self.summary,
            self.histogram,
            *self.scatter_columns.values(),
            *self.scatters.values(),
            self.take,
            self.downloads["rejected"],
            self.to_evaluation,
            self.table_note,
            self.table,
        ]

        def on_file(request: gr.Request, path: str | None, before: Upload | None, models: str):
            try:
                self.limit.check(request)
                found = look_at(path or "", self.limits)
            except InputError as error:
                _delete(path)
                return [None, gr.skip(), html.complaint(error), *[gr.skip()] * 6]
            _delete(before.path if before else None)
            texts = [(" + ".join(found.usual), USUAL)] if found.usual else []
            names = [name for name in found.names if name]
            texts += [name for name in names if (name,) != found.usual]
            prices = [(text.NO_PRICE_COLUMN, NO_PRICE), *names]
            chosen = USUAL if found.usual else found.text_column
            return [
                None,
                found,
                "",
                gr.update(visible=True),
                gr.update(visible=True),
                self._preview(found, chosen, models),
                gr.update(choices=texts, value=chosen),
                gr.update(choices=prices, value=found.price_column or NO_PRICE),
                "",
            ]

        def on_choice(found: Upload | None, text_column: str, models: str):
            return self._preview(found, text_column, models) if found else gr.skip()

        def on_start():
            return [Control(), "", *_buttons(html.line(text.IN_LINE), running=True)]

        def on_score(
            request: gr.Request,
            found: Upload | None,
            control: Control,
            text_column: str,
            price_column: str,
            models: str,
        ):
            words = html.line(text.NOTHING)
            same = [gr.skip()] * len(shown)
            try:
                self.limit.check(request)
                yield [*_buttons(html.line(text.READING), running=True), *same]
                task = Task(self.settings, PASSES if models == "both" else ("tuned",), self.predictor.rule)
                asked, price = text_column or None, price_column or None
                if found is None:
                    raise InputError(text.GONE)
                task.check_columns(list(found.names), found.title)
                products = read_products(found, asked, price, self.limits, self.most)
                prior = self.predictor.prior.name if self.predictor.prior else None
                begun, result, base_said = time.monotonic(), None, {}

                def keep(which: str, at: int, one: Prediction) -> None:
                    if which == "base":
                        base_said[at] = (*one.interval(), float(one.distribution.unpriced_mass))

                for step in score_in_steps(
                    self.predictor, products.texts, task, stop=control.stop, on_answer=keep
                ):
                    result = Result(found.title, products, task, step.columns, prior, base_said)
                    going = html.progress(step.done, step.total, step.seconds_left)
                    yield [*_buttons(going, running=True), *self._growing(result)]
                if result:
                    done = text.DONE if result.done == len(products.texts) else text.STOPPED
                    took = html.duration(time.monotonic() - begun)
                    words, same = (
                        html.line(done.format(done=text.rows(result.done), took=took)),
                        self._whole(result, price),
                    )
            except InputError as error:
                words = html.complaint(error)
            finally:
                control.running = False
            yield [*_buttons(words, running=False), *same]

        def on_stop(control: Control | None):
            if control is None or not control.running:
                return gr.skip(), gr.skip()
            control.stop.set()
            return html.line(text.STOPPING), gr.update(interactive=False)

        def on_failure(control: Control | None):
            if control:
                control.running = False
            return _buttons(html.complaint(text.FAILED), running=False)

        self.file.upload(
            on_file,
            [self.file, upload, self.models],
            [self.file, upload, self.notice, self.setup, self.bar, self.preview, *choices[:2], self.status],
            **AT_ONCE,
        )
        for choice in (self.text_column, self.models):
            choice.input(on_choice, [upload, self.text_column, self.models], self.preview, **AT_ONCE)
        begun = self.start.click(on_start, None, [control, self.notice, *buttons], **AT_ONCE)
        ran = begun.then(
            on_score,
            [upload, control, *choices],
            [*buttons, *shown],
            api_visibility="private",
            show_progress="hidden",
            concurrency_id=BATCH_QUEUE,
            concurrency_limit=BATCHES_AT_ONCE,
        )
        ran.failure(on_failure, control, buttons, **AT_ONCE)
        self.stop.click(on_stop, control, [self.status, self.stop], **AT_ONCE)
        for kind, button in self.downloads.items():
            button.click(lambda result, kind=kind: _file(result, kind), self.result, self.saved, **AT_ONCE)

    def send(self, take: Callable) -> None:
        """On a click the runs are handed to `EvaluateTab.take`."""
        if self.predictor is not None:
            take(self.to_evaluation.click, [self.result], Result.runs)

    # What is shown ---------------------------------------------------------------------------------------

    def _preview(self, found: Upload, text_column: str, models: str) -> str:
        asked = text_column or None
        read = found.usual if asked is None else (asked,)
        return html.preview(found, read, self.most, html.command(found, asked, models))

    def _growing(self, result: Result) -> list:
        """Of a scoring at work: how the prices spread so far."""
        hidden, same = gr.update(visible=False), gr.skip()
        columns = [hidden] * len(self.scatter_columns)
        return [
            None,
            gr.update(visible=True),
            "",
            _histogram(result),
            *columns,
            *[same] * len(self.scatters),
            hidden,
            same,
            same,
            "",
            hidden,
        ]

    def _whole(self, result: Result, price_column: str | None) -> list:
        drawn = drawn_items(result.scatter_table()) if result.priced.any() else None
        columns, charts = [], []
        for which in PASSES:
            there = drawn is not None and which in result.passes
            columns.append(gr.update(visible=there))
            charts.append(_scatter(drawn, which, result) if there else gr.skip())
        note, table = text.TABLE_HINT, result.page_table()
        if result.done > TABLE_ROWS:
            note = text.TABLE_CUT.format(shown=TABLE_ROWS, rows=text.rows(result.done)) + " " + note
        return [
            result,
            gr.update(visible=True),
            html.summary(result, price_column),
            _histogram(result),
            *columns,
            *charts,
            gr.update(visible=True),
            gr.update(visible=bool(result.products.rejected)),
            gr.update(visible=drawn is not None),
            f'<p class="hint">{note}</p>',
            gr.update(value=table, column_widths=_widths(table), visible=True),
        ]


def _histogram(result: Result):
    prices = {which: result.usd(which) for which in result.passes}
    if result.priced.any():
        prices["actual"] = result.price_usd
    return price_histogram(
        prices, names=text.MODEL_NAMES, description=text.HISTOGRAM_DESCRIPTION, count_axis=text.HISTOGRAM_AXIS
    )


def _scatter(table: pd.DataFrame, which: str, result: Result):
    end = "a" if which == result.passes[0] else "b"
    return guess_against_price(table, end, label=text.MODEL_NAMES[which], picked=None, log=True)


def _widths(table: pd.DataFrame) -> list[str]:
    widths = {"row": 64, "text": 260, "tuned_usd": 128, "low_usd": 92, "high_usd": 84}
    wide = {text.TABLE_HEADS[name]: width for name, width in widths.items()}
    return [f"{wide.get(name, 104)}px" for name in table]


def _file(result: Result | None, kind: str):
    if result is None:
        return gr.skip()
    stem = result.title.partition(".")[0] or "products"
    if kind == "rejected":
        return Download.file(f"{stem}-priced.rejected.csv", result.rejected_file().decode())
    content = result.file(kind)
    return Download.file(f"{stem}-priced{kind}", content.decode() if kind == CSV else content)


def _buttons(status: str, *, running: bool) -> list:
    return [status, gr.update(interactive=not running), gr.update(interactive=running)]


def _delete(path: str | Path | None) -> None:
    if path:
        Path(path).unlink(missing_ok=True)
