"""The embedded pair straight from its files, for the lean forward pass alone.

transformers and peft take three seconds to be imported and to build modules and a tokenizer, of which `pricer.llama.forward` then keeps
nothing but the weights. Those of the embedded base, which this program has prepared itself, and of a plain LoRA adapter are
read here. Whatever is not exactly as expected goes the long way (`pricer.llama.pair`), where the gate says what is wrong.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from pricer.llama.adapter import Adapter, check_same_base, load_adapter_card
from pricer.llama.base import choose_device, choose_precision
from pricer.llama.embedded import EMBEDDED_BASE, prepare_embedded_base
from pricer.llama.forward import POSITIONS, Layer, Linear, Weights
from pricer.llama.gate import check_finite, check_tokenizer
from pricer.llama.loading import give_memory_back
from pricer.llama.packing import Product, joined, product
from pricer.llama.pair import LlamaPair, Turns, load_pair
from pricer.settings import PASSES, Settings

log = logging.getLogger(__name__)

# What config.json must say.
_CONFIG = {"model_type": "llama", "hidden_act": "silu", "attention_bias": False, "mlp_bias": False}
# What adapter_config.json must say, and of what it may say anything; whatever else it names makes more of an adapter than
# two matrices beside a layer.
_ADAPTER = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "bias": "none"}
_ANYTHING = {
    "base_model_name_or_path",
    "inference_mode",
    "lora_alpha",
    "lora_dropout",
    "megatron_core",
    "peft_version",
    "qalora_group_size",
    "r",
    "revision",
    "target_modules",
}
_ATTENTION, _MLP = ("q_proj", "k_proj", "v_proj", "o_proj"), ("gate_proj", "up_proj", "down_proj")


class Tokenizer:
    """The base's tokenizer without transformers, as far as scoring needs it; whatever else is asked of it, transformers' own
    answers. Calls as that takes them."""

    is_fast = True

    def __init__(self, folder: Path):
        from tokenizers import Tokenizer as Backend

        self._folder, self._own = folder, Backend.from_file(str(folder / "tokenizer.json"))
        self._own.no_padding()
        self._own.no_truncation()

    def __call__(
        self,
        text: str | Sequence[str],
        add_special_tokens: bool = True,
        return_offsets_mapping: bool = False,
        return_attention_mask: bool = False,
    ) -> dict[str, list]:
        _expect(not return_attention_mask)
        alone = isinstance(text, str)
        found = self._own.encode_batch([text] if alone else list(text), add_special_tokens=add_special_tokens)
        answer = {"input_ids": [one.ids for one in found]}
        if return_offsets_mapping:
            answer["offset_mapping"] = [one.offsets for one in found]
        return {name: values[0] for name, values in answer.items()} if alone else answer

    def get_vocab(self) -> dict[str, int]:
        return self._own.get_vocab()

    def decode(self, ids: Sequence[int], skip_special_tokens: bool = False) -> str:
        return self._own.decode(list(ids), skip_special_tokens=skip_special_tokens)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._whole, name)

    @cached_property
    def _whole(self) -> Any:
        from transformers import PreTrainedTokenizerFast

        return PreTrainedTokenizerFast.from_pretrained(self._folder)


class DirectPair(LlamaPair):
    """`llama` knows the base's head and the size of its vocabulary; for more than the lean pass there is `whole`."""

    def __init__(self, weights: Weights, head: Product, tokenizer: Any, adapter: Adapter, settings: Settings):
        self.weights, self.tokenizer, self.adapter, self._settings = weights, tokenizer, adapter, settings
        config = SimpleNamespace(vocab_size=len(weights.embedding))
        self.llama = SimpleNamespace(lm_head=head, config=config, device=torch.device("cpu"))
        self._turns = Turns()

    @contextmanager
    def use(self, which: str) -> Iterator[Any]:
        if which not in PASSES:
            raise ValueError(f"a pass is one of {PASSES}, not {which!r}")
        with self._turns, torch.inference_mode():
            yield self.llama

    @cached_property
    def whole(self) -> LlamaPair:
        return load_pair(self._settings)


def read_pair(settings: Settings) -> LlamaPair:
    """The pair that the settings name, by the shorter way where there is one. Raises SetupError as `load_pair` does."""
    base = None
    if settings.base.name == EMBEDDED_BASE and not settings.zero_gpu and choose_device(settings) == "cpu":
        precision = choose_precision(settings, "cpu")
        base = prepare_embedded_base(settings.cache)
    if base is None:
        return load_pair(settings)
    adapter = load_adapter_card(settings)
    check_same_base(settings.base, adapter)
    try:
        tokenizer = Tokenizer(base)
        weights, head = _read(base, adapter.folder, precision)
        check_tokenizer(tokenizer, len(weights.embedding), settings.base)
    except Exception:  # whatever it is, the long way has a sentence for it
        log.debug("%s and %s are not read directly", base, adapter.folder, exc_info=True)
        return load_pair(settings)
    give_memory_back()
    return DirectPair(weights, head, tokenizer, adapter, settings)


