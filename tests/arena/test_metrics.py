"""Metrics against the published figures, against scikit-learn and scipy, and against enumeration."""

import itertools
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn import metrics as reference

from pricer.arena import metrics, resampling
from pricer.arena.runs import join_items, load_items, load_runs
from pricer.errors import InputError

ITEMS = load_items()
RUNS = load_runs()["benchmark"]


def sample(items, seed=1):
    rng = np.random.default_rng(seed)
    price_usd = rng.uniform(1, 999, items)
    return price_usd, price_usd * rng.lognormal(0, 0.4, items), price_usd * rng.lognormal(0, 0.6, items)


def arrays(name):
    table = join_items(RUNS[name], ITEMS)
    return table["price_usd"].to_numpy(), table["guess_usd"].to_numpy()


@pytest.mark.parametrize(
    ("name", "error_usd", "rmsle", "hits_pct"),
    [("llama-3.1-8b-base", 395.72, 1.49, 28.0), ("llama-3.1-8b-qlora-seed", 52.09, 0.39, 68.4)],
)
def test_the_seeds_published_table(name, error_usd, rmsle, hits_pct):
    price_usd, guess_usd = arrays(name)
    summary = metrics.summarise(price_usd, guess_usd, resamples=10)
    assert summary.items == 250
    assert round(summary.error_usd.value, 2) == error_usd
    assert round(summary.rmsle.value, 2) == rmsle
    assert round(summary.hits_pct.value, 1) == hits_pct


def test_every_published_run_is_there():
    assert sum(run.info.published for run in RUNS.values()) == 22


@pytest.mark.parametrize("name", [name for name, run in RUNS.items() if run.info.published])
def test_published_figures_follow_from_the_guesses(name):
    price_usd, guess_usd = arrays(name)
    figures = RUNS[name].info.published_figures
    assert len(price_usd) == figures.items
    assert metrics.predict_error(price_usd, guess_usd) == pytest.approx(figures.error_usd, abs=0.005001)
    assert metrics.rmsle(price_usd, guess_usd) == pytest.approx(figures.rmsle, abs=0.000501)
    assert metrics.hits_pct(price_usd, guess_usd) == pytest.approx(figures.hits_pct, abs=0.0501)


@pytest.mark.parametrize(
    ("price_usd", "guess_usd", "expected"),
    [
        (100, 139.99, "hit"),
        (100, 140, "near"),  # both windows end before their bound
        (100, 179.99, "near"),
        (100, 180, "miss"),
        (1000, 1199, "hit"),  # within 20 %
        (1000, 1200, "near"),
        (1000, 601, "near"),
        (1000, 600, "miss"),
        (10, 49, "hit"),  # within $40, though four times too much
        (500, 0, "miss"),
    ],
)
def test_outcome(price_usd, guess_usd, expected):
    assert metrics.outcome([price_usd], [guess_usd]).tolist() == [expected]


def test_single_metrics_agree_with_scikit_learn():
    price_usd, guess_usd, _ = sample(301)
    expected = {
        "predict_error": reference.mean_absolute_error(price_usd, guess_usd),
        "rmsle": reference.root_mean_squared_log_error(price_usd, guess_usd),
        "median_error": reference.median_absolute_error(price_usd, guess_usd),
        "mape_pct": 100 * reference.mean_absolute_percentage_error(price_usd, guess_usd),
        "r2": reference.r2_score(price_usd, guess_usd),
    }
    for name, value in expected.items():
        assert getattr(metrics, name)(price_usd, guess_usd) == pytest.approx(value)
    # scikit-learn's D2 is the skill against the best constant there is, the median.
    assert metrics.skill(price_usd, guess_usd, np.median(price_usd)) == pytest.approx(
        reference.d2_absolute_error_score(price_usd, guess_usd)
    )


@pytest.mark.parametrize("items", [1, 2, 5, 40])
def test_summary_values_are_the_single_metrics(items):
    price_usd, guess_usd, other_usd = sample(items)
    low_usd, high_usd = guess_usd * 0.5, guess_usd * 1.5
    unparsed = np.arange(items) % 3 == 0
    summary = metrics.summarise(
        price_usd,
        guess_usd,
        constant_usd=220.0,
        low_usd=low_usd,
        high_usd=high_usd,
        crps_usd=other_usd,
        unparsed=unparsed,
        resamples=50,
    )
    expected = {
        "error_usd": metrics.predict_error(price_usd, guess_usd),
        "rmsle": metrics.rmsle(price_usd, guess_usd),
        "hits_pct": metrics.hits_pct(price_usd, guess_usd),
        "median_error_usd": metrics.median_error(price_usd, guess_usd),
        "mape_pct": metrics.mape_pct(price_usd, guess_usd),
        "r2": metrics.r2(price_usd, guess_usd),
        "skill": metrics.skill(price_usd, guess_usd, 220.0),
        "coverage_pct": metrics.coverage_pct(price_usd, low_usd, high_usd),
        "width_usd": metrics.mean_width_usd(low_usd, high_usd),
        "crps_usd": other_usd.mean(),
        "unparsed_pct": 100 * unparsed.mean(),
    }
    for name, value in expected.items():
        assert getattr(summary, name).value == pytest.approx(value, nan_ok=True), name
    assert summary.hits_pct.value + summary.near_pct.value + summary.miss_pct.value == pytest.approx(100)


