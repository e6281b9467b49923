"""Scores of whole predictive distributions and of spreads: proper scores, calibration, and whether width knows error.

A proper score is smallest, on average, for the distribution that the truth really has (Gneiting and Raftery, J Am Stat
Assoc 2007, 102, 359); :mod:`nigradat.metrics.intervals` has the interval score and the CRPS of a Gaussian. Calibration
asks whether stated shares are the observed ones; the last section asks whether wide intervals stand where the large
errors are, which no multiplier changes.

Arrays are ``(..., n)``. Scores give one value a case, ``(..., n)``; everything else reduces the last axis. See
:mod:`nigradat.metrics.cases` for sides.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt
from scipy import special

from nigradat.errors import CalibrationError, CohortError, ConfigError
from nigradat.metrics.cases import Array, cases, reduced
from nigradat.metrics.error import spearman
from nigradat.metrics.intervals import interval_score

LEVELS: Final[Array] = np.linspace(0, 1, 100)  # of central intervals, where calibration is looked at
WIS_LEVELS: Final = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
BINS: Final = 10
_LOG_TWO_PI: Final = float(np.log(2 * np.pi))


# -- Proper scores: one value a case, smaller is better -----------------------------------------------------------


def weighted_interval_score(
    lower: npt.ArrayLike, upper: npt.ArrayLike, median: npt.ArrayLike, truth: npt.ArrayLike, levels: npt.ArrayLike
) -> Array:
    """Weighted interval score (WIS) of K central intervals and a median, SBR: a CRPS that needs no density.

    ``(|y - m| / 2 + sum_k alpha_k / 2 IS_k) / (K + 1/2)`` with ``alpha_k = 1 - level_k``.

    Source: Bracher, Ray, Gneiting, Reich, PLoS Comput Biol 2021, 17, e1008618.

    Args:
        lower, upper: shape ``(K, ..., n)``, SBR, one interval for each level.
        median, truth: shape ``(..., n)``, SBR.
        levels: shape ``(K,)``, nominal coverages.

    Returns:
        Shape ``(..., n)``.

    Raises:
        CohortError: shapes that differ.
        CalibrationError: an interval whose ends are exchanged.
        ConfigError: no levels, or one outside 0..1.
    """
    m, y = cases(median, truth)
    nominal = np.asarray(levels, dtype=np.float64)
    low, high = np.asarray(lower, dtype=np.float64), np.asarray(upper, dtype=np.float64)
    if nominal.ndim != 1 or nominal.size == 0:
        raise ConfigError(f"levels of shape {nominal.shape}", "at least one, shape (K,)")
    if low.shape != (nominal.size, *y.shape) or high.shape != low.shape:
        raise CohortError(
            f"ends of shapes {low.shape} and {high.shape} for {nominal.size} levels and a truth of shape {y.shape}",
            "shape (K, ..., n)",
        )
    total = np.abs(y - m) / 2
    for k, level in enumerate(nominal):
        total = total + (1 - level) / 2 * interval_score(low[k], high[k], y, float(level))
    return reduced(total / (nominal.size + 0.5))


def crps_log_normal(truth: npt.ArrayLike, log_mean: npt.ArrayLike, log_sd: npt.ArrayLike) -> Array:
    """Continuous ranked probability score of a log-normal prediction, SBR.

    ``y (2 F(y) - 1) - 2 exp(mu + sd^2 / 2) (Phi(z - sd) + Phi(sd / sqrt 2) - 1)`` with ``z = (log y - mu) / sd``.

    Source: Baran and Lerch, Q J R Meteorol Soc 2015, 141, 2289.

    Args:
        truth: shape ``(..., n)``, SBR above 0.
        log_mean, log_sd: of the natural logarithm of the SBR, same shape; ``log_sd`` above 0.

    Returns:
        Shape ``(..., n)``.

    Raises:
        CohortError: shapes that differ, or a truth of 0 or less.
        CalibrationError: an SD that is not positive.
    """
    y, mu, sd = _positive_truth(truth, log_mean, log_sd)
    z = (np.log(y) - mu) / sd
    tail = special.ndtr(z - sd) - special.ndtr(-sd / np.sqrt(2))
    return reduced(y * (2 * special.ndtr(z) - 1) - 2 * np.exp(mu + sd**2 / 2) * tail)


def nll_gaussian(truth: npt.ArrayLike, mean: npt.ArrayLike, sd: npt.ArrayLike) -> Array:
    """Negative log density of a Gaussian prediction, nats.

    Args:
        truth, mean, sd: shape ``(..., n)``, SBR.

    Returns:
        Shape ``(..., n)``; differences mean something, the value itself depends on the unit of the SBR.

    Raises:
        CohortError: shapes that differ.
        CalibrationError: an SD that is not positive.
    """
    y, m, s = _with_sd(truth, mean, sd)
    return reduced((_LOG_TWO_PI + ((y - m) / s) ** 2) / 2 + np.log(s))


def nll_log_normal(truth: npt.ArrayLike, log_mean: npt.ArrayLike, log_sd: npt.ArrayLike) -> Array:
    """Negative log density, in SBR, of a log-normal prediction, nats; shapes and errors as :func:`crps_log_normal`."""
    y, mu, sd = _positive_truth(truth, log_mean, log_sd)
    return reduced(nll_gaussian(np.log(y), mu, sd) + np.log(y))


# -- Calibration --------------------------------------------------------------------------------------------------


def pit_gaussian(truth: npt.ArrayLike, mean: npt.ArrayLike, sd: npt.ArrayLike) -> Array:
    """Probability integral transform of a Gaussian prediction: where in its distribution each truth fell, 0 to 1.

    Uniform over the cases where the predicted distributions are right (Dawid 1984). Shapes and errors as
    :func:`nll_gaussian`.
    """
    y, m, s = _with_sd(truth, mean, sd)
    return reduced(special.ndtr((y - m) / s))


def pit_log_normal(truth: npt.ArrayLike, log_mean: npt.ArrayLike, log_sd: npt.ArrayLike) -> Array:
    """Probability integral transform of a log-normal prediction; shapes and errors as :func:`crps_log_normal`."""
    y, mu, sd = _positive_truth(truth, log_mean, log_sd)
    return pit_gaussian(np.log(y), mu, sd)


def pit_sample(truth: npt.ArrayLike, samples: npt.ArrayLike) -> Array:
    """Probability integral transform from ``T`` samples: the middle of the truth's rank among them, over ``T + 1``.

    Never 0 or 1; for a truth drawn like the samples it takes ``T + 1`` values with equal probability.

    Args:
        truth: shape ``(..., n)``.
        samples: shape ``(..., n, T)``.

    Raises:
        CohortError: shapes that do not fit.
    """
    (y,), (x,) = cases(truth), cases(samples)
    if x.shape[:-1] != y.shape:
        raise CohortError(f"samples of shape {x.shape} for a truth of shape {y.shape}", "shape (..., n, T)")
    below, equal = (np.count_nonzero(is_so, axis=-1) for is_so in (x < y[..., None], x == y[..., None]))
    return reduced((below + equal / 2 + 0.5) / (x.shape[-1] + 1))


def pit_histogram(pit: npt.ArrayLike, bins: int = BINS) -> Array:
    """Share of cases in equal bins of the PIT, ``(..., bins)``; ``1 / bins`` each where the distributions are right.

    A hump means too wide, a bowl too narrow, a slope a bias.

    Args:
        pit: shape ``(..., n)``, 0 to 1.
        bins: how many.

    Raises:
        CalibrationError: a value outside 0..1.
        ConfigError: fewer than one bin.
    """
    if bins < 1:
        raise ConfigError(f"{bins} bins", "at least 1")
    p = _checked_pit(pit)
    which = np.minimum((p * bins).astype(int), bins - 1)
    return reduced((which[..., None] == np.arange(bins)).mean(axis=-2))


def observed_coverage(pit: npt.ArrayLike, levels: npt.ArrayLike = LEVELS) -> Array:
    """Share of cases inside the central interval of each level: the calibration curve, ``(..., L)``.

    Args:
        pit: shape ``(..., n)``: the central interval of a level covers where ``|2 PIT - 1|`` does not exceed it.
        levels: shape ``(L,)``, nominal.

    Raises:
        CalibrationError: a PIT outside 0..1.
    """
    reached = np.abs(2 * _checked_pit(pit) - 1)
    return reduced((reached[..., None, :] <= np.asarray(levels, dtype=np.float64)[:, None]).mean(axis=-1))


def rmsce(pit: npt.ArrayLike, levels: npt.ArrayLike = LEVELS) -> Array:
    """Root mean squared calibration error: of observed less nominal coverage over the levels. Shape ``(...)``.

    Source: Kuleshov, Fenner, Ermon, ICML 2018; as in uncertainty-toolbox (central intervals of 100 levels).

    Raises:
        CalibrationError: a PIT outside 0..1.
    """
    return calibration_error(observed_coverage(pit, levels), levels)


def calibration_error(observed: npt.ArrayLike, levels: npt.ArrayLike = LEVELS) -> Array:
    """:func:`rmsce` from a calibration curve ``(..., L)``."""
    gap = np.asarray(observed, dtype=np.float64) - np.asarray(levels, dtype=np.float64)
    return reduced(np.sqrt(np.mean(gap**2, axis=-1)))


def miscalibration_area(pit: npt.ArrayLike, levels: npt.ArrayLike = LEVELS) -> Array:
    """Area between the calibration curve and the diagonal, both drawn as straight lines between levels. ``(...)``.

    Source: Tran et al., Mach Learn Sci Technol 2020, 1, 025006; as in uncertainty-toolbox.

    Raises:
        CalibrationError: a PIT outside 0..1.
    """
    return curve_area(observed_coverage(pit, levels), levels)


def curve_area(observed: npt.ArrayLike, levels: npt.ArrayLike = LEVELS) -> Array:
    """:func:`miscalibration_area` from a calibration curve ``(..., L)``."""
    nominal = np.asarray(levels, dtype=np.float64)
    gap = np.asarray(observed, dtype=np.float64) - nominal
    left, right = gap[..., :-1], gap[..., 1:]
    size = np.abs(left) + np.abs(right)
    with np.errstate(divide="ignore", invalid="ignore"):
        # where the curve crosses the diagonal there are two triangles instead of a trapezium
        height = np.where(left * right < 0, (left**2 + right**2) / size, size) / 2
    return reduced(np.sum(height * np.diff(nominal), axis=-1))


def ence(error: npt.ArrayLike, sd: npt.ArrayLike, bins: int = BINS) -> Array:
    """Expected normalised calibration error: mean over bins of ``|RMV - RMSE| / RMV``, 0 where each SD is right.

    The cases are sorted by SD and cut into bins of equal size; RMV is a bin's root mean variance. A case on a cut
    counts in both bins by its share, so that the bins are equal whatever ``n`` is.

    Source: Levi, Gispan, Giladi, Fetaya, Sensors 2022, 22, 5540.

    Args:
        error: shape ``(..., n)``, truth less prediction, SBR.
        sd: shape ``(..., n)``, SBR, above 0.
        bins: at most ``n``.

    Returns:
        Shape ``(...)``.

    Raises:
        CohortError: shapes that differ.
        CalibrationError: an SD that is not positive.
        ConfigError: fewer than one bin, or more than cases.
    """
    e, s = cases(error, sd)
    _check_sd(s)
    if not 1 <= bins <= e.shape[-1]:
        raise ConfigError(f"{bins} bins for {e.shape[-1]} cases", "at least 1 and at most one for each case")
    order = np.argsort(s, axis=-1, kind="stable")
    squares = np.stack([np.take_along_axis(v**2, order, axis=-1) for v in (s, e)])
    running = np.cumsum(np.concatenate([np.zeros((*squares.shape[:-1], 1)), squares], axis=-1), axis=-1)
    cuts = np.linspace(0, e.shape[-1], bins + 1)
    below = np.minimum(cuts.astype(int), e.shape[-1] - 1)
    at_cuts = running[..., below] + (cuts - below) * squares[..., below]
    variance, mse = np.diff(at_cuts, axis=-1)
    return reduced(np.mean(np.abs(1 - np.sqrt(mse / variance)), axis=-1))


# -- Does the width know the error? -------------------------------------------------------------------------------


def width_error_correlation(width: npt.ArrayLike, error: npt.ArrayLike) -> Array:
    """Spearman correlation of the intervals' width with the absolute error. Shapes ``(..., n)`` in, ``(...)`` out.

    nan where all widths, or all errors, are equal. Even perfect widths do not reach 1: for Gaussian errors whose SD is
    known, an SD that varies by 30 % between the cases gives .30.

    Raises:
        CohortError: shapes that differ.
    """
    return spearman(width, np.abs(np.asarray(error, dtype=np.float64)))


def error_rejection_curve(loss: npt.ArrayLike, spread: npt.ArrayLike) -> Array:
    """Mean loss of the ``i`` cases of smallest spread, ``i = 1..n``: what is left when the others are not answered.

    Cases of equal spread count as if in the mean over every order among them.

    Args:
        loss: shape ``(..., n)``, for example absolute errors.
        spread: shape ``(..., n)``.

    Returns:
        Shape ``(..., n)``; the last one is the mean of all.

    Raises:
        CohortError: shapes that differ.
    """
    values, s = cases(loss, spread)
    order = np.argsort(s, axis=-1, kind="stable")
    ranked, by_spread = (np.take_along_axis(v, order, axis=-1) for v in (values, s))
    n = values.shape[-1]
    flat, keys = ranked.reshape(-1, n), by_spread.reshape(-1, n)
    for row in np.flatnonzero((np.diff(keys, axis=-1) == 0).any(axis=-1)):
        _, group, count = np.unique(keys[row], return_inverse=True, return_counts=True)
        flat[row] = (np.bincount(group, flat[row]) / count)[group]
    return reduced((np.cumsum(flat, axis=-1) / np.arange(1, n + 1)).reshape(values.shape))


def aurc(loss: npt.ArrayLike, spread: npt.ArrayLike) -> Array:
    """Area under :func:`error_rejection_curve`: its mean over all shares that are answered. Shape ``(...)``.

    A spread that knows nothing gives the mean loss; smaller is better.

    Source: Geifman and El-Yaniv, NeurIPS 2017 (selective prediction); Geifman, Uziel, El-Yaniv, ICLR 2019 (AURC).

    Raises:
        CohortError: shapes that differ.
    """
    return reduced(np.mean(error_rejection_curve(loss, spread), axis=-1))


# -- Checks -------------------------------------------------------------------------------------------------------


def _check_sd(sd: Array) -> None:
    if not (sd > 0).all():
        raise CalibrationError("standard deviations that are not positive, or no numbers", "values above 0")


def _with_sd(truth: npt.ArrayLike, mean: npt.ArrayLike, sd: npt.ArrayLike) -> tuple[Array, Array, Array]:
    y, m, s = cases(truth, mean, sd)
    _check_sd(s)
    return y, m, s


def _positive_truth(truth: npt.ArrayLike, mean: npt.ArrayLike, sd: npt.ArrayLike) -> tuple[Array, Array, Array]:
    y, m, s = _with_sd(truth, mean, sd)
    if not (y > 0).all():
        raise CohortError("a truth of 0 or less under a log-normal prediction", "SBR above 0")
    return y, m, s


def _checked_pit(pit: npt.ArrayLike) -> Array:
    (p,) = cases(pit)
    if not ((p >= 0) & (p <= 1)).all():
        raise CalibrationError("a PIT outside 0..1, or no number", "values from 0 to 1")
    return p
