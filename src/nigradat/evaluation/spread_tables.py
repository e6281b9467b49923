"""The tables of a comparison of spreads, its few lines for a terminal, and its numbers for machines."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

import numpy as np

from nigradat.anatomy import Side
from nigradat.evaluation import published
from nigradat.evaluation.groups import FEWEST, GroupCoverage, WorstGap, worst_gap
from nigradat.evaluation.judging import Judged
from nigradat.evaluation.result import Coverage, Estimates
from nigradat.evaluation.scoring import CENTRAL
from nigradat.evaluation.spreads import SpreadComparison
from nigradat.evaluation.table import Cell, Column, Row, Table
from nigradat.evaluation.validity import PLAIN, Validity
from nigradat.metrics import Estimate, PerSide
from nigradat.metrics.scores import WIS_LEVELS
from nigradat.uncertainty.symmetric_mc import DEFAULT_MODE

SIDES: Final = ("R", "L", "avg")
_PARTS: Final = ("right", "left", "average")
MAIN: Final = (PLAIN, DEFAULT_MODE)
"""The run's two rows of the paper's tables: plain and symmetric MC dropout."""


def spread_tables(comparison: SpreadComparison, measured: Sequence[Validity]) -> list[Table]:
    """Every table in the order of the page; those without rows are left out.

    Args:
        comparison: of the spreads.
        measured: from :func:`~nigradat.evaluation.validity.validity`.
    """
    found = [
        paper_table(comparison),
        optimum_table(comparison),
        score_table(comparison),
        distribution_table(comparison),
        coverage_table(comparison),
        efficiency_table(comparison),
        group_table(comparison),
        gap_table(comparison),
        every_group_table(comparison),
        validity_table(comparison, measured),
        published_table(),
    ]
    return [table for table in found if table.rows]


# -- The paper's layout -------------------------------------------------------------------------------------------


def main_rows(comparison: SpreadComparison) -> list[tuple[str, Judged]]:
    """MC of the runs beside, MC and symmetric MC of the run, and the oracles: the rows of the paper's tables."""
    heads = {j.name for j in comparison.judged if j.name.endswith("-head")}
    return [
        (f"{j.title} + {comparison.title}" if j.name in MAIN else j.title, j)
        for j in comparison.judged
        if j.name in MAIN or (j.model.kind in ("beside", "oracle") and j.name not in heads)
    ]


def paper_table(comparison: SpreadComparison) -> Table:
    """ "Optimal (Sharpness, CP)" and "Sharpness @ CP" of right, left and average, as the paper lays them out."""
    cp = comparison.settings.level
    rows = []
    for label, judged in main_rows(comparison):
        optimal = [Cell()] * 3
        if judged.optimal is not None:
            points = [getattr(judged.optimal.sides, part) for part in _PARTS]
            optimal = [Cell(f"({p.sharpness:.3f}, {p.cp:.3f})") for p in points]
        rows.append(Row(label, (*optimal, *_triple(judged.scores.get("sharpness_at_cp"))), _kind(judged)))
    return _table(
        comparison,
        "paper",
        "Optimal (Sharpness, CP) and Sharpness @ CP, in the paper's layout",
        (
            *(Column(side, "Optimal (Sharpness, CP)") for side in SIDES),
            *(Column(side, f"Sharpness @ CP {cp:g}") for side in SIDES),
        ),
        rows,
        (
            "Traced on the tested patients themselves, as in the paper: a description of them, not a promise. "
            "Sharpness is 1 less the mean half-width over the SBR scale; larger is sharper.",
            "Definitions, the point that is called optimal (nearest to (1, 1), one multiplier for both sides) and the "
            "symmetric interval are our reconstructions. The oracle's widths are in proportion to its prediction.",
        ),
    )


def optimum_table(comparison: SpreadComparison) -> Table:
    """The same optimum with the intervals that its resampling gives."""
    rows = [
        Row(label, tuple(c for what in ("sharpness", "cp") for c in _triple(j.optimal_ends.get(what))), _kind(j))
        for label, j in main_rows(comparison)
        if j.optimal_ends
    ]
    return _table(
        comparison,
        "optimum",
        "The optimum with its intervals",
        tuple(Column(side, group) for group in ("Sharpness there", "CP there") for side in SIDES),
        rows,
        ("The optimum is searched again in each resample of patients.",),
    )


