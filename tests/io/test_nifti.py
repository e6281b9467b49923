"""Volumes with one usable orientation are read; all others are refused."""

from __future__ import annotations

import gzip

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nigradat.errors import ConfigError, ImageError, OrientationError
from nigradat.io import nifti
from nigradat.io.gre import read_image, read_scan
from nigradat.io.nifti import read_volume, write_volume

AFFINE = np.array([[0.5, 0, 0, -10], [0, 0.5, 0, -20], [0, 0, 1.0, -30], [0, 0, 0, 1]])
SHAPE = (7, 6, 5)


def noise(shape=SHAPE):
    return np.random.default_rng(0).uniform(0.5, 1.5, shape).astype(np.float32)


def save(path, data=None, sform=(AFFINE, 1), qform=(AFFINE, 1), kind=nib.Nifti1Image, change=None):
    image = kind(noise() if data is None else data, None)
    image.header["sform_code"], image.header["qform_code"] = 0, 0
    if sform[1]:
        image.header.set_sform(*sform)
    if qform[1]:
        image.header.set_qform(*qform)
    if change:
        change(image.header)
    path.write_bytes(image.to_bytes())
    return path


def shifted(millimetres):
    moved = AFFINE.copy()
    moved[0, 3] += millimetres
    return moved


@pytest.mark.parametrize("name", ["v.nii", "v.nii.gz"])
def test_what_was_written_is_read_back(tmp_path, name):
    write_volume(tmp_path / name, noise(), AFFINE)
    voxels, affine = read_volume(tmp_path / name)
    assert voxels.dtype == np.float32
    assert np.array_equal(voxels, noise())
    np.testing.assert_allclose(affine, AFFINE)
    with_nibabel = nib.load(tmp_path / name)
    assert np.array_equal(np.asarray(with_nibabel.dataobj), noise())
    assert (with_nibabel.header["sform_code"], with_nibabel.header["qform_code"]) == (1, 1)


@pytest.mark.parametrize("offset", [np.inf, np.nan, -5, 1e30])
def test_voxels_that_begin_nowhere_are_refused(tmp_path, offset):
    content = bytearray(save(tmp_path / "v.nii").read_bytes())
    content[108:112] = np.float32(offset).tobytes()
    (tmp_path / "v.nii").write_bytes(content)
    with pytest.raises(ImageError, match=r"not a NIfTI|truncated"):
        read_volume(tmp_path / "v.nii")
    (series,) = read_scan(tmp_path)
    assert series.problems


@pytest.mark.parametrize("endless", [True, False])
def test_a_bomb_is_refused_after_what_its_header_states(tmp_path, endless, monkeypatch):
    """200 kB that unfold to 200 MB: the voxels of the header and no more than the allowance are unpacked."""
    image = save(tmp_path / "v.nii").read_bytes()
    unpacked = []
    real = gzip.GzipFile.read
    monkeypatch.setattr(gzip.GzipFile, "read", lambda self, n=-1: unpacked.append(real(self, n)) or unpacked[-1])
    (tmp_path / "v.nii.gz").write_bytes(gzip.compress(image + bytes(200 * 2**20 if endless else 2**20), 1))
    if endless:
        with pytest.raises(ImageError, match=r"more than the .* bytes that its header states"):
            read_volume(tmp_path / "v.nii.gz")
    else:
        assert np.array_equal(read_volume(tmp_path / "v.nii.gz")[0], noise())
    assert sum(map(len, unpacked)) < 20 * 2**20
    (tmp_path / "v.nii.gz").write_bytes(gzip.compress(bytes(100 * 2**20), 1))
    with pytest.raises(ImageError):
        read_volume(tmp_path / "v.nii.gz")


def test_a_bomb_whose_header_speaks_the_truth_is_refused_before_it_unfolds(tmp_path, monkeypatch):
    """Zeros shrink a thousand times; so much of them is no scan."""
    whole = np.zeros((256, 256, 64), np.float32)
    write_volume(tmp_path / "v.nii.gz", whole, AFFINE)
    assert np.array_equal(read_volume(tmp_path / "v.nii.gz")[0], whole)  # below a gigabyte it may be an empty mask
    monkeypatch.setattr(nifti, "_FREE_BYTES", 2**20)
    monkeypatch.setattr(nifti, "MAX_RATIO", 50)
    unpacked = []
    real = gzip.GzipFile.read
    monkeypatch.setattr(gzip.GzipFile, "read", lambda self, n=-1: unpacked.append(real(self, n)) or unpacked[-1])
    with pytest.raises(ImageError, match=r"by its header it unpacks to 16,777,568 bytes\. Expected at most"):
        read_volume(tmp_path / "v.nii.gz")
    assert sum(map(len, unpacked)) < 2000


