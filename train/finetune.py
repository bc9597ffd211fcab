"""Fine-tune a Llama with (Q)LoRA to write a product's price behind its text.

    python -m train.finetune train/recipes/smollm2-135m.yaml [--field value ...]

Run it again after a crash and it goes on from its last checkpoint. The output folder then holds
the adapter (safetensors), pricer.json (the prompt it was trained on), recipe.yaml, metrics.json
(validation figures in dollars) and a model card.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import shutil
import sys
from datetime import date
from importlib.metadata import version
from pathlib import Path

import pandas as pd
import peft
import torch
import yaml
from accelerate import PartialState
from trl import SFTConfig, SFTTrainer

from pricer import metrics
from pricer.distribution import PriceDistribution
from pricer.errors import InputError, PricerError
from pricer.model import Adapter, LlamaPair, load_base
from pricer.predictor import Predictor
from pricer.prompt import Prompt
from pricer.settings import Limits, ModelRef, Settings
from train.card import model_card
from train.data import load_rows
from train.dataset import PriceCollator, build_dataset, price_loss, row_weights
from train.recipe import Recipe, load_recipe

log = logging.getLogger("train.finetune")
RULES_SHOWN = ("log-mean", "median")


class PriceTrainer(SFTTrainer):
    """TRL's trainer with the loss on the price's tokens only, and validation in dollars."""

    def __init__(self, *, collator: PriceCollator, validation: pd.DataFrame, recipe: Recipe, **kwargs):
        super().__init__(data_collator=collator, **kwargs)
        self.model_accepts_loss_kwargs = False  # our loss is a mean over rows, so accumulation must divide it
        for (
            parameter
        ) in self.model.parameters():  # TRL puts a 4-bit base's adapter in bf16, too coarse for small steps
            if parameter.requires_grad:
                parameter.data = parameter.data.float()
        self.columns = torch.from_numpy(collator.columns)
        self.validation = validation
        adapter = Adapter(Path(), recipe.base_model, recipe.question, recipe.max_text_tokens)
        pair = LlamaPair(self.model, self.processing_class, adapter)
        self.predictor = Predictor(pair, Limits(batch_tokens=65536 if torch.cuda.is_available() else 4096))

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        # One place more than there are labels: the token before the price predicts its first digit.
        keep = inputs["labels"].shape[1] + 1
        outputs = model(
            input_ids=inputs["input_ids"],
            attention_mask=causal_mask(inputs["attention_mask"].bool()),
            logits_to_keep=keep,
            use_cache=False,
        )
        loss = price_loss(outputs.logits[:, :-1], inputs, self.columns.to(outputs.logits.device))
        return (loss, outputs) if return_outputs else loss

    def evaluate(self, eval_dataset=None, ignore_keys=None, metric_key_prefix="eval"):
        was_training = self.model.training
        self.model.eval()
        figures = validate(self.predictor, self.validation)
        self.model.train(was_training)
        figures = {f"{metric_key_prefix}_{name}": value for name, value in figures.items()}
        self.log(figures)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, figures)
        return figures


def causal_mask(real: torch.Tensor) -> torch.Tensor:
    """(batch, 1, length, length), True where a place sees another. Padding sees itself: a row of attention
    with nothing to see has no gradient but NaN."""
    length = real.shape[1]
    earlier = torch.ones(length, length, dtype=torch.bool, device=real.device).tril()
    itself = torch.eye(length, dtype=torch.bool, device=real.device)
    return ((earlier & real[:, None, :]) | itself)[:, None]


def score(predictor: Predictor, rows: pd.DataFrame, which: str = "tuned") -> PriceDistribution:
    """The distributions of all rows' texts, in order."""
    prompts: list[Prompt] = [predictor.prepare(text) for text in rows["text"]]
    return PriceDistribution.stack([p.distribution for p in predictor.predict(prompts, which)])


def validate(predictor: Predictor, rows: pd.DataFrame) -> dict[str, float]:
    """Error ($), RMSLE and hits (%) by rule, mean CRPS ($) and log score (nats) on validation rows."""
    distribution = score(predictor, rows)
    price = rows["price"].to_numpy(float)
    figures = {
        "crps_usd": float(distribution.crps(price).mean()),
        "log_score": float(distribution.log_score(price).mean()),
        "unpriced_mass": float(distribution.unpriced_mass.mean()),
    }
    for rule in RULES_SHOWN:
        guess, suffix = distribution.point(rule), "" if rule == RULES_SHOWN[0] else f"_{rule}"
        figures[f"error_usd{suffix}"] = metrics.predict_error(price, guess)
        figures[f"rmsle{suffix}"] = metrics.rmsle(price, guess)
        figures[f"hits_pct{suffix}"] = metrics.hits_pct(price, guess)
    return figures


def last_checkpoint(folder: Path) -> str | None:
    """The newest checkpoint that was written to its end; halves left by a kill are removed."""
    found = sorted(folder.glob("checkpoint-*"), key=lambda p: int(p.name.rpartition("-")[2]))
    for path in reversed(found):
        # The trainer writes its state last.
        if (path / "trainer_state.json").is_file() and (path / "adapter_model.safetensors").is_file():
            return str(path)
        shutil.rmtree(path)
    return None


