"""Answers kept by what they depend on, so that going back and forth costs nothing."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

KEPT_ANSWERS = 256
_answers: OrderedDict[tuple, Any] = OrderedDict()
_lock = threading.Lock()


def kept(key: tuple, make: Callable[[], Any]) -> Any:
    """The answer under `key`, made once; the least recently used give way. Two visitors who ask for the
    same thing at the same moment may both make it."""
    with _lock:
        if key in _answers:
            _answers.move_to_end(key)
            return _answers[key]
    answer = make()
    with _lock:
        _answers[key] = answer
        while len(_answers) > KEPT_ANSWERS:
            _answers.popitem(last=False)
    return answer


def digest(*arrays: NDArray) -> bytes:
    digest = hashlib.blake2b(digest_size=16)
    for array in arrays:
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.digest()
