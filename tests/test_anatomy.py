"""Sides and geometry, against volumes whose every voxel knows where it lies."""

from __future__ import annotations

from itertools import permutations, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nigradat import anatomy
from nigradat.anatomy import PATCH_CENTRE, PATCH_SHAPE, PATCH_SPACING_MM, Side
from nigradat.errors import FieldOfViewError, ImageError, LateralityError, OrientationError
from nigradat.pair import extract_pair

STORAGE_ORDERS = [(axes, flips) for axes in permutations(range(3)) for flips in product((False, True), repeat=3)]
CENTRES_MM = {Side.RIGHT: np.array([9.3, -17.1, -13.4]), Side.LEFT: np.array([-8.2, -16.6, -12.8])}
orders = st.sampled_from(STORAGE_ORDERS)
angles = st.tuples(*[st.floats(-20, 20)] * 3)


def stored_as(volume, affine, order):
    """The same volume in another storage order, worked out without nibabel."""
    axes, flips = order
    volume = np.transpose(volume, axes)
    affine = affine[:, [*axes, 3]].copy()
    for axis, flip in enumerate(flips):
        if flip:
            affine[:3, 3] += affine[:3, axis] * (volume.shape[axis] - 1)
            affine[:3, axis] *= -1
            volume = np.flip(volume, axis)
    return np.ascontiguousarray(volume), affine


def rotation(degrees):
    """Product of three rotations about x, y, z."""
    out = np.eye(3)
    for axis, angle in enumerate(np.radians(degrees)):
        i, j = [k for k in range(3) if k != axis]
        turn = np.eye(3)
        turn[[i, i, j, j], [i, j, i, j]] = np.cos(angle), -np.sin(angle), np.sin(angle), np.cos(angle)
        out = out @ turn
    return out


def midbrain_affine(shape, spacing_mm, degrees=(0, 0, 0)):
    """A RAS affine that puts the middle of the volume between the two centres."""
    affine = np.eye(4)
    affine[:3, :3] = rotation(degrees) * np.array(spacing_mm)
    middle = (CENTRES_MM[Side.RIGHT] + CENTRES_MM[Side.LEFT]) / 2
    affine[:3, 3] = middle - affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    return affine


def world_mm(shape, affine):
    """World coordinates of every voxel, ``(*shape, 3)``."""
    index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1)
    return index @ affine[:3, :3].T + affine[:3, 3]


def noise(shape, seed=0):
    return np.random.default_rng(seed).uniform(0.5, 1.5, shape).astype(np.float32)


NATIVE_SHAPE, NATIVE_MM = (130, 96, 48), (0.5, 0.5, 1.0)
OTHER_SHAPE, OTHER_MM = (84, 60, 50), (0.7, 0.8, 0.9)


# ---------------------------------------------------------------------------------------------- storage orders


def test_there_are_48_storage_orders():
    affines = [stored_as(noise(NATIVE_SHAPE), midbrain_affine(NATIVE_SHAPE, NATIVE_MM), o)[1] for o in STORAGE_ORDERS]
    assert len({anatomy.axis_codes(a) for a in affines}) == 48


@pytest.mark.parametrize("degrees", [(0, 0, 0), (11, -7, 17)], ids=["straight", "oblique"])
def test_native_spacing_gives_the_same_bits_in_every_storage_order(degrees):
    volume, affine = noise(NATIVE_SHAPE), midbrain_affine(NATIVE_SHAPE, NATIVE_MM, degrees)
    expected = extract_pair(volume, affine, CENTRES_MM[Side.RIGHT], CENTRES_MM[Side.LEFT])
    for order in STORAGE_ORDERS:
        pair = extract_pair(*stored_as(volume, affine, order), CENTRES_MM[Side.RIGHT], CENTRES_MM[Side.LEFT])
        assert np.array_equal(pair.patches, expected.patches), order
        np.testing.assert_allclose(pair.affines, expected.affines, atol=1e-9)


