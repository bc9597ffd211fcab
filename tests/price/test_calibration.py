"""Calibration: coverage on fresh draws from models that are wrong in known ways, nesting, bands, files."""

import json
import shutil
from dataclasses import replace
from math import sqrt

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pricer.errors import InputError, SetupError
from pricer.llama.adapter import load_adapter_card, weights_sha256
from pricer.price.calibration import CALIBRATION_FILE, LEVELS, MIN_ITEMS, Band, Calibration, Calibrations, fit
from pricer.price.distribution import RULES, PriceDistribution
from pricer.price.prior import load_prior
from pricer.settings import ModelRef

GRID = np.arange(1, 1000)


def listings(n, seed, *, spread=1.0, lean=0.0, lumps=1.0, cut=0.0, centre=4.5):
    """Distributions (n, 999) and actual prices (n,): log-normal items, seen by a model whose spread is `spread`
    times and whose centre is `lean` (in log price) off the truth, with `lumps` times the probability on prices that
    end in 9 and none where it is below `cut`."""
    random = np.random.default_rng(seed)
    middle, width = random.normal(centre, 0.9, n), random.uniform(0.3, 0.8, n)
    price = np.clip(np.exp(random.normal(middle, width)), 0.5, 999.49)
    price = np.where(random.random(n) < 0.6, np.ceil(price) - 0.01, np.round(price, 2))  # $29.99 and the like
    seen = random.normal(middle + lean, 0.2)
    log_odds = -((np.log(GRID) - seen[:, None]) ** 2) / (2 * (width[:, None] * spread) ** 2)
    p = np.exp(log_odds) / GRID * np.where(GRID % 10 == 9, lumps, 1.0)
    p /= p.sum(axis=1, keepdims=True)
    p[p < cut] = 0
    return PriceDistribution(p), price


def held(price, interval):
    low, high = interval
    return (low <= price) & (price <= high)


# --- coverage ------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", ["median", "log-mean"])
@pytest.mark.parametrize(
    "model",
    [
        {"spread": 0.5},
        {"spread": 1.8},
        {"spread": 0.7, "lean": -0.3},
        {"spread": 0.8, "lean": 0.2, "lumps": 40.0},
        {"spread": 0.7, "cut": 1e-4},
        {"spread": 0.7, "centre": 1.0},  # many at $1 and below it
        {"spread": 0.7, "centre": 6.3},  # many at $999
    ],
    ids=["too sure", "too unsure", "too low", "lumpy", "no tails", "cheap", "dear"],
)
def test_a_wrong_model_covers_what_it_says_on_fresh_listings_overall_and_by_band(model, rule):
    n, fresh = 1200, 6000
    calibration = fit(*listings(n, seed=1, **model), rule=rule)
    distribution, price = listings(fresh, seed=2, **model)
    possible = (price >= 1) & (price <= 999)
    band = calibration.band(distribution)
    assert len(calibration.bands) > 1
    for level in LEVELS:
        inside = held(price, calibration.interval(distribution, level))
        assert not inside[~possible].any()
        for chosen, items in [
            (band >= 0, n),
            *((band == i, b.items) for i, b in enumerate(calibration.bands)),
        ]:
            # Four standard deviations: of the fresh draws, and of the calibration's own.
            slack = 4 * sqrt(level * (1 - level) * (1 / chosen.sum() + 1 / items))
            assert inside[chosen].mean() >= level - slack - (~possible[chosen]).mean()
            if "centre" not in model:  # at the scale's end there may be nothing left to leave out
                assert inside[chosen].mean() <= level + slack + 2 / (items + 1)


def test_these_models_needed_it():
    """Else the test above would pass without any correction."""
    for model, level, wrong in (({"spread": 0.5}, 0.9, -0.15), ({"spread": 1.8}, 0.5, 0.15)):
        distribution, price = listings(2000, seed=3, **model)
        off = held(price, distribution.interval(level)).mean() - level
        assert off / wrong > 1


def test_the_promise_is_exact_for_few_listings():
    """With n = 59, 3 of 60 may lie outside in each tail: the mean over many calibrations is 90 %, neither less (as
    without n + 1) nor more."""
    inside = []
    for seed in range(250):
        distribution, price = listings(59 + 100, seed, spread=0.6)
        calibration = fit(distribution[:59], price[:59], rule="median")
        inside.append(held(price[59:], calibration.interval(distribution[59:], 0.9)).mean())
    assert np.mean(inside) == pytest.approx(0.9, abs=4 * np.std(inside) / sqrt(len(inside)))
    assert np.std(inside) / sqrt(len(inside)) < 0.004  # so that one listing more or less would show


