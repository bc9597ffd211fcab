"""A Llama's weights as the lean pass on a CUDA card (`pricer.llama.rows`) reads them, and what has to hold for it.

q, k and v are one product, gate and up another, where their weights are plain matrices; layers in NF4 stay as they are. The
kernels beside the products are tried before they are used: what does not run, or gives something else, is not used.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn import functional as F

from pricer.llama import plain
from pricer.llama.forward import POSITIONS, Frozen, unknown
from pricer.llama.packing import joined

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM

log = logging.getLogger(__name__)

_WIDEST = 256  # head that torch's flash kernel takes
_NEAR = 0.02  # how far the trial's results may be from those in fp32, of numbers around 1, in bf16


@dataclass(frozen=True)
class Product:
    """Linear layers side by side, as one product: x (n, in) -> (n, size) for each of `sizes`. `layer` in place of
    `weight` (all sizes, in): a layer that computes for itself, such as one in NF4. lora: what the adapter adds, down
    (in, ranks) and up (ranks, all sizes)."""

    weight: torch.Tensor | None
    layer: Any
    bias: torch.Tensor | None
    lora: tuple[torch.Tensor, torch.Tensor] | None
    sizes: tuple[int, ...]

    def __call__(self, x: torch.Tensor, tuned: bool) -> tuple[torch.Tensor, ...]:
        out = self.layer(x) if self.weight is None else F.linear(x, self.weight, self.bias)
        return self._adapted(out, x, tuned).split(self.sizes, dim=1)

    def onto(self, rest: torch.Tensor, x: torch.Tensor, tuned: bool) -> torch.Tensor:
        """rest + what the one layer makes of x, in rest's place."""
        if self.weight is None or self.bias is not None:
            rest.add_(self.layer(x))
        else:
            rest.addmm_(x, self.weight.t())
        return self._adapted(rest, x, tuned)

    def _adapted(self, out: torch.Tensor, x: torch.Tensor, tuned: bool) -> torch.Tensor:
        if tuned and self.lora:
            down, up = self.lora
            out.addmm_(torch.mm(x, down), up)
        return out


@dataclass(frozen=True)
class Layer:
    before: torch.Tensor  # the norms' weights: before attention, and before the two big products
    qkv: tuple[Product, ...]  # together q, k, v
    out: Product
    between: torch.Tensor
    gate_up: tuple[Product, ...]
    down: Product


@dataclass(frozen=True)
class CardWeights(Frozen):
    """The same for a card: layers of this `Layer`; cos, sin: (positions, width / 2); ways: what lies between the products,
    `pricer.llama.plain` or `.kernels`; attend: as `plain.attend`."""

    ways: ModuleType
    attend: Callable[..., tuple[torch.Tensor, torch.Tensor]]


def why_not_on_card(llama: LlamaForCausalLM) -> str:
    """What this pass does not know of a model on a card, or nothing where it knows all of it."""
    config, width = llama.config, llama.model.layers[0].self_attn.head_dim
    if llama.device.type != "cuda" or llama.dtype not in (torch.bfloat16, torch.float16):
        return f"{llama.dtype} on {llama.device.type}"
    if width > _WIDEST or width % 8 or width & (width - 1):
        return f"heads that are {width} wide"
    if reason := unknown(llama):
        return reason
    try:
        near = _flash_is_near(config.num_attention_heads, config.num_key_value_heads, width, llama)
    except Exception as error:  # whatever this torch or this card does not have
        log.debug("attention without padding", exc_info=True)
        return f"this card's attention ({type(error).__name__})"
    return "" if near else "this card's attention (its numbers are off)"


def on_card(llama: LlamaForCausalLM) -> CardWeights:
    """The weights of a model of which `why_not_on_card` knows all. Layers that are multiplied side by side then share one matrix,
    of which theirs are parts, so there is one copy."""
    if llama.device.type != "cuda":
        return _weights(llama, plain, plain.attend)
    found = _weights(llama, _ways(llama), _flash)
    torch.cuda.empty_cache()  # of the matrices that were
    return found


@torch.no_grad()
def _weights(llama: LlamaForCausalLM, ways: ModuleType, attend: Callable) -> CardWeights:
    config, inner = llama.config, llama.model
    embedding = inner.embed_tokens.weight
    positions = torch.arange(min(config.max_position_embeddings, POSITIONS), device=embedding.device)[None]
    cos, sin = inner.rotary_emb(embedding, positions)
    half = inner.layers[0].self_attn.head_dim // 2
    layers = []
    for layer in inner.layers:
        attention, mlp = layer.self_attn, layer.mlp
        layers.append(
            Layer(
                before=layer.input_layernorm.weight,
                qkv=_side_by_side(attention.q_proj, attention.k_proj, attention.v_proj),
                out=_side_by_side(attention.o_proj)[0],
                between=layer.post_attention_layernorm.weight,
                gate_up=_side_by_side(mlp.gate_proj, mlp.up_proj),
                down=_side_by_side(mlp.down_proj)[0],
            )
        )
    return CardWeights(
        embedding=embedding,
        layers=tuple(layers),
        norm=inner.norm.weight,
        epsilon=config.rms_norm_eps,
        heads=config.num_attention_heads,
        kv_heads=config.num_key_value_heads,
        width=2 * half,
        cos=cos[0, :, :half].contiguous(),
        sin=sin[0, :, :half].contiguous(),
        ways=ways,
        attend=attend,
    )


