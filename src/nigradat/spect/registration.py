"""From a DaT-SPECT to MNI152 space: an affine map by mutual information, and a check that it can be believed.

Target is our own parametric template (:func:`nigradat.spect.template.template`). The map is found in three stages: the
best of a grid of poses, then a similarity, then an affine map. It starts from the scan's own axes and allows the angles
of a head in a head rest, so that a side is never exchanged. Needs the extra ``locate``.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from nigradat.anatomy import Side
from nigradat.errors import ImageError
from nigradat.itk import by_mutual_information, descend, get_matrix, set_matrix, simple_itk, to_itk
from nigradat.spect.template import FWHM_TO_SD, template
from nigradat.spect.volumes_of_interest import CAUDATE, own_atlas, whole_brain
from nigradat.volume import Volume

Float64 = npt.NDArray[np.float64]

PEAK_LIMIT_MM: Final = 12.0
PUTAMEN_MM: Final = (26.0, 2.0, 2.0)  # of either side: x counts from the midline
LEAST_OVERLAP: Final = 0.8
VISIBLE: Final = 1.3  # times the brain's uptake, in a scan smoothed once more
_MOST_STRETCH: Final = 1.35
_MOST_TURN_DEG: Final = 40.0
_SMOOTH_MM: Final = 8.0  # added to the camera's own blur, against the noise
_PITCHES_DEG: Final = (-24.0, -12.0, 0.0, 12.0, 24.0)
_BINS: Final = 32
_AHEAD_MM: Final = (-15.0, 0.0, 15.0)
_UP_MM: Final = (-30.0, -15.0, 0.0, 15.0, 30.0)
_SEARCH_MM: Final = ((-48.0, -45.0, -30.0), (48.0, 48.0, 42.0))  # where a striatum may seem to be, MNI
_SEARCH_STEP_MM: Final = 2.0


@dataclass(frozen=True)
class Striatum:
    """The hottest spot of one side, where the striatum should be.

    Attributes:
        peak_mm: RAS+ mm of MNI; None where no spot stands out.
        distance_mm: from the line between the centres of putamen and caudate.
        contrast: its uptake over that of the brain, in the smoothed scan.
    """

    peak_mm: tuple[float, float, float] | None = None
    distance_mm: float | None = None
    contrast: float | None = None


@dataclass(frozen=True, eq=False)
class Alignment:
    """How a head lies in its scan.

    Attributes:
        scan_from_mni: ``(4, 4)``, from RAS+ mm of MNI to RAS+ mm of the scan.
        overlap: Dice of the scan's brain and the template's, 0..1; None where the pose was given.
        striata: hottest spots, right first; empty where the pose was given.
    """

    scan_from_mni: Float64
    overlap: float | None = None
    striata: tuple[Striatum, ...] = ()

    @property
    def notes(self) -> tuple[str, ...]:
        """What the checks could not say, in words."""
        unseen = [side.value for side, found in zip(Side, self.striata, strict=False) if found.peak_mm is None]
        if not unseen:
            return ()
        where = " and ".join(unseen)
        return (
            f"No uptake stands out on the {where}: the place of the regions is checked by the brain's outline only.",
        )


def register(scan: Volume) -> Alignment:
    """Find how a head lies in its DaT-SPECT, and check it.

    Args:
        scan: a reconstructed SPECT of a whole head; its axes are roughly the patient's.

    Raises:
        ImageError: nothing that looks like a head, or a map that fails the check (see :func:`check`).
        MissingExtraError: SimpleITK is not installed.
    """
    values = scan.data
    if not np.isfinite(values).all():
        raise ImageError(f"{int((~np.isfinite(values)).sum())} voxels of the scan are no number", "finite counts")
    smooth = _smoothed(scan)
    found = _fit(Volume(smooth.astype(np.float32), scan.affine), _best_pose(scan, smooth))
    _refuse_odd_map(found)
    return check(scan, found)


def check(scan: Volume, scan_from_mni: Float64) -> Alignment:
    """Whether a map can be believed: the brains overlap, and where striata stand out they lie where striata are.

    The hottest spot of each side must lie within 12 mm of the line from the putamen's centre, (+-26, 2, 2) mm, to the
    caudate's: in disease the putamen fades first, and the spot moves along it. A side without a spot of 1.3 times the
    brain's uptake cannot be checked so; :attr:`Alignment.notes` says it.

    Raises:
        ImageError: with what was found.
    """
    overlap = _overlap(scan, scan_from_mni)
    if overlap < LEAST_OVERLAP:
        raise ImageError(
            f"the registration to MNI152 failed: the brains overlap by {overlap:.2f} (Dice)",
            f"{LEAST_OVERLAP:g} or more",
            "Check that it is a DaT-SPECT of a whole head, and its orientation",
        )
    striata = tuple(_hottest_spot(scan, scan_from_mni, side) for side in Side)
    for side, spot in zip(Side, striata, strict=True):
        if spot.distance_mm is not None and spot.distance_mm > PEAK_LIMIT_MM:
            x, y, z = spot.peak_mm or (0.0, 0.0, 0.0)
            raise ImageError(
                f"the registration to MNI152 failed: the hottest spot on the {side.value} lies at "
                f"({x:.0f}, {y:.0f}, {z:.0f}) mm, {spot.distance_mm:.0f} mm from putamen and caudate",
                f"at most {PEAK_LIMIT_MM:g} mm",
                "Look at the scan: is it a DaT-SPECT, are the sides right, is something else hot?",
            )
    return Alignment(scan_from_mni, overlap, striata)


# -- The check ----------------------------------------------------------------------------------------------------


def _brain(scan: Volume) -> npt.NDArray[np.bool_]:
    """The brain in a scan: what takes up at least half as much as its usual tissue, in one piece."""
    from scipy import ndimage

    smooth = _smoothed(scan)
    warm = smooth[smooth > smooth.mean()]
    if not warm.size:
        raise ImageError("a scan without contrast", "a DaT-SPECT of a head")
    pieces, n = ndimage.label(smooth > 0.5 * np.median(warm))
    if not n:
        raise ImageError("a scan without contrast", "a DaT-SPECT of a head")
    largest: npt.NDArray[np.bool_] = pieces == 1 + int(np.argmax(np.bincount(pieces.ravel())[1:]))
    litres = float(largest.sum() * np.prod(scan.spacing_mm)) / 1e6
    if not 0.4 < litres < 8:
        raise ImageError(f"a scan in which {litres:.2f} litres take up tracer", "a head, 1 to 5 litres")
    return largest


def _smoothed(scan: Volume) -> Float64:
    from scipy import ndimage

    smooth: Float64 = ndimage.gaussian_filter(
        scan.data.astype(np.float64), _SMOOTH_MM * FWHM_TO_SD / scan.spacing_mm, mode="nearest"
    )
    return smooth


def _overlap(scan: Volume, scan_from_mni: Float64) -> float:
    """Dice of the scan's brain and the template's, within the template's box (a neck does not count)."""
    from scipy import ndimage

    aim = template()
    ours = aim.data > 0.5
    to_index = np.linalg.inv(scan.affine) @ scan_from_mni @ aim.affine
    theirs = ndimage.affine_transform(
        _brain(scan).astype(np.float32), to_index[:3, :3], to_index[:3, 3], output_shape=aim.data.shape, order=1
    )
    box = whole_brain().box_mm
    above = np.indices(aim.data.shape)[2] * aim.spacing_mm[2] + aim.affine[2, 3] > box[0, 2]
    theirs = (theirs > 0.5) & above
    both = 2 * np.count_nonzero(ours & theirs) / (np.count_nonzero(ours & above) + np.count_nonzero(theirs))
    return float(both)


