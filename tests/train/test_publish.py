"""What goes to the Hub and what never does, against a fake Hub; and the card, from what was recorded."""

import json
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import yaml
from safetensors.numpy import save_file

import pricer.llama.hub
from pricer.arena.metrics import summarise
from pricer.arena.runs import Run, RunInfo, save_items, save_run
from pricer.llama.adapter import weights_sha256
from pricer.price.calibration import Calibration, Calibrations, fit
from pricer.price.distribution import PriceDistribution
from pricer.price.prior import load_prior
from train import publish
from train.card import base_licence, model_card
from train.publish import published_files

SECRET_TEXT = "zanzibar teapot with a chipped spout"
RECIPE = {
    "base_model": "meta-llama/Llama-3.2-3B@abc",
    "data": "/home/someone/listings/data",
    "output": "out/x",
    "start_from": "/home/someone/teachers/a",
    "teachers": ["/home/someone/teachers/a", "out/b"],
    "question": "What does this cost to the nearest dollar?",
    "max_text_tokens": 160,
    "rank": 8,
    "loss": "soft-labels",
    "learning_rate": 1e-4,
}
METRICS = {
    "date": "2026-01-02",
    "base_model": "meta-llama/Llama-3.2-3B@abc",
    "base_revision": "0123abc",
    "device": "Card 9000",
    "precision": "nf4",
    "seed": 7,
    "rows": 1234,
    "validation_rows": 56,
    "steps": 789,
    "resumed_from_step": 0,
    "seconds": 321.0,
    "processes": 2,
    "tokens_per_second": 4567.8,
    "peak_gpu_memory_gib": 21.5,
    "validation": {"error_usd": 98.765, "rmsle": 0.7654, "hits_pct": 43.21},
    "versions": {"torch": "2.13.0"},
}
DATA_CARD = {
    "splits": {
        "train": {
            "rows": 1234,
            "price_usd": {"q25": 10.0, "median": 41.5, "q75": 99.0},
            "categories": {"Toys_and_Games": 1000, "": 234},
            "sources": {"ed-donner/pricer-data": 1000, "raw_meta_Appliances": 200, "shop.csv": 34},
        },
        "validation": {"rows": 56, "price_usd": {}, "categories": {}, "sources": {}},
    }
}


@pytest.fixture
def folder(tmp_path):
    """An output folder of train.finetune, with what it must keep to itself."""
    out = tmp_path / "adapter"
    (out / "checkpoints" / "checkpoint-789").mkdir(parents=True)
    (out / "data").mkdir()
    save_file({"lora_A": np.ones((2, 2), np.float32)}, out / "adapter_model.safetensors")
    (out / "adapter_config.json").write_text(
        json.dumps({"base_model_name_or_path": "meta-llama/Llama-3.2-3B"})
    )
    (out / "pricer.json").write_text("{}")
    (out / "recipe.yaml").write_text(yaml.safe_dump(RECIPE))
    (out / "metrics.json").write_text(json.dumps(METRICS))
    (out / "data_card.json").write_text(json.dumps(DATA_CARD))
    (out / "README.md").write_text("an older card")
    for name in (
        "training_args.bin",
        "notes.pkl",
        "checkpoints/checkpoint-789/optimizer.pt",
        "data/train.parquet",
    ):
        (out / name).write_text(SECRET_TEXT)
    return out


@pytest.fixture
def runs(tmp_path):
    """One run of our own and one by others, on 40 items of their own."""
    price = np.arange(10.0, 410.0, 10.0)
    items = pd.DataFrame({"index": np.arange(40), "category": "Toys", "price_usd": price})
    save_items(tmp_path / "runs", items)
    for name, factor, published in (("ours", 1.3, False), ("theirs", 0.9, True)):
        info = RunInfo(name=name, label=f"Model {name}", kind="tuned", rule="median", published=published)
        save_run(
            tmp_path / "runs",
            Run(info, pd.DataFrame({"index": items["index"], "guess_usd": factor * price})),
        )
    return tmp_path / "runs"


