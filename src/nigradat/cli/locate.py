"""``nigradat locate``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, cast, get_args

import typer

from nigradat.cli.console import (
    Affine,
    AnyBodyPart,
    Json,
    check_affine_choice,
    check_choice,
    print_json,
    require_extra,
)

NAME = "locate"


def run(
    image: Annotated[
        Path, typer.Argument(help="SMWI or gradient-echo magnitude: NIfTI, DICOM folder or archive; best the SMWI.")
    ],
    out: Annotated[Path, typer.Argument(help="New folder for both patches, their centres and a picture.")],
    t1w: Annotated[
        Path | None, typer.Option("--t1w", help="A T1-weighted scan of the same session, registered in its place.")
    ] = None,
    centres: Annotated[
        Path | None,
        typer.Option(
            "--centres",
            help="Centres that a reader set: .tsv, 3D Slicer .mrk.json or .fcsv, ITK-SNAP .annot, or a label image.",
        ),
    ] = None,
    atlas: Annotated[
        Path | None,
        typer.Option(
            "--atlas",
            help="Another atlas in MNI152 space: NIfTI with the names of its structures beside it (.json, .tsv).",
        ),
    ] = None,
    no_refine: Annotated[
        bool,
        typer.Option("--no-refine", help="Take the registration as it is, for an image on which iron is not dark."),
    ] = False,
    series: Annotated[
        str | None, typer.Option("--series", help="Which series of a scan, as 'nigradat inspect' numbers them.")
    ] = None,
    part: Annotated[
        str | None, typer.Option("--part", help="Which part of a scan with several, for example magnitude.")
    ] = None,
    echo_time: Annotated[
        float | None, typer.Option("--echo-time", help="Which echo of a scan with several, in ms.")
    ] = None,
    any_body_part: AnyBodyPart = False,
    affine: Affine = "auto",
    as_json: Json = False,
) -> None:
    """Find nigrosome-1 on both sides and cut the patches that 'predict' takes.

    Look at OUT/located.png before using them.

    Example: nigradat locate smwi.nii.gz sub-01
    """
    from nigradat.errors import ConfigError
    from nigradat.io.files import refuse_used_folder
    from nigradat.io.gre import read_image
    from nigradat.io.series import Part
    from nigradat.locate import atlas as atlases
    from nigradat.locate import centres as points
    from nigradat.locate import locate as locating
    from nigradat.smwi.recipe import recipe_beside

    choice = check_affine_choice(affine)
    automatic = {"--t1w": t1w, "--atlas": atlas, "--no-refine": no_refine or None}
    idle = [option for option, value in automatic.items() if value is not None]
    if centres is not None and idle:
        raise ConfigError(f"{' and '.join(idle)} together with --centres", "one or the other: given centres are kept")
    require_extra("report", "matplotlib")
    if centres is None:
        require_extra("locate", "SimpleITK", "nilearn")
    refuse_used_folder(out)
    wanted = None if part is None else cast("Part", check_choice("--part", part, get_args(Part)))
    seen = read_image(
        image, series=series, part=wanted, echo_time_ms=echo_time, affine=choice, any_body_part=any_body_part
    )
    volume = locating.with_provenance(seen, image)
    if centres is not None:  # the file's name may be a patient's and stays out
        found = locating.given(volume, points.read_centres(centres, volume.affine, choice), f"a {centres.suffix} file")
    else:
        found = locating.locate_nigrosomes(
            volume,
            t1w=None if t1w is None else read_image(t1w, affine=choice, any_body_part=any_body_part),
            atlas=None if atlas is None else atlases.read_atlas(atlas, affine=choice),
            refined=not no_refine,
        )
    recipe = recipe_beside(image)
    folder = locating.write_located(out, volume, found, smwi_recipe=recipe)
    if as_json:
        print_json({"folder": folder, **locating.located_to_json(found)})
        return
    for side, centre in found.centres.items():
        print(f"{side.value}: {', '.join(f'{value:.1f}' for value in centre)} mm (RAS+)")
    print(f"{found.method}; confidence {found.confidence:.2f} (no probability)")
    for flag in found.flags:
        print(f"{'note' if flag.severity == 'info' else 'WARNING'}: {flag.message}")
    print(f"{folder}: look at located.png before using the patches. Research only, not for diagnosis.")
