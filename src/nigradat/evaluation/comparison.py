"""The comparison of methods over many fits, as data: scores, intervals over patients, tests.

Every fit is scored on its own test visits; a method's value is the mean of its fits' scores, not the score of their
mean prediction. Intervals draw PATIENTS: both sides, all visits and all fits of a patient go together, and all methods
are scored on the same draws, so that differences are paired. They take the trained networks as given; how much the
fits differ among themselves stands beside them (:class:`Variation`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from nigradat.anatomy import Side
from nigradat.errors import CohortError, ConfigError
from nigradat.evaluation.contrasts import (
    ABSOLUTE_ERROR,
    COMPARED,
    FAMILY,
    ORACLE_PAIR,
    ORACLE_SINGLE,
    Breakdown,
    Contrast,
    ContrastTally,
    Earned,
    EstimateOf,
    Pair,
    Skill,
    SkillTally,
    SplitMean,
    breakdown,
    earn_their_place,
    settle,
)
from nigradat.evaluation.draws import Draws, Group, Means
from nigradat.evaluation.predictions import FitRecord, Predictions
from nigradat.evaluation.weighted import PAIR_SCORES, SCORES, Array, fit_scores
from nigradat.metrics import (
    BinaryAgreement,
    BlandAltman,
    CurvePoint,
    Estimate,
    PerSide,
    binary_agreement,
    clopper_pearson,
    interval_score,
    optimal_point,
    sharpness_cp_curve,
    wilson,
)
from nigradat.metrics.agreement import bland_altman_clustered
from nigradat.metrics.binary import Auc, clustered_auc, delong_auc
from nigradat.metrics.cases import check_level

Mask = npt.NDArray[np.bool_]
Numbers = npt.NDArray[np.intp]


@dataclass(frozen=True)
class Proportion:
    """A share of patients with an interval that allows for few of them.

    Attributes:
        value: mean of the fits' shares.
        low, high: ends; nan where undefined.
        level: confidence level.
        method: ``wilson`` or ``clopper-pearson`` (binomial), ``bca`` or ``percentile`` (bootstrap over patients),
            ``undefined`` without cases.
        n_patients: distinct patients behind it.
        counted: hits and cases of a single fit; None for a mean over several.
    """

    value: float
    low: float
    high: float
    level: float
    method: Literal["wilson", "clopper-pearson", "bca", "percentile", "delong", "undefined"]
    n_patients: int
    counted: tuple[int, int] | None = None


@dataclass(frozen=True)
class Variation:
    """How much one score differs among the fits of a method.

    Attributes:
        n_fits: fits with this score.
        sd: standard deviation over all of them; nan below two.
        sd_splits: of the splits' means; nan below two splits.
        sd_seeds: between seeds of one split, root of the mean variance; nan where no split has two seeds.
    """

    n_fits: int
    sd: float
    sd_splits: float
    sd_seeds: float


@dataclass(frozen=True)
class SpreadResult:
    """The sharpness-CP curve of one mode of spread, traced on the tested patients: a description, no promise.

    Attributes:
        mode: of :mod:`nigradat.uncertainty.symmetric_mc`, or the oracle's.
        cp: coverage at which Sharpness is read off.
        sharpness_at_cp: right, left, average.
        optimal: "Optimal (Sharpness, CP)" at a joint k, least distance to (1, 1); means over fits; None for a one-sided
            method.
    """

    mode: str
    cp: float
    sharpness_at_cp: Breakdown
    optimal: PerSide[CurvePoint] | None


@dataclass(frozen=True)
class IntervalResult:
    """Intervals that were fixed before the tested patients were looked at, and how they fared.

    Attributes:
        mode: of the spread they were made of.
        level: nominal coverage.
        coverage: covered patients (first visit each) of each answered side; ``average`` is always None.
        scores: ``mpiw`` (full width, SBR), ``sharpness`` (one less the half-width over the scale) and
            ``interval_score`` (SBR, lower is better), means over visits: right, left, average.
    """

    mode: str
    level: float
    coverage: PerSide[Proportion | None]
    scores: Mapping[str, Breakdown]


@dataclass(frozen=True)
class BinaryResult:
    """Low uptake (SBR below the threshold) told from high by the predicted SBR.

    Attributes:
        threshold: SBR, on the scale of the cohort.
        accuracy, sensitivity, specificity: right, left; ``average`` is the mean of both with its bootstrap interval.
            Wilson where a side rests on a single fit with one visit a patient, else bootstrap over patients.
        auc: of the predicted SBR: right, left, average and pooled (both sides as cases, patients as clusters).
        prevalence: share of visits with low uptake, right and left; mean over fits.
    """

    threshold: float
    accuracy: PerSide[Proportion | None]
    sensitivity: PerSide[Proportion | None]
    specificity: PerSide[Proportion | None]
    auc: Breakdown
    prevalence: tuple[float, float]


@dataclass(frozen=True)
class FailedFit:
    """A fit without predictions, and why."""

    method: str
    split: str
    seed: int
    reason: str


@dataclass(frozen=True)
class FitScores:
    """One fit's headline numbers: the average of both sides, or the one answered side; nan where undefined."""

    record: FitRecord
    rmse: float
    mae: float
    pearson_r: float