def calibrate(folder, **changed) -> Calibration:
    rng = np.random.default_rng(0)
    distribution = PriceDistribution(rng.random((80, 999)))
    found = fit(distribution, rng.uniform(1, 999, 80), rule="median")
    fields = {"coverage": {0.9: 0.912}, "adapter_sha256": weights_sha256(folder)} | changed
    found = found.model_copy(update=fields)
    by_prior = Calibrations().with_one(load_prior("shop"), found).with_one(load_prior("benchmark"), found)
    by_prior.save(folder / "calibration.json")
    return found


class FakeHub:
    """huggingface_hub.HfApi as far as publishing needs it."""

    def __init__(self, error: Exception | None = None):
        self.error, self.repositories, self.files = error, {}, {}

    def create_repo(self, repository, *, repo_type, private, exist_ok):
        if self.error:
            raise self.error
        assert exist_ok and repo_type == "model"
        self.repositories[repository] = private

    def create_commit(self, repository, operations, *, commit_message, repo_type):
        assert repository in self.repositories and commit_message and repo_type == "model"
        for operation in operations:
            with operation.as_file() as file:
                self.files[operation.path_in_repo] = file.read()
        return SimpleNamespace(repo_url=f"https://hub.example/{repository}")


@pytest.fixture
def hub(monkeypatch):
    fake = FakeHub()
    monkeypatch.setattr(pricer.llama.hub, "HfApi", lambda: fake)
    monkeypatch.setattr(pricer.llama.hub, "get_token", lambda: "a token")
    return fake


# What goes up ---------------------------------------------------------------------------------------------

ALWAYS = {
    "README.md",
    "adapter_config.json",
    "adapter_model.safetensors",
    "data_card.json",
    "metrics.json",
    "pricer.json",
    "recipe.yaml",
}
RUN_FILES = {"runs/items.parquet"} | {
    f"runs/{n}.{e}" for n in ("ours", "theirs") for e in ("json", "parquet")
}


def test_everything_that_belongs_to_the_adapter_goes_up_and_nothing_else(folder, runs, hub, capsys):
    calibrate(folder)
    assert publish.main([str(folder), "--to", "someone/adapter", "--runs", str(runs), "--private"]) == 0
    assert "https://hub.example/someone/adapter" in capsys.readouterr().out
    assert hub.repositories == {"someone/adapter": True}
    assert set(hub.files) == ALWAYS | RUN_FILES | {"calibration.json"}
    assert hub.files["adapter_model.safetensors"] == (folder / "adapter_model.safetensors").read_bytes()
    everything = b"".join(hub.files.values())
    assert SECRET_TEXT.encode() not in everything
    assert b"/home/someone" not in everything
    shortened = {"data": "data", "start_from": "a", "teachers": ["a", "out/b"]}
    assert yaml.safe_load(hub.files["recipe.yaml"]) == RECIPE | shortened
    assert b"an older card" not in hub.files["README.md"]


def test_public_and_without_extras(folder, hub):
    assert publish.main([str(folder), "--to", "someone/adapter"]) == 0
    assert hub.repositories == {"someone/adapter": False}
    assert set(hub.files) == ALWAYS


def test_dry_run_shows_every_file_and_the_card_and_asks_nobody(folder, runs, monkeypatch, capsys):
    def nobody(*args):
        raise AssertionError("asked")

    monkeypatch.setattr(pricer.llama.hub, "HfApi", nobody)
    monkeypatch.setattr(pricer.llama.hub, "get_token", nobody)
    arguments = [str(folder), "--to", "someone/adapter", "--runs", str(runs), "--dry-run"]
    assert publish.main(arguments) == 0
    out = capsys.readouterr().out
    listed = dict(reversed(line.split()) for line in out.split("\n\nThe card:")[0].splitlines()[:-1])
    assert set(listed) == ALWAYS | RUN_FILES
    assert listed["metrics.json"] == f"{(folder / 'metrics.json').stat().st_size:,}"
    assert "# Product price adapter for meta-llama/Llama-3.2-3B" in out
    assert SECRET_TEXT not in out


