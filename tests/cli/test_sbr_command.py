"""``nigradat sbr`` and labels from SPECT on the command line, from a file to table, picture and cohort."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest

from nigradat.io.nifti import write_volume
from nigradat.io.pack import load_cohort
from nigradat.phantom.striatum import SideUptake, random_pose, striatal_head


@pytest.fixture(scope="module")
def scan(tmp_path_factory):
    """A scan of the digital striatum, twice as much on the right."""
    head = striatal_head(SideUptake(3.0, 2.2, 1.2), SideUptake(1.5, 1.0, 0.5), scan_from_mni=random_pose(3))
    drawn = head.draw(1)
    path = tmp_path_factory.mktemp("spect") / "spect.nii.gz"
    write_volume(path, drawn.data, drawn.affine)
    return path


def test_a_scan_gives_table_picture_and_json(call, scan, tmp_path):
    out = tmp_path / "sbr"
    answer = call("sbr", scan, "--tracer", "123I-FP-CIT", "--out", out, "--json").done()
    told = answer.json
    assert told["method"] == "voi-mean"
    assert told["tracer"] == "123I-FP-CIT"
    assert told["alignment"]["brain_overlap_dice"] > 0.9
    assert sorted(path.name for path in out.iterdir()) == ["sbr.json", "sbr.png", "sbr.tsv"]
    written = json.loads((out / "sbr.json").read_text())
    assert {key: value for key, value in told.items() if key != "folder"} == written
    with (out / "sbr.tsv").open(newline="") as stream:
        rows = list(csv.DictReader(stream, delimiter="\t"))
    assert [row["part"] for row in rows] == [*(part["part"] for part in told["parts"]), "putamen / caudate"]
    for row, part in zip(rows, told["parts"], strict=False):
        assert float(row["right"]) == pytest.approx(part["right"], abs=5e-4)
        assert float(row["right"]) > 1.5 * float(row["left"])
    assert (out / "sbr.png").read_bytes().startswith(b"\x89PNG")
    call("sbr", scan, "--out", out).refused("already holds", "sbr.json")


def test_the_picture_has_the_patient_s_right_on_the_left(scan):
    from nigradat.io.nuclear import read_spect
    from nigradat.report.sbr_sheet import sbr_figure
    from nigradat.spect.registration import Alignment
    from nigradat.spect.sbr import measure_sbr

    volume = read_spect(scan)
    found = measure_sbr(volume, alignment=Alignment(random_pose(3)))
    figure = sbr_figure(volume, found)
    for axes in figure.axes:
        low, high = axes.get_xlim()
        assert low > high  # x falls towards the right of the page
        letters = {text.get_text(): text.get_position()[0] for text in axes.texts}
        assert letters["R"] < letters["L"]
        (image,) = axes.get_images()
        shown = np.asarray(image.get_array())
        left, right, _, _ = image.get_extent()
        assert left < right
        middle = shown.shape[1] // 2
        assert shown[:, middle:].max() > shown[:, :middle].max()  # the hotter side has positive x


def test_z_scores_need_healthy_persons_on_the_same_scale(call, scan, tmp_path):
    rng = np.random.default_rng(0)
    table = tmp_path / "healthy.tsv"

    def write(scale):
        lines = [f"{age}\t{scale}\t{2.4 + rng.normal(0, 0.2):.3f}" for age in rng.uniform(40, 80, 12).round(1)]
        table.write_text("age\tscale\tstriatum_right\n" + "\n".join(lines) + "\n")

    write("voi-mean, reference occipital")
    answer = call("sbr", scan, "--age", "60", "--normals", table).done()
    assert "z right" in answer.out
    write("southampton, reference brain, striatum 11.2 ml")
    call("sbr", scan, "--age", "60", "--normals", table).refused("one scale")


def test_bad_scans_end_with_a_message(call, tmp_path):
    call("sbr", tmp_path / "none.dcm").refused("does not exist")
    write_volume(
        tmp_path / "noise.nii",
        np.random.default_rng(0).normal(9, 3, (40, 40, 40)).astype("f4"),
        np.diag([4.0, 4, 4, 1]),
    )
    call("sbr", tmp_path / "noise.nii", "--out", tmp_path / "out").refused("Expected")
    assert not (tmp_path / "out").exists()


def test_a_cohort_is_labelled_by_its_scans(call, scan, manifest, tmp_path):
    link = tmp_path / "other.nii.gz"
    link.write_bytes(scan.read_bytes())
    path = manifest(
        sbr_right=["n/a", "n/a"], sbr_left=["n/a", "n/a"], spect=[str(scan), link.name], tracer="123I-FP-CIT"
    )
    call("cohort", path, tmp_path / "cohort", "--sbr-method", "southampton", "--striatal-volume-ml", "10.2").done()
    cohort = load_cohort(tmp_path / "cohort")
    assert cohort.sbr.shape == (2, 2)
    assert (cohort.sbr[:, 0] > 1.5 * cohort.sbr[:, 1]).all()
    first = cohort.participants[0]
    assert first.sbr_method == "southampton, reference brain, striatum 10.2 ml"
    assert first.tracer == "123I-FP-CIT"
    assert cohort.sbr_scale["sbr_method"] == [first.sbr_method]