@dataclass(frozen=True)
class MethodResult:
    """One method over all its fits: a row of the tables.

    Attributes:
        method, title, role: as in :class:`~nigradat.evaluation.predictions.FitRecord`.
        fits: every scored fit, by split and seed.
        failed: every failed one.
        n_patients: distinct tested patients.
        scores: by name, see :data:`~nigradat.evaluation.weighted.SCORES` and, of the part ``patient`` only,
            :data:`~nigradat.evaluation.weighted.PAIR_SCORES`; empty where every fit failed.
        variation: among the fits, by score, of the same value as :attr:`Breakdown.headline`.
        unanswered: visits without an answer, right and left, summed over fits (an observer's missing readings); a side
            that is never answered counts in full.
        log_left_out: visits with a prediction (or a label) of 0 or below, right and left, which the ``log_`` scores
            leave out; summed over fits.
        spreads, intervals: by mode.
        binary: None without a threshold.
        limits: Bland-Altman over both sides of each patient's first visit, one a fit; empty for a one-sided method.
    """

    method: str
    title: str
    role: Literal["model", "baseline", "derived", "oracle"]
    fits: tuple[FitScores, ...]
    failed: tuple[FailedFit, ...]
    n_patients: int
    scores: Mapping[str, Breakdown]
    variation: Mapping[str, Variation]
    unanswered: tuple[int, int]
    log_left_out: tuple[int, int]
    spreads: Mapping[str, SpreadResult]
    intervals: Mapping[str, IntervalResult]
    binary: BinaryResult | None
    limits: tuple[BlandAltman, ...]

    @property
    def n_splits(self) -> int:
        """Splits with a scored fit."""
        return len({fit.record.split for fit in self.fits})

    @property
    def n_seeds(self) -> int:
        """Different seeds among the scored fits."""
        return len({fit.record.seed for fit in self.fits})


@dataclass(frozen=True)
class ComparisonSettings:
    """How a comparison was made.

    Attributes:
        level: nominal coverage of the intervals, and the CP at which Sharpness is read off.
        confidence: of every interval over patients.
        threshold: of low uptake, SBR; None for none.
        scale: largest SBR of the models' scale.
        resamples, seed: of the bootstrap; the seed also draws the permutations.
        independent: the splits are newly drawn cohorts.
    """

    level: float
    confidence: float
    threshold: float | None
    scale: float
    resamples: int
    seed: int
    independent: bool


@dataclass(frozen=True)
class Comparison:
    """Every method, every contrast.

    Attributes:
        methods: models, derived, baselines, oracles; among each other as in the paper, others behind by name.
        contrasts: of the family, where both methods have predictions, in the family's order.
        earned: extensions against the proposed net.
        skill: by method; empty without oracles.
        n_patients: distinct tested patients over all splits.
        n_visits: tested visits, summed over splits.
        splits: names with their hashes.
        settings: how it was made.
    """

    methods: tuple[MethodResult, ...]
    contrasts: tuple[Contrast, ...]
    earned: tuple[Earned, ...]
    skill: Mapping[str, Skill]
    n_patients: int
    n_visits: int
    splits: Mapping[str, str]
    settings: ComparisonSettings

    def __getitem__(self, method: str) -> MethodResult:
        """The row of a method.

        Raises:
            KeyError: it is not there.
        """
        return {m.method: m for m in self.methods}[method]

    def contrast(self, name: str) -> Contrast | None:
        """By :attr:`Pair.name`; None where it was not made."""
        return next((c for c in self.contrasts if c.pair.name == name), None)

    @property
    def failed(self) -> tuple[FailedFit, ...]:
        """Every failed fit of every method."""
        return tuple(f for m in self.methods for f in m.failed)


