"""``nigradat intervals``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nigradat.cli.console import Json, Level, Seed, print_json, progress_bar, require_extra

NAME = "intervals"


def run(
    run: Annotated[Path, typer.Argument(help="Folder of a trained model that answers for both sides.")],
    cohort: Annotated[
        Path, typer.Argument(help="The run's own cohort (its test part is tested), or another labelled one.")
    ],
    out: Annotated[Path, typer.Argument(help="New folder for tables, figures and report.html.")],
    calibrate_on: Annotated[
        Path | None,
        typer.Option(
            "--calibrate-on",
            help="With another cohort: the run's own (its calibration part is taken) or a third one. "
            "Default: half of COHORT's patients calibrate, the others are tested.",
        ),
    ] = None,
    trained_on: Annotated[
        Path | None,
        typer.Option(
            "--trained-on",
            help="The run's own cohort, where neither of the two is it: the patients that stopped the training fit s7.",
        ),
    ] = None,
    ensemble: Annotated[
        list[Path] | None,
        typer.Option("--ensemble", help="A further run that makes an ensemble with RUN; once for each."),
    ] = None,
    beside: Annotated[
        list[Path] | None,
        typer.Option("--beside", help="A run to stand beside as plain MC dropout, such as VGG-small; once for each."),
    ] = None,
    level: Level = 0.95,
    samples: Annotated[int, typer.Option("--samples", "-T", min=4, help="Monte-Carlo samples.")] = 100,
    resamples: Annotated[int, typer.Option("--resamples", min=200, help="Bootstrap resamples of patients.")] = 2000,
    allow_other_scale: Annotated[
        bool,
        typer.Option("--allow-other-scale", help="Accept labels of another tracer, camera or SPECT program."),
    ] = False,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Judge every way to make an interval on the same patients: scores, coverage by group, validity, one report.html.

    Example: nigradat intervals run cohort intervals
    """
    from nigradat.evaluation.spreads import compare_spreads
    from nigradat.io.files import refuse_used_folder
    from nigradat.report.spreads_page import write_spreads

    require_extra("report", "matplotlib", "jinja2")
    refuse_used_folder(out)  # before the work, not after it
    with progress_bar("predicting", "visits") as progress:
        found = compare_spreads(
            run,
            cohort,
            calibrate_on=calibrate_on,
            trained_on=trained_on,
            ensemble=ensemble or (),
            beside=beside or (),
            level=level,
            samples=samples,
            resamples=resamples,
            seed=seed,
            allow_other_scale=allow_other_scale,
            progress=progress,
        )
    page = write_spreads(found, out)
    if as_json:
        print_json({"folder": out, "report": page, **found.to_json()})
    else:
        print(found.summary())
        print(f"Report: {page}")
