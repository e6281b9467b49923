"""From the local field to the susceptibility that makes it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from nigradat.smwi.fourier import FourierGrid
from nigradat.smwi.masking import Mask
from nigradat.volume import Float32

PADDING_MM = 20.0  # between the mask and its periodic copy
_HOLD_GRADIENT = 100.0  # per ppm/mm; Milovic et al. 2018 found this ratio to lambda to converge quickly
Progress = Callable[[int, int], None]


def field_direction(affine: npt.ArrayLike, b0_direction: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """The main field along the axes of an image, ``(3,)``: a tilted slab sees a tilted field.

    Args:
        affine: ``(4, 4)``, voxel index to RAS+ mm.
        b0_direction: unit vector in RAS+.
    """
    axes = np.asarray(affine, dtype=np.float64)[:3, :3]
    along = (axes / np.linalg.norm(axes, axis=0)).T @ np.asarray(b0_direction, dtype=np.float64)
    direction: npt.NDArray[np.float64] = along / np.linalg.norm(along)
    return direction


def dipole_field(chi_ppm: Float32, spacing_mm: npt.ArrayLike, direction: npt.ArrayLike) -> Float32:
    """Field shift (ppm) that a susceptibility map (ppm) makes, ``(X, Y, Z)`` both; nothing lies outside the box."""
    grid = FourierGrid.around(chi_ppm.shape, spacing_mm, PADDING_MM)
    return grid.inverse(grid.forward(chi_ppm) * grid.dipole(direction))


def tkd(
    field_ppm: Float32, mask: Mask, spacing_mm: npt.ArrayLike, direction: npt.ArrayLike, *, threshold: float = 0.15
) -> Float32:
    """Thresholded k-space division (Shmueli et al. 2009), quick and streaky.

    Where the dipole kernel is smaller than ``threshold`` it is replaced by it, sign kept; the shrinking of the values
    that this brings is undone by one factor (Schweser et al. 2013).

    Args:
        field_ppm: ``(X, Y, Z)``, local field.
        mask: where it is known.
        spacing_mm: voxel size, ``(3,)``.
        direction: of the main field along the image's axes, ``(3,)``.
        threshold: above 0, below 2/3.

    Returns:
        Susceptibility in ppm, ``(X, Y, Z)``, 0 outside the mask.
    """
    grid = FourierGrid.around(mask.shape, spacing_mm, PADDING_MM)
    dipole = grid.dipole(direction)
    small = np.abs(dipole) < threshold
    floor = np.where(dipole < 0, np.float32(-threshold), np.float32(threshold))
    inverse = 1 / np.where(small, floor, dipole)
    kept = float((inverse * dipole).mean(dtype=np.float64))
    chi = grid.inverse(grid.forward(np.where(mask, field_ppm, np.float32(0))) * inverse) / np.float32(kept)
    return np.where(mask, chi, np.float32(0))


def tv(
    field_ppm: Float32,
    mask: Mask,
    weight: Float32,
    spacing_mm: npt.ArrayLike,
    direction: npt.ArrayLike,
    *,
    lambda_ppm_mm: float = 2e-4,
    iterations: int = 15,
    start: Float32 | None = None,
    progress: Progress | None = None,
) -> Float32:
    """The map with the least total variation that explains the field to within its noise.

    Minimises ``1/2 |W (D chi - field)|^2 + lambda |grad chi|_1`` by the alternating direction method of multipliers,
    with both terms split, so that every step is a division, in the image or in k-space (Bilgic et al. 2014; weighted
    data term: Milovic et al. 2018).

    Args:
        field_ppm: ``(X, Y, Z)``, local field.
        mask: where it is known.
        weight: ``(X, Y, Z)``, relative trust in the field, 1 for a typical voxel.
        spacing_mm: voxel size, ``(3,)``.
        direction: of the main field along the image's axes, ``(3,)``.
        lambda_ppm_mm: weight of the gradients (ppm/mm) against the squared misfit (ppm^2).
        iterations: of the minimisation.
        start: a map to begin with, ``(X, Y, Z)``; default 0.
        progress: called with (iterations done, in all).

    Returns:
        Susceptibility in ppm, ``(X, Y, Z)``, 0 outside the mask.
    """
    grid = FourierGrid.around(mask.shape, spacing_mm, PADDING_MM)
    inner = tuple(slice(n) for n in grid.shape)
    dipole = grid.dipole(direction)
    # how firmly each split variable is held to what it stands for; it sets the speed, not the goal
    hold = np.float32(_HOLD_GRADIENT * lambda_ppm_mm)
    divide_by = dipole**2 + hold * _laplacian_spectrum(grid)
    divide_by[0, 0, 0] = 1.0
    np.reciprocal(divide_by, out=divide_by)
    divide_by[0, 0, 0] = 0.0  # a constant makes no field
    trust = np.zeros(grid.padded, dtype=np.float32)
    trust[inner] = np.where(mask, weight, np.float32(0)) ** 2
    measured = np.zeros(grid.padded, dtype=np.float32)
    measured[inner] = field_ppm
    measured *= trust
    trust += 1
    np.divide(measured, trust, out=measured)
    np.reciprocal(trust, out=trust)

    chi, predicted, rest = (np.zeros(grid.padded, dtype=np.float32) for _ in range(3))
    if start is not None:
        chi[inner] = start
        predicted = grid.inverse(grid.forward(chi) * dipole, whole=True)
    cut_off = [np.zeros(grid.padded, dtype=np.float32) for _ in range(3)]
    step, push = np.empty(grid.padded, dtype=np.float32), np.empty(grid.padded, dtype=np.float32)
    for i in range(iterations):
        # the field: between what was measured and what the map predicts, by trust
        predicted += rest
        np.multiply(predicted, trust, out=rest)
        rest += measured
        np.subtract(predicted, rest, out=predicted)  # this is the dual of the next round
        rest -= predicted
        spectrum = grid.forward(rest)
        spectrum *= dipole
        rest, predicted = predicted, rest
        # the gradients: what a soft threshold leaves; what it cuts off is their dual
        push.fill(0)
        for axis, (dual, spacing) in enumerate(zip(cut_off, grid.spacing_mm, strict=True)):
            _difference(chi, axis, step)
            step += dual
            limit = np.float32(spacing / _HOLD_GRADIENT)
            np.clip(step, -limit, limit, out=dual)
            step -= dual
            step -= dual
            step *= hold / np.float32(spacing**2)
            _add_difference_adjoint(step, axis, push)
        spectrum += grid.forward(push)
        spectrum *= divide_by
        predicted = grid.inverse(spectrum * dipole, whole=True)
        chi = grid.inverse(spectrum, whole=True)
        if progress is not None:
            progress(i + 1, iterations)
    return np.where(mask, chi[inner], np.float32(0))


def _difference(image: Float32, axis: int, out: Float32) -> None:
    """Next voxel minus this one along an axis, around the box's edge."""
    image, out = np.moveaxis(image, axis, 0), np.moveaxis(out, axis, 0)
    np.subtract(image[1:], image[:-1], out=out[:-1])
    np.subtract(image[0], image[-1], out=out[-1])


def _add_difference_adjoint(image: Float32, axis: int, out: Float32) -> None:
    """Add the adjoint of :func:`_difference`: the voxel before minus this one."""
    image, out = np.moveaxis(image, axis, 0), np.moveaxis(out, axis, 0)
    out -= image
    out[1:] += image[:-1]
    out[0] += image[-1]


def _laplacian_spectrum(grid: FourierGrid) -> Float32:
    """Spectrum of the gradient (per mm) followed by its adjoint."""
    parts = [
        ((2 - 2 * np.cos(2 * np.pi * k * s)) / s**2).astype(np.float32)
        for k, s in zip(grid.frequencies, grid.spacing_mm, strict=True)
    ]
    total: Float32 = parts[0] + parts[1] + parts[2]
    return total
