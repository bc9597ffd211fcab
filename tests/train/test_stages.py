"""Whole models, adapters that start from them, teachers, further rows: on a tiny random Llama."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import peft
import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from pricer.errors import InputError, SetupError
from pricer.files import file_sha256
from pricer.llama.base import load_base
from pricer.llama.pair import load_pair
from pricer.llama.predictor import Predictor
from pricer.settings import Limits, ModelRef, Settings
from train import finetune, teachers
from train.dataset import PriceCollator, build_dataset, row_weights
from train.recipe import Recipe, load_recipe
from train.rows import taught, training_rows, validation_rows
from train.start import input_moments, start_from
from train.trainer import PriceTrainer, dollar_figures

SMOKE = Path(__file__).parents[2] / "train" / "recipes" / "smoke.yaml"
SPLITS = {"train": 40, "validation": 12, "calibration": 9}
WORDS = [
    "lamp",
    "oak",
    "steel",
    "drill",
    "cup",
    "red",
    "battery",
    "garden",
    "shelf",
    "kettle",
    "rope",
    "tent",
    "brass",
    "wool",
]


def listings(count, seed) -> pd.DataFrame:
    choose = np.random.default_rng(seed)
    text = [f"{' '.join(choose.choice(WORDS, 12))} {seed}-{i}" for i in range(count)]
    price = np.round(5.25 + choose.integers(0, 490, count), 2)
    return pd.DataFrame({"text": text, "price": price, "source": f"shop-{seed}"})


def arguments(**fields) -> list[str]:
    words = [str(SMOKE)]
    for name, value in fields.items():
        words += [f"--{name}", *map(str, value if isinstance(value, list) else [value])]
    return words


def recipe(**fields) -> Recipe:
    return Recipe(**({"base_model": "base", "data": "data", "output": "out", "max_text_tokens": 48} | fields))


def record_of(folder) -> dict:
    return json.loads((folder / "metrics.json").read_text())


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """As train.prepare leaves it, as far as training reads it."""
    folder = tmp_path_factory.mktemp("stages") / "data"
    folder.mkdir()
    for seed, (split, count) in enumerate(SPLITS.items()):
        listings(count, seed).to_parquet(folder / f"{split}.parquet")
    splits = {
        split: {
            "rows": count,
            "price_usd": {"q25": 1.0, "median": 2.0, "q75": 3.0},
            "categories": {split.title(): count},
            "sources": {"x": count},
            "sha256": file_sha256(folder / f"{split}.parquet"),
        }
        for split, count in SPLITS.items()
    }
    (folder / "data_card.json").write_text(json.dumps({"splits": splits}))
    return folder


@pytest.fixture(scope="module")
def base(tiny_model_folder):
    return tiny_model_folder / "base"


@pytest.fixture(scope="module")
def full(base, data):
    """All weights of the tiny base, trained a little."""
    out = data.parent / "full"
    assert finetune.main(arguments(base_model=base, data=data, output=out, method="full")) == 0
    return out


@pytest.fixture(scope="module")
def linear(base, data):
    """Its linear layers alone, and far enough to tell."""
    out = data.parent / "linear"
    fields = {"base_model": base, "data": data, "output": out, "method": "full"}
    assert finetune.main(arguments(**fields, linear_only=True, learning_rate=1e-2)) == 0
    return out


def weights(folder):
    return load_file(folder / "model.safetensors")


def llama(folder):
    return load_base(Settings(ModelRef(str(folder)), ModelRef(""), ""), "cpu", "fp32")[0]


def logits(model):
    ids = torch.arange(3, 40)[None]
    with torch.inference_mode():
        return model(input_ids=ids).logits


# Whole models ---------------------------------------------------------------------------------------------


def test_all_weights_train_and_the_folder_is_a_model(full, base, data):
    before, after = weights(base), weights(full)
    assert before.keys() == after.keys()
    assert all(w.dtype == torch.float32 and not torch.equal(w, before[name]) for name, w in after.items())
    assert not list(full.glob("adapter*"))
    # Read again, it has the figures that training recorded.
    predictor = teachers.load_teacher(full, recipe(), "cpu", Limits())
    assert predictor.pair.adapter.max_text_tokens == 48
    rows = pd.read_parquet(data / "validation.parquet")
    found = predictor.predict([predictor.prepare(text) for text in rows["text"]], "tuned")
    distribution = type(found[0].distribution).stack([p.distribution for p in found])
    figures = dollar_figures(distribution, rows["price"].to_numpy())
    assert figures == pytest.approx(record_of(full)["validation"], abs=2e-4)
    with pytest.raises(ValueError, match="no 'base' pass"):
        predictor.predict([predictor.prepare("a lamp")], "base")


def test_the_card_of_a_whole_model(full, base):
    card = (full / "README.md").read_text(encoding="utf-8")
    front = yaml.safe_load(card.split("---")[1])
    assert front["library_name"] == "transformers" and front["base_model_relation"] == "finetune"
    assert f"{base}, fine-tuned as a whole to write" in card
    assert "LoRA" not in card and "lora" not in front["tags"]
    assert "shop-0 (40)" in card  # where the rows come from


def test_a_whole_model_goes_on_where_it_was_stopped(base, data, tmp_path, monkeypatch):
    fields = {"base_model": base, "data": data, "method": "full", "max_steps": 6, "dropout": 0}
    fields |= {"train_sampling_strategy": "group_by_length"}
    stopped, whole = tmp_path / "stopped", tmp_path / "whole"
    step = PriceTrainer.training_step

    def stop_at_five(self, *args, **kwargs):
        if self.state.global_step == 5:
            raise KeyboardInterrupt
        return step(self, *args, **kwargs)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(PriceTrainer, "training_step", stop_at_five)
        finetune.main(arguments(**fields, output=stopped))
    assert finetune.main(arguments(**fields, output=stopped)) == 0
    assert finetune.main(arguments(**fields, output=whole)) == 0
    assert record_of(stopped)["resumed_from_step"] == 4
    ended, wanted = weights(stopped), weights(whole)
    assert all(torch.equal(ended[name], wanted[name]) for name in wanted)


# Where an adapter starts ----------------------------------------------------------------------------------


def fresh(base, **fields):
    """The tiny base with a new adapter on it, and its recipe."""
    chosen = recipe(base_model=str(base), precision="fp32", dropout=0.0, **fields)
    return peft.get_peft_model(llama(base), finetune.lora(chosen)), chosen


@pytest.mark.parametrize("rslora", [False, True])
def test_a_cut_of_full_rank_is_the_full_model(base, linear, rslora):
    left = {name for name, w in weights(linear).items() if torch.equal(w, weights(base)[name])}
    assert left == {name for name in weights(base) if "_proj" not in name}
    model, chosen = fresh(base, rank=64, alpha=24, rslora=rslora, start_from=str(linear))
    assert torch.equal(logits(model), logits(llama(base)))  # at first it changes nothing
    start_from(model, chosen)
    off = (logits(llama(base)) - logits(llama(linear))).abs().max()
    assert (logits(model) - logits(llama(linear))).abs().max() < 1e-4 < off / 100


def test_a_lower_rank_is_the_best_approximation(base, linear):
    model, chosen = fresh(base, rank=3, alpha=12, start_from=str(linear))
    start_from(model, chosen)
    for name in ("self_attn.k_proj", "mlp.down_proj"):
        key = f"model.layers.1.{name}.weight"
        difference = weights(linear)[key] - weights(base)[key]
        layer = model.get_submodule(f"base_model.model.model.layers.1.{name}")
        a, b = layer.lora_A["default"].weight.data, layer.lora_B["default"].weight.data
        best = torch.linalg.svdvals(difference)[3:].norm()
        assert float((difference - 4.0 * b @ a).norm()) == pytest.approx(float(best), rel=1e-3)
        torch.testing.assert_close(a @ a.T, b.T @ b, rtol=1e-3, atol=1e-5)  # evenly shared out


def test_an_adapter_goes_on_from_an_adapter(base, tiny_model_folder, tmp_path):
    shape = {"rank": 4, "alpha": 8, "target_modules": ["q_proj", "v_proj", "down_proj"]}
    model, chosen = fresh(base, **shape, start_from=str(tiny_model_folder / "adapter"))
    start_from(model, chosen)
    given = peft.PeftModel.from_pretrained(llama(base), tiny_model_folder / "adapter")
    torch.testing.assert_close(logits(model), logits(given))
    for wrong in ({"rank": 8}, {"alpha": 16}, {"target_modules": ["q_proj"]}):
        model, other = fresh(base, **(shape | wrong), start_from=chosen.start_from)
        with pytest.raises(InputError, match="does not fit the recipe: .*rank \\(4 there\\)"):
            start_from(model, other)
    broken = shutil.copytree(tiny_model_folder / "adapter", tmp_path / "broken")
    weights = load_file(broken / "adapter_model.safetensors")
    save_file({name: w * float("nan") for name, w in weights.items()}, broken / "adapter_model.safetensors")
    model, other = fresh(base, **shape, start_from=str(broken))
    with pytest.raises(SetupError, match="NaN or infinity in 12 tensors .*start_from"):
        start_from(model, other)
    (broken / "adapter_model.safetensors").write_bytes(b"torn")
    with pytest.raises(SetupError, match="cannot be loaded .*start_from"):
        start_from(model, other)


def test_a_start_that_does_not_fit(base, full, llama3_pair, tmp_path):
    other = llama(base)
    other.config.num_hidden_layers = 1
    other.model.layers = other.model.layers[:1]
    other.save_pretrained(tmp_path / "shallow")
    (tmp_path / "shallow" / "tokenizer.json").write_bytes((base / "tokenizer.json").read_bytes())
    model, chosen = fresh(base, start_from=str(tmp_path / "shallow"))
    with pytest.raises(InputError, match="is no fine-tune of"):
        start_from(model, chosen)
    model, chosen = fresh(base, start_from=str(full), dora=True)
    with pytest.raises(InputError, match="switch dora off"):
        start_from(model, chosen)


# Teachers -------------------------------------------------------------------------------------------------


def test_with_examples_the_cut_keeps_what_layers_put_out(base, full):
    """Of all cuts of one rank the one by examples changes a layer's outputs on them least."""
    examples = [[5, 6, 7, 8, 9, 10], [11, 12, 13, 5]] * 3
    off = {}
    for given in ((), examples):
        chosen = recipe(base_model=str(base), start_from=str(full), rank=2, alpha=2)
        llama, _ = load_base(Settings(ModelRef(str(base)), ModelRef(""), ""), "cpu", "fp32")
        model = peft.get_peft_model(llama, finetune.lora(chosen))
        start_from(model, chosen, given)
        tuned, _ = load_base(Settings(ModelRef(str(full)), ModelRef(""), ""), "cpu", "fp32")
        moments = input_moments(tuned, chosen.target_modules, examples)
        wrong = 0.0
        for name, moment in moments.items():
            layer = model.get_base_model().get_submodule(name.removesuffix(".weight"))
            got = layer.get_base_layer().weight + layer.get_delta_weight("default")
            missed = tuned.get_parameter(name) - got
            wrong += float((missed @ moment * missed).sum())
        off[bool(given)] = wrong
    assert off[True] < off[False]


