"""Point errors and correlations of predicted SBR.

Every function takes ``truth`` and ``predicted`` of shape ``(..., n)`` in SBR and reduces the last axis, so that a
block of resamples costs one call; see :mod:`nigradat.metrics.cases` for sides. All raise
:class:`~nigradat.errors.CohortError` on shapes that differ. A value that is not defined (a correlation with a
constant) is nan; a nan among the inputs gives nan.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy import stats

from nigradat.metrics.cases import Array, Metric, cases, centred, reduced


def mse(truth: npt.ArrayLike, predicted: npt.ArrayLike) -> Array:
    """Mean squared error, SBR squared."""
    y, p = cases(truth, predicted)
    return reduced(np.mean((p - y) ** 2, axis=-1))


def rmse(truth: npt.ArrayLike, predicted: npt.ArrayLike) -> Array:
    """Root of the mean squared error over ALL cases, SBR (not a mean of roots over batches)."""
    return reduced(np.sqrt(mse(truth, predicted)))


def mae(truth: npt.ArrayLike, predicted: npt.ArrayLike) -> Array:
    """Mean absolute error, SBR."""
    y, p = cases(truth, predicted)
    return reduced(np.mean(np.abs(p - y), axis=-1))


def median_ae(truth: npt.ArrayLike, predicted: npt.ArrayLike) -> Array:
    """Median absolute error, SBR. Beside RMSE and MAE it tells a heavy tail from a wide middle."""
    y, p = cases(truth, predicted)
    return reduced(np.median(np.abs(p - y), axis=-1))


def relative_error(truth: npt.ArrayLike, predicted: npt.ArrayLike) -> Array:
    """Mean of ``|predicted - truth| / truth``, unit 1; nan where a truth is not above 0."""
    y, p = cases(truth, predicted)
    with np.errstate(invalid="ignore", divide="ignore"):
        return reduced(np.mean(np.where(y > 0, np.abs(p - y) / y, np.nan), axis=-1))


def bias(truth: npt.ArrayLike, predicted: npt.ArrayLike) -> Array:
    """Mean of ``predicted - truth``, SBR: positive where the prediction is too high."""
    y, p = cases(truth, predicted)
    return reduced(np.mean(p - y, axis=-1))


def pearson_r(truth: npt.ArrayLike, predicted: npt.ArrayLike) -> Array:
    """Pearson correlation; nan where truth or prediction is constant."""
    y, p = cases(truth, predicted)
    yc, pc = centred(y), centred(p)
    with np.errstate(invalid="ignore", divide="ignore"):
        # each root on its own: the product of the two sums of squares can underflow
        r = np.sum(yc * pc, axis=-1) / (_norm(yc) * _norm(pc))
    return reduced(np.clip(r, -1.0, 1.0))


def spearman(truth: npt.ArrayLike, predicted: npt.ArrayLike) -> Array:
    """Spearman rank correlation, ties at their mean rank; nan where truth or prediction is constant."""
    y, p = cases(truth, predicted)
    return pearson_r(stats.rankdata(y, axis=-1), stats.rankdata(p, axis=-1))


def r2(truth: npt.ArrayLike, predicted: npt.ArrayLike) -> Array:
    """Coefficient of determination ``1 - SSE / SST``: not the squared correlation, and negative for a
    prediction that is worse than the mean of the truth; nan where the truth is constant."""
    y, p = cases(truth, predicted)
    total = _norm(centred(y)) ** 2
    with np.errstate(invalid="ignore", divide="ignore"):
        share = np.sum((p - y) ** 2, axis=-1) / total
    return reduced(np.where(total == 0, np.nan, 1.0 - share))


def calibration_slope(truth: npt.ArrayLike, predicted: npt.ArrayLike) -> Array:
    """Slope of the regression of truth on prediction: 1 when calibrated, below 1 when predictions are too extreme;
    nan for constant predictions."""
    y, p = cases(truth, predicted)
    pc = centred(p)
    with np.errstate(invalid="ignore", divide="ignore"):
        return reduced(np.sum(centred(y) * pc, axis=-1) / _norm(pc) ** 2)


def calibration_intercept(truth: npt.ArrayLike, predicted: npt.ArrayLike) -> Array:
    """Intercept of the regression of truth on prediction, SBR: 0 when calibrated; nan for constant predictions."""
    y, p = cases(truth, predicted)
    return reduced(np.mean(y, axis=-1) - calibration_slope(y, p) * np.mean(p, axis=-1))


ERROR_METRICS: Final[Mapping[str, Metric]] = MappingProxyType(
    {
        "rmse": rmse,
        "mse": mse,
        "mae": mae,
        "median_ae": median_ae,
        "relative_error": relative_error,
        "bias": bias,
        "pearson_r": pearson_r,
        "spearman": spearman,
        "r2": r2,
        "calibration_slope": calibration_slope,
        "calibration_intercept": calibration_intercept,
    }
)
"""The metrics of this module by name, in the order of a table."""


def _norm(x: Array) -> Array:
    return reduced(np.sqrt(np.sum(x * x, axis=-1)))
