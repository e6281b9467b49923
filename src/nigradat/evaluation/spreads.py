"""Ways to make a spread, side by side on the same patients, each with its multiplier from the same calibration part.

Plain MC dropout, every candidate for the symmetric interval, an ensemble, a log-normal head's own noise, and what needs
no spread at all: a constant width and a width in proportion to the prediction. On a phantom the oracle stands beside
them: its intervals are the best that can be. A spread that does not beat the two plain widths has told nothing about
where the error is.

Everything is judged at three depths, each from calibration patients but the first:

* the curve of ``c +- k S`` traced on the tested patients, as in the paper: a description;
* intervals: ``k`` from the calibration patients' own curve (``nominal-cp``: the paper's way, no promise) and from split
  conformal prediction (the promise of :mod:`nigradat.uncertainty.calibration`);
* distributions: the Gaussian ``N(c, (t S)^2)`` with ``t`` the scale that maximises the likelihood of the calibration
  patients. The oracle's own is the phantom's log-normal distribution.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np

from nigradat.errors import CalibrationError, CohortError, ConfigError
from nigradat.evaluation.evaluate import check_scale as check_scale
from nigradat.evaluation.evaluate import own_split as own_split
from nigradat.evaluation.groups import Grouping, groupings, phantom_conditions
from nigradat.evaluation.judging import Judge, Judged, Kind, Patients, SpreadModel, SpreadSettings
from nigradat.evaluation.result import Rows, Subjects
from nigradat.evaluation.scoring import CENTRAL, Resampling
from nigradat.io.pack import PackedCohort, load_cohort
from nigradat.metrics import (
    beta_binomial_range,
    conformal_quantile,
)
from nigradat.models.weights import LoadedModel, load_model
from nigradat.phantom.oracle import TRUTH_FOLDER, Sides, oracle_predict, read_truth
from nigradat.training.fit import known_again
from nigradat.uncertainty.calibration import calibration_rows, check_unseen, who
from nigradat.uncertainty.mc_dropout import Draws, draw_predictions
from nigradat.uncertainty.symmetric_mc import (
    DEFAULT_MODE,
    MODES,
    Fusion,
    Spread,
    SymmetricMode,
    check_mode,
    fit_fusion,
    symmetric_spread,
)

Progress = Callable[[int, int], None]
_CHUNK: Final = 16  # visits in memory at once
_LEAST_WIDTH: Final = 0.1  # SBR: a width in proportion to a prediction near 0 would be none


# -- Values -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class SpreadComparison:
    """Spread models side by side.

    Attributes:
        run: the model's folder; ``title`` its name for people.
        card: of the run.
        beside, ensemble: names of the other runs' folders.
        patients: who was tested.
        judged: in the order of the tables: beside, model, reference, oracle.
        draws: of the run on the tested patients.
        fusion: the numbers of s7; None where its patients were not at hand.
        divisions: the groups that coverage was counted in.
        expected: central 99.9 % range of a valid conformal interval's coverage on as many patients.
        notes: what the reader must know.
        settings: how it was made.
    """

    run: Path
    title: str
    card: Mapping[str, Any]
    beside: tuple[str, ...]
    ensemble: tuple[str, ...]
    patients: Patients
    judged: tuple[Judged, ...]
    draws: Draws
    fusion: Fusion | None
    divisions: tuple[Grouping, ...]
    expected: tuple[float, float]
    notes: tuple[str, ...]
    settings: SpreadSettings

    def __getitem__(self, name: str) -> Judged:
        return next(j for j in self.judged if j.name == name)

    def __contains__(self, name: str) -> bool:
        return any(j.name == name for j in self.judged)

    @property
    def label(self) -> str:
        """What stands on every table and figure about the data; empty for patients throughout."""
        if self.patients.is_phantom:
            return "digital phantom, not patients"
        trained = self.card.get("training", {}).get("kind") == "phantom"
        return "model trained on a digital phantom" if trained else ""

    @cached_property
    def how(self) -> Resampling:
        """How its intervals over patients are drawn."""
        return Resampling(self.settings.resamples, self.settings.seed, self.settings.confidence)

    def summary(self) -> str:
        """A few lines for a terminal."""
        from nigradat.evaluation.spread_tables import summary

        return summary(self)

    def to_json(self) -> dict[str, Any]:
        """Plain values for machines."""
        from nigradat.evaluation.spread_tables import to_json

        return to_json(self)


# -- The whole ----------------------------------------------------------------------------------------------------


def compare_spreads(
    run: str | os.PathLike[str],
    cohort: PackedCohort | str | os.PathLike[str],
    *,
    calibrate_on: PackedCohort | str | os.PathLike[str] | None = None,
    trained_on: PackedCohort | str | os.PathLike[str] | None = None,
    ensemble: Sequence[str | os.PathLike[str]] = (),
    beside: Sequence[str | os.PathLike[str]] = (),
    level: float = 0.95,
    samples: int = 100,
    resamples: int = 2000,
    seed: int = 0,
    allow_other_scale: bool = False,
    progress: Progress | None = None,
) -> SpreadComparison:
    """Judge every way to make a spread on the same patients.

    Args:
        run: model folder; both sides, with dropout or a log-normal head.
        cohort: the run's own cohort, whose test part is tested, or another labelled one.
        calibrate_on: with another cohort: the run's own one, whose calibration part is taken, or a third one, taken
            whole. Without it half of the patients of ``cohort``, drawn by ``seed``, calibrate and the others are
            tested.
        trained_on: the run's own cohort where neither of the two is it; the patients that stopped the training fit s7.
        ensemble: further runs; with ``run`` they make a mixture.
        beside: runs to stand beside as plain MC dropout, such as VGG-small.
        level: of the intervals, and the CP at which Sharpness is read off.
        samples: Monte-Carlo draws.
        resamples, seed: of the bootstrap over patients; ``seed`` also draws the half and the networks.
        allow_other_scale: accept labels of another tracer, device or SPECT program than the models'.
        progress: called with (visits predicted, visits in all).

    Raises:
        CohortError: missing labels, no patients, or labels on another scale.
        CalibrationError: no spread, too few calibration patients, or patients that a model has met.
        ConfigError: a model that answers for one side, or a level outside 0..1.

    Example:
        >>> print(nigradat.compare_spreads("run", "cohort").summary())                          # doctest: +SKIP
    """
    loaded, members, others = load_model(run), [load_model(r) for r in ensemble], [load_model(r) for r in beside]
    everyone = [loaded, *members, *others]
    for model in everyone:
        if len(model.model.sides) != 2:
            raise ConfigError(f"{model.folder} answers for one side", "models of both sides")
    data, home = _open(cohort), None if calibrate_on is None else _open(calibrate_on)
    at_hand = [c for c in (data, home) if c is not None]
    if trained_on is not None:
        at_hand.append(_open(trained_on))
        if own_split(loaded, at_hand[-1]) is None:
            raise CohortError(
                f"{at_hand[-1].folder} did not train this model", "the cohort of the training run as trained_on"
            )
    tested, calibration = _choose(loaded, data, home, seed)
    _check_patients(everyone, (tested, calibration), level, allow_other_scale)
    scale = loaded.spec.sbr_max
    settings = SpreadSettings(level, samples, resamples, seed, Resampling().confidence, scale)
    tick = _Tick(progress, len(everyone) * (len(tested.rows) + len(calibration.rows)))
    drawn = [(_draw(m, tested, settings, tick), _draw(m, calibration, settings, tick)) for m in everyone]
    fusion, notes = _fusion(loaded, at_hand, settings)

    models = _of_beside(others, drawn[1 + len(members) :])
    models += _of_run(loaded, drawn[0], fusion)
    if members:
        models += _of_ensemble(drawn[: 1 + len(members)], scale)
    models += _references(drawn[0])
    oracles, remarks = _oracles(tested)
    subjects, truth = tested.subjects(), calibration.data.sbr[calibration.rows]
    patients = Patients(
        subjects,
        truth,
        tested.data.folder.name,
        calibration.data.folder.name,
        tested.words,
        data.is_phantom,
        data.provenance,
    )
    conditions = phantom_conditions(data.folder, tested.rows) if oracles else None
    divisions = tuple(groupings(subjects, drawn[0][0].samples.mean(axis=0), conditions))
    judge = Judge(patients, settings, oracles, divisions)
    return SpreadComparison(
        run=loaded.folder,
        title=_name_of(loaded),
        card=loaded.card,
        beside=tuple(m.folder.name for m in others),
        ensemble=tuple(m.folder.name for m in members),
        patients=patients,
        judged=tuple(judge(model) for model in (*models, *oracles)),
        draws=drawn[0][0],
        fusion=fusion,
        divisions=divisions,
        expected=beta_binomial_range(len(truth), subjects.n_patients, level, CENTRAL),
        notes=(*notes, *remarks),
        settings=settings,
    )


# -- Who is tested, and who calibrates ----------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Part:
    """Rows of a cohort, and how they were chosen."""

    data: PackedCohort
    rows: Rows
    words: str

    def subjects(self) -> Subjects:
        ids = np.array(self.data.patient_ids)[self.rows]
        _, patient_of_visit = np.unique(ids, return_inverse=True)
        people = tuple(self.data.participants[i] for i in self.rows)
        return Subjects(self.rows, people, self.data.sbr[self.rows], patient_of_visit)


def _open(cohort: PackedCohort | str | os.PathLike[str]) -> PackedCohort:
    return cohort if isinstance(cohort, PackedCohort) else load_cohort(cohort)


def _choose(loaded: LoadedModel, data: PackedCohort, home: PackedCohort | None, seed: int) -> tuple[_Part, _Part]:
    """The tested and the calibrating visits."""
    split = own_split(loaded, data)
    if split is not None:
        if home is not None and home.sha256 != data.sha256:
            raise ConfigError("calibrate_on with the run's own cohort", "nothing: its calibration part is taken")
        words = "test and calibration part of the run's own cohort"
        rows = calibration_rows(loaded, data)
        return _Part(data, split.rows(data, "test"), words), _Part(data, _one_visit_each(data, rows), words)
    if home is not None:
        if home.sha256 == data.sha256:
            raise ConfigError(f"{data.folder} to be tested and to calibrate", "another cohort for calibrate_on")
        words = "the whole cohort; calibrated on another"
        rows = _one_visit_each(home, calibration_rows(loaded, home))
        return _Part(data, np.arange(len(data)), words), _Part(home, rows, words)
    names = np.unique(np.array(data.patient_ids))
    calibrates = np.random.default_rng(seed).permutation(names)[: len(names) // 2]
    is_calibrating = np.isin(np.array(data.patient_ids), calibrates)
    words = "half of the patients; the other half calibrated"
    return (
        _Part(data, np.flatnonzero(~is_calibrating), words),
        _Part(data, _one_visit_each(data, np.flatnonzero(is_calibrating)), words),
    )


def _one_visit_each(data: PackedCohort, rows: Rows) -> Rows:
    """One visit a patient, or the scores would not be exchangeable with those of a new patient."""
    first = {data.patient_ids[i]: i for i in rows[::-1]}
    return np.array(sorted(first.values()), dtype=int)


def _check_patients(models: Sequence[LoadedModel], parts: Sequence[_Part], level: float, other_scale: bool) -> None:
    """Refuse patients without labels, too few of them, on another scale, or met before by any of the models."""
    for part, purpose in zip(parts, ("testing", "calibration"), strict=True):
        data, rows = part.data, part.rows
        if len(set(np.array(data.patient_ids)[rows])) < 2:
            raise CohortError(f"{len(rows)} visits of {data.folder} for {purpose}", "at least 2 patients")
        missing = int(np.count_nonzero(~np.isfinite(data.sbr[rows]).all(axis=1)))
        if missing:
            raise CohortError(
                f"{missing} of {len(rows)} visits of {data.folder} have no SBR label", "both SBR values for every visit"
            )
        for model in models:
            check_scale(model, data, other_scale)
            check_unseen(model, data, rows, purpose)
    tested, calibration = parts
    if known := known_again(tested.data, tested.rows, who(calibration.data, calibration.rows)):
        raise CalibrationError(
            f"{len(known)} of the {len(tested.rows)} visits for testing belong to patients for calibration "
            f"({', '.join(known[:5])})",
            "patients that did not calibrate the intervals",
            "Take them out of one of the two cohorts",
        )
    conformal_quantile(
        np.zeros(len(calibration.rows)), level
    )  # raises where they are too few, naming the number needed


# -- What the models answer ---------------------------------------------------------------------------------------


class _Tick:
    """Counts visits for a progress bar."""

    def __init__(self, progress: Progress | None, total: int) -> None:
        self.progress, self.total, self.done = progress, total, 0

    def __call__(self, visits: int) -> None:
        self.done += visits
        if self.progress is not None:
            self.progress(self.done, self.total)


def _draw(loaded: LoadedModel, part: _Part, settings: SpreadSettings, tick: _Tick | None = None) -> Draws:
    found = []
    for start in range(0, len(part.rows), _CHUNK):
        patches = np.stack([part.data.read(int(i)) for i in part.rows[start : start + _CHUNK]])
        found.append(draw_predictions(loaded.model, patches, samples=settings.samples, seed=settings.seed))
        if tick is not None:
            tick(len(patches))
    return Draws.joined(found)


def _fusion(
    loaded: LoadedModel, at_hand: Sequence[PackedCohort], settings: SpreadSettings
) -> tuple[Fusion | None, list[str]]:
    """The numbers of s7 from the patients that stopped the training, where their cohort is at hand."""
    for cohort in at_hand:
        split = own_split(loaded, cohort)
        if split is not None:
            rows = split.rows(cohort, "stop")
            if len(rows) < 4:
                return None, ["No s7: fewer than 4 patients stopped the training."]
            drawn = _draw(loaded, _Part(cohort, rows, ""), settings)
            return fit_fusion(drawn.samples, cohort.sbr[rows]), []
    return None, ["No s7: the patients that stopped the training, who fit it, are not at hand (trained_on)."]


def _both(name: str, title: str, kind: Kind, make: Callable[[Draws], Spread], of: tuple[Draws, Draws]) -> SpreadModel:
    """A spread model made in one way of the draws on the tested and on the calibration patients."""
    return SpreadModel(name, title, kind, make(of[0]), make(of[1]))


def _of_run(loaded: LoadedModel, of: tuple[Draws, Draws], fusion: Fusion | None) -> list[SpreadModel]:
    """Plain MC dropout and every symmetric candidate, and a head's own noise."""
    has_noise = of[0].noise_sd is not None
    found = [
        _both(
            mode,
            _mode_title(mode) + (" with the head's noise" if has_noise else ""),
            "model",
            _in_mode(mode, loaded.spec.sbr_max, fusion),
            of,
        )
        for mode in map(check_mode, MODES)
        if mode != "s7" or fusion is not None
    ]
    if has_noise:
        found.append(_both("head", "Noise of the log-normal head alone", "model", _noise_alone, of))
    return found


