"""A study from a cohort to records: everything once, the test patients decide nothing, a failure stops nobody."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from here_engine import HereEngine
from killed_study import STUDY

from nigradat.baselines import read_features
from nigradat.evaluation.predictions import FitRecord, Predictions
from nigradat.io.pack import PackedCohort
from nigradat.models.weights import load_model
from nigradat.phantom.latents import get_preset
from nigradat.study import plan as plan_module
from nigradat.study import tasks
from nigradat.study.engines import Outcome
from nigradat.study.folder import Reading, StudyFolder, read_readings, records
from nigradat.study.plan import claim, make_splits, resolve_plan, run_study
from nigradat.study.progress import Tally
from nigradat.study.timing import measure
from nigradat.training.split import Split
from nigradat.uncertainty.calibration import load_calibration
from nigradat.uncertainty.mc_dropout import mc_samples
from small_runs import write_cohort

LEVEL, SAMPLES = 0.7, 8
TINY: dict[str, Any] = {"widths": (2, 2, 2, 2), "epochs": 1, "batch_size": 16}
PLUS = "split-1/sym-vgg-plus-seed1"


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> HereEngine:
    engine = HereEngine()
    monkeypatch.setattr(plan_module, "make_engine", engine.made)
    return engine


def run(cohort: PackedCohort, out: Path, **options: Any) -> tuple[FitRecord, ...]:
    return run_study(cohort, out, **{"level": LEVEL, "samples": SAMPLES, "changes": TINY, **options})[1]


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> PackedCohort:
    """48 patients, two of them seen twice; four stop and four calibrate."""
    return write_cohort(tmp_path_factory.mktemp("study") / "cohort", 48, twice=2)


@pytest.fixture(scope="module")
def study(cohort: PackedCohort, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two methods with two seeds each."""
    out = tmp_path_factory.mktemp("study") / "study"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plan_module, "make_engine", HereEngine().made)
        tallies: list[Tally] = []
        run(cohort, out, methods=["sym-vgg-plus", "vgg-left"], seeds=2, progress=tallies.append)
    assert (tallies[-1].done, tallies[-1].total, tallies[-1].share) == (4, 4, 1.0)
    return out


def predictions(study: Path, key: str) -> Predictions:
    return Predictions.load(StudyFolder(study).fit(key) / "predictions.tsv")


def test_everything_is_there_once(study):
    found = Counter((r.method, r.seed, r.role, bool(r.failed)) for r in records(study))
    models = {(m, s, "model", False): 1 for m in ("sym-vgg-plus", "vgg-left") for s in (1, 2)}
    fused = {("fused", s, "derived", False): 1 for s in (1, 2)}
    baselines = {(m, 0, "baseline", False): 1 for m in ("ridge", "mean-intensity", "n1-index")}
    assert found == {**models, **fused, ("ensemble", 0, "derived", False): 1, **baselines}
    assert not any((study / "locks").iterdir())


def test_all_are_tested_on_the_same_visits(study, cohort):
    split = Split.load(study / "splits" / "split-1.json")
    rows = split.rows(cohort, "test")
    for record in records(study):
        answer = record.predictions()
        assert answer.patients == tuple(np.array(cohort.patient_ids)[rows])
        assert np.array_equal(answer.truth, cohort.sbr[rows])
        assert record.split_sha256 == split.sha256
        assert (record.train_patients, record.test_patients) == (len(split.train), len(split.test))


def test_a_one_sided_method_answers_for_its_side_with_plain_intervals(study):
    answer = predictions(study, "split-1/vgg-left-seed1")
    assert [side.value for side in answer.sides] == ["left"]
    assert set(answer.spreads) == set(answer.intervals) == {"mc"}
    low, high = answer.intervals["mc"]
    assert (low[:, 1] < high[:, 1]).all()
    assert np.isnan(low[:, 0]).all()


def test_the_intervals_are_split_conformal_on_the_calibration_patients_alone(study, cohort):
    run_folder = StudyFolder(study).fit(PLUS)
    answer, calibrating = predictions(study, PLUS), Predictions.load(run_folder / "calibration.tsv")
    split = Split.load(study / "splits" / "split-1.json")
    assert set(answer.intervals) == {"mc", "s1", "s2", "s2b", "s3", "s4", "s5", "s6", "s7"}
    assert set(answer.spreads) == set(answer.intervals) - {"s5"}  # which is cut, not c +- k S
    assert sorted(calibrating.patients) == sorted(split.calibration)  # one visit each
    n = len(calibrating.patients)
    rank = int(np.ceil((n + 1) * LEVEL))
    for mode, (centre, spread) in answer.spreads.items():
        c, s = calibrating.spreads[mode]
        k = np.sort(np.abs(calibrating.truth - c) / s, axis=0)[rank - 1]
        np.testing.assert_allclose(answer.intervals[mode][0], centre - k * spread, rtol=1e-9)
        np.testing.assert_allclose(answer.intervals[mode][1], centre + k * spread, rtol=1e-9)
    default = load_calibration(load_model(run_folder))
    assert default is not None
    assert default.mode == "s1"


