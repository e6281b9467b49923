"""Weighted scores against the metrics on gathered arrays: two ways to the same number."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nigradat import metrics
from nigradat.evaluation import weighted

SEEDS = st.integers(0, 2**32 - 1)


def cases(seed: int, n: int, digits: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Truth, prediction and spread; few digits make ties."""
    rng = np.random.default_rng(seed)
    y = rng.uniform(0.4, 6.8, n)
    p = 0.6 * y + rng.normal(0.8, 0.7, n)
    return y.round(digits), p.round(digits), rng.uniform(0.1, 0.9, n)


@given(seed=SEEDS, n=st.integers(3, 40), digits=st.integers(0, 3))
@settings(max_examples=60)
def test_errors_of_resamples(seed: int, n: int, digits: int) -> None:
    y, p, _ = cases(seed, n, digits)
    index = np.random.default_rng(seed).integers(0, n, (7, n))
    found = weighted.errors(y, p)(weighted.patient_weights(index, np.arange(n)))
    assert tuple(found) == weighted.ERROR_SCORES
    # a resample of one repeated value has no correlation; rounding may or may not show that as exactly 0/0
    varied = (np.ptp(y[index], axis=1) > 0) & (np.ptp(p[index], axis=1) > 0)
    for name, values in found.items():
        expected = getattr(metrics, name)(y[index], p[index])
        np.testing.assert_allclose(values[varied], expected[varied], rtol=1e-9, atol=1e-9, err_msg=name)


@given(seed=SEEDS, n=st.integers(2, 40), cp=st.sampled_from([0.5, 0.8, 0.9, 0.95]), zeros=st.integers(0, 3))
@settings(max_examples=60)
def test_sharpness_of_resamples(seed: int, n: int, cp: float, zeros: int) -> None:
    y, p, spread = cases(seed, n, 2)
    spread[: min(zeros, n - 1)] = 0.0
    index = np.random.default_rng(seed).integers(0, n, (9, n))
    found = weighted.sharpness_at_cp(y, p, spread, 6.84, cp)(weighted.patient_weights(index, np.arange(n)))
    curve = metrics.sharpness_cp_curve(y[index], p[index], spread[index], 6.84)
    np.testing.assert_allclose(found["sharpness_at_cp"], metrics.sharpness_at_cp(curve, cp), rtol=1e-12)


def test_visits_come_and_go_with_their_patient() -> None:
    patient_of_visit = np.array([0, 1, 1, 2])
    weights = weighted.patient_weights(np.array([[0, 1, 1], [2, 2, 2]]), patient_of_visit)
    assert weights.T.tolist() == [[1, 2, 2, 0], [0, 0, 0, 3]]


def test_a_resample_of_visits_is_scored_as_if_written_out() -> None:
    y, p, _ = cases(5, 6, 2)
    visits_of = [[0], [1, 2], [3, 4, 5]]
    weights = weighted.patient_weights(np.array([[0, 1, 1], [1, 2, 2]]), np.array([0, 1, 1, 2, 2, 2]))
    found = weighted.errors(y, p)(weights)
    for i, drawn in enumerate(([0, 1, 1], [1, 2, 2])):
        rows = [row for patient in drawn for row in visits_of[patient]]
        for name, values in found.items():
            assert values[i] == pytest.approx(float(getattr(metrics, name)(y[rows], p[rows])), abs=1e-12), name


def test_a_constant_prediction_has_errors_and_no_correlation() -> None:
    y = np.array([1.0, 2.0, 4.0])
    found = weighted.errors(y, np.full(3, 2.1))(np.ones((3, 1)))
    assert found["rmse"][0] == pytest.approx(float(metrics.rmse(y, np.full(3, 2.1))))
    assert found["ccc"][0] == 0.0
    for name in ("pearson_r", "spearman", "calibration_slope"):
        assert np.isnan(found[name][0]), name


def test_means_by_hand() -> None:
    found = weighted.means(a=[1.0, 3.0], b=[0.0, 10.0])(np.array([[1.0, 3.0], [1.0, 1.0]]))
    assert {name: values.tolist() for name, values in found.items()} == {"a": [2.0, 1.5], "b": [5.0, 2.5]}
