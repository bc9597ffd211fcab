"""A file that the server makes and the browser saves, without a copy on the server's disk.

saved = Download()
button.click(lambda: Download.file("prices.csv", "index,guess\n"), None, saved)
"""

from __future__ import annotations

import base64
import json
import time

from pricer.ui.scripted import Unseen


class Download(Unseen):
    @staticmethod
    def file(name: str, content: str | bytes) -> str:
        """The value that saves text or bytes as `name`; each is another one, so that the same file can be saved twice."""
        text = content if isinstance(content, str) else None
        data = base64.b64encode(content).decode() if text is None else None
        return json.dumps({"name": name, "text": text, "data": data, "at": time.time_ns()})