def published_table() -> Table:
    """The paper's own rows, for reference."""
    rows = [
        Row(
            row.method,
            (*(Cell(f"({s:.3f}, {cp:.3f})") for s, cp in row.optimal), *(Cell(v) for v in row.sharpness_at_cp)),
            "published",
        )
        for row in published.UNCERTAINTY
    ]
    return Table(
        "published",
        "Published values, for reference",
        "Method",
        (
            *(Column(side, "Optimal (Sharpness, CP)") for side in SIDES),
            *(Column(side, "Sharpness @ CP") for side in SIDES),
        ),
        tuple(rows),
        (f"{published.CITATION}: {published.TEST_PATIENTS} patients, without intervals.",),
        "other patients, as published",
    )


# -- Scores -------------------------------------------------------------------------------------------------------


def score_table(comparison: SpreadComparison) -> Table:
    """Intervals whose multiplier is read off the calibration patients' curve: coverage, widths and interval scores."""
    level = comparison.settings.level
    columns = (
        ("Sharpness @ CP (traced)", "sharpness_at_cp", 3),
        ("CP", "cp", 3),
        ("MPIW (SBR)", "mpiw", 2),
        ("NMPIW", "nmpiw", 3),
        ("Sharpness", "sharpness", 3),
        ("Interval score (SBR)", "interval_score", 2),
        ("WIS (SBR)", "wis", 3),
    )
    return _table(
        comparison,
        "scores",
        f"Intervals at level {level:g}, averages of both sides",
        tuple(Column(name) for name, _, _ in columns),
        _score_rows(comparison, [(key, digits) for _, key, digits in columns]),
        (
            "The multiplier of each row comes from the calibration patients' own curve (nominal CP): the same way for "
            f"every row, without a promise. The oracle's intervals are the central {100 * level:g} % of what it says.",
            "MPIW: mean full width; NMPIW: over the range of the tested patients' SBR. Interval score and WIS: smaller "
            f"is better. WIS: {len(WIS_LEVELS)} levels from {WIS_LEVELS[0]:g} to {WIS_LEVELS[-1]:g}, each calibrated.",
            "No spread: what a width gives that knows nothing of the network's draws.",
        ),
    )


def distribution_table(comparison: SpreadComparison) -> Table:
    """Scores of the Gaussian distributions, and whether the width knows the error."""
    n = comparison.patients.subjects.n_patients
    columns = (
        ("CRPS (SBR)", "crps"),
        ("NLL (nats)", "nll"),
        ("RMSCE", "rmsce"),
        ("Miscalibration area", "miscalibration_area"),
        ("ENCE", "ence"),
        ("Rank correlation of width and |error|", "width_error_correlation"),
        ("AURC (SBR)", "aurc"),
    )
    return _table(
        comparison,
        "distributions",
        "Distributions, and what the width knows, averages of both sides",
        tuple(Column(name) for name, _ in columns),
        _score_rows(comparison, [(key, 3) for _, key in columns]),
        (
            "Distribution: Gaussian about the centre with an SD in proportion to the spread, its scale fitted by "
            "likelihood on the calibration patients; the oracle's is log-normal. Smaller is better but for the "
            "correlation.",
            "AURC: mean absolute error, averaged over all shares of patients that are answered, the narrowest first; a "
            "width that knows nothing gives the mean absolute error itself.",
            f"RMSCE, miscalibration area and ENCE are not 0 for the true distribution either: with {n:,} patients "
            f"chance alone gives an RMSCE of about {np.sqrt(1 / (6 * n)):.3f}. Resampling raises that floor, so "
            "they have no interval.",
            "n/a: an interval that is cut with the other side's has no such distribution, and a constant width ranks "
            "nobody.",
        ),
    )


def _score_rows(comparison: SpreadComparison, keys: Sequence[tuple[str, int]]) -> list[Row]:
    return [
        Row(j.title, tuple(Cell.of(_average(j.scores.get(key)), digits) for key, digits in keys), _kind(j))
        for j in comparison.judged
    ]


