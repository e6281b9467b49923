"""Pairs from files: the published .mat layout, two NIfTI patches, and all the pairs of a folder."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.io import savemat

from nigradat.anatomy import PATCH_SHAPE, Side, nominal_affine
from nigradat.errors import FieldOfViewError, ImageError, LateralityError, ManifestError, OrientationError
from nigradat.io.inputs import read_inputs
from nigradat.io.manifest import read_manifest
from nigradat.io.mat import read_mat_pair
from nigradat.io.nifti import write_volume
from nigradat.io.pairs import find_pairs, read_pair, read_row
from nigradat.pair import extract_pair


def noise(seed=0):
    return np.random.default_rng(seed).uniform(0.5, 1.5, (2, *PATCH_SHAPE)).astype(np.float32)


def save_mat(path, right=None, left=None, **more):
    right, left = (given if given is not None else own for given, own in zip((right, left), noise(), strict=True))
    savemat(path, {"right_patch": right, "left_patch": left} | more)
    return path


# ---------------------------------------------------------------------------------------------- .mat


def test_a_mat_holds_right_and_left_at_nominal_positions(tmp_path):
    pair = read_mat_pair(save_mat(tmp_path / "case7.mat", true_sbr=np.array([[0.1, 0.2]])))
    assert np.array_equal(pair.patches, noise())
    assert pair.affine_is_nominal
    assert np.array_equal(pair.affines, np.stack([nominal_affine(side) for side in Side]))
    assert (pair.participant_id, pair.session_id) == ("case7", "n/a")


@given(keep=st.floats(0, 0.999), compressed=st.booleans())
@settings(max_examples=40)
def test_a_truncated_mat_is_refused_wherever_it_ends(tmp_path_factory, keep, compressed):
    path = tmp_path_factory.mktemp("cut") / "a.mat"
    first, second = noise()
    savemat(path, {"right_patch": first, "left_patch": second}, do_compression=compressed)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * keep)])
    with pytest.raises(ImageError, match=r"a\.mat"):
        read_mat_pair(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not a MATLAB file"),
        (b"x" * 500, "not a MATLAB file"),
        (b"MATLAB 7.3 MAT-file".ljust(512), "HDF5"),
        (b"MATLAB 5.0".ljust(124) + b"\x00\x01IM" + b"\xff" * 200, "truncated or damaged"),
    ],
)
def test_foreign_files_are_refused(tmp_path, content, message):
    (tmp_path / "a.mat").write_bytes(content)
    with pytest.raises(ImageError, match=message):
        read_mat_pair(tmp_path / "a.mat")


@pytest.mark.parametrize(
    ("left", "message"),
    [
        (np.ones((50, 50, 21)), r"left_patch has shape \(50, 50, 21\)"),
        (np.ones(PATCH_SHAPE, complex), "no array of real numbers"),
        ("text", "no array of real numbers"),
        (np.full(PATCH_SHAPE, np.nan), "50000 of 50000 voxels are no number"),
        (np.ones(PATCH_SHAPE), "every voxel is 1"),
    ],
)
def test_patches_that_are_none_are_refused_with_the_file(tmp_path, left, message):
    with pytest.raises(ImageError, match=rf"a\.mat: .*{message}"):
        read_mat_pair(save_mat(tmp_path / "a.mat", left=left))


def test_missing_variables_and_files_are_named(tmp_path):
    savemat(tmp_path / "a.mat", {"left_patch": noise()[1]})
    with pytest.raises(ImageError, match="no variable right_patch"):
        read_mat_pair(tmp_path / "a.mat")
    with pytest.raises(ImageError, match="cannot be read"):
        read_mat_pair(tmp_path / "none.mat")


# ---------------------------------------------------------------------------------------------- NIfTI patches


def save_patches(folder, order=((0, 1, 2), (False,) * 3), names=("right", "left")):
    """Both patches in a storage order of choice, reordered without the code under test."""
    axes, flips = order
    for side, patch, name in zip(Side, noise(), names, strict=True):
        volume, affine = np.transpose(patch, axes), nominal_affine(side)[:, [*axes, 3]]
        for axis in np.flatnonzero(flips):
            affine[:3, 3] += affine[:3, axis] * (volume.shape[axis] - 1)
            affine[:3, axis] *= -1
            volume = np.flip(volume, axis)
        write_volume(folder / f"{name}.nii.gz", volume, affine)
    return folder / f"{names[0]}.nii.gz", folder / f"{names[1]}.nii.gz"


@given(order=st.tuples(st.permutations(range(3)), st.tuples(*[st.booleans()] * 3)))
@settings(max_examples=25)
def test_patches_in_any_storage_order_give_the_same_pair(tmp_path_factory, order):
    pair = read_pair(*save_patches(tmp_path_factory.mktemp("pair"), order))
    assert np.array_equal(pair.patches, noise())
    np.testing.assert_allclose(pair.affines, [nominal_affine(side) for side in Side], atol=1e-5)
    assert not pair.affine_is_nominal


def test_exchanged_files_are_refused(tmp_path):
    right, left = save_patches(tmp_path)
    with pytest.raises(LateralityError, match=r"left\.nii\.gz, .*right\.nii\.gz: the right centre"):
        read_pair(left, right)


def test_volumes_that_are_no_patch_are_refused_with_the_file(tmp_path):
    right, left = save_patches(tmp_path)
    write_volume(left, noise()[0][:, :, :10], nominal_affine(Side.LEFT))
    with pytest.raises(ImageError, match=r"left\.nii\.gz: a patch of shape \(50, 50, 10\)"):
        read_pair(right, left)
    turned = nominal_affine(Side.LEFT)
    angle = np.radians(42)
    turn = [[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]]
    turned[:3, :3] = turn @ turned[:3, :3]
    write_volume(left, noise()[1], turned)
    with pytest.raises(OrientationError, match=r"left\.nii\.gz: an image tilted by 42\.0 degrees"):
        read_pair(right, left)


def test_a_mat_is_given_twice_or_not_at_all(tmp_path):
    mat = save_mat(tmp_path / "a.mat")
    assert read_pair(mat, mat, participant_id="sub-1", session_id="x").participant_id == "sub-1"
    with pytest.raises(ImageError, match=r"same \.mat twice"):
        read_pair(mat, save_mat(tmp_path / "b.mat"))


# ---------------------------------------------------------------------------------------------- folders


def test_the_pairs_of_a_folder_are_found_by_name(tmp_path):
    (tmp_path / "sub-02" / "anat").mkdir(parents=True)
    names = [
        "case.mat",
        "p1_right.nii",
        "p1_left.nii",
        "right-p2.nii.gz",
        "left-p2.nii.gz",
        "sub-02/anat/sub-02_ses-1_hemi-R_SMWI.nii.gz",
        "sub-02/anat/sub-02_ses-1_hemi-L_SMWI.nii.gz",
        "notes.txt",
        ".hidden_right.nii",
    ]
    for name in names:
        (tmp_path / name).touch()
    pairs = find_pairs(tmp_path)
    assert {p.id: (p.right.name, p.left.name) for p in pairs} == {
        "case": ("case.mat", "case.mat"),
        "p1": ("p1_right.nii", "p1_left.nii"),
        "p2": ("right-p2.nii.gz", "left-p2.nii.gz"),
        "sub-02_ses-1_SMWI": ("sub-02_ses-1_hemi-R_SMWI.nii.gz", "sub-02_ses-1_hemi-L_SMWI.nii.gz"),
    }


def test_plain_right_and_left_are_called_after_their_folder(tmp_path):
    folder = tmp_path / "sub-5"
    folder.mkdir()
    save_patches(folder)
    (pair,) = find_pairs(folder)
    assert pair.id == "sub-5"
    assert read_pair(pair.right, pair.left).participant_id == "sub-5"


def test_every_unpaired_or_ambiguous_file_is_named(tmp_path):
    (tmp_path / "other").mkdir()
    names = [
        "a_right.nii",
        "b_left.nii.gz",
        "c.nii",
        "d_right_left.nii",
        "upright_e.nii",
        "f_left.nii",
        "f_left.nii.gz",
        "f_right.nii",
        "g.mat",
        "other/g.mat",
    ]
    for name in names:
        (tmp_path / name).touch()
    with pytest.raises(ManifestError) as caught:
        find_pairs(tmp_path)
    assert sorted(caught.value.faults) == [
        "a_right.nii has no left partner",
        "b_left.nii.gz has no right partner",
        "c.nii names no side (hemi-R, hemi-L, right or left)",
        "d_right_left.nii names both sides or one twice",
        "f_left.nii, f_left.nii.gz, f_right.nii: more than one pair would be called 'f'",
        "other/g.mat: more than one pair would be called 'g'",
        "upright_e.nii names no side (hemi-R, hemi-L, right or left)",
    ]


def test_empty_and_missing_folders_are_refused(tmp_path):
    with pytest.raises(ImageError, match="no patch pair"):
        find_pairs(tmp_path)
    with pytest.raises(ImageError, match="is no folder"):
        find_pairs(tmp_path / "none")


def test_a_line_with_image_and_centres_is_cut(tmp_path):
    """The pair of read_row is the one that extract_pair cuts, and a window outside names the file."""
    volume = np.random.default_rng(0).uniform(1, 2, (120, 120, 40)).astype(np.float32)
    affine = np.diag([0.5, 0.5, 1.0, 1.0])
    write_volume(tmp_path / "image.nii.gz", volume, affine)
    header = "participant_id\tsession_id\timage\tright_x\tright_y\tright_z\tleft_x\tleft_y\tleft_z\n"
    (tmp_path / "m.tsv").write_text(header + "sub-1\tses-2\timage.nii.gz\t35\t30\t20\t20\t30\t20\n", encoding="utf-8")
    (row,) = read_manifest(tmp_path / "m.tsv", require_labels=False)
    pair = read_row(row)
    expected = extract_pair(volume, affine, (35, 30, 20), (20, 30, 20))
    np.testing.assert_array_equal(pair.patches, expected.patches)
    assert (pair.participant_id, pair.session_id) == ("sub-1", "ses-2")
    (by_inputs,) = read_inputs([tmp_path / "m.tsv"])
    np.testing.assert_array_equal(by_inputs.patches, expected.patches)
    outside = dataclasses.replace(row, centres_mm=((59.0, 30.0, 20.0), (20.0, 30.0, 20.0)))
    with pytest.raises(FieldOfViewError, match=r"image\.nii\.gz"):
        read_row(outside)
