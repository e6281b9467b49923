"""``nigradat calibrate``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nigradat.cli.console import Json, Level, Seed, print_json

if TYPE_CHECKING:
    from nigradat.uncertainty.calibration import Calibration, Rule

NAME = "calibrate"


def run(
    run: Annotated[Path, typer.Argument(help="Folder of a trained model.")],
    cohort: Annotated[
        Path, typer.Argument(help="The run's own cohort (its calibration part is taken), or another labelled one.")
    ],
    symmetric_mode: Annotated[
        str,
        typer.Option(
            "--symmetric-mode", help="How both sides' dropout samples make a spread: mc (plain), s1 (default) to s7."
        ),
    ] = "s1",
    samples: Annotated[int, typer.Option("--samples", "-T", min=2, help="Monte-Carlo samples.")] = 100,
    fold: Annotated[
        list[Path] | None,
        typer.Option(
            "--fold",
            help="Run of one fold, trained on COHORT; once for each fold. Makes CV+ intervals, for cohorts too small "
            "to spare calibration patients.",
        ),
    ] = None,
    level: Level = 0.95,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Turn the spread of a trained model into intervals, with patients that served for nothing else.

    Writes calibration.json (with --fold: cv-plus.json and the folds' models) into the run folder and prints what the
    interval of each rule promises.

    Example: nigradat calibrate run cohort --level 0.95
    """
    from nigradat.uncertainty.calibration import calibrate
    from nigradat.uncertainty.cross_validation import calibrate_folds
    from nigradat.uncertainty.symmetric_mc import check_mode

    mode = check_mode(symmetric_mode)
    if fold:
        crossed = calibrate_folds(run, fold, cohort, mode=mode, samples=samples, seed=seed, level=level)
        rules: list[dict[str, object]] = [{"rule": "cv+", "multiplier": None, "promise": crossed.promise(level)}]
        patients = crossed.patients
    else:
        calibration = calibrate(run, cohort, mode=mode, samples=samples, seed=seed, level=level)
        rules = [_described(calibration, rule, level) for rule in ("conformal", "mondrian", "joint", "nominal-cp")]
        patients = calibration.patients
    if as_json:
        print_json({"run": run, "mode": mode, "patients": patients, "level": level, "rules": rules})
        return
    print(f"{run}: mode {mode}, {patients} patients, level {level:g}")
    for described in rules:
        k = described["multiplier"]
        answered = k.items() if isinstance(k, dict) else ()
        listed = ", ".join(f"{side} {value:.3f}" for side, value in answered if value is not None)
        shown = f" (k {listed})" if listed else ""
        print(f"  --rule {described['rule']}{shown}: {described['promise']}.")
    print(f"Next: nigradat fit-quality {run} {cohort}, so that predict can flag unusual pairs")


def _described(calibration: Calibration, rule: Rule, level: float) -> dict[str, object]:
    """A rule's multiplier, where it is one a side, and its promise; or why there is none."""
    import numpy as np

    from nigradat.anatomy import Side
    from nigradat.errors import CalibrationError

    try:
        promise = calibration.promise(level, rule)
    except CalibrationError as error:
        return {"rule": rule, "multiplier": None, "promise": f"none. {error}".rstrip(".")}
    if rule == "mondrian":
        return {"rule": rule, "multiplier": None, "promise": promise}
    k = calibration.multiplier(level, rule)
    one_each = {side.value: None if np.isnan(k[side.index]) else float(k[side.index]) for side in Side}
    return {"rule": rule, "multiplier": one_each, "promise": promise}
