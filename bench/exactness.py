"""How far the price lattice's shortcuts are from the exact answer, and what they spare.

    python -m bench.exactness [--items 24] [--edges 56] [--profile embedded]
    python -m bench.exactness --texts validation.parquet [--rows 100] --reference 1e-5 [--precision bf16]

Each made-up product, or the first rows of a parquet file with a column text, is scored with every lattice node (or, much
quicker, with this tolerance, --reference), then with the defaults and at most so many
numbers followed to their end (`max_edges` of `pricer.price.lattice.Growth`), there in this --precision too. Prints a Markdown table: over all products the
largest difference in any one price's probability, the largest total variation, the lattice nodes per product.
"""

from __future__ import annotations

import argparse
from dataclasses import replace

import numpy as np
import pandas as pd

from bench.machine import about, sentence
from bench.products import products
from pricer.llama.predictor import MAX_EDGES, Predictor, load_predictor
from pricer.settings import PASSES, PRECISIONS, PROFILES, Settings

# Short ones, beside the made-up products: with less to go by, the base spreads further.
SHORT = (
    "lamp",
    "A used paperback novel, slightly worn",
    "Laptop, 15 inch, 32 GB of memory, 1 TB drive",
    "USB-C cable, 2 m, braided",
    "Set of 4 tyres, 205/55 R16",
    "A grand piano",
    "Headphones with noise cancelling",
    "Bag of 100 AA batteries",
    "Bicycle for children, 16 inch",
    "Refrigerator with French doors, 25 cu ft",
)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.exactness", description=__doc__.split("\n")[0])
    parser.add_argument("--items", type=int, default=24)
    parser.add_argument("--edges", type=int, nargs="+", default=[MAX_EDGES])
    parser.add_argument("--texts", help="parquet file with a column text")
    parser.add_argument("--rows", type=int, default=100, help="of that file")
    parser.add_argument("--reference", type=float, default=0.0, metavar="TOLERANCE")
    parser.add_argument("--profile", choices=PROFILES)
    parser.add_argument("--precision", choices=PRECISIONS)
    options = parser.parse_args(argv)
    settings = Settings.from_env(profile=options.profile)
    exact_pair = pair = load_predictor(settings).pair
    if options.precision:
        pair = load_predictor(replace(settings, precision=options.precision)).pair
    exact = Predictor(exact_pair, tolerance=options.reference, max_edges=None)
    if options.texts:
        texts = list(pd.read_parquet(options.texts, columns=["text"])["text"][: options.rows])
    else:
        texts = [*products(options.items, pair.tokenizer)["text"], *SHORT]
    prompts = [exact.prepare(text) for text in texts]

    def probabilities(predictor: Predictor, which: str) -> np.ndarray:
        return np.stack([p.distribution.probabilities for p in predictor.predict(prompts, which)])

    print(f"{sentence(about(('torch', 'transformers', 'peft')))} {len(texts)} products.\n")
    print("| pass | max_edges | furthest price | total variation | nodes |\n|---|---|---|---|---|")
    for which in PASSES:
        wanted = probabilities(exact, which)
        for edges in options.edges:
            predictor = Predictor(pair, max_edges=edges)
            off = np.abs(probabilities(predictor, which) - wanted)
            total, nodes = off.sum(axis=1).max() / 2, predictor.work.nodes / len(texts)
            print(f"| {which} | {edges} | {off.max():.1e} | {total:.1e} | {nodes:.0f} |", flush=True)


if __name__ == "__main__":
    main()
