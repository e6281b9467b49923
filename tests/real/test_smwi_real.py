"""SMWI arithmetic on a real three-echo crop (no midbrain in it): units, wraps, consistency of the echoes."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest

from nigradat.smwi.chain import make_smwi
from nigradat.smwi.field import fit_field, phase_coherence, radians_per_ppm
from nigradat.smwi.masking import tissue_mask
from nigradat.smwi.unwrapping import unwrap, wrap
from nigradat.smwi.weighting import combine_echoes, susceptibility_weight
from nigradat.volume import MultiEchoGre

TIMES_MS = (4.0, 8.0, 12.0)
FIELD_T = 7.0  # not stated with the data; it scales the susceptibility and nothing else


@pytest.fixture(scope="module")
def gre(shared_data):
    """The crop; its header shrinks the phase by a slope, so that it is brought to +-pi by its range."""
    images = [nib.load(shared_data / "gre" / f"mriresearchtools_{part}.nii.gz") for part in ("Mag", "Phase")]
    magnitude, phase = (np.moveaxis(np.asarray(image.dataobj, dtype=np.float32), 3, 0) for image in images)
    assert np.abs(phase).max() < 0.01
    phase = phase * np.float32(np.pi / np.abs(phase).max())
    return MultiEchoGre(magnitude, phase, TIMES_MS, FIELD_T, np.diag([*images[0].header.get_zooms()[:3], 1.0]))


def test_unwrapping_changes_nothing_but_whole_turns(gre):
    mask = tissue_mask(gre.magnitude[0], gre.spacing_mm, phase_coherence(gre) > 0.3)
    assert mask.mean() > 0.3
    found = unwrap(np.asarray(gre.phase[2]), mask, gre.magnitude[2])
    turns = (found - gre.phase[2])[mask] / (2 * np.pi)
    assert np.abs(turns - np.round(turns)).max() < 1e-4
    inner = mask[1:] & mask[:-1]
    jumps = np.abs(np.diff(found, axis=0))[inner] > np.pi
    before = np.abs(np.diff(gre.phase[2], axis=0))[inner] > np.pi
    assert jumps.mean() < max(before.mean() / 5, 1e-3)


def test_one_frequency_explains_all_echoes(gre):
    mask = tissue_mask(gre.magnitude[0], gre.spacing_mm, phase_coherence(gre) > 0.3)
    fit = fit_field(gre, mask)
    assert np.median(fit.residual_rad[mask]) < 0.2
    # between neighbouring echoes the measured phase grows as the fitted field says, apart from a constant
    grown = wrap(np.asarray(gre.phase[2] - gre.phase[1]))
    expected = fit.field_ppm * radians_per_ppm(FIELD_T, TIMES_MS[2] - TIMES_MS[1])
    rest = np.exp(1j * (grown - expected))[mask]
    assert abs(rest.mean()) > 0.95


@pytest.mark.parametrize("inversion", ["tv", "tkd"])
def test_arithmetic_of_the_image(gre, inversion):
    from nigradat.smwi.recipe import SmwiRecipe

    result = make_smwi(gre, SmwiRecipe(inversion=inversion))
    known = result.mask.data > 0
    assert known.any()
    assert np.isfinite(result.chi.data).all()
    # grey and white matter, vessels: tenths of a ppm at most
    assert 0.005 < result.chi.data[known].std() < 0.2
    expected = combine_echoes(gre.magnitude) * susceptibility_weight(result.chi.data)
    assert result.smwi.data == pytest.approx(expected, rel=1e-5)
