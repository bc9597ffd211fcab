"""The benchmarks of training still run: on a tiny shape, on the CPU."""

import json
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from transformers import TrainerCallback

from bench import shape_8b, train_8b, train_gpus, train_speed
from bench.products import products
from bench.shape_8b import LLAMA_31_8B
from bench.train_8b import RECIPES

SMALL = "--per_device_train_batch_size 2 --gradient_accumulation_steps 2 --save_strategy no --load_best_model_at_end False"


@pytest.fixture(scope="module")
def tokenizer_folder(llama3_tokenizer):
    return Path(llama3_tokenizer.name_or_path)


@pytest.fixture
def tiny_bench(tmp_path, llama3_tokenizer):
    data = tmp_path / "data"
    data.mkdir()
    rows = products(12, llama3_tokenizer)
    rows[:8].to_parquet(data / "train.parquet")
    rows[8:].to_parquet(data / "validation.parquet")
    base = shape_8b.random_base(shape_8b.SHAPES["tiny"], "cpu", "fp32", tmp_path / "base")
    return train_8b.Bench(base, llama3_tokenizer, data, tmp_path, 4, 0, SMALL.split())


def test_each_recipe_trains_saves_loads_and_scores(tokenizer_folder, tmp_path, capsys):
    arguments = ["--tokenizer", str(tokenizer_folder), "--out", str(tmp_path), "--shape", "tiny"]
    assert train_8b.main([*arguments, "--steps", "4", "--items", "3", *SMALL.split()]) == 0
    results = json.loads((tmp_path / "results.json").read_text())
    assert [r["recipe"] for r in results] == [Path(path).stem for path in RECIPES]
    for r in results:
        assert r["steps"] == 4 and r["timed_steps"] == 2 and r["scored_items"] == 3
        assert r["loaded_again_off_by"] <= 1e-6  # the same weights on the same machine
        assert r["moved_by_training"] > 1e-5  # so that being the same says something
        # 2 x 2 rows a step, each of 60 to 160 tokens of text in its prompt.
        assert 60 < r["tokens_per_second"] / r["rows_per_second"] < 185
        assert r["tokens_per_second"] <= r["tokens_per_second_with_padding"]
        assert "fits" not in r  # there is no card to fit on
    printed = capsys.readouterr().out
    assert printed.count("\n| llama-3.1-8b") == 2


def test_a_recipe_that_does_not_fit_is_tried_again_with_all_of_the_card(tiny_bench, tmp_path, monkeypatch):
    class Full(TrainerCallback):
        def on_step_end(self, *_, **__):
            raise torch.OutOfMemoryError("CUDA out of memory.")

    tries = []

    def run(recipe, config, loaded, callbacks):
        assert not any("lora" in name for name, _ in loaded[0].named_modules())  # bare at each start
        tries.append(loaded)
        return whole(recipe, config, loaded, [*callbacks, *([Full()] if len(tries) == 1 else [])])

    whole = train_8b.run
    monkeypatch.setattr(train_8b, "run", run)
    monkeypatch.setattr(train_8b, "memory_limit", lambda gigabytes: nullcontext())
    tiny_bench.memory_gb = 24.0
    found = tiny_bench.measure(Path(RECIPES[0]))
    assert len(tries) == 2
    assert found["fits"] is False and found["steps"] == 4 and found["loaded_again_is_the_same"]


def test_an_adapter_that_changes_on_its_way_to_the_file_is_noticed(tiny_bench, monkeypatch):
    from safetensors.torch import load_file, save_file

    def spoil(recipe, config, loaded, callbacks):
        record = whole(recipe, config, loaded, callbacks)
        file = Path(recipe.output) / "adapter_model.safetensors"
        save_file({name: tensor * 30 for name, tensor in load_file(file).items()}, file)
        return record

    whole = train_8b.run
    monkeypatch.setattr(train_8b, "run", spoil)
    assert not tiny_bench.measure(Path(RECIPES[1]))["loaded_again_is_the_same"]


