"""From a scan to both nigrosome-1 centres, to the patch pair, and to files that a model and a reader can take."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from nigradat.anatomy import Side, check_sides
from nigradat.errors import ImageError
from nigradat.io.files import new_folder, write_json
from nigradat.io.nifti import write_volume
from nigradat.io.series import travelling
from nigradat.locate.atlas import Atlas, nigrosome_sites, parametric_atlas
from nigradat.locate.centres import write_centres
from nigradat.locate.figures import locate_png
from nigradat.locate.quality import volume_flags
from nigradat.locate.refine import MIN_CORRELATION, Refined, refine
from nigradat.locate.registration import Alignment, follow, register
from nigradat.pair import Flag, NigralPair, extract_pair
from nigradat.smwi.recipe import SIDECAR_KEY, sidecar_of
from nigradat.volume import Source, Volume

Float64 = npt.NDArray[np.float64]

RULE: Final = "posterolateral point of the pars compacta"
MIN_AGREEMENT: Final = 0.15  # of a registration that is believed without the nigra being seen
LOW_CONFIDENCE: Final = 0.6
RESEARCH_ONLY: Final = "Research only, not for diagnosis."


@dataclass(frozen=True, eq=False)
class Located:
    """Both nigrosome-1 centres of one scan.

    Attributes:
        right_mm, left_mm: ``(3,)`` RAS+ mm of the scan.
        confidence: 0 to 1: how well the image agrees with the dark shapes of the atlas on the worse side, or, where
            they were not sought, with the template. No probability. 1 where a reader gave the centres.
        flags: what may make them, or the patches, unfit.
        method: in words.
        details: numbers behind the confidence, for the records.
    """

    right_mm: Float64
    left_mm: Float64
    confidence: float
    flags: tuple[Flag, ...]
    method: str
    details: Mapping[str, Any] = field(default_factory=dict)

    @property
    def centres(self) -> dict[Side, Float64]:
        """By side."""
        return {Side.RIGHT: self.right_mm, Side.LEFT: self.left_mm}


def locate_nigrosomes(
    volume: Volume,
    *,
    t1w: Volume | None = None,
    atlas: Atlas | None = None,
    refined: bool = True,
    aligned: Alignment | None = None,
) -> Located:
    """Find nigrosome-1 on both sides: registration to MNI152, then refinement on the dark nigra and red nucleus.

    Args:
        volume: a scan on which iron is dark: gradient-echo magnitude or SMWI, a whole head or a slab.
        t1w: a T1-weighted scan of the same session, which is then registered in its place.
        atlas: where the structures lie in MNI152; default :func:`~nigradat.locate.atlas.parametric_atlas`.
        refined: follow the dark shapes on the image. Switch it off for an image on which iron is not dark.
        aligned: where the volume lies in MNI152, if that is known already.

    Raises:
        ImageError: no head, a registration that cannot be right, or neither template nor nigra recognised.
        OrientationError: an unusable orientation.
        MissingExtraError: the extra ``locate`` is not installed.

    Example:
        >>> located = locate_nigrosomes(nigradat.read_image("smwi.nii.gz"))                     # doctest: +SKIP
        >>> located.right_mm, located.confidence                                                # doctest: +SKIP
    """
    shapes = parametric_atlas() if atlas is None else atlas
    if aligned is None:
        aligned = register(volume) if t1w is None else follow(volume, t1w, register(t1w))
    found = refine(volume, shapes, aligned) if refined else None
    accepted = found is not None and found.accepted
    if not accepted and aligned.agreement < MIN_AGREEMENT:
        raise ImageError(
            f"no midbrain was recognised: agreement with MNI152 {aligned.agreement:.2f}"
            + ("" if found is None else f", with the dark nigra {min(found.correlation.values()):.2f}"),
            f"at least {MIN_AGREEMENT:g}, or {MIN_CORRELATION:g} for the nigra",
            "Check that the scan covers the midbrain, give a T1w with --t1w, or the centres with --centres",
        )
    centres = {side: aligned.to_scan(site) for side, site in nigrosome_sites(shapes).items()}
    if found is not None and accepted:
        centres = found.centres
    check_sides(centres[Side.RIGHT], centres[Side.LEFT])
    confidence = min(found.correlation.values()) if found is not None and accepted else aligned.agreement
    confidence = float(np.clip(confidence, 0, 1))
    flags = (*_location_flags(found, confidence), *volume_flags(volume, centres, aligned))
    how = f"{aligned.method} registration to MNI152, atlas {shapes.name}, " + (
        "refined on the image" if accepted else "not refined"
    )
    details = {"rule": RULE, "agreement": aligned.agreement, **_refinement_details(found)}
    return Located(centres[Side.RIGHT], centres[Side.LEFT], confidence, flags, how, details)


def given(volume: Volume, centres: Mapping[Side, Float64], origin: str) -> Located:
    """Centres that a reader set, with the remarks on the scan that an automatic location would carry.

    Args:
        volume: the scan.
        centres: RAS+ mm; see :func:`~nigradat.locate.centres.read_centres`.
        origin: where they come from, for the record.

    Raises:
        LateralityError: the right one does not lie to the right of the left one.
    """
    check_sides(centres[Side.RIGHT], centres[Side.LEFT])
    return Located(
        np.asarray(centres[Side.RIGHT]), np.asarray(centres[Side.LEFT]), 1.0, volume_flags(volume, centres),
        f"given by a reader ({origin})",
    )  # fmt: skip


def pair_at(
    volume: Volume, located: Located, participant_id: str = "n/a", smwi_recipe: Mapping[str, Any] | None = None
) -> NigralPair:
    """The patch pair around the centres, resampled once.

    Raises:
        FieldOfViewError: a window leaves the image.
        OrientationError: tilted by more than 40 degrees.
    """
    pair = extract_pair(volume.data, volume.affine, located.right_mm, located.left_mm, participant_id)
    return replace(pair, smwi_recipe=smwi_recipe)


def write_located(
    out: str | os.PathLike[str],
    volume: Volume,
    located: Located,
    *,
    smwi_recipe: Mapping[str, Any] | None = None,
    title: str = "Nigrosome-1",
) -> Path:
    """Write a location into a new folder, whole or not at all.

    ``right.nii.gz`` and ``left.nii.gz`` (patches, each with a JSON sidecar back to the source), ``centres.tsv`` (RAS+
    mm, the columns of a manifest), ``located.json``, ``located.png``. ``nigradat predict`` takes the folder as it is.

    Args:
        out: the folder.
        volume: the scan.
        located: from :func:`locate_nigrosomes` or :func:`given`.
        smwi_recipe: how the SMWI was made, where it is known; it goes into the patches' sidecars.
        title: above the picture.

    Returns:
        The folder.

    Raises:
        FieldOfViewError, OrientationError: see :func:`pair_at`.
        OutputError: the folder is in use, or the disk is full.

    Example:
        >>> write_located("sub-01", volume, locate_nigrosomes(volume))                          # doctest: +SKIP
    """
    from nigradat import __version__

    pair = pair_at(volume, located, smwi_recipe=smwi_recipe)
    made = {"GeneratedBy": {"Name": "nigradat", "Version": __version__}, "IntendedUse": RESEARCH_ONLY}
    source = {
        "Sources": list(volume.source.files),
        "SourceKind": volume.source.kind,
        "SourceAttributes": dict(volume.source.attributes),
        "SourceAffine": volume.affine,
    }
    recipe = {} if smwi_recipe is None else {SIDECAR_KEY: dict(smwi_recipe)}
    with new_folder(out) as folder:
        for side, centre in located.centres.items():
            patch, affine = pair.patch(side), pair.affines[side.index]
            write_volume(folder / f"{side.value}.nii.gz", patch, affine)
            step = f"cut around the {side.value} nigrosome-1 at {_shown(centre)} mm (RAS+)"
            about = {"CentreMm": centre, "Side": side.value, "Steps": [*volume.source.steps, step]}
            write_json(folder / f"{side.value}.json", recipe | about | source | made)
        write_centres(folder / "centres.tsv", located.centres)
        write_json(folder / "located.json", located_to_json(located) | source | made)
        notes = (located.method, *(flag.message for flag in located.flags))
        headline = f"{title} (confidence {located.confidence:.2f})"
        (folder / "located.png").write_bytes(locate_png(volume, located.centres, headline, notes))
    return Path(out)


def with_provenance(volume: Volume, image: str | os.PathLike[str]) -> Volume:
    """The same volume, with the sources and steps that a sidecar of this package beside its file tells.

    Nothing is taken from a sidecar of another program, which may name a patient.
    """
    path = sidecar_of(image)
    if path.suffix != ".json" or not path.is_file():
        return volume
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        if told["GeneratedBy"]["Name"] != "nigradat":
            return volume
        source = Source(
            (*map(str, told["Sources"]), *volume.source.files),
            str(told["SourceKind"]),
            travelling(dict(told["SourceAttributes"])),
            (*map(str, told["Steps"]), *volume.source.steps),
        )
    except (OSError, ValueError, KeyError, TypeError):
        return volume
    return replace(volume, source=source)


def located_to_json(located: Located) -> dict[str, Any]:
    """A location as plain values."""
    return {
        "right_mm": located.right_mm,
        "left_mm": located.left_mm,
        "confidence": located.confidence,
        "method": located.method,
        "details": dict(located.details),
        "flags": [
            {"code": f.code, "side": f.side.value if f.side else None, "message": f.message, "severity": f.severity}
            for f in located.flags
        ],
    }


def _location_flags(found: Refined | None, confidence: float) -> list[Flag]:
    flags = []
    if found is not None and not found.accepted:
        worst, far = min(found.correlation.values()), max(found.shift_mm.values())
        flags.append(
            Flag(
                "no-dark-nigra",
                f"The dark nigra was not found where the atlas has it (agreement {worst:.2f}, moved {far:.1f} mm): the "
                "centres are those of the registration alone.",
            )
        )
    elif found is not None:
        right, left = (found.correlation[side] for side in Side)
        if abs(right - left) > 0.25:
            flags.append(
                Flag(
                    "asymmetry",
                    f"Nigra and red nucleus fit the atlas on the right with {right:.2f}, on the left with {left:.2f}.",
                )
            )
    if found is not None and confidence < LOW_CONFIDENCE:
        flags.append(
            Flag("low-confidence", f"Confidence {confidence:.2f}: look at the picture before using the patches.")
        )
    return flags


def _refinement_details(found: Refined | None) -> dict[str, Any]:
    if found is None:
        return {}
    return {
        "refined": found.accepted,
        "correlation": {side.value: found.correlation[side] for side in Side},
        "moved_mm": {side.value: found.shift_mm[side] for side in Side},
    }


def _shown(centre: Float64) -> str:
    return ", ".join(f"{value:.1f}" for value in centre)
