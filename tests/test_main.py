"""`python -m pricer`, in this process, on a tiny random Llama."""

import io
import json
import math
import sys

import numpy as np
import pytest

from pricer.__main__ import main
from pricer.price.prior import PricePrior

TEXT = "Cordless drill with two batteries"
FIELDS = {
    "price_usd",
    "low_usd",
    "high_usd",
    "calibrated",
    "prior",
    "rule",
    "rules",
    "unpriced_mass",
    "seconds",
}


pytestmark = pytest.mark.usefixtures("tiny_environment")


def answer(capsys, *arguments):
    assert main(list(arguments)) == 0
    return json.loads(capsys.readouterr().out)


def sentence(capsys):
    """What stands on standard error, which must be one line; nothing stands on standard output."""
    out, err = capsys.readouterr()
    assert out == ""
    assert "Traceback" not in err
    lines = [line for line in err.splitlines() if line.strip()]
    assert len(lines) == 1, err
    return lines[0]


def test_table(capsys):
    assert main([TEXT]) == 0
    lines = capsys.readouterr().out.rstrip("\n").split("\n")
    assert lines[0].split() == ["Base", "Fine-tuned"]
    assert lines[1].startswith("Price (log-mean)") and lines[1].count("$") == 2
    assert lines[3].split() == ["Prices", "as", "in", "published", "benchmark"]
    assert lines[4].split() == ["Calibrated", "no", "no"]
    assert len(lines) == 7


def test_a_calibrated_adapter_gives_its_interval_and_its_rule(capsys, monkeypatch, calibrated_adapter):
    before = answer(capsys, TEXT, "--json", "--rule", "median")
    monkeypatch.setenv("PRICER_ADAPTER", str(calibrated_adapter))
    got = answer(capsys, TEXT, "--json")
    for which in ("base", "tuned"):
        assert got[which]["rule"] == "median"
        assert got[which]["price_usd"] == before[which]["price_usd"]
    interval = {
        which: (got[which]["low_usd"], got[which]["high_usd"]) for which in got if which != "truncated"
    }
    assert interval["base"] == (before["base"]["low_usd"], before["base"]["high_usd"])
    assert (
        interval["tuned"][0]
        <= before["tuned"]["low_usd"]
        <= before["tuned"]["high_usd"]
        <= interval["tuned"][1]
    )
    assert interval["tuned"] != (before["tuned"]["low_usd"], before["tuned"]["high_usd"])
    assert answer(capsys, TEXT, "--json", "--rule", "mean")["tuned"]["rule"] == "mean"
    assert main([TEXT]) == 0
    lines = capsys.readouterr().out.split("\n")
    assert lines[1].startswith("Price (median)")
    assert lines[4].split() == ["Calibrated", "no", "yes"]


def test_the_prior_is_the_shops_unless_another_is_named(capsys, monkeypatch, tmp_path):
    benchmark = answer(capsys, TEXT, "--json")
    monkeypatch.delenv("PRICER_PRIOR")
    shop = answer(capsys, TEXT, "--json")
    assert (shop["tuned"]["prior"], benchmark["tuned"]["prior"]) == ("shop", "benchmark")
    assert shop["tuned"]["price_usd"] < benchmark["tuned"]["price_usd"]
    for field in FIELDS - {"seconds"}:
        assert shop["base"][field] == benchmark["base"][field]  # as published
    assert (
        answer(capsys, TEXT, "--json", "--prior", "benchmark")["tuned"]["rules"]
        == benchmark["tuned"]["rules"]
    )
    dear = PricePrior.fit(np.full(100, 800.0), name="Dear things").save(tmp_path / "dear.json")
    mine = answer(capsys, TEXT, "--json", "--prior", str(dear))["tuned"]
    assert mine["prior"] == "Dear things" and mine["price_usd"] > benchmark["tuned"]["price_usd"]
    assert main([TEXT, "--prior", str(tmp_path / "none.json")]) == 1
    assert "shop or benchmark" in sentence(capsys)


def test_json(capsys, tiny_predictor):
    got = answer(capsys, TEXT, "--json", "--rule", "median")
    assert set(got) == {"truncated", "base", "tuned"}
    expected = tiny_predictor.compare(TEXT).to_dict("median")
    for which in ("base", "tuned"):
        assert set(got[which]) == FIELDS
        assert got[which]["rule"] == "median"
        assert got[which]["rules"] == expected[which]["rules"]
        assert got[which]["price_usd"] == got[which]["rules"]["median"]


def test_distribution(capsys):
    got = answer(capsys, TEXT, "--distribution")
    for which in ("base", "tuned"):
        probabilities = got[which]["distribution"]
        assert len(probabilities) == 999
        assert min(probabilities) >= 0
        assert math.isclose(sum(probabilities) + got[which]["unpriced_mass"], 1, abs_tol=1e-4)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_reads_standard_input(capsys, monkeypatch, encoding):
    direct = answer(capsys, TEXT, "--json")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(TEXT.encode(encoding))))
    piped = answer(capsys, "-", "--json")
    assert piped["base"]["rules"] == direct["base"]["rules"]
    assert piped["tuned"]["rules"] == direct["tuned"]["rules"]


@pytest.mark.parametrize("data", [b"caf\xe9 \xff", TEXT.encode("utf-16-le"), b"lamp\0"])
def test_standard_input_must_be_utf8(capsys, monkeypatch, data):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
    assert main(["-"]) == 2
    assert "UTF-8" in sentence(capsys)
    if b"\0" not in data:  # which no argument can hold
        assert main([data.decode("utf-8", "surrogateescape")]) == 2
        assert "UTF-8" in sentence(capsys)


@pytest.mark.parametrize("blank", ["", " \n ", "\x00\x1b", "\u200b\u200e"])
def test_blank_text(capsys, blank):
    assert main([blank]) == 2
    assert "no text yet" in sentence(capsys)


def test_unknown_profile(capsys, monkeypatch):
    monkeypatch.setenv("PRICER_PROFILE", "llama-900b")
    assert main([TEXT]) == 1
    assert "PRICER_PROFILE" in sentence(capsys)


def test_missing_adapter(capsys, monkeypatch):
    monkeypatch.setenv("PRICER_ADAPTER", "/nowhere/adapter")
    assert main([TEXT]) == 1
    line = sentence(capsys)
    assert "/nowhere/adapter" in line and "PRICER_ADAPTER" in line


def test_long_text_is_truncated(capsys):
    assert answer(capsys, "word " * 100, "--json")["truncated"] is True
    assert answer(capsys, TEXT, "--json")["truncated"] is False
    assert main(["word " * 100]) == 0
    assert "its end was cut" in capsys.readouterr().out


@pytest.mark.parametrize(
    "text",
    [
        "🎧🔋👩‍👩‍👧",
        "סוללה ‏חזקה‎ بطارية",
        "drill\x00\x07\x1b[31m red",
        "a" * 200_000,
        "129 99 1,299",
        "\ud800 half a pair",
    ],
    ids=["emoji", "right-to-left", "control", "200000", "numbers", "surrogate"],
)
def test_hostile_text_gets_a_result(capsys, text):
    got = answer(capsys, text, "--json")
    for which in ("base", "tuned"):
        assert 1 <= got[which]["price_usd"] <= 999
        assert got[which]["low_usd"] <= got[which]["high_usd"]
