"""`pricer.score --engine ray` on one GPU and on several: rows per second, and whether the answers are the same.

    python -m bench.score_gpus [--workers 1 2] [--rows 6144] [--profile embedded]

Scores made-up products by the very engine that the command uses, once for each number of workers, and takes the rate
from the parts that come back once every worker has finished its first: starting Ray and loading models are not in it.
Without a card the workers share the CPUs, which shows only that it works. Prints a Markdown table.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Iterable
from datetime import date
from pathlib import Path
from types import SimpleNamespace

import ray
import torch

from bench.products import products
from pricer.errors import PricerError, report
from pricer.llama.adapter import load_adapter_card
from pricer.price.distribution import DEFAULT_RULE
from pricer.scoring.engine import Task
from pricer.scoring.ray import RayEngine
from pricer.settings import PASSES, PROFILES, Settings
from pricer.tables.stream import Source, open_source


def rate(arrivals: list[tuple[float, int]], workers: int) -> float:
    """Rows per second behind the first part of every worker; arrivals: (seconds, rows) of each part, in order."""
    if len(arrivals) <= workers:
        raise ValueError(f"{len(arrivals)} parts are too few for {workers} workers")
    return sum(rows for _, rows in arrivals[workers:]) / (arrivals[-1][0] - arrivals[workers - 1][0])


def measure(source: Source, task: Task, workers: int) -> tuple[float, float, list[dict]]:
    """Seconds in all with Ray's start, rows per second, and the added columns of every part."""
    start = time.perf_counter()
    engine = RayEngine(task, workers)
    arrivals, answers = [], []
    for part, columns in engine.score(source, SimpleNamespace(done={}), lambda scores: None):
        arrivals.append((time.perf_counter() - start, len(part.texts)))
        answers.append(columns)
        print(
            f"{workers} workers: part {part.number} of {len(part.texts)} rows after {arrivals[-1][0]:.1f} s",
            flush=True,
        )
    ray.shutdown()
    return arrivals[-1][0], rate(arrivals, workers), answers


def furthest(one: Iterable[dict], other: Iterable[dict]) -> float:
    """The largest difference between two runs' prices, in USD."""
    return max(
        abs(a - b)
        for first, second in zip(one, other, strict=True)
        for a, b in zip(first["tuned_usd"], second["tuned_usd"], strict=True)
    )


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.score_gpus", description=__doc__.split("\n")[0])
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rows", type=int, default=6144, help="made-up products, in parts of 512")
    parser.add_argument("--profile", choices=PROFILES)
    parser.add_argument("--passes", nargs="+", choices=PASSES, default=["tuned"])
    options = parser.parse_args(argv)
    try:
        settings = Settings.from_env(profile=options.profile)
        load_adapter_card(settings)
        task = Task(settings, tuple(options.passes), DEFAULT_RULE)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "products.parquet"
            products(options.rows, SimpleWords()).to_parquet(path)
            source = open_source(path, text_column="text", max_chars=settings.limits.text_chars)
            found = [(workers, *measure(source, task, workers)) for workers in options.workers]
    except PricerError as error:
        return report(error)
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    print(f"\n{device}; torch {torch.__version__}, ray {ray.__version__}; {date.today().isoformat()}.\n")
    print("| workers | rows | seconds in all | rows/s | of the first row's | furthest price |")
    print("|---|---|---|---|---|---|")
    _, _, alone, first = found[0]
    for workers, seconds, speed, answers in found:
        print(
            f"| {workers} | {options.rows:,} | {seconds:.0f} | {speed:.1f} | {speed / alone:.2f} "
            f"| ${furthest(first, answers):.2f} |"
        )
    return 0


class SimpleWords:
    """Counts words, a little fewer than a Llama's tokens: `products` only needs to know how long a text is."""

    def __call__(self, text: str, **_) -> dict[str, list[str]]:
        return {"input_ids": text.split()}


if __name__ == "__main__":
    sys.exit(main())
