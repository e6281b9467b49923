"""A small data set through both levels: names, sidecars, pages, failures, resuming, the packed cohort."""

from __future__ import annotations

import errno
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
from nigradat.bids.app import one_visit, read_record, run_group, run_participants
from nigradat.bids.derivatives import patch_name
from nigradat.bids.layout import Visit, find_visits
from nigradat.bids.visit import Settings, VisitRecord, process_visit
from nigradat.cli import main
from nigradat.errors import CohortError, ManifestError, OutputError
from nigradat.io.files import write_json
from nigradat.io.nifti import read_volume, write_volume
from nigradat.locate.centres import read_centres, write_centres
from nigradat.pair import extract_pair
from nigradat.phantom.striatum import SideUptake, striatal_head
from nigradat.smwi.recipe import SmwiRecipe
from nigradat.spect.registration import Alignment
from nigradat.spect.sbr import SbrMeasurement, SbrRecipe, measure_sbr
from nigradat.volume import Volume

AFFINE = np.array([[-0.5, 0, 0, 30.0], [0, -0.5, 0, 10.0], [0, 0, 1.0, -35.0], [0, 0, 0, 1]])  # stored L, P, S
CENTRES = {Side.RIGHT: np.array([12.0, -20.0, -14.0]), Side.LEFT: np.array([-12.0, -20.0, -14.0])}
HEAD = striatal_head(SideUptake.even(3.0), SideUptake.even(1.5))


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
        } | {f"{name}_desc-nigrosome1_centres.tsv"}
        kept = read_centres(anat / f"{name}_desc-nigrosome1_centres.tsv", AFFINE)
        assert {side: centre.tolist() for side, centre in kept.items()} == {s: c.tolist() for s, c in CENTRES.items()}
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


