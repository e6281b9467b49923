"""``evaluate``: a trained model on patients that it has not met, with what it must be compared with."""

from __future__ import annotations

import csv
import os
import platform
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from nigradat import __version__
from nigradat.anatomy import Side
from nigradat.baselines import BASELINES, fit_baselines, predict_baselines
from nigradat.errors import CalibrationError, CohortError, ConfigError
from nigradat.evaluation.result import (
    Array,
    Evaluation,
    Intervals,
    KeptPromise,
    Rows,
    Scored,
    Settings,
    Subjects,
    TestedOn,
    Trace,
)
from nigradat.evaluation.scoring import Resampling, compare, judge_intervals, keep_promise, score, skill, trace
from nigradat.io.manifest import Participant
from nigradat.io.pack import PackedCohort, load_cohort
from nigradat.models.weights import LoadedModel, load_model
from nigradat.phantom.oracle import TRUTH_FOLDER, Sides, oracle_predict, read_truth
from nigradat.training.fit import LOG_NAME, SPLIT_NAME, known_again
from nigradat.training.split import PARTS, Split
from nigradat.uncertainty.calibration import THIRDS, Calibration, Rule, check_unseen, load_calibration
from nigradat.uncertainty.cross_validation import CrossCalibration, load_cross_calibration
from nigradat.uncertainty.mc_dropout import Draws, draw_predictions, has_spread, predict_sbr
from nigradat.uncertainty.symmetric_mc import DEFAULT_MODE, Spread, SymmetricMode, symmetric_spread

Progress = Callable[[int, int], None]

TEST, WHOLE, VALIDATION = "test", "whole", "validation"
_CHUNK: Final = 16  # visits in memory at once
_SAMPLES: Final = 100  # Monte-Carlo draws of a model that was not calibrated
_SCALE: Final = ("tracer", "spect_device", "spect_software", "spect_reconstruction", "sbr_method")
_SEEN: Final = {
    "train": "These patients TRAINED the model",
    "stop": "These patients STOPPED the training, so the weights were selected on them",
    "calibration": "These patients CALIBRATED the intervals",
    VALIDATION: "Half of these patients STOPPED the training and the other half CALIBRATED the intervals",
}

_RULE_TITLES: Final[dict[Rule, str]] = {
    "conformal": "Split conformal",
    "mondrian": "Mondrian by thirds of the prediction",
    "joint": "Joint for both sides",
    "nominal-cp": "Nominal CP",
}


