"""Our few lines of interval metrics and scores against the packages that others use."""

from importlib import import_module

import numpy as np
import pytest
from scipy import stats

from nigradat.metrics import intervals as iv
from nigradat.metrics.conformal import conformal_quantile

pytestmark = pytest.mark.oracle


def test_crps_equals_properscoring(predictions):
    properscoring = import_module("properscoring")
    y, mean, sd = predictions
    np.testing.assert_allclose(iv.crps_gaussian(y, mean, sd), properscoring.crps_gaussian(y, mean, sd), rtol=1e-12)
    samples = mean[:, None] + sd[:, None] * np.random.default_rng(1).normal(size=(80, 100))
    np.testing.assert_allclose(iv.crps_sample(y, samples), properscoring.crps_ensemble(y, samples), rtol=1e-10)


def test_scores_equal_uncertainty_toolbox(predictions):
    rules = import_module("uncertainty_toolbox.metrics_scoring_rule")
    y, mean, sd = predictions
    assert iv.crps_gaussian(y, mean, sd).mean() == pytest.approx(rules.crps_gaussian(mean, sd, y))
    # theirs is the mean over 99 central intervals of 1 to 99 %
    levels = np.linspace(0.01, 0.99, 99)
    half_widths = [stats.norm.ppf((1 + level) / 2) * sd for level in levels]
    ours = [
        iv.interval_score(mean - half, mean + half, y, level).mean()
        for level, half in zip(levels, half_widths, strict=True)
    ]
    assert np.mean(ours) == pytest.approx(rules.interval_score(mean, sd, y))


def test_coverage_width_and_winkler_score_equal_mapie(predictions):
    mapie = import_module("mapie.metrics.regression")
    y, mean, sd = predictions
    lower, upper = mean - 1.3 * sd, mean + 1.3 * sd
    intervals = np.stack([lower, upper], axis=1)[:, :, None]
    assert iv.coverage(lower, upper, y) == pytest.approx(mapie.regression_coverage_score(y, intervals)[0])
    assert iv.mpiw(lower, upper) == pytest.approx(mapie.regression_mean_width_score(intervals)[0])
    winkler = mapie.regression_mwi_score(y, intervals, 0.8)
    assert iv.interval_score(lower, upper, y, 0.8).mean() == pytest.approx(winkler)


@pytest.mark.parametrize(("n", "level"), [(39, 0.95), (56, 0.95), (112, 0.9), (47, 0.8)])
def test_split_conformal_half_width_equals_mapie(n, level):
    regression = import_module("mapie.regression")
    linear = import_module("sklearn.linear_model")
    rng = np.random.default_rng(n)
    x = rng.uniform(0, 1, (200 + n, 1))
    y = 1 + 2 * x[:, 0] + rng.normal(0, 0.4, 200 + n)
    model = linear.LinearRegression().fit(x[:200], y[:200])
    split = regression.SplitConformalRegressor(model, confidence_level=level, prefit=True)
    point, interval = split.conformalize(x[200:], y[200:]).predict_interval(x[:5])
    half_width = conformal_quantile(np.abs(y[200:] - model.predict(x[200:])), level)
    np.testing.assert_allclose(interval[:, 1, 0] - point, half_width, rtol=1e-9)
    np.testing.assert_allclose(point - interval[:, 0, 0], half_width, rtol=1e-9)