def save_adapter(trainer: PriceTrainer, recipe: Recipe, config: SFTConfig, record: dict) -> Path:
    """Adapter in bf16 (half the size), and beside it what is needed to use and to repeat it."""
    out = Path(recipe.output)
    out.mkdir(parents=True, exist_ok=True)
    model = trainer.accelerator.unwrap_model(trainer.model)
    state = {k: v.to(torch.bfloat16) for k, v in peft.get_peft_model_state_dict(model).items()}
    model.peft_config["default"].base_model_name_or_path = str(ModelRef.parse(recipe.base_model).name)
    model.save_pretrained(out, state_dict=state, save_embedding_layers=False)
    write_json(out / "pricer.json", {"question": recipe.question, "max_text_tokens": recipe.max_text_tokens})
    write_json(out / "metrics.json", record)
    fields = dataclasses.asdict(recipe) | {
        k: getattr(config, k)
        for k in ("learning_rate", "num_train_epochs", "per_device_train_batch_size", "seed")
        + (
            "gradient_accumulation_steps",
            "lr_scheduler_type",
            "warmup_steps",
            "weight_decay",
            "max_grad_norm",
        )
    }
    (out / "recipe.yaml").write_text(
        yaml.safe_dump(json.loads(json.dumps(fields, default=str))), encoding="utf-8"
    )
    (out / "README.md").write_text(model_card(recipe, record), encoding="utf-8")
    return out


def write_json(path: Path, content: dict) -> None:
    path.write_text(json.dumps(content, indent=2, default=float) + "\n", encoding="utf-8")


def prepared_data(recipe: Recipe, seed: int) -> Path:
    """The recipe's prepared folder; a plain file is prepared into <output>/data on the first run."""
    folder = Path(recipe.data)
    if folder.is_file():
        from train.prepare import Options, prepare

        folder = Path(recipe.output) / "data"
        with PartialState().main_process_first():
            if not (folder / "train.parquet").is_file():
                options = Options(str(folder), validation=recipe.validation_rows, calibration=0, seed=seed)
                prepare([recipe.data], options)
    if not (folder / "train.parquet").is_file():
        raise InputError(
            f"There is no training data at {recipe.data}: name a file, or a folder made by train.prepare."
        )
    return folder


def run(recipe: Recipe, config: SFTConfig) -> dict:
    """Train by the recipe; returns the record that metrics.json holds."""
    settings = Settings(base=ModelRef.parse(recipe.base_model), adapter=ModelRef(""), label="")
    cuda = torch.cuda.is_available()
    device = f"cuda:{PartialState().local_process_index}" if cuda else "cpu"
    base, tokenizer = load_base(settings, device, recipe.precision if cuda else "fp32")
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token

    folder = prepared_data(recipe, config.seed)
    rows, validation = (load_rows(folder / f"{split}.parquet") for split in ("train", "validation"))
    if recipe.max_rows:
        rows = rows.sample(min(recipe.max_rows, len(rows)), random_state=config.seed)
    weight = row_weights(rows, validation["price"].to_numpy(float), recipe)
    dataset = build_dataset(rows, weight, tokenizer, recipe)
    assert len(dataset) == len(rows), "a training row was lost"
    log.info("%d training rows, %d validation rows, on %s", len(rows), len(validation), device)

    config.dataset_kwargs = {"skip_prepare_dataset": True}
    config.remove_unused_columns = False
    trainer = PriceTrainer(
        model=base,
        args=config,
        train_dataset=dataset,
        eval_dataset=dataset.select(range(1)),  # only so that the trainer evaluates at all; see evaluate()
        processing_class=tokenizer,
        peft_config=peft.LoraConfig(
            r=recipe.rank,
            lora_alpha=recipe.alpha,
            lora_dropout=recipe.dropout,
            use_rslora=recipe.rslora,
            use_dora=recipe.dora,
            target_modules=recipe.target_modules,
            task_type="CAUSAL_LM",
        ),
        collator=PriceCollator(tokenizer, recipe),
        validation=validation,
        recipe=recipe,
    )
    result = trainer.train(resume_from_checkpoint=last_checkpoint(Path(config.output_dir)))
    figures = trainer.evaluate()
    record = {
        "date": date.today().isoformat(),
        "base_model": recipe.base_model,
        "device": torch.cuda.get_device_name() if cuda else "cpu",
        "precision": recipe.precision if cuda else "fp32",
        "rows": len(rows),
        "validation_rows": len(validation),
        "steps": trainer.state.global_step,
        "seconds": round(result.metrics["train_runtime"], 1),
        "validation": {k.removeprefix("eval_"): round(float(v), 4) for k, v in figures.items()},
        "history": [h for h in trainer.state.log_history if "eval_error_usd" in h],
        "versions": {name: version(name) for name in ("torch", "transformers", "peft", "trl")},
    }
    if trainer.is_world_process_zero():
        out = save_adapter(trainer, recipe, config, record)
        log.info("adapter written to %s", out)
    return record


def main(argv: list[str] | None = None) -> int:
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        record = run(*load_recipe(argv))
    except PricerError as error:
        print(error, file=sys.stderr)
        return 2 if isinstance(error, InputError) else 1
    print(json.dumps(record["validation"], indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
