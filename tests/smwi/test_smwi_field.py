"""One field from all echoes: noise-free it is exact, whatever wraps, coils and echo times do."""

from __future__ import annotations

import numpy as np
import pytest

from forward_model import HZ_PER_PPM_AND_T, as_gre, grid_mm, signals
from nigradat.errors import ImageError
from nigradat.smwi.field import fit_field, phase_coherence, radians_per_ppm
from nigradat.volume import MultiEchoGre

SHAPE, SPACING = (28, 30, 16), (2.0, 2.0, 2.0)
EVERYWHERE = np.ones(SHAPE, bool)
AFFINE = np.diag([2.0, 2.0, 2.0, 1.0])


def some_field(scale=1.0):
    x, y, z = grid_mm(SHAPE, SPACING)
    return scale * (0.4 * np.sin(x / 12) + 0.3 * np.cos(y / 15) + 0.01 * z)


def unevenness(found, true):
    """Largest deviation, apart from a constant."""
    difference = found - true
    return np.abs(difference - np.median(difference)).max()


@pytest.mark.parametrize("times", [(14, 27, 40), (5, 12, 19, 26, 33), (14, 27), (4, 9, 16.5), (6.5, 20, 29)])
def test_the_field_of_a_noise_free_series(times):
    true = some_field()
    gre = as_gre(signals(true, np.ones(SHAPE), 20.0, times_ms=times, offset=1.2), AFFINE, times_ms=times)
    # the field spans many turns at the last echo
    assert np.ptp(true) * radians_per_ppm(3.0, times[-1]) > 2 * np.pi
    fit = fit_field(gre, EVERYWHERE)
    assert unevenness(fit.field_ppm, true) < 1e-4
    assert fit.residual_rad.max() < 0.01


def test_a_coil_phase_does_not_look_like_a_field():
    true = some_field()
    x, y, z = grid_mm(SHAPE, SPACING)
    offset = 1.0 + 1.2 * np.sin(x / 60 + y / 80) + 0.01 * z
    with_coil = fit_field(as_gre(signals(true, np.ones(SHAPE), 20.0, offset=offset), AFFINE), EVERYWHERE)
    inner = np.zeros(SHAPE, bool)
    inner[5:-5, 5:-5, 5:-5] = True  # near the border the smoothing sees one side only
    # 0.003 ppm is 0.03 rad at the mean echo time; the coil's phase has a range of 2
    assert unevenness(with_coil.field_ppm[inner], true[inner]) < 0.003


def test_a_phase_of_a_whole_echo_does_not_matter():
    true = some_field()
    echoes = signals(true, np.ones(SHAPE), 20.0)
    turned = echoes * np.exp(1j * np.array([0.3, -0.9, 2.0])).reshape(3, 1, 1, 1)
    plain, odd = (fit_field(as_gre(e, AFFINE), EVERYWHERE).field_ppm for e in (echoes, turned))
    assert unevenness(odd, plain) < 1e-4


def test_noise_falls_as_the_weights_say():
    """SD of a line through the origin: 1 / (SNR sqrt(sum (M TE)^2)), as phase, over radians per ppm."""
    snr, times = 40.0, np.array([14, 27, 40])
    gre = as_gre(signals(some_field(), np.ones(SHAPE), 20.0, snr=snr, seed=1), AFFINE)
    fit = fit_field(gre, EVERYWHERE)
    error = fit.field_ppm - some_field()
    expected = 1 / (snr * np.sqrt(np.sum((np.exp(-times * 0.02) * times) ** 2))) / radians_per_ppm(3.0, 1.0)
    assert error.std() == pytest.approx(expected, rel=0.1)


def test_dark_voxels_weigh_less():
    dark = np.zeros(SHAPE, bool)
    dark[10:14, 10:14, 6:9] = True
    gre = as_gre(signals(some_field(), np.where(dark, 0.25, 1.0), 20.0), AFFINE)
    weight = fit_field(gre, EVERYWHERE).weight
    assert weight[~dark] == pytest.approx(1.0, abs=1e-3)
    assert weight[dark] == pytest.approx(0.25, abs=1e-3)


def test_radians_per_ppm():
    assert radians_per_ppm(3.0, 20.0) == pytest.approx(2 * np.pi * HZ_PER_PPM_AND_T * 3 * 0.02)


def test_coherence_tells_tissue_from_noise_and_from_too_steep_a_field():
    rng = np.random.default_rng(0)
    gentle = phase_coherence(as_gre(signals(some_field(0.3), np.ones(SHAPE), 20.0), AFFINE))
    noise = as_gre(rng.normal(size=(3, *SHAPE)) + 1j * rng.normal(size=(3, *SHAPE)), AFFINE)
    x, _, _ = grid_mm(SHAPE, SPACING)
    half_cycle = x / 2 * 0.5 / (HZ_PER_PPM_AND_T * 3 * 0.013) + np.zeros(SHAPE)
    steep = phase_coherence(as_gre(signals(half_cycle, np.ones(SHAPE), 20.0), AFFINE))
    assert gentle.min() > 0.8
    assert np.median(phase_coherence(noise)) < 0.4
    assert steep[2:-2].max() < 0.4


def test_faults():
    gre = as_gre(signals(some_field(), np.ones(SHAPE), 20.0), AFFINE)
    with pytest.raises(ImageError, match=r"mask of shape \(2, 2, 2\)"):
        fit_field(gre, np.ones((2, 2, 2), bool))
    silent = MultiEchoGre(gre.magnitude, None, gre.echo_times_ms, 3.0, AFFINE)
    with pytest.raises(ImageError, match="without their phase"):
        fit_field(silent, EVERYWHERE)
    single = MultiEchoGre(gre.magnitude[:1], gre.phase[:1], [14.0], 3.0, AFFINE)
    with pytest.raises(ImageError, match=r"a single echo.*two echoes"):
        fit_field(single, EVERYWHERE)
