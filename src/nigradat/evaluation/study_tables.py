"""The tables of a study as plain data, made from a :class:`~nigradat.evaluation.comparison.Comparison`.

In the paper's layout where the paper has one. Nothing is computed here: every number is the comparison's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Final, Protocol

import numpy as np

from nigradat.anatomy import Side
from nigradat.evaluation import published
from nigradat.evaluation.comparison import Comparison, MethodResult, Proportion
from nigradat.evaluation.contrasts import Breakdown, Contrast
from nigradat.evaluation.predictions import FitRecord
from nigradat.evaluation.table import MINUS, Cell, Column, Row, Table
from nigradat.evaluation.tables import SIDES, published_accuracy_table, published_uncertainty_table
from nigradat.metrics import Estimate, PerSide
from nigradat.metrics.binary import BinaryAgreement, wilson
from nigradat.models.registry import get_method

LATE_SHARE: Final = 0.9  # of a fit's epochs
LATE_MEANS: Final = (
    "With a schedule whose rate falls to nothing at the end this is usual, and says that training was cut short only "
    "where the curve still falls steeply."
)
ABLATION: Final = ("vgg-small", "sym-vgg-plus-unmirrored", "sym-vgg", "sym-vgg-plus")
PRIMARY_NAMES: Final = {
    "mae": "MAE (SBR)",
    "rmse": "RMSE (SBR)",
    "pearson_r": "R",
    "sharpness_at_cp": "Sharpness @ CP",
}
_MODE_TITLES: Final = {"mc": "MC", "s1": "Symmetric MC", "s7": "Fused (s7)", "oracle": "Proportional"}
_GOALS: Final = {
    "model": "SBR from nigral patches",
    "derived": "SBR from nigral patches",
    "baseline": "SBR from a few numbers",
}
_OTHER_GOALS: Final = {"observer": "Reading of the nigral hyperintensity", "n1-index": "Automatic hyperintensity index"}
_VS: Final = " vs "


class TimingRow(Protocol):
    """What the table of computation time needs of a method; None where it was not measured."""

    @property
    def title(self) -> str:
        """As a table prints it."""

    @property
    def epoch_s(self) -> float | None:
        """Training, seconds an epoch."""

    @property
    def training_s(self) -> float | None:
        """Training of one fit, seconds."""

    @property
    def one_prediction_ms(self) -> float | None:
        """Both sides of one patient, one pass, milliseconds."""

    @property
    def samples_prediction_ms(self) -> float | None:
        """The same with Monte-Carlo samples, milliseconds."""

    @property
    def samples(self) -> int:
        """How many."""

    @property
    def hardware(self) -> str:
        """Where it was measured."""


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


def mode_title(mode: str) -> str:
    """How a mode of spread is printed."""
    return _MODE_TITLES.get(mode, f"Symmetric MC ({mode})")


def study_tables(
    comparison: Comparison,
    records: Sequence[FitRecord],
    timing: Sequence[TimingRow] = (),
    label: str = "",
    readings: Sequence[ReadingRow] = (),
) -> tuple[Table, ...]:
    """All tables of a study that have rows, in the order of a report.

    Args:
        comparison: of ``records``.
        records: every fit, failed ones included.
        timing: one row a method.
        label: what the data are; empty for patients.
        readings: of every split.
    """
    makers: Sequence[Callable[[Comparison, str], Table]] = (
        accuracy_table,
        pooled_table,
        more_accuracy_table,
        association_table,
        log_table,
        asymmetry_table,
        variation_table,
        contrast_table,
        verdict_table,
        ablation_table,
        extension_table,
        skill_table,
        uncertainty_table,
        mode_table,
        interval_table,
        interval_mode_table,
        binary_table,
        previous_table,
    )
    made = [make(comparison, label) for make in makers]
    made += [
        reading_table(readings, comparison.settings.confidence, label),
        time_table(timing, label),
        fit_table(comparison, records, label),
        split_table(comparison, records, label),
        published_accuracy_table(),
        published_uncertainty_table(),
        published_agreement_table(),
    ]
    return tuple(table for table in made if table.rows)


# -- Accuracy -----------------------------------------------------------------------------------------------------


def accuracy_table(comparison: Comparison, label: str = "") -> Table:
    """RMSE, MAE and R per side and on average, as in the paper."""
    return _sides_table(
        comparison,
        "accuracy",
        "Accuracy, in the paper's layout",
        (("RMSE (SBR)", "rmse", False), ("MAE (SBR)", "mae", False), ("R", "pearson_r", False)),
        ("avg is the mean of the two sides' values, as in the paper.", *_failed_notes(comparison)),
        label,
    )


def pooled_table(comparison: Comparison, label: str = "") -> Table:
    """The same three, over all sides as cases and on the patients' means over both sides."""
    keys = (("RMSE (SBR)", "rmse"), ("MAE (SBR)", "mae"), ("R", "pearson_r"))
    rows = tuple(
        Row(
            m.title,
            tuple(
                Cell.of(getattr(m.scores[key], kind) if key in m.scores else None)
                for _, key in keys
                for kind in ("pooled", "patient")
            ),
            m.role,
        )
        for m in _scored(comparison)
    )
    return Table(
        "accuracy-pooled",
        "Accuracy over all sides, and of the patients' means",
        "Method",
        tuple(Column(name, group) for group, _ in keys for name in ("all sides", "patient")),
        rows,
        (
            *_interval_notes(comparison, rows),
            "All sides: each side is a case (the intervals still draw patients). Patient: the mean of both sides.",
        ),
        label,
    )


