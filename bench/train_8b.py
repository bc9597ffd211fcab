"""Time and memory of the recipes for Llama 3.1 8B, from training to scoring, on random weights in its shape.

    python -m bench.train_8b --tokenizer FOLDER --out out/bench-8b

FOLDER holds a Llama 3 tokenizer. Each recipe trains a few steps on made-up products through train.finetune, saves
its adapter, loads it again through pricer.llama.pair and scores items with both passes. The first try is held to
--memory-gb of the card; a recipe that does not fit is said not to, and tried again with all of it. Random weights
cost what Meta's would, and know nothing: the validation figures show that scoring runs, not how good it is.

Any further --field value goes to the recipes. Prints a line of JSON for each recipe, then a Markdown table.
"""

from __future__ import annotations

import argparse
import json
import platform
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from peft import PeftModel
from transformers import AutoTokenizer, LlamaForCausalLM, TrainerCallback

from bench.products import products
from bench.shape_8b import GIB, SHAPES, clear, distance, random_base, say
from pricer.errors import InputError, PricerError, report
from pricer.llama.adapter import load_adapter_card
from pricer.llama.card import on_card, why_not_on_card
from pricer.llama.lean import make_lean, make_plain
from pricer.llama.pair import LlamaPair, load_pair
from pricer.llama.predictor import Predictor
from pricer.price.distribution import PriceDistribution
from pricer.settings import Limits, ModelRef, Settings
from train.finetune import run
from train.recipe import load_recipe
from train.trainer import dollar_figures

RECIPES = ["train/recipes/llama-3.1-8b.yaml", "train/recipes/llama-3.1-8b-seed.yaml"]
TRAIN_ROWS = 512  # four steps of our recipe: the rows come again, as in a second epoch
WARM_UP = 2  # steps that are not timed
SCORING_TOKENS = 16384  # in one forward pass of a card
TOLERANCE = 1e-3  # of the total variation between the adapter in memory and the one loaded again


class Meter(TrainerCallback):
    """What each step took. `model` is the model in training, from its first step on."""

    def __init__(self):
        self.model: PeftModel | None = None
        self.rows = self.places = 0  # places: tokens with the padding between them
        self.tokens: Any = 0
        self.steps: list[tuple[float, int, int, int]] = []  # at each step's end: time, rows, tokens, places
        self.losses: list[float] = []
        self.peak_bytes = 0  # in use at once while training

    def on_train_begin(self, args, state, control, model=None, processing_class=None, **kwargs):
        self.model, self.pad = model, processing_class.pad_token_id
        self.hook = model.register_forward_pre_hook(self._count, with_kwargs=True)

    def _count(self, module, args, inputs):
        self.rows += len(inputs["input_ids"])
        self.places += inputs["input_ids"].numel()
        self.tokens += (inputs["input_ids"] != self.pad).sum()

    def on_step_end(self, args, state, control, **kwargs):
        tokens = int(self.tokens)  # waits for the card
        self.steps.append((time.perf_counter(), self.rows, tokens, self.places))
        if torch.cuda.is_available():
            self.peak_bytes = torch.cuda.max_memory_allocated()

    def on_train_end(self, args, state, control, **kwargs):
        self.losses = [entry["loss"] for entry in state.log_history if "loss" in entry]
        self.hook.remove()

    def speed(self) -> dict[str, Any]:
        """Over the steps behind the warm-up."""
        timed = np.array(self.steps[WARM_UP - 1 :])
        seconds, rows, tokens, places = map(float, timed[-1] - timed[0])
        return {
            "steps": len(self.steps),
            "timed_steps": len(timed) - 1,
            "seconds_per_step": round(float(np.median(np.diff(timed[:, 0]))), 3),
            "rows_per_second": round(rows / seconds, 2),
            "tokens_per_second": round(tokens / seconds, 1),
            "tokens_per_second_with_padding": round(places / seconds, 1),
        }


@contextmanager
def memory_limit(gigabytes: float) -> Iterator[None]:
    """As on a card of so many GB (10^9 bytes): what the driver and others hold of this one counts too."""
    free, total = torch.cuda.mem_get_info()
    outside = total - free - torch.cuda.memory_reserved()
    torch.cuda.set_per_process_memory_fraction(min(1.0, (gigabytes * 1e9 - outside) / total))
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


