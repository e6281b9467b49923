"""Refinement on the image itself: the dark band of the nigra and the dark ball of the red nucleus, both sides together.

After registration the atlas lies within a few millimetres. On an image in which iron is dark (T2*-weighted magnitude,
SMWI) its dark shapes are moved, rigidly as a whole and then a little on each side, to where image and shapes correlate
best; nigrosome-1 moves along. A prior on the movement stands for how far registration is usually off.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from scipy import ndimage, optimize

from nigradat.anatomy import Side
from nigradat.locate.atlas import Atlas, nigrosome_sites
from nigradat.locate.registration import Alignment, inverse, nearest_ras, transform
from nigradat.volume import Volume

Float64 = npt.NDArray[np.float64]

MIN_CORRELATION: Final = 0.35  # below it there is no dark band to follow, and the atlas stands
MAX_SHIFT_MM: Final = 5.0  # beyond it the fit has left the nigra
_STEP_MM: Final = 0.8
_SHELL_MM: Final = 3.0  # of surroundings, against which the shapes are dark
_BLUR_MM: Final = 0.5
_PRIOR_MM, _PRIOR_SIDE_MM = 2.5, 1.2  # usual size of the movement, together and of one side
_PRIOR_RAD: Final = 0.12
_PRIOR_WEIGHT: Final = 0.04  # in units of correlation


@dataclass(frozen=True, eq=False)
class Refined:
    """What the image says about where nigrosome-1 lies.

    Attributes:
        centres: RAS+ mm of the scan.
        correlation: of image and dark shapes, -1 to 1, for each side, after the movement.
        shift_mm: how far each centre moved from where the registration had put it.
        accepted: the movement was taken; otherwise the centres are those of the registration.
    """

    centres: dict[Side, Float64]
    correlation: dict[Side, float]
    shift_mm: dict[Side, float]
    accepted: bool


def refine(volume: Volume, atlas: Atlas, aligned: Alignment) -> Refined:
    """Move both nigrosome-1 sites with the dark shapes around them.

    Args:
        volume: a scan on which iron is dark.
        atlas: shapes and sites in MNI152 space.
        aligned: where the scan lies in it.
    """
    scan = nearest_ras(volume)
    sites = {side: aligned.to_scan(site) for side, site in nigrosome_sites(atlas).items()}
    fits = {side: _side_samples(atlas, side, aligned) for side in Side}
    image = _window(scan, np.concatenate([fit[0] for fit in fits.values()]))
    middle = np.mean([fit[0].mean(axis=0) for fit in fits.values()], axis=0)

    def together(parameters: Float64) -> float:
        motion = _motion(parameters, middle)
        match = np.mean([_correlation(image, transform(motion, points), dark) for points, dark in fits.values()])
        prior = np.square(parameters[:3] / _PRIOR_RAD).sum() + np.square(parameters[3:] / _PRIOR_MM).sum()
        return float(_PRIOR_WEIGHT * prior - match)

    best = optimize.minimize(
        lambda p: together(p * _UNITS),
        np.zeros(6),
        method="Powell",
        options={"xtol": 0.02, "ftol": 1e-5, "maxiter": 12},
    )
    motion = _motion(best.x * _UNITS, middle)
    centres, correlation, shift = {}, {}, {}
    for side, (points, dark) in fits.items():
        moved = transform(motion, points)
        own = _own_shift(image, moved, dark)
        centres[side] = transform(motion, sites[side]) + own
        correlation[side] = _correlation(image, moved + own, dark)
        shift[side] = float(np.linalg.norm(centres[side] - sites[side]))
    accepted = min(correlation.values()) >= MIN_CORRELATION and max(shift.values()) <= MAX_SHIFT_MM
    return Refined(centres if accepted else sites, correlation, shift, accepted)


_UNITS: Final = np.array([0.05, 0.05, 0.05, 1.0, 1.0, 1.0])


def _side_samples(atlas: Atlas, side: Side, aligned: Alignment) -> tuple[Float64, Float64]:
    """Points in and around the dark shapes of one side, in mm of the scan, and how dark the atlas is there."""
    dark = np.maximum(atlas.nigra[side.index], atlas.red_nucleus[side.index])
    size = np.linalg.norm(atlas.affine[:3, :3], axis=0)
    pad = np.ceil((_SHELL_MM + 1) / size).astype(int)
    dark = np.pad(dark, [(n, n) for n in pad])
    near = ndimage.distance_transform_edt(dark < 0.5, sampling=size) <= _SHELL_MM
    dark = ndimage.gaussian_filter(dark, _BLUR_MM / size)
    stride = tuple(slice(None, None, max(1, round(_STEP_MM / s))) for s in size)
    kept = np.zeros_like(near)
    kept[stride] = near[stride]
    index = np.argwhere(kept)
    points = transform(atlas.affine, (index - pad).astype(np.float64))
    return aligned.to_scan(points), dark[kept].astype(np.float64)


def _window(scan: Volume, points: Float64) -> Volume:
    """The part of the scan around the points, smoothed a little, its brightest voxels (fluid, vessels) cut off."""
    index = transform(inverse(scan.affine), points)
    reach = (MAX_SHIFT_MM + 3) / scan.spacing_mm
    lo = np.clip(np.floor(index.min(axis=0) - reach), 0, np.array(scan.data.shape) - 2).astype(int)
    hi = np.clip(np.ceil(index.max(axis=0) + reach) + 1, lo + 2, scan.data.shape).astype(int)
    part = scan.data[tuple(slice(i, j) for i, j in zip(lo, hi, strict=True))]
    smooth = ndimage.gaussian_filter(part, np.minimum(_BLUR_MM / scan.spacing_mm, 1.5))
    affine = scan.affine.copy()
    affine[:3, 3] = transform(scan.affine, lo.astype(np.float64))
    return Volume(np.minimum(smooth, 1.3 * np.median(smooth)), affine)


def _correlation(image: Volume, points: Float64, dark: Float64) -> float:
    """Of darkness in the image with darkness in the atlas; points outside the image count as their border."""
    index = transform(inverse(image.affine), points).T
    seen = ndimage.map_coordinates(image.data, index, order=1, mode="nearest").astype(np.float64)
    a, b = seen - seen.mean(), dark - dark.mean()
    size = float(np.sqrt((a @ a) * (b @ b)))
    return -float(a @ b) / size if size > 0 else 0.0


def _own_shift(image: Volume, points: Float64, dark: Float64) -> Float64:
    found: Any = optimize.minimize(
        lambda s: _PRIOR_WEIGHT * np.square(s / _PRIOR_SIDE_MM).sum() - _correlation(image, points + s, dark),
        np.zeros(3),
        method="Powell",
        options={"xtol": 0.02, "ftol": 1e-5, "maxiter": 8},
    )
    return np.asarray(found.x, dtype=np.float64)


def _motion(parameters: Float64, middle: Float64) -> Float64:
    """Rotation vector (radians) about ``middle``, then a shift (mm), as ``(4, 4)``."""
    from scipy.spatial.transform import Rotation

    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_rotvec(parameters[:3]).as_matrix()
    matrix[:3, 3] = middle + parameters[3:] - matrix[:3, :3] @ middle
    return matrix
