"""Training end to end on a tiny random Llama."""

import json
import math
from itertools import islice

import numpy as np
import pytest
import torch
import yaml
from safetensors import safe_open
from safetensors.torch import load_file

from pricer.llama.pair import load_pair
from pricer.llama.predictor import Predictor
from pricer.price.prior import PricePrior
from pricer.settings import Settings
from tests.processes import ended, fork
from tests.programs import launch
from tests.train.commands import SMOKE, arguments, rows_of, training_steps
from train import finetune

# End to end -----------------------------------------------------------------------------------------------


def test_smoke_recipe_writes_an_adapter(trained):
    code, out, base = trained
    assert code == 0
    prices = rows_of(60)["price"].to_numpy()
    prior = PricePrior.load(out / "prior.json")
    assert prior.name == "trained" and prices.min() < prior.median_usd < prices.max()
    weights = out / "adapter_model.safetensors"
    assert weights.stat().st_size < 10 * 2**20
    with safe_open(weights, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    assert tensors and all(".lora_" in name for name in tensors)
    assert all(torch.isfinite(tensor.float()).all() for tensor in tensors.values())
    assert any(tensor.any() for name, tensor in tensors.items() if "lora_B" in name)  # something was learned
    assert not list(out.glob("*.bin"))

    config = json.loads((out / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str(base)
    card = json.loads((out / "pricer.json").read_text())
    assert card == {"question": "How much does this cost to the nearest dollar?", "max_text_tokens": 48}
    assert str(base) in (out / "README.md").read_text(encoding="utf-8")
    saved = yaml.safe_load((out / "recipe.yaml").read_text(encoding="utf-8"))
    assert saved["rank"] == 4 and saved["learning_rate"] == 1e-3
    assert json.loads((out / "data_card.json").read_text())["splits"]["train"]["rows"] == 52


def test_smoke_recipe_records_validation_figures(trained):
    _, out, _ = trained
    record = json.loads((out / "metrics.json").read_text())
    assert record["steps"] == 4
    assert record["rows"] + record["validation_rows"] == 60
    assert record["validation_rows"] >= 4
    for name in ("error_usd", "rmsle", "hits_pct", "crps_usd", "log_score", "unpriced_mass"):
        assert math.isfinite(record["validation"][name]), name
    assert len(record["history"]) >= 2
    assert {"torch", "transformers", "peft", "trl", "accelerate"} <= set(record["versions"])
    assert record["seed"] == 0
    # 4 steps of 8 rows, each a prompt of at least 48 tokens and its price.
    assert 4 * 8 * 48 < record["tokens"] < 4 * 8 * 200
    assert record["tokens_per_second"] > record["tokens"] / (record["seconds"] + 0.1)


def test_dollars_reach_the_tracker(trained):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    _, out, _ = trained
    record = json.loads((out / "metrics.json").read_text())
    (events,) = (out / "checkpoints" / "runs").rglob("events.*")
    written = EventAccumulator(str(events)).Reload()
    for name in ("error_usd", "rmsle", "hits_pct"):
        tracked = {e.step: e.value for e in written.Scalars(f"eval/{name}")}
        assert tracked == pytest.approx({h["step"]: h[f"eval_{name}"] for h in record["history"]})
        assert set(tracked) == {2, 4}
    assert len(written.Scalars("train/loss")) == 4


def test_the_recorded_recipe_repeats_the_run(trained, tmp_path):
    _, out, _ = trained
    assert finetune.main(arguments(out / "recipe.yaml", output=tmp_path / "again")) == 0
    first, again = (load_file(folder / "adapter_model.safetensors") for folder in (out, tmp_path / "again"))
    assert first.keys() == again.keys()
    for name in first:
        torch.testing.assert_close(first[name], again[name])
    figures, repeated = (
        json.loads((folder / "metrics.json").read_text())["validation"]
        for folder in (out, tmp_path / "again")
    )
    assert repeated == pytest.approx(figures, rel=1e-4)


def test_without_evaluations_the_last_step_is_still_validated(trained, tmp_path):
    _, out, base = trained
    fields = {"base_model": base, "data": out / "data", "output": tmp_path / "out", "max_steps": 1}
    fields |= {"eval_strategy": "no", "load_best_model_at_end": False, "save_strategy": "no"}
    assert finetune.main(arguments(SMOKE, **fields)) == 0
    record = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert [h["step"] for h in record["history"]] == [1]
    assert record["validation"]["error_usd"] == pytest.approx(
        record["history"][0]["eval_error_usd"], abs=1e-4
    )


def test_trained_adapter_can_be_used(trained):
    _, out, base = trained
    settings = {"PRICER_BASE_MODEL": str(base), "PRICER_ADAPTER": str(out), "PRICER_DEVICE": "cpu"}
    predictor = Predictor(load_pair(Settings.from_env(settings)))
    assert predictor.pair.adapter.max_text_tokens == 48
    answer = predictor.compare("A lamp made of wood")
    assert not np.allclose(answer.base.distribution.probabilities, answer.tuned.distribution.probabilities)


def test_no_recipe_and_no_data(tmp_path, capsys, tiny_model_folder):
    assert finetune.main([]) == 2
    assert "Name a recipe first" in capsys.readouterr().err
    fields = {"base_model": tiny_model_folder / "base", "data": tmp_path / "none", "output": tmp_path / "out"}
    assert finetune.main(arguments(SMOKE, **fields)) == 2
    assert "There is no training data" in capsys.readouterr().err


def test_lean_layers_and_checkpointing_of_every_other_train_the_same_adapter(trained, tmp_path, monkeypatch):
    _, first, base = trained
    fields = {"base_model": base, "data": first / "data", "dropout": 0, "max_steps": 2}
    assert finetune.main(arguments(SMOKE, **fields, output=tmp_path / "plain")) == 0
    seen, step = [], finetune.PriceTrainer.training_step

    def spy(self, model, *args, **kwargs):
        layers = model.get_base_model().model.layers
        seen.append([layer.gradient_checkpointing for layer in layers])
        assert "forward" in vars(layers[1].mlp)
        return step(self, model, *args, **kwargs)

    monkeypatch.setattr(finetune.PriceTrainer, "training_step", spy)
    fields |= {"lean": True, "gradient_checkpointing": True}
    fields |= {"gradient_checkpointing_kwargs": '{"every_n_layers": 2}'}
    assert finetune.main(arguments(SMOKE, **fields, output=tmp_path / "lean")) == 0
    assert seen == [[True, False]] * 2
    plain, lean = (load_file(tmp_path / name / "adapter_model.safetensors") for name in ("plain", "lean"))
    for name, tensor in plain.items():
        torch.testing.assert_close(lean[name], tensor, rtol=2e-2, atol=1e-4)  # saved in bf16


def test_two_processes_train_what_one_with_twice_the_batch_trains(trained, tmp_path):
    """By accelerate's own launcher; what two GPUs do with NCCL, two CPU processes do with gloo."""
    _, first, base = trained
    fields = {
        "base_model": base,
        "data": first / "data",
        "num_train_epochs": 1,
        "max_steps": -1,
        "dropout": 0,
    }
    fields |= {"eval_steps": 1, "save_steps": 1, "gradient_checkpointing": True}
    two, one = tmp_path / "two", tmp_path / "one"
    launching = ["--multi_gpu", "--num_processes", "2", "--num_machines", "1"]
    launching += ["--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0"]
    command = arguments(SMOKE, **fields, output=two)
    code, printed = ended(fork(launch, *launching, "-m", "train.finetune", *command))
    assert code == 0, printed
    assert printed.count('"error_usd"') == 1  # one of the two speaks

    # Both deal the same shuffled rows out, 16 a step.
    assert finetune.main(arguments(SMOKE, **fields, output=one, per_device_train_batch_size=16)) == 0
    records = [json.loads((out / "metrics.json").read_text()) for out in (two, one)]
    assert [record["steps"] for record in records] == [4, 4]  # 52 rows; one process with batch 8 takes 7
    assert [record["processes"] for record in records] == [2, 1]
    # The last step has 4 rows, which two processes fill up.
    assert np.allclose(training_steps(two, 3), training_steps(one, 3), rtol=1e-4)
    for record in zip(*(islice(record["history"], 3) for record in records), strict=True):
        assert record[0] == pytest.approx(record[1], rel=1e-3)
    adapters = [load_file(out / "checkpoints/checkpoint-3/adapter_model.safetensors") for out in (two, one)]
    for name, tensor in adapters[0].items():
        torch.testing.assert_close(tensor, adapters[1][name], rtol=1e-4, atol=1e-6)
