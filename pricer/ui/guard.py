"""What keeps one visitor from taking everything: requests in a minute, bytes in a request, errands."""

from __future__ import annotations

import ipaddress
import json
import math
import re
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Any

import gradio as gr
from gradio.context import LocalContext
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pricer.errors import InputError
from pricer.llama.shared import SharedPredictor
from pricer.settings import Limits, Settings
from pricer.ui import text

SECONDS = 60.0
PLACE_SECONDS = 5  # until a place is free, where nothing tells
AWAY_SECONDS = 30  # that somebody is sent away for, at most
KNOWN_BYTES = 100_000  # of a request that is read to see whether its answer is kept
VISITORS = 10_000  # remembered at once: the latest ones
BODY_BYTES = 1_000_000  # of a request besides a product's text
BYTES_PER_CHAR = 12  # at most, as JSON escapes it
# The queue's parts, by Gradio's concurrency_id. Single texts all come in, to wait in the predictor's own line; whole
# batches, and texts taken apart, wait for each other and never in front of a single text.
MODEL_QUEUE, BATCH_QUEUE, PARTS_QUEUE = "model", "batch", "parts"
BATCHES_AT_ONCE = 2
THREADS, MOST_IN_LINE = 40, 200  # for everything else, and for those in the line
RELAY = re.compile(r"/file=\s*https?:", re.IGNORECASE)


class RequestLimit:
    """At most `most` requests of a visitor in any minute; 0: any number."""

    def __init__(self, most: int, clock: Callable[[], float] = time.monotonic):
        self.most, self._clock = most, clock
        self._times: OrderedDict[str, deque[float]] = OrderedDict()  # the visitor of the latest one is last
        self._lock = threading.Lock()

    def check(self, request: gr.Request) -> None:
        """Count a request. Raises InputError when it is one too many; then it does not count."""
        who = visitor(request)
        if not self.most or who is None:
            return
        now = self._clock()
        with self._lock:
            times = self._times.setdefault(who, deque())
            while times and times[0] <= now - SECONDS:
                times.popleft()
            if len(times) >= self.most:
                wait = math.ceil(times[0] + SECONDS - now)
                raise InputError(text.TOO_MANY.format(most=self.most, seconds=wait))
            times.append(now)
            self._times.move_to_end(who)
            while len(self._times) > VISITORS or next(iter(self._times.values()))[-1] <= now - SECONDS:
                self._times.popitem(last=False)


def visitor(request: gr.Request) -> str | None:
    """Who asks, as far as it can be told: None on this machine itself, which is not limited.

    An address on the internet is a visitor (uvicorn believes a proxy on this machine about it). A private one may
    be a proxy in front of everybody, as on a Space: there a page or a client is told by its session, which lasts
    until it is opened anew, and a program that asks by plain HTTP, with no session of its own, by the address.
    """
    try:
        address = ipaddress.ip_address(request.client.host)
    except (AttributeError, ValueError):  # a socket without an address
        return request.session_hash
    if address.is_loopback:
        return None
    if address.is_global and address.version == 6:  # a household has at least as many
        return str(ipaddress.ip_network((address, 64), strict=False))
    if address.is_global or "/call/" in request.url.path:
        return str(address)
    return request.session_hash or str(address)


def in_line(settings: Settings) -> dict[str, Any]:
    """For an event that asks both models about one text. On ZeroGPU one after the other asks for a card."""
    return {"concurrency_id": MODEL_QUEUE, "concurrency_limit": 1 if settings.zero_gpu else None}


def still_wanted() -> Callable[[], bool]:
    """Inside one of Gradio's events: whether whoever asked is still there for the answer. Their page or their program
    keeps a stream open for it, and Gradio tells its event when that is gone."""
    blocks, event_id = LocalContext.blocks.get(None), LocalContext.event_id.get(None)
    event = blocks._queue.event_ids_to_events.get(event_id) if blocks and event_id else None
    return lambda: event is None or event.alive


def places_taken(queue: Any) -> int:
    """How many of Gradio's events ask for the model or wait for their turn at anything else."""
    parts = queue.event_queue_per_concurrency_id
    return len(queue) + (parts[MODEL_QUEUE].current_concurrency if MODEL_QUEUE in parts else 0)


