"""Many texts to prompts at once: the very tokens of `pricer.prompt.build_prompt`, worked out on all cores and kept in a
file, so that pretraining, labels and students share them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from functools import lru_cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from pricer.files import write_whole
from pricer.prompt import build_prompt, frame

_BATCH = 2_048  # texts to a process
_CHARS_PER_TOKEN = 16  # no usual text has so many on average; where one does, `build_prompt` is asked
_shared: dict[str, Any] = {}


def prompt_ids(
    texts: Sequence[str], tokenizer: Any, *, question: str, max_text_tokens: int, kept: str | Path = ""
) -> list[np.ndarray]:
    """Each framed prompt's token ids (int32), the text cut from its end to `max_text_tokens`.

    kept: a file of keep_tokens; what it holds is not worked out again."""
    about = _about(tokenizer, question, max_text_tokens)
    ids: list[np.ndarray | None] = [None] * len(texts)
    found = _read(str(kept)) if kept else None
    if found and found["about"] == about:
        keys = _keys(texts)
        at = np.minimum(np.searchsorted(found["keys"], keys), len(found["keys"]) - 1)
        for i in np.flatnonzero(found["keys"][at] == keys):
            ids[i] = found["ids"][found["starts"][at[i]] : found["starts"][at[i] + 1]].astype(np.int32)
    missing = [i for i, row in enumerate(ids) if row is None]
    for start in range(0, len(missing), _BATCH):
        part = missing[start : start + _BATCH]
        for i, row in zip(
            part, _work_out([texts[i] for i in part], tokenizer, question, max_text_tokens), strict=True
        ):
            ids[i] = row
    return ids


def keep_tokens(
    path: str | Path, texts: Sequence[str], tokenizer: Any, *, question: str, max_text_tokens: int
) -> None:
    """Write the file that `prompt_ids` reads, unless it is there, and whole."""
    path = Path(path)
    if _read(str(path)):
        return
    _read.cache_clear()
    _shared["task"] = (tokenizer, question, max_text_tokens)
    chunks = [list(texts[start : start + _BATCH]) for start in range(0, len(texts), _BATCH)]
    workers = max(1, min(len(chunks), os.cpu_count() or 1))
    with ProcessPoolExecutor(workers, mp_context=get_context("fork")) as pool:
        rows = [row for part in pool.map(_chunk, chunks) for row in part]
    _shared.clear()
    keys = _keys(texts)
    order = np.argsort(keys, kind="stable")
    lengths = np.array([len(rows[i]) for i in order])
    kept = {
        "about": np.array(_about(tokenizer, question, max_text_tokens)),
        "keys": keys[order],
        "starts": np.concatenate([[0], np.cumsum(lengths)]),
        "ids": np.concatenate([rows[i] for i in order]),
    }
    write_whole(path, lambda aside: np.savez(aside, **kept))


def _about(tokenizer: Any, question: str, max_text_tokens: int) -> str:
    probe = tokenizer("Price is $129, 12345 lamps.")["input_ids"]
    return repr((len(tokenizer), probe, question, max_text_tokens))


@lru_cache(maxsize=1)
def _read(path: str) -> dict[str, Any] | None:
    with suppress(OSError, ValueError, KeyError, EOFError, BadZipFile), np.load(path) as file:
        return {name: file[name] for name in ("keys", "starts", "ids")} | {"about": str(file["about"])}
    return None  # none yet, or damaged


def _keys(texts: Sequence[str]) -> np.ndarray:
    """A 64-bit number for each text."""
    digests = (
        hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest() for text in texts
    )
    return np.frombuffer(b"".join(digests), np.uint64)


def _chunk(texts: list[str]) -> list[np.ndarray]:
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # the processes share the cores already
    return _work_out(texts, *_shared["task"])


def _work_out(texts: list[str], tokenizer: Any, question: str, max_text_tokens: int) -> list[np.ndarray]:
    heads = [text[: max_text_tokens * _CHARS_PER_TOKEN] for text in texts]
    framed = []
    for text, head, encoded in zip(
        texts, heads, tokenizer.backend_tokenizer.encode_batch(heads, add_special_tokens=False), strict=True
    ):
        whole = len(head) == len(text)
        if whole and len(encoded) <= max_text_tokens:
            framed.append(frame(text, question))
        elif not whole and len(encoded) < 2 * max_text_tokens:  # the cut may lie behind this head
            framed.append(
                build_prompt(text, tokenizer, question=question, max_text_tokens=max_text_tokens).text
            )
        else:
            offsets = encoded.offsets
            end = min(offsets[max_text_tokens - 1][1], offsets[max_text_tokens][0])
            framed.append(frame(head[:end].rstrip(), question))
    return [np.array(row, np.int32) for row in tokenizer(framed)["input_ids"]] if framed else []
