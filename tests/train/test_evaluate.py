"""Scoring a file of items on a tiny random Llama: both runs, going on after a kill, the published protocol."""

import json
import re
import shutil

import pandas as pd
import pytest

from pricer.arena.runs import load_run
from pricer.llama.predictor import Predictor
from pricer.price.calibration import CALIBRATION_FILE, Band, Calibration, Calibrations
from pricer.price.prior import PRIOR_FILE, load_prior
from train import evaluate

ITEMS = pd.DataFrame(
    {
        "text": [
            f"Product number {word}\nmade of wood" for word in ("one", "two", "three", "four", "five", "six")
        ],
        "price": [10.0, 29.99, 55.0, 129.99, 400.0, 850.0],
        "category": ["Tools"] * 6,
    }
)


@pytest.fixture
def score(tiny_model_folder, tmp_path, monkeypatch):
    """`score(*arguments)`: run the command on six items; gives the folder of the runs."""
    monkeypatch.setenv("PRICER_BASE_MODEL", str(tiny_model_folder / "base"))
    monkeypatch.setenv("PRICER_ADAPTER", str(tiny_model_folder / "adapter"))
    monkeypatch.setenv("PRICER_DEVICE", "cpu")
    monkeypatch.delenv("PRICER_PROFILE", raising=False)
    ITEMS.to_csv(tmp_path / "items.csv", index=False)

    def score(*arguments, code=0):
        options = ["--items", str(tmp_path / "items.csv"), "--out", str(tmp_path / "runs"), "--name", "tiny"]
        assert evaluate.main([*options, *arguments]) == code
        return tmp_path / "runs"

    return score


def test_writes_both_runs(score, capsys, tiny_predictor):
    folder = score()
    for which in ("base", "tuned"):
        run = load_run(folder / f"tiny-{which}")
        assert run.info.kind == which
        assert run.info.rule == "log-mean"
        assert run.table["index"].tolist() == list(range(6))
        prompts = [tiny_predictor.prepare(text) for text in ITEMS["text"]]
        guesses = [float(p.distribution.point()) for p in tiny_predictor.predict(prompts, which)]
        assert run.table["guess_usd"].tolist() == pytest.approx(guesses, abs=0.02)
        assert (run.table["low_usd"] <= run.table["high_usd"]).all()
        assert (run.table["crps_usd"] >= 0).all()
    assert load_run(folder / "tiny-base").info.adapter is None
    assert load_run(folder / "tiny-tuned").info.adapter == "adapter"
    assert not list(folder.glob(".*"))  # no progress file is left
    out = capsys.readouterr().out
    assert out.count("6 items") == 2 and "RMSLE" in out


