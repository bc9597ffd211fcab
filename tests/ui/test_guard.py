"""What one visitor may ask for: requests a minute, places in the queue, bytes of a request, files of this machine."""

import asyncio
import json
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import quote

import gradio_client
import httpx
import pytest
from playwright.sync_api import expect
from starlette.datastructures import Headers

from pricer.errors import InputError
from pricer.llama.predictor import Predictor
from pricer.settings import PASSES, Limits
from pricer.ui import build_demo, page_options, text, theme
from pricer.ui.compare import text as words
from pricer.ui.guard import AWAY_SECONDS, SECONDS, VISITORS, Guard, RequestLimit, places_taken, visitor

ROOT = Path(__file__).parents[2]
TEXT = "Small lamp made of wood"
ABROAD = {"X-Forwarded-For": "8.8.8.8"}  # uvicorn believes a proxy on this machine


def asking(address="8.8.8.8", session="s", path="/gradio_api/queue/join"):
    client = SimpleNamespace(host=address)
    return SimpleNamespace(client=client, session_hash=session, url=SimpleNamespace(path=path))


# Requests in a minute ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (asking("8.8.8.8", "s"), asking("8.8.8.8", "t"), True),  # a reloaded page
        (asking("8.8.8.8"), asking("8.8.4.4"), False),
        (asking("2606:4700::1", "s"), asking("2606:4700::ffff:1", "t"), True),
        (asking("2606:4700::1"), asking("2606:4700:1::1"), False),
        (asking("10.0.0.1", "s"), asking("10.0.0.1", "t"), False),  # a proxy in front of both
        (asking("10.0.0.1", "s"), asking("10.0.0.2", "s"), True),
        (
            asking("10.0.0.1", "s", "/gradio_api/call/predict"),
            asking("10.0.0.1", "t", "/gradio_api/call/predict"),
            True,
        ),
        (asking("a socket", "s"), asking("a socket", "t"), False),
    ],
)
def test_who_is_the_same_visitor(one, other, same):
    assert visitor(one) is not None
    assert (visitor(one) == visitor(other)) == same


@pytest.mark.parametrize("address", ["127.0.0.1", "127.3.2.1", "::1"])
def test_this_machine_itself_is_not_limited(address):
    limit = RequestLimit(1)
    for _ in range(3):
        limit.check(asking(address))


def test_as_many_as_said_in_any_minute():
    clock = iter([0.0, 10.0, 20.0, 20.0, 20.0, 59.9, 59.9, SECONDS, SECONDS])
    limit = RequestLimit(3, clock=lambda: next(clock))
    for _ in range(3):
        limit.check(asking())
    for _ in range(2):
        with pytest.raises(InputError) as refused:
            limit.check(asking())
        limit.check(asking("8.8.4.4"))
    assert "3 times" in str(refused.value) and "again in 1 s" in str(refused.value)
    limit.check(asking())  # the first is over, and what was refused did not count
    with pytest.raises(InputError):
        limit.check(asking())


def test_any_number_when_switched_off():
    limit = RequestLimit(0)
    for _ in range(1000):
        limit.check(asking())
    assert not limit._times


def test_the_limiter_forgets():
    now = [0.0]
    limit = RequestLimit(2, clock=lambda: now[0])
    for number in range(3 * VISITORS):
        limit.check(asking("10.0.0.1", str(number)))
    assert len(limit._times) == VISITORS
    now[0] = SECONDS
    limit.check(asking("10.0.0.1", "later"))
    assert list(limit._times) == ["later"]


