"""What a candidate for the symmetric interval has to show before it may be the default, measured on some patients.

Some properties hold by construction, and the tests hold every candidate to them: exchanged inputs give exchanged
intervals (1), identical patches give plain MC's interval (2: s1, s3, s6), coverage and width rise with k (3), the same
seed gives the same result (4). Here stands what only data can say. Numbers in brackets count on from there.

* (5) *No neighbour, no gain.* With the other side taken from another patient the sides are independent, and what a
  candidate gained over plain MC has to vanish; a gain that stays comes from elsewhere.
* (6) The widths rank the errors: Spearman correlation above 0.
* (7) The interval score is lower than that of plain MC, not Sharpness @ CP alone.
* (8) The gain in Sharpness @ CP over plain MC, paired over patients.
* (9) Asymmetric patients keep their coverage: pooling the sides must not cost it there.
* (10) The conformal interval covers as often as it promises.

Besides: how much of the spread is Monte-Carlo noise, which more draws would take away, how much it differs between
patients at all, and how much of the error it accounts for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from nigradat.anatomy import Side
from nigradat.errors import ConfigError
from nigradat.evaluation import weighted
from nigradat.evaluation.groups import ABOVE, GroupCoverage
from nigradat.evaluation.judging import Judged
from nigradat.evaluation.result import Array, Coverage, Estimates, Rows, Subjects
from nigradat.evaluation.spreads import SpreadComparison
from nigradat.evaluation.weighted import Weighted
from nigradat.metrics import interval_score
from nigradat.uncertainty.symmetric_mc import MODES, Spread, SymmetricMode, check_mode, symmetric_spread

PLAIN: Final = "mc"
_SPLITS: Final = 20  # of the draws into halves
_STREAM: Final = 0x7661


@dataclass(frozen=True, eq=False)
class Validity:
    """What was measured of one candidate; differences are candidate less plain MC, paired over patients.

    Attributes:
        name, title: of the candidate.
        gain: (8) in Sharpness @ CP; that of s5 from its cut intervals.
        gain_of_strangers: (5) the same with the other side of another patient.
        correlation: (6) of width and absolute error.
        interval_score: (7) difference in it, SBR; below 0 is better.
        asymmetric: (9) coverage of the conformal interval by side among asymmetric patients.
        coverage: (10) of the conformal interval, by side.
        noise_share: of the variance of log S over patients, what the finite number of draws makes; by side.
        variation: SD of S over patients, over its mean; by side. 0 would be a constant width.
        error_share: mean S^2 over the mean squared error; by side. 1 would be a spread as large as the error.
    """

    name: str
    title: str
    gain: Estimates
    gain_of_strangers: Estimates
    correlation: Estimates
    interval_score: Estimates
    asymmetric: Mapping[Side, Coverage]
    coverage: Mapping[Side, Coverage]
    noise_share: Mapping[Side, float]
    variation: Mapping[Side, float]
    error_share: Mapping[Side, float]


def validity(comparison: SpreadComparison) -> tuple[Validity, ...]:
    """Measure plain MC and every candidate that was compared.

    Args:
        comparison: from :func:`~nigradat.evaluation.spreads.compare_spreads`.

    Returns:
        Plain MC first, against which the differences are.
    """
    plain = comparison[PLAIN]
    return tuple(_measure(comparison, plain, comparison[mode]) for mode in MODES if mode in comparison)


def strangers(subjects: Subjects, seed: int) -> Rows:
    """For each visit one of another patient, ``(n,)``: a random order of the patients, each paired with the next.

    Raises:
        ConfigError: fewer than two patients.
    """
    if subjects.n_patients < 2:
        raise ConfigError(f"{subjects.n_patients} patient", "at least 2 to exchange a side between")
    order = np.random.default_rng([seed, _STREAM]).permutation(subjects.n_patients)
    following = np.empty_like(order)
    following[order] = np.roll(order, -1)
    return np.asarray(subjects.first_visits[following][subjects.patient_of_visit])


def noise_share(samples: npt.ArrayLike, mode: SymmetricMode, scale: float, seed: int = 0) -> dict[Side, float]:
    """Share of the variance of log S over patients that is Monte-Carlo noise, by side.

    The draws are split into halves again and again. With ``r`` the mean correlation of the two halves' log S, all
    draws together have the reliability ``2 r / (1 + r)`` (Spearman 1910, Brown 1910), and the share is what is missing
    to 1.

    Args:
        samples: ``(T, n, 2)`` SBR, T >= 4, n >= 3.
        mode: any that needs no fitted numbers.
        scale: largest SBR of the model's scale.
        seed: of the splits.

    Returns:
        NaN where a spread was 0 or all spreads are equal.

    Raises:
        ConfigError: too few draws or patients.
    """
    x = np.asarray(samples, dtype=np.float64)
    if len(x) < 4 or x.shape[1] < 3:
        raise ConfigError(f"samples of shape {x.shape}", "at least 4 draws of 3 patients")
    rng, found = np.random.default_rng([seed, _STREAM]), []
    for _ in range(_SPLITS):
        order = rng.permutation(len(x))
        halves = (order[: len(x) // 2], order[len(x) // 2 : 2 * (len(x) // 2)])
        logs = []
        for half in halves:
            with np.errstate(divide="ignore"):
                logs.append(np.log(symmetric_spread(x[half], mode, scale).spread))
        found.append([_correlation(logs[0][:, side.index], logs[1][:, side.index]) for side in Side])
    r = np.mean(found, axis=0)
    return {side: float(1 - 2 * r[side.index] / (1 + r[side.index])) for side in Side}


def _correlation(x: Array, y: Array) -> float:
    if not (np.isfinite(x).all() and np.isfinite(y).all()) or np.ptp(x) == 0 or np.ptp(y) == 0:
        return np.nan
    return float(np.corrcoef(x, y)[0, 1])


def _measure(comparison: SpreadComparison, plain: Judged, judged: Judged) -> Validity:
    mode, settings = check_mode(judged.name), comparison.settings
    other = mode != PLAIN
    drawn, spread = comparison.draws, judged.model.tested.spread
    error = comparison.patients.subjects.truth - judged.model.tested.centre
    has_noise = mode not in ("s5", "s7") and len(drawn.samples) >= 4 and drawn.samples.shape[1] >= 3
    return Validity(
        name=judged.name,
        title=judged.title,
        gain=_gain(comparison, plain.model.tested, lambda _: judged.model.tested) if other else {},
        gain_of_strangers=_gain(comparison, plain.model.tested, _of_strangers(comparison, mode)) if other else {},
        correlation={k: v for k, v in judged.scores.items() if k == "width_error_correlation"},
        interval_score=_score_difference(comparison, plain, judged) if other else {},
        asymmetric=_asymmetric(judged.groups),
        coverage=judged.coverage["conformal"],
        noise_share=noise_share(drawn.samples, mode, settings.scale, settings.seed) if has_noise else {},
        variation={s: float(spread[:, s.index].std() / spread[:, s.index].mean()) for s in Side},
        error_share={s: float(np.mean(spread[:, s.index] ** 2) / np.mean(error[:, s.index] ** 2)) for s in Side},
    )


def _of_strangers(comparison: SpreadComparison, mode: SymmetricMode) -> Callable[[Side], Spread]:
    """The candidate for one side where its partner is another patient's; the side itself, and its truth, stay."""
    drawn, scale = comparison.draws, comparison.settings.scale
    partner = strangers(comparison.patients.subjects, comparison.settings.seed)

    def of(side: Side) -> Spread:
        j = side.other.index
        mixed = drawn.samples.copy()
        mixed[:, :, j] = drawn.samples[:, partner, j]
        noise = None
        if drawn.noise_sd is not None:
            noise = drawn.noise_sd.copy()
            noise[:, j] = drawn.noise_sd[partner, j]
        return symmetric_spread(mixed, mode, scale, comparison.fusion, noise)

    return of


