"""What a pass's answers hang on: the models by their content, those of the Hub by their commit."""

import json
import shutil
from dataclasses import replace

import pytest

from pricer.errors import SetupError
from pricer.llama.adapter import load_adapter_card
from pricer.llama.made_of import (
    base_key,
    distributions_made_of,
    folder_key,
    model_key,
    predictions_made_of,
)
from pricer.settings import ModelRef


@pytest.fixture
def cached(tiny_model_folder, tmp_path, monkeypatch):
    """owner/cached at two commits in the Hub's cache, of which `main` is the second."""
    folder = tmp_path / "hub" / "models--owner--cached"
    for commit in ("1" * 40, "2" * 40):
        shutil.copytree(tiny_model_folder / "base", folder / "snapshots" / commit)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("2" * 40)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))


def test_a_model_of_the_hub_is_its_commit(cached):
    assert model_key(ModelRef("owner/cached")) == f"commit {'2' * 40}"
    assert model_key(ModelRef("owner/cached", "1" * 40)) == f"commit {'1' * 40}"


def test_a_model_that_is_nowhere_is_a_sentence(cached):
    with pytest.raises(SetupError, match="The base model owner/none cannot be loaded: .* PRICER_BASE_MODEL"):
        model_key(ModelRef("owner/none"))


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json"])
def test_a_folder_is_the_content_of_what_shapes_its_answers(tiny_model_folder, tmp_path, name):
    base = tiny_model_folder / "base"
    copy = shutil.copytree(base, tmp_path / "copy")
    (copy / "metrics.json").write_text("{}")
    (copy / "checkpoints").mkdir()
    assert folder_key(copy) == folder_key(base) == model_key(ModelRef(str(base)))
    content = (copy / name).read_bytes()
    (copy / name).write_bytes(content[:-1] + b" ")  # as long as before
    assert folder_key(copy) != folder_key(base)


def test_the_embedded_base_is_the_prepared_copy(tiny_settings, tiny_model_folder, monkeypatch):
    monkeypatch.setattr("pricer.llama.made_of.EMBEDDED_BASE", "owner/embedded")
    monkeypatch.setattr(
        "pricer.llama.made_of.prepare_embedded_base", lambda cache: tiny_model_folder / "base"
    )
    assert base_key(replace(tiny_settings, base=ModelRef("owner/embedded"))) == base_key(tiny_settings)


def test_a_calibration_is_of_the_tuned_prices_alone(tiny_settings, calibrated_adapter):
    plain = load_adapter_card(tiny_settings)
    calibrated = load_adapter_card(replace(tiny_settings, adapter=ModelRef(str(calibrated_adapter))))
    distributions, predictions = (
        [
            [of(tiny_settings, card, "cpu", (which,)) for card in (plain, calibrated)]
            for which in ("base", "tuned")
        ]
        for of in (distributions_made_of, predictions_made_of)
    )
    assert [a == b for a, b in distributions] == [True, True]
    assert [a == b for a, b in predictions] == [True, False]
    assert "adapter weights" not in predictions[0][0]
    assert json.loads(json.dumps(predictions)) == predictions
