"""``nigradat predict``."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from nigradat.cli.console import (
    Affine,
    Inputs,
    Json,
    LeftPatch,
    Level,
    Model,
    RightPatch,
    Rule,
    check_affine_choice,
    print_json,
    print_table,
)

NAME = "predict"


def run(
    model: Model,
    inputs: Inputs = None,
    right: RightPatch = None,
    left: LeftPatch = None,
    affine: Affine = "auto",
    level: Level = 0.95,
    rule: Rule = "conformal",
    allow_other_recipe: Annotated[
        bool, typer.Option("--allow-other-recipe", help="Flag images of another SMWI recipe instead of refusing them.")
    ] = False,
    abstain: Annotated[
        str,
        typer.Option(
            "--abstain",
            help="Withhold the answer: none, flagged (from pairs flagged as unusual), or the share of ordinary pairs "
            "that may go without one, for example 0.1.",
        ),
    ] = "none",
    as_json: Json = False,
) -> None:
    """Predict the SBR of both sides, with an interval where the model was calibrated.

    Right and left are the patient's. A model without dropout or calibration gives no interval and says so.

    Example: nigradat predict patient.mat --model run
    """
    from nigradat.models.weights import load_model
    from nigradat.quality.abstain import NONE, check_policy
    from nigradat.uncertainty.calibration import check_rule
    from nigradat.uncertainty.predict import predict, predictions_to_json

    choice, width_rule, policy = check_affine_choice(affine), check_rule(rule), check_policy(abstain)
    loaded = load_model(model)
    found = predict(
        list(inputs or ()),
        loaded,
        right=right,
        left=left,
        affine=choice,
        level=level,
        rule=width_rule,
        allow_other_recipe=allow_other_recipe,
        abstain=policy,
    )
    data = predictions_to_json(loaded, found, level, width_rule)
    data["yield"]["policy"] = policy
    if policy != NONE and data["interval"] is not None:
        data["interval"]["promise"] += "; counted over all patients, those whose answer is withheld included"
    if as_json:
        print_json(data)
        return
    interval = f"{'nominal ' if width_rule == 'nominal-cp' else ''}{100 * level:g} % interval"
    print_table(
        f"SBR by {loaded.title}",
        ["patient", "right", interval, "sd", "left", interval, "sd"],
        [[_name(p), *_cells(p["right"]), *_cells(p["left"])] for p in data["patients"]],
    )
    if data["interval"] is not None and data["yield"]["answered"]:
        print(f"{interval[0].upper()}{interval[1:]} ({width_rule}): {data['interval']['promise']}.")
    for remark in _remarks(data["patients"]):
        print(remark)
    if policy != NONE:
        print(f"Answered {data['yield']['answered']} of {data['yield']['visits']} visits (--abstain {policy}).")
    print("Research only, not for diagnosis. sd is the raw spread over dropout samples, not an interval.")


def _remarks(patients: list[dict[str, Any]]) -> list[str]:
    """Each message once, with the names of those whom it concerns where that is not everybody."""
    concerned: dict[tuple[str, str], list[str]] = {}
    for patient in patients:
        for flag in patient["flags"]:
            concerned.setdefault((flag["severity"], flag["message"]), []).append(_name(patient))
    out = []
    for (severity, message), names in concerned.items():
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        who = "" if len(names) == len(patients) else f"{', '.join(names[:3])}{more}: "
        out.append(f"{'note' if severity == 'info' else 'WARNING'}: {who}{message}")
    return out


def _name(patient: dict[str, Any]) -> str:
    return patient["id"] if patient["session"] == "n/a" else f"{patient['id']} {patient['session']}"


def _cells(side: dict[str, Any] | None) -> list[str]:
    if side is None:
        return ["-", "-", "-"]
    interval = "-" if side["interval"] is None else f"{side['interval'][0]:.2f} to {side['interval'][1]:.2f}"
    return [f"{side['sbr']:.4f}", interval, "-" if side["sd"] is None else f"{side['sd']:.3f}"]
