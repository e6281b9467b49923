"""Point metrics against hand-solved triples, closed forms, scipy and scikit-learn."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats
from sklearn import metrics as sk

from nigradat.anatomy import Side
from nigradat.errors import CohortError
from nigradat.metrics import cases, error
from nigradat.metrics.error import ERROR_METRICS

# errors (predicted - truth) are +1, -1, +2
TRUTH, PREDICTED = [1.0, 3.0, 2.0], [2.0, 2.0, 4.0]

sbr = st.floats(0.25, 7.0, width=32)
samples = hnp.arrays(np.float64, st.tuples(st.integers(3, 30), st.just(2)), elements=sbr)


@pytest.mark.parametrize(
    ("name", "by_hand"),
    [
        ("mse", 2.0),
        ("rmse", np.sqrt(2.0)),
        ("mae", 4 / 3),
        ("median_ae", 1.0),
        ("relative_error", 7 / 9),  # 1 of 1, 1 of 3, 2 of 2
        ("bias", 2 / 3),
        ("pearson_r", 0.0),  # centred: (-1, 1, 0) . (-2/3, -2/3, 4/3) = 0
        ("spearman", 0.0),  # ranks 1 3 2 against 1.5 1.5 3
        ("r2", -2.0),  # 1 - 6 / 2
        ("calibration_slope", 0.0),
        ("calibration_intercept", 2.0),
    ],
)
def test_three_cases_by_hand(name, by_hand):
    assert float(ERROR_METRICS[name](TRUTH, PREDICTED)) == pytest.approx(by_hand, abs=1e-15)


@given(samples)
@settings(max_examples=60)
def test_against_sklearn_and_scipy(both):
    y, p = both.T
    assert error.rmse(y, p) == pytest.approx(sk.root_mean_squared_error(y, p), abs=1e-12)
    assert error.mae(y, p) == pytest.approx(sk.mean_absolute_error(y, p), abs=1e-12)
    assert error.median_ae(y, p) == pytest.approx(sk.median_absolute_error(y, p), abs=1e-12)
    assert error.relative_error(y, p) == pytest.approx(sk.mean_absolute_percentage_error(y, p), rel=1e-12)
    if np.ptp(y) > 1e-3:
        assert error.r2(y, p) == pytest.approx(sk.r2_score(y, p), rel=1e-9, abs=1e-9)
    if np.ptp(y) > 1e-3 and np.ptp(p) > 1e-3:
        line = stats.linregress(p, y)
        assert error.pearson_r(y, p) == pytest.approx(line.rvalue, abs=1e-9)
        assert error.spearman(y, p) == pytest.approx(stats.spearmanr(y, p).statistic, abs=1e-9)
        assert error.calibration_slope(y, p) == pytest.approx(line.slope, rel=1e-6, abs=1e-9)
        assert error.calibration_intercept(y, p) == pytest.approx(line.intercept, rel=1e-6, abs=1e-6)


@pytest.mark.parametrize("name", ["pearson_r", "spearman", "calibration_slope", "calibration_intercept"])
def test_a_constant_prediction_is_undefined_not_noise(name):
    y = np.array([0.7, 1.9, 3.3, 2.2])
    # .1 is one of the numbers whose mean over many is not itself
    assert np.isnan(ERROR_METRICS[name](np.resize(y, 1000), np.full(1000, 0.1)))


def test_rmse_is_the_root_over_all_cases_not_a_mean_over_batches():
    # squared errors 0, 0, 0, 16 in batches of two: the mean of the batches' roots would be sqrt(8) / 2
    y, p = np.array([1.0, 2.0, 3.0, 4.0]), np.array([1.0, 2.0, 3.0, 8.0])
    assert error.rmse(y, p) == pytest.approx(2.0)
    batches = error.rmse(y.reshape(2, 2), p.reshape(2, 2))
    assert batches.mean() == pytest.approx(np.sqrt(8) / 2)
    assert error.rmse(y, p) == pytest.approx(np.sqrt(np.mean(batches**2)))


@pytest.mark.parametrize("without_uptake", [0.0, -0.5])
def test_no_error_is_relative_to_no_uptake(without_uptake):
    assert np.isnan(error.relative_error([1.0, without_uptake], [1.0, 1.0]))


def test_a_constant_truth_has_no_r2():
    assert np.isnan(error.r2(np.full(10, 0.1), np.linspace(0, 1, 10)))


@pytest.mark.parametrize("name", list(ERROR_METRICS))
def test_a_block_of_samples_equals_its_rows(name):
    rng = np.random.default_rng(3)
    y, p = rng.uniform(0.5, 6, (2, 4, 5, 17))
    block = ERROR_METRICS[name](y, p)
    rows = [[ERROR_METRICS[name](y[i, j], p[i, j]) for j in range(5)] for i in range(4)]
    np.testing.assert_allclose(block, rows, rtol=1e-12)


@pytest.mark.parametrize("name", list(ERROR_METRICS))
def test_nan_in_nan_out_and_inputs_unchanged(name):
    y, p = np.array([1.0, np.nan, 2.0, 3.0]), np.array([1.0, 2.0, 2.5, 4.0])
    kept = y.copy(), p.copy()
    assert np.isnan(ERROR_METRICS[name](y, p))
    np.testing.assert_array_equal((y, p), kept)


def test_sides_average_and_pool_are_three_things():
    # RMSE right 3, left 1: average 2, pooled sqrt(5)
    truth = np.zeros((4, 2))
    predicted = np.tile([3.0, 1.0], (4, 1))
    sides = cases.per_side(error.rmse, truth, predicted)
    assert (float(sides[Side.RIGHT]), float(sides[Side.LEFT]), float(sides.average)) == (3.0, 1.0, 2.0)
    assert float(cases.pooled(error.rmse, truth, predicted)) == pytest.approx(np.sqrt(5))
    assert float(cases.patient_mean(error.rmse, truth, predicted)) == pytest.approx(2.0)


def test_sides_of_a_block():
    rng = np.random.default_rng(0)
    y, p = rng.uniform(1, 4, (2, 6, 9, 2))
    block = cases.per_side(error.pearson_r, y, p)
    assert block.right.shape == (6,)
    assert block.left[4] == pytest.approx(np.corrcoef(y[4, :, 1], p[4, :, 1])[0, 1])
    assert cases.pooled(error.mae, y, p)[2] == pytest.approx(np.abs(y[2] - p[2]).mean())


@pytest.mark.parametrize(
    ("truth", "predicted"), [([1.0, 2.0], [1.0]), ([], []), (1.0, 2.0)], ids=["lengths", "empty", "scalar"]
)
def test_shapes_that_do_not_fit_are_refused(truth, predicted):
    with pytest.raises(CohortError):
        error.rmse(truth, predicted)


def test_one_sided_arrays_have_no_sides():
    with pytest.raises(CohortError, match=r"\(\.\.\., n, 2\)"):
        cases.per_side(error.rmse, [1.0, 2.0, 3.0], [1.0, 2.0, 3.0])


def test_correlation_of_tiny_and_huge_numbers():
    x = np.array([1.0, 2.0, 4.0])
    assert error.pearson_r(x * 1e-120, x * 1e-120) == pytest.approx(1.0)
    assert error.pearson_r(x * 1e120, -x * 1e-120) == pytest.approx(-1.0)
