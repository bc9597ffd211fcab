"""What a run leaves on disk: checkpoints to go on from, and a folder that is enough to use and to repeat it.

adapter_config.json, adapter_model.safetensors   the adapter, in bf16; with method full instead a whole model in fp32:
                  config.json, model.safetensors and the tokenizer's files
pricer.json       the prompt it was trained on
manifest.json     what the run is made of, from its beginning on (train.resume)
prior.json        the price prior it was trained under
recipe.yaml       every field that matters: python -m train.finetune <folder>/recipe.yaml repeats the run
data_card.json    what it was trained on, as train.prepare wrote it
metrics.json      validation figures, cost, device, versions, seed
README.md         the model card, made from these
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import peft
import torch
import yaml
from safetensors import SafetensorError
from transformers import LlamaForCausalLM

from pricer.errors import SetupError, reason
from pricer.price.prior import PRIOR_FILE, PricePrior
from pricer.settings import ModelRef
from train.card import model_card
from train.recipe import Recipe

_ASIDE = ".part-"
_WRITING = ("os error", "PytorchStreamWriter", "file write failed", "unexpected pos")  # in their words


def last_checkpoint(folder: Path) -> str | None:
    """The newest checkpoint that was written to its end; halves left by a kill are removed."""
    found = [path for path in folder.glob("checkpoint-*") if path.name.rpartition("-")[2].isdecimal()]
    for path in sorted(found, key=lambda p: int(p.name.rpartition("-")[2]), reverse=True):
        if _is_whole(path):
            return str(path)
        shutil.rmtree(path)
    return None


def _is_whole(checkpoint: Path) -> bool:
    """The trainer writes its state last, so all is there when that can be read."""
    try:
        json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return any((checkpoint / f"{name}.safetensors").is_file() for name in ("adapter_model", "model"))


def save_run(
    model: peft.PeftModel | LlamaForCausalLM,
    tokenizer: Any,
    recipe: Recipe,
    fields: dict[str, Any],
    record: dict[str, Any],
    data: Path,
    prior: PricePrior,
) -> Path:
    """Write the output folder; `fields` as train.recipe.recorded gives them, `data` the prepared folder, `prior` the
    one of the rows as they counted.

    The adapter is in bf16, which halves its size; its base goes by the recipe's name for it. A whole model stays in
    fp32: what training changed is smaller than what bf16 rounds off."""
    out = Path(recipe.output)
    out.mkdir(parents=True, exist_ok=True)
    for left in out.glob(f"{_ASIDE}*"):  # of a run that was killed here
        shutil.rmtree(left)
    # Files appear in the folder when all are whole.
    with tempfile.TemporaryDirectory(dir=out, prefix=_ASIDE) as aside:
        part = Path(aside)
        if recipe.method == "full":
            model.save_pretrained(part)
            tokenizer.save_pretrained(part)
        else:
            state = {k: v.to(torch.bfloat16) for k, v in peft.get_peft_model_state_dict(model).items()}
            model.peft_config["default"].base_model_name_or_path = ModelRef.parse(recipe.base_model).name
            model.save_pretrained(part, state_dict=state, save_embedding_layers=False)
        card = {"question": recipe.question, "max_text_tokens": recipe.max_text_tokens}
        write_json(part / "pricer.json", card)
        write_json(part / "metrics.json", record)
        prior.save(part / PRIOR_FILE)
        (part / "recipe.yaml").write_text(
            yaml.safe_dump(fields, sort_keys=False, allow_unicode=True), encoding="utf-8"
        )
        if (data / "data_card.json").is_file():
            shutil.copyfile(data / "data_card.json", part / "data_card.json")
        (part / "README.md").write_text(model_card(part), encoding="utf-8")
        for path in part.iterdir():
            path.replace(out / path.name)
    return out


@contextmanager
def whole_or_a_sentence(out: Path | str) -> Iterator[None]:
    """Raise SetupError, with what to do, for a checkpoint or a result that cannot be written, such as on a full disk.

    safetensors and torch have errors of their own for that.
    """
    try:
        yield
    except (OSError, SafetensorError, RuntimeError) as error:
        if not isinstance(error, OSError) and not any(sign in str(error) for sign in _WRITING):
            raise
        raise SetupError(
            f"Training stopped, {out} cannot be written ({reason(error)}): free some space, and the same command goes on from "
            "the last checkpoint."
        ) from error


def write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, default=float) + "\n", encoding="utf-8")
