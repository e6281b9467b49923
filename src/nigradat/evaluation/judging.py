"""One way to make a spread, judged: multipliers, intervals, distributions, scores with their intervals over patients.

:mod:`nigradat.evaluation.spreads` says what is judged and at which depths.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
from scipy import special

from nigradat.anatomy import Side
from nigradat.evaluation import spread_scores, weighted
from nigradat.evaluation.groups import GroupCoverage, Grouping, coverage_by_group
from nigradat.evaluation.result import Array, Coverage, Estimates, Subjects
from nigradat.evaluation.scoring import Resampling
from nigradat.evaluation.weighted import Weighted
from nigradat.metrics import (
    Estimate,
    OptimalPoint,
    PerSide,
    SharpnessCurve,
    bca_many,
    clopper_pearson,
    conformal_quantile,
    crps_gaussian,
    interval_score,
    k_at_cp,
    optimal_point,
    sharpness_cp_curve,
)
from nigradat.metrics.scores import (
    BINS,
    WIS_LEVELS,
    crps_log_normal,
    nll_gaussian,
    nll_log_normal,
    pit_gaussian,
    pit_log_normal,
    weighted_interval_score,
)
from nigradat.uncertainty.symmetric_mc import DEFAULT_MODE, Spread

Kind = Literal["model", "beside", "reference", "oracle"]
SpreadRule = Literal["nominal-cp", "conformal"]

SCORES: Final = (
    "sharpness_at_cp",
    "cp",
    "mpiw",
    "nmpiw",
    "sharpness",
    "interval_score",
    "wis",
    "crps",
    "nll",
    "rmsce",
    "miscalibration_area",
    "ence",
    "width_error_correlation",
    "aurc",
)
"""Scores of a judged spread; those that it cannot have (see :class:`Judged`) are missing."""
NOISY: Final = ("rmsce", "miscalibration_area", "ence")
"""Sizes of deviations: never 0, also for the true distribution, because the patients are finite. A resample raises
that floor, so the bootstrap has no honest interval for them."""
_CASES_A_BIN: Final = 10


@dataclass(frozen=True, eq=False)
class SpreadModel:
    """Centres and spreads of one way, on the tested and on the calibration patients.

    Attributes:
        name: for files and machines.
        title: for people.
        kind: of the run, of a run beside it, reference without a spread, or the phantom's oracle.
        tested: ``(n, 2)`` SBR each.
        calibrating: ``(c, 2)`` SBR each; None for the oracle, which needs none.
        log_sd: the oracle's SD of log SBR, whose log-normal distribution has the mean ``tested.centre``; else None.
    """

    name: str
    title: str
    kind: Kind
    tested: Spread
    calibrating: Spread | None
    log_sd: float | None = None

    def scored(self, truth: Array) -> Array:
        """Scores ``(c, 2)`` of the calibration patients."""
        assert self.calibrating is not None
        return self.calibrating.score(truth)


@dataclass(frozen=True, eq=False)
class Distribution:
    """A predictive distribution for each visit and side: Gaussian, or log-normal in SBR.

    Attributes:
        location, scale: mean and SD of the SBR, or of its natural logarithm, ``(n, 2)``.
        is_log: which.
    """

    location: Array
    scale: Array
    is_log: bool = False

    def central(self, level: float) -> tuple[Array, Array]:
        """Ends of the central interval ``(n, 2)``."""
        half = special.ndtri((1 + level) / 2) * self.scale
        low, high = self.location - half, self.location + half
        return (np.exp(low), np.exp(high)) if self.is_log else (low, high)

    def crps(self, truth: Array) -> Array:
        """``(n, 2)`` SBR."""
        return (crps_log_normal if self.is_log else crps_gaussian)(truth, self.location, self.scale)

    def nll(self, truth: Array) -> Array:
        """``(n, 2)`` nats."""
        return (nll_log_normal if self.is_log else nll_gaussian)(truth, self.location, self.scale)

    def pit(self, truth: Array) -> Array:
        """``(n, 2)``, 0 to 1."""
        return (pit_log_normal if self.is_log else pit_gaussian)(truth, self.location, self.scale)

    @property
    def sd(self) -> Array:
        """SD of the SBR, ``(n, 2)``."""
        if not self.is_log:
            return self.scale
        return np.sqrt(np.expm1(self.scale**2)) * np.exp(self.location + self.scale**2 / 2)


@dataclass(frozen=True, eq=False)
class Judged:
    """A spread model on the tested patients.

    Attributes:
        model: what was judged.
        k: multipliers by rule, right and left; empty for the oracle.
        ends: by rule, lower and upper ends ``(n, 2)`` SBR, not clipped; the oracle's central intervals under both.
        coverage: by rule and side, one visit a patient.
        distribution: None where the interval is not ``c +- k S`` (s5) or a spread was 0.
        curves: by side; empty for s5, which has no curve.
        optimal: of both sides; None for s5.
        optimal_ends: ``sharpness`` and ``cp`` of the optimum with their intervals; only where it was asked for.
        scores: of :data:`SCORES`; ``cp`` to ``interval_score`` are those of the rule ``nominal-cp``.
        efficiency: half-width of the oracle at equal CP over this one's, traced: ``single`` and ``pair``; phantom only.
        groups: coverage of the conformal intervals by group.
    """

    model: SpreadModel
    k: Mapping[SpreadRule, Array]
    ends: Mapping[SpreadRule, tuple[Array, Array]]
    coverage: Mapping[SpreadRule, Mapping[Side, Coverage]]
    distribution: Distribution | None
    curves: Mapping[Side, SharpnessCurve]
    optimal: OptimalPoint | None
    optimal_ends: Estimates
    scores: Estimates
    efficiency: Estimates
    groups: tuple[GroupCoverage, ...]

    @property
    def name(self) -> str:
        """The model's."""
        return self.model.name

    @property
    def title(self) -> str:
        """The model's."""
        return self.model.title


