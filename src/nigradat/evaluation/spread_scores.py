"""Calibration, ENCE, rank correlation and rejection for weighted cases: the bootstrap's side of
:mod:`nigradat.metrics.scores`, as :mod:`nigradat.evaluation.weighted` explains it. With equal weights each agrees with
its namesake there; the tests hold them to it, and to it on resamples drawn one by one.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from nigradat.evaluation.weighted import Array, Weighted, rank_errors
from nigradat.metrics.cases import reduced
from nigradat.metrics.scores import BINS, LEVELS, calibration_error, curve_area


def calibration(pit: npt.ArrayLike, levels: npt.ArrayLike = LEVELS) -> Weighted:
    """``rmsce`` and ``miscalibration_area`` of PIT values ``(n,)``."""
    nominal = np.asarray(levels, dtype=np.float64)
    inside = (np.abs(2 * np.asarray(pit, dtype=np.float64) - 1) <= nominal[:, None]).astype(np.float64)

    def scores(weights: Array) -> dict[str, Array]:
        observed = (inside @ weights / weights.sum(axis=0)).T
        return {
            "rmsce": calibration_error(observed, nominal),
            "miscalibration_area": curve_area(observed, nominal),
        }

    return scores


def ence(error: npt.ArrayLike, sd: npt.ArrayLike, bins: int = BINS) -> Weighted:
    """``ence`` of errors and SDs ``(n,)``, SBR."""
    order = np.argsort(sd, kind="stable")
    squares = np.stack([np.asarray(v, dtype=np.float64)[order] ** 2 for v in (sd, error)])

    def scores(weights: Array) -> dict[str, Array]:
        drawn = weights[order]
        running = np.cumsum(np.vstack([np.zeros(drawn.shape[1]), drawn]), axis=0)  # (n + 1, B)
        sums = np.concatenate(
            [np.zeros((2, 1, drawn.shape[1])), np.cumsum(squares[:, :, None] * drawn, axis=1)], axis=1
        )
        columns = np.arange(drawn.shape[1])
        at_cuts = []
        for cut in np.linspace(0, 1, bins + 1)[:, None] * running[-1]:
            # the last place where no more than the cut has been drawn; the rest of the cut comes from the next case
            below = np.minimum(np.count_nonzero(running <= cut, axis=0), len(order)) - 1
            rest = cut - running[below, columns]
            at_cuts.append(sums[:, below, columns] + rest * squares[:, below])
        variance, mse = np.diff(np.stack(at_cuts, axis=1), axis=1)
        return {"ence": np.asarray(np.mean(np.abs(1 - np.sqrt(mse / variance)), axis=0))}

    return scores


def width_error_correlation(width: npt.ArrayLike, error: npt.ArrayLike) -> Weighted:
    """``width_error_correlation`` of widths and errors ``(n,)``."""
    ranked = rank_errors(width, np.abs(np.asarray(error, dtype=np.float64)))

    def scores(weights: Array) -> dict[str, Array]:
        return {"width_error_correlation": ranked(weights)["spearman"]}

    return scores


def aurc(loss: npt.ArrayLike, spread: npt.ArrayLike) -> Weighted:
    """``aurc`` of losses and spreads ``(n,)``; copies of a case are ties, as are equal spreads."""
    values = np.asarray(loss, dtype=np.float64)
    _, group = np.unique(np.asarray(spread, dtype=np.float64), return_inverse=True)
    order = np.argsort(group, kind="stable")
    starts = np.searchsorted(group[order], np.arange(group.max() + 1))
    ranked = values[order, None]

    def scores(weights: Array) -> dict[str, Array]:
        drawn = weights[order]
        count, total = (np.add.reduceat(v, starts, axis=0) for v in (drawn, drawn * ranked))
        n = np.cumsum(count, axis=0)
        before, sum_before = n - count, np.cumsum(total, axis=0) - total
        mean = total / np.maximum(count, 1)
        # cases before + 1 .. before + count have (sum_before + j mean) / (before + j): harmonic sums
        harmonic = np.concatenate([[0.0], np.cumsum(1 / np.arange(1, int(n.max()) + 1))])
        steps = harmonic[n.astype(int)] - harmonic[before.astype(int)]
        area = count * mean + (sum_before - before * mean) * steps
        return {"aurc": reduced(area.sum(axis=0) / n[-1])}

    return scores
