"""Priors from files of prices, and the one that a training run is under."""

import json

import numpy as np
import pandas as pd
import pytest

from pricer.price.lattice import PRICES
from pricer.price.prior import PricePrior, load_prior
from train import prior
from train.prior import trained_prior


@pytest.fixture
def prices(tmp_path, monkeypatch):
    """120 prices, 40 of them written with a dollar sign, and four cells that hold none in range."""
    monkeypatch.chdir(tmp_path)
    cells = [f"${9.99 + i / 4:.2f}" for i in range(40)] + [20.0] * 80 + ["call us", "", "1499.00", "0.10"]
    pd.DataFrame({"cost": cells, "price": 5.0}).to_csv("prices.csv", index=False)
    return tmp_path / "prices.csv"


def test_a_file_of_prices_becomes_a_prior_that_pricer_takes(prices, capsys):
    assert (
        prior.main(["prices.csv", "--column", "cost", "--out", "mine/shop.json", "--name", "Corner shop"])
        == 0
    )
    out = capsys.readouterr().out
    assert "120 prices, median $20.00" in out and "2 without a price, 2 not from" in out
    found = load_prior("mine/shop.json")
    assert (found.name, found.source, found.items) == ("Corner shop", "prices.csv", 120)
    expected = PricePrior.fit([*(9.99 + i / 4 for i in range(40)), *[20.0] * 80], name="x")
    assert found.shares == pytest.approx(expected.shares, abs=1e-5)


def test_several_files_count_as_one(prices):
    pd.DataFrame({"price": [700.0] * 60}).to_parquet("dear.parquet")
    assert prior.main(["prices.csv", "dear.parquet", "--out", "both.json"]) == 0
    found = load_prior("both.json")
    assert found.items == 124 + 60 and found.source == "prices.csv, dear.parquet" and found.name == "both"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["none.csv"], "no file"),
        (["prices.csv", "--column", "prise"], "no column prise"),
        (["few.csv"], "a prior needs 50"),
        (["prices.csv", "--out", "prices.csv/x.json"], "cannot be"),
    ],
)
def test_what_cannot_be_done_is_one_sentence(prices, capsys, arguments, words):
    pd.DataFrame({"price": [3.0] * 49 + [5000.0]}).to_csv("few.csv", index=False)
    assert prior.main([*arguments, *([] if "--out" in arguments else ["--out", "out.json"])]) in (1, 2)
    said = capsys.readouterr().err.strip()
    assert words in said and "\n" not in said and not (prices.parent / "out.json").exists()


def test_a_runs_prior_is_that_of_its_rows_as_they_count():
    rows, weight = pd.DataFrame({"price": [10.0, 10.2, 300.0]}), np.array([1.0, 1.0, 4.0])
    found = trained_prior(rows, weight)
    assert found.shares == PricePrior.fit(rows["price"], weight, name="trained").shares and found.items == 3


def test_teachers_prices_count_as_their_share():
    teacher = np.zeros((3, 999), np.float16)
    teacher[0, 99] = teacher[1, 499] = 1.0  # $100, $500
    teacher[2, [49, 899]] = 0.25  # not to a sum of 1
    rows = pd.DataFrame(
        {
            "price": [10.0, 20.0, np.nan, np.nan],
            "teacher_share": [0.5, 0.0, 1.0, 1.0],
            "taught_by": [0, 0, 1, 2],
        }
    )
    weight = np.array([2.0, 3.0, 4.0, 6.0])
    expected = np.zeros(999)
    for price, mass in {10: 1.0, 100: 1.0, 20: 3.0, 500: 4.0, 50: 3.0, 900: 3.0}.items():
        expected[price - PRICES[0]] = mass
    found = trained_prior(rows, weight, teacher)
    assert found.shares == PricePrior.of_mass(expected, items=4, name="trained").shares
    json.dumps(found.model_dump(mode="json"))
