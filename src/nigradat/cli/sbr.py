"""``nigradat sbr``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nigradat.cli.console import Affine, Json, check_affine_choice, check_choice, print_json, print_table, require_extra

NAME = "sbr"


def run(
    scan: Annotated[Path, typer.Argument(help="Reconstructed DaT-SPECT: an NM DICOM file or folder, or a NIfTI.")],
    method: Annotated[
        str,
        typer.Option(
            "--method",
            help="voi-mean (mean over caudate and putamen), hottest (hottest ml around them), southampton (all counts "
            "over an assumed volume). Three scales: never mix them.",
        ),
    ] = "voi-mean",
    reference: Annotated[
        str | None,
        typer.Option("--reference", help="occipital or brain; default brain for southampton, else occipital."),
    ] = None,
    striatal_volume_ml: Annotated[
        float | None, typer.Option("--striatal-volume-ml", help="Of one striatum, for southampton; default 11.2.")
    ] = None,
    hottest_ml: Annotated[
        float | None, typer.Option("--hottest-ml", help="How much of the hottest tissue counts; default 5.")
    ] = None,
    recovery: Annotated[
        float | None,
        typer.Option("--recovery", help="Divide by this: a factor between scales, no correction of this patient."),
    ] = None,
    atlas: Annotated[
        Path | None,
        typer.Option("--atlas", help="Your own regions: a label image in MNI152 with a table of names beside it."),
    ] = None,
    tracer: Annotated[
        str | None,
        typer.Option("--tracer", help="Where the header does not say it, or in words we do not know."),
    ] = None,
    age: Annotated[float | None, typer.Option("--age", help="Years; with --normals.")] = None,
    normals: Annotated[
        Path | None,
        typer.Option("--normals", help="Table of healthy persons measured in the same way; with --age gives z-scores."),
    ] = None,
    affine: Affine = "auto",
    out: Annotated[
        Path | None, typer.Option("--out", help="New folder for table, JSON and a picture of the regions on the scan.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Measure the striatal binding ratio of both sides in one DaT-SPECT.

    The head is registered to MNI152 and the registration checked; the regions are laid over the scan's own voxels.

    Example: nigradat sbr spect.dcm --method southampton --out sbr
    """
    from nigradat.errors import ConfigError
    from nigradat.io.files import refuse_used_folder
    from nigradat.io.nuclear import read_spect
    from nigradat.report.sbr_sheet import sbr_facts, sbr_rows, write_sbr
    from nigradat.spect.normals import read_normals, z_scores
    from nigradat.spect.sbr import METHODS, SbrRecipe, measure_sbr
    from nigradat.spect.volumes_of_interest import REFERENCES, read_atlas

    check_choice("--method", method, METHODS)
    if reference is not None:
        check_choice("--reference", reference, REFERENCES)
    if (age is None) != (normals is None):
        raise ConfigError("--age without --normals, or --normals without --age", "both or neither")
    recipe = SbrRecipe(method, reference, striatal_volume_ml, hottest_ml, recovery)  # type: ignore[arg-type]
    choice = check_affine_choice(affine)
    require_extra("locate", "SimpleITK")
    if out is not None:
        require_extra("report", "matplotlib")
        refuse_used_folder(out)
    healthy = None if normals is None else read_normals(normals)
    regions = None if atlas is None else read_atlas(atlas)
    volume = read_spect(scan, choice, tracer=tracer)
    found = measure_sbr(volume, recipe, atlas=regions)
    scores = None if healthy is None or age is None else z_scores(found, healthy, age)
    facts = {"tracer": tracer or volume.source.attributes.get("tracer")}
    if out is not None:
        write_sbr(out, volume, found, atlas=regions, scores=scores, facts=facts)
    if as_json:
        print_json(sbr_facts(found, scores, facts) | {"folder": out})
        return
    heading, rows = sbr_rows(found, scores)
    print_table(f"SBR, {found.recipe.method}", heading, rows)
    print(f"Scale: {found.recipe.describe()}.")
    overlap = found.alignment.overlap
    print(f"Tracer {facts['tracer'] or 'n/a'}; brain overlap with the template {overlap or 0:.2f} (Dice).")
    for note in found.alignment.notes:
        print(note)
    if out is not None:
        print(f"Table, JSON and picture: {out}")
