"""Agreement of predicted with measured SBR: concordance, intraclass correlation and Bland-Altman limits."""

from __future__ import annotations

import math
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
class Icc:
    """Intraclass correlations of single ratings, two-way, every rater rating every subject.

    Attributes:
        single_agreement: ICC(2,1), absolute agreement: a constant difference between raters counts against it.
        single_agreement_ci: its interval.
        single_consistency: ICC(3,1), consistency: a constant difference does not count.
        single_consistency_ci: its interval.
        level: confidence level of the intervals.
        n_subjects, n_raters: what it rests on.
    """

    single_agreement: float
    single_agreement_ci: tuple[float, float]
    single_consistency: float
    single_consistency_ci: tuple[float, float]
    level: float
    n_subjects: int
    n_raters: int


def icc(*ratings: npt.ArrayLike, level: float = 0.95) -> Icc:
    """ICC(2,1) and ICC(3,1) with their F-based intervals.

    With two raters, truth and prediction, ICC(2,1) is close to :func:`ccc`; ICC(3,1) is the correlation,
    lowered where the SDs differ. The intervals take the subjects as independent: one side, or one number a patient.

    Source: Shrout and Fleiss, Psychol Bull 1979, 86, 420 (point values, ICC(3,1)); McGraw and Wong, Psychol Methods
    1996, 1, 30 (interval of ICC(2,1), Satterthwaite's degrees of freedom).

    Args:
        ratings: shape ``(n,)`` each, one a rater: ``icc(truth, predicted)``, or ``icc(*table.T)`` of a table
            with one column a rater.
        level: confidence level of the intervals.

    Returns:
        nan where it is not defined: fewer than two subjects, ratings that are all the same, or a nan among them.

    Raises:
        CohortError: shapes that differ or are not ``(n,)``, or fewer than two raters.
        ConfigError: a level outside 0..1.
    """
    check_level(level)
    raters = _raters(ratings)
    if raters[0].ndim != 1:
        raise CohortError(f"ratings of shape {raters[0].shape}", "shape (n,) for each rater")
    k, n = len(raters), raters[0].size
    squares = _mean_squares(raters)
    agreement = float(_agreement(squares, k, n))
    return Icc(
        single_agreement=agreement,
        single_agreement_ci=_agreement_interval(squares, agreement, k, n, level),
        single_consistency=float(_consistency(squares, k)),
        single_consistency_ci=_consistency_interval(squares, k, n, level),
        level=level,
        n_subjects=n,
        n_raters=k,
    )


def icc_agreement(*ratings: npt.ArrayLike) -> Array:
    """ICC(2,1) as a metric: shape ``(..., n)`` a rater in, ``(...)`` out. See :func:`icc`.

    Raises:
        CohortError: shapes that differ, or fewer than two raters.
    """
    raters = _raters(ratings)
    return _agreement(_mean_squares(raters), len(raters), raters[0].shape[-1])


def icc_consistency(*ratings: npt.ArrayLike) -> Array:
    """ICC(3,1) as a metric: shape ``(..., n)`` a rater in, ``(...)`` out. See :func:`icc`.

    Raises:
        CohortError: shapes that differ, or fewer than two raters.
    """
    raters = _raters(ratings)
    return _consistency(_mean_squares(raters), len(raters))


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


@dataclass(frozen=True)
class BlandAltmanRatio:
    """Ratios ``predicted / truth``, unit 1: the analysis of :class:`BlandAltman` on logarithms, taken back.

    Attributes:
        ratio: geometric mean of the ratios; ``ratio_ci`` its interval.
        lower, upper: 95 % limits of agreement of one ratio; ``lower_ci``, ``upper_ci`` their intervals.
        log: the analysis on natural logarithms that it comes from (its ``sd`` is about a coefficient of variation,
            its ``slope`` the proportional bias in log SBR per log SBR).
    """

    ratio: float
    ratio_ci: tuple[float, float]
    lower: float
    lower_ci: tuple[float, float]
    upper: float
    upper_ci: tuple[float, float]
    log: BlandAltman


