"""The tables of an evaluation, in the paper's layout where the paper has one. Pure functions of evaluations.

Every table takes several evaluations of the same patients, so that methods stand in one table.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Final

import numpy as np

from nigradat.anatomy import Side
from nigradat.errors import CohortError
from nigradat.evaluation import published
from nigradat.evaluation.result import Estimates, Evaluation, Intervals, Scored, Trace
from nigradat.evaluation.scoring import CENTRAL, Resampling, compare
from nigradat.evaluation.table import MINUS, Cell, Column, Row, Table
from nigradat.io.manifest import Participant
from nigradat.metrics import BlandAltman, Estimate, PerSide, bland_altman, bland_altman_clustered

SIDES: Final = ("R", "L", "avg")
_PLUS_MINUS: Final = "\N{PLUS-MINUS SIGN}"
_EN_DASH: Final = "\N{EN DASH}"


def check_comparable(evaluations: Sequence[Evaluation]) -> None:
    """Refuse to put methods into one table that were not tested on the same visits in the same way.

    Raises:
        CohortError: no evaluation, other visits, or other settings.
    """
    if not evaluations:
        raise CohortError("no evaluation", "at least one")
    first = evaluations[0]
    for other in evaluations[1:]:
        same = other.tested.sha256 == first.tested.sha256 and np.array_equal(other.subjects.rows, first.subjects.rows)
        if not same or other.settings != first.settings:
            raise CohortError(
                f"{other.run.name} was tested on other patients or in another way than {first.run.name}",
                "the same patients, level, seed and resamples for every row of a table",
                "Evaluate the models on one cohort, or make a report for each",
            )


def methods(evaluations: Sequence[Evaluation]) -> tuple[Scored, ...]:
    """The rows: models in order, then each baseline and each oracle once. Equal titles get the name of their run."""
    titles = Counter(e.model.title for e in evaluations)
    out = [
        replace(e.model, title=f"{e.model.title} ({e.run.name})") if titles[e.model.title] > 1 else e.model
        for e in evaluations
    ]
    for others in ([b for e in evaluations for b in e.baselines], [o for e in evaluations for o in e.oracles]):
        kept: list[Scored] = []
        for other in others:
            if not any(k.name == other.name and np.array_equal(k.predicted, other.predicted) for k in kept):
                kept.append(other)
        out += kept
    return tuple(out)


# -- Accuracy -----------------------------------------------------------------------------------------------------


def accuracy_table(evaluations: Sequence[Evaluation]) -> Table:
    """RMSE, MAE and R per side and on average, as in the paper."""
    return _scores_table(
        evaluations,
        "accuracy",
        "Accuracy, in the paper's layout",
        (("RMSE (SBR)", "rmse", False), ("MAE (SBR)", "mae", False), ("R", "pearson_r", False)),
        ("avg is the mean of the two sides' values, as in the paper.",),
    )


def more_accuracy_table(evaluations: Sequence[Evaluation]) -> Table:
    """What the paper's table leaves open: squared and median errors, bias, slope, concordance, rank correlation."""
    return _scores_table(
        evaluations,
        "accuracy-more",
        "More on accuracy",
        (("MSE (SBR²)", "mse", False), ("Median AE (SBR)", "median_ae", False), ("Bias (SBR)", "bias", True)),
        ("Bias is predicted less true SBR.",),
    )


def association_table(evaluations: Sequence[Evaluation]) -> Table:
    """Calibration slope, concordance and rank correlation."""
    return _scores_table(
        evaluations,
        "association",
        "Slope, concordance and rank correlation",
        (("Slope", "calibration_slope", False), ("CCC", "ccc", False), ("Spearman", "spearman", False)),
        (
            "Slope of true on predicted SBR: 1 is right, below 1 the predictions are too extreme. "
            "CCC: Lin's concordance correlation.",
        ),
    )


def _scores_table(
    evaluations: Sequence[Evaluation],
    name: str,
    title: str,
    groups: Sequence[tuple[str, str, bool]],
    notes: tuple[str, ...],
) -> Table:
    columns = tuple(Column(side, group) for group, _, _ in groups for side in SIDES)
    rows = tuple(
        Row(
            m.title,
            tuple(cell for _, key, signed in groups for cell in _triple(m.scores.get(key), signed=signed)),
            m.role,
        )
        for m in methods(evaluations)
    )
    return _table(evaluations, name, title, "Method", columns, rows, notes)


