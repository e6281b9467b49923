"""``nigradat bids``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from nigradat.cli.console import (
    Combine,
    Inversion,
    Json,
    Power,
    Reference,
    ThresholdPpm,
    check_choice,
    print_json,
    progress_bar,
    require_extra,
    smwi_recipe,
)

if TYPE_CHECKING:
    from nigradat.spect.sbr import Method

NAME = "bids"


def run(
    bids_dir: Annotated[Path, typer.Argument(help="BIDS data set with gradient-echo scans or SMWI.")],
    out: Annotated[Path, typer.Argument(help="Derivatives data set, new or of an earlier run.")],
    level: Annotated[str, typer.Argument(metavar="participant|group", help="Every visit by itself, or the cohort.")],
    participant_label: Annotated[
        list[str] | None,
        typer.Option("--participant-label", help="Take this participant only; may be given several times."),
    ] = None,
    sbr_method: Annotated[
        str,
        typer.Option("--sbr-method", help="On SPECT images: voi-mean, hottest or southampton; for all visits alike."),
    ] = "voi-mean",
    tracer: Annotated[
        str | None,
        typer.Option("--tracer", help="Of all SPECT, where headers do not say it, or in words we do not know."),
    ] = None,
    threshold_ppm: ThresholdPpm = 1.0,
    power: Power = 4.0,
    combine: Combine = "rms",
    inversion: Inversion = None,
    reference: Reference = None,
    workers: Annotated[
        int, typer.Option("--workers", min=1, help="Visits at a time, each in its own process of some 2 GB of memory.")
    ] = 1,
    allow_mixed: Annotated[
        bool, typer.Option("--allow-mixed", help="group: accept labels of different tracers or SPECT programs.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Turn a BIDS data set into patches, derivatives, a page for each visit, and a packed cohort.

    A visit that fails is listed at the end and the others go on; the same command again passes over what is done.

    Example: nigradat bids data derivatives participant --workers 2
    """
    check_choice("participant|group", level, ("participant", "group"))
    if level == "group":
        _group(bids_dir, out, allow_mixed, as_json)
        return
    require_extra("locate", "SimpleITK", "nilearn")
    require_extra("report", "matplotlib", "jinja2")
    from nigradat.bids.app import run_participants
    from nigradat.bids.visit import Settings
    from nigradat.errors import CohortError
    from nigradat.spect.sbr import METHODS

    recipe = smwi_recipe(threshold_ppm, power, combine, inversion, reference)
    method = cast("Method", check_choice("--sbr-method", sbr_method, METHODS))
    with progress_bar("preparing", "visits") as progress:
        outcome = run_participants(
            bids_dir,
            out,
            participants=tuple(participant_label or ()),
            settings=Settings(recipe, method, tracer),
            workers=workers,
            progress=progress,
        )
    failed = outcome.failed
    if as_json:
        print_json({"folder": out, "fresh": outcome.fresh, "visits": outcome.records})
    else:
        done = len(outcome.records) - len(failed)
        print(f"{done} of {len(outcome.records)} visits are prepared, {outcome.fresh} of all in this run: {out}")
        for record in outcome.records:
            for remark in (*record.flags, *filter(None, [record.sbr_error])):
                print(f"  {record.name}: {remark}")
    if failed:
        listed = "\n".join(f"  {record.name}: {record.error}" for record in failed)
        raise CohortError(
            f"{len(failed)} of {len(outcome.records)} visits could not be prepared\n{listed}\nThe others are done",
            "",
            "Mend these and run the command again",
        )


def _group(bids_dir: Path, out: Path, allow_mixed: bool, as_json: bool) -> None:
    from nigradat.bids.app import run_group

    with progress_bar("packing", "visits") as progress:
        cohort = run_group(bids_dir, out, allow_mixed=allow_mixed, progress=progress)
    if as_json:
        print_json({"folder": cohort.folder, "visits": len(cohort)})
    else:
        print(f"{len(cohort)} visits with patches and labels: {cohort.folder}")
