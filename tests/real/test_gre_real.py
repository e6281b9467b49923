"""Real phase of a 7 T scan, in NIfTI files whose scaling is wrong."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest

from nigradat.errors import ImageError
from nigradat.io.gre import read_gre, read_scan, use_of


@pytest.fixture(scope="module")
def folder(shared_data):
    return shared_data / "gre"


@pytest.fixture(scope="module")
def gre(folder):
    return read_gre(folder, echo_times_ms=[4, 8, 12], field_strength_t=7)


def test_the_header_would_shrink_the_phase(folder):
    wrong = np.asarray(nib.load(folder / "mriresearchtools_Phase.nii.gz").dataobj)
    assert np.abs(wrong).max() < 0.004


def test_the_phase_is_the_stored_one(folder, gre):
    stored = np.asarray(nib.load(folder / "mriresearchtools_Phase.nii.gz").dataobj.get_unscaled())
    assert gre.phase.shape == (3, 51, 51, 41)
    assert np.abs(gre.phase - np.moveaxis(stored, -1, 0)).max() < 1e-6
    assert "scl_slope of 0.00117 disregarded" in " ".join(gre.source.steps)
    assert "not known for an unnamed maker" in " ".join(gre.source.steps)


def test_the_grid_and_the_echoes(gre):
    assert gre.echo_times_ms.tolist() == [4, 8, 12]
    np.testing.assert_allclose(gre.spacing_mm, (0.46875, 0.46875, 1.0))
    np.testing.assert_allclose(gre.affine[:3, 3], (-104.53125, -104.53125, -55))


def test_phase_grows_linearly_from_echo_to_echo(gre):
    """The same field acts from echo to echo, so the phase steps agree; wrongly scaled ones would not wrap alike."""
    first, second = (np.angle(np.exp(1j * (gre.phase[e + 1] - gre.phase[e]))) for e in (0, 1))
    apart = np.angle(np.exp(1j * (second - first)))
    strong = gre.magnitude[2] > np.median(gre.magnitude[2])
    assert np.median(np.abs(apart[strong])) < 0.2


def test_without_echo_times_they_are_asked_for(folder):
    with pytest.raises(ImageError, match="3 echoes without echo times"):
        read_gre(folder)
    (series,) = read_scan(folder)
    assert use_of(series).purpose == "image"