def coverage_table(comparison: SpreadComparison) -> Table:
    """The conformal intervals: multiplier, coverage of each side, and where a valid one lies."""
    low, high = comparison.expected
    n = len(comparison.patients.calibrating)
    rows = []
    for judged in comparison.judged:
        if judged.model.kind == "oracle":
            continue
        k, (lower, upper) = judged.k["conformal"], judged.ends["conformal"]
        shares = [judged.coverage["conformal"][side] for side in Side]
        widths = (upper - lower).mean(axis=0)
        inside = all(low <= c.share <= high for c in shares)
        rows.append(
            Row(
                judged.title,
                (
                    *(Cell(float(v), digits=2) for v in k),
                    *(_share(c) for c in shares),
                    *(Cell(float(v), digits=2) for v in widths),
                    Cell("yes" if inside else "no"),
                ),
                _kind(judged),
            )
        )
    return _table(
        comparison,
        "conformal",
        f"Split conformal intervals at level {comparison.settings.level:g}",
        (
            *(Column(side, "k") for side in SIDES[:2]),
            *(Column(side, "Coverage") for side in SIDES[:2]),
            *(Column(side, "Mean full width (SBR)") for side in SIDES[:2]),
            Column("Both within the range"),
        ),
        rows,
        (
            f"k from {n} calibration patients. Coverage with exact binomial intervals (Clopper-Pearson). Range of a "
            f"valid interval's coverage with so many calibration and tested patients: {low:.3f} to {high:.3f} (central "
            f"{100 * CENTRAL:g} %, beta-binomial).",
        ),
    )


def efficiency_table(comparison: SpreadComparison) -> Table:
    """Half-width of the oracle at equal coverage, over that of each row; without rows for patients."""
    rows = [
        Row(j.title, tuple(c for key in ("single", "pair") for c in _triple(j.efficiency.get(key))), _kind(j))
        for j in comparison.judged
        if j.efficiency
    ]
    return _table(
        comparison,
        "efficiency",
        f"Efficiency of the intervals: the oracle's half-width over theirs, both at CP {comparison.settings.level:g}",
        tuple(
            Column(side, group) for group in ("Oracle sees its own side", "Oracle sees both sides") for side in SIDES
        ),
        rows,
        (
            "1 is the best reachable with widths in proportion to a prediction. The oracle sees the numbers that the "
            "images were made from, not the images; what those lose is lost here, too.",
        ),
    )


# -- Groups -------------------------------------------------------------------------------------------------------


def group_table(comparison: SpreadComparison) -> Table:
    """Coverage of the conformal intervals by group, for the rows of the paper's tables."""
    shown = [
        (label, j) for label, j in main_rows(comparison) if j.name in MAIN or j.name in ("beside-1", "oracle-single")
    ]
    if not shown:
        return _table(comparison, "groups", "", (), [], ())
    rows = [
        Row(
            _group_label(group),
            (
                *(Cell(str(_patients(group, side))) for side in Side),
                *(_share(j.groups[i].coverage.get(side)) for _, j in shown for side in Side),
            ),
        )
        for i, group in enumerate(shown[0][1].groups)
    ]
    return _table(
        comparison,
        "groups",
        f"Coverage by group at level {comparison.settings.level:g}, split conformal intervals",
        (
            *(Column(side, "Patients") for side in SIDES[:2]),
            *(Column(side, label) for label, _ in shown for side in SIDES[:2]),
        ),
        rows,
        (
            "Exact binomial intervals; each side counts by itself, one visit a patient. No group has a promise: thirds "
            "of the true SBR cannot have one, thirds of the prediction can (rule mondrian).",
            "Thirds are those of the tested patients, right / left where their cuts differ.",
        ),
        heading="Group",
    )


def every_group_table(comparison: SpreadComparison) -> Table:
    """Coverage by group of every spread model; for machines, and for those who look for one."""
    rows = [
        Row(
            f"{judged.title}; {_group_label(group)}",
            (*(Cell(str(_patients(group, side))) for side in Side), *(_share(group.coverage.get(s)) for s in Side)),
            _kind(judged),
        )
        for judged in comparison.judged
        for group in judged.groups
    ]
    return _table(
        comparison,
        "groups-all",
        f"Coverage by group at level {comparison.settings.level:g}, every spread model",
        tuple(Column(side, group) for group in ("Patients", "Coverage") for side in SIDES[:2]),
        rows,
        ("Split conformal intervals; exact binomial intervals of their coverage.",),
        heading="Spread model; group",
    )


