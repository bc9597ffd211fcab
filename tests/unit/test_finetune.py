"""Training end to end on a tiny random Llama, and what the loss is made of."""

import json
import math
import random
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from safetensors import safe_open

from pricer.errors import InputError
from pricer.model import load_pair
from pricer.predictor import Predictor
from pricer.settings import Settings
from train import finetune
from train.dataset import PriceCollator, build_dataset, price_loss, row_weights
from train.recipe import LOSSES, Recipe, load_recipe

RECIPES = Path(__file__).parents[2] / "train" / "recipes"
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


@pytest.fixture(scope="module")
def trained(tiny_model_folder, tmp_path_factory):
    """The smoke recipe on the tiny base: (exit code, output folder, base folder)."""
    folder = tmp_path_factory.mktemp("train")
    rows_of(60).to_csv(folder / "rows.csv", index=False)
    base, out = tiny_model_folder / "base", folder / "out"
    arguments = ["--base_model", base, "--data", folder / "rows.csv", "--output", out]
    code = finetune.main([str(RECIPES / "smoke.yaml"), *map(str, arguments)])
    return code, out, base


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


def test_smoke_recipe_records_validation_figures(trained):
    _, out, _ = trained
    record = json.loads((out / "metrics.json").read_text())
    assert record["steps"] == 4
    assert record["rows"] + record["validation_rows"] == 60
    assert record["validation_rows"] >= 4
    for name in ("error_usd", "rmsle", "hits_pct", "crps_usd", "log_score", "unpriced_mass"):
        assert math.isfinite(record["validation"][name]), name
    assert len(record["history"]) >= 2
    assert set(record["versions"]) == {"torch", "transformers", "peft", "trl"}


def test_trained_adapter_can_be_used(trained):
    _, out, base = trained
    settings = {"PRICER_BASE_MODEL": str(base), "PRICER_ADAPTER": str(out), "PRICER_DEVICE": "cpu"}
    predictor = Predictor(load_pair(Settings.from_env(settings)))
    assert predictor.pair.adapter.max_text_tokens == 48
    answer = predictor.compare("A lamp made of wood")
    assert not np.allclose(answer.base.distribution.probabilities, answer.tuned.distribution.probabilities)


def test_started_again_it_goes_on_from_its_checkpoint(trained, monkeypatch):
    _, out, base = trained
    (out / "checkpoints" / "checkpoint-9").mkdir()  # half of one, left by a kill
    resumed = []
    train = finetune.PriceTrainer.train

    def spy(self, resume_from_checkpoint=None, **kwargs):
        resumed.append(resume_from_checkpoint)
        return train(self, resume_from_checkpoint=resume_from_checkpoint, **kwargs)

    monkeypatch.setattr(finetune.PriceTrainer, "train", spy)
    fields = ["--base_model", base, "--data", out / "data", "--output", out, "--max_steps", 6]
    assert finetune.main([str(RECIPES / "smoke.yaml"), *map(str, fields)]) == 0
    assert [Path(path).name for path in resumed] == ["checkpoint-4"]
    assert json.loads((out / "metrics.json").read_text())["steps"] == 6


# Recipes --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_recipe_can_be_read(path):
    read, config = load_recipe([str(path), "--output", "elsewhere"])
    assert read.output == "elsewhere"
    assert Path(config.output_dir) == Path("elsewhere/checkpoints")
    given = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert read.base_model == given["base_model"]
    assert config.learning_rate == given["learning_rate"]


@pytest.mark.parametrize(
    ("content", "arguments", "words"),
    [
        (None, [], "There is no recipe"),
        ("colour: red\n", [], "cannot be used"),
        ("", ["--colour", "red"], "cannot be used"),
        ("loss: hinge\n", [], "loss"),
        ("rank: 0\n", [], "rank"),
        ("rank: [1\n", [], "cannot be used"),
        ("- just a list\n", [], "cannot be used"),
    ],
    ids=[
        "missing file",
        "unknown field",
        "unknown option",
        "unknown loss",
        "bad rank",
        "no YAML",
        "no mapping",
    ],
)
def test_wrong_recipe_is_one_sentence(tmp_path, capfd, content, arguments, words):
    path = tmp_path / "recipe.yaml"
    if content is not None:
        required = "" if content.startswith("-") else "base_model: base\ndata: data\noutput: out\n"
        path.write_text(required + content)
    assert finetune.main([str(path), *arguments]) == 2
    err = capfd.readouterr().err
    assert words in err
    assert "Traceback" not in err
    assert len([line for line in err.splitlines() if line.strip()]) == 1, err