def compare(
    records: Sequence[FitRecord],
    *,
    level: float = 0.95,
    threshold: float | None = None,
    scale: float,
    resamples: int = 2000,
    seed: int = 0,
    confidence: float = 0.95,
    pairs: Sequence[Pair] = FAMILY,
) -> Comparison:
    """Score methods over all their fits and set them against each other.

    Splits named ``draw-...`` are newly drawn cohorts: their patients are others, whatever their identifiers. All other
    splits are of one cohort, and a patient who is tested in several of them is one patient. Each table of predictions
    is read as it is needed, so memory does not grow with the number of fits.

    Args:
        records: every fit, in any order; failed ones are listed, not scored.
        level: nominal coverage of the calibrated intervals, and the CP at which Sharpness is read off.
        threshold: low uptake is SBR below it; None leaves binary agreement out.
        scale: largest SBR of the models' scale.
        resamples: bootstrap resamples of patients.
        seed: of resamples and permutations.
        confidence: level of every interval over patients.
        pairs: the questions, fixed in advance; those whose methods are both there are one family.

    Raises:
        CohortError: no fit with predictions, one fit twice, fits of one split on different visits or with other
            labels, or fewer than two patients.
        ConfigError: a level outside 0..1, a scale that is not positive, or fewer than 100 resamples.

    Example:
        >>> _, records = nigradat.run_study("cohort", "study", scale="laptop")                  # doctest: +SKIP
        >>> found = nigradat.compare(records, scale=6.84, threshold=2.56)                       # doctest: +SKIP
        >>> found["sym-vgg-plus"].scores["mae"].headline                                        # doctest: +SKIP
    """
    _check(level, confidence, scale, resamples)
    ordered = _in_order(records)
    scored = [record for record in ordered if not record.failed]
    groups: dict[str, dict[str, list[FitRecord]]] = {}
    for record in sorted(scored, key=lambda r: r.split):
        groups.setdefault(_group_of(record.split), {}).setdefault(record.split, []).append(record)
    draws = _draws(groups, resamples, seed)
    scoring = _Scoring(level, confidence, threshold, scale)

    tallies = {
        record.method: _Tally(record, np.zeros(draws.n_patients, dtype=np.bool_)) for record in reversed(ordered)
    }
    for record in ordered:
        if record.failed:
            tallies[record.method].failed.append(FailedFit(record.method, record.split, record.seed, record.failed))
    contrasts = [ContrastTally(pair, draws.n_patients) for pair in pairs]
    skills: dict[str, SkillTally] = {}
    n_visits = 0
    for name, splits in groups.items():
        group = draws.group(name)
        for fits in splits.values():
            visits, means = _score_split(fits, draws, group, tallies, scoring)
            n_visits += len(visits.keys)
            for contrast in contrasts:
                if contrast.pair.first in means and contrast.pair.second in means:
                    contrast.add(means[contrast.pair.first], means[contrast.pair.second], visits.numbers)
            if ORACLE_SINGLE in means and ORACLE_PAIR in means:
                for method, mean in means.items():
                    if method not in (ORACLE_SINGLE, ORACLE_PAIR):
                        skills.setdefault(method, SkillTally()).add(mean, means[ORACLE_SINGLE], means[ORACLE_PAIR])

    def estimate(vector: Array, tested: Mask) -> Estimate:
        return draws.estimate(vector, tested, confidence)

    independent = all(groups)
    settled = settle(contrasts, estimate, confidence=confidence, independent=independent, seed=seed)
    methods = sorted({record.method for record in ordered}, key=lambda m: _place(tallies[m].record))
    return Comparison(
        methods=tuple(tallies[m].result(draws, scoring, confidence) for m in methods),
        contrasts=settled,
        earned=earn_their_place(settled),
        skill={m: skills[m].skill(m, partial(estimate, tested=tallies[m].tested)) for m in methods if m in skills},
        n_patients=draws.n_patients,
        n_visits=n_visits,
        splits={record.split: record.split_sha256 for record in sorted(ordered, key=lambda r: r.split)},
        settings=ComparisonSettings(level, confidence, threshold, scale, resamples, seed, independent),
    )