def test_the_fusion_is_fitted_on_the_stopping_patients_alone(study, cohort):
    split = Split.load(study / "splits" / "split-1.json")
    model = load_model(StudyFolder(study).fit(PLUS)).model

    def means(part: str) -> np.ndarray:
        patches = np.stack([cohort.read(int(i)) for i in split.rows(cohort, part)])
        return mc_samples(model, patches, samples=SAMPLES, seed=0).mean(axis=0)

    mu = means("stop")
    design = np.stack([np.ones(mu.size), mu.ravel(), mu[:, ::-1].ravel()], axis=1)
    a, b, c = np.linalg.lstsq(design, cohort.sbr[split.rows(cohort, "stop")].ravel(), rcond=None)[0]
    mu = means("test")
    fused = predictions(study, "split-1/fused-seed1")
    np.testing.assert_allclose(fused.predicted, a + b * mu + c * mu[:, ::-1], rtol=1e-5)
    assert set(fused.intervals) == {"s7"}


def test_the_ensemble_is_the_mixture_of_its_members(study):
    members = [predictions(study, f"split-1/sym-vgg-plus-seed{s}") for s in (1, 2)]
    answer = predictions(study, "split-1/ensemble")
    np.testing.assert_allclose(answer.predicted, (members[0].predicted + members[1].predicted) / 2)
    for mode in ("mc", "s1"):
        (c1, s1), (c2, s2) = (m.spreads[mode] for m in members)
        np.testing.assert_allclose(answer.spreads[mode][0], (c1 + c2) / 2)
        np.testing.assert_allclose(answer.spreads[mode][1] ** 2, (s1**2 + s2**2) / 2 + ((c1 - c2) / 2) ** 2)
        assert (answer.intervals[mode][0] < answer.intervals[mode][1]).all()


def test_the_same_command_again_does_nothing(study, cohort, here):
    before = {p: p.stat().st_mtime_ns for p in study.rglob("*") if p.is_file()}
    found = run(cohort, study, methods=["sym-vgg-plus", "vgg-left"], seeds=2)
    assert here.keys == []
    assert found == records(study)
    assert {p: p.stat().st_mtime_ns for p in study.rglob("*") if p.is_file()} == before


def test_timing_has_a_row_for_each_trained_method(study):
    rows = measure(records(study), samples=4, device="cpu")
    assert [row.method for row in rows] == ["vgg-left", "sym-vgg-plus"]
    for row in rows:
        assert row.epoch_s is not None
        assert row.training_s is not None
        assert 0 < row.epoch_s <= row.training_s + 1e-9  # one epoch each
        assert row.one_prediction_ms > 0
        assert row.samples_prediction_ms is not None
        assert "torch threads" in row.hardware


