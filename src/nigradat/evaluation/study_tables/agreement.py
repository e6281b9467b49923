"""Low uptake as a yes or no: agreement at a threshold, readings of the hyperintensity, and the paper's last table."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Final, Protocol

import numpy as np

from nigradat.anatomy import Side
from nigradat.evaluation import published
from nigradat.evaluation.comparison import Comparison, MethodResult
from nigradat.evaluation.study_tables.parts import finite, proportion, scored
from nigradat.evaluation.table import MINUS, Cell, Column, Row, Table
from nigradat.evaluation.tables import AGREEMENT_COLUMNS, SIDES, agreement_cells
from nigradat.metrics import BlandAltman
from nigradat.metrics.binary import BinaryAgreement, wilson

_GOALS: Final = {
    "model": "SBR from nigral patches",
    "derived": "SBR from nigral patches",
    "baseline": "SBR from a few numbers",
}
_OTHER_GOALS: Final = {
    "observer": "Reading of the nigral hyperintensity",
    "n1-index": "Automatic reading of the nigral hyperintensity",
}


class ReadingRow(Protocol):
    """What the table of readings needs of an approach on one split, one side and against one reference."""

    @property
    def split(self) -> str:
        """Its name; those of ``fold-...`` and ``draw-...`` share no test patients."""

    @property
    def title(self) -> str:
        """The approach, as a table prints it."""

    @property
    def reference(self) -> str:
        """In words, what counts as positive."""

    @property
    def side(self) -> str:
        """``right`` or ``left``."""

    @property
    def counts(self) -> BinaryAgreement:
        """Of the visits that were read."""

    @property
    def unsure(self) -> int:
        """Visits left out because the reader was."""

    @property
    def unread(self) -> int:
        """Visits left out because nobody read them."""


def binary_table(comparison: Comparison, label: str = "") -> Table:
    """Accuracy, sensitivity, specificity and AUC at the threshold."""
    groups = ("Accuracy", "Sensitivity", "Specificity")
    rows = tuple(
        Row(
            m.title,
            (
                *(proportion(getattr(m.binary, group.lower())[side]) for group in groups for side in Side),
                Cell.of(m.binary.auc.right),
                Cell.of(m.binary.auc.left),
                Cell.of(m.binary.auc.pooled),
            ),
            m.role,
        )
        for m in scored(comparison)
        if m.binary is not None
    )
    first = next((m.binary for m in comparison.methods if m.binary is not None), None)
    prevalence = (
        "" if first is None else f"{first.prevalence[0]:.3f} on the right, {first.prevalence[1]:.3f} on the left"
    )
    return Table(
        "binary",
        f"Low uptake: SBR below {comparison.settings.threshold or 0:g}",
        "Method",
        (
            *(Column(side, group) for group in groups for side in SIDES[:2]),
            *(Column(s, "AUC") for s in (*SIDES[:2], "both")),
        ),
        rows,
        (
            "Wilson's intervals, and DeLong's for the AUC of the predicted SBR, where a side rests on a single fit; "
            "resampled patients for the mean of several. both: all sides, a patient's as one cluster (Obuchowski).",
            f"Share of visits with low uptake: {prevalence}.",
        ),
        label,
    )


def limits_table(comparison: Comparison, label: str = "") -> Table:
    """Bland-Altman of every method that answers for both sides; means over its fits."""
    rows = tuple(
        Row(m.title, (Cell(len(m.limits), digits=0), *_mean_limits(m.limits)), m.role)
        for m in scored(comparison)
        if m.limits and m.role != "baseline"
    )
    level = f"{100 * comparison.settings.confidence:g} %"
    return Table(
        "bland-altman",
        "Bland-Altman: predicted less true SBR, both sides of a patient as a cluster",
        "Method",
        (Column("Fits"), *AGREEMENT_COLUMNS),
        rows,
        (
            f"95 % limits of agreement, bias {MINUS} and + 1.96 SD, the variance split within and between patients "
            f"(Bland and Altman 2007), of each patient's first visit. Brackets: {level} intervals of Student's t where "
            "the row is one fit; rows of several fits are means.",
            "The slope of difference on mean is below 0 for every imperfect predictor, the oracle included: judge it "
            "against the oracle's.",
        ),
        label,
    )


def _mean_limits(found: Sequence[BlandAltman]) -> tuple[Cell, ...]:
    if len(found) == 1:
        return agreement_cells(found[0])
    names = ("bias", "sd", "lower", "upper", "slope")
    means = {name: float(np.mean([getattr(f, name) for f in found])) for name in names}
    return tuple(Cell(finite(means[name]), signed=name != "sd") for name in names)


def previous_table(comparison: Comparison, label: str = "") -> Table:
    """The paper's last table: method, goal, data size, correlation, agreement."""
    rows = tuple(
        Row(
            m.title,
            (
                Cell(_OTHER_GOALS.get(m.method, _GOALS[m.role])),
                Cell(m.n_patients, digits=0),
                *(Cell.of(m.scores["pearson_r"][side] if "pearson_r" in m.scores else None) for side in Side),
                *(_agreement(m, side) for side in Side),
            ),
            m.role,
        )
        for m in scored(comparison)
        if m.role != "oracle"
    )
    note = "intervals in the tables above" if comparison.settings.threshold is not None else "no threshold was given"
    return Table(
        "previous",
        "Method, goal, data size, correlation and agreement: the paper's last table",
        "Method",
        _PREVIOUS_COLUMNS,
        rows,
        (f"Data size: tested patients. Agreement on low uptake as (accuracy, sensitivity, specificity); {note}.",),
        label,
    )