def gap_table(comparison: SpreadComparison) -> Table:
    """For each spread model the group that falls furthest short of the level."""
    rows = []
    for judged in comparison.judged:
        worst = worst_gap(judged.groups, comparison.settings.level, comparison.settings.confidence)
        if worst is not None:
            c = worst.coverage
            where = f"{_group_label(worst)}, {worst.side.value}"
            cells = (Cell(where), Cell(str(c.patients)), _share(c), Cell(worst.gap, signed=True))
            rows.append(Row(judged.title, (*cells, Cell(str(worst.looked_at))), _kind(judged)))
    return _table(
        comparison,
        "worst-gap",
        f"The worst group at level {comparison.settings.level:g}, split conformal intervals",
        (Column("Group"), Column("Patients"), Column("Coverage"), Column("Level less coverage"), Column("Of groups")),
        rows,
        (
            f"Among groups of at least {FEWEST} patients. The lowest of many groups is low by chance as well: the "
            "interval of its coverage holds for all of them together (Bonferroni).",
        ),
    )


def _group_label(group: GroupCoverage | WorstGap) -> str:
    return "all" if group.grouping == "all" else f"{group.grouping}: {group.category}"


def _patients(group: GroupCoverage, side: Side) -> int:
    return group.coverage[side].patients if side in group.coverage else 0


# -- Validity -----------------------------------------------------------------------------------------------------


def validity_table(comparison: SpreadComparison, measured: Sequence[Validity]) -> Table:
    """What each candidate for the symmetric interval was measured to do; see :mod:`nigradat.evaluation.validity`."""
    rows = [
        Row(
            v.title,
            (
                Cell.of(_average(v.gain.get("gain")), signed=True),
                Cell.of(_average(v.gain_of_strangers.get("gain")), signed=True),
                Cell.of(_average(v.correlation.get("width_error_correlation")), signed=True),
                Cell.of(_average(v.interval_score.get("interval_score")), signed=True),
                *(_share(v.asymmetric.get(side)) for side in Side),
                *(_share(v.coverage.get(side)) for side in Side),
                *(Cell(_mean(of), digits=2) for of in (v.noise_share, v.variation, v.error_share)),
            ),
        )
        for v in measured
    ]
    low, high = comparison.expected
    return _table(
        comparison,
        "validity",
        "What the candidates for the symmetric interval were measured to do",
        (
            Column("(8) Gain in Sharpness @ CP"),
            Column("(5) The same with a stranger's other side"),
            Column("(6) Rank correlation of width and |error|"),
            Column("(7) Interval score less that of MC (SBR)"),
            *(Column(side, "(9) Coverage, asymmetric patients") for side in SIDES[:2]),
            *(Column(side, "(10) Coverage, all") for side in SIDES[:2]),
            Column("Monte-Carlo noise in log S"),
            Column("SD of S over its mean"),
            Column("S\N{SUPERSCRIPT TWO} over squared error"),
        ),
        rows,
        (
            "Averages of both sides; differences are against plain MC, paired over patients. (5) takes the other side "
            "from another patient: a gain that comes from the sides belonging together vanishes there.",
            f"(9) and (10): split conformal; a valid one covers {low:.3f} to {high:.3f} of so many on each side.",
            f"Monte-Carlo noise: share of the variance of log S over patients that {comparison.settings.samples} draws "
            "leave to chance. S\N{SUPERSCRIPT TWO} over squared error: how much of the error the raw spread is.",
        ),
        heading="Candidate",
    )


# -- Terminal and machines ----------------------------------------------------------------------------------------


def headline(comparison: SpreadComparison) -> str:
    """Whose spreads were judged on whom: the first sentence of every page."""
    people, n = comparison.patients, comparison.patients.subjects.n_patients
    what = "patients of a digital phantom" if people.is_phantom else "patients"
    sentence = (
        f"Spreads of {comparison.title}, tested on {n:,} {what} ({people.tested_cohort}), multipliers from "
        f"{len(people.calibrating):,} others ({people.calibration_cohort})."
    )
    return f"{sentence} Phantom results: they say nothing about patients." if people.is_phantom else sentence


