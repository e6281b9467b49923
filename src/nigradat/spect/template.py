"""What a DaT-SPECT looks like, from ellipsoids alone: the registration's target, the digital striatum's ground."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Final

import numpy as np
import numpy.typing as npt

from nigradat.anatomy import Side
from nigradat.spect.volumes_of_interest import Part, cover, own_atlas, whole_brain
from nigradat.volume import Source, Volume, spacing_mm

Float64 = npt.NDArray[np.float64]

FWHM_TO_SD: Final = 1 / np.sqrt(8 * np.log(2))
TEMPLATE_SBR: Final = 3.0
TEMPLATE_FWHM_MM: Final = 10.0
_TEMPLATE_MM: Final = 4.0
_TEMPLATE_CORNER_MM: Final = (-92.0, -128.0, -88.0)
_TEMPLATE_SHAPE: Final = (47, 56, 50)


def uptake(shape: Sequence[int], index_to_mni: Float64, sbr: Mapping[tuple[Part, Side], float]) -> Float64:
    """Concentration of tracer in each voxel before any blur, 1 in the brain where it binds to nothing specific.

    Args:
        shape: of the array; both striata lie within it.
        index_to_mni: ``(4, 4)`` from voxel index to MNI, RAS+ mm.
        sbr: true specific binding ratio of parts of :func:`~nigradat.spect.volumes_of_interest.own_atlas` that do not
            overlap; other tissue has 0.

    Raises:
        FieldOfViewError: a striatum is cut.
    """
    index = np.indices(tuple(shape)).reshape(3, -1).T
    places = index @ index_to_mni[:3, :3].T + index_to_mni[:3, 3]
    out = whole_brain().contains(places).reshape(tuple(shape)).astype(np.float64)
    for key, ratio in sbr.items():
        part = cover(own_atlas().parts[key], index_to_mni, shape)
        out[part.window] += ratio * part.share
    return out


def blurred(image: Float64, fwhm_mm: float, affine: Float64) -> Float64:
    """An image seen by a camera of that resolution, the same in all directions; zero beyond its edge."""
    from scipy import ndimage

    sd = fwhm_mm * FWHM_TO_SD / spacing_mm(affine)
    out: Float64 = ndimage.gaussian_filter(image, sd, mode="constant", truncate=5.0)
    return out


@cache
def template() -> Volume:
    """The registration's target: both striata alike, in MNI space, 4 mm voxels."""
    affine = np.diag([_TEMPLATE_MM] * 3 + [1.0])
    affine[:3, 3] = _TEMPLATE_CORNER_MM
    striata: dict[tuple[Part, Side], float] = {("striatum", side): TEMPLATE_SBR for side in Side}
    image = blurred(uptake(_TEMPLATE_SHAPE, affine, striata), TEMPLATE_FWHM_MM, affine)
    return Volume(image.astype(np.float32), affine, Source(kind="made", steps=("parametric DaT template in MNI152",)))
