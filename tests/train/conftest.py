"""One short training run that several files look at; none of them writes into it."""

import pytest

from tests.train.commands import SMOKE, arguments, rows_of
from train import finetune


@pytest.fixture(scope="session")
def trained(tiny_model_folder, tmp_path_factory):
    """The smoke recipe on the tiny base: (exit code, output folder, base folder)."""
    folder = tmp_path_factory.mktemp("train")
    rows_of(60).to_csv(folder / "rows.csv", index=False)
    base, out = tiny_model_folder / "base", folder / "out"
    fields = {"base_model": base, "data": folder / "rows.csv", "output": out, "report_to": "tensorboard"}
    return finetune.main(arguments(SMOKE, **fields)), out, base
