"""Where a LoRA adapter starts when not from zero: at another adapter, or at a full fine-tune cut to its rank."""

from __future__ import annotations

import logging
from pathlib import Path

import peft
import torch
from peft.tuners.lora import LoraLayer
from peft.utils.integrations import dequantize_module_weight
from safetensors.torch import load_file

from pricer.errors import InputError
from pricer.llama.base import load_base
from pricer.settings import ModelRef, Settings
from train.recipe import Recipe

log = logging.getLogger("train.finetune")


def start_from(model: peft.PeftModel, recipe: Recipe) -> None:
    """Set the weights of the fresh adapter on `model` to what the recipe's start_from says.

    Raises InputError when what lies there does not fit, SetupError when it cannot be read.
    """
    folder = Path(recipe.start_from)
    if (folder / "adapter_config.json").is_file():
        _copy_adapter(model, folder)
    else:
        _cut_full(model, folder, recipe)


def _copy_adapter(model: peft.PeftModel, folder: Path) -> None:
    weights = load_file(folder / "adapter_model.safetensors")
    own = peft.get_peft_model_state_dict(model, save_embedding_layers=False)
    given = peft.LoraConfig.from_pretrained(folder)
    wanted = model.peft_config["default"]
    same = (given.lora_alpha, given.use_rslora) == (wanted.lora_alpha, wanted.use_rslora)
    if not same or _shapes(weights) != _shapes(own):
        raise InputError(
            f"The adapter {folder} does not fit the recipe: base_model, target_modules, rank ({given.r} there), alpha "
            f"({given.lora_alpha}), rslora and dora must be what it was trained with."
        )
    peft.set_peft_model_state_dict(model, weights)


def _shapes(weights: dict[str, torch.Tensor]) -> dict[str, torch.Size]:
    return {name: weight.shape for name, weight in weights.items()}


def _cut_full(model: peft.PeftModel, folder: Path, recipe: Recipe) -> None:
    """B A, times the adapter's scale, becomes the best approximation of its rank to (fine-tuned - base) in each layer:
    the largest singular values, their roots shared out evenly. What else differs (embeddings, norms) is left."""
    if recipe.dora:
        raise InputError("start_from a full fine-tune is for plain LoRA: switch dora off.")
    tuned, _ = load_base(Settings(ModelRef(str(folder)), ModelRef(""), ""), "cpu", "fp32")
    given = {
        name: p
        for name, p in tuned.named_parameters()
        if name.split(".")[-2] in recipe.target_modules and name.endswith("weight")
    }
    layers = {
        f"{name.removeprefix('base_model.model.')}.weight": layer
        for name, layer in model.named_modules()
        if isinstance(layer, LoraLayer)
    }
    base = {name: dequantize_module_weight(layer.get_base_layer()) for name, layer in layers.items()}
    if _shapes(given) != _shapes(base):
        raise InputError(
            f"{folder} is no fine-tune of {recipe.base_model}: its layers have other names or shapes; name the output "
            "folder of a run with method: full on the same base_model."
        )
    kept = whole = 0.0
    for name, layer in layers.items():
        difference = given[name].to(base[name].device) - base[name].float()
        rank = min(recipe.rank, *difference.shape)
        # Some more directions than are kept, and a few rounds, make the randomised SVD as good as exact.
        u, s, v = torch.svd_lowrank(difference, q=min(2 * rank + 8, *difference.shape), niter=4)
        root = (s[:rank] / layer.scaling["default"]).sqrt()
        a, b = layer.lora_A["default"].weight.data, layer.lora_B["default"].weight.data
        b.zero_()  # beyond the rank of the layer itself A stays random, as in a fresh adapter
        a[:rank], b[:, :rank] = (v[:, :rank] * root).T, u[:, :rank] * root
        kept, whole = kept + float(s[:rank].square().sum()), whole + float(difference.square().sum())
    log.info("rank %d holds %.0f %% of what %s changed", recipe.rank, 100 * kept / max(whole, 1e-12), folder)
