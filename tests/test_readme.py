"""What README promises exists: its commands, files and the Space's front matter."""

import importlib.util
import re
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml

from pricer.settings import PROFILES

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
FRONT_MATTER = yaml.safe_load(README.split("---")[1])
COMMANDS = "\n".join(re.findall(r"```bash\n(.*?)```", README, re.DOTALL))


def test_front_matter_is_that_of_the_app():
    """What a Space asks of it, tests/test_space.py checks."""
    assert FRONT_MATTER["sdk_version"] == version("gradio")
    assert FRONT_MATTER["models"] == [profile.base_model for profile in PROFILES.values()]
    assert FRONT_MATTER["license"] == "apache-2.0"
    assert "Apache License" in (ROOT / "LICENSE").read_text(encoding="utf-8")


@pytest.mark.parametrize("module", sorted(set(re.findall(r"python -m ([a-z_.]+)", README)) - {"venv"}))
def test_every_module_named_can_be_run(module):
    spec = importlib.util.find_spec(module)
    assert spec is not None
    if spec.submodule_search_locations:
        assert importlib.util.find_spec(f"{module}.__main__") is not None


def test_every_file_named_exists():
    named = re.findall(r"(?:^|[\s`(])((?:pricer|train|tests|bench|docs)/[\w./-]+)", README)
    named += re.findall(r"-[rc] (\S+\.txt)", COMMANDS) + re.findall(r"python (\S+\.py)", COMMANDS)
    assert len(named) >= 8
    missing = [path for path in named if not (ROOT / path).exists()]
    assert not missing


def test_every_make_target_named_exists():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^(?:\w+=\S+ )*make (\w+)", COMMANDS, re.MULTILINE))
    assert targets == {"app", "space", "test"}
    assert all(re.search(rf"^{target}:", makefile, re.MULTILINE) for target in targets)


def test_every_variable_named_is_read():
    settings = (ROOT / "pricer" / "settings.py").read_text(encoding="utf-8")
    for variable in set(re.findall(r"\bPRICER_[A-Z_]+\b", README)):
        assert f'"{variable}"' in settings, variable


def test_requirements_name_the_whole_stack_and_constraints_pin_it():
    stack = ["gradio", "transformers", "peft", "bitsandbytes", "trl", "datasets", "torch", "plotly", "pandas"]
    requirements = (ROOT / "requirements.txt").read_text(encoding="utf-8")
    constraints = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    for package in stack:
        assert re.search(rf"^{package}>=", requirements, re.MULTILINE), package
        assert re.search(rf"^{package}==", constraints, re.MULTILINE), package


def test_figures_in_readme_are_those_of_the_runs():
    from pricer.arena import metrics
    from pricer.arena.runs import RUNS_FOLDER, join_items, load_items, load_run

    items = load_items()
    for name, begins, rule in (
        ("embedded-base", "| SmolLM2 135M, base |", "median"),
        ("embedded-tuned", "| SmolLM2 135M, fine-tuned", "median"),
        ("baseline-neighbours", "| TF-IDF nearest neighbours", "neighbours"),
    ):
        run = load_run(RUNS_FOLDER / name)
        table = join_items(run, items)
        summary = metrics.summarise(table["price_usd"], table["guess_usd"])
        assert run.info.rule in (rule, None)
        row = next(line for line in README.splitlines() if line.startswith(begins) and f"| {rule} |" in line)
        for estimate, digits in ((summary.error_usd, 2), (summary.rmsle, 3), (summary.hits_pct, 1)):
            assert f"{estimate.value:.{digits}f}" in row
            assert f"[{estimate.low:.{digits}f}, {estimate.high:.{digits}f}]" in row


def test_everyday_figures_in_readme_are_those_of_the_runs():
    from pricer.arena import metrics
    from pricer.arena.runs import join_items, load_items, load_runs

    runs, items = load_runs()["everyday"], load_items(item_set="everyday")
    for name, begins in (
        ("everyday-embedded-base", "| SmolLM2 135M, base | as published |"),
        ("everyday-embedded-tuned", "| SmolLM2 135M, fine-tuned | benchmark |"),
        ("everyday-embedded-tuned-shop", "| SmolLM2 135M, fine-tuned | shop |"),
        ("everyday-baseline-lightgbm", "| TF-IDF + LightGBM, on rows weighted to a shop's prices |"),
    ):
        table = join_items(runs[name], items)
        found = metrics.summarise(table["price_usd"], table["guess_usd"])
        row = next(line for line in README.splitlines() if line.startswith(begins))
        assert f"| {runs[name].info.rule or ''} |".replace("|  |", "| |") in row
        estimates = (found.error_usd, 2), (found.median_error_usd, 2), (found.rmsle, 3), (found.hits_pct, 1)
        for estimate, digits in estimates:
            assert (
                f"{estimate.value:.{digits}f}" in row
                and f"[{estimate.low:.{digits}f}, {estimate.high:.{digits}f}]" in row
            )
