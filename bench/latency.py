"""How long the page's answer takes: both models over one text of about 200 tokens, on this machine.

python -m bench.latency [--repeats 20] [--busy 1] [--profile embedded] [--why]

--busy: so many processes compute beside it all the time, as on a shared machine. --why: also how long it takes to say
what each of twelve phrases adds to the price, the fine-tuned model's first, as on the page.
"""

from __future__ import annotations

import argparse
import multiprocessing
import time
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import median

import psutil

from bench.products import products
from pricer.llama.explain import leave_each_out
from pricer.llama.predictor import Predictor, load_predictor
from pricer.settings import PASSES, PROFILES, Settings

TEXT_TOKENS = (200, 200)
PHRASES = (
    "Sturdy folding workbench with clamps. Holds up to 350 pounds. Steel frame with bamboo top. Two adjustable jaws. "
    "Non-skid rubber feet. Folds flat for storage. Weighs 28 pounds. Includes four swivel pegs. Measuring scale printed "
    "on the edge. Side handle for carrying. Assembled height 31 inches. One year warranty from the maker."
)


def _compute() -> None:
    while True:
        sum(range(100_000))


@contextmanager
def busy(processes: int) -> Iterator[None]:
    """So many processes that never rest, meanwhile."""
    others = [
        multiprocessing.get_context("spawn").Process(target=_compute, daemon=True) for _ in range(processes)
    ]
    for other in others:
        other.start()
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.join()


def why(predictor: Predictor) -> Iterator[tuple[str, float]]:
    """Seconds from the question to the first phrases, to all of the fine-tuned model's, and to all of both models'."""
    prompt, start, first = predictor.prepare(PHRASES), time.perf_counter(), True
    for which in reversed(PASSES):
        for _ in leave_each_out(predictor, prompt, which):
            if first:
                yield "first", time.perf_counter() - start
            first = False
        yield which, time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.latency", description=__doc__.split("\n")[0])
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--busy", type=int, default=0, metavar="PROCESSES")
    parser.add_argument("--profile", choices=PROFILES)
    parser.add_argument("--why", action="store_true")
    options = parser.parse_args()
    start = time.perf_counter()
    predictor = load_predictor(Settings.from_env(profile=options.profile))
    loading = time.perf_counter() - start
    texts = products(8, predictor.pair.tokenizer, tokens=TEXT_TOKENS)["text"]
    ids = predictor.pair.tokenizer([predictor.prepare(text).text for text in texts])["input_ids"]
    tokens = sum(map(len, ids)) / len(ids)
    predictor.compare(texts[0])  # the first one warms caches up
    both, each = [], {"base": [], "tuned": []}
    with busy(options.busy):
        for i in range(options.repeats):
            start = time.perf_counter()
            answer = predictor.compare(texts[i % len(texts)])
            both.append(time.perf_counter() - start)
            for which, seconds in each.items():
                seconds.append(getattr(answer, which).seconds)
        runs = [dict(why(predictor)) for _ in range(3)] if options.why else []
    memory = psutil.Process().memory_info().rss / 1e9
    print(f"prompts of {tokens:.0f} tokens; loading {loading:.1f} s; resident memory {memory:.2f} GB")
    for name, seconds in {**each, "both": both}.items():
        print(
            f"{name:<6} median {median(seconds):.2f} s   best {min(seconds):.2f} s   worst {max(seconds):.2f} s"
        )
    if runs:
        found = {name: median(run[name] for run in runs) for name in runs[0]}
        print(
            f"why, median of {len(runs)}: first phrases {found['first']:.1f} s, fine-tuned {found['tuned']:.1f} s, "
            f"both {found['base']:.1f} s"
        )


if __name__ == "__main__":
    main()
