"""Agreement of predicted with measured SBR: Lin's concordance and Bland-Altman limits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy import stats

from nigradat.errors import CohortError
from nigradat.metrics.cases import Array, cases, centred, check_level, reduced

LIMIT: Final = 1.96  # limits of agreement are bias +- 1.96 SD by convention, whatever the level of their intervals


def ccc(truth: npt.ArrayLike, predicted: npt.ArrayLike) -> Array:
    """Lin's concordance correlation ``2 s_yp / (s_y^2 + s_p^2 + (mean_y - mean_p)^2)``, moments over ``n``.

    Shape ``(..., n)`` in, ``(...)`` out; nan where both are the same constant.

    Source: Lin, Biometrics 1989, 45, 255.

    Raises:
        CohortError: shapes that differ.
    """
    y, p = cases(truth, predicted)
    yc, pc = centred(y), centred(p)
    shift = np.mean(y, axis=-1) - np.mean(p, axis=-1)
    with np.errstate(invalid="ignore"):
        return reduced(2.0 * np.mean(yc * pc, axis=-1) / (np.mean(yc**2 + pc**2, axis=-1) + shift**2))


@dataclass(frozen=True)
class BlandAltman:
    """Differences ``predicted - truth`` against the means of the two, all in SBR.

    Attributes:
        bias: mean difference; ``bias_ci`` its interval.
        sd: standard deviation of one difference.
        lower, upper: 95 % limits of agreement, ``bias -+ 1.96 sd``; ``lower_ci``, ``upper_ci`` their intervals.
        slope: proportional bias, the slope of difference on mean (SBR per SBR); ``slope_ci`` its interval.
            Regression to the mean alone makes it negative for any imperfect predictor.
        level: confidence level of the intervals.
        n_patients, n_values: the intervals rest on the former.
        sd_between, sd_within: variance components of a clustered analysis, else None.
    """

    bias: float
    bias_ci: tuple[float, float]
    sd: float
    lower: float
    lower_ci: tuple[float, float]
    upper: float
    upper_ci: tuple[float, float]
    slope: float
    slope_ci: tuple[float, float]
    level: float
    n_patients: int
    n_values: int
    sd_between: float | None = None
    sd_within: float | None = None


def bland_altman(truth: npt.ArrayLike, predicted: npt.ArrayLike, level: float = 0.95) -> BlandAltman:
    """Bland-Altman analysis of one value a patient.

    Intervals are of Student's t with ``n - 1`` degrees of freedom (slope: ``n - 2``), with
    ``SE(limit) = sd sqrt(1/n + 1.96^2 / (2 (n - 1)))``.

    Source: Bland and Altman, Lancet 1986, 327, 307 and Stat Methods Med Res 1999, 8, 135.

    Args:
        truth, predicted: shape ``(n,)``, SBR, ``n >= 3``.
        level: confidence level of the intervals.

    Raises:
        CohortError: wrong shapes, values that are not finite, or fewer than three patients.
        ConfigError: a level outside 0..1.
    """
    y, p = _finite(truth, predicted, ndim=1)
    check_level(level)
    n = y.size
    difference, mean = p - y, (p + y) / 2
    sd = float(np.std(difference, ddof=1))
    slope, residual, x = _slope(difference, mean)
    slope_se = float(np.sqrt(np.sum(residual**2) / (n - 2) / np.sum(x**2))) if slope == slope else float("nan")
    return _assemble(
        bias=float(np.mean(difference)),
        bias_se=sd / np.sqrt(n),
        sd=sd,
        sd_se=sd / np.sqrt(2 * (n - 1)),
        slope=slope,
        slope_half_width=float(stats.t.ppf((1 + level) / 2, n - 2)) * slope_se,
        level=level,
        n_patients=n,
        n_values=n,
    )


def bland_altman_clustered(truth: npt.ArrayLike, predicted: npt.ArrayLike, level: float = 0.95) -> BlandAltman:
    """Bland-Altman analysis of both sides of each patient together.

    The two sides of a patient err alike, so ``2 n`` differences are not ``2 n`` independent ones. A one-way analysis
    of variance over patients splits them: with the mean squares between (``B``) and within (``W``) patients, the
    components are ``(B - W) / 2`` and ``W``, and a single difference has the variance ``(B + W) / 2``.
    That sum is kept as it is where ``B < W`` (sides that err oppositely), while ``sd_between`` is then reported as 0.
    A difference in bias between the sides counts as within-patient variance.

    Source: Bland and Altman, J Biopharm Stat 2007, 17, 571 (true value varies). Intervals: the delta method on the
    two independent mean squares, Student's t with ``n - 1`` degrees of freedom; they become those of
    :func:`bland_altman` when both sides of every patient differ equally. The slope's interval uses the
    patient-clustered sandwich variance with the usual small-sample factor.

    Args:
        truth, predicted: shape ``(n, 2)``, right first, SBR, ``n >= 3``.
        level: confidence level of the intervals.

    Raises:
        CohortError, ConfigError: as :func:`bland_altman`.
    """
    y, p = _finite(truth, predicted, ndim=2)
    check_level(level)
    n = len(y)
    difference, mean = p - y, (p + y) / 2
    patient = difference.mean(axis=1)
    between = 2.0 * float(np.var(patient, ddof=1))
    within = float(np.sum((difference - patient[:, None]) ** 2)) / n
    variance = (between + within) / 2
    sd = float(np.sqrt(variance))
    variance_se = np.sqrt(2 * between**2 / (n - 1) + 2 * within**2 / n) / 2
    slope, residual, x = _slope(difference.ravel(), mean.ravel())
    score = np.sum((residual * x).reshape(n, 2), axis=1)
    small_sample = n / (n - 1) * (2 * n - 1) / (2 * n - 2)
    slope_se = float(np.sqrt(small_sample * np.sum(score**2)) / np.sum(x**2)) if slope == slope else float("nan")
    return _assemble(
        bias=float(np.mean(difference)),
        bias_se=np.sqrt(between / (2 * n)),
        sd=sd,
        sd_se=variance_se / (2 * sd) if sd > 0 else 0.0,
        slope=slope,
        slope_half_width=float(stats.t.ppf((1 + level) / 2, n - 1)) * slope_se,
        level=level,
        n_patients=n,
        n_values=2 * n,
        sd_between=float(np.sqrt(max(0.0, (between - within) / 2))),
        sd_within=float(np.sqrt(within)),
    )


def _assemble(
    *,
    bias: float,
    bias_se: float,
    sd: float,
    sd_se: float,
    slope: float,
    slope_half_width: float,
    level: float,
    n_patients: int,
    n_values: int,
    sd_between: float | None = None,
    sd_within: float | None = None,
) -> BlandAltman:
    t = float(stats.t.ppf((1 + level) / 2, n_patients - 1))
    limit_half_width = t * float(np.hypot(bias_se, LIMIT * sd_se))
    lower, upper = bias - LIMIT * sd, bias + LIMIT * sd
    return BlandAltman(
        bias=bias,
        bias_ci=_around(bias, t * float(bias_se)),
        sd=sd,
        lower=lower,
        lower_ci=_around(lower, limit_half_width),
        upper=upper,
        upper_ci=_around(upper, limit_half_width),
        slope=slope,
        slope_ci=_around(slope, slope_half_width),
        level=level,
        n_patients=n_patients,
        n_values=n_values,
        sd_between=sd_between,
        sd_within=sd_within,
    )


def _around(centre: float, half_width: float) -> tuple[float, float]:
    return (centre - half_width, centre + half_width)


def _slope(y: Array, x: Array) -> tuple[float, Array, Array]:
    """Least-squares slope of y on x (nan for a constant x), the residuals, and x centred."""
    xc, yc = x - x.mean(), y - y.mean()
    slope = float(np.sum(xc * yc) / np.sum(xc**2)) if np.ptp(x) > 0 else float("nan")
    return slope, yc - slope * xc, xc


def _finite(truth: npt.ArrayLike, predicted: npt.ArrayLike, ndim: int) -> tuple[Array, Array]:
    y, p = cases(truth, predicted)
    wanted = "(n,)" if ndim == 1 else "(n, 2)"
    if y.ndim != ndim or (ndim == 2 and y.shape[1] != 2):
        raise CohortError(f"arrays of shape {y.shape}", f"shape {wanted}")
    if len(y) < 3:
        raise CohortError(f"{len(y)} patients", "at least 3 for limits of agreement")
    if not (np.isfinite(y).all() and np.isfinite(p).all()):
        raise CohortError("truth or predictions that are no number", "finite SBR only")
    return y, p
