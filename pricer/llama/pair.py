"""One base Llama in memory, and on it a LoRA adapter that can be switched off.

The *base* pass runs with the adapter off, the *tuned* pass with it on: one copy of the weights
serves both. Switching is state of the whole model, so a pass holds the model's lock.

Loading turns every foreseeable failure (no such model, no access, no adapter, another base's
adapter) into a `SetupError` that says what to do.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from pricer.llama.adapter import Adapter, check_same_base, load_adapter_card
from pricer.llama.base import choose_device, choose_precision, has_room_to_dequantise, load_base
from pricer.llama.card import CardWeights, on_card, why_not_on_card
from pricer.llama.forward import Weights, freeze, why_not
from pricer.llama.gate import (
    check_all_put_on,
    check_answers,
    check_base_untouched,
    check_finite,
    check_tensors,
    fitting,
    own_weights,
)
from pricer.llama.loading import bitsandbytes_hidden, explained, give_memory_back, quiet_peft
from pricer.llama.quantised import dequantise_once
from pricer.settings import PASSES, Settings

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM

log = logging.getLogger(__name__)

_ANOTHER_ADAPTER = "train it or copy it again, or set PRICER_ADAPTER to another"


class Turns:
    """A lock that whoever waited longest gets next; whoever holds it may take it again."""

    def __init__(self):
        self._waiting: deque[threading.Lock] = deque()
        self._short = threading.Lock()
        self._holder, self._depth = 0, 0

    def __enter__(self) -> None:
        me = threading.get_ident()
        with self._short:
            if free_or_mine := self._holder in (0, me):
                self._holder, self._depth = me, self._depth + 1
            else:
                (mine := threading.Lock()).acquire()
                self._waiting.append(mine)
        if not free_or_mine:
            mine.acquire()  # until it is handed over
            self._holder, self._depth = me, 1

    def __exit__(self, *_: object) -> None:
        with self._short:
            self._depth -= 1
            if self._depth:
                return
            self._holder = -1 if self._waiting else 0  # nobody comes in between
            if self._waiting:
                self._waiting.popleft().release()


class LlamaPair:
    """A Llama whose adapter can be switched off; `llama` is the plain `LlamaForCausalLM` inside.

    `use("base")` and `use("tuned")` yield it in that state and hold it meanwhile, so concurrent requests never see
    each other's state; they get it in the order of asking. `weights` are both passes' for `pricer.llama.forward`, `card` for
    `pricer.llama.rows`; None both where transformers' own pass has to serve.
    """

    weights: Weights | None = None
    card: CardWeights | None = None

    def __init__(self, peft_model: Any, tokenizer: Any, adapter: Adapter):
        self._peft_model = peft_model
        self.llama: LlamaForCausalLM = peft_model.get_base_model()
        self.tokenizer = tokenizer
        self.adapter = adapter
        self._turns = Turns()

    @property
    def device(self) -> torch.device:
        return self.llama.device

    @property
    def whole(self) -> LlamaPair:
        """A pair whose `llama` is whole: this one, or one that is loaded for it."""
        return self

    @contextmanager
    def use(self, which: str) -> Iterator[LlamaForCausalLM]:
        if which not in PASSES:
            raise ValueError(f"a pass is one of {PASSES}, not {which!r}")
        with self._turns, torch.inference_mode():
            if which == "tuned":
                yield self.llama
            else:
                with self._peft_model.disable_adapter():
                    yield self.llama

    @contextmanager
    def alone(self) -> Iterator[LlamaForCausalLM]:
        """`llama` in whatever state it is, for `pricer.llama.rows`, which does not look at it."""
        with self._turns, torch.inference_mode():
            yield self.llama


def load_pair(settings: Settings, loaded: tuple[LlamaForCausalLM, Any] | None = None) -> LlamaPair:
    """The base and the adapter that the settings name. `loaded` is a base, whose own weights stay as they are, and its
    tokenizer, where they are in memory already. Raises SetupError with what to do."""
    device = choose_device(settings)
    precision = choose_precision(settings, device)
    adapter = load_adapter_card(settings)
    check_same_base(settings.base, adapter)
    # On ZeroGPU the card is a stand-in until a request has one, and only for this thread, while transformers
    # loads with several: there everything is loaded as on a CPU and then moved at once.
    where = "cpu" if settings.zero_gpu else device
    base, tokenizer = loaded or load_base(settings, where, "fp32" if device == "cpu" else precision)
    dequantise = settings.dequantise
    if dequantise is None:  # whoever handed the base in may need it as it is
        dequantise = not loaded and has_room_to_dequantise(base)
    if dequantise:
        base = dequantise_once(base)
    with bitsandbytes_hidden(precision != "nf4"):
        from pricer.llama.lean import make_lean, without_plans

        peft_model = _put_on(adapter.folder, base, torch_device=where if settings.zero_gpu else None)
    if where != device:
        peft_model.to(device)
    if device != "cpu":
        without_plans()
    pair = LlamaPair(make_lean(peft_model.eval().requires_grad_(False)), tokenizer, adapter)
    if not settings.zero_gpu:  # where the card is not there yet, and a CPU would take minutes
        _check_answers(pair, settings)
        peft_model.requires_grad_(False)  # peft's switch asks for gradients when it puts the adapter on again
    if device == "cpu" and not loaded:  # packing takes a base's weights apart
        if not (reason := why_not(pair.llama)):
            pair.weights = freeze(pair.llama, precision)
        give_memory_back()
    elif device != "cpu" and not settings.zero_gpu:
        if not (reason := why_not_on_card(pair.llama)):
            pair.card = on_card(pair.llama)
    else:
        return pair
    if reason:
        log.warning("Slower than it could be: the lean forward pass does not know %s.", reason)
    return pair


def _put_on(folder: Path, base: LlamaForCausalLM, torch_device: str | None) -> Any:
    """The base with the adapter on it, which fits and leaves the base's own weights alone."""
    what = f"The adapter {folder} cannot be loaded"
    own = own_weights(base)
    with explained(what, variable="PRICER_ADAPTER"), quiet_peft(), fitting(folder, base):
        import peft

        check_tensors(folder, base)
        peft_model = peft.PeftModel.from_pretrained(
            base, folder, low_cpu_mem_usage=True, torch_device=torch_device
        )
        check_all_put_on(peft_model, folder, own)
    check_base_untouched(base, own, folder)
    for config in peft_model.peft_config.values():
        config.bias = (
            "none"  # of the base's own; else peft warns at every switch that they might have changed
        )
    # peft holds adapters in fp32 for training, and would turn every layer's input into it.
    for name, parameter in peft_model.named_parameters():
        if ".lora_" in name or ".modules_to_save." in name:
            parameter.data = parameter.data.to(base.dtype)
    of_base = {id(one.parameter) for one in own.values()}
    added = [(name, p) for name, p in peft_model.named_parameters() if id(p) not in of_base]
    check_finite(added, f"The adapter {folder}", _ANOTHER_ADAPTER)
    return peft_model


def _check_answers(pair: LlamaPair, settings: Settings) -> None:
    base = "copy it again, or name another one in PRICER_BASE_MODEL"
    for which, what, variable, advice in (
        ("base", f"The base model {settings.base}", "PRICER_BASE_MODEL", base),
        ("tuned", f"The base with the adapter {pair.adapter.folder}", "PRICER_ADAPTER", _ANOTHER_ADAPTER),
    ):
        with explained(f"{what} gives no answer", variable=variable), pair.use(which) as llama:
            check_answers(llama, pair.tokenizer, what, advice)
