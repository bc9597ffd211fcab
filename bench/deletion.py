"""Whether "Why this price" names the phrases that matter: the price as they are taken away, those named first, at random,
and those named last. (A deletion curve; Samek et al. 2017.)

    python -m bench.deletion texts.parquet [--rows 20]      # a column text; rows of 6 phrases or more are used
"""

from __future__ import annotations

import argparse

import numpy as np
import pandas as pd

from pricer.llama.explain import leave_each_out, phrases, without
from pricer.llama.predictor import Predictor, load_predictor
from pricer.prompt import Prompt, product_text
from pricer.settings import Settings

TAKEN = 3  # phrases, at most
LEAST_PHRASES = 6
ORDERS = ("first", "random", "last")


def moved(predictor: Predictor, prompt: Prompt, rng: np.random.Generator, which: str) -> np.ndarray | None:
    """(orders, TAKEN): |log price without 1, 2, 3 phrases - log price|; None for a text of few phrases."""
    text = product_text(prompt.text)
    parts, effect = phrases(text), {}
    if len(parts) < LEAST_PHRASES:
        return None
    log_price = np.log(predictor.predict([prompt], which)[0].distribution.point("median"))
    for indices, found in leave_each_out(predictor, prompt, which):
        for i, one in zip(indices, found, strict=True):
            effect[i] = abs(np.log(one.distribution.point("median")) - log_price)
    named = sorted(effect, key=effect.get, reverse=True)
    orders = {"first": named, "random": list(rng.permutation(len(parts))), "last": named[::-1]}
    prompts = [
        predictor.prepare(without(text, [parts[i] for i in orders[name][:k]]))
        for name in ORDERS
        for k in range(1, TAKEN + 1)
    ]
    prices = [one.distribution.point("median") for one in predictor.predict(prompts, which)]
    return np.abs(np.log(prices) - log_price).reshape(len(ORDERS), TAKEN)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.deletion", description=__doc__.split("\n")[0])
    parser.add_argument("texts", help="parquet file with a column text")
    parser.add_argument("--rows", type=int, default=20)
    parser.add_argument("--which", choices=("base", "tuned"), default="tuned")
    options = parser.parse_args()
    predictor, rng = load_predictor(Settings.from_env()), np.random.default_rng(0)
    curves = []
    for text in pd.read_parquet(options.texts, columns=["text"])["text"]:
        found = moved(predictor, predictor.prepare(text), rng, options.which)
        if found is not None:
            curves.append(found)
        if len(curves) == options.rows:
            break
    print(
        f"{len(curves)} texts, {options.which}; mean factor by which the price moves without 1 to {TAKEN} phrases"
    )
    for name, curve in zip(ORDERS, np.exp(np.mean(curves, axis=0)), strict=True):
        print(f"{name:<7}", "  ".join(f"{factor:.2f}" for factor in curve))


if __name__ == "__main__":
    main()
