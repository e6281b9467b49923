"""Where nigra, red nucleus and nigrosome-1 lie in MNI152 space: our own parametric atlas, or one that a user brings.

The parametric atlas holds the shapes of the digital nigra (:mod:`nigradat.phantom.anatomy`: a superellipsoid with a
compact layer behind, an ellipsoid for the red nucleus), as large as published volumes say and where published atlases
put them. No image of another atlas is in the package. Places and axes are the mean over both sides of CIT168 (Pauli
2018) and the Allen human reference (Ding 2016); both are given in docs/explanation/locating-nigrosome-1.md.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from nigradat.anatomy import Side
from nigradat.errors import ConfigError, ImageError
from nigradat.io.nifti import AffineChoice, RawImage, read_raw
from nigradat.phantom.anatomy import RED_NUCLEUS, SN_POWER

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]

# In the order (lateral, anterior, superior), mm of MNI152, for either side.
NIGRA_CENTRE_MM: Final = (9.9, -17.2, -13.7)
NIGRA_SEMI_MM: Final = (8.0, 6.3, 2.2)  # along its long axis, down its slope, across: 560 mm3 (published: 300 to 600)
NIGRA_LONG: Final = (-0.09, 0.96, 0.25)  # nearly straight forwards
NIGRA_ACROSS: Final = (0.70, 0.24, -0.67)  # towards the peduncle: forwards, outwards and down
RED_NUCLEUS_CENTRE_MM: Final = (5.2, -19.4, -9.7)
# The compact layer: a third of the nigra, its posteromedial surface, thicker at the posterior and the caudal end.
COMPACT_DEPTH: Final = -0.2
COMPACT_TILT: Final = (0.45, -0.35)  # along the long axis and down the slope

OUTERMOST: Final = 0.2  # of the compact part's volume
_POSTEROLATERAL: Final = np.array([1.0, -1.0, 0.0]) / np.sqrt(2.0)
_CORE: Final = 0.25  # of the largest membership; the tails of a probability reach far out
_STEP_MM: Final = 0.5
_CORNER_MM: Final = (-24.0, -32.0, -26.0)
_SHAPE: Final = (97, 61, 53)
_EDGE_MM: Final = 0.6
_SD_OF_SEMI: Final = 0.48  # standard deviation along an axis of a superellipsoid of power 2.6, over its semi-axis


@dataclass(frozen=True, eq=False)
class Atlas:
    """How much each point of MNI152 space belongs to three structures.

    Attributes:
        name: for the records.
        affine: ``(4, 4)`` from index to RAS+ mm of MNI152.
        nigra, compact, red_nucleus: membership in [0, 1], ``(2, X, Y, Z)`` float32, right first. The compact part lies
            inside the nigra.

    Raises:
        ImageError: a structure that is empty on one side, or lies on the wrong one.
    """

    name: str
    affine: Float64
    nigra: Float32
    compact: Float32
    red_nucleus: Float32

    def __post_init__(self) -> None:
        structures = {"substantia nigra": self.nigra, "pars compacta": self.compact, "red nucleus": self.red_nucleus}
        for what, maps in structures.items():
            _check_there(self.name, what, maps)
            for side in Side:
                x = float(self.centroid(maps[side.index])[0])
                if (x > 0) is not (side is Side.RIGHT):
                    raise ImageError(
                        f"the {side.value} {what} of the atlas {self.name} lies at x = {x:.1f} mm",
                        "the right one at positive x (RAS+), the left one at negative x",
                        "Check its orientation and the names of its structures",
                    )

    def centroid(self, membership: npt.NDArray[np.floating[Any]]) -> Float64:
        """Centre of mass of one structure on one side, ``(3,)`` RAS+ mm."""
        points, weights = _points(membership, self.affine)
        return np.average(points, axis=0, weights=weights)


def nigrosome_sites(atlas: Atlas) -> dict[Side, Float64]:
    """Nigrosome-1 of both sides by the one rule of this package, RAS+ mm of MNI152.

    Nigrosome-1 is the *posterolateral point of the pars compacta*: the centre of mass of that fifth of its volume which
    lies farthest along the direction halfway between posterior and lateral. Damier et al. (Brain 1999) describe
    nigrosome 1 in the caudal and mediolateral pars compacta; the rule is our reconstruction of "the nigrosome-1
    centroid" as a point that any atlas of the pars compacta gives.
    """
    sites = {}
    for side in Side:
        points, weights = _points(atlas.compact[side.index], atlas.affine)
        outwards = points * ((1 if side is Side.RIGHT else -1), 1, 1) @ _POSTEROLATERAL
        order = np.argsort(-outwards, kind="stable")
        last = order[np.searchsorted(np.cumsum(weights[order]), OUTERMOST * weights.sum())]
        outer = outwards >= outwards[last] - 1e-6  # with all its equals, so that mirrored sides give mirrored points
        sites[side] = np.average(points[outer], axis=0, weights=weights[outer])
    return sites


@cache
def parametric_atlas() -> Atlas:
    """The package's own atlas, on a grid of 0.5 mm around the midbrain; the left side is the right one mirrored."""
    i, j, k = (corner + _STEP_MM * np.arange(n) for corner, n in zip(_CORNER_MM, _SHAPE, strict=True))
    x, y, z = np.meshgrid(i, j, k, indexing="ij")
    axes = _nigra_axes()
    sides: dict[str, list[Float64]] = {"nigra": [], "compact": [], "red": []}
    for side in Side:
        points = np.stack([x if side is Side.RIGHT else -x, y, z], axis=-1)
        own = (points - NIGRA_CENTRE_MM) @ axes.T / NIGRA_SEMI_MM
        radius = (np.abs(own) ** SN_POWER).sum(-1) ** (1 / SN_POWER)
        nigra = _soft((1 - radius) * NIGRA_SEMI_MM[2])
        compact = nigra * _soft(_compact_depth(own) * NIGRA_SEMI_MM[2])
        red = np.linalg.norm((points - RED_NUCLEUS_CENTRE_MM) / _red_semi(), axis=-1)
        for name, value in (("nigra", nigra), ("compact", compact), ("red", _soft((1 - red) * min(_red_semi())))):
            sides[name].append(value)
    affine = np.diag([_STEP_MM, _STEP_MM, _STEP_MM, 1.0])
    affine[:3, 3] = _CORNER_MM
    maps = {name: np.stack(value).astype(np.float32) for name, value in sides.items()}
    return Atlas("nigradat parametric", affine, maps["nigra"], maps["compact"], maps["red"])


