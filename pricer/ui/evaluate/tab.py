"""The Evaluation tab: two runs head to head, and everything else linked to them.

All that a visitor sees follows from one `View`. A control is a step from a view to the next; `render` turns
the new view into updates for the parts that changed. Runs that a visitor adds live in `own_runs`, a
`gr.State` with an `OwnRuns`, and join the shipped ones for this visitor alone.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from html import escape
from typing import Any

import gradio as gr

from pricer.arena.arena import Arena
from pricer.arena.export import view_csv
from pricer.arena.metrics import OUTCOMES
from pricer.arena.own_runs import OwnRuns
from pricer.arena.runs import load_items, load_runs
from pricer.arena.view import PANELS, View, is_link
from pricer.errors import InputError
from pricer.llama.predictor import Predictor
from pricer.settings import Settings
from pricer.ui.actions import ActionEvent, Actions
from pricer.ui.chart import Chart, ChartEvent
from pricer.ui.compare.tab import CompareBox
from pricer.ui.download import Download
from pricer.ui.evaluate import html, text
from pricer.ui.evaluate.item_texts import ItemTexts, SessionTexts
from pricer.ui.evaluate.own import OwnBox
from pricer.ui.evaluate.render import PARTS, complaint, render, run_choices
from pricer.ui.evaluate.steps import (
    known_run,
    look_at_group,
    open_mark,
    open_row,
    read_usd,
    select,
    step,
)
from pricer.ui.guard import RequestLimit

SCATTER_HEIGHT = 400  # pixels
STRIP_HEIGHT = 220
PANEL_HEIGHT = 380
SESSIONS_KEPT = 8  # arenas with a visitor's own runs; another one is made again in a few milliseconds

Step = Callable[[Arena, View], View]

AT_ONCE = {"api_visibility": "private", "show_progress": "hidden", "queue": False}


# The tab -------------------------------------------------------------------------------------------------


class Session:
    """What one visitor looks at; `view` is None until the tab is opened.

    Events overlap: a box loses the focus, and so sends its value, as a button is pressed. Under the lock each
    starts from what the one before has made.
    """

    def __init__(self):
        self.view: View | None = None
        self.lock = threading.Lock()


@dataclass(frozen=True)
class EvaluateTab:
    """What the page needs of this one. `link`, called in the Blocks, opens the view that the page's address asks for."""

    link: Callable[[gr.Blocks], None]


def build_evaluate(
    tab: gr.Tab,
    tabs: gr.Tabs,
    settings: Settings,
    box: CompareBox,
    limit: RequestLimit,
    predictor: Predictor | None = None,
    problem: str = "",
) -> EvaluateTab | None:
    """Lay out the tab inside the current `gr.Tab`. Without runs it says so instead."""
    try:
        shipped = Arena(load_runs(), load_items())
        shipped.first_view()
    except InputError as error:
        gr.Markdown(text.RUNS_MISSING.format(problem=escape(str(error))), elem_classes="notice problem")
        return None
    tab_ = _Tab(shipped, settings)
    own = OwnBox(predictor, problem, settings, limit, shipped.items, tab_.texts)
    return tab_.build(tab, tabs, box, own)