def test_metrics_a_run_cannot_have_are_none():
    summary = metrics.summarise(*sample(10)[:2], resamples=10)
    assert summary.skill is summary.coverage_pct is summary.crps_usd is summary.unparsed_pct is None


def test_r2_without_spread_is_undefined_not_infinite():
    r2 = metrics.summarise([70.1, 70.1, 70.1], [60, 70, 90], resamples=50).r2
    assert np.isnan([r2.value, r2.low, r2.high]).all()
    # Of three items some resamples repeat one price; they are left out, and the interval stays finite.
    r2 = metrics.summarise([10.1, 20.2, 30.3], [11, 22, 31], resamples=500).r2
    assert np.isfinite([r2.value, r2.low, r2.high]).all()


def test_bootstrap_is_the_distribution_over_all_resamples():
    """With 4 items all 4**4 resamples can be written down; quantiles and mean must be theirs."""
    values, other = np.array([1.0, 2.0, 4.0, 9.0]), np.array([3.0, 1.0, 7.0, 5.0])
    all_draws = np.array(list(itertools.product(range(4), repeat=4)))  # (256, 4)
    means, medians = resampling.bootstrap({"x": values}, {"x": values, "other": other}, 40_000, seed=3)
    for drawn, exact in (
        (means["x"][1:], values[all_draws].mean(axis=1)),
        (medians["x"][1:], np.median(values[all_draws], axis=1)),
        (medians["other"][1:], np.median(other[all_draws], axis=1)),
    ):
        assert set(np.unique(drawn)) == set(np.unique(exact))
        for level in np.unique(exact):
            assert (drawn <= level).mean() == pytest.approx((exact <= level).mean(), abs=0.01)


def test_intervals_agree_with_scipy():
    price_usd, guess_usd, other_usd = sample(120)
    summary = metrics.summarise(price_usd, guess_usd, resamples=8_000)
    difference = metrics.compare(price_usd, guess_usd, other_usd, resamples=8_000)
    cases = [
        (summary.error_usd, lambda y, a, b, axis: np.abs(a - y).mean(axis=axis)),
        (summary.rmsle, lambda y, a, b, axis: np.sqrt(((np.log1p(y) - np.log1p(a)) ** 2).mean(axis=axis))),
        (summary.median_error_usd, lambda y, a, b, axis: np.median(np.abs(a - y), axis=axis)),
        (difference.error_usd, lambda y, a, b, axis: (np.abs(a - y) - np.abs(b - y)).mean(axis=axis)),
        (
            difference.median_error_usd,
            lambda y, a, b, axis: np.median(np.abs(a - y), axis=axis) - np.median(np.abs(b - y), axis=axis),
        ),
    ]
    for estimate, statistic in cases:
        interval = stats.bootstrap(
            (price_usd, guess_usd, other_usd),
            statistic,
            paired=True,
            n_resamples=8_000,
            method="percentile",
            rng=np.random.default_rng(5),
        ).confidence_interval
        width = interval.high - interval.low
        assert estimate.low == pytest.approx(interval.low, abs=0.06 * width)
        assert estimate.high == pytest.approx(interval.high, abs=0.06 * width)


def test_p_value_agrees_with_all_sign_flips():
    difference = np.array([3.0, -1.0, 4.0, 1.0, 5.0, -2.0, 6.0, 0.0, 2.5, 3.5])
    exact = stats.permutation_test(
        (difference,), lambda x, axis: x.sum(axis=axis), permutation_type="samples", n_resamples=np.inf
    ).pvalue
    assert resampling.sign_flip_p_value(difference, permutations=100_000) == pytest.approx(exact, abs=0.003)


def test_p_value_at_its_ends():
    assert resampling.sign_flip_p_value(np.zeros(20)) == 1.0
    assert resampling.sign_flip_p_value(np.ones(200), permutations=999) == 1 / 1000
    # Every flip of one item is as extreme as the other, whatever the last bits of the sums.
    assert resampling.sign_flip_p_value([0.1]) == 1.0


def test_compare_by_hand():
    comparison = metrics.compare(
        [100, 100, 100, 200], [100, 110, 60.5, 210], [150, 90, 70, 200], resamples=20
    )
    assert (comparison.wins, comparison.ties, comparison.losses, comparison.items) == (1, 1, 2, 4)
    assert comparison.error_usd.value == pytest.approx((0 + 10 + 39.5 + 10) / 4 - (50 + 10 + 30 + 0) / 4)
    assert comparison.hits_pct.value == pytest.approx(25)
    assert comparison.median_error_usd.value == pytest.approx(10 - 20)


