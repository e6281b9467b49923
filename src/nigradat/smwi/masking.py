"""Where the phase can be believed: tissue, without air, bone, scalp and noise."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from nigradat.errors import ImageError
from nigradat.smwi.fourier import FourierGrid
from nigradat.volume import Float32

Mask = npt.NDArray[np.bool_]
LEVEL: Final = 0.3  # of tissue: air and bone lie below, a dark nucleus in the first echo above
BRIDGE_MM: Final = 3.0  # what joins brain and scalp is thinner than a sphere of this radius
HOLE_MM3: Final = 1000.0  # a vein or a dark nucleus is smaller, an air cavity is larger
MIN_VOLUME_ML: Final = 1.0
_SMOOTHED_MM: Final = 0.3  # against single noisy voxels


def tissue_mask(magnitude: Float32, spacing_mm: npt.ArrayLike, trusted: Mask | None = None) -> Mask:
    """The largest connected body of tissue in an image.

    Voxels brighter than 0.3 of typical tissue; thin bridges are cut (opening with a sphere of 3 mm), so that scalp and
    orbits fall away where bone lies between; the largest part stays; holes up to 1 ml are filled. It is no brain
    extraction: where the field of view is so narrow that no bone shows, it is the whole slab.

    Args:
        magnitude: ``(X, Y, Z)``, the first echo, which has lost least to T2*.
        spacing_mm: voxel size, ``(3,)``.
        trusted: ``(X, Y, Z)``, where the phase can be followed; nothing outside it belongs to the body.

    Raises:
        ImageError: no body of at least 1 ml is found.
    """
    from scipy import ndimage

    spacing = np.asarray(spacing_mm, dtype=np.float64)
    voxel_ml = float(spacing.prod()) / 1000
    tissue = magnitude[magnitude > _between_two_classes(magnitude)]
    typical = float(np.median(tissue)) if tissue.size else np.inf
    bright = ndimage.gaussian_filter(magnitude, _SMOOTHED_MM / spacing) > LEVEL * typical
    if trusted is not None:
        bright &= trusted
    body = largest_part(_opened(bright, spacing, BRIDGE_MM))
    if body.sum() * voxel_ml < MIN_VOLUME_ML:
        raise ImageError(
            f"{body.sum() * voxel_ml:.2g} ml of connected tissue in the magnitude",
            f"at least {MIN_VOLUME_ML:g} ml",
            "Look at the images, or give a mask of your own (--mask)",
        )
    body = _filled(body, HOLE_MM3 / float(spacing.prod()))
    return body if trusted is None else largest_part(body & trusted)


def check_mask(mask: npt.NDArray[np.generic], shape: tuple[int, ...]) -> Mask:
    """A mask given by the user: everything that is not 0.

    Raises:
        ImageError: another shape than the images, voxels that are no number, or nothing in it.
    """
    if mask.shape != shape:
        raise ImageError(f"a mask of shape {mask.shape}", f"that of the images, {shape}")
    if not np.isfinite(mask).all():
        raise ImageError("a mask with voxels that are no number", "0 outside and 1 inside")
    inside: Mask = mask != 0
    if not inside.any():
        raise ImageError("an empty mask", "0 outside and 1 inside")
    return inside


def bounding_box(mask: Mask) -> tuple[slice, slice, slice]:
    """The smallest box that holds a mask."""
    ranges = []
    for axis in range(3):
        used = np.flatnonzero(mask.any(axis=tuple(a for a in range(3) if a != axis)))
        ranges.append(slice(int(used[0]), int(used[-1]) + 1))
    return ranges[0], ranges[1], ranges[2]


def _between_two_classes(image: Float32) -> float:
    """Otsu's threshold (1979): the cut into dark and bright with the most variance between the two."""
    top = float(np.quantile(image, 0.999))
    counts, edges = np.histogram(image, bins=256, range=(0, top if top > 0 else 1))
    middle = (edges[1:] + edges[:-1]) / 2
    below = np.cumsum(counts)
    mass = np.cumsum(counts * middle)
    above = below[-1] - below
    both = (below > 0) & (above > 0)
    if not both.any():
        return 0.0  # one class only
    between = np.zeros(len(counts))
    means = mass[both] / below[both], (mass[-1] - mass[both]) / above[both]
    between[both] = below[both] * above[both] * (means[0] - means[1]) ** 2
    return float(edges[1 + int(between.argmax())])


def _opened(mask: Mask, spacing_mm: npt.NDArray[np.float64], radius_mm: float) -> Mask:
    """Erosion, then dilation, with a sphere. Beyond the image's border everything counts as inside."""
    margin = [int(np.ceil(radius_mm / s)) + 1 for s in spacing_mm]
    wide = np.pad(mask, [(m, m) for m in margin], mode="edge")
    grid = FourierGrid.around(wide.shape, spacing_mm, 0.0)
    sphere = grid.sphere(radius_mm)
    eroded = grid.inverse(grid.forward(wide.astype(np.float32)) * sphere) > 1 - 1e-3
    opened = grid.inverse(grid.forward(eroded.astype(np.float32)) * sphere) > 1e-3
    inner = tuple(slice(m, -m) for m in margin)
    return mask & opened[inner]


def largest_part(mask: Mask) -> Mask:
    """The largest connected part of a mask."""
    from scipy import ndimage

    labels, n = ndimage.label(mask)
    if n < 2:
        return mask
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    largest: Mask = labels == sizes.argmax()
    return largest


def _filled(mask: Mask, up_to_voxels: float) -> Mask:
    from scipy import ndimage

    labels, _ = ndimage.label(~mask)
    small = np.bincount(labels.ravel()) <= up_to_voxels
    small[0] = False
    filled: Mask = mask | small[labels]
    return filled
