"""Intraclass correlations against the published worked example, statsmodels, closed forms and simulation."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.formula.api import ols
from statsmodels.stats.anova import anova_lm

from nigradat.errors import CohortError, ConfigError
from nigradat.metrics.agreement import ccc, icc, icc_agreement, icc_consistency

# Shrout and Fleiss 1979, table 2: six subjects, four judges
SHROUT_FLEISS = np.array([[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]])


def test_published_example():
    found = icc(*SHROUT_FLEISS.T)
    assert (round(found.single_agreement, 2), round(found.single_consistency, 2)) == (0.29, 0.71)
    # intervals as the function ICC of the R package psych prints them for this table
    assert found.single_agreement_ci == pytest.approx((0.019, 0.761), abs=5e-4)
    assert found.single_consistency_ci == pytest.approx((0.342, 0.946), abs=5e-4)
    assert (found.n_subjects, found.n_raters, found.level) == (6, 4, 0.95)


@pytest.mark.parametrize("k", [2, 3, 5])
def test_equals_the_analysis_of_variance(k):
    rng = np.random.default_rng(k)
    n = 12
    x = rng.normal(2, 1, (n, 1)) + rng.normal(0, 0.4, k) + rng.normal(0, 0.5, (n, k))
    long = pd.DataFrame({"y": x.ravel(), "subject": np.repeat(range(n), k), "rater": np.tile(range(k), n)})
    squares = anova_lm(ols("y ~ C(subject) + C(rater)", long).fit())
    subjects, raters, error = squares["sum_sq"] / squares["df"]
    found = icc(*x.T)
    assert found.single_consistency == pytest.approx((subjects - error) / (subjects + (k - 1) * error))
    spread = subjects + (k - 1) * error + k * (raters - error) / n
    assert found.single_agreement == pytest.approx((subjects - error) / spread)
    # the consistency's interval holds 0 exactly when the F test of the subjects does not reject
    for level in (0.5, 0.99, 0.999999):
        low, high = icc(*x.T, level=level).single_consistency_ci
        rejects = min(squares["PR(>F)"]["C(subject)"], 1) < (1 - level) / 2
        assert (low > 0) == rejects
        assert low < found.single_consistency < high


@given(st.integers(0, 2**32 - 1), st.integers(2, 40))
@settings(max_examples=30)
def test_two_raters_in_closed_form(seed, n):
    rng = np.random.default_rng(seed)
    y = rng.uniform(0.5, 6, n)
    p = 0.5 + 0.6 * y + rng.normal(0, 0.5, n)
    variances = np.var(y, ddof=1) + np.var(p, ddof=1)
    twice = 2 * np.cov(y, p)[0, 1]
    shift = np.mean(p - y) ** 2 - np.var(p - y, ddof=1) / n
    found = icc(y, p)
    assert found.single_consistency == pytest.approx(twice / variances, rel=1e-9)
    assert found.single_agreement == pytest.approx(twice / (variances + shift), rel=1e-9)
    assert (icc_agreement(y, p), icc_consistency(y, p)) == (found.single_agreement, found.single_consistency)
    assert icc(p, y).single_agreement == pytest.approx(found.single_agreement)


def test_a_constant_shift_counts_against_agreement_only():
    y, p = np.random.default_rng(1).normal(2, 1, (2, 30))
    p = y + 0.3 * p
    near, far = icc(y, p), icc(y, p + 1)
    assert far.single_consistency == pytest.approx(near.single_consistency)
    assert far.single_consistency_ci == pytest.approx(near.single_consistency_ci)
    assert far.single_agreement < near.single_agreement - 0.1


def test_with_many_patients_it_is_the_concordance():
    y = np.random.default_rng(2).uniform(0.5, 6, 5000)
    p = 0.3 + 0.8 * y + np.random.default_rng(3).normal(0, 0.5, 5000)
    assert icc(y, p).single_agreement == pytest.approx(float(ccc(y, p)), abs=1e-3)


def test_intervals_cover_the_truth():
    # components: subjects 1, raters .1, error .25
    rng = np.random.default_rng(4)
    trials, held = 400, np.zeros(2)
    for _ in range(trials):
        raters = rng.normal(0, np.sqrt(0.1), 4)
        x = rng.normal(size=(20, 1)) + raters + 0.5 * rng.normal(size=(20, 4))
        found = icc(*x.T)
        held += [
            found.single_agreement_ci[0] <= 1 / 1.35 <= found.single_agreement_ci[1],
            found.single_consistency_ci[0] <= 1 / 1.25 <= found.single_consistency_ci[1],
        ]
    assert stats.binom.cdf(held[0], trials, 0.94) > 1e-4  # Satterthwaite's interval is approximate
    assert 1e-4 < stats.binom.cdf(held[1], trials, 0.95) < 1 - 1e-4


def test_a_block_of_samples_equals_its_rows():
    y, p = np.random.default_rng(5).uniform(0.5, 6, (2, 3, 4, 17))
    for metric in (icc_agreement, icc_consistency):
        rows = [[metric(y[i, j], p[i, j]) for j in range(4)] for i in range(3)]
        np.testing.assert_allclose(metric(y, p), rows, rtol=1e-12)


def test_perfect_and_constant_ratings():
    perfect = icc([1.0, 2.0, 3.5], [1.0, 2.0, 3.5])
    assert (perfect.single_agreement, perfect.single_agreement_ci) == (1.0, (1.0, 1.0))
    assert (perfect.single_consistency, perfect.single_consistency_ci) == (1.0, (1.0, 1.0))
    constant = icc(np.full(7, 0.1), np.full(7, 0.1))
    assert np.isnan([constant.single_agreement, constant.single_consistency]).all()
    # a constant prediction shares no variance with the truth
    assert icc(np.arange(9.0), np.full(9, 0.1)).single_consistency == pytest.approx(0, abs=1e-12)


def test_undefined_is_nan():
    for ratings in (([1.0], [2.0]), ([1.0, np.nan, 2.0], [1.0, 2.0, 3.0])):
        found = icc(*ratings)
        assert np.isnan([found.single_agreement, *found.single_agreement_ci, *found.single_consistency_ci]).all()


def test_what_does_not_fit_is_refused():
    with pytest.raises(CohortError, match="raters"):
        icc([1.0, 2.0, 3.0])
    with pytest.raises(CohortError):
        icc([1.0, 2.0], [1.0, 2.0, 3.0])
    with pytest.raises(CohortError, match="shape"):
        icc(SHROUT_FLEISS, SHROUT_FLEISS)
    with pytest.raises(ConfigError):
        icc([1.0, 2.0], [1.0, 2.5], level=95)
