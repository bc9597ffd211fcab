"""What trained models say that a text costs, for another one to learn from: scored once and kept."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from accelerate import PartialState
from tqdm import tqdm

from pricer.errors import InputError
from pricer.files import write_whole
from pricer.llama.adapter import Adapter, load_prompt
from pricer.llama.base import load_base
from pricer.llama.made_of import base_key, folder_key, lattice_made_of
from pricer.llama.pair import load_pair
from pricer.llama.predictor import Predictor
from pricer.manifest import Manifest, content_key
from pricer.price.distribution import PriceDistribution
from pricer.price.lattice import PRICES
from pricer.settings import Limits, ModelRef, Settings
from train.prompts import prompt_ids
from train.quick_labels import QuickLabels
from train.recipe import Recipe
from train.whole import WholeModel

BATCH_TOKENS = 32_768
CHUNK = 1024  # texts in a kept file: what a kill can cost


def teach(recipe: Recipe, texts: pd.Series, device: str, limits: Limits) -> np.ndarray:
    """(texts, 999) float16: the mean of the teachers' distributions on each text, given that a price is spelled.

    Every process of a launch scores a part of the texts. What is scored lies in <output>/teachers or the recipe's
    `labels`, in files named by what they are made of: the teacher's weights, its prompt and the texts. Raises InputError
    for a folder that holds no model.
    """
    processes = PartialState()
    kept = kept_labels(recipe)
    chunks = [texts.iloc[start : start + CHUNK].tolist() for start in range(0, len(texts), CHUNK)]
    total = np.zeros((len(texts), len(PRICES)), np.float32)
    for name in recipe.teachers:
        about = describe(Path(name), recipe, device)
        files = [kept / f"{_key(about, chunk)}.npy" for chunk in chunks]
        mine = range(processes.process_index, len(chunks), processes.num_processes)
        todo = [i for i in mine if _read(files[i], len(chunks[i])) is None]
        if todo:
            predictor = load_teacher(Path(name), recipe, device, limits)
            asked = [chunks[i] for i in todo]
            quick = recipe.quick_labels
            answers = _quickly(predictor, asked, recipe.tokens) if quick else _exactly(predictor, asked)
            hidden = not processes.is_main_process
            for i in tqdm(todo, desc=name, unit=f" x {CHUNK} texts", disable=hidden):
                _write(files[i], next(answers))
            del predictor, answers  # makes room for the next one
        processes.wait_for_everyone()
        for i, (file, chunk) in enumerate(zip(files, chunks, strict=True)):
            total[i * CHUNK : i * CHUNK + len(chunk)] += _read(file, len(chunk))
    total /= len(recipe.teachers)
    return total.astype(np.float16)


def kept_labels(recipe: Recipe) -> Path:
    """The folder for what is scored, which is there then."""
    kept = Path(recipe.labels or Path(recipe.output) / "teachers")
    kept.mkdir(parents=True, exist_ok=True)
    return kept


def describe(folder: Path, recipe: Recipe, device: str) -> dict[str, object]:
    """What a teacher's answers hang on: its weights and its base's, prompt and protocol."""
    if not any(folder.glob("*.safetensors")) or not (
        (folder / "config.json").is_file() or _is_adapter(folder)
    ):
        raise InputError(
            f"{folder} holds no model in safetensors form: name the output folder of a finished train.finetune."
        )
    return {
        "weights": folder_key(folder),
        "base weights": base_key(_base_settings(recipe)) if _is_adapter(folder) else "",
        "prompt": _prompt(folder, recipe),
        "precision": _precision(device),
        "lattice": lattice_made_of(),
    } | ({"quick": True} if recipe.quick_labels else {})


def load_teacher(folder: Path, recipe: Recipe, device: str, limits: Limits) -> Predictor:
    """A model or an adapter in `folder`, in bf16 on CUDA. It is asked the question that it was trained on."""
    precision = _precision(device)
    if _is_adapter(folder):
        settings = replace(
            _base_settings(recipe), adapter=ModelRef(str(folder)), device=device, precision=precision
        )
        return Predictor(load_pair(settings, load_base(settings, device, precision)), limits)
    settings = Settings(ModelRef(str(folder)), ModelRef(""), "")
    model, tokenizer = load_base(settings, device, precision)
    return Predictor(WholeModel(model, tokenizer, Adapter(folder, "", **_prompt(folder, recipe))), limits)


def _base_settings(recipe: Recipe) -> Settings:
    return Settings(ModelRef.parse(recipe.base_model), ModelRef(""), "")


def _precision(device: str) -> str:
    return "fp32" if device == "cpu" else "bf16"


def _is_adapter(folder: Path) -> bool:
    return (folder / "adapter_config.json").is_file()


def _prompt(folder: Path, recipe: Recipe) -> dict[str, object]:
    return load_prompt(folder, recipe.question, recipe.max_text_tokens)


def _key(about: dict[str, object], texts: list[str]) -> str:
    return Manifest(about | {"texts": content_key(texts)}).key


def _exactly(predictor: Predictor, chunks: list[list[str]]) -> Iterator[np.ndarray]:
    for texts in chunks:
        found = predictor.predict([predictor.prepare(text) for text in texts], "tuned")
        yield PriceDistribution.stack([p.distribution for p in found]).conditional.astype(np.float16)


def _quickly(predictor: Predictor, chunks: list[list[str]], kept: str) -> Iterator[np.ndarray]:
    """By QuickLabels; the next texts' tokens are worked out meanwhile."""
    adapter, tokenizer = predictor.pair.adapter, predictor.pair.tokenizer
    budget = {"question": adapter.question, "max_text_tokens": adapter.max_text_tokens}
    with predictor.pair.use("tuned") as llama, ThreadPoolExecutor(1) as ahead:
        labels = QuickLabels(llama, predictor.lattice)
        for ids in ahead.map(lambda texts: prompt_ids(texts, tokenizer, **budget, kept=kept), chunks):
            yield labels.score(ids, predictor.limits.batch_tokens or BATCH_TOKENS)


def _read(path: Path, rows: int) -> np.ndarray | None:
    with suppress(OSError, ValueError, EOFError):  # none yet, or damaged: scored anew
        kept = np.load(path)
        if kept.shape == (rows, len(PRICES)):
            return kept
    return None


def _write(path: Path, probabilities: np.ndarray) -> None:
    write_whole(path, lambda aside: np.save(aside, probabilities))
