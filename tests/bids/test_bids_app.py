"""A small data set through both levels: names, sidecars, pages, failures, resuming, the packed cohort."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from nigradat.anatomy import Side
from nigradat.bids.app import read_record, run_group, run_participants
from nigradat.bids.derivatives import patch_name
from nigradat.bids.layout import find_visits
from nigradat.errors import CohortError, ManifestError, OutputError
from nigradat.io.files import write_json
from nigradat.io.nifti import read_volume, write_volume
from nigradat.locate.centres import write_centres
from nigradat.pair import extract_pair

AFFINE = np.array([[-0.5, 0, 0, 30.0], [0, -0.5, 0, 10.0], [0, 0, 1.0, -35.0], [0, 0, 0, 1]])  # stored L, P, S
CENTRES = {Side.RIGHT: np.array([12.0, -20.0, -14.0]), Side.LEFT: np.array([-12.0, -20.0, -14.0])}


def smwi(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).uniform(0.5, 1.5, (120, 120, 42)).astype(np.float32)


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """Four participants with an SMWI and a reader's centres; the third one's image is truncated."""
    root = tmp_path / "raw"
    for i in range(1, 5):
        anat = root / f"sub-0{i}" / "anat"
        anat.mkdir(parents=True)
        write_volume(anat / f"sub-0{i}_SMWI.nii.gz", smwi(i), AFFINE)
        write_centres(anat / f"sub-0{i}_centres.tsv", CENTRES)
    image = root / "sub-03" / "anat" / "sub-03_SMWI.nii.gz"
    image.write_bytes(image.read_bytes()[:5000])
    write_json(root / "dataset_description.json", {"Name": "a set", "BIDSVersion": "1.10.0", "License": "CC0"})
    (root / "participants.tsv").write_text(
        "participant_id\tage\tsex\tsbr_right\tsbr_left\n"
        "sub-01\t61\tM\t2.1\t1.9\nsub-02\t70\tF\t1.2\t1.4\nsub-03\t66\tF\t3.1\t3.0\nsub-04\t59\tM\tn/a\tn/a\n"
    )
    return root


def content(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_a_failing_visit_does_not_stop_the_others(raw: Path, tmp_path: Path):
    before = content(raw)
    out = tmp_path / "out"
    told: list[tuple[int, int]] = []
    outcome = run_participants(raw, out, progress=lambda done, total: told.append((done, total)))
    assert content(raw) == before
    assert [record.name for record in outcome.failed] == ["sub-03"]
    assert "truncated" in outcome.failed[0].error
    assert told[0] == (0, 4)
    assert told[-1] == (4, 4)
    assert not (out / "sub-03").exists()
    assert "truncated" in (out / "sub-03.html").read_text()
    for name in ("sub-01", "sub-02", "sub-04"):
        anat = out / name / "anat"
        assert {p.name for p in anat.iterdir()} == {
            f"{name}_{what}.{kind}"
            for what in ("desc-smwi_T2starw", "desc-nigrosome1R_T2starw", "desc-nigrosome1L_T2starw")
            for kind in ("nii.gz", "json")
        }
    assert not list(out.rglob("*.partial"))


def test_patches_are_those_of_the_image_itself(raw: Path, tmp_path: Path):
    run_participants(raw, tmp_path / "out", participants=["02"])
    (visit,) = find_visits(raw, ["02"])
    pair = extract_pair(smwi(2), AFFINE, CENTRES[Side.RIGHT], CENTRES[Side.LEFT])
    for side in Side:
        path = tmp_path / "out" / visit.folder / "anat" / patch_name(visit, side)
        patch, affine = read_volume(path)
        assert np.array_equal(patch, pair.patch(side))
        assert affine == pytest.approx(pair.affines[side.index], abs=1e-5)
        sidecar = json.loads(path.with_name(path.name.replace(".nii.gz", ".json")).read_text())
        assert sidecar["Sources"] == ["bids::sub-02/anat/sub-02_desc-smwi_T2starw.nii.gz"]
        assert sidecar["Side"] == side.value
    whole = json.loads((tmp_path / "out/sub-02/anat/sub-02_desc-smwi_T2starw.json").read_text())
    assert whole["Sources"] == ["bids:raw:sub-02/anat/sub-02_SMWI.nii.gz"]


def test_a_second_run_passes_over_what_is_done(raw: Path, tmp_path: Path):
    out = tmp_path / "out"
    run_participants(raw, out)
    before = content(out / "sub-01")
    moved = {side: centre + np.array([0.0, 2.0, 0.0]) for side, centre in CENTRES.items()}
    write_volume(raw / "sub-03" / "anat" / "sub-03_SMWI.nii.gz", smwi(3), AFFINE)  # mended
    write_centres(raw / "sub-02" / "anat" / "sub-02_centres.tsv", moved)
    outcome = run_participants(raw, out)
    assert outcome.fresh == 2
    assert not outcome.failed
    assert content(out / "sub-01") == before
    assert outcome.records[1].centres_mm["right"] == [12.0, -18.0, -14.0]
    assert run_participants(raw, out).fresh == 0
    (out / "visits" / "sub-04.json").write_text("{")  # as a full disk might have left it
    assert run_participants(raw, out).fresh == 1


def test_several_workers_give_the_same(raw: Path, tmp_path: Path):
    run_participants(raw, tmp_path / "one")
    outcome = run_participants(raw, tmp_path / "two", workers=2)
    assert [record.name for record in outcome.records] == ["sub-01", "sub-02", "sub-03", "sub-04"]
    assert [record.name for record in outcome.failed] == ["sub-03"]
    assert content(tmp_path / "one") == content(tmp_path / "two")


def test_a_visit_whose_process_dies_is_recorded(raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Every worker is killed from inside, as by a machine without memory left."""
    monkeypatch.setattr("nigradat.bids.app.one_visit", die)
    outcome = run_participants(raw, tmp_path / "out", workers=2)
    assert len(outcome.failed) == 4
    assert all("process ended" in record.error for record in outcome.failed)
    monkeypatch.undo()
    assert len(run_participants(raw, tmp_path / "out").failed) == 1


