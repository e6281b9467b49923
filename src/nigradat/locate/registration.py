"""From a scan to MNI152 space: a search over poses, an affine map, and a smooth deformation around the midbrain.

The template is the skull-stripped T1-weighted MNI ICBM152 average (2009a, symmetric, 1 mm) in nilearn's wheel; nothing
is downloaded. Mutual information compares it with any contrast. The header's axes are taken for the patient's, within
the angles that a head can have in a coil; so a side is never exchanged. Slabs are searched along the whole height of
the head, as their own centre says little.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from importlib import import_module
from itertools import product
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from scipy import ndimage, optimize

from nigradat.errors import ImageError
from nigradat.itk import LPS, by_mutual_information, descend, get_matrix, set_matrix, simple_itk, to_itk
from nigradat.volume import Volume

Float64 = npt.NDArray[np.float64]

MIDBRAIN_MM: Final = np.array([0.0, -19.0, -13.0])  # MNI152, between both nigrae
_COARSE_MM, _FINE_MM = 8.0, 4.0
_BINS: Final = 16
_SEARCH_MM: Final = (24.0, 64.0)  # about the centre of what is seen: ahead, up
_SEARCH_STEP_MM: Final = 8.0
_PITCHES_DEG: Final = (-24.0, -12.0, 0.0, 12.0, 24.0)
_KEPT: Final = 4  # poses that are followed further
_LOCAL_MM: Final = 40.0  # around the midbrain, where the affine map and the deformation are fitted
_LOCAL_STEP_MM: Final = 2.0
_KNOTS_MM: Final = 15.0
_MOST_MM, _MOST_DEG = 30.0, 20.0  # that a head moves between two scans of a session


@dataclass(frozen=True, eq=False)
class Alignment:
    """How a scan lies in MNI152 space: ``mni = linear(first(x) + bend(first(x)))`` in homogeneous RAS+ mm.

    Attributes:
        linear: ``(4, 4)``.
        bend_mm: ``(X, Y, Z, 3)`` displacement in the scan's own mm, or None.
        bend_affine: ``(4, 4)`` from index in ``bend_mm`` to mm; None with it.
        first: ``(4, 4)``, applied before: from the scan to another scan that was registered in its place.
        agreement: normalised mutual information with the template around the midbrain, 0 to 1; higher is better.
        method: in words.
    """

    linear: Float64
    bend_mm: npt.NDArray[np.float32] | None = None
    bend_affine: Float64 | None = None
    first: Float64 | None = None
    agreement: float = 1.0
    method: str = "given"

    def to_mni(self, points_mm: npt.ArrayLike) -> Float64:
        """Points of the scan, ``(..., 3)``, as points of MNI152."""
        points = np.asarray(points_mm, dtype=np.float64)
        if self.first is not None:
            points = transform(self.first, points)
        if self.bend_mm is not None and self.bend_affine is not None:
            index = transform(inverse(self.bend_affine), points).reshape(-1, 3).T
            moved = [ndimage.map_coordinates(self.bend_mm[..., i], index, order=1, mode="nearest") for i in range(3)]
            points = points + np.stack(moved, axis=-1).reshape(points.shape)
        return transform(self.linear, points)

    def to_scan(self, points_mm: npt.ArrayLike) -> Float64:
        """Points of MNI152, ``(..., 3)``, as points of the scan: the inverse, by fixed-point steps."""
        wanted = np.asarray(points_mm, dtype=np.float64)
        back = inverse(self.linear if self.first is None else self.linear @ self.first)
        found = transform(back, wanted)
        for _ in range(30):
            found = found + transform(back, wanted) - transform(back, self.to_mni(found))
        return found


def transform(matrix: Float64, points: Float64) -> Float64:
    """Points ``(..., 3)`` moved by a ``(4, 4)`` matrix."""
    return points @ matrix[:3, :3].T + matrix[:3, 3]


def inverse(matrix: npt.NDArray[np.floating[Any]]) -> Float64:
    """The map back."""
    return np.asarray(np.linalg.inv(matrix), dtype=np.float64)


@cache
def template() -> Volume:
    """The MNI152 T1-weighted template of nilearn's wheel, 0 to 1."""
    from nilearn.datasets import load_mni152_template

    image = load_mni152_template(resolution=1)
    return Volume(np.asarray(image.dataobj, dtype=np.float32), np.asarray(image.affine))


