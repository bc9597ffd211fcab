"""What the nearest priced listings say of a text, for a student to learn beside what the teachers say.

Nearest neighbours by words are as good as a fine-tuned model of this size and err differently (train/EXPERIMENTS.md), but an
adapter has no index beside it when it answers. So it is taught: the teachers' distributions are moved towards the
neighbours' price, in log price and as a whole, on very many texts.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from multiprocessing import get_context
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import pandas as pd
from scipy.sparse import csr_matrix

from pricer.files import write_whole
from pricer.price.lattice import PRICES
from train.baselines import fitted, words_and_spelling

NEIGHBOURS, POWER = 20, 4  # as the baseline's, chosen on validation rows
OWN = 60  # candidates, of which those of a row's own group are left out
_CHUNK = 2_048
_shared: dict = {}


def neighbour_prices(rows: pd.DataFrame, texts: pd.DataFrame, kept: Path) -> tuple[np.ndarray, np.ndarray]:
    """(texts,) log price of each text's nearest priced rows, and how alike they are (0 to 1); kept in a file.

    rows: text, price, weight, group (rows of one group never answer for each other); texts: text, group.
    """
    about = [rows["text"].tolist(), rows["price"].tolist(), np.round(rows["weight"], 6).tolist()]
    about += [rows["group"].tolist(), texts["text"].tolist(), texts["group"].tolist()]
    path = kept / f"neighbours-{hashlib.sha256(json.dumps(about).encode()).hexdigest()[:24]}.npz"
    with suppress(OSError, ValueError, KeyError, EOFError, BadZipFile), np.load(path) as found:
        return found["log_price"], found["likeness"]
    log_price, likeness = _look_up(rows, texts)  # none yet, or damaged
    write_whole(path, lambda aside: np.savez(aside, log_price=log_price, likeness=likeness))
    return log_price, likeness


def _look_up(rows: pd.DataFrame, texts: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    words = words_and_spelling()
    known = fitted(words, rows)
    _shared.update(
        words=words,
        known=known.T.tocsr(),
        log_price=np.log(rows["price"].to_numpy(float)),
        weight=rows["weight"].to_numpy(float),
        group=rows["group"].to_numpy(),
    )
    chunks = [texts.iloc[start : start + _CHUNK] for start in range(0, len(texts), _CHUNK)]
    workers = min(len(chunks), os.cpu_count() or 1)
    with ProcessPoolExecutor(workers, mp_context=get_context("fork")) as pool:
        found = list(pool.map(_chunk, [(c["text"].tolist(), c["group"].to_numpy()) for c in chunks]))
    _shared.clear()
    return tuple(np.concatenate(part) for part in zip(*found, strict=True))


def _chunk(task: tuple[Sequence[str], np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    texts, group = task
    alike: csr_matrix = (_shared["words"].transform(texts) @ _shared["known"]).tocsr()
    log_price, weight = _shared["log_price"], _shared["weight"]
    anywhere = np.average(log_price, weights=weight)
    guess, likeness = np.full(len(texts), anywhere), np.zeros(len(texts))
    for i in range(len(texts)):
        part = slice(alike.indptr[i], alike.indptr[i + 1])
        column, value = alike.indices[part], alike.data[part]
        if len(value) > OWN:
            top = np.argpartition(value, -OWN)[-OWN:]
            column, value = column[top], value[top]
        other = _shared["group"][column] != group[i]
        column, value = column[other], value[other]
        best = np.argsort(-value)[:NEIGHBOURS]
        column, value = column[best], np.clip(value[best], 0, 1)
        share = value**POWER * weight[column]
        if share.sum() > 0:
            guess[i], likeness[i] = (share @ log_price[column]) / share.sum(), value[0]
    return guess.astype(np.float32), likeness.astype(np.float32)


def moved(probabilities: np.ndarray, log_factor: np.ndarray) -> np.ndarray:
    """(texts, 999) distributions with all prices times exp(log_factor) (texts,); what leaves $1 to $999 stays at its edge."""
    below = np.concatenate([np.zeros((len(probabilities), 1)), np.cumsum(probabilities, axis=1)], axis=1)
    below /= below[:, -1:]
    edges = np.arange(len(PRICES) + 1) + 0.5  # $0.50 .. $999.50, where the sums end
    place = np.clip(edges * np.exp(-log_factor)[:, None] - 0.5, 0, len(PRICES))
    left = np.minimum(place.astype(int), len(PRICES) - 1)
    here = np.take_along_axis(below, left, axis=1)
    there = np.take_along_axis(below, left + 1, axis=1)
    found = here + (place - left) * (there - here)
    found[:, 0], found[:, -1] = 0, 1
    return np.diff(found, axis=1)
