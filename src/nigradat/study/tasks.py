"""The tasks of a study, as an engine calls them: plain arguments in, files out, each done once.

Every task takes its lock, looks whether it is done already, works, and writes its record last. The test patients of a
split are predicted after all else has been settled: weights and epoch by the training and stopping patients, the
numbers of the fusion (s7) by the stopping patients, the width of the intervals by the calibration patients.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nigradat.anatomy import Side
from nigradat.baselines import (
    BASELINES,
    Fitted,
    FittedFeatures,
    ReadingAgreement,
    Readings,
    agreement_with_diagnosis,
    agreement_with_sbr,
    fit_baselines,
    observer_readings,
    read_features,
)
from nigradat.errors import CalibrationError, MissingExtraError, NigradatError, OutputError
from nigradat.evaluation.predictions import PREDICTIONS_NAME, FitRecord, Predictions
from nigradat.io.files import write_text
from nigradat.io.pack import PackedCohort, load_cohort
from nigradat.metrics.conformal import conformal_quantile
from nigradat.models.registry import get_method
from nigradat.models.weights import WEIGHTS_NAME, LoadedModel, load_model
from nigradat.phantom.cohort import simulate
from nigradat.phantom.latents import Preset
from nigradat.phantom.oracle import TRUTH_FOLDER, Sides, oracle_predict, read_truth
from nigradat.study.engines import State
from nigradat.study.folder import (
    CALIBRATION_TABLE,
    FAILED_NAME,
    FIT_NAME,
    TIMES_NAME,
    FitName,
    Reading,
    StudyFolder,
    read_json,
    read_record,
    write_readings,
    write_record,
)
from nigradat.study.plan import ENSEMBLE_OF, LAST_BASELINE, StudyPlan, model_record, split_draw
from nigradat.study.progress import epoch_seconds
from nigradat.training.config import Hardware
from nigradat.training.fit import Report, train
from nigradat.training.split import Split
from nigradat.uncertainty.calibration import Calibration, save_calibration, who
from nigradat.uncertainty.mc_dropout import Draws, draw_predictions, has_spread, predict_sbr
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

Array = npt.NDArray[np.float64]
Rows = npt.NDArray[np.int_]
Answer = tuple[State, str]
Pairs = Mapping[str, tuple[Array, Array]]  # by mode: centre and spread, or the ends of an interval; (n, 2) each
DONE: Answer = ("done", "")
BUSY: Answer = ("busy", "")

FAILURES = (NigradatError, MemoryError, ArithmeticError, RuntimeError, ValueError)
"""What ends one fit and not the study; torch: no memory is a RuntimeError; numpy: a singular matrix is a ValueError."""

FUSED = "fused"
ENSEMBLE_MODES = ("mc", "s1")
_CHUNK = 16  # visits in memory at once
_MC_SEED = 0


# -- One fit ------------------------------------------------------------------------------------------------------


def fit(study: str, cohort: str, split: str, method: str, seed: int, device: str = "auto", threads: int = 1) -> Answer:
    """Train, calibrate and test one method on one split with one seed.

    A fit that fails (diverges, runs out of memory, predicts no numbers) leaves ``failed.json`` with the reason.

    Raises:
        OutputError, MissingExtraError: what would stop every other fit, too.
    """
    folder, name = StudyFolder(Path(study)), FitName(split, method, seed)
    run = folder.fit(name.key)
    with folder.locked(name.key) as alone:
        if not alone:
            return BUSY
        there = read_record(run)
        if there is not None:
            return ("failed", there.failed) if there.failed else DONE
        plan, data, parts = StudyPlan.load(folder), load_cohort(cohort), Split.load(folder.split(split))
        try:
            _fit(folder, plan, data, parts, name, Hardware(device, threads=threads))
        except (OutputError, MissingExtraError):
            raise
        except FAILURES as error:
            reason = why(error)
            write_record(run, model_record(name, parts, failed=reason))
            return "failed", reason
    return DONE


def _fit(
    folder: StudyFolder, plan: StudyPlan, data: PackedCohort, parts: Split, name: FitName, hardware: Hardware
) -> None:
    run = folder.fit(name.key)
    config = plan.config(name.method, name.seed)
    train(data, run, config, hardware=hardware, split=parts, report=epoch_clock(run))
    loaded = load_model(run)
    epochs, times = int(loaded.card["training"]["epochs"]), epoch_seconds(run)
    if times and len(times) < epochs:  # it was killed behind its last epoch
        _note_time(run, epochs, times[-1])
    fusion = _fusion(loaded, data, parts, plan.samples)
    calibrating = predict_visits(loaded, data, one_visit_each(data, parts.rows(data, "calibration")), plan.samples)
    tables = _calibrate(loaded, data, calibrating, plan, fusion)
    calibrating.table(_plain(calibrating.spreads(loaded, fusion)), {}).save(run / CALIBRATION_TABLE)
    tested = predict_visits(loaded, data, parts.rows(data, "test"), plan.samples)
    answered = [side.index for side in loaded.model.sides]
    if not np.isfinite(tested.point[:, answered]).all():
        raise CalibrationError("predictions that are no numbers", "a finite SBR for every test patient")
    spreads = tested.spreads(loaded, fusion)
    intervals: Pairs = {mode: spreads[mode].interval(c.multiplier(plan.level)) for mode, c in tables.items()}
    plain = _plain(spreads)
    card = loaded.card
    record = model_record(
        name,
        parts,
        epochs=epochs,
        best_epoch=int(card["training"]["best_epoch"]) + 1,
        starts=card["training"]["starts"],
        seconds=round(sum(epoch_seconds(run)), 3),
        parameters=int(card["parameters"]),
    )
    if name.method == ENSEMBLE_OF:
        _write_fused(folder, name, parts, record, tested, plain, intervals)
    tested.table(plain, intervals).save(run / PREDICTIONS_NAME)
    (run / FAILED_NAME).unlink(missing_ok=True)
    write_record(run, record)


def why(error: BaseException) -> str:
    """The reason that a record gives: the message, and whose it is where it is not one of ours."""
    said = str(error).strip()
    kind = "" if isinstance(error, NigradatError) and said else type(error).__name__
    return ": ".join(filter(None, (kind, said)))


def epoch_clock(run: Path) -> Report:
    """Notes after each epoch how long it took, across interruptions; the lines of epochs made again are replaced.

    What a start took whose tower died counts to the first epoch of the next one.
    """
    before = time.perf_counter()

    def report(history: list[dict[str, float]], best: int, planned: int) -> None:
        nonlocal before
        now = time.perf_counter()
        _note_time(run, len(history), now - before)
        before = now

    return report


def _note_time(run: Path, epochs: int, latest: float) -> None:
    """The times of so many epochs; one that a killed process took with it counts as long as the latest."""
    before = epoch_seconds(run)
    if epochs == 1:
        latest += sum(before)
    taken = before[: epochs - 1]
    taken += [latest] * (epochs - len(taken))
    lines = (f"{epoch},{seconds:.3f}\n" for epoch, seconds in enumerate(taken))
    write_text(run / TIMES_NAME, "epoch,seconds\n" + "".join(lines))


@dataclass(frozen=True, eq=False)
class Predicted:
    """Some visits and what a model answers on them; no draws where it has no uncertainty."""

    data: PackedCohort
    rows: Rows
    point: Array
    draws: Draws | None

    @property
    def truth(self) -> Array:
        """Labels ``(n, 2)``, SBR."""
        return self.data.sbr[self.rows]

    def spreads(self, loaded: LoadedModel, fusion: Fusion | None) -> dict[SymmetricMode, Spread]:
        """Of every symmetric mode, all from the same draws: plain ``mc`` alone where one side is answered."""
        if self.draws is None:
            return {}
        modes = map(check_mode, MODES if len(loaded.model.sides) == 2 else ("mc",))
        drawn, scale = self.draws, loaded.spec.sbr_max
        return {
            mode: symmetric_spread(drawn.samples, mode, scale, fusion, drawn.noise_sd)
            for mode in modes
            if mode != "s7" or fusion is not None
        }

    def table(self, spreads: Pairs, intervals: Pairs) -> Predictions:
        """These visits with the point predictions and what was made of the draws."""
        return prediction_table(self.data, self.rows, self.point, spreads, intervals)


def prediction_table(
    data: PackedCohort, rows: Rows, predicted: Array, spreads: Pairs | None = None, intervals: Pairs | None = None
) -> Predictions:
    """Rows of a cohort with their labels and some predictor's answers ``(n, 2)``."""
    people = [data.participants[i] for i in rows]
    names, sessions = tuple(p.participant_id for p in people), tuple(p.session_id for p in people)
    return Predictions(names, sessions, data.sbr[rows], predicted, spreads or {}, intervals or {})


