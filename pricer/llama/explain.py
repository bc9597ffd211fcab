"""Why this price: each phrase of a text left out in turn, and how the price moves.

A text that lacks its seventh phrase begins as the whole text does. So the whole prompt is read once, and each variant
is read from where it parts from it, several together (`Predictor.leave_out`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pricer.llama.prediction import Prediction
from pricer.llama.predictor import Predictor
from pricer.prompt import Prompt, frame, product_text

MOST_PHRASES = 16
FEW_PHRASES = 4  # under which a text is also parted at its commas
_SENTENCES = re.compile(r"\n+\s*|(?<=[.!?;])\s+|\s*[•·|]\s*")
_ITEMS = re.compile(r",\s+|\n+\s*|(?<=[.!?;])\s+|\s*[•·|]\s*")


@dataclass(frozen=True)
class Phrase:
    """Characters `start` to `end` of the text, the blank or comma behind them included."""

    start: int
    end: int


def phrases(text: str, most: int = MOST_PHRASES) -> list[Phrase]:
    """A text's sentences and list items in their order, from its first character to its last; where there are few, what
    lies between its commas. Of more than `most` the shortest neighbours are joined."""
    found = _parted(text, _SENTENCES)
    if len(found) < FEW_PHRASES:
        found = _parted(text, _ITEMS)
    while len(found) > most:
        i = min(range(len(found) - 1), key=lambda i: found[i + 1].end - found[i].start)
        found[i : i + 2] = [Phrase(found[i].start, found[i + 1].end)]
    return found


def _parted(text: str, between: re.Pattern) -> list[Phrase]:
    edges = [0, *(m.end() for m in between.finditer(text) if 0 < m.end() < len(text)), len(text)]
    return [Phrase(a, b) for a, b in zip(edges, edges[1:], strict=False) if text[a:b].strip()]


def without(text: str, left_out: Sequence[Phrase]) -> str:
    """The text without some of its phrases."""
    kept, at = [], 0
    for phrase in sorted(left_out, key=lambda p: p.start):
        kept.append(text[at : phrase.start])
        at = phrase.end
    return "".join([*kept, text[at:]]).strip().rstrip(",;")


def leave_each_out(
    predictor: Predictor, prompt: Prompt, which: str
) -> Iterator[tuple[list[int], list[Prediction]]]:
    """One model's predictions without each of `phrases(product_text(prompt.text))`, as they are done: (which phrases,
    their predictions). A text of one phrase has nothing to leave out."""
    text = product_text(prompt.text)
    parts = phrases(text)
    if len(parts) < 2:
        return
    question = predictor.pair.adapter.question
    variants = [frame(without(text, [part]), question) for part in parts]
    yield from predictor.leave_out(prompt.text, variants, which)