def evaluate(
    run: str | os.PathLike[str],
    cohort: PackedCohort | str | os.PathLike[str],
    *,
    trained_on: PackedCohort | str | os.PathLike[str] | None = None,
    subset: str = TEST,
    level: float = 0.95,
    rule: Rule = "conformal",
    resamples: int = 2000,
    seed: int = 0,
    allow_other_scale: bool = False,
    allow_other_recipe: bool = False,
    progress: Progress | None = None,
) -> Evaluation:
    """Score a trained model, with bootstrap intervals over patients.

    Besides the model stand the ridge regression on hand-made features, fitted on the model's own training patients, and
    on a phantom cohort the oracle. Patches are read a few at a time, so the cohort may be larger than the memory.

    Args:
        run: model folder.
        cohort: the run's own cohort, of which one part is taken, or another labelled one, taken whole.
        trained_on: the run's own cohort where ``cohort`` is another; without it there is no ridge baseline.
        subset: ``test``, or ``train``, ``stop``, ``calibration`` or ``validation`` of the run's own cohort; the result
            then says loudly that these patients were seen.
        level: of the calibrated intervals, and the CP at which Sharpness is read off.
        rule: of the calibrated intervals; see :mod:`nigradat.uncertainty.calibration`.
        resamples: bootstrap resamples of patients.
        seed: of the resamples.
        allow_other_scale: accept labels of another tracer, device or SPECT program than the model's.
        allow_other_recipe: accept images of another SMWI recipe than the model's.
        progress: called with (visits predicted, visits in all).

    Raises:
        CohortError: missing labels, an empty part, a split of another cohort, labels on another scale, or images
            of another SMWI recipe.
        CalibrationError: another cohort with patients that trained or stopped the model, or for ``cv+`` any fold's.
        ConfigError: an unknown subset, or a subset of another cohort.
        WeightsError: no finished model in ``run``.

    Example:
        >>> print(nigradat.evaluate("run", "cohort").summary())                                 # doctest: +SKIP
    """
    loaded, data = load_model(run), _open(cohort)
    split = own_split(loaded, data)
    tested, rows = _select(loaded, data, split, subset)
    check_scale(loaded, data, allow_other_scale)
    _check_recipe(loaded, data, allow_other_recipe)
    subjects = _subjects(data, rows)
    how = Resampling(resamples, seed)
    settings = Settings(level, rule, how.confidence, resamples, seed)
    scale = loaded.spec.sbr_max

    calibration = load_calibration(loaded)
    if calibration is not None and not tested.seen and (known := known_again(data, rows, calibration.met)):
        some = f"{len(known)} of these {len(rows)} visits are of patients who CALIBRATED the intervals"
        which = _SEEN["calibration"] if len(known) == len(rows) else some
        tested = replace(tested, seen=f"{which}: this is no test of their coverage")
    cross = load_cross_calibration(loaded) if rule == "cv+" else None
    if cross is not None:
        _check_untouched(cross, data, rows)
    answer = _predict(loaded, data, rows, calibration, cross, level, progress)
    traces, intervals, notes = _uncertainty(loaded, calibration, cross, answer, subjects, level, rule, how)
    title = str(loaded.card.get("title", loaded.folder.name))
    model = score(
        str(loaded.card.get("name", loaded.folder.name)),
        title,
        "model",
        answer.sbr,
        subjects,
        how,
        traces=traces,
        intervals=intervals,
    )

    home, home_split = (data, split) if split is not None else _home(loaded, trained_on)
    baselines = []
    if home is not None and home_split is not None:
        baselines.append(_ridge(home, home_split, data, subjects, how))
    else:
        notes.append("No ridge baseline: the patients that trained the model are not at hand (trained_on).")
    oracles, oracle_notes = _oracles(data, subjects, scale, level, how)
    notes += oracle_notes

    return Evaluation(
        run=loaded.folder,
        card=loaded.card,
        history=_history(loaded.folder / LOG_NAME),
        tested=tested,
        subjects=subjects,
        model=model,
        baselines=tuple(baselines),
        oracles=tuple(oracles),
        gains={b.name: compare(model.predicted, b.predicted, subjects, how) for b in baselines},
        skill=skill(model.predicted, oracles[0].predicted, oracles[1].predicted, subjects, how) if oracles else {},
        parts=_parts(home, home_split, tested, subjects),
        notes=tuple(notes),
        settings=settings,
        made_with=_versions(),
    )


# -- Who is tested ------------------------------------------------------------------------------------------------


def _open(cohort: PackedCohort | str | os.PathLike[str]) -> PackedCohort:
    return cohort if isinstance(cohort, PackedCohort) else load_cohort(cohort)


def own_split(loaded: LoadedModel, data: PackedCohort) -> Split | None:
    """The run's split where ``data`` is the cohort that it was trained on.

    Raises:
        CohortError: the split is not the one that the card vouches for.
    """
    training = loaded.card.get("training", {})
    if training.get("cohort_sha256") != data.sha256:
        return None
    split = Split.load(loaded.folder / SPLIT_NAME)
    if split.sha256 != training.get("split_sha256"):
        raise CohortError(
            f"{loaded.folder / SPLIT_NAME} is not the split that the model was trained with",
            "the file that the training wrote",
            "Take a fresh copy of the whole run folder",
        )
    split.check(data)
    return split


def _home(
    loaded: LoadedModel, trained_on: PackedCohort | str | os.PathLike[str] | None
) -> tuple[PackedCohort | None, Split | None]:
    if trained_on is None:
        return None, None
    home = _open(trained_on)
    split = own_split(loaded, home)
    if split is None:
        raise CohortError(f"{home.folder} did not train this model", "the cohort of the training run as trained_on")
    return home, split


