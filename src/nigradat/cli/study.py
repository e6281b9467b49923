"""``nigradat study``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nigradat.cli.console import (
    Address,
    Device,
    Engine,
    Json,
    Level,
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

if TYPE_CHECKING:
    from nigradat.evaluation.comparison import Comparison

NAME = "study"


def run(
    cohort: Annotated[Path, typer.Argument(help="Packed cohort with labels.")],
    out: Annotated[Path, typer.Argument(help="Study folder; the same command goes on where it was interrupted.")],
    scale: Annotated[
        str,
        typer.Option(
            "--scale", help="quick (8..64, one method), laptop (8..64, all), small (16..128), full (64..512)."
        ),
    ] = "quick",
    methods: Annotated[
        str | None, typer.Option("--methods", help="Comma-separated; default what fits the scale. See 'nigradat show'.")
    ] = None,
    design: Annotated[
        str, typer.Option("--design", help="single (the paper's 70/15/15), repeated, or kfold (grouped by patient).")
    ] = "single",
    splits: Annotated[
        int | None, typer.Option("--splits", min=1, help="Splits of repeated, folds of kfold; default 5, single 1.")
    ] = None,
    seeds: Annotated[int, typer.Option("--seeds", min=1, help="Trainings of each method on each split.")] = 1,
    fresh: Annotated[
        int,
        typer.Option(
            "--fresh", min=0, help="Phantoms: draw each split anew, with so many test patients that nothing has met."
        ),
    ] = 0,
    level: Level = 0.95,
    threshold: Annotated[
        float | None,
        typer.Option("--threshold", min=0, help="SBR below which uptake is low; default 2.56 on phantoms, else none."),
    ] = None,
    disease: Annotated[
        str | None,
        typer.Option(
            "--disease",
            help="Comma-separated diagnoses that readings are held against; default PD where anybody has it.",
        ),
    ] = None,
    sbr_max: SbrMax = None,
    epochs: Annotated[int | None, typer.Option("--epochs", min=1, help="At most so many passes.")] = None,
    engine: Engine = "processes",
    address: Address = None,
    workers: Workers = None,
    device: Device = "auto",
    retry_failed: RetryFailed = False,
    seed: Seed = 1,
    as_json: Json = False,
) -> None:
    """Train, calibrate and test methods on the same patients, and write tables, figures and one report.html.

    Example: nigradat study cohort study --scale small --seeds 3
    """
    check_device(device)
    check_choice("--engine", engine, ("processes", "ray"))
    require_extra("train", "pytorch_lightning")
    require_extra("report", "matplotlib", "jinja2")
    from nigradat.evaluation.comparison import compare
    from nigradat.report.study_page import sbr_scale, write_comparison
    from nigradat.study.folder import StudyFolder, read_plan
    from nigradat.study.plan import run_study
    from nigradat.study.timing import measure

    changes = {"epochs": epochs, "sbr_max": sbr_max}
    with study_bar("study") as progress:
        folder, records = run_study(
            cohort,
            out,
            scale=scale,
            methods=_names(methods) if methods else (),
            design=design,
            splits=splits,
            seeds=seeds,
            fresh=fresh,
            level=level,
            threshold=threshold,
            disease=_names(disease) if disease else None,
            changes={name: value for name, value in changes.items() if value is not None},
            engine=engine,
            address=address,
            workers=workers,
            device=device,
            retry_failed=retry_failed,
            seed=seed,
            progress=progress,
            say=lambda text: print(text, file=sys.stderr, flush=True),
        )
    plan = read_plan(StudyFolder(folder))
    scale_max = sbr_scale(plan)
    comparison = compare(records, level=plan["level"], threshold=plan["threshold"], scale=scale_max)
    page = write_comparison(folder, comparison, records, plan, measure(records, device=device))
    if as_json:
        facts = [{k: v for k, v in vars(record).items() if k != "folder"} for record in records]
        print_json({"folder": folder, "report": page, "fits": facts})
        return
    _print(comparison, plan["cohort"]["kind"] == "phantom")
    print(f"Report: {page.resolve()}")


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(","))


def _print(comparison: Comparison, on_phantom: bool) -> None:
    """The headline numbers, each with its interval over patients."""
    rows = []
    for method in comparison.methods:
        cells = [method.title, str(len(method.fits))]
        for name, digits in (("pearson_r", 3), ("mae", 3), ("rmse", 3)):
            found = method.scores[name].headline if name in method.scores else None
            cells.append(
                "n/a"
                if found is None
                else f"{found.value:.{digits}f} ({found.low:.{digits}f}, {found.high:.{digits}f})"
            )
        rows.append(cells)
    where = "digital phantom, which says nothing about patients" if on_phantom else "patients"
    title = f"{comparison.n_patients} tested ({where}); with 95 % intervals over them"
    print_table(title, ["method", "fits", "R", "MAE, SBR", "RMSE, SBR"], rows)
    failed = [fit for method in comparison.methods for fit in method.failed]
    for fit in failed:
        print(f"failed: {fit.method} on {fit.split}, seed {fit.seed}: {fit.reason}")
