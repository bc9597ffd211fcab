"""The base Llama in memory: on which device, in which precision, from the cache, a folder or the Hub."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from pricer.errors import SetupError
from pricer.llama.embedded import EMBEDDED_BASE, prepare_embedded_base
from pricer.llama.gate import check_complete, check_finite, check_tokenizer, check_types, numbers
from pricer.llama.hub import is_silent
from pricer.llama.loading import explained, looks_like_a_path, quiet_transformers
from pricer.settings import ModelRef, Settings

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM

log = logging.getLogger(__name__)

ROOM_LEFT = 24 * 2**30  # bytes of a card that stay free for batches and others


def choose_device(settings: Settings) -> str:
    if settings.device == "cuda" and not torch.cuda.is_available():
        raise SetupError("PRICER_DEVICE is cuda, but no CUDA card answers: set it to cpu, or leave it unset.")
    return settings.device or ("cuda" if torch.cuda.is_available() else "cpu")


def choose_precision(settings: Settings, device: str) -> str:
    """On a CPU fp32, or bf16 where that is asked for and the CPU multiplies it (without AMX it is many times slower); on
    CUDA as asked, else by profile: the small embedded base in fp32, others in NF4, on ZeroGPU (no bitsandbytes there)
    in bf16."""
    if settings.zero_gpu and settings.precision == "nf4":
        raise SetupError("PRICER_PRECISION=nf4 does not work on ZeroGPU: set it to bf16, or leave it unset.")
    if device == "cpu":
        if (
            settings.precision not in (None, "fp32", "bf16")
            or settings.precision == "bf16"
            and not _has_amx()
        ):
            needs = "a CUDA card" + " or a CPU with AMX" * (settings.precision == "bf16")
            raise SetupError(
                f"PRICER_PRECISION={settings.precision} needs {needs}: set it to fp32, or leave it unset."
            )
        return settings.precision or "fp32"
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


def _has_amx() -> bool:
    """Whether this CPU multiplies bf16 matrices in hardware, as far as torch says so."""
    return getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)()


def _computes_in_bf16() -> bool:
    """False on a card from before Ampere, such as a Space's T4, which only imitates bf16, and slowly."""
    return not torch.cuda.is_available() or torch.cuda.is_bf16_supported(including_emulation=False)


def _load_llama(ref: ModelRef, device: str, precision: str) -> tuple[LlamaForCausalLM, Any]:
    if not ref.is_folder and looks_like_a_path(ref.name):
        raise SetupError(
            f"There is no model folder {ref.name}: set PRICER_BASE_MODEL to a Hub id or a folder."
        )
    from huggingface_hub import snapshot_download
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    with explained(f"The base model {ref} cannot be loaded", ref, "PRICER_BASE_MODEL"):
        name, revision = ref.name, ref.revision
        # Else transformers would ask a silent Hub again and again, for minutes.
        if not ref.is_folder and is_silent(name, revision):
            name, revision = snapshot_download(name, revision=revision, local_files_only=True), None
        options = loading_options(device, precision)
        # Weights in the old form are pickles, which may hold code.
        options["use_safetensors"] = True
        options["ignore_mismatched_sizes"] = True  # for the gate, which names them
        with quiet_transformers(bars=not ModelRef(name).is_folder):  # what is wrong, the gate says
            config = AutoConfig.from_pretrained(name, revision=revision)
            if config.model_type != "llama":
                raise SetupError(f"{ref} is a {config.model_type} model: set PRICER_BASE_MODEL to a Llama.")
            tokenizer = AutoTokenizer.from_pretrained(name, revision=revision)
            model, report = AutoModelForCausalLM.from_pretrained(
                name, revision=revision, output_loading_info=True, **options
            )
    check_complete(report, model, ref)
    copy_again = "copy it again, or name another one in PRICER_BASE_MODEL"
    if getattr(model.config, "quantization_config", None) is None:
        check_types(Path(name).glob("*.safetensors"), f"The base model {ref}", copy_again)
    # What is longer than the model's context is looked at and cut; transformers would warn of it.
    tokenizer.deprecation_warnings["sequence-length-is-longer-than-the-specified-maximum"] = True
    check_tokenizer(tokenizer, model.get_input_embeddings().weight.shape[0], ref)
    check_finite(
        numbers(model),
        f"The base model {ref}",
        copy_again,
    )
    if device == "cpu":
        # As mapped from the file the weights are not aligned in memory, which costs a quarter of the speed.
        for parameter in model.parameters():
            parameter.data = parameter.data.clone()
    return model.eval().requires_grad_(False), tokenizer
