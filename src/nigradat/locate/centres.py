"""Nigrosome-1 centres that a reader gives, from the files that viewers write.

A TSV of ours, point lists of 3D Slicer (``.mrk.json``, ``.fcsv``), landmarks of ITK-SNAP (``.annot``) and label images
(NIfTI). Each says in which coordinates its points are; one that does not say is refused.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final
from xml.etree import ElementTree

import numpy as np
import numpy.typing as npt

from nigradat.anatomy import Side, check_sides
from nigradat.errors import ConfigError, ImageError, LateralityError, NigradatError
from nigradat.io.files import write_text
from nigradat.io.manifest import CENTRE_COLUMNS
from nigradat.io.nifti import AffineChoice, read_volume

Float64 = npt.NDArray[np.float64]
Point = tuple[str, Float64]  # label, RAS+ mm

FORMATS: Final = ".tsv, .mrk.json, .fcsv, .annot, .nii or .nii.gz"
_LARGEST_BYTES: Final = 5_000_000  # of a list of points
_RAS_OF: Final = {"RAS": (1.0, 1.0, 1.0), "LPS": (-1.0, -1.0, 1.0)}
_FCSV_NUMBERS: Final = {"0": "RAS", "1": "LPS"}  # older versions of Slicer write a number
_SNAP_FORMAT: Final = "ITK-SNAP Annotation File"


def read_centres(
    path: str | os.PathLike[str], image_affine: npt.ArrayLike, affine: AffineChoice = "auto"
) -> dict[Side, Float64]:
    """Two centres, RAS+ mm.

    Points are told apart by their labels (right, left, R, L, hemi-R, hemi-L; anything around them), or, where neither
    point names a side, by their own coordinates.

    Args:
        path: ``.tsv`` with the columns ``right_x`` to ``left_z`` and one line, or ``side``, ``x``, ``y``, ``z`` and two
            lines (RAS+ mm); 3D Slicer's ``.mrk.json`` or ``.fcsv`` (RAS or LPS, as the file says); ITK-SNAP's
            ``.annot`` (voxels of the image); or a NIfTI label image, whose labels' centres of mass are taken.
        image_affine: ``(4, 4)`` of the image that the points were set in.
        affine: which orientation of a label image counts.

    Raises:
        ConfigError: no such format, no two points, or coordinates of an unknown kind.
        LateralityError: the labels contradict the coordinates.
        ImageError, OrientationError: an unusable label image.

    Example:
        >>> read_centres("centres.tsv", image_affine)[Side.RIGHT]                               # doctest: +SKIP
    """
    source = Path(path)
    if source.name.endswith((".nii", ".nii.gz")):
        centres = _from_label_image(source, affine)
    else:
        readers: Mapping[str, Callable[[str], list[Point]]] = {
            ".tsv": _from_tsv,
            ".json": _from_markups,
            ".fcsv": _from_fcsv,
            ".annot": lambda text: _from_snap(text, np.asarray(image_affine, dtype=np.float64)),
        }
        if source.suffix not in readers:
            raise ConfigError(f"{source}: centres in a {source.suffix or 'nameless'} file", FORMATS)
        text = _read_text(source)
        try:
            centres = _by_side(readers[source.suffix](text))
        except NigradatError as error:
            raise type(error)(f"{source}: {error.found}", error.expected, error.todo) from error
        except (ValueError, KeyError, IndexError, TypeError, AttributeError, ElementTree.ParseError) as error:
            raise ConfigError(f"{source}: no list of points ({type(error).__name__}: {error})", FORMATS) from error
    for side, centre in centres.items():
        if not np.isfinite(centre).all() or np.abs(centre).max() > 1000:
            raise ConfigError(f"{source}: the {side.value} centre {centre.tolist()}", "RAS+ coordinates in mm")
    try:
        check_sides(centres[Side.RIGHT], centres[Side.LEFT])
    except LateralityError as error:
        raise LateralityError(f"{source}: {error.found}", error.expected, error.todo) from error
    return centres


def write_centres(path: str | os.PathLike[str], centres: Mapping[Side, npt.NDArray[np.floating]]) -> None:
    """Centres as one line with the columns of a manifest, RAS+ mm, to a thousandth of a millimetre."""
    values = [f"{value:.3f}" for side in Side for value in centres[side]]
    write_text(path, "\t".join(CENTRE_COLUMNS) + "\n" + "\t".join(values) + "\n")


def _read_text(path: Path) -> str:
    try:
        if path.stat().st_size > _LARGEST_BYTES:
            raise ConfigError(f"{path}: {path.stat().st_size:,} bytes", "a list of two points")
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})", f"centres as {FORMATS}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: no UTF-8 text", f"centres as {FORMATS}") from error


def _by_side(points: Sequence[Point]) -> dict[Side, Float64]:
    named = [(_side_named(label), place) for label, place in points]
    chosen = {side: [place for named_side, place in named if named_side is side] for side in Side}
    if all(len(places) == 1 for places in chosen.values()):
        return {side: places[0] for side, places in chosen.items()}
    if len(points) == 2 and not any(chosen.values()):
        first, second = sorted((place for _, place in points), key=lambda place: -place[0])
        return {Side.RIGHT: first, Side.LEFT: second}
    shown = ", ".join(repr(label) for label, _ in points[:6]) or "none"
    raise ConfigError(
        f"{len(points)} points ({shown})",
        "two points, or one whose label says right and one whose label says left",
        "Name the two centres R and L and remove the others",
    )


def _side_named(label: str) -> Side | None:
    words = set(re.sub(r"[^a-z]+", " ", label.lower()).split())
    right, left = bool(words & {"right", "r", "rh"}), bool(words & {"left", "l", "lh"})
    return None if right == left else Side.RIGHT if right else Side.LEFT


def _point(values: Sequence[float | str]) -> Float64:
    if len(values) != 3:
        raise ConfigError(f"a point of {len(values)} coordinates", "three")
    return np.array([float(value) for value in values])


def _from_tsv(text: str) -> list[Point]:
    lines = [line.split("\t") for line in text.splitlines() if line.strip()]
    header = [name.strip() for name in lines[0]]
    records = [dict(zip(header, line, strict=True)) for line in lines[1:]]
    if set(CENTRE_COLUMNS) <= set(header):
        if len(records) != 1:
            raise ConfigError(f"{len(records)} lines of centres", "one line, of this image")
        cells = [records[0][name] for name in CENTRE_COLUMNS]
        return [("right", _point(cells[:3])), ("left", _point(cells[3:]))]
    if {"side", "x", "y", "z"} <= set(header):
        return [(record["side"], _point([record[axis] for axis in "xyz"])) for record in records]
    raise ConfigError(
        f"the columns {', '.join(header)}", f"{', '.join(CENTRE_COLUMNS)} (one line), or side, x, y, z (two lines)"
    )


def _from_markups(text: str) -> list[Point]:
    points = []
    for markup in json.loads(text)["markups"]:
        sign = _sign(str(markup.get("coordinateSystem", "missing")))
        for number, point in enumerate(markup["controlPoints"], start=1):
            points.append((str(point.get("label", number)), _point(point["position"]) * sign))
    return points


def _from_fcsv(text: str) -> list[Point]:
    head = {}
    for line in text.splitlines():
        if line.startswith("#") and "=" in line:
            name, value = line[1:].split("=", 1)
            head[name.strip()] = value.strip()
    system = head.get("CoordinateSystem", "missing")
    sign = _sign(_FCSV_NUMBERS.get(system, system))
    columns = [name.strip() for name in head.get("columns", "id,x,y,z,ow,ox,oy,oz,vis,sel,lock,label").split(",")]
    points = []
    for line in text.splitlines():
        if line.strip() and not line.startswith("#"):
            # newer versions write more cells than they name
            cells = dict(zip(columns, line.split(","), strict=False))
            points.append((cells.get("label", ""), _point([cells[axis] for axis in "xyz"]) * sign))
    return points


def _sign(system: str) -> npt.NDArray[np.float64]:
    if system not in _RAS_OF:
        raise ConfigError(f"coordinate system {system}", "RAS or LPS", "Save the points again with 3D Slicer")
    return np.array(_RAS_OF[system])


def _from_snap(text: str, image_affine: Float64) -> list[Point]:
    """Landmarks of ITK-SNAP (format of 2015-06-24): positions in voxels, the first voxel's centre at one half."""
    if "<!ENTITY" in text:
        raise ConfigError("an XML with entities of its own", "a file as ITK-SNAP writes it")
    root = ElementTree.fromstring(text)
    entries = {entry.get("key"): entry.get("value", "") for entry in root.findall("entry")}
    if entries.get("Format") != _SNAP_FORMAT:
        raise ConfigError(f"the format {entries.get('Format')!r}", repr(_SNAP_FORMAT))
    points = []
    for element in root.iterfind("folder[@key='Annotations']/folder"):
        values = {entry.get("key"): entry.get("value", "") for entry in element.findall("entry")}
        if values.get("Type") == "LandmarkAnnotation":
            index = _point(values["Pos"].split()) - 0.5
            points.append((values.get("Text", ""), image_affine[:3, :3] @ index + image_affine[:3, 3]))
    return points


def _from_label_image(path: Path, affine: AffineChoice) -> dict[Side, Float64]:
    """Centre of mass of each of two labels, or of each of the two parts of one label."""
    from scipy import ndimage

    labels, matrix = read_volume(path, affine)
    values = np.unique(labels[labels != 0])
    parts = labels
    if values.size == 1:
        parts, found = ndimage.label(labels)
        values = np.arange(1, found + 1)
    if values.size != 2:
        raise ImageError(f"{path}: {values.size} labelled regions", "two, one on each side")
    points = []
    for value in values:
        index = np.argwhere(parts == value).mean(axis=0)
        points.append(("", matrix[:3, :3] @ index + matrix[:3, 3]))
    return _by_side(points)
