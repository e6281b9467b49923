"""The outcome of a study for its readers: tables, figures, one page, a methods section and two checklists.

Everything is written into the study folder, each file whole or not at all, the page last; a second call writes all of
it again and removes what the first one wrote and the second did not. What was found is said by the comparison's own
verdicts alone.
"""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from nigradat import __version__
from nigradat.anatomy import Side
from nigradat.evaluation import figures, published
from nigradat.evaluation.comparison import Comparison, MethodResult
from nigradat.evaluation.contrasts import FAMILY, Contrast, Pair
from nigradat.evaluation.latex import to_latex
from nigradat.evaluation.predictions import FitRecord, Predictions
from nigradat.evaluation.study_tables import study_tables
from nigradat.evaluation.study_tables.contrasts import PRIMARY_NAMES, contrast_title
from nigradat.evaluation.study_tables.fits import LATE_MEANS, TimingRow, is_late
from nigradat.evaluation.study_tables.parts import mode_title
from nigradat.evaluation.summary import PHANTOM_WARNING
from nigradat.evaluation.table import Cell, Table
from nigradat.io.files import to_json, write_text
from nigradat.metrics import Estimate, sharpness_cp_curve
from nigradat.models.registry import get_method
from nigradat.models.symmetric import PAPER_SBR_MAX
from nigradat.models.weights import INTENDED_USE
from nigradat.report.checklists import claim, tripod_ai
from nigradat.report.layout import Drawing, KeyNumber, Listing, Section, render
from nigradat.report.methods_text import (
    StudyFacts,
    cohort_command,
    count,
    design_sentence,
    gather_facts,
    joined,
    methods_text,
    parts_sentence,
    study_command,
)
from nigradat.study.folder import StudyFolder, read_readings
from nigradat.training.fit import LOG_NAME

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PAGE, METHODS, MARKER = "report.html", "methods.md", "report.json"
FORMAT: Final = "nigradat study report"
TITLE: Final = "Predicted striatal uptake: a comparison of methods"
MAIN: Final = ("vgg-small", "sym-vgg-plus", "fused")  # whose single predictions are drawn
CURVES: Final = (("vgg-small", "mc"), ("sym-vgg-plus", "mc"), ("sym-vgg-plus", "s1"))  # the rows of the paper's table


def write_comparison(
    folder: str | os.PathLike[str],
    comparison: Comparison,
    records: Sequence[FitRecord],
    plan: Mapping[str, Any],
    timing: Sequence[TimingRow] = (),
) -> Path:
    """Write everything that a study's reader needs into its folder.

    ``tables/*.csv`` and ``*.tex``, ``figures/*.svg``, ``methods.md``, ``checklists/tripod-ai.md`` and ``claim.md``,
    ``report.json`` (what was written) and, last, ``report.html``, one file that opens offline.

    Args:
        folder: of the study.
        comparison: of the records.
        records: every fit, baseline, derived predictor and oracle; failed ones included.
        plan: the content of ``study.json``.
        timing: rows of computation time; empty for none.

    Returns:
        The path of ``report.html``.

    Raises:
        OutputError: the disk does not take the result.
        MissingExtraError: matplotlib or Jinja2 is not installed (extra ``report``).
    """
    out, facts = Path(folder), gather_facts(records, plan)
    readings = read_readings(StudyFolder(out), comparison.splits)
    tables = study_tables(comparison, facts.records, timing, facts.label, readings)
    drawings = tuple(_drawings(comparison, facts))
    methods = methods_text(facts, comparison)
    names = {table.name for table in tables}
    page = _page(comparison, facts, tables, drawings, methods)
    files = {
        **{f"tables/{table.name}.csv": table.to_csv() for table in tables},
        **{f"tables/{table.name}.tex": to_latex(table) for table in tables},
        **{f"figures/{drawing.name}.svg": drawing.svg + "\n" for drawing in drawings},
        METHODS: methods,
        "checklists/tripod-ai.md": tripod_ai(facts, names),
        "checklists/claim.md": claim(facts, names),
    }
    older = _written_before(out)
    for name, text in files.items():
        write_text(out / name, text)
    write_text(out / MARKER, to_json({"format": FORMAT, "nigradat": __version__, "files": sorted((*files, PAGE))}))
    write_text(out / PAGE, page)
    for name in older - files.keys() - {PAGE}:
        (out / name).unlink(missing_ok=True)
    return out / PAGE