def register(volume: Volume, *, deformable: bool = True) -> Alignment:
    """Find where a scan lies in MNI152 space.

    Args:
        volume: T1-weighted, gradient-echo magnitude or SMWI; a whole head or a slab through the midbrain.
        deformable: also a smooth deformation (cubic B-splines, knots 15 mm apart) around the midbrain.

    Raises:
        ImageError: an image without contrast, or one in which no head was found.
    """
    scan = nearest_ras(volume)
    pose = _find_pose(scan)
    local = _around_midbrain(scan, pose)
    linear = _fit_affine(local, pose)
    _check_affine(linear)
    if not deformable:
        return Alignment(linear, agreement=_agreement(local, Alignment(linear)), method="affine")
    bend, bend_affine = _fit_bend(local, linear)
    bent = Alignment(linear, bend, bend_affine, method="affine and deformable")
    return Alignment(linear, bend, bend_affine, None, _agreement(local, bent), bent.method)


def follow(volume: Volume, reference: Volume, aligned: Alignment) -> Alignment:
    """The alignment of a scan through another one of the same session that was registered: a rigid step between.

    Args:
        volume: the scan that is needed.
        reference: the scan that ``aligned`` belongs to; both share the scanner's coordinates up to a movement.
        aligned: its alignment.

    Returns:
        With the scan's own agreement with the template, whatever that of ``reference`` is.

    Raises:
        ImageError: the rigid step is larger than a head moves within a session.
    """
    scan, other = nearest_ras(volume), nearest_ras(reference)
    middle = aligned.to_scan(MIDBRAIN_MM)
    local = _box_around(scan, middle, 1.5 * _LOCAL_MM)
    rigid = _fit_rigid(local, other, middle)
    _check_rigid(rigid, middle)
    through = replace(aligned, first=rigid, method=f"{aligned.method}, through T1w")
    return replace(through, agreement=_agreement(local, through))


def nearest_ras(volume: Volume) -> Volume:
    """The same voxels with the axes nearest to right, anterior, superior: no result depends on the storage order."""
    orientations: Any = import_module("nibabel.orientations")  # untyped
    order = orientations.io_orientation(volume.affine)
    data = orientations.apply_orientation(volume.data, order)
    return Volume(data, volume.affine @ orientations.inv_ornt_aff(order, volume.data.shape), volume.source)


def resampled(volume: Volume, step_mm: float) -> Volume:
    """A smoothed copy on a coarser grid along the same axes; axes that are coarse already stay."""
    ratio = np.maximum(step_mm / volume.spacing_mm, 1.0)
    if (ratio < 1.05).all():
        return volume
    smooth = ndimage.gaussian_filter(volume.data, 0.45 * np.where(ratio > 1.05, ratio, 0.0))
    shape = np.maximum(np.floor((np.array(volume.data.shape) - 1) / ratio).astype(int) + 1, 1)
    data = ndimage.affine_transform(smooth, ratio, output_shape=tuple(shape), order=1)
    affine = volume.affine.copy()
    affine[:3, :3] = volume.affine[:3, :3] * ratio
    return Volume(data, affine, volume.source)


# -- The pose ---------------------------------------------------------------------------------------------------------


def _find_pose(scan: Volume) -> Float64:
    """A rigid map to MNI152, ``(4, 4)``: all poses on a grid at 8 mm, the best ones followed at 4 mm."""
    coarse, fine = (_samples(resampled(scan, step), step) for step in (_COARSE_MM, _FINE_MM))
    points, bins = coarse
    seen = points[bins > 0]
    middle = np.array([np.median(seen[:, 0]), *(seen[:, 1:].min(axis=0) + seen[:, 1:].max(axis=0)) / 2])
    aims = resampled(template(), _COARSE_MM), resampled(template(), _FINE_MM)
    steps = [np.arange(-reach, reach + 1, _SEARCH_STEP_MM) for reach in _SEARCH_MM]
    tried = []
    for pitch, y, z in product(np.deg2rad(_PITCHES_DEG), *steps):
        parameters = np.array([pitch, 0.0, 0.0, 0.0, y, z])
        tried.append((_information(points, bins, aims[0], _rigid(parameters, middle)), parameters))
    tried.sort(key=lambda entry: -entry[0])
    followed = [
        optimize.minimize(
            lambda p: -_information(*fine, aims[1], _rigid(p * _UNITS, middle)),
            start / _UNITS,
            method="Powell",
            options={"maxiter": 6, "xtol": 0.05, "ftol": 1e-4},
        )
        for _, start in _apart(tried)
    ]
    best = min(followed, key=lambda result: result.fun)
    return _rigid(best.x * _UNITS, middle)


_UNITS: Final = np.array([0.1, 0.1, 0.1, 4.0, 4.0, 4.0])  # radians and mm that matter about equally


def _apart(tried: list[tuple[float, Float64]]) -> list[tuple[float, Float64]]:
    """The best few poses that are not neighbours of a better one."""
    kept: list[tuple[float, Float64]] = []
    for entry in tried:
        if all(np.abs((entry[1] - other[1]) / _UNITS).max() > 2.5 for other in kept):
            kept.append(entry)
        if len(kept) == _KEPT:
            break
    return kept


