"""What goes up to a Space and what never does, against a fake Hub; and that it runs on Python 3.10."""

import ast
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from huggingface_hub import metadata_load

import pricer.llama.hub
from pricer import space
from pricer.errors import InputError
from pricer.space import check_front_matter, space_files

ROOT = Path(__file__).parents[1]
REQUIREMENTS = (ROOT / "requirements.txt").read_text(encoding="utf-8")
CARD = metadata_load(ROOT / "README.md")


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A checkout in small, with what must stay at home."""
    for name in ("app.py", "requirements.txt", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path / name)
    write_readme(
        tmp_path, CARD, "![The page](docs/page.png) ![gone](docs/gone.png) ![far](https://x.example/y.png)"
    )
    for name in (
        *("pricer/__init__.py", "pricer/ui/page.css", "pricer/assets/adapter/adapter_model.safetensors"),
        *("pricer/ui/chart.pyi", "pricer/__pycache__/x.cpython-312.pyc", "pricer/.cache/token.json"),
        *("tests/test_x.py", "train/finetune.py", "constraints.txt", "docs/page.png", "docs/other.png"),
        *(".env", "out/data/train.parquet", ".venv/lib/x.py"),
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"12345")
    monkeypatch.setattr(space, "space_files", lambda: space_files(tmp_path))
    return tmp_path


def write_readme(folder, card, text=""):
    front = yaml.safe_dump(card, allow_unicode=True, sort_keys=False)
    (folder / "README.md").write_text(f"---\n{front}---\n# Pricer\n{text}\n", encoding="utf-8")


GOES_UP = {
    *("app.py", "requirements.txt", "README.md", "LICENSE", "docs/page.png"),
    *("pricer/__init__.py", "pricer/ui/page.css", "pricer/assets/adapter/adapter_model.safetensors"),
}


class FakeHub:
    """huggingface_hub.HfApi with one Space that holds an older app and its owner's own file."""

    def __init__(self, error=None):
        self.error, self.commits = error, []
        self.there = ["pricer/old.py", "pricer/__init__.py", ".gitattributes", "notes.md"]

    def create_repo(self, repository, *, repo_type, space_sdk, private, exist_ok):
        if self.error:
            raise self.error
        assert (repo_type, space_sdk, exist_ok) == ("space", "gradio", True)
        self.private = private

    def list_repo_files(self, repository, *, repo_type):
        assert repo_type == "space"
        return self.there

    def create_commit(self, repository, operations, *, commit_message, repo_type):
        assert commit_message and repo_type == "space"
        self.commits.append(operations)
        return SimpleNamespace(repo_url=f"https://hub.example/spaces/{repository}")


@pytest.fixture
def hub(monkeypatch):
    fake = FakeHub()
    monkeypatch.setattr(pricer.llama.hub, "HfApi", lambda: fake)
    monkeypatch.setattr(pricer.llama.hub, "get_token", lambda: "a token")
    return fake


def refused(capsys, *arguments) -> str:
    assert space.main(list(map(str, arguments))) in (1, 2)
    err = capsys.readouterr().err
    assert len(err.splitlines()) == 1, err
    return err


def test_one_commit_with_what_the_app_needs(checkout, hub, capsys):
    assert space.main(["someone/prices", "--private"]) == 0
    assert "https://hub.example/spaces/someone/prices" in capsys.readouterr().out
    assert hub.private
    [operations] = hub.commits
    added = {o.path_in_repo for o in operations if hasattr(o, "path_or_fileobj")}
    deleted = {o.path_in_repo for o in operations} - added
    assert added == GOES_UP
    assert deleted == {"pricer/old.py"}  # a module that was removed; nothing that is not ours


def test_dry_run_lists_names_and_sizes_and_asks_nobody(checkout, monkeypatch, capsys):
    def nobody(*args):
        raise AssertionError("asked")

    monkeypatch.setattr(pricer.llama.hub, "HfApi", nobody)
    monkeypatch.setattr(pricer.llama.hub, "get_token", nobody)
    assert space.main(["--dry-run"]) == 0
    *rows, total, _ = capsys.readouterr().out.splitlines()
    listed = dict(reversed(row.split()) for row in rows)
    assert set(listed) == GOES_UP
    assert listed["pricer/ui/page.css"] == "5"
    assert f"in {len(GOES_UP)} files" in total


def test_without_a_token_or_without_the_right(checkout, hub, monkeypatch, capsys):
    refusal = RuntimeError("403 Client Error")
    refusal.response = SimpleNamespace(status_code=403)
    hub.error = refusal
    assert "token that may write" in refused(capsys, "someone/prices")
    hub.error = ConnectionError("no route\nto host")
    assert "check the network" in refused(capsys, "someone/prices")
    monkeypatch.setattr(pricer.llama.hub, "get_token", lambda: None)
    said = refused(capsys, "someone/prices")
    assert "`hf auth login`" in said and "HF_TOKEN" in said
    for name in ("", "prices", "a/b/c", "../x"):
        assert "owner/name" in refused(capsys, name)
    assert not hub.commits


