"""``nigradat evaluate``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nigradat.cli.console import Json, Level, Rule, Seed, print_json, progress_bar

NAME = "evaluate"


def run(
    run: Annotated[Path, typer.Argument(help="Folder of a trained model.")],
    cohort: Annotated[
        Path, typer.Argument(help="The run's own cohort (its test part is taken), or another labelled one.")
    ],
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder for tables, figures and report.html; default RUN/evaluation.")
    ] = None,
    subset: Annotated[
        str, typer.Option("--subset", help="Part of the run's own cohort: test, calibration, stop, validation, train.")
    ] = "test",
    level: Level = 0.95,
    rule: Rule = "conformal",
    resamples: Annotated[int, typer.Option("--resamples", min=200, help="Bootstrap resamples of patients.")] = 2000,
    allow_other_scale: Annotated[
        bool,
        typer.Option("--allow-other-scale", help="Evaluate on labels of another SPECT program or tracer all the same."),
    ] = False,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Measure a trained model on patients it has not met: tables, figures and one report.html.

    Example: nigradat evaluate run cohort
    """
    from nigradat.evaluation.evaluate import evaluate
    from nigradat.report.page import write_evaluation
    from nigradat.uncertainty.calibration import check_rule

    with progress_bar("predicting", "visits") as progress:
        result = evaluate(
            run,
            cohort,
            subset=subset,
            level=level,
            rule=check_rule(rule),
            resamples=resamples,
            seed=seed,
            allow_other_scale=allow_other_scale,
            progress=progress,
        )
    folder = write_evaluation([result], out or run / "evaluation")
    if as_json:
        print_json({"folder": folder, "report": folder / "report.html", **result.to_json()})
    else:
        print(result.summary())
        print(f"Report: {folder / 'report.html'}")