def _side_by_side(*modules: Any) -> tuple[Product, ...]:
    """Layers that read the same input: one product, or, where their weights are no plain matrices, one of each."""
    plains = [getattr(module, "base_layer", module) for module in modules]
    whole = all(type(one) is torch.nn.Linear for one in plains)
    if len(plains) > 1 and not (whole and len({one.bias is None for one in plains}) == 1):
        return tuple(product for module in modules for product in _side_by_side(module))
    sizes = tuple(one.out_features for one in plains)
    lora = _loras(modules, sizes)
    if not whole:
        return (Product(None, plains[0], None, lora, sizes),)
    weight, bias = joined([one.weight for one in plains], [one.bias for one in plains])
    if len(plains) > 1:
        for one, part in zip(plains, weight.split(sizes), strict=True):
            one.weight.data = part
    return (Product(weight, plains[0], bias, lora, sizes),)


def _loras(modules: Sequence[Any], sizes: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor] | None:
    """What the adapter adds to these layers, as one pair of matrices: each reads its own part of what comes down."""
    downs, ups, first = [], [], 0
    for module, size in zip(modules, sizes, strict=True):
        if hasattr(module, "base_layer"):
            (name,) = module.active_adapters
            down, up = module.lora_A[name].weight, module.lora_B[name].weight
            wide = up.new_zeros(up.shape[1], sum(sizes))
            wide[:, first : first + size] = (up.float() * module.scaling[name]).t()
            downs.append(down.t())
            ups.append(wide)
        first += size
    return (torch.cat(downs, dim=1), torch.cat(ups)) if downs else None


# The kernels, tried before they are used -----------------------------------------------------------------


def _flash(q, keys, values, q_ends, k_ends, most_q, most_k, causal):
    """`plain.attend` by torch's flash kernel, which takes texts without padding."""
    # Told of one token a text at most, it lays them out in another way.
    most_q = max(2, most_q)
    found = torch.ops.aten._flash_attention_forward(
        q, keys, values, q_ends, k_ends, most_q, most_k, 0.0, causal, False
    )
    return found[0], found[1]


def _flash_is_near(heads: int, kv_heads: int, width: int, like: Any) -> bool:
    """Whether it gives what the plain way gives: for texts some of whose keys were there before, and for one without a
    token."""
    random = _random(like)
    sizes, known = (37, 5, 0, 1, 150), (0, 11, 8, 20, 0)
    q, keys, values = random(sum(sizes), heads, width), *random(2, sum(sizes + known), kv_heads, width)
    q_ends = torch.tensor(np.cumsum([0, *sizes]), dtype=torch.int32, device=like.device)
    k_ends = torch.tensor(np.cumsum([0, *np.add(sizes, known)]), dtype=torch.int32, device=like.device)
    return all(
        _near(_flash(*arguments), plain.attend(*arguments))
        for causal in (True, False)
        for arguments in [(q, keys, values, q_ends, k_ends, max(sizes), 150, causal)]
    )


def _ways(like: LlamaForCausalLM) -> ModuleType:
    """The kernels where they run and give what the plain way gives, or that."""
    try:
        from pricer.llama import kernels

        return kernels if kernels_are_near(kernels, like) else plain
    except Exception:  # no Triton, no compiler for it, or a card that it does not know
        log.info("Between its products the forward pass takes the plain way.", exc_info=True)
        return plain


def kernels_are_near(kernels: ModuleType, like: LlamaForCausalLM) -> bool:
    """Whether each kernel gives what its plain way gives, for numbers of this model's kind and heads."""
    random, config, n = _random(like), like.config, 37
    heads, kv_heads = config.num_attention_heads, config.num_key_value_heads
    width = like.model.layers[0].self_attn.head_dim

    def gives_the_same(way: str, *inputs: Any) -> bool:
        """The plain way in fp32, since in this kind of numbers it rounds more often."""
        exact = [x.clone().float() if x.is_floating_point() else x for x in inputs]
        mine, theirs = getattr(kernels, way)(*inputs), getattr(plain, way)(*exact)
        keys_too = [(inputs[i], exact[i]) for i in (5, 6)] if way == "turn" else []
        return all(_near(a, b) for a, b in [(mine, theirs), *keys_too])

    qkv = random(n, heads + 2 * kv_heads, width).split([heads, kv_heads, kv_heads], dim=1)
    cos, sin = random(2, n, width // 2)
    kept, place = random(2, n + 5, kv_heads, width), torch.randperm(n + 5, device=like.device)[:n]
    seen = torch.randint(-1, 50, (n, 3), device=like.device)
    found, q, sums = random(n, heads, width), random(n, heads, width), random(heads, n).float()
    return (
        gives_the_same("gated", *random(n, 2 * 1104).chunk(2, dim=1))
        and gives_the_same("turn", *qkv, cos, sin, *kept, place)
        and gives_the_same("join", found, sums, q, *random(2, 50, kv_heads, width), seen)
        and gives_the_same("log_sums", random(3, 5008) * 5)
    )


def _random(like: Any) -> Callable[..., torch.Tensor]:
    return lambda *shape: torch.randn(*shape, device=like.device).to(like.dtype)


def _near(mine: Any, theirs: Any) -> bool:
    if isinstance(mine, torch.Tensor):
        mine, theirs = (mine,), (theirs,)
    return all(
        a.shape == b.shape and bool(((a.float() - b.float()).abs() <= _NEAR * (1 + b.float().abs())).all())
        for a, b in zip(mine, theirs, strict=True)
    )
