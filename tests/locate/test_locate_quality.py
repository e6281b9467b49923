"""Each reported cause of failure has its flag, and a sound scan has none."""

from __future__ import annotations

import numpy as np
import pytest
from painted import painted, true_centres
from scipy import ndimage

from nigradat.anatomy import Side
from nigradat.locate.quality import volume_flags
from nigradat.locate.registration import Alignment
from nigradat.volume import Volume


def codes(volume, centres=None, aligned=None):
    return {flag.code for flag in volume_flags(volume, centres or true_centres(), aligned)}


def test_a_sound_scan_has_no_flag():
    assert codes(painted(), aligned=Alignment(np.eye(4))) == set()


def test_a_window_at_the_border():
    scan = painted(shape=(130, 110, 16))
    flags = [f for f in volume_flags(scan, true_centres()) if f.code == "field-of-view"]
    assert {f.side for f in flags} == set(Side)
    assert all("leaves the image" in f.message for f in flags)
    near = volume_flags(painted(shape=(130, 110, 22)), true_centres())
    assert {f.severity for f in near if f.code == "field-of-view"} == {"info"}


def test_thick_slices():
    assert "thickness" in codes(painted(shape=(130, 110, 30), spacing=(0.6, 0.6, 2.0)))
    assert "thickness" in codes(painted(shape=(80, 70, 60), spacing=(1.0, 1.0, 1.0)))


@pytest.mark.parametrize("order", [1, 3])
def test_slices_interpolated_from_thicker_ones(order):
    thick = painted(shape=(130, 110, 30), spacing=(0.6, 0.6, 2.0))
    data = ndimage.zoom(thick.data, (1, 1, 2), order=order, grid_mode=True, mode="nearest")
    fine = painted(shape=(130, 110, 60))
    assert "re-sliced" in codes(Volume(data, fine.affine))


def test_a_tilt_near_what_is_refused():
    assert "oblique" not in codes(painted(tilt_deg=20))
    assert "oblique" in codes(painted(tilt_deg=37))
    assert "oblique" in codes(painted(tilt_deg=42))


def test_centres_that_are_no_mirror_images():
    centres = true_centres()
    centres[Side.LEFT] = centres[Side.LEFT] + (0, 4, 0)
    assert "asymmetry" in codes(painted(), centres, Alignment(np.eye(4)))


def in_air(ghost):
    """A ball of signal in a wide field of air, with a share of it repeated half a field of view further."""
    shape = (120, 120, 40)
    place = np.stack(np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij"), -1)
    ball = 1000.0 * (np.linalg.norm(place * (1, 1, 0.1), axis=-1) < 0.45)
    ball += np.abs(np.random.default_rng(0).normal(0, 10, shape))
    affine = np.diag([2.0, 2.0, 2.5, 1.0])
    affine[:3, 3] = (-119, -139, -62)
    return Volume(ball + ghost * np.roll(ball, 60, axis=1), affine)


def test_ghosts():
    assert "motion" not in codes(in_air(0.0))
    assert "motion" in codes(in_air(0.15))
