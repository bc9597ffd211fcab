"""A LoRA adapter's folder: what its files say, and whether it belongs to the base."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pricer.errors import SetupError
from pricer.files import file_sha256
from pricer.llama.gate import check_kind
from pricer.llama.loading import explained, looks_like_a_path
from pricer.price.calibration import CALIBRATION_FILE, Calibrations
from pricer.price.prior import PRIOR_FILE, PricePrior, load_prior
from pricer.prompt import QUESTION_CHARS, is_question
from pricer.settings import ModelRef, Settings

log = logging.getLogger(__name__)

ADAPTER_FILES = (
    "adapter_config.json",
    "adapter_model.safetensors",
    "pricer.json",
    PRIOR_FILE,
    CALIBRATION_FILE,
)
# What an adapter was trained under that says nothing: most were, on that very dataset.
USUAL_PRIOR = "benchmark"


@dataclass(frozen=True)
class Adapter:
    """A LoRA adapter's folder on this machine, the prompt that it was trained on, the price prior that it was trained
    under (None: not known, its prices stay as they are), and the calibrations that train.calibrate made."""

    folder: Path
    base_model: str
    question: str
    max_text_tokens: int
    prior: PricePrior | None = None
    calibrations: Calibrations = field(default_factory=Calibrations)


def load_adapter_card(settings: Settings) -> Adapter:
    """The adapter's folder (fetched from the Hub if need be) and what its files say about it."""
    ref = settings.adapter
    folder = Path(ref.name)
    if not ref.is_folder:
        if looks_like_a_path(ref.name):
            raise SetupError(
                f"There is no adapter at {ref.name}: train one with "
                "`python -m train.finetune train/recipes/smollm2-135m.yaml`, or set PRICER_ADAPTER to a Hub id "
                "or a folder."
            )
        from huggingface_hub import snapshot_download

        with explained(f"The adapter {ref} cannot be fetched", ref, "PRICER_ADAPTER"):
            folder = Path(
                snapshot_download(ref.name, revision=ref.revision, allow_patterns=list(ADAPTER_FILES))
            )
    for name in ADAPTER_FILES[:2]:
        if not (folder / name).is_file():
            raise SetupError(
                f"{ref} holds no {name}, so it is no LoRA adapter in safetensors form: set PRICER_ADAPTER to one."
            )
    config = _read_json(folder / "adapter_config.json")
    check_kind(config, str(ref))
    return Adapter(
        folder=folder,
        base_model=str(config.get("base_model_name_or_path") or ""),
        **load_prompt(folder, settings.question, settings.max_text_tokens),
        prior=PricePrior.load(folder / PRIOR_FILE)
        if (folder / PRIOR_FILE).is_file()
        else load_prior(USUAL_PRIOR),
        calibrations=load_calibrations(folder),
    )


def load_prompt(folder: Path, question: str, max_text_tokens: int) -> dict[str, Any]:
    """`question` and `max_text_tokens` of the prompt that a model was trained on, as its pricer.json says, or as given
    where there is none. Raises SetupError."""
    path = folder / "pricer.json"
    card = _read_json(path) if path.is_file() else {}
    question = card.get("question", question)
    max_text_tokens = card.get("max_text_tokens", max_text_tokens)
    if not is_question(question) or type(max_text_tokens) is not int or max_text_tokens < 1:
        raise SetupError(
            f"{path} must give `question` as text of at most {QUESTION_CHARS:,} characters and `max_text_tokens` as a "
            "whole number above 0: correct it, or copy the model again."
        )
    return {"question": question, "max_text_tokens": max_text_tokens}


def load_calibrations(folder: Path) -> Calibrations:
    """What train.calibrate found for these very weights: training into the same folder leaves an older one's."""
    path = folder / CALIBRATION_FILE
    if not path.is_file():
        return Calibrations()
    found, own = Calibrations.load(path).by_prior, weights_sha256(folder)
    fitting = {name: one for name, one in found.items() if one.adapter_sha256 in (None, own)}
    if len(fitting) < len(found):
        log.warning("%s belongs to another adapter and is not used: run train.calibrate again.", path)
    return Calibrations(by_prior=fitting)


def check_same_base(base: ModelRef, adapter: Adapter) -> None:
    """Refuse an adapter that names another base. A base in a folder has no name to compare: there the
    tensors' shapes decide, when the adapter is put on."""
    if base.is_folder or not adapter.base_model or Path(adapter.base_model).is_dir():
        return
    if _model_key(base.name) != _model_key(adapter.base_model):
        raise SetupError(
            f"The adapter {adapter.folder.name} was trained on {adapter.base_model}, not on {base}: "
            f"set PRICER_BASE_MODEL={adapter.base_model}, or name another adapter in PRICER_ADAPTER."
        )


def _model_key(name: str) -> str:
    """`Llama-3.1-8B` for meta-llama/Meta-Llama-3.1-8B (its old name) and unsloth's 4-bit copies alike."""
    key = name.rsplit("/", 1)[-1].lower().removeprefix("meta-")
    for suffix in ("-unsloth-bnb-4bit", "-bnb-4bit"):
        key = key.removesuffix(suffix)
    return key


def _read_json(path: Path) -> dict:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise SetupError(f"{path} cannot be read as JSON: copy the adapter again.") from error
    if not isinstance(content, dict):
        raise SetupError(f"{path} holds no JSON object: copy the adapter again.")
    return content


def weights_sha256(folder: Path | str) -> str:
    """What tells one adapter's weights from another's."""
    return file_sha256(Path(folder) / "adapter_model.safetensors")
