"""``nigradat faithfulness``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nigradat.cli.console import Json, Limit, Model, Seed, Source, print_json, print_values, progress_bar, require_extra

NAME = "faithfulness"


def run(
    source: Source,
    out: Annotated[Path, typer.Argument(help="New folder for table and figure.")],
    model: Model,
    layer: Annotated[
        str, typer.Option("--layer", help="last, third, a layer's name, or voxels for gradient maps.")
    ] = "last",
    curves: Annotated[bool, typer.Option("--curves/--no-curves", help="Also follow deletion and insertion.")] = True,
    limit: Limit = 50,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Measure whether a model's maps point at the nigra and at what counts, beside chance and random weights.

    Example: nigradat faithfulness cohort faith --model run
    """
    from nigradat.explain.faithfulness import faithfulness
    from nigradat.explain.faithfulness_report import faithfulness_figure, faithfulness_table
    from nigradat.explain.probe_report import data_label, write_probe
    from nigradat.io.files import refuse_used_folder
    from nigradat.io.inputs import read_patches
    from nigradat.models.weights import load_model
    from nigradat.phantom.oracle import read_masks

    require_extra("report", "matplotlib")
    refuse_used_folder(out)
    loaded = load_model(model)
    sample = read_patches(source, limit)
    masks = read_masks(source, sample.rows) if sample.is_phantom else None
    with progress_bar("deleting and inserting", "curves") as progress:
        found = faithfulness(
            loaded, sample.patches, masks, layer=layer, curves=curves, seed=seed, progress=progress if curves else None
        )
    label = data_label(loaded, sample.is_phantom)
    table = faithfulness_table(found, label, seed)
    write_probe(out, table, faithfulness_figure(found, label), "Deletion and insertion curves")
    if as_json:
        print_json({"folder": out, "patients": len(sample.patches), "table": table})
    else:
        print_values(table)
        print(f"Table and figure: {out}")
