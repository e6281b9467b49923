"""``nigradat calibrate``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nigradat.cli.console import Json, Level, Seed, print_json

NAME = "calibrate"


def run(
    run: Annotated[Path, typer.Argument(help="Folder of a trained model.")],
    cohort: Annotated[
        Path, typer.Argument(help="The run's own cohort (its calibration part is taken), or another labelled one.")
    ],
    symmetric_mode: Annotated[
        str,
        typer.Option(
            "--symmetric-mode", help="How both sides' dropout samples make a spread: mc (plain), s1 (default) to s7."
        ),
    ] = "s1",
    samples: Annotated[int, typer.Option("--samples", "-T", min=2, help="Monte-Carlo samples.")] = 100,
    level: Level = 0.95,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Turn the spread of a trained model into intervals, with patients that served for nothing else.

    Writes calibration.json into the run folder and prints what the interval promises.

    Example: nigradat calibrate run cohort --level 0.95
    """
    from nigradat.anatomy import Side
    from nigradat.uncertainty.calibration import calibrate
    from nigradat.uncertainty.symmetric_mc import check_mode

    result = calibrate(run, cohort, mode=check_mode(symmetric_mode), samples=samples, seed=seed, level=level)
    k = result.multiplier(level)
    if as_json:
        print_json(
            {
                "run": run,
                "mode": result.mode,
                "patients": result.patients,
                "level": level,
                "multiplier": {side.value: k[side.index] for side in Side},
                "promise": result.promise(level),
            }
        )
    else:
        print(
            f"{run}: mode {result.mode}, k right {k[0]:.3f}, left {k[1]:.3f} at level {level:g}\n"
            f"Promise: {result.promise(level)}."
        )
