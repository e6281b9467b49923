"""Concordance and Bland-Altman against hand-solved data, statsmodels and simulation."""

import numpy as np
import pytest
import statsmodels.api as sm
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from nigradat.errors import CohortError, ConfigError
from nigradat.metrics.agreement import bland_altman, bland_altman_clustered, bland_altman_ratio, ccc


def test_concordance_by_hand():
    # means 2 and 8/3, variances 2/3 and 8/9, covariance 0 / then a shifted copy: 2 v / (2 v + 1), v = 2/3
    assert ccc([1, 3, 2], [2, 2, 4]) == pytest.approx(0.0)
    assert ccc([1, 2, 3], [2, 3, 4]) == pytest.approx((4 / 3) / (4 / 3 + 1))
    assert ccc([1, 2, 3], [1, 2, 3]) == pytest.approx(1.0)
    assert ccc([1, 2, 3], [3, 2, 1]) == pytest.approx(-1.0)


def test_concordance_of_constants():
    assert np.isnan(ccc(np.full(7, 0.1), np.full(7, 0.1)))
    assert ccc(np.full(7, 0.1), np.full(7, 0.3)) == 0.0


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=25)
def test_concordance_is_correlation_times_accuracy(seed):
    rng = np.random.default_rng(seed)
    y, p = rng.uniform(0.5, 6, (2, 3, 20))
    # Lin's factorisation: C_b = 2 / (v + 1/v + u^2), v the ratio of SDs, u the shift over their geometric mean
    v = y.std(axis=1) / p.std(axis=1)
    u = (y.mean(axis=1) - p.mean(axis=1)) / np.sqrt(y.std(axis=1) * p.std(axis=1))
    r = [np.corrcoef(a, b)[0, 1] for a, b in zip(y, p, strict=True)]
    np.testing.assert_allclose(ccc(y, p), np.array(r) * 2 / (v + 1 / v + u**2), rtol=1e-10, atol=1e-12)


def test_three_patients_by_hand():
    # differences 0, 1, 2: bias 1, SD 1, limits 1 -+ 1.96; t(.975, 2) = 4.30265
    found = bland_altman([1.0, 2.0, 3.0], [1.0, 3.0, 5.0])
    t = 4.302652729911275
    assert (found.bias, found.sd) == (pytest.approx(1), pytest.approx(1))
    assert (found.lower, found.upper) == (pytest.approx(-0.96), pytest.approx(2.96))
    assert found.bias_ci == pytest.approx((1 - t / np.sqrt(3), 1 + t / np.sqrt(3)))
    half = t * np.sqrt(1 / 3 + 1.96**2 / 4)
    assert found.lower_ci == pytest.approx((-0.96 - half, -0.96 + half))
    assert found.upper_ci == pytest.approx((2.96 - half, 2.96 + half))
    # means 1, 2.5, 4: the differences rise by 1 per 1.5, exactly on the line
    assert found.slope == pytest.approx(2 / 3)
    assert found.slope_ci == pytest.approx((2 / 3, 2 / 3))
    assert (found.n_patients, found.n_values, found.sd_within) == (3, 3, None)


def test_proportional_bias_equals_least_squares():
    rng = np.random.default_rng(1)
    y = rng.uniform(0.5, 6, 40)
    p = 0.5 + 0.7 * y + rng.normal(0, 0.4, 40)
    found = bland_altman(y, p, level=0.9)
    fit = sm.OLS(p - y, sm.add_constant((p + y) / 2)).fit()
    assert found.slope == pytest.approx(fit.params[1])
    assert found.slope_ci == pytest.approx(tuple(fit.conf_int(alpha=0.1)[1]))


def test_bias_interval_equals_the_t_test():
    rng = np.random.default_rng(2)
    y, p = rng.uniform(1, 3, (2, 12))
    wanted = stats.ttest_rel(p, y).confidence_interval(0.95)
    assert bland_altman(y, p).bias_ci == pytest.approx((wanted.low, wanted.high))


def test_clustered_components_equal_the_analysis_of_variance():
    rng = np.random.default_rng(4)
    n = 30
    y = rng.uniform(0.5, 6, (n, 2))
    p = y + rng.normal(0, 0.5, (n, 1)) + rng.normal(0, 0.2, (n, 2))
    found = bland_altman_clustered(y, p)
    d = p - y
    f = stats.f_oneway(*d).statistic  # one group a patient: F = MSB / MSW
    within = np.mean(np.var(d, axis=1, ddof=1))
    assert found.sd_within**2 == pytest.approx(within)
    assert found.sd_between**2 == pytest.approx((f * within - within) / 2)
    assert found.sd**2 == pytest.approx(found.sd_between**2 + found.sd_within**2)


def test_clustered_slope_equals_the_cluster_sandwich():
    rng = np.random.default_rng(5)
    n = 25
    y = rng.uniform(0.5, 6, (n, 2))
    p = 0.4 + 0.8 * y + rng.normal(0, 0.5, (n, 1)) + rng.normal(0, 0.2, (n, 2))
    found = bland_altman_clustered(y, p)
    fit = sm.OLS((p - y).ravel(), sm.add_constant(((p + y) / 2).ravel())).fit(
        cov_type="cluster", cov_kwds={"groups": np.repeat(np.arange(n), 2)}, use_t=True
    )
    assert found.slope == pytest.approx(fit.params[1])
    assert found.slope_ci == pytest.approx(tuple(fit.conf_int()[1]))


