"""What keeps one visitor from taking everything: requests in a minute, bytes in a request, errands."""

from __future__ import annotations

import ipaddress
import math
import re
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable

import gradio as gr
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pricer.errors import InputError
from pricer.settings import Limits
from pricer.ui import text

SECONDS = 60.0
VISITORS = 10_000  # remembered at once: the latest ones
BODY_BYTES = 1_000_000  # of a request besides a product's text
BYTES_PER_CHAR = 12  # at most, as JSON escapes it
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


class Guard:
    """ASGI middleware: what is refused before Gradio has it.

    A body that is too long, as it arrives and without holding it in memory; uploads are files, which Gradio bounds
    itself (`max_file_size`), but one by one: here it is all of one request. And Gradio's way of fetching any public
    address of the web for whoever asks.
    """

    def __init__(self, app: ASGIApp, limits: Limits, upload_bytes: int):
        self.app, self.upload_bytes = app, upload_bytes
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

        await self.app(scope, counted, once)
