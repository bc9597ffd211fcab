"""One lean forward pass of a Llama over prompts and their lattice nodes, on a CPU.

A pure function over a frozen structure of packed weights (`pricer.llama.packing`), rotary tables made once, the adapter added
inside its product. All tokens of all texts lie in one flat row of tokens,
so products know no padding. Attention runs text by text: prompts by torch's causal kernel, and nodes over their
prompt and, by a mask, their few ancestors. Gives what transformers gives, to rounding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn import functional as F

from pricer.llama.cores import cores
from pricer.llama.packing import Product, pack, product
from pricer.price.lattice import ROOT, PriceLattice

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM

POSITIONS = 8192  # that the rotary tables hold, at most
_ROPES = ("default", "linear", "llama3")  # whose tables do not hang on the text
Lora = tuple[torch.Tensor, torch.Tensor]  # down (rank, in) and up (out, rank), the latter times its scale
EVERY = 16  # how many tokens one of `Weights.some` stands for


@dataclass(frozen=True)
class Linear:
    """Linear layers that read the same, as one product, and what the adapter adds to each: first down (in, all ranks),
    for all of them at once, and then, of each that has one, from its ranks up (rank, its width) to its columns."""

    base: Product
    down: torch.Tensor | None
    ups: tuple[tuple[slice, slice, torch.Tensor], ...]

    @classmethod
    def of(cls, base: Product, widths: Sequence[int], loras: Sequence[Lora | None]) -> Linear:
        """widths: of the layers' outputs; loras: what the adapter adds to them."""
        column = rank = 0
        ups = []
        for width, lora in zip(widths, loras, strict=True):
            if lora:
                ranks = slice(rank, rank := rank + len(lora[0]))
                ups.append((ranks, slice(column, column + width), lora[1].t().contiguous()))
            column += width
        down = torch.cat([lora[0] for lora in loras if lora]).t().contiguous() if ups else None
        return cls(base, down, tuple(ups))

    def __call__(self, x: torch.Tensor, tuned: bool) -> torch.Tensor:
        out = self.base(x)
        if tuned and self.ups:
            low = torch.mm(x, self.down)
            for ranks, columns, up in self.ups:
                out[:, columns].addmm_(low[:, ranks], up)
        return out


@dataclass(frozen=True)
class Layer:
    before: torch.Tensor  # the norms' weights: before attention, and before the two big products
    qkv: Linear
    out: Linear
    between: torch.Tensor
    gate_up: Linear
    down: Linear


@dataclass(frozen=True)
class Frozen:
    """A Llama with its adapter, which a pass takes in or leaves out. heads, kv_heads: of one layer; width: of a head;
    cos, sin: (positions, ...), how its tokens are turned."""

    embedding: torch.Tensor
    layers: tuple[Any, ...]
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


@dataclass(frozen=True)
class Weights(Frozen):
    """The same for this pass: layers of `Layer`; cos, sin: (positions, width). tied: the embedding is the output layer too."""

    tied: bool

    @cached_property
    def some(self) -> Product:
        """The output layer for every sixteenth token, where `tied`."""
        return product(self.embedding[::EVERY].contiguous())


def why_not(llama: LlamaForCausalLM) -> str:
    """What this pass does not know of a model, or nothing where it knows all of it."""
    if llama.device.type != "cpu" or llama.dtype != torch.float32:
        return f"{llama.dtype} on {llama.device.type}"
    return unknown(llama)


def unknown(llama: LlamaForCausalLM) -> str:
    """What is more than a Llama with a plain adapter, or nothing."""
    from peft.tuners.lora import LoraLayer
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils.other import AuxiliaryTrainingWrapper
    from transformers import LlamaForCausalLM

    from pricer.llama.lean import is_plain

    config = llama.config
    if type(llama) is not LlamaForCausalLM:
        return f"a {type(llama).__name__}"
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


