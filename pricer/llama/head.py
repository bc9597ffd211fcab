"""What may follow each node: next-token probabilities of the tokens that the lattice watches.

They are divided by a sum over the whole vocabulary, which behind every node would take an eighth of a pass on a CPU. Behind a
text's numbers it is nearly the same tokens that are likely. So there the whole vocabulary is asked behind the prompt, the digits
and the lattice's samples alone; behind the other nodes those tokens that were likeliest so far, and every sixteenth of the
others, which stands for sixteen. Prices come out the same to some 1e-5.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn import functional as F

from pricer.llama.forward import EVERY, Weights
from pricer.price.lattice import ROOT, PriceLattice

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM

LIKELIEST = 2048  # tokens that are asked one by one
_LOGITS = 2**24  # vocabulary-wide numbers in memory at once: 64 MiB in fp32
_ON_CARD = 4  # times as many, or a card reads the head's matrix for too few


class Head:
    """The output layer behind one batch's nodes, round by round; the first round's are the same for all texts.

    llama: its head and the size of its vocabulary are asked. log_sums: as `pricer.llama.plain.log_sums`. watched: the
    lattice's, on the model's device. weights: those whose vocabulary may be asked in parts; without, it is always the whole.
    """

    def __init__(
        self,
        llama: LlamaForCausalLM,
        log_sums: Callable[[torch.Tensor], torch.Tensor],
        lattice: PriceLattice,
        watched: torch.Tensor,
        weights: Weights | None = None,
    ):
        self.lm_head, self.vocabulary, self.log_sums = llama.lm_head, llama.config.vocab_size, log_sums
        self.lattice, self.watched = lattice, watched
        in_parts = weights and weights.tied and len(lattice.samples) and self.vocabulary > 4 * LIKELIEST
        self.weights = weights if in_parts else None
        # Of each text: the tokens that are asked one by one, the watched ones first, and which of those that stand for
        # others are among them.
        self._likely: list[tuple[torch.Tensor, torch.Tensor]] = []

    def __call__(self, hidden: torch.Tensor, nodes: np.ndarray) -> torch.Tensor:
        """hidden: (batch, n, hidden), of nodes (batch, n), -1 for padding. (batch, n, watched) probabilities; where all
        nodes are stops (batch, n, 2): of a digit, all together, and of the comma."""
        lattice = self.lattice
        together = bool(lattice.is_stop[nodes[nodes >= 0]].all())
        out = torch.zeros(*nodes.shape, 2 if together else len(self.watched), device=hidden.device)

        def put(place: torch.Tensor, logits: torch.Tensor, sums: torch.Tensor) -> None:
            found = (logits - sums).exp_()
            if not together:
                place.copy_(found)
                return
            place[..., 0] = found[..., lattice.digits].sum(-1)
            if lattice.comma is not None:
                place[..., 1] = found[..., lattice.comma]

        if self.weights is None:
            rows, places = hidden.flatten(0, 1), out.flatten(0, 1)
            step = max(1, _LOGITS * (_ON_CARD if rows.is_cuda else 1) // self.vocabulary)
            for part, place in zip(rows.split(step), places.split(step), strict=True):
                logits = self.lm_head(part)
                put(place, logits[:, self.watched].float(), self.log_sums(logits))
            return out
        if not self._likely:
            whole = np.isin(nodes[0], [ROOT, *lattice.samples]) | lattice.is_digit[nodes[0]]
            at, step = np.flatnonzero(whole), max(1, _LOGITS // (self.vocabulary * int(whole.sum())))
            for first in range(0, len(nodes), step):
                texts = slice(first, first + step)
                logits = self.lm_head(hidden[texts, at])
                sums = logits.logsumexp(-1, keepdim=True)
                found = torch.empty(*sums.shape[:2], out.shape[-1])
                put(found, logits[..., self.watched], sums)
                out[texts, at] = found
                self._likely += [self._likeliest(of_text) for of_text in logits.sub_(sums).amax(1)]
            nodes = np.where(whole, -1, nodes)
        for text, own in enumerate(nodes):
            at = np.flatnonzero(own >= 0)
            found = torch.empty(len(at), out.shape[-1])
            put(found, *self._of_parts(hidden[text, at], *self._likely[text]))
            out[text, at] = found
        return out

    def _likeliest(self, most: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """One text's entry of `_likely`. most: (vocabulary,), as likely as each token was anywhere."""
        most[self.watched] = -torch.inf
        others = most.topk(LIKELIEST, sorted=False).indices
        asked = torch.cat([self.watched, others])
        return asked, asked[asked % EVERY == 0] // EVERY

    def _of_parts(
        self, hidden: torch.Tensor, asked: torch.Tensor, are_asked: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits of the watched tokens (n, watched), and (n, 1) the logarithm of the sum over the vocabulary, about."""
        logits = F.linear(hidden, F.embedding(asked, self.weights.embedding))
        others = self.weights.some(hidden)
        others[:, are_asked] = -torch.inf
        stand_for = (self.vocabulary - len(asked)) / (others.shape[1] - len(are_asked))
        parts = logits.logsumexp(-1), others.logsumexp(-1) + math.log(stand_for)
        return logits[:, : len(self.watched)], torch.logaddexp(*parts)[:, None]