def _select(loaded: LoadedModel, data: PackedCohort, split: Split | None, subset: str) -> tuple[TestedOn, Rows]:
    if subset not in (*PARTS, VALIDATION):
        raise ConfigError(f"the subset '{subset}'", ", ".join((*PARTS, VALIDATION)))
    if split is None:
        if subset != TEST:
            raise ConfigError(
                f"the subset '{subset}' of a cohort that did not train this model",
                "a part of the run's own cohort; another cohort is taken whole",
            )
        rows = np.arange(len(data))
    else:
        rows = split.rows(data, subset)
    if len(set(np.array(data.patient_ids)[rows])) < 2:
        raise CohortError(f"{len(rows)} visits in '{subset}'", "at least 2 patients to test on")
    missing = int(np.count_nonzero(~np.isfinite(data.sbr[rows]).all(axis=1)))
    if missing:
        raise CohortError(
            f"{missing} of {len(rows)} visits of {data.folder} have no SBR label", "both SBR values for every visit"
        )
    if subset == TEST:  # of the own cohort too: a model that it was tuned from may have met them
        check_unseen(loaded, data, rows, "testing")
    seen = f"{_SEEN[subset]}: this is no test" if subset in _SEEN else ""
    part = WHOLE if split is None else subset
    return TestedOn(data.folder.name, data.sha256, data.provenance, split is not None, part, seen), rows


def check_scale(loaded: LoadedModel, data: PackedCohort, allowed: bool) -> None:
    """Refuse labels that are not on the model's scale, or not known to be: what either side states, both must.

    Raises:
        CohortError: naming what differs.
    """
    of_model = loaded.card.get("sbr_scale", {})
    odd = [
        f"{name}: {_listed(of_model.get(name))} in training, {_listed(data.sbr_scale.get(name))} here"
        for name in _SCALE
        if sorted(of_model.get(name) or ()) != sorted(data.sbr_scale.get(name) or ())
    ]
    if odd and not allowed:
        raise CohortError(
            f"the labels of {data.folder} are not on the model's SBR scale ({'; '.join(odd)})",
            "labels of the same tracer, device, software, reconstruction and method",
            "Say --allow-other-scale (allow_other_scale=True) if they were harmonised",
        )


def _check_untouched(cross: CrossCalibration, data: PackedCohort, rows: Rows) -> None:
    """Refuse patients that the folds know: each trains some of their models and calibrates another.

    Raises:
        CalibrationError: the cohort of the folds, or another with their patients.
    """
    if cross.cohort_sha256 == data.sha256:
        raise CalibrationError(
            "CV+ on the cohort of its own folds, whose patients trained or calibrated every interval",
            "patients that no fold has met",
            "Test on another cohort, or take the rule conformal",
        )
    for model in cross.models:
        check_unseen(model, data, rows, "testing CV+")


def _check_recipe(loaded: LoadedModel, data: PackedCohort, allowed: bool) -> None:
    """Refuse images that were made by another SMWI recipe. Raises :class:`~nigradat.errors.CohortError`."""
    if (odd := loaded.differs_in(data.smwi_recipe)) and not allowed:
        raise CohortError(
            f"the SMWI of {data.folder} were made by another recipe than the model's ({'; '.join(odd)} here)",
            "the recipe of the images that trained the model",
            "Say --allow-other-recipe (allow_other_recipe=True) to see what the change does",
        )


def _listed(names: object) -> str:
    return ", ".join(map(str, names)) if isinstance(names, list) and names else "unknown"


def _subjects(data: PackedCohort, rows: Rows) -> Subjects:
    ids = np.array(data.patient_ids)[rows]
    _, patient_of_visit = np.unique(ids, return_inverse=True)
    return Subjects(rows, tuple(data.participants[i] for i in rows), data.sbr[rows], patient_of_visit)


def _parts(
    home: PackedCohort | None, split: Split | None, tested: TestedOn, subjects: Subjects
) -> dict[str, tuple[Participant, ...]]:
    """Participants of the cohort table's columns."""
    out: dict[str, tuple[Participant, ...]] = {}
    if home is not None and split is not None:
        parts = PARTS if tested.own else tuple(p for p in PARTS if p != TEST)
        out = {part: tuple(home.participants[i] for i in split.rows(home, part)) for part in parts}
    if not tested.own:
        out["tested"] = subjects.participants
    return {name: members for name, members in out.items() if members}


