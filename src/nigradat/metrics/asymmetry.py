"""What a pair of SBR says about the patient: how unequal the sides are, which is the lower one, and how low it is.

``truth`` and ``predicted`` have the shape ``(..., n, 2)``, right first, in SBR; the result has the shape ``(...)``.
All raise :class:`~nigradat.errors.CohortError` on shapes that differ or have no side axis; a nan among the inputs
gives nan.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from nigradat.anatomy import Side
from nigradat.errors import CohortError, ConfigError
from nigradat.metrics.cases import Array, cases, reduced


def asymmetry_index(right: npt.ArrayLike, left: npt.ArrayLike) -> Array:
    """Signed asymmetry ``200 (right - left) / (right + left)``, percent of the mean; positive: the right is higher.

    Its absolute value is the asymmetry index of the DaT-SPECT literature, ``100 |R - L| / ((R + L) / 2)``. It lies
    within -200..200 for SBR >= 0, is 0 where both sides are 0, and nan where their mean is negative, or 0 with sides
    that differ (a prediction can be below 0).

    Args:
        right, left: SBR, any shapes that broadcast.

    Example:
        >>> asymmetry_index([0.78, 2.0], [0.75, 3.0]).round(1).tolist()
        [3.9, -40.0]
    """
    a, b = reduced(right), reduced(left)
    total = a + b
    with np.errstate(invalid="ignore", divide="ignore"):
        index = np.where(total > 0, 200.0 * ((a - b) / total), np.nan)
    return reduced(np.where((a == 0) & (b == 0), 0.0, index))


def asymmetry_error(truth: npt.ArrayLike, predicted: npt.ArrayLike) -> Array:
    """Mean absolute error of the signed :func:`asymmetry_index`, percentage points."""
    (yr, yl), (pr, pl) = _sides(truth, predicted)
    return reduced(np.mean(np.abs(asymmetry_index(pr, pl) - asymmetry_index(yr, yl)), axis=-1))


def worse_side_agreement(truth: npt.ArrayLike, predicted: npt.ArrayLike, margin: float = 0.0) -> Array:
    """Share of the patients whose lower side is named right, 0..1; nan where nobody has a lower side.

    Patients whose true sides differ by no more than ``margin`` are left out: with the default those with a tie. A
    predicted tie names no side and counts one half, as a coin would be right.

    Args:
        truth, predicted: as everywhere here.
        margin: SBR.

    Raises:
        ConfigError: a margin below 0.
    """
    if not margin >= 0:
        raise ConfigError(f"a margin of {margin}", "a difference in SBR, 0 or more")
    (yr, yl), (pr, pl) = _sides(truth, predicted)
    true, guess = yr - yl, pr - pl
    counts = ~(np.abs(true) <= margin)  # a nan is not a tie: it counts, and shows
    named = np.where(counts, (1 + np.sign(true) * np.sign(guess)) / 2, 0.0)
    with np.errstate(invalid="ignore"):
        return reduced(np.sum(named, axis=-1) / np.sum(counts, axis=-1))


def worse_side_sbr_error(truth: npt.ArrayLike, predicted: npt.ArrayLike) -> Array:
    """Mean absolute error of the patient's lower SBR, whichever side it is on: ``|min(predicted) - min(truth)|``."""
    (yr, yl), (pr, pl) = _sides(truth, predicted)
    return reduced(np.mean(np.abs(np.minimum(pr, pl) - np.minimum(yr, yl)), axis=-1))


def _sides(truth: npt.ArrayLike, predicted: npt.ArrayLike) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
    """Right and left of the truth, right and left of the prediction, ``(..., n)`` each."""
    both = cases(truth, predicted)
    if both[0].ndim < 2 or both[0].shape[-1] != 2 or both[0].shape[-2] == 0:
        raise CohortError(f"an array of shape {both[0].shape}", "both sides on the last axis, shape (..., n, 2)")
    y, p = ((a[..., Side.RIGHT.index], a[..., Side.LEFT.index]) for a in both)
    return y, p
