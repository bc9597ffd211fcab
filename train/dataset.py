"""Rows to training batches: framed prompts, row weights, and what to predict at each price token.

With `soft-labels` a row teaches not one price but a bell around it in log price. For each batch one
price is drawn from the bell and spelled out; at each of its nodes the target is the bell's share
of every next token (other digits, or the end of the number). In expectation that is exactly the
cross-entropy to the bell over all 999 prices, at the cost of a plain row.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from datasets import Dataset

from pricer.lattice import PRICES, PriceLattice
from pricer.prompt import TAIL, build_prompt
from train.recipe import Recipe


def price_bins(prices_usd: np.ndarray) -> np.ndarray:
    """Bin numbers on a log scale, eight to a factor of e."""
    return np.floor(8 * np.log(np.clip(prices_usd, 1, 999))).astype(int)


def row_weights(rows: pd.DataFrame, target_prices_usd: np.ndarray | None, recipe: Recipe) -> np.ndarray:
    """(rows,) weights with mean 1: prices spread as the target's are, more for target-like rows.

    A bin's weight is capped at five times the average so that no handful of rows rules the run."""
    weight = rows["weight"].to_numpy(float) if "weight" in rows else np.ones(len(rows))
    if recipe.match_prices and target_prices_usd is not None:
        bins, target = price_bins(rows["price"].to_numpy()), price_bins(target_prices_usd)
        size = max(bins.max(), target.max()) + 1
        have, want = (np.bincount(b, minlength=size) / len(b) for b in (bins, target))
        smooth = np.convolve(want, [0.25, 0.5, 0.25], mode="same")
        weight = weight * np.minimum(smooth[bins] / have[bins], 5.0)
    if "target_like" in rows:
        weight = np.where(rows["target_like"], weight * recipe.target_like_weight, weight)
    return weight / weight.mean()


def build_dataset(rows: pd.DataFrame, weight: np.ndarray, tokenizer: Any, recipe: Recipe) -> Dataset:
    """One record per row, none dropped: `input_ids` (the prompt's), `price` (USD), `weight`."""
    prompts = [
        build_prompt(text, tokenizer, question=recipe.question, max_text_tokens=recipe.max_text_tokens).text
        for text in rows["text"]
    ]
    return Dataset.from_dict(
        {
            "input_ids": tokenizer(prompts)["input_ids"],
            "price": rows["price"].astype(float).tolist(),
            "weight": weight.tolist(),
        }
    )


class PriceCollator:
    """Batches of prompt + price + `.00` + end token, aligned at the right so that the last
    `positions` places of every row hold its price.

    Gives input_ids, attention_mask (batch, length); labels (batch, positions), -100 where nothing is
    predicted; label_weight (batch, positions); soft (batch, positions, columns) for soft labels: the
    target over the tokens in `columns` at the digits' places.
    """

    def __init__(self, tokenizer: Any, recipe: Recipe):
        self.lattice = PriceLattice(tokenizer)
        self.width = recipe.soft_label_width if recipe.loss == "soft-labels" else 0.0
        self.tail_weight = recipe.tail_weight
        self.pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
        whole = tokenizer(f"{TAIL}1.00", add_special_tokens=False)["input_ids"]
        before = tokenizer(f"{TAIL}1", add_special_tokens=False)["input_ids"]
        self.tail = whole[len(before) :] + [tokenizer.eos_token_id]
        # (999, depth + 1): each price's tokens, then the one that ends it; columns number the distinct tokens.
        depth = max(len(path) for path in self.lattice.paths)
        table = np.full((len(PRICES), depth + 1), -1)
        for i, path in enumerate(self.lattice.paths):
            table[i, : len(path) + 1] = [*path, self.tail[0]]
        self.columns = np.unique(table[table >= 0])
        self.table = np.searchsorted(self.columns, table)  # padding becomes 0, and is never read
        self.lengths = np.array([len(path) for path in self.lattice.paths])
        self.positions = depth + len(self.tail)

    def __call__(self, rows: Sequence[dict]) -> dict[str, torch.Tensor]:
        sequences, labels = [], []
        label_weight = torch.zeros(len(rows), self.positions)
        soft = torch.zeros(len(rows), self.positions, len(self.columns)) if self.width else None
        for r, row in enumerate(rows):
            bell = self._bell(row["price"])
            taught = int(torch.multinomial(torch.from_numpy(bell), 1)) if self.width else int(bell.argmax())
            path = self.lattice.paths[taught]
            written = [*path, *self.tail]
            sequences.append([*row["input_ids"], *written])
            labels.append([-100] * (self.positions - len(written)) + written)
            first = self.positions - len(written)
            label_weight[r, first:] = self.tail_weight
            label_weight[r, first : first + len(path) + 1] = 1.0  # the digits and the token that ends them
            if soft is not None:
                for d in range(len(path) + 1):
                    soft[r, first + d] = torch.from_numpy(self._node_target(taught, d, bell))
            label_weight[r] *= row["weight"]
        length = max(map(len, sequences))
        batch = {
            "input_ids": torch.tensor([[self.pad] * (length - len(s)) + s for s in sequences]),
            "attention_mask": torch.tensor([[0] * (length - len(s)) + [1] * len(s) for s in sequences]),
            "labels": torch.tensor(labels),
            "label_weight": label_weight,
        }
        return batch if soft is None else batch | {"soft": soft}

    def _bell(self, price_usd: float) -> np.ndarray:
        """(999,) what the row teaches: a bell in log price, or all on the nearest dollar."""
        price = min(max(price_usd, PRICES[0]), PRICES[-1])
        if not self.width:
            return (PRICES == round(price)).astype(float)
        bell = np.exp(-0.5 * ((np.log(PRICES) - np.log(price)) / self.width) ** 2) / PRICES
        return bell / bell.sum()

    def _node_target(self, taught: int, depth: int, bell: np.ndarray) -> np.ndarray:
        """(columns,) the bell's share of each next token behind the first `depth` tokens of a price."""
        below = (self.table[:, :depth] == self.table[taught, :depth]).all(axis=1)
        below &= self.lengths >= depth
        share = np.bincount(self.table[below, depth], weights=bell[below], minlength=len(self.columns))
        return share / share.sum()


def price_loss(logits: torch.Tensor, batch: dict[str, torch.Tensor], columns: torch.Tensor) -> torch.Tensor:
    """Mean over rows of the weighted cross-entropy summed over the price's tokens, in nats.

    logits: (batch, positions, vocab), already shifted so that place k predicts label k.
    """
    logp = torch.log_softmax(logits.float(), dim=-1)
    labels, weight = batch["labels"], batch["label_weight"]
    hard = -logp.gather(-1, labels.clamp(min=0)[..., None])[..., 0]
    if "soft" in batch:
        soft = -(batch["soft"] * logp[..., columns]).sum(-1)
        hard = torch.where(batch["soft"].sum(-1) > 0, soft, hard)
    return (hard * weight * (labels != -100)).sum() / len(labels)
