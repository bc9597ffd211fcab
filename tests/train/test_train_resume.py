"""Training stopped and started again: it goes on as if never stopped, and never from another run."""

import json
import shutil
import signal
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from pricer.errors import SetupError
from pricer.files import alone
from pricer.manifest import Manifest
from tests.conftest import tiny_llama
from tests.processes import ended, fork
from tests.programs import train_and_die
from tests.train.commands import SMOKE, arguments, rows_of, training_steps
from train import finetune, prepare, resume
from train.output import last_checkpoint
from train.prepared import is_prepared
from train.recipe import load_recipe
from train.resume import MANIFEST, begin, made_of
from train.trainer import EpochSampler

# Two epochs of seven steps with everything in it that is drawn at random.
RANDOM = {
    "num_train_epochs": 2,
    "max_steps": -1,
    "per_device_train_batch_size": 4,
    "gradient_accumulation_steps": 2,
    "train_sampling_strategy": "group_by_length",
    "dropout": 0.1,
    "loss": "soft-labels",
    "eval_steps": 1,
    "save_steps": 1,
}


def test_killed_twice_it_ends_as_if_never_killed(trained, tmp_path, monkeypatch):
    """Also the data's order: another row, another drawn price or another dropout would change a step's loss."""
    _, first, base = trained
    fields = {"base_model": base, "data": first / "data"} | RANDOM
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    command = arguments(SMOKE, **fields, output=killed)

    for where, newest in (("in a step", "checkpoint-2"), ("in a checkpoint", "checkpoint-6")):
        code, printed = ended(fork(train_and_die, where, *command, "--disable_tqdm", "True"))
        assert code == -signal.SIGKILL, printed
        assert (killed / "checkpoints" / newest / "optimizer.pt").exists()
        assert not (killed / "metrics.json").exists()

    epochs, draw_order = [], EpochSampler.__iter__
    monkeypatch.setattr(EpochSampler, "__iter__", lambda self: epochs.append(self.epoch) or draw_order(self))
    assert finetune.main(command) == 0
    assert finetune.main(arguments(SMOKE, **fields, output=whole)) == 0
    assert epochs == [0, 1, 0, 1]
    records = [json.loads((out / "metrics.json").read_text()) for out in (killed, whole)]
    assert [record["steps"] for record in records] == [14, 14]
    assert [record["resumed_from_step"] for record in records] == [5, 0]
    assert np.allclose(training_steps(killed, 14), training_steps(whole, 14), rtol=1e-5)
    assert records[0]["validation"] == pytest.approx(records[1]["validation"], rel=1e-4)
    adapters = [load_file(out / "adapter_model.safetensors") for out in (killed, whole)]
    for name, tensor in adapters[0].items():
        torch.testing.assert_close(tensor, adapters[1][name])


def test_halves_of_checkpoints_are_removed(tmp_path):
    for step, files in {
        8: {"trainer_state.json": "{}", "adapter_model.safetensors": ""},
        9: {"adapter_model.safetensors": ""},
        10: {"adapter_model.safetensors": "", "trainer_state.json": '{"global_step": 1'},
        100: {},
    }.items():
        (tmp_path / f"checkpoint-{step}").mkdir()
        for name, content in files.items():
            (tmp_path / f"checkpoint-{step}" / name).write_text(content)
    (tmp_path / "checkpoint-notes").mkdir()
    assert last_checkpoint(tmp_path) == str(tmp_path / "checkpoint-8")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-8", "checkpoint-notes"]
    assert last_checkpoint(tmp_path / "checkpoint-8") is None


def test_started_again_it_goes_on_from_its_checkpoint(trained, tmp_path, monkeypatch):
    _, finished, base = trained
    out, resumed = shutil.copytree(finished, tmp_path / "out"), []
    train = finetune.PriceTrainer.train

    def spy(self, resume_from_checkpoint=None, **kwargs):
        resumed.append(resume_from_checkpoint)
        return train(self, resume_from_checkpoint=resume_from_checkpoint, **kwargs)

    monkeypatch.setattr(finetune.PriceTrainer, "train", spy)
    fields = {"base_model": base, "data": out / "data", "output": out, "max_steps": 6}
    assert finetune.main(arguments(SMOKE, **fields)) == 0
    assert [Path(path).name for path in resumed] == ["checkpoint-4"]
    record = json.loads((out / "metrics.json").read_text())
    assert (record["steps"], record["resumed_from_step"]) == (6, 4)


