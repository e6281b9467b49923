"""What a split-conformal interval may promise, and how far the realised coverage may stray.

With scores of ``n`` calibration patients that served for nothing else, the interval up to their
``ceil((n + 1) level)``-th smallest score covers a new patient with a probability of at least ``level``, whatever the
model (Vovk 2005; Lei 2018). Patients are the unit: one side each, or one score for both, never ``2 n`` scores.
"""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import numpy.typing as npt
from scipy import stats

from nigradat.errors import CalibrationError, ConfigError
from nigradat.metrics.cases import cases, check_level


def conformal_rank(n: int, level: float) -> int:
    """The rank ``ceil((n + 1) level)`` of the score that bounds the interval; above ``n`` there is no finite one.

    The level counts as the decimal that it prints as, so that .55 of 20 is 11, not 11 and a rounding error.

    Raises:
        ConfigError: a level outside 0..1, or no patients.

    Example:
        >>> conformal_rank(19, 0.95), conformal_rank(18, 0.95)
        (19, 19)
    """
    check_level(level)
    if n < 1:
        raise ConfigError(f"{n} calibration patients", "at least 1")
    return math.ceil((n + 1) * _exact(level))


def patients_needed(level: float) -> int:
    """The smallest number of calibration patients for a finite interval: 19 for 95 %, 9 for 90 %.

    Raises:
        ConfigError: a level outside 0..1.
    """
    check_level(level)
    return math.ceil(_exact(level) / (1 - _exact(level)))


def conformal_quantile(scores: npt.ArrayLike, level: float) -> float:
    """The ``ceil((n + 1) level)``-th smallest score; inf where that score is (a spread of 0, say).

    Args:
        scores: shape ``(n,)``, one a calibration patient; larger means a worse fit.
        level: coverage to promise.

    Raises:
        CalibrationError: too few patients (the number needed is named), or a score that is nan.
        ConfigError: a level outside 0..1.
        CohortError: no scores.
    """
    (s,) = cases(scores)
    if s.ndim != 1 or np.isnan(s).any():
        raise CalibrationError(f"scores of shape {s.shape}, or with nan", "one number for each patient, shape (n,)")
    rank = conformal_rank(s.size, level)
    if rank > s.size:
        raise CalibrationError(
            f"{s.size} calibration patients for an interval at level {level:g}",
            f"at least {patients_needed(level)} patients",
            "Calibrate on more patients or ask for a lower level",
        )
    return float(np.partition(s, rank - 1)[rank - 1])


def beta_binomial_range(n_calibration: int, n_test: int, level: float, central: float = 0.999) -> tuple[float, float]:
    """The range in which the coverage of a valid split-conformal interval lies among ``n_test`` test patients.

    Given continuous scores, the covered count is beta-binomial ``(n_test, k, n_calibration + 1 - k)`` with
    ``k = ceil((n_calibration + 1) level)``. Each tail outside the range has at most ``(1 - central) / 2``.

    Source: Vovk, ACML 2012; Angelopoulos and Bates 2021, section 3.2.

    Returns:
        Lowest and highest coverage, multiples of ``1 / n_test``.

    Raises:
        CalibrationError: too few calibration patients for the level.
        ConfigError: a level or ``central`` outside 0..1, or no test patients.
    """
    check_level(central)
    if n_test < 1:
        raise ConfigError(f"{n_test} test patients", "at least 1")
    rank = conformal_rank(n_calibration, level)
    if rank > n_calibration:
        raise CalibrationError(
            f"{n_calibration} calibration patients for an interval at level {level:g}",
            f"at least {patients_needed(level)} patients",
        )
    mass = stats.betabinom.pmf(np.arange(n_test + 1), n_test, rank, n_calibration + 1 - rank)
    tail = (1 - central) / 2
    low = int(np.searchsorted(np.cumsum(mass), tail))  # P(count < low) <= tail
    # the upper tail summed from its own end: 1 - cumsum loses it to rounding
    high = n_test - int(np.searchsorted(np.cumsum(mass[::-1]), tail))
    return low / n_test, high / n_test


def clopper_pearson(covered: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Exact binomial interval of a coverage: 52 of 55 covered gives .85 to .99, which excludes neither 90 nor 98 %.

    Args:
        covered: how many of ``n`` patients the interval covered.
        n: patients.
        level: confidence level.

    Raises:
        ConfigError: a count outside ``0..n``, no patients, or a level outside 0..1.
    """
    check_level(level)
    if n < 1 or not 0 <= covered <= n:
        raise ConfigError(f"{covered} of {n} patients covered", "0 <= covered <= n and n >= 1")
    tail = (1 - level) / 2
    low = 0.0 if covered == 0 else float(stats.beta.ppf(tail, covered, n - covered + 1))
    high = 1.0 if covered == n else float(stats.beta.ppf(1 - tail, covered + 1, n - covered))
    return low, high


def _exact(level: float) -> Fraction:
    return Fraction(repr(float(level)))