# -- Predictions --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Answer:
    """Point predictions ``(n, 2)`` SBR, what a spread is made of (nothing for a model that has none), CV+ intervals."""

    sbr: Array
    drawn: Draws | None
    cv_plus: tuple[Array, Array] | None = None


def _chunks(data: PackedCohort, rows: Rows) -> Iterator[npt.NDArray[np.float32]]:
    for start in range(0, len(rows), _CHUNK):
        yield np.stack([data.read(int(i)) for i in rows[start : start + _CHUNK]])


def _predict(
    loaded: LoadedModel,
    data: PackedCohort,
    rows: Rows,
    calibration: Calibration | None,
    cross: CrossCalibration | None,
    level: float,
    progress: Progress | None,
) -> _Answer:
    spreads = has_spread(loaded.model)
    count, seed = (_SAMPLES, 0) if calibration is None else (calibration.samples, calibration.seed)
    points, draws, crossed = [], [], []
    done = 0
    for patches in _chunks(data, rows):
        if spreads:
            draws.append(draw_predictions(loaded.model, patches, samples=count, seed=seed))
        else:
            points.append(predict_sbr(loaded.model, patches))
        if cross is not None:
            crossed.append(cross.interval(patches, level))
        done += len(patches)
        if progress is not None:
            progress(done, len(rows))
    if not spreads:
        return _Answer(np.concatenate(points), None)
    drawn = Draws.joined(draws)
    ends = [np.concatenate(end) for end in zip(*crossed, strict=True)]
    return _Answer(drawn.point, drawn, (ends[0], ends[1]) if ends else None)


def _uncertainty(
    loaded: LoadedModel,
    calibration: Calibration | None,
    cross: CrossCalibration | None,
    answer: _Answer,
    subjects: Subjects,
    level: float,
    rule: Rule,
    how: Resampling,
) -> tuple[list[Trace], list[Intervals], list[str]]:
    """Curves of plain and of symmetric MC dropout, the calibrated intervals, and what is missing and why."""
    if answer.drawn is None:
        return [], [], ["The model has no dropout, so it has no spread and no interval."]
    scale, drawn = loaded.spec.sbr_max, answer.drawn
    noisy = "" if drawn.noise_sd is None else " with the head's own noise"

    def spread_of(mode: SymmetricMode) -> Spread:
        return symmetric_spread(drawn.samples, mode, scale, noise_sd=drawn.noise_sd)

    spreads: list[tuple[str, str, Spread]] = [("mc", f"MC dropout{noisy}", spread_of("mc"))]
    notes = []
    if len(loaded.model.sides) == 2:
        mode = DEFAULT_MODE if calibration is None else calibration.mode
        if mode != "mc":
            spread = spread_of(mode) if calibration is None else calibration.spread(drawn, scale)
            spreads.append((mode, f"Symmetric MC, {mode} (reconstruction){noisy}", spread))
    traces = []
    for name, title, spread in spreads:
        if spread.cut_with_other is None:
            traces.append(trace(name, title, spread.centre, spread.spread, subjects, scale, how, level))
        else:
            notes.append(f"{title}: its intervals are cut with the other side's, so it has no curve c +- k S.")
    if rule == "cv+" and (cross is None or answer.cv_plus is None):
        notes.append("No CV+ interval: the run has no folds. Run 'nigradat calibrate' with --fold.")
        return traces, [], notes
    promises: tuple[KeptPromise, ...] = ()
    if cross is not None and answer.cv_plus is not None:
        lower, upper = answer.cv_plus
        name, k, promise, n = f"CV+, {cross.mode}", None, cross.promise(level), cross.patients
    elif calibration is None:
        notes.append("Not calibrated: the spreads below are raw and make no interval. Run 'nigradat calibrate'.")
        return traces, [], notes
    else:
        spread = calibration.spread(drawn, scale)
        try:
            k = calibration.multiplier(level, rule, spread.centre)
        except CalibrationError as error:
            notes.append(f"No calibrated interval: {error}")
            return traces, [], notes
        lower, upper = spread.interval(k)
        name, promise = f"{_RULE_TITLES[rule]}, {calibration.mode}", calibration.promise(level, rule)
        n = calibration.patients
        promises = tuple(_promises(calibration, rule, spread.centre, (lower, upper), subjects, level, how))
    judged = judge_intervals(
        name,
        lower,
        upper,
        subjects,
        scale,
        how,
        level=level,
        promise=promise,
        calibrated_on=n,
        conformal=rule == "conformal",
        multiplier=k if k is not None and k.ndim == 1 else None,
    )
    return traces, [replace(judged, promises=promises)], notes


