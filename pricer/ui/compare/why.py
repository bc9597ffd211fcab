"""Why this price: the text's phrases, coloured by what each adds; streamed as they are left out in turn."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from html import escape

import gradio as gr

from pricer.errors import InputError
from pricer.llama.explain import Phrase, leave_each_out, phrases
from pricer.llama.prediction import Prediction
from pricer.llama.predictor import Predictor
from pricer.ui import text
from pricer.ui.compare import html
from pricer.ui.compare import text as words
from pricer.ui.compare.answer import Answer, View, read_prediction
from pricer.ui.guard import RequestLimit
from pricer.ui.parts import alert, percent

STRONG = 0.5  # of the price: an effect of this share has the full colour
SLIGHT = 0.02  # less is within what an effect may be off by (bench/README.md)


@dataclass(frozen=True)
class Explanation:
    """An answer's phrases and, model by model, the predictions without those that were left out so far."""

    answer: Answer
    phrases: tuple[Phrase, ...]
    found: dict[str, dict[int, Prediction]] = field(default_factory=dict)
    stopped: bool = False  # by its visitor

    def with_found(self, which: str, indices: list[int], predictions: list[Prediction]) -> Explanation:
        more = self.found.get(which, {}) | dict(zip(indices, predictions, strict=True))
        return replace(self, found=self.found | {which: more})

    def effects(self, which: str, view: View) -> dict[int, tuple[float, float]]:
        """For each phrase that was left out: what it adds to the price, in dollars and as a share of the price."""
        price = read_prediction(self.answer.predictions[which], view).price_usd
        added = {
            i: price - read_prediction(one, view).price_usd for i, one in self.found.get(which, {}).items()
        }
        return {i: (usd, usd / price) for i, usd in added.items()}


def explain(predictor: Predictor, answer: Answer):
    """The explanation as it grows, the leading model first. Raises InputError for a text of one phrase."""
    now = Explanation(answer, tuple(phrases(answer.read)))
    if len(now.phrases) < 2:
        raise InputError(words.WHY_ONE_PHRASE)
    yield now
    for which in html.ORDER:
        for indices, predictions in leave_each_out(predictor, answer.prompt, which):
            now = now.with_found(which, indices, predictions)
            yield now


def shown(now: Explanation | None, which: str, view: View) -> str:
    """The text with its phrases coloured, and how far it is, or how far it came."""
    if now is None:
        return ""
    effects, read = now.effects(which, view), now.answer.read
    parts = [_phrase(read[p.start : p.end], effects.get(i)) for i, p in enumerate(now.phrases)]
    done = sum(len(found) for found in now.found.values())
    total = len(html.ORDER) * len(now.phrases)
    head = words.WHY_DONE
    if done < total:
        head = (words.WHY_STOPPED if now.stopped else words.WHY_PROGRESS).format(done=done, total=total)
    return f'<p class="hint" role="status">{head}</p><p class="phrases">{"".join(parts)}</p>'


def _phrase(words_: str, effect: tuple[float, float] | None) -> str:
    bare = words_.rstrip()
    behind = "<br>" if "\n" in words_[len(bare) :] else " "
    if effect is None:
        return f'<span class="phrase open">{escape(bare)}</span>{behind}'
    usd, share = effect
    kind = "none" if abs(share) < SLIGHT else "more" if usd > 0 else "less"
    strength = round(min(abs(share) / STRONG, 1), 2)
    said = words.WHY_EFFECT[kind].format(usd=html.usd_effect(usd), share=percent(abs(share)))
    sign = "" if kind == "none" else f"<small>{'+' if usd > 0 else '−'}{html.usd_effect(usd)}</small>"
    return (
        f'<span class="phrase {kind}" style="--strength: {strength}" tabindex="0" role="button" '
        f'aria-description="{escape(said)}" data-tip="{escape(said)}">{escape(bare)}{sign}</span>{behind}'
    )


class Why:
    """The button and what it opens. `clear`: what an event sets, and to what, when there is a new answer."""

    def __init__(self, predictor: Predictor | None, limit: RequestLimit):
        self.predictor, self.limit = predictor, limit

    def build_button(self) -> None:
        ready = self.predictor is not None
        self.button = gr.Button(words.WHY, size="sm", elem_id="why", interactive=ready, scale=0)

    def build(self) -> None:
        with gr.Row(elem_classes="why-row"):
            self.which = gr.Radio(
                [(text.NAMES[which], which) for which in html.ORDER],
                value=html.LEADS,
                show_label=False,
                container=False,
                elem_id="why-which",
                visible=False,
            )
            self.stop = gr.Button(words.WHY_STOP, size="sm", elem_id="why-stop", visible=False, scale=0)
        self.out = gr.HTML(elem_id="why-out", elem_classes="hide-when-empty")
        self.state = gr.State(None)

    @property
    def clear(self) -> tuple[list, list]:
        return [self.state, self.out, self.which, self.stop], [None, "", *[gr.update(visible=False)] * 2]

    def wire(self, state: gr.State, view_inputs: list, read_view, at_once: dict, in_turn: dict) -> None:
        """`read_view(*values)`: the view that the controls say."""
        if self.predictor is None:
            return
        outputs = [self.state, self.out, self.which, self.stop]

        def on_why(request: gr.Request, answer: Answer | None, which: str, *view_values):
            if answer is None or not answer.done:
                return
            now, view = None, read_view(*view_values)
            try:
                self.limit.check(request)
                for now in explain(self.predictor, answer):
                    yield [now, shown(now, which, view), *[gr.update(visible=True)] * 2]
                yield [now, shown(now, which, view), gr.update(visible=True), gr.update(visible=False)]
            except InputError as error:
                yield [now, alert(str(error)), *[gr.update(visible=False)] * 2]

        def on_view(now: Explanation | None, which: str, *view_values):
            return shown(now, which, read_view(*view_values))

        def on_stop(now: Explanation | None, *of_view):
            now = now and replace(now, stopped=True)
            return [now, on_view(now, *of_view), gr.update(visible=False)]

        asked = self.button.click(on_why, [state, self.which, *view_inputs], outputs, **in_turn)
        viewed = [self.state, self.which, *view_inputs]
        self.stop.click(on_stop, viewed, [self.state, self.out, self.stop], cancels=[asked], **at_once)
        for control in (self.which, *view_inputs):
            control.change(on_view, viewed, self.out, **at_once)