def test_a_student_of_two_teachers(base, data, full, tiny_model_folder, tmp_path, monkeypatch, capsys):
    """A whole model and an adapter teach; the labels, the unlabelled texts and the extra rows arrive; a second start
    scores nothing again."""
    listings(5, 7).drop(columns="price").to_csv(tmp_path / "texts.csv", index=False)
    listings(6, 8).to_csv(tmp_path / "extra.csv", index=False)
    out = tmp_path / "student"
    fields = {"base_model": base, "data": data, "output": out, "start_from": full, "max_rows": 20}
    fields |= {"teachers": [full, tiny_model_folder / "adapter"], "unlabelled": [tmp_path / "texts.csv"]}
    command = arguments(**fields, extra_data=tmp_path / "extra.csv")
    assert finetune.main(command) == 0
    record = record_of(out)
    assert [record[name] for name in ("rows", "extra_rows", "unlabelled_rows")] == [20, 6, 5]
    assert record["sources"] == {"shop-0": 20, "shop-8": 6, "shop-7": 5}
    card = (out / "README.md").read_text(encoding="utf-8")
    for fact in (
        "mean of 2 teachers",
        "starts from a model",
        "6 further priced rows count 0.3 each",
        "5 further texts",
    ):
        assert fact in card
    settings = {"PRICER_BASE_MODEL": str(base), "PRICER_ADAPTER": str(out), "PRICER_DEVICE": "cpu"}
    load_pair(Settings.from_env(settings))

    (lessons,) = (out / "teachers").glob("lessons-*.npy")
    kept = sorted({*(out / "teachers").glob("*.npy")} - {lessons})
    assert len(kept) == 2
    assert all(np.load(path).shape == (31, 999) and np.load(path).dtype == np.float16 for path in kept)
    monkeypatch.setattr(teachers, "load_teacher", lambda *_: pytest.fail("scored again"))
    assert finetune.main(command) == 0
    for damaged in (lessons, kept[0]):  # a damaged one is
        damaged.write_bytes(damaged.read_bytes()[:5000])
    with pytest.raises(pytest.fail.Exception):
        finetune.main(command)
    assert finetune.main(arguments(**fields | {"teachers": [tmp_path]})) == 2
    assert "holds no model" in capsys.readouterr().err


