"""The distributions of a file's rows, scored once and kept, so that a second look at them costs nothing."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from pricer.errors import SetupError
from pricer.files import write_whole
from pricer.llama.base import choose_device
from pricer.llama.made_of import distributions_made_of
from pricer.llama.predictor import Predictor
from pricer.manifest import Manifest, content_key
from pricer.price.distribution import PriceDistribution
from pricer.price.lattice import PRICES
from pricer.settings import Settings

CHUNK = 64  # rows between two writes: what a kill can cost


def score_rows(
    predictor: Predictor, rows: pd.DataFrame, settings: Settings, folder: Path | str
) -> PriceDistribution:
    """The tuned pass's own distributions (rows, 999) of the rows' texts, in order: under the prior that the adapter was
    trained under.

    They are kept in `folder`, in a file that is named by what they are made of, which it holds too: models, prompt,
    protocol and texts; `probabilities` are (rows, 999) float32. Prices and calibration they do not hang on. Killed
    and started again, it goes on behind the last chunk.
    Raises InputError for unusable text, SetupError when the folder cannot be written.
    """
    manifest = _manifest(predictor, rows, settings)
    path = Path(folder) / f"{manifest.key}.npz"
    done = _read(path, manifest)
    with tqdm(total=len(rows), initial=len(done), desc="tuned", unit=" items", mininterval=1) as bar:
        for start in range(len(done), len(rows), CHUNK):
            prompts = [predictor.prepare(text) for text in rows["text"].iloc[start : start + CHUNK]]
            chunk = np.zeros((len(prompts), len(PRICES)), np.float32)
            for indices, predictions in predictor.predict_batches(prompts, "tuned"):
                chunk[indices] = [prediction.own.probabilities for prediction in predictions]
                bar.update(len(indices))
            done = np.concatenate([done, chunk])
            _write(path, done, manifest)
    return PriceDistribution(done)


def _manifest(predictor: Predictor, rows: pd.DataFrame, settings: Settings) -> Manifest:
    adapter, device = predictor.pair.adapter, choose_device(settings)
    made_of = distributions_made_of(settings, adapter, device, ("tuned",))
    return Manifest(made_of | {"texts": content_key(rows["text"])})


def _read(path: Path, manifest: Manifest) -> np.ndarray:
    try:
        with np.load(path) as kept:
            if Manifest.parse(str(kept["made_of"])) == manifest:
                return kept["probabilities"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):  # none yet, or damaged: score anew
        pass
    return np.zeros((0, len(PRICES)), np.float32)


def _write(path: Path, probabilities: np.ndarray, manifest: Manifest) -> None:
    kept = {"probabilities": probabilities, "made_of": np.array(manifest.as_line())}
    try:
        write_whole(path, lambda aside: np.savez_compressed(aside, **kept))
    except OSError as error:
        raise SetupError(
            f"Scored rows cannot be kept in {path.parent} ({error.strerror}): name another folder."
        ) from error
