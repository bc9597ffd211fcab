"""The distribution: each rule is the best answer to its question, by enumeration over every whole-dollar
guess; quantiles, intervals and scores by their definitions."""

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from pricer.errors import InputError
from pricer.price.distribution import DEFAULT_RULE, RULES, PriceDistribution

GRID = np.arange(1, 1000)


@st.composite
def masses(draw):
    """(999,) probabilities as models give them: spikes, a smooth bump, noise, and some mass missing."""
    p = np.zeros(999)
    spikes = draw(st.dictionaries(st.integers(1, 999), st.floats(1e-3, 1.0), max_size=12))
    for price, weight in spikes.items():
        p[price - 1] += weight
    if draw(st.booleans()):
        centre, width = draw(st.floats(1, 999)), draw(st.floats(0.05, 2.0))
        bump = np.exp(-((np.log(GRID / centre) / width) ** 2) / 2)
        p += draw(st.floats(0.01, 1.0)) * bump / bump.sum()
    if draw(st.booleans()):
        p += np.random.default_rng(draw(st.integers(0, 2**32 - 1))).dirichlet(np.full(999, 0.1))
    assume(p.sum() > 0)
    return p / p.sum() * draw(st.floats(0.01, 1.0))


# (guess, price) -> loss, or 1 for a hit
GUESS, PRICE = GRID[:, None], GRID[None, :]
MISS = np.abs(GUESS - PRICE).astype(float)
LOG_MISS_SQUARED = (np.log1p(GUESS) - np.log1p(PRICE)) ** 2
HIT = ((MISS < 40) | (MISS / PRICE < 0.20)).astype(float)


def conditional(p):
    return p / p.sum()


# --- the rules -----------------------------------------------------------------------------------


@given(masses())
def test_the_median_has_the_least_absolute_error(p):
    risk = MISS @ conditional(p)
    guess = float(PriceDistribution(p).point("median"))
    assert guess == int(guess)
    assert risk[int(guess) - 1] <= risk.min() + 1e-9


@given(masses())
def test_the_log_mean_has_the_least_squared_log_error(p):
    q = conditional(p)
    risk = LOG_MISS_SQUARED @ q
    guess = float(PriceDistribution(p).point("log-mean"))
    assert 1 <= guess <= 999 + 1e-6
    # Over whole dollars the best is one of its two neighbours, and it is better than either itself.
    best = GRID[risk.argmin()]
    assert np.floor(guess + 1e-6) <= best + 1e-9 and best <= np.ceil(guess - 1e-6) + 1e-9
    assert ((np.log1p(guess) - np.log1p(GRID)) ** 2) @ q <= risk.min() + 1e-9


@given(masses())
def test_the_mean_has_the_least_squared_error(p):
    q = conditional(p)
    risk = MISS**2 @ q
    guess = float(PriceDistribution(p).point("mean"))
    assert abs(GRID[risk.argmin()] - guess) <= 0.5 + 1e-6
    assert ((guess - GRID) ** 2) @ q <= risk.min() + 1e-6


@given(masses())
def test_the_mode_is_the_likeliest_price(p):
    assert p[int(PriceDistribution(p).point("mode")) - 1] == pytest.approx(p.max(), rel=1e-12)


@given(masses())
def test_best_hit_is_most_likely_a_hit(p):
    hits = HIT @ conditional(p)
    guess = int(PriceDistribution(p).point("best-hit"))
    assert hits[guess - 1] >= hits.max() - 1e-8
    # Of guesses as good, the least: not the one that rounding happens to favour.
    assert (hits[: guess - 1] < hits.max() - 1e-10).all()


def test_the_hit_window_is_open_and_measured_from_the_price():
    p = np.zeros(999)
    p[[99, 139]] = 0.4, 0.6  # $100, $140: $40 apart, so only a guess between hits both
    guess = float(PriceDistribution(p).point("best-hit"))
    assert 100 < guess < 140
    p = np.zeros(999)
    p[[399, 599]] = 0.5, 0.5  # $400 is hit from $321 to $479, $600 from $481 to $719: never both
    assert float(PriceDistribution(p).point("best-hit")) in {*range(321, 480), *range(481, 720)}
    p[[399, 599]] = 0.4, 0.6
    assert 481 <= float(PriceDistribution(p).point("best-hit")) <= 719


@given(masses())
def test_top_3_is_the_weighted_mean_of_the_three_likeliest(p):
    third = np.sort(p)[-3]
    assume((p > third).sum() == 2 and (p == third).sum() == 1)  # ties could be broken either way
    top = sorted(GRID, key=lambda price: -p[price - 1])[:3]
    by_definition = sum(price * p[price - 1] for price in top) / sum(p[price - 1] for price in top)
    assert float(PriceDistribution(p).point("top-3")) == pytest.approx(by_definition, abs=1e-9)


