"""Made-up products for benchmarks: texts as long as the dataset's, and prices that follow from the words, so that a
model can learn them. They say nothing of real prices."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

TEXT_TOKENS = (60, 175)  # of the finished text; what goes beyond a recipe's 160 is cut
# What it is and what it costs, in USD; then what multiplies that.
KINDS = {
    "phone case": 14,
    "garden hose": 32,
    "bath mat": 22,
    "desk lamp": 38,
    "cordless drill": 89,
    "toaster oven": 74,
    "camping tent": 140,
    "office chair": 185,
    "brake rotor kit": 120,
    "guitar amplifier": 240,
    "robot vacuum": 310,
    "graphics card": 480,
}
GRADES = {"Basic": 0.7, "Classic": 1.0, "Professional": 1.6}
SIZES = {"small": 0.8, "medium": 1.0, "large": 1.3}
NOISE = 0.15  # standard deviation of the log price
BRANDS = ["Norvik", "Halden", "Trumark", "Ozeno", "Castell", "Birchwood", "Velora", "Kintaro"]
SENTENCES = [
    "Made of {material} that stands up to daily use and cleans easily with a damp cloth.",
    "The {colour} finish matches most rooms and does not fade in the sun.",
    "Comes with {n} spare parts, a carrying bag and a printed manual in four languages.",
    "Measures {n} x {m} inches and weighs about {m} pounds when fully assembled.",
    "Tested over {n}00 hours in our own workshop before it leaves the factory.",
    "Fits models {n}10, {n}20 and {m}50; please check your part number before ordering.",
    "Our support team answers every question within {m} hours, seven days a week.",
    "Assembly takes about {n} minutes and needs no tools other than a screwdriver.",
    "Reinforced {material} corners protect it from drops, scratches and bumps.",
    "Customers praise the quiet operation and the comfortable non-slip grip.",
]
MATERIALS = ["stainless steel", "solid oak", "nylon", "aluminum", "tempered glass", "silicone"]
COLOURS = ["matte black", "navy blue", "brushed silver", "forest green", "ivory"]


def products(
    count: int, tokenizer: Any, seed: int = 0, tokens: tuple[int, int] = TEXT_TOKENS
) -> pd.DataFrame:
    """`count` rows of `text` (title, newline, description) and `price` in USD, from `tokens[0]` tokens to a sentence
    over `tokens[1]`."""
    generator = np.random.default_rng(seed)

    def one_of(words):
        return str(generator.choice(list(words)))

    rows = []
    for wanted in generator.integers(*tokens, count, endpoint=True):
        kind, grade, size = one_of(KINDS), one_of(GRADES), one_of(SIZES)
        text = f"{one_of(BRANDS)} {grade} {kind}, {size}, {one_of(COLOURS)}\n"
        while len(tokenizer(text, add_special_tokens=False)["input_ids"]) < wanted:
            numbers = generator.integers(2, 60, 2)
            text += " " * (text[-1] != "\n") + one_of(SENTENCES).format(
                material=one_of(MATERIALS), colour=one_of(COLOURS), n=numbers[0], m=numbers[1]
            )
        price = KINDS[kind] * GRADES[grade] * SIZES[size] * np.exp(generator.normal(0, NOISE))
        rows.append({"text": text, "price": round(float(np.clip(price, 1, 999)), 2)})
    return pd.DataFrame(rows)
