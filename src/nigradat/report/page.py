"""The folder of an evaluation: predictions, tables, figures, numbers, and one page that shows them all.

``report.html`` is one file that opens offline: figures are inline SVG, the style is inside, there is no script. Its
first line says what was trained on what.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from nigradat.anatomy import Side
from nigradat.errors import OutputError
from nigradat.evaluation import figures
from nigradat.evaluation.evaluate import TEST, WHOLE
from nigradat.evaluation.result import Evaluation, Intervals, Scored
from nigradat.evaluation.summary import headline
from nigradat.evaluation.summary import to_json as summary_json
from nigradat.evaluation.table import Cell, Table
from nigradat.evaluation.tables import check_comparable, methods, result_tables
from nigradat.io.files import new_folder, to_json
from nigradat.metrics import Estimate
from nigradat.models.weights import INTENDED_USE
from nigradat.report.layout import Drawing, KeyNumber, Listing, Section, render

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PAGE, NUMBERS, PREDICTIONS, TABLES, FIGURES = "report.html", "metrics.json", "predictions", "tables", "figures"
FORMAT: Final = "nigradat evaluation"


# -- Folder -------------------------------------------------------------------------------------------------------


def write_evaluation(
    evaluations: Evaluation | Sequence[Evaluation], out: str | os.PathLike[str], title: str = ""
) -> Path:
    """Write one evaluation, or several of the same patients, into one folder.

    ``predictions.tsv`` (``predictions-METHOD.tsv`` for several), ``tables/*.csv``, ``figures/*.svg`` and ``*.png``,
    ``metrics.json`` (flat numbers) and ``report.html``. The folder appears whole or not at all. One that holds an older
    evaluation of the same weights is replaced; anything else is left alone.

    Args:
        evaluations: of the same visits, in the order of the rows.
        out: folder.
        title: of the page.

    Returns:
        The folder.

    Raises:
        CohortError: evaluations of different patients.
        OutputError: ``out`` holds something else.
        MissingExtraError: matplotlib or Jinja2 is not installed (extra ``report``).

    Example:
        >>> write_evaluation(nigradat.evaluate("run", "cohort"), "run/evaluation")                # doctest: +SKIP
    """
    several = (evaluations,) if isinstance(evaluations, Evaluation) else tuple(evaluations)
    tables = result_tables(several)
    names = _names(several)
    drawings = list(_drawings(several, names))
    page = _page(several, tables, drawings, title or "Predicted striatal uptake: an evaluation")
    with _place(Path(out), several) as folder:
        for name, evaluation in names.items():
            suffix = f"-{name}" if len(several) > 1 else ""
            _write(folder / f"{PREDICTIONS}{suffix}.tsv", _predictions(evaluation))
        for table in tables:
            _write(folder / TABLES / f"{table.name}.csv", table.to_csv())
        for drawing in drawings:
            _write(folder / FIGURES / f"{drawing.name}.svg", drawing.svg + "\n")
            assert drawing.png is not None
            _write(folder / FIGURES / f"{drawing.name}.png", drawing.png)
        _write(folder / PAGE, page)
        files = sorted(str(path.relative_to(folder).as_posix()) for path in folder.rglob("*") if path.is_file())
        marker = {
            "format": FORMAT,
            "weights": _weights(several),
            "files": files,
            "evaluations": {name: summary_json(evaluation) for name, evaluation in names.items()},
        }
        _write(folder / NUMBERS, to_json(marker))
    return Path(out)


def report(evaluations: Sequence[Evaluation], folder: str | os.PathLike[str], title: str) -> Path:
    """Several methods on the same patients as one page: :func:`write_evaluation` under a title of one's own.

    Returns:
        The path of ``report.html``.

    Raises:
        CohortError, OutputError, MissingExtraError: as :func:`write_evaluation`.
    """
    return write_evaluation(evaluations, folder, title) / PAGE


def check_place(out: str | os.PathLike[str], weights: Sequence[str] | None = None) -> None:
    """Refuse an output folder that holds something other than an evaluation, or one of other weights.

    Worth a call before long work; :func:`write_evaluation` does it again.

    Args:
        out: the folder; it need not exist.
        weights: SHA-256 of the weights that are evaluated; None accepts those of any.

    Raises:
        OutputError: naming what lies there.
    """
    out = Path(out)
    if not os.path.lexists(out) or (out.is_dir() and not any(out.iterdir())):
        return
    there = _read_marker(out)
    if there is None:
        raise OutputError(f"{out} exists and is no evaluation", "a new or empty folder", "Choose another name")
    ours = {NUMBERS, *there["files"]}
    foreign = sorted(p.relative_to(out).as_posix() for p in out.rglob("*") if not p.is_dir())
    foreign = [name for name in foreign if name not in ours]
    if foreign:
        raise OutputError(
            f"{out} holds files that are not of the evaluation: {', '.join(foreign[:5])}",
            "nothing that would be lost when it is replaced",
            "Move them away, or choose another folder",
        )
    if weights is not None and there["weights"] != list(weights):
        raise OutputError(f"{out} holds the evaluation of another model", "one of this model", "Choose another folder")


def _write(path: Path, content: str | bytes) -> None:
    """Into the hidden folder, which is pushed to the disk as a whole at the end."""
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)


def _read_marker(folder: Path) -> dict[str, Any] | None:
    try:
        data = json.loads((folder / NUMBERS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    good = isinstance(data, dict) and data.get("format") == FORMAT and {"files", "weights"} <= data.keys()
    return data if good else None


def _weights(evaluations: Sequence[Evaluation]) -> list[str]:
    return [str(e.card.get("sha256", {}).get("model.safetensors")) for e in evaluations]


@contextmanager
def _place(out: Path, evaluations: Sequence[Evaluation]) -> Iterator[Path]:
    """A folder to fill that takes the place of ``out`` at the end; what was there stays until then."""
    check_place(out, _weights(evaluations))
    if not out.is_dir():
        with new_folder(out) as folder:
            yield folder
        return
    parent = out.absolute().parent
    aside = Path(tempfile.mkdtemp(prefix=f".{out.name}.", suffix=".old", dir=parent))
    try:
        with new_folder(aside / "new") as folder:
            yield folder
        os.rename(out, aside / "old")
        os.rename(aside / "new", out)
    finally:
        if not out.exists() and (aside / "old").exists():
            os.rename(aside / "old", out)
        shutil.rmtree(aside, ignore_errors=True)


def _names(evaluations: Sequence[Evaluation]) -> dict[str, Evaluation]:
    """A name of its own for each: the method's, or the run folder's where methods repeat."""
    by_method = [e.model.name for e in evaluations]
    by_run = [e.run.name for e in evaluations]
    for names in (by_method, by_run, [f"{i + 1}-{name}" for i, name in enumerate(by_run)]):
        if len(set(names)) == len(names):
            return dict(zip(names, evaluations, strict=True))
    raise AssertionError("numbered names are distinct")


def _predictions(evaluation: Evaluation) -> str:
    """One line a visit: truth, point prediction, spreads, interval, baselines and oracles, right and left."""
    columns: dict[str, np.ndarray] = {"sbr": evaluation.subjects.truth, "predicted": evaluation.model.predicted}
    for traced in evaluation.model.traces:
        columns |= {f"{traced.name}_mean": traced.centre, f"{traced.name}_sd": traced.spread}
    for intervals in evaluation.model.intervals:
        columns |= {"lower": intervals.lower, "upper": intervals.upper}
    columns |= {other.name.replace("-", "_"): other.predicted for other in (*evaluation.baselines, *evaluation.oracles)}
    header = ["participant_id", "session_id", *(f"{name}_{side.value}" for name in columns for side in Side)]
    lines = ["\t".join(header)]
    for i, visit in enumerate(evaluation.subjects.participants):
        values = [float(array[i, side.index]) for array in columns.values() for side in Side]
        shown = ["n/a" if np.isnan(v) else f"{v:.6g}" for v in values]
        lines.append("\t".join([visit.participant_id, visit.session_id, *shown]))
    return "\n".join(lines) + "\n"


# -- Figures ------------------------------------------------------------------------------------------------------


def _drawings(evaluations: Sequence[Evaluation], names: Mapping[str, Evaluation]) -> Iterator[Drawing]:
    """Scatter, Bland-Altman, sharpness-CP curve and training of each model that answers for both sides."""
    titled = methods(evaluations)
    for (name, evaluation), model in zip(names.items(), titled, strict=False):
        y, p, label = evaluation.subjects.truth, model.predicted, evaluation.label

        def drawn(kind: str, figure: Figure, caption: str, alt: str, name: str = name, label: str = label) -> Drawing:
            svg, png = figures.figure_svg(figure, alt), figures.figure_png(figure)
            return Drawing(f"{kind}-{name}", kind, caption, alt, label, svg, png)

        if len(model.sides) == 2:
            yield drawn("scatter", *_scatter(evaluation, model))
            if evaluation.subjects.n_patients >= 3:
                r = model.scores["bias"].average
                yield drawn(
                    "bland-altman",
                    figures.bland_altman_figure(y, p, title=f"Bland-Altman: {model.title}", label=label),
                    "Difference against mean of predicted and true SBR, both sides, with 95 % limits of agreement; "
                    "bands are their 95 % intervals. The dotted line is the regression of difference on mean.",
                    f"Bland-Altman plot of {model.title}: mean difference {Cell.of(r, 2, True).text} SBR.",
                )
            curves = {
                t.title: (t.curves[Side.RIGHT], t.curves[Side.LEFT])
                for m in (model, *evaluation.oracles)
                for t in m.traces
                if len(t.curves) == 2
            }
            if model.traces and curves:
                yield drawn(
                    "sharpness-cp",
                    figures.sharpness_cp_figure(
                        curves,
                        cp=evaluation.settings.level,
                        title=f"Sharpness against coverage: {model.title}",
                        label=label,
                    ),
                    f"Sharpness against CP as the multiplier k grows. Star: optimum of both sides; dot: Sharpness @ CP "
                    f"{evaluation.settings.level:g}. Traced on the tested patients: a description, not a promise.",
                    f"Sharpness-CP curves of {', '.join(curves)}, one panel a side.",
                )
        if evaluation.history:
            yield drawn("training", *_training(evaluation, model))


def _scatter(evaluation: Evaluation, model: Scored) -> tuple[Figure, str, str]:
    intervals = model.intervals[0] if model.intervals else None
    bounded = intervals is not None and np.isfinite([intervals.lower, intervals.upper]).all()
    ends = (intervals.lower, intervals.upper) if intervals is not None and bounded else (None, None)
    figure = figures.scatter_figure(
        evaluation.subjects.truth,
        model.predicted,
        *ends,
        title=f"Predicted and true uptake: {model.title}",
        label=evaluation.label,
    )
    bars = (
        ""
        if intervals is None or not bounded
        else (f" Bars: calibrated {100 * intervals.level:g} % intervals; dark ones miss the truth.")
    )
    r = model.scores["pearson_r"]
    alt = (
        f"Scatter plot of predicted against true SBR of {model.title}: R {Cell.of(r.right, 2).text} on the right, "
        f"{Cell.of(r.left, 2).text} on the left."
    )
    return figure, f"Predicted against true SBR, one point a visit; the line is identity.{bars}", alt


def _training(evaluation: Evaluation, model: Scored) -> tuple[Figure, str, str]:
    # a warm-up without labels has no training loss, and its output layer has learned nothing yet
    labelled = [row for row in evaluation.history if np.isfinite(row["train_loss"])]
    series = {key: [row.get(key, np.nan) for row in labelled] for key in evaluation.history[0]}
    best = evaluation.card.get("training", {}).get("best_epoch")
    scale = float(evaluation.card.get("spec", {}).get("sbr_max", 1.0))
    # the training loss is the sum of both sides' squared errors in units of the scale
    train_rmse = scale * np.sqrt(np.maximum(series["train_loss"], 0.0) / 2)
    panels: dict[str, dict[str, npt.ArrayLike]] = {
        "RMSE (SBR)": {"training loss, as RMSE": train_rmse, "stopping patients": np.sqrt(series["stop_mse"])},
        "R": {"stopping patients": series["stop_r"]},
    }
    label = "digital phantom, not patients" if evaluation.is_phantom_trained else ""
    figure = figures.training_figure(
        [e + 1 for e in series["epoch"]],
        panels,
        best_epoch=None if best is None else float(best) + 1,
        title=f"Training: {model.title}",
        label=label,
    )
    caption = (
        "Training by epoch. The training loss (with dropout and augmentation, and with the symmetric term where there "
        "is one) is shown as the RMSE that it amounts to; the weights of the marked epoch were kept."
    )
    shown = "" if best is None else f" Kept: epoch {int(best) + 1}."
    return figure, caption, f"Training curves of {model.title} over {len(evaluation.history)} epochs.{shown}"


# -- Page ---------------------------------------------------------------------------------------------------------


def _page(evaluations: Sequence[Evaluation], tables: Sequence[Table], drawings: Sequence[Drawing], title: str) -> str:
    check_comparable(evaluations)
    html = {table.name: table.to_html() for table in tables}
    return render(
        "evaluation.html",
        title=title,
        headline=headline(evaluations),
        opening=Section("what", "What this is"),
        key_numbers=_key_numbers(evaluations),
        sections=list(_sections(evaluations, html, drawings)),
        seen=evaluations[0].tested.seen,
        what=_what(evaluations),
        notes=list(dict.fromkeys(note for e in evaluations for note in e.notes)),
    )


def _sections(
    evaluations: Sequence[Evaluation], html: Mapping[str, str], drawings: Sequence[Drawing]
) -> Iterator[Section]:
    def tables(*names: str) -> tuple[str, ...]:
        return tuple(html[name] for name in names if name in html)

    def drawn(*kinds: str) -> tuple[Drawing, ...]:
        return tuple(d for kind in kinds for d in drawings if d.kind == kind)

    yield Section(
        "accuracy", "Accuracy", tables=tables("accuracy", "differences", "skill", "accuracy-more", "association")
    )
    yield Section("agreement", "Agreement", drawings=drawn("scatter", "bland-altman"), tables=tables("agreement"))
    yield Section(
        "intervals",
        "Intervals",
        paragraphs=_about_intervals(evaluations),
        drawings=drawn("sharpness-cp"),
        tables=tables("intervals", "promises", "uncertainty"),
    )
    yield Section("cohort", "Cohort", tables=tables("cohort"))
    yield Section("training", "Training", drawings=drawn("training"))
    yield Section(
        "published",
        "Published values, for reference",
        paragraphs=("What the paper reports on its own patients. Nothing above was fitted to these rows.",),
        tables=tables("published-accuracy", "published-uncertainty"),
    )
    yield Section("made", "How it was made", listings=tuple(_made(evaluations)))
    yield Section("limits", "Limits", points=tuple(_limits(evaluations)))


def _what(evaluations: Sequence[Evaluation]) -> list[str]:
    first = evaluations[0]
    oracle = ", and the phantom's oracle, the best prediction that its latent numbers allow" if first.oracles else ""
    beside = (
        f"Beside the trained {'models stand' if len(evaluations) > 1 else 'model stands'} a ridge regression on six "
        f"hand-made features, the bar that a network has to pass{oracle}."
        if first.baselines
        else "Beside it stands the phantom's oracle, the best prediction that its latent numbers allow."
        if first.oracles
        else ""
    )
    return [
        "From a pair of nigral MRI patches (SMWI, right and left) the model predicts the striatal DaT uptake of each "
        "side as a binding ratio (SBR). This page says how well it does on the patients named above.",
        *([beside] if beside else []),
    ]


def _key_numbers(evaluations: Sequence[Evaluation]) -> list[KeyNumber]:
    """The four numbers of the first model that are read first."""
    first = evaluations[0]
    model = first.model
    who = f" ({model.title})" if len(evaluations) > 1 else ""
    level = f"{100 * first.settings.confidence:g} %: "

    def of(name: str, score: str) -> KeyNumber:
        sides = model.scores[score]
        estimate: Estimate | None = sides.average or sides.right or sides.left
        cell = Cell.of(estimate)
        side = "average of both sides" if sides.average else ", ".join(s.value for s in model.sides)
        return KeyNumber(f"{name}, {side}{who}", cell.text, level + cell.interval if cell.interval else "")

    found = [of("R", "pearson_r"), of("RMSE in SBR", "rmse")]
    if model.intervals:
        found += [_coverage_number(model.intervals[0], side, level, who) for side in model.intervals[0].coverage]
    return found


def _coverage_number(intervals: Intervals, side: Side, level: str, who: str) -> KeyNumber:
    c = intervals.coverage[side]
    return KeyNumber(
        f"{side.value} SBR inside the {100 * intervals.level:g} % interval{who}",
        f"{c.covered} of {c.patients}",
        f"{level}({c.low:.3f}, {c.high:.3f})",
    )


def _about_intervals(evaluations: Sequence[Evaluation]) -> tuple[str, ...]:
    if any(e.model.intervals for e in evaluations):
        return (
            "The calibrated intervals were fixed on patients that served for nothing else; their promise stands below "
            "the table. The curve and the table of Sharpness are traced on the tested patients, as in the paper.",
        )
    if any(e.model.traces for e in evaluations):
        return (
            "Nothing was calibrated here: what follows is traced on the tested patients, as in the paper, and is no "
            "interval for anybody.",
        )
    return ()


def _made(evaluations: Sequence[Evaluation]) -> Iterator[Listing]:
    first = evaluations[0]
    yield Listing("Commands", "\n".join(_commands(evaluations)))
    versions = "\n".join(f"{name} {version}" for name, version in first.made_with.items())
    yield Listing("Versions", versions)
    hashes = [f"tested cohort {first.tested.cohort}  {first.tested.sha256}"]
    for e in evaluations:
        training = e.card.get("training", {})
        hashes.append(f"weights {e.run.name}  {e.card.get('sha256', {}).get('model.safetensors')}")
        for key, name in (("cohort_sha256", "training cohort"), ("split_sha256", "split")):
            if key in training:
                hashes.append(f"{name} of {e.run.name}  {training[key]}")
    yield Listing("SHA-256", "\n".join(dict.fromkeys(hashes)))
    for e in evaluations:
        if "config" in e.card:
            yield Listing(f"{e.run.name}.toml", _toml(e.card["config"]))


def _commands(evaluations: Sequence[Evaluation]) -> Iterator[str]:
    first = evaluations[0]
    provenance, preset = first.tested.provenance, first.tested.provenance.get("preset")
    if first.tested.is_phantom and isinstance(preset, Mapping) and "seed" in provenance:
        visits = sum(map(len, first.parts.values())) if first.tested.own else len(first.subjects.rows)
        yield (
            f"nigradat simulate {first.tested.cohort} --patients {visits} --preset {preset.get('name')} "
            f"--seed {provenance['seed']}"
        )
    home = first.tested.cohort if first.tested.own else "TRAINING_COHORT"
    for e in evaluations:
        if "config" in e.card:
            yield f"nigradat train {home} {e.run.name} --config {e.run.name}.toml   # its lines stand below"
        if e.model.intervals:
            yield f"nigradat calibrate {e.run.name} {home}"
        s, part = e.settings, "" if e.tested.part in (TEST, WHOLE) else f" --subset {e.tested.part}"
        yield (
            f"nigradat evaluate {e.run.name} {e.tested.cohort}{part} --level {s.level:g} --rule {s.rule} "
            f"--resamples {s.resamples} --seed {s.seed}"
        )


def _toml(config: Mapping[str, Any]) -> str:
    """A configuration as TOML; what is None has no line there."""
    plain = {key: value for key, value in config.items() if value is not None}
    lines = [f"{key} = {json.dumps(value)}" for key, value in plain.items() if not isinstance(value, Mapping)]
    for key, value in plain.items():
        if isinstance(value, Mapping):
            lines += ["", f"[{key}]", _toml(value)]
    return "\n".join(lines)


def _limits(evaluations: Sequence[Evaluation]) -> Iterator[str]:
    first = evaluations[0]
    if first.tested.is_phantom or any(e.is_phantom_trained for e in evaluations):
        yield (
            "The digital phantom is circular: networks are trained and tested on the same generator, which was "
            "calibrated to the paper's range of SBR and to its R: that R comes out near the paper's is by design. "
            "What is tested is the software, the statistics, the coverage and the order of methods below a known "
            "ceiling; nothing about clinical validity follows."
        )
    yield (
        "Reconstructions: the weight of the symmetric loss, where dropout sits and how strong it is, the symmetric MC "
        "interval (the body of the paper's Algorithm 1 is not known), and the definitions of Sharpness, Optimal and "
        "Sharpness @ CP, which were recovered from the arithmetic of the published tables."
    )
    yield (
        "Intervals over patients carry the chance of who was tested, not of how the network was trained: another "
        "training seed or another split can move the numbers by as much."
    )
    yield (
        f"With {first.subjects.n_patients:,} patients the coverage of an interval is known no better than the binomial "
        "intervals in its table say: 52 covered of 55 are compatible with anything from 85 to 99 %."
    )
    if any(e.model.intervals for e in evaluations):
        yield (
            "The promise of the calibrated intervals holds on average over calibrations, for new patients of the same "
            "kind, on each side by itself. It is none for subgroups, for both sides at once, or for another scanner."
        )
    yield "SBR of different tracers, cameras and programs is not on one scale; these numbers hold for the labels' own."
    yield INTENDED_USE
