"""Where a LoRA adapter starts when not from zero: at another adapter, or at a full fine-tune cut to its rank."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import peft
import torch
from peft.tuners.lora import LoraLayer
from peft.utils.integrations import dequantize_module_weight
from safetensors.torch import load_file
from transformers import LlamaForCausalLM

from pricer.errors import InputError
from pricer.llama.base import load_base
from pricer.llama.gate import check_finite
from pricer.llama.loading import explained
from pricer.settings import ModelRef, Settings
from train.recipe import Recipe

log = logging.getLogger("train.finetune")


def start_from(model: peft.PeftModel, recipe: Recipe, examples: Sequence[Sequence[int]] = ()) -> None:
    """Set the weights of the fresh adapter on `model` to what the recipe's start_from says.

    examples: token ids of prompts. With them a full fine-tune is cut so that what its layers put out on these changes
    least, not what their matrices hold.
    Raises InputError when what lies there does not fit, SetupError when it cannot be read.
    """
    folder = Path(recipe.start_from)
    if (folder / "adapter_config.json").is_file():
        _copy_adapter(model, folder)
    else:
        _cut_full(model, folder, recipe, examples)


def _copy_adapter(model: peft.PeftModel, folder: Path) -> None:
    with explained(f"The adapter {folder} cannot be loaded", variable="start_from"):
        weights = load_file(folder / "adapter_model.safetensors")
        given = peft.LoraConfig.from_pretrained(folder)
    check_finite(weights.items(), f"The adapter {folder}", "name another one in start_from")
    own = peft.get_peft_model_state_dict(model, save_embedding_layers=False)
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


def _cut_full(model: peft.PeftModel, folder: Path, recipe: Recipe, examples: Sequence[Sequence[int]]) -> None:
    """B A, times the adapter's scale, becomes the best approximation of its rank to (fine-tuned - base) in each layer:
    the largest singular values, their roots shared out evenly. What else differs (embeddings, norms) is left.

    The inputs of a layer vary in few directions, so what is near as a matrix is not what is near as a function: where
    there are examples, a direction counts as much as the inputs vary in it."""
    if recipe.dora:
        raise InputError("start_from a full fine-tune is for plain LoRA: switch dora off.")
    device = str(model.device)
    tuned, _ = load_base(Settings(ModelRef(str(folder)), ModelRef(""), ""), device, "fp32")
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
    moments = input_moments(tuned, recipe.target_modules, examples) if len(examples) else {}
    kept = whole = 0.0
    for name, layer in layers.items():
        difference = given[name] - base[name].float()
        counts, back = None, None
        if name in moments:
            variance, axes = torch.linalg.eigh(moments[name])
            counts = variance.clamp(min=0).add(1e-3 * variance.mean()).sqrt()
            difference, back = (difference @ axes) * counts, axes / counts
        rank = min(recipe.rank, *difference.shape)
        # Some more directions than are kept, and a few rounds, make the randomised SVD as good as exact.
        u, s, v = torch.svd_lowrank(difference, q=min(2 * rank + 8, *difference.shape), niter=4)
        kept, whole = kept + float(s[:rank].square().sum()), whole + float(difference.square().sum())
        down, up = v[:, :rank].T, u[:, :rank] * s[:rank] / layer.scaling["default"]
        if back is not None:
            down = down @ back.T
        rank = int((s[:rank] > 1e-4 * s[0]).sum())  # of what there is to keep
        down, up = down[:rank], up[:, :rank]
        share = (up.norm(dim=0) / down.norm(dim=1)).sqrt()
        a, b = layer.lora_A["default"].weight.data, layer.lora_B["default"].weight.data
        b.zero_()  # beyond that A stays random, as in a fresh adapter
        a[:rank], b[:, :rank] = down * share[:, None], up / share
    log.info("rank %d holds %.0f %% of what %s changed", recipe.rank, 100 * kept / max(whole, 1e-12), folder)


@torch.no_grad()
def input_moments(
    llama: LlamaForCausalLM, target_modules: Sequence[str], examples: Sequence[Sequence[int]]
) -> dict[str, torch.Tensor]:
    """(in, in) mean of x x' over the examples' tokens, for the input x of each layer of target_modules, by the name of
    its weight."""
    moments: dict[str, torch.Tensor] = {}
    tokens = sum(map(len, examples))

    def watch(name: str, module: torch.nn.Linear, args: tuple) -> None:
        rows = args[0].flatten(0, -2).float()
        moments[name] = moments.get(name, 0) + rows.T @ rows / tokens

    hooks = [
        module.register_forward_pre_hook(partial(watch, f"{name}.weight"))
        for name, module in llama.named_modules()
        if name.rpartition(".")[2] in target_modules
    ]
    for ids in examples:  # one at a time: no padding to leave out
        llama.model(input_ids=torch.tensor([list(ids)], device=llama.device), use_cache=False)
    for hook in hooks:
        hook.remove()
    return moments