def gain_table(evaluations: Sequence[Evaluation]) -> Table:
    """Differences between methods, paired over patients: each model less its baseline, and less the first model."""
    keys = (("R", "pearson_r"), ("RMSE (SBR)", "rmse"), ("MAE (SBR)", "mae"))
    rows = []
    named = methods(evaluations)
    first = evaluations[0]
    for evaluation, model in zip(evaluations, named, strict=False):
        found: list[tuple[str, Estimates]] = [
            (baseline.title, evaluation.gains[baseline.name]) for baseline in evaluation.baselines
        ]
        if evaluation is not first:
            how = Resampling(first.settings.resamples, first.settings.seed, first.settings.confidence)
            found.append((named[0].title, compare(model.predicted, first.model.predicted, first.subjects, how)))
        for other, gain in found:
            cells = tuple(cell for _, key in keys for cell in _triple(gain.get(key), signed=True))
            rows.append(Row(f"{model.title} less {other}", cells))
    return _table(
        evaluations,
        "differences",
        "Differences between methods on the same patients",
        "Difference",
        tuple(Column(side, group) for group, _ in keys for side in SIDES),
        tuple(rows),
        (
            "Both methods are scored on each resample. An R above 0, an RMSE or MAE below 0 is in favour of the first.",
            "Ridge: regression on six hand-made features, fitted on the training patients of the model; the bar that a "
            "network has to pass.",
        ),
    )


def skill_table(evaluations: Sequence[Evaluation]) -> Table:
    """The models against the phantom's oracle; without rows for cohorts of patients."""
    groups = (
        ("R / R of the oracle", "r_ratio", False),
        ("R² ratio", "r2_ratio", False),
        ("Pair headroom used", "headroom", True),
    )
    named = methods(evaluations)
    rows = [
        Row(
            model.title,
            tuple(c for _, key, signed in groups for c in _triple(e.skill.get(key), signed=signed, digits=2)),
        )
        for e, model in zip(evaluations, named, strict=False)
        if e.skill
    ]
    return _table(
        evaluations,
        "skill",
        "Skill against the best that can be known",
        "Method",
        tuple(Column(side, group) for group, _, _ in groups for side in SIDES),
        tuple(rows),
        (
            "The oracle sees the latent numbers that the image of the same side was made from; the image loses some of "
            "them, so a ratio of 1 cannot quite be reached.",
            "Pair headroom: gain in R over that oracle as a share of what the oracle of both sides gains. It exceeds 0 "
            "only for a method that uses the other side to predict, and is a quotient of noise where the two oracles "
            "hardly differ on these patients.",
        ),
    )


AGREEMENT_COLUMNS: Final = tuple(Column(name) for name in ("Bias", "SD", "Lower limit", "Upper limit", "Slope"))


def agreement_table(evaluations: Sequence[Evaluation]) -> Table:
    """Bland-Altman per side and for both, with intervals of bias, limits and slope."""
    rows = []
    for method in methods(evaluations):
        if method.role == "baseline" or method.name == "oracle-pair":
            continue
        for name, found in _agreement(evaluations[0], method):
            rows.append(Row(f"{method.title}, {name}", agreement_cells(found), method.role))
    return _table(
        evaluations,
        "agreement",
        "Bland-Altman: predicted less true SBR",
        "Method, side",
        AGREEMENT_COLUMNS,
        tuple(rows),
        (
            "95 % limits of agreement, bias \N{MINUS SIGN} and + 1.96 SD, with 95 % intervals of Student's t; "
            "'both' splits the variance within and between patients (Bland and Altman 2007).",
            "The slope of difference on mean is below 0 for every imperfect predictor, the oracle included: "
            "judge it against the oracle's, not against 0.",
        ),
        resampled=False,
    )


def _agreement(evaluation: Evaluation, method: Scored) -> Iterator[tuple[str, BlandAltman]]:
    first = evaluation.subjects.first_visits
    if len(first) < 3:
        return
    truth, predicted = evaluation.subjects.truth[first], method.predicted[first]
    for side in method.sides:
        yield side.value, bland_altman(truth[:, side.index], predicted[:, side.index])
    if len(method.sides) == 2:
        yield "both", bland_altman_clustered(truth, predicted)


def agreement_cells(found: BlandAltman) -> tuple[Cell, ...]:
    """Bias, SD, both limits and the slope, with the intervals that they have."""

    def cell(value: float, ends: tuple[float, float]) -> Cell:
        return Cell(value, *ends, signed=True)

    return (
        cell(found.bias, found.bias_ci),
        Cell(found.sd),
        cell(found.lower, found.lower_ci),
        cell(found.upper, found.upper_ci),
        cell(found.slope, found.slope_ci) if np.isfinite(found.slope) else Cell(),
    )


# -- Uncertainty --------------------------------------------------------------------------------------------------


