"""Training end to end on a tiny random Llama, and what the loss is made of."""

import json
import math
import os
import random
import signal
import subprocess
import sys
from itertools import islice
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from safetensors import safe_open
from safetensors.torch import load_file

from pricer.llama.pair import load_pair
from pricer.llama.predictor import Predictor
from pricer.settings import Settings
from train import finetune
from train.dataset import PriceCollator, build_dataset, price_loss, row_weights
from train.output import last_checkpoint
from train.recipe import LOSSES, Recipe
from train.trainer import EpochSampler, PriceTrainer

ROOT = Path(__file__).parents[2]
SMOKE = ROOT / "train" / "recipes" / "smoke.yaml"
SYLLABLES = [consonant + vowel for consonant in "bdfgklmnprstvz" for vowel in "aeiou"]


def prose(seed, words):
    choose = random.Random(seed)
    return " ".join("".join(choose.choices(SYLLABLES, k=3)) for _ in range(words))


def recipe(**fields) -> Recipe:
    return Recipe(**({"base_model": "base", "data": "data", "output": "out", "max_text_tokens": 40} | fields))


def rows_of(count):
    return pd.DataFrame(
        {
            "title": [prose(1000 + i, 6) for i in range(count)],
            "description": [prose(i, 50) for i in range(count)],
            "price": [round(5.25 + i * 37 % 490, 2) for i in range(count)],
        }
    )


def arguments(recipe_file, **fields) -> list[str]:
    """A command line: the recipe and what it changes."""
    return [
        str(recipe_file),
        *(word for name, value in fields.items() for word in (f"--{name}", str(value))),
    ]


@pytest.fixture(scope="module")
def trained(tiny_model_folder, tmp_path_factory):
    """The smoke recipe on the tiny base: (exit code, output folder, base folder)."""
    folder = tmp_path_factory.mktemp("train")
    rows_of(60).to_csv(folder / "rows.csv", index=False)
    base, out = tiny_model_folder / "base", folder / "out"
    fields = {"base_model": base, "data": folder / "rows.csv", "output": out, "report_to": "tensorboard"}
    return finetune.main(arguments(SMOKE, **fields)), out, base


# End to end -----------------------------------------------------------------------------------------------


def test_smoke_recipe_writes_an_adapter(trained):
    code, out, base = trained
    assert code == 0
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


def test_started_again_it_goes_on_from_its_checkpoint(trained, monkeypatch):
    _, out, base = trained
    resumed = []
    train = finetune.PriceTrainer.train

    def spy(self, resume_from_checkpoint=None, **kwargs):
        resumed.append(resume_from_checkpoint)
        return train(self, resume_from_checkpoint=resume_from_checkpoint, **kwargs)

    monkeypatch.setattr(finetune.PriceTrainer, "train", spy)
    fields = {"base_model": base, "data": out / "data", "output": out, "max_steps": 6}
    assert finetune.main(arguments(SMOKE, **fields)) == 0
    assert [Path(path).name for path in resumed] == ["checkpoint-4"]
    record = json.loads((out / "metrics.json").read_text())
    assert (record["steps"], record["resumed_from_step"]) == (6, 4)


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


# Killed, and on several processes --------------------------------------------------------------------------

# Three epochs of seven steps with everything in it that is drawn at random.
RANDOM = {
    "num_train_epochs": 3,
    "max_steps": -1,
    "per_device_train_batch_size": 4,
    "gradient_accumulation_steps": 2,
    "train_sampling_strategy": "group_by_length",
    "dropout": 0.1,
    "loss": "soft-labels",
    "eval_steps": 1,
    "save_steps": 1,
}
# Dies where a kill does most harm: weights and optimizer of checkpoint-10 are written, the trainer's state is not.
KILLED_IN_CHECKPOINT_10 = """
import os, signal, sys
from transformers import Trainer
from train import finetune

save_rng_state = Trainer._save_rng_state

def save_and_die(self, folder):
    save_rng_state(self, folder)
    if self.state.global_step == 10:
        os.kill(os.getpid(), signal.SIGKILL)

Trainer._save_rng_state = save_and_die
sys.exit(finetune.main(sys.argv[1:]))
"""