def _check(level: float, confidence: float, scale: float, resamples: int) -> None:
    check_level(level)
    check_level(confidence)
    if not scale > 0:
        raise ConfigError(f"a scale of {scale}", "the largest SBR of the models' scale, above 0")
    if resamples < 100:
        raise ConfigError(f"{resamples} bootstrap resamples", "at least 100 (2000 for a table)")


# -- Order and patients -------------------------------------------------------------------------------------------

_ROLES: Final = ("model", "derived", "baseline", "oracle")
_METHODS: Final = (
    *("vit", "mobilenetv3", "resnet18", "vgg16", "vgg-small", "vgg-left"),
    *("sym-vgg", "sym-vgg-plus", "sym-vgg-plus-unmirrored", "sym-vgg-log"),
    *("fused", "ensemble", "ridge", "mean-intensity", "n1-index", "observer", ORACLE_SINGLE, ORACLE_PAIR),
)


def _place(record: FitRecord) -> tuple[int, int, str]:
    """Where a method stands in a table: by role, then as in the paper, others behind by name."""
    known = _METHODS.index(record.method) if record.method in _METHODS else len(_METHODS)
    return _ROLES.index(record.role), known, record.method


def _in_order(records: Sequence[FitRecord]) -> list[FitRecord]:
    """By method, split and seed, so that the order in which they came decides nothing.

    Raises:
        CohortError: one fit twice, a split with two hashes, or nothing to score.
    """
    seen: set[tuple[str, str, int]] = set()
    hashes: dict[str, str] = {}
    for record in records:
        fit = (record.method, record.split, record.seed)
        if fit in seen:
            raise CohortError(f"two fits of {record.method} on {record.split} with seed {record.seed}", "each fit once")
        seen.add(fit)
        if hashes.setdefault(record.split, record.split_sha256) != record.split_sha256:
            raise CohortError(f"fits on two different splits called {record.split}", "one split of that name")
    if all(record.failed for record in records):
        raise CohortError(
            "no fit with predictions", "at least one fit that ended", "Look at the reasons of the failures"
        )
    return sorted(records, key=lambda record: (*_place(record), record.split, record.seed))


def _group_of(split: str) -> str:
    """Patients of a newly drawn cohort are their own group; all splits of one cohort share theirs."""
    return split if split.startswith("draw-") else ""


def _draws(groups: Mapping[str, Mapping[str, Sequence[FitRecord]]], resamples: int, seed: int) -> Draws:
    """Resamples of every patient that is tested anywhere; one table a split is read for it."""
    patients = {
        name: tuple(sorted({p for fits in splits.values() for p in fits[0].predictions().patients}))
        for name, splits in groups.items()
    }
    draws = Draws(patients, resamples, seed)
    if draws.n_patients < 2 or not all(patients.values()):
        raise CohortError(f"{draws.n_patients} tested patients", "at least 2, and some in every split")
    return draws


@dataclass(frozen=True, eq=False)
class _Visits:
    """The visits of one split, sorted: who (``numbers`` among all tested patients) and the truth."""

    keys: tuple[tuple[str, str], ...]
    truth: Array
    numbers: Numbers


def _sorted(record: FitRecord) -> Predictions:
    """A fit's answers by patient and visit."""
    answers = record.predictions()
    if not np.isfinite(answers.truth).all():
        raise CohortError(f"visits of {record.split} without a label", "both SBR values for every visit")
    keys = list(zip(answers.patients, answers.sessions, answers.truth.tolist(), strict=True))
    rows = np.array(sorted(range(len(keys)), key=keys.__getitem__), dtype=np.intp)

    def taken(pairs: Mapping[str, tuple[Array, Array]]) -> dict[str, tuple[Array, Array]]:
        return {mode: (a[rows], b[rows]) for mode, (a, b) in pairs.items()}

    return Predictions(
        tuple(answers.patients[i] for i in rows),
        tuple(answers.sessions[i] for i in rows),
        answers.truth[rows],
        answers.predicted[rows],
        taken(answers.spreads),
        taken(answers.intervals),
    )


