"""CV+: every patient is scored by the model that never met it."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest

from nigradat.errors import CalibrationError, ConfigError, WeightsError
from nigradat.evaluation.evaluate import evaluate
from nigradat.io.pack import PackedCohort
from nigradat.models.symmetric import ModelSpec, build
from nigradat.models.weights import load_model
from nigradat.training.split import make_folds
from nigradat.uncertainty.cross_validation import (
    CV_PLUS_NAME,
    FOLDS_NAME,
    CrossCalibration,
    calibrate_folds,
    load_cross_calibration,
)
from nigradat.uncertainty.mc_dropout import mc_samples
from nigradat.uncertainty.predict import predict_pairs
from nigradat.uncertainty.symmetric_mc import symmetric_spread
from small_runs import write_cohort, write_run

DRAWS, K = 10, 3


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> PackedCohort:
    return write_cohort(tmp_path_factory.mktemp("cv") / "cohort", 30, seed=3)


@pytest.fixture(scope="module")
def folds(cohort: PackedCohort, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Runs that differ in their weights, as those of a k-fold design."""
    root = tmp_path_factory.mktemp("folds")
    return [
        write_run(root / str(k), cohort, split=split, seed=k)[0]
        for k, split in enumerate(make_folds(cohort, K, seed=1))
    ]


@pytest.fixture
def run(cohort: PackedCohort, tmp_path: Path) -> Path:
    return write_run(tmp_path / "run", cohort, seed=99)[0]


def test_scores_and_interval_are_those_of_the_definition(cohort: PackedCohort, folds: list[Path], run: Path):
    made = calibrate_folds(run, folds, cohort, samples=DRAWS)
    patches = np.asarray(cohort.patches[:])
    spreads = [symmetric_spread(mc_samples(load_model(fold).model, patches, samples=DRAWS)) for fold in folds]
    splits = make_folds(cohort, K, seed=1)
    tested_by = {p: k for k, split in enumerate(splits) for p in split.test}
    fold = np.array([tested_by[p] for p in cohort.patient_ids])
    n = len(cohort)
    scores = np.stack([spreads[fold[i]].score(cohort.sbr)[i] for i in range(n)])
    assert np.sort(made.scores, axis=0) == pytest.approx(np.sort(scores, axis=0), rel=1e-4)
    level = 0.9
    low, high = made.interval(patches[:4], level)
    upper, lower = math.ceil((n + 1) * level), math.floor((n + 1) * (1 - level) + 1e-9)
    for x in range(4):
        for side in (0, 1):
            c = np.array([spreads[fold[i]].centre[x, side] for i in range(n)])
            half = np.array([spreads[fold[i]].spread[x, side] * scores[i, side] for i in range(n)])
            assert high[x, side] == pytest.approx(np.sort(c + half)[upper - 1], rel=1e-4)
            assert low[x, side] == pytest.approx(np.sort(c - half)[lower - 1], rel=1e-4, abs=1e-4)


def test_the_folder_can_be_moved_and_predicts(cohort: PackedCohort, folds: list[Path], run: Path, tmp_path: Path):
    made = calibrate_folds(run, folds, cohort, samples=DRAWS, seed=5)
    moved = load_model(shutil.move(run, tmp_path / "elsewhere"))
    back = load_cross_calibration(moved)
    assert back is not None
    assert np.array_equal(back.scores, made.scores)
    assert (back.mode, back.samples, back.seed, back.patients) == ("s1", DRAWS, 5, 30)
    pairs = [cohort.pair(i) for i in range(3)]
    low, high = made.interval(np.stack([pair.patches for pair in pairs]), 0.8)
    for i, prediction in enumerate(predict_pairs(moved, pairs, level=0.8, rule="cv+")):
        assert prediction.right is not None
        assert prediction.right.interval is not None
        ends = (max(0.0, low[i, 0]), max(0.0, high[i, 0]))
        assert prediction.right.interval == pytest.approx(ends, rel=1e-5, abs=1e-6)
        assert "no-interval" not in {flag.code for flag in prediction.flags}


def test_evaluate_takes_the_rule(cohort: PackedCohort, folds: list[Path], run: Path, tmp_path: Path):
    without = evaluate(run, cohort, rule="cv+", resamples=200)
    assert any("--fold" in note for note in without.notes)
    calibrate_folds(run, folds, cohort, samples=DRAWS)
    with pytest.raises(CalibrationError, match="cohort of its own folds"):
        evaluate(run, cohort, rule="cv+", resamples=200)
    fresh = write_cohort(
        tmp_path / "fresh", 12, seed=8, change=lambda f: f.update(participant_id="new-" + f["participant_id"])
    )
    found = evaluate(run, fresh, rule="cv+", level=0.9, resamples=200)
    (intervals,) = found.model.intervals
    assert "CV+ with 3 models" in intervals.promise
    assert intervals.calibrated_on == 30
    assert np.isfinite(intervals.lower).all()


