"""Score any pair of models on any items file, and write one evaluation run per model.

    python -m train.evaluate --items ../shared/data/pricer_test.parquet --out out/runs [--profile embedded]
        [--passes base tuned] [--prior benchmark] [--rule log-mean] [--protocol distribution|published] [--limit N]
    python -m train.evaluate --items everyday_test.parquet --set everyday --prior shop --out out/runs

The items file has columns `prompt` or `text`, and `price` (and `index`, `category` where known). Killed and
started again, it goes on behind the last finished item; with other items, models or settings it refuses, or begins
anew with --restart. `--protocol published` does what the seed did: greedy
decoding, the first number in the text, 0 if there is none.
"""

from __future__ import annotations

import argparse
import json
import logging
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from pydantic import ValidationError
from tqdm import tqdm

from pricer.arena.metrics import Summary, summarise
from pricer.arena.runs import BENCHMARK, ITEM_SETS, SOURCES, Run, RunInfo, save_run
from pricer.errors import InputError, PricerError, report
from pricer.files import write_whole
from pricer.llama.adapter import Adapter, load_adapter_card
from pricer.llama.base import choose_device, choose_precision
from pricer.llama.made_of import predictions_made_of
from pricer.llama.prediction import default_rule
from pricer.llama.predictor import Predictor, load_predictor
from pricer.manifest import Manifest, content_key
from pricer.price.distribution import RULES
from pricer.price.prior import PricePrior, load_prior
from pricer.prompt import Prompt
from pricer.settings import PASSES, PROFILES, ModelRef, Settings
from train.data import load_items

CHUNK = 256  # items prepared at once, so that memory does not grow with the file
MAX_GUESS_USD = 1e6  # what a run's table takes; greedy base models write longer numbers


def first_number(text: str) -> float:
    """The published protocol's reading of a model's text: its first number, 0 if there is none."""
    found = re.search(r"\d+\.?\d*", text.replace("$", "").replace(",", ""))
    return min(float(found.group()), MAX_GUESS_USD) if found else 0.0


def score_by_distribution(
    predictor: Predictor, prompts: Sequence[Prompt], which: str, rule: str
) -> Iterator[dict]:
    for indices, predictions in predictor.predict_batches(prompts, which):
        for i, prediction in zip(indices, predictions, strict=True):
            yield {"row": i, **prediction.run_row(rule), "probabilities": prediction.distribution}


def score_as_published(
    predictor: Predictor, prompts: Sequence[Prompt], which: str, rule: str
) -> Iterator[dict]:
    for i, prompt in enumerate(prompts):
        written = predictor.greedy_text(prompt, which)
        yield {"row": i, "guess_usd": first_number(written), "unparsed": not re.search(r"\d", written)}


PROTOCOLS = {"distribution": score_by_distribution, "published": score_as_published}


class Progress:
    """Finished items in a file beside the run, one JSON line each; from a line torn by a kill on they are dropped.

    The first line is the manifest. Raises InputError for items that were scored under another one, unless `restart`:
    then they are thrown away."""

    def __init__(self, path: Path, manifest: Manifest, restart: bool = False):
        self.path, self.done = path, {}
        written = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
        header, *records = written.split("\n")[:-1] or [""]  # what follows the last newline was torn
        if any(records) and not restart:
            manifest.check(Manifest.parse(header), path)
            self.done = {record["index"]: record for record in _whole_records(records)}
        lines = [manifest.as_line(), *map(json.dumps, self.done.values())]
        write_whole(path, lambda aside: aside.write_text("\n".join(lines) + "\n", encoding="utf-8"))
        self._file = path.open("a", encoding="utf-8")

    def add(self, record: dict) -> None:
        self.done[record["index"]] = record
        self._file.write(json.dumps(record) + "\n")
        self._file.flush()

    def finish(self) -> None:
        self._file.close()
        self.path.unlink(missing_ok=True)  # where another process did the same work