def _in_mode(mode: SymmetricMode, scale: float, fusion: Fusion | None = None) -> Callable[[Draws], Spread]:
    return lambda drawn: symmetric_spread(drawn.samples, mode, scale, fusion, drawn.noise_sd)


def _noise_alone(drawn: Draws) -> Spread:
    """What a log-normal head itself says, without the spread of the draws."""
    assert drawn.noise_sd is not None
    return Spread(drawn.samples.mean(axis=0), drawn.noise_sd)


def _mode_title(mode: SymmetricMode) -> str:
    if mode == "mc":
        return "MC"
    if mode == "s7":
        return "Fused, s7 (extension)"
    return f"Symmetric MC, {mode}{' (default)' if mode == DEFAULT_MODE else ''}"


def _name_of(loaded: LoadedModel) -> str:
    """A model's short name; what it was trained on stands in the label of every table."""
    return str(loaded.card.get("title", loaded.folder.name))


def _of_beside(models: Sequence[LoadedModel], drawn: Sequence[tuple[Draws, Draws]]) -> list[SpreadModel]:
    """Plain MC dropout of other runs, and their heads' own noise."""
    titles = [_name_of(m) for m in models]
    found = []
    for i, (model, of) in enumerate(zip(models, drawn, strict=True)):
        title = titles[i] if titles.count(titles[i]) == 1 else f"{titles[i]} ({model.folder.name})"
        found.append(_both(f"beside-{i + 1}", f"MC + {title}", "beside", _in_mode("mc", model.spec.sbr_max), of))
        if of[0].noise_sd is not None:
            found.append(_both(f"beside-{i + 1}-head", f"Noise of the head alone, {title}", "beside", _noise_alone, of))
    return found


