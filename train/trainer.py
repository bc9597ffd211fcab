"""TRL's trainer, told about prices: the loss on the price's tokens only, validation in dollars, and an order of
rows that depends on seed and epoch alone, so that a run that was killed goes on with the same rows."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from accelerate.utils import gather_object
from torch.utils.data import Sampler
from transformers import TrainerCallback
from transformers.trainer_pt_utils import get_length_grouped_indices
from trl import SFTConfig, SFTTrainer

from pricer.arena import metrics
from pricer.llama.adapter import Adapter
from pricer.llama.pair import LlamaPair
from pricer.llama.predictor import Predictor
from pricer.price.distribution import PriceDistribution
from pricer.price.lattice import PRICES
from pricer.prompt import Prompt
from pricer.settings import Limits
from train.dataset import PriceCollator, price_loss
from train.recipe import Recipe
from train.whole import WholeModel

RULES_SHOWN = ("log-mean", "median")
FRAME_TOKENS = 32  # the prompt's question and tail, at most
CPU_BATCH_TOKENS = 4096  # of validation: more costs memory and gains nothing on a CPU


def scoring_limits(recipe: Recipe, args: SFTConfig) -> Limits:
    """As many tokens at once as per_device_eval_batch_size rows have."""
    budget = args.per_device_eval_batch_size * (recipe.max_text_tokens + FRAME_TOKENS)
    return Limits(batch_tokens=budget if torch.cuda.is_available() else min(budget, CPU_BATCH_TOKENS))


class PriceTrainer(SFTTrainer):
    """Trains `model` (a base; the adapter comes from `peft_config`, without one the base itself is trained) on what
    `collator` makes of the rows.

    validation: rows with `text` and `price` (USD), dealt out over the processes; every evaluation gives the
    figures of `dollar_figures` to all of them. per_device_eval_batch_size bounds its memory.
    """

    def __init__(
        self, *, args: SFTConfig, collator: PriceCollator, validation: pd.DataFrame, recipe: Recipe, **kwargs
    ):
        self.course = Course(collator)
        super().__init__(args=args, data_collator=collator, callbacks=[self.course], **kwargs)
        self.model_accepts_loss_kwargs = False  # our loss is a mean over rows, so accumulation must divide it
        # TRL puts a 4-bit base's adapter in bf16, too coarse for small steps.
        for parameter in self.model.parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.float()
        self.columns = torch.from_numpy(collator.columns)
        self.validation = validation
        adapter = Adapter(Path(), recipe.base_model, recipe.question, recipe.max_text_tokens)
        pair = LlamaPair if recipe.method == "lora" else WholeModel
        self.predictor = Predictor(
            pair(self.model, self.processing_class, adapter), scoring_limits(recipe, args)
        )
        self.tokens = torch.zeros((), dtype=torch.int64)  # trained on by this process, without padding
        self.validation_seconds = 0.0

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        # Padding is on the right, where no token sees it: without a mask attention takes its fast causal kernel. Only
        # the places that predict a price go through the output layer; not every transformers' logits_to_keep
        # takes other places for each row.
        def keep(_, hidden):
            return torch.take_along_dim(hidden[0], inputs["at"][..., None], dim=1)

        hook = self.model.get_output_embeddings().register_forward_pre_hook(keep)
        try:
            outputs = model(input_ids=inputs["input_ids"], use_cache=False)
        finally:
            hook.remove()
        loss = price_loss(outputs.logits, inputs, self.columns.to(outputs.logits.device))
        return (loss, outputs) if return_outputs else loss

    def training_step(self, model, inputs, *args, **kwargs):
        self.tokens = self.tokens.to(inputs["attention_mask"].device) + inputs["attention_mask"].sum()
        return super().training_step(model, inputs, *args, **kwargs)

    def _get_train_sampler(self, train_dataset=None) -> Sampler:
        if self.args.train_sampling_strategy == "sequential":
            return super()._get_train_sampler(train_dataset)
        grouped = self.args.train_sampling_strategy == "group_by_length"
        batch = self.args.train_batch_size * self.args.gradient_accumulation_steps if grouped else 0
        lengths = list(self.train_dataset["length"])
        self.course.sampler = EpochSampler(lengths, batch, self.args.seed)
        return self.course.sampler

    def evaluate(self, eval_dataset=None, ignore_keys=None, metric_key_prefix="eval"):
        figures = {f"{metric_key_prefix}_{name}": value for name, value in self.validate().items()}
        self.log(dict(figures))
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, figures)
        return figures

    def validate(self) -> dict[str, float]:
        """The validation rows' `dollar_figures`, the same on every process; nothing is logged."""
        start = time.perf_counter()
        was_training = self.model.training
        self.model.eval()
        mine = slice(self.args.process_index, None, self.args.world_size)
        parts = gather_object([score(self.predictor, self.validation["text"].iloc[mine])])
        self.model.train(was_training)
        probabilities = np.empty((len(self.validation), len(PRICES)))
        for first, part in enumerate(parts):
            probabilities[first :: len(parts)] = part
        self.validation_seconds += time.perf_counter() - start
        return dollar_figures(PriceDistribution(probabilities), self.validation["price"].to_numpy(float))

    def cost(self) -> dict[str, Any]:
        """What this start took, over all processes: tokens trained on and, on CUDA, the most memory in use."""
        memory = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0
        tokens, peaks = zip(*gather_object([(int(self.tokens), memory)]), strict=True)
        cost: dict[str, Any] = {"processes": len(peaks), "tokens": sum(tokens)}
        return cost | ({"peak_gpu_memory_gib": round(max(peaks) / 2**30, 2)} if max(peaks) else {})


