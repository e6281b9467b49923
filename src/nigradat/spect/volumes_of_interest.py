"""Where striatum and reference region lie in MNI152 space: our own ellipsoids, or an atlas that a user brings.

The ellipsoids were fitted by overlap to the caudate nucleus and putamen of the Allen human reference (Ding 2016, CC BY
4.0; both sides share the shape) and to the outline of the MNI152 2009 template; no image of either is in the package.
How well they fit is tested and stands in docs/explanation/sbr.md.

A volume of interest is a rule, inside or outside, for points of MNI space. It is laid over a scan by asking that rule
at points within each voxel (:func:`cover`), so the scan's counts are never interpolated.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from nigradat.anatomy import Side, check_sides
from nigradat.errors import FieldOfViewError, ImageError
from nigradat.io.nifti import read_volume

Float64 = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

Part = Literal["caudate", "putamen", "anterior putamen", "posterior putamen", "striatum"]
Reference = Literal["occipital", "brain"]
PARTS: Final[tuple[Part, ...]] = ("striatum", "caudate", "putamen", "anterior putamen", "posterior putamen")
REFERENCES: Final[tuple[Reference, ...]] = ("occipital", "brain")

GENEROUS_MM: Final = 12.0  # beyond the striatum; a blur of 10 mm FWHM spills 2 in 1000 counts of a surface so far
SEARCH_MM: Final = 6.0  # beyond caudate and putamen, where the hottest voxels are looked for
RIM_MM: Final = 12.0  # of the brain that is left out of the reference: the blurred edge
_OUTSIDE: Final = 0.01  # of a region may lie outside the scan


@dataclass(frozen=True)
class Ellipsoid:
    """An ellipsoid in MNI space.

    Attributes:
        centre_mm: RAS+ mm.
        axes_mm: its three perpendicular semi-axes as vectors, RAS+ mm.
    """

    centre_mm: tuple[float, float, float]
    axes_mm: tuple[tuple[float, float, float], tuple[float, float, float], tuple[float, float, float]]

    @property
    def volume_ml(self) -> float:
        """Of the whole ellipsoid."""
        return float(4 / 3 * np.pi * abs(np.linalg.det(np.array(self.axes_mm)))) / 1000

    def mirrored(self) -> Ellipsoid:
        """The same on the other side of the midline."""
        return _ellipsoid(np.array(self.centre_mm) * _FLIP, np.array(self.axes_mm) * _FLIP)

    def grown(self, margin_mm: float) -> Ellipsoid:
        """With every semi-axis longer by so much (shorter if negative)."""
        axes = np.array(self.axes_mm)
        lengths = np.linalg.norm(axes, axis=1, keepdims=True)
        return _ellipsoid(np.array(self.centre_mm), axes * (lengths + margin_mm) / lengths)

    def contains(self, points_mm: Float64) -> Mask:
        """Which of the points ``(n, 3)`` lie inside."""
        inside: Mask = self.level(points_mm) <= 1.0
        return inside

    def level(self, points_mm: Float64) -> Float64:
        """Of points ``(n, 3)``: 0 at the centre, 1 on the surface, growing with the square of the distance."""
        scaled = (points_mm - self.centre_mm) @ np.linalg.inv(np.array(self.axes_mm))
        square: Float64 = np.einsum("ij,ij->i", scaled, scaled)
        return square

    @property
    def box_mm(self) -> Float64:
        """Lowest and highest corner around it, ``(2, 3)``."""
        reach = np.linalg.norm(np.array(self.axes_mm), axis=0)
        return np.stack([self.centre_mm - reach, self.centre_mm + reach])


@dataclass(frozen=True, eq=False)
class Region:
    """A volume of interest in MNI space.

    Attributes:
        name: for tables and messages.
        contains: which of ``(n, 3)`` points, RAS+ mm, lie inside, ``(n,)``.
        box_mm: lowest and highest corner around it, ``(2, 3)``.
    """

    name: str
    contains: Callable[[Float64], Mask]
    box_mm: Float64


@dataclass(frozen=True, eq=False)
class Atlas:
    """The volumes of interest of a measurement.

    Attributes:
        name: for the records.
        parts: the parts of each striatum; caudate, putamen and striatum at least.
        references: where tracer binds to nothing specific.
        search: around caudate, putamen and striatum, for the hottest voxels; those of caudate and putamen share none.
        generous: around each striatum, wide enough for all counts that spill out of it, right first. It ends at the
            midline.
    """

    name: str
    parts: Mapping[tuple[Part, Side], Region]
    references: Mapping[Reference, Region]
    search: Mapping[tuple[Part, Side], Region]
    generous: tuple[Region, Region]

    def part_names(self) -> tuple[Part, ...]:
        """The parts that both sides have, in the order of tables."""
        return tuple(part for part in PARTS if all((part, side) in self.parts for side in Side))


@dataclass(frozen=True, eq=False)
class Cover:
    """How much of each voxel of a scan a region takes.

    Attributes:
        window: the part of the scan's array in which the region lies.
        share: of each voxel in the window, 0..1.
        voxel_ml: volume of one voxel, in the scan's millilitres.
    """

    window: tuple[slice, slice, slice]
    share: Float64
    voxel_ml: float

    @property
    def volume_ml(self) -> float:
        """Of the region in the scan."""
        return float(self.share.sum()) * self.voxel_ml

    def mean(self, data: npt.NDArray[np.floating[Any]]) -> float:
        """Mean of a scan's values over the region."""
        return float(np.sum(self.share * data[self.window], dtype=np.float64) / self.share.sum())

    def total(self, data: npt.NDArray[np.floating[Any]]) -> float:
        """Integral of a scan's values over the region: its counts, where the values are counts per ml."""
        return float(np.sum(self.share * data[self.window], dtype=np.float64)) * self.voxel_ml