def freeze(llama: LlamaForCausalLM, precision: str = "fp32") -> Weights:
    """The weights of a model of which `why_not` knows all, packed, those of its layers in `precision`; the model itself
    computes with them from now on, so there is one copy. (A second one with the adapter merged into it would spare the tuned pass a tenth of its products.)"""
    config, inner = llama.config, llama.model
    positions = torch.arange(min(config.max_position_embeddings, POSITIONS))[None]
    cos, sin = inner.rotary_emb(inner.embed_tokens.weight, positions)
    layers = []
    for layer in inner.layers:
        attention, mlp = layer.self_attn, layer.mlp
        layers.append(
            Layer(
                before=layer.input_layernorm.weight,
                qkv=_linear(precision, attention.q_proj, attention.k_proj, attention.v_proj),
                out=_linear(precision, attention.o_proj),
                between=layer.post_attention_layernorm.weight,
                gate_up=_linear(precision, mlp.gate_proj, mlp.up_proj),
                down=_linear(precision, mlp.down_proj),
            )
        )
    tied = llama.lm_head.weight is inner.embed_tokens.weight
    pack(llama.lm_head, shared=tied)
    return Weights(
        embedding=inner.embed_tokens.weight,
        layers=tuple(layers),
        norm=inner.norm.weight,
        epsilon=config.rms_norm_eps,
        heads=config.num_attention_heads,
        kv_heads=config.num_key_value_heads,
        width=inner.layers[0].self_attn.head_dim,
        cos=cos[0],
        sin=sin[0],
        tied=tied,
    )


def _linear(precision: str, *modules: Any) -> Linear:
    """Of modules that read the same."""
    plain = [getattr(module, "base_layer", module) for module in modules]
    loras = []
    for module, own in zip(modules, plain, strict=True):
        if module is own:
            loras.append(None)
        else:
            (name,) = module.active_adapters
            loras.append((module.lora_A[name].weight, module.lora_B[name].weight * module.scaling[name]))
    widths = [own.out_features for own in plain]
    return Linear.of(pack(*plain, precision=precision), widths, loras)


