"""Names and descriptions of what the BIDS App writes.

Every image has a sidecar that names its ``Sources`` as BIDS URIs; ``raw`` stands for the data set that was read. What
the standard has no name for yet (pages, tables of centres, the packed cohort) is listed in ``.bidsignore``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from nigradat import __version__
from nigradat.anatomy import Side
from nigradat.bids.layout import OWN_CENTRES, Visit
from nigradat.io.files import write_json, write_text
from nigradat.io.nifti import write_volume
from nigradat.pair import NigralPair
from nigradat.volume import Source, Volume

BIDS_VERSION: Final = "1.10.0"
COHORT_FOLDER: Final = "cohort"
RECORDS_FOLDER: Final = "visits"
_IGNORED: Final = (
    "*.html",
    COHORT_FOLDER,
    RECORDS_FOLDER,
    "manifest.tsv",
    "*_centres.tsv",
    "*_sbr.json",
    "*.png",
)
_HEMISPHERE: Final = {Side.RIGHT: "R", Side.LEFT: "L"}


def patch_name(visit: Visit, side: Side) -> str:
    """File name of one side's patch."""
    return f"{visit.name}_desc-nigrosome1{_HEMISPHERE[side]}_T2starw.nii.gz"


def image_name(visit: Visit, what: str) -> str:
    """File name of a whole image: ``desc-smwi_T2starw``, ``Chimap``, ``desc-brain_mask``."""
    return f"{visit.name}_{what}.nii.gz"


def centres_name(visit: Visit) -> str:
    """File name of the centres that the patches lie around."""
    return f"{visit.name}_{OWN_CENTRES}_centres.tsv"


def sbr_name(visit: Visit) -> str:
    """File name of what was measured on the SPECT."""
    return f"{visit.name}_sbr.json"


def describe_dataset(out: Path, raw: Path) -> None:
    """Write ``dataset_description.json``, ``.bidsignore`` and ``README`` where they are not there yet.

    Raises:
        OutputError: the disk does not take them.
    """
    name = _name_of(raw)
    files = {
        "dataset_description.json": {
            "Name": f"nigradat derivatives of {name}",
            "BIDSVersion": BIDS_VERSION,
            "DatasetType": "derivative",
            "License": _licence_of(raw),
            "GeneratedBy": [
                {
                    "Name": "nigradat",
                    "Version": __version__,
                    "Description": "SMWI, nigrosome-1 patches and SBR. Research only, not for diagnosis.",
                }
            ],
            "DatasetLinks": {"raw": "file://raw"},
            "SourceDatasets": [{"URL": "file://raw"}],
        },
    }
    for file, content in files.items():
        write_json(out / file, content)
    write_text(out / ".bidsignore", "\n".join(_IGNORED) + "\n")
    write_text(
        out / "README",
        "Made by nigradat from a BIDS data set, here called raw. Research only, not for diagnosis.\n\n"
        "sub-*/.../anat: the SMWI, its susceptibility map and mask, and the two patches around nigrosome-1\n"
        "(nigrosome1R and nigrosome1L, the patient's right and left), each with a sidecar that says what it was made\n"
        "from and how; their centres in *_centres.tsv (RAS mm). *_sbr.json: what was measured on the SPECT.\n"
        "sub-*.html: what was found at each visit. cohort: all patches packed, with the labels.\n",
    )


def write_image(path: Path, image: Volume, sources: Sequence[str], **facts: Any) -> None:
    """An image and its sidecar."""
    write_volume(path, image.data, image.affine)
    write_sidecar(path, image.source, sources, **facts)


def write_patches(
    folder: Path, visit: Visit, pair: NigralPair, source: Source, sources: Sequence[str], **facts: Any
) -> None:
    """Both patches with their sidecars."""
    for side in Side:
        path = folder / patch_name(visit, side)
        write_volume(path, pair.patch(side), pair.affines[side.index])
        write_sidecar(path, source, sources, Side=side.value, **facts)


def write_sidecar(path: Path, source: Source, sources: Sequence[str], **facts: Any) -> None:
    """``.json`` beside an image: sources as BIDS URIs, technical attributes that travel, and what was done."""
    sidecar: Mapping[str, Any] = {
        "Description": "; ".join(source.steps) or "as it was read",
        "Sources": list(sources),
        "SpatialReference": "orig",
        "SkullStripped": False,
        **_attributes(source),
        **facts,
    }
    write_json(path.with_name(path.name.removesuffix(".nii.gz") + ".json"), sidecar)


def raw_uri(raw: Path, path: Path) -> str:
    """``bids:raw:sub-01/anat/...`` of a file or folder of the data set that was read."""
    return f"bids:raw:{path.relative_to(raw).as_posix()}"


def own_uri(visit: Visit, name: str, kind: str = "anat") -> str:
    """``bids::sub-01/anat/...`` of a file of the derivatives themselves."""
    return f"bids::{(visit.folder / kind / name).as_posix()}"


_SECONDS: Final = ("EchoTime", "RepetitionTime")


def _attributes(source: Source) -> dict[str, Any]:
    """Times in seconds, as BIDS has them."""
    return {
        name: value / 1000 if name in _SECONDS and isinstance(value, float) else value
        for name, value in source.attributes.items()
    }


def _description(raw: Path) -> Mapping[str, Any]:
    try:
        found = json.loads((raw / "dataset_description.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _name_of(raw: Path) -> str:
    name = _description(raw).get("Name")
    return name if isinstance(name, str) and name else "a BIDS data set"


def _licence_of(raw: Path) -> str:
    licence = _description(raw).get("License")
    return licence if isinstance(licence, str) and licence else "as the data set that it was made from"
