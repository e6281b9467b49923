"""What in a scan makes automatic reading of the nigra fail: seen before anything is measured.

The causes of failure that were reported for commercial tools on SMWI are right-left asymmetry, re-slicing through the
plane, pulsation artefacts and a thin nigrosome-1 (Frontiers in Aging Neuroscience 2024, 1425095); to them come windows
that leave the image and thick slices. Each has a flag. The limits were set on phantom heads and are in
docs/explanation/locating-nigrosome-1.md; they are no clinical criteria.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from nigradat.anatomy import PATCH_SHAPE, PATCH_SPACING_MM, Side, tilt_deg, to_patch_axes
from nigradat.errors import OrientationError
from nigradat.locate.registration import Alignment
from nigradat.pair import Flag
from nigradat.volume import Volume, spacing_mm

Float64 = npt.NDArray[np.float64]

MARGIN_MM: Final = 2.0
MAX_SLICE_MM, MAX_IN_PLANE_MM = 1.5, 0.8
MAX_ASYMMETRY_MM: Final = 3.0
RESLICED: Final = 0.20  # correlation of neighbouring second differences across slices
MAX_GHOST: Final = 0.05  # of the head's signal


def volume_flags(volume: Volume, centres: Mapping[Side, Float64], aligned: Alignment | None = None) -> tuple[Flag, ...]:
    """Remarks on one scan with its centres.

    Args:
        volume: the scan that the patches are cut from.
        centres: RAS+ mm.
        aligned: where the scan lies in MNI152 space, for the asymmetry of the centres.
    """
    flags = [*_field_of_view(volume, centres), *_thickness(volume), *_reslicing(volume, centres), *_ghosts(volume)]
    if aligned is not None:
        flags += _asymmetry(centres, aligned)
    return tuple(flags)


def _field_of_view(volume: Volume, centres: Mapping[Side, Float64]) -> list[Flag]:
    """How much room there is around the two windows."""
    try:
        oriented, affine = to_patch_axes(volume.data, volume.affine)
    except OrientationError as error:
        return [Flag("oblique", str(error))]
    shape = np.array(oriented.shape)
    size = spacing_mm(affine)
    half = (np.array(PATCH_SHAPE) - 1) / 2 * PATCH_SPACING_MM
    flags = []
    for side, centre in centres.items():
        index = np.linalg.solve(affine[:3, :3], centre - affine[:3, 3])
        room = float((np.minimum(index, shape - 1 - index) * size - half).min())
        if room < 0:
            flags.append(Flag("field-of-view", f"The {side.value} window leaves the image by {-room:.1f} mm.", side))
        elif room < MARGIN_MM:
            flags.append(
                Flag("field-of-view", f"The {side.value} window ends {room:.1f} mm from the border.", side, "info")
            )
    if (tilt := tilt_deg(volume.affine)) > 35:
        flags.append(Flag("oblique", f"The slices are tilted by {tilt:.0f} degrees; over 40 are refused."))
    return flags


def _thickness(volume: Volume) -> list[Flag]:
    """Voxels much larger than those of the patch: what lies between them was never measured."""
    small, middle, large = sorted(volume.spacing_mm)
    if large <= MAX_SLICE_MM and middle <= MAX_IN_PLANE_MM:
        return []
    shown = " x ".join(f"{s:.2f}" for s in (small, middle, large))
    return [
        Flag(
            "thickness",
            f"Voxels of {shown} mm; patches of 0.5 x 0.5 x 1.0 mm are interpolated, nigrosome-1 is 1 to 2 mm thick.",
        )
    ]


def _reslicing(volume: Volume, centres: Mapping[Side, Float64]) -> list[Flag]:
    """Slices without detail of their own, as after interpolation between thicker ones.

    Second differences across the slices are related by -2/3 from one slice to the next where values are independent, by
    about -.5 in a sharp image with noise, .13 in the published patch pair, and .24 to .37 where every other slice was
    interpolated. Re-slicing at an angle from slices as thin as before leaves no such trace and is not seen.
    """
    middle = np.mean(list(centres.values()), axis=0)
    index = np.linalg.solve(volume.affine[:3, :3], middle - volume.affine[:3, 3])
    reach = 22.0 / volume.spacing_mm
    lo = np.maximum(np.floor(index - reach), 0).astype(int)
    hi = np.minimum(np.ceil(index + reach), volume.data.shape).astype(int)
    if (hi - lo < 6).any():
        return []
    part = volume.data[tuple(slice(i, j) for i, j in zip(lo, hi, strict=True))].astype(np.float64)
    flags = []
    axis = int(np.argmax(volume.spacing_mm))
    rough = np.diff(part, axis=axis, n=2)
    first, second = (np.take(rough, range(start, rough.shape[axis] - 1 + start), axis=axis) for start in (0, 1))
    related = float(np.corrcoef(first.ravel(), second.ravel())[0, 1])
    if related > RESLICED:
        flags.append(
            Flag(
                "re-sliced",
                "Neighbouring slices hold hardly any detail of their own: the image looks re-sliced or interpolated.",
            )
        )
    return flags


def _ghosts(volume: Volume) -> list[Flag]:
    """Signal in the air straight before, behind or beside the head that is not in the air of the corners.

    Motion and pulsation repeat the head along the phase-encoding axis.
    """
    data = volume.data.astype(np.float64)
    thin = tuple(slice(None, None, max(1, round(2.0 / s))) for s in volume.spacing_mm)
    data = data[thin]
    parts, found_parts = ndimage.label(ndimage.binary_opening(data > 0.3 * np.percentile(data, 99)))
    if found_parts == 0:
        return []
    largest = 1 + int(np.argmax(np.bincount(parts.ravel())[1:]))
    head = ndimage.binary_fill_holes(ndimage.binary_closing(parts == largest, iterations=3))
    air = ~ndimage.binary_dilation(head, iterations=12)  # beyond skull and scalp, which may be parts of their own
    level = float(np.median(data[head]))
    slice_axis = int(np.argmax(volume.spacing_mm))
    found = []
    planes = [axis for axis in range(3) if axis != slice_axis]
    for axis in planes:
        shadow = np.broadcast_to(head.any(axis=axis, keepdims=True), head.shape)
        other = np.broadcast_to(head.any(axis=planes[1 - planes.index(axis)], keepdims=True), head.shape)
        ahead, corner = air & shadow & ~other, air & ~shadow & ~other
        if ahead.sum() > 300 and corner.sum() > 300:
            found.append(float(data[ahead].mean() - data[corner].mean()) / level)
    if found and max(found) > MAX_GHOST:
        return [
            Flag("motion", f"Ghosts of {100 * max(found):.0f} % of the head's signal in the air: motion or pulsation.")
        ]
    return []


def _asymmetry(centres: Mapping[Side, Float64], aligned: Alignment) -> list[Flag]:
    """Centres that are no mirror images of each other in MNI152 space."""
    right, left = (aligned.to_mni(centres[side]) for side in Side)
    apart = float(np.linalg.norm(right * (-1, 1, 1) - left))
    if apart <= MAX_ASYMMETRY_MM:
        return []
    return [Flag("asymmetry", f"Right and left centre are {apart:.1f} mm from being mirror images in MNI152 space.")]
