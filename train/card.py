"""The model card of a trained adapter or model, from what its folder records: nothing in it is written from memory."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import yaml

from pricer.arena.metrics import summarise
from pricer.arena.resampling import Estimate
from pricer.arena.runs import HUB_DATASET, ITEM_SETS, RUNS_FOLDER, Run, join_items, load_items, load_runs
from pricer.llama.adapter import weights_sha256
from pricer.price.calibration import CALIBRATION_FILE, Calibrations
from pricer.price.prior import PRIOR_FILE, PricePrior
from pricer.settings import ModelRef

# Start of the base's name -> the Hub's word for its licence, and what that licence asks of an adapter.
BASE_LICENCES = {
    "huggingfacetb/smollm2": ("apache-2.0", "The base is Apache-2.0, and so is this adapter."),
    "meta-llama/llama-3.1": (
        "llama3.1",
        "Built with Llama. The base, and with it this adapter, is under the Llama 3.1 Community License, Copyright © "
        "Meta Platforms, Inc. All Rights Reserved.",
    ),
    "meta-llama/llama-3.2": (
        "llama3.2",
        "Built with Llama. The base, and with it this adapter, is under the Llama 3.2 Community License, Copyright © "
        "Meta Platforms, Inc. All Rights Reserved.",
    ),
}
OTHER_LICENCE = ("other", "This adapter is under the terms of its base: see the base's page.")
# Start of a source's name -> what is known of its licence.
SOURCE_LICENCES = {
    HUB_DATASET: "Amazon US listings (McAuley 2023); its card states no licence",
    "mcauley2023": "Amazon US listings (McAuley 2023) by way of a public repository with no licence, or none that clearly covers them",
    "raw_meta_": "raw metadata of McAuley-Lab/Amazon-Reviews-2023; its card states no licence for the listings",
    "McAuley-Lab/": "Amazon US listings (McAuley 2023); its card states no licence for the listings",
}
UNKNOWN_LICENCE = "licence not recorded"
CATEGORIES_SHOWN, SOURCES_SHOWN = 12, 20
ITEM_SET_WORDS = {
    "benchmark": "Test items of the benchmark, whose prices are balanced",
    "everyday": "Everyday listings, with prices as shops have them",
}

# What it is, by the recipe's method: title, first words, what else it is used with, the front matter's own fields.
_KINDS = {
    "lora": (
        "Product price adapter for {base}",
        "A LoRA adapter (rank {rank}) that makes {base} write",
        "PEFT",
        {"library_name": "peft", "tags": ["lora", "qlora", "price-prediction", "pricer"]},
    ),
    "full": (
        "Product price model from {base}",
        "{base}, fine-tuned as a whole to write",
        "transformers",
        {
            "library_name": "transformers",
            "base_model_relation": "finetune",
            "tags": ["price-prediction", "pricer"],
        },
    ),
}
_CARD = """# {title}

{what} a product's price in whole US dollars behind its
text. Use it with Pricer, which reads the whole probability distribution over $1..$999 off it, or with
{library} and this prompt, the text cut to {max_text_tokens} tokens:

```text
{question}

<title and description>

Price is $
```

## Prices that it expects
{prior}

## Training
{training}

## Figures
{figures}

## Data
{data}

## Licences and limits
{licence}
Where the sources above state no licence, none is known to us; their text is not part of this repository.
Prices are those of the listings, in US dollars; the model knows no other currency, no used goods, and nothing
above $999. It guesses; do not trade on it.
"""


def base_licence(base: str) -> tuple[str, str]:
    """The Hub's word for the licence of an adapter of `base`, and the sentence on it."""
    name = base.lower().replace("/meta-llama-", "/llama-")
    return next((found for start, found in BASE_LICENCES.items() if name.startswith(start)), OTHER_LICENCE)


