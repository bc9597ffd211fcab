"""The app under load: clients that all ask at once for a while, every answer checked against a direct prediction.

python -m bench.load [--clients 50] [--seconds 60] [--profile embedded] [--url http://127.0.0.1:7860]

Starts the app on this machine, in a process of its own, or asks the one at --url, which must have the same models.
Each client asks the endpoint that programs use, one text after the other: in turn one that nobody asks but this client,
once, and one of a few that all ask for again and again. Told that the queue is full, it comes back when it is told to.
Requests that are in line when the time is over still get their answer. When all have theirs, each is held against a
direct prediction of its text. Prints a row for bench/README.md; exit code 1 when an answer was wrong or missing, or
memory grew.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil

from bench.machine import about, sentence
from bench.products import products
from pricer.errors import SetupError, report
from pricer.llama.prediction import Comparison
from pricer.llama.predictor import Predictor, load_predictor
from pricer.settings import PASSES, PROFILES, Settings

ROOT = Path(__file__).resolve().parents[1]
REPEATED, NEW = 20, 30  # texts that all ask for; of each client alone, at most
RULE = "log-mean"
START_SECONDS = 600  # for a machine that prepares the base for the first time
AFTER_A_FAILURE = 1.0  # seconds until it asks again
SAMPLE_SECONDS = 0.25  # between two looks at the app's memory
GROWTH = 0.02  # of the memory after the warm-up: more is no longer flat
GROWTH_BYTES = 32_000_000  # what one prediction may need for a moment
PACKAGES = ("gradio", "torch", "transformers")


@dataclass
class Answered:
    """`seconds` from asking to having it; `new`: whether nobody had asked for the text."""

    client: int
    text: str
    new: bool
    answer: dict[str, Any]
    seconds: float


@dataclass
class Load:
    """What came of it. `wrong`: answers to another text; `failed`: anything that is neither answer nor refusal;
    `refusals`: the different sentences. Memory in bytes, sampled over the run."""

    answered: list[Answered] = field(default_factory=list)
    refused: int = 0
    refusals: set[str] = field(default_factory=set)
    wrong: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    memory: list[int] = field(default_factory=list)

    def percentile(self, percent: float, new: bool | None = None) -> float:
        """Of the seconds; of new texts alone, or of the others."""
        seconds = [one.seconds for one in self.answered if new in (None, one.new)]
        return float(np.percentile(seconds, percent)) if seconds else float("nan")

    def check(self, expected: dict[str, dict[str, Any]]) -> None:
        """Hold every answer against the direct prediction of its text."""
        for one in self.answered:
            if not same(one.answer, expected[one.text]):
                prices = [
                    f"{which} ${said[which]['price_usd']:.2f} ({said[which]['low_usd']:.0f} to {said[which]['high_usd']:.0f})"
                    for said in (one.answer, expected[one.text])
                    for which in PASSES
                ]
                self.wrong.append(
                    f"client {one.client} got another text's answer: {', '.join(prices[:2])}, and not "
                    f"{', '.join(prices[2:])} ({one.text[:20]!r}...)"
                )

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
        if not self.answered:
            found.append("no request was answered")
        if growth > max(GROWTH * level, GROWTH_BYTES):
            found.append(f"memory grew by {growth / 1e6:,.0f} MB")
        return found


def expected_answers(predictor: Predictor, texts: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Direct predictions."""
    texts = list(dict.fromkeys(texts))
    prompts = [predictor.prepare(text) for text in texts]
    passes = {which: predictor.predict(prompts, which) for which in PASSES}
    return {
        text: Comparison(prompts[i], **{which: passes[which][i] for which in PASSES}).to_dict(RULE)
        for i, text in enumerate(texts)
    }


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
    """("answer", what the model says), ("refused", (a sentence, seconds)) or ("failed", what happened)."""
    asked = await http.post("/gradio_api/call/v2/predict", json={"product_text": text, "rule": RULE})
    if asked.status_code == 503:
        sentence, seconds = str(asked.json().get("detail", "")), asked.headers.get("retry-after", "")
        if is_sentence(sentence) and seconds.isdigit():
            return "refused", (sentence, int(seconds))
        return "failed", sentence
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


def order(number: int, repeated: Sequence[str], new: Sequence[str]) -> Iterator[tuple[str, bool]]:
    """What one client asks for, in turn a new text and a repeated one: (text, whether it is new)."""
    others = random.Random(number)
    for text in new:
        yield text, True
        yield others.choice(repeated), False
    while True:
        yield others.choice(repeated), False


def orders_of(clients: int, predictor: Predictor, new: int = NEW) -> list[Iterator[tuple[str, bool]]]:
    """Every client's order, of made-up texts; `new`: of them its own."""
    texts = list(products(REPEATED + clients * new, predictor.pair.tokenizer, seed=1)["text"])
    repeated = texts[:REPEATED]
    return [order(n, repeated, texts[REPEATED + n * new :][:new]) for n in range(clients)]


async def client(
    number: int, http: httpx.AsyncClient, texts: Iterator[tuple[str, bool]], load: Load, until: float
) -> None:
    for text, new in texts:
        if (start := time.perf_counter()) >= until:
            return
        while True:
            try:
                kind, said = await ask(http, text)
            except httpx.HTTPError as error:
                kind, said = "failed", f"{type(error).__name__}: {error}"
            if kind == "answer":
                load.answered.append(Answered(number, text, new, said, time.perf_counter() - start))
                break
            pause = AFTER_A_FAILURE
            if kind == "refused":
                load.refused += 1
                sentence, pause = said
                load.refusals.add(sentence)
            else:
                load.failed.append(f"client {number}: {said}")
            await asyncio.sleep(pause)
            if (start := time.perf_counter()) >= until:
                return


async def watch(process: psutil.Process, memory: list[int]) -> None:
    while True:
        with contextlib.suppress(psutil.NoSuchProcess):
            memory.append(sum(p.memory_info().rss for p in [process, *process.children(recursive=True)]))
        await asyncio.sleep(SAMPLE_SECONDS)


async def put_load(
    url: str, orders: Sequence[Iterator], seconds: float, process: psutil.Process | None = None
) -> Load:
    """Clients, each with its order of texts, ask the app at `url` for `seconds`; `process` is the app's, whose memory is
    looked at."""
    load = Load()
    # A client that was away for seconds may find that the server has closed its connection.
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=len(orders), keepalive_expiry=2)
    async with httpx.AsyncClient(base_url=url, timeout=600, limits=limits, trust_env=False) as http:
        watching = asyncio.create_task(watch(process, load.memory)) if process else None
        until = time.perf_counter() + seconds
        await asyncio.gather(*(client(n, http, texts, load, until) for n, texts in enumerate(orders)))
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
        "answered": len(load.answered),
        "of them new": sum(one.new for one in load.answered),
        "told to come back": load.refused,
        "wrong": len(load.wrong),
        "failed": len(load.failed),
        "p50": f"{load.percentile(50):.2f} s",
        "p95": f"{load.percentile(95):.2f} s",
        "p50 new / repeated": f"{load.percentile(50, True):.2f} / {load.percentile(50, False):.2f} s",
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
        predictor = load_predictor(settings)
        orders = orders_of(options.clients, predictor)
        if options.url:
            load = asyncio.run(put_load(options.url, orders, options.seconds))
        else:
            with running_app(PRICER_PROFILE=settings.profile) as (url, process, path):
                load = asyncio.run(put_load(url, orders, options.seconds, process))
                log = path.read_text(errors="replace")
        load.check(expected_answers(predictor, (one.text for one in load.answered)))
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
