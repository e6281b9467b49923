"""``nigradat smwi``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from nigradat.cli.console import (
    Affine,
    AnyBodyPart,
    Combine,
    Inversion,
    Json,
    Power,
    Reference,
    ThresholdPpm,
    check_affine_choice,
    parse_numbers,
    print_json,
    smwi_recipe,
)

NAME = "smwi"


def run(
    scan: Annotated[Path, typer.Argument(help="Multi-echo GRE, magnitude and phase: DICOM or NIfTI files or folder.")],
    out: Annotated[Path, typer.Argument(help="New folder for the images and their sidecars.")],
    threshold_ppm: ThresholdPpm = 1.0,
    power: Power = 4.0,
    combine: Combine = "rms",
    inversion: Inversion = None,
    reference: Reference = None,
    mask: Annotated[Path | None, typer.Option("--mask", help="Where the tissue is (NIfTI, not 0 inside).")] = None,
    chi: Annotated[
        Path | None, typer.Option("--chi", help="A susceptibility map in ppm (NIfTI) instead of the phases.")
    ] = None,
    diamagnetic: Annotated[bool, typer.Option("--diamagnetic", help="Write the diamagnetic twin as well.")] = False,
    series: Annotated[
        str | None, typer.Option("--series", help="Which series, as 'nigradat inspect' names it.")
    ] = None,
    phase_sign: Annotated[
        str, typer.Option("--phase-sign", help="auto (by manufacturer), as-stored or reversed.")
    ] = "auto",
    echo_times: Annotated[
        str | None, typer.Option("--echo-times", help="In ms, with commas between, where the files do not say.")
    ] = None,
    field_strength: Annotated[
        float | None, typer.Option("--field-strength", min=0.1, help="In tesla, where the files do not say.")
    ] = None,
    trust_phase: Annotated[
        bool, typer.Option("--trust-phase", help="Take a phase as raw though its header says that it is filtered.")
    ] = False,
    any_body_part: AnyBodyPart = False,
    affine: Affine = "auto",
    as_json: Json = False,
) -> None:
    """Make a susceptibility map-weighted image (SMWI) of a multi-echo gradient-echo scan.

    The recipe is written beside every image. A model that was trained with another recipe refuses the image.

    Example: nigradat smwi scans/gre smwi
    """
    from nigradat.errors import ConfigError
    from nigradat.io.files import refuse_used_folder
    from nigradat.smwi.output import write_smwi

    idle = [o for o, v in (("--inversion", inversion), ("--reference", reference), ("--mask", mask)) if v is not None]
    if chi is not None and idle:
        raise ConfigError(f"{' and '.join(idle)} together with --chi", "one or the other: the map is used as it is")
    recipe = smwi_recipe(threshold_ppm, power, combine, inversion, reference)
    refuse_used_folder(out)
    reading = {"series": series, "affine": check_affine_choice(affine), "any_body_part": any_body_part}
    stated = {
        "echo_times_ms": None if echo_times is None else parse_numbers("--echo-times", echo_times),
        "field_strength_t": field_strength,
        "trust_phase": trust_phase,
        "phase_sign": phase_sign,
    }
    if chi is not None:
        result = _from_chi(scan, chi, recipe, reading, stated)
    else:
        result = _from_phases(scan, mask, recipe, reading, stated)
    folder = write_smwi(result, out, diamagnetic=diamagnetic)
    if as_json:
        print_json({"folder": folder, "recipe": result.recipe, "steps": result.smwi.source.steps})
        return
    for step in result.smwi.source.steps:
        print(step)
    print(f"{folder}: SMWI of {' x '.join(map(str, result.smwi.data.shape))} voxels. Research only, not for diagnosis.")


def _from_phases(scan: Path, mask: Path | None, recipe: Any, reading: dict[str, Any], stated: dict[str, Any]) -> Any:
    from nigradat.io.gre import read_gre, read_map
    from nigradat.smwi.chain import check_same_grid, make_smwi

    gre = read_gre(scan, **reading, **stated)
    inside = None
    if mask is not None:
        given = read_map(mask, affine=reading["affine"])
        check_same_grid(given, gre.magnitude.shape[1:], gre.affine, f"the mask {mask}")
        inside = given.data
    return make_smwi(gre, recipe, mask=inside, say=lambda words: print(f"{words} ...", file=sys.stderr, flush=True))


def _from_chi(scan: Path, chi: Path, recipe: Any, reading: dict[str, Any], stated: dict[str, Any]) -> Any:
    from nigradat.io.gre import read_magnitude, read_map
    from nigradat.smwi.chain import smwi_from_chi

    return smwi_from_chi(read_magnitude(scan, **reading, **stated), read_map(chi, affine=reading["affine"]), recipe)