def _whole_records(lines: Sequence[str]) -> Iterator[dict]:
    for line in lines:
        try:
            record = json.loads(line)
        except ValueError:
            record = None
        whole = isinstance(record, dict) and type(record.get("index")) is int and "guess_usd" in record
        if not whole:  # damaged from outside: scored again
            return
        yield record


def evaluate(
    predictor: Predictor, items: pd.DataFrame, which: str, *, rule: str, protocol: str, progress: Progress
) -> pd.DataFrame:
    """The run's table: one row per item, by index. Items that `progress` holds are not scored again."""
    todo = items[~items["index"].isin(progress.done)]
    with tqdm(
        total=len(items), initial=len(items) - len(todo), desc=which, unit=" items", mininterval=1
    ) as bar:
        for start in range(0, len(todo), CHUNK):
            chunk = todo.iloc[start : start + CHUNK]
            prompts = [predictor.prepare(text) for text in chunk["text"]]
            for record in PROTOCOLS[protocol](predictor, prompts, which, rule):
                item = chunk.iloc[record.pop("row")]
                distribution = record.pop("probabilities", None)
                if distribution is not None:
                    record["crps_usd"] = float(distribution.crps(item["price"]))
                progress.add({"index": int(item["index"]), **record})
                bar.update()
    table = pd.DataFrame([progress.done[index] for index in items["index"]])
    return table.sort_values("index", ignore_index=True)


def run_info(
    settings: Settings,
    name: str,
    which: str,
    rule: str,
    protocol: str,
    precision: str,
    adapter: Adapter,
    prior: PricePrior,
    item_set: str,
) -> RunInfo:
    tuned, calibration = which == "tuned", adapter.calibrations.under(prior)
    folder = settings.adapter.is_folder
    return RunInfo(
        name=name,
        label=f"{settings.label} {'fine-tuned' if tuned else 'base'}"
        + (", as published" if protocol == "published" else "")
        + (f", {prior.name} prices" if tuned and (item_set, prior.name) != (BENCHMARK, BENCHMARK) else ""),
        kind=which,
        base_model=settings.base.name,
        base_revision=settings.base.revision,
        adapter=(Path(settings.adapter.name).name if folder else settings.adapter.name) if tuned else None,
        adapter_revision=settings.adapter.revision if tuned else None,
        items=item_set,
        **SOURCES[item_set],
        rule=rule if protocol == "distribution" else "greedy",
        prior=prior.name if tuned and protocol == "distribution" else None,
        calibrated_on=calibration.items if calibration and tuned and protocol == "distribution" else None,
        precision=precision,
        device=torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        date=date.today(),
        origin=f"python -m train.evaluate --profile {settings.profile} --passes {which} "
        f"--set {item_set} --prior {prior.name} --rule {rule} --protocol {protocol}",
    )


def run_name(options: argparse.Namespace, settings: Settings, which: str, prior: PricePrior) -> str:
    name = options.name or (
        settings.profile if options.set == BENCHMARK else f"{options.set}-{settings.profile}"
    )
    other = which == "tuned" and prior.name != BENCHMARK
    return f"{name}-{which}" + (
        f"-{re.sub(r'[^a-z0-9]+', '-', prior.name.lower()).strip('-')}" if other else ""
    )


def format_summary(label: str, summary: Summary) -> str:
    """One line of figures with 95 % bootstrap intervals."""
    parts = [f"{label}: {summary.items:,} items"]
    named = [
        ("error $", "error_usd", 2),
        ("RMSLE", "rmsle", 3),
        ("hits %", "hits_pct", 1),
        ("median error $", "median_error_usd", 2),
    ]
    named += [("90 % coverage %", "coverage_pct", 1), ("width $", "width_usd", 0), ("CRPS $", "crps_usd", 2)]
    for words, field, digits in named:
        if (e := getattr(summary, field)) is not None:
            parts.append(f"{words} {e.value:.{digits}f} [{e.low:.{digits}f}, {e.high:.{digits}f}]")
    return "; ".join(parts)