def test_a_call_by_mcp_keeps_its_address_and_no_other(app):
    """Gradio makes it anew from this machine, which has no limit, with the headers that came along."""
    seen = []

    async def inner(scope, receive, send):
        seen.append(Headers(scope=scope).getlist("x-forwarded-for"))

    for path in ("/gradio_api/mcp/", "/gradio_api/mcp/sse", "/gradio_api/call/predict"):
        scope = {
            "type": "http",
            "method": "POST",
            "path": path,
            "client": ("8.8.8.8", 1),
            "app": app.demo.app,
            "headers": [(b"x-forwarded-for", b"127.0.0.1"), (b"forwarded", b"for=127.0.0.1")],
        }
        guard = Guard(inner, Limits(), upload_bytes=500)
        with ThreadPoolExecutor(1) as thread:
            thread.submit(lambda scope=scope, guard=guard: asyncio.run(guard(scope, None, None))).result()
    assert seen == [["8.8.8.8"], ["8.8.8.8"], ["127.0.0.1"]]


# The running app -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def app(tiny_pair, tiny_settings, serve):
    """An app that allows little: its address, its demo and its model."""
    limits = replace(Limits(), requests_per_minute=2, sessions=5, text_chars=1_000, queue=1)
    settings = replace(tiny_settings, limits=limits)
    predictor = Predictor(tiny_pair, limits)
    demo = theme.silence(build_demo(predictor, "", settings))
    url = serve(demo, **page_options(limits), show_error=True)
    return SimpleNamespace(url=url, demo=demo, predictor=predictor)


def call(url, data, **headers):
    """The last event of the endpoint for programs: (kind, data)."""
    with httpx.Client(base_url=url, headers=headers, timeout=60, trust_env=False) as http:
        given = dict(zip(("product_text", "rule"), data, strict=True))
        asked = http.post("/gradio_api/call/v2/predict", json=given)
        assert asked.status_code == 200, asked.text
        lines = http.get(f"/gradio_api/call/predict/{asked.json()['event_id']}").text.strip().splitlines()
    return lines[-2].removeprefix("event: "), json.loads(lines[-1].removeprefix("data: "))


def test_one_request_too_many_gets_a_sentence_and_others_their_answer(app):
    for _ in range(2):
        assert call(app.url, [TEXT, "median"], **ABROAD)[0] == "complete"
    kind, said = call(app.url, [TEXT, "median"], **ABROAD)
    assert kind == "error"
    assert "2 times within a minute" in said["error"] and "\n" not in said["error"]
    for _ in range(3):
        assert call(app.url, [TEXT, "median"])[0] == "complete"
    assert call(app.url, [TEXT, "median"], **{"X-Forwarded-For": "8.8.4.4"})[0] == "complete"


def test_the_states_of_old_visitors_are_let_go(app):
    for _ in range(8):
        assert call(app.url, [TEXT, "median"])[0] == "complete"
    sessions = app.demo.state_holder.session_data
    assert 0 < len(sessions) <= 5
    assert not any(session.config_values for session in sessions.values())  # of every component, for no use


def test_nobody_passes_the_queue_by(app):
    for way in ("run", "api"):
        answer = httpx.post(
            f"{app.url}gradio_api/{way}/predict", json={"data": [TEXT, "median"]}, trust_env=False
        )
        assert answer.status_code == 404 and "join the queue" in answer.json()["detail"]


def test_a_body_that_is_too_large_is_refused(app):
    def pieces():  # without saying how long it will be
        for _ in range(64):
            yield b"x" * 1_000_000

    for content in (b"x" * 2_000_000, pieces()):
        answer = httpx.post(f"{app.url}gradio_api/call/predict", content=content, timeout=60, trust_env=False)
        assert (answer.status_code, answer.text) == (413, text.TOO_LARGE.format(megabytes=1.012))
    assert call(app.url, ["x" * 1_000, "median"])[0] == "complete"
    kind, said = call(app.url, ["x" * 1_001, "median"])
    assert kind == "error" and "\n" not in said["error"] and "1,000" in said["error"]