def bland_altman_ratio(truth: npt.ArrayLike, predicted: npt.ArrayLike, level: float = 0.95) -> BlandAltmanRatio:
    """Bland-Altman analysis of ratios, for errors that grow with the SBR.

    Source: Bland and Altman, Stat Methods Med Res 1999, 8, 135, section 3.

    Args:
        truth, predicted: SBR above 0, shape ``(n,)`` (analysed as by :func:`bland_altman`) or ``(n, 2)``, right
            first (as by :func:`bland_altman_clustered`).
        level: confidence level of the intervals.

    Raises:
        CohortError: values that are not above 0; otherwise, and ConfigError, as those two.
    """
    y, p = cases(truth, predicted)
    unusable = int(np.count_nonzero((y <= 0) | (p <= 0)))
    if unusable:
        raise CohortError(
            f"{unusable} cases with a truth or a prediction of 0 or less", "SBR above 0 for ratios", "Leave them out"
        )
    log = (bland_altman if y.ndim == 1 else bland_altman_clustered)(np.log(y), np.log(p), level)
    return BlandAltmanRatio(
        ratio=math.exp(log.bias),
        ratio_ci=_exp(log.bias_ci),
        lower=math.exp(log.lower),
        lower_ci=_exp(log.lower_ci),
        upper=math.exp(log.upper),
        upper_ci=_exp(log.upper_ci),
        log=log,
    )


@dataclass(frozen=True)
class _MeanSquares:
    """Of the two-way analysis of variance without replication, ``(...)`` each."""

    subjects: Array
    raters: Array
    error: Array


def _raters(ratings: tuple[npt.ArrayLike, ...]) -> tuple[Array, ...]:
    if len(ratings) < 2:
        raise CohortError(f"{len(ratings)} raters", "at least 2")
    return cases(*ratings)


def _mean_squares(raters: tuple[Array, ...]) -> _MeanSquares:
    x = np.stack(raters)
    k, n = len(x), x.shape[-1]
    subject = centred(np.mean(x, axis=0))
    rater = centred(np.moveaxis(np.mean(x, axis=-1), 0, -1))
    # each rater centred on its own first: a constant one then leaves no rounding behind
    residual = centred(x) - subject
    with np.errstate(invalid="ignore", divide="ignore"):
        return _MeanSquares(
            subjects=reduced(k * np.sum(subject**2, axis=-1) / np.float64(n - 1)),
            raters=reduced(n * np.sum(rater**2, axis=-1) / (k - 1)),
            error=reduced(np.sum(residual**2, axis=(0, -1)) / np.float64((n - 1) * (k - 1))),
        )


def _agreement(squares: _MeanSquares, k: int, n: int) -> Array:
    subjects, raters, error = squares.subjects, squares.raters, squares.error
    with np.errstate(invalid="ignore", divide="ignore"):
        return reduced((subjects - error) / (subjects + (k - 1) * error + k / n * (raters - error)))


def _consistency(squares: _MeanSquares, k: int) -> Array:
    with np.errstate(invalid="ignore", divide="ignore"):
        return reduced((squares.subjects - squares.error) / (squares.subjects + (k - 1) * squares.error))


def _consistency_interval(squares: _MeanSquares, k: int, n: int, level: float) -> tuple[float, float]:
    df, df_error = n - 1, (n - 1) * (k - 1)
    below, above = stats.f.ppf((1 + level) / 2, df, df_error), 1 / stats.f.ppf((1 + level) / 2, df_error, df)
    low, high = (
        float(_consistency(_MeanSquares(squares.subjects, squares.raters, reduced(squares.error * f)), k))
        for f in (below, above)
    )
    return low, high


def _agreement_interval(squares: _MeanSquares, value: float, k: int, n: int, level: float) -> tuple[float, float]:
    subjects, raters, error = float(squares.subjects), float(squares.raters), float(squares.error)
    # Satterthwaite's degrees of freedom of the rater and error part, both weights times n (1 - value)
    from_raters, from_error = k * value * raters, (n * (1 - value) + k * value * (n - 1)) * error
    scale = from_raters**2 / (k - 1) + from_error**2 / max(1, (n - 1) * (k - 1))
    # without either part every quantile gives the same ends
    df = (from_raters + from_error) ** 2 / scale if scale > 0 else float(n - 1)
    rest = k * raters + (k * n - k - n) * error
    with np.errstate(invalid="ignore", divide="ignore"):
        below, above = stats.f.ppf((1 + level) / 2, n - 1, df), 1 / stats.f.ppf((1 + level) / 2, df, n - 1)
        low, high = (float(np.float64(n * (subjects - f * error)) / (f * rest + n * subjects)) for f in (below, above))
    return low, high


def _exp(ends: tuple[float, float]) -> tuple[float, float]:
    return (math.exp(ends[0]), math.exp(ends[1]))


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