def sbr_scale(plan: Mapping[str, Any]) -> float:
    """Largest SBR of the models' scale, the denominator of Sharpness."""
    return float(plan.get("recipe", {}).get("sbr_max", PAPER_SBR_MAX))


def _written_before(out: Path) -> set[str]:
    """Files of an earlier call, as its marker names them, inside the folder."""
    try:
        data = json.loads((out / MARKER).read_text(encoding="utf-8"))
        names = {str(name) for name in data["files"]} if data.get("format") == FORMAT else set()
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return set()
    return {name for name in names if not Path(name).is_absolute() and ".." not in Path(name).parts}


# -- Figures ------------------------------------------------------------------------------------------------------


def _drawings(comparison: Comparison, facts: StudyFacts) -> Iterator[Drawing]:
    def drawn(name: str, kind: str, figure: Figure, caption: str, alt: str) -> Drawing:
        return Drawing(name, kind, caption, alt, facts.label, figures.figure_svg(figure, alt))

    label = facts.label
    yield drawn("methods", "methods", *_forest(comparison, label))
    if comparison.contrasts:
        yield drawn("contrasts", "contrasts", *_contrast_forest(comparison, label))
    if found := _curves(facts, sbr_scale(facts.plan), comparison.settings.level):
        yield drawn("sharpness-cp", "sharpness-cp", *found)
    for record in _main_records(facts):
        for kind, figure, caption, alt in _of_one_fit(record, label):
            yield drawn(f"{kind}-{record.method}", kind, figure, caption, alt)
    if found := _convergence(facts):
        yield drawn("convergence", "convergence", *found)


def _forest(comparison: Comparison, label: str) -> tuple[Figure, str, str]:
    rows = [m for m in comparison.methods if m.fits and m.role != "oracle"]
    panels = {
        PRIMARY_NAMES[key]: {
            m.title: estimate for m in rows if (estimate := _headline(m, key)) is not None and m.scores[key].average
        }
        for key in ("pearson_r", "mae")
    }
    lines = {
        PRIMARY_NAMES[key]: {
            m.title: estimate.value
            for m in comparison.methods
            if m.role == "oracle" and (estimate := _headline(m, key)) is not None
        }
        for key in ("pearson_r", "mae")
    }
    best = " Broken lines: the phantom's oracles, bounds and no methods." if any(lines.values()) else ""
    figure = figures.forest_figure(panels, lines=lines, title="R and MAE by method, average of both sides", label=label)
    caption = f"Mean over the fits of a method with {_percent_intervals(comparison)} over patients.{best}"
    return figure, caption, f"R and MAE with intervals of {joined(m.title for m in rows)}."


def _contrast_forest(comparison: Comparison, label: str) -> tuple[Figure, str, str]:
    panels: dict[str, dict[str, Estimate]] = {}
    for c in comparison.contrasts:
        key = c.pair.primary
        name = f"difference in {PRIMARY_NAMES[key]}"
        if c.primary is not None:
            panels.setdefault(name, {})[contrast_title(c)] = c.primary
    figure = figures.forest_figure(
        panels,
        lines={name: {"no difference": 0.0} for name in panels},
        stacked=True,
        title="Differences between methods: first less second",
        label=label,
    )
    caption = (
        f"Difference in the score that each question rests on, with {_percent_intervals(comparison)} over patients. "
        "MAE below 0, R and Sharpness above 0 are in favour of the first."
    )
    return figure, caption, f"Forest plot of {len(comparison.contrasts)} differences between methods."


