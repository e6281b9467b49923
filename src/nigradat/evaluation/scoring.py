"""From predictions to scores with intervals over patients."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from nigradat.anatomy import Side
from nigradat.evaluation import weighted
from nigradat.evaluation.result import (
    Array,
    Coverage,
    Estimates,
    Intervals,
    KeptPromise,
    Role,
    Rows,
    Scored,
    Subjects,
    Trace,
)
from nigradat.evaluation.weighted import Weighted
from nigradat.metrics import (
    Estimate,
    PerSide,
    bca_many,
    beta_binomial_range,
    clopper_pearson,
    interval_score,
    optimal_point,
    sharpness_cp_curve,
)

Mask = npt.NDArray[np.bool_]
CONFIDENCE: Final = 0.95
CENTRAL: Final = 0.999  # of the range that the coverage of a valid interval is compared with
COMPARED: Final = ("pearson_r", "rmse", "mae")
Derive = Callable[[Mapping[str, Array]], Mapping[str, Array]]
_PARTS: Final = (*(side.value for side in Side), "average")


@dataclass(frozen=True)
class Resampling:
    """How intervals over patients are drawn; the same draws for every method, so differences are paired."""

    resamples: int = 2000
    seed: int = 0
    confidence: float = CONFIDENCE

    def of_sides(
        self, sides: Mapping[Side, Weighted], patient_of_visit: Rows, derive: Derive | None = None
    ) -> dict[str, PerSide[Estimate | None]]:
        """Scores of the answered sides and, where both are, of their average.

        Args:
            sides: the scores of each answered side.
            patient_of_visit: see :class:`~nigradat.evaluation.result.Subjects`.
            derive: makes the final scores of right, of left and of the average from the given ones of each.
        """

        def statistics(index: npt.NDArray[np.intp]) -> dict[str, Array]:
            weights = weighted.patient_weights(index, patient_of_visit)
            found = {side.value: scores(weights) for side, scores in sides.items()}
            if len(found) == 2:
                right, left = found.values()
                with np.errstate(invalid="ignore"):  # -inf and inf on the two sides of a hopeless resample
                    found["average"] = {name: (right[name] + left[name]) / 2 for name in right}
            if derive is not None:
                found = {part: derive(scores) for part, scores in found.items()}
            return {f"{name}/{part}": value for part, scores in found.items() for name, value in scores.items()}

        if not sides:
            return {}
        patients = int(patient_of_visit.max()) + 1
        done = bca_many(statistics, patients, seed=self.seed, level=self.confidence, resamples=self.resamples)
        names = dict.fromkeys(key.rpartition("/")[0] for key in done)
        return {name: PerSide(*(done.get(f"{name}/{part}") for part in _PARTS)) for name in names}


def score(
    name: str,
    title: str,
    role: Role,
    predicted: Array,
    subjects: Subjects,
    how: Resampling,
    *,
    traces: Sequence[Trace] = (),
    intervals: Sequence[Intervals] = (),
) -> Scored:
    """A method with its errors and correlations.

    Args:
        name, title, role: see :class:`~nigradat.evaluation.result.Scored`.
        predicted: ``(n, 2)`` SBR; nan for a side without an answer.
        subjects: who was predicted.
        how: resampling.
        traces, intervals: from :func:`trace` and :func:`judge_intervals`.
    """
    sides = {
        side: weighted.errors(subjects.truth[:, side.index], predicted[:, side.index])
        for side in Side
        if np.isfinite(predicted[:, side.index]).all()
    }
    scores = how.of_sides(sides, subjects.patient_of_visit)
    return Scored(name, title, role, predicted, scores, tuple(traces), tuple(intervals))


def trace(
    name: str, title: str, centre: Array, spread: Array, subjects: Subjects, scale: float, how: Resampling, cp: float
) -> Trace:
    """The sharpness-CP curve of ``centre +- k spread`` on the tested patients, its optimum and its Sharpness at ``cp``.

    Args:
        name, title: see :class:`~nigradat.evaluation.result.Trace`.
        centre, spread: ``(n, 2)`` SBR; nan for a side without an answer.
        subjects: who was predicted.
        scale: largest SBR of the model's scale.
        how: resampling.
        cp: coverage.
    """
    y = subjects.truth
    answered = [s for s in Side if np.isfinite(centre[:, s.index]).all() and np.isfinite(spread[:, s.index]).all()]
    curves = {s: sharpness_cp_curve(y[:, s.index], centre[:, s.index], spread[:, s.index], scale) for s in answered}
    parts = {
        s: weighted.sharpness_at_cp(y[:, s.index], centre[:, s.index], spread[:, s.index], scale, cp) for s in answered
    }
    optimal = optimal_point(curves[Side.RIGHT], curves[Side.LEFT]) if len(curves) == 2 else None
    scores = how.of_sides(parts, subjects.patient_of_visit)
    return Trace(name, title, centre, spread, curves, optimal, scores, cp)


def judge_intervals(
    title: str,
    lower: Array,
    upper: Array,
    subjects: Subjects,
    scale: float,
    how: Resampling,
    *,
    level: float,
    promise: str,
    calibrated_on: int | None = None,
    conformal: bool = False,
    multiplier: Array | None = None,
) -> Intervals:
    """Coverage, width and interval score of intervals that were fixed before.

    Args:
        title, promise, calibrated_on, multiplier: see :class:`~nigradat.evaluation.result.Intervals`.
        lower, upper: ``(n, 2)`` SBR; nan for a side without an answer.
        subjects: who was predicted.
        scale: largest SBR of the model's scale.
        how: resampling.
        level: nominal.
        conformal: the rule is split conformal, so the coverage has a known distribution.
    """
    y, first = subjects.truth, subjects.first_visits
    answered = [s for s in Side if np.isfinite(lower[:, s.index]).all() and np.isfinite(upper[:, s.index]).all()]
    coverage: dict[Side, Coverage] = {}
    parts: dict[Side, Weighted] = {}
    for side in answered:
        low, high, truth = lower[:, side.index], upper[:, side.index], y[:, side.index]
        covered = int(np.count_nonzero(((low <= truth) & (truth <= high))[first]))
        coverage[side] = Coverage(covered, len(first), *clopper_pearson(covered, len(first), how.confidence))
        parts[side] = weighted.means(
            mpiw=high - low,
            sharpness=1.0 - (high - low) / (2.0 * scale),
            interval_score=interval_score(low, high, truth, level),
        )
    expected = None
    if conformal and calibrated_on:
        expected = beta_binomial_range(calibrated_on, len(first), level, CENTRAL)
    k = None if multiplier is None else (float(multiplier[0]), float(multiplier[1]))
    scores = how.of_sides(parts, subjects.patient_of_visit)
    return Intervals(title, level, lower, upper, coverage, expected, calibrated_on, k, promise, scores)


def keep_promise(
    about: str, covered: Mask, subjects: Subjects, how: Resampling, *, level: float, calibrated_on: int, among: Mask
) -> KeptPromise | None:
    """How often a promise was kept; None where nobody tested is concerned.

    Args:
        about: whom it concerns, in words.
        covered: ``(n,)``, whether it was kept for a visit.
        subjects: who was predicted; the first visit of each patient counts.
        how: confidence.
        level: promised.
        calibrated_on: patients that it rests on.
        among: ``(n,)``, whom it concerns.
    """
    seen = covered[subjects.first_visits][among[subjects.first_visits]]
    if len(seen) == 0:
        return None
    k, n = int(np.count_nonzero(seen)), len(seen)
    expected = beta_binomial_range(calibrated_on, n, level, CENTRAL)
    return KeptPromise(about, Coverage(k, n, *clopper_pearson(k, n, how.confidence)), calibrated_on, expected)


def compare(
    first: Array, second: Array, subjects: Subjects, how: Resampling, scores: Sequence[str] = COMPARED
) -> Estimates:
    """``first - second`` in each score, both scored on the same resamples of patients.

    Args:
        first, second: predictions ``(n, 2)`` SBR; a side that either leaves out is None in the result.
        subjects: who was predicted.
        how: resampling.
        scores: of :func:`nigradat.evaluation.weighted.moment_errors`.
    """

    def difference(a: Weighted, b: Weighted) -> Weighted:
        def scored(weights: Array) -> dict[str, Array]:
            x, y = a(weights), b(weights)
            return {name: x[name] - y[name] for name in scores}

        return scored

    return _together((first, second), difference, subjects, how)


def skill(model: Array, single: Array, pair: Array, subjects: Subjects, how: Resampling) -> Estimates:
    """The model against the oracles on the same patients and the same resamples.

    * ``r_ratio``: R / R of the oracle that sees its own side (the ceiling of a net that predicts each side from its
      own patch);
    * ``r2_ratio``: R^2 / R^2 of that oracle;
    * ``excess_mse``: MSE less that oracle's, SBR^2;
    * ``headroom``: (R - R_single) / (R_pair - R_single), above 0 only for a method that uses the other side.

    "average" is made of the averages over both sides: the ratio of average R, not the average of two ratios.

    Args:
        model, single, pair: predictions ``(n, 2)`` SBR.
        subjects: who was predicted.
        how: resampling.
    """

    def all_three(*methods: Weighted) -> Weighted:
        def scored(weights: Array) -> dict[str, Array]:
            found = [method(weights) for method in methods]
            return {f"{name}{i}": scores[name] for i, scores in enumerate(found) for name in ("pearson_r", "mse")}

        return scored

    def against(scores: Mapping[str, Array]) -> dict[str, Array]:
        r, single_r, pair_r = (scores[f"pearson_r{i}"] for i in range(3))
        with np.errstate(divide="ignore", invalid="ignore"):
            return {
                "r_ratio": r / single_r,
                "r2_ratio": (r / single_r) ** 2,
                "excess_mse": scores["mse0"] - scores["mse1"],
                "headroom": (r - single_r) / (pair_r - single_r),
            }

    return _together((model, single, pair), all_three, subjects, how, against)


def _together(
    predictions: Sequence[Array],
    combine: Callable[..., Weighted],
    subjects: Subjects,
    how: Resampling,
    derive: Derive | None = None,
) -> Estimates:
    """A score made of several methods' scores on one resample, per side."""
    sides = {
        s: combine(*(weighted.moment_errors(subjects.truth[:, s.index], p[:, s.index]) for p in predictions))
        for s in Side
        if all(np.isfinite(p[:, s.index]).all() for p in predictions)
    }
    return how.of_sides(sides, subjects.patient_of_visit, derive)
