"""The scores of :mod:`nigradat.metrics` for weighted cases: what a bootstrap of many scores is made of.

A resample is how often each patient was drawn. With weights ``(n, B)`` a block of resamples costs one matrix product
for all moments and running sums for the ranks; nothing is gathered or sorted resample by resample. Cases come first, so
that putting them in another order moves whole rows.
With equal weights every function here agrees with its namesake in :mod:`nigradat.metrics`; the tests hold them to it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Final

import numpy as np
import numpy.typing as npt

from nigradat.anatomy import Side
from nigradat.evaluation.predictions import Predictions
from nigradat.metrics import asymmetry_index, interval_score, normalised_error

Array = npt.NDArray[np.float64]
Rows = npt.NDArray[np.intp]
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
AGREEMENT_SCORES: Final = ("r2", "calibration_intercept", "icc_agreement", "icc_consistency")
"""Further scores of :func:`moment_errors`; ICC(2,1) and ICC(3,1) of truth and prediction as two raters."""
LOGGED: Final = ("rmse", "pearson_r")
"""Scores that :func:`fit_scores` makes on log SBR as well, called ``log_rmse`` and ``log_pearson_r``."""
SCORES: Final = (*ERROR_SCORES, *AGREEMENT_SCORES, *(f"log_{name}" for name in LOGGED))
"""Scores of every part of :func:`fit_scores`."""
PAIR_SCORES: Final = ("asymmetry_error", "worse_side_agreement")
"""Scores that need both sides: see :mod:`nigradat.metrics.asymmetry`."""


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
    """The scores that are made of means: :data:`ERROR_SCORES` but ``median_ae`` and ``spearman``, and
    :data:`AGREEMENT_SCORES`.

    The two ICC are those of Shrout and Fleiss, Psychol Bull 1979, 86, 420, written out for two raters.
    """
    y, p = np.asarray(truth, dtype=np.float64), np.asarray(predicted, dtype=np.float64)
    d = p - y
    # moments about the means of all cases, so that little is lost to cancellation
    y_mean, p_mean = float(y.mean()), float(p.mean())
    yc, pc = y - y_mean, p - p_mean
    moments = np.stack([yc, pc, yc**2, pc**2, yc * pc, np.abs(d), d, d**2])
    # a variance below this is rounding: the resample is constant
    least_y, least_p = (1e-13 * float(np.mean(c**2)) if np.ptp(v) > 0 else np.inf for c, v in ((yc, y), (pc, p)))
    shift = y_mean - p_mean

    def scores(weights: Array) -> dict[str, Array]:
        n = weights.sum(axis=0)
        my, mp, myy, mpp, myp, mad, md, msd = moments @ weights / n
        cov, var_y, var_p = myp - my * mp, myy - my**2, mpp - mp**2
        var_y, var_p = np.where(var_y > least_y, var_y, np.nan), np.where(var_p > least_p, var_p, np.nan)
        with np.errstate(divide="ignore", invalid="ignore"):
            total = np.nan_to_num(var_y) + np.nan_to_num(var_p)
            concordance = 2 * cov / (total + (my - mp + shift) ** 2)
            # mean squares of the analysis of variance have n - 1 below, the moments here n
            unbiased = n / (n - 1)
            between_raters = (md**2 - unbiased * (total - 2 * cov) / n) / unbiased
            slope = cov / var_p
            either = np.where(total > 0, total, np.nan)
            agreement, consistency = 2 * cov / (either + between_raters), 2 * cov / either
        return {
            "rmse": np.sqrt(msd),
            "mse": msd,
            "mae": mad,
            "bias": md,
            "pearson_r": np.clip(cov / np.sqrt(var_y * var_p), -1.0, 1.0),
            "calibration_slope": slope,
            "ccc": concordance,
            "r2": 1 - msd / var_y,
            "calibration_intercept": y_mean + my - slope * (p_mean + mp),
            "icc_agreement": agreement,
            "icc_consistency": consistency,
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
    own = np.asarray(spread, dtype=np.float64)

    def half_width(k: Array, weights: Array) -> Array:
        return np.asarray(k * (own @ weights / weights.sum(axis=0)))

    return sharpness_of_any_at_cp(normalised_error(truth, centre, spread), half_width, scale, cp)


def sharpness_of_any_at_cp(
    k_of_cover: npt.ArrayLike, half_width: Callable[[Array, Array], Array], scale: float, cp: float
) -> Weighted:
    """The same for intervals whose width is not proportional to k.

    Args:
        k_of_cover: ``(n,)``, from which multiplier on a case is covered.
        half_width: of multipliers ``(m,)`` and weights ``(n, m)``: the mean half-width ``(m,)``, SBR.
        scale, cp: see :func:`sharpness_at_cp`.
    """
    nodes = OrderStatistics(np.asarray(k_of_cover, dtype=np.float64))

    def scores(weights: Array) -> dict[str, Array]:
        n = weights.sum(axis=0)
        position = np.round(cp * n, 9)
        below = np.floor(position)
        low, high = nodes(weights, below, np.minimum(below + 1, n))
        low = np.where(below > 0, low, 0.0)
        with np.errstate(invalid="ignore"):
            k = np.where(position > below, low + (position - below) * (high - low), low)
            k = np.where(np.isnan(k), np.inf, k)
            value = np.where(np.isfinite(k), 1.0 - half_width(k, weights) / scale, -np.inf)
        return {"sharpness_at_cp": value}

    return scores


def means(**columns: npt.ArrayLike) -> Weighted:
    """Plain means of named columns ``(n,)``."""
    table = np.stack([np.asarray(c, dtype=np.float64) for c in columns.values()])

    def scores(weights: Array) -> dict[str, Array]:
        return dict(zip(columns, table @ weights / weights.sum(axis=0), strict=True))

    return scores


def ratio(name: str, hits: npt.ArrayLike, among: npt.ArrayLike) -> Weighted:
    """Share of the cases ``among`` that are ``hits`` as well, both bool ``(n,)``; nan where there is none."""
    of = np.asarray(among, dtype=bool)
    table = np.stack([of & np.asarray(hits, dtype=bool), of]).astype(np.float64)

    def scores(weights: Array) -> dict[str, Array]:
        hit, all_of_them = table @ weights
        with np.errstate(divide="ignore", invalid="ignore"):
            return {name: hit / all_of_them}

    return scores


def auc(positive: npt.ArrayLike, score: npt.ArrayLike) -> Weighted:
    """Area under the ROC curve: the share of (positive, negative) pairs in which the positive has the higher score,
    ties half; nan where either is missing.

    Args:
        positive: bool ``(n,)``.
        score: ``(n,)``, high for positive.
    """
    is_positive = np.asarray(positive, dtype=bool)
    rank = Midranks(np.asarray(score, dtype=np.float64))

    def scores(weights: Array) -> dict[str, Array]:
        of_positive = weights * is_positive[:, None]
        m = of_positive.sum(axis=0)
        rank_sum = np.einsum("nb,nb->b", of_positive, rank(weights))
        with np.errstate(divide="ignore", invalid="ignore"):
            return {"auc": (rank_sum - m * (m + 1) / 2) / (m * (weights.sum(axis=0) - m))}

    return scores


def binary(truth: npt.ArrayLike, predicted: npt.ArrayLike, threshold: float) -> Weighted:
    """``accuracy``, ``sensitivity``, ``specificity`` and ``auc`` of low uptake, SBR < ``threshold``, on one side.

    Args:
        truth, predicted: ``(n,)`` SBR, finite.
        threshold: SBR.
    """
    y, p = np.asarray(truth, dtype=np.float64), np.asarray(predicted, dtype=np.float64)
    low, called_low = y < threshold, p < threshold
    parts = (
        ratio("accuracy", low == called_low, np.ones(len(y), dtype=bool)),
        ratio("sensitivity", called_low, low),
        ratio("specificity", ~called_low, ~low),
        auc(low, -p),
    )
    return together(*parts)


def together(*parts: Weighted) -> Weighted:
    """Several functions of the same weights as one."""

    def scores(weights: Array) -> dict[str, Array]:
        return {name: value for part in parts for name, value in part(weights).items()}

    return scores


def of_rows(scores: Weighted, rows: Rows) -> Weighted:
    """Scores of some of the cases, taking the weights of all; nan in a resample that draws none of them.

    Args:
        scores: takes weights ``(len(rows), B)``.
        rows: of the weights that it is given; a row may stand twice (both sides of a visit).
    """

    def taken(weights: Array) -> dict[str, Array]:
        mine = weights[rows]
        drawn = mine.any(axis=0)
        if drawn.all():
            return dict(scores(mine))
        out = {}
        for name, value in scores(np.where(drawn, mine, 1.0)).items():  # weights without any case have no ranks
            out[name] = np.where(drawn, value, np.nan)
        return out

    return taken


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
        drawn = weights[self.order]
        if len(self.starts) < len(self.order):
            drawn = np.add.reduceat(drawn, self.starts, axis=0)
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


# -- All scores of one fit ----------------------------------------------------------------------------------------


def fit_scores(answers: Predictions, level: float, threshold: float | None, scale: float) -> Weighted:
    """Every score of one fit by ``name/part``; those of its spreads and intervals by ``mode:name/part``.

    Parts are ``right``, ``left``, ``average`` (mean of the two values), ``pooled`` (both sides' visits as cases) and
    ``patient`` (means over both sides of each visit); for a one-sided method its side only. A side's cases are the
    visits that are answered.

    * :data:`SCORES` of every part, :data:`PAIR_SCORES` of the part ``patient``;
    * with a threshold those of :func:`binary`, not of the part ``patient``;
    * ``sharpness_at_cp`` of each spread, ``mpiw``, ``sharpness`` and ``interval_score`` of each mode's intervals, of
      right, left and average.

    Args:
        answers: of the fit.
        level: CP at which Sharpness is read off, and nominal level of the intervals.
        threshold: of low uptake, SBR; None for no binary scores.
        scale: largest SBR of the model's scale.
    """
    y, p = answers.truth, answers.predicted
    visit = np.arange(len(y))
    parts: dict[str, list[Weighted]] = {}
    for side in Side:
        i = side.index
        cases = _of_cases(y[:, i], p[:, i], visit, threshold)
        parts[side.value] = [*cases, *_of_spreads(answers, i, level, scale), *_of_intervals(answers, i, level, scale)]
    if np.isfinite(p).any(axis=0).all():
        parts["pooled"] = _of_cases(y.T.ravel(), p.T.ravel(), np.tile(visit, 2), threshold)
        parts["patient"] = [*_of_cases(y.mean(axis=1), p.mean(axis=1), visit, None), *_of_pairs(y, p)]
    found = {part: together(*several) for part, several in parts.items() if several}

    def scores(weights: Array) -> dict[str, Array]:
        values = {part: score(weights) for part, score in found.items()}
        if "right" in values and "left" in values:
            right, left = values["right"], values["left"]
            values["average"] = {name: (right[name] + left[name]) / 2 for name in right if name in left}
        return {f"{name}/{part}": value for part, named in values.items() for name, value in named.items()}

    return scores


def _of_cases(y: Array, p: Array, visit: Rows, threshold: float | None) -> list[Weighted]:
    """Errors of the answered cases, on log SBR of those that have a logarithm, and binary agreement.

    Args:
        y, p: ``(n,)`` SBR; nan in ``p`` for no answer.
        visit: ``(n,)``, whose weight each case has.
        threshold: None for no binary agreement.
    """
    answered = np.isfinite(p)
    has_log = answered & (p > 0) & (y > 0)
    if not answered.any():
        return []
    parts = [moment_errors(y[answered], p[answered]), rank_errors(y[answered], p[answered])]
    if threshold is not None:
        parts.append(binary(y[answered], p[answered], threshold))
    found = [of_rows(together(*parts), visit[answered])]
    if has_log.any():
        logs = moment_errors(np.log(y[has_log]), np.log(p[has_log]))

        def logged(weights: Array) -> dict[str, Array]:
            values = logs(weights)
            return {f"log_{name}": values[name] for name in LOGGED}

        found.append(of_rows(logged, visit[has_log]))
    return found


def _of_pairs(y: Array, p: Array) -> list[Weighted]:
    """:data:`PAIR_SCORES`; as in :mod:`nigradat.metrics.asymmetry`, but a prediction without an index is left out."""
    off = np.abs(asymmetry_index(p[:, 0], p[:, 1]) - asymmetry_index(y[:, 0], y[:, 1]))
    has_index = np.flatnonzero(np.isfinite(off))
    true, guess = y[:, 0] - y[:, 1], p[:, 0] - p[:, 1]
    unequal = np.flatnonzero((true != 0) & np.isfinite(guess))
    named = (1 + np.sign(true) * np.sign(guess)) / 2
    found = []
    if has_index.size:
        found.append(of_rows(means(asymmetry_error=off[has_index]), has_index))
    if unequal.size:
        found.append(of_rows(means(worse_side_agreement=named[unequal]), unequal))
    return found


def _of_spreads(answers: Predictions, side: int, level: float, scale: float) -> Iterator[Weighted]:
    for mode, (centre, spread) in answers.spreads.items():
        y, c, s = answers.truth[:, side], centre[:, side], spread[:, side]
        rows = np.flatnonzero(np.isfinite(c) & np.isfinite(s))
        if rows.size:
            yield _of_mode(mode, of_rows(sharpness_at_cp(y[rows], c[rows], s[rows], scale, level), rows))


def _of_intervals(answers: Predictions, side: int, level: float, scale: float) -> Iterator[Weighted]:
    for mode, (lower, upper) in answers.intervals.items():
        rows = np.flatnonzero(np.isfinite(lower[:, side]) & np.isfinite(upper[:, side]))
        if rows.size:
            y, low, high = answers.truth[rows, side], lower[rows, side], upper[rows, side]
            judged = means(
                mpiw=high - low,
                sharpness=1.0 - (high - low) / (2.0 * scale),
                interval_score=interval_score(low, high, y, level),
            )
            yield _of_mode(mode, of_rows(judged, rows))


def _of_mode(mode: str, scores: Weighted) -> Weighted:
    return lambda weights: {f"{mode}:{name}": value for name, value in scores(weights).items()}
