"""``nigradat simulate``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nigradat.cli.console import Json, Seed, print_json, progress_bar

NAME = "simulate"


def run(
    out: Annotated[Path, typer.Argument(help="New folder for the packed cohort.")],
    patients: Annotated[int, typer.Option("--patients", "-n", min=1, help="How many patients.")] = 367,
    preset: Annotated[
        str, typer.Option("--preset", help="How tightly MRI and SBR are coupled: paper, hard, easy, uncoupled.")
    ] = "paper",
    seed: Seed = 1,
    workers: Annotated[
        int | None, typer.Option("--workers", min=1, help="Processes; default one a core. Does not change the result.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Render a cohort of the digital nigra phantom: patch pairs with known SBR and known best reachable error.

    The truth (latents, masks) lies in OUT/truth, which training never opens.

    Example: nigradat simulate cohort --patients 60 --preset easy --seed 1
    """
    from nigradat.io.pack import load_cohort
    from nigradat.phantom.cohort import simulate

    with progress_bar("rendering", "patients") as progress:
        folder = simulate(out, patients=patients, preset=preset, seed=seed, workers=workers, progress=progress)
    cohort = load_cohort(folder)
    if as_json:
        print_json(
            {"cohort": folder, "patients": patients, "sha256": cohort.sha256, "sbr_scale": dict(cohort.sbr_scale)}
        )
    else:
        sbr = cohort.sbr
        print(
            f"{folder}: {patients} phantom patients, preset {preset}, seed {seed}, "
            f"SBR {sbr.min():.2f} to {sbr.max():.2f}"
        )
