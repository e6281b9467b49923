"""Tests between methods against scipy, statsmodels, enumeration, published numbers and simulation."""

from itertools import product
from math import inf, isnan, nan

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestPower

from nigradat.errors import CohortError, ConfigError
from nigradat.metrics import comparison
from nigradat.metrics.comparison import (
    holm,
    minimum_detectable_difference,
    nadeau_bengio,
    paired_permutation,
    williams,
)

# -- sign flips


@pytest.mark.parametrize("n", [2, 5, 8, 10])
def test_exact_permutation_equals_scipy(n):
    rng = np.random.default_rng(n)
    x, y = rng.normal(0.3, 1, n), rng.normal(0, 1, n)
    theirs = stats.permutation_test(
        (x, y),
        lambda a, b, axis: np.mean(a - b, axis=axis),
        permutation_type="samples",
        n_resamples=np.inf,
        vectorized=True,
    )
    ours = paired_permutation(x - y, seed=0)
    assert (ours.exact, ours.n, ours.mean) == (True, n, pytest.approx(theirs.statistic))
    assert ours.p == pytest.approx(theirs.pvalue, rel=1e-12)


@given(st.lists(st.integers(-9, 9), min_size=1, max_size=8))
@settings(max_examples=60)
def test_exact_permutation_counts_every_sign(whole):
    extreme = [abs(np.dot(signs, whole)) >= abs(sum(whole)) for signs in product([-1, 1], repeat=len(whole))]
    assert paired_permutation(whole, seed=0).p == pytest.approx(np.mean(extreme))
    # tenths tie as whole numbers do, although .1 + .2 is not .3
    assert paired_permutation(np.array(whole) / 10, seed=0).p == paired_permutation(whole, seed=0).p
    assert paired_permutation(-np.array(whole), seed=0).p == paired_permutation(whole, seed=0).p


def test_sampled_permutation_agrees_with_the_exact_one():
    d = np.random.default_rng(3).normal(0.35, 1, 17)
    sampled, exact = (paired_permutation(d, seed=1, permutations=m) for m in (9999, 2**16))
    assert (sampled.exact, exact.exact) == (False, True)
    assert abs(sampled.p - exact.p) < 4.5 * np.sqrt(exact.p * (1 - exact.p) / 9999)
    assert paired_permutation(d, seed=1) == sampled
    assert paired_permutation(d, seed=2).p != sampled.p


def test_sampled_permutation_tends_to_the_t_test():
    d = np.random.default_rng(4).normal(0.1, 1, 2000)
    d += 0.04 - d.mean()
    assert paired_permutation(d, seed=0).p == pytest.approx(stats.ttest_1samp(d, 0).pvalue, abs=0.012)


def test_sampled_p_is_never_zero():
    assert paired_permutation(np.ones(60), seed=0, permutations=99).p == pytest.approx(1 / 100)


def test_blocks_do_not_change_the_enumeration(monkeypatch):
    d = np.random.default_rng(5).normal(0.3, 1, 9)
    whole = paired_permutation(d, seed=0)
    monkeypatch.setattr(comparison, "_BLOCK", 9 * 7)
    assert paired_permutation(d, seed=0) == whole


@pytest.mark.parametrize("n", [6, 40])
def test_identical_methods_do_not_differ(n):
    found = paired_permutation(np.zeros(n), seed=0)
    assert (found.mean, found.p) == (0.0, 1.0)


def test_permutation_of_what_is_no_number_or_no_sample():
    assert isnan(paired_permutation([0.1, nan, 0.2], seed=0).p)
    with pytest.raises(CohortError):
        paired_permutation(np.ones((3, 2)), seed=0)
    with pytest.raises(CohortError):
        paired_permutation([], seed=0)
    with pytest.raises(ConfigError):
        paired_permutation([1.0, 2.0], seed=0, permutations=0)


# -- repeated splits


