"""Pretraining on a tiny random Llama: what a step holds, that it learns, goes on, and is the same on two processes."""

import json
import socket
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from pricer.prompt import build_prompt
from tests import programs
from tests.processes import ended, fork
from train import pretrain
from train.prompts import prompt_ids

ROOT = Path(__file__).parents[2]
RECIPE = ROOT / "train" / "recipes" / "smollm2-135m-pretrain.yaml"
WORDS = ["lamp", "oak", "steel", "drill", "cup", "red", "battery", "garden", "shelf", "kettle"]


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    choose = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("texts") / "texts.parquet"
    lines = [f"{' '.join(choose.choice(WORDS, choose.integers(2, 9)))}\nfor the garden" for _ in range(60)]
    pd.DataFrame({"text": lines}).to_parquet(path)
    return path


def arguments(base, texts, output, **fields) -> list[str]:
    fields = {
        "base_model": base,
        "texts": texts,
        "output": output,
        "step_tokens": 400,
        "epochs": 2,
        "logging_steps": 1,
        "max_text_tokens": 40,
    } | fields
    return [str(RECIPE), *(str(word) for name, value in fields.items() for word in (f"--{name}", value))]


@pytest.fixture(scope="module")
def read(tiny_model_folder, texts, tmp_path_factory):
    """A finished run: (base, its output)."""
    out = tmp_path_factory.mktemp("pretrained") / "out"
    assert pretrain.main(arguments(tiny_model_folder / "base", texts, out)) == 0
    return tiny_model_folder / "base", out


def test_it_learns_and_trains_what_an_adapter_can_carry(read):
    base, out = read
    record = json.loads((out / "metrics.json").read_text())
    losses = [loss for _, loss in record["loss"]]
    assert np.mean(losses[-3:]) < np.mean(losses[:3]) - 0.05
    assert record["texts"] == 60 and record["steps"] == len(losses)
    assert record["padding"] < 0.1
    before, after = (load_file(folder / "model.safetensors") for folder in (base, out))
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed and all(name.split(".")[-2].endswith("_proj") for name in changed)
    assert (out / "tokenizer.json").is_file()


def test_all_weights_if_asked(read, texts, tmp_path):
    base, _ = read
    assert pretrain.main(arguments(base, texts, tmp_path / "out", linear_only=False, epochs=1)) == 0
    before, after = (load_file(folder / "model.safetensors") for folder in (base, tmp_path / "out"))
    assert not torch.equal(before["model.embed_tokens.weight"], after["model.embed_tokens.weight"])


def test_started_again_it_goes_on_behind_the_last_pass(read, texts, tmp_path, monkeypatch):
    base, whole = read
    save = pretrain.save_checkpoint

    def save_and_die(*args):
        save(*args)
        raise KeyboardInterrupt

    monkeypatch.setattr(pretrain, "save_checkpoint", save_and_die)
    with pytest.raises(KeyboardInterrupt):
        pretrain.main(arguments(base, texts, tmp_path / "out"))
    monkeypatch.undo()
    assert pretrain.main(arguments(base, texts, tmp_path / "out")) == 0
    record = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert 0 < record["resumed_from_step"] < record["steps"]
    once, twice = (load_file(folder / "model.safetensors") for folder in (whole, tmp_path / "out"))
    for name, tensor in once.items():
        torch.testing.assert_close(twice[name], tensor, rtol=1e-4, atol=1e-5)


def test_two_processes_share_a_step(read, texts, tmp_path):
    base, whole = read
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    # What torchrun gives to each.
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    command = arguments(base, texts, tmp_path / "out")
    two = [fork(programs.read, *command, **shared, RANK=rank, LOCAL_RANK=rank) for rank in ("0", "1")]
    for process in two:
        code, printed = ended(process)
        assert code == 0, printed
    record = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert record["processes"] == 2
    alone = json.loads((whole / "metrics.json").read_text())
    assert record["loss"][-1][1] == pytest.approx(alone["loss"][-1][1], abs=0.3)


def test_a_pass_has_every_text_once_in_steps_of_like_size():
    lengths = np.random.default_rng(0).integers(20, 240, 5000)
    for processes in (1, 4):
        steps = pretrain.batches(lengths, 4096, processes, seed=0, epoch=1)
        assert all(len(step) == processes for step in steps)
        seen = np.concatenate([texts for step in steps for texts in step])
        assert len(seen) == len(set(seen.tolist())) and len(seen) > 0.97 * len(lengths)
        places = [len(texts) * lengths[texts].max() for step in steps for texts in step]
        assert max(places) <= 4096 and np.median(places) > 3800
        real = [lengths[texts].sum() for step in steps for texts in step]
        assert sum(real) / sum(places) > 0.96
    assert str(steps) != str(pretrain.batches(lengths, 4096, 4, seed=0, epoch=2))
    assert str(steps) == str(pretrain.batches(lengths, 4096, 4, seed=0, epoch=1))


def test_prompts_are_those_of_build_prompt(digit_tokenizer, llama3_tokenizer):
    texts = ["a b", "lamp " * 200, "x" * 3000, "😀" * 200, "one\ntwo three   " * 30, "12" * 90]
    for tokenizer in (digit_tokenizer, llama3_tokenizer):
        for budget in (8, 40):
            found = prompt_ids(texts, tokenizer, question="How?", max_text_tokens=budget)
            for text, ids in zip(texts, found, strict=True):
                prompt = build_prompt(text, tokenizer, question="How?", max_text_tokens=budget).text
                assert ids.tolist() == tokenizer(prompt)["input_ids"]


def test_faults_are_sentences(texts, tmp_path, capsys):
    assert pretrain.main([]) == 2
    assert "Name a recipe first" in capsys.readouterr().err
    assert pretrain.main(arguments("base", texts, tmp_path / "out", epochs=0)) == 2
    assert "at least 1" in capsys.readouterr().err
