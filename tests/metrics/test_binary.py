"""Binary agreement and ROC areas against the published table, scikit-learn, statsmodels, double sums and resampling."""

from math import isnan, nan

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import confusion_matrix, roc_auc_score
from statsmodels.stats.proportion import proportion_confint

from nigradat.errors import CohortError, ConfigError
from nigradat.metrics.binary import (
    BinaryAgreement,
    agreement_with_finding,
    auc,
    binary_agreement,
    clustered_auc,
    delong_auc,
    delong_auc_difference,
    wilson,
)

# -- tables of four


@pytest.mark.parametrize(
    ("counts", "printed"),
    [
        # the paper's binary agreement, solved for whole patients: found of 43 or 41 low, of 12 or 14 not low
        ((31, 43, 9, 12), (0.727, 0.721, 0.750)),
        ((37, 43, 10, 12), (0.855, 0.860, 0.833)),
        ((31, 41, 11, 14), (0.764, 0.756, 0.786)),
        ((35, 41, 11, 14), (0.836, 0.854, 0.786)),
    ],
)
def test_the_published_tables_of_55_patients(counts, printed):
    tp, positives, tn, negatives = counts
    found = BinaryAgreement(tp=tp, fp=negatives - tn, tn=tn, fn=positives - tp)
    assert (found.n, found.positives, found.negatives) == (55, positives, negatives)
    assert tuple(round(x, 3) for x in (found.accuracy, found.sensitivity, found.specificity)) == printed
    assert round(found.prevalence, 3) == {43: 0.782, 41: 0.745}[positives]


