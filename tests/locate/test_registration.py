"""Maps and their inverses, storage orders, and a registration whose answer is known."""

from __future__ import annotations

from itertools import permutations, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nibabel import orientations
from scipy import ndimage
from scipy.spatial.transform import Rotation

from nigradat.errors import ImageError
from nigradat.locate import registration
from nigradat.locate.locate import MIN_AGREEMENT
from nigradat.locate.registration import (
    MIDBRAIN_MM,
    Alignment,
    follow,
    nearest_ras,
    register,
    resampled,
    template,
    transform,
)
from nigradat.volume import Volume

ORDERS = [np.column_stack([order, flips]) for order in permutations(range(3)) for flips in product((1, -1), repeat=3)]


def stored(volume, order):
    """The same image stored in another of the 48 orders."""
    data = orientations.apply_orientation(volume.data, order)
    return Volume(data, volume.affine @ orientations.inv_ornt_aff(order, volume.data.shape), volume.source)


def test_there_are_48_orders():
    assert len({o.tobytes() for o in ORDERS}) == 48


@pytest.mark.parametrize("order", ORDERS, ids=lambda o: "".join(f"{int(a)}{'+-'[int(f < 0)]}" for a, f in o))
def test_the_storage_order_changes_nothing(order):
    affine = np.array([[0.6, 0, 0.1, -5], [0, 0.6, -0.2, 3], [-0.05, 0.1, 1.0, 2], [0, 0, 0, 1]])
    affine[:3, :3] = np.linalg.qr(affine[:3, :3])[0] * (-0.6, -0.6, 1.0)
    one = nearest_ras(Volume(np.arange(4 * 5 * 6).reshape(4, 5, 6), affine))
    other = nearest_ras(stored(one, order))
    np.testing.assert_array_equal(one.data, other.data)
    np.testing.assert_allclose(one.affine, other.affine, atol=1e-9)


numbers = st.floats(-1, 1)


@settings(max_examples=30)
@given(turn=st.tuples(numbers, numbers, numbers), shift=st.tuples(*[st.floats(-40, 40)] * 3), seed=st.integers(0, 99))
def test_there_and_back_again(turn, shift, seed):
    linear = registration._rigid(np.array([*turn, *shift]) * (0.4, 0.4, 0.4, 1, 1, 1), np.zeros(3))
    linear[:3, :3] *= 1.1
    bend_affine = np.diag([10.0, 10.0, 10.0, 1.0])
    bend_affine[:3, 3] = -60
    bend = 20 * ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=(13, 13, 13, 3)), (2, 2, 2, 0))
    aligned = Alignment(linear, bend.astype(np.float32), bend_affine)
    points = transform(np.linalg.inv(linear), np.random.default_rng(seed).uniform(-30, 30, (2, 4, 3)))
    np.testing.assert_allclose(aligned.to_scan(aligned.to_mni(points)), points, atol=1e-3)
    np.testing.assert_allclose(aligned.to_mni(points[0, 0]), aligned.to_mni(points)[0, 0])


def test_resampling_keeps_places():
    """A ramp along each axis has the same value at the same place on the coarser grid."""
    affine = np.diag([0.5, 0.5, 1.0, 1.0])
    index = np.stack(np.meshgrid(*map(np.arange, (40, 36, 20)), indexing="ij"), -1)
    ramp = transform(affine, index.astype(float)) @ (1.0, 2.0, -3.0)
    coarse = resampled(Volume(ramp, affine), 2.0)
    np.testing.assert_allclose(coarse.spacing_mm, 2.0)
    index = np.stack(np.meshgrid(*map(np.arange, coarse.data.shape), indexing="ij"), -1)
    expected = transform(coarse.affine, index.astype(float)) @ (1.0, 2.0, -3.0)
    inner = (slice(1, -1),) * 3
    np.testing.assert_allclose(coarse.data[inner], expected[inner], atol=0.05)


