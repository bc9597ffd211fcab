"""The Compare tab: one product text, two cards side by side."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from html import escape

import gradio as gr

from pricer.arena.metrics import outcome
from pricer.errors import InputError, PricerError
from pricer.figures import distribution_height, price_distribution
from pricer.llama.prediction import Prediction
from pricer.llama.predictor import Predictor
from pricer.price.distribution import DEFAULT_RULE, INTERVAL_LEVEL
from pricer.prompt import Prompt
from pricer.settings import ASSETS, PASSES, Settings
from pricer.tables.cells import read_price
from pricer.ui import text
from pricer.ui.chart import Chart
from pricer.ui.guard import MODEL_QUEUE, RequestLimit

CHART_HEIGHT = 190  # pixels


@dataclass(frozen=True)
class Answer:
    """What the page shows: the prompt, and as far as they are done both predictions and raw texts."""

    prompt: Prompt
    given_chars: int
    predictions: dict[str, Prediction] = field(default_factory=dict)
    raw: dict[str, str] = field(default_factory=dict)

    def with_prediction(self, which: str, prediction: Prediction) -> Answer:
        return replace(self, predictions=self.predictions | {which: prediction})


@dataclass(frozen=True)
class View:
    """How an answer is read: the point rule, the axis, the actual price if the visitor knows it."""

    rule: str = DEFAULT_RULE
    log_axis: bool = True
    actual_usd: float | None = None


@dataclass(frozen=True)
class CompareBox:
    """Where other tabs may put a text, and `predict_after(event)`, which then asks both models."""

    product: gr.Textbox
    actual: gr.Textbox
    predict_after: Callable


def load_examples() -> list[dict[str, str]]:
    return json.loads((ASSETS / "examples.json").read_text(encoding="utf-8"))


def predict_all(predictor: Predictor, product_text: str) -> Iterator[Answer]:
    """The answer as it grows: without predictions, with the base's, with both."""
    answer = Answer(predictor.prepare(product_text), len(product_text.strip()))
    yield answer
    for which, prediction in predictor.both_passes(answer.prompt):
        answer = answer.with_prediction(which, prediction)
        yield answer