def test_the_labels_of_the_test_patients_change_no_weight_no_interval_and_no_fusion(study, cohort, tmp_path):
    split = Split.load(study / "splits" / "split-1.json")

    def turn(fields: dict[str, Any]) -> None:
        if fields["participant_id"] in split.test:
            fields["sbr_right"], fields["sbr_left"] = 6.0 - 0.5 * fields["sbr_left"], 0.5 + 0.1 * fields["sbr_right"]

    other = write_cohort(tmp_path / "cohort", 48, twice=2, change=turn)
    assert other.sha256 != cohort.sha256
    for name in ("study.json", "splits/split-1.json"):
        (tmp_path / "study" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(study / name, tmp_path / "study" / name)
    answer = tasks.fit(str(tmp_path / "study"), str(other.folder), "split-1", "sym-vgg-plus", 1, "cpu", 1)
    assert answer == ("done", "")
    assert tasks.baselines(str(tmp_path / "study"), str(other.folder), "split-1") == ("done", "")
    assert not np.array_equal(predictions(study, PLUS).truth, predictions(tmp_path / "study", PLUS).truth)
    for key in (PLUS, "split-1/fused-seed1", "split-1/ridge", "split-1/n1-index"):
        one, two = predictions(study, key), predictions(tmp_path / "study", key)
        assert np.array_equal(one.predicted, two.predicted)
        for name in ("spreads", "intervals"):
            pairs, others = getattr(one, name), getattr(two, name)
            assert pairs.keys() == others.keys()
            for mode in pairs:
                assert np.array_equal(pairs[mode], others[mode]), (key, name, mode)
    for name in ("model.safetensors", "log.csv"):
        first, second = (StudyFolder(s).fit(PLUS) / name for s in (study, tmp_path / "study"))
        assert first.read_bytes() == second.read_bytes()


# -- Failures -----------------------------------------------------------------------------------------------------


def test_a_diverging_fit_is_recorded_and_the_others_go_on(cohort, here, tmp_path):
    wild = {**TINY, "learning_rate": 1e30, "gradient_clip": 0.0, "schedule": "constant"}
    said: list[str] = []
    options = {"methods": ["vgg-left"], "changes": wild, "say": said.append}
    failed, *others = run(cohort, tmp_path / "study", **options)
    assert (failed.method, failed.folder) == ("vgg-left", None)
    assert "diverged" in failed.failed
    assert "vgg-left-seed1 failed: training diverged" in said[0]
    assert {r.method for r in others} == {"ridge", "mean-intensity", "n1-index"}
    here.keys.clear()
    assert run(cohort, tmp_path / "study", **options)[0] == failed
    assert here.keys == []
    assert run(cohort, tmp_path / "study", **options, retry_failed=True)[0] == failed
    assert here.keys == ["split-1/vgg-left-seed1"]


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("CUDA: no memory"), FloatingPointError("nan"), np.linalg.LinAlgError("odd")]
)
def test_a_fit_that_meets_a_limit_of_the_machine_is_recorded_and_can_be_tried_again(
    error, cohort, study, here, tmp_path, monkeypatch
):
    def stopped(*_: object, **__: object) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(tasks, "train", stopped)
        (failed, *_) = run(cohort, tmp_path / "study", methods=["vgg-left"])
        assert failed.failed == ": ".join(filter(None, (type(error).__name__, str(error))))
    (again, *_) = run(cohort, tmp_path / "study", methods=["vgg-left"], retry_failed=True)
    assert not again.failed
    assert np.array_equal(
        again.predictions().predicted, predictions(study, "split-1/vgg-left-seed1").predicted, equal_nan=True
    )


def test_a_fit_whose_worker_is_killed_again_and_again_is_in_the_tables(cohort, tmp_path, monkeypatch):
    """As the system does it where memory is short."""

    def wait(engine: HereEngine, seconds: float) -> list[Outcome]:
        if "vgg-left" in engine.waiting[-1].key:
            return [Outcome(engine.waiting.pop().key, "died", "its process was killed by signal 9")]
        return right(engine, seconds)

    right = HereEngine.wait
    monkeypatch.setattr(HereEngine, "wait", wait)
    monkeypatch.setattr(plan_module, "make_engine", HereEngine().made)
    failed, *others = run(cohort, tmp_path / "study", methods=["vgg-left"])
    assert (failed.method, failed.failed) == ("vgg-left", "its process was killed by signal 9")
    assert not any(record.failed for record in others)


def test_a_fusion_without_enough_stopping_patients_says_so(make_cohort, here, tmp_path):
    small = make_cohort(24)  # three stop, two calibrate
    found = {r.method: r for r in run(small, tmp_path / "study", level=0.5)}
    assert "at least 4" in found["fused"].failed
    assert not found["sym-vgg-plus"].failed
    assert "s7" not in found["sym-vgg-plus"].predictions().intervals


# -- Readings -----------------------------------------------------------------------------------------------------


def read_cohort(folder: Path) -> PackedCohort:
    """Patients of two diseases and controls; what is read has little to do with them, and some is not read."""
    words = ("absent", "present", "absent", "unsure", "n/a", "present", "absent")

    def change(fields: dict[str, Any]) -> None:
        i = int(fields["participant_id"][4:])
        fields["diagnosis"] = ("PD", "control", "pd", "MSA", None)[i % 5]
        fields["hyperintensity_right"], fields["hyperintensity_left"] = (
            None if word == "n/a" else word for word in (words[i % 7], words[(3 * i + 1) % 7])
        )

    return write_cohort(folder, 48, change=change)


def baselines_of(cohort: PackedCohort, out: Path, **options: Any) -> dict[tuple[str, str, str], Reading]:
    """The readings by approach, reference and side; nothing is trained."""
    plan = resolve_plan(cohort, **{"level": LEVEL, "changes": TINY, **options})
    folder = StudyFolder(out)
    claim(folder, plan)
    make_splits(plan, cohort)["split-1"].save(folder.split("split-1"))
    assert tasks.baselines(str(out), str(cohort.folder), "split-1") == ("done", "")
    return {(r.method, r.reference, r.side): r for r in read_readings(folder, ["split-1"])}


