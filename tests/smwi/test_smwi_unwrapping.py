"""Unwrapping against phases whose turns are known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forward_model import grid_mm
from nigradat.errors import ImageError
from nigradat.smwi.unwrapping import unwrap, wrap

SHAPE = (24, 26, 12)


def smooth_phase(seed: int, steepest: float, shape=SHAPE) -> np.ndarray:
    """A random smooth phase whose largest step between neighbours is ``steepest``."""
    rng = np.random.default_rng(seed)
    x, y, z = grid_mm(shape, (1, 1, 1))
    phase = sum(
        rng.normal() * np.sin(rng.uniform(0.1, 0.4) * x + rng.uniform(0.1, 0.4) * y + rng.uniform(0.1, 0.4) * z)
        for _ in range(4)
    )
    largest = max(np.abs(np.diff(phase, axis=a)).max() for a in range(3))
    return (phase * steepest / largest).astype(np.float32)


def turns_off(found: np.ndarray, true: np.ndarray, mask: np.ndarray) -> np.ndarray:
    return np.round((found - true)[mask] / (2 * np.pi)).astype(int)


@settings(max_examples=15)
@given(st.integers(0, 10**6), st.floats(0.1, 3.0))
def test_steps_below_pi_are_undone_exactly(seed, steepest):
    true = smooth_phase(seed, steepest)
    mask = np.random.default_rng(seed).random(SHAPE) < 0.9
    mask[SHAPE[0] // 2] = True
    found = unwrap(wrap(true), mask, np.ones(SHAPE, np.float32))
    assert (found[~mask] == 0).all()
    from scipy import ndimage

    labels, n = ndimage.label(mask)
    for part in range(1, n + 1):
        off = turns_off(found, true, labels == part)
        assert (off == off[0]).all()
        assert found[labels == part] - true[labels == part] == pytest.approx(2 * np.pi * off[0], abs=2e-4)


def test_the_level_is_that_of_the_largest_part():
    true = np.zeros(SHAPE, np.float32)
    mask = np.zeros(SHAPE, bool)
    mask[:10], mask[14:20] = True, True
    true[:10] = 1.0
    true[14:20] = 1.0 + 2.0
    found = unwrap(true + 2 * np.pi, mask, np.ones(SHAPE, np.float32))
    assert found[mask] == pytest.approx(true[mask], abs=1e-5)


def test_a_noisy_wall_is_walked_around():
    """The straight way between the halves leads through noise; the bright way around it is right."""
    true = smooth_phase(5, 1.5) + np.float32(0.8) * np.arange(SHAPE[0], dtype=np.float32)[:, None, None]
    rng = np.random.default_rng(0)
    magnitude = np.ones(SHAPE, np.float32)
    phase = true.copy()
    wall = np.zeros(SHAPE, bool)
    wall[10:13, :-5] = True
    magnitude[wall] = 0.05
    phase[wall] = rng.uniform(-np.pi, np.pi, wall.sum())
    found = unwrap(wrap(phase), np.ones(SHAPE, bool), magnitude)
    off = turns_off(found, true, ~wall)
    assert (off == off[0]).all()


def test_a_vortex_is_cut_where_the_signal_is_low():
    """Around a phase pole no unwrapping is right everywhere; the cut must lie in the dark."""
    x, y, _ = np.meshgrid(*(np.arange(n) - n / 2 + 0.5 for n in SHAPE), indexing="ij")
    magnitude = np.where((np.abs(y) < 2) & (x > 0), 0.1, 1.0).astype(np.float32)
    found = unwrap(np.arctan2(y, x).astype(np.float32) % np.float32(2 * np.pi), np.ones(SHAPE, bool), magnitude)
    bright = magnitude == 1
    for axis in (0, 1):
        both = np.minimum(bright[1:], bright[:-1]) if axis == 0 else np.minimum(bright[:, 1:], bright[:, :-1])
        assert np.abs(np.diff(found, axis=axis))[both].max() < np.pi


def test_faults():
    ones = np.ones((3, 3, 3), np.float32)
    with pytest.raises(ImageError, match="empty mask"):
        unwrap(ones, np.zeros((3, 3, 3), bool), ones)
    with pytest.raises(ImageError, match="one shape"):
        unwrap(ones, np.ones((3, 3, 2), bool), ones)
