"""The whole way as a user goes it: simulate, train, calibrate, evaluate, predict from every kind of input."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy.io import savemat

from nigradat.anatomy import Side
from nigradat.io.manifest import read_participants
from nigradat.io.pack import load_cohort


@pytest.fixture(scope="module")
def way(call, tmp_path_factory) -> Path:
    """A folder with ``cohort`` (24 phantom patients), and ``run`` (a tiny net, calibrated)."""
    folder = tmp_path_factory.mktemp("way")
    made = call(
        "simulate", folder / "cohort", "--patients", 24, "--preset", "easy", "--seed", 7, "--workers", 1, "--json"
    ).done()
    assert made.json["patients"] == 24
    assert "rendering: 24 of 24 patients" in made.err
    trained = call(
        "train", folder / "cohort", folder / "run", "--widths", "2,2,2,2", "--epochs", 2, "--seed", 3, "--json"
    ).done()
    assert trained.json["name"] == "sym-vgg-plus"
    assert "epoch   2" in trained.err
    uncalibrated = call("predict", folder / "cohort", "--model", folder / "run", "--json").done().json
    assert uncalibrated["patients"][0]["right"]["interval"] is None
    assert uncalibrated["patients"][0]["right"]["sd"] > 0
    assert "no-interval" in {flag["code"] for flag in uncalibrated["patients"][0]["flags"]}
    calibrated = call("calibrate", folder / "run", folder / "cohort", "--level", 0.5, "--json").done()
    assert calibrated.json["patients"] == 2
    assert "at least 50 %" in calibrated.json["rules"][0]["promise"]
    return folder


@pytest.fixture(scope="module")
def ask(call, way):
    """The calibrated model's JSON for some inputs."""

    def ask(*inputs):
        return call("predict", *inputs, "--model", way / "run", "--level", 0.5, "--json").done().json

    return ask


@pytest.fixture(scope="module")
def cohort(way):
    return load_cohort(way / "cohort")


@pytest.fixture(scope="module")
def expected(ask, way):
    """What the model says about the packed cohort, by patient."""
    return {patient["id"]: patient for patient in ask(way / "cohort")["patients"]}


def check_schema(data: dict) -> None:
    assert set(data) == {"model", "interval", "yield", "patients"}
    assert isinstance(data["model"], dict)
    if data["interval"] is not None:
        assert set(data["interval"]) == {"rule", "level", "mode", "calibration_patients", "promise"}
    for patient in data["patients"]:
        assert set(patient) == {"id", "session", "right", "left", "flags"}
        assert isinstance(patient["id"], str)
        for side in (patient["right"], patient["left"]):
            if side is None:
                continue
            assert set(side) == {"sbr", "interval", "level", "sd"}
            assert isinstance(side["sbr"], float)
            assert side["sd"] is None or side["sd"] >= 0
            assert (side["interval"] is None) == (side["level"] is None)
            if side["interval"] is not None:
                low, high = side["interval"]
                assert 0 <= low <= high
        for flag in patient["flags"]:
            assert set(flag) == {"code", "side", "message", "severity"}
            assert flag["side"] in ("right", "left", None)


def close(found: dict, expected: dict, tolerance: float = 1e-5) -> None:
    for side in ("right", "left"):
        for name in ("sbr", "sd", "interval"):
            np.testing.assert_allclose(found[side][name], expected[side][name], atol=tolerance)


def test_the_json_is_that_of_the_reference(expected, ask, way):
    data = ask(way / "cohort")
    check_schema(data)
    assert data["model"]["trained_on"] == "phantom"
    interval = data["interval"]
    assert (interval["rule"], interval["level"]) == ("conformal", 0.5)
    assert f"{interval['calibration_patients']} calibration patients" in interval["promise"]
    assert len(expected) == 24
    first = data["patients"][0]
    assert first["right"]["level"] == 0.5
    assert first["right"]["interval"][0] < first["right"]["interval"][1]
    assert "phantom-trained" in {flag["code"] for flag in first["flags"]}


def test_the_table_says_the_same_and_marks_the_model(call, way, expected):
    out = call("predict", way / "cohort", "--model", way / "run", "--level", 0.5).done().out
    assert "(trained on the digital phantom)" in out
    assert "50 % interval" in out
    assert f"{expected['sub-0001']['right']['sbr']:.4f}" in out
    assert "WARNING: The model was trained on a phantom" in out
    assert "Research only" in out


def test_a_level_that_was_not_promised_is_refused(call, way):
    call("predict", way / "cohort", "--model", way / "run", "--level", 0.95).refused("19")


@pytest.mark.parametrize("codes", ["ALI", "RAS", "LPS", "SRP", "PIL", "IAR"])
def test_nifti_pairs_in_any_orientation_give_the_same_numbers(codes, call, way, cohort, expected, write_pair, tmp_path):
    right, left = write_pair(cohort.pair(4), tmp_path, codes, suffix=".nii.gz")
    assert nib.aff2axcodes(nib.load(right).affine) == tuple(codes)
    data = (
        call("predict", "--model", way / "run", "--level", 0.5, "--json", "--right", right, "--left", left).done().json
    )
    check_schema(data)
    close(data["patients"][0], expected["sub-0005"])


def test_a_mat_gives_the_same_numbers_and_says_what_it_takes_on_trust(ask, cohort, expected, tmp_path):
    pair = cohort.pair(4)
    savemat(tmp_path / "somebody.mat", {f"{side.value}_patch": np.array(pair.patch(side)) for side in Side})
    (patient,) = ask(tmp_path / "somebody.mat")["patients"]
    assert patient["id"] == "somebody"
    assert "nominal-affine" in {flag["code"] for flag in patient["flags"]}
    close(patient, expected["sub-0005"])


