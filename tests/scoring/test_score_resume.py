"""`python -m pricer.score` stopped and started again: nothing is scored twice, and nothing of another run is taken up."""

import json
import os
import shutil
import signal
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from pricer.llama.predictor import Predictor
from pricer.scoring import __main__ as command
from pricer.scoring import engine as score
from pricer.scoring import store
from pricer.scoring.store import Journal, Store
from pricer.settings import Limits, ModelRef, Settings
from tests.processes import ended, fork
from tests.programs import score_and_die
from tests.scoring.commands import rejected, run, sentence

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.usefixtures("tiny")


class Killed(BaseException):
    """Stands for kill -9 where one process must do: nothing in the code catches it."""


@pytest.fixture
def whole(goods, tmp_path, tiny_predictor):
    """The output of a run that was never stopped."""
    with goods.open("a") as file:
        file.write("20,,x\n")
    run(goods, tmp_path / "whole.csv", "--passes", "base", "tuned")
    assert rejected(tmp_path / "whole.csv") == [[21, "no text"]]
    return (tmp_path / "whole.csv").read_text()


def stop_after(monkeypatch, owner, name, calls):
    """`owner.name` works `calls` times; behind the last one the run ends."""
    original, left = getattr(owner, name), [calls]

    def stopping(*args, **kwargs):
        result = original(*args, **kwargs)
        left[0] -= 1
        if left[0] == 0:
            raise Killed
        return result

    monkeypatch.setattr(owner, name, stopping)


@pytest.mark.parametrize(
    ("owner", "name", "calls"),
    [
        (Journal, "add", 1),
        (Journal, "add", 7),
        (Store, "add", 1),
        (Store, "add", 3),
        (store, "write_table", 1),
        (store, "write_table", 2),
        (Path, "replace", 5),  # manifest, three parts, then the rejected rows
        (Path, "replace", 6),  # and the output
    ],
)
def test_stopped_anywhere_it_goes_on_and_nothing_is_scored_twice(
    goods, whole, tmp_path, monkeypatch, scored, tiny_pair, owner, name, calls
):
    small = Predictor(tiny_pair, Limits(batch_tokens=200))
    monkeypatch.setattr(score, "load_predictor", lambda settings: small)
    out = tmp_path / "out.csv"
    with monkeypatch.context() as patch:
        stop_after(patch, owner, name, calls)
        with pytest.raises(Killed):
            run(goods, out, "--passes", "base", "tuned")
    before = sum(scored.values())
    if name in ("write_table", "replace"):
        monkeypatch.setattr(score, "load_predictor", None)  # no model is needed any more
    run(goods, out, "--passes", "base", "tuned")
    assert len(pd.read_csv(out)) == 20
    assert rejected(out) == [[21, "no text"]]
    # A stop right behind the journal's line keeps the line, though the spy had no time to count the batch.
    assert max(scored.values()) == 1 and sum(scored.values()) <= 40
    assert before + (owner is Journal) > 0
    if owner is not Journal:
        assert sum(scored.values()) == 40
    assert sorted(p.name for p in tmp_path.iterdir() if p.name.startswith(".")) == []


def test_a_stop_while_tidying_up_leaves_the_output_alone(goods, tmp_path, monkeypatch, capsys, scored):
    out = tmp_path / "out.csv"
    with monkeypatch.context() as patch:
        patch.setattr(store.shutil, "rmtree", lambda *args, **kwargs: (_ for _ in ()).throw(Killed))
        with pytest.raises(Killed):
            run(goods, out)
    capsys.readouterr()
    run(goods, out, code=2)
    assert "is there already" in sentence(capsys)
    assert max(scored.values()) == 1 and not Store(out).folder.exists()


def test_damaged_parts_and_torn_journals_are_scored_again(
    goods, whole, tmp_path, monkeypatch, scored, tiny_pair
):
    large = Predictor(tiny_pair, Limits(batch_tokens=4096))  # a part is one batch
    monkeypatch.setattr(score, "load_predictor", lambda settings: large)
    out = tmp_path / "out.csv"
    with monkeypatch.context() as patch:
        stop_after(patch, Journal, "add", 5)  # the base pass of the third part
        with pytest.raises(Killed):
            run(goods, out, "--passes", "base", "tuned")
    folder = Store(out).folder
    (journal,) = folder.glob("*.jsonl")
    part, kept = folder / "part-00000000.parquet", journal.read_bytes()
    for damage in (b'["tuned", {"0": [1.0, 2', b"\xff\xfe\n", b'{"no": "journal"}\n'):
        scored.clear()
        journal.write_bytes(kept + damage)
        journal.with_suffix(".parquet").unlink(missing_ok=True)
        part.write_bytes(part.read_bytes()[:-20])
        with monkeypatch.context() as patch:
            stop_after(patch, store, "write_table", 1)
            with pytest.raises(Killed):
                run(goods, out, "--passes", "base", "tuned")
        assert sum(scored.values()) == 8 * 2 + 4  # the first part, and the tuned pass of the third
    run(goods, out, "--passes", "base", "tuned")
    assert out.read_text() == whole


