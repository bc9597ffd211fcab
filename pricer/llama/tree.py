"""Prompts and their lattice nodes as one attention tree, over one key-value cache."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from pricer.price.lattice import ROOT, PriceLattice

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM


class Tree:
    """Where each text's lattice nodes lie in the key-value cache, and so what a further node may see."""

    def __init__(self, lattice: PriceLattice, lengths: np.ndarray):
        self.lattice, self.lengths = lattice, lengths
        self.columns = int(lengths.max())
        self.column = np.full((len(lengths), len(lattice)), -1)

    def append(self, nodes: np.ndarray) -> np.ndarray:
        """nodes: (batch, m), -1 for padding. For each its token, its position, and the columns that it sees beside
        its prompt: its own, and its ancestors' or again its own. (batch, m, 2 + lattice's depth)"""
        lattice, (batch, m), before = self.lattice, nodes.shape, self.columns
        self.columns += m
        real = nodes >= 0
        own = np.broadcast_to(before + np.arange(m), (batch, m))
        row, slot = np.nonzero(real)
        self.column[row, nodes[row, slot]] = own[row, slot]
        seen = [np.where(real, lattice.token[nodes], 0)]
        seen.append(self.lengths[:, None] - 1 + np.where(real, lattice.depth[nodes], 1))
        seen.append(own)
        ancestor = np.where(real, lattice.parent[nodes], ROOT)
        for _ in range(lattice.depth.max() - 1):
            inside = ancestor > ROOT
            column = np.take_along_axis(self.column, np.maximum(ancestor, 0), axis=1)
            seen.append(np.where(inside, column, own))
            ancestor = np.where(inside, lattice.parent[ancestor], ROOT)
        return np.stack(seen, axis=-1)


class Batch:
    """A batch of prompts and their nodes in transformers' own pass, with whatever adapter is on: padded on the right,
    over one key-value cache. `send` brings an array to the model's device.

    ids: the prompts' tokens. `prompts` comes first, then `nodes` any number of times. Where `begun`, a batch of one
    whose prompt was computed, is given, the first `past` tokens of all prompts are the same as its and taken from
    there; they are fewer than any has.
    """

    def __init__(
        self,
        llama: LlamaForCausalLM,
        lattice: PriceLattice,
        ids: Sequence[Sequence[int]],
        send: Callable[[np.ndarray], torch.Tensor],
        begun: Batch | None = None,
        past: int = 0,
    ):
        from transformers import DynamicCache

        lengths = np.array([len(own) for own in ids])
        padded = np.zeros((len(ids), int(lengths.max())), int)
        for row, own in enumerate(ids):
            padded[row, : len(own)] = own
        self.llama, self.send, self.tree = llama, send, Tree(lattice, lengths)
        self.ids, self.lengths = send(padded), send(lengths)
        self.cache, self.past = DynamicCache(config=llama.config), past
        for i, layer in enumerate(begun.cache.layers if past else ()):
            known = (part[:, :, :past].expand(len(ids), -1, -1, -1) for part in (layer.keys, layer.values))
            self.cache.update(*known, i)
        self.columns = padded.shape[1]

    def prompts(self, nodes: np.ndarray) -> torch.Tensor:
        """Hidden states (batch, 1 + m, hidden) of the prompts' ends, and of their first m nodes in the same forward
        pass. nodes: (batch, m), -1 for padding. Without nodes there is no mask, so attention takes its fast causal
        kernel: a prompt's own tokens never see the padding behind them."""
        nodes = self.send(self.tree.append(nodes))
        (batch, width), m, past = self.ids.shape, nodes.shape[1], self.past
        positions = torch.arange(past, width, device=self.ids.device).expand(batch, -1)
        if m:
            sees = self._sees(nodes)
            before = torch.ones(width, width + m, dtype=torch.bool, device=sees.device).tril()[past:]
            hidden = self._forward(
                torch.cat([self.ids[:, past:], nodes[..., 0]], dim=1),
                torch.cat([positions, nodes[..., 1]], dim=1),
                torch.cat([before.expand(batch, -1, -1), sees], dim=1),
            )
        else:
            hidden = self._forward(self.ids[:, past:], positions if past else None)
        at = (self.lengths - 1 - past)[:, None, None].expand(-1, 1, hidden.shape[-1])
        return torch.cat([hidden.gather(1, at), hidden[:, width - past :]], dim=1)

    def nodes(self, nodes: np.ndarray) -> torch.Tensor:
        """Hidden states (batch, m, hidden) of m further nodes."""
        nodes = self.send(self.tree.append(nodes))
        return self._forward(nodes[..., 0], nodes[..., 1], self._sees(nodes))

    def _sees(self, nodes: torch.Tensor) -> torch.Tensor:
        """(batch, m, columns): which columns up to and with its own each node may attend to."""
        (batch, width), m = self.ids.shape, nodes.shape[1]
        self.columns += m
        sees = torch.zeros(batch, m, self.columns, dtype=torch.bool, device=nodes.device)
        real = torch.arange(width, device=nodes.device) < self.lengths[:, None]
        sees[:, :, :width] = real[:, None]
        return sees.scatter_(2, nodes[..., 2:], True)

    def _forward(self, tokens, positions=None, sees=None) -> torch.Tensor:
        """Hidden states of n more tokens behind the cache, (batch, n, hidden)."""
        return self.llama.model(
            input_ids=tokens,
            position_ids=positions,
            attention_mask=None if sees is None else sees[:, None],
            past_key_values=self.cache,
            use_cache=True,
        ).last_hidden_state
