"""One lean forward pass of a Llama over prompts and their lattice nodes, on a CUDA card.

The same idea as `pricer.llama.forward` has for a CPU, in what a card does fast: all tokens of all texts lie in one row of
tokens, so nothing is computed for padding; residuals are added inside products; a prompt's keys are read without a mask,
and what a lattice node takes from them is joined with what it takes from itself and its ancestors by the logarithms of
their sums. The question, with which all prompts begin, is computed once. Gives what transformers gives, to rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional as F

from pricer.llama.card import CardWeights, Product
from pricer.price.lattice import ROOT, PriceLattice


class Rows:
    """A batch of prompts and their nodes in one pass, `tuned` or the base's. `send` brings an array to the card.

    ids: the prompts' tokens. `prompts` comes first, then `nodes` any number of times. Where `begun`, a batch of one
    whose prompt was computed, is given, the first `past[i]` tokens of prompt i are the same as its and taken from
    there; they are fewer than the prompt has.
    """

    def __init__(
        self,
        weights: CardWeights,
        tuned: bool,
        lattice: PriceLattice,
        ids: Sequence[Sequence[int]],
        send: Callable[[np.ndarray], torch.Tensor],
        begun: Rows | None = None,
        past: Sequence[int] = (),
    ):
        self.weights, self.tuned, self.lattice, self.ids, self.send = weights, tuned, lattice, ids, send
        self.begun, self.past = begun, np.array(past if len(past) else [0] * len(ids))
        self.lengths = np.array([len(own) for own in ids])
        self.kept: list[
            torch.Tensor
        ] = []  # by layer the prompts' keys and values, (2, tokens, kv_heads, width)
        self.of_nodes: list[torch.Tensor] = []  # and those of the nodes so far
        self.begins = np.cumsum([0, *self.lengths])  # of each prompt, in `kept`
        self.ends = send(self.begins.astype(np.int32))
        self.place = np.full((len(ids), len(lattice)), -1)  # of each lattice node, in `of_nodes`
        self.count = 0

    def prompts(self, nodes: np.ndarray) -> torch.Tensor:
        """Hidden states (batch, 1 + m, hidden) of the prompts' ends and of their first m nodes. nodes: (batch, m),
        -1 for padding."""
        own = self.lengths - self.past
        rows = [np.arange(known, length) for known, length in zip(self.past, self.lengths, strict=True)]
        tokens = [np.array(ids[known:]) for ids, known in zip(self.ids, self.past, strict=True)]
        begin = self.begins[:-1]
        ends = np.cumsum([0, *own])
        prompts = _Prompts(
            count=int(ends[-1]),
            most=int(own.max()),
            ends=self.send(ends.astype(np.int32)),
            each=self.send(np.arange(len(own) + 1, dtype=np.int32)),
            last=self.send(ends[1:] - 1),
            place=self.send(np.concatenate([first + row for first, row in zip(begin, rows, strict=True)])),
        )
        if self.begun:
            known = [np.arange(count) for count in self.past]
            prompts.known = self.send(np.concatenate(known))
            prompts.known_place = self.send(
                np.concatenate([first + row for first, row in zip(begin, known, strict=True)])
            )
        return self._forward(nodes, np.concatenate(tokens), np.concatenate(rows), prompts)

    def nodes(self, nodes: np.ndarray) -> torch.Tensor:
        """Hidden states (batch, m, hidden) of m further nodes."""
        return self._forward(nodes, np.empty(0, int), np.empty(0, int), None)

    def _forward(self, nodes, tokens, positions, prompts: _Prompts | None) -> torch.Tensor:
        w, lattice, (batch, m) = self.weights, self.lattice, nodes.shape
        text, slot = np.nonzero(nodes >= 0)
        node = nodes[text, slot]
        some = self._some_nodes(text, node) if len(node) else None
        tokens = np.concatenate([tokens, lattice.token[node]])
        positions = np.concatenate([positions, self.lengths[text] - 1 + lattice.depth[node]])
        at = self.send(positions)
        cos, sin = w.cos[at], w.sin[at]
        x = F.embedding(self.send(tokens), w.embedding)
        for number, layer in enumerate(w.layers):
            is_last = number == len(w.layers) - 1
            normed = F.rms_norm(x, layer.before.shape, layer.before, w.epsilon)
            mixed = self._attend(
                number, _parts(layer.qkv, normed, self.tuned), cos, sin, prompts, some, is_last
            )
            if is_last and prompts:  # of the prompts, nothing but the ends is read
                x = torch.cat([x[prompts.last], x[prompts.count :]])
            x = layer.out.onto(x, mixed, self.tuned)
            normed = F.rms_norm(x, layer.between.shape, layer.between, w.epsilon)
            gate, up = _parts(layer.gate_up, normed, self.tuned)
            x = layer.down.onto(x, w.ways.gated(gate, up), self.tuned)
        if some:
            self.count += len(node)
        x = F.rms_norm(x, w.norm.shape, w.norm, w.epsilon)
        wide = m + bool(prompts)
        to = text * wide + slot + bool(prompts)
        if prompts:
            to = np.concatenate([np.arange(batch) * wide, to])
        out = x.new_zeros(batch * wide, x.shape[-1])
        return out.index_copy_(0, self.send(to), x).view(batch, wide, -1)

    def _some_nodes(self, text: np.ndarray, node: np.ndarray) -> _Nodes:
        """Further nodes: of which text each is, sorted, and which of the lattice's."""
        lattice, own = self.lattice, self.count + np.arange(len(node))
        self.place[text, node] = own
        counts = np.bincount(text, minlength=len(self.ids))
        seen, ancestor = [own], node
        for _ in range(lattice.depth.max() - 1):
            ancestor = np.where(ancestor > ROOT, lattice.parent[ancestor], ROOT)
            seen.append(np.where(ancestor > ROOT, self.place[text, ancestor], -1))
        return _Nodes(
            count=len(node),
            most=int(counts.max()),
            ends=self.send(np.cumsum([0, *counts]).astype(np.int32)),
            place=self.send(own),
            seen=self.send(np.stack(seen, axis=1)),
        )

    def _attend(self, number, parts, cos, sin, prompts, some, ends_only) -> torch.Tensor:
        """What each token takes from those that it sees, (n, heads * width); with `ends_only` of the prompts' ends and of
        the nodes alone."""
        w, mixed, first = self.weights, [], 0
        q, k, v = (part.unflatten(1, (-1, w.width)) for part in parts)
        most = int(self.lengths.max())
        if prompts:
            first = prompts.count
            kept = q.new_empty(2, int(self.begins[-1]), w.kv_heads, w.width)
            if prompts.known is not None:
                kept[:, prompts.known_place] = self.begun.kept[number][:, prompts.known]
            own = w.ways.turn(q[:first], k[:first], v[:first], cos[:first], sin[:first], *kept, prompts.place)
            self.kept.append(kept)
            if ends_only:
                found, _ = w.attend(own[prompts.last], *kept, prompts.each, self.ends, 1, most, False)
            else:
                found, _ = w.attend(own, *kept, prompts.ends, self.ends, prompts.most, most, True)
            mixed.append(found)
        if some:
            grown = q.new_empty(2, self.count + some.count, w.kv_heads, w.width)
            if self.count:
                grown[:, : self.count] = self.of_nodes[number]
            own = w.ways.turn(q[first:], k[first:], v[first:], cos[first:], sin[first:], *grown, some.place)
            self.of_nodes[number : number + 1] = [grown]
            found, sums = w.attend(own, *self.kept[number], some.ends, self.ends, some.most, most, False)
            mixed.append(w.ways.join(found, sums, own, *grown, some.seen))
        return (torch.cat(mixed) if len(mixed) > 1 else mixed[0]).flatten(1)


@dataclass
class _Prompts:
    """Where a batch's prompts lie, on the card: how many tokens are computed, at most of one text, where each text's
    begin and the last one's end; as many ends as texts, one token each; each one's last token; their rows of what is kept.
    And of those that were computed before, which rows of that are whose."""

    count: int
    most: int
    ends: torch.Tensor
    each: torch.Tensor
    last: torch.Tensor
    place: torch.Tensor
    known: torch.Tensor | None = None
    known_place: torch.Tensor | None = None


@dataclass
class _Nodes:
    """The same of a round of nodes. seen: (count, lattice's depth), the rows of itself and its ancestors, -1 for none."""

    count: int
    most: int
    ends: torch.Tensor
    place: torch.Tensor
    seen: torch.Tensor


def _parts(products: Sequence[Product], x: torch.Tensor, tuned: bool) -> list[torch.Tensor]:
    return [part for product in products for part in product(x, tuned)]
