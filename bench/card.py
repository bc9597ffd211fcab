"""The shape of Llama 3.1 8B on one card, in one go: the speed of both passes, fifty visitors at once, and longer files.

    python -m bench.card --tokenizer FOLDER --out out/card

The model and what is put in its answers' place are those of `bench.score_8b`; FOLDER holds a Llama 3 tokenizer. Four parts,
each with its own time, and one that fails keeps none of the others:

- speed: variants of `bench.score_8b`, transformers' forward pass beside our own;
- load: --clients threads ask the predictor that the app asks (`pricer.llama.shared`) for --load-seconds, each in turn a
  new text and one of 20 that all ask for, and read all that the app's endpoint says of it. The answers' prices hang on the
  text here: the model's own probabilities of the price tokens, times those made up. Some of the answers are held against a
  direct prediction of their text, for the log-mean and the mean, to 2 %, since bf16 rounds otherwise in another batch;
- kernels: what the card spends its time on in one batch of each pass;
- growth: pricer.score on longer and longer files with the tuned pass (`bench.growth`).

Prints lines of JSON as it goes, into the folder as well, and a Markdown table after each part.
"""

from __future__ import annotations

import argparse
import json
import logging
import random
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from bench import growth
from bench.load import RULE, Answered, Load, orders_of
from bench.machine import peak_memory
from bench.products import TEXT_TOKENS
from bench.score_8b import GOES_ON, TRANSFORMERS, Bench, arguments, measure_all, peak, prepare, table
from bench.shape_8b import Rehearsal, clear, say
from pricer.llama.predictor import Predictor
from pricer.llama.shared import SharedPredictor
from pricer.price.lattice import ROOT
from pricer.settings import PASSES, Settings

ONLY = (
    TRANSFORMERS,
    "dequantised",
    "nf4",
    "dequantised, three in flight",
    "dequantised, 32k tokens",
)
KERNELS = 16  # rows of the table of what takes the card's time
NEW = 120  # texts of each client alone, at most
CHECKED = 200  # answers that are held against a direct prediction
NEAR = 0.02  # of a price
CHECKED_RULES = ("log-mean", "mean")


class Visited(Rehearsal):
    """A rehearsed model of both passes whose prices hang on the text."""

    def _grow(self, llama, ids, batch, growth):
        steps = super()._grow(llama, ids, batch, growth)
        goes_on = GOES_ON["tuned" if growth.probes else "base"]
        while True:
            self.goes_on = goes_on  # of the answers that the next step reads
            try:
                next(steps)
            except StopIteration:
                return
            yield

    def _watched_probabilities(self, llama, hidden, nodes):
        found = Predictor._watched_probabilities(self, llama, hidden, nodes)

        def answer() -> np.ndarray:
            own = found()  # waits for the card
            if not (nodes == ROOT).any():
                return np.broadcast_to(self.goes_on, own.shape)
            prices = self._spread(1) * own[:, 0, self._prices]
            made_up = np.zeros(own.shape)
            made_up[:, 0, self._prices] = prices / prices.sum(axis=1, keepdims=True)
            return made_up

        return answer


# Load ----------------------------------------------------------------------------------------------------


def put_load(shared: SharedPredictor, orders: Sequence[Iterator[tuple[str, bool]]], seconds: float) -> Load:
    """A thread for each order, which asks until the time is over, and for its last answer beyond it."""
    load, until = Load(), time.perf_counter() + seconds

    def client(number: int, texts: Iterator[tuple[str, bool]]) -> None:
        for text, new in texts:
            if (start := time.perf_counter()) >= until:
                return
            try:
                answer = shared.compare(text).to_dict(RULE)
            except Exception as error:  # one that is lost is counted, and the others go on
                load.failed.append(f"client {number}: {type(error).__name__}: {error}")
                continue
            load.answered.append(Answered(number, text, new, answer, time.perf_counter() - start))

    threads = [
        threading.Thread(target=client, args=one, name=f"client-{one[0]}") for one in enumerate(orders)
    ]
    with peak_memory() as load.memory:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    return load


def near(answer: dict[str, Any], expected: dict[str, Any]) -> bool:
    return all(
        abs(answer[which]["rules"][rule] - price) <= NEAR * price
        for which in PASSES
        for rule in CHECKED_RULES
        for price in [expected[which]["rules"][rule]]
    )


def check(load: Load, predictor: Predictor) -> float:
    """Hold some of the answers against direct predictions; how many pairs of other texts' answers would pass for each
    other, of all."""
    answers = random.Random(0).sample(load.answered, min(CHECKED, len(load.answered)))
    texts = list(dict.fromkeys(one.text for one in answers))
    prompts = [predictor.prepare(text) for text in texts]
    passes = {which: predictor.predict(prompts, which) for which in PASSES}
    expected = {
        text: {which: passes[which][i].to_dict(RULE) for which in PASSES} for i, text in enumerate(texts)
    }
    load.wrong += [
        f"client {one.client} got another answer"
        for one in answers
        if not near(one.answer, expected[one.text])
    ]
    alike = [near(a, b) for a, b in combinations(expected.values(), 2)]
    return float(np.mean(alike)) if alike else float("nan")