def more_accuracy_table(comparison: Comparison, label: str = "") -> Table:
    """Squared and median errors, bias."""
    return _sides_table(
        comparison,
        "accuracy-more",
        "More on accuracy",
        (("MSE (SBR²)", "mse", False), ("Median AE (SBR)", "median_ae", False), ("Bias (SBR)", "bias", True)),
        ("Bias is predicted less true SBR.",),
        label,
    )


def association_table(comparison: Comparison, label: str = "") -> Table:
    """Calibration, rank correlation, explained variance and agreement: averages of both sides."""
    keys = {
        "Slope": "calibration_slope",
        "Intercept (SBR)": "calibration_intercept",
        "Spearman": "spearman",
        "R²": "r2",
        "CCC": "ccc",
        "ICC(2,1)": "icc_agreement",
        "ICC(3,1)": "icc_consistency",
    }
    return _headline_table(
        comparison,
        "association",
        "Calibration, rank correlation and agreement (average of both sides)",
        keys,
        (
            "Slope and intercept of true on predicted SBR: 1 and 0 are right; below 1 the predictions are too extreme. "
            "CCC: Lin's concordance correlation. ICC(2,1): absolute agreement, ICC(3,1): consistency.",
        ),
        label,
    )


def log_table(comparison: Comparison, label: str = "") -> Table:
    """RMSE and R of log SBR, with what had to be left out."""
    table = _headline_table(
        comparison,
        "accuracy-log",
        "Accuracy on log SBR (average of both sides)",
        {"RMSE of log": "log_rmse", "R of log": "log_pearson_r"},
        (
            "Predictions of 0 or below have no logarithm; their number, summed over sides and fits, is in the last "
            "column.",
        ),
        label,
    )
    left_out = {m.title: sum(m.log_left_out) for m in _scored(comparison)}
    rows = tuple(Row(row.label, (*row.cells, Cell(left_out[row.label], digits=0)), row.kind) for row in table.rows)
    columns = (*table.columns, Column("Left out"))
    return Table(table.name, table.title, table.heading, columns, rows, table.notes, table.label)


def asymmetry_table(comparison: Comparison, label: str = "") -> Table:
    """How well the difference between the sides is predicted."""
    rows = tuple(
        Row(
            m.title,
            (
                Cell.of(_headline(m.scores.get("asymmetry_error")), digits=1),
                Cell.of(_headline(m.scores.get("worse_side_agreement"))),
            ),
            m.role,
        )
        for m in _scored(comparison)
    )
    return Table(
        "asymmetry",
        "Difference between the sides",
        "Method",
        (Column("Asymmetry index error (%)"), Column("Worse side agreed on")),
        rows,
        (
            *_interval_notes(comparison, rows),
            "Share of patients whose side of lower uptake is named as by the reference; .5 is chance.",
        ),
        label,
    )


