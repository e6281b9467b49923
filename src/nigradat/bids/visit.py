"""One visit, from its scans to derivatives, a record and a page."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from nigradat.anatomy import Side
from nigradat.bids.derivatives import (
    centres_name,
    image_name,
    own_uri,
    raw_uri,
    sbr_name,
    write_image,
    write_patches,
)
from nigradat.bids.layout import OWN_SMWI, Visit, echoes_of
from nigradat.errors import ImageError, NigradatError
from nigradat.evaluation.figures import figure_png
from nigradat.io.files import new_folder, write_json, write_text
from nigradat.io.gre import read_gre, read_image, read_magnitude, read_map
from nigradat.io.manifest import Participant
from nigradat.io.nuclear import read_spect
from nigradat.locate.centres import read_centres, write_centres
from nigradat.locate.figures import locate_png
from nigradat.locate.locate import Located, given, locate_nigrosomes, pair_at
from nigradat.report.sbr_sheet import sbr_facts, sbr_figure
from nigradat.report.visit_page import failed_page, visit_page
from nigradat.smwi.chain import SmwiResult, make_smwi, smwi_as_given, smwi_from_chi
from nigradat.smwi.recipe import SIDECAR_KEY, SmwiRecipe, recipe_beside
from nigradat.spect.labels import labelled
from nigradat.spect.sbr import Method, SbrRecipe, measure_sbr

_LABEL_COLUMNS: Final = ("tracer", "spect_device", "spect_software", "spect_reconstruction", "sbr_method")


@dataclass(frozen=True)
class Settings:
    """How visits are prepared.

    Attributes:
        smwi: recipe of the SMWI, where one has to be made; of a given susceptibility map its weighting alone.
        sbr_method: how the SBR is measured on a SPECT; all visits alike.
        tracer: of all SPECT, where their headers do not say it in words that are known.
    """

    smwi: SmwiRecipe = field(default_factory=SmwiRecipe)
    sbr_method: Method = "voi-mean"
    tracer: str | None = None


@dataclass(frozen=True)
class VisitRecord:
    """What is kept about a visit; plain values, as they stand in its JSON file.

    Attributes:
        name: of the visit.
        key: of the files and settings that it was made from.
        error: why there is no result; empty where there is one.
        centres_mm: nigrosome-1 by side, RAS+ mm.
        confidence: of the centres, 0 to 1.
        flags: what to look at, in words.
        sbr: measured on the visit's SPECT, by side, or None.
        sbr_provenance: manifest columns that say where that SBR comes from.
        sbr_error: why a SPECT that is there gave none; empty otherwise.
    """

    name: str
    key: str = ""
    error: str = ""
    centres_mm: Mapping[str, list[float]] = field(default_factory=dict)
    confidence: float | None = None
    flags: tuple[str, ...] | list[str] = ()
    sbr: Mapping[str, float] | None = None
    sbr_provenance: Mapping[str, str | None] = field(default_factory=dict)
    sbr_error: str = ""


@dataclass(frozen=True, eq=False)
class _Sbr:
    """The SBR of a visit's SPECT as a participant's columns, or why there is none; and all that was measured."""

    participant: Participant | None = None
    facts: Mapping[str, Any] | None = None
    error: str = ""
    found_as: str = "none"
    statement: str = ""
    regions_png: bytes = b""


def process_visit(raw: Path, out: Path, visit: Visit, settings: Settings) -> VisitRecord:
    """Make everything of one visit; its folder appears whole or not at all.

    Args:
        raw: the data set that is read.
        out: the derivatives data set.
        visit: where its scans lie.
        settings: how.

    Raises:
        NigradatError: of the kind that fits; see :mod:`nigradat.errors`.
    """
    made = _image(visit, settings)
    volume = made.smwi
    t1w = None if visit.t1w is None else read_image(visit.t1w)
    if visit.centres is not None:
        located = given(volume, read_centres(visit.centres, volume.affine), "a file of the data set")
    else:
        located = locate_nigrosomes(volume, t1w=t1w)
    recipe = dict(made.recipe) or None
    pair = pair_at(volume, located, visit.participant_id, recipe)
    sbr = _measure(visit, settings)
    sbr = replace(sbr, error=without_places(sbr.error, raw, out))
    recipe_facts = {SIDECAR_KEY: recipe} if recipe else {}
    sources = [raw_uri(raw, path) for path in _image_files(visit)]
    smwi_name = image_name(visit, f"{OWN_SMWI}_T2starw")
    shutil.rmtree(out / visit.folder, ignore_errors=True)  # of an earlier run with other files or settings
    with new_folder(out / visit.folder) as hidden:
        anat = hidden / "anat"
        anat.mkdir()
        write_image(anat / smwi_name, volume, sources, **recipe_facts)
        if made.chi is not None and visit.chi is None:
            write_image(anat / image_name(visit, "Chimap"), made.chi, sources, Units="ppm", **recipe_facts)
        if made.mask is not None:
            mask = anat / image_name(visit, "desc-brain_mask")
            write_image(mask, made.mask, sources, Type="Brain", **recipe_facts)
        used = [own_uri(visit, smwi_name), *([raw_uri(raw, visit.t1w)] if visit.t1w else [])]
        about = {"NigrosomeOne": located.method, "Confidence": located.confidence, **recipe_facts}
        write_patches(anat, visit, pair, volume.source, used, **about)
        write_centres(anat / centres_name(visit), located.centres)
        if sbr.facts is not None:
            write_json(hidden / sbr_name(visit), sbr.facts)
    page = visit_page(
        visit.name,
        found=_found(visit, made, sbr),
        centres_mm={side: centre.tolist() for side, centre in located.centres.items()},
        confidence=located.confidence,
        windows_png=locate_png(volume, located.centres, visit.name),
        flags=located.flags,
        sbr=_by_side(sbr.participant),
        sbr_statement=sbr.statement or sbr.error,
        regions_png=sbr.regions_png,
        steps=(*volume.source.steps, located.method),
    )
    write_text(out / f"{visit.name}.html", page)
    return _record(visit, located, sbr)


def write_failure(out: Path, visit: Visit, error: str) -> None:
    """The page of a visit that could not be prepared; derivatives of an earlier run are taken away with it."""
    shutil.rmtree(out / visit.folder, ignore_errors=True)
    write_text(out / f"{visit.name}.html", failed_page(visit.name, error))


def without_places(text: str, raw: Path, out: Path) -> str:
    """A message as it may be passed on: where somebody keeps his data is nobody's business."""
    for folder in (raw, out):
        text = text.replace(f"{folder}{os.sep}", "").replace(str(folder), "the data set")
    return text


