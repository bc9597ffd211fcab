"""Plain methods on hand-made rows: what they must learn, what they must not see, and the runs they leave."""

import json
import sys

import numpy as np
import pandas as pd
import pytest
from lightgbm import LGBMRegressor

from pricer.arena.metrics import predict_error
from pricer.arena.runs import list_runs, load_run
from train import baselines
from train.baselines import BASELINES, Guesser, choose

LEARNERS = ("ridge", "lightgbm", "neighbours")
KINDS = {"solid oak dining table": 400.0, "cordless steel drill": 90.0, "plastic picnic spoon": 6.0}
WORDS = ["sturdy", "classic", "handy", "modern", "light", "strong", "simple", "quality", "gift", "family"]


def products(count: int, seed: int) -> pd.DataFrame:
    """Three kinds of products among words that say nothing; a kind's prices are within 10 % of each other."""
    generator = np.random.default_rng(seed)
    rows = []
    for number in range(count):
        kind = list(KINDS)[number % len(KINDS)]
        filler = " ".join(generator.choice(WORDS, 8))
        price = round(KINDS[kind] * generator.uniform(0.95, 1.05), 2)
        rows.append(
            {"text": f"{kind.title()} {filler}\nThis {kind} is {filler}", "price": price, "group": number}
        )
    return pd.DataFrame(rows)


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text("base_model: none\ndata: none\noutput: none\n")
    return path


@pytest.fixture
def run(tmp_path, recipe, monkeypatch):
    """`run(train, validation, items, *options)`: write the files and run the command; gives its exit code."""
    monkeypatch.setattr(baselines, "LEAVES", (7,))
    monkeypatch.setattr(baselines, "OBJECTIVES", ("regression",))
    monkeypatch.setattr(baselines, "MAX_ROUNDS", 200)

    def run(train, validation, items, *options):
        data = tmp_path / "data"
        data.mkdir(exist_ok=True)
        train.to_parquet(data / "train.parquet")
        validation.to_parquet(data / "validation.parquet")
        items.to_csv(tmp_path / "items.csv", index=False)
        paths = {
            "--data": data,
            "--items": tmp_path / "items.csv",
            "--out": tmp_path / "runs",
            "--recipe": recipe,
        }
        return baselines.main([*(str(part) for pair in paths.items() for part in pair), *options])

    return run


def guesses(folder, name) -> list[float]:
    return load_run(folder / "runs" / f"baseline-{name}").table["guess_usd"].tolist()


def test_all_five_are_written_and_three_learn_what_a_kind_costs(run, tmp_path, capsys):
    items = products(30, seed=2).assign(index=lambda rows: rows.index[::-1] + 100).drop(columns="group")
    assert run(products(240, seed=0), products(45, seed=1), items) == 0
    price = items.sort_values("index")["price"]
    error = {name: predict_error(price, guesses(tmp_path, name)) for name in BASELINES}
    assert all(error[name] < 0.25 * error["median"] for name in LEARNERS)
    assert error["median"] < error["mean"] and error["median"] > 0.5 * price.mean()
    infos = list_runs(tmp_path / "runs")
    assert {info.name: info.kind for info in infos} == {f"baseline-{name}": "baseline" for name in BASELINES}
    table = load_run(tmp_path / "runs" / "baseline-ridge").table
    assert table["index"].tolist() == list(range(100, 130))
    printed = capsys.readouterr().out
    assert f"TF-IDF nearest neighbours: 30 items; error $ {error['neighbours']:.2f}" in printed
    written = "".join(path.read_text() for path in (tmp_path / "runs").glob("*.json"))
    assert str(tmp_path) not in written and "picnic" not in written


def test_only_the_named_ones_are_made(run, tmp_path):
    rows = products(60, seed=0)
    assert run(rows, rows, rows, "--only", "median") == 0
    assert [info.name for info in list_runs(tmp_path / "runs")] == ["baseline-median"]


