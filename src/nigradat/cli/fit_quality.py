"""``nigradat fit-quality``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nigradat.cli.console import Json, print_json, progress_bar

NAME = "fit-quality"


def run(
    run: Annotated[Path, typer.Argument(help="Folder of a trained or imported model.")],
    cohort: Annotated[Path, typer.Argument(help="The run's own cohort, or another packed one; labels are not needed.")],
    alarm: Annotated[
        float, typer.Option("--alarm", min=0.001, max=0.5, help="Share of ordinary pairs that may be flagged.")
    ] = 0.05,
    as_json: Json = False,
) -> None:
    """Learn what a usual pair of patches looks like, so that check and predict can flag unusual ones.

    Writes quality.json and quality.safetensors into the run folder and prints what the flags promise.

    Example: nigradat fit-quality run cohort
    """
    from nigradat.quality.reference import fit_quality

    with progress_bar("measuring", "patients") as progress:
        quality = fit_quality(run, cohort, alarm=alarm, progress=progress)
    if as_json:
        print_json(
            {
                "run": run,
                "alarm": quality.alarm,
                "cut": quality.cut,
                "reference_patients": quality.reference_patients,
                "held_out_patients": quality.patients,
                "promise": quality.promise,
            }
        )
    else:
        print(f"{run}: what is usual, learnt from {quality.reference_patients} patients. Promise: {quality.promise}.")
