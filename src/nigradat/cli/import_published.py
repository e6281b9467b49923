"""``nigradat import-published``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nigradat.cli.console import Json, check_choice, print_json

NAME = "import-published"


def run(
    folders: Annotated[
        list[Path],
        typer.Argument(
            metavar="LEFT_FOLDER [RIGHT_FOLDER] OUT", help="One or two SavedModel folders, then the new model folder."
        ),
    ],
    side: Annotated[
        str | None, typer.Option("--side", help="right or left, for one folder whose name does not tell.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Read the authors' published TensorFlow weights, without TensorFlow, into a model folder.

    Their public release is github.com/awjibon/mri_dat; its weights are under GPL-3.0, which the card records.

    Example: nigradat import-published net_vgg_left net_vgg_right published
    """
    from nigradat.anatomy import Side
    from nigradat.errors import ConfigError
    from nigradat.models.published import import_published
    from nigradat.models.weights import read_card

    if not 2 <= len(folders) <= 3:
        raise ConfigError(f"{len(folders)} folder(s)", "one or two SavedModel folders, then OUT")
    if side is not None and len(folders) == 3:
        raise ConfigError(f"--side {side} with two folders", "--side with one folder; two tell their sides by name")
    chosen = None if side is None else Side(check_choice("--side", side, ("right", "left")))
    out = import_published(folders[:-1], folders[-1], chosen)
    card = read_card(out)
    if as_json:
        print_json({"model": out, "title": card["title"], "licence": card["licence"], "sha256": card["sha256"]})
    else:
        print(f"{out}: {card['title']}, {card['parameters']:,} parameters\nLicence of the weights: {card['licence']}")