def test_no_recipe_and_no_data(tmp_path, capsys, tiny_model_folder):
    assert finetune.main([]) == 2
    assert "Name a recipe first" in capsys.readouterr().err
    fields = [
        "--base_model",
        tiny_model_folder / "base",
        "--data",
        tmp_path / "none",
        "--output",
        tmp_path / "out",
    ]
    assert finetune.main([str(RECIPES / "smoke.yaml"), *map(str, fields)]) == 2
    assert "There is no training data" in capsys.readouterr().err


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
        digits = len(collator.lattice.paths[usd - 1])
        weight = batch["label_weight"][r][-len(written) :].tolist()
        assert weight == [1.0] * (digits + 1) + [0.25] * (len(written) - digits - 1)


def test_soft_targets_are_the_bells_shares(digit_tokenizer):
    torch.manual_seed(0)
    width = 0.3
    collator, _, batch = batch_of(digit_tokenizer, loss="soft-labels", soft_label_width=width)
    spelled = [digit_tokenizer.decode([int(column)]) for column in collator.columns]
    for r, usd in enumerate(PRICES_USD):
        centre = min(max(usd, 1), 999)
        bell = {n: math.exp(-0.5 * (math.log(n / centre) / width) ** 2) / n for n in range(1, 1000)}
        labels = batch["labels"][r].tolist()
        start = next(i for i, label in enumerate(labels) if label != -100)
        taught = digit_tokenizer.decode(labels[start:-1]).removesuffix(".00")
        for depth in range(len(taught) + 1):
            share = {}
            for n, mass in bell.items():
                if str(n).startswith(taught[:depth]):
                    following = f"{n}."[depth]
                    share[following] = share.get(following, 0.0) + mass
            total = sum(share.values())
            got = dict(zip(spelled, batch["soft"][r, start + depth].tolist(), strict=True))
            assert sum(got.values()) == pytest.approx(1, abs=1e-5)
            assert got == pytest.approx({s: share.get(s, 0.0) / total for s in spelled}, abs=1e-5)
        assert not batch["soft"][r, start + len(taught) + 1 :].any()  # only the digits' places are soft
        assert not batch["soft"][r, :start].any()


def test_soft_labels_teach_the_bell(digit_tokenizer):
    """The drawn prices are spread as the bell says: their mean log price is the bell's."""
    torch.manual_seed(0)
    collator, _, batch = batch_of(digit_tokenizer, [100.0] * 400, loss="soft-labels", soft_label_width=0.2)
    drawn = [
        float(digit_tokenizer.decode(labels[labels != -100][:-1].tolist())) for labels in batch["labels"]
    ]
    bell = collator._bell(100.0)
    expected = float((bell * np.log(np.arange(1, 1000))).sum())
    assert np.mean(np.log(drawn)) == pytest.approx(expected, abs=5 * 0.2 / math.sqrt(400))


@pytest.mark.parametrize("loss", LOSSES)
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


def test_causal_mask():
    real = torch.tensor([[0, 0, 1, 1], [1, 1, 1, 1]]).bool()
    mask = finetune.causal_mask(real)
    assert mask.shape == (2, 1, 4, 4)
    assert mask[0, 0].int().tolist() == [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 1, 1]]
    assert mask[1, 0].int().tolist() == [[1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0], [1, 1, 1, 1]]


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


def test_bad_recipe_values_are_refused():
    for fields in ({"precision": "int3"}, {"soft_label_width": 0}, {"max_text_tokens": 2}):
        with pytest.raises(InputError):
            recipe(**fields)