def test_readings_are_counted_on_the_tested_visits_against_sbr_and_diagnosis(tmp_path):
    cohort = read_cohort(tmp_path / "cohort")
    found = baselines_of(cohort, tmp_path / "study", threshold=2.56, disease=["PD", "MSA"])
    split = Split.load(tmp_path / "study" / "splits" / "split-1.json")
    references = ("SBR below 2.56", "diagnosis MSA or PD")
    assert set(found) == {
        (m, ref, side) for m in ("observer", "n1-index") for ref in references for side in ("right", "left")
    }
    for side in ("right", "left"):
        for reference in references:
            cells: Counter[str] = Counter()
            for person in cohort.participants:
                if person.participant_id not in split.test:
                    continue
                word = getattr(person, f"hyperintensity_{side}")
                ill = getattr(person, f"sbr_{side}") < 2.56
                if reference.startswith("diagnosis"):
                    ill = person.diagnosis in ("PD", "pd", "MSA")
                if word is None:
                    cells["unread"] += 1
                elif word == "unsure":
                    cells["unsure"] += 1
                elif reference.startswith("diagnosis") and person.diagnosis is None:
                    cells["without_reference"] += 1
                else:
                    right_so = ill == (word == "absent")
                    cells[("t" if right_so else "f") + ("p" if word == "absent" else "n")] += 1
            r = found["observer", reference, side]
            told = {**asdict(r.counts), **{n: getattr(r, n) for n in ("unread", "unsure", "without_reference")}}
            assert {name: number for name, number in told.items() if number} == cells


def test_the_index_is_read_at_a_cut_of_the_training_patients(tmp_path):
    cohort = write_cohort(tmp_path / "cohort", 48)
    found = baselines_of(cohort, tmp_path / "study", threshold=2.56)
    assert set(found) == {("n1-index", "SBR below 2.56", side) for side in ("right", "left")}
    split = Split.load(tmp_path / "study" / "splits" / "split-1.json")
    (index, low), (tested, truly_low) = (
        (read_features(cohort, rows, ["n1-index"])["n1-index"][..., 0], cohort.sbr[rows] < 2.56)
        for rows in (split.rows(cohort, "train"), split.rows(cohort, "test"))
    )
    values = np.unique(index)
    cuts = (values[1:] + values[:-1]) / 2
    cut = max(cuts, key=lambda c: (index[low] < c).mean() - (index[~low] < c).mean())
    for i, side in enumerate(("right", "left")):
        absent, ill = tested[:, i] < cut, truly_low[:, i]
        r = found["n1-index", "SBR below 2.56", side]
        assert (r.counts.tp, r.counts.fp) == ((absent & ill).sum(), (absent & ~ill).sum())
        assert (r.counts.n, r.unsure, r.unread) == (len(split.test), 0, 0)
    told = json.loads((StudyFolder(tmp_path / "study").fit("split-1/n1-index") / "fit.json").read_text())
    assert f"read as present from {cut:.2f} upwards" in told["description"]


def test_without_threshold_and_diagnosis_no_readings_are_written(tmp_path):
    cohort = read_cohort(tmp_path / "cohort")
    assert baselines_of(cohort, tmp_path / "none", disease=[]) == {}
    assert not list((tmp_path / "none").rglob("readings.json"))
    found = baselines_of(cohort, tmp_path / "diagnosis")  # PD by itself, no threshold, so no cut of the index
    assert set(found) == {("observer", "diagnosis PD", side) for side in ("right", "left")}


# -- Fresh draws --------------------------------------------------------------------------------------------------


def test_fresh_patients_are_drawn_for_every_split_and_tested(cohort, here, tmp_path, monkeypatch):
    drawn: list[tuple[int, int]] = []

    def simulate(out: Path, *, patients: int, preset: object, seed: int, workers: int) -> None:
        drawn.append((patients, seed))
        assert preset == get_preset("easy")
        write_cohort(Path(out), patients, seed=seed, kind="phantom")

    monkeypatch.setattr(tasks, "simulate", simulate)
    phantom = replace(cohort, provenance={"kind": "phantom", "preset": asdict(get_preset("easy")), "seed": 5})
    options = {"methods": ["vgg-left"], "design": "repeated", "splits": 2, "fresh": 9}
    found = run(phantom, tmp_path / "study", **options)
    assert [patients for patients, _ in drawn] == [41 + 9] * 2
    assert len({seed for _, seed in drawn} | {5}) == 3
    models = [r for r in found if r.role == "model"]
    assert [(r.split, r.train_patients, r.test_patients) for r in models] == [("draw-1", 33, 9), ("draw-2", 33, 9)]
    one, two = (r.predictions() for r in models)
    assert one.patients == two.patients
    assert not np.array_equal(one.truth, two.truth)
    here.keys.clear()
    assert run(phantom, tmp_path / "study", **options) == found
    assert (here.keys, len(drawn)) == ([], 2)


