"""A plan is resolved before work begins: what cannot be done is refused with nothing written."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nigradat.errors import CalibrationError, CohortError, ConfigError, NigradatError, OutputError
from nigradat.io.files import write_json
from nigradat.io.pack import PackedCohort
from nigradat.models.registry import list_models
from nigradat.phantom.latents import get_preset
from nigradat.study.folder import StudyFolder
from nigradat.study.plan import SCALES, StudyPlan, claim, make_splits, resolve_plan, run_study, split_draw, study_tasks
from small_runs import write_cohort

TINY = {"widths": (2, 2, 2, 2), "epochs": 1}


@pytest.fixture(scope="module")
def cohort(make_cohort: Callable[..., PackedCohort]) -> PackedCohort:
    return make_cohort(40)


@pytest.fixture
def phantom(cohort: PackedCohort) -> PackedCohort:
    """As if 'nigradat simulate' had made it."""
    return replace(cohort, provenance={"kind": "phantom", "preset": asdict(get_preset("easy")), "seed": 5})


def plan_of(cohort: PackedCohort, **options: object) -> StudyPlan:
    return resolve_plan(cohort, **{"level": 0.5, "changes": TINY, **options})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"scale": "smal"}, ConfigError, "Did you mean 'small'"),
        ({"design": "k-fold"}, ConfigError, "Did you mean 'kfold'"),
        ({"methods": ["sym-vgg-pls"]}, ConfigError, "Did you mean 'sym-vgg-plus'"),
        ({"methods": ["resnet"]}, ConfigError, "resnet18"),
        ({"design": "single", "splits": 3}, ConfigError, "Say --design repeated"),
        ({"splits": 0}, ConfigError, "0 splits"),
        ({"seeds": 0}, ConfigError, "0 seeds"),
        ({"fresh": 10}, CohortError, "which cannot be drawn again"),
        ({"level": 0.95}, CalibrationError, "at least 19"),
        ({"level": 1.5}, ConfigError, "level"),
        ({"design": "kfold", "splits": 30}, CohortError, "30 folds for 40 patients"),
        ({"changes": {"sbr_max": 1.0}}, CohortError, "--sbr-max"),
        ({"changes": {"epochz": 1}}, ConfigError, "epochz"),
        ({"engine": "threads"}, ConfigError, "no engine is called"),
        ({"threshold": float("nan")}, ConfigError, "threshold"),
    ],
)
def test_what_cannot_be_done_is_refused_before_anything_is_written(options, error, words, cohort, tmp_path):
    with pytest.raises(error, match=words):
        run_study(cohort, tmp_path / "study", **{"level": 0.5, "changes": TINY, **options})
    assert not (tmp_path / "study").exists()


def test_too_few_patients_are_refused(make_cohort, tmp_path):
    with pytest.raises(CohortError, match="too few"):
        run_study(make_cohort(8), tmp_path / "study", level=0.5)
    assert not (tmp_path / "study").exists()


def test_fresh_draws_go_with_no_folds(phantom):
    with pytest.raises(ConfigError, match="kfold"):
        plan_of(phantom, fresh=5, design="kfold")


def test_scales_have_methods_that_exist():
    for scale in SCALES.values():
        assert set(scale.methods) <= set(list_models())


def test_a_scale_without_methods_has_them_all(cohort, monkeypatch):
    monkeypatch.setattr("nigradat.study.plan.create_model", lambda *_: None)  # building all of them takes long
    assert plan_of(cohort, scale="laptop").methods == tuple(list_models())
    assert plan_of(cohort).methods == ("sym-vgg-plus",)
    assert plan_of(cohort, methods=["sym-vgg", "sym-vgg"]).methods == ("sym-vgg",)


def test_the_plan_on_disk_is_the_plan(cohort, tmp_path):
    plan = plan_of(cohort, design="repeated", splits=3, seeds=2)
    folder = StudyFolder(tmp_path / "study")
    assert claim(folder, plan) == plan
    assert StudyPlan.load(folder) == StudyPlan.load(folder)
    assert StudyPlan.load(folder).to_json() == plan.to_json()
    assert json.loads(folder.plan.read_text())["split_names"] == ["split-1", "split-2", "split-3"]


@given(splits=st.integers(1, 20), seeds=st.integers(1, 20), more=st.integers(0, 5), seed=st.integers(0, 10**6))
def test_no_two_fits_share_a_seed_and_growing_renames_none(splits, seeds, more, seed):
    plan = StudyPlan({}, "quick", ("a", "b"), "repeated", splits, seeds, 0, seed, 0.5, None, 10, {}, {})
    fits = list(plan.fits())
    assert len(set(fits)) == len(fits) == 2 * splits * seeds
    of_a = [fit.seed for fit in fits if fit.method == "a"]
    assert len(set(of_a)) == len(of_a)
    assert of_a == [fit.seed for fit in fits if fit.method == "b"]
    grown = replace(plan, splits=splits + more, seeds=seeds + more, methods=("a", "b", "c"))
    assert set(fits) <= set(grown.fits())


def test_a_threshold_is_known_on_the_papers_scale_only(cohort, tmp_path):
    assert plan_of(cohort).threshold == 2.56
    patients = write_cohort(tmp_path / "patients", 20)
    assert plan_of(patients).threshold is None
    assert plan_of(patients, threshold=1.7).threshold == 1.7


def diagnosed(folder: Path, *names: str | None) -> PackedCohort:
    """One diagnosis after the other, again and again."""

    def change(fields: dict[str, object]) -> None:
        fields["diagnosis"] = names[int(str(fields["participant_id"])[4:]) % len(names)]

    return write_cohort(folder, 20, change=change)


def test_the_disease_is_pd_where_anybody_has_it_or_what_is_said(cohort, tmp_path):
    assert plan_of(cohort).disease == ()
    mixed = diagnosed(tmp_path / "mixed", "pd", "MSA", "control", None)
    assert plan_of(mixed).disease == ("PD",)
    assert plan_of(mixed, disease=["PD", "msa"]).disease == ("PD", "msa")
    assert plan_of(mixed, disease=[]).disease == ()
    other = diagnosed(tmp_path / "other", "Parkinson", "control")
    assert plan_of(other).disease == ()
    with pytest.raises(ConfigError, match=r"nobody has the diagnosis 'PD'.*Parkinson, control"):
        plan_of(other, disease=["Parkinson", "PD"])
    with pytest.raises(ConfigError, match="column diagnosis"):
        plan_of(cohort, disease=["PD"])


def test_a_plan_from_before_there_was_a_disease_is_read(cohort, tmp_path):
    folder = StudyFolder(tmp_path)
    plan = plan_of(cohort)
    write_json(folder.plan, {name: value for name, value in plan.to_json().items() if name != "disease"})
    assert StudyPlan.load(folder).to_json() == plan.to_json()
    assert claim(folder, plan).disease == ()


# -- Splits -------------------------------------------------------------------------------------------------------


def test_repeated_splits_differ_and_folds_test_everybody_once(cohort):
    repeated = make_splits(plan_of(cohort, design="repeated", splits=4), cohort)
    assert len({split.sha256 for split in repeated.values()}) == 4
    folds = make_splits(plan_of(cohort, design="kfold", splits=5), cohort)
    assert list(folds) == [f"fold-{i}" for i in range(1, 6)]
    assert sorted(p for split in folds.values() for p in split.test) == sorted(cohort.patient_ids)


def test_a_fresh_draw_trains_as_many_as_the_given_cohort_would(phantom, make_cohort):
    plan = plan_of(phantom, fresh=7, design="repeated", splits=2)
    own, fresh = plan.draw_sizes
    drawn = make_cohort(own + fresh, seed=1)
    split, usual = split_draw(plan, drawn, 0), make_splits(plan_of(phantom), phantom)["split-1"]
    for part in ("train", "stop", "calibration"):
        assert len(getattr(split, part)) == len(getattr(usual, part))
    assert split.test == drawn.patient_ids[own:]
    split.check(drawn)
    assert len({plan.draw_seed(i) for i in range(50)} | {5}) == 51
    assert plan.to_json()["draw_seeds"] == [plan.draw_seed(0), plan.draw_seed(1)]


def test_labels_of_fresh_patients_do_not_even_divide_the_others(phantom, make_cohort):
    plan = plan_of(phantom, fresh=7)
    drawn = make_cohort(sum(plan.draw_sizes), seed=1)
    people = [
        dataclasses.replace(p, sbr_right=1.0, sbr_left=1.0) if i >= plan.draw_sizes[0] else p
        for i, p in enumerate(drawn.participants)
    ]
    assert split_draw(plan, replace(drawn, participants=tuple(people)), 0) == split_draw(plan, drawn, 0)


# -- The folder ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"seed": 2}, "seed: 1 there, 2 here"),
        ({"level": 0.6}, r"level: 0.5 there, 0.6 here"),
        ({"design": "repeated"}, "design: 'single' there, 'repeated' here"),
        ({"changes": {**TINY, "epochs": 2}}, "recipe.epochs: 1 there, 2 here"),
    ],
)
def test_a_folder_of_another_plan_is_refused_with_what_differs(options, words, cohort, tmp_path):
    folder = StudyFolder(tmp_path / "study")
    claim(folder, plan_of(cohort))
    before = folder.plan.read_bytes()
    with pytest.raises(OutputError, match=words):
        claim(folder, plan_of(cohort, **options))
    assert folder.plan.read_bytes() == before


def test_a_folder_of_another_cohort_is_refused(cohort, make_cohort, tmp_path):
    claim(StudyFolder(tmp_path), plan_of(cohort))
    with pytest.raises(OutputError, match=r"cohort\.sha256"):
        claim(StudyFolder(tmp_path), plan_of(make_cohort(40, seed=3)))


def test_a_folder_of_something_else_is_refused(cohort, tmp_path):
    (tmp_path / "thesis.txt").touch()
    with pytest.raises(OutputError, match="no study folder"):
        claim(StudyFolder(tmp_path), plan_of(cohort))


def test_methods_seeds_and_splits_may_be_added_and_nothing_is_taken_away(cohort, tmp_path):
    folder, said = StudyFolder(tmp_path), list[str]()
    claim(folder, plan_of(cohort, design="repeated", splits=2, methods=["sym-vgg"], seeds=2), said.append)
    assert said == []
    grown = claim(folder, plan_of(cohort, design="repeated", splits=3, methods=["vgg-small"]), said.append)
    assert (grown.methods, grown.seeds, grown.splits) == (("vgg-small", "sym-vgg"), 2, 3)
    assert "grows: methods" in said.pop()
    assert StudyPlan.load(folder) == grown or StudyPlan.load(folder).to_json() == grown.to_json()
    assert claim(folder, plan_of(cohort, design="repeated", splits=1, methods=["sym-vgg"]), said.append) == grown
    assert "all of it is kept" in said.pop()


def test_the_number_of_folds_may_not_grow(cohort, tmp_path):
    claim(StudyFolder(tmp_path), plan_of(cohort, design="kfold", splits=3))
    with pytest.raises(OutputError, match="splits: 3 there, 4 here"):
        claim(StudyFolder(tmp_path), plan_of(cohort, design="kfold", splits=4))


def test_tasks_wait_for_what_they_need_and_what_is_done_is_left_out(phantom, tmp_path):
    plan = plan_of(phantom, fresh=5, design="repeated", splits=2, seeds=2)
    folder = StudyFolder(tmp_path)
    claim(folder, plan)
    tasks = {task.key: task for task in study_tasks(folder, plan, phantom)}
    assert len(tasks) == 2 + 4 + 2 + 2  # draws, fits, baselines, ensembles
    assert tasks["draw-2/sym-vgg-plus-seed1002"].after == ("draw-2/draw",)
    assert tasks["draw-1/ensemble"].after == ("draw-1/sym-vgg-plus-seed1", "draw-1/sym-vgg-plus-seed2")
    assert tasks["draw-1/baselines"].arguments["cohort"] == str(folder.cohort("draw-1"))
    write_json(folder.fit("draw-1/sym-vgg-plus-seed1") / "fit.json", {})
    write_json(folder.fit("draw-1/sym-vgg-plus-seed2") / "failed.json", {})
    make_splits(plan, phantom)["draw-1"].save(folder.split("draw-1"))
    left = {task.key for task in study_tasks(folder, plan, phantom)}
    assert set(tasks) - left == {"draw-1/draw", "draw-1/sym-vgg-plus-seed1", "draw-1/sym-vgg-plus-seed2"}


def test_every_error_is_ours(cohort, tmp_path):
    Path(tmp_path / "file").touch()
    with pytest.raises(NigradatError):
        run_study(cohort, tmp_path / "file", level=0.5)
    assert np.isfinite(cohort.sbr).all()