# Another run ----------------------------------------------------------------------------------------------


@pytest.fixture
def finished(trained, tmp_path):
    """A copy of the trained folder that a test may change, and the command that made it."""
    _, out, base = trained
    copy = shutil.copytree(out, tmp_path / "out")
    return copy, {"base_model": base, "data": out.parent / "rows.csv", "output": copy}


def content(folder):
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def said(capsys):
    """The one sentence on standard error, behind progress bars."""
    lines = [line for line in capsys.readouterr().err.splitlines() if line.strip() and "%|" not in line]
    assert len(lines) == 1, lines
    return lines[0]


def test_two_do_not_work_into_one_folder(finished, other_rows, capsys):
    out, fields = finished
    before = content(out)
    with alone(out, "working on"):
        assert finetune.main(arguments(SMOKE, **fields | {"data": other_rows}, restart=True)) == 2
        assert f"Another process is training into {out}" in said(capsys)
        with pytest.raises(SystemExit, match="2"):
            prepare.main([str(other_rows), "--out", str(out)])
        assert f"Another process is preparing rows into {out}" in said(capsys)
    assert content(out) == before
    with alone(out.parent / "new", "working on"):
        pass
    assert not (out.parent / "new").exists()  # nothing was put there


@pytest.fixture(scope="module")
def other_base(tiny_model_folder, tmp_path_factory, digit_tokenizer):
    """A base of the same shape with other weights."""
    folder = tmp_path_factory.mktemp("other") / "base"
    tiny_llama(digit_tokenizer, likely="0123456789,.", seed=5).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(tiny_model_folder / "base" / name, folder / name)
    return folder


