"""Scores of distributions and spreads against the packages that others use."""

from importlib import import_module

import numpy as np
import pytest
from scipy import stats

from nigradat.metrics import scores as sc

pytestmark = pytest.mark.oracle


def test_likelihood_and_calibration_equal_uncertainty_toolbox(predictions):
    rules = import_module("uncertainty_toolbox.metrics_scoring_rule")
    calibration = import_module("uncertainty_toolbox.metrics_calibration")
    y, mean, sd = predictions
    assert sc.nll_gaussian(y, mean, sd).mean() == pytest.approx(rules.nll_gaussian(mean, sd, y))
    pit = sc.pit_gaussian(y, mean, sd)
    nominal, observed = calibration.get_proportion_lists(mean, sd, y, 100, None, "interval")
    np.testing.assert_allclose(sc.observed_coverage(pit, nominal), observed)
    theirs = calibration.root_mean_squared_calibration_error(mean, sd, y)
    assert sc.rmsce(pit) == pytest.approx(theirs)
    assert sc.miscalibration_area(pit) == pytest.approx(calibration.miscalibration_area(mean, sd, y))


def test_crps_of_a_log_normal_equals_properscoring_by_quadrature():
    properscoring = import_module("properscoring")
    law = stats.lognorm(s=0.35, scale=np.exp(0.8))
    for truth in (0.5, 2.0, 5.0):
        theirs = properscoring.crps_quadrature(truth, law, xmin=0, xmax=60, tol=1e-5)
        assert sc.crps_log_normal([truth], [0.8], [0.35])[0] == pytest.approx(float(theirs), rel=1e-3)


def test_weighted_interval_score_is_a_mean_of_mapies_winkler_scores(predictions):
    mapie = import_module("mapie.metrics.regression")
    y, mean, sd = predictions
    levels = np.array([0.5, 0.8, 0.95])
    half = stats.norm.ppf((1 + levels) / 2)[:, None] * sd
    winkler = [
        mapie.regression_mwi_score(y, np.stack([mean - h, mean + h], axis=1)[:, :, None], level)
        for h, level in zip(half, levels, strict=True)
    ]
    expected = (np.abs(y - mean).mean() / 2 + np.sum((1 - levels) / 2 * winkler)) / 3.5
    found = sc.weighted_interval_score(mean - half, mean + half, mean, y, levels)
    assert found.mean() == pytest.approx(expected)


def test_coverage_by_group_equals_mapies_size_stratified_coverage(predictions):
    """Their strata are bins of the width; ours are given. Same cases, same shares."""
    mapie = import_module("mapie.metrics.regression")
    y, mean, sd = predictions
    lower, upper = mean - 1.5 * sd, mean + 1.5 * sd
    strata = mapie.regression_ssc(y, np.stack([lower, upper], axis=1)[:, :, None], num_bins=3)[0]
    order = np.argsort(upper - lower, kind="stable")
    inside = ((lower <= y) & (y <= upper))[order]
    np.testing.assert_allclose(strata, [part.mean() for part in np.array_split(inside, 3)])