@pytest.mark.parametrize("price", [1, 2, 500, 998, 999])
def test_all_rules_agree_when_one_price_is_certain(price):
    p = np.zeros(999)
    p[price - 1] = 1e-7  # however little of the model's mass it is
    distribution = PriceDistribution(p)
    for rule in set(RULES) - {"best-hit"}:
        assert float(distribution.point(rule)) == pytest.approx(price, abs=1e-6), rule
    assert abs(float(distribution.point("best-hit")) - price) < max(40, 0.2 * price)


def test_a_known_distribution_by_hand():
    p = np.zeros(999)
    p[[9, 19, 99]] = 0.2, 0.2, 0.1  # $10, $20, $100 and half the mass elsewhere
    d = PriceDistribution(p)
    assert float(d.unpriced_mass) == pytest.approx(0.5)
    assert float(d.point("median")) == 20
    assert float(d.point("mean")) == pytest.approx(32)
    assert float(d.point("log-mean")) == pytest.approx((11**0.4) * (21**0.4) * (101**0.2) - 1)
    assert float(d.point("top-3")) == pytest.approx(32)
    assert float(d.point("mode")) == 10


@given(masses(), st.floats(0.001, 1.0))
def test_points_do_not_depend_on_the_mass_that_spells_no_price(p, share):
    whole, part = PriceDistribution(p / p.sum()), PriceDistribution(p / p.sum() * share)
    for rule in ("log-mean", "mean", "mode", "top-3"):
        assert float(whole.point(rule)) == pytest.approx(float(part.point(rule)), rel=1e-9)
    assert float(part.unpriced_mass) == pytest.approx(1 - share, abs=1e-9)


def test_rules_have_a_default_and_an_unknown_one_says_which_there_are():
    d = PriceDistribution(np.full(999, 1e-3))
    assert DEFAULT_RULE in RULES
    assert d.point() == d.point(DEFAULT_RULE)
    assert set(d.points()) == set(RULES)
    with pytest.raises(InputError) as caught:
        d.point("average")
    assert "average" in str(caught.value) and all(rule in str(caught.value) for rule in RULES)


# --- quantiles and intervals ---------------------------------------------------------------------


@given(masses(), st.lists(st.floats(0, 1), min_size=2, max_size=10))
def test_quantiles_are_monotone_whole_dollars_in_range(p, levels):
    d = PriceDistribution(p)
    prices = [float(d.quantile(level)) for level in sorted(levels)]
    assert prices == sorted(prices)
    assert all(1 <= price <= 999 and price == int(price) for price in prices)


@given(masses(), st.floats(1e-9, 1 - 1e-9))
def test_a_quantile_is_the_least_price_whose_cumulative_probability_reaches_the_level(p, level):
    q = conditional(p)
    price = int(PriceDistribution(p).quantile(level))
    assert q[:price].sum() >= level - 1e-9
    assert q[: price - 1].sum() < level + 1e-9


@given(masses(), st.integers(1, 999))
@example(np.eye(999)[998], 999)
def test_quantile_and_cdf_are_inverse(p, price):
    """Galois: the quantile at F(x) is the greatest step at or below x."""
    d = PriceDistribution(p)
    level = float(d.cdf[price - 1])
    assume(1e-9 < level < 1 - 1e-9 and p[price - 1] / p.sum() > 1e-9)
    assert float(d.quantile(level)) == price
    assert float(d.quantile(level - 1e-10)) == price


@given(masses())
def test_the_ends_of_the_scale_are_the_ends_of_the_mass(p):
    d = PriceDistribution(p)
    support = GRID[conditional(p) > 1e-9]
    assert float(d.quantile(0.0)) <= support[0]
    assert float(d.quantile(1.0)) >= support[-1]


@given(masses(), st.floats(0.01, 0.999))
def test_an_interval_holds_its_mass_and_leaves_no_more_than_half_the_rest_on_either_side(p, level):
    q = conditional(p)
    low, high = (int(end) for end in PriceDistribution(p).interval(level))
    assert low <= high
    assert q[low - 1 : high].sum() >= level - 1e-9
    assert q[: low - 1].sum() <= (1 - level) / 2 + 1e-9
    assert q[high:].sum() <= (1 - level) / 2 + 1e-9
    # And no shorter one would do on either side.
    assert q[:low].sum() >= (1 - level) / 2 - 1e-9
    assert q[high - 1 :].sum() >= (1 - level) / 2 - 1e-9


