"""Where everything on the Evaluation tab stands: entrance, verdict, one quiet bar, plots beside the open product, panels.

Each function lays its components out inside the current Blocks and puts them into `parts` under the names of
`render.PARTS`, by which the tab fills them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import gradio as gr

from pricer.arena.arena import Arena
from pricer.arena.metrics import OUTCOMES
from pricer.arena.view import COLUMNS, MEASURES, PANELS
from pricer.ui.actions import Actions
from pricer.ui.chart import Chart
from pricer.ui.evaluate import heads, text
from pricer.ui.evaluate import panels as words
from pricer.ui.evaluate.html import category
from pricer.ui.evaluate.render import run_choices

SCATTER_HEIGHT = 392  # pixels
STRIP_HEIGHT = 170
PANEL_HEIGHT = 380
GROUPS_HEIGHT = 480

Parts = dict[str, Any]


def entrance(parts: Parts, arena: Arena) -> None:
    """What one sees and where to begin, which items, which two runs, and the verdict."""
    with gr.Row(elem_classes="entrance"):
        parts["opening"] = Actions(heads.opening(), elem_id="opening")
        parts["sets"] = Actions(elem_id="sets")
    first = arena.first_view()
    with gr.Row(elem_classes="pickers"):
        for end in ("a", "b"):
            parts[f"run_{end}"] = gr.Dropdown(
                run_choices(arena),
                value=getattr(first, f"run_{end}"),
                label=text.RUN_LABELS[end],
                elem_id=f"run-{end}",
                elem_classes=f"picker-{end}",
                min_width=150,
            )
    parts["pairs"] = Actions(elem_id="pairs")
    parts["notice"] = gr.HTML(elem_id="evaluate-notice", elem_classes="hide-when-empty")
    parts["verdict"] = gr.HTML(elem_id="head-to-head")


def quiet_bar(parts: Parts, arena: Arena, own_boxes: Callable[[], None]) -> None:
    """Presets, and what is folded away: all figures, filters, own runs, live runs; then what is left in view."""
    parts["presets"] = Actions(elem_id="presets")
    with gr.Row(elem_classes="folds"):
        with gr.Accordion(text.MORE_FIGURES, open=False, elem_id="more-figures", elem_classes="fold"):
            parts["metrics"] = gr.HTML(elem_id="metrics")
        with gr.Accordion(text.FILTERS, open=False, elem_id="filters", elem_classes="fold"):
            _filters(parts, arena)
        own_boxes()
        parts["active"] = Actions(elem_id="active")


def _filters(parts: Parts, arena: Arena) -> None:
    with gr.Row():
        parts["words"] = gr.Textbox(
            label=text.WORDS_LABEL,
            placeholder=text.WORDS_PLACEHOLDER,
            max_lines=1,
            elem_id="filter-words",
            min_width=160,
        )
        parts["categories"] = gr.Dropdown(
            [(category(name), name) for name in arena.categories],
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
            parts[name] = gr.Number(None, label=label, elem_id=f"filter-{name}", min_width=130)
    with gr.Row():
        for end in ("a", "b"):
            parts[f"outcomes_{end}"] = gr.CheckboxGroup(
                list(OUTCOMES),
                label=text.OUTCOME_LABELS[end],
                elem_id=f"filter-outcomes-{end}",
                min_width=240,
            )


def stage(parts: Parts) -> None:
    """Both scatters, and beside them the open product, or where to begin."""
    gr.HTML(f'<a class="skip" href="#panels">{text.SKIP_PLOTS}</a>', elem_id="skip-plots")
    with gr.Row(elem_classes="stage"):
        with gr.Column(elem_classes="plots", min_width=300):
            _scatters(parts)
        with gr.Column(elem_classes="rail", min_width=300):
            parts["starters"] = Actions(elem_id="starters")
            with gr.Column(visible=False, elem_classes="detail", elem_id="detail") as parts["detail"]:
                parts["detail_head"] = Actions(elem_id="detail-head")
                parts["strip"] = Chart(height=STRIP_HEIGHT, empty=text.STRIP_EMPTY, elem_id="strip")
                parts["detail_guesses"] = gr.HTML(elem_id="detail-guesses")
                parts["detail_foot"] = Actions(elem_id="detail-foot")


def _scatters(parts: Parts) -> None:
    with gr.Row(elem_classes="scatter-bar"):
        parts["legend"] = gr.HTML(elem_id="legend")
        with gr.Row(elem_classes="switches"):
            for name, choices, label, id_ in (
                ("by_share", text.COLOURINGS, text.COLOURS_LABEL, "evaluate-colours"),
                ("log_axis", text.AXES, text.AXIS_LABEL, "evaluate-axis"),
            ):
                parts[name] = gr.Radio(
                    list(choices),
                    value=next(iter(choices)),
                    label=label,
                    show_label=False,
                    container=False,
                    elem_id=id_,
                )
    with gr.Row(elem_classes="scatters"):
        for end in ("a", "b"):
            with gr.Column(min_width=280, elem_classes="scatter"):
                parts[f"title_{end}"] = gr.HTML()
                parts[f"scatter_{end}"] = Chart(
                    height=SCATTER_HEIGHT, empty=text.NO_FIGURE, elem_id=f"scatter-{end}"
                )
    parts["hint"] = gr.HTML()


def panels(parts: Parts, more: Mapping[str, Callable[[], None]]) -> dict[str, gr.Tab]:
    """The tabs below, by panel; only the open one is filled. `more`: what lays out those that have their own ways."""
    tabs: dict[str, gr.Tab] = {}
    with gr.Tabs(elem_id="panels", elem_classes="panels") as parts["panels"]:
        for panel in PANELS:
            with gr.Tab(text.PANELS[panel], id=panel) as tabs[panel]:
                if panel in text.PANEL_NOTES and panel != "items":
                    gr.HTML(f'<p class="hint">{text.PANEL_NOTES[panel]}</p>')
                if panel in more:
                    more[panel]()
                else:
                    _PANELS.get(panel, lambda parts, panel=panel: _chart(parts, panel))(parts)
    return tabs


def _chart(parts: Parts, name: str, empty: str = text.NO_FIGURE) -> None:
    parts[name] = Chart(height=PANEL_HEIGHT, empty=empty, elem_id=f"chart-{name}")


def _board(parts: Parts) -> None:
    with gr.Row(elem_classes="board-bar"):
        parts["find"] = gr.Textbox(
            label=text.BOARD_FIND,
            placeholder=text.BOARD_FIND_PLACEHOLDER,
            max_lines=1,
            elem_id="board-find",
            min_width=160,
        )
        parts["kinds"] = gr.Dropdown(
            [(name, kind) for kind, name in text.KINDS.items()],
            label=text.BOARD_KINDS,
            multiselect=True,
            elem_id="board-kinds",
            min_width=160,
        )
        parts["columns"] = gr.Dropdown(
            [(text.BOARD_COLUMNS[column], column) for column in COLUMNS],
            label=text.BOARD_COLUMNS_LABEL,
            multiselect=True,
            elem_id="board-columns",
            scale=2,
            min_width=240,
        )
    parts["board"] = Actions(elem_id="board")


def _spread(parts: Parts) -> None:
    with gr.Row():
        for name in ("spread", "share"):
            with gr.Column(min_width=300):
                _chart(parts, name)


def _groups(parts: Parts) -> None:
    with gr.Row():
        for name, title in (("by_price", text.TITLE_PRICE), ("by_category", text.TITLE_CATEGORY)):
            with gr.Column(min_width=300):
                gr.HTML(f"<h4>{title}</h4>")
                parts[name] = Chart(height=GROUPS_HEIGHT, empty=text.NO_FIGURE, elem_id=f"chart-{name}")


def _items(parts: Parts) -> None:
    parts["items_note"] = gr.HTML()
    parts["items"] = gr.Dataframe(
        interactive=False,
        show_search="search",
        max_height=420,
        buttons=["fullscreen"],
        datatype=["number", "str", "str", *["number"] * 5, "str", "str"],
        column_widths=["64px", "400px", "216px", *["112px"] * 5, "84px", "84px"],
        elem_id="items",
    )


def _slices(parts: Parts) -> None:
    parts["slices"] = Actions(elem_id="slices")


def _several(parts: Parts) -> None:
    parts["measure"] = gr.Radio(
        [(name, measure) for measure, name in text.MEASURES.items()],
        value=MEASURES[0],
        label=text.MEASURE_LABEL,
        show_label=False,
        container=False,
        elem_id="several-measure",
        elem_classes="switches",
    )
    parts["several_note"] = Actions(elem_id="several-note")
    parts["several"] = Chart(height=PANEL_HEIGHT + 80, empty=text.SEVERAL_EMPTY, elem_id="chart-several")


def _terms(parts: Parts) -> None:
    gr.HTML(words.terms(), elem_id="terms")


_PANELS: dict[str, Callable[[Parts], None]] = {
    "board": _board,
    "slices": _slices,
    "several": _several,
    "terms": _terms,
    "spread": _spread,
    "groups": _groups,
    "items": _items,
    "coverage": lambda parts: _chart(parts, "coverage", text.COVERAGE_EMPTY),
}
