"""What one run is trained and judged on: which rows, and how much each of them counts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import yaml

from pricer.errors import InputError
from pricer.price.distribution import PriceDistribution
from train.data import load_rows
from train.dataset import row_weights
from train.prepared import read_card
from train.recipe import Recipe

LEAST_WORDS = 3  # of a title that says what a product is


def validation_rows(recipe: Recipe, folder: Path) -> pd.DataFrame:
    """The rows that judge the run. Raises InputError when there are none, or when a model that it builds on was
    trained on them."""
    rows = load_rows(folder / f"{recipe.validation_split}.parquet")
    if not len(rows):
        raise InputError(f"The split {recipe.validation_split} of {folder} has no rows: name another one.")
    judge = _split_hashes(folder).get(recipe.validation_split)
    for name in filter(None, [recipe.base_model, recipe.start_from, *recipe.teachers]):
        if not (Path(name) / "recipe.yaml").is_file():
            continue
        fields = yaml.safe_load((Path(name) / "recipe.yaml").read_text(encoding="utf-8"))
        hashes = _split_hashes(Path(name))
        if judge and judge in [hashes.get(split) for split in fields.get("train_splits", ["train"])]:
            raise InputError(
                f"{name} was trained on the {recipe.validation_split} rows, which are to judge this run: name another "
                "model, or another validation_split."
            )
    return rows


def _split_hashes(folder: Path) -> dict[str, str]:
    """The hash of each split's file, as train.prepare recorded them."""
    return {name: split.get("sha256") for name, split in read_card(folder).get("splits", {}).items()}


def training_rows(recipe: Recipe, folder: Path, target_prices_usd: np.ndarray, seed: int) -> pd.DataFrame:
    """The recipe's rows, behind them those of extra_data, behind them the unlabelled texts, behind them copies of some
    with the title alone, with `part` naming which. `taught_by` is the row whose text the teachers read for it.

    `weight` is what a row's own price counts: on average 1, of extra rows extra_weight, of unlabelled texts 0 (their
    price is NaN). `teacher_weight` is what the teachers count on it, where there are any; see `taught`.
    """
    own = pd.concat(
        [weighed_rows(folder / f"{split}.parquet") for split in recipe.train_splits], ignore_index=True
    )
    if recipe.max_rows:
        own = own.sample(min(recipe.max_rows, len(own)), random_state=seed)
    parts = [_part(own, "rows", recipe, target_prices_usd, 1.0)]
    if recipe.extra_data:
        extra = weighed_rows(_file(recipe.extra_data))
        parts.append(_part(extra, "extra_rows", recipe, target_prices_usd, recipe.extra_weight))
    for path in recipe.unlabelled:
        texts = load_rows(_file(path), priced=False)
        parts.append(texts.assign(part="unlabelled_rows", weight=0.0, teacher_weight=recipe.teacher_weight))
    rows = pd.concat(parts, ignore_index=True)
    rows["taught_by"] = np.arange(len(rows))
    rows["title_alone"] = False
    if recipe.titles:
        rows = pd.concat([rows, title_copies(rows, recipe.titles, seed)], ignore_index=True)
    return rows


def title_copies(rows: pd.DataFrame, share: float, seed: int) -> pd.DataFrame:
    """Copies, with the title alone, of a share of the rows that have more than a title."""
    title = rows["text"].str.partition("\n")[0].str.strip()
    long = np.flatnonzero((title.str.split().str.len() >= LEAST_WORDS) & (title != rows["text"].str.strip()))
    chosen = np.sort(np.random.default_rng([seed, 1]).permutation(long)[: round(share * len(long))])
    return rows.iloc[chosen].assign(text=title.iloc[chosen], title_alone=True)


def weighed_rows(path: Path) -> pd.DataFrame:
    """The file's rows. Raises InputError when it has a column weight and none counts."""
    rows = load_rows(path)
    if "weight" in rows and not rows["weight"].any():
        raise InputError(f"No row of {path.name} has a weight above 0: give some, or leave the column out.")
    return rows


def _part(
    rows: pd.DataFrame, name: str, recipe: Recipe, target_prices_usd: np.ndarray, counts: float
) -> pd.DataFrame:
    weight = counts * row_weights(rows, target_prices_usd, recipe)
    return rows.assign(part=name, weight=weight, teacher_weight=counts * recipe.teacher_weight)


def _file(path: str) -> Path:
    """A file of rows; of a folder that train.prepare made, its training rows."""
    return Path(path) / "train.parquet" if Path(path).is_dir() else Path(path)


def to_label(rows: pd.DataFrame) -> pd.Series:
    """The texts that teachers read: of a row and of its copies the same one."""
    return rows["text"][~rows["title_alone"]]


def taught(
    rows: pd.DataFrame, teacher: np.ndarray, target_prices_usd: np.ndarray, recipe: Recipe
) -> pd.DataFrame:
    """The rows with `teacher_share`, the teachers' part of each row's target, and with `weight` as what both count.

    teacher: (texts, 999) what they say of the texts that rows are `taught_by`. An unlabelled text counts as a row of
    the price that they give it would (match_prices, as far as match_texts says); one that then counts nothing keeps
    weight 0.
    """
    rows = rows.copy()
    alone = (rows["part"] == "unlabelled_rows").to_numpy()
    if alone.any():
        taught_by = rows["taught_by"].to_numpy() if "taught_by" in rows else np.arange(len(rows))
        texts, copies = np.unique(taught_by[alone], return_inverse=True)
        guess = np.concatenate(
            [
                PriceDistribution(teacher[part]).point("log-mean")
                for part in np.array_split(texts, len(texts) // 4096 + 1)
            ]
        )
        matched = row_weights(pd.DataFrame({"price": guess[copies]}), target_prices_usd, recipe)
        rows.loc[alone, "teacher_weight"] *= matched**recipe.match_texts
    weight = rows["weight"] + rows["teacher_weight"]
    # No 0 / 0 where a text counts nothing; its target is the teachers' like that of the others.
    return rows.assign(
        teacher_share=(rows["teacher_weight"] / weight).fillna(1.0), weight=weight / weight.mean()
    )