def test_native_spacing_decides_ties_alike_in_every_storage_order():
    volume, affine = noise(NATIVE_SHAPE), np.diag([0.5, 0.5, 1.0, 1.0])
    centre = (32.0, 24.0, 24.0)  # exactly on a voxel: as far from one half voxel as from the next
    expected, _ = anatomy.extract_patch(volume, affine, centre)
    for order in STORAGE_ORDERS:
        assert np.array_equal(anatomy.extract_patch(*stored_as(volume, affine, order), centre)[0], expected), order


def test_resampled_spacing_gives_the_same_pair_in_every_storage_order():
    volume, affine = noise(OTHER_SHAPE), midbrain_affine(OTHER_SHAPE, OTHER_MM, (6, 12, -9))
    expected = extract_pair(volume, affine, CENTRES_MM[Side.RIGHT], CENTRES_MM[Side.LEFT])
    for order in STORAGE_ORDERS:
        pair = extract_pair(*stored_as(volume, affine, order), CENTRES_MM[Side.RIGHT], CENTRES_MM[Side.LEFT])
        np.testing.assert_allclose(pair.patches, expected.patches, atol=1e-5)
        np.testing.assert_allclose(pair.affines, expected.affines, atol=1e-9)


@given(order=orders, degrees=angles, spacing=st.sampled_from([NATIVE_MM, (0.45, 0.45, 1.1), (0.8, 0.8, 0.8)]))
@settings(max_examples=25)
def test_any_obliquity_gives_the_same_patch_in_any_storage_order(order, degrees, spacing):
    shape = tuple(int(np.ceil(36 / s)) for s in spacing)
    volume, affine = noise(shape), midbrain_affine(shape, spacing, degrees)
    centre = affine[:3, :3] @ ((np.array(shape) - 1) / 2 + 0.3) + affine[:3, 3]
    expected, expected_affine = anatomy.extract_patch(volume, affine, centre)
    patch, patch_affine = anatomy.extract_patch(*stored_as(volume, affine, order), centre)
    np.testing.assert_allclose(patch, expected, atol=0 if spacing == NATIVE_MM else 1e-5)
    np.testing.assert_allclose(patch_affine, expected_affine, atol=1e-9)


@pytest.mark.parametrize("order", STORAGE_ORDERS)
def test_a_stored_patch_comes_back_in_any_storage_order(order):
    patch, affine = noise(PATCH_SHAPE), anatomy.nominal_affine(Side.LEFT)
    back, back_affine = anatomy.patch_from_file_grid(*stored_as(patch, affine, order))
    assert np.array_equal(back, patch)
    np.testing.assert_allclose(back_affine, affine, atol=1e-9)


# ---------------------------------------------------------------------------------------------- world coordinates


@given(order=orders, degrees=angles, native=st.booleans())
@settings(max_examples=15)
def test_each_patch_voxel_shows_what_lies_at_its_world_position(order, degrees, native):
    shape, spacing = ((130, 130, 70), NATIVE_MM) if native else ((80, 84, 76), (0.7, 0.65, 0.9))
    affine = midbrain_affine(shape, spacing, degrees)
    centre = (CENTRES_MM[Side.RIGHT] + CENTRES_MM[Side.LEFT]) / 2 + (0.13, -0.21, 0.32)
    position = world_mm(shape, affine)
    for axis in range(3):  # a ramp along x, then y, then z: cubic splines reproduce it exactly
        ramp, stored_affine = stored_as(position[..., axis], affine, order)
        patch, patch_affine = anatomy.extract_patch(ramp, stored_affine, centre)
        np.testing.assert_allclose(patch, world_mm(PATCH_SHAPE, patch_affine)[..., axis], atol=2e-5)
    distance = np.linalg.solve(patch_affine[:3, :3], anatomy.patch_centre_mm(patch_affine) - centre)
    assert np.abs(distance).max() <= (0.5 + 1e-5 if native else 1e-9)
    assert anatomy.axis_codes(patch_affine) == ("A", "L", "I")
    assert np.linalg.det(patch_affine[:3, :3]) < 0
    np.testing.assert_allclose(np.linalg.norm(patch_affine[:3, :3], axis=0), PATCH_SPACING_MM, atol=1e-9)


