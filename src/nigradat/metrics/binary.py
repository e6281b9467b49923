"""Low uptake or not: agreement of two yes-or-no readings, and how well a score separates them.

Low uptake, ``SBR < threshold``, is the positive class throughout. The areas under the ROC curve take a score that is
HIGHER for the positive: ``-predicted`` for a predicted SBR. What is not defined (a sensitivity without positives, an
area with one class only) is nan.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import special, stats

from nigradat.errors import CohortError, ConfigError
from nigradat.metrics.cases import Array, cases, check_level, reduced

Labels = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class BinaryAgreement:
    """A 2 x 2 table of a reading against its reference.

    Attributes:
        tp, fp, tn, fn: true positives, false positives, true negatives, false negatives.
    """

    tp: int
    fp: int
    tn: int
    fn: int

    @property
    def n(self) -> int:
        """All cases."""
        return self.tp + self.fp + self.tn + self.fn

    @property
    def positives(self) -> int:
        """Cases that the reference calls positive: what the sensitivity rests on."""
        return self.tp + self.fn

    @property
    def negatives(self) -> int:
        """Cases that the reference calls negative: what the specificity rests on."""
        return self.tn + self.fp

    @property
    def accuracy(self) -> float:
        """Share of the cases in which both agree."""
        return _share(self.tp + self.tn, self.n)

    @property
    def sensitivity(self) -> float:
        """Share of the positives that are found."""
        return _share(self.tp, self.positives)

    @property
    def specificity(self) -> float:
        """Share of the negatives that are left alone."""
        return _share(self.tn, self.negatives)

    @property
    def prevalence(self) -> float:
        """Share of the cases that the reference calls positive."""
        return _share(self.positives, self.n)


@dataclass(frozen=True)
class Auc:
    """Area under the ROC curve.

    Attributes:
        value: probability that a positive case scores above a negative one, ties half.
        se: its standard error; 0 for perfect separation, where it means nothing.
        low, high: ends of the interval; nan where there is none (a value of 0 or 1, fewer than two of a class).
        n_positive, n_negative: cases.
    """

    value: float
    se: float
    low: float
    high: float
    n_positive: int
    n_negative: int


@dataclass(frozen=True)
class AucDifference:
    """Difference of two areas under the ROC curve of the same cases.

    Attributes:
        value: first less second.
        se: its standard error.
        low, high: ends of the interval, within -1..1.
        z, p: statistic and two-sided p-value; nan where the standard error is 0.
    """

    value: float
    se: float
    low: float
    high: float
    z: float
    p: float


def binary_agreement(truth: npt.ArrayLike, predicted: npt.ArrayLike, threshold: float) -> BinaryAgreement:
    """Truth and prediction called low or not at one threshold.

    Args:
        truth, predicted: SBR, one shape for both; every element is a case.
        threshold: SBR below it, and not at it, is low (positive).

    Raises:
        CohortError: shapes that differ, or values that are no number (they are neither low nor not).
        ConfigError: a threshold that is no number.
    """
    y, p = cases(truth, predicted)
    if not math.isfinite(threshold):
        raise ConfigError(f"a threshold of {threshold}", "an SBR")
    if np.isnan(y).any() or np.isnan(p).any():
        raise CohortError("truth or predictions that are no number", "an SBR for every case", "Leave those cases out")
    return agreement_with_finding(y < threshold, p < threshold)


def agreement_with_finding(reference_positive: npt.ArrayLike, finding_positive: npt.ArrayLike) -> BinaryAgreement:
    """A categorical finding (an observer's reading, say) against its reference.

    Args:
        reference_positive, finding_positive: True for positive; one shape for both, every element is a case, and no
            cases at all give a table of zeros.

    Raises:
        CohortError: shapes that differ, or anything but True and False.
    """
    reference, finding = _labels(reference_positive), _labels(finding_positive)
    if reference.shape != finding.shape:
        raise CohortError(f"arrays of shapes {reference.shape}, {finding.shape}", "one shape for both")

    def count(which: Labels) -> int:
        return int(np.count_nonzero(which))

    return BinaryAgreement(
        tp=count(reference & finding),
        fp=count(~reference & finding),
        tn=count(~reference & ~finding),
        fn=count(reference & ~finding),
    )


def wilson(k: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of a share ``k / n``; nan for ``n = 0``.

    Source: Wilson, J Am Stat Assoc 1927, 22, 209.

    Raises:
        ConfigError: a count outside ``0..n``, or a level outside 0..1.

    Example:
        >>> [round(end, 3) for end in wilson(47, 55)]
        [0.738, 0.924]
    """
    check_level(level)
    if not 0 <= k <= n:
        raise ConfigError(f"{k} of {n} cases", "0 <= k <= n")
    if n == 0:
        return math.nan, math.nan
    z2 = float(stats.norm.ppf((1 + level) / 2)) ** 2
    centre = (k + z2 / 2) / (n + z2)
    half_width = math.sqrt(z2 * (k * (n - k) / n + z2 / 4)) / (n + z2)
    # at the ends the two terms cancel exactly; rounding must not lead outside
    return 0.0 if k == 0 else centre - half_width, 1.0 if k == n else centre + half_width


def auc(positive: npt.ArrayLike, score: npt.ArrayLike) -> Array:
    """Area under the ROC curve, the Mann-Whitney statistic with ties half; nan with one class only.

    A metric like those of :mod:`nigradat.metrics.error`: shape ``(..., n)`` in, ``(...)`` out, nan for a nan score.

    Raises:
        CohortError: shapes that differ, no cases, or labels that are not True and False.
    """
    labels, s = _labelled(positive, score)
    m = np.sum(labels, axis=-1)
    rank_sum = np.sum(np.where(labels, stats.rankdata(s, axis=-1), 0.0), axis=-1)
    wins = np.where(np.isnan(s).any(axis=-1), np.nan, rank_sum - m * (m + 1) / 2)
    with np.errstate(invalid="ignore", divide="ignore"):
        return reduced(wins / (m * (labels.shape[-1] - m)))


def delong_auc(positive: npt.ArrayLike, score: npt.ArrayLike, level: float = 0.95) -> Auc:
    """Area under the ROC curve of independent cases with DeLong's standard error, from midranks in O(n log n).

    The interval is symmetric on the logit scale, so that it stays within 0..1. For both sides of patients use
    :func:`clustered_auc`.

    Source: DeLong et al., Biometrics 1988, 44, 837; midranks: Sun and Xu, IEEE Signal Process Lett 2014, 21, 1389;
    logit interval: Pepe, The Statistical Evaluation of Medical Tests, 2003.

    Args:
        positive: True for the positive cases, shape ``(n,)``.
        score: shape ``(n,)``, higher for the positive.
        level: confidence level of the interval.

    Raises:
        CohortError: wrong shapes, or labels that are not True and False.
        ConfigError: a level outside 0..1.
    """
    labels, s = _labelled(positive, score, ndim=1)
    return _auc(labels[:, None], s[:, None], level)


def clustered_auc(positive: npt.ArrayLike, score: npt.ArrayLike, level: float = 0.95) -> Auc:
    """Area under the ROC curve over all sides, its standard error for patients as clusters.

    The value is that of the ``2 n`` sides pooled. A patient's sides may be of one class or of both. With one case a
    patient this is :func:`delong_auc`, whose logit interval it shares.

    Source: Obuchowski, Biometrics 1997, 53, 567.

    Args:
        positive: True for the positive cases, shape ``(n, 2)``, or any ``(n, c)``.
        score: the same shape, higher for the positive.
        level: confidence level of the interval.

    Raises:
        CohortError, ConfigError: as :func:`delong_auc`.
    """
    return _auc(*_labelled(positive, score, ndim=2), level)


def delong_auc_difference(
    positive: npt.ArrayLike, first: npt.ArrayLike, second: npt.ArrayLike, level: float = 0.95
) -> AucDifference:
    """Difference of two scores' areas under the ROC curve on the same cases, their covariance counted.

    The interval is ``value -+ z se``, clipped to -1..1.

    Source: as :func:`delong_auc`; for patients as clusters as :func:`clustered_auc`.

    Args:
        positive: True for the positive cases, shape ``(n,)``, or ``(n, 2)`` for patients as clusters.
        first, second: scores of the same shape, higher for the positive.
        level: confidence level of the interval.

    Raises:
        CohortError, ConfigError: as :func:`delong_auc`.
    """
    check_level(level)
    labels, s = _labelled(positive, first)
    _, other = _labelled(positive, second)
    if labels.ndim > 2:
        raise CohortError(f"an array of shape {labels.shape}", "shape (n,) or (n, 2)")
    clusters = labels.reshape(len(labels), -1)
    (one, one_residual), (two, two_residual) = (_placed(clusters, x.reshape(clusters.shape)) for x in (s, other))
    value = one - two
    se = math.sqrt(_variance(clusters, one_residual - two_residual))
    half_width = float(stats.norm.ppf((1 + level) / 2)) * se
    z = value / se if se > 0 else math.nan
    low, high = (float(np.clip(value + sign * half_width, -1.0, 1.0)) for sign in (-1, 1))
    return AucDifference(value, se, low, high, z, 2 * float(stats.norm.sf(abs(z))))


def _auc(positive: Labels, score: Array, level: float) -> Auc:
    check_level(level)
    value, residual = _placed(positive, score)
    se = math.sqrt(_variance(positive, residual))
    low = high = math.nan
    if 0 < value < 1:
        half_width = float(stats.norm.ppf((1 + level) / 2)) * se / (value * (1 - value))
        low, high = (float(special.expit(special.logit(value) + sign * half_width)) for sign in (-1, 1))
    m = int(np.count_nonzero(positive))
    return Auc(value, se, low, high, m, positive.size - m)


def _placed(positive: Labels, score: Array) -> tuple[float, Array]:
    """The area, and how far each case's share of won comparisons with the other class lies from it.

    These shares (DeLong's structural components, of either class) come from the midranks among all cases less those
    within the class.
    """
    m = np.count_nonzero(positive)
    k = positive.size - m
    if m == 0 or k == 0 or np.isnan(score).any():
        return math.nan, np.full(score.shape, np.nan)
    rank = stats.rankdata(score, axis=None).reshape(score.shape)
    share = np.empty(score.shape)
    share[positive] = (rank[positive] - stats.rankdata(score[positive])) / k
    share[~positive] = 1 - (rank[~positive] - stats.rankdata(score[~positive])) / m
    value = float(np.mean(share[positive]))
    return value, share - value


def _variance(positive: Labels, residual: Array) -> float:
    """Obuchowski's variance from the residuals ``(n, c)`` of clusters; DeLong's for ``c = 1``.

    nan where fewer than two clusters have cases of a class.
    """
    m, k = np.count_nonzero(positive), np.count_nonzero(~positive)
    with_positive, with_negative = (np.count_nonzero(p.any(axis=1)) for p in (positive, ~positive))
    if with_positive < 2 or with_negative < 2:
        return math.nan
    of_positive = np.sum(np.where(positive, residual, 0.0), axis=1) / m
    of_negative = np.sum(np.where(positive, 0.0, residual), axis=1) / k
    own = [
        count / (count - 1) * np.sum(part**2)
        for count, part in ((with_positive, of_positive), (with_negative, of_negative))
    ]
    across = len(positive) / (len(positive) - 1) * np.sum(of_positive * of_negative)
    return max(0.0, float(sum(own) + 2 * across)) if np.isfinite(across) else math.nan


def _labels(positive: npt.ArrayLike) -> Labels:
    labels = np.asarray(positive)
    if labels.dtype != np.bool_ and labels.size:  # the words "absent" and "present" are both true to numpy
        raise CohortError(f"labels of type {labels.dtype}", "True for positive and False for negative")
    return labels.astype(np.bool_)


def _labelled(positive: npt.ArrayLike, score: npt.ArrayLike, ndim: int | None = None) -> tuple[Labels, Array]:
    labels = _labels(positive)
    _, s = cases(labels, score)
    if ndim is not None and s.ndim != ndim:
        raise CohortError(f"arrays of shape {s.shape}", "shape (n,)" if ndim == 1 else "shape (n, 2)")
    return labels, s


def _share(k: int, n: int) -> float:
    return k / n if n else math.nan