def test_teachers_are_averaged(base, full, tiny_model_folder, tmp_path):
    names = [str(full), str(tiny_model_folder / "adapter")]
    texts = listings(3, 5)["text"]
    chosen = recipe(base_model=str(base), loss="soft-labels", teachers=names, output=str(tmp_path))
    mean = teachers.teach(chosen, texts, "cpu", Limits())
    assert mean.dtype == np.float16 and mean.shape == (3, 999)
    settings = {"PRICER_BASE_MODEL": str(base), "PRICER_ADAPTER": names[1], "PRICER_DEVICE": "cpu"}
    adapter = Predictor(load_pair(Settings.from_env(settings)))
    whole = teachers.load_teacher(full, chosen, "cpu", Limits())
    for i, text in enumerate(texts):
        alone = [p.predict([p.prepare(text)], "tuned")[0].distribution.conditional for p in (adapter, whole)]
        assert np.abs(mean[i] - np.mean(alone, axis=0)).max() < 1e-3


def bell(usd, width) -> np.ndarray:
    prices = np.arange(1, 1000)
    found = np.exp(-0.5 * (np.log(prices / usd) / width) ** 2) / prices
    return found / found.sum()


def test_what_is_taught_is_bell_and_teacher_by_weight(digit_tokenizer):
    chosen = recipe(loss="soft-labels", soft_label_width=0.2, teachers=["x"], teacher_weight=0.7)
    rows = pd.DataFrame(
        {
            "text": ["lamp", "drill", "cup"],
            "price": [80.0, 300.0, np.nan],
            "part": ["rows", "extra_rows", "unlabelled_rows"],
            "weight": [2.0, 0.3, 0.0],
            "teacher_weight": [0.7, 0.21, 0.7],
        }
    )
    teacher = np.random.default_rng(0).random((3, 999)).astype(np.float16)
    mixed = taught(rows, teacher, np.array([50.0, 100.0]), chosen)
    assert mixed["weight"].tolist() == pytest.approx(np.array([2.7, 0.51, 0.7]) / np.mean([2.7, 0.51, 0.7]))
    share = [0.7 / 2.7, 0.21 / 0.51, 1.0]
    assert mixed["teacher_share"].tolist() == pytest.approx(share)

    dataset = build_dataset(mixed, mixed["weight"].to_numpy(), digit_tokenizer, chosen)
    collator = PriceCollator(digit_tokenizer, chosen, teacher=teacher)
    records = [dataset[i] for i in (2, 0, 1)]  # by the row's number, not by its place in the batch
    said = teacher.astype(float) / teacher.astype(float).sum(axis=1, keepdims=True)
    wanted = [(1 - s) * bell(usd, 0.2) + s * t for s, usd, t in zip(share, (80, 300, 1), said, strict=True)]
    assert np.abs(collator.target(records) - np.array(wanted)[[2, 0, 1]]).max() < 1e-12
    # At the root the tokens' shares are those of the prices' first digits.
    first = np.array([str(price)[0] for price in range(1, 1000)])
    batch = collator(records)
    for row, target in zip(batch["soft"][:, 0], np.array(wanted)[[2, 0, 1]], strict=True):
        for column, got in zip(collator.columns, row.tolist(), strict=True):
            assert got == pytest.approx(target[first == digit_tokenizer.decode([column])].sum(), abs=1e-6)
    assert torch.equal(collator(records)["labels"], batch["labels"])
    collator.epoch = 1
    drawn = [collator(records)["labels"] for collator.epoch in range(1, 6)]
    assert any(not torch.equal(labels, batch["labels"]) for labels in drawn)


