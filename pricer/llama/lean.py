"""A Llama's layers with fewer passes over memory in inference, for the same numbers to rounding, in plain PyTorch.

RMSNorm runs as torch's one kernel, where transformers takes five; LoRA's part is added inside its matrix product, where
peft scales and adds whole outputs. What that saves is measured in `bench/README.md`.
"""

from __future__ import annotations

from functools import partial

import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from torch.nn import functional as F
from transformers.models.llama.modeling_llama import LlamaRMSNorm

ADAPTER = "default"  # peft's name for the only one


def make_lean(model: PeftModel) -> PeftModel:
    """The model, whose adapter is in the base's dtype, from now on in this module's way. In inference only: sums are
    formed in place."""
    for module in model.modules():
        if isinstance(module, LlamaRMSNorm):
            module.forward = partial(norm, module)
        elif isinstance(module, LoraLayer) and is_plain(module):
            module.forward = partial(_linear, module)
    return model


def make_plain(model: torch.nn.Module) -> None:
    """Back to peft's and transformers' way."""
    for module in model.modules():
        if isinstance(module, LlamaRMSNorm | LoraLayer):
            vars(module).pop("forward", None)


def is_plain(layer: LoraLayer) -> bool:
    """On a linear layer, and nothing but two matrices: no DoRA or the like, no bias."""
    linear = isinstance(layer.get_base_layer(), torch.nn.Linear)
    return linear and ADAPTER not in layer.lora_variant and not layer.lora_bias.get(ADAPTER)


def without_plans() -> None:
    """Leave attention to torch's own kernels. cuDNN's make a plan for each shape of a batch that they have not seen,
    which takes 0.1 s, and hardly two of our batches have the same."""
    torch.backends.cuda.enable_cudnn_sdp(False)


def norm(layer: LlamaRMSNorm, x: torch.Tensor) -> torch.Tensor:
    return F.rms_norm(x, layer.weight.shape, layer.weight, layer.variance_epsilon)


def _linear(layer: LoraLayer, x: torch.Tensor) -> torch.Tensor:
    out = layer.base_layer(x)
    if not layer.disable_adapters:
        low = layer.lora_A[ADAPTER](x.flatten(0, -2)).mul_(layer.scaling[ADAPTER])
        out.view(len(low), -1).addmm_(low, layer.lora_B[ADAPTER].weight.t())
    return out
