"""The app under load: clients that all ask at once for a while, every answer checked against a direct prediction.

python -m bench.load [--clients 50] [--seconds 60] [--profile embedded] [--url http://127.0.0.1:7860]

Starts the app on this machine, in a process of its own, or asks the one at --url, which must have the same models.
Each client has its own order of texts and asks the endpoint that programs use, one text after the other; told that
the queue is full, it comes back after a second. Requests that are in line when the time is over still get their answer.
Prints a row for bench/README.md; exit code 1 when an answer was wrong or missing, or memory grew.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import os
import random
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil

from bench.machine import about, sentence
from bench.products import products
from pricer.errors import SetupError, report
from pricer.llama.predictor import Predictor, load_predictor
from pricer.settings import PASSES, PROFILES, Settings

ROOT = Path(__file__).resolve().parents[1]
TEXTS = 40  # in all
RULE = "log-mean"
START_SECONDS = 600  # for a machine that prepares the base for the first time
COME_BACK_SECONDS = 1.0
SAMPLE_SECONDS = 0.25  # between two looks at the app's memory
GROWTH = 0.02  # of the memory after the warm-up: more is no longer flat
GROWTH_BYTES = 32_000_000  # what one prediction may need for a moment
PACKAGES = ("gradio", "torch", "transformers")


@dataclass
class Load:
    """What came of it. `wrong`: answers to another text; `failed`: anything that is neither answer nor refusal;
    `refusals`: the different sentences. Memory in bytes, sampled over the run."""

    seconds: list[float] = field(default_factory=list)  # of each answer, from asking to having it
    refused: int = 0
    refusals: set[str] = field(default_factory=set)
    wrong: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    memory: list[int] = field(default_factory=list)

    def percentile(self, percent: float) -> float:
        return float(np.percentile(self.seconds, percent)) if self.seconds else float("nan")

    @property
    def grown(self) -> tuple[float, float]:
        """(memory after the warm-up, what the last quarter of the run has more): medians of quarters, in bytes."""
        if len(self.memory) < 8:
            return float("nan"), float("nan")
        quarters = np.array_split(np.array(self.memory, float), 4)
        level = float(np.median(quarters[1]))
        return level, float(np.median(quarters[3])) - level

    def complaints(self) -> list[str]:
        level, growth = self.grown
        found = [*self.wrong, *self.failed]
        if not self.seconds:
            found.append("no request was answered")
        if growth > max(GROWTH * level, GROWTH_BYTES):
            found.append(f"memory grew by {growth / 1e6:,.0f} MB")
        return found


def expected_answers(predictor: Predictor, count: int = TEXTS) -> dict[str, dict[str, Any]]:
    """Made-up texts and their direct predictions; no two have the same, so that a mixed-up answer is noticed."""
    found: dict[str, dict[str, Any]] = {}
    for text in products(count, predictor.pair.tokenizer, seed=1)["text"]:
        answer = predictor.compare(text).to_dict(RULE)
        if not any(same(answer, other) for other in found.values()):
            found[text] = answer
    return found


def same(answer: dict[str, Any], expected: dict[str, Any]) -> bool:
    """Whether all prices of both models agree to a thousandth and a cent, and the intervals to a dollar."""
    return all(
        answer[which]["rules"].keys() == expected[which]["rules"].keys()
        and all(
            abs(price - expected[which]["rules"][rule]) <= 0.011 + 0.001 * price
            for rule, price in answer[which]["rules"].items()
            if rule
            not in ("mode", "best-hit", "top-3")  # which may jump between prices of the same probability
        )
        and all(abs(answer[which][end] - expected[which][end]) <= 1 for end in ("low_usd", "high_usd"))
        for which in PASSES
    )


# Clients -------------------------------------------------------------------------------------------------


async def ask(http: httpx.AsyncClient, text: str) -> tuple[str, Any]:
    """("answer", what the model says), ("refused", a sentence) or ("failed", what happened)."""
    asked = await http.post("/gradio_api/call/v2/predict", json={"product_text": text, "rule": RULE})
    if asked.status_code == 503:
        sentence = str(asked.json().get("detail", ""))
        return "refused" if is_sentence(sentence) else "failed", sentence
    if asked.status_code != 200:
        return "failed", f"status {asked.status_code}: {asked.text[:200]}"
    kind = ""
    async with http.stream("GET", f"/gradio_api/call/predict/{asked.json()['event_id']}") as answer:
        async for line in answer.aiter_lines():
            name, _, value = line.partition(": ")
            if name == "event":
                kind = value
            elif name == "data" and kind == "complete":
                return "answer", json.loads(value)[0]
            elif name == "data" and kind == "error":
                return "failed", value[:200]
    return "failed", "the answer broke off"


def is_sentence(words: str) -> bool:
    return words.endswith(".") and "\n" not in words and "Traceback" not in words


async def client(
    number: int, http: httpx.AsyncClient, expected: dict[str, dict], load: Load, until: float
) -> None:
    texts = random.Random(number).sample(list(expected), len(expected))
    for text in itertools.cycle(texts):
        if (start := time.perf_counter()) >= until:
            return
        try:
            kind, said = await ask(http, text)
        except httpx.HTTPError as error:
            kind, said = "failed", f"{type(error).__name__}: {error}"
        if kind == "answer":
            load.seconds.append(time.perf_counter() - start)
            if not same(said, expected[text]):
                load.wrong.append(f"client {number} got another text's answer")
        elif kind == "refused":
            load.refused += 1
            load.refusals.add(said)
            await asyncio.sleep(COME_BACK_SECONDS)
        else:
            load.failed.append(f"client {number}: {said}")
            await asyncio.sleep(COME_BACK_SECONDS)


async def watch(process: psutil.Process, memory: list[int]) -> None:
    while True:
        with contextlib.suppress(psutil.NoSuchProcess):
            memory.append(sum(p.memory_info().rss for p in [process, *process.children(recursive=True)]))
        await asyncio.sleep(SAMPLE_SECONDS)


async def put_load(
    url: str, expected: dict[str, dict], clients: int, seconds: float, process: psutil.Process | None = None
) -> Load:
    """`clients` ask the app at `url` for `seconds`; `process` is the app's, whose memory is looked at."""
    load = Load()
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=clients)
    async with httpx.AsyncClient(base_url=url, timeout=600, limits=limits, trust_env=False) as http:
        watching = asyncio.create_task(watch(process, load.memory)) if process else None
        until = time.perf_counter() + seconds
        await asyncio.gather(*(client(number, http, expected, load, until) for number in range(clients)))
        if watching:
            watching.cancel()
    return load