def _percent_intervals(comparison: Comparison) -> str:
    return f"{100 * comparison.settings.confidence:g} % intervals"


def _first_record(facts: StudyFacts, method: str) -> FitRecord | None:
    """Of the first split and seed that ended."""
    return next((r for r in facts.ended if r.method == method), None)


def _main_records(facts: StudyFacts) -> list[FitRecord]:
    """The methods whose single predictions are drawn: those of the claims, else the first two networks."""
    found = [r for name in MAIN if (r := _first_record(facts, name)) is not None]
    if any(r.role == "model" for r in found):
        return found
    return [r for name in list(facts.titles("model"))[:2] if (r := _first_record(facts, name)) is not None]


def _which(record: FitRecord) -> str:
    return f"{record.split}, seed {record.seed}"


def _of_one_fit(record: FitRecord, label: str) -> Iterator[tuple[str, Figure, str, str]]:
    """Scatter and Bland-Altman of a method's first fit, one visit a patient."""
    predictions = record.predictions()
    rows = _first_visits(predictions)
    truth, predicted = predictions.truth[rows], predictions.predicted[rows]
    if not np.isfinite(predicted).all() or len(rows) < 3:
        return
    ends = next((pair for mode, pair in predictions.intervals.items() if mode in ("s1", "s7")), None)
    lower, upper = (None, None) if ends is None else (ends[0][rows], ends[1][rows])
    if lower is not None and upper is not None and not np.isfinite([lower, upper]).all():
        lower = upper = None
    bars = "" if lower is None else " Bars: calibrated intervals; dark ones miss the truth."
    which = f"One fit: {_which(record)}."
    yield (
        "scatter",
        figures.scatter_figure(truth, predicted, lower, upper, title=f"{record.title}, {_which(record)}", label=label),
        f"Predicted against true SBR of {record.title}, one point a patient. {which}{bars}",
        f"Scatter plot of predicted against true SBR of {record.title}.",
    )
    yield (
        "bland-altman",
        figures.bland_altman_figure(truth, predicted, title=f"Bland-Altman: {record.title}", label=label),
        f"Difference against mean, both sides, limits of agreement for two sides a patient with their intervals. "
        f"{which}",
        f"Bland-Altman plot of {record.title}.",
    )


def _first_visits(predictions: Predictions) -> np.ndarray:
    return np.unique(np.array(predictions.patients), return_index=True)[1]


def _curves(facts: StudyFacts, scale: float, level: float) -> tuple[Figure, str, str] | None:
    """The curves of the paper's three rows on one and the same split."""
    curves = {}
    for method, mode in CURVES:
        record = _first_record(facts, method)
        if record is None:
            continue
        predictions = record.predictions()
        if mode not in predictions.spreads or not np.isfinite(predictions.predicted).all():
            continue
        centre, spread = predictions.spreads[mode]
        right, left = (
            sharpness_cp_curve(predictions.truth[:, i], centre[:, i], spread[:, i], scale)
            for i in (Side.RIGHT.index, Side.LEFT.index)
        )
        curves[f"{mode_title(mode)} + {record.title}"] = (right, left)
    if not curves:
        return None
    figure = figures.sharpness_cp_figure(curves, cp=level, title="Sharpness against coverage", label=facts.label)
    caption = (
        f"Sharpness against CP as the multiplier k grows. Star: optimum of both sides; dot: Sharpness @ CP {level:g}. "
        "First split and seed; the table has the means over all fits. Traced on the tested patients: a description, "
        "not a promise."
    )
    return figure, caption, f"Sharpness-CP curves of {joined(curves)}, one panel a side."