@pytest.mark.parametrize(
    ("path", "most"), [("/gradio_api/call/predict", 13_000_000), ("/gradio_api/upload", 500)]
)
def test_a_body_is_read_no_further_than_its_limit(path, most):
    sent, read = [], 0

    async def app(scope, receive, send):
        while (await receive())["type"] == "http.request":
            pass
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def receive():
        nonlocal read
        read += 100
        return {"type": "http.request", "body": b"x" * 100, "more_body": True}

    async def send(message):
        sent.append(message)

    guard = Guard(app, Limits(), upload_bytes=500)
    with ThreadPoolExecutor(
        1
    ) as thread:  # where browser tests ran before, this one has an event loop already
        scope = {"type": "http", "path": path, "headers": []}
        thread.submit(lambda: asyncio.run(guard(scope, receive, send))).result()
    assert read == most + 100
    assert [message.get("status") for message in sent] == [413, None]


@pytest.mark.parametrize("address", ["http://example.com/x", "https://8.8.8.8/", "HTTP://example.com", "//x"])
def test_the_app_fetches_nothing_for_others(app, address):
    for path in (address, quote(address, safe="")):
        answer = httpx.get(f"{app.url}gradio_api/file={path}", trust_env=False)
        assert answer.status_code == 403


# Files ---------------------------------------------------------------------------------------------------


def test_no_file_of_this_machine_is_served(app, tmp_path):
    secret = tmp_path / "secret.txt"
    secret.write_text("not for you")
    tricks = [
        "/etc/passwd",
        str(secret),
        str(ROOT / "README.md"),
        "README.md",
        "pricer/settings.py",
        "../../../../../../etc/passwd",
        "..%2f..%2f..%2fetc%2fpasswd",
        "%2e%2e/%2e%2e/etc/passwd",
        "....//....//etc/passwd",
        "/proc/self/environ",
        "file:///etc/passwd",
        "/etc/passwd%00.css",
        "~/.cache",
    ]
    for trick in tricks:
        for way in (
            "gradio_api/file=",
            "file=",
            "gradio_api/file/",
            "static/",
            "assets/",
            "gradio_api/static/",
        ):
            answer = httpx.get(f"{app.url}{way}{trick}", trust_env=False)
            assert answer.status_code in (403, 404), (way, trick, answer.status_code)
            assert "not for you" not in answer.text and "root:" not in answer.text


def upload(url, name, content):
    files = {"files": (name, content, "text/csv")}
    answer = httpx.post(f"{url}gradio_api/upload", files=files, timeout=60, trust_env=False)
    assert answer.status_code == 200, answer.text
    return Path(answer.json()[0])


@pytest.mark.parametrize(
    "name",
    ["../../up.csv", "/etc/up.csv", "..\\..\\up.csv", "%2e%2e%2fup.csv", "a/b/up.csv", ".htaccess.csv"],
)
def test_an_upload_stays_in_its_folder_whatever_its_name(app, name):
    folder = Path(app.demo.app.uploaded_file_dir).resolve()
    path = upload(app.url, name, b"index,guess\n1,2\n")
    assert path.resolve().is_relative_to(folder) and path.parent.parent == folder
    path.unlink()


def trigger(app, target, data):
    """What a browser sends when a file was uploaded to the component with this elem_id; the server's answer."""
    [block] = [b for b in app.demo.blocks.values() if getattr(b, "elem_id", None) == target]
    [function] = [f for f in app.demo.fns.values() if (block._id, "upload") in f.targets]
    data = [data, *[None] * (len(function.inputs) - 1)]
    body = {"fn_index": function._id, "data": data, "session_hash": os.urandom(5).hex()}
    return httpx.post(f"{app.url}gradio_api/run/predict", json=body, timeout=60, trust_env=False)