def test_goes_on_behind_what_is_done(score, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(evaluate.Progress, "finish", lambda self: self._file.close())
        folder = score("--passes", "tuned")
    whole = load_run(folder / "tiny-tuned").table
    progress = folder / ".tiny-tuned.progress.jsonl"
    lines = progress.read_text().split("\n")
    done = [json.loads(line) for line in lines[1:4]]
    done[0]["guess_usd"] = 777.0  # so that we see it was taken, not scored again
    torn = lines[4][: len(lines[4]) // 2]
    progress.write_text("\n".join([lines[0], *map(json.dumps, done), torn]))

    scored = []
    batches = Predictor.predict_batches

    def spy(self, prompts, which):
        scored.extend(prompt.text for prompt in prompts)
        return batches(self, prompts, which)

    monkeypatch.setattr(Predictor, "predict_batches", spy)
    score("--passes", "tuned")
    left = set(range(6)) - {record["index"] for record in done}
    assert len(scored) == 3
    assert all(any(ITEMS["text"][i] in prompt for prompt in scored) for i in left)
    table = load_run(folder / "tiny-tuned").table
    assert table["index"].tolist() == list(range(6))
    taken = done[0]["index"]
    assert table["guess_usd"][taken] == 777.0
    others = [i for i in range(6) if i != taken]
    assert table["guess_usd"][others].tolist() == pytest.approx(whole["guess_usd"][others].tolist(), abs=0.02)
    assert not progress.exists()


@pytest.fixture
def unfinished(score, tiny_model_folder, tmp_path, monkeypatch):
    """A run of the tuned pass, on a copy of the tiny pair, that ended before it was saved: (progress file, the pair's
    folder). Every guess in the file is 777, so that we see whether it was taken."""
    pair = shutil.copytree(tiny_model_folder, tmp_path / "pair", ignore=shutil.ignore_patterns("calibrated"))
    monkeypatch.setenv("PRICER_BASE_MODEL", str(pair / "base"))
    monkeypatch.setenv("PRICER_ADAPTER", str(pair / "adapter"))
    with monkeypatch.context() as patch:
        patch.setattr(evaluate.Progress, "finish", lambda self: self._file.close())
        progress = score("--passes", "tuned") / ".tiny-tuned.progress.jsonl"
    for path in progress.parent.glob("tiny-tuned.*"):
        path.unlink()
    header, *records = progress.read_text().splitlines()
    marked = [json.dumps(json.loads(record) | {"guess_usd": 777.0}) for record in records]
    progress.write_text("\n".join([header, *marked, ""]))
    return progress, pair


def prices_corrected(items, pair):
    table = pd.read_csv(items)
    table.assign(price=table["price"] + 1).to_csv(items, index=False)


def texts_corrected(items, pair):
    items.write_text(items.read_text().replace("number two", "number 2"))


def trained_again(path):
    """The same size, the same shapes, other numbers."""
    content = path.read_bytes()
    path.write_bytes(content[:-4] + bytes(255 - byte for byte in content[-4:]))


CHANGES = {
    "prices": prices_corrected,
    "items": texts_corrected,
    "adapter weights": lambda items, pair: trained_again(pair / "adapter" / "adapter_model.safetensors"),
    "base weights": lambda items, pair: trained_again(pair / "base" / "model.safetensors"),
    "calibration": lambda items, pair: (
        Calibrations()
        .with_one(
            load_prior("benchmark"),
            Calibration(
                rule="log-mean",
                bands=(Band(from_usd=0, items=9, tails={0.5: (0.2, 0.8), 0.8: (0.1, 0.9), 0.9: (0, 1)}),),
            ),
        )
        .save(pair / "adapter" / CALIBRATION_FILE)
    ),
    "prior in training": lambda items, pair: load_prior("shop").save(pair / "adapter" / PRIOR_FILE),
    "prompt question": lambda items, pair: (pair / "adapter" / "pricer.json").write_text(
        '{"question": "What is it worth?", "max_text_tokens": 60}'
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_progress_of_something_else_is_refused_or_begun_anew(score, unfinished, tmp_path, capsys, change):
    progress, pair = unfinished
    kept = progress.read_bytes()
    CHANGES[change](tmp_path / "items.csv", pair)
    capsys.readouterr()
    score("--passes", "tuned", code=2)
    said = capsys.readouterr().err.strip()
    assert re.search(rf"a run with other {change}( \(.*\))?: give the command", said)
    assert len(said.splitlines()) == 1
    assert progress.read_bytes() == kept
    resumed = load_run(score("--passes", "tuned", "--restart") / "tiny-tuned").table
    assert 777.0 not in resumed["guess_usd"].tolist()
    fresh = load_run(score("--passes", "tuned", "--out", str(tmp_path / "fresh")).parent / "fresh/tiny-tuned")
    columns = ["index", "guess_usd", "crps_usd", "low_usd"]
    pd.testing.assert_frame_equal(resumed[columns], fresh.table[columns])


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--rule", "median"], "rule (log-mean, now median)"),
        (["--limit", "4"], "items and prices"),
        (["--protocol", "published"], "protocol (distribution, now published)"),
    ],
)
def test_progress_of_another_command_is_refused(score, unfinished, capsys, arguments, named):
    capsys.readouterr()
    folder = score("--passes", "tuned", *arguments, code=2)
    assert named in capsys.readouterr().err
    score("--passes", "tuned")
    assert set(load_run(folder / "tiny-tuned").table["guess_usd"]) == {777.0}


@pytest.mark.parametrize("junk", ["{torn", "no json\n", "\n", "{}\n"])
def test_a_progress_file_without_items_is_begun_anew(score, tmp_path, junk):
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / ".tiny-base.progress.jsonl").write_text(junk)
    folder = score("--passes", "base")
    assert len(load_run(folder / "tiny-base").table) == 6


@pytest.mark.parametrize("header", ['{"rule": "log-m', "[1]", "null", "\xff"])
def test_items_under_a_torn_manifest_are_not_taken(score, unfinished, capsys, header):
    progress, _ = unfinished
    _, *records = progress.read_text().splitlines()
    progress.write_text("\n".join([header, *records, ""]), encoding="latin-1")
    capsys.readouterr()
    score("--passes", "tuned", code=2)
    assert "does not say what it was made of" in capsys.readouterr().err
    folder = score("--passes", "tuned", "--restart")
    assert 777.0 not in load_run(folder / "tiny-tuned").table["guess_usd"].tolist()


@pytest.mark.parametrize("damage", ["[1]", '{"index": 3}', '{"index": [3], "guess_usd": 1}', "{"])
def test_from_a_damaged_record_on_items_are_scored_again(score, unfinished, damage):
    progress, _ = unfinished
    header, *records = progress.read_text().splitlines()
    progress.write_text("\n".join([header, *records[:2], damage, *records[2:], ""]))
    guesses = load_run(score("--passes", "tuned") / "tiny-tuned").table["guess_usd"]
    assert (guesses == 777.0).sum() == 2


def test_two_that_do_the_same_work_both_end_well(score, monkeypatch):
    finish = evaluate.Progress.finish
    monkeypatch.setattr(
        evaluate.Progress, "finish", lambda self: (self.path.unlink(), finish(self))
    )  # the other one's
    assert len(load_run(score("--passes", "base") / "tiny-base").table) == 6


def test_the_prior_is_the_benchmarks_unless_another_is_named(score, monkeypatch):
    monkeypatch.setenv("PRICER_PRIOR", "shop")  # which is for pricing, not for the benchmark
    folder = score()
    benchmark = {which: load_run(folder / f"tiny-{which}") for which in ("base", "tuned")}
    assert (benchmark["tuned"].info.prior, benchmark["base"].info.prior) == ("benchmark", None)
    folder = score("--prior", "shop", "--set", "everyday")
    shop = {"base": load_run(folder / "tiny-base"), "tuned": load_run(folder / "tiny-tuned-shop")}
    assert (shop["tuned"].info.items, benchmark["tuned"].info.items) == ("everyday", "benchmark")
    assert shop["tuned"].info.label.endswith("fine-tuned, shop prices")
    assert shop["tuned"].info.prior == "shop"
    assert (shop["tuned"].table["guess_usd"] < benchmark["tuned"].table["guess_usd"]).all()
    assert shop["base"].table["guess_usd"].equals(benchmark["base"].table["guess_usd"])


def test_a_calibrated_adapter_gives_its_interval_and_its_rule(score, monkeypatch, calibrated_adapter):
    plain = score("--rule", "median")
    plain = {which: load_run(plain / f"tiny-{which}") for which in ("base", "tuned")}
    monkeypatch.setenv("PRICER_ADAPTER", str(calibrated_adapter))
    folder = score()
    for which, on in (("base", None), ("tuned", 1234)):
        run = load_run(folder / f"tiny-{which}")
        assert (run.info.rule, run.info.calibrated_on) == ("median", on)
        assert run.table["guess_usd"].tolist() == plain[which].table["guess_usd"].tolist()
        same = run.table[["low_usd", "high_usd"]].equals(plain[which].table[["low_usd", "high_usd"]])
        assert same == (which == "base")
    assert (run.table["low_usd"] <= plain["tuned"].table["low_usd"]).all()
    assert (run.table["high_usd"] >= plain["tuned"].table["high_usd"]).all()
    published = score("--protocol", "published", "--passes", "tuned")
    assert load_run(published / "tiny-tuned").info.calibrated_on is None


def test_published_protocol(score, tiny_predictor):
    folder = score("--protocol", "published", "--passes", "base", "tuned", "--limit", "4")
    for which in ("base", "tuned"):
        run = load_run(folder / f"tiny-{which}")
        assert run.info.rule == "greedy"
        texts = [
            tiny_predictor.greedy_text(tiny_predictor.prepare(text), which) for text in ITEMS["text"][:4]
        ]
        assert run.table["guess_usd"].tolist() == [evaluate.first_number(text) for text in texts]
        assert run.table["unparsed"].tolist() == [not any(c.isdigit() for c in text) for text in texts]


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("129.00", 129.0),
        ("$1,299.50 or so", 1299.5),
        ("about 12. Then 30", 12.0),
        ("none", 0.0),
        ("", 0.0),
        ("-5", 5.0),
        ("9" * 40, evaluate.MAX_GUESS_USD),
    ],
)
def test_first_number(text, number):
    assert evaluate.first_number(text) == number


def test_bad_items_are_one_sentence(score, tmp_path, capsys):
    pd.DataFrame({"title": ["no price here"]}).to_csv(tmp_path / "bad.csv", index=False)
    for path, words in ((tmp_path / "none.csv", "There is no file"), (tmp_path / "bad.csv", "price")):
        assert evaluate.main(["--items", str(path), "--out", str(tmp_path / "runs")]) == 2
        err = capsys.readouterr().err
        assert words in err and len(err.strip().splitlines()) == 1


def test_stopped_by_hand_it_says_that_it_goes_on(score, monkeypatch, capsys):
    def stop(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(evaluate, "save_run", stop)
        folder = score("--passes", "tuned", code=130)
    assert "the same command goes on" in capsys.readouterr().err
    assert [path.name for path in folder.iterdir()] == [".tiny-tuned.progress.jsonl"]
    score("--limit", "-3", code=2)
    assert "--limit -3 is below 0" in capsys.readouterr().err
