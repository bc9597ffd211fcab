"""Tokens per second and memory of training in the shape of Llama 3.1 8B: the seed's recipe in plain TRL, and ours.

    python -m bench.train_speed --tokenizer FOLDER --out out/speed [--variants ...] [--field value ...]

One random NF4 base for all, the same made-up products, one process. A variant is a name from VARIANTS, or one of your
own: "name=RECIPE --field value ...". Without any, all of VARIANTS run in their order. Any further --field value goes to
every variant. A variant that does not fit the card, or fails, is said to, and the next one goes on. Prints a line of JSON for
each variant as it ends, then a Markdown table.

Its last two columns: the share of the limit, which is the matrix rate measured in the run divided by 4 FLOP per weight
of the linear layers and token (forward 2, backward to the inputs 2; frozen weights have no gradient), and the tokens per
second against the first variant's.
"""

from __future__ import annotations

import argparse
import json
import logging
import platform
import shlex
import shutil
import sys
import time
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from datasets import Dataset
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM
from trl import SFTTrainer

from bench.shape_8b import GIB, SHAPES, clear, cudnn_attention, random_base, say
from bench.train_8b import Meter, arguments, check_steps, write_products
from pricer.errors import InputError, PricerError, report
from pricer.prompt import build_prompt
from train.finetune import lora, run, versions
from train.recipe import Recipe, load_recipe

log = logging.getLogger("bench.train_speed")
OURS, SEED = "train/recipes/llama-3.1-8b.yaml", "train/recipes/llama-3.1-8b-seed.yaml"
TRL = "trl-seed"  # the only one that is not trained by train.finetune
LEAN = "--lean true --dropout 0 --gradient_checkpointing false --gradient_accumulation_steps 1"
# The most telling first; dequantised ones last, since the base stays so. A step is one batch, to keep the run short.
VARIANTS = {
    TRL: SEED,
    "lean": f"{OURS} {LEAN} --per_device_train_batch_size 24",
    "lean-seed-modules": f"{SEED} {LEAN} --optim adamw_torch_fused",
    "lean-seed-modules-24": f"{SEED} {LEAN} --optim adamw_torch_fused --per_device_train_batch_size 24",
    "lean-64": f"{OURS} {LEAN} --per_device_train_batch_size 64",
    "dequantised-64": f"{OURS} {LEAN} --dequantise true --per_device_train_batch_size 64",
    "dequantised-8": f"{OURS} {LEAN} --dequantise true --per_device_train_batch_size 8",
    "dequantised-seed-modules": f"{SEED} {LEAN} --dequantise true --optim adamw_torch_fused",
}
# What measuring changes in a recipe.
FIELDS = "--eval_strategy no --save_strategy no --load_best_model_at_end false --logging_steps 1 --disable_tqdm true"
TRAIN_ROWS, VALIDATION_ROWS = 2048, 8  # validation only ends a run
MATRIX_ROWS = 8192  # of the product that the matrix rate is measured with


def matrix_rate(shape: dict[str, Any], device: str) -> float:
    """FLOP per second of a product as the MLP has it, in the precision that training computes in; the median of
    ten."""
    cuda = device.startswith("cuda")
    rows, dtype = (MATRIX_ROWS, torch.bfloat16) if cuda else (256, torch.float32)
    x = torch.randn(rows, shape["hidden_size"], dtype=dtype, device=device)
    weight = torch.randn(shape["intermediate_size"], shape["hidden_size"], dtype=dtype, device=device)
    seconds = []
    for _ in range(13):  # the first three warm up
        start = time.perf_counter()
        for _ in range(10):
            torch.nn.functional.linear(x, weight)
        if cuda:
            torch.cuda.synchronize()
        seconds.append((time.perf_counter() - start) / 10)
    return 2 * rows * weight.numel() / sorted(seconds[3:])[5]


