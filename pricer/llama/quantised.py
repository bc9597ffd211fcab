"""NF4 weights, worked out once instead of in every pass."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pricer.llama.loading import quiet_transformers

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM


def dequantise_once(model: LlamaForCausalLM) -> LlamaForCausalLM:
    """The model with the very numbers that its NF4 weights stand for, in the dtype that it computes in: it gives what
    it gave, takes the room of a bf16 model (8B: 15 GiB for 5.3), and no pass works the numbers out again. Changed in
    place, layer by layer. A model that is not quantised comes back as it is."""
    if getattr(model, "hf_quantizer", None) is None:
        return model
    training = model.training
    with quiet_transformers(bars=True):  # it says in which dtype
        model = model.dequantize()
    model.is_loaded_in_4bit = False  # left over, and peft, TRL and accelerate ask for it
    return model.train(training).requires_grad_(False)
