"""``nigradat study``."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from nigradat.cli.console import Device, Json, Seed, check_device, print_json, require_extra, training_bar

NAME = "study"


def run(
    cohort: Annotated[Path, typer.Argument(help="Packed cohort with labels.")],
    out: Annotated[Path, typer.Argument(help="Study folder; the same command goes on where it was interrupted.")],
    scale: Annotated[
        str, typer.Option("--scale", help="Width of the towers: quick (8..64), small (16..128), full (64..512).")
    ] = "quick",
    methods: Annotated[
        str | None, typer.Option("--methods", help="Comma-separated; default what fits the scale. See 'nigradat show'.")
    ] = None,
    epochs: Annotated[int | None, typer.Option("--epochs", min=1, help="At most so many passes.")] = None,
    device: Device = "auto",
    seed: Seed = 1,
    as_json: Json = False,
) -> None:
    """Train, calibrate and test methods on the same patients, and write one report.html.

    Example: nigradat study cohort study --scale quick
    """
    from nigradat.report.page import check_place, write_evaluation
    from nigradat.study.plan import SCALES, run_study
    from nigradat.training.config import Hardware

    hardware = Hardware(check_device(device))
    require_extra("train", "pytorch_lightning")
    require_extra("report", "matplotlib", "jinja2")
    check_place(out / "report")  # before the work, not after it
    folder, results = run_study(
        cohort,
        out,
        scale=scale,
        methods=tuple(methods.split(",")) if methods else (),
        changes={} if epochs is None else {"epochs": epochs},
        seed=seed,
        hardware=hardware,
        bar=training_bar,
        say=lambda text: print(text, file=sys.stderr, flush=True),
    )
    results = [replace(result, notes=(*result.notes, SCALES[scale].note)) for result in results]
    page = write_evaluation(results, folder / "report") / "report.html"
    if as_json:
        print_json({"folder": folder, "report": page, "evaluations": [r.to_json() for r in results]})
    else:
        for result in results:
            print(result.summary())
        print(f"Report: {page.resolve()}")