def test_the_recipe_names_the_splits(run, tmp_path, recipe):
    rows = products(60, seed=0)
    assert run(rows, rows, rows, "--only", "mean") == 0
    dearer = rows.assign(price=rows["price"] * 2)
    dearer.to_parquet(tmp_path / "data" / "calibration.parquet")
    recipe.write_text(
        recipe.read_text() + "train_splits: [train, validation]\nvalidation_split: calibration\n"
    )
    before = guesses(tmp_path, "mean")[0]
    assert run(rows, dearer, rows, "--only", "mean") == 0
    assert guesses(tmp_path, "mean")[0] == pytest.approx(1.5 * before, abs=0.02)
    assert "120 training rows, 60 for validation" in load_run(tmp_path / "runs" / "baseline-mean").info.notes


def test_natural_prices_choose_and_weigh_for_the_everyday_set(run, tmp_path):
    rows, natural = products(90, seed=0), products(60, seed=3)
    natural = natural[natural["price"] < 200]  # no tables in that shop
    natural.to_parquet(tmp_path / "natural.parquet")
    options = ("--set", "everyday", "--only", "median", "--validation", str(tmp_path / "natural.parquet"))
    assert run(rows, rows, rows, *options) == 0
    everyday = load_run(tmp_path / "runs" / "everyday-baseline-median")
    assert everyday.info.items == "everyday" and everyday.table["guess_usd"].max() < 200
    assert "40 for validation" in everyday.info.notes


def test_the_recipes_further_rows_count_too(run, tmp_path):
    rows, extra = products(60, seed=0), products(30, seed=4).assign(price=900.0)
    extra.to_parquet(tmp_path / "extra.parquet")
    assert run(rows, rows, rows, "--only", "mean") == 0
    before = guesses(tmp_path, "mean")[0]
    fields = ("--extra_data", str(tmp_path / "extra.parquet"), "--extra_weight", "0.5")
    assert run(rows, rows, rows, "--only", "mean", *fields) == 0
    assert guesses(tmp_path, "mean")[0] == pytest.approx((60 * before + 15 * 900) / 75, abs=0.05)


@pytest.mark.filterwarnings("ignore:.*divide:RuntimeWarning")  # equal texts have no variance
@pytest.mark.parametrize("name", BASELINES)
def test_heavy_rows_count_for_more(run, tmp_path, name):
    """One text, sold for $20 and for $80: the guess goes with the weight."""
    train = pd.DataFrame({"text": ["Brass lamp\nA lamp made of brass"] * 200, "price": [20.0, 80.0] * 100})
    validation = train.assign(price=train["price"] + 1).head(40)
    guess = {}
    for weight in ([9.0, 1.0], [1.0, 9.0]):
        assert run(train.assign(weight=weight * 100), validation, validation, "--only", name) == 0
        guess[weight[0]] = guesses(tmp_path, name)[0]
    assert guess[1.0] > 1.5 * guess[9.0]


def test_the_recipe_decides_on_the_weights(run, tmp_path, recipe):
    train = products(240, seed=0).assign(target_like=lambda rows: rows["price"] > 300)
    rows = products(45, seed=1)
    assert run(train, rows, rows, "--only", "mean") == 0
    plain = guesses(tmp_path, "mean")[0]
    recipe.write_text(recipe.read_text() + "target_like_weight: 5.0\n")
    assert run(train, rows, rows, "--only", "mean") == 0
    assert guesses(tmp_path, "mean")[0] == pytest.approx(
        np.average(train["price"], weights=np.where(train["target_like"], 5.0, 1.0)), abs=0.01
    )
    assert plain == pytest.approx(train["price"].mean(), abs=0.01)