def test_the_patch_axes_rise_towards_anterior_left_inferior():
    volume, affine = world_mm(NATIVE_SHAPE, np.diag([0.5, 0.5, 1.0, 1.0])), np.diag([0.5, 0.5, 1.0, 1.0])
    x, y, z = (anatomy.extract_patch(volume[..., i], affine, (32, 24, 24))[0] for i in range(3))
    assert (np.diff(y, axis=0) > 0).all()
    assert (np.diff(x, axis=1) < 0).all()  # x rises towards the right, the axis towards the left
    assert (np.diff(z, axis=2) < 0).all()


def test_resampling_near_the_edge_of_the_volume_stays_inside_it():
    shape, affine = (40, 40, 30), np.diag([0.7, 0.7, 0.9, 1.0])
    half_mm = (np.array(PATCH_SHAPE) - 1) / 2 * PATCH_SPACING_MM
    # patch axes are y, x, z: the patch just touches the first voxel of each
    centre = np.array([half_mm[1], half_mm[0], half_mm[2]])
    patch, patch_affine = anatomy.extract_patch(noise(shape), affine, centre)
    assert np.isfinite(patch).all()
    np.testing.assert_allclose(world_mm(PATCH_SHAPE, patch_affine).min(axis=(0, 1, 2)), 0, atol=1e-9)


# ---------------------------------------------------------------------------------------------- right and left


@given(order=orders, degrees=angles, spacing=st.sampled_from([NATIVE_MM, (0.6, 0.6, 0.6)]))
@settings(max_examples=15)
def test_right_and_left_are_never_exchanged(order, degrees, spacing):
    shape = tuple(int(60 / s) for s in spacing)
    affine = midbrain_affine(shape, spacing, degrees)
    x_mm = world_mm(shape, affine)[..., 0]
    right_mm, left_mm = np.array([16.0, -17, -13]), np.array([-15.0, -17, -13])
    volume, stored_affine = stored_as(np.where(x_mm > 0, 2.0, 1.0) + 1e-3 * noise(shape), affine, order)
    pair = extract_pair(volume, stored_affine, right_mm, left_mm)
    core = (slice(15, 35), slice(15, 35), slice(7, 13))
    assert pair.patch(Side.RIGHT)[core].min() > 1.9
    assert pair.patch(Side.LEFT)[core].max() < 1.1


def test_exchanged_centres_are_refused():
    volume, affine = noise(NATIVE_SHAPE), midbrain_affine(NATIVE_SHAPE, NATIVE_MM)
    with pytest.raises(LateralityError, match="right centre lies at x = -8"):
        extract_pair(volume, affine, CENTRES_MM[Side.LEFT], CENTRES_MM[Side.RIGHT])
    with pytest.raises(LateralityError):
        anatomy.check_sides((3, 0, 0), (3, 1, 1))


def test_sides_come_right_first():
    assert [side.value for side in Side] == ["right", "left"]
    assert [side.index for side in Side] == [0, 1]
    assert [side.other for side in Side] == [Side.LEFT, Side.RIGHT]


# ---------------------------------------------------------------------------------------------- refusals


def test_a_tilt_over_40_degrees_is_refused_with_its_angle():
    shape = (80, 80, 60)
    for degrees, tilt in (((39, 0, 0), 39), ((0, -35, 0), 35)):
        affine = midbrain_affine(shape, (0.8, 0.8, 0.8), degrees)
        assert anatomy.tilt_deg(affine) == pytest.approx(tilt)
        anatomy.to_patch_axes(noise(shape), affine)
    with pytest.raises(OrientationError, match=r"41\.5 degrees"):
        anatomy.to_patch_axes(noise(shape), midbrain_affine(shape, (0.8, 0.8, 0.8), (41.5, 0, 0)))


