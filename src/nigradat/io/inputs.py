"""Whatever a user calls an input, as patch pairs: a .mat, two NIfTI patches, a manifest, a packed cohort, a folder."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from nigradat.errors import ConfigError, ImageError
from nigradat.io.manifest import read_manifest
from nigradat.io.nifti import AffineChoice
from nigradat.io.pack import load_cohort
from nigradat.io.pairs import find_pairs, read_pair, read_row
from nigradat.pair import NigralPair

Source = NigralPair | str | os.PathLike[str]
_TAKEN: Final = "a .mat, two patches as --right R --left L, a manifest (.tsv), a packed cohort or a folder of patches"


def read_inputs(
    inputs: Sequence[str | os.PathLike[str]],
    *,
    right: str | os.PathLike[str] | None = None,
    left: str | os.PathLike[str] | None = None,
    affine: AffineChoice = "auto",
) -> Iterator[NigralPair]:
    """Pairs one by one, so that a large cohort is never whole in memory.

    Args:
        inputs: each a ``.mat``, a manifest (``.tsv``; labels are not needed), a packed cohort, or a folder of ``.mat``
            files and NIfTI patches whose names tell the side (see :func:`nigradat.io.pairs.find_pairs`).
        right, left: two NIfTI patches of one visit, given together; they come first.
        affine: which of a NIfTI's two orientations decides where they conflict.

    Raises:
        ConfigError: nothing given, or one patch without the other.
        ImageError, ManifestError and others: as the readers say.
    """
    if (right is None) != (left is None):
        raise ConfigError(f"only the {'left' if right is None else 'right'} patch", "both sides: --right R --left L")
    if not inputs and right is None:
        raise ConfigError("no input", _TAKEN)
    if right is not None and left is not None:
        yield read_pair(right, left, affine)
    for item in inputs:
        yield from _read_one(Path(item), affine)


def pairs_of(
    inputs: Source | Sequence[Source],
    *,
    right: str | os.PathLike[str] | None = None,
    left: str | os.PathLike[str] | None = None,
    affine: AffineChoice = "auto",
) -> Iterator[NigralPair]:
    """Pairs one by one from what a caller may hold: pairs, paths, several of either; see :func:`read_inputs`."""
    several = [inputs] if isinstance(inputs, NigralPair | str | os.PathLike) else list(inputs)
    if right or left or not several:
        yield from read_inputs([], right=right, left=left, affine=affine)
    for item in several:
        yield from (item,) if isinstance(item, NigralPair) else read_inputs([item], affine=affine)


@dataclass(frozen=True, eq=False)
class PatchSample:
    """Patches in memory.

    Attributes:
        patches: native, ``(n, 2, 50, 50, 20)``, right first.
        is_phantom: they are known to be of a digital phantom.
        rows: ``(n,)`` of the packed cohort that they are from; None for anything else.
    """

    patches: npt.NDArray[np.float32]
    is_phantom: bool = False
    rows: npt.NDArray[np.int_] | None = None


def read_patches(source: str | os.PathLike[str], limit: int) -> PatchSample:
    """Patches of an input, at most ``limit`` of them in memory.

    Args:
        source: as in :func:`read_inputs`. Of a packed cohort with more visits evenly spaced ones are taken; of anything
            else the first.
        limit: visits at most.

    Raises:
        ImageError: nothing in it; others as :func:`read_inputs`.
    """
    folder = Path(source)
    if (folder / "cohort.json").is_file():
        cohort = load_cohort(folder)
        rows = np.unique(np.linspace(0, len(cohort) - 1, min(limit, len(cohort))).round().astype(int))
        return PatchSample(np.stack([cohort.read(int(row)) for row in rows]), cohort.is_phantom, rows)
    pairs = list(islice(read_inputs([source]), limit))
    if not pairs:
        raise ImageError(f"{source} holds no pair of patches", _TAKEN)
    return PatchSample(np.stack([pair.patches for pair in pairs]))


def _read_one(path: Path, affine: AffineChoice) -> Iterator[NigralPair]:
    if not path.exists():
        raise ImageError(f"{path} does not exist", _TAKEN)
    if (path / "cohort.json").is_file():
        cohort = load_cohort(path)
        yield from (cohort.pair(row) for row in range(len(cohort)))
    elif path.is_dir():
        yield from (read_pair(files.right, files.left, affine, files.id) for files in find_pairs(path))
    elif path.suffix == ".tsv":
        for row in read_manifest(path, require_labels=False):
            yield read_row(row, affine)
    elif path.suffix == ".mat":
        yield read_pair(path, path, affine)
    else:
        raise ImageError(f"{path} alone", _TAKEN)
