"""`python -m train.finetune` as a test gives it, on rows made here."""

import json
import random
from pathlib import Path

import pandas as pd

from train.recipe import Recipe

ROOT = Path(__file__).parents[2]
SMOKE = ROOT / "train" / "recipes" / "smoke.yaml"
SYLLABLES = [consonant + vowel for consonant in "bdfgklmnprstvz" for vowel in "aeiou"]


def prose(seed, words):
    choose = random.Random(seed)
    return " ".join("".join(choose.choices(SYLLABLES, k=3)) for _ in range(words))


def recipe(**fields) -> Recipe:
    return Recipe(**({"base_model": "base", "data": "data", "output": "out", "max_text_tokens": 40} | fields))


def rows_of(count):
    return pd.DataFrame(
        {
            "title": [prose(1000 + i, 6) for i in range(count)],
            "description": [prose(i, 50) for i in range(count)],
            "price": [round(5.25 + i * 37 % 490, 2) for i in range(count)],
        }
    )


def arguments(recipe_file, **fields) -> list[str]:
    """A command line: the recipe and what it changes."""
    return [
        str(recipe_file),
        *(word for name, value in fields.items() for word in (f"--{name}", str(value))),
    ]


def training_steps(out, step):
    """(step, loss, gradient norm, learning rate) of every step, as the checkpoint of `step` has them."""
    state = json.loads((out / "checkpoints" / f"checkpoint-{step}" / "trainer_state.json").read_text())
    return [
        [h[k] for k in ("step", "loss", "grad_norm", "learning_rate")]
        for h in state["log_history"]
        if "loss" in h
    ]