@given(st.integers(0, 2**32 - 1), st.integers(1, 60))
@settings(max_examples=30)
def test_counts_equal_scikit_learn(seed, n):
    y, p = np.random.default_rng(seed).uniform(0.5, 5, (2, n))
    found = binary_agreement(y, p, 2.56)
    tn, fp, fn, tp = confusion_matrix(y < 2.56, p < 2.56, labels=[False, True]).ravel()
    assert (found.tn, found.fp, found.fn, found.tp) == (tn, fp, fn, tp)
    # both sides together are the two sides added
    split = [binary_agreement(y[part], p[part], 2.56) for part in (slice(0, n // 2), slice(n // 2, n)) if y[part].size]
    assert found.tp == sum(part.tp for part in split)


def test_the_threshold_itself_is_not_low():
    assert binary_agreement([2.56, 2.55], [2.55, 2.56], 2.56) == BinaryAgreement(tp=0, fp=1, tn=0, fn=1)


def test_shares_of_nothing_are_undefined():
    none_low = binary_agreement([3.0, 4.0], [2.0, 4.0], 2.56)
    assert isnan(none_low.sensitivity)
    assert (none_low.specificity, none_low.prevalence) == (0.5, 0.0)
    empty = agreement_with_finding([], [])
    assert (empty.n, empty.tp) == (0, 0)
    assert np.isnan([empty.accuracy, empty.sensitivity, empty.specificity, empty.prevalence]).all()


def test_a_finding_against_its_reference():
    reference = np.array([[True, True], [False, False], [True, False]])
    finding = np.array([[True, False], [True, False], [True, False]])
    assert agreement_with_finding(reference, finding) == BinaryAgreement(tp=2, fp=1, tn=2, fn=1)


def test_words_and_missing_numbers_are_no_reading():
    with pytest.raises(CohortError, match="True"):
        agreement_with_finding([True, False], ["absent", "present"])
    with pytest.raises(CohortError):
        agreement_with_finding([True, False], [True])
    with pytest.raises(CohortError, match="no number"):
        binary_agreement([1.0, 2.0], [1.0, nan], 2.56)
    with pytest.raises(ConfigError):
        binary_agreement([1.0, 2.0], [1.0, 2.0], nan)


@given(st.integers(1, 400), st.data(), st.sampled_from([0.8, 0.95, 0.99]))
def test_wilson_equals_statsmodels(n, data, level):
    k = data.draw(st.integers(0, n))
    low, high = wilson(k, n, level)
    assert (low, high) == pytest.approx(proportion_confint(k, n, alpha=1 - level, method="wilson"), abs=1e-12)
    assert 0 <= low <= k / n <= high <= 1
    # the score test's own definition: at each end k lies exactly z standard errors away
    z = stats.norm.ppf((1 + level) / 2)
    for end in (low, high):
        assert (k / n - end) ** 2 == pytest.approx(z**2 * end * (1 - end) / n, rel=1e-6, abs=1e-12)


def test_wilson_of_nothing_and_of_the_impossible():
    assert np.isnan(wilson(0, 0)).all()
    for bad in ((6, 5), (-1, 5), (1, 5, 95)):
        with pytest.raises(ConfigError):
            wilson(*bad)


# -- the area


def wins(positive, score):
    """Won comparisons of every positive (rows) with every negative (columns): 1, 1/2, 0."""
    x, y = score[positive], score[~positive]
    return (x[:, None] > y) + 0.5 * (x[:, None] == y)


def explicit_delong(positive, *scores):
    """Areas and their covariance from the structural components, all m n comparisons spelt out."""
    tables = [wins(positive, s) for s in scores]
    v10, v01 = [t.mean(axis=1) for t in tables], [t.mean(axis=0) for t in tables]
    covariance = np.cov(v10) / len(v10[0]) + np.cov(v01) / len(v01[0])
    return [t.mean() for t in tables], covariance


def explicit_obuchowski(positive, score):
    table, (row, column) = wins(positive, score), (np.nonzero(positive)[0], np.nonzero(~positive)[0])
    area, clusters = table.mean(), range(len(positive))
    m, n = table.shape
    of_positive = [table.mean(axis=1)[row == i].sum() - (row == i).sum() * area for i in clusters]
    of_negative = [table.mean(axis=0)[column == i].sum() - (column == i).sum() * area for i in clusters]
    i10, i01, i = len(set(row)), len(set(column)), len(positive)
    s10 = i10 / ((i10 - 1) * m) * np.dot(of_positive, of_positive)
    s01 = i01 / ((i01 - 1) * n) * np.dot(of_negative, of_negative)
    s11 = i / (i - 1) * np.dot(of_positive, of_negative)
    return area, np.sqrt(s10 / m + s01 / n + 2 * s11 / (m * n))


labelled = st.lists(st.tuples(st.booleans(), st.integers(0, 9)), min_size=4, max_size=40).filter(
    lambda cases: 2 <= sum(p for p, _ in cases) <= len(cases) - 2
)


@given(labelled)
@settings(max_examples=60)
def test_area_and_standard_error_with_many_ties(listed):
    positive, score = (np.array(column) for column in zip(*listed, strict=True))
    found = delong_auc(positive, score)
    assert found.value == pytest.approx(roc_auc_score(positive, score))
    u = stats.mannwhitneyu(score[positive], score[~positive]).statistic
    assert found.value == pytest.approx(u / (found.n_positive * found.n_negative))
    assert found.value == pytest.approx(float(auc(positive, score)))
    assert found.se == pytest.approx(np.sqrt(explicit_delong(positive, score)[1]), abs=1e-12)
    assert (found.n_positive, found.n_negative) == (positive.sum(), (~positive).sum())
    # only the order counts, and its reverse exchanges the classes
    assert delong_auc(positive, np.exp(score)) == found
    turned = delong_auc(~positive, -score)
    assert (turned.value, turned.se) == pytest.approx((found.value, found.se), abs=1e-12)


def test_the_interval_is_symmetric_on_the_logit_scale():
    positive = np.arange(60) % 2 == 0
    score = positive + np.random.default_rng(1).normal(size=60)
    found = delong_auc(positive, score, level=0.9)
    low, value, high = (np.log(x / (1 - x)) for x in (found.low, found.value, found.high))
    assert high - value == pytest.approx(value - low)
    assert high - value == pytest.approx(1.6448536 * found.se / (found.value * (1 - found.value)))


@given(labelled, st.integers(0, 2**32 - 1))
@settings(max_examples=40)
def test_difference_counts_the_covariance(listed, seed):
    positive, first = (np.array(column) for column in zip(*listed, strict=True))
    second = np.round(first + np.random.default_rng(seed).normal(0, 3, len(first)))
    (one, two), covariance = explicit_delong(positive, first, second)
    found = delong_auc_difference(positive, first, second)
    assert found.value == pytest.approx(one - two, abs=1e-12)
    se = np.sqrt(max(0.0, covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1]))
    assert found.se == pytest.approx(se, abs=1e-7)
    if se > 1e-6:
        assert found.z == pytest.approx((one - two) / se, rel=1e-6)
        assert found.p == pytest.approx(2 * stats.norm.sf(abs(found.z)))
    assert -1 <= found.low <= found.value <= found.high <= 1


def test_a_score_does_not_differ_from_itself():
    positive = np.arange(20) % 3 == 0
    score = np.random.default_rng(2).normal(size=20)
    found = delong_auc_difference(positive, score, 2 * score + 1)
    assert (found.value, found.se, found.low, found.high) == (0, 0, 0, 0)
    assert np.isnan([found.z, found.p]).all()


def simulated_pairs(rng, n):
    """Labels and scores of both sides, alike within a patient; a few patients have one side of each class."""
    truth = rng.normal(size=(n, 1)) + 0.5 * rng.normal(size=(n, 2))
    return truth < -0.2, -truth + rng.normal(0, 0.8, (n, 1)) + rng.normal(0, 0.6, (n, 2))


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=25)
def test_clustered_error_equals_obuchowski_spelt_out(seed):
    positive, score = simulated_pairs(np.random.default_rng(seed), 20)
    assume(min(positive.any(axis=1).sum(), (~positive).any(axis=1).sum()) >= 2)
    found = clustered_auc(positive, np.round(score, 1))
    assert (found.value, found.se) == pytest.approx(explicit_obuchowski(positive, np.round(score, 1)))


def test_one_case_a_patient_is_delong():
    positive, score = (x[:, 0] for x in simulated_pairs(np.random.default_rng(3), 50))
    assert clustered_auc(positive[:, None], score[:, None]) == delong_auc(positive, score)


def test_two_equal_sides_are_worth_one():
    positive, score = (x[:, :1] for x in simulated_pairs(np.random.default_rng(4), 50))
    one, two = (clustered_auc(np.repeat(positive, c, axis=1), np.repeat(score, c, axis=1)) for c in (1, 2))
    assert (two.value, two.se, two.low) == pytest.approx((one.value, one.se, one.low))
    assert (two.n_positive, two.n_negative) == (2 * one.n_positive, 2 * one.n_negative)


def test_clustered_error_equals_the_patient_bootstrap():
    rng = np.random.default_rng(5)
    positive, score = simulated_pairs(rng, 200)
    drawn = rng.integers(0, 200, (2000, 200))
    bootstrap = auc(positive[drawn].reshape(2000, -1), score[drawn].reshape(2000, -1)).std()
    assert clustered_auc(positive, score).se == pytest.approx(bootstrap, rel=0.08)
    # sides taken for patients claim too much
    assert delong_auc(positive.ravel(), score.ravel()).se < 0.9 * bootstrap
    # and so it is with the difference of two scores
    other = score + rng.normal(0, 0.8, score.shape)
    labels, first, second = (x[drawn].reshape(2000, -1) for x in (positive, score, other))
    difference = delong_auc_difference(positive, score, other)
    assert difference.value == pytest.approx(
        clustered_auc(positive, score).value - clustered_auc(positive, other).value
    )
    assert difference.se == pytest.approx((auc(labels, first) - auc(labels, second)).std(), rel=0.08)


def test_clustered_intervals_cover_the_truth():
    rng = np.random.default_rng(6)
    positive, score = simulated_pairs(rng, 100_000)
    truth, trials = float(auc(positive.ravel(), score.ravel())), 300
    found = [clustered_auc(*simulated_pairs(rng, 60)) for _ in range(trials)]
    held = sum(f.low <= truth <= f.high for f in found)
    assert stats.binom.cdf(held, trials, 0.94) > 1e-4


def test_a_block_of_samples_equals_its_rows():
    rng = np.random.default_rng(7)
    positive, score = rng.random((3, 4, 15)) < 0.4, rng.integers(0, 5, (3, 4, 15))
    rows = [[auc(positive[i, j], score[i, j]) for j in range(4)] for i in range(3)]
    np.testing.assert_allclose(auc(positive, score), rows, rtol=1e-12)


def test_undefined_is_nan_not_an_error():
    score = np.array([1.0, 2.0, 3.0, 4.0])
    for positive in (np.zeros(4, bool), np.ones(4, bool)):
        found = delong_auc(positive, score)
        assert np.isnan([found.value, found.se, found.low, found.high, auc(positive, score)]).all()
        assert isnan(delong_auc_difference(positive, score, -score).p)
        assert isnan(clustered_auc(positive.reshape(2, 2), score.reshape(2, 2)).value)
    one = delong_auc(score > 3, np.array([1.0, 5.0, 2.0, 3.0]))  # a class of one has an area but no error
    assert one.value == pytest.approx(2 / 3)
    assert np.isnan([one.se, one.low, one.high]).all()
    perfect = delong_auc(score > 2, score)
    assert (perfect.value, perfect.se) == (1.0, 0.0)
    assert np.isnan([perfect.low, perfect.high]).all()
    missing = np.array([1.0, nan, 2.0, 3.0])
    assert np.isnan([delong_auc(score > 2, missing).value, auc(score > 2, missing)]).all()


def test_a_constant_score_separates_nothing():
    found = delong_auc(np.arange(10) % 2 == 0, np.full(10, 0.1))
    assert (found.value, found.se, found.low, found.high) == (0.5, 0.0, 0.5, 0.5)


def test_what_does_not_fit_is_refused():
    positive, score = np.array([True, False, True]), np.ones(3)
    for function in (delong_auc, auc):
        with pytest.raises(CohortError):
            function(positive, score[:2])
        with pytest.raises(CohortError, match="labels"):
            function([1, 0, 1], score)
    with pytest.raises(CohortError):
        delong_auc(np.ones((2, 2), bool), np.ones((2, 2)))
    with pytest.raises(CohortError):
        clustered_auc(positive, score)
    with pytest.raises(CohortError):
        delong_auc_difference(np.ones((2, 2, 2), bool), np.ones((2, 2, 2)), np.ones((2, 2, 2)))
    with pytest.raises(ConfigError):
        delong_auc(positive, score, level=95)
