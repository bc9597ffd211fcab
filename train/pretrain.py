"""Let a base read the domain's texts before it is fine-tuned: plain next-token loss, no prices needed.

    python -m train.pretrain train/recipes/smollm2-135m-pretrain.yaml [--field value ...]
    torchrun --nproc-per-node 4 -m train.pretrain RECIPE [--field value ...]

Writes a plain model folder, which `train.finetune` takes as base_model (method full); an adapter of the original base
starts from what it became there (start_from). Started again after a crash it goes on from its last checkpoint.

A loop of its own, since the trainer counts rows and this wants tokens: every step has as many of them, in batches of texts of
like length that share a row with no other text. So 3 % of a batch is padding, no text sees another, each begins at position 0 as in use, and attention needs no mask (its fast causal kernel). The
output layer runs a part of the batch at a time, so that its 49,152 numbers a token are never all in memory.
"""

from __future__ import annotations

import json
import logging
import math
import os
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
import yaml
from safetensors.torch import load_file, save_file
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint
from transformers import LlamaForCausalLM
from trl import TrlParser

from pricer.errors import InputError, PricerError, report
from pricer.files import alone, file_sha256
from pricer.llama.base import load_base
from pricer.llama.lean import without_plans
from pricer.llama.made_of import base_key
from pricer.manifest import Manifest
from pricer.prompt import QUESTION
from pricer.settings import ModelRef, Settings
from train.data import load_rows
from train.output import whole_or_a_sentence, write_json
from train.prompts import keep_tokens, prompt_ids
from train.recipe import ALL_LINEAR
from train.resume import MANIFEST, claim

log = logging.getLogger("train.pretrain")
STATE = "state.json"  # written last: a checkpoint without it is none
_OUTPUT_ROWS = 8_192  # tokens whose output layer is in memory at once


@dataclass
class Pretraining:
    """A pretraining recipe."""

    base_model: str = field(metadata={"help": "Hub id or folder of the Llama to go on from."})
    texts: list[str] = field(
        metadata={"help": "Files or train.prepare folders of texts; prices are not read."}
    )
    output: str = field(metadata={"help": "Folder for the model; checkpoints go to <output>/checkpoints."})
    tokens: str = field(
        default="", metadata={"help": "File to keep the texts' tokens in, for later runs too."}
    )
    question: str = field(default=QUESTION, metadata={"help": "The prompt's question, around each text."})
    max_text_tokens: int = field(default=224, metadata={"help": "Token budget of a text."})
    linear_only: bool = field(
        default=True, metadata={"help": "Train the layers that an adapter can carry, and nothing else."}
    )
    epochs: int = field(default=4, metadata={"help": "Passes over the texts."})
    step_tokens: int = field(
        default=65_536, metadata={"help": "Tokens of an optimizer step, of all processes."}
    )
    learning_rate: float = field(
        default=1e-3, metadata={"help": "At its highest; linear warm-up, then cosine to 0."}
    )
    warmup: float = field(default=0.05, metadata={"help": "Share of the steps."})
    weight_decay: float = field(default=0.1, metadata={"help": "Of the matrices."})
    beta2: float = field(default=0.95, metadata={"help": "Of AdamW."})
    max_grad_norm: float = field(default=1.0, metadata={"help": "Gradients are cut to it."})
    compile: bool = field(
        default=False, metadata={"help": "On CUDA compile the layers (half a minute, then faster)."}
    )
    max_steps: int = field(
        default=0, metadata={"help": "Stop behind so many steps (0: all), to measure speed."}
    )
    logging_steps: int = field(default=50, metadata={"help": "Steps between two lines of the log."})
    seed: int = field(default=0, metadata={"help": "Of the order of texts."})
    restart: bool = field(default=False, metadata={"help": "Throw away another run that lies in output."})

    def __post_init__(self):
        if self.epochs < 1 or self.step_tokens < 1 or self.max_text_tokens < 8 or not self.texts:
            raise InputError(
                "epochs and step_tokens must be at least 1, max_text_tokens at least 8; name texts."
            )


