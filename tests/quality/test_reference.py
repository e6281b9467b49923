"""What is usual: the promise about false alarms, and a file that is whole or refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nigradat.anatomy import Side
from nigradat.errors import CalibrationError, ConfigError
from nigradat.io.pack import CohortWriter, load_cohort
from nigradat.models.symmetric import ModelSpec, build
from nigradat.models.weights import load_model, save_model
from nigradat.quality.measures import MEASURES, NAMES, Template
from nigradat.quality.reference import (
    QUALITY_NAME,
    TENSORS_NAME,
    Quality,
    fit_quality,
    load_quality,
    require_quality,
    scores_of,
)
from small_runs import write_run


def made_up(scores: np.ndarray, alarm: float = 0.05) -> Quality:
    ones = np.ones((2, len(MEASURES)))
    template = Template(np.ones((50, 50, 20), np.float32))
    return Quality(template, {}, 0 * ones, ones, 2 * ones, np.sort(scores), alarm, 30, "", "", "phantom")


@given(
    scores=st.lists(st.integers(0, 30), min_size=1, max_size=60),
    new=st.integers(-1, 31),
    alarm=st.sampled_from([0.02, 0.05, 0.1, 1 / 3, 0.5]),
)
def test_beyond_the_cut_is_a_p_value_below_the_alarm(scores, new, alarm):
    quality = made_up(np.array(scores, dtype=float))
    p = quality.p_values(np.array([float(new)]))[0]
    assert p == pytest.approx((1 + sum(s >= new for s in scores)) / (len(scores) + 1))
    if alarm * (len(scores) + 1) < 1 - 1e-9:
        with pytest.raises(CalibrationError, match=f"{len(scores)} held-out patients"):
            quality.cut_at(alarm)
    else:
        assert (new > quality.cut_at(alarm)) == (p <= alarm + 1e-9)


def test_the_number_of_patients_that_is_named_is_the_smallest_that_will_do():
    with pytest.raises(CalibrationError, match="at least 19 patients"):
        made_up(np.arange(18.0)).cut_at(0.05)
    assert made_up(np.arange(19.0)).cut_at(0.05) == 18
    with pytest.raises(ConfigError, match="level"):
        made_up(np.arange(19.0)).cut_at(1.0)


def test_ordinary_pairs_raise_no_more_alarms_than_promised():
    rng = np.random.default_rng(0)
    alarms = []
    for _ in range(4000):
        scores = rng.standard_exponential(29)
        alarms.append(made_up(scores[:-1]).p_values(scores[-1:])[0] <= 0.05)
    # rank 1 of 29 is the only one below .05; 5 standard errors
    assert np.mean(alarms) == pytest.approx(1 / 29, abs=5 * np.sqrt(1 / 29 / 4000))


def test_deviations_count_on_the_suspicious_side():
    quality = made_up(np.arange(19.0))
    for j, measure in enumerate(MEASURES):
        for value, expected in (
            (4.0, {"both": 2.0, "high": 2.0, "low": -2.0}),
            (-3.0, {"both": 3, "high": -1.5, "low": 3}),
        ):
            values = np.zeros((2, len(MEASURES)))
            values[1, j] = value
            found = quality.deviations(values)[1, j]
            sign = {"both": abs, "high": float, "low": float}[measure.tail]
            reach = {4.0: {"both": 2.0, "high": 2.0, "low": -4.0}, -3.0: {"both": 3.0, "high": -1.5, "low": 3.0}}
            assert sign(found) == pytest.approx(reach[value][measure.tail]), (measure.name, value, expected)
    values = np.zeros((1, 2, len(MEASURES)))
    values[0, 0, 3] = np.nan
    assert scores_of(quality.deviations(values)) == np.inf


def test_a_side_without_an_answer_counts_for_nothing():
    quality = made_up(np.arange(19.0))
    middle = quality.middle.copy()
    middle[Side.RIGHT.index, -2:] = np.nan
    one_sided = replace(quality, middle=middle)
    values = np.zeros((1, 2, len(MEASURES)))
    values[0, Side.RIGHT.index, -2:] = np.nan
    values[0, 1, 0] = 1.0
    assert scores_of(one_sided.deviations(values)) == pytest.approx(0.5)


def test_what_is_usual_holds_most_of_the_reference(quality, loaded, phantom):
    split_patients = json.loads((loaded.folder / "split.json").read_text())["train"]
    rows = [i for i, p in enumerate(phantom.patient_ids) if p in split_patients][:10]
    values = quality.measure(loaded, np.stack([phantom.read(i) for i in rows]))
    for side in Side:
        low, high = quality.usual(side)
        inside = (values[:, side.index] >= low) & (values[:, side.index] <= high)
        assert inside.mean() > 0.95
    assert quality.reference_patients == 31
    assert quality.patients == 3
    assert quality.alarm == pytest.approx(1 / 4)
    assert "25 %" in quality.promise


def test_the_file_brings_back_every_number(quality, fitted_run, phantom):
    again = load_quality(load_model(fitted_run))
    assert again is not None
    fresh = fit_quality_of(fitted_run, phantom)
    for name in ("middle", "below", "above", "scores"):
        assert np.array_equal(getattr(again, name), getattr(quality, name))
        assert getattr(fresh, name) == pytest.approx(getattr(quality, name))
    assert np.array_equal(again.template.mean, quality.template.mean)
    assert (again.alarm, again.kind, again.promise) == (quality.alarm, quality.kind, quality.promise)


def fit_quality_of(run: Path, cohort) -> Quality:
    """Fitted anew in a copy."""
    import shutil
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        copy = Path(shutil.copytree(run, Path(folder) / "copy"))
        return fit_quality(copy, cohort)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda run: (run / QUALITY_NAME).write_text("{"),
        lambda run: (run / QUALITY_NAME).write_text("[]"),
        lambda run: (run / QUALITY_NAME).write_text("{}"),
        lambda run: (run / TENSORS_NAME).unlink(),
        lambda run: (run / TENSORS_NAME).write_bytes(b"0" * 100),
        lambda run: changed(run, measures=["noise"]),
        lambda run: changed(run, scores=[]),
        lambda run: changed(run, scores=["many"]),
        lambda run: changed(run, middle=[[0.0]]),
        lambda run: changed(run, alarm=2.0),
        lambda run: changed(run, format=99),
    ],
)
def test_a_damaged_reference_is_refused(spoil, own_run):
    spoil(own_run)
    with pytest.raises(CalibrationError, match="is damaged"):
        load_quality(load_model(own_run))


def changed(run: Path, **values: object) -> None:
    path = run / QUALITY_NAME
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def test_a_reference_of_other_weights_is_refused(own_run):
    changed(own_run, weights_sha256="0" * 64)
    with pytest.raises(CalibrationError, match="other weights"):
        load_quality(load_model(own_run))


def test_without_a_reference_there_is_none(own_run):
    (own_run / QUALITY_NAME).unlink()
    loaded = load_model(own_run)
    assert load_quality(loaded) is None
    with pytest.raises(CalibrationError, match="nigradat fit-quality"):
        require_quality(loaded)


def test_another_cohort_is_halved_and_needs_no_labels(phantom, own_run, tmp_path):
    with CohortWriter(tmp_path / "other", 20, {"kind": "phantom"}) as writer:
        people = []
        for i in range(20):
            # other images than those that trained the run
            writer.patches[i] = phantom.read(i)[:, ::-1]
            people.append(replace(phantom.participants[i], sbr_right=None, sbr_left=None))
        writer.finish(people)
    quality = fit_quality(own_run, load_cohort(tmp_path / "other"))
    assert (quality.reference_patients, quality.patients) == (10, 10)
    assert quality.alarm == pytest.approx(1 / 11)


def test_patients_that_trained_the_model_cannot_be_held_out(phantom, own_run, tmp_path):
    with CohortWriter(tmp_path / "again", len(phantom), {"kind": "phantom"}) as writer:
        for i in range(len(phantom)):
            writer.patches[i] = phantom.read(i)
        people = list(phantom.participants)
        writer.finish([*people[:-1], replace(people[-1], age=33.0)])  # another cohort by its hash
    with pytest.raises(CalibrationError, match="were used in training"):
        fit_quality(own_run, tmp_path / "again")


def test_too_few_patients_are_refused(make_cohort, own_run):
    with pytest.raises(CalibrationError, match="5 reference and 5 held-out"):
        fit_quality(own_run, make_cohort(10, seed=5))


@pytest.mark.parametrize("sharing", ["separate", "left"])
def test_models_of_other_kinds_have_a_reference_too(sharing, phantom, tmp_path):
    folder, _ = write_run(tmp_path / "run", phantom, sharing=sharing)
    loaded = load_model(folder)
    quality = fit_quality(loaded, phantom)
    assert set(quality.spaces) == ({"right", "left"} if sharing == "separate" else {"left"})
    values = quality.measure(loaded, phantom.read(0)[None])
    answered = np.isfinite(values[0, :, NAMES.index("feature-distance")])
    assert answered.tolist() == [sharing == "separate", True]
    assert np.isfinite(scores_of(quality.deviations(values))).all()


def test_an_imported_model_without_a_cohort_of_its_own(phantom, tmp_path):
    folder = save_model(tmp_path / "net", build(ModelSpec(widths=(2, 2, 2, 4)), 1), {"training": {"kind": "patients"}})
    assert fit_quality(folder, phantom).reference_patients == 20