def predict_visits(loaded: LoadedModel, data: PackedCohort, rows: Rows, samples: int) -> Predicted:
    """A few visits in memory at a time."""
    blocks = [rows[start : start + _CHUNK] for start in range(0, len(rows), _CHUNK)]
    patches = (np.stack([data.read(int(i)) for i in block]) for block in blocks)
    if not has_spread(loaded.model):
        return Predicted(data, rows, np.concatenate([predict_sbr(loaded.model, p) for p in patches]), None)
    drawn = Draws.joined([draw_predictions(loaded.model, p, samples=samples, seed=_MC_SEED) for p in patches])
    return Predicted(data, rows, drawn.point, drawn)


def _plain(spreads: Mapping[SymmetricMode, Spread]) -> Pairs:
    """Centre and spread where the interval is ``c +- k S``: one that is cut with the other side's (s5) is not."""
    return {mode: (s.centre, s.spread) for mode, s in spreads.items() if s.cut_with_other is None}


def one_visit_each(data: PackedCohort, rows: Rows) -> Rows:
    """The first visit of each patient, or the scores would not be exchangeable with those of a new patient."""
    first = {data.patient_ids[i]: i for i in rows[::-1]}
    return np.array(sorted(first.values()), dtype=int)


def _fusion(loaded: LoadedModel, data: PackedCohort, parts: Split, samples: int) -> Fusion | None:
    """The numbers of s7 from the stopping patients; None for one side, without draws, or with fewer than 4 visits."""
    rows = parts.rows(data, "stop")
    if len(loaded.model.sides) < 2 or not has_spread(loaded.model) or len(rows) < 4:
        return None
    stopping = predict_visits(loaded, data, rows, samples)
    assert stopping.draws is not None
    return fit_fusion(stopping.draws.samples, stopping.truth)


