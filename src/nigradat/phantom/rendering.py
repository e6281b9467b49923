"""From degeneration to a patch pair: tissue -> multi-echo magnitude and susceptibility -> SMWI, with nuisances.

The chain follows the acquisition: tissue maps on a grid of half the voxel size; the root mean square over the echoes of
``M0 exp(-TE R2*)``; the scanner's point spread, for magnitude and susceptibility alike; complex noise of the same
shape; and only then, on the acquired grid, the weighting ``clip(1 - chi / threshold, 0, 1) ** power`` of
susceptibility map-weighted imaging (Nam 2017), as it is done with a measured susceptibility map.

Everything that is not degeneration is in a :class:`Nuisance`. It holds the seeds of the random fields too, so a patient
can be rendered again with another degeneration, another recipe or more noise, and nothing else changes. Filters are
sums of slices, not matrix products: the bits do not depend on the number of threads of a linear algebra library.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np
import numpy.typing as npt

from nigradat.anatomy import PATCH_SHAPE, PATCH_SPACING_MM, Side, mirror
from nigradat.errors import ConfigError
from nigradat.phantom.anatomy import (
    N1_BIT,
    RN_BIT,
    SN_BIT,
    TISSUE,
    Box,
    Field,
    Grid,
    SideAnatomy,
    Texture,
    Vein,
    tissue_maps,
)

Vector = tuple[float, float, float]

_SUPERSAMPLING: Final = 2
_FINE_SHAPE: Final = (100, 100, 40)  # the patch with half the voxel size
_FINE_MM: Final = (0.25, 0.25, 0.5)
_PSF_VOXELS: Final = (0.45, 0.45, 0.50)  # SD of the point spread, in voxels
_NOISE_VOXELS: Final = (0.78, 0.78, 0.85)  # SD of the kernel that shapes the noise, in voxels
_NOISE_REACH: Final = 3  # taps on each side of that kernel
_GHOST_SHIFT: Final = 17  # voxels along the phase-encoding (anterior) axis
_CHI_NOISE_PPM: Final = 0.14  # over the SNR: phase noise of an echo at 27 ms and 3 T, as susceptibility


@dataclass(frozen=True)
class Recipe:
    """How the scanner and the SMWI processing are set; defaults as in Nam 2017.

    Attributes:
        te_ms: echo times.
        chi_threshold_ppm: susceptibility at which the mask is 0.
        power: how often the mask is applied; 0 gives the plain magnitude.
        blur: width of the point spread relative to the usual one.
    """

    te_ms: tuple[float, ...] = (14.0, 27.0, 40.0)
    chi_threshold_ppm: float = 1.0
    power: float = 4.0
    blur: float = 1.0

    def __post_init__(self) -> None:
        if not self.te_ms or min(self.te_ms) <= 0 or self.chi_threshold_ppm <= 0 or self.power < 0 or self.blur <= 0:
            raise ConfigError(f"{self}", "positive echo times, threshold and blur, and a power >= 0")

    def smwi_json(self) -> dict[str, float | str]:
        """The weighting in the words of :class:`~nigradat.smwi.recipe.SmwiRecipe`; nothing is inverted here."""
        return {"chi_th_ppm": self.chi_threshold_ppm, "m": self.power, "combination": "rms"}


@dataclass(frozen=True)
class SideNuisance:
    """What differs between the sides of a patient and has nothing to do with the disease.

    Attributes:
        centring_mm: how far the patch centre misses nigrosome-1 (anterior, lateral, inferior).
        sn_angle_deg: added to the angle of the nigra.
        n1_contrast, n1_size: of nigrosome-1, relative; healthy people differ (Nam 2017: -.037 +- .016 ppm).
        n1_offset_mm: of nigrosome-1 along the nigra's three axes.
        stripe_phase: of the pontine fibres, radians.
        veins: tubes around the brainstem.
        seed: of this side's texture, warp and noise.
    """

    centring_mm: Vector = (0.0, 0.0, 0.0)
    sn_angle_deg: float = 0.0
    n1_contrast: float = 1.0
    n1_size: float = 1.0
    n1_offset_mm: Vector = (0.0, 0.0, 0.0)
    stripe_phase: float = 0.0
    veins: tuple[Vein, ...] = ()
    seed: int = 0


@dataclass(frozen=True)
class Nuisance:
    """What differs between patients and has nothing to do with the disease. The default is an average head.

    Attributes:
        rotation_deg: of the head about the anterior, left and inferior axis; both sides turn with it.
        scale: size of the brainstem, 1 on average.
        iron_ppm: susceptibility added to nigra and red nucleus.
        midline_mm: added to the lateral coordinate of the midline.
        warp_mm: root mean square of the smooth deformation of each side.
        snr: tissue magnitude over the SD of the noise; divide by 3 for an out-of-distribution test.
        gain: arbitrary unit of the scanner.
        bias: receive profile, relative change over 12.5 mm along anterior, left, inferior.
        ghost_amplitude: of a motion ghost along the phase-encoding axis; .1 and more is a spoilt scan.
        ghost_phase: radians.
        right, left: what differs between the sides.
    """

    rotation_deg: Vector = (0.0, 0.0, 0.0)
    scale: float = 1.0
    iron_ppm: float = 0.02
    midline_mm: float = 0.0
    warp_mm: float = 0.35
    snr: float = 24.0
    gain: float = 1.0
    bias: Vector = (0.0, 0.0, 0.0)
    ghost_amplitude: float = 0.0
    ghost_phase: float = 0.0
    right: SideNuisance = SideNuisance(seed=1)
    left: SideNuisance = SideNuisance(seed=2)

    def side(self, side: Side) -> SideNuisance:
        """This side's own part."""
        return self.right if side is Side.RIGHT else self.left


