"""The tables of a study as plain data, made from a :class:`~nigradat.evaluation.comparison.Comparison`.

In the paper's layout where the paper has one. Nothing is computed here: every number is the comparison's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from nigradat.evaluation.comparison import Comparison
from nigradat.evaluation.predictions import FitRecord
from nigradat.evaluation.study_tables.accuracy import (
    accuracy_table,
    association_table,
    asymmetry_table,
    log_table,
    more_accuracy_table,
    pooled_table,
    skill_table,
    variation_table,
)
from nigradat.evaluation.study_tables.agreement import (
    ReadingRow,
    binary_table,
    limits_table,
    previous_table,
    published_agreement_table,
    reading_table,
)
from nigradat.evaluation.study_tables.contrasts import ablation_table, contrast_table, extension_table, verdict_table
from nigradat.evaluation.study_tables.fits import TimingRow, fit_table, split_table, time_table
from nigradat.evaluation.study_tables.intervals import (
    interval_mode_table,
    interval_table,
    mode_table,
    uncertainty_table,
)
from nigradat.evaluation.table import Table
from nigradat.evaluation.tables import published_accuracy_table, published_uncertainty_table


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
        limits_table,
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