def test_a_manifest_and_a_folder_give_the_same_numbers(ask, cohort, expected, write_pair, tmp_path):
    rows = ["participant_id\tsession_id\tright\tleft"]
    for i in (3, 11):
        pair = cohort.pair(i)
        right, left = write_pair(pair, tmp_path, "RAS", name=pair.participant_id, suffix=".nii.gz")
        rows.append(f"{pair.participant_id}\tses-2\t{right.name}\t{left.name}")
    (tmp_path / "new.tsv").write_text("\n".join(rows) + "\n")
    for source in (tmp_path / "new.tsv", tmp_path):
        found = ask(source)["patients"]
        assert [p["id"] for p in found] == ["sub-0004", "sub-0012"]
        for patient in found:
            close(patient, expected[patient["id"]])
    assert {p["session"] for p in ask(tmp_path / "new.tsv")["patients"]} == {"ses-2"}
    assert len(ask(tmp_path / "new.tsv", tmp_path)["patients"]) == 4


def test_evaluation_writes_a_page_with_tables_and_figures(call, way):
    answer = call("evaluate", way / "run", way / "cohort", "--level", 0.5, "--resamples", 200, "--json").done()
    folder = way / "run" / "evaluation"
    assert Path(answer.json["report"]) == folder / "report.html"
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "phantom" in page
    assert "http-equiv" not in page
    assert list((folder / "tables").glob("*.csv"))
    assert list((folder / "figures").glob("*.svg"))
    assert list(folder.glob("predictions*.tsv"))
    again = call("evaluate", way / "run", way / "cohort", "--level", 0.5, "--resamples", 200).done()
    assert f"Report: {folder / 'report.html'}" in again.out
    assert "phantom" in again.out.splitlines()[0]


def test_another_cohort_is_evaluated_whole(call, way, make_cohort, tmp_path):
    other = make_cohort(6, seed=50, kind="patients", name="other")
    command = ("evaluate", way / "run", other.folder, "--out", tmp_path / "out", "--level", 0.5, "--resamples", 200)
    call(*command).refused("SBR scale", "--allow-other-scale")
    assert not (tmp_path / "out").exists()
    answer = call(*command, "--allow-other-scale", "--trained-on", way / "cohort", "--json").done()
    assert answer.json["tested"]["patients"] == 6
    assert answer.json["tested"]["own"] is False
    assert any("ridge" in name for name in answer.json["numbers"])


def test_a_finished_run_is_left_alone_and_a_simulated_cohort_is_reproducible(call, way, tmp_path):
    before = {p.name: p.read_bytes() for p in (way / "run").iterdir() if p.is_file()}
    command = ("train", way / "cohort", way / "run", "--widths", "2,2,2,2", "--epochs", 2, "--seed", 3)
    call(*command).done()
    assert {p.name: p.read_bytes() for p in (way / "run").iterdir() if p.is_file()} == before
    again = ("simulate", tmp_path / "c", "--patients", 2, "--preset", "easy", "--seed", 7, "--workers", 1)
    call(*again).done()
    two = load_cohort(tmp_path / "c")
    assert np.array_equal(two.read(1), load_cohort(way / "cohort").read(1))
    assert read_participants(tmp_path / "c" / "participants.tsv")[1] == load_cohort(way / "cohort").participants[1]


def test_a_model_is_shown_layer_by_layer(call, way):
    out = call("show", way / "run").done().out
    assert "one network for both sides" in out
    data = call("show", "sym-vgg-plus", "--json").done().json
    assert data["parameters"] == 879_889
    assert json.loads(json.dumps(data["layers"]))[0]["output"] == [50, 50, 20, 1]


def test_a_study_ends_with_one_page_for_all_methods(call, way, tmp_path, monkeypatch):
    from nigradat.study import plan

    tiny = plan.Scale({"widths": (2, 2, 2, 2)}, ("sym-vgg-plus",), "Tiny scale.")
    monkeypatch.setitem(plan.SCALES, "quick", tiny)
    # a 95 % interval needs more calibration patients than there are here
    command = ("study", way / "cohort", tmp_path / "study", "--epochs", 1, "--level", 0.5)
    answer = call(*command, "--methods", "sym-vgg,vgg-left", "--json").done()
    assert "study: 2 of 2 fits" in answer.err
    fits = {fit["method"]: fit for fit in answer.json["fits"]}
    assert {"sym-vgg", "vgg-left", "ridge", "oracle-single", "oracle-pair"} <= set(fits)
    assert not any(fit["failed"] for fit in fits.values())
    page = Path(answer.json["report"]).read_text(encoding="utf-8")
    assert "Sym. VGG" in page
    assert "left only" in page
    assert (tmp_path / "study" / "fits" / "split-1" / "vgg-left-seed1" / "card.json").is_file()
    again = call(*command, "--methods", "sym-vgg,vgg-left").done()
    assert "says nothing about patients" in again.out
    assert f"Report: {(tmp_path / 'study' / 'report.html').resolve()}" in again.out
    call(*command, "--seed", 2).refused("another study", "seed: 1 there, 2 here")


def test_a_sweep_ends_with_a_table_and_curves(call, way, tmp_path, monkeypatch):
    from nigradat.study import plan

    monkeypatch.setitem(plan.SCALES, "quick", plan.Scale({"widths": (2, 2, 2, 2)}, (), ""))
    command = ("sweep", way / "cohort", tmp_path / "sweep", "--vary", "samples=4,8", "--samples", 8, "--epochs", 1)
    answer = call(*command, "--json").done()
    assert [row["point"]["value"] for row in answer.json["rows"]] == ["4", "8"]
    assert Path(answer.json["table"]).is_file()
    assert "4 " in call(*command).done().out