def _hottest_spot(scan: Volume, scan_from_mni: Float64, side: Side) -> Striatum:
    """The strongest maximum of one side in the middle of the brain. A maximum, not the edge of the other side's."""
    from scipy import ndimage

    low, high = (np.array(corner) for corner in _SEARCH_MM)
    shape = tuple(np.round((high - low) / _SEARCH_STEP_MM).astype(int) + 1)
    grid = np.diag([_SEARCH_STEP_MM] * 3 + [1.0])
    grid[:3, 3] = low
    to_index = np.linalg.inv(scan.affine) @ scan_from_mni @ grid
    smooth = _smoothed(scan)
    seen = ndimage.affine_transform(smooth, to_index[:3, :3], to_index[:3, 3], output_shape=shape, order=1)
    x = np.arange(shape[0]) * _SEARCH_STEP_MM + low[0]
    own = (x > 0) if side is Side.RIGHT else (x < 0)
    tops = (seen == ndimage.maximum_filter(seen, size=7)) & own[:, None, None]
    tops[:, [0, -1]] = tops[:, :, [0, -1]] = tops[[0, -1]] = False
    if not tops.any():
        return Striatum()
    place = np.unravel_index(int(np.argmax(np.where(tops, seen, -np.inf))), shape)
    contrast = float(seen[place] / _usual(smooth, scan, scan_from_mni))
    if contrast < VISIBLE:
        return Striatum(contrast=contrast)
    peak = low + np.array(place) * _SEARCH_STEP_MM
    return Striatum((float(peak[0]), float(peak[1]), float(peak[2])), _distance_from_striatum(peak), contrast)


def _distance_from_striatum(point_mm: Float64) -> float:
    """From a point, MNI, to the line between the centres of putamen and caudate, mm."""
    point = np.array([abs(point_mm[0]), point_mm[1], point_mm[2]])
    start, line = np.array(PUTAMEN_MM), np.array(CAUDATE.centre_mm) - PUTAMEN_MM
    along = np.clip((point - start) @ line / (line @ line), 0.0, 1.0)
    return float(np.linalg.norm(point - start - along * line))


