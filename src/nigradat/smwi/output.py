"""An SMWI and its parts on disk: NIfTI files, each with a sidecar that says how it was made."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Final

from nigradat import __version__
from nigradat.io.files import new_folder, write_json
from nigradat.io.nifti import write_volume
from nigradat.smwi.chain import SmwiResult
from nigradat.smwi.recipe import SIDECAR_KEY, sidecar_of
from nigradat.volume import Volume

SMWI_NAME: Final = "smwi.nii.gz"
DIAMAGNETIC_NAME: Final = "smwi-diamagnetic.nii.gz"
CHI_NAME: Final = "chi.nii.gz"
FIELD_NAME: Final = "field.nii.gz"
MASK_NAME: Final = "mask.nii.gz"
RESEARCH_ONLY: Final = "Research only, not for diagnosis."


def sidecar(volume: Volume, recipe: dict[str, Any], **more: Any) -> dict[str, Any]:
    """What stands beside an image: its recipe, where it came from and what was done to it."""
    return {
        SIDECAR_KEY: recipe,
        **more,
        "Sources": list(volume.source.files),
        "SourceKind": volume.source.kind,
        "SourceAttributes": dict(volume.source.attributes),
        "Steps": list(volume.source.steps),
        "GeneratedBy": {"Name": "nigradat", "Version": __version__},
        "IntendedUse": RESEARCH_ONLY,
    }


def write_smwi(result: SmwiResult, out: str | os.PathLike[str], *, diamagnetic: bool = False) -> Path:
    """Write what a result holds into a new folder, whole or not at all.

    ``smwi.nii.gz``, ``chi.nii.gz`` (ppm), ``field.nii.gz`` (ppm), ``mask.nii.gz`` and, where asked for,
    ``smwi-diamagnetic.nii.gz``; each with a ``.json`` beside it.

    Returns:
        The folder.

    Raises:
        OutputError: ``out`` is in use, or the disk is full.

    Example:
        >>> write_smwi(make_smwi(read_gre("gre")), "smwi", diamagnetic=True)                   # doctest: +SKIP
    """
    parts: list[tuple[str, Volume | None, dict[str, Any]]] = [
        (SMWI_NAME, result.smwi, {}),
        (DIAMAGNETIC_NAME, result.diamagnetic if diamagnetic else None, {}),
        (CHI_NAME, result.chi, {"Units": "ppm"}),
        (FIELD_NAME, result.field, {"Units": "ppm"}),
        (MASK_NAME, result.mask, {}),
    ]
    with new_folder(out) as folder:
        for name, volume, more in parts:
            if volume is not None:
                data = volume.data.astype("uint8") if name == MASK_NAME else volume.data
                write_volume(folder / name, data, volume.affine)
                write_json(sidecar_of(folder / name), sidecar(volume, dict(result.recipe), **more))
    return Path(out)
