"""Calibration by patients that served for nothing else."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from nigradat.errors import CalibrationError, ConfigError
from nigradat.io.pack import PackedCohort
from nigradat.models.symmetric import ModelSpec, build
from nigradat.models.weights import WEIGHTS_NAME, load_model, read_card, save_model
from nigradat.training.config import make_config
from nigradat.training.fit import train
from nigradat.training.split import Split
from nigradat.uncertainty.calibration import (
    CALIBRATION_NAME,
    Calibration,
    calibrate,
    load_calibration,
    save_calibration,
)
from nigradat.uncertainty.mc_dropout import mc_samples
from nigradat.uncertainty.symmetric_mc import fit_fusion, symmetric_spread
from small_runs import write_run

MakeCohort = Callable[..., PackedCohort]
DRAWS = 10


@pytest.fixture
def run(small_run: Path, tmp_path: Path) -> Path:
    return shutil.copytree(small_run, tmp_path / "run")


@pytest.fixture(scope="module")
def fresh(make_cohort: MakeCohort) -> PackedCohort:
    """24 phantom patients with images of their own; their names are those of the training cohort."""
    return make_cohort(24, seed=50)


def scores_of(run: Path, cohort: PackedCohort, rows: np.ndarray, mode: str = "s1") -> np.ndarray:
    samples = mc_samples(load_model(run).model, np.asarray(cohort.patches[rows]), samples=DRAWS)
    return symmetric_spread(samples, mode).score(cohort.sbr[rows])  # type: ignore[arg-type]


def test_in_its_own_cohort_the_calibration_part_alone_is_used(small_cohort: PackedCohort, run: Path) -> None:
    calibration = calibrate(run, small_cohort, samples=DRAWS, level=0.6)
    rows = Split.load(run / "split.json").rows(small_cohort, "calibration")
    assert calibration.patients == len(rows) == 2
    assert calibration.scores == pytest.approx(scores_of(run, small_cohort, rows).T, rel=1e-4)


def test_too_few_patients_are_refused_and_nothing_is_written(small_cohort: PackedCohort, run: Path) -> None:
    with pytest.raises(CalibrationError, match="19") as caught:
        calibrate(run, small_cohort, samples=DRAWS)
    assert "2 calibration patients" in caught.value.found
    assert not (run / CALIBRATION_NAME).exists()


def test_another_cohort_calibrates_whole(fresh: PackedCohort, run: Path) -> None:
    calibration = calibrate(run, fresh.folder, samples=DRAWS)
    scores = scores_of(run, fresh, np.arange(24))
    assert calibration.patients == 24
    assert calibration.scores == pytest.approx(scores.T, rel=1e-4)
    rank = math.ceil(25 * 0.95)  # the largest of 24
    assert calibration.multiplier(0.95) == pytest.approx(np.sort(scores, axis=0)[rank - 1], rel=1e-4)
    assert calibration.multiplier(0.5) == pytest.approx(np.sort(scores, axis=0)[12], rel=1e-4)  # ceil(12.5) = 13th


def test_the_file_comes_back(fresh: PackedCohort, run: Path, tmp_path: Path) -> None:
    with pytest.raises(CalibrationError, match="stopping"):  # of the run's own cohort, which fit it
        calibrate(run, fresh, mode="s7", samples=DRAWS)
    one_side, _ = write_run(tmp_path / "left", fresh, method="vgg-left")
    with pytest.raises(ConfigError, match="answers for one side"):
        calibrate(one_side, fresh, mode="s7", samples=DRAWS, level=0.5)
    assert not (run / CALIBRATION_NAME).exists()
    for mode in ("mc", "s5"):
        made = calibrate(run, fresh, mode=mode, samples=DRAWS, seed=3)  # type: ignore[arg-type]
        back = load_calibration(load_model(run))
        assert back is not None
        assert (back.mode, back.samples, back.seed, back.patients) == (mode, DRAWS, 3, 24)
        assert back.cohort_sha256 == fresh.sha256
        assert np.array_equal(back.scores, made.scores)
    data = json.loads((run / CALIBRATION_NAME).read_text())
    assert "reconstruction" in data["reconstruction"]
    assert "24 calibration patients" in data["promise"]
    assert data["level"] == 0.95


def test_nominal_cp_covers_so_many_of_the_calibration_patients(fresh: PackedCohort, run: Path) -> None:
    calibration = calibrate(run, fresh, samples=DRAWS)
    k = calibration.multiplier(0.75, "nominal-cp")
    assert ((calibration.scores <= k[:, None] * (1 + 1e-12)).sum(axis=1) == 18).all()  # .75 of 24
    assert "no promise" in calibration.promise(0.75, "nominal-cp")
    assert (k <= calibration.multiplier(0.75)).all()  # the finite-sample rank is never below


def test_one_visit_a_patient(make_cohort: MakeCohort, run: Path) -> None:
    cohort = make_cohort(48, seed=51, visits=2)
    calibration = calibrate(run, cohort, samples=DRAWS)
    assert calibration.patients == 24
    first = np.arange(0, 48, 2)
    assert calibration.scores == pytest.approx(scores_of(run, cohort, first).T, rel=1e-4)
    with pytest.raises(CalibrationError, match="18 calibration patients"):  # 36 visits are not 36 patients
        calibrate(run, make_cohort(36, seed=52, visits=2), samples=DRAWS)


def test_images_that_trained_the_model_are_known_under_any_name(make_cohort: MakeCohort, run: Path) -> None:
    renamed = make_cohort(24, name="other")  # the images of the training cohort
    split = Split.load(run / "split.json")
    n = len(split.train) + len(split.stop)
    with pytest.raises(CalibrationError, match=f"{n} of the 24 patients for calibration were used"):
        calibrate(run, renamed, samples=DRAWS)
    assert not (run / CALIBRATION_NAME).exists()


def test_patients_that_trained_the_model_are_known_under_any_image(make_cohort: MakeCohort, tmp_path: Path) -> None:
    config = make_config(changes={"widths": (2, 2, 2, 2), "epochs": 1})
    run = train(make_cohort(24, seed=60, kind="patients"), tmp_path / "run", config)
    with pytest.raises(CalibrationError, match="were used"):  # another scan of the same patients
        calibrate(run, make_cohort(24, seed=61, kind="patients"), samples=DRAWS)
    assert calibrate(run, make_cohort(24, seed=61, kind="patients", name="new"), samples=DRAWS).patients == 24


def test_a_model_without_dropout_is_refused(fresh: PackedCohort, tmp_path: Path) -> None:
    folder = save_model(tmp_path / "plain", build(ModelSpec(widths=(2, 2, 2, 2), head_dropout=0.0)), {})
    with pytest.raises(CalibrationError, match="no dropout"):
        calibrate(folder, fresh, samples=DRAWS)


def test_a_one_sided_model_is_calibrated_for_its_side(fresh: PackedCohort, tmp_path: Path) -> None:
    folder = save_model(tmp_path / "left", build(ModelSpec(widths=(2, 2, 2, 2), sharing="left")), {})
    with pytest.raises(ConfigError, match="both sides"):
        calibrate(folder, fresh, samples=DRAWS)
    calibrate(folder, fresh, mode="mc", samples=DRAWS)
    back = load_calibration(load_model(folder))
    assert back is not None
    right, left = back.multiplier(0.9)
    assert np.isnan(right)
    assert np.isfinite(left)


def a_calibration(run: Path, scores: np.ndarray) -> Calibration:
    weights = read_card(run)["sha256"][WEIGHTS_NAME]
    return Calibration("s1", DRAWS, 0, scores, np.zeros_like(scores), scores.shape[1], "x", weights)


def test_an_infinite_score_is_kept_and_is_not_a_missing_side(run: Path) -> None:
    scores = np.array([[1.0, 2.0, math.inf], [np.nan] * 3])
    save_calibration(run, a_calibration(run, scores), 0.5)
    back = load_calibration(load_model(run))
    assert back is not None
    assert np.array_equal(back.scores, scores, equal_nan=True)
    assert back.multiplier(0.5)[0] == 2
    assert back.multiplier(0.75)[0] == math.inf
    assert np.isnan(back.multiplier(0.5)[1])


@pytest.mark.parametrize(
    "damage",
    [
        lambda d: d.pop("scores"),
        lambda d: d.pop("centres"),
        lambda d: d["centres"].update(right=[1.0]),
        lambda d: d["scores"].pop("left"),
        lambda d: d["scores"].update(left=[1.0]),
        lambda d: d["scores"].update(left=["a", "b", "c"]),
        lambda d: d["scores"].update(left=3),
        lambda d: d.update(mode="s9"),
        lambda d: d.update(samples=None),
        lambda d: d.update(patients=200),
        lambda d: d.update(fusion={"a": 1}),
    ],
)
def test_a_damaged_file_is_refused(run: Path, damage: Callable[[dict], object]) -> None:
    save_calibration(run, a_calibration(run, np.ones((2, 3))), 0.5)
    path = run / CALIBRATION_NAME
    data = json.loads(path.read_text())
    damage(data)
    path.write_text(json.dumps(data))
    with pytest.raises(CalibrationError, match="damaged"):
        load_calibration(load_model(run))


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"\xff\xfe"])
def test_another_file_in_its_place_is_refused(run: Path, content: bytes) -> None:
    (run / CALIBRATION_NAME).write_bytes(content)
    with pytest.raises(CalibrationError, match="damaged"):
        load_calibration(load_model(run))


def test_a_calibration_of_other_weights_is_refused(run: Path, tmp_path: Path) -> None:
    save_calibration(run, a_calibration(run, np.ones((2, 3))), 0.5)
    other = save_model(tmp_path / "other", build(ModelSpec(widths=(2, 2, 2, 2)), seed=9), {})
    shutil.copy(run / CALIBRATION_NAME, other)
    with pytest.raises(CalibrationError, match="other weights"):
        load_calibration(load_model(other))


def test_no_file_is_no_calibration(run: Path) -> None:
    assert load_calibration(load_model(run)) is None


def test_fusion_is_fitted_on_the_stopping_patients(make_cohort: MakeCohort, tmp_path: Path) -> None:
    cohort = make_cohort(50, seed=70)
    run = train(cohort, tmp_path / "run", make_config(changes={"widths": (2, 2, 2, 2), "epochs": 1}))
    made = calibrate(run, cohort, mode="s7", samples=DRAWS, level=0.6)
    split, model = Split.load(run / "split.json"), load_model(run).model
    stop = split.rows(cohort, "stop")
    fusion = fit_fusion(mc_samples(model, np.asarray(cohort.patches[stop]), samples=DRAWS), cohort.sbr[stop])
    assert made.fusion is not None
    assert vars(made.fusion) == pytest.approx(vars(fusion), rel=1e-3)
    assert made.patients == len(split.calibration)
    back = load_calibration(load_model(run))
    assert back is not None
    assert back.fusion == made.fusion
