"""The Compare tab: one product text, one answer, and both models side by side."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from html import escape

import gradio as gr
import plotly.graph_objects as go

from pricer.errors import InputError
from pricer.figures import COLOURS, Row, price_comparison
from pricer.figures.style import usd
from pricer.llama.shared import SharedPredictor
from pricer.price.distribution import DEFAULT_RULE
from pricer.price.named import named_prices
from pricer.price.prior import SHIPPED, load_prior
from pricer.settings import Settings
from pricer.ui import text
from pricer.ui.actions import ActionEvent, Actions
from pricer.ui.chart import Chart
from pricer.ui.compare import html
from pricer.ui.compare import text as words
from pricer.ui.compare.answer import (
    NAMED_CHARS,
    Answer,
    Reader,
    Reading,
    View,
    load_examples,
    read_answer,
    read_usd,
)
from pricer.ui.compare.kept import MOST_TRIED, STORAGE, AgainEvent, Strip
from pricer.ui.compare.why import Why
from pricer.ui.guard import PARTS_QUEUE, RequestLimit, in_line, still_wanted
from pricer.ui.parts import alert

CHART_HEIGHT = 250  # pixels
QUIET = {"api_visibility": "private", "show_progress": "hidden"}
AT_ONCE = QUIET | {"queue": False}  # answered beside the queue: the model is not needed
TAKEN_APART = QUIET | {"concurrency_id": PARTS_QUEUE}
PARTS = ("status", "cut", "lead", "chart", "sides", "facts", "latest")  # what an answer fills, in this order


@dataclass(frozen=True)
class CompareBox:
    """Where other tabs may put a text, and `predict_after(event)`, which then asks both models."""

    product: gr.Textbox
    actual: gr.Textbox
    predict_after: Callable
    latest: gr.JSON
    tried: gr.BrowserState
    strip: Strip

    def link(self, demo: gr.Blocks) -> None:
        """Tell the page's script of the answer that the page opens with."""
        demo.load(None, self.tried, self.strip, js="rows => rows ?? []", **AT_ONCE)
        demo.load(None, self.latest, None, js="row => window.pricer.answered(row)", **AT_ONCE)


def build_compare(
    predictor: SharedPredictor | None, problem: str, settings: Settings, limit: RequestLimit
) -> CompareBox:
    """Lay out the tab inside the current Blocks. Without a predictor it shows the problem instead."""
    tab = _Tab(predictor, settings, limit)
    with gr.Column(elem_classes="compare", elem_id="compare"):
        if problem:
            gr.Markdown(text.MODELS_MISSING.format(problem=escape(problem)), elem_classes="notice problem")
        return tab.build()


def render(answer: Answer | None, view: View, label: str, pinned: Answer | None = None) -> dict[str, object]:
    """The value of each of `PARTS`; `pinned`: an earlier answer to set beside it."""
    readings = read_answer(answer, view) if answer else {}
    kept = read_answer(pinned, view).get(html.LEADS) if pinned else None
    return {
        "status": html.status(answer),
        "cut": html.what_was_read(answer),
        "lead": html.lead(readings, answer and answer.is_product),
        "chart": _chart(readings, view, kept),
        "sides": html.sides(readings, view, label, answer and answer.is_product, kept),
        "facts": html.facts(answer, readings),
        "latest": _latest(answer, readings, view),
    }


def _chart(readings: dict[str, Reading], view: View, pinned: Reading | None = None) -> go.Figure | None:
    rows = [
        Row(text.NAMES[which], COLOURS[which], r.distribution, r.price_usd, r.wide_usd, r.half_usd)
        for which in html.ORDER
        if (r := readings.get(which))
    ]
    if not rows:
        return None
    places = 2
    if pinned:
        kept = (pinned.distribution, pinned.price_usd, pinned.wide_usd, pinned.half_usd)
        rows.insert(1, Row(words.PINNED, COLOURS[html.LEADS], *kept, dashed=True))
        places = 3
    figure = price_comparison(rows, log_axis=view.log_axis, actual_usd=view.actual_usd, places=places)
    said = [
        words.CHART_ROW.format(
            name=row.name, price=usd(row.price_usd), low=usd(row.wide_usd[0]), high=usd(row.wide_usd[1])
        )
        for row in rows
    ]
    if view.actual_usd:
        said.append(words.ACTUAL_ROW.format(price=usd(view.actual_usd)))
    description = words.CHART_DESCRIPTION.format(rows=". ".join(said))
    return figure.update_layout(meta={"description": description}, uirevision=str(view.log_axis))


