"""The folders are the architecture: wings that know only those below them, and no two files that import each other."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# Lowest first: a file may import its own wing and those before it.
WINGS = ("", "price", "llama", "tables", "scoring", "arena", "figures", "ui")
# Files that lie flat and that every wing may know. A manifest is no wing's own: scoring and training both go on with
# partial results, and hold them to the same words.
GROUND = {"errors", "settings", "prompt", "files", "manifest"}
DOORS = {"__init__", "__main__", "opening", "score", "space"}  # files that lie flat and that nobody imports
MOST_LINES = 450


def sources(folder):
    return sorted(path for path in (ROOT / folder).rglob("*.py") if "__pycache__" not in path.parts)


def module(path):
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {module(path): path for folder in ("pricer", "train", "bench") for path in sources(folder)}


def imported(path):
    """The project's modules that a file imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are written in full"
            inner = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [name if name in MODULES else node.module for name in inner]
        found.update(name for name in names if name in MODULES)
    return found - {module(path)}


def others(path):
    """The top names of everything that a file imports."""
    tree = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    for node in tree:
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module.split(".")[0]


def wing(name):
    parts = name.split(".")
    return parts[1] if len(parts) > 1 and parts[1] in WINGS else ""


@pytest.mark.parametrize("path", sources("pricer"), ids=module)
def test_a_wing_knows_only_those_below_it(path):
    for name in imported(path):
        assert not name.startswith(("train", "bench", "tests")), f"{module(path)} imports {name}"
        own, its = wing(module(path)), wing(name)
        flat = name.split(".")[1] if name.count(".") == 1 else ""
        if flat and not its:
            assert flat in GROUND, f"{module(path)} imports {name}, which is a door and no floor"
        elif module(path).split(".")[-1] not in DOORS or own:
            assert WINGS.index(its) <= WINGS.index(own), f"{module(path)} imports {name}, which lies above it"


@pytest.mark.parametrize("path", [*sources("pricer"), *sources("train"), *sources("bench")], ids=module)
def test_gradio_is_known_in_ui_alone(path):
    if wing(module(path)) != "ui":
        assert not set(others(path)) & {"gradio", "gradio_client", "spaces"} or module(path) == "bench.load"


@pytest.mark.parametrize("path", sources("train"), ids=module)
def test_training_does_not_know_the_page(path):
    assert not any(name.startswith("pricer.ui") for name in imported(path))


def test_no_two_files_import_each_other():
    graph = {name: imported(path) for name, path in MODULES.items()}
    # A package's own __init__ may gather what lies in it.
    TopologicalSorter(graph).prepare()


def test_few_files_lie_flat():
    flat = {path.stem for path in (ROOT / "pricer").glob("*.py")}
    assert flat == GROUND | DOORS and len(flat) <= 10
    assert {path.name for path in (ROOT / "pricer").iterdir() if path.is_dir()} - {
        "__pycache__",
        "assets",
    } == {*WINGS[1:]}


@pytest.mark.parametrize(
    "path", [path for f in ("pricer", "train", "bench") for path in sources(f)], ids=module
)
def test_no_file_is_too_long(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= MOST_LINES
