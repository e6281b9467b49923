"""``nigradat cohort``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nigradat.cli.console import Affine, Json, check_affine_choice, check_choice, print_json, progress_bar

NAME = "cohort"


def run(
    manifest: Annotated[
        Path, typer.Argument(help="TSV, one line a visit: participant_id, right, left, sbr_right, sbr_left, ...")
    ],
    out: Annotated[Path, typer.Argument(help="New folder for the packed cohort.")],
    affine: Affine = "auto",
    allow_mixed: Annotated[
        bool,
        typer.Option("--allow-mixed", help="Accept labels of several SPECT programs or tracers (you harmonised them)."),
    ] = False,
    sbr_method: Annotated[
        str,
        typer.Option(
            "--sbr-method",
            help="How to measure the SBR of visits that have a spect and no SBR: voi-mean, hottest, southampton.",
        ),
    ] = "voi-mean",
    sbr_reference: Annotated[
        str | None,
        typer.Option("--sbr-reference", help="occipital or brain; default brain for southampton, occipital otherwise."),
    ] = None,
    striatal_volume_ml: Annotated[
        float | None, typer.Option("--striatal-volume-ml", help="Of one striatum, for southampton; default 11.2.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Check a manifest with all its images, list every fault at once, and pack it for training.

    Example: nigradat cohort manifest.tsv cohort
    """
    from nigradat.io.pack import pack_cohort
    from nigradat.spect.labels import labeller
    from nigradat.spect.sbr import METHODS, SbrRecipe
    from nigradat.spect.volumes_of_interest import REFERENCES

    choice = check_affine_choice(affine)
    check_choice("--sbr-method", sbr_method, METHODS)
    if sbr_reference is not None:
        check_choice("--sbr-reference", sbr_reference, REFERENCES)
    recipe = SbrRecipe(sbr_method, sbr_reference, striatal_volume_ml)  # type: ignore[arg-type]
    label = labeller(recipe, choice)
    with progress_bar("reading", "visits") as progress:
        packed = pack_cohort(manifest, out, affine=choice, allow_mixed=allow_mixed, label=label, progress=progress)
    if as_json:
        print_json(
            {
                "cohort": out,
                "visits": len(packed),
                "patients": len(set(packed.patient_ids)),
                "sha256": packed.sha256,
                "sbr_scale": dict(packed.sbr_scale),
            }
        )
    else:
        print(f"{out}: {len(packed)} visits of {len(set(packed.patient_ids))} patients")
