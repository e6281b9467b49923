"""``nigradat features``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nigradat.cli.console import Json, Limit, Seed, print_json, print_values, progress_bar, require_extra

NAME = "features"


def run(
    cohort: Annotated[Path, typer.Argument(help="Packed cohort with labels.")],
    out: Annotated[Path, typer.Argument(help="New folder for coordinates, table and figures.")],
    model: Annotated[
        list[Path],
        typer.Option("--model", "-m", help="Folder of a trained or imported model; once for each to compare."),
    ],
    subset: Annotated[
        str,
        typer.Option(
            "--subset", help="Part of the models' own cohort: test, calibration, stop, validation, train, all."
        ),
    ] = "test",
    limit: Limit = 1000,
    neighbours: Annotated[
        int, typer.Option("--neighbours", min=1, help="Other patients that a side is compared with.")
    ] = 10,
    perplexity: Annotated[
        float, typer.Option("--perplexity", min=1, help="Of the t-SNE: about how many neighbours it keeps together.")
    ] = 30,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Show what a network sees alike (t-SNE, PCA), and measure whether that has the same SBR.

    Example: nigradat features cohort features --model run
    """
    from nigradat.explain.embedding import map_features
    from nigradat.explain.embedding_report import neighbour_table, summary, write_features
    from nigradat.io.files import refuse_used_folder
    from nigradat.io.pack import load_cohort
    from nigradat.models.weights import load_model

    require_extra("explain", "sklearn")
    require_extra("report", "matplotlib")
    refuse_used_folder(out)
    loaded = [load_model(folder) for folder in model]
    with progress_bar("reading features", "visits") as progress:
        found = map_features(
            load_cohort(cohort),
            loaded,
            subset=subset,
            limit=limit,
            neighbours=neighbours,
            perplexity=perplexity,
            seed=seed,
            progress=progress,
        )
    write_features(out, found)
    table, data = neighbour_table(found), summary(found)
    if as_json:
        print_json({"folder": out, **data})
    else:
        print_values(table)
        print(f"Coordinates, table and figures: {out}")