def build_compare(
    predictor: Predictor | None, problem: str, settings: Settings, limit: RequestLimit
) -> CompareBox:
    """Lay out the tab inside the current Blocks. Without a predictor it shows the problem instead."""
    examples = load_examples()
    first, default = None, _default_rule(predictor)
    if predictor and not settings.zero_gpu:  # there a GPU is lent to visitors only
        *_, first = predict_all(predictor, examples[0]["text"])  # the page opens with an answer on it
    shown = dict(zip(_OUTPUTS, render(first, View(default), settings.label), strict=True))

    with gr.Column(elem_classes="compare"):
        if problem:
            gr.Markdown(text.MODELS_MISSING.format(problem=escape(problem)), elem_classes="notice problem")
        product = gr.Textbox(
            value=examples[0]["text"] if predictor else "",
            label=text.TEXT_LABEL,
            placeholder=text.TEXT_PLACEHOLDER,
            lines=5,
            max_lines=14,
            elem_id="product-text",
        )
        with gr.Row(elem_classes="actions", equal_height=True):
            go = gr.Button(
                text.PREDICT, variant="primary", elem_id="predict", interactive=predictor is not None, scale=0
            )
            gr.Markdown(text.PREDICT_HINT, elem_classes="hint")
        with gr.Row(elem_classes="examples"):
            gr.HTML(f"<span>{text.EXAMPLES}</span>", elem_classes="hint")
            chips = [gr.Button(e["label"], size="sm", elem_classes="chip") for e in examples]
        notice = gr.HTML(elem_id="notice", elem_classes="hide-when-empty")

        outputs: dict[str, gr.components.Component] = {}
        with gr.Row(elem_classes="cards", equal_height=True):
            for which in PASSES:
                with gr.Column(elem_classes=["card", which], min_width=280):
                    outputs[f"head_{which}"] = gr.HTML(shown[f"head_{which}"], elem_id=f"head-{which}")
                    figure = shown[f"chart_{which}"]
                    outputs[f"chart_{which}"] = Chart(figure, height=CHART_HEIGHT, elem_id=f"chart-{which}")
                    outputs[f"foot_{which}"] = gr.HTML(shown[f"foot_{which}"], elem_id=f"foot-{which}")
        outputs["verdict"] = gr.Markdown(shown["verdict"], elem_id="verdict")
        outputs["cut"] = gr.HTML(shown["cut"], elem_id="cut", elem_classes="hide-when-empty")

        with gr.Row(elem_classes="reading"):
            actual = gr.Textbox(
                label=text.ACTUAL_LABEL,
                placeholder=text.ACTUAL_PLACEHOLDER,
                max_lines=1,
                elem_id="actual",
                min_width=200,
            )
            rule = gr.Radio(
                [(text.RULES[name][0], name) for name in text.RULES],
                value=default,
                label=text.RULE_LABEL,
                info=_rule_info(default, default),
                elem_id="rule",
                scale=3,
            )
            axis = gr.Radio(
                list(text.AXES),
                value=next(iter(text.AXES)),
                label=text.AXIS_LABEL,
                elem_id="axis",
                min_width=200,
            )
        raw = gr.Button(text.RAW_BUTTON, size="sm", elem_id="raw", interactive=predictor is not None)

    state = gr.State(first)
    view_inputs = [rule, axis, actual]
    targets = [outputs[name] for name in _OUTPUTS]
    heads = [outputs[f"head_{which}"] for which in PASSES]
    quiet = {"api_visibility": "private", "show_progress": "hidden"}
    at_once = quiet | {"queue": False}  # answered beside the queue: the model is not needed
    in_line = quiet | {"concurrency_id": MODEL_QUEUE}

    def show(answer: Answer | None, *view_values) -> list:
        """[notice, *targets]: what the page shows of an answer; a bad actual price is said and left out."""
        try:
            view, complaint = read_view(*view_values), ""
        except InputError as error:
            view, complaint = read_view(*view_values[:2], ""), _sentence(error)
        return [complaint, *render(answer, view, settings.label)]

    def on_start():
        return ["", *[_head(which, settings.label, _waiting(text.IN_LINE)) for which in PASSES]]

    def on_predict(request: gr.Request, product_text: str, answer: Answer | None, *view_values):
        try:
            limit.check(request)
            for answer in predict_all(predictor, product_text):
                yield [answer, *show(answer, *view_values)]
        except InputError as error:
            yield [answer, _sentence(error), *show(answer, *view_values)[1:]]

    def on_raw(request: gr.Request, answer: Answer | None, *view_values):
        if answer:
            try:
                limit.check(request)
            except InputError as error:
                return [answer, _sentence(error), *show(answer, *view_values)[1:]]
            raw_texts = {which: predictor.greedy_text(answer.prompt, which) for which in PASSES}
            answer = replace(answer, raw=raw_texts)
        return [answer, *show(answer, *view_values)]

    def on_rule(name: str):
        return gr.update(info=_rule_info(name, default))

    def predict_after(event) -> None:
        """Say at once that the request is in line, then predict; if that fails, show the last answer again."""
        event.then(on_start, None, [notice, *heads], **at_once).then(
            on_predict, [product, state, *view_inputs], [state, notice, *targets], **in_line
        ).failure(lambda *shown: show(*shown)[1:], [state, *view_inputs], targets, **at_once)

    for chip, example in zip(chips, examples, strict=True):
        filled = chip.click(lambda example=example: example["text"], None, product, **at_once)
        if predictor:
            predict_after(filled)
    if predictor:
        predict_after(gr.on([go.click, product.submit], None, None, None, api_visibility="private"))
        raw.click(on_raw, [state, *view_inputs], [state, notice, *targets], **in_line)
    for control in view_inputs:
        control.change(show, [state, *view_inputs], [notice, *targets], trigger_mode="always_last", **at_once)
    rule.change(on_rule, rule, rule, **at_once)
    return CompareBox(product, actual, predict_after if predictor else lambda event: None)


# --- rendering: an answer and a view to what the page's parts show --------------------------------

_OUTPUTS = [f"{part}_{which}" for which in PASSES for part in ("head", "chart", "foot")] + ["verdict", "cut"]


def render(answer: Answer | None, view: View, label: str) -> list:
    """Values of the page's parts, in the order of `_OUTPUTS`."""
    predictions = answer.predictions if answer else {}
    done = [prediction.distribution for prediction in predictions.values()]
    height = distribution_height(done, view.log_axis) if done else 1.0
    parts = []
    for which in PASSES:
        if which in predictions:
            parts += _card(which, predictions[which], answer, view, label, height)
        else:
            waiting = text.EMPTY_CARD
            if answer:
                its_turn = which == "base" or "base" in predictions
                waiting = text.READING[which] if its_turn else text.NEXT
            parts += [_head(which, label, _waiting(waiting)), None, ""]
    verdict = _verdict(predictions, view) if len(predictions) == len(PASSES) else ""
    cut = ""
    if answer and answer.prompt.truncated:
        sentence = text.CUT.format(kept=answer.prompt.kept_chars, given=answer.given_chars)
        cut = f'<p class="notice">{sentence}</p>'
    return [*parts, verdict, cut]


