"""A Llama without an adapter where the library expects one with."""

from __future__ import annotations

from typing import Any

from transformers import LlamaForCausalLM

from pricer.llama.adapter import Adapter
from pricer.llama.pair import LlamaPair, Turns


class WholeModel(LlamaPair):
    """A Llama whose own weights were trained: its tuned pass is the model as it is, and it has no base pass.

    adapter: the prompt that it was trained on.
    """

    def __init__(self, llama: LlamaForCausalLM, tokenizer: Any, adapter: Adapter):
        self.llama, self.tokenizer, self.adapter = llama, tokenizer, adapter
        self._turns = Turns()

    def use(self, which: str):
        if which != "tuned":
            raise ValueError(f"a whole model has no {which!r} pass")
        return super().use(which)
