"""The Evaluation tab's two folded boxes: add a run of one's own, and watch both models score a few items.

What is added lives in the visitor's session and nowhere else; uploaded files are deleted once they are read.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from html import escape
from pathlib import Path

import gradio as gr
import pandas as pd

from pricer.arena.arena import Arena
from pricer.arena.live import live_info, score_live
from pricer.arena.own_runs import OWN_INDEX, OwnRuns, add_run, check_room, read_run
from pricer.arena.runs import Run, RunInfo
from pricer.arena.upload import Upload, read_products
from pricer.arena.view import SETS, View
from pricer.arena.yardstick import alone, with_yardstick
from pricer.errors import InputError
from pricer.llama.prediction import default_rule
from pricer.llama.predictor import Predictor
from pricer.price.prior import PricePrior
from pricer.scoring.engine import Task
from pricer.settings import PASSES, Settings
from pricer.ui.actions import ActionEvent, Actions
from pricer.ui.evaluate import text
from pricer.ui.evaluate.html import button, complaint
from pricer.ui.evaluate.item_texts import ItemTexts
from pricer.ui.evaluate.own_html import buttons, chips, line, progress, question
from pricer.ui.guard import BATCH_QUEUE, BATCHES_AT_ONCE, RequestLimit

OWN_PRODUCTS = "csv"  # one of text.LIVE_SOURCES
LIVE_DEFAULT = 20  # items
LOOKUP_SECONDS = 20.0  # that opening the fold waits for texts: less than a proxy waits for an answer
LIVE_AT_ONCE = 2  # visitors; the model itself answers one batch at a time
# What a live run draws anew at each step; all the rest follows at its end.
LIVE_PARTS = ("verdict", "metrics", "active", "title_a", "title_b", "scatter_a", "scatter_b", "hint")

AT_ONCE = {"api_visibility": "private", "show_progress": "hidden", "queue": False}


@dataclass
class LiveControl:
    """A live run as its visitor's buttons see it."""

    stop: threading.Event = field(default_factory=threading.Event)
    running: bool = True


