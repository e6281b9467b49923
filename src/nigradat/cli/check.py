"""``nigradat check``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nigradat.cli.console import (
    Affine,
    Inputs,
    Json,
    LeftPatch,
    Model,
    RightPatch,
    check_affine_choice,
    print_json,
    print_table,
)

if TYPE_CHECKING:
    from nigradat.quality.check import PairQuality

NAME = "check"


def run(
    model: Model,
    inputs: Inputs = None,
    right: RightPatch = None,
    left: LeftPatch = None,
    affine: Affine = "auto",
    as_json: Json = False,
) -> None:
    """Say what is unusual about a pair of patches: sides, centre, contrast, noise, motion, the network's features.

    The model must know what is usual: see fit-quality.

    Example: nigradat check patient.mat --model run
    """
    from nigradat.models.weights import load_model
    from nigradat.quality.check import check
    from nigradat.quality.reference import require_quality

    choice = check_affine_choice(affine)
    loaded = load_model(model)
    quality = require_quality(loaded)
    checked = check(list(inputs or ()), loaded, right=right, left=left, affine=choice)
    unusual = sum(bool(pair.flags) for pair in checked)
    if as_json:
        print_json(
            {
                "model": model,
                "alarm": quality.alarm,
                "reference": {
                    "kind": quality.kind,
                    "patients": quality.reference_patients,
                    "held_out": quality.patients,
                    "promise": quality.promise,
                },
                "visits": len(checked),
                "unusual": unusual,
                "patients": [_to_json(pair) for pair in checked],
            }
        )
        return
    print_table(
        f"How usual these pairs are to {loaded.title}",
        ["patient", "p", "unusual"],
        [[_name(pair), f"{pair.p_value:.3f}", _codes(pair)] for pair in checked],
    )
    for pair in checked:
        for flag in pair.flags:
            print(f"WARNING: {_name(pair)}: {flag.message}")
    print(
        f"{unusual} of {len(checked)} visits are unusual. Reference: {quality.reference_patients} and "
        f"{quality.patients} {'phantom ' if quality.kind == 'phantom' else ''}patients; {quality.promise}."
    )
    print(
        "p: share of ordinary pairs that are as unusual. A head that was mirrored as a whole cannot be told from this."
    )


def _name(pair: PairQuality) -> str:
    return pair.participant_id if pair.session_id == "n/a" else f"{pair.participant_id} {pair.session_id}"


def _codes(pair: PairQuality) -> str:
    return ", ".join(dict.fromkeys(flag.code.removeprefix("unusual-") for flag in pair.flags)) or "-"


def _to_json(pair: PairQuality) -> dict[str, Any]:
    from nigradat.anatomy import Side
    from nigradat.quality.measures import MEASURES

    return {
        "id": pair.participant_id,
        "session": pair.session_id,
        "p": pair.p_value,
        "score": pair.score,
        "measures": {
            measure.name: {
                side.value: {"value": pair.values[side.index, j], "deviation": pair.deviations[side.index, j]}
                for side in Side
            }
            for j, measure in enumerate(MEASURES)
        },
        "flags": [
            {
                "code": f.code,
                "side": None if f.side is None else f.side.value,
                "message": f.message,
                "severity": f.severity,
            }
            for f in pair.flags
        ],
    }
