"""Whether a text reads like a product at all. A model puts a price behind anything; of a greeting it means nothing.

Chosen on texts that name no product (letters, signs, emoji, questions, greetings, prose, code) and such that do (calibration
and catalogue rows, whole and by title, and names that people would type), so that none of the latter is mistaken: to be told
that a drill is no product is worse than to get a price for a greeting. Of 21 more that name none, 13 are told; of 49 short
names of products none is mistaken. Four signs, each of a short text only:

- it has hardly a letter;
- both models answer as they do to `?`, so it told them nothing (divergence in nats, over log-price bins);
- it is prose, in small letters, whose words the base expects: language is likelier than a listing's string of names; and
  the answer is a wide one;
- it is a question in such words, for which less is enough, where the answer is wider still: so 16 of 24 that name no product
  are told, and of 17 that do (whether $50 is too much for a used Kindle) 3 are mistaken, 2 of them by the rule before.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property

import numpy as np

from pricer.llama.prediction import Prediction
from pricer.llama.predictor import Predictor
from pricer.price.distribution import PriceDistribution
from pricer.price.lattice import PRICES
from pricer.prompt import Prompt, product_text

NOTHING = "?"
LEAST_LETTERS = 3
SHORT_TOKENS = 40  # a longer text counts as a product's
LIKE_NOTHING = {"tuned": 0.02, "base": 0.07}  # nats of divergence
LIKELY_NATS = -4.0  # mean log-likelihood of a token
WIDE_TIMES = 6.0  # the central 90 % range's high end by its low one
ASKED_NATS, ASKED_WIDE_TIMES = -5.7, 10.0  # of a question
_BINS = np.unique(np.round(np.geomspace(1, 1000, 48)).astype(int)) - PRICES[0]  # where each begins


class ProductCheck:
    def __init__(self, predictor: Predictor):
        self.predictor = predictor

    @cached_property
    def _nothing(self) -> dict[str, np.ndarray]:
        prompt = self.predictor.prepare(NOTHING)
        return {which: _binned(found.own) for which, found in self.predictor.both_passes(prompt)}

    def __call__(self, prompt: Prompt, predictions: Mapping[str, Prediction]) -> bool:
        """Whether the text of a prompt that both models answered reads like a product."""
        text = product_text(prompt.text)
        if sum(character.isalpha() for character in text) < LEAST_LETTERS:
            return False
        if len(self.predictor.pair.tokenizer(text, add_special_tokens=False)["input_ids"]) > SHORT_TOKENS:
            return True
        if all(
            _divergence(_binned(predictions[which].own), self._nothing[which]) < most
            for which, most in LIKE_NOTHING.items()
        ):
            return False
        low, high = (float(end) for end in predictions["tuned"].own.interval())
        if high < WIDE_TIMES * low or not _is_prose(text):
            return True
        asked = text.rstrip().endswith("?") and high >= ASKED_WIDE_TIMES * low
        return self.predictor.log_likelihood(prompt) <= (ASKED_NATS if asked else LIKELY_NATS)


def _is_prose(text: str) -> bool:
    """Whether half of the words behind the first are in small letters: a name that the base knows by heart, such as
    `iPhone 15 Pro 256 GB`, is likely as well."""
    words = text.split()[1:]
    return 2 * sum(word.islower() for word in words) >= len(words)


def _binned(distribution: PriceDistribution) -> np.ndarray:
    return np.add.reduceat(distribution.conditional, _BINS[:-1])


def _divergence(p: np.ndarray, q: np.ndarray) -> float:
    return float((p * np.log((p + 1e-9) / (q + 1e-9))).sum())