# -- One fit ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Scoring:
    """What every fit is asked for; see :func:`compare`."""

    level: float
    confidence: float
    threshold: float | None
    scale: float

    def losses(self, answers: Predictions) -> dict[str, Array]:
        """Losses of each visit and side; see :class:`~nigradat.evaluation.contrasts.SplitMean`."""
        y = answers.truth
        return {ABSOLUTE_ERROR: np.abs(answers.predicted - y)} | {
            f"{mode}:interval_score": interval_score(lower, upper, y, self.level)
            for mode, (lower, upper) in answers.intervals.items()
        }

    def counts(self, answers: Predictions) -> _Counts:
        """What is counted once a fit, and not resampled."""
        y, p = answers.truth, answers.predicted
        answered = np.isfinite(p)
        first = np.unique(answers.patients, return_index=True)[1]
        binary, areas, curves = {}, {}, {}
        if self.threshold is not None:
            low, whole = y < self.threshold, answered.all(axis=1)
            areas = {
                side.value: delong_auc(low[answered[:, i], i], -p[answered[:, i], i], self.confidence)
                for i, side in enumerate(Side)
                if answered[:, i].any()
            }
            if whole.any():
                areas["pooled"] = clustered_auc(low[whole], -p[whole], self.confidence)
            binary = {
                side: binary_agreement(y[answered[:, i], i], p[answered[:, i], i], self.threshold)
                for i, side in enumerate(Side)
                if answered[:, i].any()
            }
        for mode, (centre, spread) in answers.spreads.items():
            if np.isfinite(centre).all() and np.isfinite(spread).all():
                right, left = (sharpness_cp_curve(y[:, i], centre[:, i], spread[:, i], self.scale) for i in range(2))
                curves[mode] = optimal_point(right, left).sides
        covered = {
            mode: {
                side: int(np.count_nonzero(((lower <= y) & (y <= upper))[first, side.index]))
                for side in Side
                if np.isfinite(lower[:, side.index]).all() and np.isfinite(upper[:, side.index]).all()
            }
            for mode, (lower, upper) in answers.intervals.items()
        }
        not_positive = np.count_nonzero(answered & ((p <= 0) | (y <= 0)), axis=0)
        missing = np.count_nonzero(~answered, axis=0)
        paired = first[answered[first].all(axis=1)]
        limits = bland_altman_clustered(y[paired], p[paired], self.confidence) if len(paired) > 2 else None
        return _Counts(
            patients=len(first),
            visits=len(y),
            unanswered=(int(missing[0]), int(missing[1])),
            not_positive=(int(not_positive[0]), int(not_positive[1])),
            modes=tuple(answers.spreads),
            optimal=curves,
            covered=covered,
            binary=binary,
            areas=areas,
            limits=limits,
        )


@dataclass(frozen=True)
class _Counts:
    """Of one fit: see :meth:`_Scoring.counts`. ``covered`` patients by mode and side, first visit each."""

    patients: int
    visits: int
    unanswered: tuple[int, int]
    not_positive: tuple[int, int]
    modes: tuple[str, ...]
    optimal: Mapping[str, PerSide[CurvePoint]]
    covered: Mapping[str, Mapping[Side, int]]
    binary: Mapping[Side, BinaryAgreement]
    areas: Mapping[str, Auc]
    limits: BlandAltman | None


# -- One split ----------------------------------------------------------------------------------------------------

_CONTRASTED: Final = (*COMPARED, "mse", "sharpness_at_cp", "interval_score")