def variation_table(comparison: Comparison, label: str = "") -> Table:
    """How much the fits of a method differ by split and by seed: what the patients' intervals do not carry."""
    keys = (("RMSE (SBR)", "rmse"), ("MAE (SBR)", "mae"), ("R", "pearson_r"))
    rows = []
    for m in _scored(comparison):
        if len(m.fits) < 2:
            continue
        found = [m.variation.get(key) for _, key in keys]
        sds = [
            Cell(_finite(value), digits=4)
            for v in found
            for value in ((v.sd, v.sd_splits, v.sd_seeds) if v else (None, None, None))
        ]
        rows.append(Row(m.title, (*(Cell(n, digits=0) for n in (len(m.fits), m.n_splits, m.n_seeds)), *sds), m.role))
    return Table(
        "variation",
        "Standard deviation between the fits of a method",
        "Method",
        (
            *(Column(name, "Number") for name in ("fits", "splits", "seeds")),
            *(Column(name, group) for group, _ in keys for name in ("all", "splits", "seeds")),
        ),
        tuple(rows),
        ("all: over every fit; splits: of the splits' means; seeds: between seeds of one split.",),
        label,
    )


# -- Contrasts ----------------------------------------------------------------------------------------------------


def contrast_table(comparison: Comparison, label: str = "") -> Table:
    """Differences of the family, average of both sides, with intervals over patients."""
    keys = ("mae", "rmse", "pearson_r", "sharpness_at_cp")
    rows = tuple(
        Row(
            contrast_title(c),
            (
                *(Cell.of(_headline(c.differences.get(key)), signed=True) for key in keys),
                _percent(c.relative_mae.headline),
                _published(c),
                Cell(c.n_patients, digits=0),
                Cell(c.n_splits, digits=0),
            ),
        )
        for c in comparison.contrasts
    )
    return Table(
        "contrasts",
        "Differences between methods on the same patients (first less second)",
        "First vs second",
        (
            *(Column(PRIMARY_NAMES[key], "Difference, average of both sides") for key in keys),
            Column("MAE, relative (%)"),
            Column("Published"),
            Column("Patients"),
            Column("Splits"),
        ),
        rows,
        (
            *_interval_notes(comparison, rows),
            "The family was fixed before the data were looked at. Errors: below 0 is in favour of the first; R and "
            "Sharpness: above 0.",
            "Published: the paper's number for the same question, on its own patients and without an interval.",
        ),
        label,
    )


def verdict_table(comparison: Comparison, label: str = "") -> Table:
    """Tests of the family, what could have been detected, and the verdicts."""
    rows = []
    for c in comparison.contrasts:
        p = c.permutation
        replicates = c.replicates
        rows.append(
            Row(
                contrast_title(c),
                (
                    Cell(c.permuted.replace("_", " ") or None),
                    Cell(p.p if p else None, digits=4),
                    Cell(_finite(c.p_holm), digits=4),
                    Cell(replicates.mean, replicates.low, replicates.high, signed=True) if replicates else Cell(),
                    Cell(c.replicates_are or None),
                    Cell(_finite(c.detectable)),
                    Cell(c.verdict),
                ),
            )
        )
    return Table(
        "contrast-tests",
        "Tests and verdicts",
        "First vs second",
        (
            Column("tested", "Permutation over patients"),
            Column("p", "Permutation over patients"),
            Column("p (Holm)", "Permutation over patients"),
            Column("difference", "Over splits"),
            Column("splits", "Over splits"),
            Column("Detectable (SBR)"),
            Column("Verdict"),
        ),
        tuple(rows),
        (
            "Permutation: signs of the patients' paired differences are flipped. Over splits: t interval of the "
            "primary score's difference, for overlapping splits with the correction of Nadeau and Bengio.",
            "Detectable: the least mean difference that so many patients show with a power of 80 %, two-sided.",
        ),
        label,
    )


def contrast_title(contrast: Contrast) -> str:
    """First and second by title."""
    return _VS.join(contrast.titles)


def _percent(estimate: Estimate | None) -> Cell:
    cell = Cell.of(estimate, digits=1, signed=True)
    if not isinstance(cell.value, float | int):
        return cell
    low, high = (None if end is None else 100 * end for end in (cell.low, cell.high))
    return Cell(100 * cell.value, low, high, cell.digits, cell.signed, cell.mark)


def _published(contrast: Contrast) -> Cell:
    value, relative = contrast.pair.published, contrast.pair.published_unit == "relative"
    if value is None:
        return Cell()
    shown = f"{100 * value:+.1f} %" if relative else f"{value:+.3f}"
    return Cell(f"{shown.replace('-', MINUS)} ({PRIMARY_NAMES[contrast.pair.primary].removesuffix(' (SBR)')})")


