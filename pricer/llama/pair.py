"""One base Llama in memory, and on it a LoRA adapter that can be switched off.

The *base* pass runs with the adapter off, the *tuned* pass with it on: one copy of the weights
serves both. Switching is state of the whole model, so a pass holds the model's lock.

Loading turns every foreseeable failure (no such model, no access, no adapter, another base's
adapter) into a `SetupError` that says what to do.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from transformers import LlamaForCausalLM

from pricer.llama.adapter import Adapter, check_all_put_on, check_same_base, load_adapter_card
from pricer.llama.base import choose_device, choose_precision, has_room_to_dequantise, load_base
from pricer.llama.loading import bitsandbytes_hidden, explained
from pricer.llama.quantised import dequantise_once
from pricer.settings import PASSES, Settings

log = logging.getLogger(__name__)


class LlamaPair:
    """A Llama whose adapter can be switched off; `llama` is the plain `LlamaForCausalLM` inside.

    `use("base")` and `use("tuned")` yield it in that state and hold the lock meanwhile, so
    concurrent requests never see each other's state.
    """

    def __init__(self, peft_model: Any, tokenizer: Any, adapter: Adapter):
        self._peft_model = peft_model
        self.llama: LlamaForCausalLM = peft_model.get_base_model()
        self.tokenizer = tokenizer
        self.adapter = adapter
        self._lock = threading.RLock()

    @property
    def device(self) -> torch.device:
        return self.llama.device

    @contextmanager
    def use(self, which: str) -> Iterator[LlamaForCausalLM]:
        if which not in PASSES:
            raise ValueError(f"a pass is one of {PASSES}, not {which!r}")
        with self._lock, torch.inference_mode():
            if which == "tuned":
                yield self.llama
            else:
                with self._peft_model.disable_adapter():
                    yield self.llama


def load_pair(settings: Settings, loaded: tuple[LlamaForCausalLM, Any] | None = None) -> LlamaPair:
    """The base and the adapter that the settings name. `loaded` is the base and its tokenizer where they are in
    memory already. Raises SetupError with what to do."""
    device = choose_device(settings)
    precision = choose_precision(settings, device)
    adapter = load_adapter_card(settings)
    check_same_base(settings.base, adapter)
    # On ZeroGPU the card is a stand-in until a request has one, and only for this thread, while transformers
    # loads with several: there everything is loaded as on a CPU and then moved at once.
    where = "cpu" if settings.zero_gpu else device
    base, tokenizer = loaded or load_base(settings, where, precision)
    dequantise = settings.dequantise
    if dequantise is None:  # whoever handed the base in may need it as it is
        dequantise = not loaded and has_room_to_dequantise(base)
    if dequantise:
        base = dequantise_once(base)
    dtype = base.dtype
    what = f"The adapter {adapter.folder} cannot be loaded"
    with bitsandbytes_hidden(precision != "nf4"), explained(what, variable="PRICER_ADAPTER"):
        import peft

        from pricer.llama.lean import make_lean, without_plans

        options = {"torch_device": where} if settings.zero_gpu else {}
        peft_model = peft.PeftModel.from_pretrained(base, adapter.folder, low_cpu_mem_usage=True, **options)
        check_all_put_on(peft_model, adapter.folder)
    # peft holds adapters in fp32 for training, and would turn every layer's input into it.
    for name, parameter in peft_model.named_parameters():
        if ".lora_" in name:
            parameter.data = parameter.data.to(dtype)
    if where != device:
        peft_model.to(device)
    if device != "cpu":
        without_plans()
    return LlamaPair(make_lean(peft_model.eval().requires_grad_(False)), tokenizer, adapter)
