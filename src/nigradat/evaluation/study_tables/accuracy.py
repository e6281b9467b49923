"""Errors, correlation, agreement and the skill against a phantom's oracle: the predictions of each method by itself."""

from __future__ import annotations

from nigradat.evaluation.comparison import Comparison
from nigradat.evaluation.study_tables.parts import (
    failed_notes,
    finite,
    headline,
    headline_table,
    interval_notes,
    scored,
    sides_table,
    triple,
)
from nigradat.evaluation.table import Cell, Column, Row, Table
from nigradat.evaluation.tables import SIDES


def accuracy_table(comparison: Comparison, label: str = "") -> Table:
    """RMSE, MAE and R per side and on average, as in the paper."""
    return sides_table(
        comparison,
        "accuracy",
        "Accuracy, in the paper's layout",
        (("RMSE (SBR)", "rmse", False), ("MAE (SBR)", "mae", False), ("R", "pearson_r", False)),
        ("avg is the mean of the two sides' values, as in the paper.", *failed_notes(comparison)),
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
        for m in scored(comparison)
    )
    return Table(
        "accuracy-pooled",
        "Accuracy over all sides, and of the patients' means",
        "Method",
        tuple(Column(name, group) for group, _ in keys for name in ("all sides", "patient")),
        rows,
        (
            *interval_notes(comparison, rows),
            "All sides: each side is a case (the intervals still draw patients). Patient: the mean of both sides.",
        ),
        label,
    )


def more_accuracy_table(comparison: Comparison, label: str = "") -> Table:
    """Squared and median errors, bias."""
    return sides_table(
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
    return headline_table(
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
    table = headline_table(
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
    left_out = {m.title: sum(m.log_left_out) for m in scored(comparison)}
    rows = tuple(Row(row.label, (*row.cells, Cell(left_out[row.label], digits=0)), row.kind) for row in table.rows)
    columns = (*table.columns, Column("Left out"))
    return Table(table.name, table.title, table.heading, columns, rows, table.notes, table.label)


def asymmetry_table(comparison: Comparison, label: str = "") -> Table:
    """How well the difference between the sides is predicted."""
    rows = tuple(
        Row(
            m.title,
            (
                Cell.of(headline(m.scores.get("asymmetry_error")), digits=1),
                Cell.of(headline(m.scores.get("worse_side_agreement"))),
            ),
            m.role,
        )
        for m in scored(comparison)
    )
    return Table(
        "asymmetry",
        "Difference between the sides",
        "Method",
        (Column("Asymmetry index error (%)"), Column("Worse side agreed on")),
        rows,
        (
            *interval_notes(comparison, rows),
            "Share of patients whose side of lower uptake is named as by the reference; .5 is chance.",
        ),
        label,
    )


def variation_table(comparison: Comparison, label: str = "") -> Table:
    """How much the fits of a method differ by split and by seed: what the patients' intervals do not carry."""
    keys = (("RMSE (SBR)", "rmse"), ("MAE (SBR)", "mae"), ("R", "pearson_r"))
    rows = []
    for m in scored(comparison):
        if len(m.fits) < 2:
            continue
        found = [m.variation.get(key) for _, key in keys]
        sds = [
            Cell(finite(value), digits=4)
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
            tuple(c for _, key, signed, digits in groups for c in triple(getattr(skill, key), digits, signed)),
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
            *interval_notes(comparison, rows),
            "The oracle sees the latent numbers that the image of the same side was made from; the image loses some of "
            "them, so a ratio of 1 cannot quite be reached.",
            "Pair headroom: gain in R over that oracle as a share of what the oracle of both sides gains; below 0 for "
            "a method that does not reach the oracle of one side.",
        ),
        label,
    )
