"""``nigradat mis-centring``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nigradat.cli.console import Json, Limit, Model, Seed, Source, print_json, print_values, require_extra

NAME = "mis-centring"


def run(
    source: Source,
    out: Annotated[Path, typer.Argument(help="New folder for table and figure.")],
    model: Model,
    shifts: Annotated[
        str, typer.Option("--shifts", help="How far the centre is moved along each axis, whole millimetres.")
    ] = "-4,-3,-2,-1,0,1,2,3,4",
    limit: Limit = 200,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Move the patch's centre off nigrosome-1 and see what the answer does.

    Example: nigradat mis-centring patient.mat centring --model run
    """
    from nigradat.cli.console import parse_numbers
    from nigradat.explain.probe_report import centring_figure, centring_table, data_label, write_probe
    from nigradat.explain.probes import centring_response
    from nigradat.io.files import refuse_used_folder
    from nigradat.io.inputs import read_patches
    from nigradat.models.weights import load_model

    require_extra("report", "matplotlib")
    refuse_used_folder(out)
    loaded = load_model(model)
    sample = read_patches(source, limit)
    label = data_label(loaded, sample.is_phantom)
    response = centring_response(loaded, sample.patches, parse_numbers("--shifts", shifts))
    table = centring_table(response, label, seed)
    write_probe(
        out, table, centring_figure(response, label), "Change of the predicted SBR over the shift of the centre"
    )
    if as_json:
        print_json({"folder": out, "patients": len(sample.patches), "table": table})
    else:
        print_values(table)
        print(f"Table and figure: {out}")
