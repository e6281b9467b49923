"""Asymmetry and the lower side: by hand, against the value of a pair, and under exchange of the sides."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from nigradat.errors import CohortError, ConfigError
from nigradat.metrics.asymmetry import (
    asymmetry_error,
    asymmetry_index,
    worse_side_agreement,
    worse_side_sbr_error,
)
from nigradat.pair import SbrPair

TRUTH = np.array([[1.0, 3.0], [3.0, 1.0], [2.0, 2.0], [2.0, 2.5]])
PREDICTED = np.array([[1.0, 1.0], [2.0, 1.0], [1.0, 2.0], [3.0, 2.0]])
METRICS = [asymmetry_error, worse_side_agreement, worse_side_sbr_error]

sbr = st.floats(0.25, 7.0, width=32)
pairs = hnp.arrays(np.float64, st.tuples(st.just(2), st.integers(1, 20), st.just(2)), elements=sbr)


def test_four_patients_by_hand():
    # index of the truth -100, 100, 0, -200/9; of the prediction 0, 200/3, -200/3, 40
    assert asymmetry_error(TRUTH, PREDICTED) == pytest.approx((100 + 100 / 3 + 200 / 3 + 40 + 200 / 9) / 4)
    # the first prediction is a tie (one half), the second right, the third patient has no lower side, the last wrong
    assert worse_side_agreement(TRUTH, PREDICTED) == pytest.approx(1.5 / 3)
    # the last patient's sides differ by .5: not by more
    assert worse_side_agreement(TRUTH, PREDICTED, margin=0.5) == pytest.approx(1.5 / 2)
    # lower sides 1, 1, 2, 2 against 1, 1, 1, 2
    assert worse_side_sbr_error(TRUTH, PREDICTED) == pytest.approx(1 / 4)


@given(st.floats(0, 7, width=32), st.floats(0, 7, width=32))
def test_the_index_is_that_of_a_pair_with_a_sign(right, left):
    index = float(asymmetry_index(right, left))
    assert abs(index) == pytest.approx(100 * SbrPair(right, left).asymmetry_index, rel=1e-9, abs=1e-12)
    assert np.sign(index) == (np.sign(right - left) if index else 0)
    assert index == -float(asymmetry_index(left, right))
    assert abs(index) <= 200


def test_the_index_of_what_is_no_uptake():
    assert asymmetry_index(0, 0) == 0
    assert np.isnan(asymmetry_index([-1.0, 0.5, -0.1, np.nan], [0.5, -0.5, -0.1, 1.0])).all()
    assert asymmetry_index([[1.0], [2.0]], [1.0, 2.0, 3.0]).shape == (2, 3)


@given(pairs)
def test_exchanged_sides_change_nothing(both):
    truth, predicted = both
    for metric in METRICS:
        np.testing.assert_allclose(metric(truth, predicted), metric(truth[:, ::-1], predicted[:, ::-1]), rtol=1e-12)


@given(pairs)
def test_truth_agrees_with_itself(both):
    truth = both[0]
    assert asymmetry_error(truth, truth) == 0
    assert worse_side_sbr_error(truth, truth) == 0
    lower = truth[:, 0] != truth[:, 1]
    assert worse_side_agreement(truth, truth) == 1 if lower.any() else np.isnan(worse_side_agreement(truth, truth))
    if lower.any():
        assert worse_side_agreement(truth, truth[:, ::-1]) == 0


def test_a_scale_does_not_touch_the_asymmetry():
    assert asymmetry_error(TRUTH, 3 * PREDICTED) == pytest.approx(asymmetry_error(TRUTH, PREDICTED))


@pytest.mark.parametrize("metric", METRICS)
def test_a_block_of_samples_equals_its_rows(metric):
    y, p = np.random.default_rng(2).uniform(0.5, 6, (2, 3, 4, 11, 2))
    rows = [[metric(y[i, j], p[i, j]) for j in range(4)] for i in range(3)]
    np.testing.assert_allclose(metric(y, p), rows, rtol=1e-12)


@pytest.mark.parametrize("metric", METRICS)
def test_nan_in_nan_out(metric):
    predicted = PREDICTED.copy()
    predicted[1, 0] = np.nan
    assert np.isnan(metric(TRUTH, predicted))


@pytest.mark.parametrize("metric", METRICS)
def test_what_does_not_fit_is_refused(metric):
    for bad in (np.ones(4), np.ones((4, 3)), np.ones((0, 2))):
        with pytest.raises(CohortError):
            metric(bad, bad)
    with pytest.raises(CohortError):
        metric(TRUTH, PREDICTED[:3])


@pytest.mark.parametrize("margin", [-0.1, np.nan])
def test_impossible_margins_are_refused(margin):
    with pytest.raises(ConfigError):
        worse_side_agreement(TRUTH, PREDICTED, margin)
