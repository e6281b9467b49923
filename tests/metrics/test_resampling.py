"""The patient bootstrap against scipy's, with degenerate statistics, blocks and sides."""

import numpy as np
import pytest
from scipy import stats

from nigradat.errors import CohortError, ConfigError
from nigradat.metrics import resampling
from nigradat.metrics.agreement import ccc
from nigradat.metrics.error import bias, mae, pearson_r, rmse
from nigradat.metrics.intervals import sharpness_at_cp, sharpness_cp_curve
from nigradat.metrics.resampling import bca, bca_many, bca_per_side, one_at_a_time, paired_difference


@pytest.fixture
def patients():
    rng = np.random.default_rng(11)
    truth = np.exp(0.6 + 0.55 * rng.normal(size=(55, 2)))
    return truth, 0.6 * truth + 0.8 + rng.normal(0, 0.6, (55, 2))


@pytest.mark.parametrize("metric", [rmse, pearson_r, ccc], ids=lambda m: m.__name__)
@pytest.mark.parametrize("level", [0.95, 0.8])
def test_equals_scipy_resample_for_resample(patients, metric, level):
    y, p = (a[:, 0] for a in patients)
    ours = bca(lambda i: metric(y[i], p[i]), 55, seed=7, level=level, resamples=1000)
    theirs = stats.bootstrap(
        (np.arange(55),),
        lambda i, axis: metric(y[np.moveaxis(i, axis, -1)], p[np.moveaxis(i, axis, -1)]),
        n_resamples=1000,
        confidence_level=level,
        method="BCa",
        vectorized=True,
        rng=np.random.default_rng(7),
    ).confidence_interval
    assert ours.method == "bca"
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), rel=1e-9)


def test_block_size_does_not_matter(patients, monkeypatch):
    y, p = (a[:, 0] for a in patients)
    whole = bca(lambda i: rmse(y[i], p[i]), 55, seed=3)
    monkeypatch.setattr(resampling, "_BLOCK", 55 * 7)
    assert bca(lambda i: rmse(y[i], p[i]), 55, seed=3) == whole
    assert bca(lambda i: rmse(y[i], p[i]), 55, seed=4) != whole


def test_one_at_a_time_equals_the_block(patients):
    y, p = (a[:, 0] for a in patients)
    block = bca(lambda i: mae(y[i], p[i]), 55, seed=3, resamples=200)
    single = bca(one_at_a_time(lambda i: float(mae(y[i], p[i]))), 55, seed=3, resamples=200)
    assert single.value == block.value
    assert (single.low, single.high) == pytest.approx((block.low, block.high))


def test_mean_has_the_textbook_interval():
    x = np.random.default_rng(0).normal(2, 1, 400)
    found = bca(lambda i: x[i].mean(axis=-1), 400, seed=1, resamples=4000)
    half = 1.96 * x.std(ddof=1) / np.sqrt(400)
    assert (found.low, found.high) == pytest.approx((x.mean() - half, x.mean() + half), abs=0.1 * half)


def test_intervals_cover_a_skewed_mean():
    rng = np.random.default_rng(8)
    trials, held = 200, 0
    for trial in range(trials):
        x = rng.exponential(size=40)
        found = bca(lambda i, x=x: x[i].mean(axis=-1), 40, seed=trial, resamples=500)
        held += found.low <= 1 <= found.high
    assert stats.binom.cdf(held, trials, 0.92) > 1e-4  # BCa is a little short of 95 % at n = 40


def test_sharpness_at_95_can_be_resampled(patients):
    truth, predicted = patients
    spread = 0.2 + 0.2 * predicted

    def sharp(y, c, s):
        return sharpness_at_cp(sharpness_cp_curve(y, c, s, 6.84))

    found = bca_per_side({"sharp": sharp}, truth, predicted, spread, seed=2)["sharp"]
    assert found.right.value == pytest.approx(float(sharp(truth[:, 0], predicted[:, 0], spread[:, 0])))
    assert found.right.low < found.right.value < found.right.high < 1