@dataclass(frozen=True, eq=False)
class RenderedPair:
    """A rendered patient, right first, native view (the right patch is not mirrored).

    Attributes:
        patches: ``(2, 50, 50, 20)`` float32, SMWI, arbitrary unit.
        magnitude: the same without the susceptibility weighting.
        masks: uint8, bits ``SN_BIT``, ``N1_BIT``, ``RN_BIT`` of :mod:`nigradat.phantom.anatomy`.
    """

    patches: Field
    magnitude: Field
    masks: npt.NDArray[np.uint8]


def sample_nuisance(
    rng: np.random.Generator,
    age: float = 65.0,
    *,
    centring_stress_mm: float = 0.0,
    noise_factor: float = 1.0,
    ghost_amplitude: float | None = None,
) -> Nuisance:
    """Draw what is not disease.

    The three options make out-of-distribution variants of the SAME patient: they take no further random number.

    Args:
        rng: generator.
        age: years; iron grows with it.
        centring_stress_mm: length of a further miss of nigrosome-1, in a random direction, per side.
        noise_factor: multiplies the noise.
        ghost_amplitude: of a motion ghost instead of the drawn one.
    """
    rotation = _vector(rng.normal(0.0, (3.0, 3.0, 3.0)))
    scale = float(np.exp(rng.normal(0.0, 0.035)))
    iron = float(rng.normal(0.02 + 0.0006 * (age - 65.0), 0.017))
    midline = float(rng.normal(0.0, 0.6))
    snr = float(24.0 * np.exp(rng.normal(0.0, 0.2)) / noise_factor)
    gain = float(300.0 * np.exp(rng.normal(0.0, 0.5)))
    bias = _vector(rng.normal(0.0, 0.03, 3))
    ghost, phase = float(abs(rng.normal(0.0, 0.01))), float(rng.uniform(0.0, 2.0 * np.pi))
    right, left = (_sample_side(rng, centring_stress_mm) for _ in Side)
    return Nuisance(
        rotation_deg=rotation,
        scale=scale,
        iron_ppm=iron,
        midline_mm=midline,
        snr=snr,
        gain=gain,
        bias=bias,
        ghost_amplitude=ghost if ghost_amplitude is None else ghost_amplitude,
        ghost_phase=phase,
        right=right,
        left=left,
    )