def _gain(comparison: SpreadComparison, plain: Spread, candidate: Callable[[Side], Spread]) -> Estimates:
    """Candidate less plain in Sharpness @ CP."""
    subjects, settings = comparison.patients.subjects, comparison.settings

    def of(spread: Spread, side: Side) -> Weighted:
        i = side.index
        if spread.cut_with_other is not None:
            k_of_cover = spread.score(subjects.truth)[:, i]
            return weighted.sharpness_of_any_at_cp(
                k_of_cover, lambda k, w: _half_width(spread, side, k, w), settings.scale, settings.level
            )
        return weighted.sharpness_at_cp(
            subjects.truth[:, i], spread.centre[:, i], spread.spread[:, i], settings.scale, settings.level
        )

    def difference(side: Side) -> Weighted:
        first, second = of(candidate(side), side), of(plain, side)

        def scores(weights: Array) -> dict[str, Array]:
            with np.errstate(invalid="ignore"):
                return {"gain": first(weights)["sharpness_at_cp"] - second(weights)["sharpness_at_cp"]}

        return scores

    return comparison.how.of_sides({side: difference(side) for side in Side}, subjects.patient_of_visit)


def _half_width(spread: Spread, side: Side, k: Array, weights: Array) -> Array:
    """Mean half-width at each multiplier ``(m,)`` with the weights ``(n, m)`` of a resample."""
    found = np.full(len(k), np.inf)
    for column in np.flatnonzero(np.isfinite(k)):
        low, high = spread.interval(k[column])
        found[column] = np.average((high - low)[:, side.index] / 2, weights=weights[:, column])
    return found


def _score_difference(comparison: SpreadComparison, plain: Judged, judged: Judged) -> Estimates:
    """Interval score at the level, ``nominal-cp``: candidate less plain."""
    y, level = comparison.patients.subjects.truth, comparison.settings.level
    first, second = (interval_score(*j.ends["nominal-cp"], y, level) for j in (judged, plain))
    sides = {s: weighted.means(interval_score=(first - second)[:, s.index]) for s in Side}
    return comparison.how.of_sides(sides, comparison.patients.subjects.patient_of_visit)


def _asymmetric(groups: tuple[GroupCoverage, ...]) -> Mapping[Side, Coverage]:
    return next((g.coverage for g in groups if g.category == ABOVE), {})