class Guard:
    """ASGI middleware: what is refused before Gradio has it.

    A body that is too long, as it arrives and without holding it in memory; uploads are files, which Gradio bounds
    itself (`max_file_size`), but one by one: here it is all of one request. And Gradio's way of fetching any public
    address of the web for whoever asks. One request more than there are places, or than are answered soon, in a sentence
    with the seconds to wait, later and later ones; but a text that costs the model nothing more comes in. A call by MCP,
    which Gradio makes anew from this machine, keeps the address that it came from.
    """

    def __init__(self, app: ASGIApp, limits: Limits, upload_bytes: int):
        self.app, self.upload_bytes, self.places = app, upload_bytes, limits.queue
        self.entering = 0  # requests for a place that Gradio has not taken in yet
        self.promised = 0.0  # when the last one that was sent away should find a place
        self.body_bytes = limits.text_chars * BYTES_PER_CHAR + BODY_BYTES

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        if RELAY.search(scope["path"]):
            return await PlainTextResponse(text.NO_RELAY, status_code=403)(scope, receive, send)
        most = self.upload_bytes if scope["path"].rstrip("/").endswith("/upload") else self.body_bytes
        too_large = PlainTextResponse(text.TOO_LARGE.format(megabytes=most / 1e6), status_code=413)
        length = dict(scope["headers"]).get(b"content-length", b"")
        if length.isdigit() and int(length) > most:
            return await too_large(scope, receive, send)
        if "/gradio_api/mcp" in scope["path"]:
            scope = _from_where_it_came(scope)
        if asks := _asks(scope):
            blocks = scope["app"].get_blocks()
            shared: SharedPredictor | None = getattr(blocks, "shared", None)
            places = self.entering + places_taken(blocks._queue)
            is_full = places > self.places  # one is at work
            if is_full or (shared and not shared.has_room(places)):
                short = length.isdigit() and int(length) <= KNOWN_BYTES
                body, receive = await _read(receive) if short else (b"", receive)
                if not (shared and _costs_nothing(shared, blocks, scope["path"], body, is_full)):
                    seconds = self._away(shared.seconds_to_a_place if shared else PLACE_SECONDS)
                    return await _full_queue(scope, seconds)(scope, receive, send)
        taken, refused = 0, False

        async def counted() -> Message:
            nonlocal taken, refused
            message = await receive()
            taken += len(message.get("body", b""))
            if taken > most and not refused:  # sent in pieces, without saying how long it will be
                refused = True
                await too_large(scope, receive, send)
            return {"type": "http.disconnect"} if refused else message

        async def once(message: Message) -> None:
            if not refused:
                await send(message)

        self.entering += asks
        try:
            await self.app(scope, counted, once)
        finally:
            self.entering -= asks

    def _away(self, each: float) -> int:
        """For how many seconds the next one is sent away, when a place is free every `each` seconds."""
        now = time.monotonic()
        self.promised = min(max(self.promised, now) + each, now + AWAY_SECONDS)
        return math.ceil(self.promised - now)


def _asks(scope: Scope) -> bool:
    """Whether the request is for a place in the queue."""
    return scope.get("method") == "POST" and (
        "/call/" in scope["path"] or scope["path"].endswith("/queue/join")
    )


async def _read(receive: Receive) -> tuple[bytes, Receive]:
    """A request's body, and what gives it once more."""
    messages, body = [], b""
    while not messages or messages[-1].get("more_body"):
        messages.append(await receive())
        body += messages[-1].get("body", b"")
    again = iter(messages)

    async def replay() -> Message:
        return next(again, None) or await receive()

    return body, replay


def _costs_nothing(shared: SharedPredictor, blocks: gr.Blocks, path: str, body: bytes, is_full: bool) -> bool:
    """Whether a request asks both models about one text that they were asked about before: its answer is kept or, where
    there is a place, others wait for it."""
    try:
        asked = json.loads(body)
        if path.endswith("/queue/join"):
            of_both = blocks.fns[asked["fn_index"]].concurrency_id == MODEL_QUEUE
        else:
            of_both = path.endswith("/predict")
        words = asked["product_text"] if "product_text" in asked else asked["data"][0]
        return of_both and (shared.knows(words) or (not is_full and shared.awaits(words)))
    except (ValueError, TypeError, AttributeError, LookupError, InputError):
        return False  # whatever it is, it waits as others do


def _full_queue(scope: Scope, seconds: int) -> JSONResponse:
    """503, as Gradio's clients for programs expect, which have a sentence of their own for it; its page, too, would
    show another than ours for that number."""
    program = "/call/" in scope["path"] or Headers(scope=scope).get("x-gradio-user") in ("api", "mcp")
    return JSONResponse(
        {"detail": text.QUEUE_FULL.format(seconds=seconds)},
        status_code=503 if program else 429,
        headers={"Retry-After": str(seconds)},
    )


def _from_where_it_came(scope: Scope) -> Scope:
    """With the caller's address as the only one that its headers name: they are sent along with the new request, and
    from this machine uvicorn believes them."""
    scope = scope | {"headers": list(scope["headers"])}
    headers = MutableHeaders(scope=scope)
    for name in ("forwarded", "x-forwarded-for", "x-forwarded-proto"):
        del headers[name]
    if scope.get("client"):
        headers["x-forwarded-for"] = scope["client"][0]
    return scope
