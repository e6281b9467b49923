"""Spread and intervals of each method: along the paper's curve, and as they were fixed before testing."""

from __future__ import annotations

from collections.abc import Callable

from nigradat.anatomy import Side
from nigradat.evaluation.comparison import Comparison, MethodResult
from nigradat.evaluation.study_tables.parts import interval_notes, mode_title, proportion, scored, triple
from nigradat.evaluation.table import Cell, Column, Row, Table
from nigradat.evaluation.tables import SIDES


def uncertainty_table(comparison: Comparison, label: str = "") -> Table:
    """ "Optimal" and "Sharpness @ CP" per side and on average, as in the paper: plain and symmetric MC."""
    return _curve_table(comparison, "uncertainty", "Sharpness and coverage along the curve", _is_main, label)


def mode_table(comparison: Comparison, label: str = "") -> Table:
    """The same of every other candidate for the symmetric interval."""
    title = "Sharpness and coverage along the curve: other candidates for the symmetric interval"
    return _curve_table(comparison, "uncertainty-modes", title, lambda m, mode: not _is_main(m, mode), label)


Choice = Callable[[MethodResult, str], bool]


def _is_main(m: MethodResult, mode: str) -> bool:
    """Of a network the two ways that the paper compares; s7 of the proposed net has a row as a method of its own."""
    return m.role != "model" or mode in ("mc", "s1")


def _curve_table(comparison: Comparison, name: str, title: str, chosen: Choice, label: str) -> Table:
    rows = []
    for m in scored(comparison):
        for spread in (spread for mode, spread in m.spreads.items() if chosen(m, mode)):
            points = spread.optimal
            optimal = (
                (Cell(), Cell(), Cell())
                if points is None
                else tuple(Cell(f"{p.sharpness:.3f}, {p.cp:.3f}") for p in (points.right, points.left, points.average))
            )
            rows.append(Row(_with_mode(m, spread.mode), (*optimal, *triple(spread.sharpness_at_cp)), m.role))
    return Table(
        name,
        title,
        "Method",
        (
            *(Column(side, "Optimal (Sharpness, CP)") for side in SIDES),
            *(Column(side, f"Sharpness @ CP {comparison.settings.level:g}") for side in SIDES),
        ),
        tuple(rows),
        (
            *interval_notes(comparison, rows),
            "Traced on the tested patients themselves, as in the paper: a description of them, not an interval that "
            "was fixed before. Sharpness is 1 less the mean half-width over the SBR scale; larger is sharper.",
            "Definitions and symmetric modes are reconstructions. Optimal: the point nearest to (1, 1) for one "
            "multiplier on both sides, mean over fits, without an interval of its own.",
        ),
        label,
    )


def interval_table(comparison: Comparison, label: str = "") -> Table:
    """Intervals fixed before testing: coverage and width; plain and symmetric MC."""
    title = "Calibrated intervals on patients they were not calibrated on"
    return _coverage_table(comparison, "intervals", title, _is_main, label)


def interval_mode_table(comparison: Comparison, label: str = "") -> Table:
    """The same of every other candidate for the symmetric interval."""
    title = "Calibrated intervals: other candidates for the symmetric interval"
    return _coverage_table(comparison, "intervals-modes", title, lambda m, mode: not _is_main(m, mode), label)


def _coverage_table(comparison: Comparison, name: str, title: str, chosen: Choice, label: str) -> Table:
    rows = []
    for m in scored(comparison):
        for found in (found for mode, found in m.intervals.items() if chosen(m, mode)):
            cells = (
                Cell(found.level, digits=2),
                *(proportion(found.coverage[side]) for side in Side),
                *triple(found.scores.get("mpiw"), 2)[:2],
                triple(found.scores.get("sharpness"))[2],
                triple(found.scores.get("interval_score"), 2)[2],
            )
            rows.append(Row(_with_mode(m, found.mode), cells, m.role))
    return Table(
        name,
        title,
        "Intervals",
        (
            Column("Level"),
            Column("R", "Coverage"),
            Column("L", "Coverage"),
            Column("R", "Mean full width (SBR)"),
            Column("L", "Mean full width (SBR)"),
            Column("Sharpness avg"),
            Column("Interval score avg"),
        ),
        tuple(rows),
        (
            *interval_notes(comparison, rows),
            "Coverage counts patients, one visit each: exact binomial intervals (Clopper-Pearson), whose n is "
            "patients, however many fits tested them. Interval score: smaller is better.",
        ),
        label,
    )


def _with_mode(m: MethodResult, mode: str) -> str:
    """The method with how its spread was made; where that is the method itself, its title says it."""
    return m.title if m.role == "oracle" or (m.role, mode) == ("derived", "s7") else f"{mode_title(mode)} + {m.title}"
