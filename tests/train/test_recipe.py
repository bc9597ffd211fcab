"""Training recipes: what they say is what the trainer gets, and what is refused."""

from dataclasses import fields, replace
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import yaml
from transformers import AutoModelForCausalLM
from trl import SFTConfig

from pricer.errors import InputError, SetupError
from pricer.llama.base import load_base
from pricer.settings import PROFILES, ModelRef, Settings
from train import finetune
from train.dataset import PriceCollator, build_dataset, row_weights
from train.recipe import LOSSES, Recipe, load_recipe, recorded

RECIPES = Path(__file__).parents[2] / "train" / "recipes"
ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]
ALL_LINEAR = [*ATTENTION, "gate_proj", "up_proj", "down_proj"]


@pytest.fixture
def on_cuda(monkeypatch):
    """As on a machine with a card: the recipe's own optimizer and precision are not replaced by a CPU's."""
    cuda = SimpleNamespace(is_available=lambda: True)
    monkeypatch.setattr("train.recipe.torch", SimpleNamespace(cuda=cuda))
    monkeypatch.setattr(SFTConfig, "_validate_args", lambda self: None)


FINETUNING = sorted(path for path in RECIPES.glob("*.yaml") if not path.stem.endswith("-pretrain"))


@pytest.mark.parametrize("path", FINETUNING, ids=lambda path: path.stem)
def test_every_field_of_every_recipe_arrives(path, on_cuda):
    read, config = load_recipe([str(path), "--output", "elsewhere"])
    assert read.output == "elsewhere"
    assert Path(config.output_dir) == Path("elsewhere/checkpoints")
    given = yaml.safe_load(path.read_text(encoding="utf-8"))
    own = {f.name for f in fields(Recipe)}
    for name, value in given.items():
        if name in ("output", "report_to"):
            continue
        arrived = getattr(read if name in own else config, name)
        assert getattr(arrived, "value", arrived) == value, name


def test_there_are_the_recipes_that_the_project_promises():
    names = {path.stem for path in RECIPES.glob("*.yaml")}
    assert names == {
        "smoke",
        "smollm2-135m",
        "smollm2-135m-teacher",
        "smollm2-135m-pretrain",
        "llama-3.1-8b",
        "llama-3.1-8b-seed",
        "llama-3.2-3b",
    }


# From the seed's training notebook: omkarbare/QLoRA-Finetuning-Llama-3.1-8B-for-Amazon-Product-Price-Prediction,
# QLoRA_Finetuning_ProductPriceRegression.ipynb at 813046e8.
SEED_RECIPE = {
    "base_model": "meta-llama/Llama-3.1-8B",
    "precision": "nf4",
    "rank": 32,
    "alpha": 64,
    "dropout": 0.1,
    "target_modules": ATTENTION,
    "rslora": False,
    "dora": False,
    "loss": "completion",
    "tail_weight": 1.0,
    "match_prices": False,
    "target_like_weight": 1.0,
    "max_rows": 0,
    "question": "How much does this cost to the nearest dollar?",
}
SEED_CONFIG = {
    "num_train_epochs": 1,
    "max_steps": -1,
    "per_device_train_batch_size": 16,
    "gradient_accumulation_steps": 1,
    "learning_rate": 1e-4,
    "lr_scheduler_type": "cosine",
    "warmup_steps": 0.03,
    "optim": "paged_adamw_32bit",
    "weight_decay": 0.001,
    "max_grad_norm": 0.3,
    "max_length": 182,
    "bf16": True,
    "fp16": False,
    "gradient_checkpointing": False,
    "train_sampling_strategy": "group_by_length",
    "seed": 42,
    "logging_steps": 50,
    "save_steps": 2000,
    "save_total_limit": 10,
    "load_best_model_at_end": False,
}


def test_the_seeds_recipe_is_the_seeds(on_cuda):
    read, config = load_recipe([str(RECIPES / "llama-3.1-8b-seed.yaml")])
    assert {name: getattr(read, name) for name in SEED_RECIPE} == SEED_RECIPE
    got = {name: getattr(config, name) for name in SEED_CONFIG}
    assert {name: getattr(value, "value", value) for name, value in got.items()} == SEED_CONFIG


def test_nf4_is_with_double_quantisation(tmp_path, monkeypatch, tiny_model_folder):
    seen = {}

    def from_pretrained(name, **options):
        seen.update(options)
        raise OSError("seen enough")

    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", from_pretrained)
    settings = Settings(base=ModelRef(str(tiny_model_folder / "base")), adapter=ModelRef(""), label="")
    with pytest.raises(SetupError):
        load_base(settings, "cuda:0", "nf4")
    quantisation = seen["quantization_config"]
    assert quantisation.load_in_4bit
    assert quantisation.bnb_4bit_quant_type == "nf4"
    assert quantisation.bnb_4bit_use_double_quant
    assert str(quantisation.bnb_4bit_compute_dtype) == "torch.bfloat16"