@dataclass(frozen=True, eq=False)
class Patients:
    """Who is tested and who calibrates.

    Attributes:
        subjects: the tested visits.
        calibrating: labels ``(c, 2)`` SBR of the calibration patients.
        tested_cohort, calibration_cohort: names of the folders.
        split: how the two were told apart, in words.
        is_phantom: the tested images are simulated.
        provenance: of the tested cohort.
    """

    subjects: Subjects
    calibrating: Array
    tested_cohort: str
    calibration_cohort: str
    split: str
    is_phantom: bool
    provenance: Mapping[str, Any]


@dataclass(frozen=True)
class SpreadSettings:
    """How a comparison of spreads was made."""

    level: float
    samples: int
    resamples: int
    seed: int
    confidence: float
    scale: float


# -- Judging ------------------------------------------------------------------------------------------------------


def nominal_k(scores: npt.ArrayLike, level: float) -> Array:
    """``(2,)``: where the calibration patients' own curve reaches the level, from scores ``(c, 2)``."""
    s = np.asarray(scores, dtype=np.float64)
    ones = np.ones(len(s))
    return np.array([float(k_at_cp(sharpness_cp_curve(s[:, i], 0 * ones, ones, 1.0), level)) for i in range(2)])


def gaussian(model: SpreadModel, truth: Array) -> Distribution | None:
    """``N(c, (t S)^2)``, ``t`` of each side the scale of greatest likelihood on the calibration patients.

    Its square is the mean squared score (Psaros 2023 calls it variance scaling). The oracle has its own distribution.
    """
    centre, spread = model.tested.centre, model.tested.spread
    if model.log_sd is not None:
        sd = np.full(centre.shape, model.log_sd)
        return Distribution(np.log(centre) - sd**2 / 2, sd, is_log=True)
    scale = np.sqrt(np.mean(model.scored(truth) ** 2, axis=0))
    usable = (
        model.tested.cut_with_other is None and np.isfinite(scale).all() and (scale > 0).all() and (spread > 0).all()
    )
    return Distribution(centre, scale * spread) if usable else None