def _convergence(facts: StudyFacts) -> tuple[Figure, str, str] | None:
    courses: dict[str, list[figures.Convergence]] = {title: [] for title in facts.titles("model").values()}
    for record in facts.ended:
        if record.role == "model" and (course := _course(record, sbr_scale(facts.plan))) is not None:
            courses.setdefault(record.title, []).append(course)
    courses = {title: fits for title, fits in courses.items() if fits}
    if not courses:
        return None
    figure = figures.convergence_figure(courses, label=facts.label)
    late = sum(is_late(r) for r in facts.ended if r.role == "model")
    fits = sum(map(len, courses.values()))
    caption = (
        "Training by epoch, one line a fit; dots: the epoch that was kept. The training loss (with dropout, "
        "augmentation and the symmetric term where there is one) is shown as the RMSE that it amounts to; that of a "
        "log-normal head, a likelihood, is not drawn, nor are epochs of the warm-up, which see no label. "
        f"In {late} of {fits} fits the kept epoch is among the last tenth. {LATE_MEANS}"
    )
    return figure, caption, f"Training curves of {fits} fits of {joined(courses)}."


def _course(record: FitRecord, scale: float) -> figures.Convergence | None:
    """From the log of a run; None where there is none."""
    try:
        with (record.folder or Path()).joinpath(LOG_NAME).open(encoding="utf-8", newline="") as stream:
            rows = list(csv.DictReader(stream))
        epoch, loss, stop = (np.array([float(row[key]) for row in rows]) for key in ("epoch", "train_loss", "stop_mse"))
    except (OSError, ValueError, KeyError, TypeError):
        return None
    stop = np.where(np.isfinite(loss), stop, np.nan)  # in the warm-up the output layer has learned nothing yet
    # the sum of the answered sides' squared errors in units of the scale; a likelihood has no such reading
    method = get_method(record.method)
    sides = 2 if method.sharing in ("shared", "separate") else 1
    is_error = method.output == "sbr"
    train = scale * np.sqrt(np.maximum(loss, 0) / sides) if is_error else np.full_like(loss, np.nan)
    return figures.Convergence(epoch + 1, train, np.sqrt(stop), record.best_epoch) if len(rows) else None


def _headline(m: MethodResult, key: str) -> Estimate | None:
    return m.scores[key].headline if key in m.scores else None


# -- What was found -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Claim:
    """A claim of the paper and this study's answer."""

    question: str
    answer: str
    text: str


def headline(comparison: Comparison, facts: StudyFacts) -> str:
    """What was trained on what and tested on whom: the first sentence of the page."""
    models = list(facts.titles("model").values())
    trained = [r for r in facts.ended if r.role == "model"]
    if not trained:
        return f"No network of this study ended its training. {PHANTOM_WARNING if facts.is_phantom else ''}".strip()
    widths = next((c["widths"] for c in facts.configs.values() if c.get("widths")), None)
    width = f" ({widths[0]}..{widths[-1]})" if widths else ""
    sizes = sorted({r.train_patients for r in trained})
    patients = f"{sizes[0]:,}" if len(sizes) == 1 else f"{sizes[0]:,} to {sizes[-1]:,}"
    fits = f"{count(len(trained), 'fit')} on {count(len(comparison.splits), 'split')}"
    whom = f"{patients} patients of a {facts.cohort_phrase}" if facts.is_phantom else f"{patients} patients"
    tested = f"tested on {comparison.n_patients:,} other patients{' of it' if facts.is_phantom else ''}"
    verb = "each trained" if len(models) > 1 else "trained"
    text = f"{joined(models)}{width}, {verb} on {whom} ({fits}), {tested}."
    return f"{text} {PHANTOM_WARNING}" if facts.is_phantom else text


def claims(comparison: Comparison) -> list[Claim]:
    """The paper's claims, answered by the contrasts' own verdicts: never more than their intervals allow."""
    return [_answered(pair, comparison.contrast(pair.name)) for pair in FAMILY if pair.claim]


