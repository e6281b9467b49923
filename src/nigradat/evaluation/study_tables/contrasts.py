"""Methods against each other: differences, tests and verdicts, the ablation, and what extensions gain."""

from __future__ import annotations

from typing import Final

from nigradat.evaluation.comparison import Comparison
from nigradat.evaluation.contrasts import Contrast
from nigradat.evaluation.study_tables.parts import finite, headline, interval_notes, mode_title, scored
from nigradat.evaluation.table import MINUS, Cell, Column, Row, Table
from nigradat.metrics import Estimate
from nigradat.models.registry import get_method

ABLATION: Final = ("vgg-small", "sym-vgg-plus-unmirrored", "sym-vgg", "sym-vgg-plus")
PRIMARY_NAMES: Final = {
    "mae": "MAE (SBR)",
    "rmse": "RMSE (SBR)",
    "pearson_r": "R",
    "sharpness_at_cp": "Sharpness @ CP",
}
_VS: Final = " vs "


def contrast_table(comparison: Comparison, label: str = "") -> Table:
    """Differences of the family, average of both sides, with intervals over patients."""
    keys = ("mae", "rmse", "pearson_r", "sharpness_at_cp")
    rows = tuple(
        Row(
            contrast_title(c),
            (
                *(Cell.of(headline(c.differences.get(key)), signed=True) for key in keys),
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
            *interval_notes(comparison, rows),
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
                    Cell(finite(c.p_holm), digits=4),
                    Cell(replicates.mean, replicates.low, replicates.high, signed=True) if replicates else Cell(),
                    Cell(c.replicates_are or None),
                    Cell(finite(c.detectable)),
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
        m = next((m for m in scored(comparison) if m.method == name), None)
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
                    *(Cell.of(headline(m.scores.get(key))) for key in ("mae", "rmse", "pearson_r")),
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
            *interval_notes(comparison, rows),
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
            *interval_notes(comparison, rows),
            "A gain is positive where the extension is better. It earned its place where the interval lies above 0.",
        ),
        label,
    )