def cover(
    region: Region, affine: Float64, shape: Sequence[int], scan_from_mni: Float64 | None = None, points: int = 3
) -> Cover:
    """Lay a region over a scan.

    Args:
        region: in MNI space.
        affine: ``(4, 4)`` from voxel index to RAS+ mm of the scan; volumes are in its millilitres, not in those of MNI.
        shape: of the scan's array.
        scan_from_mni: ``(4, 4)``, RAS+ mm of both; default the scan lies in MNI space itself.
        points: asked along each edge of a voxel.

    Raises:
        FieldOfViewError: more than a hundredth of the region lies outside the scan.
    """
    index_to_mni = affine if scan_from_mni is None else np.linalg.inv(scan_from_mni) @ affine
    to_index = np.linalg.inv(index_to_mni)
    corners = np.array(list(product(*region.box_mm.T))) @ to_index[:3, :3].T + to_index[:3, 3]
    low = np.floor(corners.min(axis=0) + 0.5).astype(int)
    high = np.floor(corners.max(axis=0) + 0.5).astype(int) + 1
    grid = np.stack(np.meshgrid(*(np.arange(a, b) for a, b in zip(low, high, strict=True)), indexing="ij"), axis=-1)
    places = grid.reshape(-1, 3) @ index_to_mni[:3, :3].T + index_to_mni[:3, 3]
    hits = np.zeros(len(places), dtype=np.int64)
    steps = (np.arange(points) + 0.5) / points - 0.5
    for offset in product(steps, repeat=3):
        hits += region.contains(places + index_to_mni[:3, :3] @ offset)
    share = hits.reshape(grid.shape[:3]) / points**3
    inside = tuple(slice(max(0, -a), max(0, n - a)) for a, n in zip(low, shape, strict=True))
    kept = share[inside]
    if not share.sum() or kept.sum() < (1 - _OUTSIDE) * share.sum():
        lost = 100 * (1 - kept.sum() / share.sum()) if share.sum() else 100.0
        raise FieldOfViewError(
            f"{lost:.0f} % of the {region.name} lies outside the scan",
            "the whole brain above the cerebellum inside it",
            "Use a scan with a larger field of view, or another reference region",
        )
    window = tuple(slice(max(0, int(a)), max(0, int(a)) + n) for a, n in zip(low, kept.shape, strict=True))
    voxel_ml = float(abs(np.linalg.det(affine[:3, :3]))) / 1000
    return Cover((window[0], window[1], window[2]), kept, voxel_ml)


# -- Our own atlas ------------------------------------------------------------------------------------------------

_FLIP: Final = np.array([-1.0, 1.0, 1.0])


def _ellipsoid(centre: Float64, axes: Float64) -> Ellipsoid:
    rows = [tuple(float(v) for v in row) for row in axes]
    x, y, z = (float(v) for v in centre)
    return Ellipsoid((x, y, z), (rows[0], rows[1], rows[2]))  # type: ignore[arg-type]


def _oriented(
    centre_mm: Sequence[float], semi_mm: Sequence[float], long: Sequence[float], flat: Sequence[float]
) -> Ellipsoid:
    """An ellipsoid from the directions of its longest and (made perpendicular to it) its shortest axis."""
    along = np.array(long) / np.linalg.norm(long)
    across = np.array(flat) - along * (along @ np.array(flat))
    across /= np.linalg.norm(across)
    axes = np.stack([along, np.cross(across, along), across]) * np.array(semi_mm)[:, None]
    return _ellipsoid(np.array(centre_mm), axes)