@dataclass
class Bench:
    """One base for all recipes, and where things go."""

    base: LlamaForCausalLM
    tokenizer: Any
    data: Path
    out: Path
    steps: int
    memory_gb: float  # 0: no limit
    fields: list[str]  # for every recipe, as on its command line

    def measure(self, path: Path) -> dict[str, Any]:
        """Train by the recipe, load its adapter again, score with both passes; what was found."""
        out = self.out / path.stem
        found: dict[str, Any] = {"recipe": path.stem, "memory_limit_gb": self.memory_gb}
        cuda = torch.cuda.is_available()
        limited = self.memory_gb > 0
        meter = Meter()
        try:
            with memory_limit(self.memory_gb) if limited else nullcontext():
                recipe, config, record = self.train(path, out, meter)
        except torch.OutOfMemoryError as error:
            if not limited:
                raise
            say(f"{path.stem} does not fit {self.memory_gb:g} GB: {str(error).splitlines()[0][:160]}")
            found["fits"] = False
        if found.get("fits") is False:  # out here nothing holds the failed try any more
            self.bare(meter)
            meter = Meter()
            recipe, config, record = self.train(path, out, meter)
        batch, times = config.per_device_train_batch_size, config.gradient_accumulation_steps
        found |= {"batch": f"{batch} x {times}", "device": record["device"], "precision": record["precision"]}
        found |= meter.speed()
        if cuda:
            free, total = torch.cuda.mem_get_info()
            found |= {
                "training_peak_gib": round(meter.peak_bytes / GIB, 2),
                "peak_gib": round(torch.cuda.max_memory_allocated() / GIB, 2),  # with validation
                "reserved_gib": round(torch.cuda.max_memory_reserved() / GIB, 2),
                "whole_card_gib": round((total - free) / GIB, 2),  # with what the driver holds
            }
            if limited:
                found.setdefault("fits", total - free <= self.memory_gb * 1e9)
        found |= {"loss_first": round(meter.losses[0], 4), "loss_last": round(meter.losses[-1], 4)}
        say(f"{path.stem} trained: {json.dumps(found)}")
        found |= self.score_again(out, meter, recipe.precision)
        found["validation_of_random_weights_tuned"] = record["validation"]
        return found | {"date": record["date"], "versions": record["versions"]}

    def train(self, path: Path, out: Path, meter: Meter):
        shutil.rmtree(out, ignore_errors=True)  # else it would go on from its last checkpoint
        fields = {"base_model": self.base.name_or_path, "data": self.data, "output": out}
        fields |= {"max_steps": self.steps, "logging_steps": 1, "disable_tqdm": True}
        words = [word for name, value in fields.items() for word in (f"--{name}", str(value))]
        recipe, config = load_recipe([str(path), *words, *self.fields])
        clear()
        say(f"{path.stem}: {self.steps} steps")
        return recipe, config, run(recipe, config, (self.base, self.tokenizer), [meter])

    def score_again(self, out: Path, meter: Meter, precision: str) -> dict[str, Any]:
        """Is the adapter that was saved the one in memory? And what scoring takes."""
        items = pd.read_parquet(self.data / "validation.parquet")
        precision = precision if torch.cuda.is_available() else None
        base, adapter = ModelRef(self.base.name_or_path), ModelRef(str(out))
        settings = Settings(base=base, adapter=adapter, label="", precision=precision)
        model = meter.model.eval()
        in_memory = LlamaPair(model, self.tokenizer, load_adapter_card(settings))
        trained, _ = score(in_memory, items["text"], "tuned")
        for parameter in model.parameters():
            if parameter.requires_grad:
                # As it was saved, and is loaded.
                parameter.data = parameter.data.to(torch.bfloat16).to(self.base.dtype)
        make_lean(model)  # as it is loaded
        if not why_not_on_card(in_memory.llama):
            in_memory.card = on_card(in_memory.llama)
        as_saved, _ = score(in_memory, items["text"], "tuned")
        del in_memory, model
        self.bare(meter)

        start = time.perf_counter()
        pair = load_pair(settings, (self.base, self.tokenizer))
        seconds = time.perf_counter() - start
        base, base_speed = score(pair, items["text"], "base")
        tuned, tuned_speed = score(pair, items["text"], "tuned")
        pair._peft_model.unload()
        make_plain(self.base)
        off = distance(as_saved, tuned)
        say(f"loaded again in {seconds:.1f} s; off by {off:.1e} in total variation")
        return {
            "adapter_mib": round((out / "adapter_model.safetensors").stat().st_size / 2**20, 1),
            "seconds_to_load_adapter": round(seconds, 2),
            "scored_items": len(items),
            "items_per_second_base": round(base_speed, 1),
            "items_per_second_tuned": round(tuned_speed, 1),
            # Largest total variation over the items, between distributions over $1..$999.
            "loaded_again_off_by": off,
            "loaded_again_is_the_same": off <= TOLERANCE,
            "off_by_rounding_to_bf16": distance(trained, as_saved),
            "moved_by_training": distance(base, tuned),
            "validation_of_random_weights_base": dollar_figures(base, items["price"].to_numpy(float)),
        }

    def bare(self, meter: Meter) -> None:
        """Take the meter's adapter off the base, and what training switched on in it."""
        if meter.model is not None:
            meter.model.unload()
        meter.model = None
        make_plain(self.base)
        self.base.disable_input_require_grads()
        self.base.gradient_checkpointing_disable()
        self.base.eval().requires_grad_(False)
        clear()