# The app -------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def running_app(**variables: str) -> Iterator[tuple[str, psutil.Process, Path]]:
    """The app of this checkout on a free port, from its first page on: its address, process and log.

    Raises SetupError when it does not start."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        environment = os.environ | {"HOST": "127.0.0.1", "PORT": str(port)} | variables
        with log.open("wb") as out:
            process = subprocess.Popen(
                [sys.executable, "app.py"], cwd=ROOT, env=environment, stdout=out, stderr=subprocess.STDOUT
            )
        try:
            url = f"http://127.0.0.1:{port}"
            _wait(url, process, log)
            yield url, psutil.Process(process.pid), log
        finally:
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait(url: str, process: subprocess.Popen, log: Path) -> None:
    until = time.monotonic() + START_SECONDS
    while process.poll() is None and time.monotonic() < until:
        with contextlib.suppress(httpx.HTTPError):
            if httpx.get(url, timeout=30, trust_env=False).status_code == 200:
                return
        time.sleep(0.3)
    last = log.read_text(errors="replace").strip().splitlines()[-1:] or ["it said nothing"]
    raise SetupError(f"The app did not start ({last[0]}): start it by hand with python app.py.")


# Result --------------------------------------------------------------------------------------------------


def table(load: Load, label: str, clients: int, seconds: float) -> str:
    """What ran where, and below it head and row in Markdown, as bench/README.md has them."""
    level, growth = load.grown
    cells = {
        "models": label,
        "clients": clients,
        "seconds": f"{seconds:g}",
        "answered": len(load.seconds),
        "told to come back": load.refused,
        "wrong": len(load.wrong),
        "failed": len(load.failed),
        "p50": f"{load.percentile(50):.2f} s",
        "p95": f"{load.percentile(95):.2f} s",
        "memory, and its growth": f"{level / 1e6:,.0f} MB, {growth / 1e6:+,.0f} MB",
    }
    rows = (cells, ["---"] * len(cells), cells.values())
    lines = [f"| {' | '.join(map(str, row))} |" for row in rows]
    return "\n".join([sentence(about(PACKAGES)), "", *lines])


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.load", description=__doc__.split("\n")[0])
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--profile", choices=PROFILES, help="default: PRICER_PROFILE")
    parser.add_argument("--url", help="of a running app, in place of one of our own")
    options = parser.parse_args(argv)
    log = ""
    try:
        settings = Settings.from_env(profile=options.profile)
        expected = expected_answers(load_predictor(settings))
        print(f"{len(expected)} texts with different answers", file=sys.stderr)
        if options.url:
            load = asyncio.run(put_load(options.url, expected, options.clients, options.seconds))
        else:
            with running_app(PRICER_PROFILE=settings.profile) as (url, process, path):
                load = asyncio.run(put_load(url, expected, options.clients, options.seconds, process))
                log = path.read_text(errors="replace")
    except SetupError as error:
        return report(error)
    print(table(load, settings.label, options.clients, options.seconds))
    for words in load.refusals:
        print(f"refused with: {words}", file=sys.stderr)
    complaints = load.complaints()
    if "Traceback" in log:
        complaints.append(f"the app wrote a traceback: {log[log.index('Traceback') :][:2000]}")
    for complaint in complaints[:20]:
        print(complaint, file=sys.stderr)
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main())
