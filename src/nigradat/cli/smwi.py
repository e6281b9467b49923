"""``nigradat smwi``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nigradat.cli.console import Affine, Json, check_affine_choice, check_choice, print_json

if TYPE_CHECKING:
    from nigradat.volume import MultiEchoGre, Volume

NAME = "smwi"


def run(
    scan: Annotated[Path, typer.Argument(help="Multi-echo GRE, magnitude and phase: DICOM or NIfTI files or folder.")],
    out: Annotated[Path, typer.Argument(help="New folder for the images and their sidecars.")],
    threshold_ppm: Annotated[
        float, typer.Option("--threshold-ppm", help="Susceptibility at which the weight reaches 0.")
    ] = 1.0,
    power: Annotated[float, typer.Option("--power", help="Power of the weight.")] = 4.0,
    combine: Annotated[str, typer.Option("--combine", help="The echoes: rms (root mean square) or mean.")] = "rms",
    inversion: Annotated[
        str | None,
        typer.Option("--inversion", help="Field to susceptibility: tv (default; total variation) or tkd (quick)."),
    ] = None,
    reference: Annotated[
        str | None,
        typer.Option("--reference", help="Susceptibility 0 is the mean over: mask (default), csf; or none."),
    ] = None,
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
    from nigradat.smwi.recipe import COMBINATIONS, INVERSIONS, REFERENCES, SmwiRecipe

    choices: dict[str, Any] = {"combination": check_choice("--combine", combine, COMBINATIONS)}
    for option, name, value, allowed in (
        ("--inversion", "inversion", inversion, INVERSIONS),
        ("--reference", "reference", reference, REFERENCES),
    ):
        if value is not None:
            choices[name] = check_choice(option, value, allowed)
    idle = [o for o, v in (("--inversion", inversion), ("--reference", reference), ("--mask", mask)) if v is not None]
    if chi is not None and idle:
        raise ConfigError(f"{' and '.join(idle)} together with --chi", "one or the other: the map is used as it is")
    recipe = SmwiRecipe(chi_th_ppm=threshold_ppm, m=power, **choices)
    refuse_used_folder(out)
    reading = {"series": series, "affine": check_affine_choice(affine)}
    if chi is not None:
        result = _from_chi(scan, chi, recipe, reading)
    else:
        result = _from_phases(scan, mask, recipe, reading | {"phase_sign": phase_sign})
    folder = write_smwi(result, out, diamagnetic=diamagnetic)
    if as_json:
        print_json({"folder": folder, "recipe": result.recipe, "steps": result.smwi.source.steps})
        return
    for step in result.smwi.source.steps:
        print(step)
    print(f"{folder}: SMWI of {' x '.join(map(str, result.smwi.data.shape))} voxels. Research only, not for diagnosis.")


def _from_phases(scan: Path, mask: Path | None, recipe: Any, reading: dict[str, Any]) -> Any:
    from nigradat.io.gre import read_gre
    from nigradat.smwi.chain import check_same_grid, make_smwi

    gre = read_gre(scan, **reading)
    inside = None
    if mask is not None:
        given = _read_map(mask, reading)
        check_same_grid(given, gre.magnitude.shape[1:], gre.affine, f"the mask {mask}")
        inside = given.data
    return make_smwi(gre, recipe, mask=inside, say=lambda words: print(f"{words} ...", file=sys.stderr, flush=True))


def _from_chi(scan: Path, chi: Path, recipe: Any, reading: dict[str, Any]) -> Any:
    from nigradat.smwi.chain import smwi_from_chi

    return smwi_from_chi(_read_magnitude(scan, reading), _read_map(chi, reading), recipe)


def _read_map(path: Path, reading: dict[str, Any]) -> Volume:
    """A NIfTI as it is: unlike an image it may hold voxels that are no number."""
    import numpy as np

    from nigradat.io.nifti import read_volume
    from nigradat.volume import Source, Volume

    voxels, affine = read_volume(path, reading["affine"])
    return Volume(voxels, np.asarray(affine, dtype=np.float64), Source((path.name,), "nifti"))


def _read_magnitude(scan: Path, reading: dict[str, Any]) -> MultiEchoGre | Volume:
    """The echoes of a scan; one image where it holds no phases, which a given map does not need."""
    from nigradat.errors import ImageError
    from nigradat.io.gre import read_gre, read_image

    try:
        return read_gre(scan, **reading)
    except ImageError as no_echoes:
        try:
            return read_image(scan, **reading)
        except ImageError:
            raise no_echoes from None
