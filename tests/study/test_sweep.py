"""A sweep varies what it is told to, scores the stopping patients, and leaves the test patients alone."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from here_engine import HereEngine

from nigradat.errors import CohortError, ConfigError, NigradatError, OutputError
from nigradat.evaluation.predictions import Predictions
from nigradat.io.pack import PackedCohort
from nigradat.models.weights import load_model
from nigradat.study import sweep as sweep_module
from nigradat.study.folder import StudyFolder
from nigradat.study.sweep import SCORES, SweepRow, parse_vary, plan_sweep, run_sweep
from nigradat.training.split import Split
from nigradat.uncertainty.mc_dropout import mc_samples
from small_runs import write_cohort

TINY: dict[str, Any] = {
    "widths": (2, 2, 2, 2),
    "epochs": 1,
    "batch_size": 16,
    "head_dropout": 0.3,
    "block_dropout": 0.0,
    "learning_rate": 7e-4,
}


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> HereEngine:
    engine = HereEngine()
    monkeypatch.setattr(sweep_module, "make_engine", engine.made)
    return engine


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> PackedCohort:
    return write_cohort(tmp_path_factory.mktemp("sweep") / "cohort", 48, twice=2)


def names(plan: Any) -> list[tuple[str, str, str, int, bool]]:
    return [(p.parameter, p.value, p.training, p.samples, p.is_default) for p in plan.points]


def test_one_at_a_time_goes_around_the_default(cohort):
    plan = plan_sweep(cohort, ["symmetry_weight=1,0,0.1", "samples=10,50"], changes=TINY)
    assert names(plan) == [
        ("symmetry_weight", "0", "symmetry_weight=0", 100, False),
        ("symmetry_weight", "0.1", "default", 100, True),  # the method's own
        ("symmetry_weight", "1", "symmetry_weight=1", 100, False),
        ("samples", "10", "default", 10, False),
        ("samples", "50", "default", 50, False),
        ("samples", "100", "default", 100, True),
    ]
    assert set(plan.trainings) == {"default", "symmetry_weight=0", "symmetry_weight=1"}
    assert plan.config("symmetry_weight=1", 7).resolved_symmetry_weight == 1
    assert plan.config("default", 7).seed == 7


def test_places_of_dropout_and_widths_are_values_too(cohort):
    plan = plan_sweep(cohort, ["dropout=none,blocks,head", "widths=2-2-2-2,4-4-4-4"], changes=TINY)
    assert [(v, t) for _, v, t, _, _ in names(plan)] == [
        ("none", "dropout=none"),
        ("blocks", "dropout=blocks"),
        ("head", "default"),
        ("2-2-2-2", "default"),
        ("4-4-4-4", "widths=4-4-4-4"),
    ]
    assert plan.config("dropout=blocks", 1).block_dropout == 0.2
    assert plan.config("widths=4-4-4-4", 1).widths == (4, 4, 4, 4)


def test_a_grid_has_every_combination_once_and_trains_nothing_for_samples(cohort):
    plan = plan_sweep(cohort, ["head_dropout=0.1,0.3", "samples=10,100"], grid=True, changes=TINY)
    assert [p.value for p in plan.points] == ["0.1, 10", "0.1, 100", "0.3, 10", "0.3, 100"]
    assert set(plan.trainings) == {"default", "head_dropout=0.1"}
    assert [p.is_default for p in plan.points] == [False, False, False, True]
    assert set(plan_sweep(cohort, ["head_dropout=0.1,0.2"], grid=True, changes=TINY).trainings) == {
        "head_dropout=0.1",
        "head_dropout=0.2",
    }


@pytest.mark.parametrize(
    ("vary", "words"),
    [
        (["learning_rat=1"], "Did you mean 'learning_rate'"),
        (["lambda"], "cannot be varied"),
        (["samples"], "values with commas"),
        (["samples=many"], "samples=many"),
        (["samples=1"], "at least 2"),
        (["widths=8,16"], "four|widths"),
        (["dropout=everywhere"], "none, head, blocks"),
        (["head_dropout=2"], "head_dropout"),
        (["samples=2,3", "samples=4"], "once"),
        ([], "at least one"),
    ],
)
def test_wrong_values_are_refused(vary, words, cohort):
    with pytest.raises(ConfigError, match=words):
        plan_sweep(cohort, vary)


def test_hyphens_and_spaces_are_forgiven():
    assert parse_vary("learning-rate= 1e-4, 1e-3,1e-4") == ("learning_rate", ("1e-4", "1e-3"))


def read(folder: Path) -> list[dict[str, str]]:
    with (folder / "tables" / "sweep.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_sweep_from_cohort_to_table_and_curves(cohort, here, tmp_path):
    vary = ["dropout=none,head", "samples=4,8"]
    run: Callable[..., tuple[Path, tuple[SweepRow, ...]]] = lambda **more: run_sweep(  # noqa: E731
        cohort, tmp_path / "sweep", vary, changes=TINY, samples=8, seeds=2, **more
    )
    folder, rows = run()
    assert here.keys == [f"{name}/sym-vgg-plus-seed{seed}" for seed in (1, 2) for name in ("default", "dropout=none")]
    assert [(r.point.parameter, r.point.value, r.fits, r.failed) for r in rows] == [
        ("dropout", "none", 2, 0),
        ("dropout", "head", 2, 0),
        ("samples", "4", 2, 0),
        ("samples", "8", 2, 0),
    ]
    assert {r.part for r in rows} == {"stop"}
    assert not list(folder.rglob("test-*"))
    split = Split.load(folder / "splits" / "split-1.json")
    assert {r.patients for r in rows} == {len(split.stop)}
    assert "sharpness_mc" not in rows[0].scores
    assert rows[1].scores == rows[3].scores  # the default, twice
    assert rows[2].scores["rmse"] == rows[3].scores["rmse"]
    assert rows[2].scores["sharpness_mc"] != rows[3].scores["sharpness_mc"]
    assert sum(r.is_best for r in rows if r.point.parameter == "dropout") == 1

    run_folder = StudyFolder(folder).fit("default/sym-vgg-plus-seed1")
    four = Predictions.load(run_folder / "stop-T4.tsv")
    assert set(four.patients) == set(split.stop)
    first = {p: i for i, p in reversed(list(enumerate(cohort.patient_ids)))}
    patches = np.stack([cohort.read(first[p]) for p in four.patients])
    draws = mc_samples(load_model(run_folder).model, patches, samples=4)
    np.testing.assert_allclose(four.spreads["mc"][0], draws.mean(axis=0), rtol=1e-6)
    both = [Predictions.load(StudyFolder(folder).fit(f"default/sym-vgg-plus-seed{s}") / "stop-T8.tsv") for s in (1, 2)]
    errors = [np.sqrt(np.mean((p.predicted - p.truth) ** 2, axis=0)).mean() for p in both]
    assert rows[1].scores["rmse"].value == pytest.approx(np.mean(errors))
    assert rows[1].seed_sd["rmse"] == pytest.approx(np.std(errors, ddof=1))

    table = read(folder)
    assert [line["value"] for line in table] == ["none", "head", "4", "8"]
    assert table[0]["sharpness_mc"] == "n/a"
    assert float(table[1]["rmse"]) == rows[1].scores["rmse"].value
    assert {p.name for p in (folder / "figures").iterdir()} == {
        "sweep-dropout-stop.svg",
        "sweep-samples-stop.svg",
    }
    assert all(f"{title}" in (folder / "figures" / "sweep-samples-stop.svg").read_text() for title in SCORES.values())

    here.keys.clear()
    assert run()[1] == rows
    assert here.keys == []
    tested = run(test=True)[1]  # the weights are there: only the test patients are predicted
    assert len(here.keys) == 4
    assert [r.part for r in tested] == ["stop"] * 4 + ["test"] * 4
    assert tested[:4] == rows
    with pytest.raises(OutputError, match="recipe, draws differ"):
        run_sweep(cohort, tmp_path / "sweep", vary, changes={**TINY, "epochs": 2})


def test_a_failing_value_is_counted_and_the_others_go_on(cohort, here, tmp_path):
    said: list[str] = []
    wild = {**TINY, "gradient_clip": 0.0, "schedule": "constant"}
    _, rows = run_sweep(
        cohort,
        tmp_path / "sweep",
        ["learning_rate=1e30"],
        method="vgg-left",
        changes=wild,
        samples=4,
        say=said.append,
    )
    assert [(r.point.value, r.fits, r.failed) for r in rows] == [("0.0007", 1, 0), ("1e30", 0, 1)]
    assert "diverged" in said[0]
    assert set(rows[0].scores) == set(SCORES) - {"sharpness_s1"}  # one side
    assert rows[1].scores == {}
    assert [line["failed"] for line in read(tmp_path / "sweep")] == ["0", "1"]


def test_where_all_fail_it_says_so_and_they_can_be_tried_again(cohort, here, tmp_path, monkeypatch):
    def stopped(*_: object, **__: object) -> None:
        raise MemoryError

    def again(**more: Any) -> tuple[SweepRow, ...]:
        return run_sweep(cohort, tmp_path / "sweep", ["samples=4,8"], changes=TINY, **more)[1]

    with monkeypatch.context() as patch:
        patch.setattr(sweep_module, "train", stopped)
        with pytest.raises(NigradatError, match=r"all 1 trainings .*\(MemoryError\).*--retry-failed"):
            again()
    here.keys.clear()
    with pytest.raises(NigradatError, match="MemoryError"):
        again()
    assert here.keys == []
    assert [row.fits for row in again(retry_failed=True)] == [1, 1, 1]


def test_values_are_added_to_what_is_there(cohort, here, tmp_path):
    first = run_sweep(cohort, tmp_path / "sweep", ["symmetry_weight=0"], changes=TINY, samples=4)[1]
    here.keys.clear()
    both = run_sweep(cohort, tmp_path / "sweep", ["samples=2", "symmetry_weight=0.0,1"], changes=TINY, samples=4)[1]
    assert sorted(here.keys) == [  # those of before for their spread with two samples
        "default/sym-vgg-plus-seed1",
        "symmetry_weight=0/sym-vgg-plus-seed1",
        "symmetry_weight=1/sym-vgg-plus-seed1",
    ]
    values = {(r.point.parameter, r.point.value): r.scores["rmse"].value for r in both}
    assert list(values) == [
        ("symmetry_weight", "0"),
        ("symmetry_weight", "0.1"),
        ("symmetry_weight", "1"),
        ("samples", "2"),
        ("samples", "4"),
    ]
    assert [values[r.point.parameter, r.point.value] for r in first] == [r.scores["rmse"].value for r in first]
    assert not any(r.is_best for r in both if r.point.parameter == "samples")  # one training, one RMSE
    with pytest.raises(OutputError, match="draws differ"):
        run_sweep(cohort, tmp_path / "sweep", ["samples=2"], changes=TINY, samples=5)


def test_a_value_typed_in_two_ways_is_trained_once(cohort):
    plan = plan_sweep(cohort, ["learning_rate=1e-3,0.001"])
    assert list(plan.trainings) == ["default", "learning_rate=1e-3"]
    assert len(plan.points) == 2


def test_labels_beyond_the_scale_are_refused_before_any_training(cohort, here, tmp_path):
    with pytest.raises(CohortError, match="--sbr-max"):
        run_sweep(cohort, tmp_path / "sweep", ["samples=4"], changes={**TINY, "sbr_max": 1.0})
    assert not (tmp_path / "sweep").exists()


def test_a_folder_of_something_else_is_refused(cohort, tmp_path):
    (tmp_path / "thesis.txt").touch()
    with pytest.raises(OutputError, match="no sweep folder"):
        run_sweep(cohort, tmp_path, ["samples=4"])