def linear_weights(shape: dict[str, Any]) -> int:
    """How many weights a token is multiplied by, without the output layer, which sees the price's places alone."""
    with torch.device("meta"):
        llama = LlamaForCausalLM(LlamaConfig(**shape))
    return sum(weight.numel() for name, weight in llama.named_parameters() if name.endswith("_proj.weight"))


@dataclass
class Speed:
    """One base for all variants, the limit in tokens per second, and where things go."""

    base: LlamaForCausalLM
    tokenizer: Any
    out: Path
    limit: float

    def measure(self, name: str, words: list[str]) -> dict[str, Any]:
        """Train the variant for some steps; what was found."""
        recipe, config = load_recipe(words)
        shutil.rmtree(recipe.output, ignore_errors=True)  # else it would go on from its last checkpoint
        found: dict[str, Any] = {
            "variant": name,
            "batch": config.per_device_train_batch_size,
            "lora_on": len(recipe.target_modules),
            "dequantised": recipe.dequantise,
        }
        say(f"{name}: {config.max_steps} steps")
        meter, forward = Meter(), vars(self.base).get("forward")
        clear()
        try:
            if name == TRL:
                self.train_with_trl(recipe, config, meter)
            else:
                run(recipe, config, (self.base, self.tokenizer), [meter])
            found |= self.found(meter)
        except torch.OutOfMemoryError as error:
            found["failed"] = f"does not fit: {str(error)[:160]}"
        except PricerError:
            raise
        except Exception as error:  # the others may still work, and a run on a rented card is worth finishing
            log.warning("%s failed", name, exc_info=True)
            found["failed"] = f"{type(error).__name__}: {str(error)[:160]}"
        self.bare(meter, forward)
        return found

    def train_with_trl(self, recipe: Recipe, config: Any, meter: Meter) -> None:
        """As the seed's notebook does, with nothing of ours: TRL's rows, collator, loss and order."""
        rows = pd.read_parquet(Path(recipe.data) / "train.parquet")
        prompts = [
            build_prompt(
                text, self.tokenizer, question=recipe.question, max_text_tokens=recipe.max_text_tokens
            )
            for text in rows["text"]
        ]
        written = [f"{price:.0f}.00" for price in rows["price"]]
        dataset = Dataset.from_dict({"prompt": [prompt.text for prompt in prompts], "completion": written})
        trainer = SFTTrainer(
            model=self.base,
            args=config,
            train_dataset=dataset,
            processing_class=self.tokenizer,
            peft_config=lora(recipe),
            callbacks=[meter],
        )
        with cudnn_attention():
            trainer.train()

    def found(self, meter: Meter) -> dict[str, Any]:
        found = meter.speed()
        if torch.cuda.is_available():
            found["peak_gib"] = round(meter.peak_bytes / GIB, 2)
            found["reserved_gib"] = round(torch.cuda.max_memory_reserved() / GIB, 2)
        found["share_of_limit"] = round(found["tokens_per_second"] / self.limit, 4)
        return found | {"loss_first": round(meter.losses[0], 4), "loss_last": round(meter.losses[-1], 4)}

    def bare(self, meter: Meter, forward: Any) -> None:
        """Take the meter's adapter off the base, and what training changed in it."""
        if meter.model is not None:
            meter.model.unload()
        meter.model = None
        vars(self.base).pop("forward", None)  # TRL puts its own around it, each time
        if forward is not None:
            self.base.forward = forward
        self.base.disable_input_require_grads()
        self.base.gradient_checkpointing_disable()
        self.base.eval().requires_grad_(False)
        clear()


