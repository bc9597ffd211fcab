"""What one training run is: a YAML file of `Recipe` fields and TRL's `SFTConfig` fields.

Fields that TRL has are TRL's (learning_rate, num_train_epochs, ...); `Recipe` holds the rest. Any
field can be overridden on the command line: `python -m train.finetune RECIPE --learning_rate 1e-4`.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path

import torch
import yaml
from trl import SFTConfig, TrlParser

from pricer.errors import InputError
from pricer.prompt import QUESTION

LOSSES = ("cross-entropy", "soft-labels")
ALL_LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


@dataclass
class Recipe:
    """Our own fields of a training recipe."""

    base_model: str = field(metadata={"help": "Hub id or folder of the base Llama, optional @revision."})
    data: str = field(
        metadata={
            "help": "A folder made by train.prepare, or a file that it reads: then it is prepared first."
        }
    )
    output: str = field(metadata={"help": "Folder for the adapter; checkpoints go to <output>/checkpoints."})
    validation_rows: int = field(
        default=600, metadata={"help": "About how many rows to cut for validation when data is a file."}
    )
    max_rows: int = field(default=0, metadata={"help": "Train on this many rows only (0: all)."})
    question: str = field(default=QUESTION, metadata={"help": "The prompt's question."})
    max_text_tokens: int = field(default=160, metadata={"help": "Token budget of the product text."})

    precision: str = field(default="nf4", metadata={"help": "The frozen base on CUDA: nf4, bf16 or fp32."})
    rank: int = field(default=16, metadata={"help": "LoRA rank."})
    alpha: int = field(default=32, metadata={"help": "LoRA alpha."})
    dropout: float = field(default=0.05, metadata={"help": "LoRA dropout."})
    rslora: bool = field(default=False, metadata={"help": "Scale by alpha / sqrt(rank)."})
    dora: bool = field(default=False, metadata={"help": "Weight-decomposed LoRA."})
    target_modules: list[str] = field(
        default_factory=lambda: list(ALL_LINEAR), metadata={"help": "Which linear layers get an adapter."}
    )

    loss: str = field(default="cross-entropy", metadata={"help": f"One of {', '.join(LOSSES)}."})
    soft_label_width: float = field(
        default=0.15, metadata={"help": "soft-labels: standard deviation of the labels in log price."}
    )
    tail_weight: float = field(
        default=0.1,
        metadata={"help": "Weight of the tokens behind the digits ('.00' and the end) in the loss."},
    )
    match_prices: bool = field(
        default=False, metadata={"help": "Weight rows so that their prices are spread as the target's are."}
    )
    target_like_weight: float = field(
        default=1.0, metadata={"help": "Further weight of rows drawn the way the test split was."}
    )

    def __post_init__(self):
        if self.loss not in LOSSES:
            raise InputError(f"loss is {self.loss!r}: set it to one of {', '.join(LOSSES)}.")
        if self.precision not in ("nf4", "bf16", "fp32"):
            raise InputError(f"precision is {self.precision!r}: set it to nf4, bf16 or fp32.")
        if self.rank < 1 or self.max_text_tokens < 8 or self.soft_label_width <= 0:
            raise InputError("rank must be at least 1, max_text_tokens at least 8, soft_label_width above 0.")


def load_recipe(argv: list[str] | None = None) -> tuple[Recipe, SFTConfig]:
    """Parse `RECIPE.yaml [--field value ...]`. Raises InputError for a missing file or a wrong field."""
    argv = list(sys.argv[1:] if argv is None else argv)
    if not argv or argv[0].startswith("-"):
        raise InputError("Name a recipe first, for example train/recipes/smoke.yaml.")
    if not Path(argv[0]).is_file():
        raise InputError(f"There is no recipe {argv[0]}: see train/recipes.")
    if not torch.cuda.is_available():  # the same recipe must run, slowly, on a CPU
        argv += ["--bf16", "False", "--use_cpu", "True", "--optim", "adamw_torch"]
    parser = TrlParser((Recipe, SFTConfig))
    try:
        recipe, config = parser.parse_args_and_config(["--config", *argv])
    except (ValueError, TypeError, AttributeError, yaml.YAMLError) as error:
        raise InputError(f"{argv[0]} cannot be used: {str(error).splitlines()[0]}") from error
    config.output_dir = str(Path(recipe.output) / "checkpoints")
    return recipe, config