# The right side, RAS+ mm of MNI152: centre, semi-axes (longest first), direction of the longest and of the shortest.
PUTAMEN: Final = _oriented((26.2, 1.9, 1.2), (20.6, 11.9, 5.8), (0.25, -0.93, 0.26), (0.97, 0.26, 0.02))
CAUDATE: Final = _oriented((13.0, 13.8, 7.3), (19.4, 10.5, 5.0), (0.09, -0.58, 0.81), (0.77, -0.48, -0.43))
COMMISSURE_Y_MM: Final = 0.0  # anterior and posterior putamen meet in the plane of the anterior commissure
_OCCIPITAL: Final = _oriented((22.0, -76.0, 6.0), (17.0, 15.0, 13.0), (0.0, 0.0, 1.0), (0.0, 1.0, 0.0))
# Half a cerebrum, half a cerebellum with its stem, a temporal pole; their mirror images complete the brain.
_HALF_BRAIN: Final = (
    _oriented((17.0, -19.0, 14.0), (85.0, 60.0, 53.0), (0.0, 1.0, 0.0), (1.0, 0.0, 0.0)),
    _oriented((18.0, -59.0, -34.0), (37.0, 31.0, 30.0), (1.0, 0.0, 0.0), (0.0, 0.0, 1.0)),
    _oriented((37.0, -2.0, -21.0), (30.0, 30.0, 29.0), (0.0, 1.0, 0.0), (1.0, 0.0, 0.0)),
)


@cache
def own_atlas() -> Atlas:
    """The parametric atlas. Where caudate and putamen would share a point, it belongs to the caudate."""
    parts: dict[tuple[Part, Side], Region] = {}
    search: dict[tuple[Part, Side], Region] = {}
    generous = []
    for side in Side:
        caudate, putamen = (e if side is Side.RIGHT else e.mirrored() for e in (CAUDATE, PUTAMEN))
        whole = union(f"{side.value} putamen", [putamen], without=[caudate])
        parts["caudate", side] = union(f"{side.value} caudate", [caudate])
        parts["putamen", side] = whole
        parts["striatum", side] = union(f"{side.value} striatum", [caudate, putamen])
        for part, ahead in (("anterior putamen", True), ("posterior putamen", False)):
            parts[part, side] = _cut(f"{side.value} {part}", whole, 1, COMMISSURE_Y_MM, above=ahead)  # type: ignore[index]
        near = {"caudate": (caudate, putamen), "putamen": (putamen, caudate)}
        for part, (own, other) in near.items():
            region = _nearest(f"search volume of the {side.value} {part}", own.grown(SEARCH_MM), other.grown(SEARCH_MM))
            search[part, side] = own_side(region, side)  # type: ignore[index]
        both = union(f"search volume of the {side.value} striatum", [e.grown(SEARCH_MM) for e in (caudate, putamen)])
        search["striatum", side] = own_side(both, side)
        spilled = union(f"volume around the {side.value} striatum", [e.grown(GENEROUS_MM) for e in (caudate, putamen)])
        generous.append(own_side(spilled, side))
    striata = [grown for e in (CAUDATE, PUTAMEN) for grown in _both(e.grown(GENEROUS_MM))]
    within = [half for e in _HALF_BRAIN for half in _both(e.grown(-RIM_MM))]
    references: dict[Reference, Region] = {
        "occipital": union("occipital reference", _both(_OCCIPITAL)),
        "brain": union("brain without the striata", within, without=striata),
    }
    return Atlas("own", parts, references, search, (generous[0], generous[1]))


def whole_brain() -> Region:
    """The brain's outline."""
    return union("brain", [half for e in _HALF_BRAIN for half in _both(e)])


def union(name: str, of: Sequence[Ellipsoid], without: Sequence[Ellipsoid] = ()) -> Region:
    """All points in any of some ellipsoids and in none of some others."""

    def contains(points: Float64) -> Mask:
        found = np.zeros(len(points), dtype=bool)
        for ellipsoid in of:
            found |= ellipsoid.contains(points)
        for ellipsoid in without:
            found[found] = ~ellipsoid.contains(points[found])
        return found

    boxes = np.stack([ellipsoid.box_mm for ellipsoid in of])
    return Region(name, contains, np.stack([boxes[:, 0].min(axis=0), boxes[:, 1].max(axis=0)]))


def _nearest(name: str, own: Ellipsoid, other: Ellipsoid) -> Region:
    """All points in one ellipsoid that lie, measured in its own size, no deeper in another."""

    def contains(points: Float64) -> Mask:
        level = own.level(points)
        inside: Mask = (level <= 1.0) & (level < other.level(points))
        return inside

    return Region(name, contains, own.box_mm)


def own_side(region: Region, side: Side) -> Region:
    """The part of a region that lies on one side of the midline."""
    return _cut(region.name, region, 0, 0.0, above=side is Side.RIGHT)