def read_atlas(
    path: str | os.PathLike[str], names: str | os.PathLike[str] | None = None, affine: AffineChoice = "auto"
) -> Atlas:
    """An atlas in MNI152 space from a NIfTI file and the names of its structures.

    Either a label image (three axes, whole numbers), whose structures may hold both sides, or maps of probability (four
    axes), 0 to 1 or 0 to 255. Needed are substantia nigra (whole, or pars compacta and reticulata) and red nucleus.
    Where there is no pars compacta, the layer that ours has is cut from the nigra, in its own axes and sizes.

    Args:
        path: the image.
        names: a JSON file with ``labels`` or ``volumes`` (a list, or an object of number to name), or a BIDS ``.tsv``
            with the columns ``index`` and ``name``. Default: beside the image, with its name.
        affine: which orientation of the header counts.

    Raises:
        ConfigError: no file of names, or one that cannot be understood.
        ImageError: a structure is missing, doubled, or on the wrong side.
        OrientationError: no usable orientation.
    """
    source = Path(path)
    image = read_raw(source, affine)
    stem = re.sub(r"\.nii(\.gz)?$", "", source.name)
    beside = [source.with_name(stem + suffix) for suffix in (".json", ".tsv")]
    table = Path(names) if names is not None else next((p for p in beside if p.is_file()), None)
    if table is None:
        raise ConfigError(
            f"no names of the structures of {source.name}",
            f"{beside[0].name} or {beside[1].name} beside it",
            "Write the names there; see nigradat.locate.atlas.read_atlas",
        )
    wanted = {number: text for number, text in _read_names(table).items() if _kind(text) is not None}
    members, corner = _members(image, sorted(wanted), table)
    found: dict[str, list[tuple[Side | None, Float32]]] = {}
    for number, member in members.items():
        found.setdefault(str(_kind(wanted[number])), []).append((_side(wanted[number]), member))
    if "red" not in found or not {"nigra", "compact"} & set(found):
        raise ImageError(
            f"{table.name} names {', '.join(sorted(found)) or 'none of the structures'}",
            "substantia nigra and red nucleus",
            "Name them so, or SN, SNc, SNr and RN",
        )
    maps = {kind: _both_sides(parts, corner) for kind, parts in found.items()}
    layers = [maps[kind] for kind in ("nigra", "compact", "reticulate") if kind in maps]
    nigra = np.clip(np.sum(layers, axis=0), 0, 1).astype(np.float32)
    _check_there(stem, "substantia nigra", nigra)
    compact = maps["compact"] if "compact" in maps else _compact_layer(nigra, corner)
    return Atlas(stem, corner, nigra, compact, maps["red"])