def _latest(answer: Answer | None, readings: dict[str, Reading], view: View) -> dict | None:
    """What the page's script needs of a finished answer."""
    if not answer or not answer.done:
        return None
    prior = view.prior.name if view.prior else ""
    lines = html.lines(answer, readings)
    return {
        "lines": lines,
        "text": answer.text,
        "rule": view.rule,
        "prior": prior,
        "actual": view.actual_usd,
    } | {which: reading.price_usd for which, reading in readings.items()}


def _names_the_same(before: Answer | None, product_text: str) -> bool:
    """Whether the prices in a text are those of the answer before: then what was chosen for them stands."""
    named = named_prices(product_text[:NAMED_CHARS]) if isinstance(product_text, str) else []
    return before is not None and {price.usd for price in named} == set(before.named_usd)


class _Tab:
    def __init__(self, predictor: SharedPredictor | None, settings: Settings, limit: RequestLimit):
        self.settings, self.limit, self.predictor = settings, limit, predictor
        self.reader = Reader(predictor) if predictor else None
        self.default = predictor.rule if predictor else DEFAULT_RULE
        self.priors = predictor.priors if predictor else {name: load_prior(name) for name in SHIPPED}
        self.prior = predictor.prior.name if predictor and predictor.prior else SHIPPED[0]
        self.why = Why(predictor, limit)
        self.examples = load_examples()
        self.first: Answer | None = None
        if self.reader and not settings.zero_gpu:  # there a GPU is lent to visitors only
            *_, self.first = self.reader.read(self.examples[0]["text"])  # the page opens with an answer on it

    # Layout ----------------------------------------------------------------------------------------------

    def build(self) -> CompareBox:
        shown = render(self.first, View(self.default, self.priors.get(self.prior)), self.settings.label)
        ready = self.predictor is not None
        product = gr.Textbox(
            value=self.examples[0]["text"] if ready else "",
            label=words.TEXT_LABEL,
            placeholder=words.TEXT_PLACEHOLDER,
            lines=4,
            max_lines=12,
            elem_id="product-text",
        )
        with gr.Row(elem_classes="actions"):
            go_ = gr.Button(words.PREDICT, variant="primary", elem_id="predict", interactive=ready, scale=0)
            gr.HTML(f"<span>{words.PREDICT_HINT}</span>", elem_classes="hint keys")
            gr.HTML(f"<span>{words.EXAMPLES}</span>", elem_classes="hint try")
            chips = [
                gr.Button(
                    e["label"], size="sm", elem_classes="chip", elem_id=f"example-{i}", interactive=ready
                )
                for i, e in enumerate(self.examples)
            ]
        parts: dict[str, gr.components.Component] = {}
        with gr.Row(elem_classes="state"):
            parts["status"] = Actions(shown["status"], elem_id="status")
            gr.HTML(f'<p role="status">{words.STALE}</p>', elem_id="stale")
            parts["cut"] = gr.HTML(shown["cut"], elem_id="cut", elem_classes="hide-when-empty")
        notice = gr.HTML(elem_id="notice", elem_classes="hide-when-empty")
        with gr.Column(elem_id="answer", visible=ready):
            with gr.Row(elem_classes="top"):
                parts["lead"] = gr.HTML(shown["lead"], elem_id="lead")
                with gr.Column(scale=0, min_width=316, elem_classes="knobs"):
                    prior = gr.Radio(
                        [(words.PRIORS.get(name, name), name) for name in self.priors],
                        value=self.prior,
                        label=words.PRIOR_LABEL,
                        elem_id="prior",
                    )
                    actual = gr.Textbox(
                        label=words.ACTUAL_LABEL,
                        placeholder=words.ACTUAL_PLACEHOLDER,
                        max_lines=1,
                        elem_id="actual",
                    )
            parts["chart"] = Chart(shown["chart"], height=CHART_HEIGHT, elem_id="chart-answer")
            parts["sides"] = gr.HTML(shown["sides"], elem_id="sides")
            with gr.Row(elem_classes="tools"):
                self.why.build_button()
                small = {"size": "sm", "scale": 0, "interactive": ready}
                self.pin = gr.Button(words.PIN, elem_id="pin", **small)
                self.copy_text = gr.Button(words.COPY_TEXT, elem_id="copy-text", **small)
                self.copy_link = gr.Button(words.COPY_LINK, elem_id="copy-link", **small)
            self.why.build()
        with gr.Accordion(words.HOW, open=False, elem_classes="fold", elem_id="how", visible=ready):
            gr.HTML(f"<p>{words.RULE_INTRO}</p>", elem_classes="hint")
            rule = gr.Radio(
                [(words.RULES[name][0], name) for name in words.RULES],
                value=self.default,
                label=words.RULE_LABEL,
                info=self.rule_info(self.default),
                elem_id="rule",
            )
            axis = gr.Radio(
                list(text.AXES), value=next(iter(text.AXES)), label=words.AXIS_LABEL, elem_id="axis"
            )
            parts["facts"] = gr.HTML(shown["facts"], elem_id="facts")
            raw = gr.Button(words.RAW_BUTTON, size="sm", elem_id="raw", interactive=ready)
        self.strip, self.tried = (
            Strip([e["typical"] for e in self.examples], elem_id="tried"),
            gr.BrowserState([], **STORAGE),
        )
        parts["latest"] = gr.JSON(shown["latest"], visible="hidden")
        return self.wire(product, go_, chips, notice, parts, actual, rule, prior, axis, raw)

    def rule_info(self, name: str) -> str:
        return words.RULES[name][1] + (words.DEFAULT_RULE if name == self.default else "")

    # Events ----------------------------------------------------------------------------------------------

    def read_view(self, rule: str, prior: str, axis: str, actual: str) -> View:
        """What the controls say; an actual price that is none is left out."""
        try:
            actual_usd = read_usd(actual)
        except InputError:
            actual_usd = None
        return View(rule, self.priors.get(prior), text.AXES[axis], actual_usd)

    def show(self, answer: Answer | None, pinned: Answer | None, *view_values: str) -> list:
        """[notice, *PARTS]: what the page shows of an answer; a bad actual price is said and left out."""
        complaint = ""
        try:
            read_usd(view_values[-1])
        except InputError as error:
            complaint = alert(str(error))
        parts = render(answer, self.read_view(*view_values), self.settings.label, pinned)
        return [complaint, *(parts[name] for name in PARTS)]

    def wire(self, product, go_, chips, notice, parts, actual, rule, prior, axis, raw) -> CompareBox:
        state, pinned, hide = gr.State(self.first), gr.State(None), gr.State(True)
        view_inputs = [rule, prior, axis, actual]
        targets = [notice, *(parts[name] for name in PARTS)]

        def on_predict(
            request: gr.Request,
            product_text: str,
            hide: bool,
            before: Answer | None,
            kept: Answer | None,
            *view_values,
        ):
            """[state, hide, actual, *targets]"""
            answer, (*reading, actual_usd) = before, view_values
            try:
                self.limit.check(request)
                for grown in self.reader.read(
                    product_text, hide or not _names_the_same(before, product_text), still_wanted()
                ):
                    if grown.predictions:
                        answer = grown
                        if actual_usd.strip() in ("", before.named_actual if before else ""):
                            actual_usd = grown.named_actual
                        shown = self.show(answer, kept, *reading, actual_usd)
                        # The box is filled last: it makes the page be shown again.
                        filled = actual_usd if grown.done else gr.skip()
                        yield [answer, grown.hidden or not grown.named_usd, filled, *shown]
                    else:  # the last answer stays, faded, until there is a new one
                        skipped = [gr.skip()] * (len(PARTS) - 2)
                        yield [
                            *[gr.skip()] * 3,
                            "",
                            html.status(grown),
                            html.what_was_read(grown),
                            *skipped,
                        ]
            except InputError as error:
                yield [
                    answer,
                    hide,
                    actual_usd,
                    alert(str(error)),
                    *self.show(answer, kept, *view_values)[1:],
                ]

        def on_raw(request: gr.Request, answer: Answer | None, kept: Answer | None, *view_values):
            if answer:
                try:
                    self.limit.check(request)
                except InputError as error:
                    return [answer, alert(str(error)), *self.show(answer, kept, *view_values)[1:]]
                raw_texts = {which: self.predictor.greedy_text(answer.prompt, which) for which in html.ORDER}
                answer = replace(answer, raw=raw_texts)
            return [answer, *self.show(answer, kept, *view_values)]

        def on_named(act: ActionEvent):
            return act.name != "show"

        def on_again(again: AgainEvent):
            chosen_rule = again.rule if again.rule in words.RULES else self.default
            chosen_prior = again.prior if again.prior in self.priors else self.prior
            return [again.text, again.actual, chosen_rule, chosen_prior]

        def predict_after(event) -> None:
            """Say at once that the request is in line, then predict."""
            emptied, empty = self.why.clear
            asked = event.then(
                lambda: ["", html.busy(words.IN_LINE), *empty],
                None,
                [notice, parts["status"], *emptied],
                **AT_ONCE,
            )
            asked = asked.then(
                on_predict,
                [product, hide, state, pinned, *view_inputs],
                [state, hide, actual, *targets],
                **QUIET,
                **in_line(self.settings),
            )
            # Once more, as the controls stand now, and also when that failed, as where no place was free: then it is the
            # last answer. Gradio says why, and goes on with no `then`.
            again = (lambda *shown: self.show(*shown)[1:], [state, pinned, *view_inputs], targets[1:])
            asked.failure(*again, **AT_ONCE)
            asked = asked.then(*again, **AT_ONCE)
            asked = asked.then(
                None, parts["latest"], None, js="row => window.pricer.answered(row, true)", **AT_ONCE
            )
            remember = f"(row, rows) => {{ rows = window.pricer.remember(row, rows, {MOST_TRIED}); return [rows, rows]; }}"
            asked.then(None, [parts["latest"], self.tried], [self.tried, self.strip], js=remember, **AT_ONCE)

        for chip, example in zip(chips, self.examples, strict=True):
            filled = chip.click(
                lambda example=example: [example["text"], ""], None, [product, actual], **AT_ONCE
            )
            if self.predictor:
                predict_after(filled)
        if self.predictor:
            predict_after(gr.on([go_.click, product.submit], None, None, None, api_visibility="private"))
            predict_after(parts["status"].act(on_named, None, hide, **AT_ONCE))
            predict_after(self.strip.again(on_again, None, [product, actual, rule, prior], **AT_ONCE))
            raw.click(on_raw, [state, pinned, *view_inputs], [state, *targets], **TAKEN_APART)
        copying = ((self.copy_text, "copyText"), (self.copy_link, "copyLink"))
        for button, name in copying:
            button.click(None, parts["latest"], None, js=f"row => window.pricer.{name}(row)", **AT_ONCE)
        self.strip.clear(None, None, [self.tried, self.strip], js="() => [[], []]", **AT_ONCE)

        def on_pin(answer: Answer | None, kept: Answer | None, *view_values):
            kept = None if kept or answer is None or not answer.done else answer
            label = words.UNPIN if kept else words.PIN
            return [kept, gr.update(value=label), *self.show(answer, kept, *view_values)[1:]]

        self.pin.click(on_pin, [state, pinned, *view_inputs], [pinned, self.pin, *targets[1:]], **AT_ONCE)
        self.why.wire(state, view_inputs, self.read_view, AT_ONCE, TAKEN_APART)
        reread = "(row, rows) => { rows = window.pricer.reread(row, rows); return [rows, rows]; }"
        for control in view_inputs:
            changed = control.change(
                self.show, [state, pinned, *view_inputs], targets, trigger_mode="always_last", **AT_ONCE
            )
            kept = [self.tried, self.strip]
            changed.then(None, [parts["latest"], self.tried], kept, js=reread, **AT_ONCE)
        rule.change(lambda name: gr.update(info=self.rule_info(name)), rule, rule, **AT_ONCE)
        return CompareBox(
            product,
            actual,
            predict_after if self.predictor else lambda event: None,
            parts["latest"],
            self.tried,
            self.strip,
        )