def _of_ensemble(drawn: Sequence[tuple[Draws, Draws]], scale: float) -> list[SpreadModel]:
    """Equal mixture of the members' samples, plain and pooled over the sides (Lakshminarayanan 2017, with dropout)."""
    of = _mixture([pair[0] for pair in drawn]), _mixture([pair[1] for pair in drawn])
    modes: tuple[SymmetricMode, ...] = ("mc", DEFAULT_MODE)
    return [
        _both(
            f"ensemble-{mode}",
            f"Ensemble of {len(drawn)}, {_mode_title(mode)}",
            "model",
            _in_mode(mode, scale),
            of,
        )
        for mode in modes
    ]


def _mixture(members: Sequence[Draws]) -> Draws:
    """All samples together; a member without a noise of its own adds none."""
    noise = [np.square(m.noise_sd) for m in members if m.noise_sd is not None]
    return Draws(
        np.mean([m.point for m in members], axis=0),
        np.concatenate([m.samples for m in members]),
        np.sqrt(np.sum(noise, axis=0) / len(members)) if noise else None,
    )


def _references(of: tuple[Draws, Draws]) -> list[SpreadModel]:
    """Widths that need no spread: whatever is to be called informative has to beat them."""

    def constant(drawn: Draws) -> Spread:
        centre = drawn.samples.mean(axis=0)
        return Spread(centre, np.ones_like(centre))

    def proportional(drawn: Draws) -> Spread:
        centre = drawn.samples.mean(axis=0)
        return Spread(centre, np.maximum(centre, _LEAST_WIDTH))

    return [
        _both("constant", "No spread: constant width", "reference", constant, of),
        _both("proportional", "No spread: width in proportion to the prediction", "reference", proportional, of),
    ]


def _oracles(part: _Part) -> tuple[list[SpreadModel], list[str]]:
    """The phantom's own answer, from one side and from both."""
    data = part.data
    if not data.is_phantom:
        return [], []
    if not (data.folder / TRUTH_FOLDER).is_dir():
        return [], [
            "The phantom's truth is not beside the cohort: no oracle, no efficiency, no SNR or centring groups."
        ]
    truth = read_truth(data.folder)
    if truth.participant_id != data.patient_ids:
        raise CohortError(
            f"{data.folder / TRUTH_FOLDER} belongs to other patients", "the truth of this cohort", "Simulate it again"
        )
    views: tuple[tuple[Sides, str], ...] = (("single", "own side"), ("pair", "both sides"))
    found = []
    for sides, sees in views:
        best = oracle_predict(truth.latents.m[part.rows], truth.preset, sides)
        spread = Spread(best.mean, best.mean)
        found.append(SpreadModel(f"oracle-{sides}", f"Oracle, sees {sees}", "oracle", spread, None, best.log_sd))
    return found, []