def die(*_: object) -> None:
    import os

    os._exit(9)


def test_the_group_level_packs_what_has_a_label(raw: Path, tmp_path: Path):
    out = tmp_path / "out"
    with pytest.raises(CohortError, match="not processed"):
        run_group(raw, out)
    run_participants(raw, out)
    cohort = run_group(raw, out)
    assert cohort.patient_ids == ("sub-01", "sub-02")
    assert cohort.sbr.tolist() == [[2.1, 1.9], [1.2, 1.4]]
    assert cohort.participants[1].sex == "F"
    pair = extract_pair(smwi(1), AFFINE, CENTRES[Side.RIGHT], CENTRES[Side.LEFT])
    assert np.array_equal(np.asarray(cohort.patches[0]), pair.patches)
    left_out = {entry["visit"]: entry["why"] for entry in json.loads((cohort.folder / "left_out.json").read_text())}
    assert "truncated" in left_out["sub-03"]
    assert "no SBR" in left_out["sub-04"]
    assert len(run_group(raw, out)) == 2  # an older one is replaced


def test_a_measured_sbr_is_the_label_where_the_tables_have_none(raw: Path, tmp_path: Path):
    out = tmp_path / "out"
    run_participants(raw, out)
    record = out / "visits" / "sub-04.json"
    measured = {"sbr": {"right": 2.5, "left": 2.25}, "sbr_provenance": {"tracer": "123I-FP-CIT"}}
    record.write_text(json.dumps(json.loads(record.read_text()) | measured))
    with pytest.raises(ManifestError, match="tracer"):  # the tables of the others do not name theirs
        run_group(raw, out)
    cohort = run_group(raw, out, allow_mixed=True)
    assert cohort.sbr[2].tolist() == [2.5, 2.25]
    assert cohort.participants[2].tracer == "123I-FP-CIT"


def test_the_output_is_a_valid_derivatives_data_set(raw: Path, tmp_path: Path):
    out = tmp_path / "out"
    run_participants(raw, out)
    run_group(raw, out)
    validator = Path(sys.executable).with_name("bids-validator-deno")
    if not validator.exists():
        pytest.skip("bids-validator-deno is not installed")
    done = subprocess.run([validator, out, "--format", "json"], capture_output=True, text=True, check=False)
    issues = json.loads(done.stdout)["issues"]["issues"]
    assert [(issue["code"], issue.get("location")) for issue in issues if issue["severity"] == "error"] == []
    assert done.returncode == 0


def test_a_page_opens_offline_and_shows_both_windows(raw: Path, tmp_path: Path):
    run_participants(raw, tmp_path / "out", participants=["sub-01"])
    page = (tmp_path / "out" / "sub-01.html").read_text()
    assert "data:image/png;base64," in page
    assert not re.search(r"(src|href)=\"https?:", page)
    for words in ("SMWI as given", "set by a reader", "12.0, -20.0, -14.0", "Research only"):
        assert words in page, words


@pytest.mark.parametrize(
    ("prepare", "words"),
    [
        (lambda raw, out: raw, "among the scans"),
        (lambda raw, out: raw / "sub-01" / "derivatives", "among the scans"),
        (lambda raw, out: (out.mkdir(), (out / "thesis.txt").touch(), out)[2], "holds something else"),
        (
            lambda raw, out: (
                write_json(out / "dataset_description.json", {"GeneratedBy": [{"Name": "other"}]}),
                out,
            )[1],
            "made by other",
        ),
    ],
)
def test_a_place_that_is_not_ours_is_refused(raw: Path, tmp_path: Path, prepare: Callable[..., Path], words: str):
    out = prepare(raw, tmp_path / "out")
    before = content(out) if out.is_dir() else {}
    with pytest.raises(OutputError, match=words):
        run_participants(raw, out)
    assert (content(out) if out.is_dir() else {}) == before


def test_a_visit_without_any_scan_says_so(raw: Path, tmp_path: Path):
    shutil.rmtree(raw / "sub-02" / "anat")
    (raw / "sub-02" / "anat").mkdir()
    outcome = run_participants(raw, tmp_path / "out", participants=["02"])
    assert "neither a gradient-echo scan nor an SMWI" in outcome.failed[0].error
    (visit,) = find_visits(raw, ["02"])
    found = read_record(tmp_path / "out", visit)
    assert found is not None
    assert found.error == outcome.failed[0].error