# What is refused ------------------------------------------------------------------------------------------


def refused(capsys, *arguments) -> str:
    assert publish.main(list(map(str, arguments))) in (1, 2)
    out, err = capsys.readouterr()
    assert len(err.splitlines()) == 1, err
    return err


def test_without_a_token(folder, hub, monkeypatch, capsys):
    monkeypatch.setattr(pricer.llama.hub, "get_token", lambda: None)
    said = refused(capsys, folder, "--to", "someone/adapter")
    assert "`hf auth login`" in said and "HF_TOKEN" in said
    assert not hub.repositories


def test_a_hub_that_refuses_or_is_not_there(folder, hub, monkeypatch, capsys):
    refusal = RuntimeError("403 Client Error")
    refusal.response = SimpleNamespace(status_code=403)
    hub.error = refusal
    assert "token that may write" in refused(capsys, folder, "--to", "someone/adapter")
    hub.error = ConnectionError("no route\nto host")
    assert "check the network" in refused(capsys, folder, "--to", "someone/adapter")
    monkeypatch.undo()  # the real client, which tests keep offline
    monkeypatch.setattr(pricer.llama.hub, "get_token", lambda: "a token")
    assert "check the network" in refused(capsys, folder, "--to", "someone/adapter")


def test_a_folder_that_is_none(folder, hub, tmp_path, capsys):
    assert "no folder" in refused(capsys, tmp_path / "nowhere", "--to", "someone/adapter")
    for name in ("recipe.yaml", "adapter_model.safetensors"):
        (folder / name).unlink()
        assert f"holds no {name}" in refused(capsys, folder, "--to", "someone/adapter")
    assert "owner/name" in refused(capsys, folder, "--to", "adapter")
    assert not hub.repositories


@pytest.mark.parametrize("file", ["adapter_config.json", "recipe.yaml", "metrics.json"])
def test_a_damaged_file(folder, hub, capsys, file):
    (folder / file).write_text("{")
    assert "damaged" in refused(capsys, folder, "--to", "someone/adapter")


def test_a_file_that_is_too_large(folder, hub, monkeypatch, capsys):
    for limit, name in (("MAX_BYTES", "metrics.json"), ("MAX_WEIGHTS_BYTES", "adapter_model.safetensors")):
        with monkeypatch.context() as patch:
            patch.setattr(publish, limit, (folder / name).stat().st_size - 1)
            assert f"{name} has" in refused(capsys, folder, "--to", "someone/adapter")
    assert not hub.files


@pytest.mark.parametrize("file", ["adapter_config.json", "recipe.yaml"])
def test_a_base_that_others_do_not_have(folder, hub, capsys, file, tmp_path):
    path = folder / file
    path.write_text(path.read_text().replace("meta-llama/Llama-3.2-3B", str(tmp_path)))
    said = refused(capsys, folder, "--to", "someone/adapter")
    assert file in said and "Hub id" in said


def test_a_calibration_of_other_weights(folder, hub, capsys):
    calibrate(folder, adapter_sha256="0" * 64)
    assert "train.calibrate" in refused(capsys, folder, "--to", "someone/adapter")


def test_runs_that_are_none_or_hold_text(folder, runs, hub, tmp_path, capsys):
    arguments = [folder, "--to", "someone/adapter", "--runs"]
    (tmp_path / "empty").mkdir()
    assert "no evaluation runs" in refused(capsys, *arguments, tmp_path / "empty")
    items, run = (pd.read_parquet(runs / f"{name}.parquet") for name in ("items", "ours"))
    items.assign(text=SECRET_TEXT).to_parquet(runs / "items.parquet")
    assert "column text" in refused(capsys, *arguments, runs)
    items.to_parquet(runs / "items.parquet")
    run.assign(prompt=SECRET_TEXT).to_parquet(runs / "ours.parquet")
    assert "column prompt" in refused(capsys, *arguments, runs)
    assert not hub.files


