"""An evaluation in one sentence, in a few lines for a terminal, and as flat numbers for machines."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from nigradat.anatomy import Side
from nigradat.evaluation.result import Evaluation, Intervals, Scored, Trace
from nigradat.metrics import Estimate, PerSide

PHANTOM_WARNING: Final = "Phantom results: they say nothing about patients."


def headline(evaluations: Sequence[Evaluation]) -> str:
    """What was trained on what, and tested on whom: the first sentence of every page."""
    grouped: dict[str, list[str]] = {}
    for e in evaluations:
        grouped.setdefault(_trained_on(e), []).append(model_phrase(e))
    trained = "; ".join(f"{_listed(models)}, {where}" for where, models in grouped.items())
    first = evaluations[0]
    sentences = [f"{trained}, {_tested_on(first)}."]
    if first.tested.seen:
        sentences.append(f"{first.tested.seen}.")
    if first.tested.is_phantom:
        sentences.append(PHANTOM_WARNING)
    elif any(e.is_phantom_trained for e in evaluations):
        sentences.append("A model trained on a phantom is no model of patients, whatever it scores here.")
    return " ".join(sentences)


def model_phrase(evaluation: Evaluation) -> str:
    """Title, widths and size of a model."""
    spec = evaluation.card.get("spec", {})
    widths = spec.get("widths", ["?"])
    return f"{evaluation.model.title} ({widths[0]}..{widths[-1]}, {evaluation.card.get('parameters', 0):,} parameters)"


def phantom_phrase(provenance: Mapping[str, Any]) -> str:
    """Preset and seed of a phantom, in brackets; empty where they are not known."""
    preset = provenance.get("preset")
    name = preset.get("name") if isinstance(preset, Mapping) else preset
    known = [
        f"{key} {value}" for key, value in (("preset", name), ("seed", provenance.get("seed"))) if value is not None
    ]
    return f" ({', '.join(known)})" if known else ""


def _trained_on(evaluation: Evaluation) -> str:
    training = evaluation.card.get("training", {})
    count = training.get("patients", {}).get("train")
    if count is None:
        return "trained elsewhere (see its card)"
    if evaluation.is_phantom_trained:
        return f"trained on {count:,} patients of a digital phantom{phantom_phrase(training.get('provenance', {}))}"
    return f"trained on {count:,} patients"


def _tested_on(evaluation: Evaluation) -> str:
    n, tested = evaluation.subjects.n_patients, evaluation.tested
    if tested.own:
        return f"tested on {n:,} other patients of it" if not tested.seen else f"tried on {n:,} patients of it"
    if tested.is_phantom:
        return f"tested on {n:,} patients of a digital phantom{phantom_phrase(tested.provenance)}"
    return f"tested on {n:,} patients of another cohort ({tested.cohort})"


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def summary(evaluation: Evaluation) -> str:
    """A few lines for a terminal."""
    width = max(len(m.title) for m in evaluation.methods)
    lines = [
        headline([evaluation]),
        "",
        f"{'average of both sides':{width}}   RMSE    MAE      R  (95 % interval)",
    ]
    for method in evaluation.methods:
        rmse, mae, r = (_headline_estimate(method, name) for name in ("rmse", "mae", "pearson_r"))
        ends = f"({r.low:.3f} to {r.high:.3f})" if r is not None and math.isfinite(r.low) else ""
        lines.append(f"{method.title:{width}}  {_number(rmse)}  {_number(mae)}  {_number(r)}  {ends}".rstrip())
    for intervals in evaluation.model.intervals:
        shares = ", ".join(
            f"{side.value} {c.covered} of {c.patients} ({100 * c.share:.1f} %)"
            for side, c in intervals.coverage.items()
        )
        lines += ["", f"{100 * intervals.level:g} % intervals cover: {shares}", f"Promise: {intervals.promise}"]
        for kept in intervals.promises:
            c, (low, high) = kept.coverage, kept.expected
            lines.append(
                f"Covered, {kept.about}: {c.covered} of {c.patients} ({100 * c.share:.1f} %; "
                f"a valid one {100 * low:.1f} to {100 * high:.1f} %)"
            )
    return "\n".join([*lines, *(f"Note: {note}" for note in evaluation.notes)])


def _headline_estimate(method: Scored, name: str) -> Estimate | None:
    """The average of both sides, or the one side that there is."""
    sides = method.scores.get(name)
    return None if sides is None else sides.average or sides.right or sides.left


def _number(estimate: Estimate | None) -> str:
    return "  n/a" if estimate is None or not math.isfinite(estimate.value) else f"{estimate.value:5.3f}"


def numbers(evaluation: Evaluation) -> dict[str, dict[str, float | None]]:
    """Every number by a flat name such as ``sym-vgg-plus/rmse/right``: value, and low and high where it has them."""
    out: dict[str, dict[str, float | None]] = {}
    for method in evaluation.methods:
        out |= _flat(method.name, method.scores)
        for traced in method.traces:
            out |= _trace_numbers(f"{method.name}/{traced.name}", traced)
        for intervals in method.intervals:
            out |= _interval_numbers(f"{method.name}/interval", intervals)
    for baseline, gain in evaluation.gains.items():
        out |= _flat(f"{evaluation.model.name}-less-{baseline}", gain)
    return out | _flat(f"{evaluation.model.name}/skill", evaluation.skill)


def to_json(evaluation: Evaluation) -> dict[str, Any]:
    """Plain values: the headline, who was tested, notes, settings and :func:`numbers`."""
    return {
        "headline": headline([evaluation]),
        "model": {
            "name": evaluation.model.name,
            "title": evaluation.model.title,
            "run": evaluation.run.name,
            "sha256": evaluation.card.get("sha256", {}),
        },
        "tested": {**vars(evaluation.tested), "patients": evaluation.subjects.n_patients},
        "label": evaluation.label or "patients",
        "settings": vars(evaluation.settings),
        "notes": list(evaluation.notes),
        "made_with": dict(evaluation.made_with),
        "numbers": numbers(evaluation),
    }


def _sides(scores: PerSide[Estimate | None]) -> Iterator[tuple[str, Estimate]]:
    for name in (*(side.value for side in Side), "average"):
        estimate = getattr(scores, name)
        if estimate is not None:
            yield name, estimate


def _flat(prefix: str, scores: Mapping[str, PerSide[Estimate | None]]) -> dict[str, dict[str, float | None]]:
    return {
        f"{prefix}/{name}/{side}": {"value": e.value, "low": e.low, "high": e.high}
        for name, sides in scores.items()
        for side, e in _sides(sides)
    }


def _trace_numbers(prefix: str, traced: Trace) -> dict[str, dict[str, float | None]]:
    out = _flat(prefix, traced.scores)
    if traced.optimal is not None:
        for name in (*(side.value for side in Side), "average"):
            point = getattr(traced.optimal.sides, name)
            out[f"{prefix}/optimal_sharpness/{name}"] = {"value": point.sharpness}
            out[f"{prefix}/optimal_cp/{name}"] = {"value": point.cp}
    return out


def _interval_numbers(prefix: str, found: Intervals) -> dict[str, dict[str, float | None]]:
    out = _flat(prefix, found.scores)
    for side, c in found.coverage.items():
        out[f"{prefix}/coverage/{side.value}"] = {"value": c.share, "low": c.low, "high": c.high}
        if found.multiplier is not None:
            out[f"{prefix}/multiplier/{side.value}"] = {"value": found.multiplier[side.index]}
    for kept in found.promises:
        c = kept.coverage
        out[f"{prefix}/promised/{kept.about}"] = {"value": c.share, "low": c.low, "high": c.high}
    if found.expected is not None:
        out[f"{prefix}/coverage_range"] = {"value": found.level, "low": found.expected[0], "high": found.expected[1]}
    return out
