"""``nigradat dose-response``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nigradat.cli.console import Json, Limit, Model, Seed, Source, print_json, print_values, require_extra

NAME = "dose-response"


def run(
    source: Source,
    out: Annotated[Path, typer.Argument(help="New folder for table and figure.")],
    model: Model,
    levels: Annotated[
        str, typer.Option("--levels", help="Painted intensities, in units of the patch's mean.")
    ] = "0.4,0.6,0.8,1,1.2",
    limit: Limit = 200,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Paint nigrosome-1 darker or brighter and see whether the answer follows.

    Example: nigradat dose-response patient.mat dose --model run
    """
    from nigradat.cli.console import parse_numbers
    from nigradat.explain.probe_report import data_label, dose_figure, dose_table, write_probe
    from nigradat.explain.probes import dose_response
    from nigradat.io.files import refuse_used_folder
    from nigradat.io.inputs import read_patches
    from nigradat.models.weights import load_model

    require_extra("report", "matplotlib")
    refuse_used_folder(out)
    loaded = load_model(model)
    sample = read_patches(source, limit)
    label = data_label(loaded, sample.is_phantom)
    response = dose_response(loaded, sample.patches, parse_numbers("--levels", levels))
    table = dose_table(response, label, seed)
    write_probe(out, table, dose_figure(response, label), "Predicted SBR over the painted intensity of nigrosome-1")
    if as_json:
        print_json({"folder": out, "patients": len(sample.patches), "table": table})
    else:
        print_values(table)
        print(f"Table and figure: {out}")
