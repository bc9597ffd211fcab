"""What a student is to learn of every text: the teachers' mean, moved towards the nearest priced listings."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import numpy as np
import pandas as pd
from accelerate import PartialState

from pricer.files import write_whole
from pricer.manifest import Manifest, content_key
from pricer.price.distribution import PriceDistribution
from pricer.price.lattice import PRICES
from pricer.settings import Limits
from train.neighbours import moved, neighbour_prices
from train.recipe import Recipe
from train.rows import to_label
from train.teachers import CHUNK, describe, kept_labels, teach


def lessons(recipe: Recipe, rows: pd.DataFrame, device: str, limits: Limits) -> np.ndarray:
    """(texts, 999) float16, one for each of `to_label(rows)`; kept in a file beside the teachers' labels.

    rows: as training_rows gives them. Every process of a launch calls it.
    """
    own = rows[~rows["title_alone"]]
    made_of = Manifest(
        {
            "teachers": [describe(Path(name), recipe, device) for name in recipe.teachers],
            "neighbours": recipe.neighbours,
            **{name: content_key(own[name].fillna(-1)) for name in ("text", "price", "weight")},
        }
    )
    path = kept_labels(recipe) / f"lessons-{made_of.key}.npy"
    if _whole(path, len(own)) is None:
        found = teach(recipe, to_label(rows), device, limits)
        if PartialState().is_main_process:
            if recipe.neighbours:
                found = _towards_neighbours(found, own, recipe)
            write_whole(path, lambda aside: np.save(aside, found))
        PartialState().wait_for_everyone()
    return _whole(path, len(own))


def _whole(path: Path, texts: int) -> np.ndarray | None:
    """What is kept there; None where there is nothing, or half of it."""
    with suppress(OSError, ValueError, EOFError):
        kept = np.load(path, mmap_mode="r")
        if kept.shape == (texts, len(PRICES)):
            return kept
    return None


def neighbours_of(own: pd.DataFrame, recipe: Recipe) -> np.ndarray:
    """(texts,) log price (USD) of each text's nearest priced rows; kept in a file."""
    alone = -1.0 - np.arange(len(own))  # a row that is in no group is one of its own
    group = own["group"].astype(float).where(own["group"].notna(), alone) if "group" in own else alone
    texts = pd.DataFrame({"text": own["text"], "group": group})
    priced = own["price"].notna() & (own["weight"] > 0)
    rows = texts[priced].assign(price=own["price"], weight=own["weight"])
    return neighbour_prices(rows, texts, kept_labels(recipe))[0]


def _towards_neighbours(teacher: np.ndarray, own: pd.DataFrame, recipe: Recipe) -> np.ndarray:
    log_price = neighbours_of(own, recipe)
    out = np.empty_like(teacher)
    for start in range(0, len(teacher), CHUNK):
        part = slice(start, start + CHUNK)
        guess = np.log(PriceDistribution(teacher[part]).point("log-mean"))
        out[part] = moved(teacher[part].astype(float), recipe.neighbours * (log_price[part] - guess))
    return out