@given(st.integers(0, 2**32 - 1), st.integers(2, 30), st.sampled_from([0.5, 0.9, 0.95]))
@settings(max_examples=30)
def test_without_overlap_it_is_the_ordinary_t_test(seed, replicates, level):
    d = np.random.default_rng(seed).normal(0.1, 1, replicates)
    ours = nadeau_bengio(d, 100, 0, level)
    theirs = stats.ttest_1samp(d, 0)
    wanted = theirs.confidence_interval(level)
    assert (ours.t, ours.p) == pytest.approx((theirs.statistic, theirs.pvalue), rel=1e-9)
    assert (ours.low, ours.high) == pytest.approx((wanted.low, wanted.high), rel=1e-9, abs=1e-12)


def test_corrected_t_by_hand():
    # mean 2, s^2 = 1, variance 1 (1/3 + 1/2) = 5/6, two degrees of freedom: p = 1 - t / sqrt(2 + t^2)
    found = nadeau_bengio([1.0, 2.0, 3.0], n_train=2, n_test=1)
    t = 2 / np.sqrt(5 / 6)
    assert (found.mean, found.t, found.replicates) == (2.0, pytest.approx(t), 3)
    assert found.p == pytest.approx(1 - t / np.sqrt(2 + t**2))
    half = 4.302652729911275 * np.sqrt(5 / 6)
    assert (found.low, found.high) == pytest.approx((2 - half, 2 + half))


def test_corrected_t_keeps_its_level_on_splits_of_one_cohort():
    # 60 patients, 12 random splits with 15 for testing: what the splits share is not seen by the ordinary test
    rng = np.random.default_rng(6)
    trials, rejected, ordinary = 300, 0, 0
    for _ in range(trials):
        patients = rng.normal(size=60)
        splits = np.array([rng.permutation(patients)[:15].mean() for _ in range(12)])
        rejected += nadeau_bengio(splits, 45, 15).p < 0.05
        ordinary += nadeau_bengio(splits, 45, 0).p < 0.05
    assert stats.binom.sf(rejected - 1, trials, 0.06) > 1e-4
    assert ordinary > 0.25 * trials


def test_corrected_t_where_it_is_not_defined():
    one = nadeau_bengio([0.3], 70, 30)
    assert (one.mean, one.replicates) == (0.3, 1)
    assert np.isnan([one.low, one.high, one.t, one.p]).all()
    same = nadeau_bengio(np.zeros(5), 70, 30)
    assert (same.mean, same.low, same.high) == (0, 0, 0)
    assert np.isnan([same.t, same.p]).all()
    constant = nadeau_bengio(np.full(7, -0.1), 70, 30)  # .1 is not the mean of seven .1
    assert (constant.t, constant.p) == (-inf, 0)
    assert isnan(nadeau_bengio([0.1, nan, 0.2], 70, 30).p)


@pytest.mark.parametrize(
    ("arguments", "kind"), [((0, 5), ConfigError), ((5, -1), ConfigError), ((5, 1, 95), ConfigError)]
)
def test_corrected_t_refuses(arguments, kind):
    with pytest.raises(kind):
        nadeau_bengio([0.1, 0.2], *arguments)


# -- families


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
@settings(max_examples=15)  # theirs collects garbage at every call
def test_holm_equals_statsmodels(values):
    ours = holm({str(i): p for i, p in enumerate(values)})
    np.testing.assert_allclose(list(ours.values()), multipletests(values, method="holm")[1], rtol=1e-12)


@given(st.dictionaries(st.text(max_size=3), st.floats(0, 1), min_size=1, max_size=8), st.data())
def test_holm_ignores_what_was_not_tested_and_the_order(p, data):
    adjusted = holm(p)
    assert all(p[name] <= adjusted[name] <= min(1, len(p) * p[name]) + 1e-15 for name in p)
    shuffled = dict(data.draw(st.permutations(list(p.items()))))
    more = holm({**shuffled, "not tested": nan})
    assert list(more) == [*shuffled, "not tested"]
    assert isnan(more.pop("not tested"))
    assert more == adjusted


def test_holm_refuses_what_is_no_probability():
    with pytest.raises(ConfigError, match="first"):
        holm({"first": 1.2, "second": 0.1})
    assert holm({}) == {}


# -- power