def ablation_table(comparison: Comparison, label: str = "") -> Table:
    """The paper's steps from one regressor a side to the proposed net, with plain and with symmetric MC."""
    rows = []
    for name in ABLATION:
        m = next((m for m in _scored(comparison) if m.method == name), None)
        if m is None:
            continue
        method = get_method(name)
        rows.append(
            Row(
                m.title,
                (
                    Cell("yes" if method.mirrored else "no"),
                    Cell("one" if method.sharing == "shared" else "two"),
                    Cell(method.symmetry_weight, digits=2),
                    *(Cell.of(_headline(m.scores.get(key))) for key in ("mae", "rmse", "pearson_r")),
                    *(
                        Cell.of(m.spreads[mode].sharpness_at_cp.headline if mode in m.spreads else None)
                        for mode in ("mc", "s1")
                    ),
                ),
                m.role,
            )
        )
    cp = comparison.settings.level
    return Table(
        "ablation",
        "Ablation: what each part of the proposed net adds",
        "Method",
        (
            Column("Right mirrored"),
            Column("Towers"),
            Column("Lambda"),
            Column("MAE (SBR)"),
            Column("RMSE (SBR)"),
            Column("R"),
            *(Column(mode_title(mode), f"Sharpness @ CP {cp:g}") for mode in ("mc", "s1")),
        ),
        tuple(rows) if len(rows) > 1 else (),
        (
            *_interval_notes(comparison, rows),
            "Averages of both sides. Lambda, the weight of the symmetric term, is the method's own; it is our "
            "reconstruction. Paired differences between these rows stand in the table of contrasts.",
        ),
        label,
    )


def extension_table(comparison: Comparison, label: str = "") -> Table:
    """What goes beyond the paper, and whether it earned its place."""
    rows = tuple(
        Row(
            e.title,
            (
                Cell(PRIMARY_NAMES.get(e.score, e.score).removesuffix(" (SBR)")),
                Cell.of(e.gain, signed=True),
                Cell("yes" if e.earned else "no"),
                Cell(None if e.wanted_reached is None else "yes" if e.wanted_reached else "no"),
                Cell(e.reason),
            ),
        )
        for e in comparison.earned
    )
    return Table(
        "extensions",
        "Extensions beyond the paper: their gain over Sym. VGG+",
        "Extension",
        (Column("Score"), Column("Gain"), Column("Earned its place"), Column("As large as asked for"), Column("Why")),
        rows,
        (
            *_interval_notes(comparison, rows),
            "A gain is positive where the extension is better. It earned its place where the interval lies above 0.",
        ),
        label,
    )


def skill_table(comparison: Comparison, label: str = "") -> Table:
    """The methods against the phantom's oracle; without rows for cohorts of patients."""
    titles = {m.method: (m.title, m.role) for m in comparison.methods}
    groups = (
        ("R / R of the oracle", "r_ratio", False, 2),
        ("Excess MSE (SBR²)", "excess_mse", True, 3),
        ("Pair headroom used", "headroom", True, 2),
    )
    rows = tuple(
        Row(
            titles[name][0],
            tuple(c for _, key, signed, digits in groups for c in _triple(getattr(skill, key), digits, signed)),
            titles[name][1],
        )
        for name, skill in comparison.skill.items()
    )
    return Table(
        "skill",
        "Skill against the best that can be known",
        "Method",
        tuple(Column(side, group) for group, *_ in groups for side in SIDES),
        rows,
        (
            *_interval_notes(comparison, rows),
            "The oracle sees the latent numbers that the image of the same side was made from; the image loses some of "
            "them, so a ratio of 1 cannot quite be reached.",
            "Pair headroom: gain in R over that oracle as a share of what the oracle of both sides gains; below 0 for "
            "a method that does not reach the oracle of one side.",
        ),
        label,
    )