# -- Killed -------------------------------------------------------------------------------------------------------


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def holders(study: Path, method: str) -> list[int]:
    """The processes that hold the lock of a fit."""
    locks = (study / "locks").glob(f"*{method}*") if (study / "locks").is_dir() else ()
    return [int(lock.name.split("@")[2]) for lock in locks]


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="processes are looked up in /proc")
def test_a_study_whose_worker_and_then_itself_is_killed_goes_on_as_if_nothing_had_been(cohort, here, tmp_path):
    key, out = "split-1/vgg-left-seed1", tmp_path / "study"
    log = StudyFolder(out).fit(key) / "log.csv"

    def epochs() -> int:
        return log.read_bytes().count(b"\n") - 1 if log.is_file() else 0

    def worker() -> int:
        return next((pid for pid in holders(out, "vgg-left") if pid not in killed), 0)

    def wait_for(what: Callable[[], Any]) -> Any:
        while not (found := what()):
            assert parent.poll() is None, (tmp_path / "said").read_text()  # it ended before its time
            time.sleep(0.02)
        return found

    killed: list[int] = []
    script = [sys.executable, str(Path(__file__).with_name("killed_study.py")), str(cohort.folder), str(out)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    with (tmp_path / "said").open("w") as said:
        parent = subprocess.Popen(script, env=environment, stderr=said)
    try:
        wait_for(lambda: epochs() >= 1)
        killed.append(wait_for(worker))
        os.kill(killed[0], signal.SIGKILL)
        there = epochs()
        second = wait_for(worker)  # another worker has taken the fit over
        wait_for(lambda: epochs() > there)
    finally:
        parent.kill()
        parent.wait()
    while is_running(second):  # its workers end with it
        time.sleep(0.02)
    assert not (log.parent / "fit.json").exists()

    assert "vgg-left" in [r.method for r in run(cohort, out, **STUDY)]
    run(cohort, tmp_path / "whole", **STUDY)
    for name in ("model.safetensors", "log.csv", "predictions.tsv"):
        one, two = (StudyFolder(folder).fit(key) / name for folder in (out, tmp_path / "whole"))
        assert one.read_bytes() == two.read_bytes(), name
    assert len((log.parent / "times.csv").read_text().splitlines()) == 1 + STUDY["changes"]["epochs"]
    assert Counter(r.method for r in records(out)) == Counter(r.method for r in records(tmp_path / "whole"))
    assert json.loads((out / "study.json").read_text())["methods"] == ["vgg-left"]


@pytest.mark.slow
def test_a_study_on_ray_loses_nothing_when_a_worker_is_killed(cohort, local_ray, tmp_path):
    """Killed in the middle of a fit: it goes on elsewhere, every fit is in the table once, and no number differs."""
    study = {**STUDY, "methods": ["vgg-left", "sym-vgg"], "workers": 2}
    out, killed = tmp_path / "study", []

    def kill() -> None:
        log = StudyFolder(out).fit("split-1/vgg-left-seed1") / "log.csv"
        while not (log.is_file() and log.read_bytes().count(b"\n") > 1):
            time.sleep(0.02)
        killed.append(holders(out, "vgg-left")[0])
        os.kill(killed[0], signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    found = run(cohort, out, **study, engine="ray")
    killer.join()
    assert killed
    assert killed[0] != os.getpid()
    fits = [(r.method, r.split, r.seed) for r in found]
    assert len(fits) == len(set(fits))
    whole = run(cohort, tmp_path / "whole", **study)
    assert Counter(fits) == Counter((r.method, r.split, r.seed) for r in whole)
    for key in ("split-1/vgg-left-seed1", "split-1/sym-vgg-seed1"):
        folders = (out, tmp_path / "whole")
        one, two = (Predictions.load(StudyFolder(folder).fit(key) / "predictions.tsv") for folder in folders)
        assert np.array_equal(one.predicted, two.predicted, equal_nan=True), key