def start(*command, **environment):
    return subprocess.Popen(
        [sys.executable, *command],
        cwd=ROOT,
        env={**os.environ, "PYTHONUNBUFFERED": "1", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def training_steps(out, step):
    """(step, loss, gradient norm, learning rate) of every step, as the checkpoint of `step` has them."""
    state = json.loads((out / "checkpoints" / f"checkpoint-{step}" / "trainer_state.json").read_text())
    return [
        [h[k] for k in ("step", "loss", "grad_norm", "learning_rate")]
        for h in state["log_history"]
        if "loss" in h
    ]


def test_killed_twice_it_ends_as_if_never_killed(trained, tmp_path, monkeypatch):
    """Also the data's order: another row, another drawn price or another dropout would change a step's loss."""
    _, first, base = trained
    fields = {"base_model": base, "data": first / "data"} | RANDOM
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    command = arguments(SMOKE, **fields, output=killed)

    with start("-m", "train.finetune", *command, "--disable_tqdm", "True") as process:
        for _ in process.stdout:  # a line for each step
            if last_checkpoint_step(killed) >= 1:
                process.kill()
                break
    assert process.returncode == -signal.SIGKILL
    assert not (killed / "metrics.json").exists()

    with start("-c", KILLED_IN_CHECKPOINT_10, *command) as process:
        printed, _ = process.communicate()
    assert process.returncode == -signal.SIGKILL, printed
    assert (killed / "checkpoints" / "checkpoint-10" / "optimizer.pt").exists()

    epochs, draw_order = [], EpochSampler.__iter__
    monkeypatch.setattr(EpochSampler, "__iter__", lambda self: epochs.append(self.epoch) or draw_order(self))
    assert finetune.main(command) == 0
    assert finetune.main(arguments(SMOKE, **fields, output=whole)) == 0
    assert epochs == [1, 2, 0, 1, 2]
    records = [json.loads((out / "metrics.json").read_text()) for out in (killed, whole)]
    assert [record["steps"] for record in records] == [21, 21]
    assert [record["resumed_from_step"] for record in records] == [9, 0]
    assert np.allclose(training_steps(killed, 21), training_steps(whole, 21), rtol=1e-5)
    assert records[0]["validation"] == pytest.approx(records[1]["validation"], rel=1e-4)
    adapters = [load_file(out / "adapter_model.safetensors") for out in (killed, whole)]
    for name, tensor in adapters[0].items():
        torch.testing.assert_close(tensor, adapters[1][name])


def last_checkpoint_step(out):
    """The last step whose checkpoint is whole; nothing is removed, since the run that writes them is going on."""
    return max(
        (int(p.parent.name.rpartition("-")[2]) for p in out.glob("checkpoints/*/trainer_state.json")),
        default=0,
    )


def test_halves_of_checkpoints_are_removed(tmp_path):
    for step, files in {
        8: {"trainer_state.json": "{}", "adapter_model.safetensors": ""},
        9: {"adapter_model.safetensors": ""},
        10: {"adapter_model.safetensors": "", "trainer_state.json": '{"global_step": 1'},
        100: {},
    }.items():
        (tmp_path / f"checkpoint-{step}").mkdir()
        for name, content in files.items():
            (tmp_path / f"checkpoint-{step}" / name).write_text(content)
    (tmp_path / "checkpoint-notes").mkdir()
    assert last_checkpoint(tmp_path) == str(tmp_path / "checkpoint-8")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-8", "checkpoint-notes"]
    assert last_checkpoint(tmp_path / "checkpoint-8") is None


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
    launch = [
        "-m",
        "accelerate.commands.launch",
        "--multi_gpu",
        "--num_processes",
        "2",
        "--num_machines",
        "1",
    ]
    launch += ["--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0"]
    command = arguments(SMOKE, **fields, output=two)
    with start(*launch, "-m", "train.finetune", *command) as process:
        printed, _ = process.communicate()
    assert process.returncode == 0, printed
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


@pytest.mark.parametrize("batch", [0, 4])
def test_the_order_of_rows_follows_from_seed_and_epoch(batch):
    lengths = [10 + i * 7 % 90 for i in range(64)]

    def order(seed, epoch):
        sampler = EpochSampler(lengths, batch, seed)
        sampler.epoch = epoch
        return list(sampler)

    assert sorted(order(0, 0)) == list(range(64))
    torch.manual_seed(99)
    assert order(0, 1) == order(0, 1)
    assert len({tuple(order(seed, epoch)) for seed in (0, 1) for epoch in (0, 1, 2)}) == 6
    if batch:  # texts of like length lie together
        spread = [np.ptp([lengths[i] for i in order(0, 0)[k : k + 4]]) for k in range(4, 64, 4)]
        assert np.mean(spread) < 20


# Batches --------------------------------------------------------------------------------------------------

PRICES_USD = [1.0, 7.4, 12.5, 88.0, 129.99, 500.0, 999.0, 0.5, 4000.0]


def batch_of(tokenizer, prices_usd=PRICES_USD, **fields):
    chosen = recipe(**fields)
    rows = pd.DataFrame({"text": [prose(i, 3 + i) for i in range(len(prices_usd))], "price": prices_usd})
    dataset = build_dataset(rows, row_weights(rows, None, chosen), tokenizer, chosen)
    assert len(dataset) == len(rows)
    collator = PriceCollator(tokenizer, chosen)
    return (
        collator,
        [dataset[i] for i in range(len(dataset))],
        collator([dataset[i] for i in range(len(dataset))]),
    )


@pytest.mark.parametrize("name", ["digit_tokenizer", "llama3_tokenizer"])
def test_labels_spell_the_price(request, name):
    tokenizer = request.getfixturevalue(name)
    collator, rows, batch = batch_of(tokenizer, loss="cross-entropy", tail_weight=0.25)
    assert len(batch["input_ids"]) == len(PRICES_USD)
    wanted = [1, 7, 12, 88, 130, 500, 999, 1, 999]
    for r, (row, usd) in enumerate(zip(rows, wanted, strict=True)):
        written = batch["labels"][r][batch["labels"][r] != -100].tolist()
        assert tokenizer.decode(written[:-1]) == f"{usd}.00"
        assert written[-1] == tokenizer.eos_token_id
        real = batch["input_ids"][r][batch["attention_mask"][r].bool()].tolist()
        assert real == [*row["input_ids"], *written]
        assert batch["input_ids"][r].tolist()[: len(real)] == real  # padding is behind it
        foretold = batch["input_ids"][r][batch["at"][r][: len(written)] + 1].tolist()
        assert foretold == written
        digits = len(collator.lattice.paths[usd - 1])
        weight = batch["label_weight"][r][: len(written)].tolist()
        assert weight == [1.0] * (digits + 1) + [0.25] * (len(written) - digits - 1)


def test_soft_targets_are_the_bells_shares(digit_tokenizer):
    torch.manual_seed(0)
    width = 0.3
    collator, _, batch = batch_of(digit_tokenizer, loss="soft-labels", soft_label_width=width)
    spelled = [digit_tokenizer.decode([int(column)]) for column in collator.columns]
    for r, usd in enumerate(PRICES_USD):
        centre = min(max(usd, 1), 999)
        bell = {n: math.exp(-0.5 * (math.log(n / centre) / width) ** 2) / n for n in range(1, 1000)}
        labels = batch["labels"][r]
        taught = digit_tokenizer.decode(labels[labels != -100][:-1].tolist()).removesuffix(".00")
        for depth in range(len(taught) + 1):
            share = {}
            for n, mass in bell.items():
                if str(n).startswith(taught[:depth]):
                    following = f"{n}."[depth]
                    share[following] = share.get(following, 0.0) + mass
            total = sum(share.values())
            got = dict(zip(spelled, batch["soft"][r, depth].tolist(), strict=True))
            assert sum(got.values()) == pytest.approx(1, abs=1e-5)
            assert got == pytest.approx({s: share.get(s, 0.0) / total for s in spelled}, abs=1e-5)
        assert not batch["soft"][r, len(taught) + 1 :].any()  # only the digits' places are soft


def test_soft_labels_teach_the_bell(digit_tokenizer):
    """The drawn prices are spread as the bell says: their mean log price is the bell's."""
    collator, rows, batch = batch_of(digit_tokenizer, [100.0] * 400, loss="soft-labels", soft_label_width=0.2)
    drawn = [
        float(digit_tokenizer.decode(labels[labels != -100][:-1].tolist())) for labels in batch["labels"]
    ]
    bell = collator.target(rows[:1])[0]
    expected = float((bell * np.log(np.arange(1, 1000))).sum())
    assert np.mean(np.log(drawn)) == pytest.approx(expected, abs=5 * 0.2 / math.sqrt(400))
    torch.manual_seed(99)  # what is drawn hangs on the epoch, and on nothing else
    assert torch.equal(collator(rows)["labels"], batch["labels"])
    collator.epoch = 1
    assert not torch.equal(collator(rows)["labels"], batch["labels"])


def test_the_seeds_loss_is_that_of_a_completion_only_collator(llama3_pair):
    """transformers' own loss over labels that begin behind 'Price is $' and have no end token."""
    tokenizer = llama3_pair.tokenizer
    collator, _, batch = batch_of(tokenizer, loss="completion", tail_weight=1.0)
    labels = torch.full_like(batch["input_ids"], -100)
    for r, usd in enumerate((1, 7, 12, 88, 130, 500, 999, 1, 999)):
        end = int(batch["attention_mask"][r].sum())
        assert tokenizer.decode(batch["input_ids"][r, end - 3 : end]) == f"{usd}.00"
        labels[r, end - 3 : end] = batch["input_ids"][r, end - 3 : end]
    with llama3_pair.use("tuned") as llama:
        wanted = llama(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], labels=labels)
    got = trainers_loss(llama3_pair, collator, batch)
    assert collator.positions == 3
    assert got == pytest.approx(float(wanted.loss), rel=1e-5)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("name", ["tiny_pair", "llama3_pair"])
def test_padding_changes_no_loss(request, name, loss):
    """Against each row by itself, through the whole model, and against padding on the left behind a mask."""
    pair = request.getfixturevalue(name)
    collator, rows, batch = batch_of(pair.tokenizer, loss=loss)
    columns = torch.from_numpy(collator.columns)
    assert (batch["attention_mask"] == 0).any()
    alone, left = [], []
    for row in rows:
        one = collator([row])
        with pair.use("tuned") as llama:
            logits = llama(input_ids=one["input_ids"]).logits[:, one["at"][0]]
            padding = torch.zeros_like(one["input_ids"][:, :5])
            logits_left = llama(
                input_ids=torch.cat([padding, one["input_ids"]], dim=1),
                attention_mask=torch.cat([padding, one["attention_mask"]], dim=1),
            ).logits[:, one["at"][0] + 5]
        alone.append(float(price_loss(logits, one, columns)))
        left.append(float(price_loss(logits_left, one, columns)))
    got = trainers_loss(pair, collator, batch)
    assert got == pytest.approx(np.mean(alone), abs=1e-5)
    assert got == pytest.approx(np.mean(left), abs=1e-5)


def trainers_loss(pair, collator, batch) -> float:
    """What PriceTrainer makes of a batch, without a trainer around it."""
    with pair.use("tuned") as llama:
        trainer = SimpleNamespace(model=llama, columns=torch.from_numpy(collator.columns))
        return float(PriceTrainer.compute_loss(trainer, llama, batch))


@pytest.mark.parametrize("loss", [loss for loss in LOSSES if loss != "completion"])
def test_price_loss_by_hand(digit_tokenizer, loss):
    torch.manual_seed(0)
    collator, _, batch = batch_of(digit_tokenizer, loss=loss, tail_weight=0.5)
    logits = torch.randn(len(PRICES_USD), collator.positions, len(digit_tokenizer))
    total = 0.0
    for r in range(len(PRICES_USD)):
        for k in range(collator.positions):
            if batch["labels"][r, k] == -100:
                continue
            scores = logits[r, k].double().numpy()
            logp = scores - math.log(np.exp(scores).sum())
            if loss == "soft-labels" and batch["soft"][r, k].any():
                nats = -sum(
                    p * logp[c] for p, c in zip(batch["soft"][r, k].tolist(), collator.columns, strict=True)
                )
            else:
                nats = -logp[int(batch["labels"][r, k])]
            total += float(batch["label_weight"][r, k]) * nats
    got = price_loss(logits, batch, torch.from_numpy(collator.columns))
    assert float(got) == pytest.approx(total / len(PRICES_USD), rel=1e-5)


def test_row_weights():
    rows = pd.DataFrame(
        {"price": [10.0] * 90 + [400.0] * 10, "target_like": [False, True] * 50, "weight": [1.0] * 100}
    )
    target = np.array([400.0] * 50 + [10.0] * 50)
    plain = row_weights(rows.drop(columns="target_like"), target, recipe())
    assert plain.tolist() == [1.0] * 100
    matched = row_weights(rows, target, recipe(match_prices=True, target_like_weight=2.0))
    assert matched.mean() == pytest.approx(1)
    assert (matched > 0).all()
    assert matched[90:].mean() > matched[:90].mean()
    assert matched[1] == pytest.approx(2 * matched[0])
