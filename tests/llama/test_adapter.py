"""The adapter's folder: what its files say, and a sentence for every way they can be wrong."""

import json
from pathlib import Path

import pytest
from transformers import AutoConfig, LlamaForCausalLM

from pricer.errors import SetupError
from pricer.llama import pair as model
from pricer.llama.adapter import Adapter, check_same_base, load_adapter_card
from pricer.llama.embedded import EMBEDDED_BASE
from pricer.settings import ModelRef, Settings


def test_the_adapters_folder_says_what_it_was_trained_on(tiny_env, tiny_model_folder, adapter_copy):
    settings = Settings.from_env(tiny_env(adapter=adapter_copy, question="Asked by the profile?"))
    (adapter_copy / "pricer.json").write_text('{"question": "Asked in training?", "max_text_tokens": 77}')
    card = load_adapter_card(settings)
    assert (card.question, card.max_text_tokens) == ("Asked in training?", 77)
    assert card.base_model == str(tiny_model_folder / "base") and card.folder == adapter_copy
    (adapter_copy / "pricer.json").unlink()  # an adapter of others has none: the settings' word counts
    card = load_adapter_card(settings)
    assert (card.question, card.max_text_tokens) == ("Asked by the profile?", 160)


@pytest.mark.parametrize("place", ["/nowhere/adapter", "./nowhere", "~/nowhere-at-all", "adapter", "a/b/c"])
def test_no_adapter_there(refused, place):
    message = refused(adapter=place)
    assert place in message and "PRICER_ADAPTER" in message and "train" in message


@pytest.mark.parametrize("name", ["adapter_config.json", "adapter_model.safetensors"])
def test_half_an_adapter(refused, adapter_copy, name):
    (adapter_copy / name).unlink()
    # The old pickle form is no substitute: it is never loaded.
    (adapter_copy / "adapter_model.bin").write_bytes(b"pickle")
    message = refused(adapter=adapter_copy)
    assert name in message and "PRICER_ADAPTER" in message


@pytest.mark.parametrize("content", ["", "{", "[]", "null", '"text"', "\x00\xff", "[" * 5_000])
@pytest.mark.parametrize("name", ["adapter_config.json", "pricer.json"])
def test_a_corrupted_json_file(refused, adapter_copy, name, content):
    (adapter_copy / name).write_bytes(content.encode("latin-1"))
    message = refused(adapter=adapter_copy)
    assert name in message and "copy the adapter again" in message


@pytest.mark.parametrize("content", ["{}", '{"peft_type": "NONSENSE"}', '{"peft_type": "LORA", "r": "x"}'])
def test_an_adapter_config_that_is_json_but_no_adapter(refused, adapter_copy, content):
    (adapter_copy / "adapter_config.json").write_text(content)
    assert "adapter" in refused(adapter=adapter_copy)


@pytest.mark.parametrize(
    "card",
    [{"max_text_tokens": v} for v in ("many", None, 0, -3, 1.5, True, [160])]
    + [{"question": v} for v in (None, 7, "Half a pair \ud800?", "Why " * 300 + "?")],
)
def test_a_card_with_wrong_values(refused, adapter_copy, card):
    (adapter_copy / "pricer.json").write_text(json.dumps(card))
    assert "pricer.json" in refused(adapter=adapter_copy)


@pytest.mark.parametrize("keep", [0, 5, 100, 0.5, -1])
def test_a_cut_short_adapter(refused, adapter_copy, keep):
    file = adapter_copy / "adapter_model.safetensors"
    whole = file.read_bytes()
    file.write_bytes(whole[: int(keep * len(whole)) if isinstance(keep, float) else keep])
    message = refused(adapter=adapter_copy)
    assert str(adapter_copy) in message and "copy it again" in message


def test_an_adapter_of_another_base_by_name(sentence):
    def card(name):
        return Adapter(Path("my-adapter"), name, "?", 160)

    with pytest.raises(SetupError) as caught:
        check_same_base(ModelRef(EMBEDDED_BASE), card("meta-llama/Llama-3.1-8B"))
    message = sentence(caught)
    assert "PRICER_BASE_MODEL=meta-llama/Llama-3.1-8B" in message and EMBEDDED_BASE in message
    with pytest.raises(SetupError):
        check_same_base(ModelRef("meta-llama/Llama-3.1-8B-Instruct"), card("meta-llama/Llama-3.1-8B"))
    for other_name in (
        "meta-llama/Llama-3.1-8B",
        "meta-llama/Meta-Llama-3.1-8B",
        "unsloth/Meta-Llama-3.1-8B-bnb-4bit",
        "unsloth/llama-3.1-8b-unsloth-bnb-4bit",
        "",  # not said
    ):
        check_same_base(ModelRef("meta-llama/Llama-3.1-8B", "rev"), card(other_name))


def test_another_base_by_name_is_found_out_before_the_base_is_loaded(refused, adapter_copy, monkeypatch):
    config = json.loads((adapter_copy / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = "meta-llama/Llama-3.1-8B"
    (adapter_copy / "adapter_config.json").write_text(json.dumps(config))
    monkeypatch.setattr(model, "load_base", lambda *_: pytest.fail("loaded"))
    message = refused(adapter=adapter_copy, base_model=EMBEDDED_BASE)
    assert "was trained on meta-llama/Llama-3.1-8B" in message


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (
            {"hidden_size": 48, "head_dim": 12},
            "layers.0.self_attn.q_proj.lora_A.weight is 4 x 32, and 4 x 48",
        ),
        ({"num_hidden_layers": 1}, "6 tensors (model.layers.1.mlp.down_proj.lora_A.weight, "),
        ({"num_hidden_layers": 3}, "6 tensors (model.layers.2.mlp.down_proj.lora_A.weight, "),
    ],
)
def test_an_adapter_of_another_base_by_shape(refused, base_copy, change, says):
    config = AutoConfig.from_pretrained(base_copy)
    for name, value in change.items():
        setattr(config, name, value)
    LlamaForCausalLM(config).save_pretrained(base_copy)
    message = refused(base_model=base_copy)
    assert "does not fit the base" in message and says in message and "PRICER_BASE_MODEL" in message