def _image(visit: Visit, settings: Settings) -> SmwiResult:
    if visit.smwi is not None:
        return smwi_as_given(read_image(visit.smwi), recipe_beside(visit.smwi))
    if visit.gre is None:
        raise ImageError(f"{visit.name}: neither a gradient-echo scan nor an SMWI", "one of them in its folder anat")
    if visit.chi is not None:
        return smwi_from_chi(read_magnitude(visit.gre), read_map(visit.chi), settings.smwi)
    return make_smwi(read_gre(visit.gre), settings.smwi)


def _image_files(visit: Visit) -> list[Path]:
    if visit.smwi is not None:
        return [visit.smwi]
    assert visit.gre is not None
    return [*echoes_of(visit.gre.iterdir()), *([visit.chi] if visit.chi is not None else [])]


def _measure(visit: Visit, settings: Settings) -> _Sbr:
    """A SPECT that fails takes the label, not the visit."""
    if visit.spect is None:
        return _Sbr()
    facts: Mapping[str, Any] | None = None
    try:
        scan = read_spect(visit.spect, tracer=settings.tracer)
        measured = measure_sbr(scan, SbrRecipe(settings.sbr_method))
        facts = sbr_facts(measured)
        participant = labelled(Participant(visit.participant_id, visit.session_id, tracer=settings.tracer), measured)
        regions = figure_png(sbr_figure(scan, measured), dpi=130)
    except NigradatError as error:
        return _Sbr(None, facts, f"No SBR was measured: {error}", "DaT-SPECT, not usable")
    statement = f"Measured on the visit's DaT-SPECT: {measured.recipe.describe()}. " + " ".join(
        measured.alignment.notes
    )
    return _Sbr(participant, facts, "", "DaT-SPECT", statement.strip(), regions)


def _found(visit: Visit, made: SmwiResult, sbr: _Sbr) -> dict[str, str]:
    """What each scan was understood as, for the page."""
    size = " x ".join(f"{v:.2g}" for v in made.smwi.spacing_mm)
    shape = " x ".join(map(str, made.smwi.data.shape))
    kind = "gradient echo, made into SMWI" if visit.chi is None else "gradient echo, weighted by the given Chimap"
    kind = kind if visit.smwi is None else "SMWI as given"
    return {
        "Image": f"{kind}, {shape} voxels of {size} mm",
        "T1w": "used for the registration" if visit.t1w is not None else "none",
        "Centres": "set by a reader" if visit.centres is not None else "found by registration and refinement",
        "SPECT": sbr.found_as,
    }


def _by_side(participant: Participant | None) -> dict[Side, float] | None:
    if participant is None or participant.sbr_right is None or participant.sbr_left is None:
        return None
    return {Side.RIGHT: participant.sbr_right, Side.LEFT: participant.sbr_left}


def _record(visit: Visit, located: Located, sbr: _Sbr) -> VisitRecord:
    values = _by_side(sbr.participant)
    provenance: dict[str, Any] = {}
    if sbr.participant is not None:
        provenance = {name: getattr(sbr.participant, name) for name in _LABEL_COLUMNS}
    return VisitRecord(
        visit.name,
        centres_mm={side.value: [round(float(v), 3) for v in centre] for side, centre in located.centres.items()},
        confidence=located.confidence,
        flags=[flag.message for flag in located.flags],
        sbr=None if values is None else {side.value: value for side, value in values.items()},
        sbr_provenance=provenance,
        sbr_error=sbr.error,
    )