def score(pair: LlamaPair, texts: pd.Series, which: str) -> tuple[PriceDistribution, float]:
    """One pass's distributions, in order, and how many items a second, the better of two times."""
    cuda = torch.cuda.is_available()
    predictor = Predictor(pair, Limits(batch_tokens=SCORING_TOKENS) if cuda else None)
    prompts = [predictor.prepare(text) for text in texts]
    seconds = []
    for _ in range(2):
        start = time.perf_counter()
        found = predictor.predict(prompts, which)
        seconds.append(time.perf_counter() - start)
    return PriceDistribution.stack([p.distribution for p in found]), len(texts) / min(seconds)


def table(results: list[dict[str, Any]]) -> str:
    """Markdown: the machine, then a row for each recipe."""
    first = results[0]
    versions = ", ".join(f"{name} {number}" for name, number in first["versions"].items())
    lines = [
        f"{first['device']}, base in {first['precision']}; Python {platform.python_version()}, {versions}, "
        f"CUDA {torch.version.cuda}; {first['date']}. Random weights in the shape of Llama 3.1 8B.",
        "",
        "| recipe | batch | s/step | tokens/s (with padding) | peak memory | reserved, whole card | fits "
        "| loss | scoring, base / tuned |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for r in results:
        memory, card, fits = "-", "-", "-"
        if "peak_gib" in r:
            memory = f"{r['peak_gib']:.1f} GiB"
            card = f"{r['reserved_gib']:.1f}, {r['whole_card_gib']:.1f} GiB"
        if "fits" in r:
            fits = f"{r['memory_limit_gb']:g} GB: {'yes' if r['fits'] else 'no'}"
        lines.append(
            f"| {r['recipe']} | {r['batch']} | {r['seconds_per_step']:.2f} | {r['tokens_per_second']:,.0f} "
            f"({r['tokens_per_second_with_padding']:,.0f}) | {memory} | {card} | {fits} "
            f"| {r['loss_first']:.2f} to {r['loss_last']:.2f} "
            f"| {r['items_per_second_base']:.0f} / {r['items_per_second_tuned']:.0f} items/s |"
        )
    return "\n".join(lines)


def arguments(module: str, doc: str) -> argparse.ArgumentParser:
    """What the benchmarks of training are told alike."""
    parser = argparse.ArgumentParser(prog=f"python -m bench.{module}", description=doc.split("\n")[0])
    parser.add_argument("--steps", type=int, default=12, help=f"the first {WARM_UP} are not timed")
    parser.add_argument("--shape", choices=SHAPES, default="8b")
    parser.add_argument("--tokenizer", type=Path, required=True, help="folder of a Llama 3 tokenizer")
    parser.add_argument("--out", type=Path, required=True)
    return parser


def check_steps(steps: int) -> None:
    """Raises InputError for too few."""
    if steps < WARM_UP + 1:
        raise InputError(f"--steps must be at least {WARM_UP + 1}: {WARM_UP} are not timed.")


def write_products(data: Path, tokenizer: Any, train: int, validation: int) -> None:
    """So many made-up rows, as train.finetune reads them."""
    data.mkdir(parents=True, exist_ok=True)
    rows = products(train + validation, tokenizer)
    rows[:train].to_parquet(data / "train.parquet")
    rows[train:].to_parquet(data / "validation.parquet")
    say(f"{len(rows)} products written")


def parse(argv: list[str] | None) -> tuple[argparse.Namespace, list[str]]:
    parser = arguments("train_8b", __doc__)
    parser.add_argument("--recipes", type=Path, nargs="+", default=[Path(path) for path in RECIPES])
    parser.add_argument("--items", type=int, default=64, help="validation rows to score")
    parser.add_argument("--memory-gb", type=float, default=24, help="GB of the card to use first; 0: all")
    return parser.parse_known_args(argv)


def main(argv: list[str] | None = None) -> int:
    options, fields = parse(argv)
    try:
        check_steps(options.steps)
        precisions = {load_recipe([str(path), *fields])[0].precision for path in options.recipes}
        if len(precisions) > 1:
            raise InputError("The recipes want their base in several precisions: measure them one by one.")
        results = measure_all(options, fields, precisions.pop())
    except PricerError as error:
        return report(error)
    print(table(results))
    return 0 if all(result["loaded_again_is_the_same"] for result in results) else 1


def measure_all(options: argparse.Namespace, fields: list[str], precision: str) -> list[dict[str, Any]]:
    cuda = torch.cuda.is_available()
    tokenizer = AutoTokenizer.from_pretrained(options.tokenizer)
    data = options.out / "data"
    write_products(data, tokenizer, TRAIN_ROWS, options.items)
    torch.manual_seed(0)
    device, precision = ("cuda:0", precision) if cuda else ("cpu", "fp32")
    base = random_base(SHAPES[options.shape], device, precision, options.out / "base")
    clear()
    say(f"{options.shape} base of {base.get_memory_footprint() / GIB:.2f} GiB in {precision}")
    memory_gb = options.memory_gb if cuda else 0
    bench = Bench(base, tokenizer, data, options.out, options.steps, memory_gb, fields)
    results = []
    for path in options.recipes:
        results.append({"shape": options.shape} | bench.measure(path))
        print(json.dumps(results[-1]), flush=True)
        (options.out / "results.json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    return results


if __name__ == "__main__":
    sys.exit(main())
