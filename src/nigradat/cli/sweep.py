"""``nigradat sweep``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from nigradat.cli.console import (
    Address,
    Device,
    Engine,
    Json,
    RetryFailed,
    SbrMax,
    Seed,
    Workers,
    check_choice,
    check_device,
    print_json,
    print_table,
    require_extra,
    study_bar,
)

NAME = "sweep"


def run(
    cohort: Annotated[Path, typer.Argument(help="Packed cohort with labels.")],
    out: Annotated[Path, typer.Argument(help="Sweep folder; the same command goes on where it was interrupted.")],
    vary: Annotated[
        list[str],
        typer.Option(
            "--vary",
            help="NAME=V1,V2,...; may be given several times. Names: symmetry_weight, symmetry_eps, dropout (head, "
            "blocks, none), head_dropout, block_dropout, samples, widths (8-16-32-64), learning_rate, weight_decay, "
            "batch_size.",
        ),
    ],
    method: Annotated[str, typer.Option("--method", help="What is trained. See 'nigradat show'.")] = "sym-vgg-plus",
    scale: Annotated[str, typer.Option("--scale", help="Width of the tower, as for study.")] = "quick",
    grid: Annotated[
        bool, typer.Option("--grid", help="All combinations, instead of one at a time around the default.")
    ] = False,
    samples: Annotated[int, typer.Option("--samples", "-T", min=2, help="Monte-Carlo samples of the default.")] = 100,
    seeds: Annotated[int, typer.Option("--seeds", min=1, help="Trainings of each value.")] = 1,
    sbr_max: SbrMax = None,
    epochs: Annotated[int | None, typer.Option("--epochs", min=1, help="At most so many passes.")] = None,
    test: Annotated[
        bool, typer.Option("--test", help="Score the test patients, too. Nothing may then be chosen by them.")
    ] = False,
    engine: Engine = "processes",
    address: Address = None,
    workers: Workers = None,
    device: Device = "auto",
    retry_failed: RetryFailed = False,
    seed: Seed = 1,
    as_json: Json = False,
) -> None:
    """Train one method with varied hyper-parameters; a table and curves with intervals, on the stopping patients.

    Example: nigradat sweep cohort sweep --vary symmetry_weight=0,0.01,0.1 --vary samples=10,30,100 --seeds 3
    """
    from nigradat.study.sweep import SCORES, run_sweep

    check_device(device)
    check_choice("--engine", engine, ("processes", "ray"))
    require_extra("train", "pytorch_lightning")
    require_extra("report", "matplotlib")
    changes = {"epochs": epochs, "sbr_max": sbr_max}
    with study_bar("sweep") as progress:
        folder, rows = run_sweep(
            cohort,
            out,
            vary,
            method=method,
            scale=scale,
            changes={name: value for name, value in changes.items() if value is not None},
            grid=grid,
            samples=samples,
            seeds=seeds,
            seed=seed,
            test=test,
            engine=engine,
            address=address,
            workers=workers,
            device=device,
            retry_failed=retry_failed,
            progress=progress,
            say=lambda text: print(text, file=sys.stderr, flush=True),
        )
    table = folder / "tables" / "sweep.csv"
    if as_json:
        print_json({"folder": folder, "table": table, "rows": rows})
        return
    lines = []
    for row in rows:
        marks = f"{'*' if row.point.is_default else ''}{' best' if row.is_best else ''}"
        found = [row.scores.get(name) for name in SCORES]
        cells = ["n/a" if e is None else f"{e.value:.3f} ({e.low:.3f}, {e.high:.3f})" for e in found]
        lines.append([row.point.parameter, f"{row.point.value}{marks}", row.part, str(row.fits), *cells])
    print_table(
        "* default; 95 % intervals over patients", ["parameter", "value", "part", "fits", *SCORES.values()], lines
    )
    print(f"Table: {table.resolve()}\nCurves: {(folder / 'figures').resolve()}")