def _promises(
    calibration: Calibration,
    rule: Rule,
    centre: Array,
    ends: tuple[Array, Array],
    subjects: Subjects,
    level: float,
    how: Resampling,
) -> Iterator[KeptPromise]:
    """What the rule promises about more than each side by itself."""
    inside = np.asarray((ends[0] <= subjects.truth) & (subjects.truth <= ends[1]))
    made: list[tuple[str, npt.NDArray[np.bool_], npt.NDArray[np.bool_], int]] = []
    if rule == "joint" and np.isfinite(ends[0]).all():
        everybody = np.ones(len(inside), dtype=bool)
        made.append(("both sides together", np.asarray(inside.all(axis=1)), everybody, calibration.patients))
    if rule == "mondrian":
        for side in Side:
            cuts, scores = calibration.thirds(side)
            third = np.searchsorted(cuts, centre[:, side.index], side="left")
            for i, name in enumerate(THIRDS):
                about = f"{side.value}, {name} third of the predictions"
                made.append((about, inside[:, side.index], np.asarray(third == i), len(scores[i])))
    for about, covered, among, patients in made:
        kept = keep_promise(about, covered, subjects, how, level=level, calibrated_on=patients, among=among)
        if kept is not None:
            yield kept


# -- What it is compared with -------------------------------------------------------------------------------------


def _ridge(home: PackedCohort, split: Split, data: PackedCohort, subjects: Subjects, how: Resampling) -> Scored:
    """Six hand-made features and ridge regression, fitted on the run's training patients alone."""
    name = "ridge"
    fitted = fit_baselines(home, split.rows(home, "train"), [name])
    predicted = predict_baselines(fitted, data, subjects.rows)[name]
    return score(name, BASELINES[name].title, "baseline", predicted, subjects, how)


def _oracles(
    data: PackedCohort, subjects: Subjects, scale: float, level: float, how: Resampling
) -> tuple[list[Scored], list[str]]:
    """The best predictions from the latents that the phantom's images were made from."""
    if not data.is_phantom:
        return [], []
    if not (data.folder / TRUTH_FOLDER).is_dir():
        return [], ["The phantom's truth is not beside the cohort, so there is no oracle to compare with."]
    truth = read_truth(data.folder)
    if truth.participant_id != data.patient_ids:
        raise CohortError(
            f"{data.folder / TRUTH_FOLDER} belongs to other patients", "the truth of this cohort", "Simulate it again"
        )
    found = []
    m = truth.latents.m[subjects.rows]
    views: tuple[tuple[Sides, str], ...] = (("single", "own side"), ("pair", "both sides"))
    for sides, sees in views:
        best = oracle_predict(m, truth.preset, sides, level)
        title = f"Oracle, sees {sees}"
        curve = trace("oracle", title, best.mean, best.mean, subjects, scale, how, level)
        judged = judge_intervals(
            title,
            best.lower,
            best.upper,
            subjects,
            scale,
            how,
            level=level,
            promise=f"central {100 * level:g} % of the phantom's own distribution given what its images were made from",
        )
        found.append(
            score(f"oracle-{sides}", title, "oracle", best.mean, subjects, how, traces=[curve], intervals=[judged])
        )
    return found, []


def _history(path: Path) -> tuple[Mapping[str, float], ...]:
    if not path.is_file():
        return ()
    with path.open(encoding="utf-8", newline="") as stream:
        return tuple({k: float(v) for k, v in row.items()} for row in csv.DictReader(stream))


def _versions() -> dict[str, str]:
    from importlib import metadata

    packages: dict[str, Any] = {name: metadata.version(name) for name in ("numpy", "scipy", "torch")}
    return {"nigradat": __version__, "python": platform.python_version(), **packages}
