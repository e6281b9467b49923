"""The verbs under one roof."""

from __future__ import annotations

from typing import Annotated

import typer

from nigradat import __version__
from nigradat.cli import (
    average_maps,
    bids,
    calibrate,
    check,
    cohort,
    dose_response,
    evaluate,
    explain,
    faithfulness,
    features,
    fit_quality,
    import_published,
    inspect,
    intervals,
    locate,
    mis_centring,
    predict,
    sbr,
    show,
    simulate,
    smwi,
    stress_test,
    study,
    sweep,
    train,
)

app = typer.Typer(
    name="nigradat",
    help="Read striatal dopamine-transporter uptake (SBR) of both sides off nigral MRI, with calibrated intervals. "
    "Research only, not for diagnosis.",
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(asked: bool) -> None:
    if asked:
        print(f"nigradat {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and stop.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    pass


for _verb in (
    simulate,
    cohort,
    train,
    calibrate,
    evaluate,
    intervals,
    predict,
    fit_quality,
    check,
    stress_test,
    explain,
    average_maps,
    features,
    faithfulness,
    dose_response,
    mis_centring,
    study,
    sweep,
    inspect,
    smwi,
    locate,
    sbr,
    bids,
    import_published,
    show,
):
    app.command(_verb.NAME)(_verb.run)
