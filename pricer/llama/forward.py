"""One lean forward pass of a Llama over prompts and their lattice nodes, on a CPU.

A pure function over a frozen structure of weights: q, k and v in one product, gate and up in one, as the product reads
them best, rotary tables made once, LoRA added inside its product. All tokens of all texts lie in one flat row of tokens,
so products know no padding. Attention runs text by text: prompts by torch's causal kernel, and a node over its
prompt without any mask and over its few ancestors, in one softmax. Gives what transformers gives, to rounding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F
from transformers import LlamaForCausalLM

from pricer.price.lattice import ROOT, PriceLattice

_POSITIONS = 8192  # that the rotary tables hold, at most
_ROPES = ("default", "linear", "llama3")  # whose tables do not hang on the text


@dataclass(frozen=True)
class LowRank:
    """LoRA beside a fused product. down: (in, ranks of all parts); up: per part (first and last column of the output,
    first and last rank, matrix (rank, columns) times the adapter's scale)."""

    down: torch.Tensor
    up: tuple[tuple[int, int, int, int, torch.Tensor], ...]


@dataclass(frozen=True)
class Product:
    """x (n, in) -> x W + b (n, out). weight: (in, out)."""

    weight: torch.Tensor
    bias: torch.Tensor | None = None
    lora: LowRank | None = None

    def __call__(self, x: torch.Tensor, tuned: bool) -> torch.Tensor:
        product = torch.mm(x, self.weight)
        out = product if self.bias is None else product.add_(self.bias)
        if tuned and self.lora:
            low = torch.mm(x, self.lora.down)
            for start, stop, first, last, up in self.lora.up:
                out[:, start:stop].addmm_(low[:, first:last], up)
        return out


@dataclass(frozen=True)
class Layer:
    before: torch.Tensor  # the norms' weights: before attention, and before the two big products
    qkv: Product
    out: Product
    between: torch.Tensor
    gate_up: Product
    down: Product


@dataclass(frozen=True)
class Weights:
    """A Llama with its adapter, which a pass takes in or leaves out. heads, kv_heads: of one layer; width: of a head;
    cos, sin: (positions, width)."""

    embedding: torch.Tensor
    layers: tuple[Layer, ...]
    norm: torch.Tensor
    epsilon: float
    heads: int
    kv_heads: int
    width: int
    cos: torch.Tensor
    sin: torch.Tensor

    def reach(self, ids: Sequence[Sequence[int]], lattice: PriceLattice) -> bool:
        """Whether the tables know all positions of these prompts and their nodes."""
        return max(map(len, ids)) + int(lattice.depth.max()) <= len(self.cos)


def why_not(llama: LlamaForCausalLM) -> str:
    """What this pass does not know of a model, or nothing where it knows all of it."""
    from peft.tuners.lora import LoraLayer
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils.other import AuxiliaryTrainingWrapper

    from pricer.llama.lean import is_plain

    config = llama.config
    if type(llama) is not LlamaForCausalLM:
        return f"a {type(llama).__name__}"
    if llama.device.type != "cpu" or llama.dtype != torch.float32:
        return f"{llama.dtype} on {llama.device.type}"
    if config.hidden_act != "silu":
        return f"the activation {config.hidden_act}"
    if llama.model.rotary_emb.rope_type not in _ROPES:
        return f"the position scaling {llama.model.rotary_emb.rope_type}"
    for name, module in llama.named_modules():
        if isinstance(module, AuxiliaryTrainingWrapper):
            return f"a layer of the adapter's own ({name})"
        if isinstance(module, BaseTunerLayer):
            inside = name.startswith("model.layers.")
            if not (inside and isinstance(module, LoraLayer) and is_plain(module)):
                return f"an adapter of more than two matrices ({name})"
    return ""


def freeze(llama: LlamaForCausalLM) -> Weights:
    """The weights of a model of which `why_not` knows all. They stay the model's own as well: there is one copy."""
    config, inner = llama.config, llama.model
    positions = torch.arange(min(config.max_position_embeddings, _POSITIONS))[None]
    cos, sin = inner.rotary_emb(inner.embed_tokens.weight, positions)
    return Weights(
        embedding=inner.embed_tokens.weight,
        layers=tuple(
            Layer(
                before=layer.input_layernorm.weight,
                qkv=_product(layer.self_attn.q_proj, layer.self_attn.k_proj, layer.self_attn.v_proj),
                out=_product(layer.self_attn.o_proj),
                between=layer.post_attention_layernorm.weight,
                gate_up=_product(layer.mlp.gate_proj, layer.mlp.up_proj),
                down=_product(layer.mlp.down_proj),
            )
            for layer in inner.layers
        ),
        norm=inner.norm.weight,
        epsilon=config.rms_norm_eps,
        heads=config.num_attention_heads,
        kv_heads=config.num_key_value_heads,
        width=inner.layers[0].self_attn.head_dim,
        cos=cos[0],
        sin=sin[0],
    )


def _product(*modules: Any) -> Product:
    """Linear layers that read the same input, as one. Their own weights become views of it: there is one copy."""
    plain = [getattr(module, "base_layer", module) for module in modules]
    weight = torch.cat([module.weight.detach().t() for module in plain], dim=1)
    columns = weight.split([module.out_features for module in plain], dim=1)
    for module, own in zip(plain, columns, strict=True):
        module.weight.data = own.t()
    bias = None
    if any(module.bias is not None for module in plain):
        parts = [torch.zeros(m.out_features) if m.bias is None else m.bias.detach() for m in plain]
        bias = torch.cat(parts)
    return Product(weight, bias, _low_rank(modules))


def _low_rank(modules: Sequence[Any]) -> LowRank | None:
    downs, ups, column, rank = [], [], 0, 0
    for module in modules:
        columns = module.weight.shape[0]
        for name in getattr(module, "active_adapters", ()):
            down, up = module.lora_A[name].weight.detach(), module.lora_B[name].weight.detach()
            downs.append(down)
            scaled = (up * module.scaling[name]).t().contiguous()
            ups.append((column, column + columns, rank, rank + len(down), scaled))
            rank += len(down)
        column += columns
    return LowRank(torch.cat(downs).t().contiguous(), tuple(ups)) if downs else None


@dataclass
class _Text:
    """What is kept of one text: the keys and values of its prompt and of its nodes so far, by layer, each
    (kv_heads, tokens, width); and at which place of those each lattice node is (-1: none). The first `past` tokens of
    its prompt were computed with another text."""

    length: int
    past: int
    prompt: list[tuple[torch.Tensor, torch.Tensor]]
    nodes: list[tuple[torch.Tensor, torch.Tensor] | None]
    place: np.ndarray
    count: int = 0

    @cached_property
    def sees(self) -> torch.Tensor:
        """(length - past, length): which of its prompt's tokens each one that is computed here sees."""
        return torch.ones(self.length - self.past, self.length, dtype=torch.bool).tril(self.past)


class Texts:
    """A batch of prompts and their nodes in one pass, `tuned` or the base's.

    ids: the prompts' tokens. `prompts` comes first, then `nodes` any number of times. Where `begun`, a batch of one
    whose prompt was computed, is given, the first `past[i]` tokens of prompt i are the same as its and taken from
    there; they are fewer than the prompt has.
    """

    def __init__(
        self,
        weights: Weights,
        tuned: bool,
        lattice: PriceLattice,
        ids: Sequence[Sequence[int]],
        begun: Texts | None = None,
        past: Sequence[int] = (),
    ):
        self.weights, self.tuned, self.lattice, self.ids = weights, tuned, lattice, ids
        self.begun = begun.texts[0].prompt if begun else None
        layers = len(weights.layers)
        self.texts = [
            _Text(len(own), known, [], [None] * layers, np.full(len(lattice), -1))
            for own, known in zip(ids, past or [0] * len(ids), strict=True)
        ]

    def prompts(self, nodes: np.ndarray) -> torch.Tensor:
        """Hidden states (batch, 1 + m, hidden) of the prompts' ends and of their first m nodes. nodes: (batch, m),
        -1 for padding."""
        return self._forward(nodes, with_prompts=True)

    def nodes(self, nodes: np.ndarray) -> torch.Tensor:
        """Hidden states (batch, m, hidden) of m further nodes."""
        return self._forward(nodes, with_prompts=False)

    def _forward(self, nodes: np.ndarray, with_prompts: bool) -> torch.Tensor:
        w, real = self.weights, nodes >= 0
        lengths = [text.length - text.past if with_prompts else 0 for text in self.texts]
        counts = real.sum(axis=1).tolist()
        tokens, positions = [], []
        if with_prompts:
            for text, own in zip(self.texts, self.ids, strict=True):
                tokens.extend(own[text.past :])
                positions.extend(range(text.past, text.length))
        own_nodes = [row[fits] for row, fits in zip(nodes, real, strict=True)]
        seen = []
        for text, mine in zip(self.texts, own_nodes, strict=True):
            seen.append(self._ancestors(text, mine))
            tokens.extend(self.lattice.token[mine].tolist())
            positions.extend((text.length - 1 + self.lattice.depth[mine]).tolist())
        at = torch.tensor(positions)
        cos, sin = w.cos[at][:, None], w.sin[at][:, None]
        x = F.embedding(torch.tensor(tokens), w.embedding)
        ends = np.cumsum(lengths)
        total = int(ends[-1])
        for number, layer in enumerate(w.layers):
            is_last = number == len(w.layers) - 1
            qkv = layer.qkv(F.rms_norm(x, layer.before.shape, layer.before, w.epsilon), self.tuned)
            q, k, v = self._rotated(qkv, cos, sin)
            mixed = self._attend(number, q, k, v, lengths, counts, seen, is_last and with_prompts)
            if is_last and with_prompts:  # of the prompts, nothing but the ends is read
                kept = torch.from_numpy(np.concatenate([ends - 1, np.arange(total, len(x))]))
                x = x[kept]
            x = x + layer.out(mixed, self.tuned)
            gate_up = layer.gate_up(F.rms_norm(x, layer.between.shape, layer.between, w.epsilon), self.tuned)
            gate, up = gate_up.chunk(2, dim=-1)
            x = x + layer.down(F.silu(gate) * up, self.tuned)
        x = F.rms_norm(x, w.norm.shape, w.norm, w.epsilon)
        first = len(self.texts) if with_prompts else 0
        out = x.new_zeros(*nodes.shape, x.shape[-1])
        out[torch.from_numpy(real)] = x[first:]
        return torch.cat([x[:first, None], out], dim=1) if with_prompts else out

    def _ancestors(self, text: _Text, nodes: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        """Places (m, depth) of what each of a text's further nodes sees of the nodes, itself first, and which of them
        are none."""
        lattice = self.lattice
        text.place[nodes] = text.count + np.arange(len(nodes))
        text.count += len(nodes)
        places, one = [], nodes
        for _ in range(int(lattice.depth.max())):
            places.append(np.where(one > ROOT, text.place[one], -1))
            one = np.where(one > ROOT, lattice.parent[one], ROOT)
        place = torch.from_numpy(np.stack(places, axis=1))
        return place.clamp(min=0), place < 0

    def _rotated(self, qkv, cos, sin) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """(n, all heads' numbers) -> q (n, heads, width), k and v (n, kv_heads, width), q and k turned by position."""
        w = self.weights
        heads = qkv.view(len(qkv), w.heads + 2 * w.kv_heads, w.width)
        turned, v = heads.split([w.heads + w.kv_heads, w.kv_heads], dim=1)
        half = w.width // 2
        across = torch.cat([-turned[..., half:], turned[..., :half]], dim=-1)
        turned = turned * cos + across * sin
        return *turned.split([w.heads, w.kv_heads], dim=1), v

    def _attend(self, number, q, k, v, lengths, counts, seen, ends_only) -> torch.Tensor:
        """What each token takes from those that it sees, (n, heads * width); with `ends_only` of the prompts' ends and
        of the nodes alone."""
        w = self.weights
        mixed, first, node = [], 0, sum(lengths)
        of_nodes = []
        for text, length, count, (places, none) in zip(self.texts, lengths, counts, seen, strict=True):
            if length:
                part = slice(first, first + length)
                own = (k[part].transpose(0, 1), v[part].transpose(0, 1))
                if text.past:
                    known = (one[:, : text.past] for one in self.begun[number])
                    own = tuple(torch.cat(pair, dim=1) for pair in zip(known, own, strict=True))
                text.prompt.append(own)
                asking = q[first + length - 1 : first + length] if ends_only else q[part]
                keys, values = own
                found = F.scaled_dot_product_attention(
                    asking.transpose(0, 1)[None],
                    keys[None],
                    values[None],
                    attn_mask=text.sees if text.past and not ends_only else None,
                    is_causal=not (text.past or ends_only),
                    enable_gqa=w.heads != w.kv_heads,
                )
                mixed.append(found[0].transpose(0, 1).flatten(1))
                first += length
            if count:
                part = slice(node, node + count)
                own = (k[part].transpose(0, 1), v[part].transpose(0, 1))
                if before := text.nodes[number]:
                    own = tuple(torch.cat(pair, dim=1) for pair in zip(before, own, strict=True))
                text.nodes[number] = own
                of_nodes.append(self._nodes_attend(q[part], text.prompt[number], own, places, none))
                node += count
        return torch.cat(mixed + of_nodes)

    def _nodes_attend(self, q, prompt, own, places, none) -> torch.Tensor:
        """q (m, heads, width) of one text's nodes, over its whole prompt and over their ancestors."""
        w, m = self.weights, len(q)
        groups = w.heads // w.kv_heads
        q = (q * w.width**-0.5).view(m, w.kv_heads, groups, w.width).permute(1, 2, 0, 3)
        (keys, values), (near_keys, near_values) = prompt, (part[:, places] for part in own)
        far = torch.matmul(q.flatten(1, 2), keys.transpose(1, 2)).view(w.kv_heads, groups, m, -1)
        near = (q[..., None, :] * near_keys[:, None]).sum(-1).masked_fill_(none, -torch.inf)
        share = torch.cat([far, near], dim=-1).softmax(-1)
        length = far.shape[-1]
        found = torch.matmul(share[..., :length].flatten(1, 2), values).view(w.kv_heads, groups, m, w.width)
        found = found + (share[..., length:, None] * near_values[:, None]).sum(-2)
        return found.permute(2, 0, 1, 3).reshape(m, w.heads * w.width)
