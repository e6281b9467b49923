"""Dipole kernel and inversions against fields from image space."""

from __future__ import annotations

import numpy as np
import pytest

from forward_model import field_of_map, sphere_field, sphere_map
from nigradat.smwi.fourier import FourierGrid
from nigradat.smwi.inversion import field_direction, tkd, tv

SHAPE, SPACING = (48, 50, 32), (1.0, 1.0, 1.5)
DIRECTIONS = [(0, 0, 1), (0, 0.6, 0.8), (0.48, 0.6, 0.64)]
EVERYWHERE = np.ones(SHAPE, bool)


def spheres():
    return (
        sphere_map(SHAPE, SPACING, (8, -6, 2), 5, 0.15)
        + sphere_map(SHAPE, SPACING, (-9, 7, -3), 4, 0.08)
        + sphere_map(SHAPE, SPACING, (-6, -10, 6), 4, -0.05)
    )


@pytest.mark.parametrize("b", DIRECTIONS)
def test_the_kernel_gives_a_spheres_field(b):
    grid = FourierGrid.around(SHAPE, SPACING, 60)
    chi = sphere_map(SHAPE, SPACING, (1, -2, 0), 6, 1.0).astype(np.float32)
    found = grid.inverse(grid.forward(chi) * grid.dipole(b))
    true = sphere_field(SHAPE, SPACING, (1, -2, 0), 6, 1.0, b)
    away = sphere_map(SHAPE, SPACING, (1, -2, 0), 8.5, 1.0) == 0
    assert np.abs(found - true)[away].max() < 0.02
    assert np.corrcoef(found[away], true[away])[0, 1] > 0.998


@pytest.mark.parametrize("padding", [0.0, 7.0, 20.0])
def test_the_kernel_is_its_own_adjoint(padding):
    """<D a, b> = <a, D b> also at the Nyquist frequency of an even grid and with an oblique field."""
    rng = np.random.default_rng(1)
    grid = FourierGrid.around((12, 10, 8), SPACING, padding)
    a, b = rng.normal(size=(2, *grid.padded)).astype(np.float32)
    kernel = grid.dipole(DIRECTIONS[2])
    through = [grid.inverse(grid.forward(i) * kernel, whole=True) for i in (a, b)]
    assert np.vdot(through[0], b) == pytest.approx(np.vdot(a, through[1]), rel=1e-4)


@pytest.mark.parametrize("radius", [3.0, 6.0, 9.5])
def test_a_sphere_has_sum_1_and_the_second_moment_of_a_sphere_along_every_axis(radius):
    grid = FourierGrid.around(SHAPE, SPACING, 10)
    spike = np.zeros(SHAPE, np.float32)
    spike[24, 25, 16] = 1
    ball = grid.inverse(grid.forward(spike) * grid.sphere(radius))
    assert ball.sum() == pytest.approx(1, abs=1e-4)
    for axis, (middle, step) in enumerate(zip((24, 25, 16), SPACING, strict=True)):
        profile = ball.sum(axis=tuple(a for a in range(3) if a != axis))
        moment = (profile * ((np.arange(SHAPE[axis]) - middle) * step) ** 2).sum()
        assert moment == pytest.approx(radius**2 / 5, rel=0.03)


@pytest.mark.parametrize("b", DIRECTIONS)
def test_both_inversions_find_the_spheres(b):
    true = spheres()
    field = field_of_map(true, SPACING, b).astype(np.float32)
    field += np.random.default_rng(0).normal(0, 0.001, SHAPE).astype(np.float32)
    found = {
        "tkd": tkd(field, EVERYWHERE, SPACING, b),
        "tv": tv(field, EVERYWHERE, np.ones(SHAPE, np.float32), SPACING, b, iterations=40),
    }
    inside = true != 0
    for name, chi in found.items():
        level = chi - chi[~inside].mean()
        slope, _ = np.polyfit(true[inside], level[inside], 1)
        assert 0.85 < slope < 1.15, name
        assert np.corrcoef(true[inside], level[inside])[0, 1] > 0.95, name
    error = {name: (chi - true)[EVERYWHERE].std() for name, chi in found.items()}
    assert error["tv"] < error["tkd"] / 2


def test_weights_silence_a_voxel_that_lies():
    true = spheres()
    field = field_of_map(true, SPACING).astype(np.float32)
    weight = np.ones(SHAPE, np.float32)
    lie = (30, 20, 16)
    field[lie] += 1.0
    weight[lie] = 0
    chi = tv(field, EVERYWHERE, weight, SPACING, (0, 0, 1), iterations=30)
    believed = tv(field, EVERYWHERE, np.ones(SHAPE, np.float32), SPACING, (0, 0, 1), iterations=30)
    assert (chi - true).std() < (believed - true).std() / 3


def test_more_iterations_lower_what_is_minimised():
    true = spheres()
    field = field_of_map(true, SPACING).astype(np.float32)
    field += np.random.default_rng(0).normal(0, 0.002, SHAPE).astype(np.float32)
    grid = FourierGrid.around(SHAPE, SPACING, 20)
    lam = 1e-3

    def goal(chi):
        misfit = grid.inverse(grid.forward(chi) * grid.dipole((0, 0, 1))) - field
        variation = sum(np.abs(np.diff(chi, axis=a)).sum() / s for a, s in enumerate(SPACING))
        return 0.5 * (misfit**2).sum() + lam * variation

    weight = np.ones(SHAPE, np.float32)
    goals = [
        goal(tv(field, EVERYWHERE, weight, SPACING, (0, 0, 1), lambda_ppm_mm=lam, iterations=n)) for n in (2, 8, 60)
    ]
    assert goals[0] > goals[1] > goals[2]
    assert goals[2] < goal(true.astype(np.float32))  # of which the truth is no minimum


def test_nothing_outside_the_mask():
    mask = np.zeros(SHAPE, bool)
    mask[10:-10, 10:-10, 6:-6] = True
    field = field_of_map(spheres(), SPACING).astype(np.float32)
    for chi in (
        tkd(field, mask, SPACING, (0, 0, 1)),
        tv(field, mask, np.ones_like(field), SPACING, (0, 0, 1), iterations=3),
    ):
        assert not chi[~mask].any()
        assert chi.dtype == np.float32


def test_progress_is_told():
    told = []
    field = np.zeros((8, 8, 8), np.float32)
    tv(field, field == 0, field + 1, (1, 1, 1), (0, 0, 1), iterations=3, progress=lambda *now: told.append(now))
    assert told == [(1, 3), (2, 3), (3, 3)]


def test_a_tilted_slab_sees_a_tilted_field():
    angle = np.radians(30)
    affine = np.eye(4)
    affine[:3, :3] = np.array([[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]]) * (
        0.5,
        0.5,
        1.0,
    )
    assert field_direction(affine, (0, 0, 1)) == pytest.approx([0, np.sin(angle), np.cos(angle)])
    # stored in another order, with axes flipped
    assert field_direction(np.array([[0, 0, 2, 0], [0, -1, 0, 0], [3, 0, 0, 0], [0, 0, 0, 1.0]]), (0, 0, 1)) == (
        pytest.approx([1, 0, 0])
    )