def test_sides_go_together(patients):
    truth, predicted = patients
    table = bca_per_side({"rmse": rmse, "bias": bias}, truth, predicted, seed=5)
    alone = bca(lambda i: rmse(truth[i, 1], predicted[i, 1]), 55, seed=5)
    assert table["rmse"].left == alone
    assert table["bias"].average.value == pytest.approx((predicted - truth).mean())
    # a patient drawn twice brings both sides twice: the average of two equal sides is as uncertain as one
    twice = [np.repeat(a[:, :1], 2, axis=1) for a in patients]
    same = bca_per_side({"rmse": rmse}, *twice, seed=5)["rmse"]
    assert (same.average.low, same.average.high) == (same.right.low, same.right.high)


def test_paired_difference_is_narrower_than_two_of_its_own(patients):
    truth, predicted = (a[:, 0] for a in patients)
    better = truth + 0.9 * (predicted - truth)
    gain = paired_difference(lambda i: rmse(truth[i], better[i]), lambda i: rmse(truth[i], predicted[i]), 55, seed=1)
    value = float(rmse(truth, predicted))
    assert gain.value == pytest.approx(-0.1 * value)
    assert gain.high < 0  # every resample shows it, although the two intervals overlap widely
    one = bca(lambda i: rmse(truth[i], predicted[i]), 55, seed=1)
    assert (gain.low, gain.high) == pytest.approx((-0.1 * one.high, -0.1 * one.low), rel=0.02)


def test_identical_predictors_differ_by_nothing(patients):
    truth, predicted = (a[:, 0] for a in patients)
    found = paired_difference(*[lambda i: rmse(truth[i], predicted[i])] * 2, 55, seed=1)
    assert (found.value, found.low, found.high, found.method) == (0.0, 0.0, 0.0, "percentile")


def test_a_jackknife_that_is_only_rounding_is_degenerate():
    x = np.full(50, 0.1)
    found = bca(lambda i: x[i].mean(axis=-1), 50, seed=0)
    assert found.method == "percentile"
    assert found.low == pytest.approx(0.1)


def test_a_value_outside_its_resamples_falls_back():
    x = np.arange(30.0)

    def statistic(i):  # 100 more where nobody is drawn twice: the value and the jackknife only
        return x[i].max(axis=-1) + 100 * (np.diff(np.sort(i, axis=-1)) > 0).all(axis=-1)

    found = bca(statistic, 30, seed=0)
    assert found.method == "percentile"
    assert found.low <= found.high < found.value


def test_undefined_values_are_said_and_counted():
    y, p = np.array([1.0, 2.0, 3.0, 4.0]), np.array([1.0, 1.0, 1.0, 2.0])
    found = bca(lambda i: pearson_r(y[i], p[i]), 4, seed=0)
    # every resample without the last patient, or with nothing else, has a constant prediction
    expected = (3 / 4) ** 4 + (1 / 4) ** 4
    assert found.undefined / found.resamples == pytest.approx(expected, abs=0.05)
    constant = bca(lambda i: pearson_r(y[i], np.ones_like(y)[i]), 4, seed=0)
    assert constant.method == "undefined"
    assert np.isnan([constant.value, constant.low, constant.high]).all()


def test_many_statistics_share_their_resamples(patients):
    y, p = (a[:, 0] for a in patients)
    both = bca_many(lambda i: {"a": rmse(y[i], p[i]), "b": mae(y[i], p[i])}, 55, seed=9)
    assert both["b"] == bca(lambda i: mae(y[i], p[i]), 55, seed=9)


def test_misuse_is_refused():
    x = np.arange(10.0)
    with pytest.raises(CohortError, match="one_at_a_time"):
        bca(lambda i: x[i].mean(), 10, seed=0)
    with pytest.raises(CohortError):
        bca(lambda i: x[i].mean(axis=-1), 1, seed=0)
    with pytest.raises(ConfigError):
        bca(lambda i: x[i].mean(axis=-1), 10, seed=0, resamples=10)
    with pytest.raises(ConfigError):
        bca(lambda i: x[i].mean(axis=-1), 10, seed=0, level=95)
    with pytest.raises(CohortError):
        bca_per_side({"rmse": rmse}, x, x, seed=0)
