"""The one gate: what must be true of a base, its tokenizer and an adapter before any price is shown.

A model that is loaded without an error may still be the wrong one: weights that no file held are random, an adapter may
bring embeddings that the base pass would then use, a tokenizer may end the prompt with a stop. Each check names what it
found in one sentence and says what to do.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from pricer.errors import SetupError
from pricer.prompt import TAIL
from pricer.settings import ModelRef

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM

# peft_type of adapter_config.json -> served. Each changes linear layers (or norms) only while it is switched on.
KINDS = ("LORA", "LOHA", "LOKR", "IA3", "OFT", "BOFT", "VERA", "LN_TUNING")
# init_lora_weights that took something out of the base's own weights when training began, which the adapter needs back.
_CHANGES_BASE = ("pissa", "corda", "olora", "loftq", "lora_ga")
_FLOATS = ("F64", "F32", "F16", "BF16")  # as safetensors names them
_SAVE_PLAIN = "save it with save_embedding_layers=False"
_PREFIX = "base_model.model."  # peft's, before the base's own names
_WRAPPERS = (".base_layer.", ".original_module.", ".token_adapter.")


def check_kind(config: Mapping[str, Any], name: str) -> None:
    """Refuse what is no adapter of a causal model, and every kind that does not leave the base pass as it was."""
    other = "set PRICER_ADAPTER to a LoRA adapter"
    kind, task = config.get("peft_type"), config.get("task_type")
    if kind not in KINDS:
        raise SetupError(
            f"The adapter {name} is of the kind {kind} (peft_type in adapter_config.json), and the kinds that work "
            f"here are {', '.join(KINDS)}: {other}."
        )
    if task not in (None, "CAUSAL_LM"):
        raise SetupError(
            f"The adapter {name} was trained for {task} (task_type in adapter_config.json), not for CAUSAL_LM, and "
            f"writes no text: {other}."
        )
    start = config.get("init_lora_weights")
    if isinstance(start, str) and start.lower().startswith(_CHANGES_BASE):
        raise SetupError(
            f"The adapter {name} was trained on a base that {start} changed beforehand (init_lora_weights in "
            "adapter_config.json), so it does not go with the base as it is: save it with "
            f"path_initial_model_for_weight_conversion, or {other}."
        )
    if config.get("layer_replication"):
        raise SetupError(
            f"The adapter {name} repeats layers of its base (layer_replication in adapter_config.json), so the base "
            f"pass would not be the base: {other}."
        )


def check_complete(report: Mapping[str, Any], model: LlamaForCausalLM, ref: ModelRef) -> None:
    """Refuse a base of which its files and its config do not speak as one. report: transformers' loading info."""
    advice = "copy it again, or name another one in PRICER_BASE_MODEL"
    if getattr(model, "_hf_peft_config_loaded", False):
        raise SetupError(
            f"{ref} holds an adapter_config.json, so it is no base alone: set PRICER_BASE_MODEL to the base, and "
            "PRICER_ADAPTER to the adapter."
        )
    if missing := sorted(report["missing_keys"]):
        raise SetupError(
            f"The base model {ref} cannot be used: {_some(missing, 'weight')} that its config asks for "
            f"{_are(missing)} in none of its files; {advice}."
        )
    for key, there, wanted in sorted(report["mismatched_keys"]):
        raise SetupError(
            f"The base model {ref} cannot be used: its file has {key} as {_shape(there)}, and its config asks for "
            f"{_shape(wanted)}; {advice}."
        )
    # The packed weights of a quantised base have companions, which its quantiser knows.
    quantised = getattr(model.config, "quantization_config", None) is not None
    unplaced = sorted(key for key in report["unexpected_keys"] if not key.endswith("inv_freq"))
    if unplaced and not quantised:
        raise SetupError(
            f"The base model {ref} cannot be used: its files hold {_some(unplaced, 'weight')} for which its config "
            f"has no place; {advice}."
        )


def check_finite(named: Iterable[tuple[str, torch.Tensor]], what: str, advice: str) -> None:
    """Refuse NaN and infinity. A sum holds what its terms hold, and makes no copy of gigabytes."""
    tensors = {name: tensor for name, tensor in named if tensor.is_floating_point()}
    if not tensors:
        return
    sums = torch.stack([tensor.sum(dtype=torch.float32) for tensor in tensors.values()])
    suspect = [name for name, fine in zip(tensors, sums.isfinite().tolist(), strict=True) if not fine]
    # A sum alone may also overflow.
    if bad := [name.removeprefix(_PREFIX) for name in suspect if not tensors[name].isfinite().all()]:
        raise SetupError(f"{what} holds NaN or infinity in {_some(bad, 'tensor')}: {advice}.")


