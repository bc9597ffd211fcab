"""Fine-tune a Llama, with (Q)LoRA or whole, to write a product's price behind its text.

    python -m train.finetune train/recipes/smollm2-135m.yaml [--field value ...]
    accelerate launch --multi_gpu --num_processes 2 -m train.finetune RECIPE [--field value ...]

Run it again after a crash and it goes on from its last checkpoint. A folder that holds another run (other rows,
models or settings) is refused, or begun anew with --restart. `train.output` says what the output folder then holds.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Sequence
from contextlib import nullcontext, suppress
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import peft
import torch
from accelerate import PartialState
from datasets import Dataset
from transformers import LlamaForCausalLM, TrainerCallback
from trl import SFTConfig

from pricer.errors import InputError, PricerError, report
from pricer.files import alone
from pricer.llama.base import load_base
from pricer.llama.lean import without_plans
from pricer.llama.quantised import dequantise_once
from pricer.settings import ModelRef, Settings
from train.dataset import PriceCollator, build_dataset
from train.lean import lean_layers
from train.lessons import lessons
from train.output import last_checkpoint, save_run, whole_or_a_sentence
from train.prior import trained_prior
from train.recipe import Recipe, load_recipe, recorded
from train.resume import begin
from train.rows import taught, training_rows, validation_rows
from train.start import start_from
from train.trainer import PriceTrainer, scoring_limits

log = logging.getLogger("train.finetune")
EXAMPLES = 256  # prompts by which start_from judges what a layer does
VERSIONS = ("torch", "transformers", "peft", "trl", "accelerate", "bitsandbytes")


def run_device() -> str:
    """Where this process of a launch computes."""
    return f"cuda:{PartialState().local_process_index}" if torch.cuda.is_available() else "cpu"


def check_lengths(dataset: Dataset, collator: PriceCollator, max_length: int | None) -> None:
    """Nothing is cut here: the prompt's text was cut to max_text_tokens already."""
    longest = max(dataset["length"]) + collator.positions
    if max_length is not None and longest > max_length:
        raise InputError(
            f"A training row has {longest} tokens and max_length is {max_length}: lower max_text_tokens, or raise it."
        )


def versions() -> dict[str, str]:
    found = {}
    for name in VERSIONS:
        with suppress(PackageNotFoundError):  # bitsandbytes is not there on every machine
            found[name] = version(name)
    return found


def lora(recipe: Recipe) -> peft.LoraConfig | None:
    """The adapter to train; None when the base itself is trained."""
    if recipe.method == "full":
        return None
    return peft.LoraConfig(
        r=recipe.rank,
        lora_alpha=recipe.alpha,
        lora_dropout=recipe.dropout,
        use_rslora=recipe.rslora,
        use_dora=recipe.dora,
        target_modules=recipe.target_modules,
        task_type="CAUSAL_LM",
    )


def release(base: LlamaForCausalLM, recipe: Recipe) -> None:
    """Let method full train the base's weights: all, or with linear_only those of target_modules."""
    for name, module in base.named_modules():
        if not recipe.linear_only or name.rpartition(".")[2] in recipe.target_modules:
            for parameter in module.parameters(recurse=False):
                parameter.requires_grad_(True)