def _answered(pair: Pair, contrast: Contrast | None) -> Claim:
    if contrast is None:
        return Claim(pair.question, "Not tested", "Its methods did not both run here.")
    answer = "Shown" if contrast.better else _NOT_SHOWN if contrast.answer == "unclear" else "The opposite was found"
    verdict = contrast.verdict.removeprefix(f"{_NOT_SHOWN}: ")
    return Claim(pair.question, answer, f"{contrast_title(contrast)}: {verdict}")


_NOT_SHOWN: Final = "Not shown"


def _findings(comparison: Comparison, facts: StudyFacts) -> Iterator[str]:
    """Everything else that was asked, in the verdicts' words."""
    for contrast in comparison.contrasts:
        if not contrast.pair.claim and not contrast.pair.extension:
            yield f"{contrast.pair.question}. {contrast_title(contrast)}: {contrast.verdict}"
    for earned in comparison.earned:
        yield f"Extension {earned.title}: {earned.reason}"
    trained = [r for r in facts.ended if r.role == "model"]
    if trained:
        late = sum(map(is_late, trained))
        yield f"In {late} of {len(trained)} trained fits the kept epoch is among the last tenth of all. {LATE_MEANS}"
    for failed in facts.failed:
        yield f"Failed: {failed.title}, {_which(failed)}: {failed.failed}"


def _key_numbers(comparison: Comparison) -> list[KeyNumber]:
    """R and MAE of the main methods."""
    rows = [m for name in MAIN for m in comparison.methods if m.method == name and m.fits]
    rows = rows or [m for m in comparison.methods if m.fits and m.role == "model"][:2]
    out = []
    for m in rows:
        for key in ("pearson_r", "mae"):
            cell = Cell.of(_headline(m, key))
            out.append(KeyNumber(f"{PRIMARY_NAMES[key]}, {m.title}", cell.text, cell.interval))
    return out


# -- Page ---------------------------------------------------------------------------------------------------------


def _page(
    comparison: Comparison, facts: StudyFacts, tables: Sequence[Table], drawings: Sequence[Drawing], methods: str
) -> str:
    shown = {table.name: Listing(table.title, table.to_html()) for table in tables}
    return render(
        "study.html",
        title=TITLE,
        headline=headline(comparison, facts),
        opening=Section("found", "What this study found"),
        key_numbers=_key_numbers(comparison),
        sections=list(_sections(facts, shown, drawings, methods)),
        note=facts.plan.get("note", ""),
        claims=claims(comparison),
        findings=list(_findings(comparison, facts)),
        is_phantom=facts.is_phantom,
        design=f"{design_sentence(facts)} {parts_sentence(facts)}",
        paper=f"The paper tested {published.TEST_PATIENTS} patients and gave no intervals.",
    )


