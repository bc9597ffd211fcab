"""Killed, out of disk, damaged, without the Hub: each ends in one sentence, and nothing that was whole is lost."""

import json
import logging
import os
import random
import resource
import shutil
import signal
import socket
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path

import datasets
import numpy as np
import pandas as pd
import pytest

from pricer.arena import runs
from pricer.arena.arena import Arena
from pricer.arena.runs import load_run
from pricer.errors import SetupError
from pricer.llama import hub
from pricer.llama.pair import load_pair
from pricer.settings import Settings
from pricer.ui import build_demo
from pricer.ui.evaluate import text
from tests.processes import ended, fork
from tests.programs import evaluate_and_die
from train import evaluate, finetune, prepare

ROOT = Path(__file__).parents[1]
SYLLABLES = [consonant + vowel for consonant in "bdfgklmnprstvz" for vowel in "aeiou"]
SMOKE = ROOT / "train" / "recipes" / "smoke.yaml"


pytestmark = pytest.mark.usefixtures("tiny_environment")


@contextmanager
def full_disk(file_bytes):
    """No file can grow beyond so many bytes: a write then fails as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def sentence(capsys):
    """The last line on standard error, behind progress bars, which is all that a command says in the end."""
    printed = capsys.readouterr().err
    assert "Traceback" not in printed
    [*_, last] = (line for part in printed.splitlines() if (line := part.rpartition("it/s]")[2].strip()))
    assert last.endswith("."), last
    return last


def content(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and "checkpoints" not in path.parts and path.name != "manifest.json"
    }


def products(count):
    """Made-up listings that no cleaning leaves out."""

    def words(seed, number):
        choose = random.Random(seed)
        return " ".join("".join(choose.choices(SYLLABLES, k=3)) for _ in range(number))

    rows = [(words(1000 + i, 6), words(i, 50), round(5.25 + i * 37 % 490, 2)) for i in range(count)]
    return pd.DataFrame(rows, columns=["title", "description", "price"])


# Evaluation ----------------------------------------------------------------------------------------------


@pytest.fixture
def items(tmp_path):
    table = products(12).assign(text=lambda t: t["title"] + "\n" + t["description"])
    table[["text", "price"]].to_csv(tmp_path / "items.csv", index=False)
    return ["--items", str(tmp_path / "items.csv"), "--passes", "tuned", "--name", "tiny"]


def test_evaluation_killed_goes_on_as_if_never_killed(items, tmp_path):
    command = [*items, "--out", str(tmp_path / "killed")]
    code, printed = ended(fork(evaluate_and_die, *command))
    assert code == -signal.SIGKILL, printed
    assert runs.load_runs(tmp_path / "killed")["benchmark"] == {}  # no half of a run
    progress = tmp_path / "killed" / ".tiny-tuned.progress.jsonl"
    done = [json.loads(line)["index"] for line in progress.read_text().splitlines()[1:-1]]
    assert len(done) == 5

    assert evaluate.main(command) == 0
    assert evaluate.main([*items, "--out", str(tmp_path / "whole")]) == 0
    killed, whole = (load_run(tmp_path / name / "tiny-tuned").table for name in ("killed", "whole"))
    assert killed["index"].tolist() == list(range(12))
    assert np.allclose(killed["guess_usd"], whole["guess_usd"], atol=0.02)
    assert not progress.exists()


@pytest.mark.parametrize("room", [100, 1_500])  # for nothing; for some of the items
def test_evaluation_on_a_full_disk_goes_on_later(items, tmp_path, capsys, room):
    command = [*items, "--out", str(tmp_path / "runs")]
    assert evaluate.main([*command, "--rule", "median"]) == 0
    before = content(tmp_path / "runs")
    with full_disk(room):
        assert evaluate.main([*command, "--rule", "mean"]) == 1
    assert "cannot be read or written (File too large" in sentence(capsys)
    kept = content(tmp_path / "runs")
    assert {name: kept[name] for name in before} == before  # the last run is still whole
    assert evaluate.main([*command, "--rule", "mean"]) == 0
    assert load_run(tmp_path / "runs" / "tiny-tuned").info.rule == "mean"
    assert len(load_run(tmp_path / "runs" / "tiny-tuned").table) == 12


# Training and its data -----------------------------------------------------------------------------------


def test_training_on_a_full_disk_keeps_the_last_result_and_goes_on_later(tiny_model_folder, tmp_path, capsys):
    products(60).to_csv(tmp_path / "rows.csv", index=False)
    out = tmp_path / "out"
    fields = {"base_model": tiny_model_folder / "base", "data": tmp_path / "rows.csv", "output": out}
    command = [str(SMOKE), *(word for name, value in fields.items() for word in (f"--{name}", str(value)))]
    assert finetune.main([*command, "--max_steps", "2"]) == 0
    before = content(out)
    weights = len(before["adapter_model.safetensors"])
    capsys.readouterr()
    # Too little for the adapter; too little for the optimizer's state behind it.
    for room in (weights // 2, 3 * weights):
        with full_disk(room):
            assert finetune.main(command) == 1
        said = sentence(capsys)
        assert str(out) in said and "free some space" in said
        assert content(out) == before
    assert finetune.main(command) == 0
    record = json.loads((out / "metrics.json").read_text())
    assert (record["steps"], record["resumed_from_step"]) == (4, 2)


def test_a_result_is_written_whole_or_not_at_all(tiny_model_folder, tmp_path, capsys, monkeypatch):
    products(60).to_csv(tmp_path / "rows.csv", index=False)
    out = tmp_path / "out"
    fields = {"base_model": tiny_model_folder / "base", "data": tmp_path / "rows.csv", "output": out}
    command = [str(SMOKE), *(word for name, value in fields.items() for word in (f"--{name}", str(value)))]
    (out / ".part-of-a-killed-run").mkdir(parents=True)

    def no_room(path, content):  # the weights are written by then
        assert list(path.parent.glob("adapter_model*"))
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("train.output.write_json", no_room)
        assert finetune.main(command) == 1
    assert "No space left on device" in sentence(capsys)
    assert set(content(out)) == {name for name in content(out) if name.startswith("data/")}
    assert finetune.main(command) == 0
    assert (
        json.loads((out / "metrics.json").read_text())["resumed_from_step"] == 4
    )  # nothing is trained twice
    assert not list(out.glob(".part-*"))


def test_preparing_on_a_full_disk_keeps_the_old_files(tmp_path, capsys):
    products(60).to_csv(tmp_path / "rows.csv", index=False)
    command = [
        str(tmp_path / "rows.csv"),
        "--out",
        str(tmp_path / "data"),
        "--validation",
        "5",
        "--calibration",
        "5",
    ]
    prepare.main(command)
    before = content(tmp_path / "data")
    capsys.readouterr()
    (tmp_path / "data" / ".part-of-a-killed-one").mkdir()
    with full_disk(2_000), pytest.raises(SystemExit) as stopped:
        prepare.main([*command, "--seed", "7"])
    assert stopped.value.code == 1
    assert "cannot be read or written" in sentence(capsys)
    assert content(tmp_path / "data") == before and not list((tmp_path / "data").glob(".part-*"))


# What is damaged, with the app around it -----------------------------------------------------------------


@pytest.fixture
def assets(tmp_path, monkeypatch):
    """A copy of the shipped runs, for the Evaluation tab."""
    folder = Path(shutil.copytree(runs.RUNS_FOLDER, tmp_path / "runs"))
    monkeypatch.setattr("pricer.ui.evaluate.tab.load_runs", lambda: runs.load_runs(folder))
    monkeypatch.setattr(
        "pricer.ui.evaluate.tab.load_items", lambda **options: runs.load_items(folder, **options)
    )
    return folder


def words_of(demo):
    return " ".join(str(getattr(block, "value", "")) for block in demo.blocks.values())


@pytest.mark.parametrize("ending", ["json", "parquet"])
def test_the_page_opens_without_a_run_whose_file_is_cut(assets, caplog, ending):
    path = assets / f"embedded-tuned.{ending}"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with caplog.at_level(logging.WARNING):
        words = words_of(build_demo(None, "No models.", Settings.from_env({})))
    [said] = [record.getMessage() for record in caplog.records if "embedded-tuned" in record.getMessage()]
    assert said.endswith(".") and "\n" not in said
    assert text.RUNS_MISSING.partition("**")[2][:20] not in words
    shown = Arena(runs.load_runs(assets)["benchmark"], runs.load_items(assets)).runs
    assert "embedded-tuned" not in shown and len(shown) == len(runs.load_runs()["benchmark"]) - 1


def test_the_page_opens_without_the_items_and_says_so(assets):
    path = assets / "items.parquet"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    words = words_of(build_demo(None, "No models.", Settings.from_env({})))
    assert "items.parquet is damaged" in words and "make or download it again" in words


def test_the_page_opens_without_an_adapter_that_was_cut_short(tmp_path, tiny_model_folder):
    folder = Path(shutil.copytree(tiny_model_folder / "adapter", tmp_path / "adapter"))
    os.truncate(folder / "adapter_model.safetensors", 1_000)
    settings = Settings.from_env({**os.environ, "PRICER_ADAPTER": str(folder)})
    with pytest.raises(SetupError) as found:
        load_pair(settings)
    words = words_of(build_demo(None, str(found.value), settings))
    assert str(folder) in words and "copy it again" in words


# A Hub that says nothing ---------------------------------------------------------------------------------


@pytest.fixture
def silent_hub():
    """Takes every connection and never answers."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(64)
        taken = []

        def take():
            try:
                while True:
                    taken.append(server.accept()[0])
            except OSError:  # the test is over
                return

        threading.Thread(target=take, daemon=True).start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
        server.shutdown(socket.SHUT_RDWR)
        for connection in taken:
            connection.close()


