"""Texts in, price distributions out: the only caller of the model's forward passes.

A batch takes one forward pass over the prompts and then a few small ones over the price
lattice's nodes, on top of the cached keys and values (see `pricer.lattice`). The same line
serves one text, a table and a stream.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers import DynamicCache, LlamaForCausalLM

from pricer.calibration import Calibration
from pricer.distribution import DEFAULT_RULE, INTERVAL_LEVEL, PriceDistribution
from pricer.lattice import ROOT, Growth, PriceLattice
from pricer.model import PASSES, LlamaPair, load_pair
from pricer.prompt import Prompt, build_prompt, clean
from pricer.settings import Limits, Settings

_LOGITS_ROWS = 512  # rows of vocabulary-wide logits in memory at once


@dataclass(frozen=True)
class Prediction:
    """One pass's answer to one text. `seconds` is its share of the batch it was computed in; `calibration` the
    adapter's, in the tuned pass."""

    distribution: PriceDistribution
    seconds: float
    calibration: Calibration | None = None

    def interval(self, level: float = INTERVAL_LEVEL) -> tuple[float, float]:
        """(low, high) in USD: calibrated where there is a calibration, else the distribution's central one."""
        if self.calibration:
            low, high = self.calibration.interval(self.distribution, level)
        else:
            low, high = self.distribution.interval(level)
        return float(low), float(high)

    def run_row(self, rule: str) -> dict[str, float]:
        """What an evaluation run's table holds of it, by column."""
        low, high = self.interval()
        return {
            "guess_usd": round(float(self.distribution.point(rule)), 2),
            "low_usd": low,
            "high_usd": high,
            "unpriced_mass": float(self.distribution.unpriced_mass),
            "seconds": self.seconds,
        }

    def to_dict(self, rule: str = DEFAULT_RULE) -> dict[str, Any]:
        """Plain values, prices in USD: price_usd by `rule`, the 90 % interval, all rules, and more."""
        low, high = self.interval()
        return {
            "price_usd": round(float(self.distribution.point(rule)), 2),
            "low_usd": low,
            "high_usd": high,
            "calibrated": self.calibration is not None,
            "rule": rule,
            "rules": {name: round(float(price), 2) for name, price in self.distribution.points().items()},
            "unpriced_mass": round(float(self.distribution.unpriced_mass), 6),
            "seconds": round(self.seconds, 3),
        }


@dataclass(frozen=True)
class Comparison:
    """Both passes' answers to one text. `rule` is the adapter's default; both are read by the same one, so that
    the models are compared and not the rules."""

    prompt: Prompt
    base: Prediction
    tuned: Prediction
    rule: str = DEFAULT_RULE

    def to_dict(self, rule: str | None = None) -> dict[str, Any]:
        rule = rule or self.rule
        return {
            "truncated": self.prompt.truncated,
            "base": self.base.to_dict(rule),
            "tuned": self.tuned.to_dict(rule),
        }


