"""Susceptibility -> complex multi-echo images, by other formulas than the package's.

Fields come from closed forms in image space: a sphere's dipole field, and for maps the field of a uniformly magnetised
cuboid (the voxel) summed over all voxels without wrap-around. The package divides by the k-space kernel instead.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np
from scipy import signal

from nigradat.volume import MultiEchoGre

HZ_PER_PPM_AND_T = 42.577478518
AIR_PPM = 9.4  # air minus tissue
TIMES_MS = (14.0, 27.0, 40.0)


def grid_mm(shape, spacing):
    """Coordinates of the voxel centres around the middle of the box, three arrays that broadcast."""
    return np.meshgrid(
        *((np.arange(n) - (n - 1) / 2) * s for n, s in zip(shape, spacing, strict=True)), indexing="ij", sparse=True
    )


def sphere_field(shape, spacing, centre, radius, chi_ppm, b=(0.0, 0.0, 1.0)):
    """Field shift (ppm, Lorentz corrected) of a sphere in a main field along b: 0 inside, a dipole outside."""
    x, y, z = (g - c for g, c in zip(grid_mm(shape, spacing), centre, strict=True))
    r2 = np.maximum(x**2 + y**2 + z**2, 1e-12)
    along = b[0] * x + b[1] * y + b[2] * z
    outside = chi_ppm / 3 * radius**3 * (3 * along**2 - r2) / r2**2.5
    return np.where(r2 > radius**2, outside, 0.0)


def sphere_map(shape, spacing, centre, radius, chi_ppm, fine=4):
    """Susceptibility of a sphere, border voxels by the part that lies inside."""
    return chi_ppm * ellipsoid(shape, spacing, centre, (radius,) * 3, fine)


def ellipsoid(shape, spacing, centre, radii, fine=3):
    """The part of each voxel that lies in an ellipsoid."""
    total = np.zeros(shape)
    axes = [(np.arange(n) - (n - 1) / 2) * s for n, s in zip(shape, spacing, strict=True)]
    # voxels further off than a radius and a voxel cannot touch it
    near = [np.abs(a - c) <= r + s for a, c, r, s in zip(axes, centre, radii, spacing, strict=True)]
    x, y, z = np.ix_(*(a[n] for a, n in zip(axes, near, strict=True)))
    box = np.zeros((x.size, y.size, z.size))
    steps = (np.arange(fine) + 0.5) / fine - 0.5
    for dx, dy, dz in product(steps, repeat=3):
        box += (
            ((x + dx * spacing[0] - centre[0]) / radii[0]) ** 2
            + ((y + dy * spacing[1] - centre[1]) / radii[1]) ** 2
            + ((z + dz * spacing[2] - centre[2]) / radii[2]) ** 2
        ) <= 1
    total[np.ix_(*near)] = box / fine**3
    return total


def cuboid_kernel(shape, spacing, b):
    """Field of one voxel of 1 ppm at the centres of all voxels up to the box's size away, ``(2n - 1)`` a side.

    1/3 inside (Lorentz) minus b.N.b with the demagnetising tensor of a cuboid (Joseph and Schloemann 1965).
    """
    offsets = [np.arange(-(n - 1), n) * s for n, s in zip(shape, spacing, strict=True)]
    x, y, z = np.meshgrid(*offsets, indexing="ij", sparse=True)
    total = np.zeros([2 * n - 1 for n in shape])
    for sx, sy, sz in product((-1, 1), repeat=3):
        u, v, w = x + sx * spacing[0] / 2, y + sy * spacing[1] / 2, z + sz * spacing[2] / 2
        r = np.sqrt(u**2 + v**2 + w**2)
        part = 0.0
        for weight, (p, q, s) in zip(b, ((u, v, w), (v, w, u), (w, u, v)), strict=True):
            if weight:
                part = part + weight**2 * np.arctan(q * s / (p * r))
        for pair, (p, q, s) in (((0, 1), (u, v, w)), ((1, 2), (v, w, u)), ((0, 2), (u, w, v))):
            if (both := b[pair[0]] * b[pair[1]]) != 0:
                part = part - 2 * both * np.arcsinh(s / np.hypot(p, q))
        total += sx * sy * sz * part
    kernel = -total / (4 * np.pi)
    kernel[tuple(n - 1 for n in shape)] += 1 / 3
    return kernel


def field_of_map(chi_ppm, spacing, b=(0.0, 0.0, 1.0)):
    """Field shift (ppm) of a susceptibility map whose voxels are uniform cuboids; nothing lies outside the box."""
    return signal.fftconvolve(chi_ppm, cuboid_kernel(chi_ppm.shape, spacing, b), mode="same")


def signals(field_ppm, m0, r2star, *, times_ms=TIMES_MS, field_strength_t=3.0, offset=0.0, snr=np.inf, seed=0):
    """Complex echoes ``(E, X, Y, Z)``; noise SD is 1/snr of the image's brightest tissue at time 0."""
    rng = np.random.default_rng(seed)
    out = []
    for time in times_ms:
        phase = 2 * np.pi * HZ_PER_PPM_AND_T * field_strength_t * time * 1e-3 * field_ppm + offset
        echo = m0 * np.exp(-time * 1e-3 * r2star) * np.exp(1j * phase)
        if np.isfinite(snr):
            echo = echo + (rng.normal(size=echo.shape) + 1j * rng.normal(size=echo.shape)) / snr
        out.append(echo)
    return np.stack(out)