def test_a_slab_of_the_template_is_put_back_in_its_place():
    """Turned, shifted, its contrast inverted as in a T2*-weighted scan: the midbrain is found within a millimetre."""
    pytest.importorskip("SimpleITK")
    pytest.importorskip("nilearn")
    pose = registration._rigid(np.array([np.deg2rad(9), 0.03, -0.05, 0, 0, 0]), np.array([3.0, 12.0, -20.0]))
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    shape = (90, 110, 32)
    affine[:3, 3] = np.array([3.0, 6.0, -14.0]) - (np.array(shape) - 1)
    index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1)
    mni = transform(np.linalg.inv(template().affine) @ pose @ affine, index.astype(float))
    seen = ndimage.map_coordinates(template().data, np.moveaxis(mni, -1, 0), order=1)
    inverted = np.where(seen > 0.15, 1.3 - seen, seen) + 0.02 * np.random.default_rng(0).normal(size=shape)
    found = register(Volume(inverted, affine), deformable=False)
    near = MIDBRAIN_MM + np.array([[0, 0, 0], [12, 0, 0], [-12, 0, 0], [0, 10, 5]])
    truth = transform(np.linalg.inv(pose), near)
    assert np.linalg.norm(found.to_scan(near) - truth, axis=-1).max() < 1.0


def test_a_scan_follows_the_t1w_of_its_session_and_answers_for_itself():
    """The agreement is the scan's own: that of a T1w that was registered well says nothing about another image."""
    pytest.importorskip("SimpleITK")
    pytest.importorskip("nilearn")
    moved = np.eye(4)
    moved[:3, :3] = Rotation.from_euler("xyz", [4, -3, 5], degrees=True).as_matrix()
    moved[:3, 3] = 3, -4, 2
    brain = resampled(template(), 2.0)
    scan = Volume(brain.data, moved @ brain.affine)
    found = follow(scan, brain, Alignment(np.eye(4), agreement=0.9))
    near = MIDBRAIN_MM + np.array([[0, 0, 0], [12, 0, 0], [-12, 0, 0], [0, 10, 5]])
    assert np.linalg.norm(found.to_scan(near) - transform(moved, near), axis=-1).max() < 0.5
    assert found.agreement == pytest.approx(registration._agreement(nearest_ras(brain), Alignment(np.eye(4))), abs=0.2)
    assert found.agreement > MIN_AGREEMENT
    assert "through T1w" in found.method
    noise = Volume(np.random.default_rng(0).uniform(size=brain.data.shape).astype(np.float32), brain.affine)
    assert follow(noise, brain, Alignment(np.eye(4), agreement=0.9)).agreement < MIN_AGREEMENT


@pytest.mark.parametrize(("turn", "shift"), [(25, 0), (0, 40)])
def test_a_step_that_no_head_makes_within_a_session_is_refused(turn, shift):
    step = np.eye(4)
    step[:3, :3] = Rotation.from_euler("x", turn, degrees=True).as_matrix()
    step[:3, 3] = MIDBRAIN_MM - step[:3, :3] @ MIDBRAIN_MM + [0, 0, shift]
    with pytest.raises(ImageError, match=f"lie {shift} mm and {turn} degrees apart"):
        registration._check_rigid(step, MIDBRAIN_MM)


def test_what_is_no_head_is_refused():
    with pytest.raises(ImageError, match="without contrast"):
        register(Volume(np.ones((20, 20, 20)), np.eye(4)))
    spots = np.zeros((40, 40, 40))
    spots[::13, ::13, ::13] = 1
    with pytest.raises(ImageError, match="above the background"):
        register(Volume(spots, np.eye(4)))


def test_a_map_that_no_head_needs_is_refused():
    with pytest.raises(ImageError, match="stretches the head"):
        registration._check_affine(np.diag([1.0, 1.5, 1.0, 1.0]))
    with pytest.raises(ImageError, match="failed"):
        registration._check_affine(np.diag([-1.0, 1.0, 1.0, 1.0]))
