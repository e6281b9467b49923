"""What is found in a BIDS data set, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from nigradat.bids.layout import echoes_of, find_visits, read_labels
from nigradat.errors import ConfigError, ImageError, ManifestError
from nigradat.io.files import write_json
from nigradat.io.gre import read_gre
from nigradat.io.nifti import write_volume


def put(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


def test_scans_are_known_by_their_suffix(tmp_path: Path):
    root = put(
        tmp_path,
        "sub-01/ses-a/anat/sub-01_ses-a_echo-1_part-mag_MEGRE.nii.gz",
        "sub-01/ses-a/anat/sub-01_ses-a_echo-1_part-phase_MEGRE.nii.gz",
        "sub-01/ses-a/anat/sub-01_ses-a_Chimap.nii.gz",
        "sub-01/ses-a/anat/sub-01_ses-a_T1w.nii",
        "sub-01/ses-a/spect/sub-01_ses-a_spect.nii.gz",
        "sub-01/ses-b/anat/sub-01_ses-b_SMWI.nii.gz",
        "sub-01/ses-b/anat/sub-01_ses-b_centres.tsv",
        "sub-02/anat/sub-02_T1w.nii.gz",
        "sub-02/pet/sub-02_trc-FPCIT_pet.nii.gz",
        "sub-x y/anat/nothing.nii.gz",
        "derivatives/other/sub-09/anat/sub-09_T1w.nii.gz",
        "README",
    )
    first, second, third = find_visits(root)
    assert (first.participant_id, first.session_id, first.name) == ("sub-01", "ses-a", "sub-01_ses-a")
    assert first.gre == root / "sub-01/ses-a/anat"
    assert first.chi == root / "sub-01/ses-a/anat/sub-01_ses-a_Chimap.nii.gz"
    assert first.t1w == root / "sub-01/ses-a/anat/sub-01_ses-a_T1w.nii"
    assert first.spect == root / "sub-01/ses-a/spect/sub-01_ses-a_spect.nii.gz"
    assert (first.smwi, first.centres) == (None, None)
    assert second.smwi == root / "sub-01/ses-b/anat/sub-01_ses-b_SMWI.nii.gz"
    assert second.centres == root / "sub-01/ses-b/anat/sub-01_ses-b_centres.tsv"
    assert (second.gre, second.chi) == (None, None)
    assert (third.participant_id, third.session_id, third.name) == ("sub-02", "n/a", "sub-02")
    assert third.spect == root / "sub-02/pet/sub-02_trc-FPCIT_pet.nii.gz"
    assert third.folder == Path("sub-02")


def test_echoes_called_t2starw_are_taken_where_phase_is_among_them(tmp_path: Path):
    root = put(
        tmp_path,
        *(f"sub-01/anat/sub-01_echo-{i}_part-{part}_T2starw.nii.gz" for i in (1, 2) for part in ("mag", "phase")),
        "sub-01/anat/sub-01_echo-1_part-mag_T2starw.json",
        "sub-02/anat/sub-02_echo-1_part-mag_T2starw.nii.gz",
        "sub-03/anat/sub-03_T2starw.nii.gz",
    )
    echoes, no_phase, image = find_visits(root)
    assert echoes.gre == root / "sub-01/anat"
    assert len(echoes_of(echoes.gre.iterdir())) == 4
    assert [visit.gre for visit in (no_phase, image)] == [None, None]
    assert [visit.smwi for visit in (echoes, no_phase, image)] == [None, None, None]


def test_echoes_called_t2starw_are_read(tmp_path: Path):
    anat = tmp_path / "sub-01" / "anat"
    anat.mkdir(parents=True)
    values = np.random.default_rng(0).uniform(-3.14, 3.14, (6, 6, 4)).astype(np.float32)
    values.flat[:2] = (-3.1415, 3.1415)
    for echo in (1, 2):
        for part in ("mag", "phase"):
            stem = anat / f"sub-01_echo-{echo}_part-{part}_T2starw"
            write_volume(f"{stem}.nii.gz", values if part == "phase" else np.abs(values), np.diag([1.0, 1, 1, 1]))
            write_json(f"{stem}.json", {"EchoTime": 0.01 * echo, "MagneticFieldStrength": 3})
    write_volume(anat / "sub-01_T1w.nii.gz", values, np.diag([1.0, 1, 1, 1]))
    (visit,) = find_visits(tmp_path)
    assert visit.gre is not None
    assert read_gre(visit.gre).echo_times_ms.tolist() == [10, 20]


def test_echoes_in_two_folders_are_named(tmp_path: Path):
    root = put(tmp_path, "sub-01/anat/sub-01_part-mag_MEGRE.nii.gz", "sub-01/swi/sub-01_part-phase_GRE.nii.gz")
    (visit,) = find_visits(root)
    assert "echoes in 2 folders: anat, swi" in visit.error


def test_our_own_smwi_is_taken_but_our_own_patches_and_centres_are_not(tmp_path: Path):
    names = ("desc-smwi_T2starw.nii.gz", "desc-nigrosome1R_T2starw.nii.gz", "desc-nigrosome1_centres.tsv")
    (visit,) = find_visits(put(tmp_path, *(f"sub-01/anat/sub-01_{name}" for name in names)))
    assert visit.smwi == tmp_path / "sub-01/anat/sub-01_desc-smwi_T2starw.nii.gz"
    assert (visit.gre, visit.centres) == (None, None)  # nobody set them
    (visit,) = find_visits(put(tmp_path, "sub-01/anat/sub-01_centres.tsv"))
    assert visit.centres == tmp_path / "sub-01/anat/sub-01_centres.tsv"


def test_participants_are_chosen_with_or_without_prefix(tmp_path: Path):
    root = put(tmp_path, "sub-01/anat/a", "sub-02/anat/a", "sub-03/anat/a")
    assert [visit.name for visit in find_visits(root, ["02", "sub-03"])] == ["sub-02", "sub-03"]
    with pytest.raises(ConfigError, match="sub-07"):
        find_visits(root, ["07"])


def test_no_data_set_is_refused_and_a_visit_with_doubled_scans_says_so(tmp_path: Path):
    with pytest.raises(ImageError, match="no folder named sub-"):
        find_visits(tmp_path)
    with pytest.raises(ImageError, match="no folder named sub-"):
        find_visits(tmp_path / "nowhere")
    root = put(tmp_path, "sub-01/anat/sub-01_run-1_T1w.nii.gz", "sub-01/anat/sub-01_run-2_T1w.nii.gz")
    put(tmp_path, "sub-02/anat/sub-02_T1w.nii.gz")
    odd, plain = find_visits(root)
    assert "2 files that could be the T1w" in odd.error
    assert plain.t1w is not None
    assert not plain.error


def test_links_to_nothing_are_named_where_they_would_be_used(tmp_path: Path):
    put(tmp_path, "sub-01/anat/sub-01_SMWI.nii.gz", "sub-02/anat/sub-02_SMWI.nii.gz")
    (tmp_path / "sub-01/func").mkdir()
    for name in ("sub-01/func/sub-01_bold.nii.gz", "sub-02/anat/sub-02_T1w.nii.gz"):
        (tmp_path / name).symlink_to("../../../.git/annex/objects/nowhere")
    whole, lacking = find_visits(tmp_path)
    assert not whole.error  # nothing here needs the BOLD
    assert "sub-02_T1w.nii.gz" in lacking.error
    assert "Fetch" in lacking.error


def test_labels_come_from_participants_and_sessions(tmp_path: Path):
    root = put(tmp_path, "sub-01/ses-a/anat/a", "sub-01/ses-b/anat/a", "sub-02/anat/a", "sub-03/anat/a")
    (root / "participants.tsv").write_text(
        "participant_id\tage\tsex\thandedness\tsbr_right\tsbr_left\ttracer\n"
        "sub-01\t61\tfemale\tR\t2.1\t1.9\t123I-FP-CIT\n"
        "sub-02\t70\tM\tL\tn/a\tn/a\tn/a\n"
    )
    (root / "sub-01" / "sub-01_sessions.tsv").write_text(
        "session_id\tage\tsbr_right\tsbr_left\nses-a\t61.5\tn/a\tn/a\nses-b\t63\t1.8\t1.5\n"
    )
    found = read_labels(root, find_visits(root))
    assert list(found) == ["sub-01_ses-a", "sub-01_ses-b", "sub-02", "sub-03"]
    first, second = found["sub-01_ses-a"], found["sub-01_ses-b"]
    assert (first.sbr_right, first.sbr_left, first.age, first.sex) == (2.1, 1.9, 61.5, "F")
    assert (second.sbr_right, second.sbr_left, second.age, second.tracer) == (1.8, 1.5, 63, "123I-FP-CIT")
    assert (second.participant_id, second.session_id) == ("sub-01", "ses-b")
    assert not found["sub-02"].has_sbr
    assert found["sub-03"].age is None


def test_every_fault_of_the_labels_is_listed(tmp_path: Path):
    root = put(tmp_path, "sub-01/anat/a", "sub-02/anat/a")
    (root / "participants.tsv").write_text(
        "participant_id\tage\tsbr_right\tsbr_left\nsub-01\tyoung\t2\t2\nsub-02\t70\t2.0\tn/a\n"
    )
    with pytest.raises(ManifestError) as caught:
        read_labels(root, find_visits(root))
    assert "line 2" in str(caught.value)
    assert "young" in str(caught.value)
    assert "only one side" in str(caught.value)
    (root / "participants.tsv").write_text("id\tage\nsub-01\t60\n")
    with pytest.raises(ManifestError, match="participant_id"):
        read_labels(root, find_visits(root))
