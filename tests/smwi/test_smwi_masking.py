"""The mask: tissue and dark nuclei in, air, bone, scalp and noise out."""

from __future__ import annotations

import numpy as np
import pytest

from forward_model import ellipsoid, grid_mm
from nigradat.errors import ImageError
from nigradat.smwi.masking import bounding_box, check_mask, largest_part, tissue_mask

SHAPE, SPACING = (80, 90, 40), (1.5, 1.5, 1.5)


def phantom():
    x, y, z = grid_mm(SHAPE, SPACING)
    r = np.sqrt((x / 52) ** 2 + (y / 60) ** 2 + (z / 90) ** 2)
    brain, scalp = r < 0.8, (r > 0.93) & (r < 1)
    image = np.where(brain, 1.0, np.where(scalp, 1.4, 0.02))
    image = image * (1 + 0.2 * x / 60)  # receive field
    nucleus = ellipsoid(SHAPE, SPACING, (8, -5, 0), (3, 4, 4)) > 0.5
    cavity = ellipsoid(SHAPE, SPACING, (0, 35, -20), (12, 10, 12)) > 0
    image[nucleus] *= 0.5
    image[cavity] = 0.02
    rng = np.random.default_rng(0)
    noisy = np.abs(image + 0.03 * (rng.normal(size=SHAPE) + 1j * rng.normal(size=SHAPE)))
    return noisy.astype(np.float32), brain & ~cavity, scalp, nucleus, cavity


def test_brain_without_scalp_and_air():
    image, brain, scalp, nucleus, cavity = phantom()
    mask = tissue_mask(image, SPACING)
    assert 2 * (mask & brain).sum() / (mask.sum() + brain.sum()) > 0.98
    assert mask[nucleus].all()
    assert not mask[scalp].any()
    assert mask[cavity].mean() < 0.1


def test_a_hole_as_dark_as_a_vein_is_filled():
    image, *_ = phantom()
    vein = ellipsoid(SHAPE, SPACING, (-15, 0, 3), (2.5, 2.5, 8)) > 0
    image[vein] = 0.05
    assert tissue_mask(image, SPACING)[vein].all()


def test_what_is_not_trusted_is_out_and_so_is_what_it_cuts_off():
    image, *_ = phantom()
    trusted = np.ones(SHAPE, bool)
    trusted[:, 60:63] = False
    mask = tissue_mask(image, SPACING, trusted)
    assert mask[:, :60].any()
    assert not mask[:, 60:].any()


def test_the_unit_of_the_image_does_not_matter():
    image, *_ = phantom()
    assert np.array_equal(tissue_mask(image, SPACING), tissue_mask(image * np.float32(3000), SPACING))


@pytest.mark.parametrize("image", [np.zeros(SHAPE, np.float32), np.ones((4, 4, 4), np.float32)])
def test_nothing_to_be_found_is_said(image):
    with pytest.raises(ImageError, match=r"ml of connected tissue.*--mask"):
        tissue_mask(image, SPACING)


def test_a_given_mask_is_checked():
    assert check_mask(np.array([[[0, 2], [0.5, 0]]]), (1, 2, 2)).tolist() == [[[False, True], [True, False]]]
    for bad, words in (
        (np.ones((1, 2, 3)), "shape"),
        (np.zeros((1, 2, 2)), "empty"),
        (np.full((1, 2, 2), np.nan), "no number"),
    ):
        with pytest.raises(ImageError, match=words):
            check_mask(bad, (1, 2, 2))


def test_box_and_largest_part():
    mask = np.zeros((6, 6, 6), bool)
    mask[1:3, 2:5, 3], mask[5, 5, 5] = True, True
    assert bounding_box(mask) == (slice(1, 6), slice(2, 6), slice(3, 6))
    assert bounding_box(largest_part(mask)) == (slice(1, 3), slice(2, 5), slice(3, 4))