ASKS = """
import json, os
from pricer.llama import hub
hub.SILENCE_SECONDS = 0.5
from pricer.errors import PricerError
from pricer.llama.pair import load_pair
from pricer.settings import Settings

said = {}
for variable in ("PRICER_ADAPTER", "PRICER_BASE_MODEL"):
    try:
        load_pair(Settings.from_env({**os.environ, variable: "owner/model"}))
    except PricerError as error:
        said[variable] = str(error)
said["cached"] = str(load_pair(Settings.from_env({**os.environ, "PRICER_BASE_MODEL": "owner/cached"})).device)
print(json.dumps(said))
"""


def test_a_hub_that_says_nothing_is_waited_for_a_moment_only(silent_hub, tiny_model_folder, tmp_path):
    """Without a time of our own it would be for ever. What is in the cache is used."""
    cached = tmp_path / "hub" / "models--owner--cached"
    (cached / "refs").mkdir(parents=True)
    (cached / "refs" / "main").write_text("0" * 40)
    shutil.copytree(tiny_model_folder / "base", cached / "snapshots" / ("0" * 40))
    asked = subprocess.run(
        [sys.executable, "-c", ASKS],
        cwd=ROOT,
        env={**os.environ, "HF_ENDPOINT": silent_hub, "HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert asked.returncode == 0, asked.stderr[-3000:]
    said = json.loads(asked.stdout.splitlines()[-1])
    assert said.pop("cached") == "cpu"
    for variable, words in said.items():
        assert "does not answer" in words and variable in words and "\n" not in words


def test_datasets_are_not_waited_for_either(monkeypatch, caplog):
    """The bound is set before `datasets` asks, and leaves uploads alone."""
    seen = []

    def load_dataset(*_, **__):
        from huggingface_hub import get_session

        for method, given in (("GET", None), ("HEAD", {"read": 3.0}), ("POST", None)):
            request = get_session().build_request(method, "http://127.0.0.1:1/", timeout=None)
            request.extensions["timeout"] = given
            [bound] = [hook for hook in get_session().event_hooks["request"] if hook is hub._bound]
            bound(request)
            seen.append(request.extensions["timeout"])
        raise ConnectionError("gone")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    assert runs.load_item_texts() is None
    bound = hub.SILENCE_SECONDS
    assert seen[0] == {"connect": bound, "read": bound, "write": bound, "pool": bound}
    assert seen[1]["read"] == 3.0 and seen[2] is None
