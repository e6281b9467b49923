"""A head's pose is found, in our phantom and in a brain that is not made of our ellipsoids; what fails is refused."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from nigradat.anatomy import Side
from nigradat.errors import ImageError, MissingExtraError
from nigradat.phantom.striatum import SideUptake, random_pose, striatal_head
from nigradat.spect import registration
from nigradat.spect.registration import check, register
from nigradat.spect.template import template, uptake
from nigradat.spect.volumes_of_interest import own_atlas
from nigradat.volume import Volume

LANDMARKS = np.array([[26, 2, 2], [-26, 2, 2], [13, 14, 7], [-13, 14, 7], [22, -76, 6], [-22, -76, 6]], dtype=float)


def errors_mm(found, truth):
    change = found - truth
    return np.linalg.norm(LANDMARKS @ change[:3, :3].T + change[:3, 3], axis=1)


def test_the_phantom_is_found(lopsided, aligned):
    assert errors_mm(aligned.scan_from_mni, lopsided.scan_from_mni).max() < 2
    assert aligned.overlap > 0.95
    assert aligned.notes == ()
    for side, spot in zip(Side, aligned.striata, strict=True):
        assert spot.distance_mm < 12
        assert (spot.peak_mm[0] > 0) == (side is Side.RIGHT)
    assert aligned.striata[0].contrast > aligned.striata[1].contrast


@pytest.fixture(scope="module")
def mni_brain():
    """Tissue of the MNI152 average, 1 mm: uptake of grey and white matter, and the skin and bone around them."""
    nilearn = pytest.importorskip("nilearn")
    folder = Path(nilearn.__file__).parent / "datasets" / "data"
    grey, white, t1 = (
        nib.load(folder / f"mni_icbm152_{kind}_tal_nlin_sym_09a_converted.nii.gz") for kind in ("gm", "wm", "t1")
    )
    g, w, t = (np.asarray(image.dataobj, dtype=np.float32) for image in (grey, white, t1))
    g, w = g / g.max(), w / w.max()
    head = ndimage.binary_fill_holes(ndimage.gaussian_filter(t, 2) > 0.15 * np.percentile(t, 99))
    return g + 0.8 * w + 0.35 * np.clip(1 - 2 * (g + w), 0, 1) * head, grey.affine


def mni_head(brain, sbr, pose, seed):
    tissue, affine = brain
    shape, voxel = (76, 86, 70), 3.0
    scan = np.diag([voxel] * 3 + [1.0])
    scan[:3, 3] = pose[:3, :3] @ [0, -18, 6] + pose[:3, 3] - voxel * (np.array(shape) - 1) / 2
    to_mni = np.linalg.inv(pose) @ scan
    index = np.linalg.inv(affine) @ to_mni
    image = ndimage.affine_transform(tissue, index[:3, :3], index[:3, 3], output_shape=shape, order=1).astype(float)
    image += uptake(shape, to_mni, sbr) - uptake(shape, to_mni, {})
    image = ndimage.gaussian_filter(image, 10 / 2.3548 / voxel)
    return Volume(np.random.default_rng(seed).poisson(image * 2e6 / image.sum()), scan)


@pytest.mark.parametrize(
    ("seed", "sbr"),
    [
        (0, {"caudate": (2.5, 2.0), "putamen": (1.0, 0.6)}),
        pytest.param(1, {"caudate": (3.0, 3.0), "putamen": (3.0, 3.0)}, marks=pytest.mark.slow),
        pytest.param(2, {"caudate": (0.5, 0.5), "putamen": (0.4, 0.3)}, marks=pytest.mark.slow),
        pytest.param(3, {"caudate": (5.0, 1.0), "putamen": (5.0, 0.5)}, marks=pytest.mark.slow),
        pytest.param(4, {"caudate": (1.0, 3.0), "putamen": (0.4, 3.0)}, marks=pytest.mark.slow),
    ],
)
def test_a_brain_that_is_not_ours_is_found(mni_brain, seed, sbr):
    pose = random_pose(seed, turn_deg=14)
    striata = {(part, side): values[side.index] for part, values in sbr.items() for side in Side}
    found = register(mni_head(mni_brain, striata, pose, seed))
    assert errors_mm(found.scan_from_mni, pose).max() < 3
    assert found.overlap > 0.9


def test_the_outline_of_our_brain_is_that_of_mni(mni_brain):
    tissue, affine = mni_brain
    ours = template()
    index = np.linalg.inv(affine) @ ours.affine
    brain = ndimage.binary_fill_holes(ndimage.binary_closing(tissue > 0.4, iterations=4))
    theirs = ndimage.affine_transform(
        brain.astype(np.float32), index[:3, :3], index[:3, 3], output_shape=ours.data.shape, order=1
    )
    a, b = uptake(ours.data.shape, ours.affine, {}) > 0.5, theirs > 0.5
    assert 2 * (a & b).sum() / (a.sum() + b.sum()) > 0.9


def test_equal_scans_give_equal_bits(lopsided, aligned):
    again = register(lopsided.draw(1))
    assert np.array_equal(again.scan_from_mni, aligned.scan_from_mni)


# -- What is refused ----------------------------------------------------------------------------------------------


def test_a_shifted_map_is_refused_by_the_hottest_spot(lopsided):
    moved = lopsided.scan_from_mni.copy()
    moved[:3, 3] += [0, 18, 0]
    with pytest.raises(ImageError, match=r"hottest spot on the right lies at .* mm from putamen and caudate"):
        check(lopsided.draw(1), moved)


def test_a_map_far_off_is_refused_by_the_overlap(lopsided):
    moved = lopsided.scan_from_mni.copy()
    moved[:3, 3] += [0, 0, 60]
    with pytest.raises(ImageError, match="brains overlap by"):
        check(lopsided.draw(1), moved)


def test_striata_that_do_not_stand_out_are_remarked():
    head = striatal_head(SideUptake.even(2.0), SideUptake.even(0.1))
    found = check(head.draw(0), head.scan_from_mni)
    assert found.striata[0].peak_mm is not None
    assert found.striata[1].peak_mm is None
    assert found.notes == (
        "No uptake stands out on the left: the place of the regions is checked by the brain's outline only.",
    )


def test_a_head_on_its_crown_is_refused_and_no_side_exchanged(lopsided):
    scan = lopsided.draw(1)
    turned = np.diag([1.0, 1.0, -1.0, 1.0]) @ scan.affine
    with pytest.raises(ImageError, match="registration to MNI152 failed"):
        register(Volume(scan.data, turned))


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (np.zeros((30, 30, 30)), "without contrast"),
        (np.full((30, 30, 30), np.nan), "27000 voxels of the scan are no number"),
        (np.pad(np.ones((6, 6, 6)), 12), "litres take up tracer"),
    ],
)
def test_what_is_no_head_is_refused(values, words):
    with pytest.raises(ImageError, match=words):
        register(Volume(values, np.diag([4.0, 4.0, 4.0, 1.0])))


def test_noise_is_refused():
    noise = np.random.default_rng(0).poisson(20, (60, 60, 50))
    with pytest.raises(ImageError):
        register(Volume(noise, np.diag([4.0, 4.0, 4.0, 1.0])))


def test_a_missing_simpleitk_is_named(lopsided, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "SimpleITK", None)
    with pytest.raises(MissingExtraError, match="locate"):
        registration._fit(lopsided.expected, lopsided.scan_from_mni)


def test_the_template_is_symmetric_and_shows_striata():
    ours = template()
    np.testing.assert_allclose(ours.data, ours.data[::-1], atol=1e-6)
    x = ours.affine[0, 3] + ours.affine[0, 0] * (ours.data.shape[0] - 1)
    assert x == -ours.affine[0, 3]
    peak = np.unravel_index(np.argmax(ours.data), ours.data.shape) @ ours.affine[:3, :3] + ours.affine[:3, 3]
    grown = own_atlas().generous[0 if peak[0] > 0 else 1]
    assert grown.contains(peak[None])[0]
