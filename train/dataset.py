"""Rows to training batches: framed prompts, row weights, and what to predict at each price token.

With `soft-labels` a row teaches not one price but a bell around it in log price. For each batch one
price is drawn from the bell and spelled out; at each of its nodes the target is the bell's share
of every next token (other digits, or the end of the number). In expectation that is exactly the
cross-entropy to the bell over all 999 prices, at the cost of a plain row. What is drawn depends on
seed, epoch and row alone, so that a run that was killed teaches the same prices when it goes on. Where
there are teachers, the bell is mixed with what they say of the row's text.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from datasets import Dataset

from pricer.price.lattice import PRICES, PriceLattice
from pricer.price.prior import price_bins
from pricer.prompt import TAIL
from train.prompts import prompt_ids
from train.recipe import Recipe


def row_weights(rows: pd.DataFrame, target_prices_usd: np.ndarray | None, recipe: Recipe) -> np.ndarray:
    """(rows,) weights with mean 1: prices spread as the target's are, more for target-like rows.

    A bin's weight is capped at five times the average so that no handful of rows rules the run."""
    weight = rows["weight"].fillna(1.0).to_numpy(float) if "weight" in rows else np.ones(len(rows))
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
    """One record per row, none dropped: `row` (its number), `input_ids` and `length` (the prompt's), `price` (USD),
    `weight`, and `teacher_share` and `taught_by` (the row of the teachers' table) where the rows have them."""
    budget = {"question": recipe.question, "max_text_tokens": recipe.max_text_tokens}
    ids = prompt_ids(rows["text"].tolist(), tokenizer, **budget, kept=recipe.tokens)
    columns = {
        "row": range(len(rows)),
        "input_ids": ids,
        "length": list(map(len, ids)),
        "price": rows["price"].astype(float).tolist(),
        "weight": weight.tolist(),
    }
    for name in ("teacher_share", "taught_by"):
        if name in rows:
            columns[name] = rows[name].tolist()
    return Dataset.from_dict(columns)