def test_compare_with_itself_and_swapped():
    price_usd, guess_usd, other_usd = sample(60)
    same = metrics.compare(price_usd, guess_usd, guess_usd)
    assert same.ties == 60 and same.p_value == 1.0
    assert (same.error_usd.low, same.error_usd.high) == (0, 0)
    one, two = (
        metrics.compare(price_usd, *pair) for pair in ((guess_usd, other_usd), (other_usd, guess_usd))
    )
    assert (one.wins, one.losses) == (two.losses, two.wins)
    assert one.error_usd.low == pytest.approx(-two.error_usd.high)
    assert one.p_value == two.p_value


def test_many_items_are_resampled_in_groups_with_the_same_intervals(monkeypatch):
    price_usd, guess_usd, other_usd = sample(6_000)
    grouped = metrics.summarise(price_usd, guess_usd), metrics.compare(price_usd, guess_usd, other_usd)
    monkeypatch.setattr(resampling, "GROUPED_ITEMS", 10_000)
    by_item = metrics.summarise(price_usd, guess_usd), metrics.compare(price_usd, guess_usd, other_usd)
    for one, other in zip(grouped, by_item, strict=True):
        for name in ("error_usd", "rmsle", "hits_pct", "median_error_usd"):
            a, b = getattr(one, name), getattr(other, name)
            assert a.value == b.value
            width = b.high - b.low
            assert (a.low, a.high) == pytest.approx((b.low, b.high), abs=0.12 * width), name


def test_p_value_of_very_many_items_is_the_tosses_limit(monkeypatch):
    difference = np.random.default_rng(0).normal(0.018, 1, 5_000)
    tossed = resampling.sign_flip_p_value(difference)
    monkeypatch.setattr(resampling, "TOSSED_ITEMS", 1_000)
    assert resampling.sign_flip_p_value(difference) == pytest.approx(tossed, abs=0.015)
    assert resampling.sign_flip_p_value(difference + 1) == 1 / 10_001
    assert resampling.sign_flip_p_value(np.zeros(5_000)) == 1


def test_seed_decides_and_chunks_do_not_lose_rows(monkeypatch):
    price_usd, guess_usd, other_usd = sample(50)
    first = metrics.summarise(price_usd, guess_usd, seed=7)
    assert first == metrics.summarise(price_usd, guess_usd, seed=7)
    assert first != metrics.summarise(price_usd, guess_usd, seed=8)
    monkeypatch.setattr(resampling, "CHUNK_CELLS", 333)  # 6 rows at a time, the last chunk shorter
    means, medians = resampling.bootstrap({"x": guess_usd}, {"x": guess_usd}, 100, seed=0)
    assert len(means["x"]) == len(medians["x"]) == 101
    assert metrics.compare(price_usd, guess_usd, other_usd, resamples=100).items == 50


@settings(deadline=None)
@given(st.lists(st.tuples(st.floats(0.01, 1e4), st.floats(0, 1e4)), min_size=1, max_size=30))
def test_any_prices_give_sane_summaries(pairs):
    price_usd, guess_usd = np.array(pairs).T
    summary = metrics.summarise(price_usd, guess_usd, resamples=30)
    assert summary.error_usd.low <= summary.error_usd.high
    assert 0 <= summary.hits_pct.low <= summary.hits_pct.high <= 100 + 1e-9
    assert metrics.compare(price_usd, guess_usd, price_usd, resamples=5, permutations=5).wins == 0


@pytest.mark.parametrize(
    ("price_usd", "guess_usd", "words"),
    [
        ([], [], "no items"),
        ([1, 2], [1], "1 values for 2 items"),
        ([1, 2], [1, float("nan")], "guess_usd of item 1 is nan"),
        ([1, 2], [float("inf"), 1], "guess_usd of item 0 is inf"),
        ([1, 0], [1, 1], "price_usd of item 1 is not above zero"),
        ([1, 1], [1, -5], "guess_usd of item 1 is negative"),
        ([1], ["ten"], "numbers only"),
    ],
)
@pytest.mark.parametrize("function", [metrics.summarise, metrics.predict_error, metrics.outcome])
def test_wrong_values_end_in_one_sentence(function, price_usd, guess_usd, words):
    with pytest.raises(InputError, match=words):
        function(price_usd, guess_usd)


def test_intervals_are_checked():
    with pytest.raises(InputError, match="low_usd of item 1 is above"):
        metrics.summarise([1, 2], [1, 2], low_usd=[0, 3], high_usd=[1, 2])
    with pytest.raises(InputError, match="give both or neither"):
        metrics.summarise([1, 2], [1, 2], low_usd=[0, 3])


def test_a_thousand_items_take_no_noticeable_time():
    """About 0.04 s for each; the bound leaves room for a busy machine, not for a loop over resamples."""
    price_usd, guess_usd, other_usd = sample(1_000)
    start = time.process_time()
    metrics.summarise(price_usd, guess_usd, constant_usd=220.0)
    metrics.compare(price_usd, guess_usd, other_usd)
    assert time.process_time() - start < 2
