"""Which prompts go through the model together, and how much of that work is padding."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

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