@dataclass
class _Text:
    """What is kept of one text: the keys and values of its prompt and then of its nodes so far, by layer, each
    (tokens, kv_heads, width); and at which place of those each lattice node is (-1: none). The first `past` tokens of
    its prompt were computed with another text."""

    length: int
    past: int
    kept: list[tuple[torch.Tensor, torch.Tensor]]
    place: np.ndarray
    count: int

    @cached_property
    def sees(self) -> torch.Tensor:
        """Mask (length - past, length) of the prompt's tokens that are computed here: 0 for those before it and itself,
        minus infinity for those behind."""
        return torch.full((self.length - self.past, self.length), -torch.inf).triu_(self.past + 1)


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
        self.past = np.array(past or [0] * len(ids))
        self.begun = begun.texts[0].kept if begun else None
        self.texts = [
            _Text(len(own), known, [], np.full(len(lattice), -1), count=len(own))
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
            seen.append(self._nodes_see(text, mine))
            tokens.extend(self.lattice.token[mine].tolist())
            positions.extend((text.length - 1 + self.lattice.depth[mine]).tolist())
        at = torch.tensor(positions)
        cos, sin = w.cos[at][:, None], w.sin[at][:, None]
        x = F.embedding(torch.tensor(tokens), w.embedding)
        ends = np.cumsum(lengths)
        total = int(ends[-1])
        for number, layer in enumerate(w.layers):
            cores().share()
            is_last = number == len(w.layers) - 1
            q, k, v = self._rotated(layer.qkv(self._norm(x, layer.before), self.tuned), cos, sin)
            mixed = self._attend(number, q, k, v, lengths, counts, seen, is_last and with_prompts)
            if is_last and with_prompts:  # of the prompts, nothing but the ends is read
                kept = torch.from_numpy(np.concatenate([ends - 1, np.arange(total, len(x))]))
                x = x[kept]
            x = layer.out(mixed, self.tuned).add_(x)
            gate, up = layer.gate_up(self._norm(x, layer.between), self.tuned).chunk(2, dim=1)
            x = layer.down(F.silu(gate).mul_(up), self.tuned).add_(x)
        x = self._norm(x, w.norm)
        first = len(self.texts) if with_prompts else 0
        out = x.new_zeros(*nodes.shape, x.shape[-1])
        out[torch.from_numpy(real)] = x[first:]
        return torch.cat([x[:first, None], out], dim=1) if with_prompts else out

    def _nodes_see(self, text: _Text, nodes: np.ndarray) -> torch.Tensor:
        """Mask (m, tokens so far and these) of a text's further nodes: 0 for its prompt, a node itself and its ancestors,
        minus infinity for other nodes."""
        lattice = self.lattice
        text.place[nodes] = text.count + np.arange(len(nodes))
        text.count += len(nodes)
        mask = np.full((len(nodes), text.count), -np.inf, np.float32)
        mask[:, : text.length] = 0
        row, one = np.arange(len(nodes)), nodes
        while len(row):
            mask[row, text.place[one]] = 0
            one = lattice.parent[one]
            row, one = row[one > ROOT], one[one > ROOT]
        return torch.from_numpy(mask)

    def _norm(self, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        """`F.rms_norm`, which reads x more often."""
        size = torch.linalg.vector_norm(x, dim=-1, keepdim=True).square_().div_(x.shape[-1])
        return (x * size.add_(self.weights.epsilon).rsqrt_()).mul_(weight)

    def _rotated(self, qkv, cos, sin) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Queries, keys and values (n, heads, width) of (n, all heads' numbers), the first two turned by position."""
        w = self.weights
        turned, v = qkv.view(len(qkv), -1, w.width).split([w.heads + w.kv_heads, w.kv_heads], dim=1)
        half = w.width // 2
        out = turned * cos
        out[..., :half].addcmul_(turned[..., half:], sin[..., :half], value=-1)
        out[..., half:].addcmul_(turned[..., :half], sin[..., half:])
        return *out.split([w.heads, w.kv_heads], dim=1), v

    def _attend(self, number, q, k, v, lengths, counts, seen, ends_only) -> torch.Tensor:
        """What each token takes from those that it sees, (n, heads * width); with `ends_only` of the prompts' ends and
        of the nodes alone."""
        mixed, of_nodes, first, node = [], [], 0, sum(lengths)
        for text, length, count, sees in zip(self.texts, lengths, counts, seen, strict=True):
            if length:
                part = slice(first, first + length)
                own = k[part], v[part]
                if text.past:
                    known = (one[: text.past] for one in self.begun[number])
                    own = tuple(torch.cat(pair) for pair in zip(known, own, strict=True))
                text.kept.append(own)
                if ends_only:
                    mixed.append(self._mixed(q[first + length - 1 : first + length], own))
                elif text.past:
                    mixed.append(self._mixed(q[part], own, text.sees))
                else:
                    mixed.append(self._mixed(q[part], own, is_causal=True))
                first += length
            if count:
                part = slice(node, node + count)
                own = tuple(
                    torch.cat(pair) for pair in zip(text.kept[number], (k[part], v[part]), strict=True)
                )
                text.kept[number] = own
                of_nodes.append(self._mixed(q[part], own, sees))
                node += count
        return torch.cat(mixed + of_nodes)

    def _mixed(self, q, kept, mask=None, is_causal=False) -> torch.Tensor:
        """q (n, heads, width) of one text over its keys and values, (n, heads * width)."""
        q, k, v = (part.transpose(0, 1)[None] for part in (q, *kept))
        gqa = self.weights.heads != self.weights.kv_heads
        found = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=is_causal, enable_gqa=gqa)
        return found[0].transpose(0, 1).flatten(1)
