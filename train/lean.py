"""A Llama's layers in training, with fewer passes over memory and less kept for the backward pass.

The same computation as peft's and transformers' to rounding, in plain PyTorch:
- a linear layer with LoRA is one autograd step. LoRA's part is added inside the matrix products; peft copies, scales
  and adds whole outputs.
- the product in the middle of the MLP is worked out again in the backward pass from its two factors, which are kept
  anyway.
- RMSNorm runs as torch's one kernel, which keeps its bf16 input; transformers' keeps it in fp32.

Bytes kept for each token and layer on CUDA in bf16, LoRA on all linear layers, d the hidden size, f the MLP's:
13 d + 4 f, for the 8B 108 KiB. peft's and transformers' way keeps 17 d + 8 f (180 KiB), with dropout 31 d + 9 f (250 KiB),
and over a base in bf16, whose inputs peft copies, 8 d more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from peft.utils.integrations import dequantize_module_weight
from torch.autograd.function import once_differentiable
from torch.nn import functional as F
from transformers.models.llama.modeling_llama import LlamaMLP, LlamaRMSNorm

from pricer.llama.lean import ADAPTER, norm


@contextmanager
def lean_layers(model: PeftModel) -> Iterator[None]:
    """Meanwhile the model's layers run this module's way in training, and peft's and transformers' in evaluation.
    The adapter must be plain LoRA without dropout."""
    before = []
    for module in model.modules():
        for kind, lean in LEAN.items():
            if isinstance(module, kind):
                before.append((module, vars(module).get("forward")))
                module.forward = partial(_in_training, module, lean, module.forward)
    try:
        yield
    finally:
        for module, forward in before:
            del module.forward
            if forward is not None:  # another library's, around the class's own
                module.forward = forward


def _in_training(module: torch.nn.Module, lean: Callable, plain: Callable, *args: Any, **kwargs: Any):
    return lean(module, *args, **kwargs) if module.training else plain(*args, **kwargs)


def _norm(layer: LlamaRMSNorm, x: torch.Tensor) -> torch.Tensor:
    with torch.autocast(x.device.type, enabled=False):  # which would have it in fp32
        return norm(layer, x)


def _mlp(mlp: LlamaMLP, x: torch.Tensor) -> torch.Tensor:
    gate, up = mlp.gate_proj(x), mlp.up_proj(x)
    if isinstance(mlp.down_proj, LoraLayer):
        return _linear(mlp.down_proj, gate, up)
    return mlp.down_proj(F.silu(gate) * up)


def _linear(layer: LoraLayer, x: torch.Tensor, up: torch.Tensor | None = None) -> torch.Tensor:
    if torch.is_autocast_enabled(x.device.type):
        x = x.to(torch.get_autocast_dtype(x.device.type))
    return LoraLinear.apply(layer, layer.lora_A[ADAPTER].weight, layer.lora_B[ADAPTER].weight, x, up)


LEAN = {LoraLayer: _linear, LlamaMLP: _mlp, LlamaRMSNorm: _norm}


def _frozen(layer: LoraLayer, dtype: torch.dtype) -> torch.Tensor:
    """(out, in) what the layer's frozen weight stands for."""
    return dequantize_module_weight(layer.get_base_layer()).to(dtype)


class LoraLinear(torch.autograd.Function):
    """x W' + s (x A') B' with W frozen; x is silu(x) * up where `up` is given, and then x and up are what is kept.
    Computed in x's dtype; A, B and their gradients may have another."""

    @staticmethod
    def forward(
        ctx: Any,
        layer: LoraLayer,
        a: torch.Tensor,
        b: torch.Tensor,
        x: torch.Tensor,
        up: torch.Tensor | None,
    ) -> torch.Tensor:
        rows = (x if up is None else F.silu(x) * up).flatten(0, -2)
        low = rows @ a.to(x.dtype).t() * layer.scaling[ADAPTER]
        out = F.linear(rows, _frozen(layer, x.dtype), layer.get_base_layer().bias)
        out.addmm_(low, b.to(x.dtype).t())
        ctx.layer = layer
        ctx.save_for_backward(a, b, x, up, low)
        return out.unflatten(0, x.shape[:-1])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor):
        a, b, x, up, low = ctx.saved_tensors
        act = None if up is None else F.silu(x)
        rows = (x if up is None else act * up).flatten(0, -2)
        grad = grad.flatten(0, -2)
        grad_low = grad @ b.to(grad.dtype) * ctx.layer.scaling[ADAPTER]
        grad_a, grad_b = (grad_low.t() @ rows).to(a.dtype), (grad.t() @ low).to(b.dtype)
        if not ctx.needs_input_grad[3]:  # the first layer's input
            return None, grad_a, grad_b, None, None
        into = grad @ _frozen(ctx.layer, grad.dtype)
        into = into.addmm_(grad_low, a.to(grad.dtype)).view(x.shape)
        if up is None:
            return None, grad_a, grad_b, into, None
        return None, grad_a, grad_b, torch.ops.aten.silu_backward(into * up, x), into * act
