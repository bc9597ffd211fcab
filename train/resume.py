"""Whether an output folder holds this very training run, another one, or none.

manifest.json in the folder says what the run that lies there is made of: rows, base, teachers and every field of the
recipe that its weights hang on. How long it trains may grow: a finished run then goes on from where it ended.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

import torch
from accelerate import PartialState
from trl import SFTConfig

from pricer.errors import InputError
from pricer.files import file_sha256
from pricer.llama.made_of import base_key, folder_key
from pricer.manifest import Manifest, content_key
from pricer.settings import ModelRef, Settings
from train.prepared import check_data, folder_of, is_prepared, prepare_data, splits_of
from train.recipe import Recipe, recorded
from train.teachers import describe

MANIFEST = "manifest.json"
# Fields that say where something lies, which its content stands for, or what is shown and kept meanwhile.
_PLACES = {
    "base_model",
    "data",
    "output",
    "extra_data",
    "start_from",
    "teachers",
    "unlabelled",
    "labels",
    "tokens",
}
_PREPARING = {"validation_rows"}  # of a plain file: the prepared rows stand for it
_WATCHING = {"disable_tqdm", "logging_dir", "logging_first_step", "logging_steps", "logging_strategy"} | {
    "save_steps",
    "save_strategy",
    "save_total_limit",
    "per_device_eval_batch_size",
    "dataloader_num_workers",
}
_LENGTH = {"max_steps", "num_train_epochs"}
_SIGNS = ("*.safetensors", "metrics.json", "checkpoints/*-[0-9]*")  # that a folder holds a run
# What train.output, and train.calibrate behind it, leave in the folder; but the recipe, which may be this run's too.
_RESULTS = ("*.safetensors", "*.safetensors.index.json", "metrics.json", "README.md") + (
    "pricer.json",
    "data_card.json",
    "calibration.json",
    "prior.json",
    "*config.json",
    "tokenizer*",
    "special_tokens_map.json",
    "chat_template.jinja",
)


def begin(recipe: Recipe, config: SFTConfig, *, base_given: bool = False) -> Path:
    """Make the recipe's output folder the place of this run; returns the folder of its prepared rows.

    Every process of a launch calls it. base_given: the base is in memory, and nobody knows which it is. Raises
    InputError, and leaves all as it is, when the folder holds another run; with `restart` that one is thrown away.
    """
    processes = PartialState()
    with processes.main_process_first():
        if processes.is_main_process:
            check_data(recipe)
            used = [recipe.base_model, recipe.data, recipe.start_from, recipe.extra_data]
            used += [*recipe.teachers, *recipe.unlabelled]
            claim(Path(recipe.output), made_of(recipe, config, base_given), recipe.restart, used)
            prepare_data(recipe, config.seed)
            made_of(recipe, config, base_given).write(Path(recipe.output) / MANIFEST)
    return folder_of(recipe)


def claim(out: Path, manifest: Manifest, restart: bool, used: Iterable[str]) -> None:
    """See that an output folder is free for a run, or holds that very one; the caller then writes the manifest.

    used: folders and files that the run is made of, which are never thrown away. Raises InputError, and leaves all as
    it is, when the folder holds another run; with `restart` that one is thrown away.
    """
    if not any(next(out.glob(pattern), None) for pattern in _SIGNS):
        return
    if restart:
        _clear(out, used)
    else:
        manifest.check(_lengthened(Manifest.read(out / MANIFEST) or Manifest({}), manifest), out)


def made_of(recipe: Recipe, config: SFTConfig, base_given: bool = False) -> Manifest:
    """What the run's weights hang on."""
    left_out = _PLACES | _PREPARING | _WATCHING | _LENGTH
    fields = {name: value for name, value in recorded(recipe, config).items() if name not in left_out}
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cpu":
        fields["precision"] = "fp32"
    base = Settings(ModelRef.parse(recipe.base_model), ModelRef(""), "")
    steps = config.max_steps > 0
    return Manifest(
        {
            "data": _data_key(recipe, config.seed),
            "base weights": "given in memory" if base_given else base_key(base),
            "extra_data": _rows_key(recipe.extra_data),
            "unlabelled": [_rows_key(path) for path in recipe.unlabelled],
            "start_from": folder_key(Path(recipe.start_from)) if recipe.start_from else None,
            "teachers": [Manifest(describe(Path(name), recipe, device)).key for name in recipe.teachers],
            "processes": PartialState().num_processes,
            **fields,
            "length": ["steps", config.max_steps] if steps else ["epochs", config.num_train_epochs],
        }
    )


def _data_key(recipe: Recipe, seed: int) -> str:
    """The rows by their content; a file's that are not prepared yet by the file's, which no prepared rows have."""
    if Path(recipe.data).is_file() and not is_prepared(recipe, seed):
        return file_sha256(Path(recipe.data))
    paths = [folder_of(recipe) / f"{split}.parquet" for split in splits_of(recipe)]
    return content_key(file_sha256(path) if path.is_file() else "" for path in paths)


def _rows_key(path: str) -> str | None:
    """Of a file of rows, or of a folder of train.prepare."""
    found = Path(path) / "train.parquet" if Path(path).is_dir() else Path(path)
    return file_sha256(found) if path and found.is_file() else None


def _lengthened(found: Manifest, wanted: Manifest) -> Manifest:
    """The manifest found, as if that run had been asked for the length that is wanted now, if that is no less."""
    (kind, length), was = wanted.made_of.get("length", [None, 0]), found.made_of.get("length")
    if isinstance(was, list) and was[:1] == [kind] and was[1] <= length:
        return Manifest({**found.made_of, "length": wanted.made_of["length"]})
    return found


def _clear(out: Path, used: Iterable[str]) -> None:
    """Throw away a run. The manifest goes last: what a kill leaves is still of the run that it names."""
    places = [Path(path).resolve() for path in used if path]
    if out.resolve() in places or any(
        place.is_relative_to(out.resolve() / "checkpoints") for place in places
    ):
        raise InputError(f"{out} holds what this run is to be made of: name another output.")
    for pattern in _RESULTS:
        for path in out.glob(pattern):
            path.unlink()
    if (out / "checkpoints").is_dir():
        # In one step, so that no half of a checkpoint passes for a whole one; train.output clears `.part-` away.
        shutil.rmtree((out / "checkpoints").rename(out / ".part-checkpoints"))
    (out / MANIFEST).unlink(missing_ok=True)
