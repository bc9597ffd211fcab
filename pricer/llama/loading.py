"""What goes wrong when a model or an adapter is loaded, as one sentence for the user; and loading without bitsandbytes."""

from __future__ import annotations

import ctypes
import errno
import logging
import mmap
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import torch

from pricer.errors import SetupError
from pricer.llama.hub import expect_answers
from pricer.settings import ModelRef

log = logging.getLogger(__name__)


@contextmanager
def hidden(package: str) -> Iterator[None]:
    """The package looks absent to what is imported meanwhile, unless it is there already."""
    if package in sys.modules:
        yield
        return
    sys.modules[package] = None
    try:
        yield
    finally:
        del sys.modules[package]


@contextmanager
def bitsandbytes_hidden(hide: bool = True) -> Iterator[None]:
    """bitsandbytes looks absent meanwhile: peft imports it along, both when it is imported itself and when it
    puts an adapter on, and that may take hold of the CUDA card in a process (ZeroGPU's main one) that
    must not, and costs a second of start-up."""
    if not hide or "bitsandbytes" in sys.modules:
        yield
        return
    try:
        with hidden("bitsandbytes"):
            yield
    finally:
        if utils := sys.modules.get("peft.import_utils"):  # peft remembers what it found
            utils.is_bnb_available.cache_clear()
            utils.is_bnb_4bit_available.cache_clear()


@contextmanager
def quiet_peft() -> Iterator[None]:
    """What peft warns of while an adapter is put on is in the log for those who look for it: what it finds missing, the
    gate refuses, and the rest speaks to those who train (or of names that peft itself uses no longer)."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    for warning in caught:
        log.info("peft: %s", warning.message)


@contextmanager
def quiet_transformers(bars: bool) -> Iterator[None]:
    """transformers' report of what it loaded is for the gate to judge, and without a download (`bars`) there is no
    progress worth a bar."""
    from transformers.utils import logging as transformers_logging

    verbosity, shown = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    if not bars:
        transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if shown and not bars:
            transformers_logging.enable_progress_bar()


@contextmanager
def explained(what: str, ref: ModelRef | None = None, variable: str = "") -> Iterator[None]:
    """Turn a library's failure to load something into one sentence for the user."""
    from huggingface_hub import errors as hub

    expect_answers()
    try:
        yield
    except SetupError:
        raise
    except Exception as error:
        log.debug("%s", what, exc_info=True)
        chain = [error]
        while (cause := chain[-1].__cause__ or chain[-1].__context__) and cause not in chain:
            chain.append(cause)
        if any(isinstance(e, hub.GatedRepoError) for e in chain):
            advice = f"No access to {ref}: accept its licence on its page, then set HF_TOKEN."
        elif any(isinstance(e, hub.RepositoryNotFoundError | hub.RevisionNotFoundError) for e in chain):
            advice = f"The Hub knows no {ref}: check {variable}; for a private model set HF_TOKEN."
        elif any(getattr(getattr(e, "response", None), "status_code", None) in (401, 403) for e in chain):
            advice = f"The Hub refuses {ref}: set HF_TOKEN to a valid token that may read it."
        elif any(isinstance(e, OSError) and e.errno == errno.ENOSPC for e in chain):
            advice = f"{what}: the disk is full; free some space, or set HF_HOME to another folder."
        elif any(isinstance(e, ConnectionError | hub.LocalEntryNotFoundError | TimeoutError) for e in chain):
            advice = f"{what}: the Hugging Face Hub does not answer; check the network, or name a folder in {variable}."
        elif isinstance(error, torch.OutOfMemoryError):
            advice = f"{what}: the card has too little memory; set PRICER_PRECISION=nf4 or choose a smaller profile."
        else:
            reason = str(error).strip().split("\n")[0][:200] or type(error).__name__
            advice = f"{what} ({reason}): copy it again, or name another one{f' in {variable}' if variable else ''}."
        raise SetupError(advice) from error


def looks_like_a_path(name: str) -> bool:
    return name.startswith((".", "/", "~")) or name.count("/") != 1


_least_resident = 0  # bytes, behind the last time


def give_memory_back(spare: int = 0) -> None:
    """Let the system have what loading or a pass needed and has freed: glibc keeps it, 300 MB behind the embedded pair.
    Since the next pass would only ask for it again, nothing happens up to `spare` bytes over what stayed the last time.
    Nor elsewhere than on Linux."""
    global _least_resident
    with suppress(OSError, AttributeError):
        if not spare or _resident() - _least_resident > spare:
            ctypes.CDLL("libc.so.6").malloc_trim(0)
            _least_resident = _resident()


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * mmap.PAGESIZE