def test_both_tails_are_kept_when_the_model_leans():
    distribution, price = listings(3000, seed=4, spread=0.8, lean=-0.4)
    low, high = fit(*listings(3000, seed=5, spread=0.8, lean=-0.4), rule="median").interval(distribution, 0.9)
    assert (price < low).mean() == pytest.approx(0.05, abs=0.025)
    assert (price > high).mean() == pytest.approx(0.05, abs=0.025)


def test_a_good_model_is_left_about_as_it_is():
    distribution, price = listings(4000, seed=6)
    exact = PriceDistribution(distribution.probabilities)
    random = np.random.default_rng(0)
    drawn = GRID[(exact.cdf > random.random((4000, 1))).argmax(axis=1)].astype(float)
    calibration = fit(exact, drawn, rule="median")
    for band in calibration.bands:
        for level in LEVELS:
            begin, end = band.tails[level]
            assert begin == pytest.approx((1 - level) / 2, abs=0.06)
            assert end == pytest.approx((1 + level) / 2, abs=0.06)


def test_a_price_that_the_model_thinks_impossible_opens_the_interval_to_the_edge():
    p = np.zeros((200, 999))
    p[:, 99:120] = 1 / 21  # $100 to $120
    for price, edge in ((500.0, 999.0), (20.0, 1.0)):
        actual = np.where(np.arange(200) < 20, price, 110.0)
        ends = fit(PriceDistribution(p), actual, rule="median").interval(PriceDistribution(p[0]), 0.9)
        assert float(ends[edge == 999.0]) == edge
        assert 100 <= float(ends[edge == 1.0]) <= 120


@pytest.mark.parametrize(
    ("price", "low", "high"),
    [(29.99, 29, 30), (29.01, 29, 30), (30.0, 30, 30), (30.01, 30, 31), (31.5, 30, 32), (28.5, 28, 30)],
)
def test_cents_count_as_coverage_counts_them(price, low, high):
    """$29.99 lies in no interval from $30, and $30 is always there, being the median."""
    p = np.zeros((MIN_ITEMS, 999))
    p[:, 27:32] = 0.2  # $28 to $32
    distribution = PriceDistribution(p)
    for level in LEVELS:
        calibration = fit(distribution, np.full(MIN_ITEMS, price), rule="median")
        assert np.array_equal(calibration.interval(distribution[0], level), (low, high))


# --- bands ---------------------------------------------------------------------------------------


def test_each_band_gets_the_correction_that_it_needs():
    cheap, cheap_price = listings(400, seed=7, spread=0.4, centre=3.0)
    dear, dear_price = listings(400, seed=8, spread=1.0, centre=5.5)
    both = PriceDistribution(np.concatenate([cheap.probabilities, dear.probabilities]))
    calibration = fit(both, np.concatenate([cheap_price, dear_price]), rule="median", bands=4)
    widened = [band.tails[0.8][1] - band.tails[0.8][0] for band in calibration.bands]
    assert widened[0] > widened[-1] + 0.05


@pytest.mark.parametrize(
    "rule", ["log-mean", "median"]
)  # of the median, being whole, some are at a band's start
def test_the_band_depends_on_the_prediction_alone(rule):
    distribution, price = listings(800, seed=9)
    calibration = fit(distribution, price, rule=rule)
    starts = [band.from_usd for band in calibration.bands]
    predicted = distribution.point(rule)
    expected = [max(b for b, start in enumerate(starts) if start <= usd) for usd in predicted]
    assert calibration.band(distribution).tolist() == expected
    assert [band.items for band in calibration.bands] == np.bincount(expected).tolist()
    assert [band.items for band in calibration.bands] == pytest.approx([200] * 4, abs=8)
    assert calibration.items == 800
    other = fit(distribution, price[::-1], rule=rule)
    assert other.band(distribution).tolist() == expected


@pytest.mark.parametrize(("n", "bands"), [(MIN_ITEMS, 1), (199, 1), (200, 2), (399, 3), (4000, 4)])
def test_few_listings_get_few_bands(n, bands):
    assert len(fit(*listings(n, seed=10), rule="median").bands) == bands


