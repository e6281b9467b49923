"""``nigradat stress-test``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nigradat.cli.console import Json, Seed, print_json, print_values, progress_bar

NAME = "stress-test"


def run(
    model: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a model with a quality reference.")],
    out: Annotated[Path, typer.Argument(help="New folder for the tables.")],
    patients: Annotated[int, typer.Option("--patients", "-n", min=10, help="How many fresh phantom patients.")] = 100,
    preset: Annotated[
        str, typer.Option("--preset", help="Of the fresh phantom: paper, hard, easy, uncoupled.")
    ] = "paper",
    resamples: Annotated[int, typer.Option("--resamples", min=100, help="Bootstrap resamples of patients.")] = 2000,
    seed: Seed = 1000,
    as_json: Json = False,
) -> None:
    """Spoil fresh phantom patients in every known way and see what the quality flags find.

    Example: nigradat stress-test run stress --patients 100
    """
    from nigradat.evaluation.quality_tables import write_suite
    from nigradat.io.files import refuse_used_folder
    from nigradat.models.weights import load_model
    from nigradat.quality.reference import require_quality
    from nigradat.quality.suite import run_suite

    refuse_used_folder(out)
    loaded = load_model(model)
    quality = require_quality(loaded)
    with progress_bar("spoiling", "patients") as progress:
        found = run_suite(loaded, quality, patients=patients, preset=preset, seed=seed, progress=progress)
    tables = write_suite(out, found, resamples=resamples)
    if as_json:
        print_json({"folder": out, "patients": found.patients, "tables": {table.name: table for table in tables}})
        return
    for table in tables:
        if table.name != "scores":
            print_values(table)
    print(f"Tables, with every single score: {out}")
