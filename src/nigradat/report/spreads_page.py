"""The folder of a comparison of spreads: tables, figures, numbers, and one page that shows them all."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from nigradat.anatomy import Side
from nigradat.evaluation import figures, spread_figures
from nigradat.evaluation.judging import Judged
from nigradat.evaluation.spread_tables import headline, spread_tables, to_json
from nigradat.evaluation.spreads import SpreadComparison
from nigradat.evaluation.table import Cell, Table
from nigradat.evaluation.validity import Validity, validity
from nigradat.io.files import new_folder, write_json
from nigradat.report.layout import Drawing, KeyNumber, Listing, Section, render
from nigradat.uncertainty.symmetric_mc import DEFAULT_MODE

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PAGE, NUMBERS, SPREADS, TABLES, FIGURES = "report.html", "metrics.json", "spreads.tsv", "tables", "figures"


def write_spreads(comparison: SpreadComparison, out: str | os.PathLike[str]) -> Path:
    """Write ``tables/*.csv``, ``figures/*.svg`` and ``*.png``, ``spreads.tsv``, ``metrics.json`` and ``report.html``.

    The folder appears whole or not at all.

    Args:
        comparison: of the spreads.
        out: a folder that is new or empty.

    Returns:
        The page.

    Raises:
        OutputError: ``out`` is in use, or the disk does not take it.
        MissingExtraError: matplotlib or Jinja2 is not installed (extra ``report``).
    """
    measured = validity(comparison)
    tables = spread_tables(comparison, measured)
    drawings = list(_drawings(comparison))
    page = _page(comparison, tables, drawings)
    with new_folder(out) as folder:
        for name in (TABLES, FIGURES):
            (folder / name).mkdir()
        for table in tables:
            (folder / TABLES / f"{table.name}.csv").write_text(table.to_csv(), encoding="utf-8")
        for drawing in drawings:
            (folder / FIGURES / f"{drawing.name}.svg").write_text(drawing.svg + "\n", encoding="utf-8")
            assert drawing.png is not None
            (folder / FIGURES / f"{drawing.name}.png").write_bytes(drawing.png)
        (folder / SPREADS).write_text(_spreads(comparison), encoding="utf-8")
        (folder / PAGE).write_text(page, encoding="utf-8")
        write_json(folder / NUMBERS, to_json(comparison) | {"validity": _plain_validity(measured)})
    return Path(out) / PAGE


def _plain_validity(measured: Sequence[Validity]) -> dict[str, object]:
    """By candidate, with the sides by name."""

    def sides(of: Mapping[Side, object]) -> dict[str, object]:
        return {side.value: value for side, value in of.items()}

    return {
        v.name: {
            "gain": v.gain,
            "gain_of_strangers": v.gain_of_strangers,
            "correlation": v.correlation,
            "interval_score": v.interval_score,
            "asymmetric": sides(v.asymmetric),
            "coverage": sides(v.coverage),
            "noise_share": sides(v.noise_share),
            "variation": sides(v.variation),
            "error_share": sides(v.error_share),
        }
        for v in measured
    }


def _spreads(comparison: SpreadComparison) -> str:
    """One line a tested visit: truth, then centre, spread and both kinds of ends of every spread model."""
    subjects = comparison.patients.subjects
    columns = {"sbr": subjects.truth}
    for judged in comparison.judged:
        columns |= {
            f"{judged.name}:centre": judged.model.tested.centre,
            f"{judged.name}:spread": judged.model.tested.spread,
        }
        for rule, (lower, upper) in judged.ends.items():
            columns |= {f"{judged.name}:{rule}:lower": lower, f"{judged.name}:{rule}:upper": upper}
    lines = ["\t".join(["participant_id", "session_id", *(f"{c}_{s.value}" for c in columns for s in Side)])]
    for i, visit in enumerate(subjects.participants):
        values = [float(array[i, side.index]) for array in columns.values() for side in Side]
        lines.append("\t".join([visit.participant_id, visit.session_id, *(f"{v:.6g}" for v in values)]))
    return "\n".join(lines) + "\n"


# -- Figures ------------------------------------------------------------------------------------------------------


def _shown(comparison: SpreadComparison) -> dict[str, Judged]:
    """What the figures show, under short names: one MC beside, plain and symmetric MC, the width without a spread, and
    the oracle."""
    beside = {j.name: j.title for j in comparison.judged if j.name == "beside-1"}
    short = {"mc": "MC", DEFAULT_MODE: f"Symmetric MC, {DEFAULT_MODE}", "proportional": "No spread, width ~ prediction"}
    wanted = beside | short | {"oracle-single": "Oracle, sees own side"}
    return {title: comparison[name] for name, title in wanted.items() if name in comparison}


def _drawings(comparison: SpreadComparison) -> Iterator[Drawing]:
    shown, label, y = _shown(comparison), comparison.label, comparison.patients.subjects.truth
    level = comparison.settings.level

    def drawn(kind: str, figure: Figure, caption: str, alt: str) -> Drawing:
        return Drawing(kind, kind, caption, alt, label, figures.figure_svg(figure, alt), figures.figure_png(figure))

    names = ", ".join(shown)
    curves = {t: (j.curves[Side.RIGHT], j.curves[Side.LEFT]) for t, j in shown.items() if len(j.curves) == 2}
    if curves:
        yield drawn(
            "sharpness-cp",
            figures.sharpness_cp_figure(curves, cp=level, label=label),
            f"Sharpness against CP as the multiplier grows. Star: optimum of both sides; dot: Sharpness @ CP {level:g}."
            " Traced on the tested patients: a description, not a promise.",
            f"Sharpness-CP curves of {names}, one panel a side.",
        )
    error = {title: np.abs(y - j.model.tested.centre) for title, j in shown.items()}
    width = {title: j.ends["nominal-cp"][1] - j.ends["nominal-cp"][0] for title, j in shown.items()}
    yield drawn(
        "rejection",
        spread_figures.rejection_figure(error, width, label=label),
        "Mean absolute error of those with the narrowest intervals, from a few patients on the left to all on the "
        "right. A width that knows nothing of the error gives a level line.",
        f"Error-rejection curves of {names}, one panel a side.",
    )
    pit = {title: j.distribution.pit(y) for title, j in shown.items() if j.distribution is not None}
    if pit:
        yield drawn(
            "calibration",
            spread_figures.calibration_figure(pit, label=label),
            "Observed against nominal coverage of the central intervals of each distribution; the diagonal is right. "
            "Below it the distributions are too narrow.",
            f"Calibration curves of {names}, one panel a side.",
        )
        yield drawn(
            "pit",
            spread_figures.pit_figure(pit, label=label),
            "PIT histograms. Level: right. A hump: too wide; a bowl: too narrow; a slope: a bias.",
            f"PIT histograms of {names}.",
        )


# -- Page ---------------------------------------------------------------------------------------------------------


def _page(comparison: SpreadComparison, tables: Sequence[Table], drawings: Sequence[Drawing]) -> str:
    return render(
        "page.html",
        title="Spreads and intervals side by side",
        headline=headline(comparison),
        opening=Section("key", "In four numbers"),
        key_numbers=_key_numbers(comparison),
        sections=list(_sections(comparison, {t.name: t.to_html() for t in tables}, {d.kind: d for d in drawings})),
    )


def _key_numbers(comparison: SpreadComparison) -> list[KeyNumber]:
    level = f"{100 * comparison.settings.confidence:g} %: "

    def of(name: str, score: str, words: str) -> KeyNumber:
        sides = comparison[name].scores.get(score)
        cell = Cell.of(None if sides is None else sides.average)
        return KeyNumber(f"{words}, average of both sides", cell.text, level + cell.interval if cell.interval else "")

    cp = comparison.settings.level
    return [
        of("mc", "sharpness_at_cp", f"Sharpness @ CP {cp:g}, MC"),
        of(DEFAULT_MODE, "sharpness_at_cp", f"Sharpness @ CP {cp:g}, symmetric MC"),
        of("proportional", "sharpness_at_cp", f"Sharpness @ CP {cp:g}, width in proportion to the prediction"),
        of(DEFAULT_MODE, "width_error_correlation", "Rank correlation of symmetric MC's width and |error|"),
    ]


def _sections(
    comparison: SpreadComparison, html: Mapping[str, str], drawings: Mapping[str, Drawing]
) -> Iterator[Section]:
    def tables(*names: str) -> tuple[str, ...]:
        return tuple(html[name] for name in names if name in html)

    def drawn(*kinds: str) -> tuple[Drawing, ...]:
        return tuple(drawings[kind] for kind in kinds if kind in drawings)

    yield Section(
        "paper", "The paper's tables", drawings=drawn("sharpness-cp"), tables=tables("paper", "optimum", "published")
    )
    yield Section(
        "scores",
        "Every way to make a spread",
        paragraphs=(
            "All rows see the same patients, and each takes its multiplier from the same calibration patients. A "
            "spread that is not better than the two rows without one has told nothing about where the error is.",
        ),
        tables=tables("scores", "distributions", "efficiency"),
    )
    yield Section("width", "Does the width know the error?", drawings=drawn("rejection"))
    yield Section("calibration", "Calibration", drawings=drawn("calibration", "pit"), tables=tables("conformal"))
    yield Section(
        "groups",
        "Coverage by group",
        tables=tables("groups", "worst-gap"),
        more=tuple(Listing("Every spread model", table) for table in tables("groups-all")),
    )
    yield Section(
        "validity",
        "The candidates for the symmetric interval",
        paragraphs=(
            "All of them are reconstructions of the paper's Algorithm 1, whose body is not known, but for MC, which is "
            "plain, and s7, which is an extension.",
        ),
        tables=tables("validity"),
    )
    yield Section(
        "made", "How it was made", listings=(Listing("Settings", _made(comparison)),), points=comparison.notes
    )


def _made(comparison: SpreadComparison) -> str:
    s, people = comparison.settings, comparison.patients
    named = {
        "run": comparison.run.name,
        "weights SHA-256": comparison.card.get("sha256", {}).get("model.safetensors", "unknown"),
        "beside": ", ".join(comparison.beside) or "none",
        "ensemble with": ", ".join(comparison.ensemble) or "none",
        "tested": f"{people.tested_cohort}, {people.split}",
        "calibrated on": f"{people.calibration_cohort}, {len(people.calibrating)} patients",
        "Monte-Carlo draws": s.samples,
        "level": f"{s.level:g}",
        "resamples": s.resamples,
        "seed": s.seed,
    }
    return "\n".join(f"{name:18}{value}" for name, value in named.items())
