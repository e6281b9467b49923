"""``nigradat evaluate``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nigradat.cli.console import Json, Level, Rule, Seed, print_json, progress_bar, require_extra

NAME = "evaluate"


def run(
    run: Annotated[Path, typer.Argument(help="Folder of a trained model.")],
    cohort: Annotated[
        Path, typer.Argument(help="The run's own cohort (its test part is taken), or another labelled one (all of it).")
    ],
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder for tables, figures and report.html; default RUN/evaluation.")
    ] = None,
    trained_on: Annotated[
        Path | None,
        typer.Option(
            "--trained-on",
            help="The run's own cohort, where another one is tested: its training patients fit the ridge baseline.",
        ),
    ] = None,
    subset: Annotated[
        str, typer.Option("--subset", help="Part of the run's own cohort: test, calibration, stop, validation, train.")
    ] = "test",
    level: Level = 0.95,
    rule: Rule = "conformal",
    resamples: Annotated[int, typer.Option("--resamples", min=200, help="Bootstrap resamples of patients.")] = 2000,
    allow_other_scale: Annotated[
        bool,
        typer.Option("--allow-other-scale", help="Accept labels of another tracer, camera or SPECT program."),
    ] = False,
    allow_other_recipe: Annotated[
        bool, typer.Option("--allow-other-recipe", help="Accept images of another SMWI recipe than the model's.")
    ] = False,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Measure a trained model on patients it has not met: tables, figures and one report.html.

    Example: nigradat evaluate run cohort
    """
    from nigradat.evaluation.evaluate import evaluate
    from nigradat.report.page import check_place, write_evaluation
    from nigradat.uncertainty.calibration import check_rule

    place, width_rule = out or run / "evaluation", check_rule(rule)
    require_extra("report", "matplotlib", "jinja2")
    check_place(place)  # before the work, not after it
    with progress_bar("predicting", "visits") as progress:
        result = evaluate(
            run,
            cohort,
            trained_on=trained_on,
            subset=subset,
            level=level,
            rule=width_rule,
            resamples=resamples,
            seed=seed,
            allow_other_scale=allow_other_scale,
            allow_other_recipe=allow_other_recipe,
            progress=progress,
        )
    folder = write_evaluation(result, place)
    if as_json:
        print_json({"folder": folder, "report": folder / "report.html", **result.to_json()})
    else:
        print(result.summary())
        print(f"Report: {folder / 'report.html'}")