@given(masses(), st.floats(0.05, 0.9), st.floats(0.0, 0.09))
def test_a_wider_interval_contains_a_narrower_one(p, level, more):
    d = PriceDistribution(p)
    (low, high), (lower, higher) = d.interval(level), d.interval(level + more)
    assert lower <= low <= high <= higher


# --- scores --------------------------------------------------------------------------------------


@settings(max_examples=50)
@given(masses(), st.floats(0.01, 3000.0))
def test_crps_is_the_mean_miss_less_half_the_mean_spread(p, price):
    q = conditional(p)
    pairwise = q @ MISS @ q
    by_definition = q @ np.abs(GRID - price) - pairwise / 2
    assert float(PriceDistribution(p).crps(price)) == pytest.approx(by_definition, abs=1e-8)


@settings(max_examples=50)
@given(masses(), st.floats(0.5, 1500.0))
def test_crps_is_the_integral_of_the_squared_difference_of_the_cdfs(p, price):
    q = conditional(p)
    # The integrand is constant between neighbouring edges: integrate piece by piece.
    edges = np.unique(np.concatenate([[0.0], GRID, [price, 2000.0]]))
    middle = (edges[1:] + edges[:-1]) / 2
    cdf = np.concatenate([[0.0], np.cumsum(q)])[np.searchsorted(GRID, middle, side="right")]
    integral = (np.diff(edges) * (cdf - (middle >= price)) ** 2).sum()
    assert float(PriceDistribution(p).crps(price)) == pytest.approx(integral, abs=1e-8)


@given(masses(), st.integers(1, 999))
def test_the_log_score_is_minus_the_log_of_the_conditional_probability(p, price):
    score = float(PriceDistribution(p).log_score(float(price)))
    with np.errstate(divide="ignore"):
        exact = -np.log(p[price - 1] / p.sum())
    # 691 is bad, but finite: one item must not swallow a mean.
    assert score == pytest.approx(min(exact, 300 * np.log(10)), rel=1e-9, abs=1e-9)


def test_the_log_score_looks_at_the_nearest_price_in_range():
    p = np.full(999, 1e-4)
    p[[0, 998, 18]] = 0.1, 0.2, 0.3
    d = PriceDistribution(p)
    for price, nearest in ((0.2, 1), (5000.0, 999), (19.4, 19), (18.6, 19)):
        assert float(d.log_score(price)) == pytest.approx(-np.log(p[nearest - 1] / p.sum()))


# --- batches and bad input -----------------------------------------------------------------------


@settings(max_examples=30)
@given(st.lists(masses(), min_size=1, max_size=4))
def test_a_batch_gives_what_its_rows_give(rows):
    batch = PriceDistribution(np.array(rows))
    singles = [PriceDistribution(row) for row in rows]
    prices = np.linspace(5.0, 800.0, len(rows))
    assert len(batch) == len(rows)
    for i, single in enumerate(singles):
        for rule in RULES:
            assert batch.point(rule)[i] == pytest.approx(float(single.point(rule)))
        assert batch.crps(prices)[i] == pytest.approx(float(single.crps(prices[i])))
        assert batch.log_score(prices)[i] == pytest.approx(float(single.log_score(prices[i])))
        assert [end[i] for end in batch.interval(0.8)] == [float(end) for end in single.interval(0.8)]
        assert np.array_equal(batch[i].probabilities, single.probabilities)
        assert batch.unpriced_mass[i] == pytest.approx(float(single.unpriced_mass))
    stacked = PriceDistribution.stack(singles)
    assert np.array_equal(stacked.probabilities, batch.probabilities)


def test_shapes_lead_through():
    p = np.random.default_rng(0).dirichlet(np.ones(999), size=(2, 3))
    d = PriceDistribution(p)
    assert d.point("median").shape == d.unpriced_mass.shape == d.crps(np.ones((2, 3))).shape == (2, 3)
    assert PriceDistribution(p[0, 0]).point("mean").shape == ()


def changed(price, value):
    p = np.full(999, 1e-3)
    p[price - 1] = value
    return p


@pytest.mark.parametrize(
    "bad",
    [
        np.full(998, 1e-3),
        np.full(1000, 1e-3),
        np.full((999, 2), 1e-3),
        0.5,
        [],
        np.zeros(999),
        np.stack([np.full(999, 1e-3), np.zeros(999)]),
        changed(5, -1e-9),
        changed(5, np.nan),
        changed(5, np.inf),
        changed(999, -np.inf),
    ],
)
def test_bad_probabilities_raise(bad):
    with pytest.raises(ValueError):
        PriceDistribution(np.asarray(bad))


def test_a_sum_a_hair_above_one_is_no_negative_mass():
    assert float(PriceDistribution(np.full(999, 1 / 999) * (1 + 1e-7)).unpriced_mass) == 0.0