def _usual(smooth: Float64, scan: Volume, scan_from_mni: Float64) -> float:
    """Median uptake of the brain without its rim and striata."""
    aim = template()
    index = np.indices(aim.data.shape).reshape(3, -1).T
    places = index @ aim.affine[:3, :3].T + aim.affine[:3, 3]
    places = places[own_atlas().references["brain"].contains(places)]
    from scipy import ndimage

    to_index = np.linalg.inv(scan.affine) @ scan_from_mni
    return float(np.median(ndimage.map_coordinates(smooth, (places @ to_index[:3, :3].T + to_index[:3, 3]).T, order=1)))


def _refuse_odd_map(scan_from_mni: Float64) -> None:
    """Refuse what no head needs: a reflection, a large turn, or a size beyond that of heads."""
    turn, stretch, back = np.linalg.svd(scan_from_mni[:3, :3])
    pure = turn @ back
    angle = float(np.degrees(np.arccos(np.clip((np.trace(pure) - 1) / 2, -1, 1))))
    wrong = np.linalg.det(pure) < 0 or angle > _MOST_TURN_DEG
    if wrong or stretch.max() > _MOST_STRETCH or stretch.min() < 1 / _MOST_STRETCH:
        raise ImageError(
            "the registration to MNI152 failed: it would turn the head by "
            f"{angle:.0f} degrees and stretch it by {stretch.min():.2f} to {stretch.max():.2f}",
            f"at most {_MOST_TURN_DEG:g} degrees and {1 / _MOST_STRETCH:.2f} to {_MOST_STRETCH:g}",
            "Check that it is a DaT-SPECT of a whole head, and its orientation",
        )


# -- The fit ------------------------------------------------------------------------------------------------------


def _best_pose(scan: Volume, smooth: Float64) -> Float64:
    """The best of a grid of nods and shifts about the middle of the scan's brain, ``(4, 4)``, MNI to scan."""
    from scipy import ndimage

    aim = template()
    index = np.argwhere(_brain(scan)).mean(axis=0)
    middle = scan.affine[:3, :3] @ index + scan.affine[:3, 3]
    every = np.indices(aim.data.shape)[:, ::2, ::2, ::2].reshape(3, -1)
    expected = aim.data[tuple(every)]
    places = aim.affine[:3, :3] @ every + aim.affine[:3, 3:]
    best, found = -np.inf, np.eye(4)
    for pitch, ahead, up in product(np.radians(_PITCHES_DEG), _AHEAD_MM, _UP_MM):
        pose = np.eye(4)
        pose[:3, :3] = [[1, 0, 0], [0, np.cos(pitch), -np.sin(pitch)], [0, np.sin(pitch), np.cos(pitch)]]
        pose[:3, 3] = middle + np.array([0.0, ahead, up]) - pose[:3, :3] @ _home()
        to_index = np.linalg.inv(scan.affine) @ pose
        seen = ndimage.map_coordinates(smooth, to_index[:3, :3] @ places + to_index[:3, 3:], order=1)
        information = _information(expected, seen)
        if information > best:
            best, found = information, pose
    return found


def _information(a: npt.NDArray[np.floating[Any]], b: npt.NDArray[np.floating[Any]]) -> float:
    """Mutual information of two sets of values, in nats."""
    joint = np.histogram2d(a, b, bins=_BINS)[0] / len(a)
    apart = np.outer(joint.sum(axis=1), joint.sum(axis=0))
    there = joint > 0
    return float(np.sum(joint[there] * np.log(joint[there] / apart[there])))


def _fit(scan: Volume, pose: Float64) -> Float64:
    """Similarity on every other voxel of the target, then affine, both by mutual information."""
    fixed, moving = to_itk(template()), to_itk(scan)
    similar = simple_itk().Similarity3DTransform()
    set_matrix(similar, pose, _home())
    _run(_method(), similar, simple_itk().Shrink(fixed, [2, 2, 2]), moving)
    affine = simple_itk().AffineTransform(3)
    set_matrix(affine, get_matrix(similar), _home())
    _run(_method(), affine, fixed, moving)
    return get_matrix(affine)


def _run(method: Any, transform: Any, fixed: Any, moving: Any) -> None:
    descend(method, 150)
    method.SetInitialTransform(transform, inPlace=True)
    try:
        method.Execute(fixed, moving)
    except RuntimeError as error:
        raise ImageError(
            "the registration to MNI152 failed: scan and template do not overlap enough",
            "a DaT-SPECT of a whole head",
            "Check the scan and its orientation",
        ) from error


def _method() -> Any:
    """On one thread, so that equal input gives equal bits."""
    method = by_mutual_information(_BINS)
    method.SetNumberOfThreads(1)
    method.SetNumberOfWorkUnits(1)
    return method


def _home() -> Float64:
    """The middle of the brain in MNI, about which heads turn and grow."""
    middle: Float64 = whole_brain().box_mm.mean(axis=0)
    return middle