def table(results: list[dict[str, Any]]) -> str:
    """Markdown, a row for each variant."""
    lines = [
        "| variant | batch | LoRA on | dequantised | tokens/s (with padding) | s/step | peak memory | of the limit | times the "
        "first |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for r in results:
        what = (
            f"| {r['variant']} | {r['batch']} | {r['lora_on']} of 7 | {'yes' if r['dequantised'] else 'no'}"
        )
        if "failed" in r:
            lines.append(f"{what} | {r['failed'].partition(':')[0]} | | | | |")
            continue
        memory = f"{r['peak_gib']:.1f} GiB" if "peak_gib" in r else "-"
        times = f"{r['times_the_first']:.2f}" if "times_the_first" in r else "-"
        lines.append(
            f"{what} | {r['tokens_per_second']:,.0f} ({r['tokens_per_second_with_padding']:,.0f}) "
            f"| {r['seconds_per_step']:.3f} | {memory} | {r['share_of_limit']:.0%} | {times} |"
        )
    return "\n".join(lines)


def chosen(options: argparse.Namespace, fields: list[str]) -> dict[str, list[str]]:
    """Each variant's name and command line. Raises InputError for an unknown name, or a bad recipe, or an order that
    asks for NF4 of a base that is dequantised by then."""
    own = {"base_model": options.out / "base", "data": options.out / "data", "max_steps": options.steps}
    common = FIELDS.split() + [word for name, value in own.items() for word in (f"--{name}", str(value))]
    lines, dequantised = {}, False
    for given in options.variants or VARIANTS:
        name, is_own, line = given.partition("=")
        if not is_own and name not in VARIANTS:
            raise InputError(
                f"There is no variant {name}: name one of {', '.join(VARIANTS)}, or give name=RECIPE."
            )
        words = shlex.split(line if is_own else VARIANTS[name])
        lines[name] = [*words, *common, "--output", str(options.out / name), *fields]
        recipe, _ = load_recipe(lines[name])
        if dequantised and not recipe.dequantise:
            raise InputError(f"{name} wants the base in NF4: put it before the dequantised variants.")
        dequantised |= recipe.dequantise
    return lines


def parse(argv: list[str] | None) -> tuple[argparse.Namespace, list[str]]:
    parser = arguments("train_speed", __doc__)
    parser.add_argument("--variants", nargs="+", metavar="VARIANT", help=f"of {', '.join(VARIANTS)}")
    return parser.parse_known_args(argv)


def main(argv: list[str] | None = None) -> int:
    options, fields = parse(argv)
    try:
        check_steps(options.steps)
        results = measure_all(options, chosen(options, fields))
    except PricerError as error:
        return report(error)
    print(table(results))
    fit = [result for result in results if not result.get("failed", "").startswith("does not fit")]
    return 1 if any("failed" in result for result in fit) else 0


def measure_all(options: argparse.Namespace, variants: dict[str, list[str]]) -> list[dict[str, Any]]:
    cuda, shape = torch.cuda.is_available(), SHAPES[options.shape]
    device = "cuda:0" if cuda else "cpu"
    tokenizer = AutoTokenizer.from_pretrained(options.tokenizer)
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    write_products(options.out / "data", tokenizer, TRAIN_ROWS, VALIDATION_ROWS)
    rate = matrix_rate(shape, device)
    limit = rate / (4 * linear_weights(shape))
    machine = torch.cuda.get_device_name() if cuda else "cpu"
    names = ", ".join(f"{name} {number}" for name, number in versions().items())
    print(
        f"{machine}; Python {platform.python_version()}, {names}, CUDA {torch.version.cuda}; "
        f"{date.today().isoformat()}. Matrix rate {rate / 1e12:,.3g} TFLOP/s, limit {limit:,.0f} tokens/s."
    )
    torch.manual_seed(0)
    base = random_base(shape, device, "nf4" if cuda else "fp32", options.out / "base")
    clear()
    say(f"{options.shape} base of {base.get_memory_footprint() / GIB:.2f} GiB")
    speed, results = Speed(base, tokenizer, options.out, limit), []
    for name, words in variants.items():
        found = speed.measure(name, words)
        first = results[0] if results else found
        if "tokens_per_second" in first and "tokens_per_second" in found:
            found["times_the_first"] = round(found["tokens_per_second"] / first["tokens_per_second"], 3)
        results.append(found)
        print(json.dumps(found), flush=True)
        (options.out / "results.json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    return results


if __name__ == "__main__":
    sys.exit(main())
