"""Taking away the field of what lies outside the mask: air, bone, the shim, the rest of the body."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from nigradat.errors import ImageError
from nigradat.smwi.fourier import FourierGrid
from nigradat.smwi.masking import Mask
from nigradat.volume import Float32

_SHRINK = 0.72  # from one radius to the next
_WHOLLY_INSIDE = 1 - 1e-4


def radii_mm(largest_mm: float, spacing_mm: npt.ArrayLike) -> tuple[float, ...]:
    """Radii of the spheres, falling to the smallest that still reaches the next voxel along every axis."""
    smallest = 1.01 * float(np.max(spacing_mm))
    radii = [largest_mm]
    while radii[-1] * _SHRINK > smallest:
        radii.append(radii[-1] * _SHRINK)
    return (*radii, smallest) if radii[-1] > 1.1 * smallest else tuple(radii)


def v_sharp(
    field_ppm: Float32, mask: Mask, spacing_mm: npt.ArrayLike, *, radius_mm: float = 12.0, threshold: float = 0.05
) -> tuple[Float32, Mask]:
    """Local field by V-SHARP: a field whose sources lie outside a sphere equals its own mean over that sphere.

    Each voxel takes the largest sphere that fits into the mask around it; what the mean over the sphere leaves is freed
    of that filter by division in k-space (Schweser et al. 2011; Li, Wu and Liu 2011; Wu et al. 2012).

    Args:
        field_ppm: ``(X, Y, Z)``, total field.
        mask: where it is known.
        spacing_mm: voxel size, ``(3,)``.
        radius_mm: of the largest sphere.
        threshold: of the filter's size in k-space, below which a frequency is left out.

    Returns:
        The local field, 0 outside, and the mask in which it is known: the given one less one voxel of border.

    Raises:
        ImageError: not even the smallest sphere fits into the mask.
    """
    grid = FourierGrid.around(mask.shape, spacing_mm, radius_mm + float(np.max(spacing_mm)))
    field_spectrum = grid.forward(np.where(mask, field_ppm, np.float32(0)))
    mask_spectrum = grid.forward(mask.astype(np.float32))
    rest = np.zeros(mask.shape, dtype=np.float32)
    known = np.zeros(mask.shape, dtype=bool)
    filter_spectrum = None
    for radius in radii_mm(radius_mm, spacing_mm):
        sphere = grid.sphere(radius)
        fits = (grid.inverse(mask_spectrum * sphere) > _WHOLLY_INSIDE) & mask
        new = fits & ~known
        if not new.any():
            continue
        mean = grid.inverse(field_spectrum * sphere)
        rest[new] = field_ppm[new] - mean[new]
        known |= new
        if filter_spectrum is None:  # that of the largest sphere which found a place
            filter_spectrum = 1 - sphere
    if filter_spectrum is None:
        raise ImageError(
            f"a mask too thin for a sphere of {radii_mm(radius_mm, spacing_mm)[-1]:.2g} mm radius",
            "a body of tissue",
            "Look at the mask, or give one of your own (--mask)",
        )
    usable = np.abs(filter_spectrum) > threshold
    inverse_filter = np.divide(1, filter_spectrum, out=np.zeros_like(filter_spectrum), where=usable)
    local = grid.inverse(grid.forward(rest) * inverse_filter)
    return np.where(known, local, np.float32(0)), known
