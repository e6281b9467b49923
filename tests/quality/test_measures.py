"""Measures against closed forms, plain loops and images made to order."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from nigradat.anatomy import mirror
from nigradat.errors import ImageError
from nigradat.quality.measures import (
    IMAGE_MEASURES,
    SEARCH_VOXELS,
    Template,
    best_shift,
    correlation,
    image_measures,
)

NAMES = [measure.name for measure in IMAGE_MEASURES]


def smooth(seed: int, shape: tuple[int, int, int] = (70, 70, 36)) -> np.ndarray:
    """A random landscape around 1."""
    field = ndimage.gaussian_filter(np.random.default_rng(seed).standard_normal(shape), (3, 3, 1.5))
    return 1 + 0.2 * field / field.std()


def cut(landscape: np.ndarray, *offset: float) -> np.ndarray:
    """The 50 x 50 x 20 window, moved by some voxels, which need not be whole."""
    moved = ndimage.shift(landscape, [-o for o in offset], order=3, mode="nearest") if any(offset) else landscape
    return moved[10:60, 10:60, 8:28]


def of(patch: np.ndarray, name: str, template: Template | None = None) -> float:
    used = template or Template(cut(smooth(0)).astype(np.float32))
    return float(image_measures(np.stack([patch, patch]), used)[1, NAMES.index(name)])


def test_the_correlation_at_a_shift_is_that_of_the_two_windows():
    landscape = smooth(1)
    template, patch = Template(cut(landscape).astype(np.float32)), cut(smooth(2))
    straight, mirrored = template.correlate(patch)
    a, b, c = SEARCH_VOXELS
    core = template.mean[a:-a, b:-b, c:-c].ravel()
    turned = mirror(template.mean[a:-a, b:-b, c:-c]).ravel()
    for i, j, k in ((0, 0, 0), (8, 8, 4), (3, 15, 7), (16, 16, 8)):
        window = patch[i : i + 50 - 2 * a, j : j + 50 - 2 * b, k : k + 20 - 2 * c].ravel()
        assert straight[i, j, k] == pytest.approx(np.corrcoef(window, core)[0, 1], abs=1e-6)
        assert mirrored[i, j, k] == pytest.approx(np.corrcoef(window, turned)[0, 1], abs=1e-6)


@pytest.mark.parametrize("offset", [(0, 0, 0), (3, -5, 2), (-8, 0, 0), (0.4, -1.3, 0.5)])
def test_the_best_shift_is_where_the_window_was_cut(offset):
    landscape = smooth(3)
    straight, _ = Template(cut(landscape).astype(np.float32)).correlate(cut(landscape, *offset))
    shift, likeness = best_shift(straight)
    # a window moved by +o shows the landscape o voxels further back
    assert shift == pytest.approx(-np.array(offset) * (0.5, 0.5, 1.0), abs=0.1)
    assert likeness > 0.95  # that of the nearest whole voxel


def test_centring_is_the_length_of_the_shift():
    landscape = smooth(4)
    template = Template(cut(landscape).astype(np.float32))
    assert of(cut(landscape, 4, 0, 0), "centring", template) == pytest.approx(2.0, abs=0.05)
    assert of(cut(landscape, 0, 4, 2), "centring", template) == pytest.approx(np.hypot(2, 2), abs=0.05)


def test_handedness_changes_its_sign_with_the_mirror():
    landscape = smooth(5)
    template = Template(cut(landscape).astype(np.float32))
    right_way = of(cut(landscape), "handedness", template)
    assert right_way > 0.3
    assert of(mirror(cut(landscape)).copy(), "handedness", template) == pytest.approx(-right_way, abs=1e-6)


@pytest.mark.parametrize("name", ["noise", "slice-difference"])
@settings(max_examples=10)
@given(sd=st.floats(0.01, 0.1), seed=st.integers(0, 99))
def test_white_noise_is_measured_as_its_sd(name, sd, seed):
    rng = np.random.default_rng(seed)
    ramp = 1 + 0.002 * np.arange(50)[:, None, None] + 0.003 * np.arange(50)[:, None]  # which both masks do not see
    patch = ramp + sd * rng.standard_normal((50, 50, 20))
    assert of(patch, name) * patch.mean() == pytest.approx(sd, rel=0.05)


def test_sharpness_of_a_blur_is_that_of_its_transfer_function():
    rng = np.random.default_rng(6)
    patch = 1 + 0.1 * rng.standard_normal((50, 50, 20))
    sd_mm = 0.6
    blurred = ndimage.gaussian_filter(patch, (2 * sd_mm, 2 * sd_mm, 0), mode="wrap")

    def energy(low: float, high: float) -> float:
        f = np.linspace(low, high, 1001)
        return float(np.sum(f * np.exp(-2 * (2 * np.pi * f * sd_mm) ** 2 / 2)) / np.sum(f))

    expected = np.log10(energy(0.4, 0.6) / energy(0.2, 0.4))
    assert of(patch, "sharpness") == pytest.approx(0.0, abs=0.05)
    assert of(blurred, "sharpness") == pytest.approx(expected, abs=0.15)


def test_a_ghost_is_seen_at_either_sign():
    rng = np.random.default_rng(7)
    patch = 1 + 0.1 * ndimage.gaussian_filter(rng.standard_normal((50, 50, 20)), 0.7)
    before = of(patch, "ghost")
    for amplitude in (-0.3, 0.3):
        assert of(patch + amplitude * np.roll(patch - 1, 17, axis=0), "ghost") > before + 0.1


def test_mirror_correlation_is_of_both_sides():
    one, other = cut(smooth(8)), cut(smooth(9))
    values = image_measures(np.stack([one, other]), Template(one.astype(np.float32)))
    column = values[:, NAMES.index("mirror-correlation")]
    assert column == pytest.approx([np.corrcoef(one.ravel(), other.ravel())[0, 1]] * 2, abs=1e-5)
    assert correlation(one, np.ones_like(one)) == 0


@settings(max_examples=10)
@given(gain=st.floats(1e-3, 1e4), seed=st.integers(0, 20))
def test_the_scanners_unit_does_not_count(gain, seed):
    pair = np.random.default_rng(seed).uniform(0.5, 1.5, (2, 50, 50, 20)).astype(np.float32)
    template = Template(cut(smooth(0)).astype(np.float32))
    assert image_measures(pair * np.float32(gain), template) == pytest.approx(
        image_measures(pair, template), rel=2e-3, abs=2e-4
    )


def test_an_almost_constant_patch_has_finite_measures():
    rng = np.random.default_rng(0)
    pair = (100 + 1e-3 * rng.standard_normal((2, 50, 50, 20))).astype(np.float32)
    assert np.isfinite(image_measures(pair, Template(cut(smooth(0)).astype(np.float32)))).all()


def test_what_is_no_pair_is_refused():
    template = Template(cut(smooth(0)).astype(np.float32))
    with pytest.raises(ImageError, match="shape"):
        image_measures(np.ones((2, 50, 50, 19)), template)
    with pytest.raises(ImageError, match="mean"):
        image_measures(-np.ones((2, 50, 50, 20)), template)