def reading_table(readings: Sequence[ReadingRow], confidence: float = 0.95, label: str = "") -> Table:
    """How readings of the hyperintensity (an observer's, the automatic index's) agree with SBR and diagnosis.

    Args:
        readings: of every split.
        confidence: of Wilson's intervals.
        label: what the data are; empty for patients.
    """
    groups: dict[tuple[str, str, str], list[ReadingRow]] = {}
    for reading in readings:
        groups.setdefault((reading.title, reading.reference, reading.side), []).append(reading)
    splits = {reading.split for reading in readings}
    apart = len(splits) < 2 or all(name.startswith(("fold-", "draw-")) for name in splits)
    rows = tuple(
        Row(
            title,
            (Cell(reference), Cell(side), Cell(len(group), digits=0), *_reading_cells(group, apart, confidence)),
            "baseline",
        )
        for (title, reference, side), group in groups.items()
    )
    summed = (
        f"In brackets Wilson's {100 * confidence:g} % intervals over visits; several visits of a patient would make "
        "them too narrow. Where there are several splits, they share no test patients and their counts are summed."
    )
    averaged = (
        "The splits share test patients: all numbers are means over them, without intervals (a share over the splits "
        "where it is defined)."
    )
    return Table(
        "readings",
        "Nigral hyperintensity, as it was read",
        "Approach",
        (
            *(Column(name) for name in ("Reference", "Side", "Splits", "n")),
            *(Column(name, "Agreement") for name in ("acc", "sens", "spec")),
            *(Column(name, "Left out") for name in ("unsure", "unread")),
        ),
        rows,
        (
            "Tested visits. An absent hyperintensity is the positive finding; every other diagnosis than the disease "
            "counts as a control's, and splits without a tested patient of the disease are left out there. The other "
            "tables judge these approaches by the SBR predicted from reading or index, this one by the reading.",
            summed if apart else averaged,
            "Agreement with one reference is not comparable with agreement with the other; the paper's row of the "
            "observer must be agreement with the diagnosis.",
        ),
        label,
    )


def _reading_cells(group: Sequence[ReadingRow], apart: bool, confidence: float) -> Iterator[Cell]:
    """Cases; accuracy, sensitivity, specificity; unsure, unread. Summed where nobody is tested in two splits."""
    tables = [reading.counts for reading in group]
    left_out = [[getattr(reading, name) for reading in group] for name in ("unsure", "unread")]
    if apart:
        tp, fp, tn, fn = (sum(getattr(table, name) for table in tables) for name in ("tp", "fp", "tn", "fn"))
        yield Cell(tp + fp + tn + fn, digits=0)
        for k, n in ((tp + tn, tp + fp + tn + fn), (tp, tp + fn), (tn, tn + fp)):
            yield Cell(k / n, *wilson(k, n, confidence)) if n else Cell()
        yield from (Cell(sum(numbers), digits=0) for numbers in left_out)
        return
    yield Cell(float(np.mean([table.n for table in tables])), digits=1)
    for name in ("accuracy", "sensitivity", "specificity"):
        shares = [share for table in tables if math.isfinite(share := getattr(table, name))]
        yield Cell(float(np.mean(shares))) if shares else Cell()
    yield from (Cell(float(np.mean(numbers)), digits=1) for numbers in left_out)


def published_agreement_table() -> Table:
    """The paper's last table."""
    rows = tuple(
        Row(
            p.method,
            (
                Cell(p.goal),
                Cell(p.data_size, digits=0),
                *(Cell(r) for r in p.correlation or (None, None)),
                *(Cell(f"({', '.join(f'{v:.3f}' for v in side)})") for side in (p.right, p.left)),
            ),
            "published",
        )
        for p in published.AGREEMENT
    )
    return Table(
        "published-agreement",
        "Published agreement",
        "Method",
        _PREVIOUS_COLUMNS,
        rows,
        (
            f"{published.CITATION}. Other patients: for reference only. Data size is as printed there: all patients of "
            "a work, not those tested.",
            "Some printed accuracies lie outside the range of their sensitivity and specificity, which no single 2 x 2 "
            "table allows.",
        ),
        "published, other data",
    )


_PREVIOUS_COLUMNS: Final = (
    Column("Goal"),
    Column("Data size"),
    Column("R", "Correlation"),
    Column("L", "Correlation"),
    Column("R", "Agreement (acc, sens, spec)"),
    Column("L", "Agreement (acc, sens, spec)"),
)


def _agreement(m: MethodResult, side: Side) -> Cell:
    if m.binary is None:
        return Cell()
    found = [getattr(m.binary, name)[side] for name in ("accuracy", "sensitivity", "specificity")]
    if all(p is None for p in found):
        return Cell()
    return Cell(f"({', '.join('n/a' if p is None else f'{p.value:.3f}' for p in found)})")