# -- Uncertainty --------------------------------------------------------------------------------------------------


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
    for m in _scored(comparison):
        for spread in (spread for mode, spread in m.spreads.items() if chosen(m, mode)):
            points = spread.optimal
            optimal = (
                (Cell(), Cell(), Cell())
                if points is None
                else tuple(Cell(f"{p.sharpness:.3f}, {p.cp:.3f}") for p in (points.right, points.left, points.average))
            )
            rows.append(Row(_with_mode(m, spread.mode), (*optimal, *_triple(spread.sharpness_at_cp)), m.role))
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
            *_interval_notes(comparison, rows),
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
    for m in _scored(comparison):
        for found in (found for mode, found in m.intervals.items() if chosen(m, mode)):
            cells = (
                Cell(found.level, digits=2),
                *(_proportion(found.coverage[side]) for side in Side),
                *_triple(found.scores.get("mpiw"), 2)[:2],
                _triple(found.scores.get("sharpness"))[2],
                _triple(found.scores.get("interval_score"), 2)[2],
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
            *_interval_notes(comparison, rows),
            "Coverage counts patients, one visit each: exact binomial intervals (Clopper-Pearson), whose n is "
            "patients, however many fits tested them. Interval score: smaller is better.",
        ),
        label,
    )


def _with_mode(m: MethodResult, mode: str) -> str:
    """The method with how its spread was made; where that is the method itself, its title says it."""
    return m.title if m.role == "oracle" or (m.role, mode) == ("derived", "s7") else f"{mode_title(mode)} + {m.title}"


# -- Low uptake ---------------------------------------------------------------------------------------------------


def binary_table(comparison: Comparison, label: str = "") -> Table:
    """Accuracy, sensitivity, specificity and AUC at the threshold."""
    groups = ("Accuracy", "Sensitivity", "Specificity")
    rows = tuple(
        Row(
            m.title,
            (
                *(_proportion(getattr(m.binary, group.lower())[side]) for group in groups for side in Side),
                Cell.of(m.binary.auc.right),
                Cell.of(m.binary.auc.left),
                Cell.of(m.binary.auc.pooled),
            ),
            m.role,
        )
        for m in _scored(comparison)
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
            "Wilson's intervals where a side rests on a single fit, resampled patients for the mean of several. AUC of "
            "the predicted SBR; both: all sides, both of a patient as one cluster.",
            f"Share of visits with low uptake: {prevalence}.",
        ),
        label,
    )


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
        for m in _scored(comparison)
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
            f"{published.CITATION}. Other patients: for reference only.",
            "Some printed accuracies lie outside the range of their sensitivity and specificity, which no single 2 x 2 "
            "table allows.",
        ),
        f"published, other data, {published.TEST_PATIENTS} patients",
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


# -- What was done ------------------------------------------------------------------------------------------------


def time_table(timing: Sequence[TimingRow], label: str = "") -> Table:
    """Training and prediction by method, with the hardware."""
    rows = tuple(
        Row(
            t.title,
            (
                Cell(_finite(t.epoch_s), digits=2),
                Cell(_finite(t.training_s), digits=1),
                Cell(_finite(t.one_prediction_ms), digits=1),
                Cell(_finite(t.samples_prediction_ms), digits=1),
            ),
        )
        for t in timing
    )
    samples = " or ".join(dict.fromkeys(str(t.samples) for t in timing))
    return Table(
        "time",
        "Computation time",
        "Method",
        (
            Column("an epoch (s)", "Training"),
            Column("one fit (s)", "Training"),
            Column("one pass (ms)", "One patient, both sides"),
            Column(f"{samples} samples (ms)", "One patient, both sides"),
        ),
        rows,
        (
            *(f"Hardware: {where}." for where in dict.fromkeys(t.hardware for t in timing)),
            "For orientation: the machine may have had other work. Times compare methods within this table only.",
        ),
        label,
    )


def fit_table(comparison: Comparison, records: Sequence[FitRecord], label: str = "") -> Table:
    """Every fit: split, seed, epochs, time, scores; failed ones with their reason."""
    scores = {(f.record.method, f.record.split, f.record.seed): f for m in comparison.methods for f in m.fits}
    rows = []
    for r in records:
        found = scores.get((r.method, r.split, r.seed))
        is_net = r.role == "model"  # a derived predictor has no training of its own
        own = r.epochs, r.best_epoch, r.seconds, r.parameters
        epochs, best, seconds, parameters = own if is_net else (None, None, None, None)
        rows.append(
            Row(
                r.title,
                (
                    Cell(r.split),
                    _whole(r.seed if is_net or r.role == "derived" else None),
                    _whole(r.train_patients),
                    _whole(r.test_patients),
                    _whole(epochs),
                    _whole(best),
                    Cell(None if epochs is None or best is None else "yes" if is_late(r) else "no"),
                    Cell(_finite(seconds), digits=0),
                    _whole(parameters),
                    *(Cell(_finite(getattr(found, name, None))) for name in ("rmse", "mae", "pearson_r")),
                    Cell(f"failed: {r.failed}" if r.failed else "ended"),
                ),
                r.role,
            )
        )
    trained = [r for r in records if r.role == "model" and r.best_epoch is not None]
    return Table(
        "fits",
        "Every fit",
        "Method",
        (
            *(Column(name) for name in ("Split", "Seed")),
            *(Column(name, "Patients") for name in ("train", "test")),
            *(Column(name, "Epochs") for name in ("all", "best", "late")),
            *(Column(name) for name in ("Seconds", "Parameters")),
            *(Column(name, "Average of both sides") for name in ("RMSE", "MAE", "R")),
            Column("Outcome"),
        ),
        tuple(rows),
        (
            f"late: the kept epoch is among the last {100 * (1 - LATE_SHARE):.0f} % of the fit's epochs: "
            f"{sum(map(is_late, trained))} of {len(trained)} trained fits. {LATE_MEANS}",
        ),
        label,
    )


