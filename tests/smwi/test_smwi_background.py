"""V-SHARP: fields from outside vanish, those from inside stay."""

from __future__ import annotations

import numpy as np
import pytest

from forward_model import AIR_PPM, ellipsoid, field_of_map, grid_mm, sphere_field, sphere_map
from nigradat.errors import ImageError
from nigradat.smwi.background import VSharp, radii_mm

SHAPE, SPACING = (64, 68, 40), (1.5, 1.5, 2.0)
MASK = ellipsoid(SHAPE, SPACING, (0, 0, 0), (42, 45, 80), 1) > 0


def v_sharp(field, mask, spacing):
    sharp = VSharp.within(mask, spacing)
    return sharp.local(field), sharp.known


def outside_fields():
    x, y, z = grid_mm(SHAPE, SPACING)
    zero = np.zeros(SHAPE)
    return {
        "constant": zero + 3.0,
        "linear": zero + 0.02 * x - 0.03 * y + 0.01 * z,
        "quadratic": 1e-3 * (x**2 - y**2) + 5e-4 * (2 * z**2 - x**2 - y**2),
        "air sphere": sphere_field(SHAPE, SPACING, (0, 62, -15), 12, AIR_PPM),
        "air sphere, oblique field": sphere_field(SHAPE, SPACING, (0, 62, -15), 12, AIR_PPM, (0, 0.6, 0.8)),
    }


@pytest.mark.parametrize("name", outside_fields())
def test_a_field_from_outside_vanishes(name):
    field = outside_fields()[name].astype(np.float32)
    local, known = v_sharp(field, MASK, SPACING)
    assert not local[~known].any()
    # of all that there was; single precision leaves 1e-6 of a constant
    assert local[known].std() < 0.005 * max(field[MASK].std(), 0.01)


def test_a_field_from_inside_stays():
    chi = sphere_map(SHAPE, SPACING, (6, -8, 2), 6, 0.1) - sphere_map(SHAPE, SPACING, (-15, 5, -6), 5, 0.1)
    true = field_of_map(chi, SPACING)
    outside = sum(outside_fields().values())
    local, known = v_sharp((true + outside).astype(np.float32), MASK, SPACING)
    slope, _ = np.polyfit(true[known], local[known], 1)
    assert 0.95 < slope < 1.05
    assert np.corrcoef(true[known], local[known])[0, 1] > 0.99


def test_the_mask_loses_about_a_voxel_and_nothing_outside_it_is_seen():
    rng = np.random.default_rng(0)
    field = outside_fields()["quadratic"].astype(np.float32)
    _, known = v_sharp(field, MASK, SPACING)
    assert not (known & ~MASK).any()
    assert known.sum() > 0.85 * MASK.sum()
    dirty = np.where(MASK, field, rng.normal(size=SHAPE).astype(np.float32) * 100)
    assert np.array_equal(v_sharp(dirty, MASK, SPACING)[0], v_sharp(np.where(MASK, field, 0), MASK, SPACING)[0])


def test_radii_fall_to_the_next_voxel():
    radii = radii_mm(12, SPACING)
    assert radii[0] == 12
    assert radii[-1] == pytest.approx(2.02)
    assert (np.diff(radii) < 0).all()
    assert radii_mm(2.0, SPACING) == (2.0,)


@pytest.mark.parametrize("shape", [(64, 64, 10), (40, 40, 6), (8, 8, 8)])
def test_a_slab_thinner_than_the_largest_sphere_takes_smaller_ones(shape):
    v_sharp = VSharp.within(np.ones(shape, dtype=bool), (1.0, 1.0, 1.0))
    largest = min(12, (min(shape) - 1) // 2)
    assert len(v_sharp.spheres) == largest
    assert v_sharp.known.any()


def test_a_mask_like_paper_is_refused():
    thin = np.zeros(SHAPE, bool)
    thin[:, :, 20] = True
    with pytest.raises(ImageError, match="too thin"):
        v_sharp(np.zeros(SHAPE, np.float32), thin, SPACING)