def _members(image: RawImage, numbers: Sequence[int], table: Path) -> tuple[dict[int, Float32], Float64]:
    """Membership, 0 to 1, by label or volume number, cut to the box that holds them all; and that box's affine."""
    if image.volumes > 1:
        if numbers and not 0 <= numbers[0] <= numbers[-1] < image.volumes:
            raise ConfigError(f"{table}: a name for volume {numbers[-1]}", f"0 to {image.volumes - 1}")
        whole = {number: image.volume(number) for number in numbers}
        seen = np.any([member > 0 for member in whole.values()], axis=0) if whole else np.zeros(image.shape, bool)
    else:
        labels = np.rint(image.volume(0)).astype(np.int32)
        seen = np.isin(labels, numbers)
    if not seen.any():
        return {}, np.eye(4)
    lo, hi = (edge(np.argwhere(seen), axis=0) for edge in (np.min, np.max))
    lo, hi = np.maximum(lo - 2, 0), hi + 3
    box = tuple(slice(i, j) for i, j in zip(lo, hi, strict=True))
    affine = np.array(image.affine, dtype=np.float64)
    affine[:3, 3] = image.affine[:3, :3] @ lo + image.affine[:3, 3]
    if image.volumes > 1:
        scale = 255.0 if max(float(member.max()) for member in whole.values()) > 1 else 1.0
        return {number: (member[box] / scale).astype(np.float32) for number, member in whole.items()}, affine
    return {number: (labels[box] == number).astype(np.float32) for number in numbers}, affine


def _check_there(name: str, what: str, maps: Float32) -> None:
    for side in Side:
        if not maps[side.index].any():
            raise ImageError(f"the atlas {name} has no {what} on the {side.value}", "both sides")


def _red_semi() -> tuple[float, float, float]:
    ahead, aside, up = RED_NUCLEUS.semi_mm
    return aside, ahead, up


def _soft(depth_mm: Float64) -> Float64:
    """1 inside, 0 outside, over an edge of :data:`_EDGE_MM`."""
    return np.clip(depth_mm / _EDGE_MM + 0.5, 0.0, 1.0)


def _points(membership: npt.NDArray[np.floating[Any]], affine: Float64) -> tuple[Float64, Float64]:
    """RAS+ mm and weights of the voxels in a structure's core."""
    index = np.argwhere(membership >= _CORE * membership.max())
    return index @ affine[:3, :3].T + affine[:3, 3], membership[tuple(index.T)].astype(np.float64)