def test_a_bomb_in_a_folder_is_refused_and_its_neighbours_are_read(tmp_path):
    image = save(tmp_path / "honest.nii").read_bytes()
    (tmp_path / "honest.nii").unlink()
    (tmp_path / "sub-01_T1w.nii.gz").write_bytes(gzip.compress(image))
    (tmp_path / "sub-02_T1w.nii.gz").write_bytes(gzip.compress(image + bytes(100 * 2**20), 1))
    _, bomb = read_scan(tmp_path)
    (problem,) = bomb.problems
    assert "file 2 of 2" in str(problem)
    assert "bytes that its header states" in str(problem)
    assert np.array_equal(read_image(tmp_path).data, noise())


def test_equal_volumes_give_equal_files(tmp_path):
    for name in ("a.nii.gz", "b.nii.gz"):
        write_volume(tmp_path / name, noise(), AFFINE)
    assert (tmp_path / "a.nii.gz").read_bytes() == (tmp_path / "b.nii.gz").read_bytes()


def test_the_headers_scaling_is_applied(tmp_path):
    stored = np.arange(np.prod(SHAPE), dtype=np.int16).reshape(SHAPE)
    path = save(tmp_path / "v.nii", stored)
    content = bytearray(path.read_bytes())
    content[112:120] = np.array([0.25, -3], "<f4").tobytes()  # scl_slope, scl_inter
    path.write_bytes(content)
    np.testing.assert_allclose(read_volume(path)[0], stored * 0.25 - 3)


@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
def test_both_versions_and_trailing_single_axes(tmp_path, kind):
    path = save(tmp_path / "v.nii", noise((*SHAPE, 1, 1)), kind=kind)
    assert np.array_equal(read_volume(path)[0], noise())


def test_big_endian(tmp_path):
    image = nib.Nifti1Image(noise(), AFFINE, nib.Nifti1Header(endianness=">"))
    (tmp_path / "v.nii").write_bytes(image.to_bytes())
    assert np.array_equal(read_volume(tmp_path / "v.nii")[0], noise())


@pytest.mark.parametrize("shape", [(7, 6), (7, 6, 5, 2)])
def test_what_is_not_three_dimensional_is_refused(tmp_path, shape):
    with pytest.raises(ImageError, match="a 3D volume"):
        read_volume(save(tmp_path / "v.nii", noise(shape)))


def test_complex_and_colour_voxels_are_refused(tmp_path):
    for dtype in (np.complex64, np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")])):
        with pytest.raises(ImageError, match="real numbers"):
            read_volume(save(tmp_path / "v.nii", np.zeros(SHAPE, dtype)))


# ---------------------------------------------------------------------------------------------- damaged files


@given(keep=st.floats(0, 0.999), compressed=st.booleans())
@settings(max_examples=50)
def test_a_truncated_file_is_refused_wherever_it_ends(tmp_path_factory, keep, compressed):
    path = tmp_path_factory.mktemp("cut") / ("v.nii.gz" if compressed else "v.nii")
    write_volume(path, noise(), AFFINE)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * keep)])
    with pytest.raises(ImageError, match=r"v\.nii"):
        read_volume(path)


def test_a_flipped_bit_in_a_compressed_file_is_found(tmp_path):
    path = tmp_path / "v.nii.gz"
    write_volume(path, noise(), AFFINE)
    whole = bytearray(path.read_bytes())
    whole[-6] ^= 1  # in gzip's own checksum: all the data are there
    path.write_bytes(whole)
    with pytest.raises(ImageError, match="truncated or damaged"):
        read_volume(path)


@pytest.mark.parametrize(
    "content",
    [b"", b"not an image", b"\0" * 400, b"\x5c\x01\0\0" + b"\xff" * 400, gzip.compress(b"text"), b"\x1f\x8b"],
    ids=["empty", "text", "zeros", "wild header", "compressed text", "gzip start"],
)
def test_what_is_no_image_is_refused(tmp_path, content):
    for name in ("v.nii", "v.nii.gz"):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ImageError, match=r"v\.nii"):
            read_volume(tmp_path / name)


def test_a_header_that_claims_more_than_there_is_is_refused(tmp_path):
    path = save(tmp_path / "v.nii")
    content = bytearray(path.read_bytes())
    content[42:48] = np.array([30000, 30000, 30000], "<i2").tobytes()
    path.write_bytes(content)
    with pytest.raises(ImageError, match="truncated"):
        read_volume(path)