def uncertainty_table(evaluations: Sequence[Evaluation]) -> Table:
    """ "Optimal" and "Sharpness @ CP" per side and on average, as in the paper."""
    cp = evaluations[0].settings.level
    rows = []
    for method in methods(evaluations):
        for traced in method.traces:
            label = method.title if method.role == "oracle" else f"{traced.title} + {method.title}"
            rows.append(Row(label, (*_optimal(traced), *_triple(traced.scores.get("sharpness_at_cp"))), method.role))
    return _table(
        evaluations,
        "uncertainty",
        "Sharpness and coverage along the curve",
        "Method",
        (
            *(Column(side, "Optimal (Sharpness, CP)") for side in SIDES),
            *(Column(side, f"Sharpness @ CP {cp:g}") for side in SIDES),
        ),
        tuple(rows),
        (
            "Traced on the tested patients themselves, as in the paper: a description of them, not an interval that "
            " was fixed before. Sharpness is 1 less the mean half-width over the SBR scale; larger is sharper.",
            "Definitions are reconstructed from the arithmetic of the published tables. Optimal: the point nearest to "
            "(1, 1) for one multiplier on both sides, without an interval of its own.",
            *(
                ("The oracle's rows use intervals in proportion to its prediction: the best reachable here.",)
                if evaluations[0].oracles
                else ()
            ),
        ),
    )


def _optimal(traced: Trace) -> tuple[Cell, ...]:
    if traced.optimal is None:
        return (Cell(), Cell(), Cell())
    points = traced.optimal.sides
    return tuple(Cell(f"{p.sharpness:.3f}, {p.cp:.3f}") for p in (points.right, points.left, points.average))


def interval_table(evaluations: Sequence[Evaluation]) -> Table:
    """Intervals that were fixed before testing: their coverage, what it may be, their width, and their promise."""
    rows, promises = [], []
    for method in methods(evaluations):
        for intervals in method.intervals:
            label = method.title if method.role == "oracle" else f"{method.title}: {intervals.title}"
            rows.append(Row(label, _interval_cells(intervals), method.role))
            promises.append(f"{label}: {intervals.promise}.")
    level = 100 * evaluations[0].settings.confidence
    return _table(
        evaluations,
        "intervals",
        "Calibrated intervals on patients they were not calibrated on",
        "Intervals",
        (
            Column("Level"),
            Column("Calibrated on"),
            Column("R", "Coverage"),
            Column("L", "Coverage"),
            Column(f"Range for a valid one ({100 * CENTRAL:g} %)"),
            Column("R", "Mean full width (SBR)"),
            Column("L", "Mean full width (SBR)"),
            Column("Sharpness avg"),
            Column("Interval score avg"),
        ),
        tuple(rows),
        (
            f"Coverage with exact binomial {level:g} % intervals (Clopper-Pearson); n is patients, one visit each. "
            "Range: where the coverage on as many patients lies for a valid split-conformal interval, both sets being "
            "finite (beta-binomial). Widths are not clipped at 0. Interval score: smaller is better.",
            *promises,
        ),
    )


def promise_table(evaluations: Sequence[Evaluation]) -> Table:
    """What a rule promised about more than each side by itself, and whether it held."""
    rows = tuple(
        Row(
            f"{method.title}: {intervals.title}",
            (
                Cell(kept.about),
                Cell(kept.calibrated_on, digits=0),
                Cell(kept.coverage.patients, digits=0),
                Cell(kept.coverage.share, kept.coverage.low, kept.coverage.high),
                Cell(f"{kept.expected[0]:.3f} to {kept.expected[1]:.3f}"),
            ),
            method.role,
        )
        for method in methods(evaluations)
        for intervals in method.intervals
        for kept in intervals.promises
    )
    level = 100 * evaluations[0].settings.confidence
    return _table(
        evaluations,
        "promises",
        "What was promised beyond each side by itself",
        "Intervals",
        (
            Column("Promise about"),
            Column("Calibrated on"),
            Column("Patients"),
            Column("Coverage"),
            Column(f"Range for a valid one ({100 * CENTRAL:g} %)"),
        ),
        rows,
        (f"Coverage with exact binomial {level:g} % intervals (Clopper-Pearson), one visit a patient.",),
    )


