"""Whether "Why this price" names the phrases that matter: the price as they are taken away, those named first, at random,
and those named last. (A deletion curve; Samek et al. 2017.)

    python -m bench.deletion texts.parquet [--rows 20]      # a column text; rows of 6 phrases or more are used
    python -m bench.deletion texts.parquet --near           # how near its prices, of few lattice nodes, are to exact ones
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from itertools import islice

import numpy as np
import pandas as pd

from pricer.llama.explain import leave_each_out, phrases, without
from pricer.llama.predictor import Predictor, load_predictor
from pricer.price.distribution import RULES
from pricer.prompt import Prompt, product_text
from pricer.settings import Settings

TAKEN = 3  # phrases, at most
LEAST_PHRASES = 6
ORDERS = ("first", "random", "last")


def moved(predictor: Predictor, prompt: Prompt, rng: np.random.Generator, which: str) -> np.ndarray:
    """(orders, TAKEN): |log price without 1, 2, 3 phrases - log price|."""
    text = product_text(prompt.text)
    parts, effect = phrases(text), {}
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


def nearness(predictor: Predictor, prompt: Prompt, which: str, rules: Sequence[str] = RULES) -> np.ndarray:
    """(phrases, rules): how far what a phrase is said to add is from what the whole lattice says, as a share of the
    price (of the text with or without it, whichever is dearer)."""
    text = product_text(prompt.text)
    parts, near = phrases(text), {}
    for indices, found in leave_each_out(predictor, prompt, which):
        near |= dict(zip(indices, found, strict=True))
    prompts = [predictor.prepare(without(text, [part])) for part in parts]
    whole, *exact = predictor.predict([prompt, *prompts], which)
    prices = [
        [[float(one.distribution.point(rule)) for rule in rules] for one in (near[i], exact[i], whole)]
        for i in range(len(parts))
    ]
    said, true, price = np.moveaxis(np.array(prices), 1, 0)
    return np.abs(said - true) / np.maximum(price, true)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.deletion", description=__doc__.split("\n")[0])
    parser.add_argument("texts", help="parquet file with a column text")
    parser.add_argument("--rows", type=int, default=20)
    parser.add_argument("--which", choices=("base", "tuned"), default="tuned")
    parser.add_argument("--near", action="store_true")
    options = parser.parse_args()
    predictor, rng = load_predictor(Settings.from_env()), np.random.default_rng(0)
    prompts = map(predictor.prepare, pd.read_parquet(options.texts, columns=["text"])["text"])
    long = (one for one in prompts if len(phrases(product_text(one.text))) >= LEAST_PHRASES)
    prompts = list(islice(long, options.rows))
    if options.near:
        off = np.concatenate([nearness(predictor, prompt, options.which) for prompt in prompts])
        print(
            f"{len(prompts)} texts, {len(off)} phrases, {options.which}: an effect is off by so much of the price"
        )
        for rule, of_rule in zip(RULES, off.T, strict=True):
            print(
                f"{rule:<9} mean {of_rule.mean():.2%}   19 of 20 within {np.quantile(of_rule, 0.95):.1%}   worst {of_rule.max():.1%}"
            )
        return
    curves = [moved(predictor, prompt, rng, options.which) for prompt in prompts]
    print(
        f"{len(curves)} texts, {options.which}; mean factor by which the price moves without 1 to {TAKEN} phrases"
    )
    for name, curve in zip(ORDERS, np.exp(np.mean(curves, axis=0)), strict=True):
        print(f"{name:<7}", "  ".join(f"{factor:.2f}" for factor in curve))


if __name__ == "__main__":
    main()
