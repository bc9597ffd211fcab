"""The app's address from the first moment on: a page that says that the models are loading, and opens by itself."""

from __future__ import annotations

import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from pricer.errors import SetupError
from pricer.settings import Settings

LOOK_SECONDS = 0.5  # between two looks of the waiting page
PAGE = f"""<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Pricer</title><style>
:root {{ color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif }}
body {{ display: grid; place-content: center; min-height: 90vh; text-align: center; margin: 1rem }}
</style>
<h1>Pricer</h1><p role="status">The models are loading, which takes some seconds. This page then opens by itself.</p>
<noscript><p>Without JavaScript it does not: load it again in a moment.</p></noscript>
<script>
setInterval(async () => {{
  try {{
    if ((await fetch(location.href, {{ cache: "no-store" }})).ok) location.reload();
  }} catch {{}}  // the moment in between
}}, {LOOK_SECONDS * 1000:.0f});
</script></html>""".encode()


class Opening:
    """Answers at the settings' address until `close`: with status 503, so that nothing takes it for the app.

    Raises SetupError when the address cannot be had.
    """

    def __init__(self, settings: Settings):
        try:
            self._server = _Server((settings.host, settings.port), _Answer)
        except OSError as error:
            raise SetupError(
                f"Port {settings.port} on {settings.host} cannot be used ({error.strerror}): choose another one, "
                f"for example PORT={settings.port % 65535 + 1}."
            ) from error
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False  # a visitor's open connection does not hold the app up

    def server_bind(self) -> None:
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)  # and no look-up of this machine's name
        self.server_name, self.server_port = self.server_address[:2]


class _Answer(BaseHTTPRequestHandler):
    timeout = 5  # seconds that a silent connection stays

    def do_GET(self) -> None:
        self.send_response(503)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(PAGE)))
        self.send_header("Retry-After", "1")
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        self.wfile.write(PAGE)

    def log_message(self, *_: object) -> None:
        pass