@dataclass(frozen=True, eq=False)
class Judge:
    """One spread model at a time, on patients that stay the same."""

    patients: Patients
    settings: SpreadSettings
    oracles: Sequence[SpreadModel]
    divisions: Sequence[Grouping]

    def __call__(self, model: SpreadModel) -> Judged:
        """Everything about one way."""
        subjects, level, truth = self.patients.subjects, self.settings.level, self.patients.calibrating
        distribution = gaussian(model, truth)
        k: dict[SpreadRule, Array] = {}
        if model.calibrating is None:
            assert distribution is not None
            exact = distribution.central(level)
            ends: dict[SpreadRule, tuple[Array, Array]] = {"nominal-cp": exact, "conformal": exact}
        else:
            scores = model.scored(truth)
            k = {
                "nominal-cp": nominal_k(scores, level),
                "conformal": np.array([conformal_quantile(scores[:, i], level) for i in range(2)]),
            }
            ends = {rule: model.tested.interval(multiplier) for rule, multiplier in k.items()}
        traced = model.tested.cut_with_other is None
        curves = {s: _curve(model.tested, subjects.truth, s, self.settings.scale) for s in Side} if traced else {}
        shown = model.name in ("mc", DEFAULT_MODE) or model.kind in ("beside", "oracle")
        return Judged(
            model=model,
            k=k,
            ends=ends,
            coverage={rule: self._coverage(*ends[rule]) for rule in ends},
            distribution=distribution,
            curves=curves,
            optimal=optimal_point(curves[Side.RIGHT], curves[Side.LEFT]) if traced else None,
            optimal_ends=self._optimal_ends(model.tested) if shown else {},
            scores=self._scores(model, ends["nominal-cp"], distribution),
            efficiency=self._efficiency(model.tested) if traced and self.oracles else {},
            groups=coverage_by_group(*ends["conformal"], subjects, self.divisions, self.settings.confidence),
        )

    @property
    def how(self) -> Resampling:
        """How intervals over patients are drawn: the same draws for every way."""
        return Resampling(self.settings.resamples, self.settings.seed, self.settings.confidence)

    def _coverage(self, lower: Array, upper: Array) -> dict[Side, Coverage]:
        first, y = self.patients.subjects.first_visits, self.patients.subjects.truth
        inside = ((lower <= y) & (y <= upper))[first]
        counts = {side: int(inside[:, side.index].sum()) for side in Side}
        n = len(first)
        return {s: Coverage(c, n, *clopper_pearson(c, n, self.settings.confidence)) for s, c in counts.items()}

    def _scores(self, model: SpreadModel, ends: tuple[Array, Array], distribution: Distribution | None) -> Estimates:
        columns = self._columns(model, ends, distribution)
        sides = {s: self._of_side(model, ends, distribution, columns, s) for s in Side}
        found = self.how.of_sides(sides, self.patients.subjects.patient_of_visit)
        return {name: _without_ends(score) if name in NOISY else score for name, score in found.items()}

    def _columns(
        self, model: SpreadModel, ends: tuple[Array, Array], distribution: Distribution | None
    ) -> dict[str, Array]:
        """What is a mean over cases, ``(n, 2)`` each."""
        y, (low, high) = self.patients.subjects.truth, ends
        columns = {
            "cp": ((low <= y) & (y <= high)).astype(np.float64),
            "mpiw": high - low,
            "nmpiw": (high - low) / np.where(np.ptp(y, axis=0) > 0, np.ptp(y, axis=0), np.nan),
            "sharpness": 1 - (high - low) / (2 * self.settings.scale),
            "interval_score": interval_score(low, high, y, self.settings.level),
            "wis": self._wis(model, distribution),
        }
        if distribution is not None:
            columns |= {"crps": distribution.crps(y), "nll": distribution.nll(y)}
        return columns

    def _wis(self, model: SpreadModel, distribution: Distribution | None) -> Array:
        """From intervals that are calibrated level by level (``nominal-cp``); the oracle's are its quantiles."""
        if model.calibrating is None:
            assert distribution is not None
            median = np.exp(distribution.location) if distribution.is_log else distribution.location
            every = [distribution.central(level) for level in WIS_LEVELS]
        else:
            scores, median = model.scored(self.patients.calibrating), model.tested.centre
            every = [model.tested.interval(nominal_k(scores, level)) for level in WIS_LEVELS]
        low, high = (np.stack(end) for end in zip(*every, strict=True))
        return weighted_interval_score(low, high, median, self.patients.subjects.truth, WIS_LEVELS)

    def _of_side(
        self,
        model: SpreadModel,
        ends: tuple[Array, Array],
        distribution: Distribution | None,
        columns: Mapping[str, Array],
        side: Side,
    ) -> Weighted:
        i, y = side.index, self.patients.subjects.truth[:, side.index]
        centre, spread = model.tested.centre[:, i], model.tested.spread[:, i]
        # the width itself where nothing else has it: c + k S less c - k S is not quite 2 k S
        width = model.tested.spread if model.tested.cut_with_other is None else ends[1] - ends[0]
        parts = [weighted.means(**{name: column[:, i] for name, column in columns.items()})]
        if model.tested.cut_with_other is None:
            parts.append(weighted.sharpness_at_cp(y, centre, spread, self.settings.scale, self.settings.level))
        if _differ(width):
            parts.append(spread_scores.width_error_correlation(width[:, i], y - centre))
            parts.append(spread_scores.aurc(np.abs(y - centre), width[:, i]))
        if distribution is not None:
            parts.append(spread_scores.calibration(distribution.pit(self.patients.subjects.truth)[:, i]))
            bins = min(BINS, len(y) // _CASES_A_BIN)
            if _differ(distribution.sd) and bins > 1:
                parts.append(spread_scores.ence(y - centre, distribution.sd[:, i], bins))
        return weighted.together(*parts)

    def _efficiency(self, spread: Spread) -> Estimates:
        """``(1 - Sharpness of the oracle) / (1 - Sharpness)`` at the level, each traced on the tested patients."""
        subjects, settings = self.patients.subjects, self.settings

        def of(traced: Spread, side: Side) -> Weighted:
            i = side.index
            return weighted.sharpness_at_cp(
                subjects.truth[:, i], traced.centre[:, i], traced.spread[:, i], settings.scale, settings.level
            )

        def together(side: Side) -> Weighted:
            named = {"own": of(spread, side)} | {
                o.name.removeprefix("oracle-"): of(o.tested, side) for o in self.oracles
            }
            return lambda weights: {name: scores(weights)["sharpness_at_cp"] for name, scores in named.items()}

        def derive(found: Mapping[str, Array]) -> dict[str, Array]:
            with np.errstate(divide="ignore", invalid="ignore"):
                return {name: (1 - best) / (1 - found["own"]) for name, best in found.items() if name != "own"}

        return self.how.of_sides({s: together(s) for s in Side}, subjects.patient_of_visit, derive)

    def _optimal_ends(self, spread: Spread) -> Estimates:
        """Intervals of the optimum: it is found again in each resample of patients."""
        subjects, scale = self.patients.subjects, self.settings.scale
        rows_of = [np.flatnonzero(subjects.patient_of_visit == p) for p in range(subjects.n_patients)]
        names = [f"{what}/{part}" for what in ("sharpness", "cp") for part in ("right", "left", "average")]

        def optimum(index: npt.NDArray[np.intp]) -> list[float]:
            rows = np.concatenate([rows_of[p] for p in index])
            taken = replace(spread, centre=spread.centre[rows], spread=spread.spread[rows])
            right, left = (_curve(taken, subjects.truth[rows], side, scale) for side in Side)
            point = optimal_point(right, left).sides
            return [getattr(getattr(point, part), what) for what, part in (name.split("/") for name in names)]

        def statistics(index: npt.NDArray[np.intp]) -> dict[str, Array]:
            found = np.array([optimum(row) for row in index])
            return {name: found[:, i] for i, name in enumerate(names)}

        done: dict[str, Estimate] = bca_many(
            statistics,
            subjects.n_patients,
            seed=self.settings.seed,
            level=self.settings.confidence,
            resamples=self.settings.resamples,
        )
        return {
            what: PerSide(*(done[f"{what}/{part}"] for part in ("right", "left", "average")))
            for what in ("sharpness", "cp")
        }


def _curve(spread: Spread, truth: Array, side: Side, scale: float) -> SharpnessCurve:
    i = side.index
    return sharpness_cp_curve(truth[:, i], spread.centre[:, i], spread.spread[:, i], scale)


def _differ(values: Array) -> bool:
    """Whether there is anything to rank on both sides: a constant width ranks nobody."""
    return bool((np.ptp(values, axis=0) > 0).all())


def _without_ends(sides: PerSide[Estimate | None]) -> PerSide[Estimate | None]:
    """The value alone, as one whose bootstrap interval would mislead."""

    def without(estimate: Estimate | None) -> Estimate | None:
        return estimate and replace(estimate, low=np.nan, high=np.nan, method="undefined")

    return PerSide(without(sides.right), without(sides.left), without(sides.average))