def _rigid(parameters: Float64, middle: Float64) -> Float64:
    """Rotations (radians, about x, y, z through ``middle``) and a shift from there to the midbrain of MNI152."""
    (cx, cy, cz), (sx, sy, sz) = np.cos(parameters[:3]), np.sin(parameters[:3])
    turn = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]]) @ np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    turn = turn @ np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    matrix = np.eye(4)
    matrix[:3, :3] = turn
    matrix[:3, 3] = MIDBRAIN_MM + parameters[3:] - turn @ middle
    return matrix


def _samples(scan: Volume, step_mm: float) -> tuple[Float64, npt.NDArray[np.intp]]:
    """Every voxel's place, ``(n, 3)``, and its intensity as one of a few bins of equal size; 0 is the background."""
    values = scan.data.astype(np.float64)
    if not np.isfinite(values).all() or values.max() <= values.min():
        raise ImageError("an image without contrast, or with voxels that are no number", "a head scan")
    # every axis at about the same density
    thin = tuple(slice(None, None, max(1, round(step_mm / s))) for s in scan.spacing_mm)
    values = values[thin]
    index = np.stack(
        np.meshgrid(*(np.arange(n)[t] for n, t in zip(scan.data.shape, thin, strict=True)), indexing="ij"), -1
    )
    points = transform(scan.affine, index.reshape(-1, 3).astype(np.float64))
    flat = values.ravel()
    floor = 0.15 * np.percentile(flat, 99)
    inside = flat > floor
    bins = np.zeros(flat.size, dtype=np.intp)
    if inside.sum() < 200:
        raise ImageError(
            f"an image with only {int(inside.sum())} voxels of {step_mm:g} mm above the background", "a head scan"
        )
    edges = np.quantile(flat[inside], np.linspace(0, 1, _BINS)[1:-1])
    bins[inside] = 1 + np.searchsorted(edges, flat[inside])
    return points, bins


def _information(points: Float64, bins: npt.NDArray[np.intp], aim: Volume, pose: Float64) -> float:
    """Normalised mutual information, ``2 I / (H1 + H2)``, of the samples with the template under a pose."""
    index = transform(inverse(aim.affine) @ pose, points).T
    seen = ndimage.map_coordinates(aim.data, index, order=1)
    other = np.minimum((seen * _BINS).astype(np.intp), _BINS - 1)
    return _normalised_information(bins, other)


def _normalised_information(first: npt.NDArray[np.intp], second: npt.NDArray[np.intp]) -> float:
    joint = np.bincount(first * _BINS + second, minlength=_BINS * _BINS).reshape(_BINS, _BINS) / first.size
    entropies = [_entropy(joint.sum(axis=1)), _entropy(joint.sum(axis=0)), _entropy(joint.ravel())]
    total = entropies[0] + entropies[1]
    return float(2 * (total - entropies[2]) / total) if total > 0 else 0.0


def _entropy(share: Float64) -> float:
    share = share[share > 0]
    return float(-(share * np.log(share)).sum())


# -- Around the midbrain ----------------------------------------------------------------------------------------------


def _around_midbrain(scan: Volume, pose: Float64) -> Volume:
    return _box_around(scan, transform(inverse(pose), MIDBRAIN_MM), _LOCAL_MM)


def _box_around(scan: Volume, middle_mm: Float64, reach_mm: float) -> Volume:
    """The part of a scan within a distance of a point along its own axes, at about 2 mm."""
    index = transform(inverse(scan.affine), middle_mm)
    reach = reach_mm / scan.spacing_mm
    lo = np.maximum(np.floor(index - reach), 0).astype(int)
    hi = np.minimum(np.ceil(index + reach) + 1, scan.data.shape).astype(int)
    if (hi - lo < 8).any():
        raise ImageError(
            f"the midbrain seems to lie at {np.round(middle_mm, 0).tolist()} mm, outside or at the border of the image",
            "a head scan that covers the midbrain",
            "Check the image, or give the two centres with --centres",
        )
    affine = scan.affine.copy()
    affine[:3, 3] = transform(scan.affine, lo.astype(np.float64))
    return resampled(Volume(scan.data[tuple(slice(i, j) for i, j in zip(lo, hi, strict=True))], affine), _LOCAL_STEP_MM)


def _fit_affine(local: Volume, pose: Float64) -> Float64:
    sitk = simple_itk()

    start = sitk.AffineTransform(3)
    middle = transform(inverse(pose), MIDBRAIN_MM)
    set_matrix(start, pose, middle)
    method = _method(shrink=(2, 1), smooth=(2.0, 1.0))
    descend(method, 100)
    method.SetInitialTransform(start, inPlace=True)
    _execute(method, local, template())
    return get_matrix(start)