def test_an_input_that_changes_while_it_is_scored_is_said(goods, tmp_path, monkeypatch, capsys):
    add, out = Store.add, tmp_path / "out.csv"

    def change(*args):
        add(*args)
        goods.write_text(goods.read_text().replace("Thing", "Other"))

    with monkeypatch.context() as patch:
        patch.setattr(Store, "add", change)
        run(goods, out, code=2)
    assert "in.csv was changed while it was scored" in sentence(capsys) and not out.exists()
    run(goods, out, "--restart")


def test_a_part_damaged_inside_is_scored_again(goods, whole, tmp_path, monkeypatch, capsys, scored):
    out = tmp_path / "out.csv"
    with monkeypatch.context() as patch:
        stop_after(patch, store, "write_table", 1)
        with pytest.raises(Killed):
            run(goods, out, "--passes", "base", "tuned")
    part = Store(out).part_path(1)
    data = bytearray(part.read_bytes())
    data[4:100] = b"\xff" * 96  # its pages, not what says where they are
    part.write_bytes(data)
    scored.clear()
    capsys.readouterr()
    run(goods, out, "--passes", "base", "tuned", code=1)
    assert "part-00000001" in sentence(capsys) and not scored
    run(goods, out, "--passes", "base", "tuned")
    assert out.read_text() == whole and sum(scored.values()) == 16


@pytest.fixture
def stopped(goods, tmp_path, monkeypatch, capsys):
    """`stopped(*arguments)`: the output of a run that ended behind its second part."""

    def stop(*arguments):
        out = tmp_path / "out.csv"
        with monkeypatch.context() as patch:
            stop_after(patch, Store, "add", 2)
            with pytest.raises(Killed):
                run(goods, out, *arguments)
        capsys.readouterr()
        return out

    return stop


@pytest.fixture
def own_pair(tiny_model_folder, tmp_path, monkeypatch):
    """A copy of the tiny pair that a test may change: the folders of base and adapter."""
    folder = shutil.copytree(
        tiny_model_folder, tmp_path / "pair", ignore=shutil.ignore_patterns("calibrated")
    )
    monkeypatch.setenv("PRICER_BASE_MODEL", str(folder / "base"))
    monkeypatch.setenv("PRICER_ADAPTER", str(folder / "adapter"))
    return folder


def append(path, content):
    path.write_bytes(path.read_bytes() + content)


def other_bytes(path):
    """As after training again: the same size, the same shapes, other numbers."""
    content = path.read_bytes()
    path.write_bytes(content[:-4] + bytes(255 - byte for byte in content[-4:]))


def scaled(folder):
    path = folder / "adapter" / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"lora_alpha": 99}))


CHANGES = {
    "input": lambda goods, pair: append(goods, b"20,lamp,x\n"),
    "base weights": lambda goods, pair: other_bytes(pair / "base" / "model.safetensors"),
    "adapter weights": lambda goods, pair: other_bytes(pair / "adapter" / "adapter_model.safetensors"),
    "adapter weights: their scale": lambda goods, pair: scaled(pair),
    "prompt question": lambda goods, pair: (pair / "adapter" / "pricer.json").write_text(
        '{"question": "What is it worth?", "max_text_tokens": 60}'
    ),
    "token budget (60, now 50)": lambda goods, pair: (pair / "adapter" / "pricer.json").write_text(
        '{"max_text_tokens": 50}'
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_parts_of_something_else_are_refused_and_kept(goods, own_pair, stopped, capsys, scored, change):
    out, whole_file = stopped(), goods.read_text()
    kept = sorted(os.listdir(Store(out).folder))
    before = shutil.copytree(own_pair, own_pair.with_name("before"))
    CHANGES[change](goods, own_pair)
    run(goods, out, code=2)
    words = sentence(capsys)
    assert change.partition(":")[0] in words and " and " not in words and "--restart" in words
    assert sorted(os.listdir(Store(out).folder)) == kept
    shutil.copytree(before, own_pair, dirs_exist_ok=True)
    goods.write_text(whole_file)
    scored.clear()
    run(goods, out)
    assert len(pd.read_csv(out)) == 20 and sum(scored.values()) == 4


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--rule", "mean"], "rule (log-mean, now mean)"),
        (["--prior", "shop"], "price prior"),
        (["--passes", "base"], "passes (tuned, now base)"),
    ],
)
def test_parts_of_another_command_are_refused_or_begun_anew(goods, stopped, capsys, scored, arguments, named):
    out = stopped()
    run(goods, out, *arguments, code=2)
    assert named in sentence(capsys) and not out.exists()
    scored.clear()
    run(goods, out, *arguments, "--restart")
    assert len(pd.read_csv(out)) == 20 and sum(scored.values()) == 20