def _sample_side(rng: np.random.Generator, centring_stress_mm: float) -> SideNuisance:
    away = rng.normal(size=3)
    centring = rng.normal(0.0, (0.6, 0.6, 0.7)) + centring_stress_mm * away / np.linalg.norm(away)
    return SideNuisance(
        centring_mm=_vector(centring),
        sn_angle_deg=float(rng.normal(0.0, 3.0)),
        n1_contrast=float(np.exp(rng.normal(0.0, 0.2))),
        n1_size=float(np.exp(rng.normal(0.0, 0.12))),
        n1_offset_mm=_vector(rng.normal(0.0, (0.6, 0.6, 0.2))),
        stripe_phase=float(rng.uniform(0.0, 2.0 * np.pi)),
        veins=tuple(_sample_vein(rng) for _ in range(int(rng.integers(1, 4)))),
        seed=int(rng.integers(0, 2**63)),
    )


def _sample_vein(rng: np.random.Generator) -> Vein:
    """Around the back of the peduncle, rising forwards and outwards like the basal vein."""
    direction = rng.normal((0.75, 0.6, 0.0), (0.15, 0.15, 0.25))
    return Vein(
        point_mm=_vector(rng.uniform((-10.5, 7.5, -5.0), (-7.5, 11.5, 6.0))),
        direction=_vector(direction / np.linalg.norm(direction)),
        radius_mm=float(rng.uniform(0.4, 0.9)),
    )


def _vector(values: npt.NDArray[np.float64]) -> Vector:
    a, lat, s = (float(v) for v in values)
    return (a, lat, s)


def render_pair(d_right: float, d_left: float, nuisance: Nuisance, recipe: Recipe | None = None) -> RenderedPair:
    """Render both sides of one patient.

    Args:
        d_right, d_left: visible degeneration in [0, 1].
        nuisance: everything else.
        recipe: scanner and processing; the usual one by default.

    Raises:
        ConfigError: a degeneration outside [0, 1].
    """
    for side, d in zip(Side, (d_right, d_left), strict=True):
        if not 0.0 <= d <= 1.0:
            raise ConfigError(f"{side.value} degeneration of {d}", "a number from 0 to 1")
    used = recipe or Recipe()
    sides = [_render_side(side, d, nuisance, used) for side, d in zip(Side, (d_right, d_left), strict=True)]
    patches, magnitude, masks = (np.stack(arrays) for arrays in zip(*sides, strict=True))
    # sides are made in the left view
    for array in (patches, magnitude, masks):
        array[Side.RIGHT.index] = mirror(array[Side.RIGHT.index]).copy()
    return RenderedPair(patches, magnitude, masks)


def _render_side(
    side: Side, degeneration: float, nuisance: Nuisance, recipe: Recipe
) -> tuple[Field, Field, npt.NDArray[np.uint8]]:
    """SMWI, magnitude and masks of one side in the left view."""
    own = nuisance.side(side)
    rng = np.random.default_rng(own.seed)
    grid = _grid(side, nuisance, rng)
    texture = Texture(
        coarse=_random_field(rng, (4, 4, 3)),
        medium=_random_field(rng, (3, 3, 2)),
        fine=_random_field(rng, (1, 1, 1)),
        iron=_random_field(rng, (2, 2, 1)),
    )
    maps = tissue_maps(
        grid,
        texture,
        SideAnatomy(
            degeneration=degeneration,
            iron_ppm=nuisance.iron_ppm,
            sn_angle_deg=own.sn_angle_deg,
            n1_contrast=own.n1_contrast,
            n1_size=own.n1_size,
            n1_offset_mm=own.n1_offset_mm,
            midline_mm=nuisance.midline_mm,
            stripe_phase=own.stripe_phase,
            veins=own.veins,
        ),
    )
    psf = _vector(np.asarray(_PSF_VOXELS) * recipe.blur)
    clean = _acquire(_echo_rms(maps.m0, maps.r2star_hz, recipe.te_ms), psf)
    chi = _acquire(maps.chi_ppm, psf)

    # the noise is the scanner's, so it is measured against tissue of this recipe
    sigma = float(np.sqrt(np.mean(np.exp(-2e-3 * np.asarray(recipe.te_ms) * TISSUE.r2star_hz)))) / nuisance.snr
    real, imaginary, chi_noise = (_shaped_noise(rng) for _ in range(3))
    ghost = nuisance.ghost_amplitude * np.roll(clean, _GHOST_SHIFT, axis=0)
    real = clean + sigma * real + float(np.cos(nuisance.ghost_phase)) * ghost
    imaginary = sigma * imaginary + float(np.sin(nuisance.ghost_phase)) * ghost
    magnitude = np.sqrt(real**2 + imaginary**2) * _receive_profile(side, nuisance)
    chi += (_CHI_NOISE_PPM / nuisance.snr) * chi_noise
    weight = np.clip(1.0 - chi / recipe.chi_threshold_ppm, 0.0, 1.0) ** recipe.power
    return magnitude * weight, magnitude, _masks(maps.shapes)


