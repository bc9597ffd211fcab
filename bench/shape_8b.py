"""A model in the shape of Llama 3.1 8B, of random weights, and a predictor whose lattice costs what a real one's does."""

from __future__ import annotations

import copy
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import peft
from transformers import LlamaForCausalLM

from bench.train_8b import random_base
from pricer.llama.predictor import Predictor
from pricer.price.lattice import PRICES, ROOT

RANK, ALPHA = 32, 64
LORA_STD = 0.02  # of LoRA's B: its part is a tenth of a layer's output


def deep_base(shape: dict[str, Any], device: str, precision: str, folder: Path) -> LlamaForCausalLM:
    """A random base whose layers are copies of one: made and quantised in a fraction of the time."""
    base = random_base(shape | {"num_hidden_layers": 1}, device, precision, folder)
    first, layers = base.model.layers[0], shape["num_hidden_layers"]
    for index in range(1, layers):
        layer = copy.deepcopy(first, {id(base.config): base.config})
        layer.self_attn.layer_idx = index
        base.model.layers.append(layer)
    base.config.num_hidden_layers = layers
    base.config.save_pretrained(folder)
    return base.eval().requires_grad_(False)


def save_random_adapter(base: LlamaForCausalLM, folder: Path) -> LlamaForCausalLM:
    """A LoRA adapter whose B is not zero, in `folder`; gives the base back, bare."""
    names = ["q_proj", "k_proj", "v_proj", "o_proj"]
    config = peft.LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=names, task_type="CAUSAL_LM")
    model = peft.get_peft_model(base, config)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(std=LORA_STD)
    model.peft_config["default"].base_model_name_or_path = base.name_or_path
    model.save_pretrained(folder, save_embedding_layers=False)
    return model.unload()


class Rehearsal(Predictor):
    """Has the model compute all that a prediction takes, and then answers in its place, see the module's docstring."""

    goes_on = (5e-5, 5e-5)  # behind a price, with a digit and with a comma

    def _watched_probabilities(self, llama, hidden, nodes):
        found = super()._watched_probabilities(llama, hidden, nodes)

        def answer() -> np.ndarray:
            own = found()  # waits for the card
            if not (nodes == ROOT).any():
                return np.broadcast_to(self.goes_on, own.shape)
            made_up = np.zeros(own.shape)
            made_up[:, 0, self._prices] = self._spread(len(own))
            return made_up

        return answer

    @cached_property
    def _prices(self) -> np.ndarray:
        """The columns of the prices' tokens, each of which is one."""
        column = {int(token): i for i, token in enumerate(self.lattice.watched)}
        return np.array([column[token] for (token,) in self.lattice.paths])

    def _spread(self, batch: int) -> np.ndarray:
        """(batch, 999): round prices and those that end in 9 preferred, around $20 to $180, other ones for each item."""
        around = np.random.default_rng(batch).normal(np.log(60), 0.5, (batch, 1))
        liked = (PRICES % 10 == 9) | (PRICES % 5 == 0)  # by shops
        height = 1.5 * liked - np.log(PRICES) - (np.log(PRICES) - around) ** 2 / (2 * 0.7**2)
        weights = np.exp(height - height.max(axis=1, keepdims=True))
        return weights / weights.sum(axis=1, keepdims=True)