def _calibrate(
    loaded: LoadedModel, data: PackedCohort, calibrating: Predicted, plan: StudyPlan, fusion: Fusion | None
) -> dict[SymmetricMode, Calibration]:
    """A calibration of every mode; the default mode's is left in the run folder, for ``nigradat predict``."""
    found, met = {}, who(data, calibrating.rows)
    for mode, spread in calibrating.spreads(loaded, fusion).items():
        found[mode] = Calibration(
            mode,
            plan.samples,
            _MC_SEED,
            spread.score(calibrating.truth).T,
            spread.centre.T,
            len(calibrating.rows),
            data.sha256,
            loaded.card["sha256"][WEIGHTS_NAME],
            met,
            fusion if mode == "s7" else None,
        )
    chosen = found.get(DEFAULT_MODE) or found.get("mc")
    if chosen is not None:
        save_calibration(loaded.folder, chosen, plan.level)
    return found


def _write_fused(
    folder: StudyFolder,
    name: FitName,
    parts: Split,
    record: FitRecord,
    tested: Predicted,
    spreads: Pairs,
    intervals: Pairs,
) -> None:
    """Mode s7 as a predictor of its own: its centre is the answer."""
    place = folder.fit(FitName(name.split, FUSED, name.seed).key)
    record = replace(record, method=FUSED, title=f"{record.title}, fused with the other side", role="derived")
    if "s7" not in spreads:
        reason = f"{len(parts.stop)} stopping patients for the fusion, at least 4 are needed"
        write_record(place, replace(record, failed=reason))
        return
    centre, spread = spreads["s7"]
    prediction_table(tested.data, tested.rows, centre, {"s7": (centre, spread)}, {"s7": intervals["s7"]}).save(
        place / PREDICTIONS_NAME
    )
    write_record(place, record)