def test_an_event_cannot_name_a_file_that_was_not_uploaded(app, tmp_path):
    """It would be read, and then deleted as every upload is."""
    mine = tmp_path / "mine.csv"
    mine.write_text("index,guess\n1,2\n")
    before = (ROOT / "README.md").read_bytes()
    folder = Path(app.demo.app.uploaded_file_dir)
    for path in (
        mine,
        ROOT / "README.md",
        folder / ".." / ".." / mine.name,
        "/etc/passwd",
        "mine.csv",
        folder,
    ):
        given = {"path": str(path), "orig_name": "mine.csv", "meta": {"_type": "gradio.FileData"}}
        assert trigger(app, "own-file", [given]).status_code == 500
    assert mine.read_text() == "index,guess\n1,2\n"
    assert (ROOT / "README.md").read_bytes() == before

    path = upload(app.url, "run.csv", b"index,guess\n1,2\n")
    given = {"path": str(path), "orig_name": "run.csv", "meta": {"_type": "gradio.FileData"}}
    answer = trigger(app, "own-file", [given])
    assert answer.status_code == 200 and "run · 1" in answer.text
    assert not path.exists()


# On the page ---------------------------------------------------------------------------------------------


def price(page):
    return page.locator("#head-tuned .price")


@pytest.mark.browser
def test_the_page_says_that_it_was_too_often_and_keeps_the_last_answer(app, open_page):
    headers = {"X-Forwarded-For": "9.9.9.9"}
    page = open_page(app.url, before=lambda page: page.set_extra_http_headers(headers))
    page.locator("#chart-answer .chart-drawn .main-svg").first.wait_for()
    shop = app.predictor.prior_named("shop")  # as the page asks where the predictor has no prior of its own
    for product in ("a small lamp", "a large table"):
        page.locator("#product-text textarea").fill(product)
        page.locator("#predict").click()
        usd = app.predictor.compare(product).under(shop).to_dict()["tuned"]["price_usd"]
        shown = f"${usd:,.2f}" if usd < 10 else f"${usd:,.0f}"
        expect(price(page)).to_have_text(shown)
        while places_taken(app.demo._queue):  # the base's answer comes behind it, and there is one place
            page.wait_for_timeout(20)
    page.locator("#predict").click()
    expect(page.locator("#notice [role=alert]")).to_contain_text("2 times within a minute")
    expect(price(page)).to_have_text(shown)
    page.unfold(words.HOW)
    page.locator("#raw").click()
    expect(page.locator("#notice [role=alert]")).to_contain_text("2 times within a minute")
    assert (page.errors, page.foreign) == ([], [])


class Held(Predictor):
    """A model that waits for `go` before it answers, and tells that it was asked."""

    def __init__(self, pair, limits):
        super().__init__(pair, limits)
        self.asked, self.go, self.given = threading.Event(), threading.Event(), []
        self.go.set()

    def both(self, prompts):
        """One after the other."""
        for which in reversed(PASSES):
            yield which, self.predict(prompts, which)

    def predict_batches(self, prompts, which):
        self.given += [(which, prompt.text) for prompt in prompts]
        self.asked.set()
        assert self.go.wait(100)
        yield from super().predict_batches(prompts, which)


@pytest.fixture(scope="module")
def held(tiny_pair, tiny_settings, serve):
    """An app with one place besides the one at work, and its model."""
    limits = replace(Limits(), queue=1)
    predictor = Held(tiny_pair, limits)
    demo = theme.silence(build_demo(predictor, "", replace(tiny_settings, limits=limits)))
    return SimpleNamespace(
        url=serve(demo, **page_options(limits), show_error=True), demo=demo, predictor=predictor
    )