def test_sides_that_err_equally_are_worth_one():
    rng = np.random.default_rng(6)
    y, p = rng.uniform(0.5, 6, (2, 20))
    one, two = bland_altman(y, p), bland_altman_clustered(np.stack([y, y], 1), np.stack([p, p], 1))
    for field in ("bias", "bias_ci", "sd", "lower", "lower_ci", "upper", "upper_ci", "slope", "n_patients"):
        assert getattr(two, field) == pytest.approx(getattr(one, field)), field
    assert (two.n_values, two.sd_within) == (40, pytest.approx(0.0))


def test_sides_that_err_oppositely_keep_their_total_spread():
    d = np.array([[1.0, -1.0], [-2.0, 2.0], [0.5, -0.5], [1.5, -1.5]])
    found = bland_altman_clustered(np.full((4, 2), 3.0), 3.0 + d)
    assert found.sd_between == 0.0
    assert found.sd**2 == pytest.approx(found.sd_within**2 / 2)
    assert found.bias_ci == pytest.approx((0.0, 0.0))


def test_clustered_limits_cover_their_truth():
    # two sides correlated by .8; the upper limit's 95 % interval must hold the true limit about as often
    rng = np.random.default_rng(7)
    held, held_if_independent, trials = 0, 0, 400
    for _ in range(trials):
        d = 0.3 + np.sqrt(0.8) * rng.normal(size=(30, 1)) + np.sqrt(0.2) * rng.normal(size=(30, 2))
        y = rng.uniform(1, 3, (30, 2))
        low, high = bland_altman_clustered(y, y + d).upper_ci
        held += low <= 0.3 + 1.96 <= high
        low, high = bland_altman(y.ravel(), (y + d).ravel()).upper_ci
        held_if_independent += low <= 0.3 + 1.96 <= high
    assert stats.binom.cdf(held, trials, 0.95) > 1e-4
    assert held_if_independent < held  # 2 n is not the number of patients


@pytest.mark.parametrize("shape", [(2,), (4, 2), (4, 3)])
def test_wrong_shapes_are_refused(shape):
    with pytest.raises(CohortError):
        bland_altman(np.ones(shape), np.ones(shape))
    with pytest.raises(CohortError):
        bland_altman_clustered(np.ones(shape[:1]), np.ones(shape[:1]))


def test_wrong_values_are_refused():
    with pytest.raises(CohortError, match="no number"):
        bland_altman([1.0, np.nan, 2.0], [1.0, 1.0, 2.0])
    with pytest.raises(ConfigError):
        bland_altman([1.0, 3.0, 2.0], [1.0, 1.0, 2.0], level=95)


def test_perfect_and_constant_predictions_have_an_answer():
    perfect = bland_altman_clustered(np.arange(8.0).reshape(4, 2), np.arange(8.0).reshape(4, 2))
    assert (perfect.sd, perfect.lower, perfect.upper, perfect.slope) == (0, 0, 0, 0)
    assert np.isnan(bland_altman(np.ones(4), np.ones(4)).slope)


def test_ratios_by_hand():
    # ratios 1/2, 1, 2: geometric mean 1, log SD ln 2, limits 2^-+1.96
    found = bland_altman_ratio([2.0, 3.0, 1.0], [1.0, 3.0, 2.0])
    assert found.ratio == pytest.approx(1)
    assert (found.lower, found.upper) == pytest.approx((2**-1.96, 2**1.96))
    half = 4.302652729911275 / np.sqrt(3)
    assert found.ratio_ci == pytest.approx((2**-half, 2**half))
    assert found.log.sd == pytest.approx(np.log(2))


@pytest.mark.parametrize("shape", [(40,), (40, 2)])
def test_ratios_do_not_depend_on_the_scale(shape):
    rng = np.random.default_rng(8)
    y = rng.uniform(0.5, 6, shape)
    p = 1.1 * y * np.exp(rng.normal(0, 0.2, shape))
    one, scaled, turned = bland_altman_ratio(y, p), bland_altman_ratio(5 * y, 5 * p), bland_altman_ratio(p, y)
    assert one.log.n_values == y.size
    for field in ("ratio", "lower", "upper", "ratio_ci", "lower_ci", "upper_ci"):
        assert getattr(scaled, field) == pytest.approx(getattr(one, field)), field
    assert (turned.ratio, turned.lower, turned.upper) == pytest.approx((1 / one.ratio, 1 / one.upper, 1 / one.lower))
    assert turned.upper_ci == pytest.approx((1 / one.lower_ci[1], 1 / one.lower_ci[0]))
    assert one.lower_ci[0] < one.lower < one.lower_ci[1] < one.ratio_ci[0] < one.ratio < one.upper


@pytest.mark.parametrize("bad", [0.0, -0.2])
def test_ratios_need_uptake(bad):
    with pytest.raises(CohortError, match="1 cases"):
        bland_altman_ratio([1.0, 2.0, 3.0], [1.0, bad, 3.0])
    with pytest.raises(CohortError):
        bland_altman_ratio(np.ones((4, 3)), np.ones((4, 3)))
