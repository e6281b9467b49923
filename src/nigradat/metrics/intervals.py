"""Coverage, width and the sharpness-CP curve of prediction intervals, and proper scores.

Definitions of Sharpness, CP, "Optimal" and "Sharpness @ CP" are a reconstruction that reproduces the arithmetic of
the published tables (Abdullah Al, Yun, Bae, Appl Sci 2025, 15, 10977), whose text does not give them:

* the interval of a case is ``c +- k S``, centre and spread in SBR, one multiplier ``k`` for all cases;
* CP is the share of cases inside; at ``k = s_(i)``, the i-th smallest of ``s = |y - c| / S``, it is ``i / n``,
  and it is linear between these nodes, from ``CP = 0`` at ``k = 0``;
* Sharpness is ``1 - mean(k S) / scale``: one less the normalised HALF-width, intervals not clipped to possible SBR.

The curve is traced on the very cases that it describes, as in the paper: a description, not a calibrated promise.
For promises see :mod:`nigradat.metrics.conformal`.

Arrays are ``(..., n)`` and metrics reduce the last axis; scores give one value a case. See
:mod:`nigradat.metrics.cases` for sides.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Literal, get_args

import numpy as np
import numpy.typing as npt
from scipy import special

from nigradat.errors import CalibrationError, CohortError, ConfigError
from nigradat.metrics.cases import Array, PerSide, cases, check_level, reduced

Criterion = Literal["ideal_distance", "balanced", "product", "f1"]


# -- Coverage and width -------------------------------------------------------------------------------------------


def coverage(lower: npt.ArrayLike, upper: npt.ArrayLike, truth: npt.ArrayLike) -> Array:
    """Share of cases with ``lower <= truth <= upper`` (CP, also called PICP). Shapes ``(..., n)``; nan in, nan out.

    Raises:
        CohortError: shapes that differ.
        CalibrationError: an interval whose ends are exchanged.
    """
    low, high, y = cases(lower, upper, truth)
    _check_ends(low, high)
    unknown = np.isnan(low) | np.isnan(high) | np.isnan(y)
    return reduced(np.mean(np.where(unknown, np.nan, (low <= y) & (y <= high)), axis=-1))


def mpiw(lower: npt.ArrayLike, upper: npt.ArrayLike) -> Array:
    """Mean FULL width of the intervals, SBR. Shapes ``(..., n)``.

    Raises:
        CohortError, CalibrationError: as :func:`coverage`.
    """
    low, high = cases(lower, upper)
    _check_ends(low, high)
    return reduced(np.mean(high - low, axis=-1))


def nmpiw(lower: npt.ArrayLike, upper: npt.ArrayLike, truth: npt.ArrayLike) -> Array:
    """Mean full width over the range of the truth (Khosravi 2011); smaller is better. Shapes ``(..., n)``.

    nan where the truth is constant.

    Raises:
        CohortError, CalibrationError: as :func:`coverage`.
    """
    low, high, y = cases(lower, upper, truth)
    span = np.ptp(y, axis=-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return reduced(np.where(span > 0, mpiw(low, high) / span, np.nan))


def sharpness(lower: npt.ArrayLike, upper: npt.ArrayLike, scale: float) -> Array:
    """``1 - mean half-width / scale``; larger is better, negative where intervals are wider than the scale.

    Args:
        lower, upper: shape ``(..., n)``, SBR.
        scale: largest SBR of the model's scale (6.84 in the paper).

    Raises:
        CohortError, CalibrationError: as :func:`coverage`.
        ConfigError: a scale that is not positive.
    """
    _check_scale(scale)
    return reduced(1.0 - mpiw(lower, upper) / (2.0 * scale))


# -- The sharpness-CP curve ---------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class SharpnessCurve:
    """CP and Sharpness of the intervals ``c +- k S`` at the nodes of one side's curve.

    Attributes:
        k: shape ``(..., n + 1)``, multipliers, 0 first, rising; inf for a case that no multiplier covers.
        cp: same shape, ``i / n``.
        sharpness: same shape, ``1 - k unit_loss``; -inf where ``k`` is inf.
        unit_loss: shape ``(...)``, ``mean(S) / scale``: the Sharpness lost per unit of ``k``.
    """

    k: Array
    cp: Array
    sharpness: Array
    unit_loss: Array


@dataclass(frozen=True)
class CurvePoint:
    """One point of a sharpness-CP curve."""

    k: float
    sharpness: float
    cp: float


@dataclass(frozen=True)
class OptimalPoint:
    """The "Optimal (Sharpness, CP)" of both sides, their averages, and how it was chosen.

    ``joint``: one ``k`` for both sides; else each side has its own and ``sides.average.k`` is their mean.
    """

    sides: PerSide[CurvePoint]
    criterion: Criterion
    joint: bool


def normalised_error(truth: npt.ArrayLike, centre: npt.ArrayLike, spread: npt.ArrayLike) -> Array:
    """``s = |y - c| / S`` of each case: the smallest multiplier ``k`` whose interval ``c +- k S`` covers it.

    A spread of 0 gives inf, unless the centre is exactly right: then any interval covers and ``s`` is 0.

    Args:
        truth, centre, spread: shape ``(..., n)``, SBR.

    Returns:
        Shape ``(..., n)``.

    Raises:
        CohortError: shapes that differ, or a truth or centre that is not finite.
        CalibrationError: a spread that is negative or not finite.
    """
    y, c, s = cases(truth, centre, spread)
    if not (np.isfinite(y).all() and np.isfinite(c).all()):
        raise CohortError("truth or centres that are no number", "finite SBR only")
    if not (np.isfinite(s).all() and (s >= 0).all()):
        raise CalibrationError("spreads that are negative or no number", "finite spreads >= 0")
    error = np.abs(y - c)
    with np.errstate(divide="ignore", invalid="ignore"):
        return reduced(np.where(error == 0, 0.0, error / s))


def sharpness_cp_curve(
    truth: npt.ArrayLike, centre: npt.ArrayLike, spread: npt.ArrayLike, scale: float
) -> SharpnessCurve:
    """The curve (Sharpness(k), CP(k)) of one side, traced by the multiplier ``k``; definitions as in the module's head.

    Ties give a vertical piece; zero spreads give nodes at infinity (see :func:`normalised_error`).

    Args:
        truth, centre, spread: shape ``(..., n)``, SBR; leading axes are samples of their own.
        scale: largest SBR of the model's scale (6.84 in the paper).

    Raises:
        CohortError, CalibrationError: as :func:`normalised_error`.
        ConfigError: a scale that is not positive.

    Example:
        >>> curve = sharpness_cp_curve([1.0, 2.0], [1.5, 2.0], [0.5, 1.5], scale=10.0)
        >>> curve.k.tolist(), curve.cp.tolist(), curve.sharpness.tolist()
        ([0.0, 0.0, 1.0], [0.0, 0.5, 1.0], [1.0, 1.0, 0.9])
    """
    _check_scale(scale)
    nodes = np.sort(normalised_error(truth, centre, spread), axis=-1)
    n = nodes.shape[-1]
    k = np.concatenate([np.zeros((*nodes.shape[:-1], 1)), nodes], axis=-1)
    unit_loss = reduced(np.mean(np.asarray(spread, dtype=np.float64), axis=-1) / scale)
    cp = np.broadcast_to(np.arange(n + 1) / n, k.shape)
    return SharpnessCurve(k, cp, _sharpness_at(k, unit_loss[..., None]), unit_loss)


def k_at_cp(curve: SharpnessCurve, cp: float = 0.95) -> Array:
    """The smallest multiplier at which the (interpolated) curve reaches ``cp``; inf where none does. Shape ``(...)``.

    Raises:
        ConfigError: ``cp`` outside 0..1.
    """
    check_level(cp)
    n = curve.k.shape[-1] - 1
    position = round(cp * n, 9)  # 0.55 * 20 must fall on a node, not 2e-15 beyond it
    below = int(position)
    if below == position:
        return reduced(curve.k[..., below])
    low, high = curve.k[..., below], curve.k[..., below + 1]
    with np.errstate(invalid="ignore"):
        return reduced(np.where(np.isfinite(high), low + (position - below) * (high - low), np.inf))


def sharpness_at_cp(curve: SharpnessCurve, cp: float = 0.95) -> Array:
    """ "Sharpness @ CP": the Sharpness where the curve reaches ``cp``. Shape ``(...)``.

    -inf where no multiplier covers so many (too many zero spreads).

    Raises:
        ConfigError: ``cp`` outside 0..1.
    """
    return _sharpness_at(k_at_cp(curve, cp), curve.unit_loss)


def point_at_k(curve: SharpnessCurve, k: float) -> CurvePoint:
    """Sharpness and interpolated CP of ONE curve at a multiplier; at a tie the CP with all tied cases covered.

    Raises:
        ConfigError: ``k`` negative, or a block of curves instead of one.
    """
    if not k >= 0 or curve.k.ndim != 1:
        raise ConfigError(f"k = {k} on a curve of shape {curve.k.shape}", "k >= 0 and one curve, shape (n + 1,)")
    return CurvePoint(
        float(k), float(_sharpness_at(reduced(k), curve.unit_loss)), float(_cp_at(curve, reduced([k]), "right")[0])
    )


def optimal_point(
    right: SharpnessCurve, left: SharpnessCurve, criterion: Criterion = "ideal_distance", joint: bool = True
) -> OptimalPoint:
    """The "Optimal (Sharpness, CP)" of the paper's table, reconstructed.

    With ``joint`` the averages of Sharpness and of CP over both sides are judged at one common ``k``, and each side
    is reported at it. The best ``k`` is exact: on each piece between nodes the criterion has a closed form.

    Args:
        right, left: one curve each, shape ``(n + 1,)``.
        criterion: ``ideal_distance``: least distance to (1, 1), the only one of these that is compatible with the
            published values without a coarse grid of ``k``; ``balanced``: largest minimum of the two;
            ``product``; ``f1``: harmonic mean.
        joint: one ``k`` for both sides.

    Raises:
        ConfigError: an unknown criterion, or blocks of curves.
    """
    if criterion not in _OBJECTIVE:
        raise ConfigError(f"the criterion '{criterion}'", f"one of {', '.join(get_args(Criterion))}")
    if joint:
        k_right = k_left = _best_k((right, left), criterion)
    else:
        k_right, k_left = _best_k((right,), criterion), _best_k((left,), criterion)
    r, s = point_at_k(right, k_right), point_at_k(left, k_left)
    average = CurvePoint((r.k + s.k) / 2, (r.sharpness + s.sharpness) / 2, (r.cp + s.cp) / 2)
    return OptimalPoint(PerSide(r, s, average), criterion, joint)


def _harmonic(sharp: Array, cp: Array) -> Array:
    with np.errstate(divide="ignore", invalid="ignore"):
        return reduced(np.where((sharp > 0) & (cp > 0), 2 * sharp * cp / (sharp + cp), np.minimum(sharp, 0.0)))


# What to make large, as a function of (Sharpness, CP).
_OBJECTIVE: Final[dict[str, Callable[[Array, Array], Array]]] = {
    "ideal_distance": lambda sharp, cp: reduced(-np.hypot(1 - sharp, 1 - cp)),
    "balanced": lambda sharp, cp: reduced(np.minimum(sharp, cp)),
    "product": lambda sharp, cp: reduced(sharp * cp),
    "f1": _harmonic,
}

# Where its derivative vanishes (balanced: where the two cross) on the piece Sharpness = s - a t, CP = p + q t.
_STATIONARY: Final[dict[str, Callable[[Array, Array, Array, Array], Array]]] = {
    "ideal_distance": lambda s, p, a, q: reduced((q * (1 - p) - a * (1 - s)) / (a**2 + q**2)),
    "balanced": lambda s, p, a, q: reduced((s - p) / (a + q)),
    "product": lambda s, p, a, q: reduced((q * s - a * p) / (2 * a * q)),
    "f1": lambda s, p, a, q: reduced((np.sqrt(q) * s - np.sqrt(a) * p) / (q * np.sqrt(a) + a * np.sqrt(q))),
}


def _best_k(curves: Sequence[SharpnessCurve], criterion: Criterion) -> float:
    if any(c.k.ndim != 1 for c in curves):
        raise ConfigError("a block of curves", "one curve a side, shape (n + 1,)")
    knots = np.unique(np.concatenate([c.k[np.isfinite(c.k)] for c in curves]))
    loss = reduced(np.mean([c.unit_loss for c in curves]))
    candidates = knots
    if knots.size > 1:
        start, length = knots[:-1], np.diff(knots)
        cp_start = _mean_cp(curves, start, "right")
        rise = np.maximum((_mean_cp(curves, knots[1:], "left") - cp_start) / length, 0.0)
        with np.errstate(divide="ignore", invalid="ignore"):
            step = _STATIONARY[criterion](1 - start * loss, cp_start, loss, rise)
        inside = start + np.clip(np.nan_to_num(step, nan=0.0), 0.0, length)
        candidates = np.unique(np.concatenate([knots, inside]))
    score = _OBJECTIVE[criterion](1 - candidates * loss, _mean_cp(curves, candidates, "right"))
    return float(candidates[np.argmax(score)])


def _mean_cp(curves: Sequence[SharpnessCurve], k: Array, limit: Literal["left", "right"]) -> Array:
    return reduced(np.mean([_cp_at(c, k, limit) for c in curves], axis=0))


def _cp_at(curve: SharpnessCurve, k: Array, limit: Literal["left", "right"]) -> Array:
    """CP at multipliers ``k``, linear between nodes; at a tie (a jump) its limit from the left or the right."""
    n = curve.k.size - 1
    below = np.clip(np.searchsorted(curve.k, k, side=limit) - 1, 0, n)
    above = np.minimum(below + 1, n)
    low, high = curve.k[below], curve.k[above]
    with np.errstate(divide="ignore", invalid="ignore"):
        share = np.where((below < n) & (high > low) & np.isfinite(high), (k - low) / (high - low), 0.0)
    return reduced((below + share) / n)


def _sharpness_at(k: Array, unit_loss: Array) -> Array:
    with np.errstate(invalid="ignore"):
        return reduced(np.where(np.isfinite(k), 1.0 - k * unit_loss, -np.inf))


# -- Proper scores: one value a case, smaller is better -----------------------------------------------------------


def interval_score(lower: npt.ArrayLike, upper: npt.ArrayLike, truth: npt.ArrayLike, level: float = 0.95) -> Array:
    """Interval score (Winkler): full width plus ``2 / alpha`` times the distance by which a case is missed, SBR.

    Source: Gneiting and Raftery, J Am Stat Assoc 2007, 102, 359, section 6.2; ``alpha = 1 - level``.

    Args:
        lower, upper, truth: shape ``(..., n)``, SBR.
        level: nominal coverage of the intervals.

    Returns:
        Shape ``(..., n)``; smaller is better.

    Raises:
        CohortError, CalibrationError: as :func:`coverage`.
        ConfigError: a level outside 0..1.
    """
    low, high, y = cases(lower, upper, truth)
    _check_ends(low, high)
    check_level(level)
    missed = np.maximum(low - y, 0.0) + np.maximum(y - high, 0.0)
    return reduced(high - low + 2.0 / (1.0 - level) * missed)


def crps_gaussian(truth: npt.ArrayLike, mean: npt.ArrayLike, sd: npt.ArrayLike) -> Array:
    """Continuous ranked probability score of a Gaussian prediction, SBR; ``|truth - mean|`` where ``sd`` is 0.

    Source: Gneiting and Raftery 2007, section 4.2.

    Args:
        truth, mean, sd: shape ``(..., n)``, SBR.

    Returns:
        Shape ``(..., n)``; smaller is better.

    Raises:
        CohortError: shapes that differ.
        CalibrationError: a negative or undefined ``sd``.
    """
    y, m, s = cases(truth, mean, sd)
    if not (s >= 0).all():
        raise CalibrationError("standard deviations that are negative or no number", "values >= 0")
    with np.errstate(divide="ignore", invalid="ignore"):
        z = (y - m) / s
        density = np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi)
        score = s * (z * (2 * special.ndtr(z) - 1) + 2 * density - 1 / np.sqrt(np.pi))
    return reduced(np.where(s > 0, score, np.abs(y - m)))


def crps_sample(truth: npt.ArrayLike, samples: npt.ArrayLike) -> Array:
    """Continuous ranked probability score of the empirical distribution of samples, SBR.

    ``mean |x - y| - mean |x - x'| / 2`` over all pairs of the ``T`` samples, itself paired included.

    Source: Gneiting and Raftery 2007, equation 21; the second mean from order statistics, ``O(T log T)``.

    Args:
        truth: shape ``(..., n)``, SBR.
        samples: shape ``(..., n, T)``, SBR.

    Returns:
        Shape ``(..., n)``; smaller is better.

    Raises:
        CohortError: shapes that do not fit.
    """
    (y,), (x,) = cases(truth), cases(samples)
    if x.shape[:-1] != y.shape:
        raise CohortError(f"samples of shape {x.shape} for a truth of shape {y.shape}", "shape (..., n, T)")
    t = x.shape[-1]
    weight = 2 * np.arange(1, t + 1) - t - 1
    spread = np.sum(weight * np.sort(x, axis=-1), axis=-1) / t**2
    return reduced(np.mean(np.abs(x - y[..., None]), axis=-1) - spread)


def _check_ends(low: Array, high: Array) -> None:
    if (low > high).any():
        raise CalibrationError("an interval whose lower end lies above its upper end", "lower <= upper")


def _check_scale(scale: float) -> None:
    if not scale > 0:
        raise ConfigError(f"an SBR scale of {scale}", "a positive number, for example 6.84")