def test_other_names_and_missing_files_are_refused(tmp_path):
    (tmp_path / "v.png").write_bytes(b"x")
    with pytest.raises(ImageError, match="not a NIfTI file name"):
        read_volume(tmp_path / "v.png")
    with pytest.raises(ImageError, match="cannot be read"):
        read_volume(tmp_path / "none.nii")
    with pytest.raises(ImageError, match="ends in"):
        write_volume(tmp_path / "v.img", noise(), AFFINE)


# ---------------------------------------------------------------------------------------------- orientation


def test_no_orientation_is_refused(tmp_path):
    with pytest.raises(OrientationError, match=r"sform not set \(code 0\), qform not set"):
        read_volume(save(tmp_path / "v.nii", sform=(None, 0), qform=(None, 0)))


@pytest.mark.parametrize("form", ["sform", "qform"])
def test_one_orientation_alone_is_taken_and_the_other_cannot_be(tmp_path, form):
    path = save(tmp_path / "v.nii", **{("qform" if form == "sform" else "sform"): (None, 0)})
    for choice in ("auto", form):
        np.testing.assert_allclose(read_volume(path, choice)[1], AFFINE, atol=1e-6)
    with pytest.raises(OrientationError, match="not set"):
        read_volume(path, "qform" if form == "sform" else "sform")


def test_orientations_that_agree_within_half_a_millimetre_are_taken(tmp_path):
    path = save(tmp_path / "v.nii", qform=(shifted(0.49), 1))
    np.testing.assert_allclose(read_volume(path)[1], AFFINE, atol=1e-6)


def test_orientations_that_disagree_are_refused_until_one_is_named(tmp_path):
    path = save(tmp_path / "v.nii", qform=(shifted(0.51), 1))
    with pytest.raises(OrientationError, match=r"up to 0\.5 mm .*--affine sform or --affine qform"):
        read_volume(path)
    np.testing.assert_allclose(read_volume(path, "sform")[1], AFFINE, atol=1e-6)
    np.testing.assert_allclose(read_volume(path, "qform")[1], shifted(0.51), atol=1e-5)


def test_a_conflict_far_from_the_first_voxel_is_found(tmp_path):
    turned = AFFINE.copy()
    angle = np.radians(0.6)
    turned[:3, :3] = (
        np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]]) @ (AFFINE[:3, :3])
    )
    near = save(tmp_path / "small.nii", noise((40, 40, 4)), qform=(turned, 1))
    read_volume(near)
    far = save(tmp_path / "large.nii", noise((200, 100, 4)), qform=(turned, 1))
    with pytest.raises(OrientationError, match="contradict"):
        read_volume(far)


def test_other_axis_codes_are_a_conflict_however_small_the_volume(tmp_path):
    flipped = AFFINE.copy()
    flipped[0, 0] *= -1
    path = save(tmp_path / "v.nii", noise((1, 6, 5)), qform=(flipped, 1))
    with pytest.raises(OrientationError, match="RAS and LAS"):
        read_volume(path)


def test_an_unusable_form_beside_a_usable_one_needs_a_word(tmp_path):
    path = save(tmp_path / "v.nii", sform=(np.diag([0.0, 0, 0, 1]), 1))
    with pytest.raises(OrientationError, match=r"singular.*--affine qform"):
        read_volume(path)
    np.testing.assert_allclose(read_volume(path, "qform")[1], AFFINE, atol=1e-6)
    with pytest.raises(OrientationError, match="singular"):
        read_volume(path, "sform")


def test_a_quaternion_that_is_none_is_refused(tmp_path):
    path = save(tmp_path / "v.nii")
    content = bytearray(path.read_bytes())
    content[256:268] = np.array([0.9, 0.9, 0.9], "<f4").tobytes()  # quatern_b, _c, _d: longer than a unit
    path.write_bytes(content)
    with pytest.raises(OrientationError, match="qform is unusable"):
        read_volume(path)
    np.testing.assert_allclose(read_volume(path, "sform")[1], AFFINE, atol=1e-6)
    content[254:256] = b"\0\0"  # sform_code
    path.write_bytes(content)
    with pytest.raises(OrientationError, match=r"no usable orientation: sform not set .* qform unusable"):
        read_volume(path)


def test_an_unknown_choice_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="auto, sform, qform"):
        read_volume(save(tmp_path / "v.nii"), "best")