def _interval_cells(found: Intervals) -> tuple[Cell, ...]:
    coverage = {s: found.coverage.get(s) for s in Side}
    shares = (Cell() if c is None else Cell(c.share, c.low, c.high) for c in coverage.values())
    expected = "none" if found.expected is None else f"{found.expected[0]:.3f} to {found.expected[1]:.3f}"
    width = _triple(found.scores.get("mpiw"), digits=2)
    return (
        Cell(found.level, digits=2),
        Cell("none" if found.calibrated_on is None else str(found.calibrated_on)),
        *shares,
        Cell(expected),
        *width[:2],
        _triple(found.scores.get("sharpness"))[2],
        _triple(found.scores.get("interval_score"), digits=2)[2],
    )


# -- Cohort -------------------------------------------------------------------------------------------------------


def cohort_table(evaluations: Sequence[Evaluation]) -> Table:
    """Who trained, stopped, calibrated and was tested, as in the paper, whose cohort stands beside."""
    parts = dict(evaluations[0].parts)
    tested = evaluations[0].tested
    if tested.own:
        parts = {"all": tuple(p for members in parts.values() for p in members), **parts}
    columns = [*parts.values()]
    rows = tuple(
        Row(name, (*(Cell(describe(members)) for members in columns), Cell(theirs)), "cohort")
        for name, describe, theirs in _COHORT_ROWS
    )
    return Table(
        "cohort",
        "Cohort",
        "",
        (*(Column(name.capitalize()) for name in parts), Column("Published")),
        rows,
        (
            "Visits of one patient are never divided between parts. Train fits the weights, stop ends the training, "
            "calibration makes the intervals, test decides nothing.",
            f"Asymmetry index: |R \N{MINUS SIGN} L| over their mean. Published: {published.CITATION}; other patients, "
            "256, 56 and 55 of them to train, validate and test.",
        ),
        evaluations[0].label,
    )


Members = Sequence[Participant]


def _sbr(members: Members) -> np.ndarray:
    labels = [(p.sbr_right, p.sbr_left) for p in members if p.has_sbr]
    return np.array(labels, dtype=float).reshape(-1, 2)


def _mean_sd(values: Iterable[float | None], digits: int = 1) -> str:
    known = np.array([v for v in values if v is not None], dtype=float)
    if known.size == 0:
        return "n/a"
    sd = f" {_PLUS_MINUS} {known.std(ddof=1):.{digits}f}" if known.size > 1 else ""
    return f"{known.mean():.{digits}f}{sd}"


def _range(values: Iterable[float | None], digits: int = 0) -> str:
    known = [v for v in values if v is not None]
    return f"{min(known):.{digits}f} {_EN_DASH} {max(known):.{digits}f}" if known else "n/a"


def _gap(members: Members) -> str:
    days = [abs(p.mri_spect_days) for p in members if p.mri_spect_days is not None]
    if not days:
        return "n/a"
    middle = float(np.median(days))
    shown = f"{24 * middle:.0f} h" if middle < 2 else f"{middle:.0f} d"
    return f"{_mean_sd(days, 0)} d; median {shown}"


def _names(attribute: str) -> Callable[[Members], str]:
    def describe(members: Members) -> str:
        counts = Counter(getattr(p, attribute) or "n/a" for p in members)
        if len(counts) == 1:
            return str(next(iter(counts)))
        return ", ".join(f"{name} ({n})" for name, n in counts.most_common())

    return describe


def _sexes(members: Members) -> str:
    counts = Counter(p.sex or "n/a" for p in members)
    return ", ".join(f"{counts[sex]} {sex}" for sex in ("F", "M", "O", "n/a") if counts[sex])


def _asymmetry(members: Members) -> str:
    sbr = _sbr(members)
    sbr = sbr[sbr.mean(axis=1) > 0]
    return f"{_mean_sd(100 * np.abs(sbr[:, 0] - sbr[:, 1]) / sbr.mean(axis=1), 1)} %" if len(sbr) else "n/a"


def _right_left(members: Members) -> str:
    sbr = _sbr(members)
    if len(sbr) < 3 or np.ptp(sbr, axis=0).min() == 0:
        return "n/a"
    return f"{np.corrcoef(sbr.T)[0, 1]:.3f}".replace("-", MINUS)


