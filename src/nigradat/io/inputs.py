"""Whatever a user calls an input, as patch pairs: a .mat, two patches, a manifest, a packed cohort or a folder of files."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from nigradat.errors import ConfigError, ImageError
from nigradat.io.manifest import read_manifest
from nigradat.io.nifti import AffineChoice
from nigradat.io.pack import load_cohort
from nigradat.io.pairs import find_pairs, read_pair
from nigradat.pair import NigralPair


def read_inputs(
    inputs: Sequence[str | os.PathLike[str]],
    *,
    right: str | os.PathLike[str] | None = None,
    left: str | os.PathLike[str] | None = None,
    affine: AffineChoice = "auto",
) -> Iterator[NigralPair]:
    """Pairs one by one, so that a large cohort is never whole in memory.

    Args:
        inputs: each a ``.mat``, a manifest (``.tsv``; labels are not needed), a packed cohort or a folder of patch files.
        right, left: two NIfTI patches of one visit, given together.
        affine: which of a NIfTI's two orientations decides where they conflict.

    Raises:
        ConfigError: nothing given, or one patch without the other.
        ImageError, ManifestError and others: as the readers say.
    """
    if (right is None) != (left is None):
        raise ConfigError(
            f"only the {'left' if right is None else 'right'} patch", "both sides: --right R --left L", ""
        )
    if not inputs and right is None:
        raise ConfigError("no input", "a .mat, --right R --left L, a manifest or a folder")
    if right is not None and left is not None:
        yield read_pair(right, left, affine)
    for item in inputs:
        path = Path(item)
        if path.is_dir() and (path / "cohort.json").is_file():
            cohort = load_cohort(path)
            yield from (cohort.pair(row) for row in range(len(cohort)))
        elif path.is_dir():
            yield from (read_pair(p.right, p.left, affine, p.id) for p in find_pairs(path))
        elif path.suffix == ".tsv":
            for row in read_manifest(path, require_labels=False):
                yield read_pair(
                    row.right, row.left, affine, row.participant.participant_id, row.participant.session_id
                )
        elif path.suffix == ".mat":
            yield read_pair(path, path, affine)
        elif path.is_file():
            raise ImageError(
                f"{path} alone", "a .mat, a manifest (.tsv), a folder, or two patches as --right R --left L"
            )
        else:
            raise ImageError(f"{path} does not exist", "a file or a folder")
