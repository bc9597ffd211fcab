"""Price priors: the correction by its definition, there and back, and files that are damaged."""

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pricer.errors import SetupError
from pricer.price.distribution import PriceDistribution
from pricer.price.lattice import PRICES
from pricer.price.prior import (
    BINS,
    PRIORS_FOLDER,
    SHIPPED,
    PricePrior,
    correct,
    load_prior,
    price_bins,
)


def made(seed, name="made", spread=1.0, items=500):
    """The prior of prices around a random centre."""
    random = np.random.default_rng(seed)
    return PricePrior.fit(np.exp(random.normal(random.uniform(1, 6), spread, items)), name=name)


def distributions(seed, shape=(), zeros=0.0):
    """Random probabilities of a shape, some of them exactly 0, that sum to less than 1."""
    random = np.random.default_rng(seed)
    p = random.dirichlet(np.full(999, 0.2), size=shape) + 1e-300
    p = np.where(random.random(p.shape) < zeros, 0.0, p)
    p[..., 19] += 1e-6
    return PriceDistribution(p / p.sum(axis=-1, keepdims=True) * random.uniform(0.01, 1, (*shape, 1)))


@settings(max_examples=15)
@given(st.integers(0, 10**6))
def test_correcting_is_bayes_rule_by_enumeration(seed):
    d, trained, to = distributions(seed, zeros=0.5), made(seed + 1), made(seed + 2)
    found = correct(d, trained, to)
    weight = [
        d.probabilities[n - 1] * to.density[n - 1] / trained.density[n - 1] for n in range(1, 1000)
    ]  # p(n) to(n) / trained(n)
    expected = np.array(weight) / sum(weight) * d.probabilities.sum()
    np.testing.assert_allclose(found.probabilities, expected, rtol=1e-9, atol=1e-300)


@settings(max_examples=15)
@given(st.integers(0, 10**6))
def test_there_and_back_is_where_one_was(seed):
    d, one, other = distributions(seed, (3,), zeros=0.3), made(seed + 1), made(seed + 2)
    back = correct(correct(d, one, other), other, one)
    np.testing.assert_allclose(back.probabilities, d.probabilities, rtol=1e-9, atol=1e-300)
    same = correct(d, one, one)
    np.testing.assert_allclose(same.probabilities, d.probabilities, rtol=1e-12, atol=1e-300)


def test_a_batch_is_its_rows_and_the_unpriced_mass_stays():
    d, one, other = distributions(3, (2, 4)), made(1), made(2)
    found = correct(d, one, other)
    np.testing.assert_allclose(found.unpriced_mass, d.unpriced_mass, atol=1e-12)
    for row in np.ndindex(2, 4):
        alone = correct(PriceDistribution(d.probabilities[row]), one, other)
        np.testing.assert_allclose(found.probabilities[row], alone.probabilities, rtol=1e-12)


def test_a_certain_price_stays_certain_under_any_prior():
    narrow = PricePrior.fit(np.full(10**6, 700.0), name="one price")  # next to nothing anywhere else
    for price in (1, 2, 3, 500, 999):
        p = np.zeros(999)
        p[price - 1] = 1e-12
        found = correct(PriceDistribution(p), made(0), narrow)
        assert float(found.point("median")) == price and found.probabilities.sum() == pytest.approx(1e-12)
        back = correct(PriceDistribution(p), narrow, made(0))
        assert np.isfinite(back.probabilities).all()


def test_the_true_prior_corrects_a_model_that_learned_under_another():
    """Prices of two kinds of text: what is learned under one prior becomes what would be learned under the other."""
    random = np.random.default_rng(0)
    price = np.exp(random.normal(3.5, 1.0, 400_000)).clip(1, 999)
    cheap_words = random.random(len(price)) < 1 / (1 + price / 40)  # P(words | price), the same everywhere
    dear = price**0.8 / (price**0.8).mean()  # the weights of a balanced sample
    nearest = np.rint(price).astype(int) - 1

    def learned(weight):
        return PriceDistribution(np.bincount(nearest[cheap_words], weight[cheap_words], 999) / 1e9)

    one, even = np.ones_like(price), PricePrior.fit(price, name="shop")
    found = correct(learned(dear), PricePrior.fit(price, dear, name="balanced"), even)
    for level in (0.1, 0.25, 0.5, 0.75, 0.9):
        before, after, right = (float(d.quantile(level)) for d in (learned(dear), found, learned(one)))
        assert after == pytest.approx(right, rel=0.06, abs=1) and abs(before - right) > 2 * abs(after - right)


# --- fitting -------------------------------------------------------------------------------------


def test_shares_are_the_smoothed_histogram():
    price = np.array([20.0] * 600 + [100.2] * 300 + [99.6] * 100)
    shares = np.array(PricePrior.fit(price, name="two").shares)
    twenty, hundred = price_bins(np.array([20.0, 100.0]))
    assert shares.sum() == pytest.approx(1, abs=1e-5) and len(shares) == BINS == 56
    assert shares[[twenty - 1, twenty, twenty + 1]] == pytest.approx([0.15, 0.3, 0.15], abs=1e-3)
    assert shares[[hundred - 1, hundred, hundred + 1]] == pytest.approx([0.1, 0.2, 0.1], abs=1e-3)
    assert shares.min() > 0