def summary(comparison: SpreadComparison) -> str:
    """Headline and one line a spread model: averages of both sides."""
    width = max(len(j.title) for j in comparison.judged)
    names = (("Sharp.@CP", "sharpness_at_cp"), ("CP", "cp"), ("MPIW", "mpiw"), ("IS", "interval_score"), ("WIS", "wis"))
    keys = (*names, ("CRPS", "crps"), ("width~|error|", "width_error_correlation"))
    lines = [headline(comparison), "", f"{'averages of both sides':{width}}" + "".join(f"  {n:>9}" for n, _ in keys)]
    for judged in comparison.judged:
        cells = (Cell.of(_average(judged.scores.get(key))).text for _, key in keys)
        columns = "".join(f"  {cell:>{max(9, len(n))}}" for cell, (n, _) in zip(cells, keys, strict=True))
        lines.append(f"{judged.title:{width}}{columns}")
    return "\n".join([*lines, "", *(f"Note: {note}" for note in comparison.notes)]).rstrip()


def to_json(comparison: SpreadComparison) -> dict[str, Any]:
    """Headline, settings, notes and every number by a flat name such as ``s1/crps/right``."""
    return {
        "headline": headline(comparison),
        "label": comparison.label or "patients",
        "run": comparison.run.name,
        "beside": comparison.beside,
        "ensemble": comparison.ensemble,
        "settings": vars(comparison.settings),
        "patients": {
            "tested": comparison.patients.subjects.n_patients,
            "calibration": len(comparison.patients.calibrating),
            "how": comparison.patients.split,
        },
        "notes": comparison.notes,
        "numbers": {name: value for j in comparison.judged for name, value in _numbers(j)},
    }


def _numbers(judged: Judged) -> Iterator[tuple[str, dict[str, float | None]]]:
    yield from _flat(judged.name, judged.scores)
    yield from _flat(f"{judged.name}/efficiency", judged.efficiency)
    yield from _flat(f"{judged.name}/optimum", judged.optimal_ends)
    for rule, k in judged.k.items():
        for side in Side:
            yield f"{judged.name}/{rule}/k/{side.value}", {"value": float(k[side.index])}
    for rule, sides in judged.coverage.items():
        for side, c in sides.items():
            yield f"{judged.name}/{rule}/coverage/{side.value}", {"value": c.share, "low": c.low, "high": c.high}


def _flat(prefix: str, scores: Estimates) -> Iterator[tuple[str, dict[str, float | None]]]:
    for name, sides in scores.items():
        for part in _PARTS:
            estimate = getattr(sides, part)
            if estimate is not None:
                yield (
                    f"{prefix}/{name}/{part}",
                    {"value": estimate.value, "low": estimate.low, "high": estimate.high},
                )


# -- Parts --------------------------------------------------------------------------------------------------------


def _table(
    comparison: SpreadComparison,
    name: str,
    title: str,
    columns: Iterable[Column],
    rows: Sequence[Row],
    notes: Sequence[str],
    heading: str = "Spread model",
) -> Table:
    settings, n = comparison.settings, comparison.patients.subjects.n_patients
    resampled = (
        f"In brackets {100 * settings.confidence:g} % intervals over {n:,} patients (BCa, {settings.resamples:,} "
        "resamples, both sides of a patient together; p: percentile interval)."
    )
    is_boot = name not in ("conformal", "groups", "groups-all", "worst-gap")
    return Table(
        name,
        title,
        heading,
        tuple(columns),
        tuple(rows),
        (*notes, *((resampled,) if is_boot else ())),
        comparison.label,
    )


def _average(sides: PerSide[Estimate | None] | None) -> Estimate | None:
    return None if sides is None else sides.average


def _triple(sides: PerSide[Estimate | None] | None) -> tuple[Cell, Cell, Cell]:
    right, left, average = (Cell.of(None if sides is None else getattr(sides, part)) for part in _PARTS)
    return right, left, average


def _mean(sides: Mapping[Side, float]) -> float | None:
    return float(np.mean(list(sides.values()))) if sides else None


def _share(coverage: Coverage | None) -> Cell:
    return Cell() if coverage is None else Cell(coverage.share, coverage.low, coverage.high)


def _kind(judged: Judged) -> str:
    return {"beside": "model", "reference": "baseline"}.get(judged.model.kind, judged.model.kind)