class Predictor:
    """Scores product texts with a `LlamaPair`.

    tolerance, max_stops: how much of the lattice may be left out, see `pricer.lattice.Growth`.
    """

    def __init__(
        self,
        pair: LlamaPair,
        limits: Limits | None = None,
        *,
        tolerance: float = 5e-4,
        max_stops: int | None = 48,
    ):
        self.pair, self.limits = pair, limits or Limits()
        self.tolerance, self.max_stops = tolerance, max_stops
        self.lattice = PriceLattice(pair.tokenizer)

    @property
    def rule(self) -> str:
        """The point rule to use when nobody names one: the one that was best for this adapter."""
        calibration = self.pair.adapter.calibration
        return calibration.rule if calibration else DEFAULT_RULE

    def prepare(self, text: str) -> Prompt:
        """Clean, cut and frame one product text. Raises InputError for text that cannot be used."""
        return build_prompt(
            clean(text, max_chars=self.limits.text_chars),
            self.pair.tokenizer,
            question=self.pair.adapter.question,
            max_text_tokens=self.pair.adapter.max_text_tokens,
        )

    def compare(self, text: str) -> Comparison:
        """Both passes over one text. Raises InputError for text that cannot be used."""
        prompt = self.prepare(text)
        return Comparison(prompt, **dict(self.both_passes(prompt)), rule=self.rule)

    def both_passes(self, prompt: Prompt) -> Iterator[tuple[str, Prediction]]:
        """Both passes over one prepared prompt, each as it is done."""
        for which in PASSES:
            yield which, self.predict([prompt], which)[0]

    def predict(
        self, prompts: Sequence[Prompt], which: str, on_done: Callable[[int], None] = lambda done: None
    ) -> list[Prediction]:
        """One pass over prepared prompts, in their order; `on_done` is told how many are done."""
        answers: list[Prediction | None] = [None] * len(prompts)
        done = 0
        for indices, batch in self.predict_batches(prompts, which):
            for i, answer in zip(indices, batch, strict=True):
                answers[i] = answer
            done += len(indices)
            on_done(done)
        return answers

    def predict_batches(
        self, prompts: Sequence[Prompt], which: str
    ) -> Iterator[tuple[list[int], list[Prediction]]]:
        """One pass, batch by batch as they are done: (indices into `prompts`, their predictions).

        Batches hold prompts of like length, so little of a batch is padding, and at most
        `limits.batch_tokens` tokens, so memory does not grow with the input.
        """
        ids = self.pair.tokenizer([prompt.text for prompt in prompts])["input_ids"] if prompts else []
        calibration = self.pair.adapter.calibration if which == "tuned" else None
        for indices in token_batches([len(i) for i in ids], self.limits.batch_tokens):
            start = time.perf_counter()
            with self.pair.use(which) as llama:
                probabilities = self._score(llama, [ids[i] for i in indices])
            seconds = (time.perf_counter() - start) / len(indices)
            distributions = PriceDistribution(probabilities)
            yield indices, [Prediction(distributions[k], seconds, calibration) for k in range(len(indices))]

    def greedy_text(self, prompt: Prompt, which: str) -> str:
        """What greedy decoding writes behind the prompt, at most 5 tokens: the published protocol's
        way, and the only use of `generate` in the project."""
        tokenizer = self.pair.tokenizer
        ids = torch.tensor([tokenizer(prompt.text)["input_ids"]], device=self.pair.device)
        with self.pair.use(which) as llama:
            out = llama.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=5,
                do_sample=False,
                temperature=None,
                top_p=None,
                pad_token_id=tokenizer.pad_token_id or tokenizer.eos_token_id,
            )
        return tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True)

    def _score(self, llama: LlamaForCausalLM, ids: list[list[int]]) -> np.ndarray:
        """(batch, 999) probabilities for token id lists of like length."""
        lattice = self.lattice
        growth = Growth(lattice, len(ids), tolerance=self.tolerance, max_stops=self.max_stops)
        lengths = np.array([len(i) for i in ids])
        width = int(lengths.max())
        prompt = np.zeros((len(ids), width), int)
        for row, row_ids in enumerate(ids):
            prompt[row, : len(row_ids)] = row_ids
        real = np.arange(width) < lengths[:, None]  # (batch, width); padding is on the right

        # The prompt and, behind it, the lattice's first nodes: one forward pass.
        tree = _Tree(lattice, lengths, real)
        nodes = growth.frontier()
        tokens, positions, sees = tree.append(nodes[:, 1:])
        past = np.broadcast_to(np.arange(width)[:, None] >= np.arange(width), (len(ids), width, width))
        beside = np.zeros((len(ids), width, tokens.shape[1]), bool)
        sees = np.concatenate([np.concatenate([past, beside], axis=2), sees], axis=1)
        cache = DynamicCache(config=llama.config)
        hidden = self._forward(
            llama,
            np.concatenate([prompt, tokens], axis=1),
            np.concatenate([np.tile(np.arange(width), (len(ids), 1)), positions], axis=1),
            sees if tokens.shape[1] or not real.all() else None,
            cache,
        )
        last = hidden[torch.arange(len(ids)), torch.from_numpy(lengths - 1)][:, None]  # (batch, 1, hidden)
        growth.update(nodes, self._watched_probabilities(llama, torch.cat([last, hidden[:, width:]], dim=1)))

        while (nodes := growth.frontier()).shape[1]:
            hidden = self._forward(llama, *tree.append(nodes), cache)
            growth.update(nodes, self._watched_probabilities(llama, hidden))
        return growth.probabilities()

    def _forward(self, llama, tokens, positions, sees, cache: DynamicCache) -> torch.Tensor:
        """Hidden states (batch, n, hidden) of n more tokens behind the cache; `sees` (batch, n, columns) says
        which columns each may attend to, None that it is all before it."""
        return llama.model(
            input_ids=torch.from_numpy(tokens).to(self.pair.device),
            position_ids=torch.from_numpy(positions).to(self.pair.device),
            attention_mask=None if sees is None else torch.from_numpy(sees)[:, None].to(self.pair.device),
            past_key_values=cache,
            use_cache=True,
        ).last_hidden_state

    def _watched_probabilities(self, llama: LlamaForCausalLM, hidden: torch.Tensor) -> np.ndarray:
        """(..., hidden) -> (..., watched): next-token probabilities of the lattice's watched tokens."""
        watched = torch.from_numpy(self.lattice.watched).to(hidden.device)
        parts = []
        for rows in hidden.flatten(0, -2).split(_LOGITS_ROWS):
            logits = llama.lm_head(rows).float()
            parts.append((logits[:, watched] - logits.logsumexp(-1, keepdim=True)).exp().cpu())
        return torch.cat(parts).reshape(*hidden.shape[:-1], -1).numpy()


