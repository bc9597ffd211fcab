"""How long the page's answer takes: both models over one text of about 200 tokens, on this machine.

python -m bench.latency [--repeats 20] [--profile embedded]
"""

from __future__ import annotations

import argparse
import time
from statistics import median

import psutil

from pricer.llama.predictor import load_predictor
from pricer.settings import PROFILES, Settings

# Made of sentences that say nothing of price; cut to the token budget like any long text.
TEXT = "Sturdy folding workbench with clamps and a measuring scale, holds up to 350 pounds. " * 9


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.latency", description=__doc__.split("\n")[0])
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--profile", choices=PROFILES)
    options = parser.parse_args()
    start = time.perf_counter()
    predictor = load_predictor(Settings.from_env(profile=options.profile))
    loading = time.perf_counter() - start
    tokens = len(predictor.pair.tokenizer(predictor.prepare(TEXT).text)["input_ids"])
    predictor.compare(TEXT)  # the first one warms caches up
    both, each = [], {"base": [], "tuned": []}
    for _ in range(options.repeats):
        start = time.perf_counter()
        answer = predictor.compare(TEXT)
        both.append(time.perf_counter() - start)
        for which, seconds in each.items():
            seconds.append(getattr(answer, which).seconds)
    memory = psutil.Process().memory_info().rss / 1e9
    print(f"prompt of {tokens} tokens; loading {loading:.1f} s; resident memory {memory:.2f} GB")
    for name, seconds in {**each, "both": both}.items():
        print(
            f"{name:<6} median {median(seconds):.2f} s   best {min(seconds):.2f} s   worst {max(seconds):.2f} s"
        )


if __name__ == "__main__":
    main()
