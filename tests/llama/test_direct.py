"""The embedded pair straight from its files: the same answers as the long way, and the long way for anything unusual."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import PreTrainedTokenizerFast

from pricer.llama import direct
from pricer.llama.direct import DirectPair, Tokenizer, read_pair
from pricer.llama.embedded import EMBEDDED_BASE
from pricer.llama.predictor import Predictor
from pricer.price.prior import load_prior
from pricer.settings import ModelRef

LONG_WAY = object()


@pytest.fixture
def files(tiny_model_folder, tiny_settings, tmp_path, monkeypatch):
    """Copies of the tiny pair's folders, of which the base is taken for the embedded one, and the settings for them."""
    for name in ("base", "adapter"):
        shutil.copytree(tiny_model_folder / name, tmp_path / name)
    config = json.loads((tmp_path / "adapter/adapter_config.json").read_text())
    config["base_model_name_or_path"] = EMBEDDED_BASE
    (tmp_path / "adapter/adapter_config.json").write_text(json.dumps(config))
    monkeypatch.setattr(direct, "prepare_embedded_base", lambda cache: tmp_path / "base")
    adapter = ModelRef(str(tmp_path / "adapter"))
    return tmp_path, replace(tiny_settings, base=ModelRef(EMBEDDED_BASE), adapter=adapter)


@pytest.fixture
def long_way(monkeypatch):
    monkeypatch.setattr(direct, "load_pair", lambda settings: LONG_WAY)


def test_it_answers_as_the_long_way_does(files, long_way, tiny_predictor, monkeypatch):
    found = read_pair(files[1])
    assert isinstance(found, DirectPair)
    mine = Predictor(found, prior=load_prior("benchmark"))
    for text in ("Cordless drill with two batteries", "a lamp " * 30):
        one, other = mine.compare(text), tiny_predictor.compare(text)
        assert one.prompt == other.prompt
        for which in ("base", "tuned"):
            pair = (getattr(answer, which).own.probabilities for answer in (one, other))
            np.testing.assert_array_equal(*pair)
    prompt, pair = mine.prepare("how are you today my friend"), tiny_predictor.pair
    monkeypatch.setattr(pair, "weights", None)  # transformers' own pass
    assert mine.log_likelihood(prompt) == pytest.approx(tiny_predictor.log_likelihood(prompt), abs=1e-5)
    assert found.whole is LONG_WAY  # what the lean pass cannot do is asked of that
    with pytest.raises(ValueError, match="base"), found.use("both"):
        pass


def test_its_tokenizer_does_what_transformers_does(files):
    mine = Tokenizer(files[0] / "base")
    theirs = PreTrainedTokenizerFast.from_pretrained(files[0] / "base")
    texts = ["Cordless drill, 20V", "é 🙂 12,99", " \n\n", "</s> a"]
    assert mine(texts)["input_ids"] == theirs(texts)["input_ids"]
    for text in texts:
        found = mine(text, add_special_tokens=False, return_offsets_mapping=True)
        wanted = theirs(text, add_special_tokens=False, return_offsets_mapping=True)
        assert all(found[name] == wanted[name] for name in ("input_ids", "offset_mapping"))
        for skip in (True, False):
            ids = found["input_ids"]
            assert mine.decode(ids, skip) == theirs.decode(ids, skip_special_tokens=skip)
    assert mine.get_vocab() == theirs.get_vocab() and mine.eos_token_id == theirs.eos_token_id


def rewrite(name, **changes):
    def damage(folder):
        config = json.loads((folder / name).read_text()) | changes
        (folder / name).write_text(json.dumps(config))

    return damage


def change_tensors(name, change):
    def damage(folder):
        tensors = load_file(folder / name)
        change(tensors, next(key for key in sorted(tensors) if "layers" in key))
        save_file(tensors, folder / name, {"format": "pt"})

    return damage


BASE, LORA = "base/model.safetensors", "adapter/adapter_model.safetensors"


@pytest.mark.parametrize(
    "damage",
    [
        rewrite("base/config.json", model_type="mistral"),
        rewrite("base/config.json", attention_bias=True),
        rewrite(
            "base/config.json", rope_parameters={"rope_type": "linear", "rope_theta": 1e4, "factor": 2.0}
        ),
        rewrite("base/config.json", quantization_config={"quant_method": "bitsandbytes"}),
        rewrite("base/config.json", num_hidden_layers=1),
        rewrite("adapter/adapter_config.json", use_dora=True),
        rewrite("adapter/adapter_config.json", use_rslora=True),
        rewrite("adapter/adapter_config.json", alpha_pattern={"q_proj": 3}),
        rewrite("adapter/adapter_config.json", target_modules="all-linear"),
        rewrite("adapter/adapter_config.json", target_modules=["q_proj", "v_proj"]),
        rewrite("adapter/adapter_config.json", modules_to_save=["lm_head"]),
        rewrite("adapter/adapter_config.json", something_of_next_year=1),
        change_tensors(BASE, lambda tensors, key: tensors.pop(key)),
        change_tensors(BASE, lambda tensors, key: tensors.update(more=torch.zeros(2))),
        change_tensors(BASE, lambda tensors, key: tensors.update({key: tensors[key].half()})),
        change_tensors(BASE, lambda tensors, key: tensors[key].fill_(torch.nan)),
        change_tensors(LORA, lambda tensors, key: tensors.pop(key)),
        change_tensors(LORA, lambda tensors, key: tensors.update({key: tensors[key][:, :-1].contiguous()})),
        change_tensors(LORA, lambda tensors, key: tensors[key].fill_(torch.inf)),
        lambda folder: (folder / "base/tokenizer.json").unlink(),
        lambda folder: (folder / BASE).write_bytes(b""),
    ],
)
def test_whatever_is_not_as_expected_goes_the_long_way(files, long_way, damage):
    folder, settings = files
    damage(folder)
    assert read_pair(settings) is LONG_WAY


@pytest.mark.parametrize("change", [{"base": ModelRef("owner/model")}, {"zero_gpu": True}])
def test_so_does_every_other_base_and_place(files, long_way, change):
    assert read_pair(replace(files[1], **change)) is LONG_WAY


@pytest.mark.base
def test_the_shipped_pair_is_read_so_and_nothing_slow_is_imported(in_another_process):
    out = in_another_process(
        """
import sys
from pricer.__main__ import compare
from pricer.settings import Settings

answer = compare("Cordless drill with two batteries", Settings.from_env())
print(1 <= answer.to_dict()["tuned"]["price_usd"] <= 999)
slow = {"bitsandbytes", "datasets", "gradio", "pandas", "peft", "plotly", "pyarrow", "scipy", "sklearn", "torch._dynamo"}
slow |= {"transformers"}
print(slow & sys.modules.keys() or "none of them")
""",
        PRICER_DEVICE="cpu",
    )
    assert out.splitlines() == ["True", "none of them"]