def test_unlabelled_texts_count_by_the_price_that_teachers_give_them():
    chosen = recipe(loss="soft-labels", teachers=["x"], match_prices=True)
    prices = [20] * 6 + [400] * 2
    rows = pd.DataFrame({"text": ["x"] * 8, "price": np.nan, "part": "unlabelled_rows", "weight": 0.0})
    teacher = np.stack([bell(usd, 0.1) for usd in prices]).astype(np.float16)
    target = np.array([20.0] * 30 + [400.0] * 70)
    found = taught(rows.assign(teacher_weight=0.7), teacher, target, chosen)
    assert (found["teacher_share"] == 1).all()
    assert found["weight"].mean() == pytest.approx(1)
    assert found["weight"][7] > 3 * found["weight"][0] > 0
    # A price that the target does not have counts nothing, which is no error.
    none = taught(rows.assign(teacher_weight=0.7), teacher, np.array([400.0]), chosen)
    assert none["weight"][0] == 0 and none["teacher_share"].notna().all()


# Rows -----------------------------------------------------------------------------------------------------


def test_extra_rows_have_their_own_weights(data, tmp_path):
    extra = tmp_path / "extra"
    extra.mkdir()
    listings(30, 9).to_parquet(extra / "train.parquet")
    chosen = recipe(match_prices=True, extra_data=str(extra), extra_weight=0.2, train_splits=["train"])
    target = np.array([20.0, 100.0, 300.0])
    rows = training_rows(chosen, data, target, seed=0)
    own, more = (rows[rows["part"] == part] for part in ("rows", "extra_rows"))
    assert (len(own), len(more)) == (40, 30)
    plain = row_weights(pd.read_parquet(data / "train.parquet"), target, chosen)
    assert own["weight"].tolist() == pytest.approx(plain.tolist())
    matched = row_weights(pd.read_parquet(extra / "train.parquet"), target, chosen)
    assert more["weight"].tolist() == pytest.approx((0.2 * matched).tolist())
    assert more["weight"].mean() == pytest.approx(0.2) and more["weight"].nunique() > 1
    assert more["teacher_weight"].to_numpy() == pytest.approx(0.2 * chosen.teacher_weight)