def test_a_base_run_does_not_hang_on_the_adapters_weights(goods, own_pair, stopped, scored):
    out = stopped("--passes", "base")
    other_bytes(own_pair / "adapter" / "adapter_model.safetensors")
    scored.clear()
    run(goods, out, "--passes", "base")
    assert sum(scored.values()) == 4


def test_parts_of_a_text_limit_of_before_are_refused(goods, stopped, monkeypatch, capsys):
    out = stopped()
    monkeypatch.setattr(Settings, "from_env", lambda **_: _with_limit(5_000))
    run(goods, out, code=2)
    assert "characters at most (1000000, now 5000)" in sentence(capsys)


def test_parts_of_another_protocol_are_refused(goods, stopped, monkeypatch, capsys):
    out = stopped()
    monkeypatch.setattr("pricer.llama.made_of.LATTICE_VERSION", 99)
    run(goods, out, code=2)
    assert "other lattice:" in sentence(capsys)


@pytest.mark.parametrize("left", ["", '{"input": "9f', "[1]", "\xff", '{"input": ["x"], "models": []}'])
def test_a_torn_or_old_manifest_is_not_gone_on_with(goods, stopped, capsys, scored, left):
    out = stopped()
    (Store(out).folder / "manifest.json").write_text(left, encoding="latin-1")
    kept = sorted(os.listdir(Store(out).folder))
    run(goods, out, code=2)
    words = sentence(capsys)
    assert ("does not say what it was made of" if "models" not in left else "not recorded") in words
    assert sorted(os.listdir(Store(out).folder)) == kept
    scored.clear()
    run(goods, out, "--restart")
    assert len(pd.read_csv(out)) == 20 and sum(scored.values()) == 20


def test_a_manifest_without_parts_stands_in_nobodys_way(goods, tmp_path, monkeypatch):
    out = tmp_path / "out.csv"
    with monkeypatch.context() as patch:
        patch.setattr(command, "_score_rest", lambda *_: (_ for _ in ()).throw(Killed))
        with pytest.raises(Killed):
            run(goods, out)
    assert (
        os.listdir(Store(out).folder) == ["manifest.json"] or (Store(out).folder / "manifest.json").exists()
    )
    run(goods, out, "--rule", "mean")
    assert len(pd.read_csv(out)) == 20


def _with_limit(chars):
    settings = Settings(
        base=ModelRef(os.environ["PRICER_BASE_MODEL"]),
        adapter=ModelRef(os.environ["PRICER_ADAPTER"]),
        label="",
    )
    return replace(settings, device="cpu", limits=replace(settings.limits, text_chars=chars))


def test_a_full_disk_is_a_sentence_and_loses_nothing(goods, tmp_path, monkeypatch, capsys):
    out = tmp_path / "out.csv"

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    for target in ("parts", "output"):
        with monkeypatch.context() as patch:
            patch.setattr(*((store.pq, "write_table") if target == "parts" else (store, "write_table")), full)
            run(goods, out, code=1)
        assert "No space left" in sentence(capsys)
        assert not out.exists()
    run(goods, out)
    assert len(pd.read_csv(out)) == 20


def test_kill_9_in_the_middle_and_again(tmp_path, goods, monkeypatch, tiny_pair, scored):
    """Killed within the second part, then to the end; compared with a run in one go."""
    out, log = tmp_path / "out.csv", tmp_path / "log"
    code, printed = ended(fork(score_and_die, log, 20, goods, out, "--passes", "base", "tuned"))
    assert code == -signal.SIGKILL, printed
    assert not out.exists()
    left = {path.name for path in Store(out).folder.iterdir()}
    assert {"part-00000000.parquet", "part-00000001.jsonl"} <= left  # in the middle indeed
    count = Counter(tuple(json.loads(line)) for line in log.read_text().splitlines())

    small = Predictor(tiny_pair, Limits(batch_tokens=200))
    monkeypatch.setattr(score, "load_predictor", lambda settings: small)
    run(goods, out, "--passes", "base", "tuned")
    count += scored
    scored.clear()
    run(goods, tmp_path / "whole.csv", "--passes", "base", "tuned")
    assert out.read_bytes() == (tmp_path / "whole.csv").read_bytes()
    assert count == scored
    assert len(count) == 40 and set(count.values()) == {1}