def test_a_file_that_is_too_large_missing_or_of_no_use(checkout, hub, capsys):
    large = checkout / "pricer" / "assets" / "adapter" / "adapter_model.safetensors"
    with large.open("wb") as file:
        file.truncate(20 * 2**20 + 1)
    said = refused(capsys, "someone/prices")
    assert "adapter_model.safetensors has 20,971,521 bytes" in said and "PRICER_ADAPTER" in said
    with large.open("wb") as file:
        file.truncate(20 * 2**20)
    assert space.main(["someone/prices"]) == 0
    pickle = checkout / "pricer" / "assets" / "training_args.bin"
    pickle.write_text("")
    assert "training_args.bin" in refused(capsys, "someone/prices")
    pickle.unlink()
    (checkout / "LICENSE").unlink()
    assert "no LICENSE" in refused(capsys, "someone/prices")
    assert len(hub.commits) == 1


@pytest.mark.parametrize("text", ["---\ntitle: [\n---\n", "# Pricer\n", "---\njust words\n---\n"])
def test_a_readme_without_a_front_matter(checkout, hub, capsys, text):
    (checkout / "README.md").write_text(text)
    assert "front matter" in refused(capsys, "someone/prices")


def test_the_card_of_this_app_is_complete():
    check_front_matter(CARD, REQUIREMENTS, ["app.py"])


@pytest.mark.parametrize("field", space.FIELDS)
def test_a_field_that_is_missing(field):
    with pytest.raises(InputError, match=field):
        check_front_matter({k: v for k, v in CARD.items() if k != field}, REQUIREMENTS, ["app.py"])


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("sdk", "docker"),
        ("sdk_version", "5.49.1"),  # older than requirements.txt takes
        ("sdk_version", 6.31),
        ("python_version", 3.1),  # 3.10 without quotation marks
        ("python_version", "3.13"),
        ("app_file", "main.py"),
        ("emoji", "tag"),
        ("emoji", "7"),
        ("emoji", "🏷️x"),
        ("colorFrom", "grey"),
        ("colorTo", "#ffcc00"),
        ("short_description", "x" * 61),
        ("suggested_hardware", "h100"),
        ("startup_duration_timeout", "soon"),
        ("startup_duration_timeout", 60),
        ("models", "HuggingFaceTB/SmolLM2-135M-Instruct"),
        ("tags", ["llama", 7]),
    ],
)
def test_a_field_that_a_space_would_refuse(field, value):
    with pytest.raises(InputError, match=field) as caught:
        check_front_matter(CARD | {field: value}, REQUIREMENTS, ["app.py"])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("emoji", ["🏷️", "👍🏽", "🇫🇷", "👩‍💻"])
def test_every_kind_of_emoji_is_one(emoji):
    check_front_matter(CARD | {"emoji": emoji}, REQUIREMENTS, ["app.py"])


def test_requirements_that_name_no_gradio():
    with pytest.raises(InputError, match="gradio"):
        check_front_matter(CARD, "# gradio>=6\n\ntorch>=2\n", ["app.py"])


def test_this_checkout_could_go_up_and_needs_nothing_that_stays_behind():
    files = set(space_files())
    assert {"app.py", "pricer/ui/page.css", "pricer/assets/runs/items.parquet", "docs/compare.png"} <= files
    tops = {name.partition("/")[0] for name in files}
    assert tops == {"app.py", "README.md", "requirements.txt", "LICENSE", "pricer", "docs"}


# Python 3.10 ----------------------------------------------------------------------------------------------

SINCE_3_11 = {
    *(
        "tomllib",
        "wsgiref.types",
        "datetime.UTC",
        "enum.StrEnum",
        "enum.verify",
        "typing.Self",
        "typing.Never",
    ),
    *(
        "typing.LiteralString",
        "typing.assert_never",
        "typing.assert_type",
        "typing.reveal_type",
        "typing.Unpack",
    ),
    *(
        "typing.NotRequired",
        "typing.Required",
        "typing.override",
        "typing.dataclass_transform",
        "asyncio.timeout",
    ),
    *("asyncio.TaskGroup", "itertools.batched", "contextlib.chdir", "hashlib.file_digest", "math.cbrt"),
}
SOURCES = [
    ROOT / "app.py",
    *(p for room in ("pricer", "train", "bench") for p in (ROOT / room).rglob("*.py")),
]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_python_3_10_reads_it(path):
    tree = ast.parse(path.read_text(encoding="utf-8"), feature_version=(3, 10))
    used = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            used |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            used |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            used.add(f"{node.value.id}.{node.attr}")
        elif isinstance(node, ast.Name):
            assert node.id not in ("ExceptionGroup", "BaseExceptionGroup")
        assert not isinstance(node, getattr(ast, "TryStar", ()))
    assert not used & SINCE_3_11
