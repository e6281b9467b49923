"""From a scan to centres, patches and files, without a registration: that has tests of its own."""

from __future__ import annotations

import json

import numpy as np
import pytest
from painted import painted, true_centres
from test_registration import ORDERS, stored

from nigradat.anatomy import Side
from nigradat.errors import FieldOfViewError, ImageError, LateralityError, OutputError
from nigradat.io.nifti import read_volume, write_volume
from nigradat.io.pairs import find_pairs, read_pair
from nigradat.locate.centres import read_centres
from nigradat.locate.locate import given, locate_nigrosomes, pair_at, write_located
from nigradat.locate.registration import Alignment
from nigradat.volume import Source, Volume

MNI = Alignment(np.eye(4))


@pytest.fixture(scope="module")
def lopsided():
    """A scan whose left side is marked: a bright block far lateral of the left nigra."""
    scan = painted(spacing=(0.5, 0.5, 1.0), shape=(150, 130, 50))
    data = np.array(scan.data)
    index = np.linalg.solve(scan.affine[:3, :3], (-22, -20, -13) - scan.affine[:3, 3]).astype(int)
    data[tuple(slice(i - 3, i + 4) for i in index)] = 3000
    return Volume(data, scan.affine, Source(("scan.nii.gz",), "nifti"))


def test_both_centres_are_found(lopsided):
    found = locate_nigrosomes(lopsided, aligned=MNI)
    for side, truth in true_centres().items():
        assert np.linalg.norm(found.centres[side] - truth) < 0.6
    assert found.confidence > 0.8
    assert found.flags == ()
    assert "refined" in found.method


@pytest.fixture(scope="module")
def reference(lopsided):
    return {refined: locate_nigrosomes(lopsided, aligned=MNI, refined=refined) for refined in (True, False)}


@pytest.mark.parametrize("order", ORDERS, ids=lambda o: "".join(f"{int(a)}{'+-'[int(f < 0)]}" for a, f in o))
def test_no_storage_order_exchanges_the_sides(lopsided, reference, order):
    one = reference[False]
    scan = stored(lopsided, order)
    other = locate_nigrosomes(scan, aligned=MNI, refined=False)
    assert other.flags == one.flags
    for side in Side:
        np.testing.assert_allclose(other.centres[side], one.centres[side], atol=1e-6)
    pair = pair_at(scan, other)
    np.testing.assert_array_equal(pair.patches, pair_at(lopsided, one).patches)
    assert (pair.patch(Side.LEFT) == 3000).any()
    assert not (pair.patch(Side.RIGHT) == 3000).any()


@pytest.mark.parametrize("order", ORDERS[1::11], ids=lambda o: "".join(f"{int(a)}{'+-'[int(f < 0)]}" for a, f in o))
def test_no_storage_order_changes_the_refinement(lopsided, reference, order):
    other = locate_nigrosomes(stored(lopsided, order), aligned=MNI)
    for side in Side:
        np.testing.assert_allclose(other.centres[side], reference[True].centres[side], atol=1e-6)


def test_an_image_without_dark_nigra_keeps_the_registration_and_says_so(lopsided):
    bright = Volume(4000 - lopsided.data, lopsided.affine)
    found = locate_nigrosomes(bright, aligned=MNI)
    assert "no-dark-nigra" in {flag.code for flag in found.flags}
    np.testing.assert_allclose(found.right_mm, true_centres()[Side.RIGHT], atol=1e-6)
    kept = locate_nigrosomes(bright, aligned=MNI, refined=False)
    np.testing.assert_allclose(kept.right_mm, found.right_mm)
    assert "no-dark-nigra" not in {flag.code for flag in kept.flags}


def test_neither_template_nor_nigra_recognised_is_an_error(lopsided):
    with pytest.raises(ImageError, match="no midbrain was recognised"):
        locate_nigrosomes(Volume(4000 - lopsided.data, lopsided.affine), aligned=Alignment(np.eye(4), agreement=0.02))


