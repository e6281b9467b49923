"""The travelling values refuse what is no measurement and cannot be changed."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nigradat.anatomy import PATCH_SHAPE, Side, nominal_affine
from nigradat.errors import CohortError, ImageError, LateralityError, OrientationError
from nigradat.pair import NigralPair, SbrPair

AFFINES = np.stack([nominal_affine(side) for side in Side])
sbr = st.floats(0, 20, allow_nan=False)


def noise(seed=0):
    return np.random.default_rng(seed).uniform(0.5, 1.5, (2, *PATCH_SHAPE)).astype(np.float32)


def test_a_pair_is_a_read_only_copy():
    patches, affines = noise(), AFFINES.copy()
    pair = NigralPair(patches, affines, "sub-1")
    before = pair.patches.copy()
    patches[:] = 7
    affines[:] = 7
    assert np.array_equal(pair.patches, before)
    assert np.array_equal(pair.affines, AFFINES)
    for array in (pair.patches, pair.affines, pair.patch(Side.LEFT)):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1
    with pytest.raises(dataclasses.FrozenInstanceError):
        pair.participant_id = "sub-2"


def test_a_pair_keeps_right_first_and_converts_to_float32():
    patches = noise().astype(np.float64)
    pair = NigralPair(patches, AFFINES)
    assert pair.patches.dtype == np.float32
    assert np.array_equal(pair.patch(Side.RIGHT), patches[0].astype(np.float32))
    assert np.array_equal(pair.patch(Side.LEFT), patches[1].astype(np.float32))
    assert not pair.affine_is_nominal


def test_a_pair_from_bare_arrays_says_that_its_position_is_nominal():
    right, left = noise()
    pair = NigralPair.from_arrays(right, left, "sub-1")
    assert pair.affine_is_nominal
    assert np.array_equal(pair.affines, AFFINES)
    assert np.array_equal(pair.patches, np.stack([right, left]))


def spoilt(side, change):
    patches = noise()
    change(patches[side.index])
    return patches


@pytest.mark.parametrize("side", list(Side))
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: p.__setitem__((3, 4, 5), np.nan), "1 of 50000 voxels are no number"),
        (lambda p: p.__setitem__((0, 0), np.inf), "20 of 50000 voxels are no number"),
        (lambda p: p.fill(0.7), r"every voxel is 0\.7"),
        (lambda p: p.__isub__(1.5), "mean intensity -"),
    ],
    ids=["nan", "inf", "constant", "negative"],
)
def test_a_patch_that_is_no_measurement_is_refused_by_name(side, change, message):
    with pytest.raises(ImageError, match=rf"{side.value} patch of sub-9: {message}"):
        NigralPair(spoilt(side, change), AFFINES, "sub-9")


def test_wrong_shapes_are_refused():
    with pytest.raises(ImageError, match="pair of shape"):
        NigralPair(noise()[:1], AFFINES[:1])
    for affines in (AFFINES[:1], np.stack([*AFFINES, AFFINES[0]]), AFFINES[0]):
        with pytest.raises(OrientationError, match="affines of shape"):
            NigralPair(noise(), affines)


def test_exchanged_or_unusable_positions_are_refused():
    with pytest.raises(LateralityError):
        NigralPair(noise(), AFFINES[::-1])
    singular = AFFINES.copy()
    singular[0, :3, 0] = 0
    with pytest.raises(OrientationError, match="singular"):
        NigralPair(noise(), singular)


@pytest.mark.parametrize("flipped_axis", [0, 1, 2])
def test_patches_that_are_not_on_the_patch_grid_are_refused(flipped_axis):
    affines = AFFINES.copy()
    affines[0, :3, 3] += affines[0, :3, flipped_axis] * (PATCH_SHAPE[flipped_axis] - 1)
    affines[0, :3, flipped_axis] *= -1
    with pytest.raises(OrientationError, match="right patch of n/a has the axis codes"):
        NigralPair(noise(), affines)


@given(right=sbr, left=sbr)
def test_sbr_pairs_answer_by_side_and_exchange(right, left):
    pair = SbrPair(right, left)
    assert (pair[Side.RIGHT], pair[Side.LEFT]) == (right, left)
    assert pair.exchanged() == SbrPair(left, right)
    assert pair.exchanged().exchanged() == pair
    assert pair.asymmetry_index == pair.exchanged().asymmetry_index
    assert 0 <= pair.asymmetry_index <= 2 + 1e-12


def test_asymmetry_is_the_difference_over_the_mean():
    assert SbrPair(2.2, 1.8).asymmetry_index == pytest.approx(0.2)
    assert SbrPair(0.0, 0.0).asymmetry_index == 0


@pytest.mark.parametrize("value", [-0.01, np.nan, np.inf])
def test_labels_that_are_no_ratio_are_refused_by_side(value):
    with pytest.raises(CohortError, match="left SBR"):
        SbrPair(1.0, value)
    with pytest.raises(CohortError, match="right SBR"):
        SbrPair(value, 1.0)
