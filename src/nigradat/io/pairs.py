"""One patch pair from its files, and all the pairs of a folder."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from nigradat.anatomy import Side, patch_from_file_grid
from nigradat.errors import ImageError, LateralityError, ManifestError, NigradatError, OrientationError
from nigradat.io.manifest import ManifestRow
from nigradat.io.mat import read_mat_pair
from nigradat.io.nifti import AffineChoice, read_volume
from nigradat.pair import NigralPair, extract_pair
from nigradat.smwi.recipe import recipe_beside, recipe_differences

_NIFTI_SUFFIX: Final = re.compile(r"\.nii(\.gz)?$")
_SIDE_TOKENS: Final = re.compile(r"(?:^|(?<=[_-]))(hemi-R|hemi-L|right|left)(?=[_-]|$)")
_SIDE_OF: Final = {"hemi-R": Side.RIGHT, "right": Side.RIGHT, "hemi-L": Side.LEFT, "left": Side.LEFT}


@dataclass(frozen=True)
class PairFiles:
    """Where the two patches of a visit lie; twice the same path for a ``.mat``."""

    id: str
    right: Path
    left: Path


def read_pair(
    right: str | os.PathLike[str],
    left: str | os.PathLike[str],
    affine: AffineChoice = "auto",
    participant_id: str | None = None,
    session_id: str = "n/a",
) -> NigralPair:
    """Read a patch pair from two NIfTI patches, or from one ``.mat`` given twice.

    Args:
        right, left: NIfTI patches of 50 x 50 x 20 voxels of 0.5 x 0.5 x 1.0 mm in any of the 48 storage orders.
        affine: see :func:`nigradat.io.nifti.read_volume`.
        participant_id: taken from the file name if not given.
        session_id: carried along.

    Raises:
        ImageError, OrientationError, LateralityError: naming the file.
        ImageError: sidecars that state two SMWI recipes.
    """
    paths = {Side.RIGHT: Path(right), Side.LEFT: Path(left)}
    if any(path.suffix == ".mat" for path in paths.values()):
        if paths[Side.RIGHT] != paths[Side.LEFT]:
            raise ImageError(f"{right} and {left}", "the same .mat twice (it holds both sides) or two NIfTI patches")
        return read_mat_pair(right, participant_id, session_id)
    patches, affines = [], []
    for path in paths.values():
        volume, stored_affine = read_volume(path, affine)
        try:
            patch, patch_affine = patch_from_file_grid(volume, stored_affine)
        except (ImageError, OrientationError) as error:
            raise type(error)(f"{path}: {error.found}", error.expected, error.todo) from error
        patches.append(patch)
        affines.append(patch_affine)
    try:
        return NigralPair(
            np.stack(patches),
            np.stack(affines),
            participant_id or _pair_id(paths[Side.RIGHT]),
            session_id,
            smwi_recipe=_recipe(paths),
        )
    except (ImageError, LateralityError) as error:
        raise type(error)(f"{right}, {left}: {error.found}", error.expected, error.todo) from error


def read_row(row: ManifestRow, affine: AffineChoice = "auto") -> NigralPair:
    """The patch pair of one line of a manifest: read, or cut from its image around the two centres.

    Raises:
        ImageError, OrientationError, LateralityError, FieldOfViewError: naming the file.
    """
    visit = row.participant
    if row.centres_mm is None:
        return read_pair(row.right, row.left, affine, visit.participant_id, visit.session_id)
    volume, matrix = read_volume(row.right, affine)
    try:
        pair = extract_pair(volume, matrix, *row.centres_mm, visit.participant_id)
    except NigradatError as error:
        raise type(error)(f"{row.right}: {error.found}", error.expected, error.todo) from error
    return replace(pair, session_id=visit.session_id, smwi_recipe=recipe_beside(row.right))


def _recipe(paths: dict[Side, Path]) -> dict[str, Any] | None:
    """The SMWI recipe that the sidecars of both patches state, or the one that does."""
    stated = [recipe for path in paths.values() if (recipe := recipe_beside(path)) is not None]
    if len(stated) == 2 and (odd := recipe_differences(*stated)):
        raise ImageError(f"two SMWI recipes ({'; '.join(odd)})", "one for both sides")
    return stated[0] if stated else None


def find_pairs(folder: str | os.PathLike[str]) -> list[PairFiles]:
    """All the pairs in a folder and its subfolders, sorted by id.

    A ``.mat`` is a pair. NIfTI files are paired by name: ``hemi-R`` / ``hemi-L`` or ``right`` / ``left`` as a part of
    its own between ``_`` or ``-``, all else equal. The id is the name without that part. Hidden files are passed over.

    Raises:
        ImageError: no folder, or nothing in it.
        ManifestError: every file whose side is missing or ambiguous, or that has no partner.
    """
    base = Path(folder)
    if not base.is_dir():
        raise ImageError(f"{base} is no folder", "a folder of patch pairs")
    found: defaultdict[tuple[Path, str], dict[Side, list[Path]]] = defaultdict(lambda: {side: [] for side in Side})
    faults = []
    for path in sorted(base.rglob("*")):
        is_mat = path.suffix == ".mat"
        if any(part.startswith(".") for part in path.relative_to(base).parts) or not path.is_file():
            continue
        if not is_mat and not _NIFTI_SUFFIX.search(path.name):
            continue
        tokens = [] if is_mat else _SIDE_TOKENS.findall(_NIFTI_SUFFIX.sub("", path.name))
        if not is_mat and len(tokens) != 1:
            why = "names both sides or one twice" if tokens else "names no side (hemi-R, hemi-L, right or left)"
            faults.append(f"{path.relative_to(base)} {why}")
            continue
        for side in Side if is_mat else (_SIDE_OF[tokens[0]],):
            found[path.parent, _pair_id(path)][side].append(path)

    pairs: dict[str, PairFiles] = {}
    for (_, pair_id), sides in sorted(found.items()):
        faults += [
            f"{paths[0].relative_to(base)} has no {side.other.value} partner"
            for side, paths in sides.items()
            if paths and not sides[side.other]
        ]
        if any(len(paths) > 1 for paths in sides.values()) or pair_id in pairs:
            names = ", ".join(str(p.relative_to(base)) for p in sorted({p for ps in sides.values() for p in ps}))
            faults.append(f"{names}: more than one pair would be called {pair_id!r}")
        elif all(sides.values()):
            pairs[pair_id] = PairFiles(pair_id, sides[Side.RIGHT][0], sides[Side.LEFT][0])
    if faults:
        raise ManifestError(str(base), faults)
    if not pairs:
        raise ImageError(f"no patch pair in {base}", ".mat files, or .nii/.nii.gz named with hemi-R and hemi-L")
    return list(pairs.values())


def _pair_id(path: Path) -> str:
    """The file name without its suffix and without the part that names the side."""
    stem = _NIFTI_SUFFIX.sub("", path.name) if path.suffix != ".mat" else path.stem
    if path.suffix == ".mat":
        return stem
    without = re.sub(r"[_-]{2,}", "_", _SIDE_TOKENS.sub("", stem)).strip("_-")
    return without or path.parent.name
