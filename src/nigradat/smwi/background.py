"""Taking away the field of what lies outside the mask: air, bone, the shim, the rest of the body."""

from __future__ import annotations

from dataclasses import dataclass

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


@dataclass(frozen=True, eq=False)
class VSharp:
    """Background removal by V-SHARP, made ready for one mask.

    A field whose sources lie outside a sphere equals its own mean over that sphere. Each voxel takes the largest sphere
    that fits into the mask around it; what the mean leaves is freed of that filter by division in k-space (Schweser et
    al. 2011; Li, Wu and Liu 2011; Wu et al. 2012).

    Attributes:
        grid: of the transforms.
        mask: where the total field is known.
        spheres: spectra of those that found a place, from large to small.
        choice: ``(X, Y, Z)``, 1 for the first of the spheres and so on, 0 where none fits.
        inverse_filter: spectrum that undoes the largest.
    """

    grid: FourierGrid
    mask: Mask
    spheres: tuple[Float32, ...]
    choice: npt.NDArray[np.uint8]
    inverse_filter: Float32

    @classmethod
    def within(
        cls, mask: Mask, spacing_mm: npt.ArrayLike, *, radius_mm: float = 12.0, threshold: float = 0.05
    ) -> VSharp:
        """Find the spheres.

        Args:
            mask: ``(X, Y, Z)``.
            spacing_mm: voxel size, ``(3,)``.
            radius_mm: of the largest sphere.
            threshold: of the filter's size in k-space, below which a frequency is left out.

        Raises:
            ImageError: not even the smallest sphere fits into the mask.
        """
        grid = FourierGrid.around(mask.shape, spacing_mm, radius_mm + float(np.max(spacing_mm)))
        spectrum = grid.forward(mask.astype(np.float32))
        choice = np.zeros(mask.shape, dtype=np.uint8)
        spheres: list[Float32] = []
        for radius in radii_mm(radius_mm, spacing_mm):
            if not grid.holds(radius):  # so neither does the mask, which is smaller
                continue
            sphere = grid.sphere(radius)
            new = (grid.inverse(spectrum * sphere) > _WHOLLY_INSIDE) & mask & (choice == 0)
            if new.any():
                spheres.append(sphere)
                choice[new] = len(spheres)
        if not spheres:
            raise ImageError(
                f"a mask too thin for a sphere of {radii_mm(radius_mm, spacing_mm)[-1]:.2g} mm radius",
                "a body of tissue",
                "Look at the mask, or give one of your own (--mask)",
            )
        largest = 1 - spheres[0]
        usable = np.abs(largest) > threshold
        inverse = np.divide(1, largest, out=np.zeros_like(largest), where=usable)
        return cls(grid, mask, tuple(spheres), choice, inverse)

    @property
    def known(self) -> Mask:
        """Where the local field comes out: the mask less about one voxel of its border."""
        known: Mask = self.choice > 0
        return known

    def local(self, field_ppm: Float32) -> Float32:
        """The part of a total field, ``(X, Y, Z)``, whose sources lie in the mask; 0 where it is not known."""
        spectrum = self.grid.forward(np.where(self.mask, field_ppm, np.float32(0)))
        rest = np.zeros_like(field_ppm)
        for number, sphere in enumerate(self.spheres, start=1):
            here = self.choice == number
            rest[here] = field_ppm[here] - self.grid.inverse(spectrum * sphere)[here]
        local = self.grid.inverse(self.grid.forward(rest) * self.inverse_filter)
        return np.where(self.known, local, np.float32(0))
