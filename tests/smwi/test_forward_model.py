"""The truth itself: the summed fields of cuboid voxels give a sphere's closed form, along the axes and oblique."""

from __future__ import annotations

import numpy as np
import pytest

from forward_model import field_of_map, grid_mm, sphere_field, sphere_map


@pytest.mark.parametrize("b", [(0, 0, 1), (1, 0, 0), (0, 0.6, 0.8), (0.48, 0.6, 0.64)])
def test_cuboids_add_up_to_a_sphere(b):
    shape, spacing, centre, radius = (32, 32, 24), (1.0, 1.0, 1.5), (2.0, -1.0, 1.0), 7.0
    summed = field_of_map(sphere_map(shape, spacing, centre, radius, 1.0), spacing, b)
    closed = sphere_field(shape, spacing, centre, radius, 1.0, b)
    distance = np.sqrt(sum((g - c) ** 2 for g, c in zip(grid_mm(shape, spacing), centre, strict=True)))
    away = np.abs(distance - radius) > 2
    assert np.abs(closed).max() > 0.5
    assert np.abs(summed - closed)[away].max() < 0.02