def test_a_visit_whose_process_dies_is_recorded_and_all_others_are_done(
    raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Killed from inside, as by a machine without memory left; more visits than are under way at a time."""
    for i in (5, 6):
        shutil.copytree(raw / "sub-01", raw / f"sub-0{i}")
        for file in (raw / f"sub-0{i}" / "anat").iterdir():
            file.rename(file.with_name(file.name.replace("sub-01", f"sub-0{i}")))
    monkeypatch.setattr("nigradat.bids.app.one_visit", die_of_the_second)
    out = tmp_path / "out"
    outcome = run_participants(raw, out, workers=2)
    assert [record.name for record in outcome.failed] == ["sub-02", "sub-03"]
    assert "its process ended" in outcome.failed[0].error
    assert "its process ended" in (out / "sub-02.html").read_text()
    assert len(outcome.records) == 6
    monkeypatch.undo()
    again = run_participants(raw, out)
    assert [record.name for record in again.failed] == ["sub-03"]
    assert again.fresh == 2


def test_one_worker_has_a_process_of_its_own_too(raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("nigradat.bids.app.one_visit", die_of_the_second)
    first, second = run_participants(raw, tmp_path / "out", participants=["01", "02"], workers=1).records
    assert not first.error
    assert "its process ended" in second.error


def die_of_the_second(raw: Path, out: Path, visit: Visit, settings: Settings) -> VisitRecord:
    import os

    if visit.name == "sub-02":
        os._exit(9)
    return one_visit(raw, out, visit, settings)


@pytest.mark.parametrize("fault", [RuntimeError("ITK"), MemoryError(), np.linalg.LinAlgError("singular")])
def test_whatever_goes_wrong_with_a_visit_is_its_own(
    fault: Exception, raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    real = process_visit

    def process(source: Path, out: Path, visit: Visit, settings: Settings) -> VisitRecord:
        if visit.name == "sub-01":
            raise fault
        return real(source, out, visit, settings)

    monkeypatch.setattr("nigradat.bids.app.process_visit", process)
    outcome = run_participants(raw, tmp_path / "out")
    assert [record.name for record in outcome.failed] == ["sub-01", "sub-03"]
    assert type(fault).__name__ in outcome.failed[0].error
    assert type(fault).__name__ in (tmp_path / "out" / "sub-01.html").read_text()


def test_no_message_that_is_kept_says_where_the_data_lie(raw: Path, tmp_path: Path):
    out = tmp_path / "out"
    (outcome,) = run_participants(raw, out, participants=["03"]).failed
    assert "sub-03_SMWI.nii.gz" in outcome.error
    for path in out.rglob("*"):
        if path.suffix in (".json", ".html", ".tsv"):
            assert str(tmp_path) not in path.read_text(encoding="utf-8"), path


def test_a_full_disk_stops_all(raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def process(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("nigradat.bids.app.process_visit", process)
    with pytest.raises(OSError, match="No space"):
        run_participants(raw, tmp_path / "out")
    assert not list((tmp_path / "out").rglob("visits/*.json"))


def test_a_visit_with_two_scans_of_a_kind_is_listed_and_the_others_go_on(raw: Path, tmp_path: Path):
    shutil.copy(raw / "sub-01" / "anat" / "sub-01_SMWI.nii.gz", raw / "sub-02" / "anat" / "sub-02_run-2_SMWI.nii.gz")
    out = tmp_path / "out"
    outcome = run_participants(raw, out)
    assert [record.name for record in outcome.failed] == ["sub-02", "sub-03"]
    assert "sub-02_run-2_SMWI.nii.gz" in outcome.failed[0].error
    cohort = run_group(raw, out)
    assert cohort.patient_ids == ("sub-01",)
    assert "sub-02_run-2_SMWI.nii.gz" in (cohort.folder / "left_out.json").read_text()
    (raw / "sub-02" / "anat" / "sub-02_run-2_SMWI.nii.gz").unlink()
    assert run_participants(raw, out).fresh == 2


def test_a_sidecar_that_changes_or_a_patch_that_is_gone_makes_a_visit_anew(raw: Path, tmp_path: Path):
    out = tmp_path / "out"
    run_participants(raw, out, participants=["01", "02"])
    write_json(raw / "sub-01" / "anat" / "sub-01_SMWI.json", {"EchoTime": 0.02})
    assert run_participants(raw, out, participants=["01", "02"]).fresh == 1
    write_json(raw / "SMWI.json", {"MagneticFieldStrength": 3})  # inherited by all
    assert run_participants(raw, out, participants=["01", "02"]).fresh == 2
    write_json(raw / "dataset_description.json", {"Name": "another", "BIDSVersion": "1.10.0"})
    assert run_participants(raw, out, participants=["01", "02"]).fresh == 0
    (visit,) = find_visits(raw, ["02"])
    (out / visit.folder / "anat" / patch_name(visit, Side.LEFT)).unlink()
    cohort = run_group(raw, out)
    assert cohort.patient_ids == ("sub-01",)
    assert "prepare it again" in (cohort.folder / "left_out.json").read_text()
    assert run_participants(raw, out, participants=["01", "02"]).fresh == 1


def put_echoes(anat: Path, name: str, chi: np.ndarray | None) -> np.ndarray:
    """Two echoes in place of the SMWI, with a susceptibility map beside them; returns their magnitudes."""
    (anat / f"{name}_SMWI.nii.gz").unlink()
    magnitude = np.stack([smwi(8), smwi(9)])
    for i, echo in enumerate(magnitude, start=1):
        for part, data in (("mag", echo), ("phase", 3 * np.sin(50 * echo))):
            path = anat / f"{name}_echo-{i}_part-{part}_MEGRE.nii.gz"
            write_volume(path, data.astype(np.float32), AFFINE)
            facts = {"EchoTime": 0.01 * i, "MagneticFieldStrength": 3, "Units": "arbitrary" if part == "mag" else "rad"}
            write_json(path.with_name(path.name.replace(".nii.gz", ".json")), facts)
    if chi is not None:
        write_volume(anat / f"{name}_Chimap.nii.gz", chi, AFFINE)
    return magnitude


def test_a_given_susceptibility_map_weighs_the_magnitude_as_the_settings_say(raw: Path, tmp_path: Path):
    chi = np.random.default_rng(7).uniform(-0.2, 0.7, smwi(1).shape).astype(np.float32)
    magnitude = put_echoes(raw / "sub-01" / "anat", "sub-01", chi)
    settings, out = Settings(SmwiRecipe(chi_th_ppm=0.5, m=2.0, combination="mean")), tmp_path / "out"
    (record,) = run_participants(raw, out, participants=["01"], settings=settings).records
    assert not record.error
    image = out / "sub-01" / "anat" / "sub-01_desc-smwi_T2starw.nii.gz"
    wanted = (magnitude * np.clip(1 - chi / 0.5, 0, 1) ** 2).mean(axis=0)
    np.testing.assert_allclose(read_volume(image)[0], wanted, rtol=1e-5, atol=1e-5)
    sidecar = json.loads(image.with_name(image.name.replace(".nii.gz", ".json")).read_text())
    assert sidecar["SmwiRecipe"] == {"chi_th_ppm": 0.5, "m": 2.0, "combination": "mean", "inversion": "given"}
    names = {source.rsplit("/", 1)[1].split("_", 1)[1] for source in sidecar["Sources"]}
    assert names == {f"echo-{i}_part-{part}_MEGRE.nii.gz" for i in (1, 2) for part in ("mag", "phase")} | {
        "Chimap.nii.gz"
    }
    assert not list(out.rglob("*_Chimap.nii.gz"))  # it lies in the data set already
    assert "weighted by the given Chimap" in (out / "sub-01.html").read_text()
    # another recipe, another map: made anew
    assert run_participants(raw, out, participants=["01"], settings=settings).fresh == 0
    assert run_participants(raw, out, participants=["01"]).fresh == 1
    write_volume(raw / "sub-01" / "anat" / "sub-01_Chimap.nii.gz", chi * 1000, AFFINE)
    (record,) = run_participants(raw, out, participants=["01"]).records
    assert "Convert it (1 ppm = 1000 ppb" in record.error


def test_the_command_names_the_recipe(raw: Path, tmp_path: Path):
    chi = np.full(smwi(1).shape, 0.1, dtype=np.float32)
    magnitude = put_echoes(raw / "sub-01" / "anat", "sub-01", chi)
    out = tmp_path / "out"
    words = ["bids", str(raw), str(out), "participant", "--participant-label", "01", "--threshold-ppm", "0.4"]
    assert main([*words, "--power", "1"]) == 0
    found, _ = read_volume(out / "sub-01" / "anat" / "sub-01_desc-smwi_T2starw.nii.gz")
    np.testing.assert_allclose(found, 0.75 * np.sqrt((magnitude**2).mean(axis=0)), rtol=1e-5)


def test_centres_may_be_a_label_image(raw: Path, tmp_path: Path):
    anat = raw / "sub-02" / "anat"
    (anat / "sub-02_centres.tsv").unlink()
    labels = np.zeros(smwi(2).shape, dtype=np.int16)
    for label, centre in enumerate((CENTRES[Side.RIGHT], CENTRES[Side.LEFT]), start=1):
        i, j, k = np.round(np.linalg.solve(AFFINE, [*centre, 1])[:3]).astype(int)
        labels[i - 1 : i + 2, j - 1 : j + 2, k] = label
    write_volume(anat / "sub-02_centres.nii.gz", labels, AFFINE)
    (record,) = run_participants(raw, tmp_path / "out", participants=["02"]).records
    assert {side: record.centres_mm[side.value] for side in Side} == {s: c.tolist() for s, c in CENTRES.items()}


def test_a_link_to_nothing_stops_its_visit_alone(raw: Path, tmp_path: Path):
    names = [visit.name for visit in find_visits(raw)]
    first = raw / names[0] / "anat"
    (first / f"{names[0]}_T1w.nii.gz").symlink_to("/nowhere")
    (raw / names[1] / "anat" / "other.json").symlink_to("/nowhere")
    outcome = run_participants(raw, tmp_path / "out")
    failed = {record.name: record.error for record in outcome.failed}
    assert "links to nothing" in failed[names[0]]
    assert len(outcome.records) == len(names)


def test_a_refused_group_leaves_the_older_one(raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    out = tmp_path / "out"
    run_participants(raw, out)
    run_group(raw, out)
    before = content(out)

    def refused(*_: object, **__: object) -> None:
        raise ManifestError("manifest.tsv", ["two programs"])

    monkeypatch.setattr("nigradat.bids.app.pack_cohort", refused)
    with pytest.raises(ManifestError):
        run_group(raw, out)
    assert content(out) == before


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


def with_spect(raw: Path, *participants: str) -> None:
    """A head with unequal striata for each, its pose known so that nothing has to be registered."""
    drawn = HEAD.draw(0)
    for name in participants:
        (raw / name / "spect").mkdir()
        write_volume(raw / name / "spect" / f"{name}_spect.nii.gz", drawn.data, drawn.affine)
        write_json(raw / name / "spect" / f"{name}_spect.json", {"TracerName": "DaTSCAN", "Manufacturer": "SIEMENS"})


@pytest.fixture
def known_pose(monkeypatch: pytest.MonkeyPatch) -> None:
    def measure(scan: Volume, recipe: SbrRecipe) -> SbrMeasurement:
        return measure_sbr(scan, recipe, alignment=Alignment(HEAD.scan_from_mni))

    monkeypatch.setattr("nigradat.bids.visit.measure_sbr", measure)


@pytest.mark.usefixtures("known_pose")
def test_what_a_spect_gave_is_kept_with_where_it_comes_from(raw: Path, tmp_path: Path):
    out = tmp_path / "out"
    with_spect(raw, "sub-04")
    (record,) = run_participants(raw, out, participants=["04"]).records
    kept = json.loads((out / "sub-04" / "sub-04_sbr.json").read_text())
    parts = {part["part"]: part for part in kept["parts"]}
    assert {"striatum", "caudate", "putamen"} <= set(parts)
    assert record.sbr == {side.value: parts["striatum"][side.value] for side in Side}
    assert parts["putamen"]["right"] > 1.5 * parts["putamen"]["left"]
    assert parts["putamen"]["asymmetry_percent"] > 30
    assert set(kept["putamen_caudate_ratio"]) == {"right", "left"}
    assert kept["recipe"]["reference"] == "occipital"
    assert kept["source"]["attributes"] == {"tracer": "123I-FP-CIT", "manufacturer": "Siemens"}
    assert record.sbr_provenance["tracer"] == "123I-FP-CIT"
    assert record.sbr_provenance["spect_device"] == "Siemens"


def test_a_spect_that_fails_takes_the_label_and_is_listed(
    raw: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    out = tmp_path / "out"
    shutil.rmtree(raw / "sub-03")
    with_spect(raw, "sub-04")
    image = raw / "sub-04" / "spect" / "sub-04_spect.nii.gz"
    image.write_bytes(image.read_bytes()[:5000])
    assert main(["bids", str(raw), str(out), "participant"]) == 0
    said = capsys.readouterr().out
    assert "3 of 3 visits are prepared" in said
    (line,) = [line for line in said.splitlines() if "No SBR was measured" in line]
    assert line.strip().startswith("sub-04: ")
    assert not (out / "sub-04" / "sub-04_sbr.json").exists()
    left_out = json.loads((run_group(raw, out).folder / "left_out.json").read_text())
    assert [entry["visit"] for entry in left_out] == ["sub-04"]
    assert "No SBR was measured" in left_out[0]["why"]
    page = (out / "sub-04.html").read_text()
    assert "No SBR was measured" in page
    for text in (page, line, json.dumps(left_out), (out / "visits" / "sub-04.json").read_text()):
        assert str(tmp_path) not in text


@pytest.mark.usefixtures("known_pose")
def test_the_output_is_a_valid_derivatives_data_set(raw: Path, tmp_path: Path):
    out = tmp_path / "out"
    with_spect(raw, "sub-04")
    run_participants(raw, out)
    run_group(raw, out, allow_mixed=True)
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


def test_a_participant_with_sessions_has_a_page_that_leads_to_them(raw: Path, tmp_path: Path):
    for session in ("ses-1", "ses-2"):
        anat = raw / "sub-09" / session / "anat"
        anat.mkdir(parents=True)
        write_volume(anat / f"sub-09_{session}_SMWI.nii.gz", smwi(9), AFFINE)
        write_centres(anat / f"sub-09_{session}_centres.tsv", CENTRES)
    broken = raw / "sub-09" / "ses-2" / "anat" / "sub-09_ses-2_SMWI.nii.gz"
    broken.write_bytes(broken.read_bytes()[:5000])
    out = tmp_path / "out"
    for _ in range(2):  # the second time nothing is made anew but the page
        run_participants(raw, out, participants=["sub-09", "sub-01"])
        page = (out / "sub-09.html").read_text()
        for name in ("sub-09_ses-1", "sub-09_ses-2"):
            assert f"href='{name}.html'" in page
            assert (out / f"{name}.html").is_file()
        assert page.count("not prepared") == 1
        assert "truncated" in page
        assert str(tmp_path) not in page
        assert "Where nigrosome-1" in (out / "sub-01.html").read_text()


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
