"""Labels of a cohort from its DaT-SPECT."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Final

from nigradat.errors import CohortError
from nigradat.io.manifest import Participant
from nigradat.io.nifti import AffineChoice
from nigradat.io.nuclear import read_spect
from nigradat.spect.sbr import SbrMeasurement, SbrRecipe, measure_sbr

PROGRAM: Final = "nigradat"
_OURS: Final = ("spect_software", "sbr_method")


def labeller(recipe: SbrRecipe, affine: AffineChoice = "auto") -> Callable[[Participant, Path], Participant]:
    """What :func:`nigradat.io.pack.pack_cohort` needs to measure the labels of a manifest with a ``spect`` column.

    Args:
        recipe: for all visits alike, so that their labels are on one scale.
        affine: see :func:`nigradat.io.nifti.read_volume`.

    Returns:
        ``label(visit, scan)``: the visit with the SBR of both striata and where they come from. It raises what
        :func:`~nigradat.spect.sbr.measure_sbr` and :func:`labelled` raise.
    """

    def label(visit: Participant, scan: Path) -> Participant:
        return labelled(visit, measure_sbr(read_spect(scan, affine, tracer=visit.tracer), recipe))

    return label


def labelled(visit: Participant, found: SbrMeasurement) -> Participant:
    """A visit with the labels that its scan gives.

    ``spect_software`` and ``sbr_method`` are ours. What the visit says of tracer, camera, reconstruction stays; where
    it says nothing, the scan's header does as far as it can.

    Raises:
        CohortError: an SBR below 0, or a visit that names another program or method for them.
    """
    scale = found.recipe.describe()
    ours = {"spect_software": f"{PROGRAM} ({scale})", "sbr_method": scale}
    for name in _OURS:
        if getattr(visit, name) not in (None, ours[name]):
            raise CohortError(
                f"{name} {getattr(visit, name)!r} for an SBR that is measured here ({scale})",
                "n/a, or the SBR of that program in sbr_right and sbr_left",
            )
    label = found.label
    told = {name: str(value) for name, value in found.source.attributes.items()}
    return replace(
        visit,
        sbr_right=label.right,
        sbr_left=label.left,
        tracer=visit.tracer or told.get("tracer"),
        spect_device=visit.spect_device or told.get("manufacturer"),
        spect_reconstruction=visit.spect_reconstruction or told.get("reconstruction"),
        spect_software=ours["spect_software"],
        sbr_method=ours["sbr_method"],
    )