@pytest.mark.parametrize("n", [2, 3, 6, 12, 55, 400])
@pytest.mark.parametrize(("power", "level"), [(0.8, 0.95), (0.9, 0.99), (0.3, 0.8)])
def test_the_detectable_difference_has_that_power(n, power, level):
    found = minimum_detectable_difference(2.5, n, power=power, level=level)
    critical, shift = stats.t.ppf((1 + level) / 2, n - 1), found / 2.5 * np.sqrt(n)
    # the definition, over the distribution of the estimated SD: P(|z + shift| > critical s)
    s = np.sqrt(stats.chi2.ppf((np.arange(20_000) + 0.5) / 20_000, n - 1) / (n - 1))
    reached = np.mean(stats.norm.sf(critical * s - shift) + stats.norm.cdf(-critical * s - shift))
    assert reached == pytest.approx(power, abs=2e-4)


@pytest.mark.parametrize("n", [6, 12, 55, 2000])
def test_the_detectable_difference_equals_statsmodels(n):
    theirs = TTestPower().solve_power(nobs=n, power=0.8, alpha=0.05)
    assert minimum_detectable_difference(1.0, n) == pytest.approx(theirs, rel=1e-4)


def test_the_detectable_difference_against_the_normal_approximation():
    approximate = np.array([2.8015852 / np.sqrt(n) for n in (5, 20, 55, 20_000)])
    exact = np.array([minimum_detectable_difference(1.0, n) for n in (5, 20, 55, 20_000)])
    assert (np.diff(exact / approximate) < 0).all()
    assert exact[0] > 1.3 * approximate[0]
    assert exact[-1] == pytest.approx(approximate[-1], rel=1e-4)


def test_the_detectable_difference_at_its_ends():
    assert minimum_detectable_difference(0.0, 20) == 0
    assert isnan(minimum_detectable_difference(1.0, 1))
    assert isnan(minimum_detectable_difference(nan, 20))
    for bad in ({"power": 0.05}, {"power": 1.0}, {"level": 95}):
        with pytest.raises(ConfigError):
            minimum_detectable_difference(1.0, 20, **bad)
    with pytest.raises(ConfigError):
        minimum_detectable_difference(-1.0, 20)


# -- dependent correlations


@pytest.mark.parametrize(
    ("arguments", "t", "p"),
    [
        ((0.4, 0.5, 0.1, 103), "-0.89", "0.37"),  # Steiger's data, as the R package psych prints r.test of them
        ((0.20, 0.45, 0.80, 100), "-4.56", "1e-05"),  # manual of the R package bruceR, cor_diff
    ],
)
def test_published_dependent_correlations(arguments, t, p):
    found = williams(*arguments)
    assert f"{found.t:.2f}" == t
    assert p in (f"{found.p:.2f}", f"{found.p:.0e}")
    assert found.df == arguments[-1] - 3


def test_exchanged_predictors_exchange_the_sign():
    one, other = williams(0.7, 0.6, 0.5, 40), williams(0.6, 0.7, 0.5, 40)
    assert (one.t, one.p) == (-other.t, other.p)
    assert williams(0.6, 0.6, 0.5, 40) == comparison.DependentR(0.0, 1.0, 37)


def test_equal_correlations_are_rejected_at_the_level():
    rng = np.random.default_rng(9)
    trials, rejected = 1000, 0
    for _ in range(trials):
        truth = rng.normal(size=25)
        first, second = truth + 0.5 * rng.normal(size=25) + 0.7 * rng.normal(size=(2, 25))
        r = np.corrcoef([truth, first, second])
        rejected += williams(r[0, 1], r[0, 2], r[1, 2], 25).p < 0.05
    assert 1e-4 < stats.binom.cdf(rejected, trials, 0.05) < 1 - 1e-4


def test_dependent_correlations_where_they_are_not_defined():
    assert isnan(williams(0.5, 0.4, 0.3, 3).p)
    assert isnan(williams(0.5, 0.5, 1.0, 30).p)  # one and the same predictor
    assert isnan(williams(nan, 0.4, 0.3, 30).p)
    with pytest.raises(ConfigError, match="together"):
        williams(0.9, -0.9, 0.9, 30)
    with pytest.raises(ConfigError):
        williams(1.1, 0.4, 0.3, 30)