@pytest.mark.parametrize("name", ["llama-3.1-8b-seed", "llama-3.1-8b"])
def test_no_row_is_longer_than_the_seeds_182_tokens(name, llama3_tokenizer):
    read, config = load_recipe([str(RECIPES / f"{name}.yaml")])
    texts = ["cordless drill " * 300, "x1-" * 900, "é😀" * 600, "lamp"]
    rows = pd.DataFrame({"text": texts, "price": [999.0, 1.0, 5.0, 129.0]})
    dataset = build_dataset(rows, row_weights(rows, None, read), llama3_tokenizer, read)
    collator = PriceCollator(llama3_tokenizer, read)
    assert collator([dataset[i] for i in range(4)])["input_ids"].shape[1] <= 182
    finetune.check_lengths(dataset, collator, config.max_length)
    with pytest.raises(InputError, match="max_length is 100"):
        finetune.check_lengths(dataset, collator, 100)


def test_our_llamas_train_all_layers_on_the_digits(on_cuda):
    for name, profile in (("llama-3.1-8b", "llama-8b"), ("llama-3.2-3b", "llama-3b")):
        read, config = load_recipe([str(RECIPES / f"{name}.yaml")])
        assert (read.base_model, read.question) == (PROFILES[profile].base_model, PROFILES[profile].question)
        assert read.max_text_tokens == PROFILES[profile].max_text_tokens
        assert read.target_modules == ALL_LINEAR
        assert read.tail_weight < 1
        assert config.per_device_train_batch_size * config.gradient_accumulation_steps == 128
        assert config.gradient_checkpointing != read.lean  # one or the other, to fit 24 GB


# What is refused ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "arguments", "words"),
    [
        (None, [], "There is no recipe"),
        ("colour: red\n", [], "cannot be used"),
        ("", ["--colour", "red"], "cannot be used"),
        ("loss: hinge\n", [], "loss"),
        ("rank: 0\n", [], "rank"),
        ("rank: [1\n", [], "cannot be used"),
        ("- a list\n", [], "cannot be used"),
        ("", ["--report_to", "pigeon"], "set it to none"),
    ],
    ids=[
        "no file",
        "unknown field",
        "unknown option",
        "unknown loss",
        "bad rank",
        "no YAML",
        "no mapping",
        "unknown tracker",
    ],
)
def test_wrong_recipe_is_one_sentence(tmp_path, capfd, content, arguments, words):
    path = tmp_path / "recipe.yaml"
    if content is not None:
        required = "" if content.startswith("-") else "base_model: base\ndata: data\noutput: out\n"
        path.write_text(required + content)
    assert finetune.main([str(path), *arguments]) == 2
    err = capfd.readouterr().err
    assert words in err
    assert "Traceback" not in err
    assert len([line for line in err.splitlines() if line.strip()]) == 1, err


@pytest.mark.parametrize("tracker", ["trackio", "tensorboard", "wandb"])
def test_a_tracker_that_is_not_installed_is_one_sentence(monkeypatch, capsys, tracker):
    monkeypatch.setattr(f"transformers.integrations.integration_utils.is_{tracker}_available", lambda: False)
    assert finetune.main([str(RECIPES / "smoke.yaml"), "--report_to", tracker]) == 2
    assert f"`pip install {tracker}`" in capsys.readouterr().err


def test_bad_recipe_values_are_refused():
    place = {"base_model": "base", "data": "data", "output": "out"}
    for wrong in ({"precision": "int3"}, {"soft_label_width": 0}, {"max_text_tokens": 2}, {"loss": "hinge"}):
        with pytest.raises(InputError):
            Recipe(**place, **wrong)
    assert all(Recipe(**place, loss=loss) for loss in LOSSES)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"dequantise": True, "precision": "bf16"}, "dequantise is for nf4"),
        ({"lean": True, "dropout": 0.05}, "dropout to 0"),
        ({"lean": True, "dropout": 0, "dora": True}, "dora to false"),
        ({"lean": True, "dropout": 0, "method": "full", "precision": "fp32"}, "method to lora"),
    ],
)
def test_fast_ways_that_do_not_fit_the_rest_are_refused(fields, words):
    command = [str(RECIPES / "llama-3.1-8b.yaml")]
    command += [word for name, value in fields.items() for word in (f"--{name}", str(value))]
    with pytest.raises(InputError, match=words):
        load_recipe(command)


def test_the_recipes_words_for_a_larger_card_are_a_recipe(on_cuda):
    """What the comment of llama-3.1-8b.yaml says to put behind it changes the speed, not the batch."""
    path = RECIPES / "llama-3.1-8b.yaml"
    lines = [line[1:].split() for line in path.read_text().splitlines() if line.startswith("#   --")]
    assert len(lines) == 1
    plain, _ = load_recipe([str(path)])
    for words in lines:
        read, config = load_recipe([str(path), *words])
        assert read.lean and not config.gradient_checkpointing
        assert config.per_device_train_batch_size * config.gradient_accumulation_steps == 128
        assert read.dequantise and replace(read, dequantise=plain.dequantise) == plain


# What is recorded -----------------------------------------------------------------------------------------


def test_a_recorded_recipe_is_the_recipe(tmp_path):
    overrides = ["--learning_rate", "3e-4", "--adam_beta2", "0.95", "--dora", "True", "--hub_token", "secret"]
    recipe, config = load_recipe([str(RECIPES / "smollm2-135m.yaml"), *overrides])
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(recorded(recipe, config)))
    assert "secret" not in path.read_text()
    again, config_again = load_recipe([str(path)])
    assert again == recipe
    assert again.dora and config_again.adam_beta2 == 0.95
    whole, whole_again = (c.to_dict() | {"hub_token": None} for c in (config, config_again))
    assert whole == whole_again