def test_weights_count_as_so_many_rows():
    price, weight = np.array([5.0, 50.0, 500.0]), np.array([1, 2, 3])
    repeated = PricePrior.fit(np.repeat(price, weight), name="x")
    weighted = PricePrior.fit(np.repeat(price, 2), np.repeat(weight, 2) / 7, name="x")
    assert weighted.items == 6 and weighted.shares == pytest.approx(repeated.shares)
    assert PricePrior.fit(np.full(999, 20.0), name="x").median_usd == pytest.approx(20, rel=0.1)


@pytest.mark.parametrize(
    "price, weight",
    [([], None), ([float("nan")], None), ([3.0], [0.0]), ([3.0], [-1.0]), ([3.0], [1.0, 2.0])],
)
def test_what_is_no_histogram_is_refused(price, weight):
    with pytest.raises(ValueError):
        PricePrior.fit(np.array(price), weight and np.array(weight), name="x")


def test_neighbouring_prices_are_of_one_order():
    for name in SHIPPED:
        step = np.diff(np.log(load_prior(name).density))[
            10:
        ]  # from $11 on, where nearly every bin holds a price
        assert np.abs(step).max() < 0.3


# --- files ---------------------------------------------------------------------------------------


def test_a_file_says_what_it_is_and_reads_back(tmp_path):
    prior = made(5, name="Corner shop")
    path = prior.save(tmp_path / "prior.json")
    written = json.loads(path.read_text())
    assert written["unit"] == "USD" and written["bins_per_e"] == 8 and written["items"] == 500
    assert PricePrior.load(path) == prior == load_prior(str(path))
    assert PricePrior.load(path).sha256 == prior.sha256 != made(6).sha256


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        json.dumps({"name": "x", "items": 3, "shares": [1.0]}),
        json.dumps({"name": "x", "items": 3, "shares": [0.0] + [1 / 55] * 55}),
        json.dumps({"name": "x", "items": 3, "shares": [1.0] * 56}),
        json.dumps({"name": "x", "items": 3, "unit": "EUR", "shares": [1 / 56] * 56}),
        json.dumps({"name": "", "items": 3, "shares": [1 / 56] * 56}),
    ],
)
def test_a_damaged_file_is_one_sentence_that_names_it(tmp_path, content):
    path = tmp_path / "mine.json"
    path.write_text(content)
    with pytest.raises(SetupError, match="no price prior") as caught:
        load_prior(str(path))
    assert str(caught.value).startswith(str(path)) and "\n" not in str(caught.value)


def test_an_unknown_name_says_which_there_are():
    with pytest.raises(SetupError, match="shop or benchmark"):
        load_prior("market")


def test_the_shipped_ones_are_a_shops_and_the_benchmarks():
    assert {path.stem for path in PRIORS_FOLDER.glob("*.json")} == set(SHIPPED)
    shop, benchmark = (load_prior(name) for name in SHIPPED)
    assert (shop.name, benchmark.name) == SHIPPED and min(shop.items, benchmark.items) > 2_000
    assert 15 < shop.median_usd < 35 and 140 < benchmark.median_usd < 200
    assert np.all(
        np.diff(np.log(shop.density / benchmark.density))[12:300] < 0.05
    )  # a shop's are the lower ones


# --- the answers that carry it -------------------------------------------------------------------


@pytest.fixture
def comparison(tiny_predictor):
    """Both passes of the tiny pair, whose adapter says that it was trained at some $170."""
    found = tiny_predictor.compare("Cordless drill with case")
    adapter = replace(tiny_predictor.pair.adapter, prior=load_prior("benchmark"))
    return replace(found, tuned=replace(found.tuned, adapter=adapter))


def test_another_prior_needs_no_new_forward_pass(comparison):
    shop = comparison.under(load_prior("shop"))
    assert shop.base == comparison.base  # shown as published
    own = comparison.tuned.own
    expected = correct(own, load_prior("benchmark"), load_prior("shop"))
    np.testing.assert_array_equal(shop.tuned.distribution.probabilities, expected.probabilities)
    assert float(shop.tuned.distribution.point("mean")) < float(own.point("mean"))
    back = shop.under(load_prior("benchmark")).tuned.distribution
    np.testing.assert_allclose(back.probabilities, own.probabilities, rtol=1e-12)
    assert shop.to_dict()["tuned"]["prior"] == "shop" and shop.to_dict()["base"]["prior"] is None
    np.testing.assert_array_equal(shop.under(None).tuned.distribution.probabilities, own.probabilities)


def test_the_predictor_answers_under_its_own_and_names_the_others(tiny_pair):
    from pricer.llama.predictor import Predictor

    mine = made(1, name="mine")
    predictor = Predictor(tiny_pair, prior=mine)
    assert predictor.compare("A lamp").tuned.prior is mine
    assert list(predictor.priors) == [*SHIPPED, "mine"] and PRICES[0] == 1
    assert predictor.prior_named("mine") is mine