def as_gre(echoes, affine, *, times_ms=TIMES_MS, field_strength_t=3.0):
    """The echoes as a reader would hand them over."""
    return MultiEchoGre(np.abs(echoes), np.angle(echoes), times_ms, field_strength_t, affine)


@dataclass(frozen=True)
class Head:
    """A made-up head.

    ``chi`` and ``field`` (of the deep nuclei and cisterns alone) in ppm, ``inside`` the head, ``nuclei`` by name (part
    of each voxel), and the series a scanner would deliver.
    """

    chi: np.ndarray
    field: np.ndarray
    local_field: np.ndarray
    inside: np.ndarray
    nuclei: dict[str, np.ndarray]
    gre: MultiEchoGre
    clean_magnitude: np.ndarray


# name: centre (lateral, anterior, superior of the middle), radii in mm, susceptibility (ppm), R2* (1/s)
NUCLEI = {
    "substantia nigra": ((10, -3, -9), (3, 7, 4), 0.11, 38.0),
    "red nucleus": ((5, -6, -2), (3.5, 3.5, 4.5), 0.12, 38.0),
    "putamen": ((25, 12, 10), (6, 15, 9), 0.06, 26.0),
    "pallidum": ((17, 8, 7), (4, 9, 6), 0.15, 40.0),
    "dentate": ((14, -40, -20), (5, 7, 5), 0.10, 32.0),
    "ventricle": ((5, -10, 22), (3.5, 20, 6), 0.0, 4.0),
}


def make_head(
    shape=(112, 128, 48),
    spacing=(1.25, 1.25, 1.5),
    tilt_deg=0.0,
    snr=30.0,
    seed=0,
    cavity=True,
    skull=False,
    tissue_ppm=-0.005,
    spread=0.0,
):
    """An ellipsoid head cut by a slab, deep nuclei on both sides, an air cavity in front below, coil phase and shim.

    ``tilt_deg`` turns the slab about the right-left axis; ``spread`` varies the nuclei's values and places at random.
    """
    rng = np.random.default_rng([seed, 7])
    angle = np.radians(tilt_deg)
    rotation = np.array([[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]])
    b = rotation.T @ (0, 0, 1)
    affine = np.eye(4)
    affine[:3, :3] = rotation * spacing
    affine[:3, 3] = -affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    x, y, z = grid_mm(shape, spacing)
    extent = (np.array(shape) * spacing) / 2
    inside = (x / (extent[0] * 0.92)) ** 2 + (y / (extent[1] * 0.92)) ** 2 + (z / 95) ** 2 <= 1
    chi = np.full(shape, 0.0)
    r2star = np.full(shape, 19.5)
    m0 = np.ones(shape)
    nuclei = {}
    for name, (centre, radii, ppm, rate) in NUCLEI.items():
        part = np.zeros(shape)
        value = ppm + spread * rng.normal() * 0.02
        for side in (-1, 1):
            moved = np.array([side * centre[0], centre[1], centre[2]]) + spread * rng.normal(size=3)
            part = np.maximum(part, ellipsoid(shape, spacing, moved, radii))
        nuclei[name] = part
        chi += part * (value - tissue_ppm)
        r2star += part * (rate - 19.5)
        if name == "ventricle":
            m0 += 0.28 * part
    local = field_of_map(chi, spacing, b)
    chi += tissue_ppm
    background = 0.3 * x / 70 - 0.4 * y / 80 + 0.5 * (x**2 - y**2) / 70**2 + 0 * z
    if cavity:
        centre, radius = (3.0, 0.62 * extent[1], -extent[2] + 4), 14.0
        background = background + sphere_field(shape, spacing, centre, radius, AIR_PPM, b)
        hollow = ellipsoid(shape, spacing, centre, (radius,) * 3, 1) > 0
        inside = inside & ~hollow
    if skull:
        shell = (x / (extent[0] * 0.92)) ** 2 + (y / (extent[1] * 0.92)) ** 2 + (z / 95) ** 2
        m0 = np.where((shell > 0.80) & (shell < 0.93), 0.03, m0)
    m0 = m0 * inside
    offset = 0.8 + 0.9 * np.sin(x / 60 + y / 90) + 0.4 * z / 40
    field = local + background
    echoes = signals(field, m0, r2star, offset=offset, snr=snr, seed=seed)
    times = np.array(TIMES_MS)[:, None, None, None] * 1e-3
    clean = m0 * np.exp(-times * r2star)
    return Head(chi, field, local, inside, nuclei, as_gre(echoes, affine), clean)
