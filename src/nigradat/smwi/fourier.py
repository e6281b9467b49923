"""Convolution with dipoles and spheres on a zero-padded grid: what background removal and inversion stand on."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import fft

from nigradat.volume import Float32

Complex64 = npt.NDArray[np.complex64]
Spectrum = npt.NDArray[Any]
Frequency = npt.NDArray[np.floating]
_OVERSAMPLED = 5
_WORKERS = min(os.cpu_count() or 1, 8)


@dataclass(frozen=True)
class FourierGrid:
    """A box of voxels with zeros behind it, so that what leaves on one side does not come back on the other.

    Attributes:
        shape: of the images, ``(X, Y, Z)``.
        padded: of what is transformed; each number has small factors only, for speed.
        spacing_mm: voxel size.
    """

    shape: tuple[int, int, int]
    padded: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]

    @classmethod
    def around(cls, shape: tuple[int, ...], spacing_mm: npt.ArrayLike, padding_mm: float) -> FourierGrid:
        """The grid that leaves at least ``padding_mm`` between an image and its periodic copies."""
        spacing = [float(s) for s in np.asarray(spacing_mm)]
        sizes = [
            fft.next_fast_len(n + int(np.ceil(padding_mm / s)), real=True) for n, s in zip(shape, spacing, strict=True)
        ]
        return cls(_three(shape), _three(sizes), (spacing[0], spacing[1], spacing[2]))

    def forward(self, image: Float32) -> Complex64:
        """Spectrum of a real image of either size; the smaller one is padded with zeros."""
        spectrum: Complex64 = fft.rfftn(image, self.padded, workers=_WORKERS)
        return spectrum

    def inverse(self, spectrum: Spectrum, *, whole: bool = False) -> Float32:
        """Image of a spectrum, which is overwritten: without the padding, or the ``whole`` box."""
        image: Float32 = fft.irfftn(spectrum, self.padded, workers=_WORKERS, overwrite_x=True)
        return image if whole else image[tuple(slice(n) for n in self.shape)]

    @cached_property
    def frequencies(self) -> tuple[Frequency, Frequency, Frequency]:
        """Cycles/mm along the three axes, each shaped so that the three broadcast."""
        x, y, z = self.padded
        dx, dy, dz = self.spacing_mm
        return (
            np.fft.fftfreq(x, dx)[:, None, None],
            np.fft.fftfreq(y, dy)[None, :, None],
            np.fft.rfftfreq(z, dz)[None, None, :],
        )

    def dipole(self, direction: npt.ArrayLike) -> Float32:
        """Spectrum of the unit dipole: relative field shift (ppm) of one ppm of susceptibility.

        ``1/3 - (k.b)^2 / k^2``, 0 at k = 0 (Salomir et al. 2003; Marques and Bowtell 2005).

        Args:
            direction: unit vector b of the main field along the image's axes, ``(3,)``.
        """
        bx, by, bz = (float(b) for b in np.asarray(direction, dtype=np.float64))
        fx, fy, fz = self.frequencies
        # at the Nyquist frequency k and -k are one sample, so the products of two axes cancel there
        ox, oy, oz = (
            np.where(np.isclose(np.abs(f) * s, 0.5), 0.0, f)
            for f, s in zip(self.frequencies, self.spacing_mm, strict=True)
        )
        length = fx**2 + fy**2 + fz**2
        length[0, 0, 0] = 1.0
        along = (bx * fx) ** 2 + (by * fy) ** 2 + (bz * fz) ** 2
        along += 2 * (bx * by * ox * oy + bx * bz * ox * oz + by * bz * oy * oz)
        kernel: Float32 = (1 / 3 - along / length).astype(np.float32)
        kernel[0, 0, 0] = 0.0
        return kernel

    def gaussian(self, sd_mm: float) -> Float32:
        """Spectrum of a Gaussian of sum 1."""
        parts = [np.exp(-2 * (np.pi * sd_mm * k) ** 2).astype(np.float32) for k in self.frequencies]
        blur: Float32 = parts[0] * parts[1] * parts[2]
        return blur

    def holds(self, radius_mm: float) -> bool:
        """Whether a sphere finds room in the padded grid."""
        weights, _ = _sphere_weights(radius_mm, self.spacing_mm)
        return all(n <= room for n, room in zip(weights.shape, self.padded, strict=True))

    def sphere(self, radius_mm: float) -> Float32:
        """Spectrum of a sphere of sum 1 whose border voxels count by the part of them that lies inside."""
        weights, half = _sphere_weights(radius_mm, self.spacing_mm)
        box = np.zeros(self.padded, dtype=np.float32)
        box[tuple(slice(n) for n in weights.shape)] = weights
        box = np.roll(box, [-h for h in half], axis=(0, 1, 2))
        return np.ascontiguousarray(self.forward(box).real)


def _sphere_weights(radius_mm: float, spacing_mm: tuple[float, float, float]) -> tuple[Float32, tuple[int, ...]]:
    """Voxel weights of a sphere around the middle voxel, sum 1, and the number of voxels on each side of the middle."""
    # Sharing the sphere out to whole voxels adds a twelfth of their width squared to its second moment. Narrowed by
    # that it has equal moments along all axes, without which a saddle-shaped field would not average to 0.
    radii = [float(np.sqrt(max(radius_mm**2 - 5 / 12 * s**2, (s / 2) ** 2))) for s in spacing_mm]
    half = tuple(int(np.ceil(r / s - 0.5)) for r, s in zip(radii, spacing_mm, strict=True))
    n = _OVERSAMPLED
    axes = []
    for h, r, s in zip(half, radii, spacing_mm, strict=True):
        fine = (np.arange((2 * h + 1) * n) + 0.5) / n - 0.5 - h
        axes.append((fine * s / r) ** 2)
    inside = axes[0][:, None, None] + axes[1][None, :, None] + axes[2][None, None, :] <= 1
    x, y, z = (2 * h + 1 for h in half)
    part = inside.reshape(x, n, y, n, z, n).sum(axis=(1, 3, 5))
    return (part / part.sum()).astype(np.float32), half


def _three(sizes: Any) -> tuple[int, int, int]:
    x, y, z = (int(n) for n in sizes)
    return x, y, z