def summarise_run(table: pd.DataFrame, price_usd: np.ndarray) -> Summary:
    columns = {
        name: table[name].to_numpy()
        for name in ("low_usd", "high_usd", "crps_usd", "unparsed")
        if name in table
    }
    return summarise(price_usd, table["guess_usd"].to_numpy(), **columns)


def check_name(name: str) -> None:
    """Raises InputError for a name that no run can have, before anything is scored."""
    try:
        RunInfo(name=f"{name}-{PASSES[-1]}", label="x", kind="own")
    except ValidationError:
        raise InputError(
            f"No run can be called {name}: use at most 70 small letters, digits, dots, underscores and hyphens."
        ) from None


def items_made_of(items: pd.DataFrame) -> dict[str, str]:
    """For a manifest: what is scored, and what a score is held against."""
    return {
        "items": content_key(zip(items["index"].tolist(), items["text"], strict=True)),
        "prices": content_key(items["price"].tolist()),
    }


def main(argv: list[str] | None = None) -> int:
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    parser = argparse.ArgumentParser(prog="python -m train.evaluate", description=__doc__.split("\n")[0])
    parser.add_argument("--items", required=True, help="csv, parquet or jsonl with prompt or text, and price")
    parser.add_argument("--out", required=True, help="folder for the runs")
    parser.add_argument("--profile", choices=PROFILES, help="default: PRICER_PROFILE, or embedded")
    parser.add_argument("--adapter", help="another adapter than the profile's")
    parser.add_argument("--passes", nargs="+", choices=PASSES, default=list(PASSES))
    parser.add_argument(
        "--prior",
        default="benchmark",
        help="what prices the tuned pass is to expect: shop, benchmark, or a file of train.prior; default: benchmark",
    )
    parser.add_argument("--rule", choices=RULES, help="default: the adapter's, for both passes")
    parser.add_argument("--protocol", choices=PROTOCOLS, default="distribution")
    parser.add_argument("--limit", type=int, default=0, help="score the first N items only")
    parser.add_argument(
        "--set", choices=ITEM_SETS, default=BENCHMARK, help="which the items are; default: benchmark"
    )
    parser.add_argument(
        "--name",
        help="the runs are called NAME-base and NAME-tuned, under another prior than the benchmark's NAME-tuned-PRIOR; "
        "default: the profile, behind the name of another set than the benchmark",
    )
    parser.add_argument("--restart", action="store_true", help="throw away what an unfinished run left")
    options = parser.parse_args(argv)
    try:
        settings = Settings.from_env(profile=options.profile, prior=options.prior)
        if options.adapter:
            settings = replace(settings, adapter=ModelRef.parse(options.adapter))
        items = load_items(options.items, options.limit)
        device, adapter = choose_device(settings), load_adapter_card(settings)
        prior, precision = load_prior(settings.prior), choose_precision(settings, device)
        rule = options.rule or default_rule(adapter, prior)
        names = {which: run_name(options, settings, which, prior) for which in options.passes}
        for name in names.values():
            check_name(name)
        progresses = {}
        for which, name in names.items():
            manifest = Manifest(
                {"rule": rule, "protocol": options.protocol}
                | items_made_of(items)
                | predictions_made_of(settings, adapter, device, (which,))
            )
            path = Path(options.out) / f".{name}.progress.jsonl"
            progresses[which] = Progress(path, manifest, options.restart)
        predictor = load_predictor(settings)
        for which, name in names.items():
            progress = progresses[which]
            table = evaluate(predictor, items, which, rule=rule, protocol=options.protocol, progress=progress)
            info = run_info(
                settings, name, which, rule, options.protocol, precision, adapter, prior, options.set
            )
            save_run(options.out, Run(info, table))
            progress.finish()
            price = items.sort_values("index")["price"].to_numpy(float)
            print(format_summary(info.label, summarise_run(table, price)))
    except (PricerError, OSError) as error:
        return report(error)
    except KeyboardInterrupt:
        print("Stopped; what is scored is kept, and the same command goes on.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