# -- What the fits are compared with ------------------------------------------------------------------------------


def baselines(study: str, cohort: str, split: str, threads: int = 1) -> Answer:
    """The earlier approaches, fitted on the training patients, their readings, and on a phantom the oracles."""
    folder = StudyFolder(Path(study))
    with folder.locked(f"{split}/baselines") as alone:
        if not alone:
            return BUSY
        plan, data, parts = StudyPlan.load(folder), load_cohort(cohort), Split.load(folder.split(split))
        if data.is_phantom and (data.folder / TRUTH_FOLDER).is_dir():
            _write_oracles(folder, plan, data, parts, split)
        rows, failed = parts.rows(data, "test"), ""
        predicted: dict[str, Array] = {}
        fitted: dict[str, Fitted] = {}
        read: dict[str, Readings | None] = {}
        try:
            fitted = fit_baselines(data, parts.rows(data, "train"), threshold_sbr=plan.threshold)
            features = read_features(data, rows, fitted)
            predicted = {name: one.predict(data, rows, features) for name, one in fitted.items()}
            index = fitted["n1-index"]
            assert isinstance(index, FittedFeatures)
            read = {"n1-index": index.readings(data, rows, features)}
        except NigradatError as error:
            failed = str(error)
        _write_readings(folder, plan, data, rows, split, read)
        # the ridge, which tells that all of this is done, comes last
        for name in sorted(BASELINES if failed else fitted, key=lambda name: name == LAST_BASELINE):
            place = folder.fit(f"{split}/{name}")
            record = _other(split, parts, method=name, title=BASELINES[name].title, role="baseline")
            if failed:
                write_record(place, replace(record, failed=failed))
                continue
            prediction_table(data, rows, predicted[name]).save(place / PREDICTIONS_NAME)
            write_record(place, record, description=fitted[name].describe())
    return ("failed", failed) if failed else DONE


def _other(split: str, parts: Split, *, method: str, title: str, role: Any) -> FitRecord:
    return FitRecord(method, title, role, split, 0, None, parts.sha256, len(parts.train), len(parts.test))


def _write_readings(
    folder: StudyFolder,
    plan: StudyPlan,
    data: PackedCohort,
    rows: Rows,
    split: str,
    read: Mapping[str, Readings | None],
) -> None:
    """The observer's readings of the test visits and others, against what there is to compare with; else no file."""
    found = [
        Reading(
            split,
            name,
            BASELINES[name].title,
            agreement.reference,
            side.value,
            agreement[side],
            agreement.n_unsure[side.index],
            agreement.n_unread[side.index],
            agreement.n_without_reference[side.index],
        )
        for name, readings in {"observer": observer_readings([data.participants[i] for i in rows]), **read}.items()
        if readings is not None
        for agreement in _agreements(plan, data, rows, readings)
        for side in Side
    ]
    if found:
        write_readings(folder, split, found)


def _agreements(plan: StudyPlan, data: PackedCohort, rows: Rows, readings: Readings) -> Iterator[ReadingAgreement]:
    """With the SBR where there is a threshold, with the diagnosis where a tested patient has the disease."""
    if plan.threshold is not None:
        yield agreement_with_sbr(readings, data.sbr[rows], plan.threshold)
    people = [data.participants[i] for i in rows]
    ill = {name.casefold() for name in plan.disease}
    if any(p.diagnosis and p.diagnosis.casefold() in ill for p in people):
        found = agreement_with_diagnosis(readings, people, plan.disease)
        assert found is not None
        yield found


