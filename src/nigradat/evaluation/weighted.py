"""The scores of :mod:`nigradat.metrics` for weighted cases: what a bootstrap of many scores is made of.

A resample is how often each patient was drawn. With weights ``(n, B)`` a block of resamples costs one matrix product
for all moments and running sums for the ranks; nothing is gathered or sorted resample by resample. Cases come first, so
that putting them in another order moves whole rows.
With equal weights every function here agrees with its namesake in :mod:`nigradat.metrics`; the tests hold them to it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import numpy as np
import numpy.typing as npt

from nigradat.metrics import normalised_error

Array = npt.NDArray[np.float64]
Weighted = Callable[[Array], Mapping[str, Array]]
"""Weights ``(n, B)``, whole numbers >= 0, to named scores ``(B,)``."""

ERROR_SCORES: Final = (
    "rmse",
    "mse",
    "mae",
    "median_ae",
    "bias",
    "pearson_r",
    "spearman",
    "calibration_slope",
    "ccc",
)


def patient_weights(index: npt.NDArray[np.intp], patient_of_case: npt.NDArray[np.intp]) -> Array:
    """How often each case is in each resample of patients.

    Args:
        index: patients drawn, ``(B, m)``.
        patient_of_case: ``(n,)``; all visits of a patient come and go together.

    Returns:
        ``(n, B)``.
    """
    patients = int(patient_of_case.max()) + 1
    shifted = index + np.arange(len(index))[:, None] * patients
    counts = np.bincount(shifted.ravel(), minlength=len(index) * patients).reshape(len(index), patients)
    return np.ascontiguousarray(counts.T.astype(np.float64))[patient_of_case]


def errors(truth: npt.ArrayLike, predicted: npt.ArrayLike) -> Weighted:
    """All of :data:`ERROR_SCORES` of one side.

    Args:
        truth, predicted: ``(n,)`` SBR, finite.
    """
    of_moments, of_ranks = moment_errors(truth, predicted), rank_errors(truth, predicted)

    def scores(weights: Array) -> dict[str, Array]:
        found = {**of_moments(weights), **of_ranks(weights)}
        return {name: found[name] for name in ERROR_SCORES}

    return scores


def moment_errors(truth: npt.ArrayLike, predicted: npt.ArrayLike) -> Weighted:
    """The scores among :data:`ERROR_SCORES` that are made of means: all but ``median_ae`` and ``spearman``."""
    y, p = np.asarray(truth, dtype=np.float64), np.asarray(predicted, dtype=np.float64)
    d = p - y
    # moments about the means of all cases, so that little is lost to cancellation
    yc, pc = y - y.mean(), p - p.mean()
    moments = np.stack([yc, pc, yc**2, pc**2, yc * pc, np.abs(d), d, d**2])
    # a variance below this is rounding: the resample is constant
    least_y, least_p = (1e-13 * float(np.mean(c**2)) if np.ptp(v) > 0 else np.inf for c, v in ((yc, y), (pc, p)))
    shift = float(y.mean() - p.mean())

    def scores(weights: Array) -> dict[str, Array]:
        my, mp, myy, mpp, myp, mad, md, msd = moments @ weights / weights.sum(axis=0)
        cov, var_y, var_p = myp - my * mp, myy - my**2, mpp - mp**2
        var_y, var_p = np.where(var_y > least_y, var_y, np.nan), np.where(var_p > least_p, var_p, np.nan)
        with np.errstate(divide="ignore", invalid="ignore"):
            concordance = 2 * cov / (np.nan_to_num(var_y) + np.nan_to_num(var_p) + (my - mp + shift) ** 2)
        return {
            "rmse": np.sqrt(msd),
            "mse": msd,
            "mae": mad,
            "bias": md,
            "pearson_r": np.clip(cov / np.sqrt(var_y * var_p), -1.0, 1.0),
            "calibration_slope": cov / var_p,
            "ccc": concordance,
        }

    return scores


def rank_errors(truth: npt.ArrayLike, predicted: npt.ArrayLike) -> Weighted:
    """The scores among :data:`ERROR_SCORES` that are made of ranks: ``median_ae`` and ``spearman``."""
    y, p = np.asarray(truth, dtype=np.float64), np.asarray(predicted, dtype=np.float64)
    absolute, y_rank, p_rank = OrderStatistics(np.abs(p - y)), Midranks(y), Midranks(p)

    def scores(weights: Array) -> dict[str, Array]:
        n = weights.sum(axis=0)
        return {
            "median_ae": absolute(weights, np.floor((n + 1) / 2), np.floor(n / 2) + 1).mean(axis=0),
            "spearman": _correlation(y_rank(weights), p_rank(weights), weights),
        }

    return scores


def sharpness_at_cp(
    truth: npt.ArrayLike, centre: npt.ArrayLike, spread: npt.ArrayLike, scale: float, cp: float
) -> Weighted:
    """The "Sharpness @ CP" of one side, as :func:`nigradat.metrics.sharpness_at_cp` reads it off the curve.

    Args:
        truth, centre, spread: ``(n,)`` SBR.
        scale: largest SBR of the model's scale.
        cp: coverage, in (0, 1).
    """
    nodes = OrderStatistics(normalised_error(truth, centre, spread))
    half = np.asarray(spread, dtype=np.float64) / scale

    def scores(weights: Array) -> dict[str, Array]:
        n = weights.sum(axis=0)
        position = np.round(cp * n, 9)
        below = np.floor(position)
        low, high = nodes(weights, below, np.minimum(below + 1, n))
        low = np.where(below > 0, low, 0.0)
        with np.errstate(invalid="ignore"):
            k = np.where(position > below, low + (position - below) * (high - low), low)
            k = np.where(np.isnan(k), np.inf, k)
            value = np.where(np.isfinite(k), 1.0 - k * (half @ weights / n), -np.inf)
        return {"sharpness_at_cp": value}

    return scores


def means(**columns: npt.ArrayLike) -> Weighted:
    """Plain means of named columns ``(n,)``."""
    table = np.stack([np.asarray(c, dtype=np.float64) for c in columns.values()])

    def scores(weights: Array) -> dict[str, Array]:
        return dict(zip(columns, table @ weights / weights.sum(axis=0), strict=True))

    return scores


class OrderStatistics:
    """The ``rank``-th smallest of weighted values; the values are sorted once.

    Args:
        values: ``(n,)``; inf is allowed.
    """

    def __init__(self, values: Array) -> None:
        self.order = np.argsort(values, kind="stable")
        self.sorted = values[self.order]

    def __call__(self, weights: Array, *ranks: Array) -> Array:
        """Weights ``(n, B)`` and R ranks ``(B,)`` from 1 to the sum of the weights; gives ``(R, B)``."""
        running = np.cumsum(weights[self.order], axis=0)
        positions = [np.count_nonzero(running < rank, axis=0) for rank in ranks]
        return np.asarray(self.sorted[np.minimum(positions, len(self.sorted) - 1)])


class Midranks:
    """Ranks of weighted values, ties at their mean rank; the values are sorted once.

    Args:
        values: ``(n,)``.
    """

    def __init__(self, values: Array) -> None:
        distinct, self.group = np.unique(values, return_inverse=True)
        self.order = np.argsort(self.group, kind="stable")
        self.starts = np.searchsorted(self.group[self.order], np.arange(len(distinct)))

    def __call__(self, weights: Array) -> Array:
        """Weights ``(n, B)`` to the rank of each case among the drawn ones, ``(n, B)``."""
        drawn = np.add.reduceat(weights[self.order], self.starts, axis=0)
        middle = np.cumsum(drawn, axis=0) - (drawn - 1) / 2
        return np.asarray(middle[self.group])


def _correlation(x: Array, y: Array, weights: Array) -> Array:
    """Pearson correlation of columns of ``x`` and ``y``, all ``(n, B)``; nan where one is constant."""
    n = weights.sum(axis=0)
    xc = x - np.einsum("nb,nb->b", weights, x) / n
    yc = y - np.einsum("nb,nb->b", weights, y) / n
    xw = weights * xc
    square = np.einsum("nb,nb->b", xw, xc) * np.einsum("nb,nb,nb->b", weights, yc, yc)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.clip(np.einsum("nb,nb->b", xw, yc) / np.sqrt(square), -1.0, 1.0))
