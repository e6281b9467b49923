"""``nigradat inspect``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nigradat.cli.console import Affine, Json, check_affine_choice, print_json, print_table

if TYPE_CHECKING:
    from nigradat.io.gre import Use
    from nigradat.io.series import ScanSeries

NAME = "inspect"
_USES = {"smwi": "SMWI", "image": "an image", "refuse": "refused"}


def run(
    path: Annotated[
        Path, typer.Argument(help="DICOM or NIfTI files: one file, a folder (searched through), a .zip, .tar or .gz.")
    ],
    affine: Affine = "auto",
    as_json: Json = False,
) -> None:
    """Print what a scan holds, series by series, and what would be done with it. No identifier is printed.

    Example: nigradat inspect dicom-folder
    """
    from nigradat.io.gre import read_scan, use_of

    found = [(series, use_of(series)) for series in read_scan(path, affine=check_affine_choice(affine))]
    if as_json:
        print_json({"series": [series.to_json() | _use(use) for series, use in found]})
        return
    print_table(
        f"{len(found)} series",
        ["series", "holds", "voxels", "mm", "axes", "good for"],
        [[series.label, series.holds, *_grid(series), _USES[use.purpose]] for series, use in found],
    )
    for series, use in found:
        for note in (*series.notes, *use.steps):
            print(f"{series.label}: {note}")
        for error in use.because:
            print(f"{series.label}: {'refused' if use.purpose == 'refuse' else 'no SMWI'}: {error}")


def _use(use: Use) -> dict[str, object]:
    return {"use": use.purpose, "because": [str(error) for error in use.because], "steps": list(use.steps)}


def _grid(series: ScanSeries) -> tuple[str, str, str]:
    from nigradat.anatomy import axis_codes
    from nigradat.volume import spacing_mm

    if series.shape is None or series.affine is None:
        return "-", "-", "-"
    size = " x ".join(f"{s:.3g}" for s in spacing_mm(series.affine))
    return " x ".join(map(str, series.shape)), size, "".join(axis_codes(series.affine))