def _grid(side: Side, nuisance: Nuisance, rng: np.random.Generator) -> Grid:
    """Anatomical coordinates of the supersampled voxels of one side, in the left view."""
    handed = np.diag([1.0, -1.0 if side is Side.RIGHT else 1.0, 1.0])
    forward = handed @ _rotation(nuisance.rotation_deg) @ handed / nuisance.scale
    shift = np.asarray(nuisance.side(side).centring_mm)
    axes = [((np.arange(n) - (n - 1) / 2) * mm).astype(np.float32) for n, mm in zip(_FINE_SHAPE, _FINE_MM, strict=True)]
    coordinates: list[Field] = []
    for row, offset in zip(forward.astype(np.float32), shift.astype(np.float32), strict=True):
        plane = (row[0] * axes[0] + offset)[:, None] + row[1] * axes[1][None, :]
        field = np.float32(nuisance.warp_mm / np.sqrt(3.0)) * _random_field(rng, (4, 4, 3))
        field += plane[:, :, None]
        field += row[2] * axes[2]
        coordinates.append(field)
    anterior, lateral, inferior = coordinates
    return Grid(anterior, lateral, inferior, np.asarray(np.linalg.inv(forward), np.float64), shift, _FINE_MM)


def _rotation(degrees: Vector) -> npt.NDArray[np.float64]:
    """Rotation about anterior, then left, then inferior."""
    out = np.eye(3)
    for axis, angle in enumerate(np.deg2rad(degrees)):
        i, j = (axis + 1) % 3, (axis + 2) % 3
        turn = np.eye(3)
        turn[i, i] = turn[j, j] = np.cos(angle)
        turn[i, j], turn[j, i] = -np.sin(angle), np.sin(angle)
        out = turn @ out
    return out


def _echo_rms(m0: Field, r2star_hz: Field, te_ms: tuple[float, ...]) -> Field:
    """Root mean square over the echoes of ``M0 exp(-TE R2*)``."""
    power = np.zeros_like(m0)
    for te in te_ms:
        power += np.exp(np.float32(-2e-3 * te) * r2star_hz)
    power *= np.float32(1.0 / len(te_ms))
    signal: Field = m0 * np.sqrt(power)
    return signal


def _receive_profile(side: Side, nuisance: Nuisance) -> Field:
    """Gain and smooth receive profile, in the left view; ``(50, 50, 20)``."""
    a, lat, s = (
        ((np.arange(n) - (n - 1) / 2) * mm / 12.5).astype(np.float32)
        for n, mm in zip(PATCH_SHAPE, PATCH_SPACING_MM, strict=True)
    )
    ga, gl, gs = nuisance.bias
    gl = -gl if side is Side.RIGHT else gl
    profile: Field = nuisance.gain * (1.0 + ga * a[:, None, None] + gl * lat[:, None] + gs * s)
    return profile


def _masks(shapes: dict[int, tuple[Box, Field]]) -> npt.NDArray[np.uint8]:
    """Voxels of which a structure fills at least half, one bit a structure."""
    out = np.zeros(PATCH_SHAPE, dtype=np.uint8)
    n = _SUPERSAMPLING
    for bit in (SN_BIT, N1_BIT, RN_BIT):
        box, weight = shapes[bit]
        filled = np.zeros(_FINE_SHAPE, dtype=np.float32)
        filled[box] = weight
        blocks = sum(filled[i::n, j::n, k::n] for i in range(n) for j in range(n) for k in range(n))
        out[np.asarray(blocks) >= n**3 / 2] |= bit
    return out