@pytest.mark.parametrize(
    ("weight", "words"),
    [
        ("", "extra.csv: row 4, column weight: an empty cell is no number"),
        ("much", "extra.csv: row 4, column weight: “much” is no number"),
        ("-1", "extra.csv: row 4, column weight: “-1” is below 0"),
        ("inf", "extra.csv: row 4, column weight: “inf” is no number"),
    ],
)
def test_a_row_without_a_weight_is_named(data, tmp_path, weight, words):
    table = listings(6, 9).assign(weight="1")
    table.loc[3, "weight"] = weight
    table.to_csv(tmp_path / "extra.csv", index=False)
    chosen = recipe(extra_data=str(tmp_path / "extra.csv"))
    with pytest.raises(InputError, match=words):
        training_rows(chosen, data, np.array([20.0]), seed=0)
    table.assign(weight=0).to_csv(tmp_path / "extra.csv", index=False)
    with pytest.raises(InputError, match="No row of extra.csv has a weight above 0"):
        training_rows(chosen, data, np.array([20.0]), seed=0)


def test_a_last_run_on_more_splits_and_what_its_card_says(base, data, tmp_path):
    fields = {"base_model": base, "data": data, "output": tmp_path, "max_rows": 0, "max_steps": 1}
    more = {"train_splits": ["train", "validation"], "validation_split": "calibration"}
    assert finetune.main(arguments(**fields, **more)) == 0
    record = record_of(tmp_path)
    assert (record["rows"], record["validation_rows"]) == (52, 9)
    card = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert "On the 9 rows of the calibration split" in card
    assert "Training was on train and validation; none of these rows was trained on" in card
    assert "Train 40, Validation 12." in card  # categories
    read, _ = load_recipe([str(tmp_path / "recipe.yaml")])
    assert read.train_splits == ["train", "validation"] and read.validation_split == "calibration"