class PriceCollator:
    """Batches of prompt + price + `.00` + end token, padded on the right. With the loss `completion` there is no
    end token, and a row's loss is the mean, not the sum, over its tokens.

    `epoch` is for the trainer to set: each epoch draws other prices for soft labels. teacher: (texts, 999), for soft
    labels: what the teachers say of the text that a row is `taught_by`, and what `teacher_share` of its target is.

    Gives input_ids, attention_mask (batch, length); at (batch, positions), the places that predict the labels, from
    the one before the price's first digit on; labels (batch, positions), -100 where nothing is predicted;
    label_weight (batch, positions); soft (batch, positions, columns) for soft labels: the target over the tokens
    in `columns` at the digits' places.
    """

    def __init__(self, tokenizer: Any, recipe: Recipe, seed: int = 0, teacher: np.ndarray | None = None):
        self.seed, self.epoch, self.teacher = seed, 0, teacher
        self.lattice = PriceLattice(tokenizer)
        self.width = recipe.soft_label_width if recipe.loss == "soft-labels" else 0.0
        self.pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
        mean_over_tokens = recipe.loss == "completion"
        whole = tokenizer(f"{TAIL}1.00", add_special_tokens=False)["input_ids"]
        before = tokenizer(f"{TAIL}1", add_special_tokens=False)["input_ids"]
        self.tail = whole[len(before) :] + ([] if mean_over_tokens else [tokenizer.eos_token_id])
        # (999, depth + 1): each price's tokens, then the one that ends it; columns number the distinct tokens.
        self.depth = max(len(path) for path in self.lattice.paths)
        self.positions = self.depth + len(self.tail)
        table = np.full((len(PRICES), self.depth + 1), -1)
        # (999, positions): what is written for each price, and how much each token of it counts.
        self.labels = np.full((len(PRICES), self.positions), -100)
        self.label_weight = np.zeros((len(PRICES), self.positions), np.float32)
        for i, path in enumerate(self.lattice.paths):
            written = [*path, *self.tail]
            table[i, : len(path) + 1] = written[: len(path) + 1]
            self.labels[i, : len(written)] = written
            self.label_weight[i, : len(written)] = recipe.tail_weight
            self.label_weight[i, : len(path) + 1] = 1.0  # the digits and the token that ends them
            if mean_over_tokens:
                self.label_weight[i] /= len(written)
        self.columns = np.unique(table[table >= 0])
        self.table = np.searchsorted(self.columns, table)  # padding becomes 0, and is never read
        self.lengths = np.array([len(path) for path in self.lattice.paths])

    def __call__(self, rows: Sequence[dict]) -> dict[str, torch.Tensor]:
        target = self.target(rows)
        taught = self._draw(target, rows) if self.width else target.argmax(axis=1)
        labels = self.labels[taught]
        prompt = np.array([len(row["input_ids"]) for row in rows])
        length = prompt + (labels >= 0).sum(axis=1)
        input_ids = np.full((len(rows), length.max()), self.pad)
        for r, row in enumerate(rows):
            input_ids[r, : prompt[r]] = row["input_ids"]
            input_ids[r, prompt[r] : length[r]] = labels[r, labels[r] >= 0]
        at = prompt[:, None] - 1 + np.arange(self.positions)
        weight = np.array([row["weight"] for row in rows], np.float32)
        batch = {
            "input_ids": input_ids,
            "attention_mask": (np.arange(length.max()) < length[:, None]).astype(int),
            "at": np.minimum(at, length.max() - 1),
            "labels": labels,
            "label_weight": self.label_weight[taught] * weight[:, None],
        }
        if self.width:
            batch["soft"] = self._shares(target, taught)
        return {name: torch.from_numpy(array) for name, array in batch.items()}

    def target(self, rows: Sequence[dict]) -> np.ndarray:
        """(batch, 999) what each row teaches: a bell in log price, mixed with what the teachers say of it, or all on
        the nearest dollar."""
        price = np.clip([row["price"] for row in rows], PRICES[0], PRICES[-1])[:, None]
        if not self.width:
            return (PRICES == np.rint(price)).astype(float)
        bell = np.exp(-0.5 * ((np.log(PRICES) - np.log(price)) / self.width) ** 2) / PRICES
        bell /= bell.sum(axis=1, keepdims=True)
        if self.teacher is None:
            return bell
        share = np.array([row["teacher_share"] for row in rows])[:, None]
        teacher = self.teacher[[row.get("taught_by", row["row"]) for row in rows]].astype(float)
        mixed = share * teacher / teacher.sum(axis=1, keepdims=True)
        return mixed + np.where(share < 1, (1 - share) * bell, 0.0)  # a text without a price has no bell

    def _draw(self, target: np.ndarray, rows: Sequence[dict]) -> np.ndarray:
        """(batch,) one price of each row's target, as its index."""
        below = np.cumsum(target, axis=1)
        drawn = [np.random.default_rng([self.seed, self.epoch, row["row"]]).random() for row in rows]
        return (below / below[:, -1:] <= np.array(drawn)[:, None]).sum(axis=1)

    def _shares(self, target: np.ndarray, taught: np.ndarray) -> np.ndarray:
        """(batch, positions, columns) at each node of the taught price the target's share of every next token, 0
        behind the token that ends it."""
        rows, columns = len(target), len(self.columns)
        shares = np.zeros((rows, self.positions, columns), np.float32)
        below = np.ones(target.shape, bool)  # the prices that begin as the taught one does so far
        for depth in range(self.depth + 1):
            below &= (self.lengths >= depth) & (self.lengths[taught] >= depth)[:, None]
            token = self.table[:, depth]
            cell = (np.arange(rows)[:, None] * columns + token)[below]
            mass = np.bincount(cell, weights=target[below], minlength=rows * columns).reshape(rows, columns)
            total = mass.sum(axis=1, keepdims=True)
            np.divide(mass, total, out=shares[:, depth], where=total > 0, casting="same_kind")
            below &= token == token[taught][:, None]
        return shares


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
