"""What the answers of a pass hang on, so that a result can say what it was made of."""

from __future__ import annotations

from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from pricer.files import file_sha256
from pricer.llama.adapter import Adapter
from pricer.llama.base import choose_precision
from pricer.llama.embedded import EMBEDDED_BASE, prepare_embedded_base
from pricer.llama.hub import is_silent
from pricer.llama.loading import explained, looks_like_a_path
from pricer.llama.predictor import MAX_EDGES, TOLERANCE
from pricer.manifest import Manifest
from pricer.price.lattice import LATTICE_VERSION
from pricer.price.prior import load_prior
from pricer.settings import ModelRef, Settings

_READERS = 4  # files hashed at once, where a model has several
# Files beside the weights that decide what a model answers.
_SHAPING = ("config.json", "generation_config.json", "adapter_config.json", "tokenizer.json") + (
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "tokenizer.model",
)


def distributions_made_of(
    settings: Settings, adapter: Adapter, device: str, passes: Collection[str]
) -> dict[str, Any]:
    """For a manifest: models, prompt and protocol. The base pass does not hang on the adapter's weights."""
    made_of: dict[str, Any] = {"base weights": base_key(settings)}
    if "tuned" in passes:
        made_of["adapter weights"] = folder_key(adapter.folder)
    return made_of | {
        "prompt question": adapter.question,
        "token budget": adapter.max_text_tokens,
        "precision": choose_precision(settings, device),
        "lattice": lattice_made_of(),
    }


def predictions_made_of(
    settings: Settings, adapter: Adapter, device: str, passes: Collection[str]
) -> dict[str, Any]:
    """As `distributions_made_of`, with what makes prices and intervals of the tuned pass's distributions."""
    made_of = distributions_made_of(settings, adapter, device, passes)
    if "tuned" not in passes:
        return made_of
    prior = load_prior(settings.prior)
    found = adapter.calibrations.under(prior)
    return made_of | {
        "price prior": prior.key,
        "prior in training": adapter.prior and adapter.prior.key,
        "calibration": found and found.model_dump(mode="json"),
    }


def lattice_made_of() -> dict[str, Any]:
    return {"version": LATTICE_VERSION, "tolerance": TOLERANCE, "most edges": MAX_EDGES}


def base_key(settings: Settings) -> str:
    """The base's files by their content, of a model on the Hub by its commit. Raises SetupError when it is not there."""
    ref = settings.base
    if ref.name == EMBEDDED_BASE and (cached := prepare_embedded_base(settings.cache)):
        ref = ModelRef(str(cached))
    return model_key(ref)


def model_key(ref: ModelRef) -> str:
    """As `base_key`, for any model."""
    if ref.is_folder or looks_like_a_path(ref.name):
        return folder_key(Path(ref.name))
    from huggingface_hub import hf_hub_download

    with explained(f"The base model {ref} cannot be loaded", ref, "PRICER_BASE_MODEL"):
        path = hf_hub_download(
            ref.name,
            "config.json",
            revision=ref.revision,
            local_files_only=is_silent(ref.name, ref.revision),
        )
    return f"commit {Path(path).parent.name}"  # the cache's folders are named so


def folder_key(folder: Path) -> str:
    """A model's or an adapter's files that decide what it answers, by their content."""
    files = sorted([*folder.glob("*.safetensors"), *(folder / name for name in _SHAPING)])
    files = [path for path in files if path.is_file()]
    with ThreadPoolExecutor(_READERS) as readers:
        hashes = dict(zip([path.name for path in files], readers.map(file_sha256, files), strict=True))
    return Manifest(hashes).key