def is_late(record: FitRecord) -> bool:
    """Whether the best epoch lies so near the last that training may have been stopped early."""
    if record.epochs is None or record.best_epoch is None:
        return False
    return record.best_epoch > LATE_SHARE * record.epochs


def split_table(comparison: Comparison, records: Sequence[FitRecord], label: str = "") -> Table:
    """The splits with their hashes and sizes."""
    first = {r.split: r for r in reversed(records) if not r.failed} or {r.split: r for r in records}
    rows = tuple(
        Row(
            name,
            (
                _whole(first[name].train_patients if name in first else None),
                _whole(first[name].test_patients if name in first else None),
                Cell(sha256),
            ),
            "split",
        )
        for name, sha256 in comparison.splits.items()
    )
    return Table(
        "splits",
        "Splits",
        "Split",
        (Column("train", "Patients"), Column("test", "Patients"), Column("SHA-256")),
        rows,
        ("The hash is over the patients of each part; every method was fitted and tested on these.",),
        label,
    )


# -- Parts --------------------------------------------------------------------------------------------------------


def _scored(comparison: Comparison) -> Iterator[MethodResult]:
    return (m for m in comparison.methods if m.fits)


def _sides_table(
    comparison: Comparison,
    name: str,
    title: str,
    groups: Sequence[tuple[str, str, bool]],
    notes: tuple[str, ...],
    label: str,
) -> Table:
    rows = tuple(
        Row(
            m.title,
            tuple(cell for _, key, signed in groups for cell in _triple(m.scores.get(key), signed=signed)),
            m.role,
        )
        for m in _scored(comparison)
    )
    columns = tuple(Column(side, group) for group, *_ in groups for side in SIDES)
    return Table(name, title, "Method", columns, rows, (*_interval_notes(comparison, rows), *notes), label)


def _headline_table(
    comparison: Comparison, name: str, title: str, keys: Mapping[str, str], notes: tuple[str, ...], label: str
) -> Table:
    rows = tuple(
        Row(
            m.title, tuple(Cell.of(_headline(m.scores.get(key)), signed=key == "bias") for key in keys.values()), m.role
        )
        for m in _scored(comparison)
    )
    columns = tuple(Column(heading) for heading in keys)
    return Table(name, title, "Method", columns, rows, (*_interval_notes(comparison, rows), *notes), label)


def _interval_notes(comparison: Comparison, rows: Iterable[Row]) -> tuple[str, ...]:
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


def _failed_notes(comparison: Comparison) -> tuple[str, ...]:
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


def _triple(scores: PerSide[Estimate | None] | None, digits: int = 3, signed: bool = False) -> tuple[Cell, Cell, Cell]:
    if scores is None:
        return (Cell(), Cell(), Cell())
    right, left, average = (Cell.of(e, digits, signed) for e in (scores.right, scores.left, scores.average))
    return (right, left, average)


def _headline(scores: Breakdown | None) -> Estimate | None:
    return None if scores is None else scores.headline


def _proportion(p: Proportion | None) -> Cell:
    if p is None or not math.isfinite(p.value):
        return Cell()
    return Cell(p.value, p.low, p.high) if math.isfinite(p.low) else Cell(p.value)


def _finite(value: float | None) -> float | None:
    return None if value is None or not np.isfinite(value) else float(value)


def _whole(value: int | None) -> Cell:
    return Cell(value, digits=0)