def test_predictions_that_are_all_alike_are_one_band():
    p = np.tile(np.linspace(1, 2, 999), (500, 1))
    p[:40] = 0
    p[:40, 4] = 1  # $5: fewer than a band needs
    calibration = fit(PriceDistribution(p / p.sum(axis=1, keepdims=True)), np.full(500, 300.0), rule="median")
    assert [band.items for band in calibration.bands] == [500]


# --- intervals -----------------------------------------------------------------------------------


@st.composite
def calibrations(draw):
    inner = st.floats(0, 0.5)
    bands = []
    for start in [0, *sorted(draw(st.sets(st.floats(0.01, 1000), max_size=3)))]:
        begins, ends = (
            sorted(draw(st.tuples(inner, inner, inner)), reverse=True),
            sorted(draw(st.tuples(inner, inner, inner))),
        )
        tails = {level: (begin, 0.5 + end) for level, begin, end in zip(LEVELS, begins, ends, strict=True)}
        bands.append(Band(from_usd=start, items=draw(st.integers(1, 10**6)), tails=tails))
    return Calibration(rule=draw(st.sampled_from(RULES)), bands=tuple(bands))


@st.composite
def distributions(draw):
    """Spikes, a bump, or both, with part of the mass missing."""
    rows = []
    for _ in range(draw(st.integers(1, 4))):
        p = np.zeros(999)
        for price, weight in draw(
            st.dictionaries(st.integers(1, 999), st.floats(1e-6, 1), min_size=1, max_size=6)
        ).items():
            p[price - 1] += weight
        if draw(st.booleans()):
            centre, width = draw(st.floats(1, 999)), draw(st.floats(0.05, 2))
            p += np.exp(-((np.log(GRID / centre) / width) ** 2))
        rows.append(p / p.sum() * draw(st.floats(0.01, 1)))
    return PriceDistribution(np.array(rows))


@given(calibrations(), distributions())
def test_intervals_nest_around_the_median_in_whole_dollars_from_1_to_999(calibration, distribution):
    inner_low = inner_high = distribution.quantile(0.5)
    for level in LEVELS:
        low, high = calibration.interval(distribution, level)
        assert (1 <= low).all() and (low <= inner_low).all()
        assert (inner_high <= high).all() and (high <= 999).all()
        assert (low == np.round(low)).all() and (high == np.round(high)).all()
        inner_low, inner_high = low, high


@given(calibrations(), distributions())
def test_a_batch_gets_what_each_gets_alone(calibration, distribution):
    for level in LEVELS:
        low, high = calibration.interval(distribution, level)
        alone = [calibration.interval(distribution[i], level) for i in range(len(distribution))]
        assert [(float(a), float(b)) for a, b in alone] == list(zip(low, high, strict=True))
        assert alone[0][0].shape == ()


def test_another_level_is_refused():
    distribution, price = listings(60, seed=11)
    with pytest.raises(ValueError, match=r"0\.95"):
        fit(distribution, price, rule="median").interval(distribution, 0.95)


def test_listings_that_cannot_be_used():
    distribution, price = listings(60, seed=12)
    with pytest.raises(InputError, match="at least 50"):
        fit(distribution[:49], price[:49], rule="median")
    with pytest.raises(InputError, match="average"):
        fit(distribution, price, rule="average")
    for bad in (price[:59], price[:, None], np.where(price == price[0], np.nan, price)):
        with pytest.raises(ValueError, match="one finite price"):
            fit(distribution, bad, rule="median")


# --- the file ------------------------------------------------------------------------------------


@given(calibrations())
def test_a_calibration_survives_its_file(tmp_path_factory, calibration):
    path = tmp_path_factory.getbasetemp() / CALIBRATION_FILE
    calibrations = Calibrations().with_one(load_prior("shop"), calibration)
    assert calibrations.save(path) == path
    assert Calibrations.load(path) == calibrations


def test_what_fit_finds_survives_its_file(tmp_path):
    distribution, price = listings(400, seed=13)
    calibration = fit(distribution, price, rule="mean").model_copy(update={"coverage": {0.9: 0.901}})
    saved = Calibrations(by_prior={"own": calibration}).save(tmp_path / CALIBRATION_FILE)
    again = Calibrations.load(saved).under(None)
    assert again == calibration
    assert np.array_equal(again.interval(distribution), calibration.interval(distribution))
    assert [path.name for path in tmp_path.iterdir()] == [CALIBRATION_FILE]