class OwnBox:
    def __init__(
        self,
        predictor: Predictor | None,
        problem: str,
        settings: Settings,
        limit: RequestLimit,
        items: pd.DataFrame,
        texts: ItemTexts,
    ):
        self.limit = limit
        self.predictor, self.problem, self.settings = predictor, problem, settings
        self.items, self.texts, self.limits = items, texts, settings.limits
        # of a visitor's products, as in the Batch tab
        self.most = self.limits.rows_at_once(predictor.pair.device.type) if predictor else 0

    def layout(self) -> None:
        """Two boxes inside the tab's bar."""
        with gr.Accordion(text.OWN_TITLE, open=False, elem_id="own", elem_classes="fold"):
            gr.HTML(text.OWN_HELP, elem_classes="own-help")
            self.file = gr.File(
                label=text.OWN_FILE,
                file_count="multiple",
                file_types=[".csv", ".tsv", ".txt", ".jsonl", ".parquet", ".gz", ".json"],
                height=150,
                elem_id="own-file",
            )
            self.notice = gr.HTML(elem_id="own-notice", elem_classes="hide-when-empty")
        with gr.Accordion(text.LIVE_TITLE, open=False, elem_id="live", elem_classes="fold") as self.live:
            self._layout_live()

    def layout_chips(self) -> None:
        """The visitor's runs, below the bar."""
        self.chips = Actions(elem_id="own-runs")
        self.ask = Actions(elem_id="own-ask")

    def _layout_live(self) -> None:
        if self.predictor is None:
            words = text.LIVE_NO_MODEL.format(problem=escape(self.problem))
            gr.HTML(f'<p class="notice">{words}</p>')
            return
        gr.HTML(f'<p class="hint">{text.LIVE_HELP}</p>')
        with gr.Row():
            self.source = gr.Radio(
                [(words, source) for source, words in text.LIVE_SOURCES.items()],
                value=next(iter(text.LIVE_SOURCES)),
                label=text.LIVE_SOURCE_LABEL,
                elem_id="live-source",
                min_width=240,
            )
            self.count = gr.Slider(
                1,
                self.limits.live_items,
                value=min(LIVE_DEFAULT, self.limits.live_items),
                step=1,
                label=text.LIVE_COUNT,
                elem_id="live-count",
                min_width=240,
            )
        self.why_off = gr.HTML(elem_id="live-why", elem_classes="hide-when-empty")
        self.products = gr.File(
            label=text.LIVE_FILE,
            file_types=[".csv", ".tsv", ".txt", ".jsonl", ".parquet", ".gz"],
            height=150,
            visible=False,
            elem_id="live-file",
        )
        with gr.Row(elem_classes="live-bar"):
            self.start = gr.Button(
                text.LIVE_START, variant="primary", elem_id="live-start", scale=0, min_width=120
            )
            self.stop = gr.Button(
                text.LIVE_STOP, interactive=False, elem_id="live-stop", scale=0, min_width=120
            )
            self.status = gr.HTML(elem_id="live-status", elem_classes="hide-when-empty")

    # Events ----------------------------------------------------------------------------------------------

    def wire(self, session: gr.State, own_runs: gr.State, outputs: list, answer: Callable) -> None:
        """`answer(session, own, step, whole=…, only=…)` makes the updates for `outputs`."""
        control = gr.State(None)
        changed = [own_runs, self.chips, self.ask, self.notice, *outputs]
        nothing = [gr.skip()] * len(outputs)

        def on_upload(
            request: gr.Request, paths: list[str], control: LiveControl | None, session, own: OwnRuns
        ):
            try:
                self.limit.check(request)
                _check_idle(control)
                own, name = read_run(paths, own, self.items, self.texts.found, self.limits)
            except InputError as error:
                return [None, gr.skip(), gr.skip(), "", complaint(error), *nothing]
            finally:
                _delete(paths)
            return [None, *joined(session, own, name)]

        def joined(session, own: OwnRuns, name: str) -> list:
            """Updates for `changed` once the run `name` is among the visitor's."""
            asked = self._question(own, name)
            own = with_yardstick(own, name)
            shown = answer(
                session, own, lambda arena, view: look_at(arena, view, name), whole=True, item_set=SETS[0]
            )
            return [own, chips(own), asked, "", *shown]

        def take(
            event: Callable,
            inputs: list,
            make: Callable[..., list[tuple[pd.DataFrame, str, RunInfo | None]]],
            tabs: gr.Tabs,
        ) -> None:
            def on_take(control: LiveControl | None, session, own: OwnRuns, *values):
                try:
                    _check_idle(control)
                    for table, title, given in make(*values):
                        check_room(own, self.limits)
                        own, name = add_run(table, title, own, self.items, self.texts.found, given)
                except InputError as error:
                    said = [gr.skip(), gr.skip(), gr.skip(), complaint(error), *nothing]
                    return [gr.update(selected="evaluation"), *said]
                return [gr.update(selected="evaluation"), *joined(session, own, name)]

            event(on_take, [control, session, own_runs, *inputs], [tabs, *changed], **AT_ONCE)

        self.take = take

        def on_remove(control: LiveControl | None, session, own: OwnRuns, act: ActionEvent):
            if act.name != "remove-run" or act.value not in own.runs:
                return [gr.skip()] * len(changed)
            try:
                _check_idle(control)
            except InputError as error:
                return [gr.skip(), gr.skip(), gr.skip(), complaint(error), *nothing]
            own = own.without(act.value)
            return [own, chips(own), "", "", *answer(session, own, lambda arena, view: view, whole=True)]

        self.file.upload(on_upload, [self.file, control, session, own_runs], [self.file, *changed], **AT_ONCE)
        self.chips.act(on_remove, [control, session, own_runs], changed, **AT_ONCE)
        if self.predictor is not None:
            self._wire_live(control, session, own_runs, outputs, answer)

    def _wire_live(
        self, control: gr.State, session: gr.State, own_runs: gr.State, outputs: list, answer: Callable
    ) -> None:
        products = gr.State(None)  # Upload: the visitor's own, read and checked
        controls = [self.status, self.start, self.stop]
        same = [gr.skip()] * (len(outputs) + 2)

        def on_products(request: gr.Request, path: str):
            try:
                self.limit.check(request)
                upload = read_products(path, self.limits)
            except InputError as error:
                return None, None, complaint(error)
            finally:
                _delete([path])
            words = text.LIVE_PRODUCTS.format(rows=len(upload.table), title=escape(upload.title))
            return None, upload, line(words)

        def on_start():
            return [LiveControl(), *buttons(line(text.LIVE_WAITING), running=True)]

        def on_live(
            request: gr.Request, control: LiveControl, session, own: OwnRuns, source: str, count: int, given
        ):
            def todo(own: OwnRuns) -> tuple[OwnRuns, pd.DataFrame]:
                return self._todo(own, source, int(count), given)

            for status, running, *rest in score(request, control, session, own, todo, look_at_pair):
                yield [*buttons(status, running=running), *rest]

        def on_score_own(request: gr.Request, control: LiveControl | None, session, own: OwnRuns, name: str):
            if name not in own.runs:
                yield [gr.skip()] * (len(outputs) + 3)
                return

            def todo(own: OwnRuns) -> tuple[OwnRuns, pd.DataFrame]:
                return own, self._own_todo(own, name)

            def look(base: str, tuned: str) -> Callable[[Arena, View], View]:
                return look_at_pair(tuned, name)

            for status, running, *rest in score(request, control, session, own, todo, look):
                stop = f'<div class="chips">{button(text.LIVE_STOP, "stop-own")}</div>' if running else ""
                yield [status + stop, *rest]

        def score(
            request: gr.Request,
            control: LiveControl,
            session,
            own: OwnRuns,
            todo: Callable[[OwnRuns], tuple[OwnRuns, pd.DataFrame]],
            look: Callable[[str, str], Callable[[Arena, View], View]],
        ):
            """(status, whether it goes on, own runs, chips, *updates) as both models answer for what `todo` gives."""
            words = line(text.LIVE_NOTHING)
            try:
                self.limit.check(request)
                own, items = todo(own)
                # A visitor's products are a shop's; the test items are the benchmark's.
                ours = (items["index"] >= OWN_INDEX).any() or not self.predictor.prior
                prior = self.predictor.prior if ours else self.predictor.prior_named("benchmark")
                task = Task(self.settings, PASSES, default_rule(self.predictor.pair.adapter, prior))
                infos = self._infos(own, task, prior)
                step = look(*[infos[which].name for which in PASSES])
                parts = {"whole": True, "item_set": SETS[0]}
                for now in score_live(self.predictor, items, task, prior=prior, stop=control.stop):
                    own = own.with_runs(*[Run(infos[which], now.tables[which]) for which in PASSES])
                    shown = answer(session, own, step, **parts)
                    session = shown[0]
                    yield [progress(now), True, own, gr.skip(), *shown]
                    step, parts = (lambda arena, view: view), {"only": LIVE_PARTS}
                    done = text.LIVE_STOPPED if now.done < now.total else text.LIVE_DONE
                    words = line(done.format(done=now.done, total=now.total))
            except InputError as error:
                control.running = False
                yield [complaint(error), False, *same]
                return
            finally:
                control.running = False
            own = own.pruned()
            shown = answer(session, own, lambda arena, view: view, whole=True) if own else same[2:]
            yield [words, False, own, chips(own), *shown]

        def on_ask(control: LiveControl | None, own: OwnRuns, act: ActionEvent):
            """[control, name of the run whose products are to be scored, question]"""
            if act.name == "stop-own" and control:
                control.stop.set()
                return gr.skip(), "", line(text.LIVE_STOPPING)
            if act.name != "score-own" or act.value not in own.runs:
                return gr.skip(), "", ""
            try:
                _check_idle(control)
            except InputError as error:
                return gr.skip(), "", complaint(error)
            return LiveControl(), act.value, line(text.LIVE_WAITING)

        def on_stop(control: LiveControl | None):
            if control is None or not control.running:
                return gr.skip(), gr.skip()
            control.stop.set()
            return line(text.LIVE_STOPPING), gr.update(interactive=False)

        def on_failure(control: LiveControl | None):
            if control:
                control.running = False
            return complaint(text.LIVE_FAILED)

        def on_source(source: str):
            return gr.update(visible=source == OWN_PRODUCTS)

        async def on_open():
            """A source that cannot work is off, with the reason, as soon as that is known."""
            if not await self.texts.looked_up(LOOKUP_SECONDS) or self.texts.found is not None:
                return gr.skip(), gr.skip(), ""
            only = [(text.LIVE_SOURCES[OWN_PRODUCTS], OWN_PRODUCTS)]
            return (
                gr.update(choices=only, value=OWN_PRODUCTS),
                gr.update(visible=True),
                line(text.LIVE_NO_TEXTS),
            )

        self.live.expand(on_open, None, [self.source, self.products, self.why_off], **AT_ONCE)
        self.source.change(on_source, self.source, self.products, **AT_ONCE)
        self.products.upload(on_products, self.products, [self.products, products, self.status], **AT_ONCE)
        begun = self.start.click(on_start, None, [control, *controls], **AT_ONCE)
        ran = begun.then(
            on_live,
            [control, session, own_runs, self.source, self.count, products],
            [*controls, own_runs, self.chips, *outputs],
            api_visibility="private",
            show_progress="hidden",
            concurrency_id="live",
            concurrency_limit=LIVE_AT_ONCE,
        )
        ran.failure(lambda now: buttons(on_failure(now), running=False), control, controls, **AT_ONCE)
        wanted = gr.State("")
        asked = self.ask.act(on_ask, [control, own_runs], [control, wanted, self.ask], **AT_ONCE)
        scored = asked.then(
            on_score_own,
            [control, session, own_runs, wanted],
            [self.ask, own_runs, self.chips, *outputs],
            api_visibility="private",
            show_progress="hidden",
            concurrency_id=BATCH_QUEUE,
            concurrency_limit=BATCHES_AT_ONCE,
        )
        scored.failure(on_failure, control, self.ask, **AT_ONCE)
        self.stop.click(on_stop, control, [self.status, self.stop], **AT_ONCE)

    def _todo(
        self, own: OwnRuns, source: str, count: int, given: Upload | None
    ) -> tuple[OwnRuns, pd.DataFrame]:
        """What to score (index, text, price_usd), and `own` with room for it. Raises InputError."""
        if len(own.runs) + len(PASSES) > self.limits.own_runs:
            raise InputError(text.LIVE_NO_ROOM.format(most=self.limits.own_runs))
        count = min(max(count, 1), self.limits.live_items)
        waiting, texts = self.texts.waiting, self.texts.found
        if source == OWN_PRODUCTS:
            if given is None:
                raise InputError(text.LIVE_NO_FILE)
            products = given.table.head(count)
            own, index = own.place(products, self.items, texts)
            return own, products.assign(index=index)
        if texts is None:
            raise InputError(text.LIVE_TEXTS_WAITING if waiting else text.LIVE_NO_TEXTS)
        known = self.items[self.items["index"].isin(texts.index)]
        chosen = known.sample(min(count, len(known)))
        return own, chosen.assign(text=chosen["index"].map(texts))

    def _question(self, own: OwnRuns, name: str) -> str:
        """Whether both models shall price the products that only this run has; nothing where they cannot."""
        items = alone(own, name)
        if items.empty or self.predictor is None:
            return ""
        return question(own.runs[name].info.label, len(items), self.most, name)

    def _own_todo(self, own: OwnRuns, name: str) -> pd.DataFrame:
        """The products of an own run for both models (index, text, price_usd). Raises InputError where two more runs
        have no room."""
        if len(own.runs) + len(PASSES) > self.limits.own_runs:
            raise InputError(text.LIVE_NO_ROOM.format(most=self.limits.own_runs))
        mine = own.items[own.items["index"].isin(own.runs[name].table["index"])].head(self.most)
        return mine.assign(text=mine["index"].map(own.texts))

    def _infos(self, own: OwnRuns, task: Task, prior: PricePrior | None) -> dict[str, RunInfo]:
        """What the task's runs will be called, and how they are made."""
        infos = {}
        for which in task.passes:
            label = text.LIVE_LABEL.format(label=self.settings.label, name=text.NAMES[which].lower())
            infos[which] = live_info(
                self.settings,
                which,
                name=own.free_name(f"live-{which}"),
                label=own.free_label(label),
                rule=task.rule,
                prior=prior.name if prior else None,
            )
        return infos


# Steps from a view to the next ---------------------------------------------------------------------------


def look_at(arena: Arena, view: View, name: str) -> View:
    """All items of the run `name` as B, against A if that has any of them, else against the run that has most."""
    shared = {other: len(arena.pair(other, name)) for other in arena.runs if other != name}
    best = max(shared, key=shared.get, default=name)
    run_a = view.run_a if shared.get(view.run_a) else best if shared.get(best) else name
    return replace(view.reset(), run_a=run_a, run_b=name, item=None)


def look_at_pair(run_a: str, run_b: str) -> Callable[[Arena, View], View]:
    return lambda arena, view: replace(view.reset(), run_a=run_a, run_b=run_b, item=None)


def _check_idle(control: LiveControl | None) -> None:
    if control and control.running:
        raise InputError(text.LIVE_RUNNING)


def _delete(paths: Sequence[str]) -> None:
    for path in paths:
        Path(path).unlink(missing_ok=True)