def run(
    recipe: Recipe,
    config: SFTConfig,
    loaded: tuple[LlamaForCausalLM, Any] | None = None,
    callbacks: Sequence[TrainerCallback] = (),
) -> dict[str, Any]:
    """Train by the recipe; returns the record that metrics.json holds. Every process of a launch calls it.

    loaded: the base and its tokenizer, where they are in memory already; the base comes back with the adapter on, or
    trained.
    callbacks: who else is told how the training goes.
    """
    fields = recorded(recipe, config)
    folder = begin(recipe, config, base_given=loaded is not None)
    processes = PartialState()
    log.setLevel(logging.INFO if processes.is_main_process else logging.WARNING)
    settings = Settings(base=ModelRef.parse(recipe.base_model), adapter=ModelRef(""), label="")
    cuda, device = torch.cuda.is_available(), run_device()
    base, tokenizer = loaded or load_base(settings, device, recipe.precision if cuda else "fp32")
    if recipe.dequantise:
        base = dequantise_once(base)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token

    validation = validation_rows(recipe, folder)
    target_prices = validation["price"].to_numpy(float)
    rows = training_rows(recipe, folder, target_prices, config.seed)
    teacher = None
    if recipe.teachers:
        teacher = lessons(recipe, rows, device, scoring_limits(recipe, config))
        rows = taught(rows, teacher, target_prices, recipe)
        rows = rows[rows["weight"] > 0]
    weight = (rows["weight"] / rows["weight"].mean()).to_numpy()
    prior = trained_prior(rows, weight, teacher)
    dataset = build_dataset(rows, weight, tokenizer, recipe)
    assert len(dataset) == len(rows), "a training row was lost"
    collator = PriceCollator(tokenizer, recipe, config.seed, teacher)
    check_lengths(dataset, collator, config.max_length)
    log.info("%d training rows, %d validation rows, on %s", len(rows), len(validation), device)
    if recipe.method == "full":
        release(base, recipe)

    config.dataset_kwargs = {"skip_prepare_dataset": True}
    config.remove_unused_columns = False
    if config.ddp_find_unused_parameters is None:
        config.ddp_find_unused_parameters = False  # every step uses the whole adapter
    if config.n_gpu > 1:
        config._n_gpu = 1  # a process drives one card; `accelerate launch` starts one process for each
    trainer = PriceTrainer(
        model=base,
        args=config,
        train_dataset=dataset,
        eval_dataset=dataset.select(range(1)),  # only so that the trainer evaluates at all; see evaluate()
        processing_class=tokenizer,
        peft_config=lora(recipe),
        collator=collator,
        validation=validation,
        recipe=recipe,
    )
    for callback in callbacks:
        trainer.add_callback(callback)
    with processes.main_process_first():  # it removes what a kill left half-written
        checkpoint = last_checkpoint(Path(config.output_dir))
    if recipe.start_from and not checkpoint:
        chosen = np.random.default_rng(config.seed).permutation(len(dataset))[:EXAMPLES]
        start_from(trainer.model, recipe, list(dataset.select(chosen)["input_ids"]))
    without_plans()
    with lean_layers(trainer.model) if recipe.lean else nullcontext():
        result = trainer.train(resume_from_checkpoint=checkpoint)
    seconds = result.metrics["train_runtime"]
    cost, training_seconds = trainer.cost(), seconds - trainer.validation_seconds
    own = rows[~rows["title_alone"]]
    record = {
        "date": date.today().isoformat(),
        "base_model": recipe.base_model,
        "base_revision": getattr(base.config, "_commit_hash", None),
        "device": torch.cuda.get_device_name() if cuda else "cpu",
        "precision": recipe.precision if cuda else "fp32",
        "seed": config.seed,
        "rows": int((own["part"] == "rows").sum()),
        "extra_rows": int((own["part"] == "extra_rows").sum()),
        "unlabelled_rows": int((own["part"] == "unlabelled_rows").sum()),
        "titles_alone": len(rows) - len(own),
        "sources": own["source"].value_counts().to_dict() if "source" in own else {},
        "validation_rows": len(validation),
        "steps": trainer.state.global_step,
        # Cost is of this start alone: seconds with validation, tokens per second without.
        "resumed_from_step": int(checkpoint.rpartition("-")[2]) if checkpoint else 0,
        "seconds": round(seconds, 1),
        **cost,
        "tokens_per_second": round(cost["tokens"] / max(training_seconds, 1e-9), 1),
        "validation": {name: round(value, 4) for name, value in trainer.validate().items()},
        "history": [h for h in trainer.state.log_history if "eval_error_usd" in h],
        "versions": versions(),
    }
    if trainer.is_world_process_zero():
        model = trainer.accelerator.unwrap_model(trainer.model)
        out = save_run(model, tokenizer, recipe, fields, record, folder, prior)
        log.info("written to %s", out)
    trainer.accelerator.wait_for_everyone()
    return record


def main(argv: list[str] | None = None) -> int:
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        recipe, config = load_recipe(argv)
        mine = (
            alone(Path(recipe.output), "training into") if PartialState().is_main_process else nullcontext()
        )
        with whole_or_a_sentence(recipe.output), mine:
            record = run(recipe, config)
    except PricerError as error:
        return report(error)
    if PartialState().is_main_process:
        print(json.dumps(record["validation"], indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
