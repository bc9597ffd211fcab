"""Server time of a click in the Evaluation tab: from the event to figures and tables ready to send.

python -m bench.evaluation [--items 1000 100000] [--runs 30] [--repeats 7]

Prices and guesses are made up. A click is timed on items that were never looked at before (nothing kept);
`again` goes back to a view that was, as visitors do.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from statistics import median

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import plotly.io as pio
import psutil

from pricer.arena.arena import Arena
from pricer.arena.runs import Run, RunInfo
from pricer.arena.view import PANELS, View
from pricer.ui.evaluate.item_texts import ItemTexts
from pricer.ui.evaluate.render import render


def make_arena(items: int, runs: int) -> Arena:
    """Prices from $1 to $999; each run worse than the one before; half of them with intervals."""
    rng = np.random.default_rng(0)
    price_usd = np.round(np.exp(rng.uniform(0, np.log(999), items)), 2)
    categories = rng.choice([f"Category {i}" for i in range(8)], items)
    table = pd.DataFrame({"index": np.arange(items), "category": categories, "price_usd": price_usd})
    made = {}
    for i in range(runs):
        guess_usd = price_usd * rng.lognormal(0, 0.3 + 0.02 * i, items)
        columns = {"index": table["index"], "guess_usd": guess_usd}
        if i % 2:
            columns |= {"low_usd": guess_usd / 2, "high_usd": guess_usd * 2}
        info = RunInfo(name=f"run-{i}", label=f"Run {i}", kind="tuned")
        made[info.name] = Run(info, pd.DataFrame(columns))
    return Arena(made, table)


def clicks(arena: Arena, view: View, turn: int) -> dict[str, View]:
    """A view per kind of click; another set of items at each turn."""
    inside = np.flatnonzero(arena.price_usd > 100 + turn)[:5_000]
    return {
        "other pair": replace(view, run_a=f"run-{2 + turn}", run_b=f"run-{3 + turn}"),
        "price filter": replace(view, low_usd=2.0 + turn),
        "preset": replace(view, preset="worst-b", high_usd=900.0 - turn),
        "box": replace(view, selection=tuple(arena.index[inside].tolist())),
        "open an item": replace(view, item=turn),
        "linear axis and filter": replace(view, log_axis=False, low_usd=3.0 + turn),
        **{
            f"filter, {panel} open": replace(view, panel=panel, low_usd=10.0 + turn + i / 10)
            for i, panel in enumerate(PANELS)
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.evaluation", description=__doc__.split("\n")[0])
    parser.add_argument("--items", type=int, nargs="+", default=[1_000, 100_000])
    parser.add_argument("--runs", type=int, default=30)
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    for items in options.items:
        start = time.perf_counter()
        arena = make_arena(items, options.runs)
        view, texts = View("run-0", "run-1"), ItemTexts(None, arena.items)
        print(f"\n{items:,} items x {options.runs} runs; made in {time.perf_counter() - start:.2f} s")

        def click(now: View, before: View | None, arena=arena, texts=texts) -> float:
            start = time.perf_counter()
            for part in render(arena, now, texts, before):
                if isinstance(part, go.Figure):
                    pio.to_json(part, validate=False)
            return time.perf_counter() - start

        print(f"{'first view':<28}{1000 * click(view, None):8.0f} ms")
        print(f"{'first view, again':<28}{1000 * click(view, None):8.0f} ms")
        times: dict[str, list[float]] = {}
        for turn in range(options.repeats):
            for name, now in clicks(arena, view, turn).items():
                before = replace(view, panel=now.panel)
                times.setdefault(name, []).append(click(now, before))
                times.setdefault(f"{name}, again", []).append(click(now, before))
        for name, seconds in times.items():
            print(f"{name:<28}{1000 * median(seconds):8.0f} ms   worst {1000 * max(seconds):6.0f} ms")
        print(f"resident memory {psutil.Process().memory_info().rss / 1e9:.2f} GB")


if __name__ == "__main__":
    main()
