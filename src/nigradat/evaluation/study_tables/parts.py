"""What the tables of a study share: rows over the methods, cells, and the notes under a table."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

import numpy as np

from nigradat.evaluation.comparison import Comparison, MethodResult, Proportion
from nigradat.evaluation.contrasts import Breakdown
from nigradat.evaluation.table import Cell, Column, Row, Table
from nigradat.evaluation.tables import SIDES
from nigradat.metrics import Estimate, PerSide

_MODE_TITLES: Final = {"mc": "MC", "s1": "Symmetric MC", "s7": "Fused (s7)", "oracle": "Proportional"}


def mode_title(mode: str) -> str:
    """How a mode of spread is printed."""
    return _MODE_TITLES.get(mode, f"Symmetric MC ({mode})")


def scored(comparison: Comparison) -> Iterator[MethodResult]:
    """The methods that have a fit to show."""
    return (m for m in comparison.methods if m.fits)


def sides_table(
    comparison: Comparison,
    name: str,
    title: str,
    groups: Sequence[tuple[str, str, bool]],
    notes: tuple[str, ...],
    label: str,
) -> Table:
    """Scores by side and on average; ``groups`` are heading, score and whether it is signed."""
    rows = tuple(
        Row(
            m.title,
            tuple(cell for _, key, signed in groups for cell in triple(m.scores.get(key), signed=signed)),
            m.role,
        )
        for m in scored(comparison)
    )
    columns = tuple(Column(side, group) for group, *_ in groups for side in SIDES)
    return Table(name, title, "Method", columns, rows, (*interval_notes(comparison, rows), *notes), label)


def headline_table(
    comparison: Comparison, name: str, title: str, keys: Mapping[str, str], notes: tuple[str, ...], label: str
) -> Table:
    """Averages of both sides; ``keys`` maps headings to scores."""
    rows = tuple(
        Row(m.title, tuple(Cell.of(headline(m.scores.get(key)), signed=key == "bias") for key in keys.values()), m.role)
        for m in scored(comparison)
    )
    columns = tuple(Column(heading) for heading in keys)
    return Table(name, title, "Method", columns, rows, (*interval_notes(comparison, rows), *notes), label)


def interval_notes(comparison: Comparison, rows: Iterable[Row]) -> tuple[str, ...]:
    """Says what the brackets of ``rows`` are."""
    s = comparison.settings
    cells = [cell for row in rows for cell in row.cells]
    several = any(len(m.fits) > 1 for m in comparison.methods)
    notes = [
        f"In brackets {100 * s.confidence:g} % intervals from {s.resamples:,} resamples of {comparison.n_patients:,} "
        "patients, all visits and fits of a patient together"
        + ("; values are means over the fits of a method." if several else ".")
    ]
    if cells and all(cell.mark == "p" for cell in cells if cell.low is not None):
        return (f"{notes[0][:-1]}; percentile intervals.",) if any(c.low is not None for c in cells) else ()
    if any(cell.mark == "p" for cell in cells):
        notes.append("p: percentile interval; the others are BCa.")
    return tuple(notes)


def failed_notes(comparison: Comparison) -> tuple[str, ...]:
    """Says what failed, and what has no answer."""
    notes = []
    for m in comparison.methods:
        if m.failed:
            n, of = len(m.failed), len(m.failed) + len(m.fits)
            notes.append(f"{m.title}: {n} of {of} fits failed ({m.failed[0].reason.rstrip('.')}).")
        if m.fits and m.role == "baseline" and any(m.unanswered):
            notes.append(
                f"{m.title}: {m.unanswered[0]} visits on the right and {m.unanswered[1]} on the left have no answer."
            )
    return tuple(notes)


def triple(scores: PerSide[Estimate | None] | None, digits: int = 3, signed: bool = False) -> tuple[Cell, Cell, Cell]:
    """Right, left and average."""
    if scores is None:
        return (Cell(), Cell(), Cell())
    right, left, average = (Cell.of(e, digits, signed) for e in (scores.right, scores.left, scores.average))
    return (right, left, average)


def headline(scores: Breakdown | None) -> Estimate | None:
    """The one number of a score: the average of both sides."""
    return None if scores is None else scores.headline


def proportion(p: Proportion | None) -> Cell:
    """A share with its interval, where it has one."""
    if p is None or not math.isfinite(p.value):
        return Cell()
    return Cell(p.value, p.low, p.high) if math.isfinite(p.low) else Cell(p.value)


def finite(value: float | None) -> float | None:
    """None for what is no number."""
    return None if value is None or not np.isfinite(value) else float(value)


def whole(value: int | None) -> Cell:
    """A count."""
    return Cell(value, digits=0)