def check_types(files: Iterable[Path], what: str, advice: str) -> None:
    """Refuse whole numbers and the like, which are half of a quantised weight and would be taken for all of it."""
    from safetensors import safe_open

    strange = []
    for path in files:
        with safe_open(path, "pt") as file:
            types = {key: file.get_slice(key).get_dtype() for key in file.keys()}  # noqa: SIM118
        strange += [f"{key} ({kind})" for key, kind in types.items() if kind not in _FLOATS]
    if strange:
        raise SetupError(
            f"{what} holds {_some(sorted(strange), 'tensor')} of another type than floating-point numbers: {advice}."
        )


def numbers(model: torch.nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """The model's numbers by name; of packed NF4 weights their scales."""
    for name, parameter in model.named_parameters():
        state = getattr(parameter, "quant_state", None)
        if state is None:
            yield name, parameter
        elif state.nested:
            yield name, state.offset.reshape(1)
            yield f"{name} (scales)", state.state2.absmax
        else:
            yield name, state.absmax


def check_tokenizer(tokenizer: Any, rows: int, ref: ModelRef) -> None:
    """Refuse a tokenizer that cannot carry the prompt to the model. rows: of the model's embedding.

    A stop that it puts behind every text is switched off, for a price is read behind the prompt.
    """
    other = "set PRICER_BASE_MODEL to a Llama with its own tokenizer"
    if not getattr(tokenizer, "is_fast", False):
        raise SetupError(
            f"The tokenizer of {ref} does not say which characters a token stands for (there is no "
            f"tokenizer.json): {other}."
        )
    beyond = sorted((id_, token) for token, id_ in tokenizer.get_vocab().items() if not 0 <= id_ < rows)
    if beyond:
        tokens = _some([repr(token) for _, token in beyond], "token")
        raise SetupError(
            f"The tokenizer of {ref} has {tokens} beyond the {rows:,} rows of the model's embedding: take "
            f"{'it' if len(beyond) == 1 else 'them'} out of its files, or {other}."
        )
    plain = tokenizer(TAIL, add_special_tokens=False)["input_ids"]
    before, behind = _around(tokenizer, plain)
    if behind:
        named = tokenizer.decode(behind)
        tokenizer.add_bos_token = before == [tokenizer.bos_token_id]
        tokenizer.add_eos_token = False
        if _around(tokenizer, plain) != (before, []):
            raise SetupError(
                f"The tokenizer of {ref} puts {named} behind every text, and no price can be read behind that: take "
                "it out of post_processor in tokenizer.json and copy the folder again."
            )
    amount = "$1234567890"
    spelled = tokenizer.decode(
        tokenizer(TAIL.removesuffix("$") + amount, add_special_tokens=False)["input_ids"]
    )
    lacking = [character for character in amount if character not in spelled]
    if lacking:
        raise SetupError(f"The tokenizer of {ref} cannot write {_some(lacking, 'character')}: {other}.")


def _around(tokenizer: Any, plain: list[int]) -> tuple[list[int], list[int]]:
    """The special tokens before and behind a text, whose own tokens are `plain`."""
    ids = tokenizer(TAIL)["input_ids"]
    for start in range(len(ids) - len(plain) + 1):
        if ids[start : start + len(plain)] == plain:
            return ids[:start], ids[start + len(plain) :]
    return [], ids


@dataclass(frozen=True, eq=False)
class Own:
    """One of the base's own weights, as it was before an adapter came: no copy, but what would tell a change."""

    parameter: torch.nn.Parameter
    place: int
    version: int

    @classmethod
    def of(cls, parameter: torch.nn.Parameter) -> Own:
        return cls(parameter, parameter.data_ptr(), parameter._version)

    def is_unchanged(self) -> bool:
        return (self.place, self.version) == (self.parameter.data_ptr(), self.parameter._version)


def own_weights(model: torch.nn.Module) -> dict[str, Own]:
    """Those of the base, by the names that they have without an adapter."""
    own = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        for wrapper in _WRAPPERS:
            name = name.replace(wrapper, ".")
        own.setdefault(name, Own.of(parameter))
    return own


@contextmanager
def fitting(folder: Path, base: LlamaForCausalLM) -> Iterator[None]:
    """peft's refusals of an adapter that does not fit the base, as what they found."""
    try:
        yield
    except (RuntimeError, ValueError) as error:
        advice = "set PRICER_BASE_MODEL to the base that it was trained on, or copy the adapter again"
        found = re.search(
            r"size mismatch for (\S+): .*?shape torch\.Size\(\[(.*?)\]\).*?torch\.Size\(\[(.*?)\]\)",
            str(error),
        )
        if found:
            name = found[1].removeprefix(_PREFIX).replace(".default", "")
            given, wanted = ([int(n) for n in text.split(",") if n.strip()] for text in found.groups()[1:])
            raise SetupError(
                f"The adapter {folder} does not fit the base: its {name} is {_shape(given)}, and {_shape(wanted)} "
                f"belongs there; {advice}."
            ) from error
        if "arget modules" in str(error):
            config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
            raise SetupError(
                f"The adapter {folder} does not fit the base, a {type(base).__name__} without the modules that it "
                f"changes ({_listed(config.get('target_modules'))}): {advice}."
            ) from error
        raise


def check_tensors(folder: Path, base: LlamaForCausalLM) -> None:
    """What the adapter's file holds, before it is put on: numbers, and no more tokens than the base has."""
    from safetensors import safe_open

    rows = base.get_input_embeddings().weight.shape[0]
    path = folder / "adapter_model.safetensors"
    check_types([path], f"The adapter {folder}", "save it in float32 and copy it again")
    with safe_open(path, "pt") as file:
        found = {key: file.get_slice(key) for key in file.keys()}  # noqa: SIM118
        for key, part in found.items():
            is_embedding = key.split(".")[-1] == "weight" and {"embed_tokens", "lm_head"} & set(
                key.split(".")
            )
            if is_embedding and ".lora_" not in key and part.get_shape()[0] != rows:
                raise SetupError(
                    f"The adapter {folder} brings {part.get_shape()[0]:,} tokens ({key}) where the base has {rows:,}: "
                    f"set PRICER_BASE_MODEL to the base with those tokens, or {_SAVE_PLAIN}."
                )


def check_all_put_on(peft_model: Any, folder: Path, own: Collection[str]) -> None:
    """Refuse an adapter of which only a part fits: peft puts on what fits and only warns of the rest. own: names of
    the base's own weights, which `check_base_untouched` judges."""
    from peft import get_peft_model_state_dict
    from safetensors import safe_open

    with safe_open(folder / "adapter_model.safetensors", "pt") as file:
        given = set(file.keys())
    if not given:
        raise SetupError(
            f"The adapter {folder} holds no tensors: copy it again, or set PRICER_ADAPTER to another."
        )
    wanted = set(get_peft_model_state_dict(peft_model, save_embedding_layers=False))
    saved_base = {key for key in given - wanted if _own_name(key) in own}
    unplaced, lacking = (
        sorted(key.removeprefix(_PREFIX) for key in keys)
        for keys in (given - wanted - saved_base, wanted - given)
    )
    if unplaced or lacking:
        parts = []
        if unplaced:
            parts.append(f"{_some(unplaced, 'tensor')} in its file {_have(unplaced)} no place in the base")
        if lacking:
            parts.append(
                f"{_some(lacking, 'tensor')} that its config asks for {_are(lacking)} not in its file"
            )
        raise SetupError(
            f"The adapter {folder} does not fit the base: {', and '.join(parts)}; set PRICER_BASE_MODEL to the base "
            "that it was trained on, or copy the adapter again."
        )


def check_base_untouched(base: LlamaForCausalLM, before: Mapping[str, Own], folder: Path) -> None:
    """Refuse an adapter that put other numbers in the base's own weights. Equal ones, which peft saves along when an
    embedding was adapted, make way for the base's."""
    after, touched = own_weights(base), []
    for name, old in before.items():
        new = after[name].parameter if name in after else None
        if new is old.parameter and old.is_unchanged():
            continue
        if (
            new is None
            or new is old.parameter
            or not old.is_unchanged()
            or new.shape != old.parameter.shape
            or not torch.equal(new.to(old.parameter), old.parameter)
        ):
            touched.append(name)
            continue
        for module in base.modules():
            for key, parameter in module._parameters.items():
                if parameter is new:
                    module._parameters[key] = old.parameter
    if touched:
        raise SetupError(
            f"The adapter {folder} brings other numbers for {_some(sorted(touched), 'weight')} of the base itself, so "
            f"the base pass would not be the base: {_SAVE_PLAIN}, or set PRICER_ADAPTER to another."
        )


@torch.inference_mode()
def check_answers(llama: LlamaForCausalLM, tokenizer: Any, what: str, advice: str) -> None:
    """Refuse a pass whose answer to a short prompt is no number: finite weights may still overflow."""
    ids = torch.tensor([tokenizer(TAIL)["input_ids"]], device=llama.device)
    if not llama(ids).logits.isfinite().all():
        raise SetupError(f"{what} answers with NaN or infinity, though its weights are numbers: {advice}.")


def _own_name(key: str) -> str:
    name = key.removeprefix(_PREFIX)
    for wrapper in _WRAPPERS:
        name = name.replace(wrapper, ".")
    return name


def _some(names: list[str], noun: str) -> str:
    """`the weight a`, `2 weights (a, b)`, `9 weights (a, b, ...)`."""
    if len(names) == 1:
        return f"the {noun} {names[0]}"
    return f"{len(names)} {noun}s ({', '.join(names[:2])}{', ...' if len(names) > 2 else ''})"


def _are(names: list[str]) -> str:
    return "is" if len(names) == 1 else "are"


def _have(names: list[str]) -> str:
    return "has" if len(names) == 1 else "have"


def _shape(sizes: Iterable[int]) -> str:
    return " x ".join(str(size) for size in sizes) or "a single number"


def _listed(modules: Any) -> str:
    return modules if isinstance(modules, str) else ", ".join(sorted(map(str, modules or ["none"])))[:120]
