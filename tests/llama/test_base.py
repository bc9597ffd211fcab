"""The base: its device and precision, and a sentence for every way its folder can be wrong."""

import json
import os
from dataclasses import replace

import pytest
import torch
from transformers import AutoModelForCausalLM

from pricer.errors import SetupError
from pricer.llama import base, embedded
from pricer.llama.base import (
    choose_device,
    choose_precision,
    load_base,
    loading_options,
)
from pricer.settings import Settings


def with_card(monkeypatch, there):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: there)
    monkeypatch.delenv("SPACES_ZERO_GPU", raising=False)


def test_the_device_is_cuda_when_there_is_one(sentence, monkeypatch):
    settings = Settings.from_env({})
    with_card(monkeypatch, False)
    assert choose_device(settings) == "cpu"
    assert choose_device(replace(settings, device="cpu")) == "cpu"
    with pytest.raises(SetupError) as caught:
        choose_device(replace(settings, device="cuda"))
    assert "PRICER_DEVICE" in sentence(caught)
    with_card(monkeypatch, True)
    assert choose_device(settings).startswith("cuda")
    assert choose_device(replace(settings, device="cpu")) == "cpu"


@pytest.mark.parametrize("profile", ["embedded", "llama-8b", "llama-3b"])
def test_a_cpu_without_amx_computes_in_fp32_and_nothing_else(sentence, monkeypatch, profile):
    with_card(monkeypatch, False)
    monkeypatch.setattr(base, "_has_amx", lambda: False)
    settings = Settings.from_env({}, profile=profile)
    assert choose_precision(settings, "cpu") == "fp32"
    assert choose_precision(replace(settings, precision="fp32"), "cpu") == "fp32"
    for precision in ("nf4", "bf16"):
        with pytest.raises(SetupError) as caught:
            choose_precision(replace(settings, precision=precision), "cpu")
        message = sentence(caught)
        assert f"PRICER_PRECISION={precision}" in message and "CUDA" in message and "fp32" in message


def test_a_cpu_with_amx_computes_in_bf16_where_that_is_asked_for(monkeypatch):
    monkeypatch.setattr(base, "_has_amx", lambda: True)
    settings = Settings.from_env({})
    assert choose_precision(settings, "cpu") == "fp32"
    assert choose_precision(replace(settings, precision="bf16"), "cpu") == "bf16"
    with pytest.raises(SetupError, match="CUDA card:"):
        choose_precision(replace(settings, precision="nf4"), "cpu")


def test_loading_in_nf4_on_a_cpu_is_refused(refused, monkeypatch):
    monkeypatch.setattr(base, "_has_amx", lambda: False)
    assert "CUDA" in refused(precision="nf4")
    assert "CUDA" in refused(precision="bf16")


def test_precision_on_a_card_goes_by_settings_then_by_profile(monkeypatch):
    with_card(monkeypatch, True)
    small, large = (Settings.from_env({}, profile=name) for name in ("embedded", "llama-8b"))
    assert choose_precision(small, "cuda") == "fp32"
    assert choose_precision(large, "cuda") == "nf4"
    for precision in ("fp32", "bf16", "nf4"):
        assert choose_precision(replace(small, precision=precision), "cuda") == precision
        assert choose_precision(replace(large, precision=precision), "cuda") == precision


def test_zerogpu_has_no_bitsandbytes_so_it_computes_in_bf16(sentence, monkeypatch):
    with_card(monkeypatch, True)
    zero = {"SPACES_ZERO_GPU": "true"}
    assert choose_precision(Settings.from_env(zero, profile="llama-8b"), "cuda") == "bf16"
    assert choose_precision(Settings.from_env(zero), "cuda") == "fp32"
    with pytest.raises(SetupError) as caught:
        choose_precision(Settings.from_env(zero | {"PRICER_PRECISION": "nf4"}), "cuda")
    assert "PRICER_PRECISION" in sentence(caught) and "bf16" in sentence(caught)


@pytest.mark.parametrize(("native", "dtype"), [(True, torch.bfloat16), (False, torch.float16)])
def test_a_card_without_bf16_computes_nf4_in_fp16(monkeypatch, native, dtype):
    with_card(monkeypatch, True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: native)
    options = loading_options("cuda", "nf4")
    assert options["dtype"] == options["quantization_config"].bnb_4bit_compute_dtype == dtype
    assert loading_options("cuda", "bf16")["dtype"] == torch.bfloat16  # as asked


@pytest.mark.parametrize("place", ["/nowhere/base", "./nowhere", "~/nowhere-at-all", "x" * 300])
def test_no_base_folder_there(refused, place):
    message = refused(base_model=place)
    assert place in message and "PRICER_BASE_MODEL" in message


def test_an_empty_base_folder(refused, tmp_path):
    message = refused(base_model=tmp_path)
    assert str(tmp_path) in message and "PRICER_BASE_MODEL" in message


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
@pytest.mark.parametrize("damage", ["missing", "empty", "cut"])
def test_a_damaged_base_folder(refused, base_copy, name, damage):
    file = base_copy / name
    if damage == "missing":
        file.unlink()
    else:
        os.truncate(file, 0 if damage == "empty" else file.stat().st_size // 2)
    message = refused(base_model=base_copy)
    assert str(base_copy) in message and "PRICER_BASE_MODEL" in message


def test_a_base_that_is_no_llama(refused, base_copy):
    config = json.loads((base_copy / "config.json").read_text())
    (base_copy / "config.json").write_text(json.dumps(config | {"model_type": "gpt2"}))
    message = refused(base_model=base_copy)
    assert "is a gpt2 model" in message and "Llama" in message and "PRICER_BASE_MODEL" in message


def test_a_card_too_small_says_so_and_leaves_the_prepared_base_alone(sentence, fake_embedded, monkeypatch):
    settings, conversions = fake_embedded
    load_base(settings, "cpu", "fp32")

    def full(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.\nMore")

    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", full)
    with pytest.raises(SetupError) as caught:
        load_base(settings, "cpu", "fp32")
    assert "too little memory" in sentence(caught)
    assert len(conversions) == 1 and (settings.cache / embedded._CACHE_NAME).is_dir()