def load_pretraining(argv: Sequence[str]) -> Pretraining:
    """Parse `RECIPE.yaml [--field value ...]`. Raises InputError for a missing file or a wrong field."""
    if not argv or not Path(argv[0]).is_file():
        raise InputError("Name a recipe first, for example train/recipes/smollm2-135m-pretrain.yaml.")
    try:
        (recipe,) = TrlParser((Pretraining,)).parse_args_and_config(["--config", *argv])
    except (ValueError, TypeError, AttributeError, yaml.YAMLError) as error:
        raise InputError(f"{argv[0]} cannot be used: {str(error).splitlines()[0]}") from error
    return recipe


def batches(
    lengths: np.ndarray, tokens: int, processes: int, seed: int, epoch: int
) -> list[list[np.ndarray]]:
    """The steps of a pass: for each, the texts of every process, at most `tokens` with padding for each process and
    (but for one long text) not much less. Which texts come together depends on seed and epoch alone."""
    choose = np.random.default_rng([seed, epoch])
    # A shuffle decides among texts of like length, which differ by less than 3 % within a batch.
    order = np.lexsort([choose.random(len(lengths)), -(np.log(lengths) * 32).astype(int)])
    groups, start = [], 0
    while start < len(order):
        count = max(1, tokens // int(lengths[order[start : start + 1 + tokens // 8]].max()))
        groups.append(order[start : start + count])
        start += count
    choose.shuffle(groups)
    whole = len(groups) - len(groups) % processes or len(groups)
    steps = [groups[i : i + processes] for i in range(0, whole, processes)]
    return [step + step[:1] * (processes - len(step)) for step in steps]


def padded(ids: Sequence[np.ndarray], pad: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(batch, length) tokens, and as labels the same with -100 for padding. Lengths are multiples of 8."""
    width = -(-max(map(len, ids)) // 8) * 8
    tokens, labels = np.full((2, len(ids), width), pad, np.int64)
    labels[:] = -100
    for row, row_ids in enumerate(ids):
        tokens[row, : len(row_ids)] = labels[row, : len(row_ids)] = row_ids
    return torch.from_numpy(tokens), torch.from_numpy(labels)


class NextToken(torch.nn.Module):
    """A Llama whose forward pass is the loss: the mean over all next tokens, in nats."""

    def __init__(self, llama: LlamaForCausalLM):
        super().__init__()
        self.llama = llama

    def forward(self, tokens: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        hidden = self.llama.model(input_ids=tokens, use_cache=False).last_hidden_state
        hidden, wanted = hidden[:, :-1].flatten(0, 1), labels[:, 1:].flatten()
        parts = zip(hidden.split(_OUTPUT_ROWS), wanted.split(_OUTPUT_ROWS), strict=True)
        total = sum(checkpoint(self._loss, *part, use_reentrant=False) for part in parts)
        return total / (wanted != -100).sum()

    def _loss(self, hidden: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(self.llama.lm_head(hidden).float(), wanted, reduction="sum")


def trained_parameters(llama: LlamaForCausalLM, linear_only: bool) -> dict[str, torch.nn.Parameter]:
    """What is trained, by name; it alone keeps requires_grad."""
    for name, parameter in llama.named_parameters():
        parameter.requires_grad_(not linear_only or name.split(".")[-2] in ALL_LINEAR)
    return {name: p for name, p in llama.named_parameters() if p.requires_grad}


def rate(step: int, steps: int, warmup: float) -> float:
    """The share of the highest learning rate: linear up, then a cosine down to 0."""
    up = max(1, round(warmup * steps))
    return min((step + 1) / up, 0.5 + 0.5 * math.cos(math.pi * max(0, step - up) / max(1, steps - up)))


def save_checkpoint(
    folder: Path,
    llama: LlamaForCausalLM,
    tokenizer: Any,
    optimizer: torch.optim.Optimizer,
    names: Sequence[str],
    state: dict,
) -> None:
    """Weights, the optimizer's two averages and the place in the course, as safetensors and JSON."""
    aside = folder.with_name(f".part-{folder.name}")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    llama.save_pretrained(aside)
    tokenizer.save_pretrained(aside)
    save_file(
        {
            f"{name}|{key}": optimizer.state[p][key].contiguous()
            for name, p in zip(names, parameters, strict=True)
            for key in ("exp_avg", "exp_avg_sq", "step")
        },
        aside / "optimizer.safetensors",
    )
    write_json(aside / STATE, state)
    shutil.rmtree(folder, ignore_errors=True)
    aside.rename(folder)
    for older in folder.parent.glob("step-*"):
        if older != folder:
            shutil.rmtree(older)


def load_optimizer(folder: Path, optimizer: torch.optim.Optimizer, names: Sequence[str]) -> None:
    kept = load_file(folder / "optimizer.safetensors")
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    for name, p in zip(names, parameters, strict=True):
        optimizer.state[p] = {
            key: kept[f"{name}|{key}"].to(p.device) for key in ("exp_avg", "exp_avg_sq", "step")
        }


def last_checkpoint(folder: Path) -> Path | None:
    found = [path for path in folder.glob("step-*") if (path / STATE).is_file()]
    return max(found, key=lambda path: int(path.name.partition("-")[2]), default=None)


def made_of(recipe: Pretraining) -> Manifest:
    """What the weights hang on."""
    left_out = {"base_model", "texts", "output", "tokens", "compile", "max_steps", "logging_steps", "restart"}
    base = Settings(base=ModelRef.parse(recipe.base_model), adapter=ModelRef(""), label="")
    return Manifest(
        {
            "base weights": base_key(base),
            "texts": [file_sha256(_file(path)) for path in recipe.texts],
            "processes": int(os.environ.get("WORLD_SIZE", 1)),
            **{name: value for name, value in asdict(recipe).items() if name not in left_out},
        }
    )


def run(recipe: Pretraining) -> dict[str, Any]:
    """Pretrain by the recipe; returns the record that metrics.json holds. Every process of a launch calls it."""
    rank, processes = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    cuda = torch.cuda.is_available()
    device = f"cuda:{os.environ.get('LOCAL_RANK', 0)}" if cuda else "cpu"
    if cuda:
        torch.cuda.set_device(device)
    if processes > 1 and not dist.is_initialized():
        dist.init_process_group("nccl" if cuda else "gloo")
    log.setLevel(logging.INFO if rank == 0 else logging.WARNING)
    torch.manual_seed(recipe.seed)
    torch.set_float32_matmul_precision("high")
    without_plans()

    out = Path(recipe.output)
    if rank == 0:
        claim(out, made_of(recipe), recipe.restart, [recipe.base_model, *recipe.texts])
        made_of(recipe).write(out / MANIFEST)
    if processes > 1:
        dist.barrier()
    before = last_checkpoint(out / "checkpoints")
    model_ref = ModelRef(str(before)) if before else ModelRef.parse(recipe.base_model)
    llama, tokenizer = load_base(Settings(base=model_ref, adapter=ModelRef(""), label=""), device, "fp32")
    trained = trained_parameters(llama.train(), recipe.linear_only)
    rows = [load_rows(_file(path), priced=False)["text"] for path in recipe.texts]
    texts = [text for part in rows for text in part]
    prompt = {"question": recipe.question, "max_text_tokens": recipe.max_text_tokens}
    if recipe.tokens and rank == 0:
        keep_tokens(recipe.tokens, texts, tokenizer, **prompt)
    if recipe.tokens and processes > 1:
        dist.barrier()
    ids = prompt_ids(texts, tokenizer, **prompt, kept=recipe.tokens)
    lengths = np.array([len(row) for row in ids])
    log.info("%d texts, %d tokens, on %d x %s", len(ids), lengths.sum(), processes, device.partition(":")[0])

    per_process = max(int(lengths.max()), recipe.step_tokens // processes)
    course = [batches(lengths, per_process, processes, recipe.seed, epoch) for epoch in range(recipe.epochs)]
    steps = sum(map(len, course))
    names = list(trained)
    optimizer = torch.optim.AdamW(
        [
            {
                "params": [trained[name]],
                "weight_decay": recipe.weight_decay if trained[name].ndim > 1 else 0.0,
            }
            for name in names
        ],
        lr=recipe.learning_rate,
        betas=(0.9, recipe.beta2),
        fused=cuda,
    )
    state = {"step": 0, "loss": []}
    if before:
        state = json.loads((before / STATE).read_text(encoding="utf-8"))
        load_optimizer(before, optimizer, names)
        log.info("going on from step %d", state["step"])
    resumed = state["step"]
    if recipe.compile and cuda:
        for layer in llama.model.layers:  # one layer's code serves all
            layer.compile(dynamic=True)
    model: torch.nn.Module = NextToken(llama)
    if processes > 1:
        model = DistributedDataParallel(
            model,
            device_ids=[device] if cuda else None,
            gradient_as_bucket_view=True,
            broadcast_buffers=False,
        )
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id

    def mine() -> Iterator[tuple[int, torch.Tensor, torch.Tensor]]:
        step = 0
        for epoch in course:
            for groups in epoch:
                step += 1
                if step > resumed:
                    tokens, labels = padded([ids[i] for i in groups[rank]], pad)
                    yield step, tokens.to(device), labels.to(device)

    start = time.perf_counter()
    ends, seen, places, recent = set(np.cumsum([len(epoch) for epoch in course]).tolist()), 0, 0, []
    for step, tokens, labels in mine():
        for group in optimizer.param_groups:
            group["lr"] = recipe.learning_rate * rate(step - 1, steps, recipe.warmup)
        with torch.autocast("cuda", torch.bfloat16) if cuda else nullcontext():
            loss = model(tokens, labels)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(list(trained.values()), recipe.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        seen, places = seen + (labels >= 0).sum(), places + labels.numel()
        recent.append(loss.detach())
        if step % recipe.logging_steps == 0 or step == steps:
            mean = _mean(torch.stack(recent).mean(), processes)
            state["loss"].append([step, round(mean, 4)])
            seconds = time.perf_counter() - start
            speed = int(seen) * processes / seconds
            log.info("step %d of %d: loss %.4f, %.0f tokens/s, %.0f s", step, steps, mean, speed, seconds)
            recent = []
        state["step"] = step
        if step in ends and rank == 0 and not recipe.max_steps:
            save_checkpoint(out / "checkpoints" / f"step-{step}", llama, tokenizer, optimizer, names, state)
        if step == recipe.max_steps:
            break
    seconds, seen = time.perf_counter() - start, int(seen)
    record = {
        "date": date.today().isoformat(),
        "base_model": recipe.base_model,
        "device": torch.cuda.get_device_name() if cuda else "cpu",
        "processes": processes,
        "texts": len(ids),
        "tokens_in_a_pass": int(lengths.sum()),
        "steps": state["step"],
        "resumed_from_step": resumed,
        "seconds": round(seconds, 1),
        "tokens_per_second": round(seen * processes / max(seconds, 1e-9), 1),
        "padding": round(1 - seen / max(places, 1), 4),
        "loss": state["loss"],
    }
    if cuda:
        record["peak_gpu_memory_gib"] = round(torch.cuda.max_memory_allocated() / 2**30, 2)
    if rank == 0 and not recipe.max_steps:
        out.mkdir(parents=True, exist_ok=True)
        llama.save_pretrained(out)
        tokenizer.save_pretrained(out)
        write_json(out / "metrics.json", record)
        write_json(
            out / "pricer.json", {"question": recipe.question, "max_text_tokens": recipe.max_text_tokens}
        )
        (out / "pretraining.yaml").write_text(
            yaml.safe_dump(asdict(recipe), sort_keys=False), encoding="utf-8"
        )
        log.info("written to %s", out)
    if processes > 1:
        dist.barrier()
    return record


def _file(path: str) -> Path:
    return Path(path) / "train.parquet" if Path(path).is_dir() else Path(path)


def _mean(value: torch.Tensor, processes: int) -> float:
    if processes > 1:
        dist.all_reduce(value)
    return float(value) / processes


def main(argv: list[str] | None = None) -> int:
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        recipe = load_pretraining(sys.argv[1:] if argv is None else argv)
        first = int(os.environ.get("RANK", 0)) == 0
        mine = alone(Path(recipe.output), "training into") if first else nullcontext()
        with whole_or_a_sentence(recipe.output), mine:
            record = run(recipe)
    except PricerError as error:
        return report(error)
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()
    if first:
        print(
            json.dumps({name: record[name] for name in ("steps", "seconds", "tokens_per_second", "padding")})
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
