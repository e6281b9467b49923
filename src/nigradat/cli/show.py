"""``nigradat show``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nigradat.cli.console import Json, parse_widths, print_json, print_table

NAME = "show"


def run(
    model: Annotated[
        str, typer.Argument(help="Name of a model (sym-vgg-plus, resnet18, ...), or the folder of a trained one.")
    ],
    widths: Annotated[
        str | None,
        typer.Option("--widths", help="Size of a model given by name, as a VGG's four widths; default 16,32,64,128."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Print a model's layers as the paper does, with parameters and cost a patch.

    Example: nigradat show sym-vgg-plus --widths 64,128,256,512
    """
    from nigradat.errors import ConfigError
    from nigradat.models.cost import layer_table
    from nigradat.models.registry import create_model
    from nigradat.models.symmetric import ModelSpec
    from nigradat.models.weights import load_model

    folder = Path(model)
    if folder.is_dir() and widths is not None:
        raise ConfigError(f"--widths {widths} for the folder {folder}", "no --widths: its card says how wide it is")
    spec = ModelSpec() if widths is None else ModelSpec(widths=parse_widths(widths))
    network = load_model(folder).model if folder.is_dir() else create_model(model, spec)
    names = list(network.nets)
    net = network.net(network.sides[0])
    assert net is not None
    rows = layer_table(net)
    parameters, macs = sum(r.parameters for r in rows), sum(r.macs for r in rows)
    if as_json:
        print_json(
            {"model": model, "networks": names, "layers": rows, "parameters": parameters, "macs_per_patch": macs}
        )
        return
    shared = "one network for both sides" if names == ["both"] else f"one network for each of: {', '.join(names)}"
    print_table(
        f"{model}: {shared}",
        ["layer", "kind", "output", "parameters", "MMAC a patch"],
        [[r.name, r.kind, " x ".join(map(str, r.output)), f"{r.parameters:,}", f"{r.macs / 1e6:,.1f}"] for r in rows]
        + [["total", "", "", f"{parameters:,}", f"{macs / 1e6:,.1f}"]],
    )
