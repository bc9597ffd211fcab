"""Calibrating an adapter from the command line, on a tiny random Llama and hand-made rows."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pricer.llama.adapter import weights_sha256
from pricer.llama.predictor import Predictor
from pricer.manifest import Manifest
from pricer.price.calibration import CALIBRATION_FILE, LEVELS, Calibrations, fit
from pricer.price.distribution import RULES, PriceDistribution
from pricer.price.prior import correct, load_prior
from pricer.settings import ModelRef, Settings
from train import calibrate, distributions

TEXTS = [
    f"{adjective} {noun}\nmade of {material}"
    for adjective in (
        "Small",
        "Large",
        "Red",
        "Blue",
        "Heavy",
        "Light",
        "Folding",
        "Wooden",
        "Cordless",
        "Old",
    )
    for noun in ("lamp", "table", "drill", "chair", "guitar", "kettle", "camera", "jacket", "wheel", "clock")
    for material in ("wood", "steel")
]


@pytest.fixture(scope="module")
def rows(tiny_predictor):
    """Rows whose prices lean to the cheap side of what the model thinks of them, which is wrong by far otherwise."""
    random = np.random.default_rng(0)
    predicted = tiny_predictor.predict([tiny_predictor.prepare(text) for text in TEXTS], "tuned")
    levels = random.beta(0.5, 0.9, len(TEXTS))  # of the cumulative probability: mostly far out
    prices = [float(p.distribution.quantile(level)) for p, level in zip(predicted, levels, strict=True)]
    return pd.DataFrame(
        {"text": TEXTS, "price": np.maximum(np.array(prices) - 0.01, 1), "group": np.arange(len(TEXTS)) // 2}
    )


@pytest.fixture
def adapter(tiny_model_folder, tmp_path, monkeypatch):
    """A copy of the tiny adapter that the tests may write beside; the working folder is empty."""
    folder = shutil.copytree(tiny_model_folder / "adapter", tmp_path / "adapter")
    monkeypatch.setenv("PRICER_BASE_MODEL", str(tiny_model_folder / "base"))
    monkeypatch.setenv("PRICER_ADAPTER", str(folder))
    monkeypatch.setenv("PRICER_DEVICE", "cpu")
    monkeypatch.delenv("PRICER_PROFILE", raising=False)
    monkeypatch.chdir(tmp_path)
    return folder


@pytest.fixture
def data(rows, tmp_path):
    """A folder as train.prepare makes one, as far as it matters here."""
    folder = tmp_path / "data"
    folder.mkdir()
    rows.to_parquet(folder / "calibration.parquet", index=False)
    return folder


@pytest.fixture
def scored(monkeypatch):
    """The prompts that went through the model."""
    prompts = []
    batches = Predictor.predict_batches

    def spy(self, batch, which):
        prompts.extend(prompt.text for prompt in batch)
        assert which == "tuned"
        return batches(self, batch, which)

    monkeypatch.setattr(Predictor, "predict_batches", spy)
    return prompts


def calibration_in(folder, prior="benchmark"):
    return Calibrations.load(f"{folder}/{CALIBRATION_FILE}").by_prior[prior]


def table(out):
    """{(level, predicted range): (items, held before, width before, held after, width after)}"""
    line = re.compile(
        r"^(\d+%) +(.+?) {2,}([\d,]+) +([\d.]+) \[.*?\] +(\d+) +([\d.]+) \[.*?\] +(\d+)$", re.MULTILINE
    )
    return {(level, where): tuple(map(float, rest)) for level, where, *rest in line.findall(out)}


def test_from_rows_to_an_app_that_uses_it(adapter, data, rows, capsys, tiny_predictor):
    assert calibrate.main(["--data", str(data)]) == 0
    out = capsys.readouterr().out
    found = calibration_in(adapter)
    assert found.items == len(rows)
    assert found.adapter_sha256 == weights_sha256(adapter)
    assert found.data == "data"

    predictions = tiny_predictor.predict([tiny_predictor.prepare(text) for text in rows["text"]], "tuned")
    distribution = PriceDistribution.stack([p.distribution for p in predictions])
    price = rows["price"].to_numpy()
    error = {rule: np.abs(distribution.point(rule) - price).mean() for rule in RULES}
    assert error[found.rule] == pytest.approx(min(error.values()), abs=0.01)
    shown = dict(re.findall(r"^(\S+) +(\d+\.\d\d) \[", out, re.MULTILINE))
    assert {rule: float(usd) for rule, usd in shown.items()} == pytest.approx(error, abs=0.01)

    coverage = table(out)
    for level in LEVELS:
        items, before, width_before, after, width_after = coverage[f"{level:.0%}", "all"]
        low, high = distribution.interval(level)
        assert items == len(rows)
        assert before == pytest.approx(100 * ((low <= price) & (price <= high)).mean(), abs=0.1)
        assert width_before == pytest.approx((high - low).mean(), abs=0.6)
        assert after == pytest.approx(100 * found.coverage[level], abs=0.06)
        assert abs(after - 100 * level) < abs(before - 100 * level)
    assert coverage["90%", "all"][3] == pytest.approx(90, abs=8)

    from pricer.llama.predictor import load_predictor
    from pricer.settings import Settings

    predictor = load_predictor(Settings.from_env(prior="benchmark"))
    assert predictor.rule == found.rule
    assert predictor.compare(TEXTS[0]).to_dict()["tuned"]["calibrated"] is True


def test_there_is_one_for_each_prior(adapter, data, rows, scored, capsys):
    assert calibrate.main(["--data", str(data)]) == 0
    scored.clear()
    assert calibrate.main(["--data", str(data), "--prior", "shop"]) == 0
    assert scored == []  # the model's own distributions are kept, whatever the prior
    one, other = calibration_in(adapter), calibration_in(adapter, "shop")
    assert one.prior_sha256 == load_prior("benchmark").sha256 and one.bands != other.bands
    own = PriceDistribution(next(iter(kept_in("out/distributions"))))
    under_shop = correct(own, load_prior("benchmark"), load_prior("shop"))
    expected = fit(under_shop, rows["price"].to_numpy(), rule=other.rule)
    assert other.bands == expected.bands
    weights = adapter / "adapter_model.safetensors"
    weights.write_bytes(
        weights.read_bytes()[:-1] + b"\1"
    )  # trained again: what belongs to the old weights goes
    assert calibrate.main(["--data", str(data), "--prior", "shop"]) == 0
    assert list(Calibrations.load(adapter / CALIBRATION_FILE).by_prior) == ["shop"]


def kept_in(folder):
    for path in sorted(Path(folder).glob("*.npz")):
        with np.load(path) as kept:
            yield kept["probabilities"]


def test_a_second_start_scores_nothing_and_finds_the_same(adapter, data, scored, capsys):
    assert calibrate.main(["--data", str(data)]) == 0
    first, report = (adapter / CALIBRATION_FILE).read_bytes(), capsys.readouterr().out
    assert len(scored) == len(TEXTS)
    scored.clear()
    (adapter / CALIBRATION_FILE).unlink()
    assert calibrate.main(["--data", str(data)]) == 0
    assert scored == []
    assert (adapter / CALIBRATION_FILE).read_bytes() == first
    assert capsys.readouterr().out == report


def test_goes_on_behind_the_last_chunk(adapter, data, scored, monkeypatch, capsys):
    assert calibrate.main(["--data", str(data), "--out", "whole"]) == 0
    monkeypatch.setattr(distributions, "CHUNK", 50)
    write = distributions._write

    def killed(path, probabilities, price_usd):
        write(path, probabilities, price_usd)
        if len(probabilities) == 100:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(distributions, "_write", killed)
        calibrate.main(["--data", str(data), "--kept", "elsewhere"])
    scored.clear()
    assert calibrate.main(["--data", str(data), "--kept", "elsewhere", "--out", "resumed"]) == 0
    assert len(scored) == len(TEXTS) - 100 and TEXTS[100] in scored[0]
    whole, resumed = (calibration_in(name) for name in ("whole", "resumed"))
    assert resumed.rule == whole.rule
    for one, other in zip(whole.bands, resumed.bands, strict=True):
        for level in LEVELS:  # batches differ, and with them the last digits
            assert one.tails[level] == pytest.approx(other.tails[level], abs=1e-3)


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04 cut short"])
def test_damaged_kept_rows_are_scored_again(adapter, data, scored, damage, tmp_path):
    assert calibrate.main(["--data", str(data)]) == 0
    (kept,) = (tmp_path / "out" / "distributions").iterdir()
    kept.write_bytes(damage)
    scored.clear()
    assert calibrate.main(["--data", str(data)]) == 0
    assert len(scored) == len(TEXTS)


def test_rows_kept_under_other_weights_are_not_used(adapter, data, scored):
    assert calibrate.main(["--data", str(data)]) == 0
    weights = adapter / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\1")
    scored.clear()
    assert calibrate.main(["--data", str(data)]) == 0
    assert len(scored) == len(TEXTS)


def test_rows_kept_under_another_base_are_not_used(
    adapter, rows, scored, tiny_predictor, tiny_model_folder, tmp_path
):
    kept = (tiny_predictor, rows.head(4), Settings.from_env(), tmp_path / "kept")
    first = distributions.score_rows(*kept)
    base = shutil.copytree(tiny_model_folder / "base", tmp_path / "base")
    content = (base / "model.safetensors").read_bytes()
    (base / "model.safetensors").write_bytes(content[:-4] + bytes(255 - byte for byte in content[-4:]))
    other = replace(kept[2], base=ModelRef(str(base)))
    distributions.score_rows(*kept[:2], other, kept[3])
    assert len(scored) == 8
    again = distributions.score_rows(*kept)
    assert len(scored) == 8 and (again.probabilities == first.probabilities).all()


def test_a_file_under_a_wrong_name_is_not_used(adapter, rows, scored, tiny_predictor, tmp_path):
    kept = (tiny_predictor, rows.head(4), Settings.from_env(), tmp_path / "kept")
    distributions.score_rows(*kept)
    (path,) = (tmp_path / "kept").iterdir()
    with np.load(path) as found:
        other = Manifest(json.loads(str(found["made_of"])) | {"precision": "nf4"})
        np.savez_compressed(path, probabilities=found["probabilities"], made_of=np.array(other.as_line()))
    distributions.score_rows(*kept)
    assert len(scored) == 8


def test_corrected_prices_are_calibrated_on_without_scoring_again(adapter, data, rows, scored):
    assert calibrate.main(["--data", str(data)]) == 0
    before = calibration_in(adapter)
    rows.assign(price=(rows["price"] * 0.5).clip(lower=1)).to_parquet(data / "calibration.parquet")
    scored.clear()
    assert calibrate.main(["--data", str(data)]) == 0
    assert scored == [] and calibration_in(adapter).bands != before.bands


def test_rows_of_a_preparation_that_was_killed_are_refused(adapter, data, capsys):
    card = {"splits": {"calibration": {"sha256": "0" * 64}}}
    (data / "data_card.json").write_text(json.dumps(card))
    assert calibrate.main(["--data", str(data)]) == 2
    assert "calibration.parquet is not the file that data_card.json" in capsys.readouterr().err


def test_check_reports_on_other_items_with_the_calibration_as_it_is(adapter, data, rows, tmp_path, capsys):
    items = rows.iloc[:30]
    items.to_csv(tmp_path / "items.csv", index=False)
    assert calibrate.main(["--data", str(data), "--check", "items.csv"]) == 0
    both = capsys.readouterr().out.split("items of items.csv")
    written = (adapter / CALIBRATION_FILE).read_bytes()
    assert table(both[0])["90%", "all"][0] == len(TEXTS)
    assert table(both[1])["90%", "all"][0] == 30
    assert calibrate.main(["--check", "items.csv"]) == 0
    assert table(capsys.readouterr().out) == table(both[1])
    assert (adapter / CALIBRATION_FILE).read_bytes() == written


def test_no_listing_is_judged_by_intervals_that_it_or_its_group_had_a_part_in():
    random = np.random.default_rng(1)
    distribution = PriceDistribution(random.dirichlet(np.full(999, 0.05), 150))
    price, group = random.integers(1, 999, 150).astype(float), np.arange(150) // 3
    before = calibrate.cross_validated(distribution, price, group, "median")
    for changed in (0, 7, 20):
        other = price.copy()
        other[group == changed] = 1.0
        after = calibrate.cross_validated(distribution, other, group, "median")
        own = group == changed
        for level in LEVELS:
            for one, two in zip(before[level], after[level], strict=True):
                assert np.array_equal(one[own], two[own])
        # Of others it had a part in.
        assert not all(np.array_equal(before[level][0], after[level][0]) for level in LEVELS)


def test_the_report_is_by_band_too():
    random = np.random.default_rng(2)
    centre = random.normal(4.5, 1, 420)
    p = np.exp(-((np.log(np.arange(1, 1000)) - centre[:, None]) ** 2))
    price = np.clip(np.exp(random.normal(centre, 1)), 1, 999).round(2)
    found, report = calibrate.calibrate(
        PriceDistribution(p / p.sum(axis=1, keepdims=True)), pd.DataFrame({"price": price})
    )
    figures = table(report)
    for level in LEVELS:
        by_band = np.array(
            [row for (name, where), row in figures.items() if name == f"{level:.0%}" and where != "all"]
        )
        assert by_band[:, 0].tolist() == [band.items for band in found.bands]
        items, *overall = figures[f"{level:.0%}", "all"]
        assert by_band[:, 0].sum() == items == 420
        assert np.average(by_band[:, 1:], axis=0, weights=by_band[:, 0]) == pytest.approx(overall, abs=1.1)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "--data"),
        (["--data", "none.csv"], "There is no file"),
        (["--data", "empty"], "calibration.parquet"),
        (["--data", "few.csv"], "30 rows"),
        (["--data", "few.csv", "--adapter", "someone/adapter"], "--out"),
        (["--check", "few.csv"], "has no calibration under the prior benchmark yet"),
        (["--data", "enough.csv", "--out", "few.csv"], "cannot be written"),
        (["--data", "enough.csv", "--kept", "few.csv"], "cannot be kept"),
    ],
)
def test_what_cannot_be_done_is_one_sentence(adapter, rows, tmp_path, capsys, arguments, words):
    (tmp_path / "empty").mkdir()
    rows.iloc[:30].to_csv(tmp_path / "few.csv", index=False)
    rows.to_csv(tmp_path / "enough.csv", index=False)
    assert calibrate.main(arguments) in (1, 2)
    said = re.split(r"[\r\n]+", capsys.readouterr().err.strip())
    lines = [line for line in said if not re.search(r"(it|items)/s", line)]  # progress bars
    assert len(lines) == 1 and words in lines[0]
    assert not (adapter / CALIBRATION_FILE).exists()


def test_the_file_names_no_path(adapter, data, tmp_path):
    assert calibrate.main(["--data", str(data)]) == 0
    assert str(tmp_path) not in json.dumps(json.loads((adapter / CALIBRATION_FILE).read_text()))
