"""What one training run is: a YAML file of `Recipe` fields and TRL's `SFTConfig` fields.

Fields that TRL has are TRL's (learning_rate, num_train_epochs, ...); `Recipe` holds the rest. Any
field can be overridden on the command line: `python -m train.finetune RECIPE --learning_rate 1e-4`.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
import yaml
from transformers.integrations import get_reporting_integration_callbacks
from trl import SFTConfig, TrlParser

from pricer.errors import InputError
from pricer.prompt import QUESTION

# completion: cross-entropy as TRL's completion-only collator has it: mean over a row's tokens, no end token.
LOSSES = ("cross-entropy", "soft-labels", "completion")
METHODS = ("lora", "full")
SPLITS = ("train", "validation", "calibration")  # of a folder that train.prepare made
# Fields of SFTConfig that are recorded even at their default, which may be another one in other versions.
ALWAYS_RECORDED = (
    "num_train_epochs",
    "max_steps",
    "per_device_train_batch_size",
    "gradient_accumulation_steps",
    "learning_rate",
    "lr_scheduler_type",
    "warmup_steps",
    "weight_decay",
    "max_grad_norm",
    "optim",
    "bf16",
    "gradient_checkpointing",
    "train_sampling_strategy",
    "seed",
)
# Fields of SFTConfig that follow from others, or say where a run takes place and is watched, not what it is.
NOT_RECORDED = {"do_eval", "dataset_kwargs", "activation_checkpointing", "output_dir", "use_cpu"} | {
    "report_to",
    "run_name",
    "hub_token",
}
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
    output: str = field(metadata={"help": "Folder for the result; checkpoints go to <output>/checkpoints."})
    restart: bool = field(
        default=False, metadata={"help": "Throw away another run that output holds, and begin anew."}
    )
    validation_rows: int = field(
        default=600, metadata={"help": "About how many rows to cut for validation when data is a file."}
    )
    train_splits: list[str] = field(
        default_factory=lambda: ["train"], metadata={"help": "The splits of data to train on."}
    )
    validation_split: str = field(
        default="validation", metadata={"help": "The split that figures are measured on; not trained on."}
    )
    max_rows: int = field(default=0, metadata={"help": "Train on this many rows only (0: all)."})
    extra_data: str = field(
        default="",
        metadata={
            "help": "Further priced rows to mix in: a file, or a folder of train.prepare (its train split). That none "
            "is near a test, validation or calibration item is up to you: train.prepare --against."
        },
    )
    extra_weight: float = field(
        default=0.3, metadata={"help": "What an extra row counts, where a row of data counts 1."}
    )
    question: str = field(default=QUESTION, metadata={"help": "The prompt's question."})
    max_text_tokens: int = field(default=160, metadata={"help": "Token budget of the product text."})

    method: str = field(
        default="lora",
        metadata={"help": "lora: an adapter. full: all weights, and a whole model as the result."},
    )
    linear_only: bool = field(
        default=False,
        metadata={
            "help": "full: train target_modules alone, so that start_from can cut all of it to LoRA; embeddings, "
            "output layer and norms stay the base's."
        },
    )
    start_from: str = field(
        default="",
        metadata={
            "help": "lora: the folder of an adapter to go on from, or of a full fine-tune of the same base, which is "
            "cut to the rank."
        },
    )
    precision: str = field(
        default="nf4", metadata={"help": "The base's weights on CUDA: nf4, bf16 or fp32; full needs fp32."}
    )
    dequantise: bool = field(
        default=False,
        metadata={
            "help": "nf4: work the base's numbers out once, after loading, not in every pass. The adapter is still one "
            "of the NF4 base. 8B: 15 GiB in place of 5.3."
        },
    )
    lean: bool = field(
        default=False,
        metadata={
            "help": "lora: the layers with fewer passes over memory and less kept for the backward pass, the same to "
            "rounding (train.lean); needs dropout 0, and no dora."
        },
    )
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
    teachers: list[str] = field(
        default_factory=list,
        metadata={"help": "Folders of trained models or adapters; soft labels are mixed with their mean."},
    )
    teacher_weight: float = field(
        default=0.7, metadata={"help": "What the teachers count, where a row's own label counts 1."}
    )
    neighbours: float = field(
        default=0.0,
        metadata={
            "help": "How far the teachers' word is moved, in log price, towards the nearest priced rows (train.neighbours)."
        },
    )
    unlabelled: list[str] = field(
        default_factory=list,
        metadata={
            "help": "Files or folders of texts that the teachers alone label; a price in them is not read. That none "
            "is near a test, validation or calibration item is up to you."
        },
    )
    tokens: str = field(
        default="",
        metadata={"help": "File in which train.pretrain kept the texts' tokens, to save that work."},
    )
    labels: str = field(
        default="",
        metadata={
            "help": "Folder for what the teachers say, so that several runs can share it; default <output>/teachers."
        },
    )
    quick_labels: bool = field(
        default=False,
        metadata={
            "help": "Label in one forward pass, three digits being a whole price: for teachers that were trained on "
            "prices up to $999, with a tokenizer that writes digit by digit (train.labels)."
        },
    )
    titles: float = field(
        default=0.0,
        metadata={
            "help": "Of this share of rows and texts a copy with the title alone is added, as people paste them; the "
            "teachers' word on it is that on the whole text."
        },
    )
    match_texts: float = field(
        default=1.0,
        metadata={
            "help": "match_prices: how far it goes for unlabelled texts, by the teachers' guess: 1 whole, 0 not at all."
        },
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
        if self.extra_weight <= 0 or self.teacher_weight <= 0:
            raise InputError("extra_weight and teacher_weight must be above 0.")
        for name in ("titles", "match_texts", "neighbours"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"{name} is a share: set it to 0 to 1.")
        for name in ("train_splits", "teachers", "unlabelled", "target_modules"):
            if not isinstance(getattr(self, name), list):
                raise InputError(f"{name} must be a list: [{getattr(self, name)}].")
            setattr(self, name, [entry for entry in getattr(self, name) if entry])  # --teachers "": none
        self._check_method()
        self._check_speed()
        self._check_splits()
        self._check_teachers()

    def _check_method(self) -> None:
        if self.method not in METHODS:
            raise InputError(f"method is {self.method!r}: set it to lora or full.")
        if self.method == "full" and self.precision != "fp32":
            raise InputError(
                f"method full trains the weights themselves, which {self.precision} is too coarse for: set precision "
                "to fp32 (with bf16: true it still computes in bf16)."
            )
        if self.method == "full" and self.start_from:
            raise InputError("start_from is for lora: to go on from a whole model, name it in base_model.")

    def _check_speed(self) -> None:
        if self.dequantise and self.precision != "nf4":
            raise InputError(f"dequantise is for nf4, and precision is {self.precision}: leave it out.")
        if self.lean and (self.method != "lora" or self.dropout or self.dora):
            raise InputError("lean is for plain LoRA: set method to lora, dropout to 0 and dora to false.")

    def _check_splits(self) -> None:
        wrong = [name for name in (*self.train_splits, self.validation_split) if name not in SPLITS]
        if wrong or not self.train_splits:
            raise InputError(f"train_splits and validation_split take {', '.join(SPLITS)}, not {wrong}.")
        if self.validation_split in self.train_splits:
            raise InputError(
                f"The split {self.validation_split} is in train_splits and is validation_split: rows that were trained "
                "on cannot judge the result; take it out of one of them."
            )

    def _check_teachers(self) -> None:
        if self.teachers and self.loss != "soft-labels":
            raise InputError(f"teachers give soft labels, and loss is {self.loss}: set it to soft-labels.")
        if self.unlabelled and not self.teachers:
            raise InputError("unlabelled texts have no price: name teachers to say what they cost.")


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
    check_trackers(config.report_to)
    return recipe, config


def check_trackers(names: list[str]) -> None:
    """Raises InputError for a tracker in `report_to` that is unknown or not installed, before anything is loaded."""
    for name in names:
        try:
            for tracker in get_reporting_integration_callbacks([name]):
                tracker()
        except ValueError as error:
            raise InputError(
                f"report_to is {name!r}: set it to none, or to trackio, tensorboard or wandb."
            ) from error
        except (ImportError, RuntimeError) as error:
            raise InputError(
                f"report_to is {name!r}, which is not installed: `pip install {name}`, or set it to none."
            ) from error


def recorded(recipe: Recipe, config: SFTConfig) -> dict[str, Any]:
    """All fields of the recipe but restart, and of TRL's the main ones and those not at their default, as plain values: written
    as YAML they are a recipe that repeats the run."""
    # The defaults depend on the device.
    default = SFTConfig(output_dir=config.output_dir, use_cpu=config.use_cpu, bf16=config.bf16)
    chosen = {
        f.name: getattr(config, f.name)
        for f in fields(SFTConfig)
        if f.name in ALWAYS_RECORDED
        or (f.name not in NOT_RECORDED and getattr(config, f.name) != getattr(default, f.name))
    }
    ours = {name: value for name, value in asdict(recipe).items() if name != "restart"}
    return json.loads(json.dumps(ours | chosen, default=str))