def _fit_rigid(local: Volume, other: Volume, middle: Float64) -> Float64:
    sitk = simple_itk()

    start = sitk.Euler3DTransform()
    start.SetCenter((LPS @ middle).tolist())
    method = _method(shrink=(2, 1), smooth=(2.0, 1.0))
    descend(method, 100)
    method.SetInitialTransform(start, inPlace=True)
    _execute(method, local, resampled(other, 1.0))
    return get_matrix(start)


def _fit_bend(local: Volume, linear: Float64) -> tuple[npt.NDArray[np.float32], Float64]:
    """Displacements in mm of the scan, sampled on a grid of 3 mm over ``local``."""
    sitk = simple_itk()

    fixed = to_itk(local)
    extent = np.array(local.data.shape) * local.spacing_mm
    mesh = np.maximum(np.round(extent / _KNOTS_MM), 2).astype(int)
    bend = sitk.BSplineTransformInitializer(fixed, mesh.tolist(), order=3)
    method = _method(shrink=(2, 1), smooth=(2.0, 1.0))
    method.SetOptimizerAsLBFGS2(numberOfIterations=25, solutionAccuracy=1e-4, deltaConvergenceTolerance=1e-4)
    affine = sitk.AffineTransform(3)
    set_matrix(affine, linear, np.zeros(3))
    method.SetMovingInitialTransform(affine)
    method.SetInitialTransform(bend, inPlace=True)
    _execute(method, local, template())
    ratio = np.maximum(3.0 / local.spacing_mm, 1.0)
    shape = (np.floor((np.array(local.data.shape) - 1) / ratio) + 1).astype(int)
    field = sitk.TransformToDisplacementField(
        bend, sitk.sitkVectorFloat64, shape.tolist(), fixed.GetOrigin(),
        (np.array(fixed.GetSpacing()) * ratio).tolist(), fixed.GetDirection(),
    )  # fmt: skip
    moved = np.moveaxis(sitk.GetArrayFromImage(field), (0, 1, 2), (2, 1, 0)) @ LPS
    affine_ras = local.affine.copy()
    affine_ras[:3, :3] = local.affine[:3, :3] * ratio
    return moved.astype(np.float32), affine_ras


def _method(shrink: tuple[int, ...], smooth: tuple[float, ...]) -> Any:
    method = by_mutual_information()
    method.SetShrinkFactorsPerLevel(list(shrink))
    method.SetSmoothingSigmasPerLevel(list(smooth))
    method.SmoothingSigmasAreSpecifiedInPhysicalUnitsOn()
    return method


def _execute(method: Any, fixed: Volume, moving: Volume) -> None:
    try:
        method.Execute(to_itk(fixed), to_itk(moving))
    except RuntimeError as error:
        raise ImageError(
            "the registration to MNI152 failed: the scan and the template do not overlap enough",
            "a head scan that covers the midbrain",
            "Check the image and its orientation, or give the two centres with --centres",
        ) from error


def _check_affine(linear: Float64) -> None:
    """Refuse a map that no head needs: mirrored, or stretched beyond the sizes of heads."""
    stretch = np.linalg.svd(linear[:3, :3], compute_uv=False)
    if np.linalg.det(linear[:3, :3]) <= 0 or stretch.max() > 1.4 or stretch.min() < 0.65:
        raise ImageError(
            f"the registration to MNI152 failed: it stretches the head by {stretch.min():.2f} to {stretch.max():.2f}",
            "0.65 to 1.4",
            "Check the image and its orientation, give a T1w with --t1w, or the two centres with --centres",
        )


def _check_rigid(rigid: Float64, middle: Float64) -> None:
    """Refuse a step between two scans of one session that no head makes."""
    moved = float(np.linalg.norm(transform(rigid, middle[None])[0] - middle))
    turned = float(np.degrees(np.arccos(np.clip((np.trace(rigid[:3, :3]) - 1) / 2, -1, 1))))
    if moved > _MOST_MM or turned > _MOST_DEG:
        raise ImageError(
            f"the scan and the T1w lie {moved:.0f} mm and {turned:.0f} degrees apart",
            f"at most {_MOST_MM:g} mm and {_MOST_DEG:g} degrees, as within one session",
            "Check that both are of the same visit, or leave the T1w out",
        )


def _agreement(local: Volume, aligned: Alignment) -> float:
    """Normalised mutual information around the midbrain, inside the template's brain."""
    points, bins = _samples(resampled(local, 2.0), 2.0)
    aim = resampled(template(), 2.0)
    index = transform(inverse(aim.affine), aligned.to_mni(points)).T
    seen = ndimage.map_coordinates(aim.data, index, order=1)
    brain = seen > 0.2
    if brain.mean() < 0.2:
        return 0.0
    second = np.minimum(((seen[brain] - 0.2) / 0.8 * _BINS).astype(np.intp), _BINS - 1)
    return _normalised_information(bins[brain], second)
