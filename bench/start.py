"""How long a start takes, warm: the app until its page answers, and one text on the command line.

python -m bench.start [--repeats 5]

Each time in a fresh process, from its start to its page's status 200 or to its end; the median and the best, as rows for
bench/README.md. For what is imported meanwhile: python -X importtime -m pricer "a text".
"""

from __future__ import annotations

import argparse
import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from statistics import median

import httpx

from bench.machine import about, sentence

TEXT = "Cordless drill driver kit with two 20V batteries, charger and carrying case"
LOOK_SECONDS = 0.03


def one_text() -> float:
    """Seconds of `python -m pricer` for one text."""
    start = time.perf_counter()
    subprocess.run([sys.executable, "-m", "pricer", TEXT], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def app() -> float:
    """Seconds until the app's own page is there, in place of the one that says that the models are loading."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    start = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "app.py"],
        env=os.environ | {"HOST": "127.0.0.1", "PORT": str(port)},
        stdout=subprocess.DEVNULL,
    )
    try:
        while process.poll() is None:
            with contextlib.suppress(httpx.HTTPError):
                if httpx.get(f"http://127.0.0.1:{port}/", timeout=60, trust_env=False).status_code == 200:
                    return time.perf_counter() - start
            time.sleep(LOOK_SECONDS)
        raise SystemExit("The app ended before its page was there: start it by hand with python app.py.")
    finally:
        process.terminate()
        process.wait()


def row(name: str, run: Callable[[], float], repeats: int) -> str:
    seconds = [run() for _ in range(repeats)]
    return f"| {name} | {median(seconds):.1f} s | {min(seconds):.1f} s |"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.start", description=__doc__.split("\n")[0])
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats
    print(sentence(about(("torch", "transformers", "gradio"))))
    print("\n| start | median | best |\n|---|---|---|")
    one_text()  # the files are in memory from here on
    print(row("`python -m pricer`, one text", one_text, repeats))
    print(row("the app, until its page answers", app, repeats))


if __name__ == "__main__":
    main()