def _read_names(path: Path) -> Mapping[int, str]:
    try:
        text = path.read_text(encoding="utf-8-sig")
        if path.suffix == ".tsv":
            lines = [line.split("\t") for line in text.splitlines() if line.strip()]
            column = {name: i for i, name in enumerate(lines[0])}
            return {int(line[column["index"]]): line[column["name"]] for line in lines[1:]}
        data = json.loads(text)
        names = data["labels"] if "labels" in data else data["volumes"]
        pairs = names.items() if isinstance(names, dict) else enumerate(names)
        return {int(number): str(name) for number, name in pairs}
    except (OSError, ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"{path}: no names of structures ({type(error).__name__}: {error})",
            "a JSON with 'labels' or 'volumes', or a TSV with the columns 'index' and 'name'",
        ) from error


def _words(name: str) -> list[str]:
    return re.sub(r"[^a-z0-9]+", " ", name.lower()).split()


def _kind(name: str) -> str | None:
    """Which of our structures a name means."""
    words = _words(name)
    joined = " ".join(words)
    nigral = "substantia nigra" in joined
    if {"snc", "snpc"} & set(words) or (nigral and "compacta" in joined):
        return "compact"
    if {"snr", "snpr"} & set(words) or (nigral and "reticulata" in joined):
        return "reticulate"
    if nigral or "sn" in words:
        return "nigra"
    return "red" if "red nucleus" in joined or "nucleus ruber" in joined or "rn" in words else None


def _side(name: str) -> Side | None:
    words = set(_words(name))
    right, left = bool(words & {"r", "right", "rh"}), bool(words & {"l", "left", "lh"})
    return None if right == left else Side.RIGHT if right else Side.LEFT


def _both_sides(parts: Sequence[tuple[Side | None, Float32]], affine: Float64) -> Float32:
    """``(2, X, Y, Z)``; a structure without a side is divided at x = 0."""
    shape = parts[0][1].shape
    axes = np.meshgrid(*(np.arange(n) for n in shape), indexing="ij", sparse=True)
    x = sum(affine[0, i] * axis for i, axis in enumerate(axes)) + affine[0, 3]
    out = np.zeros((2, *shape), dtype=np.float32)
    for named, member in parts:
        for side in Side:
            if named is None:
                out[side.index] += member * ((x > 0) if side is Side.RIGHT else (x < 0))
            elif named is side:
                out[side.index] += member
    return np.clip(out, 0, 1)


def _compact_layer(nigra: Float32, affine: Float64) -> Float32:
    """The pars compacta of a nigra in one piece: the layer that ours has, in the nigra's own axes and sizes."""
    out = np.zeros_like(nigra)
    for side in Side:
        mirror = np.array([1.0 if side is Side.RIGHT else -1.0, 1.0, 1.0])
        points, weights = _points(nigra[side.index], affine)
        points = points * mirror
        centre = np.average(points, axis=0, weights=weights)
        values, vectors = np.linalg.eigh(np.cov((points - centre).T, aweights=weights))
        # from the thinnest to the longest: across, slope, long; each turned as ours is
        own_axes = vectors.T[::-1] * np.sign((vectors.T[::-1] * _nigra_axes()).sum(axis=1))[:, None]
        semi = np.sqrt(values[::-1]) / _SD_OF_SEMI
        index = np.argwhere(nigra[side.index] > 0)
        own = ((index @ affine[:3, :3].T + affine[:3, 3]) * mirror - centre) @ own_axes.T / semi
        chosen = tuple(index[_compact_depth(own) > 0].T)
        out[side.index][chosen] = nigra[side.index][chosen]
    return out


def _nigra_axes() -> Float64:
    """Unit vectors in rows, for the right side: along the nigra, down its slope, across."""
    long, across = np.array(NIGRA_LONG), np.array(NIGRA_ACROSS)
    long = long / np.linalg.norm(long)
    across = across - (across @ long) * long
    across /= np.linalg.norm(across)
    return np.stack([long, np.cross(long, across), across])


def _compact_depth(own: Float64) -> Float64:
    """How deep points lie in the compact layer, in half thicknesses of the nigra; ``own`` is 1 at its surface."""
    return np.asarray(COMPACT_DEPTH - own[..., 2] - own[..., :2] @ COMPACT_TILT, dtype=np.float64)
