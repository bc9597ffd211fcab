"""The one prompt, used by training, evaluation and the app alike.

Byte for byte the format of the dataset `ed-donner/pricer-data`, so that adapters trained on it
by others work here:

    How much does this cost to the nearest dollar?

    <product text, cut to a token budget>

    Price is $
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from typing import Any

from pricer.errors import InputError

QUESTION_CHARS = 1_000  # of any question; it is read with every text
QUESTION = "How much does this cost to the nearest dollar?"
TAIL = "Price is $"
MIN_USD, MAX_USD = 1, 999

# A prompt's tail with a price behind it, as training rows have it, or as others write it; and the tail on a line of its
# own.
_PRICED_TAIL = re.compile(r"price\s+is\s*:?\s*(?:us)?\$\s*[\d.,]*\d", re.IGNORECASE)
_OWN_TAIL = re.compile(r"\n[ \t]*\n[ \t]*" + re.escape(TAIL))
_BEHIND_CHARS = 20  # behind a price in running text: more is prose, and the text no prompt
_LINE_ENDS = re.compile(r"\r\n|[\r\x0b\x0c]")  # slides end lines with \x0b, and print-outs pages with \x0c
# Control characters (but not tab or newline), and surrogates, which no tokenizer can encode.
_UNPRINTABLE = re.compile(r"[\x00-\x08\x0e-\x1f\x7f\ud800-\udfff]")
_FILE_MARK = re.compile(r"^[\s\ufeff]+")  # what begins a file may be pasted along
# No token is this long on average: cutting here first keeps a pasted book from being tokenised whole.
_CHARS_PER_TOKEN = 64


@dataclass(frozen=True)
class Prompt:
    """A prompt ready for the model. `kept_chars` counts the product text's characters that the
    model reads; `truncated` says whether that is less than was given."""

    text: str
    kept_chars: int
    truncated: bool


def frame(product_text: str, question: str = QUESTION) -> str:
    """The prompt around a product text that is known to fit."""
    return f"{question}\n\n{product_text}\n\n{TAIL}"


def is_question(words: Any) -> bool:
    """Whether something from outside can be a prompt's question."""
    return isinstance(words, str) and len(words) <= QUESTION_CHARS and not _UNPRINTABLE.search(words)


def product_text(prompt: str) -> str:
    """The product text inside a framed prompt, whatever its question, without its price and whatever stands behind
    that (`5.00.`, `</s>`, ` USD`); text without the frame as it is."""
    prompt = prompt.replace("\r\n", "\n")
    end = _tail(prompt)
    if end is None:
        return prompt.strip()
    body = prompt[:end].strip()
    question, blank, rest = body.partition("\n\n")
    return rest if blank and question.endswith("?") else body


def is_framed(text: str) -> bool:
    """Whether a text is in the prompt's format, with or without its price."""
    return _tail(text.replace("\r\n", "\n")) is not None


def _tail(prompt: str) -> int | None:
    """Where a prompt's tail begins: at its end if nothing stands behind it, else where a price is given away first."""
    if prompt.rstrip().endswith(TAIL):
        return len(prompt.rstrip()) - len(TAIL)
    asks = prompt.lstrip().partition("\n\n")[0].endswith("?")
    for found in _PRICED_TAIL.finditer(prompt):
        before, behind = prompt[: found.start()].rstrip(" \t"), prompt[found.end() :].strip()
        own_line = before.endswith("\n\n") or (before.endswith("\n") and "\n" not in behind)
        ours = found[0].startswith(TAIL)
        if own_line or (ours and (asks or (len(behind) <= _BEHIND_CHARS and "\n" not in behind))):
            return found.start()
    own = list(_OWN_TAIL.finditer(prompt))
    return own[-1].end() - len(TAIL) if own else None


def completion(price_usd: float) -> str:
    """What training teaches the model to write: the price in whole dollars, 1 to 999, and `.00`."""
    return f"{min(max(round(price_usd), MIN_USD), MAX_USD)}.00"


def clean(text: str, *, max_chars: int) -> str:
    """The text without control characters and outer blanks.

    Raises InputError when nothing is left, or when there are more than `max_chars` characters.
    """
    if not isinstance(text, str):
        raise InputError("The product text must be text; paste a title or a description.")
    if len(text) > max_chars:
        raise InputError(
            f"That is {len(text):,} characters; paste at most {max_chars:,} of one product's text."
        )
    text = _UNPRINTABLE.sub("", _LINE_ENDS.sub("\n", text))
    text = _FILE_MARK.sub("", text).strip()
    if all(unicodedata.category(c) == "Cf" or c.isspace() for c in text):  # nothing, or nothing to be seen
        raise InputError("There is no text yet; paste a product's title or description first.")
    return text


def build_prompt(
    text: str, tokenizer: Any, *, question: str = QUESTION, max_text_tokens: int = 160
) -> Prompt:
    """Frame a cleaned product text, cut from its end to `max_text_tokens` tokens.

    The cut falls on a token's edge and the tail is never cut. `tokenizer` is a fast Hugging Face
    tokenizer (it must report character offsets).
    """
    head = text[: max_text_tokens * _CHARS_PER_TOKEN]
    offsets = tokenizer(head, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
    if len(offsets) > max_text_tokens:
        # The lesser of the two, because a character of several tokens (an emoji) may straddle the edge.
        head = head[: min(offsets[max_text_tokens - 1][1], offsets[max_text_tokens][0])]
    if len(head) < len(text):
        head = head.rstrip()
    return Prompt(frame(head, question), kept_chars=len(head), truncated=len(head) < len(text))