def good_file():
    found = Calibrations().with_one(load_prior("shop"), fit(*listings(200, seed=14), rule="median"))
    return json.loads(found.model_dump_json(exclude_none=True))


def damaged(change):
    content = good_file()
    one = content["by_prior"]["shop"]
    change(one, one["bands"][-1])
    return json.dumps(content).encode()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff\xfe",
        damaged(lambda file, band: file.pop("rule")),
        damaged(lambda file, band: file.update(rule="average")),
        damaged(lambda file, band: file.update(other=1)),
        damaged(lambda file, band: file.update(bands=[])),
        damaged(lambda file, band: file["bands"].reverse()),
        damaged(lambda file, band: file["bands"].pop(0)),
        damaged(lambda file, band: band.update(from_usd=float("nan"))),
        damaged(lambda file, band: band["tails"].pop("0.8")),
        damaged(lambda file, band: band["tails"].update({"0.95": [0.0, 1.0]})),
        damaged(lambda file, band: band["tails"].update({"0.9": [0.6, 1.0]})),
        damaged(lambda file, band: band["tails"].update({"0.9": [-0.1, 1.0]})),
        damaged(lambda file, band: band["tails"].update({"0.8": [0.0, 1.0], "0.9": [0.1, 0.9]})),
        damaged(lambda file, band: band["tails"].update({"0.5": ["low", "high"]})),
    ],
)
def test_a_damaged_file_is_one_sentence_that_names_it(tmp_path, content):
    path = tmp_path / CALIBRATION_FILE
    path.write_bytes(content)
    with pytest.raises(SetupError) as caught:
        Calibrations.load(path)
    sentence = str(caught.value)
    assert sentence.startswith(str(path)) and "delete this file" in sentence and "\n" not in sentence


def test_no_file_is_said_too(tmp_path):
    for path in (tmp_path / "none.json", tmp_path):
        with pytest.raises(SetupError, match=str(path)):
            Calibrations.load(path)


def test_each_prior_has_its_own_whatever_it_is_called():
    shop, benchmark = load_prior("shop"), load_prior("benchmark")
    first, second = (fit(*listings(200, seed=seed), rule="median") for seed in (15, 16))
    both = Calibrations().with_one(shop, first).with_one(benchmark, second)
    assert both.under(shop).bands == first.bands and both.under(benchmark).bands == second.bands
    assert both.under(None) is None
    assert both.under(shop.model_copy(update={"name": "mine"})).bands == first.bands
    other = benchmark.model_copy(update={"name": "shop"})  # the name alone does not make it that prior
    assert Calibrations().with_one(shop, first).under(other) is None
    assert both.with_one(shop, second).under(shop).bands == second.bands


# --- the adapter that carries it -----------------------------------------------------------------


def test_the_adapter_carries_it(tiny_settings, calibrated_adapter):
    assert load_adapter_card(tiny_settings).calibrations.by_prior == {}
    card = load_adapter_card(replace(tiny_settings, adapter=ModelRef(str(calibrated_adapter))))
    assert card.calibrations == Calibrations.load(calibrated_adapter / CALIBRATION_FILE)


def test_another_adapters_calibration_is_not_used(tiny_settings, calibrated_adapter, tmp_path, caplog):
    folder = shutil.copytree(calibrated_adapter, tmp_path / "adapter")
    settings = replace(tiny_settings, adapter=ModelRef(str(folder)))
    both = Calibrations.load(folder / CALIBRATION_FILE).by_prior
    update = {"adapter_sha256": weights_sha256(folder)}
    own = Calibrations(by_prior={name: one.model_copy(update=update) for name, one in both.items()})
    own.save(folder / CALIBRATION_FILE)
    assert load_adapter_card(settings).calibrations == own and len(own.by_prior) == 2
    weights = folder / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\1")  # trained again
    assert load_adapter_card(settings).calibrations.by_prior == {}
    assert "belongs to another adapter" in caplog.text


def test_a_damaged_one_stops_the_loading_with_its_sentence(tiny_settings, calibrated_adapter, tmp_path):
    folder = shutil.copytree(calibrated_adapter, tmp_path / "adapter")
    (folder / CALIBRATION_FILE).write_text("{")
    with pytest.raises(SetupError, match="delete this file"):
        load_adapter_card(replace(tiny_settings, adapter=ModelRef(str(folder))))
