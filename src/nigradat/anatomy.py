"""Sides, the patch grid, orientation and mirroring: the only code that knows left from right.

World coordinates are RAS+ millimetres as in nibabel: x rises towards the patient's Right, y towards Anterior,
z towards Superior. Right and left are always the patient's, never the screen's.

The patch grid has the axis codes ``('A', 'L', 'I')``: index 0 rises towards anterior, index 1 towards the
patient's left, index 2 towards inferior. That is the layout of the published release, so published weights fit.
"""

from __future__ import annotations

import enum
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from nigradat.errors import FieldOfViewError, ImageError, LateralityError, OrientationError

Array = npt.NDArray[np.floating]


class Side(enum.Enum):
    """A side of the patient. Iteration order is the order of every side axis: right, left."""

    RIGHT = "right"
    LEFT = "left"

    @property
    def index(self) -> int:
        """Position on a side axis of length 2: right 0, left 1."""
        return 0 if self is Side.RIGHT else 1

    @property
    def other(self) -> Side:
        """The contralateral side."""
        return Side.LEFT if self is Side.RIGHT else Side.RIGHT


PATCH_SHAPE: Final = (50, 50, 20)
PATCH_SPACING_MM: Final = (0.5, 0.5, 1.0)
PATCH_CENTRE: Final = (24.5, 24.5, 9.5)  # index of the nigrosome-1 centroid
PATCH_CODES: Final = ("A", "L", "I")
MIRROR_AXIS: Final = 1  # of the three patch axes: the right-left one
MAX_TILT_DEG: Final = 40.0

# Unit vectors (RAS+) of the three patch axes of an untilted patch.
_PATCH_DIRECTIONS: Final = np.array([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, -1.0]])
_MAX_SHEAR_DEG: Final = 1.0
_SPACING_TOLERANCE_MM: Final = 1e-3