def test_calibrating_again_replaces_and_leaves_nothing_behind(cohort: PackedCohort, folds: list[Path], run: Path):
    calibrate_folds(run, folds, cohort, samples=DRAWS)
    calibrate_folds(run, folds[:2], cohort, samples=DRAWS, level=0.9)
    assert len(list((run / FOLDS_NAME).iterdir())) == 2
    back = load_cross_calibration(load_model(run))
    assert back is not None
    assert (len(back.models), back.patients) == (2, 20)


@pytest.mark.parametrize("n", [20, 60])
def test_coverage_lies_between_the_guarantee_and_the_level(n: int, monkeypatch: pytest.MonkeyPatch):
    """Fold models that are means of their training patients: on average the level is reached, never below theorem 4."""
    from nigradat.uncertainty import cross_validation

    level, k = 0.8, 5
    inside = []
    rng = np.random.default_rng(n)
    for _ in range(400):
        y = rng.normal(2, 1, (n, 2))
        fold = np.arange(n) % k
        means = np.stack([y[fold != j].mean(axis=0) for j in range(k)])

        def spread(model, patches, *_, means=means):  # type: ignore[no-untyped-def]
            centre = np.repeat(means[model][None], len(patches), axis=0)
            return cross_validation.Spread(centre, np.ones_like(centre))

        monkeypatch.setattr(cross_validation, "_spread", spread)
        made = CrossCalibration(tuple(range(k)), "s1", 2, 0, np.abs(y - means[fold]), fold, "")  # type: ignore[arg-type]
        low, high = made.interval(np.zeros((1, 2, 1, 1, 1), np.float32), level)
        new = rng.normal(2, 1, (50, 2))
        inside.append(((new >= low) & (new <= high)).mean())
    assert made.guaranteed(level) < 2 * level - 1
    assert np.mean(inside) == pytest.approx(level, abs=0.02)


def test_the_guarantee_is_that_of_theorem_4():
    made = CrossCalibration((None,) * 10, "s1", 2, 0, np.zeros((100, 2)), np.zeros(100, int), "")  # type: ignore[arg-type]
    excess = min(2 * (1 - 1 / 10) / (100 / 10 + 1), (1 - 10 / 100) / (10 + 1))
    assert made.guaranteed(0.95) == pytest.approx(1 - 0.1 - excess)
    assert "81.8 % for certain" in made.promise(0.95)
    assert "100 patients" in made.promise(0.95)
    with pytest.raises(CalibrationError, match=r"0\.5 or more"):  # the ends may change places
        made.check(0.4)


def test_faults_are_refused(cohort: PackedCohort, folds: list[Path], run: Path, tmp_path: Path):
    with pytest.raises(CalibrationError, match="at least 2 folds"):
        calibrate_folds(run, folds[:1], cohort)
    with pytest.raises(CalibrationError, match="two folds"):
        calibrate_folds(run, [folds[0], folds[0]], cohort)
    few = write_cohort(tmp_path / "few", 16, seed=4)
    halves = [
        write_run(tmp_path / f"half-{k}", few, split=split, seed=k)[0]
        for k, split in enumerate(make_folds(few, 2, seed=1))
    ]
    with pytest.raises(CalibrationError, match="19 patients"):
        calibrate_folds(halves[0], halves, few, samples=DRAWS)
    with pytest.raises(CalibrationError, match="another cohort"):
        calibrate_folds(run, folds, write_cohort(tmp_path / "other", 30, seed=9))
    with pytest.raises(ConfigError, match="s7"):
        calibrate_folds(run, folds, cohort, mode="s7")
    assert not (run / CV_PLUS_NAME).exists()


def test_damage_is_refused(cohort: PackedCohort, folds: list[Path], run: Path):
    calibrate_folds(run, folds, cohort, samples=DRAWS)
    table = json.loads((run / CV_PLUS_NAME).read_text())
    (run / CV_PLUS_NAME).write_text(json.dumps(table | {"fold": [7] * 30}))
    with pytest.raises(CalibrationError, match="damaged"):
        load_cross_calibration(load_model(run))
    (run / CV_PLUS_NAME).write_text(json.dumps(table))
    shutil.rmtree(run / FOLDS_NAME / table["models"][0])
    with pytest.raises(WeightsError):
        load_cross_calibration(load_model(run))


def test_a_fold_of_another_model_is_refused(cohort: PackedCohort, folds: list[Path], tmp_path: Path):
    from nigradat.models.weights import save_model

    wider = save_model(tmp_path / "wider", build(ModelSpec(widths=(3, 3, 3, 3))), {})
    with pytest.raises(CalibrationError, match="another model"):
        calibrate_folds(wider, folds, cohort)
