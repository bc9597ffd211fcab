"""The Evaluation tab: two runs head to head, and everything else linked to them.

All that a visitor sees follows from one `View`, and the page's address says it. A control is a step from a view to
the next; `render` turns the new view into updates for the parts that changed. Runs that a visitor adds live in
`own_runs`, a `gr.State` with an `OwnRuns`, and join the shipped ones for this visitor alone.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr
import pandas as pd

from pricer.arena.arena import Arena
from pricer.arena.export import view_csv
from pricer.arena.own_runs import OwnRuns
from pricer.arena.runs import RunInfo, load_items, load_runs
from pricer.arena.view import EMBEDDED_PAIR, EVERYDAY_PAIR, SETS, View, is_link
from pricer.errors import InputError
from pricer.llama.predictor import Predictor
from pricer.settings import Settings
from pricer.ui.actions import ActionEvent, Actions
from pricer.ui.chart import ChartEvent
from pricer.ui.compare.tab import CompareBox
from pricer.ui.download import Download
from pricer.ui.evaluate import layout, text
from pricer.ui.evaluate.address import Address, AddressEvent
from pricer.ui.evaluate.board import board_csv
from pricer.ui.evaluate.guess import GuessBox
from pricer.ui.evaluate.html import complaint
from pricer.ui.evaluate.item_texts import ItemTexts, SessionTexts
from pricer.ui.evaluate.own import OwnBox
from pricer.ui.evaluate.own_html import chips
from pricer.ui.evaluate.render import PARTS, Place, render
from pricer.ui.evaluate.steps import (
    known_measure,
    known_run,
    look_at_group,
    open_mark,
    open_row,
    read_choices,
    read_usd,
    read_words,
    select,
    settled,
    step,
)
from pricer.ui.guard import RequestLimit

SESSIONS_KEPT = 8  # arenas with a visitor's own runs; another one is made again in a few milliseconds
STEPS_BACK = ("item_set", "run_a", "run_b", "item", "panel")  # what the browser's Back undoes one by one
LABEL_CHARS = 60  # of an own item's text that stand for its name

Step = Callable[[Arena, View], View]

AT_ONCE = {"api_visibility": "private", "show_progress": "hidden", "queue": False}


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
    """What the page needs of this one. `link`, called in the Blocks, opens the view that the page's address asks for.
    `take(event, inputs, make)`: on the event what `make(*input values)` gives, one or several (table, title, info or
    None), joins the visitor's runs, and the last one is looked at; a table is as in `own_runs.add_run`, and an
    InputError is said."""

    link: Callable[[gr.Blocks], None]
    take: Callable[[Callable, list, Callable[..., list[tuple[pd.DataFrame, str, RunInfo | None]]]], None]


def load_arenas() -> tuple[dict[str, Arena], str]:
    """The shipped runs by item set; or none, and the problem."""
    try:
        arenas = {name: Arena(runs, load_items(item_set=name)) for name, runs in load_runs().items()}
        arenas[SETS[0]].first_view()
    except InputError as error:
        return {}, str(error)
    return arenas, ""


def build_evaluate(
    tab: gr.Tab,
    tabs: gr.Tabs,
    settings: Settings,
    box: CompareBox,
    limit: RequestLimit,
    predictor: Predictor | None = None,
    problem: str = "",
    arenas: tuple[dict[str, Arena], str] | None = None,
) -> EvaluateTab | None:
    """Lay out the tab inside the current `gr.Tab`. Without runs it says so instead. `arenas`: where they are loaded
    already."""
    shipped, missing = arenas or load_arenas()
    if missing:
        gr.Markdown(text.RUNS_MISSING.format(problem=escape(missing)), elem_classes="notice problem")
        return None
    tab_ = _Tab(shipped, settings)
    own = OwnBox(predictor, problem, settings, limit, shipped[SETS[0]].items, tab_.texts)
    return tab_.build(tab, tabs, box, own)


def compared_pair(infos: dict[str, RunInfo], settings: Settings) -> tuple[str, str] | None:
    """The runs of the two models on the Compare tab, where these have been evaluated."""
    base, adapter = (
        Path(ref.name).name if ref.is_folder else ref.name for ref in (settings.base, settings.adapter)
    )
    of_base = [info for info in infos.values() if info.base_model == base]
    bases = [info.name for info in of_base if info.kind == "base"]
    tuned = [info.name for info in of_base if info.kind == "tuned" and info.adapter == adapter]
    for pair in [EMBEDDED_PAIR, EVERYDAY_PAIR, *zip(bases, tuned, strict=False)]:
        if pair[0] in bases and pair[1] in tuned:
            return pair
    return None


class _Tab:
    def __init__(self, shipped: dict[str, Arena], settings: Settings):
        self.shipped = shipped
        self.texts = ItemTexts(settings.test_items, shipped[SETS[0]].items)
        runs_of = {name: len(arena.runs) for name, arena in shipped.items()}
        pairs = {name: compared_pair(arena.infos, settings) for name, arena in shipped.items()}
        self.place = Place({name: pair for name, pair in pairs.items() if pair}, runs_of)
        self._sessions: OrderedDict[tuple[int, ...], Arena] = OrderedDict()
        self._first: list | None = None  # the first view's parts: every visitor begins with them
        threading.Thread(target=self._make_first, name="first view", daemon=True).start()

    def first_view(self, item_set: str = SETS[0]) -> View:
        return replace(self.shipped[item_set].first_view(), item_set=item_set)

    def _make_first(self) -> None:
        self._first = self.render(OwnRuns(), self.shipped[SETS[0]], self.first_view(), None)

    def render(
        self, own: OwnRuns, arena: Arena, view: View, before: View | None, only: Collection[str] = ()
    ) -> list:
        plain = before is None and not only and arena is self.shipped[SETS[0]]
        if plain and self._first and view == self.first_view():
            return [
                dict(part) if isinstance(part, dict) else part for part in self._first
            ]  # Gradio empties them
        return render(arena, view, SessionTexts(self.texts, own.texts), before, only, self.place)

    def arena(self, own: OwnRuns, item_set: str = SETS[0]) -> Arena:
        """The shipped runs and a visitor's own. Kept by identity; the arena holds the runs, so ids stay theirs."""
        shipped = self.shipped.get(item_set, self.shipped[SETS[0]])
        if not own or item_set != SETS[0]:
            return shipped
        key = tuple(id(run) for run in own.runs.values())
        if key not in self._sessions:
            labels = [" ".join(own.texts[i].split())[:LABEL_CHARS] for i in own.items["index"]]
            self._sessions[key] = shipped.with_runs(own.runs, own.items.assign(label=labels))
            while len(self._sessions) > SESSIONS_KEPT:
                self._sessions.popitem(last=False)
        return self._sessions[key]

    # Layout ----------------------------------------------------------------------------------------------

    def build(self, tab: gr.Tab, tabs: gr.Tabs, box: CompareBox, own: OwnBox) -> EvaluateTab:
        parts: layout.Parts = {}
        first = self.shipped[SETS[0]]
        with gr.Column(elem_classes="evaluate"):
            layout.entrance(parts, first)
            layout.quiet_bar(parts, first, own.layout)
            own.layout_chips()
            layout.stage(parts)
            guess = GuessBox(self.texts, own.limits)
            panel_tabs = layout.panels(parts, {"guess": guess.layout})
            saved, self.address = Download(), Address()
        session, own_runs = gr.State(None), gr.State(OwnRuns())
        outputs = [session, parts["notice"], self.address, *[parts[name] for name in PARTS]]
        self._wire(parts, panel_tabs, session, own_runs, outputs, tab)
        self._send_to_compare(parts["detail_foot"], session, own_runs, tabs, box)
        self._export(parts, session, own_runs, saved)
        self._follow_address(tabs, session, own_runs, outputs)
        own.wire(session, own_runs, outputs, self.answer)
        guess.wire(session, own_runs, outputs, own.chips, chips, self.arena, self.answer)
        return EvaluateTab(
            lambda demo: self._link(demo, tabs, outputs),
            lambda event, inputs, make: own.take(event, inputs, make, tabs),
        )

    def answer(
        self,
        session: Session | None,
        own_runs: OwnRuns,
        make: Step,
        *,
        again: bool = False,
        whole: bool = False,
        only: Collection[str] = (),
        item_set: str = "",
    ) -> list:
        """Updates for [session, notice, address, *PARTS] after a step; a bad value is said and changes nothing.

        `again`: a step to where the visitor is shows the open item anew, for its text may have come
        meanwhile. `whole`: make every part, as the runs themselves have changed; `only`: make just these parts.
        `item_set`: the step is one among these items, wherever the visitor was.
        """
        session = session or Session()
        with session.lock:
            before = session.view
            now, said = before or self.first_view(), ""
            if item_set:
                now = replace(now, item_set=item_set)
            arena = self.arena(own_runs, now.item_set)
            now = settled(arena, now)
            try:
                now = make(arena, now)
            except InputError as error:
                said = complaint(error)
            if before and now.item_set != before.item_set:
                arena = self.arena(own_runs, now.item_set)
                now, whole = settled(arena, now), True
            if again and now == before:
                before = before.without("item")
            session.view = now
            if now == before and not said and not whole and not only:
                return [gr.skip()] * (len(PARTS) + 3)
            address = Address.show(now.to_query(), step=before is None or _differ(now, before))
            shown = self.render(own_runs, arena, now, None if whole or only else before, only)
            return [session, said, address, *shown]

    # Events ----------------------------------------------------------------------------------------------

    def _wire(
        self,
        parts: dict,
        panel_tabs: dict[str, gr.Tab],
        session: gr.State,
        own_runs: gr.State,
        outputs: list,
        tab: gr.Tab,
    ) -> None:
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
            each = {"trigger_mode": "multiple"} if kind is ActionEvent else {}  # two quick presses are two
            event(handle, [session, own_runs], outputs, **AT_ONCE, **each)

        def on_value(event: Callable, name: str, read: Callable[[Arena, Any], Any]) -> None:
            """The field `name` of the view is what `read(arena, value)` makes of the part's value."""

            def make(arena: Arena, view: View, value: Any) -> View:
                return replace(view, **{name: read(arena, value)})

            on(event, make, parts[name], trigger_mode="always_last")

        def ahead(session: Session | None, own: OwnRuns, part: str, make: Step) -> list:
            """Updates for `outputs` after a step that the part itself shows already. Nothing comes back to it: its
            visitor may be further by then. As the tab is laid out, the part says that it is there: no step."""
            if session is None:
                return [gr.skip()] * len(outputs)
            updates = self.answer(session, own, make)
            updates[outputs.index(parts[part])] = gr.skip()
            return updates

        opened = on(tab.select, lambda arena, view: view)
        opened.then(self.texts.start, None, None, **AT_ONCE)
        for panel, panel_tab in panel_tabs.items():

            def on_panel(session: Session | None, own: OwnRuns, panel=panel):
                return ahead(session, own, "panels", lambda arena, view: replace(view, panel=panel))

            panel_tab.select(on_panel, [session, own_runs], outputs, **AT_ONCE)

        for name in ("run_a", "run_b"):
            on_value(parts[name].input, name, known_run)
        for name in ("categories", "outcomes_a", "outcomes_b", "kinds", "columns"):
            on_value(parts[name].input, name, lambda arena, value, name=name: read_choices(name, value))
        for name, default in (("low_usd", None), ("high_usd", None), ("apart_usd", 0.0)):
            for event in (parts[name].submit, parts[name].blur):
                on_value(event, name, lambda arena, value, default=default: read_usd(value) or default)
        for event in (parts["words"].submit, parts["words"].blur):
            on_value(event, "words", lambda arena, value: read_words(value))

        def on_find(session: Session | None, own: OwnRuns, value: str):
            return ahead(session, own, "find", lambda arena, view: replace(view, find=read_words(value)))

        find = [session, own_runs, parts["find"]]
        parts["find"].change(on_find, find, outputs, trigger_mode="always_last", **AT_ONCE)
        on_value(parts["measure"].input, "measure", lambda arena, value: known_measure(value))
        on_value(parts["log_axis"].input, "log_axis", lambda arena, value: text.AXES[value])
        on_value(parts["by_share"].input, "by_share", lambda arena, value: text.COLOURINGS[value])

        for name in (
            "opening",
            "sets",
            "pairs",
            "presets",
            "active",
            "starters",
            "board",
            "slices",
            "several_note",
            "detail_head",
        ):
            on_event(
                parts[name].act,
                ActionEvent,
                lambda arena, view, act: step(
                    arena, view, act.name, act.value, self.place.compared.get(view.item_set)
                ),
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
            if act.name != "send" or item_text is None or view.item_set != SETS[0]:
                return gr.skip(), gr.skip(), gr.skip()
            price_usd = self.arena(own).item(view.item).price_usd
            return gr.update(selected="compare"), item_text, f"{price_usd:.2f}"

        sent = foot.act(on_send, [session, own_runs], [tabs, box.product, box.actual], **AT_ONCE)
        box.predict_after(sent)

    def _export(self, parts: dict, session: gr.State, own_runs: gr.State, saved: Download) -> None:
        def on_export(session: Session | None, own: OwnRuns, act: ActionEvent):
            if session is None or session.view is None:
                return gr.skip()
            view = session.view
            arena = self.arena(own, view.item_set)
            if act.name == "export":
                return Download.file(
                    f"pricer-{view.run_a}-{view.run_b}.csv", view_csv(arena, view, own.texts)
                )
            if act.name == "export-board":
                return Download.file("pricer-board.csv", board_csv(arena, view, arena.leaderboard(view)))
            return gr.skip()

        for name in ("active", "board"):
            parts[name].act(on_export, [session, own_runs], saved, **AT_ONCE)

    # The address -----------------------------------------------------------------------------------------

    def _read(self, query: str, own: OwnRuns) -> tuple[View, list[str]]:
        """The view that an address asks for, and what of it cannot be had."""
        plain, _ = View().from_query(query, runs=(), categories=())
        item_set = plain.item_set if plain.item_set in self.shipped else SETS[0]
        arena = self.arena(own, item_set)
        view, complaints = self.first_view(item_set).from_query(
            query, runs=arena.runs, categories=arena.categories
        )
        if view.item_set != item_set:
            complaints.append(text.SET_EMPTY)
        view = replace(view, item_set=item_set)
        if view.item is not None and view.item not in arena.known_indexes:
            complaints.append(text.ITEM_GONE.format(index=view.item))
        return settled(arena, view), complaints

    def _link(self, demo: gr.Blocks, tabs: gr.Tabs, outputs: list) -> None:
        def on_load(request: gr.Request):
            query = str(request.query_params)
            if not is_link(query):
                return [gr.skip()] * (len(outputs) + 1)
            session = Session()
            session.view, complaints = self._read(query, OwnRuns())
            shown = self.render(OwnRuns(), self.arena(OwnRuns(), session.view.item_set), session.view, None)
            address = Address.show(session.view.to_query(), step=False)
            return [gr.update(selected="evaluation"), session, complaint(*complaints), address, *shown]

        demo.load(on_load, None, [tabs, *outputs], **AT_ONCE)

    def _follow_address(self, tabs: gr.Tabs, session: gr.State, own_runs: gr.State, outputs: list) -> None:
        def on_go(session: Session | None, own: OwnRuns, event: AddressEvent):
            if not is_link(event.query):
                skips = [gr.skip()] * len(outputs)
                skips[outputs.index(self.address)] = Address.answered(event.query)
                return [gr.update(selected="compare"), *skips]
            view, complaints = self._read(event.query, own)
            session, said, _, *shown = self.answer(session, own, lambda arena, now: view)
            address = Address.answered(event.query)
            return [gr.update(selected="evaluation"), session, complaint(*complaints), address, *shown]

        def on_tab(chosen: gr.SelectData):
            return gr.skip() if chosen.value == text.EVALUATE_TAB else Address.show("", step=True)

        # Gradio's "always_last" sends the data of the first of several quick events again, not of the last.
        each = AT_ONCE | {"trigger_mode": "multiple"}
        self.address.go(on_go, [session, own_runs], [tabs, *outputs], **each)
        tabs.select(on_tab, None, self.address, **AT_ONCE)


def _differ(now: View, before: View) -> bool:
    return any(getattr(now, name) != getattr(before, name) for name in STEPS_BACK)