def _sections(
    facts: StudyFacts, shown: Mapping[str, Listing], drawings: Sequence[Drawing], methods: str
) -> Iterator[Section]:
    def tables(*names: str) -> tuple[str, ...]:
        return tuple(shown[name].text for name in names if name in shown)

    def folded(*names: str) -> tuple[Listing, ...]:
        return tuple(shown[name] for name in names if name in shown)

    def drawn(*kinds: str) -> tuple[Drawing, ...]:
        return tuple(d for kind in kinds for d in drawings if d.kind == kind)

    yield Section(
        "accuracy",
        "Accuracy",
        drawings=drawn("methods"),
        tables=tables("accuracy", "published-accuracy"),
        more=folded("accuracy-pooled", "accuracy-more", "association", "accuracy-log", "asymmetry", "variation"),
    )
    yield Section(
        "differences",
        "Differences between methods",
        drawings=drawn("contrasts"),
        tables=tables("contrasts", "contrast-tests"),
    )
    yield Section("ablation", "Ablation", tables=tables("ablation"))
    yield Section("extensions", "Extensions", tables=tables("extensions"))
    yield Section("skill", "Against the best that can be known", tables=tables("skill"))
    yield Section(
        "uncertainty",
        "Uncertainty",
        (
            "Calibrated intervals were fixed on patients that served for nothing else. The curve and the table of "
            "Sharpness are traced on the tested patients, as in the paper.",
        )
        if "uncertainty" in shown
        else (),
        drawings=drawn("sharpness-cp"),
        tables=tables("uncertainty", "published-uncertainty", "intervals"),
        more=folded("uncertainty-modes", "intervals-modes"),
    )
    yield Section(
        "low-uptake",
        "Low uptake, and earlier works",
        tables=tables("binary", "previous", "readings", "published-agreement"),
    )
    yield Section(
        "agreement",
        "Single predictions",
        drawings=drawn("scatter", "bland-altman"),
        more=folded("bland-altman"),
    )
    yield Section("training", "Training", drawings=drawn("convergence"), tables=tables("time"), more=folded("fits"))
    yield Section("splits", "Splits", tables=tables("splits"))
    commands = "\n".join(command for command in (cohort_command(facts), study_command(facts)) if command)
    yield Section(
        "methods",
        "Methods",
        ("The same text is in methods.md; the checklists TRIPOD+AI and CLAIM lie in checklists/.",),
        listings=(Listing("methods.md", methods), Listing("Commands", commands)),
    )
    yield Section("limits", "Limitations", points=tuple(limitations(facts)))


def limitations(facts: StudyFacts) -> Iterator[str]:
    """What does not follow from this study."""
    if facts.is_phantom:
        yield (
            "The digital phantom is circular: networks are trained and tested on the same generator, which was "
            "calibrated to the paper's range of SBR and to its R: that R comes out near the paper's is by design. What "
            "is tested is the software, the statistics, the coverage and the order of methods below a known ceiling; "
            "nothing about clinical validity follows."
        )
    else:
        yield (
            "One cohort: how the methods do on other scanners, other SPECT programs and other patients is not known "
            "from here."
        )
    tested = sorted({r.test_patients for r in facts.ended if r.role == "model"})
    if tested:
        yield (
            f"The fits were tested on {tested[0]:,}{f' to {tested[-1]:,}' if len(tested) > 1 else ''} patients each. "
            "With 55, as in the paper, a true R of .75 is measured anywhere from .61 to .86, and an observed coverage "
            "of 52 of 55 is compatible with 85 to 99 %."
        )
    seeds: dict[tuple[str, str], set[int]] = {}
    for r in facts.ended:
        if r.role == "model":
            seeds.setdefault((r.method, r.split), set()).add(r.seed)
    most = max(map(len, seeds.values()), default=0)
    yield (
        "Intervals over patients take the trained networks as given; what another training would have given is seen "
        f"only in the spread between fits ({count(most, 'seed')} a split, "
        f"{count(len(facts.splits), 'split')})."
    )
    if facts.failed:
        yield f"Fits that failed: {len(facts.failed)}. A method's numbers rest on those that ended."
    yield (
        "Reconstructions: the weight of the symmetric loss, where dropout sits and how strong it is, the symmetric MC "
        "interval (the body of the paper's Algorithm 1 is not known), the training recipe, and the definitions of "
        "Sharpness, Optimal and Sharpness @ CP, recovered from the arithmetic of the published tables."
    )
    yield (
        "One recipe for all: every method was trained with the recipe that was found for the symmetric VGG on "
        "development cohorts, without a search of its own; another method might do better with another recipe."
    )
    for sentence in published.INCONSISTENCIES:
        yield f"The published tables: {sentence}"
    yield (
        "The promise of a calibrated interval holds on average over calibrations, for new patients of the same kind, "
        "on each side by itself: none for subgroups, for both sides at once, or for another scanner."
    )
    yield "SBR of different tracers, cameras and programs is not on one scale; these numbers hold for the labels' own."
    yield INTENDED_USE