def test_a_folder_that_predict_takes(lopsided, tmp_path):
    found = locate_nigrosomes(lopsided, aligned=MNI)
    recipe = {"chi_th_ppm": 1.0, "m": 4.0}
    out = write_located(tmp_path / "sub-01", lopsided, found, smwi_recipe=recipe)
    assert sorted(p.name for p in out.iterdir()) == [
        "centres.tsv", "left.json", "left.nii.gz", "located.json", "located.png", "right.json", "right.nii.gz",
    ]  # fmt: skip
    (files,) = find_pairs(out)
    assert files.id == "sub-01"
    pair = read_pair(files.right, files.left)
    np.testing.assert_array_equal(pair.patches, pair_at(lopsided, found).patches)
    assert pair.smwi_recipe == recipe
    centres = read_centres(out / "centres.tsv", lopsided.affine)
    np.testing.assert_allclose(centres[Side.LEFT], found.left_mm, atol=1e-3)
    about = json.loads((out / "left.json").read_text())
    assert about["Sources"] == ["scan.nii.gz"]
    assert "left nigrosome-1" in about["Steps"][-1]
    assert json.loads((out / "located.json").read_text())["details"]["rule"].startswith("posterolateral")
    assert (out / "located.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(OutputError):
        write_located(out, lopsided, found)


def test_the_patch_affine_leads_back_into_the_scan(lopsided, tmp_path):
    """Every voxel of a patch has the value that the scan has at the place its affine says."""
    out = write_located(tmp_path / "x", lopsided, locate_nigrosomes(lopsided, aligned=MNI))
    patch, affine = read_volume(out / "right.nii.gz")
    index = np.array([[0, 0, 0], [49, 0, 19], [10, 40, 7]])
    places = index @ affine[:3, :3].T + affine[:3, 3]
    back = np.linalg.solve(lopsided.affine[:3, :3], (places - lopsided.affine[:3, 3]).T).T
    np.testing.assert_allclose(back, back.round(), atol=1e-3)
    np.testing.assert_array_equal(patch[tuple(index.T)], lopsided.data[tuple(back.round().astype(int).T)])


def test_a_window_outside_the_scan_leaves_nothing(tmp_path):
    slab = painted(shape=(130, 110, 14))
    with pytest.raises(FieldOfViewError):
        write_located(tmp_path / "out", slab, given(slab, true_centres(), "test"))
    assert list(tmp_path.iterdir()) == []


def test_given_centres_are_kept_and_exchanged_ones_refused(lopsided):
    centres = {Side.RIGHT: np.array([10.0, -21, -12]), Side.LEFT: np.array([-10.0, -21, -12])}
    found = given(lopsided, centres, "centres.tsv")
    np.testing.assert_array_equal(found.right_mm, centres[Side.RIGHT])
    assert found.confidence == 1.0
    with pytest.raises(LateralityError):
        given(lopsided, {Side.RIGHT: centres[Side.LEFT], Side.LEFT: centres[Side.RIGHT]}, "")


# -- The command ------------------------------------------------------------------------------------------------------


@pytest.fixture
def on_disk(lopsided, tmp_path):
    write_volume(tmp_path / "smwi.nii.gz", lopsided.data, lopsided.affine)
    (tmp_path / "centres.tsv").write_text("side\tx\ty\tz\nright\t11\t-22\t-13\nleft\t-11\t-22\t-13\n")
    return tmp_path


def test_the_command_with_given_centres_and_predict_on_its_folder(on_disk, small_run, capsys):
    from nigradat.cli import main

    image, out = on_disk / "smwi.nii.gz", on_disk / "sub-01"
    assert main(["locate", str(image), str(out), "--centres", str(on_disk / "centres.tsv")]) == 0
    assert "right: 11.0, -22.0, -13.0 mm" in capsys.readouterr().out
    assert main(["predict", str(out), "--model", str(small_run), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["patients"][0]["id"] == "sub-01"


def test_a_patch_tells_the_scan_that_its_smwi_was_made_of(on_disk, capsys):
    """Sources and steps of our own sidecar travel on; those of another program, which may name a patient, do not."""
    from nigradat.cli import main

    told = {
        "Sources": ["series-1a2b"], "SourceKind": "dicom-classic", "SourceAttributes": {"manufacturer": "Philips"},
        "Steps": ["unwrapped"], "SMWIRecipe": {"m": 4.0}, "PatientName": "Doe",
    }  # fmt: skip
    for name, sources in (("nigradat", ["series-1a2b"]), ("dcm2niix", [])):
        sidecar = told | {"GeneratedBy": {"Name": name}}
        (on_disk / "smwi.json").write_text(json.dumps(sidecar), encoding="utf-8")
        out = on_disk / name
        image, centres = str(on_disk / "smwi.nii.gz"), str(on_disk / "centres.tsv")
        assert main(["locate", image, str(out), "--centres", centres]) == 0
        text = (out / "right.json").read_text(encoding="utf-8")
        assert json.loads(text)["Sources"][:-1] == sources
        assert "Doe" not in text + (out / "located.json").read_text(encoding="utf-8")
    capsys.readouterr()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--centres", "none.tsv"], "cannot be read"),
        (["--centres", "centres.tsv", "--no-refine"], "together with --centres"),
        (["--atlas", "none.nii"], "none.nii"),
        (["--affine", "both"], "--affine both"),
    ],
)
def test_bad_options_end_with_a_word_and_nothing_written(on_disk, capsys, arguments, words):
    from nigradat.cli import main

    given_paths = [str(on_disk / a) if a == "centres.tsv" else a for a in arguments]
    assert main(["locate", str(on_disk / "smwi.nii.gz"), str(on_disk / "out"), *given_paths]) == 2
    error = capsys.readouterr().err
    assert words in error
    assert "Traceback" not in error
    assert not (on_disk / "out").exists()
