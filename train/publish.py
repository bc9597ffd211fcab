"""Put a trained adapter, its card and its evaluation runs on the Hugging Face Hub.

    python -m train.publish out/smollm2-135m --to owner/name [--runs out/runs] [--private] [--dry-run]

One commit with the files that `published_files` lists, and no others: checkpoints, optimizer state, pickles,
training rows and item text stay behind. --dry-run shows every file with its size, and the card, and needs no
network and no token.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import pyarrow.parquet as pq
import yaml

from pricer.arena.runs import ITEM_SETS, load_items, load_run
from pricer.errors import InputError, PricerError, report
from pricer.llama.adapter import weights_sha256
from pricer.llama.hub import HUB_ID, Content, listing, size, upload
from pricer.price.calibration import CALIBRATION_FILE, Calibrations
from pricer.price.prior import PRIOR_FILE
from train.card import model_card

NEEDED = ("adapter_config.json", "adapter_model.safetensors", "pricer.json", "recipe.yaml", "metrics.json")
OPTIONAL = (CALIBRATION_FILE, PRIOR_FILE, "data_card.json")
PATHS = {"data", "output", "extra_data", "unlabelled", "start_from", "teachers"}  # fields of a recipe
MAX_BYTES = 20 * 2**20  # of any file but the weights: figures are small, text is not
MAX_WEIGHTS_BYTES = 4 * 2**30  # rank 256 on all layers of the 8B makes 1.3 GB


def published_files(folder: Path, runs: Path | None = None) -> dict[str, Content]:
    """What goes up, by its name in the repository. The card is made anew, so that it has the figures of `runs`
    and of a calibration; the recipe goes without this machine's paths.

    Raises InputError for a folder that lacks a part, a base that is known by its path only, a run that cannot be
    read or holds more than figures, and a file too large for what it should be.
    """
    if not folder.is_dir():
        raise InputError(f"There is no folder {folder}: name the output folder of train.finetune.")
    for name in NEEDED:
        if not (folder / name).is_file():
            raise InputError(
                f"{folder} holds no {name}: name the output folder of a finished train.finetune."
            )
    _check_base(folder)
    _check_calibration(folder)
    files: dict[str, Content] = {name: folder / name for name in NEEDED}
    files |= {name: folder / name for name in OPTIONAL if (folder / name).is_file()}
    files["recipe.yaml"] = _recipe_without_paths(folder)
    if runs is not None:
        files |= _run_files(runs)
    for name, content in files.items():
        limit = MAX_WEIGHTS_BYTES if name.endswith(".safetensors") else MAX_BYTES
        if size(content) > limit:
            raise InputError(
                f"{name} has {size(content):,} bytes where at most {limit:,} are expected: look what is in it."
            )
    return files | {"README.md": model_card(folder, runs).encode()}


def _check_base(folder: Path) -> None:
    config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    recipe = yaml.safe_load((folder / "recipe.yaml").read_text(encoding="utf-8"))
    named = {"adapter_config.json": config["base_model_name_or_path"], "recipe.yaml": recipe["base_model"]}
    for file, base in named.items():
        if not HUB_ID.fullmatch(str(base).partition("@")[0]) or Path(str(base)).exists():
            raise InputError(
                f"{folder / file} names the base model by a path, {base}, which others do not have: write its Hub id there."
            )


def _check_calibration(folder: Path) -> None:
    path = folder / CALIBRATION_FILE
    found = Calibrations.load(path).by_prior.values() if path.is_file() else ()
    if any(one.adapter_sha256 not in (None, weights_sha256(folder)) for one in found):
        raise InputError(f"{path} belongs to other weights: run train.calibrate again, or delete it.")


def _recipe_without_paths(folder: Path) -> bytes:
    """The recipe, in which an absolute path is cut to its last part."""
    fields = yaml.safe_load((folder / "recipe.yaml").read_text(encoding="utf-8"))
    for name in PATHS & fields.keys():
        if isinstance(fields[name], list):
            fields[name] = [_without_path(path) for path in fields[name]]
        else:
            fields[name] = _without_path(fields[name])
    return yaml.safe_dump(fields, sort_keys=False, allow_unicode=True).encode()


def _without_path(path: str) -> str:
    return Path(path).name if Path(path).is_absolute() else path


def _run_files(runs: Path) -> dict[str, Content]:
    """The two files of each run and the items, each read first: what can be read as a run holds figures only."""
    names = sorted(path.stem for path in runs.glob("[!.]*.json"))
    if not names:
        raise InputError(f"There are no evaluation runs in {runs}: name the --out folder of train.evaluate.")
    files: dict[str, Content] = {}
    for name in names:
        load_run(runs / name)
        files |= {f"runs/{name}{ending}": runs / f"{name}{ending}" for ending in (".json", ".parquet")}
    for item_set, name in ITEM_SETS.items():
        if (runs / name).is_file():
            _check_items(runs, item_set)
            files[f"runs/{name}"] = runs / name
    return files


def _check_items(runs: Path, item_set: str) -> None:
    name = ITEM_SETS[item_set]
    more = set(pq.read_schema(runs / name).names) - set(load_items(runs, item_set).columns)
    if more:
        raise InputError(
            f"{name} has a column {min(more)}, which is not published: save the items without it."
        )


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m train.publish", description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path, help="output folder of train.finetune")
    parser.add_argument("--to", required=True, help="the repository: owner/name")
    parser.add_argument("--runs", type=Path, help="folder of evaluation runs to publish along")
    parser.add_argument("--private", action="store_true", help="if the repository is new, only for its owner")
    parser.add_argument("--dry-run", action="store_true", help="show what would go up")
    options = parser.parse_args(argv)
    try:
        if not HUB_ID.fullmatch(options.to):
            raise InputError(f"--to is {options.to!r}: give owner/name.")
        files = published_files(options.folder, options.runs)
        print(listing(files))
        if options.dry_run:
            print(f"\nThe card:\n\n{files['README.md'].decode()}")
            print(f"Nothing was sent. Without --dry-run this goes to {options.to}.")
        else:
            address = upload(files, options.to, "Adapter, card and evaluation runs", private=options.private)
            print(f"published: {address}")
    except PricerError as error:
        return report(error)
    except (ValueError, KeyError, TypeError, yaml.YAMLError) as error:
        print(f"A file in {options.folder} is damaged ({error!r}): copy or make it again.", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