def load_part(bench: Bench, options: argparse.Namespace) -> None:
    predictor = Visited(bench.pair)
    shared = SharedPredictor(
        predictor, together=options.together, window_s=None if bench.pair.device.type == "cuda" else 0.02
    )
    say("texts for the load are made up")
    orders = orders_of(options.clients, predictor, NEW if options.shape == "8b" else 3)
    for which in PASSES:  # warms up
        predictor.predict([predictor.prepare(f"{n} lamps") for n in range(40)], which)
    clear()
    say(f"{options.clients} clients for {options.load_seconds:g} s")
    load = put_load(shared, orders, options.load_seconds)
    card = peak()
    by_chance = check(load, predictor)
    level, grown = load.grown
    row = {
        "clients": options.clients,
        "seconds": options.load_seconds,
        "answered": len(load.answered),
        "new": sum(one.new for one in load.answered),
        "checked": min(CHECKED, len(load.answered)),
        "wrong": len(load.wrong),
        "alike by chance": round(by_chance, 4),
        "failed": len(load.failed),
        "p50_s": round(load.percentile(50), 3),
        "p95_s": round(load.percentile(95), 3),
        "p50_new_s": round(load.percentile(50, True), 3),
        "p95_new_s": round(load.percentile(95, True), 3),
        "memory_mb": round(level / 1e6),
        "grown_mb": round(grown / 1e6, 1),
    }
    write(options.out / "load.jsonl", row | card)
    for words in load.failed[:5]:
        say(words)
    say(markdown([row | card]))


# Kernels -------------------------------------------------------------------------------------------------


def kernels_part(bench: Bench) -> None:
    from torch.profiler import ProfilerActivity, profile

    on_a_card = bench.pair.device.type == "cuda"
    for which in PASSES:
        predictor, prompts = bench.predictor(which), bench.prompts[:110]
        predictor.predict(prompts, which)
        activities = [ProfilerActivity.CUDA] if on_a_card else [ProfilerActivity.CPU]
        with profile(activities=activities) as seen:
            predictor.predict(prompts, which)
        column = "self_cuda_time_total" if on_a_card else "self_cpu_time_total"
        say(
            f"{which}, {len(prompts)} items\n"
            + seen.key_averages().table(sort_by=column, row_limit=KERNELS, max_name_column_width=90)
        )


# Growth --------------------------------------------------------------------------------------------------


def growth_part(bench: Bench, settings: Settings, options: argparse.Namespace) -> None:
    predictor = bench.predictor("tuned")
    until, rate, rows = time.perf_counter() + options.growth_seconds, 0.0, []
    with tempfile.TemporaryDirectory() as folder:
        for items in options.lengths:
            if rate and time.perf_counter() + items * rate > until:
                say(f"growth to {items:,}: no time")
                break
            clear()
            [row] = growth.grow(settings, TEXT_TOKENS, [items], Path(folder), predictor)
            rate = row["seconds"] / items
            rows.append(row | {"items_per_second": round(1 / rate, 1)} | peak())
            write(options.out / "growth.jsonl", rows[-1])
    say(markdown(rows))


# All of it -----------------------------------------------------------------------------------------------


def write(path: Path, row: dict[str, Any]) -> None:
    say(json.dumps(row))
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")


def markdown(rows: Sequence[dict[str, Any]]) -> str:
    lines = [list(rows[0]), ["---"] * len(rows[0]), *(row.values() for row in rows)]
    return "\n".join(["", *(f"| {' | '.join(map(str, line))} |" for line in lines)])


def attempt(part: str, work: Callable[[], None]) -> bool:
    """Whether a part came to its end; what broke it is printed."""
    start = time.perf_counter()
    try:
        work()
    except Exception:
        traceback.print_exc()
        say(f"{part} FAILED after {time.perf_counter() - start:.0f} s")
        return False
    say(f"{part}: {time.perf_counter() - start:.0f} s")
    return True


def main(argv: list[str] | None = None) -> int:
    parser = arguments(
        argparse.ArgumentParser(prog="python -m bench.card", description=__doc__.split("\n")[0])
    )
    parser.set_defaults(only=ONLY, budgets=[32768], growth=[])
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--load-seconds", type=float, default=40)
    parser.add_argument(
        "--together", type=int, help="texts of the line in one pass, at most; default: the app's"
    )
    parser.add_argument(
        "--lengths", type=int, nargs="*", default=[1000, 10_000, 20_000], help="items of the files"
    )
    parser.add_argument("--growth-seconds", type=float, default=150, help="for all of them")
    options = parser.parse_args(argv)
    logging.basicConfig()
    logging.getLogger("pricer").setLevel(logging.INFO)  # why our pass does not serve, or its kernels
    bench, settings, base, tokenizer = prepare(options)
    say(f"our pass, between its products: {getattr(bench.pair.card, 'ways', None)}")
    good = attempt("speed", lambda: measure_all(bench, settings, base, tokenizer, options))
    say("\n" + table(bench.results))
    if bench.pair.card is None or any(
        r["variant"] == "dequantised" and "left_out" in r for r in bench.results
    ):
        say("our pass does not serve here: why not stands above; from here on transformers' does")
        bench.pair.card = None
    good &= attempt("kernels", lambda: kernels_part(bench))
    good &= attempt("load", lambda: load_part(bench, options))
    good &= attempt("growth", lambda: growth_part(bench, settings, options))
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
