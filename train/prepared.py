"""The folder of rows that a run reads: made by train.prepare, or made here from a plain file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pricer.errors import InputError
from pricer.files import file_sha256
from train.recipe import Recipe

CARD = "data_card.json"


def folder_of(recipe: Recipe) -> Path:
    """The recipe's prepared folder; that of a plain file is <output>/data."""
    return Path(recipe.output) / "data" if Path(recipe.data).is_file() else Path(recipe.data)


def check_data(recipe: Recipe) -> None:
    """Raises InputError when the recipe's data is not there."""
    if not Path(recipe.data).is_file() and not (Path(recipe.data) / "train.parquet").is_file():
        raise InputError(
            f"There is no training data at {recipe.data}: name a file, or a folder made by train.prepare."
        )


def prepare_data(recipe: Recipe, seed: int) -> Path:
    """`folder_of` the recipe, with the rows in it: a plain file is prepared on the first run.

    Raises InputError when they are not the ones that the folder's card describes (train.prepare
    was killed while it replaced others), or when <output>/data holds rows of another file and not `restart`.
    """
    folder = folder_of(recipe)
    if Path(recipe.data).is_file() and not is_prepared(recipe, seed):
        if is_of_another_file(recipe, seed) and not recipe.restart:
            raise InputError(
                f"{folder} was not prepared from {recipe.data} as it is now, or with another seed or validation_rows: "
                "name another output, or begin anew with --restart."
            )
        from train.prepare import Options, prepare

        options = Options(str(folder), validation=recipe.validation_rows, calibration=0, seed=seed)
        prepare([recipe.data], options)
    check_whole(folder, splits_of(recipe))
    return folder


def is_prepared(recipe: Recipe, seed: int) -> bool:
    """Whether the plain file's rows, as it is now, lie in <output>/data, all of them."""
    folder = folder_of(recipe)
    return (
        (folder / CARD).is_file()
        and not is_of_another_file(recipe, seed)
        and not torn_split(folder, splits_of(recipe))
    )


def is_of_another_file(recipe: Recipe, seed: int) -> bool:
    """Whether <output>/data says that it was made of something else. Without a card it was killed, and says nothing."""
    card = read_card(folder_of(recipe))
    if not card:
        return False
    wanted = {"validation": recipe.validation_rows, "calibration": 0, "seed": seed}
    options, sources = card.get("options", {}), [source.get("sha256") for source in card.get("sources", [])]
    return not wanted.items() <= options.items() or sources != [file_sha256(Path(recipe.data))]


def splits_of(recipe: Recipe) -> list[str]:
    return [*recipe.train_splits, recipe.validation_split]


def check_whole(folder: Path, splits: Sequence[str]) -> None:
    """Raises InputError for a split that is not the one that the folder's card describes: train.prepare was killed
    while it replaced another preparation, of whose splits some are still there."""
    if torn := torn_split(folder, splits):
        raise InputError(
            f"{torn} is not the file that {CARD} beside it describes: run train.prepare into {folder} again."
        )


def torn_split(folder: Path, splits: Sequence[str]) -> Path | None:
    """A split's file that is not the one that the folder's card describes."""
    described = read_card(folder).get("splits", {})
    for split in splits:
        path, wanted = folder / f"{split}.parquet", described.get(split, {}).get("sha256")
        if wanted and not (path.is_file() and file_sha256(path) == wanted):
            return path
    return None


def read_card(folder: Path) -> dict[str, Any]:
    """What train.prepare wrote of a folder; nothing where there is none, or a damaged one."""
    try:
        found = json.loads((folder / CARD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