@pytest.mark.parametrize(
    ("affine", "message"),
    [
        (np.eye(3), "shape"),
        (np.zeros((4, 4)), "last row"),
        (np.diag([1.0, 1, 1, 2]), "last row"),
        (np.diag([0.0, 0, 0, 1]), "singular"),
        (np.diag([0.5, 0.5, 0.0, 1.0]), "singular"),
        (np.array([[1.0, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]), "singular"),
        (np.array([[1.0, 0.1, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]), "5.7 degrees off the right angle"),
        (np.full((4, 4), np.nan), "no number"),
    ],
    ids=["3x3", "zeros", "last-row", "flat", "one-flat", "parallel", "sheared", "nan"],
)
def test_unusable_affines_are_refused(affine, message):
    with pytest.raises(OrientationError, match=message):
        anatomy.check_affine(affine)


def test_a_patch_outside_the_volume_is_refused_with_the_missing_millimetres():
    volume, affine = noise((60, 60, 30)), np.diag([0.5, 0.5, 1.0, 1.0])
    anatomy.extract_patch(volume, affine, (14.75, 14.75, 14.5))
    with pytest.raises(FieldOfViewError, match=r"0\.0, 3\.0, 0\.0 mm"):
        anatomy.extract_patch(volume, affine, (9.25, 14.75, 14.5))
    with pytest.raises(FieldOfViewError):
        anatomy.extract_patch(noise((30, 30, 30)), np.diag([0.9, 0.9, 0.9, 1]), (12.2, 12.2, 20.0))


@pytest.mark.parametrize("centre", [(1, 2), (1, 2, np.nan), (np.inf, 0, 0)])
def test_a_centre_that_is_no_position_is_refused(centre):
    with pytest.raises(ImageError, match="three finite"):
        anatomy.extract_patch(noise(NATIVE_SHAPE), np.diag([0.5, 0.5, 1.0, 1.0]), centre)


def test_wrong_patches_are_refused():
    left = anatomy.nominal_affine(Side.LEFT)
    with pytest.raises(ImageError, match=r"\(50, 50, 21\)"):
        anatomy.patch_from_file_grid(noise((50, 50, 21)), left)
    wide = left.copy()
    wide[:3, 0] *= 1.2
    with pytest.raises(ImageError, match=r"0\.600 x 0\.500 x 1\.000 mm"):
        anatomy.patch_from_file_grid(noise(PATCH_SHAPE), wide)
    with pytest.raises(ImageError, match="4 axes"):
        anatomy.to_patch_axes(noise((4, 4, 4, 2)), left)


# ---------------------------------------------------------------------------------------------- mirroring


@pytest.mark.parametrize("leading", [(), (2,), (3, 2, 1)])
def test_mirroring_is_its_own_inverse_and_flips_right_and_left_only(leading):
    patches = noise((*leading, *PATCH_SHAPE))
    mirrored = anatomy.mirror(patches)
    assert np.array_equal(mirrored, patches[..., :, ::-1, :])
    assert np.array_equal(anatomy.mirror(mirrored), patches)


def test_the_canonical_view_mirrors_the_right_patch_alone_and_copies():
    patches = noise((3, 2, *PATCH_SHAPE))
    before = patches.copy()
    canonical = anatomy.to_canonical(patches)
    assert np.array_equal(canonical[:, 1], patches[:, 1])
    assert np.array_equal(canonical[:, 0], patches[:, 0, :, ::-1, :])
    assert np.array_equal(anatomy.to_canonical(canonical), patches)
    canonical[:] = 0
    assert np.array_equal(patches, before)
    with pytest.raises(ImageError, match="side axis"):
        anatomy.to_canonical(noise(PATCH_SHAPE))


def test_the_mirrored_patient_looks_the_same_in_canonical_view_with_sides_exchanged():
    patches = noise((3, 2, *PATCH_SHAPE))
    mirrored = anatomy.mirror_pair(patches)
    assert np.array_equal(anatomy.mirror_pair(mirrored), patches)
    assert np.array_equal(anatomy.to_canonical(mirrored), anatomy.to_canonical(patches)[:, ::-1])


@pytest.mark.parametrize("side", list(Side))
def test_a_nominal_affine_lies_on_its_side_on_the_patch_grid(side):
    affine = anatomy.nominal_affine(side)
    assert anatomy.axis_codes(affine) == anatomy.PATCH_CODES
    np.testing.assert_allclose(np.linalg.norm(affine[:3, :3], axis=0), PATCH_SPACING_MM)
    np.testing.assert_allclose(anatomy.patch_centre_mm(affine), (11 if side is Side.RIGHT else -11, 0, 0), atol=1e-12)
    np.testing.assert_allclose(affine[:3, :3] @ PATCH_CENTRE + affine[:3, 3], anatomy.patch_centre_mm(affine))
