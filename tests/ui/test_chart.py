"""The chart and the theme in a real browser, in an app of three charts."""

import json

import gradio as gr
import numpy as np
import plotly.graph_objects as go
import pytest
from playwright.sync_api import expect

from pricer.ui import theme
from pricer.ui.chart import PLOTLY_PATH, Chart, ChartEvent, plotly_route
from tests.ui.waiting import comes_to, drawn, still

LIGHT_INK = "rgb(15, 23, 42)"
HOSTILE = (
    "</script><script>hacked=1</script><img src=x onerror=hacked=2>${hacked=3}{{hacked}}"
    '<a href="javascript:hacked=4">a</a><b onmouseover="hacked=5">b</b>'
)


def scatter(shift: float = 0.0) -> go.Figure:
    """Four base marks at the corners of a square, and a big tuned one in its middle with hostile text."""
    figure = go.Figure()
    corners = np.array([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
    items = np.array([[10, 0], [11, 1], [12, 2], [13, 3]])
    marks = {"mode": "markers", "customdata": items, "marker_size": 20}
    figure.add_scatter(x=corners[:, 0] + shift, y=corners[:, 1], name="base", **marks)
    # Plotly gives text with a link the pointer, so it must not lie over its mark.
    text = {"text": [HOSTILE, "nan"], "textposition": "top center"}
    hover = {"hovertext": ["<br>".join(HOSTILE.split("$")), ""], "hoverinfo": "text"}
    marks = {"mode": "markers+text", "customdata": [HOSTILE, None], "marker_size": 40, "name": HOSTILE}
    figure.add_scatter(x=[0.5, float("nan")], y=[0.5, 1.0], **marks, **text, **hover)
    figure.update_layout(dragmode="select", title=HOSTILE, meta={"description": f"Shifted by {shift:g}"})
    return figure


def histogram() -> go.Figure:
    values = [1, 1, 1, 2, 5, 5]
    return go.Figure(go.Histogram(x=values, customdata=[f"row {i}" for i in range(6)], xbins_size=1))


@pytest.fixture(scope="module")
def app():
    def on_event(event: ChartEvent):
        rows = [[p.curve, p.index, p.customdata] for p in event.points]
        return json.dumps({"rows": rows, "customdata": event.customdata})

    with gr.Blocks() as demo:
        chart = Chart(scatter(), height=320, description="unused", empty="Nothing yet", elem_id="scatter")
        bars = Chart(histogram(), height=240, description='Bars "of" ${hacked=6} {{x}}', elem_id="bars")
        event = gr.Textbox(elem_id="event")
        chart.click(on_event, outputs=event)
        chart.select(on_event, outputs=event)
        chart.deselect(lambda: "deselected", outputs=event)
        gr.on([bars.click, bars.select], on_event, outputs=event, api_visibility="private")
        gr.Button("Shift").click(lambda: scatter(0.25), outputs=chart)
        gr.Button("Clear").click(lambda: None, outputs=chart)
        gr.Button("Describe").click(
            lambda: gr.update(value=histogram(), description="Described"), outputs=bars
        )
        with gr.Tabs():
            with gr.Tab("First"):
                gr.Markdown("first")
            with gr.Tab("Second", render_children=True):
                Chart(scatter(), height=200, elem_id="hidden")
    return theme.silence(demo)


@pytest.fixture(scope="module")
def url(app, serve):
    return serve(app, **theme.launch_options(), app_kwargs={"routes": [plotly_route()]})


def pixel(page, chart, x, y):
    """Where on the screen a point of the chart's coordinates is."""
    script = """(plot, [x, y]) => {
        const {xaxis, yaxis} = plot._fullLayout, box = plot.getBoundingClientRect();
        return [box.x + xaxis._offset + xaxis.d2p(x), box.y + yaxis._offset + yaxis.d2p(y)];
    }"""
    return still(page, f"#{chart}").evaluate(script, [x, y])


def drag(page, start, end):
    page.mouse.move(*start)
    page.mouse.down()
    page.mouse.move(*end, steps=8)
    page.mouse.up()


def event(page, wanted):
    """What Python answered last, once `wanted` is part of it."""
    said = (
        "wanted => (said => said.includes(wanted) && said)(document.querySelector('#event textarea').value)"
    )
    page.locator("#event textarea").wait_for()
    return page.wait_for_function(said, arg=wanted).json_value()


@pytest.mark.browser
def test_draws_once_loaded_and_asks_no_other_host(seen_page, url):
    page = seen_page(url)
    drawn(page, "#scatter")
    drawn(page, "#bars")
    scripts = page.evaluate("[...document.scripts].filter(s => s.src.includes('plotly')).map(s => s.src)")
    assert scripts == [f"{url}{PLOTLY_PATH}"]
    expect(page.get_by_role("img", name="Shifted by 0")).to_be_visible()
    expect(page.get_by_role("img", name='Bars "of" ${hacked=6} {{x}}')).to_be_visible()
    expect(page.locator("#scatter .modebar-btn[data-title='Download as SVG']")).to_have_count(1)
    expect(page.locator("#scatter [data-title='Share chart...']")).to_have_count(0)
    expect(page.locator("#scatter .point")).to_have_count(5)  # the mark at NaN is not drawn
    assert page.errors == []
    assert page.foreign == []


@pytest.mark.browser
def test_library_is_kept_by_the_browser(seen_page, url):
    response = seen_page(url).request.get(f"{url}{PLOTLY_PATH}")
    assert response.ok
    assert "immutable" in response.headers["cache-control"]
    assert response.headers["content-encoding"] in ("br", "gzip")


@pytest.mark.browser
def test_hostile_text_is_text(seen_page, url):
    page = seen_page(url)
    page.mouse.move(*pixel(page, "scatter", 0.5, 0.5))
    page.locator("#scatter .hovertext").wait_for()
    assert page.evaluate("typeof hacked") == "undefined"
    assert page.locator("#scatter img").count() == 0
    hrefs = page.locator("#scatter a").evaluate_all("as => as.map(a => a.getAttribute('xlink:href'))")
    assert not any("javascript" in (href or "") for href in hrefs)
    assert page.locator("#scatter [onmouseover]").count() == 0
    assert page.errors == []


@pytest.mark.browser
def test_click_reaches_python(seen_page, url):
    page = seen_page(url)
    page.mouse.click(*pixel(page, "scatter", 1, 0))
    assert json.loads(event(page, "rows")) == {"rows": [[0, 2, [12, 2]]], "customdata": [[12, 2]]}
    # Two quick clicks are a double click to Plotly, wherever they are.
    plot = "document.querySelector('#scatter .chart-plot')"
    comes_to(page, f"Date.now() - {plot}._mouseDownTime > {plot}._context.doubleClickDelay")
    page.mouse.click(*pixel(page, "scatter", 0.5, 0.5))
    assert json.loads(event(page, "script"))["customdata"] == [HOSTILE]


@pytest.mark.browser
def test_click_on_a_bar_gives_its_rows(seen_page, url):
    page = seen_page(url)
    page.mouse.click(*pixel(page, "bars", 5, 1))
    assert json.loads(event(page, "rows"))["rows"] == [[0, 4, "row 4"], [0, 5, "row 5"]]


@pytest.mark.browser
def test_box_selection_and_double_click_reach_python(seen_page, url):
    page = seen_page(url)
    drag(page, pixel(page, "scatter", -0.03, -0.1), pixel(page, "scatter", 0.2, 1.1))
    assert json.loads(event(page, "rows"))["customdata"] == [[10, 0], [11, 1]]
    drag(page, pixel(page, "scatter", 0.2, 0.2), pixel(page, "scatter", 0.3, 0.3))
    assert json.loads(event(page, '"rows": []'))["customdata"] == []
    page.mouse.dblclick(*pixel(page, "scatter", 0.75, 0.75))
    assert event(page, "deselected") == "deselected"
    assert page.errors == []


@pytest.mark.browser
def test_update_keeps_the_plot_and_its_zoom(seen_page, url):
    page = seen_page(url)
    plot = drawn(page, "#scatter")
    plot.evaluate("plot => { plot.querySelector('.main-svg').mark = 1; window.plot = plot; }")
    page.locator("#scatter [data-title='Zoom in']").click()
    comes_to(page, "(r => r[1] - r[0] < 0.8)(plot._fullLayout.xaxis.range)")
    zoomed = page.evaluate("plot._fullLayout.xaxis.range")
    page.get_by_role("button", name="Shift").click()
    page.get_by_role("img", name="Shifted by 0.25").wait_for()
    comes_to(page, "plot._fullData[0].x[0]", 0.25)
    assert page.evaluate("plot._fullLayout.xaxis.range") == zoomed
    assert plot.evaluate("plot => plot.querySelector('.main-svg').mark") == 1

    page.get_by_role("button", name="Clear").click()
    page.locator("#scatter").get_by_text("Nothing yet").wait_for()
    expect(page.locator("#scatter .main-svg")).to_have_count(0)
    page.get_by_role("button", name="Shift").click()
    page.mouse.click(*pixel(page, "scatter", 0.25, 0))  # drawn anew, and listening again
    assert json.loads(event(page, "rows"))["customdata"] == [[10, 0]]

    page.get_by_role("button", name="Describe").click()
    page.get_by_role("img", name="Described").wait_for()
    expect(page.locator("#bars .chart")).to_have_css("height", "240px")
    assert page.errors == []


@pytest.mark.browser
def test_colours_follow_the_page_without_the_server(seen_page, url):
    page = seen_page(url, dark=True)
    tick = "getComputedStyle(document.querySelector('#scatter .xtick text')).fill"
    drawn(page, "#scatter")
    comes_to(page, f"{tick} === getComputedStyle(document.body).color")
    assert page.evaluate(tick) != LIGHT_INK
    requests = []
    page.on("request", lambda request: requests.append(request.url))
    page.evaluate("document.body.classList.remove('dark')")
    comes_to(page, tick, LIGHT_INK)
    assert [r for r in requests if "heartbeat" not in r] == []
    assert page.errors == []


@pytest.mark.browser
@pytest.mark.parametrize("width", [360, 1280])
def test_hidden_tab_gets_the_right_width(seen_page, url, width):
    page = seen_page(url, width=width)
    drawn(page, "#scatter")
    page.get_by_role("tab", name="Second").click()
    drawn(page, "#hidden")
    wide = "document.querySelector('#hidden{}').getBoundingClientRect().width"
    room, plot, svg = (wide.format(part) for part in ("", " .chart-plot", " .main-svg"))
    comes_to(page, f"Math.abs({svg} - {plot}) <= 1 && {room} - 40 <= {svg} && {svg} <= {room}")
    old = page.evaluate(svg)
    page.set_viewport_size({"width": width - 40, "height": 900})
    comes_to(page, f"{svg} < {old - 30}")
    comes_to(page, "document.documentElement.scrollWidth <= innerWidth")


@pytest.mark.browser
def test_keeps_its_height_and_says_when_the_library_fails(open_page, url):
    page = open_page(url, before=lambda page: page.route(f"**/{PLOTLY_PATH}", lambda route: route.abort()))
    page.locator("#scatter").get_by_text("The chart could not be drawn").wait_for()
    expect(page.locator("#scatter .chart")).to_have_css("height", "320px")
    page.unroute_all()
    page.get_by_role("button", name="Shift").click()  # the next figure tries again
    drawn(page, "#scatter")
    expect(page.locator("#scatter .chart")).to_have_css("height", "320px")


def test_stays_out_of_the_api(app):
    names = set(app.get_api_info()["named_endpoints"])
    assert not any("on_event" in name for name in names)
    assert all(not info["returns"] for info in app.get_api_info()["named_endpoints"].values())


def test_event_without_points():
    assert ChartEvent(None, None).customdata == []


def luminance(colour: str) -> float:
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    """WCAG 2.2, relative luminance."""
    low, high = sorted([luminance(one), luminance(other)])
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("side", [0, 1], ids=["light", "dark"])
def test_theme_is_legible(side):
    colours = {name: pair[side] for name, pair in theme._COLOURS.items()}
    surfaces = [
        colours[n] for n in ("body_background_fill", "background_fill_primary", "block_background_fill")
    ]
    for name in ("body_text_color", "body_text_color_subdued", "link_text_color", "block_info_text_color"):
        assert all(contrast(colours[name], surface) >= 4.5 for surface in surfaces), name
    assert contrast(colours["input_placeholder_color"], colours["input_background_fill"]) >= 4.5
    for button in ("button_primary", "button_secondary"):
        for state in ("", "_hover"):
            text, fill = colours[f"{button}_text_color{state}"], colours[f"{button}_background_fill{state}"]
            assert contrast(text, fill) >= 4.5, (button, state)
    marks = [theme.BASE_COLOUR, theme.TUNED_COLOUR, colours["input_border_color"]]
    assert all(contrast(mark, surface) >= 3 for mark in marks for surface in surfaces)
