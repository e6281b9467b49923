"""``nigradat average-maps``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nigradat.cli.console import Json, Limit, print_json, print_table, progress_bar, require_extra

NAME = "average-maps"


def run(
    model: Annotated[Path, typer.Argument(help="Folder of a trained or imported model.")],
    cohort: Annotated[
        Path, typer.Argument(help="Labelled: the run's own (a part of it is taken) or another one (all of it).")
    ],
    out: Annotated[Path, typer.Argument(help="New folder for maps and figures.")],
    layer: Annotated[
        list[str] | None,
        typer.Option("--layer", help="Once for each layer: last, third, or a name; default both blocks."),
    ] = None,
    subset: Annotated[
        str, typer.Option("--subset", help="Part of the run's own cohort: test, calibration, stop, validation, train.")
    ] = "test",
    limit: Limit = 2000,
    as_json: Json = False,
) -> None:
    """Average the HiResCAM maps of patients with low, middle and high SBR.

    Example: nigradat average-maps run cohort maps
    """
    from nigradat.explain.average import average_maps
    from nigradat.explain.figures import write_average_maps
    from nigradat.explain.hirescam import layer_in_words
    from nigradat.explain.probe_report import data_label
    from nigradat.io.files import refuse_used_folder
    from nigradat.models.weights import load_model

    require_extra("report", "matplotlib")
    refuse_used_folder(out)
    loaded = load_model(model)
    with progress_bar("mapping", "visits") as progress:
        found = average_maps(loaded, cohort, layers=layer, subset=subset, limit=limit, progress=progress)
    label = data_label(loaded, found.is_phantom)
    data = write_average_maps(out, found, loaded, label)
    if as_json:
        print_json({"folder": out, **data})
        return
    for average in found.maps:
        where = layer_in_words(loaded.spec.tower, average.layer)
        print_table(
            f"Mean HiResCAM map of {found.visits} visits ({found.subset}), {where}, SBR",
            ["third", "sides", "reference", "predicted", "map", "residual"],
            [
                [group.name, str(group.sides)]
                + [f"{round(float(v), 4) + 0.0:.4f}" for v in (group.mean, group.predicted, total, residual)]
                for group, total, residual in zip(found.groups, average.total, average.residual, strict=True)
            ],
        )
    if label:
        print(f"NOTE: {label}.")
    print(f"Maps and figures: {out}. A map describes the model, not the disease. Research only, not for diagnosis.")