class _Tab:
    def __init__(self, shipped: Arena, settings: Settings):
        self.shipped = shipped
        self.texts = ItemTexts(settings.test_items, shipped.items)
        self._sessions: OrderedDict[tuple[int, ...], Arena] = OrderedDict()
        self._first: list | None = None  # the first view's parts: every visitor begins with them
        threading.Thread(target=self._make_first, name="first view", daemon=True).start()

    def _make_first(self) -> None:
        self._first = render(self.shipped, self.shipped.first_view(), self.texts)

    def render(
        self, own: OwnRuns, arena: Arena, view: View, before: View | None, only: Collection[str] = ()
    ) -> list:
        if (
            before is None
            and not only
            and self._first
            and arena is self.shipped
            and view == arena.first_view()
        ):
            return self._first
        return render(arena, view, SessionTexts(self.texts, own.texts), before, only)

    def arena(self, own_runs: OwnRuns) -> Arena:
        """The shipped runs and a visitor's own. Kept by identity; the arena holds the runs, so ids stay theirs."""
        if not own_runs:
            return self.shipped
        key = tuple(id(run) for run in own_runs.runs.values())
        if key not in self._sessions:
            self._sessions[key] = self.shipped.with_runs(own_runs.runs, own_runs.items)
            while len(self._sessions) > SESSIONS_KEPT:
                self._sessions.popitem(last=False)
        return self._sessions[key]

    # Layout ----------------------------------------------------------------------------------------------

    def build(self, tab: gr.Tab, tabs: gr.Tabs, box: CompareBox, own: OwnBox) -> EvaluateTab:
        parts: dict[str, gr.components.Component | gr.blocks.BlockContext] = {}
        with gr.Column(elem_classes="evaluate"):
            self._head_to_head(parts)
            self._narrowing(parts)
            own.layout()
            self._scatter(parts)
            self._detail(parts)
            self._panels(parts)
            saved = Download()
        session, own_runs = gr.State(None), gr.State(OwnRuns())
        outputs = [session, parts["notice"], *[parts[name] for name in PARTS]]
        self._wire(parts, session, own_runs, outputs, tab)
        self._send_to_compare(parts["detail_foot"], session, own_runs, tabs, box)
        self._export(parts["active"], session, own_runs, saved)
        own.wire(session, own_runs, outputs, self.answer)
        return EvaluateTab(lambda demo: self._link(demo, tabs, outputs))

    def answer(
        self,
        session: Session | None,
        own_runs: OwnRuns,
        make: Step,
        *,
        again: bool = False,
        whole: bool = False,
        only: Collection[str] = (),
    ) -> list:
        """Updates for [session, notice, *PARTS] after a step; a bad value is said and changes nothing.

        `again`: a step to where the visitor is shows the open item anew, for its text may have come
        meanwhile. `whole`: make every part, as the runs themselves have changed; `only`: make just these parts.
        """
        arena = self.arena(own_runs)
        session = session or Session()
        with session.lock:
            before = session.view
            now, said = before or arena.first_view(), ""
            if not {now.run_a, now.run_b} <= set(arena.runs):  # an own run was taken away
                now = replace(now, run_a=arena.first_view().run_a, run_b=arena.first_view().run_b)
            try:
                now = make(arena, now)
            except InputError as error:
                said = complaint([str(error)])
            if again and now == before:
                before = before.without("item")
            session.view = now
            if now == before and not said and not whole and not only:
                return [gr.skip()] * (len(PARTS) + 2)
            shown = self.render(own_runs, arena, now, None if whole or only else before, only)
            return [session, said, *shown]

    def _head_to_head(self, parts: dict) -> None:
        with gr.Row(elem_classes="pickers"):
            for end in ("a", "b"):
                parts[f"run_{end}"] = gr.Dropdown(
                    run_choices(self.shipped),
                    value=getattr(self.shipped.first_view(), f"run_{end}"),
                    label=text.RUN_LABELS[end],
                    elem_id=f"run-{end}",
                    elem_classes=f"picker-{end}",
                    min_width=280,
                )
        parts["pairs"] = Actions(elem_id="pairs")
        parts["notice"] = gr.HTML(elem_id="evaluate-notice", elem_classes="hide-when-empty")
        parts["verdict"] = gr.HTML(elem_id="head-to-head")
        parts["metrics"] = gr.HTML(elem_id="metrics")

    def _narrowing(self, parts: dict) -> None:
        parts["presets"] = Actions(elem_id="presets")
        with gr.Accordion(text.FILTERS, open=False, elem_id="filters"):
            with gr.Row():
                parts["categories"] = gr.Dropdown(
                    [(name.replace("_", " "), name) for name in self.shipped.categories],
                    label=text.CATEGORY_LABEL,
                    multiselect=True,
                    elem_id="filter-categories",
                    scale=2,
                    min_width=240,
                )
                for name, label in (
                    ("low_usd", text.LOW_LABEL),
                    ("high_usd", text.HIGH_LABEL),
                    ("apart_usd", text.APART_LABEL),
                ):
                    parts[name] = gr.Number(
                        None, label=label, minimum=0, elem_id=f"filter-{name}", min_width=140
                    )
            with gr.Row():
                for end in ("a", "b"):
                    parts[f"outcomes_{end}"] = gr.CheckboxGroup(
                        list(OUTCOMES),
                        label=text.OUTCOME_LABELS[end],
                        elem_id=f"filter-outcomes-{end}",
                        min_width=240,
                    )
        parts["active"] = Actions(elem_id="active")

    def _scatter(self, parts: dict) -> None:
        with gr.Row(elem_classes="scatter-bar"):
            gr.HTML(html.legend())
            parts["log_axis"] = gr.Radio(
                list(text.AXES),
                value=next(iter(text.AXES)),
                label=text.AXIS_LABEL,
                show_label=False,
                container=False,
                elem_id="evaluate-axis",
            )
        with gr.Row(elem_classes="scatters"):
            for end in ("a", "b"):
                with gr.Column(min_width=300, elem_classes="scatter"):
                    parts[f"title_{end}"] = gr.HTML()
                    parts[f"scatter_{end}"] = Chart(
                        height=SCATTER_HEIGHT, empty=text.NO_FIGURE, elem_id=f"scatter-{end}"
                    )
        parts["hint"] = gr.HTML()

    def _detail(self, parts: dict) -> None:
        with gr.Column(visible=False, elem_classes="detail", elem_id="detail") as parts["detail"]:
            parts["detail_head"] = Actions(elem_id="detail-head")
            parts["strip"] = Chart(height=STRIP_HEIGHT, empty=text.STRIP_EMPTY, elem_id="strip")
            parts["detail_foot"] = Actions(elem_id="detail-foot")

    def _panels(self, parts: dict) -> None:
        def note(panel: str) -> None:
            gr.HTML(f'<p class="hint">{text.PANEL_NOTES[panel]}</p>')

        def chart(name: str, height: int = PANEL_HEIGHT, empty: str = text.NO_FIGURE) -> None:
            parts[name] = Chart(height=height, empty=empty, elem_id=f"chart-{name}")

        self.panel_tabs: dict[str, gr.Tab] = {}
        with gr.Tabs(elem_id="panels", elem_classes="panels") as parts["panels"]:
            for panel in PANELS:
                with gr.Tab(text.PANELS[panel], id=panel) as self.panel_tabs[panel]:
                    if panel == "board":
                        parts["board"] = Actions(elem_id="board")
                    elif panel == "items":
                        parts["items_note"] = gr.HTML()
                        parts["items"] = gr.Dataframe(
                            interactive=False,
                            show_search="search",
                            max_height=420,
                            buttons=["fullscreen"],
                            datatype=["number", "str", *["number"] * 5, "str", "str"],
                            column_widths=["64px", "196px", *["124px"] * 5, "88px", "88px"],
                            elem_id="items",
                        )
                    else:
                        note(panel)
                        with gr.Row():
                            if panel == "spread":
                                for name in ("spread", "share"):
                                    with gr.Column(min_width=300):
                                        chart(name)
                            elif panel == "groups":
                                for name, title in (
                                    ("by_price", text.TITLE_PRICE),
                                    ("by_category", text.TITLE_CATEGORY),
                                ):
                                    with gr.Column(min_width=300):
                                        gr.HTML(f"<h4>{title}</h4>")
                                        chart(name)
                            else:
                                empty = text.COVERAGE_EMPTY if panel == "coverage" else text.NO_FIGURE
                                chart(panel, empty=empty)

    # Events ----------------------------------------------------------------------------------------------

    def _wire(self, parts: dict, session: gr.State, own_runs: gr.State, outputs: list, tab: gr.Tab) -> None:
        def on(event: Callable, make: Callable[..., View], *inputs, **options) -> gr.events.Dependency:
            """On the event, take the step `make(arena, view, *input values)`."""

            def handle(session: Session | None, own: OwnRuns, *values):
                return self.answer(session, own, lambda arena, view: make(arena, view, *values))

            return event(handle, [session, own_runs, *inputs], outputs, **(AT_ONCE | options))

        def on_event(event: Callable, kind: type, make: Callable, *, again: bool = False) -> None:
            """The same for an event that itself says what was pressed or selected."""

            def handle(session: Session | None, own: OwnRuns, said):
                return self.answer(session, own, lambda arena, view: make(arena, view, said), again=again)

            handle.__annotations__["said"] = kind  # by which Gradio knows what to hand over
            event(handle, [session, own_runs], outputs, **AT_ONCE)

        def on_value(event: Callable, name: str, read: Callable[[Arena, Any], Any]) -> None:
            """The field `name` of the view is what `read(arena, value)` makes of the part's value."""

            def make(arena: Arena, view: View, value: Any) -> View:
                return replace(view, **{name: read(arena, value)})

            on(event, make, parts[name], trigger_mode="always_last")

        opened = on(tab.select, lambda arena, view: view)
        opened.then(self.texts.start, None, None, **AT_ONCE)
        for panel, panel_tab in self.panel_tabs.items():

            def on_panel(session: Session | None, own: OwnRuns, panel=panel):
                if session is None:  # the first panel says that it is selected as the tab is laid out
                    return [gr.skip()] * len(outputs)
                return self.answer(session, own, lambda arena, view: replace(view, panel=panel))

            panel_tab.select(on_panel, [session, own_runs], outputs, **AT_ONCE)

        for name in ("run_a", "run_b"):
            on_value(parts[name].input, name, known_run)
        for name in ("categories", "outcomes_a", "outcomes_b"):
            on_value(parts[name].input, name, lambda arena, value: tuple(sorted(value or ())))
        for name, default in (("low_usd", None), ("high_usd", None), ("apart_usd", 0.0)):
            for event in (parts[name].submit, parts[name].blur):
                on_value(event, name, lambda arena, value, default=default: read_usd(value) or default)
        on_value(parts["log_axis"].input, "log_axis", lambda arena, value: text.AXES[value])

        for name in ("pairs", "presets", "active", "board", "detail_head"):
            on_event(
                parts[name].act, ActionEvent, lambda arena, view, act: step(arena, view, act.name, act.value)
            )
        for name in ("scatter_a", "scatter_b", "pair"):
            on_event(parts[name].click, ChartEvent, open_mark, again=True)
            on_event(parts[name].select, ChartEvent, select)
            on_event(parts[name].deselect, ChartEvent, lambda arena, view, event: view.without("selection"))
        for name in ("by_price", "by_category"):
            on_event(parts[name].click, ChartEvent, look_at_group)
        on_event(parts["items"].select, gr.SelectData, open_row, again=True)

    def _send_to_compare(
        self, foot: Actions, session: gr.State, own_runs: gr.State, tabs: gr.Tabs, box: CompareBox
    ) -> None:
        def on_send(session: Session | None, own: OwnRuns, act: ActionEvent):
            view = session.view if session else None
            texts = SessionTexts(self.texts, own.texts)
            item_text = texts.get(view.item) if view and view.item is not None else None
            if act.name != "send" or item_text is None:
                return gr.skip(), gr.skip(), gr.skip()
            price_usd = self.arena(own).item(view.item).price_usd
            return gr.update(selected="compare"), item_text, f"{price_usd:.2f}"

        sent = foot.act(on_send, [session, own_runs], [tabs, box.product, box.actual], **AT_ONCE)
        box.predict_after(sent)

    def _export(self, active: Actions, session: gr.State, own_runs: gr.State, saved: Download) -> None:
        def on_export(session: Session | None, own: OwnRuns, act: ActionEvent):
            if act.name != "export" or session is None or session.view is None:
                return gr.skip()
            view = session.view
            table = view_csv(self.arena(own), view, own.texts)
            return Download.file(f"pricer-{view.run_a}-{view.run_b}.csv", table)

        active.act(on_export, [session, own_runs], saved, **AT_ONCE)

    def _link(self, demo: gr.Blocks, tabs: gr.Tabs, outputs: list) -> None:
        def on_load(request: gr.Request):
            query = str(request.query_params)
            if not is_link(query):
                return [gr.skip()] * (len(outputs) + 1)
            arena, session = self.shipped, Session()
            session.view, complaints = arena.first_view().from_query(
                query, runs=arena.runs, categories=arena.categories
            )
            if session.view.item not in arena.known_indexes:
                session.view = replace(session.view, item=None)
            shown = render(arena, session.view, self.texts)
            return [gr.update(selected="evaluation"), session, complaint(complaints), *shown]

        demo.load(on_load, None, [tabs, *outputs], **AT_ONCE)