def _cut(name: str, region: Region, axis: int, at_mm: float, *, above: bool) -> Region:
    def contains(points: Float64) -> Mask:
        beyond: Mask = points[:, axis] > at_mm
        return region.contains(points) & (beyond if above else ~beyond)

    box = region.box_mm.copy()
    edge = 0 if above else 1
    box[edge, axis] = max(box[0, axis], at_mm) if above else min(box[1, axis], at_mm)
    return Region(name, contains, box)


def _both(ellipsoid: Ellipsoid) -> list[Ellipsoid]:
    return [ellipsoid, ellipsoid.mirrored()]


# -- An atlas that a user brings ----------------------------------------------------------------------------------

_NAMES: Final = {part.replace(" ", "_"): part for part in PARTS}


def read_atlas(path: str | os.PathLike[str]) -> Atlas:
    """Volumes of interest from a label image in MNI152 space.

    Args:
        path: NIfTI of whole numbers. Beside it lies a table of the same name ending in ``.tsv``, as BIDS has it, with
            the columns ``index`` and ``name``. Names: ``caudate_right``, ``caudate_left``, ``putamen_right``,
            ``putamen_left`` (or ``anterior_putamen_right`` and ``posterior_putamen_right``, and so for the left), and,
            if it has one, ``occipital``. Other names are passed over.

    Returns:
        An atlas whose parts are those of the image. Volumes in which counts are gathered or hot voxels looked for
        (around the striatum, the whole brain), and a missing occipital region, are our own.

    Raises:
        ImageError: no such files, a part that is missing or empty, or that lies on the wrong side.
        OrientationError: see :func:`nigradat.io.nifti.read_volume`.
    """
    source = Path(path)
    data, matrix = read_volume(source)
    affine = np.asarray(matrix, dtype=np.float64)
    labels = np.rint(data).astype(np.int64)
    named = _read_names(source.with_name(source.name.removesuffix(".gz").removesuffix(".nii") + ".tsv"))
    ours = own_atlas()
    parts: dict[tuple[Part, Side], Region] = {}
    for side in Side:
        found: dict[Part, list[int]] = {
            part: [index for index, name in named if name == f"{word}_{side.value}"] for word, part in _NAMES.items()
        }
        found["putamen"] = found["putamen"] or found["anterior putamen"] + found["posterior putamen"]
        needed: tuple[Part, ...] = ("caudate", "putamen")
        missing = [part for part in needed if not found[part]]
        if missing:
            raise ImageError(
                f"{source}: no {' and no '.join(missing)} on the {side.value}",
                f"the names caudate_{side.value} and putamen_{side.value} in the table beside it",
            )
        found["striatum"] = found["striatum"] or found["caudate"] + found["putamen"]
        for part, indices in found.items():
            if indices:
                parts[part, side] = _labelled(source, labels, affine, indices, f"{side.value} {part}")
    for part in dict.fromkeys(part for part, _ in parts):
        if all((part, side) in parts for side in Side):
            check_sides(*(parts[part, side].box_mm.mean(axis=0) for side in Side))
    references = dict(ours.references)
    if occipital := [index for index, name in named if name == "occipital"]:
        references["occipital"] = _labelled(source, labels, affine, occipital, "occipital reference")
    return Atlas(source.name, parts, references, ours.search, ours.generous)


def _read_names(path: Path) -> list[tuple[int, str]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            rows = list(csv.DictReader(stream, delimiter="\t"))
        return [(int(row["index"]), row["name"].strip().lower()) for row in rows]
    except (OSError, KeyError, ValueError, AttributeError, TypeError, csv.Error) as error:
        raise ImageError(
            f"{path}: missing, or no table of labels ({type(error).__name__})",
            "tab-separated text with the columns index and name, one line a label",
        ) from error


def _labelled(source: Path, labels: npt.NDArray[np.int64], affine: Float64, of: Sequence[int], name: str) -> Region:
    mask = np.isin(labels, of)
    if not mask.any():
        raise ImageError(f"{source}: no voxel has the label of the {name}", "labels that are used in the image")
    to_index = np.linalg.inv(affine)
    last = np.array(mask.shape) - 1

    def contains(points: Float64) -> Mask:
        index = np.floor(points @ to_index[:3, :3].T + to_index[:3, 3] + 0.5).astype(np.int64)
        inside = ((index >= 0) & (index <= last)).all(axis=1)
        hits = np.zeros(len(points), dtype=bool)
        hits[inside] = mask[tuple(index[inside].T)]
        return hits

    where = np.argwhere(mask)
    edges = np.array(list(product(*zip(where.min(axis=0) - 0.5, where.max(axis=0) + 0.5, strict=True))))
    corners = edges @ affine[:3, :3].T + affine[:3, 3]
    return Region(name, contains, np.stack([corners.min(axis=0), corners.max(axis=0)]))
