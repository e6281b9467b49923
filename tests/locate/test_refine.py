"""On a scan painted with the atlas's own dark shapes a known movement is found again, and nothing is made of noise."""

from __future__ import annotations

import numpy as np
import pytest
from painted import painted, true_centres
from scipy.spatial.transform import Rotation

from nigradat.anatomy import Side
from nigradat.locate.atlas import parametric_atlas
from nigradat.locate.refine import refine
from nigradat.locate.registration import Alignment
from nigradat.volume import Volume


def moved(shift, turn_deg=(0, 0, 0)):
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_euler("xyz", turn_deg, degrees=True).as_matrix()
    centre = np.array([0.0, -20.0, -13.0])
    matrix[:3, 3] = centre + shift - matrix[:3, :3] @ centre
    return matrix


@pytest.mark.parametrize(
    ("shift", "turn"), [((0, 0, 0), (0, 0, 0)), ((1.5, -2, 1), (4, 0, -3)), ((-2, 1.5, -1.5), (-5, 3, 0))]
)
def test_a_known_movement_is_found_again(shift, turn):
    matrix = moved(shift, turn)
    found = refine(painted(matrix), parametric_atlas(), Alignment(np.eye(4)))
    assert found.accepted
    truth = true_centres(matrix)
    for side in Side:
        assert np.linalg.norm(found.centres[side] - truth[side]) < 0.6
        assert found.correlation[side] > 0.8


def test_where_nothing_is_dark_the_registration_stands():
    noise = painted(noise=0.05)
    flat = Volume(np.random.default_rng(1).normal(1000, 50, noise.data.shape), noise.affine)
    found = refine(flat, parametric_atlas(), Alignment(np.eye(4)))
    assert not found.accepted
    for side, site in true_centres().items():
        np.testing.assert_allclose(found.centres[side], site, atol=1e-6)


def test_where_iron_is_bright_the_registration_stands():
    scan = painted()
    found = refine(Volume(2000 - scan.data, scan.affine), parametric_atlas(), Alignment(np.eye(4)))
    assert not found.accepted
