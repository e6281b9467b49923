"""Conformal ranks and coverage ranges: exact enumeration, published numbers, simulation."""

from fractions import Fraction
from math import comb

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.proportion import proportion_confint

from nigradat.errors import CalibrationError, ConfigError
from nigradat.metrics import conformal as cf


@pytest.mark.parametrize(
    ("n", "level", "rank"),
    [(19, 0.95, 19), (20, 0.95, 20), (28, 0.95, 28), (39, 0.95, 38), (99, 0.95, 95), (19, 0.55, 11), (9, 0.7, 7)],
)
def test_rank(n, level, rank):
    assert cf.conformal_rank(n, level) == rank


@given(st.integers(1, 999), st.integers(1, 5000))
def test_rank_is_exact_for_decimals(thousandths, n):
    level = thousandths / 1000
    rank = cf.conformal_rank(n, level)
    assert Fraction(rank - 1, n + 1) < Fraction(thousandths, 1000) <= Fraction(rank, n + 1)


@pytest.mark.parametrize(("level", "n"), [(0.95, 19), (0.9, 9), (0.8, 4), (0.99, 99), (0.5, 1)])
def test_patients_needed_is_the_smallest_that_works(level, n):
    assert cf.patients_needed(level) == n
    scores = np.arange(1.0, n + 1)
    assert cf.conformal_quantile(scores, level) == n
    if n > 1:
        with pytest.raises(CalibrationError, match=f"at least {n} patients"):
            cf.conformal_quantile(scores[:-1], level)


def test_quantile_of_any_order_and_of_infinite_scores():
    scores = np.arange(1.0, 40.0)
    np.random.default_rng(0).shuffle(scores)
    kept = scores.copy()
    assert cf.conformal_quantile(scores, 0.95) == 38
    np.testing.assert_array_equal(scores, kept)
    assert cf.conformal_quantile(np.append(np.arange(18.0), np.inf), 0.95) == np.inf


def test_scores_without_number_are_refused():
    with pytest.raises(CalibrationError):
        cf.conformal_quantile(np.append(np.arange(30.0), np.nan), 0.95)
    with pytest.raises(CalibrationError):
        cf.conformal_quantile(np.ones((20, 2)), 0.9)


@pytest.mark.parametrize(("n", "mean", "sd"), [(56, 0.965, 0.024), (112, 0.956, 0.019), (256, 0.953, 0.013)])
def test_realised_coverage_has_the_known_moments(n, mean, sd):
    rank = cf.conformal_rank(n, 0.95)
    law = stats.beta(rank, n + 1 - rank)
    assert (round(law.mean(), 3), round(law.std(), 3)) == (mean, sd)


def exact_count_law(n, m, rank):
    """P(j of m test scores lie at or below the rank-th of n calibration scores), by counting orders."""
    return [Fraction(comb(rank + j - 1, j) * comb(n - rank + m - j, m - j), comb(n + m, m)) for j in range(m + 1)]


@pytest.mark.parametrize(("n", "m", "level", "central"), [(19, 30, 0.95, 0.9), (28, 55, 0.9, 0.99), (10, 7, 0.5, 0.8)])
def test_range_by_exact_counting(n, m, level, central):
    law = exact_count_law(n, m, cf.conformal_rank(n, level))
    assert sum(law) == 1
    low, high = (round(x * m) for x in cf.beta_binomial_range(n, m, level, central))
    tail = (1 - Fraction(str(central))) / 2
    # neither tail is too large, and neither end could be drawn in
    assert sum(law[:low]) <= tail < sum(law[: low + 1])
    assert sum(law[high + 1 :]) <= tail < sum(law[high:])


def test_range_holds_for_simulated_conformal_intervals():
    rng = np.random.default_rng(5)
    n, m, trials = 256, 1000, 2000
    threshold = np.sort(rng.exponential(size=(trials, n)), axis=1)[:, cf.conformal_rank(n, 0.95) - 1]
    coverage = (rng.exponential(size=(trials, m)) <= threshold[:, None]).mean(axis=1)
    low, high = cf.beta_binomial_range(n, m, 0.95, central=0.95)
    inside = np.count_nonzero((coverage >= low) & (coverage <= high))
    assert stats.binom.cdf(inside, trials, 0.95) > 1e-4
    assert stats.binom.sf(inside, trials, 0.96) > 1e-4  # and the range is no wider than whole counts make it


def test_range_narrows_with_patients():
    widths = [np.diff(cf.beta_binomial_range(n, 2000, 0.95))[0] for n in (19, 56, 256, 5000)]
    assert (np.diff(widths) < 0).all()


def test_range_needs_enough_patients():
    with pytest.raises(CalibrationError, match="at least 19"):
        cf.beta_binomial_range(18, 100, 0.95)
    with pytest.raises(ConfigError):
        cf.beta_binomial_range(19, 0, 0.95)


@pytest.mark.parametrize("covered", [0, 1, 27, 52, 55])
def test_clopper_pearson_equals_statsmodels(covered):
    wanted = proportion_confint(covered, 55, alpha=0.05, method="beta")
    assert cf.clopper_pearson(covered, 55) == pytest.approx(wanted)


def test_55_cases_do_not_test_95_percent():
    low, high = cf.clopper_pearson(52, 55)
    assert (round(low, 2), round(high, 2)) == (0.85, 0.99)


@pytest.mark.parametrize("arguments", [(-1, 5), (6, 5), (0, 0)])
def test_impossible_counts_are_refused(arguments):
    with pytest.raises(ConfigError):
        cf.clopper_pearson(*arguments)


@pytest.mark.parametrize("level", [0.0, 1.0, 95, -0.1, float("nan")])
def test_levels_outside_0_1_are_refused(level):
    with pytest.raises(ConfigError):
        cf.conformal_rank(100, level)