def _random_field(rng: np.random.Generator, doublings: tuple[int, int, int]) -> Field:
    """A smooth random field on the supersampled grid, mean 0 and variance 1.

    White noise on a coarse grid, refined ``doublings`` times along each axis by cubic B-spline subdivision
    (Lane and Riesenfeld 1980): a B-spline field with knots ``2 ** doublings`` samples apart.
    """
    sizes = []
    for n, times in zip(_FINE_SHAPE, doublings, strict=True):
        for _ in range(times):
            n = (n + 4) // 2
        sizes.append(n)
    field = rng.standard_normal(sizes, dtype=np.float32)
    for axis in (2, 1, 0):
        for _ in range(doublings[axis]):
            field = _double(field, axis)
        field = field[(slice(None),) * axis + (slice(0, _FINE_SHAPE[axis]),)]
    field *= np.float32(1.0 / np.prod([_field_sd(times) for times in doublings]))
    return field


def _double(control: Field, axis: int) -> Field:
    """One cubic B-spline subdivision: ``n`` control points become ``2 n - 3``."""
    c = np.moveaxis(control, axis, 0)
    shape = list(control.shape)
    shape[axis] = 2 * len(c) - 3
    out = np.empty(shape, dtype=control.dtype)
    view = np.moveaxis(out, axis, 0)
    odd = view[0::2]
    np.add(c[:-1], c[1:], out=odd)
    odd *= 0.5
    even = view[1::2]
    # (c[i-1] + 6 c[i] + c[i+1]) / 8, from the two midpoints beside it
    np.add(odd[:-1], odd[1:], out=even)
    even *= 0.25
    even += 0.5 * c[1:-1]
    return out


@lru_cache(maxsize=8)
def _field_sd(doublings: int) -> float:
    """SD along one axis of unit white noise after so many subdivisions, averaged over the positions between knots."""
    impulse: Field = np.zeros(17)
    impulse[8] = 1.0
    for _ in range(doublings):
        impulse = _double(impulse, 0)
    return float(np.sqrt(np.sum(impulse**2) / 2**doublings))


def _acquire(fine: Field, sd_voxels: Vector) -> Field:
    """The point spread, and every second sample: ``(100, 100, 40)`` to ``(50, 50, 20)``."""
    out = fine
    for axis, sd in enumerate(sd_voxels):
        reach = int(np.ceil(3.0 * _SUPERSAMPLING * sd))
        # voxel i is centred between the fine samples 2 i and 2 i + 1
        taps = np.exp(-0.5 * ((np.arange(reach) + 0.5) / (_SUPERSAMPLING * sd)) ** 2)
        taps = (taps / (2.0 * taps.sum())).astype(np.float32)
        padding = [(0, 0)] * 3
        padding[axis] = (reach - 1, reach - 1)
        x = np.moveaxis(np.pad(out, padding, mode="edge"), axis, 0)
        n = (x.shape[0] - 2 * (reach - 1)) // 2
        total = np.zeros((n, *x.shape[1:]), dtype=np.float32)
        for t, tap in enumerate(taps):
            before, after = reach - 1 - t, reach + t
            total += tap * (x[before : before + 2 * n : 2] + x[after : after + 2 * n : 2])
        out = np.moveaxis(total, 0, axis)
    return np.ascontiguousarray(out)


def _shaped_noise(rng: np.random.Generator) -> Field:
    """Normal noise of SD 1 with the neighbour correlation of an interpolated image, ``(50, 50, 20)``."""
    out = rng.standard_normal([n + 2 * _NOISE_REACH for n in PATCH_SHAPE], dtype=np.float32)
    for axis, sd in enumerate(_NOISE_VOXELS):
        taps = np.exp(-0.5 * (np.arange(-_NOISE_REACH, _NOISE_REACH + 1) / sd) ** 2)
        taps = (taps / np.sqrt(np.sum(taps**2))).astype(np.float32)
        x = np.moveaxis(out, axis, 0)
        total = np.zeros((PATCH_SHAPE[axis], *x.shape[1:]), dtype=np.float32)
        for t, tap in enumerate(taps):
            total += tap * x[t : t + PATCH_SHAPE[axis]]
        out = np.moveaxis(total, 0, axis)
    return np.ascontiguousarray(out)
