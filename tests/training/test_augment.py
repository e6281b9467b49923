"""Augmentation: a painted blob moves by what was drawn, along the right axes, and nothing else happens."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from nigradat.anatomy import PATCH_SHAPE
from nigradat.training.augment import Augmentation, apply_augmentation, draw_augmentation
from nigradat.training.config import make_config

STILL = {
    "probability": 1.0,
    "shift_voxels": 0.0,
    "shift_slices": 0,
    "rotation_deg": 0.0,
    "scale": 0.0,
    "noise": 0.0,
    "gain": 0.0,
    "mirror_pairs": 0.0,
}
PAIRS = 24


def recipe(**options: float) -> Augmentation:
    return Augmentation(**{**STILL, **options})  # type: ignore[arg-type]


def blobs(n: int, centre: tuple[float, float, float] = (24.5, 24.5, 9.5), sigma: float = 3.0) -> Tensor:
    grids = np.meshgrid(*(np.arange(size) for size in PATCH_SHAPE), indexing="ij")
    squared = sum((g - c) ** 2 for g, c in zip(grids, centre, strict=True))
    blob = np.exp(-squared / (2 * sigma**2)).astype(np.float32)
    return torch.from_numpy(blob).expand(n, 2, 1, *PATCH_SHAPE).clone()


def centres(x: Tensor) -> np.ndarray:
    """Centres of mass, ``(2 n, 3)`` voxels."""
    p = x.flatten(0, 2).double().numpy()
    total = p.sum(axis=(1, 2, 3))
    axes = [np.arange(size) for size in PATCH_SHAPE]
    sums = [np.einsum("nijk,i->n", p, axes[0]), np.einsum("nijk,j->n", p, axes[1]), np.einsum("nijk,k->n", p, axes[2])]
    return np.stack(sums, axis=1) / total[:, None]


def move(x: Tensor, a: Augmentation, seed: int = 0) -> Tensor:
    return apply_augmentation(x, torch.zeros(len(x), 2), draw_augmentation(a, len(x), seed))[0]


def test_nothing_drawn_is_nothing_done() -> None:
    x = 0.5 + torch.rand((3, 2, 1, *PATCH_SHAPE))
    assert torch.allclose(move(x, recipe()), x, atol=1e-5)
    wild = recipe(probability=0.0, shift_voxels=9.0, shift_slices=4, rotation_deg=90.0, scale=0.4)
    assert torch.allclose(move(x, wild), x, atol=1e-5)


def test_shifts_stay_in_plane_and_within_their_range() -> None:
    moved = centres(move(blobs(PAIRS), recipe(shift_voxels=3.0))) - centres(blobs(PAIRS))
    assert np.abs(moved[:, 2]).max() < 1e-3
    for axis in (0, 1):
        assert np.abs(moved[:, axis]).max() < 3.01
        assert moved[:, axis].max() > 2
        assert moved[:, axis].min() < -2
    assert abs(np.corrcoef(moved[:, 0], moved[:, 1])[0, 1]) < 0.5  # drawn apart


@pytest.mark.parametrize(("axis", "row"), [(0, 1), (1, 0)])
@pytest.mark.parametrize("voxels", [1, -2])
def test_a_whole_voxel_shift_is_a_roll(axis: int, row: int, voxels: int) -> None:
    x = 0.5 + torch.rand((1, 2, 1, *PATCH_SHAPE), generator=torch.Generator().manual_seed(1))
    draw = draw_augmentation(recipe(), 1, 0)
    draw.theta[:, row, 2] = voxels / 25  # grid_sample's unit is half the patch, and it asks where to look
    out, _ = apply_augmentation(x, torch.zeros(1, 2), draw)
    inner = (slice(None), slice(None), slice(None), slice(5, 45), slice(5, 45))
    assert torch.allclose(out[inner], torch.roll(x, -voxels, dims=3 + axis)[inner], atol=1e-4)


def test_slice_shifts_are_whole_slices() -> None:
    x = 0.5 + torch.rand((PAIRS, 2, 1, *PATCH_SHAPE), generator=torch.Generator().manual_seed(2))
    out = move(x, recipe(shift_slices=1))
    seen = set()
    for before, after in zip(x.flatten(0, 2), out.flatten(0, 2), strict=True):
        fits = [s for s in (-1, 0, 1) if torch.allclose(after[..., 2:18], before[..., 2 + s : 18 + s], atol=1e-5)]
        assert len(fits) == 1
        seen.add(fits[0])
    assert seen == {-1, 0, 1}


def test_rotation_turns_about_the_centre() -> None:
    centre, radius = np.array([24.5, 24.5]), 12.0
    x = blobs(PAIRS, (24.5 + radius, 24.5, 9.5), sigma=2.0)
    moved = centres(move(x, recipe(rotation_deg=10.0)))
    offset = moved[:, :2] - centre
    angle = np.degrees(np.arctan2(offset[:, 1], offset[:, 0]))
    assert np.hypot(*offset.T) == pytest.approx(radius, abs=0.02)
    assert np.abs(angle).max() < 10.05
    assert angle.max() > 6
    assert angle.min() < -6
    assert moved[:, 2] == pytest.approx(9.5, abs=1e-3)


@pytest.mark.parametrize("degrees", [30.0, 90.0, -45.0])
def test_a_known_angle(degrees: float) -> None:
    x = blobs(1, (34.5, 24.5, 9.5), sigma=2.0)
    draw = draw_augmentation(recipe(), 1, 0)
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    draw.theta[:, :, :2] = torch.tensor([[c, -s], [s, c]])
    moved = centres(apply_augmentation(x, torch.zeros(1, 2), draw)[0])
    # output at (column, row) looks at R (column, row): the blob, on the row axis, lands at R^-1 (0, 10) = 10 (s, c)
    assert moved[0, :2] - 24.5 == pytest.approx([10 * c, 10 * s], abs=0.02)


def test_zoom_moves_radially() -> None:
    x = blobs(PAIRS, (36.5, 24.5, 9.5), sigma=2.0)
    moved = centres(move(x, recipe(scale=0.2)))
    radius = moved[:, 0] - 24.5
    assert moved[:, 1] == pytest.approx(24.5, abs=0.02)
    assert radius.min() >= 12 / 1.2 - 0.05
    assert radius.max() <= 12 / 0.8 + 0.05
    assert radius.max() - radius.min() > 2


def test_noise_has_the_drawn_deviation() -> None:
    draw = draw_augmentation(recipe(noise=0.1), PAIRS, 3)
    x = torch.full((PAIRS, 2, 1, *PATCH_SHAPE), 4.0)
    out, _ = apply_augmentation(x, torch.zeros(PAIRS, 2), draw)
    noise = (out - x).flatten(0, 1).flatten(1)
    assert noise.std(dim=1).numpy() == pytest.approx(4 * draw.noise_sd.numpy(), rel=0.03)
    assert float(draw.noise_sd.max()) <= 0.1
    assert float(draw.noise_sd.min()) >= 0
    assert abs(float(torch.corrcoef(noise[:2])[0, 1])) < 0.03  # the sides have noise of their own


def test_the_intensity_field_is_linear_and_bounded() -> None:
    g = 0.2
    x = torch.ones((PAIRS, 2, 1, *PATCH_SHAPE))
    out = move(x, recipe(gain=g)).flatten(0, 2).double()
    for axis in range(3):
        middle = [s // 2 for s in PATCH_SHAPE]
        line = out[(slice(None), *(slice(None) if a == axis else middle[a] for a in range(3)))]
        assert float(line.diff(n=2, dim=1).abs().max()) < 1e-5
    assert float(out.max()) <= (1 + g) ** 3
    assert float(out.min()) >= (1 - g) ** 3
    assert float(out.std(dim=(1, 2, 3)).min()) > 0.005  # no global gain, which the division by the mean would undo


def test_a_mirrored_patient_exchanges_labels_along_with_patches() -> None:
    x = torch.rand((PAIRS, 2, 1, *PATCH_SHAPE))
    target = torch.rand((PAIRS, 2))
    out, labels = apply_augmentation(x, target, draw_augmentation(recipe(mirror_pairs=0.5), PAIRS, 1))
    exchanged = (labels == target.flip(1)).all(dim=1)
    assert 0 < int(exchanged.sum()) < PAIRS
    expected = torch.where(exchanged[:, None, None, None, None, None], x.flip(1), x)
    assert torch.allclose(out, expected, atol=1e-5)
    assert torch.equal(torch.where(exchanged[:, None], target.flip(1), target), labels)


def test_without_it_labels_stay() -> None:
    target = torch.rand((5, 2))
    everything = draw_augmentation(Augmentation(**make_config().to_json()["augmentation"]), 5, 1)
    assert torch.equal(apply_augmentation(torch.rand((5, 2, 1, *PATCH_SHAPE)), target, everything)[1], target)


@given(seed=st.integers(0, 2**62), n=st.integers(1, 4))
@settings(max_examples=8)
def test_the_seed_decides_everything_and_inputs_stay(seed: int, n: int) -> None:
    x, target = torch.rand((n, 2, 1, *PATCH_SHAPE)), torch.rand((n, 2))
    before, labels = x.clone(), target.clone()
    everything = Augmentation(shift_voxels=2, rotation_deg=8, scale=0.05, noise=0.03, mirror_pairs=0.5)
    one, two, other = (
        apply_augmentation(x, target, draw_augmentation(everything, n, s)) for s in (seed, seed, seed + 1)
    )
    assert torch.equal(x, before)
    assert torch.equal(target, labels)
    assert torch.equal(one[0], two[0])
    assert torch.equal(one[1], two[1])
    assert not torch.equal(one[0], other[0])
    assert one[0].shape == x.shape


@given(n=st.integers(1, 5), parts=st.integers(1, 3))
@settings(max_examples=8)
def test_some_pairs_move_as_they_do_in_the_whole_batch(n: int, parts: int) -> None:
    x, target = torch.rand((n, 2, 1, *PATCH_SHAPE)), torch.rand((n, 2))
    recipe = Augmentation(
        shift_voxels=2, shift_slices=1, rotation_deg=8, scale=0.05, noise=0.1, gain=0.1, mirror_pairs=0.5
    )
    drawn = draw_augmentation(recipe, n, 5)
    whole, labels = apply_augmentation(x, target, drawn)
    for first in range(min(n, parts)):
        pairs = range(first, n, parts)
        part, its_labels = apply_augmentation(x[list(pairs)], target[list(pairs)], drawn.of(pairs))
        assert torch.allclose(part, whole[list(pairs)], atol=1e-6)
        assert torch.equal(its_labels, labels[list(pairs)])


def test_movement_grows_over_the_first_epochs() -> None:
    full = Augmentation(shift_voxels=3.0, shift_slices=2, rotation_deg=10.0, scale=0.1, noise=0.2, ramp_epochs=4)
    x = 0.5 + torch.rand((2, 2, 1, *PATCH_SHAPE))
    assert torch.allclose(move(x, full.in_epoch(0)), x, atol=1e-5)
    half = full.in_epoch(2)
    assert (half.shift_voxels, half.shift_slices, half.rotation_deg, half.scale, half.noise) == (1.5, 1, 5, 0.05, 0.1)
    assert half.probability == full.probability
    for epoch in (4, 5, 100):
        assert full.in_epoch(epoch) == full
    still = Augmentation(ramp_epochs=0)
    assert still.in_epoch(0) == still