def _card(which: str, prediction: Prediction, answer: Answer, view: View, label: str, height: float) -> list:
    distribution = prediction.distribution
    price = float(distribution.point(view.rule))
    low, high = prediction.interval()
    interval = text.INTERVAL.format(level=INTERVAL_LEVEL)
    body = (
        f'<p class="price">{_usd(price)}</p>'
        f'<p class="interval"><span>{interval}</span> <b>${low:,.0f} to ${high:,.0f}</b> '
        f"{_term(*_calibrated(prediction))}</p>"
    )
    if view.actual_usd:
        body += _outcome(price, view.actual_usd)
    figure = price_distribution(
        distribution,
        which,
        price_usd=price,
        interval_usd=(low, high),
        height=height,
        log_axis=view.log_axis,
        actual_usd=view.actual_usd,
    )
    description = text.CHART_DESCRIPTION.format(name=text.NAMES[which], low=low, high=high)
    figure.update_layout(meta={"description": description}, uirevision=str(view.log_axis))
    foot = (
        f'<p class="facts"><span>{float(distribution.unpriced_mass):.1%} {_term(text.UNPRICED, text.UNPRICED_HELP)}</span>'
        f"<span>{_term(text.SECONDS.format(seconds=prediction.seconds), text.SECONDS_HELP)}</span></p>"
    )
    if which in answer.raw:
        written = escape(answer.raw[which]) or text.RAW_NOTHING
        foot += f'<p class="raw">{_term(text.RAW_LABEL, text.RAW_HELP)} <code>{written}</code></p>'
    return [_head(which, label, body), figure, foot]


def _calibrated(prediction: Prediction) -> tuple[str, str]:
    """Whether the interval was checked against real prices: in short, and what that means."""
    found = prediction.calibration
    if found is None:
        return text.NOT_CALIBRATED, text.NOT_CALIBRATED_HELP.format(level=INTERVAL_LEVEL)
    meaning = text.CALIBRATED_HELP.format(level=INTERVAL_LEVEL, items=found.items)
    if INTERVAL_LEVEL in found.coverage:
        meaning += text.MEASURED.format(coverage=found.coverage[INTERVAL_LEVEL])
    return text.CALIBRATED.format(items=found.items), meaning


def _default_rule(predictor: Predictor | None) -> str:
    return predictor.rule if predictor else DEFAULT_RULE


def _rule_info(name: str, default: str) -> str:
    return text.RULES[name][1] + (text.DEFAULT_RULE if name == default else "")


def _head(which: str, label: str, body: str) -> str:
    subtitle = escape(text.SUBTITLES[which].format(label=label))
    return f'<header><h3>{text.NAMES[which]}</h3><span class="subtitle">{subtitle}</span></header>{body}'


def _waiting(words: str) -> str:
    return f'<p class="waiting">{words}</p>'


def _outcome(guess_usd: float, actual_usd: float) -> str:
    kind = str(outcome([actual_usd], [guess_usd])[0])
    sign, name, meaning = text.OUTCOMES[kind]
    off = abs(guess_usd - actual_usd)
    how_far = text.OFF_BY.format(off=off, share=off / actual_usd)
    return f'<p class="outcome {kind}"><b>{sign} {_term(name, meaning)}</b> {how_far}</p>'


def _verdict(predictions: dict[str, Prediction], view: View) -> str:
    price = {w: float(p.distribution.point(view.rule)) for w, p in predictions.items()}
    width = {w: high - low + 1 for w, p in predictions.items() for low, high in [p.interval()]}
    change = price["tuned"] / price["base"] - 1
    if abs(change) < 0.02:
        sentence = text.SAME.format(tuned=_usd(price["tuned"])).removesuffix(".")
    else:
        sentence = text.DIFFERENCE.format(
            tuned=_usd(price["tuned"]),
            base=_usd(price["base"]),
            percent=abs(change),
            direction="more" if change > 0 else "less",
        )
    factor = width["base"] / width["tuned"]
    if factor > 1.1:
        sentence += text.NARROWER.format(factor=factor)
    elif factor < 1 / 1.1:
        sentence += text.WIDER.format(factor=1 / factor)
    else:
        sentence += text.SAME_WIDTH
    if view.actual_usd:
        off = {which: abs(p - view.actual_usd) for which, p in price.items()}
        gap = abs(off["base"] - off["tuned"])
        winner = text.NAMES["tuned" if off["tuned"] < off["base"] else "base"].lower()
        closer = text.BOTH_CLOSE if gap < 0.005 else text.CLOSER
        sentence += closer.format(actual=_usd(view.actual_usd), winner=f"the {winner} model", gap=_usd(gap))
    return sentence.replace("$", "&#36;")  # a dollar sign would start a formula


def read_view(rule: str, axis: str, actual: str) -> View:
    """What the controls say. Raises InputError when the actual price is no price."""
    if not (actual or "").strip():
        return View(rule, text.AXES[axis])
    try:
        actual_usd = read_price(actual)
    except InputError:
        raise InputError(text.ACTUAL_BAD) from None
    if not 0 < actual_usd < 1e9:
        raise InputError(text.ACTUAL_BAD)
    return View(rule, text.AXES[axis], actual_usd)


def _usd(price: float) -> str:
    return f"${price:,.2f}" if price < 10 else f"${price:,.0f}"


def _term(words: str, meaning: str) -> str:
    """Words that explain themselves on hover and on keyboard focus."""
    return f'<abbr tabindex="0" title="{escape(meaning)}" data-tip="{escape(meaning)}">{words}</abbr>'


def _sentence(error: PricerError) -> str:
    return f'<p class="notice problem" role="alert">{escape(str(error))}</p>'
