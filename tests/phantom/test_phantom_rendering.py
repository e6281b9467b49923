"""The renderer: sides, physics in closed form, and that a nuisance changes only what it names."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.interpolate import BSpline

from nigradat.anatomy import PATCH_SPACING_MM, Side, mirror, to_canonical
from nigradat.errors import ConfigError
from nigradat.phantom import Nuisance, Recipe, RenderedPair, SideNuisance, render_pair, rendering, sample_nuisance
from nigradat.phantom import anatomy as tissue
from nigradat.phantom.anatomy import N1_BIT, RN_BIT, SN_BIT

VOXEL_MM3 = float(np.prod(PATCH_SPACING_MM))


def nuisance(seed: int) -> Nuisance:
    return sample_nuisance(np.random.default_rng(seed))


@pytest.fixture(scope="module")
def healthy() -> list[RenderedPair]:
    return [render_pair(0.0, 0.0, nuisance(i)) for i in range(4)]


def correlation(a: npt.NDArray[np.generic], b: npt.NDArray[np.generic]) -> float:
    return float(np.corrcoef(a.ravel(), b.ravel())[0, 1])


def test_shapes_and_types(healthy: list[RenderedPair]) -> None:
    for pair in healthy:
        assert pair.patches.shape == pair.magnitude.shape == pair.masks.shape == (2, 50, 50, 20)
        assert pair.patches.dtype == pair.magnitude.dtype == np.float32
        assert pair.masks.dtype == np.uint8
        assert pair.patches.min() >= 0


def test_the_right_patch_is_in_native_view(healthy: list[RenderedPair]) -> None:
    for pair in healthy:
        right, left = pair.patches
        assert correlation(mirror(right), left) > correlation(right, left) + 0.15
        # the red nucleus lies medial of nigrosome-1: towards the patient's left in the right patch, and inversely
        columns = [np.nonzero(mask & RN_BIT)[1].mean() for mask in pair.masks]
        assert columns[Side.RIGHT.index] > 24.5 > columns[Side.LEFT.index]


def test_an_upright_head_with_equal_sides_is_its_own_mirror_image() -> None:
    same = SideNuisance(centring_mm=(0.3, -0.5, 0.2), sn_angle_deg=2.0, seed=5)
    pair = render_pair(0.4, 0.4, Nuisance(rotation_deg=(0.0, 5.0, 0.0), bias=(0.02, 0.0, 0.01), right=same, left=same))
    for array in (pair.patches, pair.magnitude, pair.masks):
        np.testing.assert_array_equal(mirror(array[0]), array[1])


def test_a_turned_head_turns_both_sides_alike_in_native_view() -> None:
    same = SideNuisance(seed=5)
    turned = render_pair(0.4, 0.4, Nuisance(rotation_deg=(0.0, 0.0, 8.0), right=same, left=same))
    back = render_pair(0.4, 0.4, Nuisance(rotation_deg=(0.0, 0.0, -8.0), right=same, left=same))
    assert not np.array_equal(mirror(turned.masks[0]), turned.masks[1])
    # the mirror image of a head turned one way is a head turned the other way
    np.testing.assert_array_equal(mirror(turned.masks[0]), back.masks[1])


def test_the_same_nuisance_gives_the_same_bits() -> None:
    first, again = (render_pair(0.3, 0.7, nuisance(9)) for _ in range(2))
    assert first.patches.tobytes() == again.patches.tobytes()
    assert first.masks.tobytes() == again.masks.tobytes()


def test_each_side_sees_its_own_degeneration_only() -> None:
    one, other = render_pair(0.1, 0.9, nuisance(3)), render_pair(0.1, 0.2, nuisance(3))
    np.testing.assert_array_equal(one.patches[0], other.patches[0])
    assert not np.array_equal(one.patches[1], other.patches[1])


def test_degeneration_darkens_nigrosome_and_nigra_and_nothing_far_away(healthy: list[RenderedPair]) -> None:
    for i, well in enumerate(healthy):
        ill = render_pair(1.0, 1.0, nuisance(i))
        n1, sn = (well.masks & N1_BIT) > 0, (well.masks & SN_BIT) > 0
        change = ill.patches / well.patches
        core = sn & ((ill.masks & SN_BIT) > 0) & ~n1
        assert change[n1].mean() < change[core].mean() < 0.9
        far = np.broadcast_to(np.arange(20) >= 18, sn.shape)
        np.testing.assert_array_equal(ill.patches[far], well.patches[far])


def test_structures_have_plausible_sizes_and_places(healthy: list[RenderedPair]) -> None:
    for pair in healthy:
        for mask in to_canonical(pair.masks):
            n1, sn, rn = ((mask & bit) > 0 for bit in (N1_BIT, SN_BIT, RN_BIT))
            assert sn[n1].all()
            assert 10 < n1.sum() * VOXEL_MM3 < 80
            assert 600 < sn.sum() * VOXEL_MM3 < 1200
            assert 230 < rn.sum() * VOXEL_MM3 < 600
            away = (np.argwhere(n1).mean(axis=0) - (24.5, 24.5, 9.5)) * PATCH_SPACING_MM
            assert np.linalg.norm(away) < 3.5


def test_power_zero_is_the_magnitude() -> None:
    plain = render_pair(0.5, 0.5, nuisance(1), Recipe(power=0.0))
    np.testing.assert_array_equal(plain.patches, plain.magnitude)
    weighted = render_pair(0.5, 0.5, nuisance(1))
    np.testing.assert_array_equal(weighted.magnitude, plain.magnitude)


def test_a_higher_threshold_weighs_less() -> None:
    usual, weak = (render_pair(0.5, 0.5, nuisance(1), Recipe(chi_threshold_ppm=t)).patches for t in (1.0, 2.0))
    assert (weak >= usual).all()
    assert weak.sum() > usual.sum()


def test_echoes_add_as_root_mean_square() -> None:
    m0 = np.full((2, 1, 1), 1.5, dtype=np.float32)
    r2star = np.array([20.0, 50.0], dtype=np.float32).reshape(2, 1, 1)
    found = rendering._echo_rms(m0, r2star, (10.0, 30.0)).ravel()
    expected = [1.5 * np.sqrt((np.exp(-2 * 0.01 * r) + np.exp(-2 * 0.03 * r)) / 2) for r in (20.0, 50.0)]
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_point_spread_keeps_constants_and_slopes() -> None:
    a, lat, s = np.meshgrid(np.arange(100), np.arange(100), np.arange(40), indexing="ij")
    fine = (3.0 + 0.02 * a + 0.01 * lat - 0.03 * s).astype(np.float32)
    found = rendering._acquire(fine, (0.45, 0.45, 0.5))
    assert found.shape == (50, 50, 20)
    i, j, k = np.meshgrid(np.arange(50), np.arange(50), np.arange(20), indexing="ij")
    expected = 3.0 + 0.02 * (2 * i + 0.5) + 0.01 * (2 * j + 0.5) - 0.03 * (2 * k + 0.5)
    np.testing.assert_allclose(found[3:-3, 3:-3, 3:-3], expected[3:-3, 3:-3, 3:-3], rtol=1e-5)


def test_point_spread_of_a_point_is_a_gaussian() -> None:
    point, sds = (50, 41, 20), (0.45, 0.45, 0.5)
    fine = np.zeros((100, 100, 40), dtype=np.float32)
    fine[point] = 1.0
    found = rendering._acquire(fine, sds)
    # voxel i is centred between the fine samples 2 i and 2 i + 1, which are half a voxel apart
    profiles = []
    for n, at, sd in zip(found.shape, point, sds, strict=True):
        profile = np.exp(-0.5 * ((at - (2 * np.arange(n) + 0.5)) / (2 * sd)) ** 2)
        profiles.append(profile / (2 * sd * np.sqrt(2 * np.pi)))
    expected = np.einsum("i,j,k->ijk", *profiles)
    np.testing.assert_allclose(found, expected, atol=0.02 * expected.max())
    assert found.sum() == pytest.approx(1 / 8, rel=0.02)


def test_noise_has_unit_variance_and_the_neighbour_correlation_of_its_kernel() -> None:
    rng = np.random.default_rng(1)
    noise = np.stack([rendering._shaped_noise(rng) for _ in range(6)])
    assert noise.std() == pytest.approx(1.0, abs=0.02)
    for axis, sd in zip((1, 2, 3), rendering._NOISE_VOXELS, strict=True):
        x = np.moveaxis(noise, axis, 0)
        # a Gaussian kernel convolved with itself is a Gaussian of twice the variance
        assert correlation(x[:-1], x[1:]) == pytest.approx(np.exp(-1 / (4 * sd**2)), abs=0.03)


@pytest.mark.parametrize("doublings", [(1, 1, 1), (2, 2, 1), (3, 3, 2)])
def test_random_fields_have_unit_variance_and_the_correlation_of_a_spline(doublings: tuple[int, int, int]) -> None:
    rng = np.random.default_rng(2)
    field = np.stack([rendering._random_field(rng, doublings) for _ in range(4)])
    assert field.shape == (4, 100, 100, 40)
    assert field.std() == pytest.approx(1.0, abs=0.06)
    for axis, times in zip((1, 2, 3), doublings, strict=True):
        x = np.moveaxis(field, axis, 0)
        # once refined: the autocorrelation of the mask 1 4 6 4 1; in the limit: the B-spline of degree seven
        spline = BSpline.basis_element(np.arange(-4, 5))
        expected = 2 * (1 - (56 / 70 if times == 1 else spline(0.5**times) / spline(0.0)))
        assert np.mean((x[1:] - x[:-1]) ** 2) == pytest.approx(expected, rel=0.12)


def test_subdivision_follows_the_cubic_b_spline() -> None:
    control = np.random.default_rng(3).normal(size=12)
    refined: npt.NDArray[np.floating] = control
    for _ in range(8):
        refined = rendering._double(refined, 0)
    # the curve lives between the second and the last but one control point
    spline = BSpline(np.arange(-2, 14), control, 3)
    middle = refined[len(refined) // 2 - 200 : len(refined) // 2 + 200]
    centre = (len(control) - 1) / 2
    at = centre + (np.arange(len(middle)) - (len(middle) - 1) / 2) / 2**8
    assert np.abs(spline(at) - middle).max() < 0.02


def test_gain_is_only_a_unit() -> None:
    small, large = (render_pair(0.5, 0.5, replace(nuisance(2), gain=g)).patches for g in (1.0, 1000.0))
    np.testing.assert_allclose(large / large.mean(), small / small.mean(), rtol=1e-4)


def test_more_noise_is_only_more_noise() -> None:
    usual, loud = (sample_nuisance(np.random.default_rng(6), noise_factor=f) for f in (1.0, 3.0))
    assert loud == replace(usual, snr=usual.snr / 3)
    quiet = render_pair(0.5, 0.5, replace(usual, snr=1e9, gain=1.0)).magnitude
    error = [render_pair(0.5, 0.5, replace(n, gain=1.0)).magnitude - quiet for n in (usual, loud)]
    assert error[1].std() / error[0].std() == pytest.approx(3.0, rel=0.05)


def test_noise_against_tissue_is_the_snr() -> None:
    flat = replace(nuisance(6), gain=1.0, bias=(0.0, 0.0, 0.0), ghost_amplitude=0.0)
    noisy, clean = (render_pair(0.0, 0.0, replace(flat, snr=snr)).magnitude for snr in (20.0, 1e9))
    noise = noisy - clean
    signal = np.sqrt(np.mean(np.exp(-2e-3 * np.array([14.0, 27.0, 40.0]) * 19.5)))
    assert signal / noise.std() == pytest.approx(20.0, rel=0.05)


@given(stress=st.floats(0.5, 4.0), seed=st.integers(0, 1000))
def test_centring_stress_has_its_length_and_changes_nothing_else(stress: float, seed: int) -> None:
    usual = nuisance(seed)
    far = sample_nuisance(np.random.default_rng(seed), centring_stress_mm=stress)
    for side in Side:
        away = np.subtract(far.side(side).centring_mm, usual.side(side).centring_mm)
        assert np.linalg.norm(away) == pytest.approx(stress)
        assert replace(far.side(side), centring_mm=usual.side(side).centring_mm) == usual.side(side)
    assert replace(far, right=usual.right, left=usual.left) == usual


def test_centring_moves_the_image_the_other_way() -> None:
    here = Nuisance(warp_mm=0.0)
    there = replace(here, left=replace(here.left, centring_mm=(2.0, -1.5, 3.0)))
    masks = [render_pair(0.0, 0.0, n).masks[Side.LEFT.index] & N1_BIT for n in (here, there)]
    moved = np.subtract(*(np.argwhere(mask).mean(axis=0) for mask in masks[::-1])) * PATCH_SPACING_MM
    np.testing.assert_allclose(moved, (-2.0, 1.5, -3.0), atol=0.25)


def test_a_ghost_repeats_the_head_along_the_phase_encoding_axis() -> None:
    clean = replace(nuisance(8), gain=1.0, snr=1e9, bias=(0.0, 0.0, 0.0), ghost_amplitude=0.0)
    ghosted = replace(clean, ghost_amplitude=0.2, ghost_phase=0.0)
    still, moved = (render_pair(0.5, 0.5, n).magnitude for n in (clean, ghosted))
    np.testing.assert_allclose(moved - still, 0.2 * np.roll(still, rendering._GHOST_SHIFT, axis=1), atol=2e-5)


def test_boxes_cut_nothing_off(monkeypatch: pytest.MonkeyPatch) -> None:
    usual = [render_pair(0.0, 1.0, nuisance(i)) for i in (1, 14)]
    monkeypatch.setattr(tissue.Grid, "box", lambda self, centre, half: (slice(0, 100), slice(0, 100), slice(0, 40)))
    for i, pair in zip((1, 14), usual, strict=True):
        everywhere = render_pair(0.0, 1.0, nuisance(i))
        np.testing.assert_allclose(everywhere.patches, pair.patches, rtol=2e-3)
        np.testing.assert_array_equal(everywhere.masks, pair.masks)


def test_axes_of_the_nigra_are_orthonormal() -> None:
    for angle in (20.0, 38.0, 50.0):
        axes = tissue.sn_axes(angle)
        np.testing.assert_allclose(axes @ axes.T, np.eye(3), atol=1e-12)
        # the lateral end lies behind the medial one; the plate descends backwards; thickness points forwards
        assert axes[0][0] < 0 < axes[0][1]
        assert axes[1][0] < 0 < axes[1][2]
        assert axes[2][0] > 0


@pytest.mark.parametrize(("right", "left", "named"), [(1.2, 0.5, "right"), (0.5, -0.1, "left"), (0.5, np.nan, "left")])
def test_a_degeneration_that_cannot_be(right: float, left: float, named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        render_pair(right, left, Nuisance())


@pytest.mark.parametrize("wrong", [{"te_ms": ()}, {"te_ms": (0.0, 3.0)}, {"chi_threshold_ppm": 0.0}, {"power": -1.0}])
def test_a_recipe_that_cannot_be(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        Recipe(**wrong)  # type: ignore[arg-type]