# The card -------------------------------------------------------------------------------------------------


def test_the_card_says_what_was_recorded(folder, runs):
    calibration = calibrate(folder)
    card = model_card(folder, runs)
    front = yaml.safe_load(card.split("---")[1])
    assert front["base_model"] == "meta-llama/Llama-3.2-3B"
    assert front["license"] == "llama3.2"
    assert front["datasets"] == ["ed-donner/pricer-data"]
    for fact in (
        "1,234 rows, 789 steps, 321 s on 2 x Card 9000, base in nf4, loss soft-labels, seed 7, 2026-01-02.",
        "4,568 tokens/s, 21.5 GiB",
        "`0123abc`",
        "torch 2.13.0",
        "What does this cost to the nearest dollar?",
        "On the 56 rows of the validation split",
        "error $98.77, RMSLE 0.765, hits 43.2 %",
        f"- prior `shop`: {calibration.items} listings",
        f"- prior `benchmark`: {calibration.items} listings",
        "takes it to be the benchmark's",
        "90% interval 91.2%",
        "Toys and Games 1,000, not stated 234",
        "median $41.50",
        "- ed-donner/pricer-data (1,000): ",
        "- shop.csv (34): licence not recorded",
        "Built with Llama",
    ):
        assert fact in card, fact
    assert card.index("raw_meta_Appliances (200)") > card.index("ed-donner/pricer-data (1,000)")


def test_the_card_tabulates_runs_with_ours_first(folder, runs):
    price = np.arange(10.0, 410.0, 10.0)
    rows = [line for line in model_card(folder, runs).splitlines() if line.startswith("| Model")]
    assert rows[0].startswith("| Model ours |  | median | 40 |")
    assert rows[1].startswith("| Model theirs, as others published it |  | median | 40 |")
    for row, factor in zip(rows, (1.3, 0.9), strict=True):
        error = summarise(price, factor * price).error_usd
        assert f"| ${error.value:.2f} [{error.low:.2f}, {error.high:.2f}] |" in row


def test_the_card_of_a_folder_with_less(folder):
    (folder / "data_card.json").unlink()
    calibrate(folder, adapter_sha256="0" * 64)  # of the adapter that was here before
    (folder / "metrics.json").write_text(
        json.dumps(
            {k: v for k, v in METRICS.items() if k not in ("processes", "peak_gpu_memory_gib", "seed")}
        )
    )
    card = model_card(folder)
    assert "No data card was recorded" in card
    assert "Intervals were calibrated" not in card
    assert "GiB" not in card
    assert "datasets" not in yaml.safe_load(card.split("---")[1])


@pytest.mark.parametrize(
    ("base", "licence"),
    [
        ("HuggingFaceTB/SmolLM2-135M-Instruct", "apache-2.0"),
        ("meta-llama/Meta-Llama-3.1-8B", "llama3.1"),
        ("meta-llama/Llama-3.1-8B", "llama3.1"),
        ("meta-llama/Llama-3.2-3B", "llama3.2"),
        ("someone/else", "other"),
    ],
)
def test_the_adapters_licence_follows_its_base(base, licence):
    assert base_licence(base)[0] == licence


def test_the_shipped_adapter_could_be_published():
    from pricer.arena.runs import RUNS_FOLDER
    from pricer.settings import ASSETS

    files = published_files(ASSETS / "adapter", RUNS_FOLDER)
    assert {"adapter_model.safetensors", "runs/embedded-tuned.parquet", "README.md"} <= set(files)
