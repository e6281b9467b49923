"""Mean nigral intensity: one number a side, and a straight line to the SBR.

Stands for the earlier approach that the paper cites as Uchida 2020 and calls mean nigral intensity. How that study
imaged and outlined the nigra is not in the sources that we work from, so this is our reading of the idea on SMWI: the
mean over a region of the nigra, divided by the mean of the whole patch. Without a segmentation the region is a fixed
ellipsoid near the nigrosome-1 site; a caller who has a segmentation passes it as a mask.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from nigradat.baselines.features import Array, RidgeBaseline, each_patch, ellipsoid, own_mean
from nigradat.errors import ImageError

INTENSITY_NAMES: Final = ("nigra_mean",)

# The nigra as an oblique slab, measured on the one published patch pair: its long axis lies 25 to 48 degrees off the
# lateral one (lateral end posterior), it moves 1 mm backwards for each mm downwards and is 4.5 to 6 mm thick. The
# ellipsoid is smaller than the nigra, so that a centring error of a millimetre leaves most of it inside.
_LONG_AXIS_DEG: Final = 36.0
NIGRA_CENTRE_MM: Final = (2.5, 0.5, -2.0)
_NIGRA_SEMI_MM: Final = (5.0, 5.0, 2.0)


def _slab_axes(long_axis_deg: float) -> Array:
    """Unit vectors in rows: along the slab (to the lateral end), down the slab, across it (forwards)."""
    angle = np.deg2rad(long_axis_deg)
    along = np.array([-np.sin(angle), np.cos(angle), 0.0])
    down = np.array([-1.0, 0.0, 1.0])
    down -= (down @ along) * along
    down /= np.linalg.norm(down)
    across = np.cross(along, down)
    return np.stack([along, down, across * np.sign(across[0])])


NIGRA_AXES: Final = _slab_axes(_LONG_AXIS_DEG)
NIGRA_REGION: Final = ellipsoid(NIGRA_CENTRE_MM, _NIGRA_SEMI_MM, NIGRA_AXES)  # canonical view, 210 mm3


def nigral_intensity(patches: npt.NDArray[np.floating], masks: npt.NDArray[np.generic] | None = None) -> Array:
    """Mean intensity of the nigra, in units of the whole patch's mean.

    Args:
        patches: shape ``(..., 50, 50, 20)``, read patch by patch. In the canonical view, right patches mirrored
            (:func:`nigradat.anatomy.to_canonical`), because the fixed region lies there.
        masks: the caller's nigra instead of the fixed region, same shape, counted where it is not 0. Patches and masks
            may then be in any view, as long as it is the same one.

    Returns:
        Shape ``(..., 1)``, see :data:`INTENSITY_NAMES`.

    Raises:
        ImageError: another patch shape, masks of another shape, an empty mask, or a patch whose mean is not a
            positive number.
    """
    if masks is None:
        return each_patch(patches, lambda patch: _mean_within(patch, NIGRA_REGION), 1)
    if masks.shape != patches.shape:
        raise ImageError(f"masks of shape {masks.shape} for patches of shape {patches.shape}", "equal shapes")
    each_mask = (masks[position] != 0 for position in np.ndindex(masks.shape[:-3]))  # the order of each_patch
    return each_patch(patches, lambda patch: _mean_within(patch, next(each_mask)), 1)


def _mean_within(patch: npt.NDArray[np.float32], region: npt.NDArray[np.bool_]) -> list[float]:
    inside = patch[region]
    if not inside.size:
        raise ImageError("an empty mask of the nigra", "at least one voxel", "Leave such a patch out")
    return [float(inside.mean(dtype=np.float64)) / own_mean(patch)]


def fit_line(feature: npt.ArrayLike, sbr: npt.ArrayLike, names: tuple[str, ...] = INTENSITY_NAMES) -> RidgeBaseline:
    """Ordinary least squares of the SBR on one feature, one line for both sides; ``predict`` and JSON come with it.

    Args:
        feature: shape ``(n, 2, 1)``, of training patients only.
        sbr: shape ``(n, 2)``.
        names: of the feature.

    Raises:
        CohortError: shapes that do not fit, values that are not finite, fewer than three patients.

    Example:
        >>> line = fit_line([[[0.3], [0.4]], [[0.5], [0.5]], [[0.4], [0.6]]], [[1, 2], [3, 3], [2, 4]])
        >>> line.predict([[0.35]]).round(3).tolist()
        [1.5]
    """
    return RidgeBaseline.fit(feature, sbr, names, alphas=(0.0,))
