"""For the tests of `pricer/llama/`: the tiny pair's environment, copies of it to be damaged, and the embedded base with
a conversion that takes no time."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pricer.errors import SetupError
from pricer.llama import embedded
from pricer.llama.pair import load_pair
from pricer.settings import Settings

ROOT = Path(__file__).parents[2]
WHAT_TO_DO = ("set ", "copy ", "check ", "accept ", "free ", "correct ", "save it ", "name another ", "take ")


@pytest.fixture(scope="session")
def sentence():
    """The error's message, which must be one line, end like a sentence and say what to do."""

    def check(caught):
        message = str(caught.value)
        assert "\n" not in message and message.endswith("."), message
        assert any(word in message for word in WHAT_TO_DO), message
        assert "Traceback" not in message and len(message) < 700
        return message

    return check


@pytest.fixture(scope="session")
def tiny_env(tiny_model_folder):
    """The environment that names the tiny pair, with other variables: `adapter=...` for PRICER_ADAPTER."""

    def env(**other):
        return {
            "PRICER_BASE_MODEL": str(tiny_model_folder / "base"),
            "PRICER_ADAPTER": str(tiny_model_folder / "adapter"),
            "PRICER_DEVICE": "cpu",
            **{f"PRICER_{name.upper()}": str(value) for name, value in other.items()},
        }

    return env


@pytest.fixture(scope="session")
def refused(tiny_env, sentence):
    """The sentence with which a pair that is changed in one thing is refused."""

    def load(**other):
        with pytest.raises(SetupError) as caught:
            load_pair(Settings.from_env(tiny_env(**other)))
        return sentence(caught)

    return load


@pytest.fixture
def adapter_copy(tiny_model_folder, tmp_path):
    return Path(shutil.copytree(tiny_model_folder / "adapter", tmp_path / "adapter"))


@pytest.fixture
def base_copy(tiny_model_folder, tmp_path):
    return Path(shutil.copytree(tiny_model_folder / "base", tmp_path / "base"))


@pytest.fixture(scope="session")
def in_another_process():
    """What a script prints there."""

    def run(script, *arguments, **variables):
        done = subprocess.run(
            [sys.executable, "-c", script, *map(str, arguments)],
            cwd=ROOT,
            env={**os.environ, **variables},
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout

    return run


@pytest.fixture
def fake_embedded(monkeypatch, tmp_path, tiny_model_folder):
    """Settings with an empty cache, and a conversion that takes no time: it copies the tiny base."""
    conversions = []

    def convert(source, target):
        conversions.append(target)
        shutil.copytree(tiny_model_folder / "base", target, dirs_exist_ok=True)

    monkeypatch.setattr(embedded, "_GGUF_PACKAGE", "json")  # any package that is installed
    monkeypatch.setattr(embedded, "_convert_gguf", convert)
    settings = Settings.from_env({"PRICER_CACHE": str(tmp_path / "a" / "cache"), "PRICER_DEVICE": "cpu"})
    return settings, conversions