@torch.inference_mode()
def _read(base: Path, adapter: Path, precision: str) -> tuple[Weights, Product]:
    """The weights of both passes, those of the base's layers in `precision`, and the head. Raises ValueError, or what a reader raises, for anything unexpected."""
    from safetensors.torch import load_file

    config, lora = _json(base / "config.json"), _json(adapter / "adapter_config.json")
    _expect({key: config[key] for key in _CONFIG} == _CONFIG and "quantization_config" not in config)
    _expect({key: lora[key] for key in _ADAPTER} == _ADAPTER)
    _expect(lora["init_lora_weights"] in (True, False))
    known = {*_ADAPTER, *_ANYTHING, "init_lora_weights"}
    _expect(not [key for key, value in lora.items() if value and key not in known])
    _expect(isinstance(lora["target_modules"], list) and {*lora["target_modules"]} <= {*_ATTENTION, *_MLP})

    wide, inner, head_width = config["hidden_size"], config["intermediate_size"], config["head_dim"]
    heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
    sizes = {
        "self_attn.q_proj": (heads * head_width, wide),
        "self_attn.k_proj": (kv_heads * head_width, wide),
        "self_attn.v_proj": (kv_heads * head_width, wide),
        "self_attn.o_proj": (wide, heads * head_width),
        "mlp.gate_proj": (inner, wide),
        "mlp.up_proj": (inner, wide),
        "mlp.down_proj": (wide, inner),
    }
    own, added = load_file(base / "model.safetensors"), load_file(adapter / "adapter_model.safetensors")
    check_finite([*own.items(), *added.items()], "", "")
    scale = lora["lora_alpha"] / lora["r"]

    def norm(name: str) -> torch.Tensor:
        found = own.pop(f"{name}.weight")
        _expect(found.shape == (wide,) and found.dtype == torch.float32)
        return found.clone()

    def linear(at: str, *parts: str) -> Linear:
        weights, loras = [], []
        for part in parts:
            weight, (out, into) = own.pop(f"{at}.{part}.weight"), sizes[part]
            _expect(weight.shape == (out, into) and weight.dtype == torch.float32)
            weights.append(weight)
            loras.append(None)
            if part.split(".")[1] in lora["target_modules"]:
                names = (f"base_model.model.{at}.{part}.lora_{side}.weight" for side in "AB")
                down, up = (added.pop(name).float() for name in names)
                _expect(down.shape == (lora["r"], into) and up.shape == (out, lora["r"]))
                loras[-1] = down, up * scale
        base = product(*joined(weights, [None] * len(parts)), precision)
        return Linear.of(base, [len(weight) for weight in weights], loras)

    layers = []
    for number in range(config["num_hidden_layers"]):
        at = f"model.layers.{number}"
        qkv = linear(at, "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
        out, down = linear(at, "self_attn.o_proj"), linear(at, "mlp.down_proj")
        gate_up = linear(at, "mlp.gate_proj", "mlp.up_proj")
        before, between = norm(f"{at}.input_layernorm"), norm(f"{at}.post_attention_layernorm")
        layers.append(Layer(before, qkv, out, between, gate_up, down))
    embedding, last = own.pop("model.embed_tokens.weight").clone(), norm("model.norm")
    _expect(embedding.shape == (config["vocab_size"], wide) and embedding.dtype == torch.float32)
    tied = config["tie_word_embeddings"]
    head = embedding if tied else own.pop("lm_head.weight")
    _expect(head.shape == embedding.shape and head.dtype == torch.float32)
    _expect(not own and not added)
    cos, sin = _rotary_tables(config, head_width)
    weights = Weights(
        embedding, tuple(layers), last, config["rms_norm_eps"], heads, kv_heads, head_width, cos, sin, tied
    )
    return weights, product(head)


def _rotary_tables(config: Mapping[str, Any], width: int) -> tuple[torch.Tensor, torch.Tensor]:
    """cos, sin (positions, width), as transformers' default has them."""
    rope = config["rope_parameters"]
    _expect(rope["rope_type"] == "default" and rope.keys() == {"rope_type", "rope_theta"})
    speeds = 1.0 / rope["rope_theta"] ** (torch.arange(0, width, 2).float() / width)
    positions = torch.arange(min(config["max_position_embeddings"], POSITIONS)).float()
    angles = torch.outer(positions, speeds).repeat(1, 2)
    return angles.cos(), angles.sin()


def _expect(holds: bool) -> None:
    if not holds:
        raise ValueError("not as expected")


def _json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))
