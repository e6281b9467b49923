"""Scores of distributions and spreads: by hand, closed forms, numerical integrals, and what must not matter."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, stats

from nigradat.errors import CalibrationError, CohortError, ConfigError
from nigradat.metrics import scores as sc
from nigradat.metrics.intervals import crps_gaussian


@st.composite
def tied_cases(draw):
    """Losses and spreads on a coarse grid, so that ties are common."""
    n = draw(st.integers(1, 12))
    grid = st.integers(1, 5)
    return (
        np.array(draw(st.lists(grid, min_size=n, max_size=n)), dtype=float),
        np.array(draw(st.lists(grid, min_size=n, max_size=n)), dtype=float),
    )


# -- proper scores


def test_weighted_interval_score_by_hand():
    # one case, median 2, truth 3; 50 %: (1.5, 2.5) missed by .5 -> IS = 1 + 4 * .5 = 3; 90 %: (0, 4) -> IS = 4
    score = sc.weighted_interval_score([[1.5], [0.0]], [[2.5], [4.0]], [2.0], [3.0], [0.5, 0.9])
    assert score == pytest.approx((0.5 * 1 + 0.25 * 3 + 0.05 * 4) / 2.5)


def test_weighted_interval_score_tends_to_the_crps():
    """With ever more levels it becomes the CRPS (Bracher 2021)."""
    rng = np.random.default_rng(0)
    truth = rng.normal(2, 0.7, 50)
    levels = (np.arange(400) + 0.5) / 400
    half = stats.norm.ppf((1 + levels) / 2)[:, None] * 0.5
    ends = np.broadcast_to(half, (400, 50))
    score = sc.weighted_interval_score(2 - ends, 2 + ends, np.full(50, 2.0), truth, levels)
    assert score == pytest.approx(crps_gaussian(truth, np.full(50, 2.0), np.full(50, 0.5)), rel=0.01)


@pytest.mark.parametrize("truth", [0.3, 1.7, 6.0])
def test_log_normal_crps_is_the_integral_of_squared_distances(truth):
    law = stats.lognorm(s=0.4, scale=np.exp(0.6))
    below = integrate.quad(lambda x: law.cdf(x) ** 2, 0, truth)[0]
    above = integrate.quad(lambda x: law.sf(x) ** 2, truth, 60, limit=200)[0]
    assert sc.crps_log_normal([truth], [0.6], [0.4])[0] == pytest.approx(below + above, rel=1e-6)


def test_densities_and_integral_transforms_are_those_of_scipy():
    rng = np.random.default_rng(1)
    y, mean, sd = rng.uniform(0.5, 5, 20), rng.uniform(1, 2, 20), rng.uniform(0.2, 1, 20)
    assert sc.nll_gaussian(y, mean, sd) == pytest.approx(-stats.norm.logpdf(y, mean, sd))
    assert sc.nll_log_normal(y, mean, sd) == pytest.approx(-stats.lognorm.logpdf(y, sd, scale=np.exp(mean)))
    assert sc.pit_gaussian(y, mean, sd) == pytest.approx(stats.norm.cdf(y, mean, sd))
    assert sc.pit_log_normal(y, mean, sd) == pytest.approx(stats.lognorm.cdf(y, sd, scale=np.exp(mean)))


@pytest.mark.parametrize(
    ("score", "draw"),
    [(sc.nll_gaussian, stats.norm), (crps_gaussian, stats.norm), (sc.nll_log_normal, None), (sc.crps_log_normal, None)],
)
def test_the_true_distribution_scores_best(score, draw):
    rng = np.random.default_rng(2)
    y = rng.normal(2, 0.5, 20_000) if draw is stats.norm else np.exp(rng.normal(0.7, 0.4, 20_000))
    mu, sd = (2, 0.5) if draw is stats.norm else (0.7, 0.4)

    def mean(m, s):
        return float(score(y, np.full(y.size, m), np.full(y.size, s)).mean())

    assert mean(mu, sd) < min(mean(mu + 0.1, sd), mean(mu, sd * 1.3), mean(mu, sd / 1.3))


# -- calibration


def test_pit_of_samples_by_hand():
    samples = [[1.0, 2.0, 3.0], [2.0, 2.0, 5.0]]
    assert sc.pit_sample([0.0, 2.0], samples).tolist() == [0.5 / 4, (0 + 1 + 0.5) / 4]


def test_pit_of_samples_is_level_for_a_truth_like_them():
    rng = np.random.default_rng(3)
    draws = rng.normal(size=(20_000, 10))
    shares = sc.pit_histogram(sc.pit_sample(draws[:, 0], draws[:, 1:]), bins=10)
    assert shares == pytest.approx(np.full(10, 0.1), abs=0.01)


def test_histogram_by_hand():
    assert sc.pit_histogram([0.0, 0.24, 0.25, 0.99, 1.0], bins=4).tolist() == [0.4, 0.2, 0.0, 0.4]
    assert sc.pit_histogram(np.full((3, 7), 0.5)).shape == (3, 10)


def test_observed_coverage_by_hand():
    # |2 PIT - 1| = 0, .5, .8, 1
    assert sc.observed_coverage([0.5, 0.25, 0.9, 1.0], [0.1, 0.5, 0.79, 1.0]).tolist() == [0.25, 0.5, 0.5, 1.0]


@pytest.mark.parametrize("factor", [0.5, 1.0, 1.7])
def test_calibration_errors_of_a_wrong_sd_have_a_closed_form(factor):
    """Gaussian truth, SD stated ``factor`` times too large: coverage of level p is 2 Phi(factor z_p) - 1."""
    n = 20_000
    truth = stats.norm.ppf((np.arange(n) + 0.5) / n)
    pit = sc.pit_gaussian(truth, np.zeros(n), np.full(n, factor))

    def gap(p):
        return 2 * stats.norm.cdf(factor * stats.norm.ppf((1 + p) / 2)) - 1 - p

    levels = np.linspace(0, 1, 1001)
    squared = integrate.quad(lambda p: gap(p) ** 2, 0, 1)[0]
    area = integrate.quad(lambda p: abs(gap(p)), 0, 1)[0]
    assert sc.rmsce(pit, levels) == pytest.approx(np.sqrt(squared), abs=2e-3)
    assert sc.miscalibration_area(pit, levels) == pytest.approx(area, abs=2e-3)


def test_area_counts_both_sides_of_a_crossing():
    # gaps .1 and -.3 over a step of .5: triangles of .125 * .1 / 2 and .375 * .3 / 2
    assert sc.curve_area([0.1, 0.2], [0.0, 0.5]) == pytest.approx(0.125 * 0.1 / 2 + 0.375 * 0.3 / 2)
    assert sc.curve_area([0.1, 0.8], [0.0, 0.5]) == pytest.approx(0.5 * 0.2)


@pytest.mark.parametrize("factor", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("n", [10, 37])
def test_ence_of_sds_that_are_all_off_by_a_factor(factor, n):
    sd = np.random.default_rng(4).uniform(0.2, 2, n)
    assert sc.ence(sd / factor, sd, bins=5) == pytest.approx(abs(1 - 1 / factor), abs=1e-12)


def test_ence_by_hand():
    # bins of 1.5 cases: variances 1, 4, 9 and squared errors 1, 16, 0
    bins = [(1 + 2, 1 + 8), (2 + 9, 8 + 0)]
    expected = np.mean([abs(1 - np.sqrt(mse / variance)) for variance, mse in bins])
    assert sc.ence([4.0, 0.0, 1.0], [2.0, 3.0, 1.0], bins=2) == pytest.approx(expected)


@given(tied_cases(), st.integers(1, 4))
@settings(max_examples=60)
def test_copies_of_every_case_change_neither_ence_nor_calibration(arrays, copies):
    error, sd = arrays
    sd = sd + np.arange(sd.size) / 100  # no ties: their order would decide who is in which bin
    assert sc.ence(np.repeat(error, copies), np.repeat(sd, copies), bins=1) == pytest.approx(sc.ence(error, sd, bins=1))
    half = max(1, error.size // 2)
    assert sc.ence(np.repeat(error, copies), np.repeat(sd, copies), bins=half) == pytest.approx(
        sc.ence(error, sd, bins=half)
    )
    pit = sc.pit_gaussian(error, np.full(error.size, 3.0), sd)
    assert sc.rmsce(np.tile(pit, copies)) == pytest.approx(sc.rmsce(pit))


# -- does the width know the error?


def test_width_and_error_by_hand():
    assert sc.width_error_correlation([1.0, 2.0, 3.0], [-0.1, 0.2, -0.3]) == pytest.approx(1)
    assert sc.width_error_correlation([3.0, 2.0, 1.0], [-0.1, 0.2, -0.3]) == pytest.approx(-1)
    assert np.isnan(sc.width_error_correlation([1.0, 1.0, 1.0], [-0.1, 0.2, -0.3]))


def test_rejection_by_hand():
    loss, spread = [4.0, 1.0, 3.0], [0.3, 0.1, 0.2]
    assert sc.error_rejection_curve(loss, spread).tolist() == [1.0, 2.0, pytest.approx(8 / 3)]
    assert sc.aurc(loss, spread) == pytest.approx((1 + 2 + 8 / 3) / 3)
    # the two wide ones are tied: each counts as their mean
    assert sc.error_rejection_curve(loss, [0.3, 0.1, 0.3]).tolist() == [1.0, 2.25, pytest.approx(8 / 3)]
    assert sc.aurc(loss, [1.0, 1.0, 1.0]) == pytest.approx(8 / 3)


@given(tied_cases())
@settings(max_examples=60)
def test_aurc_is_a_mean_over_the_orders_of_ties_and_lies_between_best_and_worst(arrays):
    loss, spread = arrays
    found = float(sc.aurc(loss, spread))
    assert float(sc.aurc(loss, loss)) - 1e-9 <= found <= float(sc.aurc(loss, -loss)) + 1e-9
    rng = np.random.default_rng(0)
    broken = [float(sc.aurc(loss, spread + 1e-6 * rng.uniform(size=spread.size))) for _ in range(300)]
    # six standard errors of the mean of the random orders themselves
    assert np.mean(broken) == pytest.approx(found, abs=6 * np.std(broken, ddof=1) / np.sqrt(300) + 1e-9)
    order = rng.permutation(loss.size)
    assert float(sc.aurc(loss[order], spread[order])) == pytest.approx(found)


def test_a_block_of_samples_gives_one_value_each():
    rng = np.random.default_rng(5)
    error, sd = rng.normal(size=(3, 40)), rng.uniform(0.5, 2, (3, 40)).round(1)
    for function in (sc.ence, sc.aurc, sc.width_error_correlation):
        assert function(error, sd) == pytest.approx([float(function(e, s)) for e, s in zip(error, sd, strict=True)])
    pit = sc.pit_gaussian(error, 0 * error, sd)
    for function in (sc.rmsce, sc.miscalibration_area):
        assert function(pit) == pytest.approx([float(function(p)) for p in pit])


# -- refusals


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: sc.nll_gaussian([1.0], [1.0], [0.0]), CalibrationError, "above 0"),
        (lambda: sc.crps_log_normal([0.0], [1.0], [1.0]), CohortError, "0 or less"),
        (lambda: sc.rmsce([1.2]), CalibrationError, "PIT outside"),
        (lambda: sc.pit_histogram([0.5], bins=0), ConfigError, "at least 1"),
        (lambda: sc.ence([1.0], [1.0], bins=2), ConfigError, "2 bins for 1 cases"),
        (lambda: sc.ence([1.0], [-1.0], bins=1), CalibrationError, "above 0"),
        (lambda: sc.pit_sample([1.0], [1.0]), CohortError, "shape"),
        (lambda: sc.aurc([1.0], [1.0, 2.0]), CohortError, "one shape"),
        (lambda: sc.weighted_interval_score([[1.0]], [[2.0]], [1.5], [1.5], [0.5, 0.9]), CohortError, "2 levels"),
        (lambda: sc.weighted_interval_score([[2.0]], [[1.0]], [1.5], [1.5], [0.5]), CalibrationError, "lower end"),
        (lambda: sc.weighted_interval_score([], [], [1.5], [1.5], []), ConfigError, "at least one"),
    ],
)
def test_what_has_no_score_is_refused(call, error, words):
    with pytest.raises(error, match=words):
        call()