def test_the_items_prices_have_no_part_in_the_guesses(run, tmp_path, monkeypatch):
    monkeypatch.setattr(baselines, "MAX_ROUNDS", 5)  # whether they have does not depend on them
    train, validation, items = products(120, seed=0), products(30, seed=1), products(30, seed=2)
    assert run(train, validation, items) == 0
    first = {name: guesses(tmp_path, name) for name in BASELINES}
    assert run(train, validation, items.assign(price=999.0)) == 0
    assert first == {name: guesses(tmp_path, name) for name in BASELINES}


def test_lightgbm_is_not_shown_what_the_ridge_learned_by_heart(monkeypatch):
    """Prices that no word tells, but each stands in two rows of one group with a name of their own: a ridge that
    had seen the other row would know them."""
    inputs = []

    class Spy(LGBMRegressor):
        def fit(self, X, *arguments, **options):
            inputs.append(X)
            return super().fit(X, *arguments, **options)

    monkeypatch.setattr("lightgbm.LGBMRegressor", Spy)
    monkeypatch.setattr(baselines, "MAX_ROUNDS", 5)  # what is shown does not depend on them
    generator = np.random.default_rng(0)
    names = ["".join(generator.choice([*"abcdefgh"], 8)) for _ in range(200)]
    price = np.exp(generator.normal(4, 1.5, 200))
    rows = pd.DataFrame({"text": names, "price": price, "weight": 1.0, "group": range(200)})
    train = pd.concat([rows, rows], ignore_index=True)
    next(baselines.lightgbm(train, rows))
    shown = inputs[0][:, -1]
    assert abs(np.corrcoef(shown, np.log(train["price"]))[0, 1]) < 0.3


def test_a_text_like_no_other_gets_the_mean_of_all():
    train = products(120, seed=0).assign(weight=1.0)
    anywhere = np.exp(np.log(train["price"]).mean())
    for guesser in baselines.neighbours(train, train):
        assert guesser.guess(["Zyx"]) == pytest.approx(anywhere)


def test_the_choice_is_the_least_validation_error():
    validation = pd.DataFrame({"text": ["a", "b"], "price": [100.0, 110.0]})
    guessers = [
        Guesser(f"${usd}", lambda texts, usd=usd: np.full(len(texts), usd)) for usd in (50.0, 95.0, 400.0)
    ]
    assert choose(guessers, (1.0,), validation).setting == "$95.0"
    chosen = choose(guessers, (0.25, 1.0, 2.0), validation)
    assert chosen.setting == "$50.0, times 2"
    assert chosen.guess(["c"]).tolist() == [100.0]
    assert choose(guessers[2:], (5.0,), validation).guess(["c"]).tolist() == [999.49]


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (products(20, seed=0), "20 training rows in 20 groups"),
        (products(60, seed=0).assign(group=1), "60 training rows in 1 groups"),
        (pd.DataFrame({"text": [f"w{i}" for i in range(60)], "price": 5.0}), "No word stands in two"),
        (pd.DataFrame({"text": ["a word"] * 60}), "column price is missing"),
    ],
)
def test_rows_that_cannot_be_learned_from(run, capsys, rows, words):
    items = products(10, seed=1)
    assert run(rows, items, items, "--only", "ridge") == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert words in said[-1] and said[-1].endswith(".")


def test_a_folder_that_is_not_there(capsys, tmp_path):
    paths = ["--data", str(tmp_path / "none"), "--items", "items.csv", "--out", str(tmp_path / "runs")]
    assert baselines.main(paths) == 2
    assert "There is no file" in capsys.readouterr().err


def test_without_lightgbm_the_command_says_what_to_do(run, monkeypatch, capsys, tmp_path):
    monkeypatch.setitem(sys.modules, "lightgbm", None)
    rows = products(60, seed=0)
    assert run(rows, rows, rows, "--only", "median", "lightgbm") == 1
    assert "libgomp1" in capsys.readouterr().err
    assert json.loads((tmp_path / "runs" / "baseline-median.json").read_text())["kind"] == "baseline"