def _score_split(
    fits: Sequence[FitRecord], draws: Draws, group: Group, tallies: Mapping[str, _Tally], scoring: _Scoring
) -> tuple[_Visits, dict[str, SplitMean]]:
    """Score every fit of a split, count it in its method's tally, and give each method's mean over seeds.

    Raises:
        CohortError: fits of one split on different visits, or with other labels.
    """
    visits: _Visits | None = None
    vectors: dict[str, Means] = {}
    losses: dict[str, Means] = {}
    for record in fits:
        answers = _sorted(record)
        keys = tuple(zip(answers.patients, answers.sessions, strict=True))
        if visits is None:
            numbers = group.numbers(answers.patients)
            visits = _Visits(keys, answers.truth, numbers)
        elif keys != visits.keys or not np.array_equal(answers.truth, visits.truth):
            raise CohortError(
                f"{record.method} (seed {record.seed}) on {record.split} was tested on other visits or labels than "
                f"{fits[0].method}",
                "the same test visits for every fit of a split",
            )
        of_fit = draws.vectors(
            fit_scores(answers, scoring.level, scoring.threshold, scoring.scale), group, visits.numbers
        )
        tallies[record.method].add(record, of_fit, scoring.counts(answers), group.start + visits.numbers)
        vectors.setdefault(record.method, Means()).add(
            {
                name: vector
                for name, vector in of_fit.items()
                if name.rpartition("/")[0].rpartition(":")[2] in _CONTRASTED
            }
        )
        losses.setdefault(record.method, Means()).add(scoring.losses(answers))
    assert visits is not None  # a split is there because a fit is
    train = {record.method: record.train_patients for record in fits}
    titles = {record.method: record.title for record in fits}
    return replace(visits, numbers=group.start + visits.numbers), {
        m: SplitMean(titles[m], vectors[m].means(), losses[m].means(), train[m]) for m in vectors
    }


# -- One method ---------------------------------------------------------------------------------------------------


@dataclass
class _Tally:
    """A method, gathered fit by fit."""

    record: FitRecord
    tested: Mask
    vectors: Means = field(default_factory=Means)
    values: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    fits: list[FitScores] = field(default_factory=list)
    counts: list[_Counts] = field(default_factory=list)
    failed: list[FailedFit] = field(default_factory=list)

    def add(self, record: FitRecord, vectors: Mapping[str, Array], counts: _Counts, patient_of_visit: Numbers) -> None:
        self.vectors.add(vectors)
        self.counts.append(counts)
        self.tested[patient_of_visit] = True
        headline = {name: _headline(vectors, name) for name in (*SCORES, *PAIR_SCORES)}
        for name, value in headline.items():
            if not math.isnan(value):
                self.values.setdefault(name, {}).setdefault(record.split, []).append(value)
        self.fits.append(FitScores(record, headline["rmse"], headline["mae"], headline["pearson_r"]))

    def result(self, draws: Draws, scoring: _Scoring, confidence: float) -> MethodResult:
        means = self.vectors.means()
        n_patients = int(np.count_nonzero(self.tested))

        def scored(*names: str, mode: str = "") -> dict[str, Breakdown]:
            prefix = f"{mode}:" if mode else ""
            made = {name: breakdown(means, prefix + name, estimate) for name in names}
            return {name: found for name, found in made.items() if found.headline is not None}

        def estimate(vector: Array) -> Estimate:
            return draws.estimate(vector, self.tested, confidence)

        modes = dict.fromkeys(mode for c in self.counts for mode in c.modes)
        interval_modes = dict.fromkeys(mode for c in self.counts for mode in c.covered)
        sharp = {mode: scored("sharpness_at_cp", mode=mode) for mode in modes}
        return MethodResult(
            method=self.record.method,
            title=self.record.title,
            role=self.record.role,
            fits=tuple(sorted(self.fits, key=lambda fit: (fit.record.split, fit.record.seed))),
            failed=tuple(self.failed),
            n_patients=n_patients,
            scores=scored(*SCORES, *PAIR_SCORES),
            variation={name: _variation(of_splits) for name, of_splits in self.values.items()},
            unanswered=_added(c.unanswered for c in self.counts),
            log_left_out=_added(c.not_positive for c in self.counts),
            spreads={
                mode: SpreadResult(mode, scoring.level, found["sharpness_at_cp"], self._optimal(mode))
                for mode, found in sharp.items()
                if found
            },
            intervals={
                mode: IntervalResult(
                    mode,
                    scoring.level,
                    PerSide(
                        self._coverage(mode, Side.RIGHT, n_patients, confidence),
                        self._coverage(mode, Side.LEFT, n_patients, confidence),
                        None,
                    ),
                    scored("mpiw", "sharpness", "interval_score", mode=mode),
                )
                for mode in interval_modes
            },
            binary=None
            if scoring.threshold is None or not self.counts
            else self._binary(scoring.threshold, means, estimate, confidence),
            limits=tuple(c.limits for c in self.counts if c.limits is not None),
        )

    def _optimal(self, mode: str) -> PerSide[CurvePoint] | None:
        points = [c.optimal[mode] for c in self.counts if mode in c.optimal]
        if not points:
            return None
        table = np.array([[[q.k, q.sharpness, q.cp] for q in (p.right, p.left, p.average)] for p in points])
        return PerSide(*(CurvePoint(*map(float, row)) for row in table.mean(axis=0)))

    def _coverage(self, mode: str, side: Side, n_patients: int, confidence: float) -> Proportion | None:
        """Exact for one fit. Several fits of the same patients are no more patients, so n stays theirs."""
        counted = [(c.covered[mode][side], c.patients) for c in self.counts if side in c.covered.get(mode, {})]
        if not counted:
            return None
        if len(counted) == 1:
            ((k, n),) = counted
            return Proportion(k / n, *clopper_pearson(k, n, confidence), confidence, "clopper-pearson", n, (k, n))
        share = float(np.mean([k / n for k, n in counted]))
        expected = round(share * n_patients, 9)
        low = clopper_pearson(math.floor(expected), n_patients, confidence)[0]
        high = clopper_pearson(math.ceil(expected), n_patients, confidence)[1]
        return Proportion(share, low, high, confidence, "clopper-pearson", n_patients)

    def _binary(
        self, threshold: float, means: Mapping[str, Array], estimate: EstimateOf, confidence: float
    ) -> BinaryResult:
        alone = self.counts[0] if len(self.counts) == 1 and self.counts[0].visits == self.counts[0].patients else None

        def share(name: str, side: Side, found: Breakdown) -> Proportion | None:
            if alone is None or side not in alone.binary:
                return _proportion(found[side])
            k, n = _counted(alone.binary[side], name)
            if not n:
                return Proportion(math.nan, math.nan, math.nan, confidence, "undefined", 0, (0, 0))
            return Proportion(k / n, *wilson(k, n, confidence), confidence, "wilson", n, (k, n))

        def shares(name: str) -> PerSide[Proportion | None]:
            found = breakdown(means, name, estimate)
            right, left = (share(name, side, found) for side in Side)
            return PerSide(right, left, _proportion(found.average))

        areas = breakdown(means, "auc", estimate)
        if alone is not None:  # independent cases of one fit: the closed form needs no resamples
            areas = replace(
                areas,
                **{
                    name: Estimate(a.value, a.low, a.high, confidence, "delong", alone.patients, 0)
                    for name, a in alone.areas.items()
                    if math.isfinite(a.low) and getattr(areas, name) is not None
                },
            )
        prevalence = [[c.binary[side].prevalence for c in self.counts if side in c.binary] for side in Side]
        right, left = (float(np.mean(shares)) if shares else math.nan for shares in prevalence)
        return BinaryResult(
            threshold,
            shares("accuracy"),
            shares("sensitivity"),
            shares("specificity"),
            areas,
            (right, left),
        )


