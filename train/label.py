"""Have the teachers label a student's rows and texts ahead of its training, one teacher on each card.

    CUDA_VISIBLE_DEVICES=0 python -m train.label RECIPE --teachers out/teacher-0 --labels out/labels [--field value ...]

    python -m train.label RECIPE --teachers out/teacher-0 out/teacher-1 --labels out/labels --neighbours 0.35

The second line, behind all of the first kind, makes of them what the student learns. train.finetune with the same recipe
and `labels` then finds it there; without these commands it does all of it itself.
"""

from __future__ import annotations

import logging
import sys

import numpy as np
import pandas as pd
from accelerate import PartialState

from pricer.errors import PricerError, report
from pricer.llama.lean import without_plans
from pricer.settings import Limits
from train.finetune import run_device
from train.lessons import lessons
from train.prepared import prepare_data
from train.recipe import Recipe, load_recipe
from train.rows import to_label, training_rows, validation_rows
from train.teachers import teach
from train.trainer import scoring_limits


def label(recipe: Recipe, rows: pd.DataFrame, device: str, limits: Limits) -> np.ndarray:
    return teach(recipe, to_label(rows), device, limits)


def main(argv: list[str] | None = None) -> int:
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        recipe, config = load_recipe(argv)
        folder = prepare_data(recipe, config.seed)
        prices = validation_rows(recipe, folder)["price"].to_numpy(float)
        rows = training_rows(recipe, folder, prices, config.seed)
        without_plans()
        found = (lessons if recipe.neighbours else label)(
            recipe, rows, run_device(), scoring_limits(recipe, config)
        )
    except PricerError as error:
        return report(error)
    if PartialState().is_main_process:
        print(f"{len(found):,} texts labelled by {', '.join(recipe.teachers)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