def model_card(folder: Path, runs: Path | None = None) -> str:
    """The card of an output folder of train.finetune, with the figures of its calibration, where there is one, and
    of the evaluation runs in `runs`."""
    recipe = yaml.safe_load((folder / "recipe.yaml").read_text(encoding="utf-8"))
    record, data = _read(folder / "metrics.json"), _read(folder / "data_card.json")
    base = ModelRef.parse(recipe["base_model"]).name
    licence, sentence = base_licence(base)
    title, what, library, kind = _KINDS[recipe.get("method", "lora")]
    sources = _sources(recipe, record, data)
    front = kind | {
        "base_model": base,
        "license": licence,
        "pipeline_tag": "text-generation",
        "language": ["en"],
    }
    if any(name.partition(":")[0] == HUB_DATASET for name in sources):
        front["datasets"] = [HUB_DATASET]
    parts = [_validation(recipe, record, data), *_calibration(folder), *(_runs(runs) if runs else [])]
    card = _CARD.format(
        title=title.format(base=base),
        what=what.format(base=base, rank=recipe.get("rank")),
        library=library,
        **{name: recipe[name] for name in ("max_text_tokens", "question")},
        prior=_prior(folder),
        training=_training(recipe, record),
        figures="\n\n".join(parts),
        data=_data(recipe, data, sources),
        licence=sentence,
    )
    return f"---\n{yaml.safe_dump(front, sort_keys=False)}---\n{card}"


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def _training(recipe: dict[str, Any], record: dict[str, Any]) -> str:
    resumed = record.get("resumed_from_step", 0)
    took = f"{record['seconds']:,.0f} s" + (f" since step {resumed:,}" if resumed else "")
    device = f"{record.get('processes', 1)} x {record['device']}"
    lines = [
        f"{record['rows']:,} rows, {record['steps']:,} steps, {took} on {device}, base in {record['precision']}, "
        f"loss {recipe.get('loss')}, seed {record.get('seed', recipe.get('seed'))}, {record['date']}."
    ]
    if "tokens_per_second" in record:
        memory = record.get("peak_gpu_memory_gib")
        lines.append(
            f"{record['tokens_per_second']:,.0f} tokens/s"
            + (f", {memory:.1f} GiB of GPU memory at most." if memory else ".")
        )
    if record.get("base_revision"):
        lines.append(f"Revision of the base: `{record['base_revision']}`.")
    lines += _further(recipe, record)
    versions = ", ".join(f"{name} {number}" for name, number in record["versions"].items())
    lines.append(f"Versions: {versions}.")
    lines.append("`python -m train.finetune recipe.yaml` repeats it; `recipe.yaml` holds every field.")
    return "\n".join(lines)


def _further(recipe: dict[str, Any], record: dict[str, Any]) -> list[str]:
    """What training had beside the rows: where it started, who taught, which other rows."""
    lines = []
    if recipe.get("start_from"):
        lines.append("It starts from a model that was fine-tuned before (`start_from`).")
    if teachers := recipe.get("teachers"):
        count = "a teacher" if len(teachers) == 1 else f"the mean of {len(teachers)} teachers"
        lines.append(f"Its labels are mixed with the distributions of {count} (`teachers`).")
    if record.get("extra_rows"):
        lines.append(f"{record['extra_rows']:,} further priced rows count {recipe['extra_weight']:g} each.")
    if record.get("unlabelled_rows"):
        lines.append(
            f"{record['unlabelled_rows']:,} further texts have their labels from the teachers alone."
        )
    return lines


def _validation(recipe: dict[str, Any], record: dict[str, Any], data: dict[str, Any]) -> str:
    found, split = record["validation"], recipe.get("validation_split", "validation")
    trained = " and ".join(recipe.get("train_splits", ["train"]))
    words = (
        f"On the {record['validation_rows']:,} rows of the {split} split (log-mean rule):\n"
        f"error ${found['error_usd']:.2f}, RMSLE {found['rmsle']:.3f}, hits {found['hits_pct']:.1f} %.\n"
        f"Training was on {trained}; none of these rows was trained on"
        + (", and none is a near-duplicate of one that was." if data else ".")
    )
    if recipe.get("load_best_model_at_end"):
        words += " They chose the best of the checkpoints, so that the figures flatter a little."
    if record.get("extra_rows") or record.get("unlabelled_rows"):
        words += "\nThe further rows and texts were prepared apart; that none of them is near these is not checked here."
    return words


def _calibration(folder: Path) -> list[str]:
    if not (folder / CALIBRATION_FILE).is_file():
        return []
    lines = []
    for name, found in Calibrations.load(folder / CALIBRATION_FILE).by_prior.items():
        if found.adapter_sha256 not in (None, weights_sha256(folder)):  # left by an adapter trained before
            continue
        held = ", ".join(
            f"{level:.0%} interval {share:.1%}" for level, share in sorted(found.coverage.items())
        )
        lines.append(
            f"- prior `{name}`: {found.items:,} listings; share of their prices held, cross-validated: "
            f"{held or 'not recorded'}. Default point rule: {found.rule}."
        )
    return ["Intervals were calibrated under each price prior:\n\n" + "\n".join(lines)] if lines else []