def mirror(patch: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
    """A patch as the other side would show it: flipped along the right-left axis.

    Args:
        patch: array whose last three axes are the patch axes, shape ``(..., 50, 50, 20)``.

    Returns:
        A view of the input (negative stride); copy it before writing to it.
    """
    return np.flip(patch, axis=patch.ndim - 3 + MIRROR_AXIS)


def mirror_grid(first: npt.ArrayLike, step: npt.ArrayLike, cells: tuple[int, ...]) -> Array:
    """Where the first cell of a coarse grid over the patch lies after its values went through :func:`mirror`.

    A grid need not cover the patch evenly (6 cells of 8 voxels leave the last 2 of 50 out), so mirroring moves it.

    Args:
        first: ``(3,)``, patch index of the centre of cell 0, 0, 0.
        step: ``(3,)``, patch voxels from one cell to the next.
        cells: their number along the three axes.

    Returns:
        ``(3,)`` patch index of the centre of the new cell 0, 0, 0. The function is its own inverse.
    """
    moved = np.array(first, dtype=np.float64)
    last = moved[MIRROR_AXIS] + np.asarray(step, dtype=np.float64)[MIRROR_AXIS] * (cells[MIRROR_AXIS] - 1)
    moved[MIRROR_AXIS] = PATCH_SHAPE[MIRROR_AXIS] - 1 - last
    return moved


def to_canonical(patches: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
    """Both sides in the canonical view that a network sees: the right patch mirrored, the left one as it is.

    Args:
        patches: native patches, shape ``(..., 2, 50, 50, 20)``, right first.

    Returns:
        A new array of the same shape; the input is left as it was. The function is its own inverse.
    """
    if patches.ndim < 4 or patches.shape[-4] != 2:
        raise ImageError(f"an array of shape {patches.shape}", "a side axis of length 2 before the three patch axes")
    out = np.array(patches)
    out[..., Side.RIGHT.index, :, :, :] = mirror(patches[..., Side.RIGHT.index, :, :, :])
    return out


def mirror_pair(patches: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
    """The whole patient mirrored: each patch is flipped AND the sides are exchanged.

    Labels must be exchanged along with it (``sbr[..., ::-1]``). Shape ``(..., 2, 50, 50, 20)`` in and out.
    """
    return np.ascontiguousarray(np.flip(mirror(patches), axis=patches.ndim - 4))


def check_affine(affine: npt.ArrayLike) -> Array:
    """An affine that can tell a side, or a refusal.

    Args:
        affine: ``(4, 4)``, voxel index to RAS+ millimetres.

    Raises:
        OrientationError: not 4 x 4, not finite, singular, or its axes are not perpendicular.
    """
    a = np.asarray(affine, dtype=np.float64)
    if a.shape != (4, 4):
        raise OrientationError(f"an affine of shape {a.shape}", "a 4 x 4 matrix")
    if not np.isfinite(a).all():
        raise OrientationError("an affine with values that are no number", "16 finite values")
    if not np.allclose(a[3], (0, 0, 0, 1), atol=1e-9):
        raise OrientationError(f"an affine whose last row is {a[3].tolist()}", "0, 0, 0, 1")
    spacing = np.linalg.norm(a[:3, :3], axis=0)
    if (spacing < 1e-6).any() or abs(np.linalg.det(a[:3, :3] / np.maximum(spacing, 1e-12))) < 1e-3:
        raise OrientationError(
            "a singular affine (an image axis without a direction of its own)",
            "three independent axes",
            "Convert the image again from its DICOM source; a side is never guessed",
        )
    directions = a[:3, :3] / spacing
    gram = np.abs(directions.T @ directions - np.eye(3)).max()
    shear = float(np.degrees(np.arcsin(min(1.0, gram))))
    if shear > _MAX_SHEAR_DEG:
        raise OrientationError(
            f"an affine whose axes are {shear:.1f} degrees off the right angle",
            f"at most {_MAX_SHEAR_DEG:g} degree",
            "Resample the image to a rectangular grid first",
        )
    return a


def axis_codes(affine: npt.ArrayLike) -> tuple[str, str, str]:
    """The anatomical direction in which each voxel axis rises, for example ``('R', 'A', 'S')``."""
    codes = _orientations().aff2axcodes(check_affine(affine))
    if None in codes:
        raise OrientationError(f"axis codes {codes}", "one anatomical direction per image axis")
    return (str(codes[0]), str(codes[1]), str(codes[2]))


def tilt_deg(affine: npt.ArrayLike) -> float:
    """Largest angle, in degrees, between an image axis and the anatomical axis it stands for."""
    a = check_affine(affine)
    axis_codes(a)
    directions = a[:3, :3] / np.linalg.norm(a[:3, :3], axis=0)
    return float(np.degrees(np.arccos(np.clip(np.abs(directions).max(axis=0).min(), -1.0, 1.0))))


def to_patch_axes(volume: npt.NDArray[np.generic], affine: npt.ArrayLike) -> tuple[npt.NDArray[np.generic], Array]:
    """A volume with its own axes permuted and flipped to the nearest (A, L, I); no voxel value changes.

    Args:
        volume: three axes.
        affine: ``(4, 4)`` to RAS+ mm; it may be oblique.

    Returns:
        The reoriented volume (a view) and its affine.

    Raises:
        OrientationError: unusable affine, or a tilt over 40 degrees.
        ImageError: not a three-dimensional volume.
    """
    if volume.ndim != 3:
        raise ImageError(f"an image with {volume.ndim} axes, shape {volume.shape}", "a 3D volume")
    a = check_affine(affine)
    tilt = tilt_deg(a)
    if tilt > MAX_TILT_DEG:
        raise OrientationError(
            f"an image tilted by {tilt:.1f} degrees against the patient's axes",
            f"at most {MAX_TILT_DEG:g} degrees, beyond which the nearest axis is ambiguous",
            "Resample the image to axes nearer to the patient's",
        )
    orientations = _orientations()
    transform = orientations.ornt_transform(orientations.io_orientation(a), orientations.axcodes2ornt(PATCH_CODES))
    out = orientations.apply_orientation(volume, transform)
    return out, a @ orientations.inv_ornt_aff(transform, volume.shape)


def _orientations() -> Any:
    """nibabel's module, imported on first use (it takes longer to load than all of this one) and untyped."""
    from nibabel import orientations

    return orientations


def patch_from_file_grid(
    volume: npt.NDArray[np.generic], affine: npt.ArrayLike
) -> tuple[npt.NDArray[np.float32], Array]:
    """A volume that already IS one patch, in any of the 48 storage orders, on the A-L-I patch grid.

    Raises:
        ImageError: wrong shape or voxel size after reorientation.
        OrientationError: see :func:`to_patch_axes`.
    """
    patch, a = to_patch_axes(volume, affine)
    spacing = np.linalg.norm(a[:3, :3], axis=0)
    if patch.shape != PATCH_SHAPE:
        raise ImageError(
            f"a patch of shape {patch.shape} along anterior, left, inferior",
            f"{PATCH_SHAPE}",
            "Cut it around nigrosome-1 with nigradat.extract_pair(volume, affine, right_mm, left_mm)",
        )
    if not np.allclose(spacing, PATCH_SPACING_MM, atol=0.02):
        shown = " x ".join(f"{s:.3f}" for s in spacing)
        raise ImageError(f"a patch with voxels of {shown} mm", "0.5 x 0.5 x 1.0 mm", "Resample the volume")
    return np.ascontiguousarray(patch, dtype=np.float32), a


def patch_centre_mm(affine: npt.ArrayLike) -> Array:
    """World position (RAS+ mm) of a patch's centre, where the nigrosome-1 centroid should lie."""
    a = np.asarray(affine, dtype=np.float64)
    centre: Array = a[:3, :3] @ np.array(PATCH_CENTRE) + a[:3, 3]
    return centre


def nominal_affine(side: Side) -> Array:
    """A made-up affine for the published ``.mat`` layout, whose axes are fixed by definition but whose position is not.

    It places the patch centre 11 mm to its side of the midline, so that right stays right; it says nothing else.
    """
    a = np.eye(4)
    a[:3, :3] = _PATCH_DIRECTIONS * np.array(PATCH_SPACING_MM)
    centre = np.array([11.0 if side is Side.RIGHT else -11.0, 0.0, 0.0])
    a[:3, 3] = centre - a[:3, :3] @ np.array(PATCH_CENTRE)
    return a


def extract_patch(
    volume: npt.NDArray[np.generic], affine: npt.ArrayLike, centre_mm: npt.ArrayLike
) -> tuple[npt.NDArray[np.float32], Array]:
    """The 50 x 50 x 20 patch around one nigrosome-1 centre.

    A volume already on 0.5 x 0.5 x 1.0 mm is cropped at the nearest half voxel, without interpolation; any other is
    resampled once, with a cubic spline. The patch keeps the volume's own obliquity.

    Args:
        volume: three axes, any storage order.
        affine: ``(4, 4)`` to RAS+ mm.
        centre_mm: nigrosome-1 centroid, three RAS+ mm.

    Returns:
        Patch ``(50, 50, 20)`` float32 in native view, and its affine.

    Raises:
        FieldOfViewError: the patch is not wholly inside the volume.
        OrientationError, ImageError: see :func:`to_patch_axes`.
    """
    oriented, a = to_patch_axes(volume, affine)
    centre = np.asarray(centre_mm, dtype=np.float64)
    if centre.shape != (3,) or not np.isfinite(centre).all():
        raise ImageError(f"a centre of {centre_mm!r}", "three finite RAS+ coordinates in mm")
    spacing = np.linalg.norm(a[:3, :3], axis=0)
    centre_index = np.linalg.solve(a[:3, :3], centre - a[:3, 3])
    step = np.array(PATCH_SPACING_MM) / spacing
    native = bool(np.allclose(spacing, PATCH_SPACING_MM, atol=_SPACING_TOLERANCE_MM))
    origin = centre_index - np.array(PATCH_CENTRE) * step
    if native:
        step = np.ones(3)
        # the small term decides exact ties the same way in every storage order
        origin = np.floor(centre_index - np.array(PATCH_CENTRE) + 0.5 + 1e-6)
    last = origin + (np.array(PATCH_SHAPE) - 1) * step
    if (origin < -1e-6).any() or (last > np.array(oriented.shape) - 1 + 1e-6).any():
        missing = np.maximum(np.maximum(-origin, last - (np.array(oriented.shape) - 1)), 0) * spacing
        raise FieldOfViewError(
            f"the patch around {np.round(centre, 1).tolist()} mm leaves the image by "
            f"{missing[0]:.1f}, {missing[1]:.1f}, {missing[2]:.1f} mm (front-back, side, up-down)",
            "25 x 25 x 20 mm around nigrosome-1 inside the image",
            "Check the centre, or use a scan that covers the whole midbrain",
        )
    if native:
        lo = origin.astype(int)
        patch = np.array(oriented[tuple(slice(i, i + n) for i, n in zip(lo, PATCH_SHAPE, strict=True))])
    else:
        patch = _resample_cubic(oriented, origin, step)
    out_affine = a.copy()
    out_affine[:3, :3] = a[:3, :3] * step
    out_affine[:3, 3] = a[:3, :3] @ origin + a[:3, 3]
    return np.ascontiguousarray(patch, dtype=np.float32), out_affine


def _resample_cubic(oriented: npt.NDArray[np.generic], origin: Array, step: Array) -> npt.NDArray[np.float32]:
    from scipy import ndimage

    # the spline's memory fades by a factor .27 a voxel: 14 voxels around the patch are as good as the whole volume
    last = origin + (np.array(PATCH_SHAPE) - 1) * step
    lo = np.maximum(np.floor(origin).astype(int) - 14, 0)
    hi = np.minimum(np.ceil(last).astype(int) + 15, oriented.shape)
    window = np.asarray(oriented[tuple(slice(i, j) for i, j in zip(lo, hi, strict=True))], dtype=np.float64)
    patch: npt.NDArray[np.float32] = ndimage.affine_transform(
        window, step, offset=origin - lo, output_shape=PATCH_SHAPE, output=np.float32, order=3, mode="nearest"
    )
    return patch


def check_sides(right_mm: npt.ArrayLike, left_mm: npt.ArrayLike) -> None:
    """Refuse a right centre that does not lie to the right of the left one (RAS+ mm).

    Raises:
        LateralityError: the two are exchanged or coincide.
    """
    right_x, left_x = float(np.asarray(right_mm)[0]), float(np.asarray(left_mm)[0])
    if not right_x > left_x:
        raise LateralityError(
            f"the right centre lies at x = {right_x:.1f} mm and the left one at x = {left_x:.1f} mm",
            "the right one further to the patient's right (larger x in RAS+)",
            "Exchange the two, or check which convention the coordinates follow (LPS has the opposite sign of x and y)",
        )
