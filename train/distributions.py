"""The distributions of a file's rows, scored once and kept, so that a second look at them costs nothing."""

from __future__ import annotations

import hashlib
import json
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from pricer.errors import SetupError
from pricer.llama.adapter import weights_sha256
from pricer.llama.base import choose_device, choose_precision
from pricer.llama.predictor import Predictor
from pricer.price.distribution import PriceDistribution
from pricer.price.lattice import PRICES
from pricer.settings import Settings
from train.evaluate import score_by_distribution

CHUNK = 64  # rows between two writes: what a kill can cost


def score_rows(
    predictor: Predictor, rows: pd.DataFrame, settings: Settings, folder: Path | str
) -> PriceDistribution:
    """The tuned pass's distributions (rows, 999) of the rows' texts, in order.

    They are kept in `folder`, in a file that is named by models, weights, prompt and texts: `probabilities`
    (rows, 999) float32 and `price` (rows,). Killed and started again, it goes on behind the last chunk.
    Raises InputError for unusable text, SetupError when the folder cannot be written.
    """
    path = Path(folder) / f"{_key(predictor, rows, settings)}.npz"
    done = _read(path)
    price = rows["price"].to_numpy(float)
    with tqdm(total=len(rows), initial=len(done), desc="tuned", unit=" items", mininterval=1) as bar:
        for start in range(len(done), len(rows), CHUNK):
            prompts = [predictor.prepare(text) for text in rows["text"].iloc[start : start + CHUNK]]
            chunk = np.zeros((len(prompts), len(PRICES)), np.float32)
            for record in score_by_distribution(predictor, prompts, "tuned", predictor.rule):
                chunk[record["row"]] = record["probabilities"].probabilities
                bar.update()
            done = np.concatenate([done, chunk])
            _write(path, done, price[: len(done)])
    return PriceDistribution(done)


def _key(predictor: Predictor, rows: pd.DataFrame, settings: Settings) -> str:
    adapter = predictor.pair.adapter
    about = {
        "base": str(settings.base),
        "adapter": weights_sha256(adapter.folder),
        "prompt": [adapter.question, adapter.max_text_tokens],
        "precision": choose_precision(settings, choose_device(settings)),
        "texts": rows["text"].tolist(),
    }
    return hashlib.sha256(json.dumps(about).encode()).hexdigest()[:16]


def _read(path: Path) -> np.ndarray:
    try:
        with np.load(path) as kept:
            return kept["probabilities"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):  # none yet, or damaged: score anew
        return np.zeros((0, len(PRICES)), np.float32)


def _write(path: Path, probabilities: np.ndarray, price_usd: np.ndarray) -> None:
    aside = path.with_suffix(".tmp.npz")  # so that a kill in the middle leaves the last one whole
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(aside, probabilities=probabilities, price=price_usd)
        aside.replace(path)
    except OSError as error:
        raise SetupError(
            f"Scored rows cannot be kept in {path.parent} ({error.strerror}): name another folder."
        ) from error