def until(condition):
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_program_that_hangs_up_does_not_use_the_model(held):
    predictor, taken = held.predictor, lambda: places_taken(held.demo._queue)
    predictor.asked.clear()
    predictor.go.clear()
    with httpx.Client(base_url=held.url, timeout=60, trust_env=False) as http:
        asked = []
        try:
            for product in ("a lamp at work", "a lamp in line"):
                sent = http.post("/gradio_api/call/v2/predict", json={"product_text": product})
                asked.append(sent.json()["event_id"])
                assert predictor.asked.wait(60)  # or both would be at work together
            until(lambda: len(held.demo.shared._line) == 1)
            for event_id in asked:
                with http.stream("GET", f"/gradio_api/call/predict/{event_id}"):
                    pass
            events = held.demo._queue.event_ids_to_events
            until(lambda: not any(e in events and events[e].alive for e in asked))
        finally:
            predictor.go.set()
    until(lambda: taken() == 0)
    given = {(which, product) for which, prompt in predictor.given for product in (prompt.splitlines()[2],)}
    assert ("tuned", "a lamp at work") in given
    assert not given & {("base", "a lamp at work"), ("tuned", "a lamp in line"), ("base", "a lamp in line")}
    kind, answer = call(held.url, ["a lamp in line", "median"])
    assert kind == "complete" and answer[0]["tuned"]["price_usd"] > 0


def test_those_who_are_sent_away_come_back_one_after_the_other():
    guard = Guard(None, Limits(), upload_bytes=500)
    assert [guard._away(2.0) for _ in range(4)] == [2, 4, 6, 8]
    assert [guard._away(9.0) for _ in range(9)][-1] == AWAY_SECONDS
    assert guard._away(0.001) <= AWAY_SECONDS


@pytest.mark.browser
def test_a_full_queue_is_said_on_the_page_and_to_programs(held, open_page):
    predictor, url = held.predictor, held.url
    assert call(url, ["a lamp that is kept", "median"])[0] == "complete"
    working = open_page(url)
    waiting, late = (open_page(url, beside=working) for _ in range(2))
    for page in (working, waiting, late):
        page.locator("#chart-answer .chart-drawn .main-svg").first.wait_for()
    shown = price(late).inner_text()
    for i, page in enumerate((working, waiting, late)):  # texts that were not answered before
        page.locator("#product-text textarea").fill(f"a lamp of {i} pounds")
    predictor.asked.clear()
    predictor.go.clear()
    try:
        working.locator("#predict").click()
        assert predictor.asked.wait(60)
        for page, status in ((waiting, 200), (late, 429)):
            with page.expect_response(lambda r: "queue/join" in r.url) as answer:
                page.locator("#predict").click()
            assert answer.value.status == status
        expect(waiting.locator("#status .busy")).to_have_text(words.PLACE.format(before=1, seconds=1))
        sentence = text.QUEUE_FULL.format(seconds=1)  # a tiny model's
        expect(late.locator(".toast-body")).to_contain_text(sentence)
        expect(price(late)).to_have_text(shown)
        with pytest.raises(Exception, match="Queue is full! Please try again"):  # the client's own words
            gradio_client.Client(url, verbose=False).predict(TEXT, api_name="/predict")
        for way, body in (
            ("call/predict", {"data": [TEXT, "median", "shop"]}),
            ("call/v2/predict", {"product_text": TEXT}),
        ):
            answer = httpx.post(f"{url}gradio_api/{way}", json=body, trust_env=False)
            assert (answer.status_code, answer.json()["detail"]) == (503, sentence)
            assert answer.headers["retry-after"] == "1"
        for wrong in (
            {"data": 1},
            {"product_text": 7},
            {"data": []},
            {"fn_index": 0, "data": ["a lamp"]},
            [],
        ):
            answer = httpx.post(f"{url}gradio_api/call/v2/predict", json=wrong, trust_env=False)
            assert answer.status_code == 503
        assert call(url, ["a lamp that is kept", "median"])[0] == "complete"  # costs the model nothing
    finally:
        predictor.go.set()
    for page in (working, waiting):
        expect(page.locator("#stale")).to_be_hidden()
        expect(page.locator("#status .busy")).to_have_count(0)
        assert (page.errors, page.foreign) == ([], [])
    late.locator("#predict").click()
    expect(late.locator("#stale")).to_be_hidden()
    expect(late.locator("#status .busy")).to_have_count(0)
    assert all("429" in error for error in late.errors)