class Course(TrainerCallback):
    """Tells collator and sampler which epoch it is, also when a run goes on in the middle of one, and has the last
    step validated."""

    def __init__(self, collator: PriceCollator):
        self.collator = collator
        self.sampler: EpochSampler | None = None

    def on_epoch_begin(self, args, state, control, **kwargs):
        self.collator.epoch = int(state.epoch or 0)
        if self.sampler is not None:
            self.sampler.epoch = self.collator.epoch

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step >= state.max_steps and args.eval_strategy != "epoch":
            control.should_evaluate = True


class EpochSampler(Sampler[int]):
    """Row numbers in the order of `epoch`, drawn from seed and epoch alone: the same on every process and after a
    restart, which the trainer's own samplers are not.

    batch: rows of an optimizer step per process, which get texts of like length; 0 for a plain shuffle.
    """

    def __init__(self, lengths: list[int], batch: int, seed: int):
        self.lengths, self.batch, self.seed, self.epoch = lengths, batch, seed, 0

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        entropy = np.random.SeedSequence([self.seed, self.epoch]).generate_state(1)
        generator = torch.Generator().manual_seed(int(entropy[0]))
        if self.batch:
            return iter(get_length_grouped_indices(self.lengths, self.batch, generator=generator))
        return iter(torch.randperm(len(self.lengths), generator=generator).tolist())


def score(predictor: Predictor, texts: pd.Series) -> np.ndarray:
    """(texts, 999) probabilities of the tuned pass, in order."""
    prompts: list[Prompt] = [predictor.prepare(text) for text in texts]
    found = [p.distribution.probabilities for p in predictor.predict(prompts, "tuned")]
    return np.stack(found) if found else np.empty((0, len(PRICES)))


def dollar_figures(distribution: PriceDistribution, price_usd: np.ndarray) -> dict[str, float]:
    """Error ($), RMSLE and hits (%) by rule, mean CRPS ($) and log score (nats)."""
    figures = {
        "crps_usd": float(distribution.crps(price_usd).mean()),
        "log_score": float(distribution.log_score(price_usd).mean()),
        "unpriced_mass": float(distribution.unpriced_mass.mean()),
    }
    for rule in RULES_SHOWN:
        guess, suffix = distribution.point(rule), "" if rule == RULES_SHOWN[0] else f"_{rule}"
        figures[f"error_usd{suffix}"] = metrics.predict_error(price_usd, guess)
        figures[f"rmsle{suffix}"] = metrics.rmsle(price_usd, guess)
        figures[f"hits_pct{suffix}"] = metrics.hits_pct(price_usd, guess)
    return figures