@pytest.fixture(scope="module")
def other_rows(tmp_path_factory):
    """As many rows, of other things at other prices."""
    path = tmp_path_factory.mktemp("rows") / "rows.csv"
    rows_of(60).assign(price=lambda table: (table["price"] / 2 + 300).round(2)).to_csv(path, index=False)
    return path


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"data": "other_rows"}, "data:"),
        ({"base_model": "other_base"}, "base weights:"),
        ({"question": "What is it worth?"}, "question (How much"),
        ({"rank": 8}, "rank (4, now 8)"),
        ({"learning_rate": 2e-3, "seed": 1}, "data, learning_rate (0.001, now 0.002) and seed (0, now 1)"),
        ({"method": "full"}, "method (lora, now full)"),
        ({"start_from": "itself"}, "start_from"),
        ({"extra_data": "other_rows"}, "extra_data"),
        ({"loss": "cross-entropy"}, "loss (soft-labels, now cross-entropy)"),
        ({"max_steps": 3}, "length (steps 4, now steps 3)"),
        ({"max_steps": -1}, "length (steps 4, now epochs"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_another_run_is_refused_and_nothing_is_touched(request, trained, finished, capsys, change, named):
    out, fields = finished
    places = {"itself": trained[1]} | {
        name: request.getfixturevalue(name) for name in ("other_rows", "other_base")
    }
    before = content(out)
    command = arguments(SMOKE, **fields | {name: places.get(value, value) for name, value in change.items()})
    assert finetune.main(command) == 2
    words = said(capsys)
    assert f"{out} holds a run with other " in words and "--restart" in words
    assert named.split(" (How")[0] in words
    assert content(out) == before


def test_rows_changed_in_their_file_are_another_run(finished, capsys, tmp_path):
    out, fields = finished
    rows = tmp_path / "rows.csv"
    rows.write_bytes(fields["data"].read_bytes())
    command = arguments(SMOKE, **fields | {"data": rows})
    rows.write_bytes(rows.read_bytes().replace(b"5.25", b"6.25", 1))
    assert finetune.main(command) == 2
    assert "with other data:" in said(capsys)


def test_begun_anew_it_is_what_a_fresh_folder_gets(finished, other_rows, other_base, tmp_path):
    out, fields = finished
    (out / "calibration.json").write_text("{}")  # of the weights that go
    changed = fields | {"data": other_rows, "base_model": other_base, "rank": 8, "max_steps": 2}
    assert finetune.main([*arguments(SMOKE, **changed), "--restart"]) == 0
    assert finetune.main(arguments(SMOKE, **changed | {"output": tmp_path / "fresh"})) == 0
    anew, fresh = (load_file(folder / "adapter_model.safetensors") for folder in (out, tmp_path / "fresh"))
    assert anew.keys() == fresh.keys()
    for name in anew:
        torch.testing.assert_close(anew[name], fresh[name])
    records = [json.loads((folder / "metrics.json").read_text()) for folder in (out, tmp_path / "fresh")]
    assert [record["resumed_from_step"] for record in records] == [0, 0]
    assert records[0]["validation"] == pytest.approx(records[1]["validation"], rel=1e-4)
    assert pd.read_parquet(out / "data" / "train.parquet")["price"].min() >= 300
    assert sorted(path.name for path in (out / "checkpoints").glob("checkpoint-*")) == ["checkpoint-2"]
    assert "restart" not in (out / "recipe.yaml").read_text() and not (out / "calibration.json").exists()


def test_a_recorded_recipe_begun_anew_is_not_lost_when_it_fails(finished, monkeypatch):
    out, _ = finished
    before = (out / "recipe.yaml").read_bytes()
    monkeypatch.setattr(finetune, "load_base", lambda *_: (_ for _ in ()).throw(SetupError("No base.")))
    assert finetune.main([*arguments(out / "recipe.yaml", output=out, rank=8), "--restart"]) == 1
    assert (out / "recipe.yaml").read_bytes() == before
    assert not list(out.glob("*.safetensors")) and not (out / "checkpoints").exists()


def test_a_whole_model_begun_anew_leaves_no_adapter_beside_it(finished):
    out, fields = finished
    assert finetune.main([*arguments(SMOKE, **fields, method="full", max_steps=1), "--restart"]) == 0
    assert (out / "model.safetensors").exists() and not list(out.glob("adapter*"))


@pytest.mark.parametrize("left", [None, "", '{"rank": 4', "[]"])
def test_a_folder_that_does_not_say_what_it_holds_is_refused(finished, capsys, left):
    """Of before there were manifests, or damaged."""
    out, fields = finished
    (out / MANIFEST).unlink()
    if left is not None:
        (out / MANIFEST).write_text(left)
    assert finetune.main(arguments(SMOKE, **fields)) == 2
    assert f"{out} holds a run that does not say what it was made of: name another" in said(capsys)


def test_what_is_only_shown_or_kept_makes_no_other_run(finished, trained):
    out, fields = finished
    shown = {"logging_steps": 2, "save_total_limit": 1, "report_to": "none", "data": out / "data"}
    config = [
        load_recipe(arguments(SMOKE, **fields, **({"disable_tqdm": True} if i else {}))) for i in range(2)
    ]
    assert (
        made_of(*config[0])
        == made_of(*config[1])
        == made_of(*load_recipe(arguments(SMOKE, **fields | shown)))
    )
    assert Manifest.read(trained[1] / MANIFEST) == made_of(*config[0])


def test_a_folder_that_the_run_is_made_of_is_not_thrown_away(tiny_model_folder, finished, capsys, tmp_path):
    base = shutil.copytree(tiny_model_folder / "base", tmp_path / "base")
    before = content(base)
    _, fields = finished
    command = arguments(SMOKE, **fields | {"base_model": base, "output": base})
    assert finetune.main(command) == 2
    assert "does not say what it was made of" in said(capsys)
    assert finetune.main([*command, "--restart"]) == 2
    assert "holds what this run is to be made of" in said(capsys)
    assert content(base) == before


def test_a_checkpoint_that_the_run_starts_from_is_not_thrown_away(finished, capsys):
    out, fields = finished
    before = content(out)
    command = arguments(SMOKE, **fields, start_from=out / "checkpoints" / "checkpoint-2", rank=4)
    assert finetune.main([*command, "--restart"]) == 2
    assert "holds what this run is to be made of" in said(capsys)
    assert content(out) == before


def test_killed_while_the_old_run_is_thrown_away(finished, other_rows, monkeypatch):
    """What is left is of the run that the manifest names, or of none."""
    out, fields = finished
    names = {"unlink": Path, "rmtree": resume.shutil}
    for name, owner in names.items():
        with monkeypatch.context() as patch:
            real = getattr(owner, name)

            def dies(*args, real=real, **kwargs):
                real(*args, **kwargs)
                raise KeyboardInterrupt

            patch.setattr(owner, name, dies)
            with pytest.raises(KeyboardInterrupt):
                finetune.main([*arguments(SMOKE, **fields | {"data": other_rows}), "--restart"])
        manifest = Manifest.read(out / MANIFEST)
        assert manifest == made_of(*load_recipe(arguments(SMOKE, **fields)))
        assert (out / "checkpoints").exists() == (name == "unlink")
    assert finetune.main(arguments(SMOKE, **fields)) == 0
    assert json.loads((out / "metrics.json").read_text())["resumed_from_step"] == 0


# Its rows -------------------------------------------------------------------------------------------------


def test_a_preparation_killed_while_it_moved_its_files_is_done_again(trained, tmp_path, monkeypatch):
    _, _, base = trained
    fields = {"base_model": base, "data": trained[1].parent / "rows.csv", "output": tmp_path / "out"}
    with monkeypatch.context() as patch:
        patch.setattr(prepare.os, "replace", stops_behind(prepare.os.replace, 2))
        with pytest.raises(KeyboardInterrupt):
            finetune.main(arguments(SMOKE, **fields))
    assert (tmp_path / "out" / "data" / "train.parquet").exists()
    recipe, config = load_recipe(arguments(SMOKE, **fields))
    assert not is_prepared(recipe, config.seed)
    assert begin(recipe, config) == tmp_path / "out" / "data"
    assert is_prepared(recipe, config.seed)


def stops_behind(real, calls):
    left = [calls]

    def stopping(*args):
        real(*args)
        left[0] -= 1
        if not left[0]:
            raise KeyboardInterrupt

    return stopping


def test_rows_of_two_preparations_are_refused(trained, other_rows, tmp_path, capsys, monkeypatch):
    """A folder that was prepared anew and killed has new training rows beside old validation rows."""
    folder = shutil.copytree(trained[1] / "data", tmp_path / "data")
    options = prepare.Options(str(folder), validation=8, calibration=0)
    with monkeypatch.context() as patch:
        patch.setattr(prepare.os, "replace", stops_behind(prepare.os.replace, 1))
        with pytest.raises(KeyboardInterrupt):
            prepare.prepare([str(other_rows)], options)
    capsys.readouterr()
    command = arguments(SMOKE, base_model=trained[2], data=folder, output=tmp_path / "out")
    assert finetune.main(command) == 2
    assert "train.parquet is not the file that data_card.json beside it describes" in said(capsys)
    assert not (tmp_path / "out" / MANIFEST).exists()


def test_rows_prepared_from_another_file_are_not_taken(trained, other_rows, tmp_path, capsys):
    out = tmp_path / "out"
    shutil.copytree(trained[1] / "data", out / "data")
    command = arguments(SMOKE, base_model=trained[2], data=other_rows, output=out)
    assert finetune.main(command) == 2
    assert "was not prepared from" in said(capsys)
    recipe, config = load_recipe([*command, "--restart"])
    assert pd.read_parquet(begin(recipe, config) / "train.parquet")["price"].min() >= 300
