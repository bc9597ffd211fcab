"""Which prompts go through the model together, what they begin with, and how much of that work is padding."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

# Of a batch's tokens, at most. Smaller batches of short prompts exceed it, and over a file 5 % are kept.
PADDING = 0.04


def full_enough(budget: int) -> float:
    """Tokens under which a batch is not closed for its padding: another forward pass would cost more."""
    return min(budget / 4, 4096)


def token_batches(lengths: Sequence[int], budget: int) -> Iterator[list[int]]:
    """Indices in batches of like length, longest first, each at most `budget` tokens with its padding
    (a single longer prompt makes a batch of its own).

    A batch that is full enough ends where one prompt more would make over 4 % of it padding.
    """
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    batch: list[int] = []
    tokens = 0  # of the batch, without padding
    for i in order:
        if batch:
            width = lengths[batch[0]]
            padded = (len(batch) + 1) * width
            wasteful = padded - tokens - lengths[i] > PADDING * padded
            if padded > budget or (wasteful and len(batch) * width >= full_enough(budget)):
                yield batch
                batch, tokens = [], 0
        batch.append(i)
        tokens += lengths[i]
    if batch:
        yield batch


class Question:
    """Begins batches behind the tokens with which every prompt begins, `ids`, each pass over which is computed once.

    lean: of a pass and prompts, and where they are given of a batch of one that has been computed and how many of its
    tokens each prompt begins with, to a batch."""

    def __init__(self, lean: Callable[..., Any], ids: Sequence[int]):
        self.lean, self.ids = lean, list(ids)
        self._computed: dict[bool, Any] = {}

    def start(
        self, tuned: bool, ids: Sequence[Sequence[int]], begun: Any = None, past: Sequence[int] = ()
    ) -> Any:
        """A batch of these prompts. begun, past: what else they have in common. One that begins otherwise is computed from
        its first token on, and those with it."""
        count = len(self.ids)
        if begun:
            return self.lean(tuned, ids, begun, past)
        if not count or any(len(own) <= count or list(own[:count]) != self.ids for own in ids):
            return self.lean(tuned, ids)
        if tuned not in self._computed:
            begun = self.lean(tuned, [self.ids])
            begun.prompts(np.empty((1, 0), int))
            self._computed[tuned] = begun
        return self.lean(tuned, ids, self._computed[tuned], [count] * len(ids))


@dataclass
class Work:
    """What a predictor had the model compute, in tokens: of prompts, of which `known` were taken from another batch, and of
    lattice nodes, each with the padding beside them that made the batches' rows equally long."""

    items: int = 0
    forward_passes: int = 0
    prompt_tokens: int = 0
    known: int = 0
    prompt_padding: int = 0
    nodes: int = 0
    node_padding: int = 0

    @property
    def padding_share(self) -> float:
        """Of all tokens of the prompts' passes."""
        return self.prompt_padding / max(1, self.prompt_tokens + self.prompt_padding)

    @property
    def node_padding_share(self) -> float:
        """Of all places for nodes."""
        return self.node_padding / max(1, self.nodes + self.node_padding)