def _headline(vectors: Mapping[str, Array], name: str) -> float:
    """The value that :attr:`Breakdown.headline` shows."""
    keys = (f"{name}/{part}" for part in ("average", "right", "left", "patient"))
    return next((float(vectors[key][0]) for key in keys if key in vectors), math.nan)


def _variation(of_splits: Mapping[str, Sequence[float]]) -> Variation:
    values = [value for seeds in of_splits.values() for value in seeds]
    within = [float(np.var(seeds, ddof=1)) for seeds in of_splits.values() if len(seeds) > 1]
    return Variation(
        len(values),
        _sd(values),
        _sd([float(np.mean(seeds)) for seeds in of_splits.values()]),
        math.sqrt(float(np.mean(within))) if within else math.nan,
    )


def _sd(values: Sequence[float]) -> float:
    return float(np.std(values, ddof=1)) if len(values) > 1 else math.nan


def _added(pairs: Iterable[tuple[int, int]]) -> tuple[int, int]:
    both = list(pairs)
    return sum(right for right, _ in both), sum(left for _, left in both)


def _proportion(estimate: Estimate | None) -> Proportion | None:
    if estimate is None:
        return None
    return Proportion(estimate.value, estimate.low, estimate.high, estimate.level, estimate.method, estimate.n_patients)


def _counted(table: BinaryAgreement, name: str) -> tuple[int, int]:
    """Hits and cases of a share."""
    if name == "sensitivity":
        return table.tp, table.tp + table.fn
    if name == "specificity":
        return table.tn, table.tn + table.fp
    return table.tp + table.tn, table.tp + table.tn + table.fp + table.fn