def _write_oracles(folder: StudyFolder, plan: StudyPlan, data: PackedCohort, parts: Split, split: str) -> None:
    """The best predictions from the latents that the phantom's images were made from."""
    truth = read_truth(data.folder)
    rows = parts.rows(data, "test")
    views: tuple[tuple[Sides, str], ...] = (("single", "own side"), ("pair", "both sides"))
    for sides, sees in views:
        best = oracle_predict(truth.latents.m[rows], truth.preset, sides, plan.level)
        sd = best.mean * np.sqrt(np.expm1(best.log_sd**2))  # of the log-normal
        place = folder.fit(f"{split}/oracle-{sides}")
        prediction_table(data, rows, best.mean, {"oracle": (best.mean, sd)}, {"oracle": (best.lower, best.upper)}).save(
            place / PREDICTIONS_NAME
        )
        write_record(place, _other(split, parts, method=f"oracle-{sides}", title=f"Oracle, sees {sees}", role="oracle"))


def ensemble(study: str, split: str, threads: int = 1) -> Answer:
    """Mean of the Sym. VGG+ fits of a split that differ only in their seed (deep ensemble, an extension).

    The spread is that of the members' equal mixture: mean of their variances and variance of their centres. The
    intervals are calibrated on the members' predictions of the calibration patients.

    Source: Lakshminarayanan 2017.
    """
    folder = StudyFolder(Path(study))
    with folder.locked(f"{split}/ensemble") as alone:
        if not alone:
            return BUSY
        plan, parts = StudyPlan.load(folder), Split.load(folder.split(split))
        seeds = [fit.seed for fit in plan.fits() if (fit.split, fit.method) == (split, ENSEMBLE_OF)]
        runs = {seed: folder.fit(FitName(split, ENSEMBLE_OF, seed).key) for seed in seeds}
        finished = {seed: run for seed, run in runs.items() if (run / FIT_NAME).is_file()}
        members = list(finished.values())
        if len(members) < 2:
            return DONE
        calibrating = _mixture([Predictions.load(run / CALIBRATION_TABLE) for run in members])
        tested = _mixture([Predictions.load(run / PREDICTIONS_NAME) for run in members])
        intervals = {}
        for mode, (centre, spread) in tested.spreads.items():
            scores = Spread(*calibrating.spreads[mode]).score(calibrating.truth)
            k = np.array([conformal_quantile(scores[:, side.index], plan.level) for side in Side])
            intervals[mode] = Spread(centre, spread).interval(k)
        place = folder.fit(f"{split}/ensemble")
        replace(tested, intervals=intervals).save(place / PREDICTIONS_NAME)
        title = f"{get_method(ENSEMBLE_OF).title}, mean of {len(members)} trainings"
        facts = [read_json(run / FIT_NAME) for run in members]
        record = replace(
            _other(split, parts, method="ensemble", title=title, role="derived"),
            seconds=sum(f["seconds"] for f in facts),
            parameters=sum(f["parameters"] for f in facts),
        )
        write_record(place, record, members=list(finished))
    return DONE


def _mixture(members: Sequence[Predictions]) -> Predictions:
    spreads = {}
    for mode in ENSEMBLE_MODES:
        if all(mode in member.spreads for member in members):
            centres, sds = (np.stack([m.spreads[mode][i] for m in members]) for i in (0, 1))
            spreads[mode] = (centres.mean(axis=0), np.sqrt((sds**2).mean(axis=0) + centres.var(axis=0)))
    mean = np.mean([member.predicted for member in members], axis=0)
    return replace(members[0], predicted=mean, spreads=spreads, intervals={})


def draw(study: str, number: int, threads: int = 1) -> Answer:
    """A phantom cohort of its own for one split: as many patients as the given cohort's split has, and fresh ones."""
    folder = StudyFolder(Path(study))
    plan = StudyPlan.load(folder)
    name = plan.split_names[number]
    with folder.locked(f"{name}/draw") as alone:
        if not alone:
            return BUSY
        place = folder.cohort(name)
        if not (place / "cohort.json").is_file():
            for half in place.parent.glob(f".{name}.*.partial"):  # of a process that was killed
                shutil.rmtree(half, ignore_errors=True)
            preset, seed = Preset(**plan.cohort["preset"]), plan.draw_seed(number)
            simulate(place, patients=sum(plan.draw_sizes), preset=preset, seed=seed, workers=threads)
        if not folder.split(name).is_file():
            split_draw(plan, load_cohort(place), number).save(folder.split(name))
    return DONE