def test_a_model_that_knows_the_validation_rows_teaches_nobody(base, data, full, tmp_path):
    knows = tmp_path / "knows"
    knows.mkdir()
    (knows / "recipe.yaml").write_text(yaml.safe_dump({"train_splits": ["train", "calibration"]}))
    (knows / "data_card.json").write_bytes((data / "data_card.json").read_bytes())
    for place in (
        {"teachers": [str(full), str(knows)]},
        {"start_from": str(knows)},
        {"base_model": str(knows)},
    ):
        chosen = recipe(**place, loss="soft-labels", validation_split="calibration")
        with pytest.raises(InputError, match="was trained on the calibration rows"):
            validation_rows(chosen, data)
        assert len(validation_rows(recipe(**place, loss="soft-labels"), data)) == 12


def test_no_rows_to_judge_by(data, tmp_path):
    pd.read_parquet(data / "train.parquet").head(0).to_parquet(tmp_path / "validation.parquet")
    with pytest.raises(InputError, match="validation of .* has no rows"):
        validation_rows(recipe(), tmp_path)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"method": "half"}, "lora or full"),
        ({"method": "full"}, "set precision to fp32"),
        ({"method": "full", "precision": "fp32", "start_from": "x"}, "name it in base_model"),
        ({"train_splits": ["train", "validation"]}, "The split validation is in train_splits"),
        ({"train_splits": ["train", "test"]}, "not \\['test'\\]"),
        ({"train_splits": []}, "train_splits and validation_split take"),
        ({"teachers": ["x"]}, "set it to soft-labels"),
        ({"teachers": "x", "loss": "soft-labels"}, "must be a list: \\[x\\]"),
        ({"unlabelled": ["x"]}, "name teachers"),
        ({"extra_weight": 0}, "must be above 0"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_recipes_that_contradict_themselves(fields, words):
    with pytest.raises(InputError, match=words):
        recipe(**fields)


def test_an_empty_word_switches_a_list_off():
    read, _ = load_recipe(arguments(base_model="b", teachers=[""], unlabelled=[""]))
    assert read.teachers == read.unlabelled == []