def _prior(folder: Path) -> str:
    """What prices the model expects, and how to have them otherwise."""
    if not (folder / PRIOR_FILE).is_file():
        return "The spread of the prices that it learned from was not recorded; Pricer takes it to be the benchmark's."
    found = PricePrior.load(folder / PRIOR_FILE)
    return (
        f"The prices that it learned from have a median of ${found.median_usd:,.0f}, and so it expects such prices before "
        f"it has read a word. `{PRIOR_FILE}` holds their histogram, with which Pricer gives its answers for other prices, "
        "such as a shop's: p'(n) ~ p(n) · shop(n) / trained(n)."
    )


def _runs(folder: Path) -> list[str]:
    """A table of the evaluation runs on each item set, ours first, with 95 % bootstrap intervals over items."""
    found = load_runs(folder).items()
    return [line for item_set, runs in found if runs for line in _runs_on(folder, item_set, runs)]


def _runs_on(folder: Path, item_set: str, runs: dict[str, Run]) -> list[str]:
    own = (folder / ITEM_SETS[item_set]).is_file()
    items, rows = load_items(folder if own else RUNS_FOLDER, item_set), []
    for run in runs.values():
        table = join_items(run, items)
        found = summarise(table["price_usd"], table["guess_usd"])
        cells = [
            f"{run.info.label}{', as others published it' if run.info.published else ''}",
            run.info.prior or "",
            run.info.rule or "",
            f"{len(table):,}",
            _cell(found.error_usd, "$", 2),
            _cell(found.rmsle, "", 3),
            _cell(found.hits_pct, "", 1),
        ]
        rows.append((run.info.published, found.error_usd.value, f"| {' | '.join(cells)} |"))
    head = "| model | prior | rule | items | error | RMSLE | hits % |\n|---|---|---|---|---|---|---|"
    lines = [line for _, _, line in sorted(rows)]
    return [
        f"{ITEM_SET_WORDS[item_set]}, with 95 % bootstrap intervals over items:",
        "\n".join([head, *lines]),
    ]


def _cell(found: Estimate, unit: str, digits: int) -> str:
    return f"{unit}{found.value:.{digits}f} [{found.low:.{digits}f}, {found.high:.{digits}f}]"


def _sources(recipe: dict[str, Any], record: dict[str, Any], data: dict[str, Any]) -> Counter[str]:
    """Training rows by where they come from: as training counted them, else those of the splits."""
    if record.get("sources"):
        return Counter(record["sources"])
    splits = data["splits"] if data else {}
    return sum((Counter(splits[name]["sources"]) for name in _trained(recipe, splits)), Counter())


def _trained(recipe: dict[str, Any], splits: dict[str, Any]) -> list[str]:
    return [name for name in recipe.get("train_splits", ["train"]) if name in splits]


def _data(recipe: dict[str, Any], data: dict[str, Any], sources: Counter[str]) -> str:
    if not data:
        return "No data card was recorded: what this adapter was trained on, and under what terms, is not stated here."
    splits = data["splits"]
    categories: Counter[str] = Counter()
    for split in _trained(recipe, splits):
        categories.update({name or "not stated": rows for name, rows in splits[split]["categories"].items()})
    price = splits["train"]["price_usd"]
    rows = ", ".join(f"{name} {split['rows']:,}" for name, split in data["splits"].items())
    return "\n".join(
        [
            f"Rows: {rows}. Prices of the train split: median ${price['median']:.2f}, middle half ${price['q25']:.2f} to "
            f"${price['q75']:.2f}. `data_card.json` has counts, hashes and how the splits were cut.",
            "",
            f"Categories: {_listed(categories, CATEGORIES_SHOWN)}.",
            "",
            "Sources of the training rows:",
            *(
                f"- {name} ({count:,}): {_source_licence(name)}"
                for name, count in sources.most_common(SOURCES_SHOWN)
            ),
            *(
                [f"- {len(sources) - SOURCES_SHOWN} more in `data_card.json`"]
                if len(sources) > SOURCES_SHOWN
                else []
            ),
        ]
    )


def _listed(counts: Counter[str], shown: int) -> str:
    parts = [f"{name.replace('_', ' ')} {count:,}" for name, count in counts.most_common(shown)]
    rest = sum(counts.values()) - sum(count for _, count in counts.most_common(shown))
    return ", ".join(parts) + (f", others {rest:,}" if rest else "")


def _source_licence(name: str) -> str:
    return next(
        (known for start, known in SOURCE_LICENCES.items() if name.startswith(start)), UNKNOWN_LICENCE
    )