@pytest.fixture
def speed_arguments(tokenizer_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(train_speed, "TRAIN_ROWS", 24)
    monkeypatch.setattr(train_speed, "VALIDATION_ROWS", 2)
    arguments = ["--tokenizer", str(tokenizer_folder), "--out", str(tmp_path), "--shape", "tiny"]
    return [*arguments, "--steps", "4", "--per_device_train_batch_size", "2"]


def test_the_seeds_recipe_in_trl_is_measured_beside_ours(speed_arguments, tmp_path, capsys):
    """TRL first, which leaves the base as it was: ours learns from the same loss as on a fresh one."""
    own = f"own={RECIPES[0]} {train_speed.LEAN} --lean false"
    names = ["trl-seed", "lean-seed-modules", "dequantised-8", own + " --dequantise true"]
    assert train_speed.main([*speed_arguments, "--variants", *names]) == 0
    results = json.loads((tmp_path / "results.json").read_text())
    assert [r["variant"] for r in results] == ["trl-seed", "lean-seed-modules", "dequantised-8", "own"]
    assert [r["lora_on"] for r in results] == [4, 4, 7, 7]
    for r in results:
        assert r["steps"] == 4 and r["timed_steps"] == 2 and r["share_of_limit"] > 0
        assert r["times_the_first"] == pytest.approx(
            r["tokens_per_second"] / results[0]["tokens_per_second"], abs=1e-3
        )
        assert 60 < r["tokens_per_second"] / r["rows_per_second"] < 185
    trl, seed, dequantised, plain = results
    assert trl["loss_first"] == pytest.approx(seed["loss_first"], rel=0.1)  # TRL has an end token too
    # fp32 here, so both ways are the same to rounding.
    assert dequantised["loss_last"] == pytest.approx(plain["loss_last"], rel=1e-4)
    assert capsys.readouterr().out.count("\n| ") == 5  # the header's row and four more


@pytest.mark.parametrize(
    ("error", "word", "code"),
    [
        (torch.OutOfMemoryError("CUDA out of memory."), "does not fit", 0),
        (RuntimeError("no compiler"), "RuntimeError", 1),
    ],
)
def test_a_variant_that_fails_is_said_to(speed_arguments, tmp_path, monkeypatch, capsys, error, word, code):
    class Full(TrainerCallback):
        def on_step_end(self, *_, **__):
            raise error

    def run(recipe, config, loaded, callbacks):
        assert not any("lora" in name for name, _ in loaded[0].named_modules())  # bare at each start
        return whole(
            recipe, config, loaded, [*callbacks, *([Full()] if recipe.output.endswith("-64") else [])]
        )

    whole = train_speed.run
    monkeypatch.setattr(train_speed, "run", run)
    assert train_speed.main([*speed_arguments, "--variants", "lean-64", "lean"]) == code
    full, fits = json.loads((tmp_path / "results.json").read_text())
    assert full["failed"] == f"{word}: {error}" and "tokens_per_second" not in full
    assert fits["steps"] == 4 and "times_the_first" not in fits
    assert f"| lean-64 | 2 | 7 of 7 | no | {word} |" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("variants", "words"),
    [(["leen"], "no variant leen"), (["dequantised-8", "lean"], "before the dequantised")],
)
def test_variants_that_cannot_be_measured_are_refused(speed_arguments, capsys, variants, words):
    assert train_speed.main([*speed_arguments, "--variants", *variants]) == 2
    assert words in capsys.readouterr().err


def test_the_limit_counts_the_weights_that_every_token_meets():
    assert train_speed.linear_weights(LLAMA_31_8B) == 32 * (2 * 4096 * (4096 + 1024) + 3 * 4096 * 14336)


def test_the_shape_is_llamas():
    with torch.device("meta"):
        llama = shape_8b.LlamaForCausalLM(shape_8b.LlamaConfig(**LLAMA_31_8B))
    assert sum(parameter.numel() for parameter in llama.parameters()) == 8_030_261_248  # as its page says


def test_products_are_as_long_as_said_and_their_prices_follow_from_the_words(llama3_tokenizer):
    rows = products(60, llama3_tokenizer, seed=3)
    lengths = [len(llama3_tokenizer(text, add_special_tokens=False)["input_ids"]) for text in rows["text"]]
    assert min(lengths) >= 60 and max(lengths) < 220 and sum(n > 160 for n in lengths) >= 3
    assert rows["price"].between(1, 999).all()
    dear = rows["text"].str.contains("graphics card|robot vacuum")
    cheap = rows["text"].str.contains("phone case|bath mat")
    assert rows["price"][dear].min() > rows["price"][cheap].max()


def test_step_times_come_from_the_log_without_the_warm_up(tmp_path):
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(tmp_path / "runs" / "now") as writer:
        for step in range(1, 12):
            wall = 1000 + (0.5 * step if step >= train_gpus.WARM_UP else 9 * step - 100)
            writer.add_scalar("train/loss", 1.0, step, walltime=wall)
    assert train_gpus.seconds_per_step(tmp_path) == pytest.approx(0.5)