_COHORT_ROWS: Final[tuple[tuple[str, Callable[[Members], str], str], ...]] = (
    ("Patients", lambda m: str(len({p.participant_id for p in m})), "367"),
    ("Visits", lambda m: str(len(m)), "367"),
    ("Age (years), mean \N{PLUS-MINUS SIGN} SD", lambda m: _mean_sd(p.age for p in m), "n/a"),
    ("Age (years), range", lambda m: _range(p.age for p in m), "n/a"),
    ("Sex", _sexes, "n/a"),
    ("MRI scanner", _names("scanner"), "Philips Ingenia, Ingenia CX, 3 T"),
    ("MRI to SPECT", _gap, "42 \N{PLUS-MINUS SIGN} 60 d; median 18 h"),
    ("SBR right, range", lambda m: _range(_sbr(m)[:, 0], 2), "0.44 \N{EN DASH} 6.84"),
    ("SBR left, range", lambda m: _range(_sbr(m)[:, 1], 2), "0.43 \N{EN DASH} 6.80"),
    ("SBR right, mean \N{PLUS-MINUS SIGN} SD", lambda m: _mean_sd(_sbr(m)[:, 0], 2), "n/a"),
    ("SBR left, mean \N{PLUS-MINUS SIGN} SD", lambda m: _mean_sd(_sbr(m)[:, 1], 2), "n/a"),
    ("Correlation right, left", _right_left, "n/a"),
    ("Asymmetry index", _asymmetry, "n/a"),
    ("Tracer", _names("tracer"), "123I-FP-CIT"),
    ("SPECT device", _names("spect_device"), "Trionix XLT"),
    ("SPECT software", _names("spect_software"), "DATquant, Xeleris 3.1"),
)


# -- Published ----------------------------------------------------------------------------------------------------


def published_accuracy_table() -> Table:
    """The paper's accuracy table."""
    groups = (("RMSE (SBR)", "rmse"), ("MAE (SBR)", "mae"), ("R", "r"))
    return Table(
        "published-accuracy",
        "Published accuracy",
        "Method",
        tuple(Column(side, group) for group, _ in groups for side in SIDES),
        tuple(
            Row(p.method, tuple(Cell(v, digits=4) for _, key in groups for v in getattr(p, key)), "published")
            for p in published.ACCURACY
        ),
        (_PUBLISHED_NOTE, *published.INCONSISTENCIES),
        f"published, other data, {published.TEST_PATIENTS} patients",
    )


def published_uncertainty_table() -> Table:
    """The paper's uncertainty table."""
    return Table(
        "published-uncertainty",
        "Published sharpness and coverage",
        "Method",
        (
            *(Column(side, "Optimal (Sharpness, CP)") for side in SIDES),
            *(Column(side, "Sharpness @ CP 0.95") for side in SIDES),
        ),
        tuple(
            Row(
                p.method,
                (*(Cell(f"{s:.3f}, {cp:.3f}") for s, cp in p.optimal), *(Cell(v) for v in p.sharpness_at_cp)),
                "published",
            )
            for p in published.UNCERTAINTY
        ),
        (_PUBLISHED_NOTE,),
        f"published, other data, {published.TEST_PATIENTS} patients",
    )


_PUBLISHED_NOTE: Final = (
    f"{published.CITATION}. Other patients: these rows are for reference and are not to be compared number by number. "
    "No intervals were published."
)


def result_tables(evaluations: Sequence[Evaluation]) -> tuple[Table, ...]:
    """All tables that have rows, in the order of a report.

    Raises:
        CohortError: evaluations of different patients.
    """
    check_comparable(evaluations)
    makers = (
        accuracy_table,
        more_accuracy_table,
        association_table,
        gain_table,
        skill_table,
        agreement_table,
        uncertainty_table,
        interval_table,
        promise_table,
        cohort_table,
    )
    made = (*(make(evaluations) for make in makers), published_accuracy_table(), published_uncertainty_table())
    return tuple(table for table in made if table.rows)


# -- Parts --------------------------------------------------------------------------------------------------------


def _triple(scores: PerSide[Estimate | None] | None, digits: int = 3, signed: bool = False) -> tuple[Cell, Cell, Cell]:
    if scores is None:
        return (Cell(), Cell(), Cell())
    right, left, average = (Cell.of(e, digits, signed) for e in (scores.right, scores.left, scores.average))
    return (right, left, average)


def _table(
    evaluations: Sequence[Evaluation],
    name: str,
    title: str,
    heading: str,
    columns: tuple[Column, ...],
    rows: tuple[Row, ...],
    notes: tuple[str, ...],
    resampled: bool = True,
) -> Table:
    """A table of results, with the notes that all of them need."""
    first = evaluations[0]
    extra = []
    if resampled and rows:
        s = first.settings
        extra.append(
            f"In brackets {100 * s.confidence:g} % intervals: BCa bootstrap over {first.subjects.n_patients:,} "
            f"patients, {s.resamples} resamples, both sides and all visits of a patient together."
        )
    if any(cell.mark == "p" for row in rows for cell in row.cells):
        extra.append("p: percentile interval, because the BCa correction is not defined there.")
    if first.tested.seen:
        extra.insert(0, f"{first.tested.seen}.")
    return Table(name, title, heading, columns, rows, (*extra, *notes), first.label)