def load_predictor(settings: Settings) -> Predictor:
    """The predictor for the models that the settings name. Raises SetupError with what to do."""
    return Predictor(load_pair(settings), settings.limits)


class _Tree:
    """Where each text's lattice nodes lie in the key-value cache, and so what a further node may see."""

    def __init__(self, lattice: PriceLattice, lengths: np.ndarray, real: np.ndarray):
        self.lattice, self.lengths, self.real = lattice, lengths, real
        self.columns = real.shape[1]
        self.column = np.full((len(lengths), len(lattice)), -1)

    def append(self, nodes: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """nodes: (batch, m), -1 for padding. Their tokens and positions (batch, m), and what each sees of
        all columns up to and with these (batch, m, columns): its prompt, its ancestors and itself."""
        (batch, m), width, before = nodes.shape, self.real.shape[1], self.columns
        self.columns += m
        sees = np.zeros((batch, m, self.columns), bool)
        sees[:, :, :width] = self.real[:, None]
        sees[:, np.arange(m), before + np.arange(m)] = True
        row, slot = np.nonzero(nodes >= 0)
        self.column[row, nodes[row, slot]] = before + slot
        ancestor = self.lattice.parent[nodes[row, slot]]
        while (inside := ancestor > ROOT).any():
            sees[row[inside], slot[inside], self.column[row[inside], ancestor[inside]]] = True
            ancestor = np.where(inside, self.lattice.parent[ancestor], ROOT)
        tokens = np.where(nodes >= 0, self.lattice.token[nodes], 0)
        positions = self.lengths[:, None] - 1 + np.where(nodes >= 0, self.lattice.depth[nodes], 1)
        return tokens, positions, sees


def token_batches(lengths: Sequence[int], budget: int) -> Iterator[list[int]]:
    """Indices in batches of like length, longest first, each at most `budget` tokens with its padding
    (a single longer prompt makes a batch of its own)."""
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    batch: list[int] = []
    for i in order:
        if batch and (len(batch) + 1) * lengths[batch[0]] > budget:
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch
