"""Cases and sides: the shapes that every metric takes, and what "right", "left" and "average" mean.

A metric takes arrays of shape ``(..., n)`` and reduces the last axis, the cases. One sample gives one number
(a 0-d array); a block of bootstrap resamples ``(B, n)`` gives ``B`` of them at once.
Arrays with both sides have the shape ``(..., n, 2)``, right first; :func:`per_side` brings the two together.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
import numpy.typing as npt

from nigradat.anatomy import Side
from nigradat.errors import CohortError, ConfigError

Array = npt.NDArray[np.float64]
Metric = Callable[..., Array]
T = TypeVar("T")


@dataclass(frozen=True)
class PerSide(Generic[T]):
    """One thing for each side, and their average.

    ``average`` is the mean of the two sides' values, as in the paper's tables: not the value over all
    ``2 n`` cases (see :func:`pooled`).
    """

    right: T
    left: T
    average: T

    def __getitem__(self, side: Side) -> T:
        return self.right if side is Side.RIGHT else self.left


def per_side(metric: Metric, *arrays: npt.ArrayLike) -> PerSide[Array]:
    """A metric of each side and the mean of the two values (the paper's "avg").

    Args:
        metric: takes as many arrays ``(..., n)`` as are given here.
        arrays: shape ``(..., n, 2)`` each, right first.

    Raises:
        CohortError: no side axis of length 2, or shapes that differ.

    Example:
        >>> from nigradat.metrics.error import mae
        >>> values = per_side(mae, [[1.0, 2.0], [3.0, 2.0]], [[1.5, 2.0], [2.5, 3.0]])
        >>> float(values.right), float(values.left), float(values.average)
        (0.5, 0.5, 0.5)
    """
    both = _with_sides(arrays)
    right, left = (metric(*(a[..., side.index] for a in both)) for side in Side)
    return PerSide(right, left, (right + left) / 2)


def pooled(metric: Metric, *arrays: npt.ArrayLike) -> Array:
    """A metric over all ``2 n`` sides as if each were a case of its own. Arrays ``(..., n, 2)``.

    Raises:
        CohortError: as :func:`per_side`.
    """
    both = _with_sides(arrays)
    return metric(*(a.reshape(*a.shape[:-2], -1) for a in both))


def patient_mean(metric: Metric, *arrays: npt.ArrayLike) -> Array:
    """A metric of the patients' means over the two sides. Arrays ``(..., n, 2)``.

    Raises:
        CohortError: as :func:`per_side`.
    """
    return metric(*(a.mean(axis=-1) for a in _with_sides(arrays)))


def cases(*arrays: npt.ArrayLike) -> tuple[Array, ...]:
    """Arrays as float64, checked to have one and the same shape ``(..., n)``, ``n >= 1``.

    Raises:
        CohortError: shapes that differ, or no cases at all.
    """
    out = tuple(np.asarray(a, dtype=np.float64) for a in arrays)
    if len({a.shape for a in out}) != 1:
        raise CohortError(f"arrays of shapes {', '.join(str(a.shape) for a in out)}", "one shape for all")
    if out[0].ndim == 0 or out[0].shape[-1] == 0:
        raise CohortError(f"an array of shape {out[0].shape}", "at least one case on the last axis")
    return out


def check_level(level: float) -> None:
    """Refuse a level (nominal coverage or confidence) outside 0..1.

    Raises:
        ConfigError: not strictly between 0 and 1.
    """
    if not 0.0 < level < 1.0:
        raise ConfigError(f"a level of {level}", "a number strictly between 0 and 1, for example 0.95")


def centred(x: Array) -> Array:
    """``x`` less its mean over the last axis; exactly 0 where it is constant.

    (The mean of equal numbers can be off by one ulp, and "undefined" must show as 0/0, not as noise.)
    """
    constant = np.ptp(x, axis=-1, keepdims=True) == 0
    return reduced(np.where(constant, 0.0, x - np.mean(x, axis=-1, keepdims=True)))


def reduced(value: Any) -> Array:
    """A result of numpy or scipy as the float64 array (0-d for one sample) that metrics return."""
    return np.asarray(value, dtype=np.float64)


def _with_sides(arrays: tuple[npt.ArrayLike, ...]) -> tuple[Array, ...]:
    both = cases(*arrays)
    if both[0].ndim < 2 or both[0].shape[-1] != 2:
        raise CohortError(f"an array of shape {both[0].shape}", "both sides on the last axis, shape (..., n, 2)")
    return both
