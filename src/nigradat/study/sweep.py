"""How much the result depends on the hyper-parameters: one at a time around the default, or all combinations.

What is chosen by looking at a sweep is chosen on the patients who stopped its trainings: calibration patients must not
take part in a selection, or the intervals of what was selected would promise too much. The test patients are not
predicted at all unless that is asked for; the table then says so. The number of Monte-Carlo samples is varied without
training again: the first T draws are the same for every T.
"""

from __future__ import annotations

import csv
import difflib
import io
import itertools
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from nigradat import __version__
from nigradat.errors import ConfigError, MissingExtraError, NigradatError, OutputError
from nigradat.evaluation.figures import figure_svg, sweep_figure
from nigradat.evaluation.predictions import FitRecord, Predictions
from nigradat.io.files import to_json, write_json, write_text
from nigradat.io.pack import PackedCohort, load_cohort, verify
from nigradat.metrics import Estimate, bca_many
from nigradat.metrics.error import mae, pearson_r, rmse
from nigradat.metrics.intervals import sharpness_at_cp, sharpness_cp_curve
from nigradat.models.registry import get_method
from nigradat.models.weights import CARD_NAME, load_model
from nigradat.study.engines import Outcome, Task, check_engine, make_engine, run_tasks
from nigradat.study.folder import FAILED_NAME, FIT_NAME, FitName, StudyFolder, read_json, read_record, write_record
from nigradat.study.plan import SCALES, check_labels
from nigradat.study.progress import Tally, Watch, epoch_seconds
from nigradat.study.tasks import (
    BUSY,
    DONE,
    FAILURES,
    Answer,
    Predicted,
    epoch_clock,
    one_visit_each,
    predict_visits,
    why,
)
from nigradat.training.config import DROPOUT, Hardware, TrainConfig, make_config
from nigradat.training.fit import train
from nigradat.training.split import Split, make_split
from nigradat.uncertainty.mc_dropout import Draws
from nigradat.uncertainty.symmetric_mc import check_mode, symmetric_spread

Array = npt.NDArray[np.float64]
PLAN_NAME: Final = "sweep.json"
DEFAULT: Final = "default"
STOP, TEST = "stop", "test"
_SPLIT: Final = "split-1"
_CP: Final = 0.95
_MODES: Final = ("mc", "s1")


def _widths(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split("-"))


VARIABLES: Final[Mapping[str, Callable[[str], Any]]] = {
    "symmetry_weight": float,
    "symmetry_eps": float,
    "dropout": str,
    "head_dropout": float,
    "block_dropout": float,
    "samples": int,
    "widths": _widths,
    "learning_rate": float,
    "weight_decay": float,
    "batch_size": int,
}
"""What can be varied, and how a value is read; widths are written ``8-16-32-64``."""
SCORES: Final = {
    "rmse": "RMSE, SBR",
    "mae": "MAE, SBR",
    "pearson_r": "R",
    "sharpness_mc": "Sharpness @ CP .95, MC",
    "sharpness_s1": "Sharpness @ CP .95, symmetric MC (s1)",
}


@dataclass(frozen=True)
class SweepPoint:
    """One line of the table.

    Attributes:
        parameter, value: what is varied and to what; several of a grid are joined by commas.
        training: name of the fits behind it.
        samples: Monte-Carlo draws.
        is_default: it is the recipe as it stands.
    """

    parameter: str
    value: str
    training: str
    samples: int
    is_default: bool


@dataclass(frozen=True)
class SweepPlan:
    """Everything that decides what a sweep computes.

    Attributes:
        cohort_sha256: of the cohort.
        method: registry name.
        recipe: the default that is varied, without method and seed.
        trainings: by name, what each changes in the recipe.
        points: lines of the table.
        seeds, seed: trainings of each, from that seed on; ``seed`` also divides the patients.
        draws: Monte-Carlo samples of the default.
        test: the test patients are predicted, too.
        version: of nigradat.
    """

    cohort_sha256: str
    method: str
    recipe: Mapping[str, Any]
    trainings: Mapping[str, Mapping[str, Any]]
    points: tuple[SweepPoint, ...]
    seeds: int
    seed: int
    draws: int
    test: bool
    version: str

    @property
    def samples(self) -> tuple[int, ...]:
        """All numbers of draws that are asked for."""
        return tuple(sorted({point.samples for point in self.points}))

    @property
    def parts(self) -> tuple[str, ...]:
        """Patients that are predicted."""
        return (STOP, TEST) if self.test else (STOP,)

    def fits(self) -> Iterator[FitName]:
        """All trainings, the first seed of each first; the place of a split's name is taken by the training's."""
        for k in range(self.seeds):
            for name in self.trainings:
                yield FitName(name, self.method, self.seed + k)

    def config(self, training: str, seed: int) -> TrainConfig:
        """The training configuration of one fit."""
        return make_config(changes={**self.recipe, **self.trainings[training], "model": self.method, "seed": seed})


@dataclass(frozen=True)
class SweepRow:
    """What a point gave.

    Attributes:
        point: of the sweep.
        part: ``stop`` or ``test``.
        patients: scored, one visit each.
        fits: finished trainings behind it; a score is the mean of theirs, each the mean over both sides.
        failed: trainings that failed.
        scores: by name of :data:`SCORES`, with 95 % intervals over patients; without dropout there is no Sharpness.
        seed_sd: SD of each score between the trainings; nan for one.
        is_best: least RMSE of the stopping patients among the values of its parameter; nobody's where they share
            their trainings, whose RMSE is the same.
    """

    point: SweepPoint
    part: str
    patients: int
    fits: int
    failed: int
    scores: Mapping[str, Estimate]
    seed_sd: Mapping[str, float]
    is_best: bool = False


def parse_vary(text: str) -> tuple[str, tuple[str, ...]]:
    """A parameter and its values from ``learning_rate=1e-4,1e-3``.

    Raises:
        ConfigError: no such parameter (near names are shown), or a value that is none of its kind.
    """
    name, equals, listed = text.partition("=")
    name = name.strip().replace("-", "_")
    values = tuple(dict.fromkeys(value.strip() for value in listed.split(",") if value.strip()))
    if name not in VARIABLES:
        near = difflib.get_close_matches(name, VARIABLES, n=2)
        todo = f"Did you mean {' or '.join(map(repr, near))}?" if near else ""
        raise ConfigError(f"'{name}' cannot be varied", ", ".join(VARIABLES), todo)
    if not equals or not values:
        raise ConfigError(f"--vary {text}", f"{name}= and values with commas between them")
    for value in values:
        try:
            VARIABLES[name](value)
        except ValueError as error:
            raise ConfigError(f"{name}={value}", f"values such as {_EXAMPLE.get(name, '0.1')}") from error
        if name == "dropout" and value not in DROPOUT:
            raise ConfigError(f"dropout={value}", ", ".join(DROPOUT))
    return name, values


_EXAMPLE: Final = {"widths": "8-16-32-64", "samples": "100", "batch_size": "4"}


def plan_sweep(
    cohort: PackedCohort,
    vary: Sequence[str],
    *,
    method: str = "sym-vgg-plus",
    scale: str = "quick",
    changes: Mapping[str, Any] | None = None,
    grid: bool = False,
    samples: int = 100,
    seeds: int = 1,
    seed: int = 1,
    test: bool = False,
) -> SweepPlan:
    """The trainings and the points of a sweep; values that amount to the default share its trainings.

    Raises:
        ConfigError: nothing to vary, one parameter twice, or values that a recipe does not take.
    """
    if scale not in SCALES:
        raise ConfigError(f"no scale is called '{scale}'", ", ".join(SCALES))
    given = [parse_vary(text) for text in vary]
    if not given or len({name for name, _ in given}) < len(given):
        raise ConfigError(f"--vary {' '.join(vary) or '(nothing)'}", "each parameter once, at least one")
    if seeds < 1:
        raise ConfigError(f"{seeds} seeds", "at least 1")
    base = {**SCALES[scale].changes, **(changes or {}), "model": get_method(method).name, "seed": seed}
    default = make_config(changes=base)
    recipe = {key: value for key, value in default.to_json().items() if key not in ("model", "seed")}
    if grid:
        varied = [name for name, _ in given]
        chosen = [dict(zip(varied, values, strict=True)) for values in itertools.product(*(v for _, v in given))]
    else:
        chosen = [{name: value} for name, values in given for value in values]
        chosen += [{name: DEFAULT} for name, _ in given]
    trainings: dict[str, Mapping[str, Any]] = {DEFAULT: {}}
    names = {_identity(default): DEFAULT}  # however a value is typed, it is trained once
    points = []
    for choice in chosen:
        changed = _changes(choice)
        count = int(choice["samples"]) if choice.get("samples", DEFAULT) != DEFAULT else samples
        if count < 2:
            raise ConfigError(f"samples={count}", "at least 2")
        called = ",".join(f"{k}={v}" for k, v in choice.items() if k != "samples")
        training = names.setdefault(_identity(make_config(changes={**base, **changed})), called)
        if training not in trainings:
            trainings[training] = changed
        shown = ", ".join(_shown(default, k, samples) if v == DEFAULT else v for k, v in choice.items())
        is_default = training == DEFAULT and count == samples
        points.append(SweepPoint(", ".join(choice), shown, training, count, is_default))
    if not any(point.training == DEFAULT for point in points):
        del trainings[DEFAULT]
    return SweepPlan(cohort.sha256, method, recipe, trainings, _once(points), seeds, seed, samples, test, __version__)


def _changes(choice: Mapping[str, str]) -> dict[str, Any]:
    changed: dict[str, Any] = {}
    for name, value in choice.items():
        if name == "dropout" and value != DEFAULT:
            changed |= DROPOUT[value]
        elif name != "samples" and value != DEFAULT:
            changed[name] = VARIABLES[name](value)
    return changed


def _resolved(config: TrainConfig) -> dict[str, Any]:
    return {**config.to_json(), "symmetry_weight": config.resolved_symmetry_weight}


def _identity(config: TrainConfig) -> str:
    return json.dumps(_resolved(config), sort_keys=True)


def _shown(default: TrainConfig, name: str, samples: int) -> str:
    """The default's value of a parameter, as it would be typed."""
    if name == "samples":
        return str(samples)
    if name == "dropout":
        places = (p for p in DROPOUT if all(getattr(default, k) == v for k, v in DROPOUT[p].items()))
        return next(places, DEFAULT)
    if name == "widths":
        return "-".join(map(str, default.widths))
    return f"{_resolved(default)[name]:g}"


def _once(points: Sequence[SweepPoint]) -> tuple[SweepPoint, ...]:
    """The default once for each parameter, however it was typed; values in ascending order where they are numbers."""
    found: dict[tuple[Any, ...], SweepPoint] = {}
    for point in points:
        found.setdefault((point.parameter, point.training, point.samples), point)

    def order(point: SweepPoint) -> tuple[int, float]:
        first = next(i for i, p in enumerate(points) if p.parameter == point.parameter)
        try:
            return first, float(point.value)
        except ValueError:
            return first, float("inf")

    return tuple(sorted(found.values(), key=order))


# -- The work -----------------------------------------------------------------------------------------------------


def run_sweep(
    cohort: PackedCohort | str | os.PathLike[str],
    out: str | os.PathLike[str],
    vary: Sequence[str],
    *,
    method: str = "sym-vgg-plus",
    scale: str = "quick",
    changes: Mapping[str, Any] | None = None,
    grid: bool = False,
    samples: int = 100,
    seeds: int = 1,
    seed: int = 1,
    test: bool = False,
    engine: str = "processes",
    workers: int | None = None,
    address: str | None = None,
    device: str = "auto",
    retry_failed: bool = False,
    progress: Callable[[Tally], None] = lambda _: None,
    say: Callable[[str], None] = lambda _: None,
) -> tuple[Path, tuple[SweepRow, ...]]:
    """Train a method with varied hyper-parameters on one split, and write ``tables/sweep.csv`` and a curve for each.

    Args:
        cohort: packed and labelled.
        out: sweep folder. The same call goes on where it was interrupted; other values may be added.
        vary: ``NAME=V1,V2,...`` each, with the names of :data:`VARIABLES`.
        method, scale, changes: the recipe that is varied.
        grid: all combinations, instead of one at a time around the default.
        samples: Monte-Carlo draws of the default.
        seeds: trainings of each value.
        seed: of the split and the first training.
        test: predict the test patients, too.
        engine, workers, address, device, retry_failed, progress, say: see :func:`nigradat.study.plan.run_study`.

    Returns:
        The folder and the rows of the table: those of earlier calls, too.

    Raises:
        ConfigError, CohortError: as :func:`plan_sweep` and :func:`nigradat.training.split.make_split`; labels missing
            or beyond ``sbr_max``.
        NigradatError: all trainings failed.
        OutputError: a folder of another sweep, or of something else.

    Example:
        >>> run_sweep("cohort", "sweep", ["symmetry_weight=0,0.01,0.1"], seeds=3)               # doctest: +SKIP
    """
    check_engine(engine, workers, address)
    data = cohort if isinstance(cohort, PackedCohort) else load_cohort(cohort)
    verify(data)
    plan = plan_sweep(
        data,
        vary,
        method=method,
        scale=scale,
        changes=changes,
        grid=grid,
        samples=samples,
        seeds=seeds,
        seed=seed,
        test=test,
    )
    check_labels(data, float(plan.recipe["sbr_max"]))
    parts = make_split(data, seed)
    folder = StudyFolder(Path(out))
    plan = _claim(folder, plan)
    parts.save(folder.split(_SPLIT))
    fits = tuple(plan.fits())
    if retry_failed:
        for fit in fits:
            (folder.fit(fit.key) / FAILED_NAME).unlink(missing_ok=True)
    planned = {fit.key: fit for fit in fits}
    watch = Watch(folder, fits, int(plan.recipe["epochs"]))
    waiting = [fit for fit in fits if not _is_done(folder.fit(fit.key), plan)]

    def ended(outcome: Outcome) -> None:
        watch.ended(outcome.key)
        if outcome.state == "died":
            run = folder.fit(outcome.key)
            write_record(run, _record(plan, planned[outcome.key], parts, failed=outcome.note))
        if outcome.state in ("failed", "died"):
            say(f"{outcome.key} failed: {outcome.note}")

    if waiting:
        with make_engine(engine, tasks=len(waiting), workers=workers, address=address, device=device) as (place, cpus):
            shared = {"sweep": str(folder.path), "cohort": str(data.folder.resolve()), "device": device}
            ready = [
                Task(
                    fit.key,
                    "nigradat.study.sweep:fit",
                    {**shared, "training": fit.split, "seed": fit.seed, "threads": cpus},
                )
                for fit in waiting
            ]
            run_tasks(ready, place, ended=ended, tick=lambda keys: progress(watch.look(keys, place.slots)))
    rows = read_rows(folder, plan)
    if not any(row.fits for row in rows):
        reasons = [record.failed for fit in fits if (record := read_record(folder.fit(fit.key))) is not None]
        raise NigradatError(
            f"all {len(fits)} trainings of {folder.path} failed ({reasons[0] if reasons else 'no reason is known'})",
            "at least one that ends",
            "Mend the cause and say --retry-failed",
        )
    _write(folder, plan, rows, "digital phantom" if data.is_phantom else "")
    return folder.path, rows


def _claim(folder: StudyFolder, plan: SweepPlan) -> SweepPlan:
    """Make the sweep folder, or recognise it and add to its plan; nothing is ever taken away."""
    path = folder.path / PLAN_NAME
    if not path.is_file():
        if folder.path.exists() and (not folder.path.is_dir() or any(folder.path.iterdir())):
            raise OutputError(f"{folder.path} exists and is no sweep folder", "a new or empty folder")
    else:
        there, here = read_json(path), json.loads(to_json(asdict(plan)))
        same = ("cohort_sha256", "method", "recipe", "seed", "draws", "version")
        odd = [k for k in same if there.get(k) != here[k]]
        if odd:
            raise OutputError(
                f"{folder.path} holds another sweep ({', '.join(odd)} differ)",
                "the same cohort, method and recipe, to which values and seeds may be added",
                "Choose another folder",
            )
        plan = _joined(_load_plan(folder), plan)
    write_json(path, asdict(plan))
    return plan


def _joined(there: SweepPlan, asked: SweepPlan) -> SweepPlan:
    names = {json.dumps(changes, sort_keys=True): name for name, changes in there.trainings.items()}
    known = {name: names.get(json.dumps(changes, sort_keys=True), name) for name, changes in asked.trainings.items()}
    trainings = {**there.trainings, **{known[name]: changes for name, changes in asked.trainings.items()}}
    points = [*there.points, *(replace(point, training=known[point.training]) for point in asked.points)]
    return replace(
        asked,
        trainings=trainings,
        points=_once(points),
        seeds=max(there.seeds, asked.seeds),
        test=there.test or asked.test,
    )


def _load_plan(folder: StudyFolder) -> SweepPlan:
    values = read_json(folder.path / PLAN_NAME)
    return SweepPlan(**{**values, "points": tuple(SweepPoint(**point) for point in values["points"])})


def _table_path(run: Path, part: str, samples: int) -> Path:
    return run / f"{part}-T{samples}.tsv"


def _is_done(run: Path, plan: SweepPlan) -> bool:
    if (run / FAILED_NAME).is_file():
        return True
    tables = (_table_path(run, part, count) for part in plan.parts for count in plan.samples)
    return (run / FIT_NAME).is_file() and all(path.is_file() for path in tables)


def fit(sweep: str, cohort: str, training: str, seed: int, device: str = "auto", threads: int = 1) -> Answer:
    """Train one point with one seed and predict its stopping patients; called by an engine.

    Raises:
        OutputError, MissingExtraError: what would stop every other fit, too.
    """
    folder = StudyFolder(Path(sweep))
    plan = _load_plan(folder)
    name = FitName(training, plan.method, seed)
    run = folder.fit(name.key)
    with folder.locked(name.key) as alone:
        if not alone:
            return BUSY
        there = read_record(run)
        if there is not None and there.failed:
            return "failed", there.failed
        if _is_done(run, plan):
            return DONE
        data, parts = load_cohort(cohort), Split.load(folder.split(_SPLIT))
        try:
            _fit(run, plan, name, data, parts, Hardware(device, threads=threads))
        except (OutputError, MissingExtraError):
            raise
        except FAILURES as error:
            reason = why(error)
            write_record(run, _record(plan, name, parts, failed=reason))
            return "failed", reason
    return DONE


def _fit(run: Path, plan: SweepPlan, name: FitName, data: PackedCohort, parts: Split, hardware: Hardware) -> None:
    if not (run / CARD_NAME).is_file():
        train(
            data,
            run,
            plan.config(name.split, name.seed),
            hardware=hardware,
            split=parts,
            report=epoch_clock(run),
        )
    loaded = load_model(run)
    for part in plan.parts:
        answered = predict_visits(loaded, data, one_visit_each(data, parts.rows(data, part)), max(plan.samples))
        modes = _MODES if len(loaded.model.sides) == 2 else _MODES[:1]
        for count in plan.samples:
            _predictions(answered, count, modes, loaded.spec.sbr_max).save(_table_path(run, part, count))
    training = loaded.card["training"]
    write_record(
        run,
        _record(
            plan,
            name,
            parts,
            epochs=int(training["epochs"]),
            best_epoch=int(training["best_epoch"]) + 1,
            seconds=round(sum(epoch_seconds(run)), 3),
            parameters=int(loaded.card["parameters"]),
        ),
        training=name.split,
    )


def _predictions(answered: Predicted, count: int, modes: Sequence[str], scale: float) -> Predictions:
    """With the spreads of the first ``count`` draws."""
    if answered.draws is None:
        return answered.table({}, {})
    drawn = Draws(answered.point, answered.draws.samples[:count], answered.draws.noise_sd)
    spreads = {}
    for mode in modes:
        s = symmetric_spread(drawn.samples, check_mode(mode), scale, noise_sd=drawn.noise_sd)
        spreads[mode] = (s.centre, s.spread)
    return answered.table(spreads, {})


def _record(plan: SweepPlan, name: FitName, parts: Split, **more: Any) -> FitRecord:
    return FitRecord(
        method=plan.method,
        title=f"{get_method(plan.method).title}, {name.split}",
        role="model",
        split=_SPLIT,
        seed=name.seed,
        folder=None,
        split_sha256=parts.sha256,
        train_patients=len(parts.train),
        test_patients=len(parts.test),
        **more,
    )


# -- The outcome --------------------------------------------------------------------------------------------------


def read_rows(folder: StudyFolder, plan: SweepPlan, *, resamples: int = 2000) -> tuple[SweepRow, ...]:
    """Score what has ended; a point whose trainings all failed has a row without scores."""
    rows = []
    for part in plan.parts:
        for point in plan.points:
            runs = [folder.fit(FitName(point.training, plan.method, plan.seed + k).key) for k in range(plan.seeds)]
            tables = [_table_path(run, part, point.samples) for run in runs if (run / FIT_NAME).is_file()]
            failed = sum((run / FAILED_NAME).is_file() for run in runs)
            if tables:
                loaded = [Predictions.load(path) for path in tables]
                rows.append(_score(point, part, loaded, failed, float(plan.recipe["sbr_max"]), resamples))
            elif failed:
                rows.append(SweepRow(point, part, 0, 0, failed, {}, {}))
    best = []
    for parameter in {row.point.parameter for row in rows}:
        rivals = [row for row in rows if (row.point.parameter, row.part) == (parameter, STOP) and row.fits]
        if len({row.point.training for row in rivals}) > 1:
            best.append(min(rivals, key=lambda row: row.scores["rmse"].value).point)
    return tuple(replace(row, is_best=row.point in best) for row in rows)


def _score(
    point: SweepPoint, part: str, fits: Sequence[Predictions], failed: int, scale: float, resamples: int
) -> SweepRow:
    patients = len(fits[0].patients)
    values = [_statistics(one, scale) for one in fits]

    def mean(index: npt.NDArray[np.intp]) -> dict[str, npt.ArrayLike]:
        found = [statistics(index) for statistics in values]
        return {name: np.mean([f[name] for f in found], axis=0) for name in found[0]}

    everybody = np.arange(patients)[None]
    single = [{name: float(v[0]) for name, v in statistics(everybody).items()} for statistics in values]
    sd = {name: float(np.std([s[name] for s in single], ddof=1)) if len(fits) > 1 else np.nan for name in single[0]}
    scores = bca_many(mean, patients, seed=0, resamples=resamples)
    return SweepRow(point, part, patients, len(fits), failed, scores, sd)


def _statistics(one: Predictions, scale: float) -> Callable[[npt.NDArray[np.intp]], dict[str, Array]]:
    """Patient indices to the scores of one fit, each the mean over the sides that it answers for."""
    sides = [side.index for side in one.sides]

    def scores(index: npt.NDArray[np.intp]) -> dict[str, Array]:
        found: dict[str, list[Array]] = {}
        for side in sides:
            truth, predicted = one.truth[index, side], one.predicted[index, side]
            for name, metric in (("rmse", rmse), ("mae", mae), ("pearson_r", pearson_r)):
                found.setdefault(name, []).append(metric(truth, predicted))
            for mode, (centre, spread) in one.spreads.items():
                curve = sharpness_cp_curve(truth, centre[index, side], spread[index, side], scale)
                found.setdefault(f"sharpness_{mode}", []).append(sharpness_at_cp(curve, _CP))
        return {name: np.mean(values, axis=0) for name, values in found.items()}

    return scores


def _write(folder: StudyFolder, plan: SweepPlan, rows: Sequence[SweepRow], label: str) -> None:
    text = io.StringIO()
    columns = ["parameter", "value", "default", "best", "part", "patients", "fits", "failed"]
    for name in SCORES:
        columns += [name, f"{name}_low", f"{name}_high", f"{name}_sd_between_seeds"]
    out = csv.writer(text, lineterminator="\n")
    out.writerow(columns)
    for row in rows:
        p = row.point
        cells: list[Any] = [p.parameter, p.value, int(p.is_default), int(row.is_best), row.part]
        cells += [row.patients, row.fits, row.failed]
        for name in SCORES:
            estimate = row.scores.get(name)
            numbers = [np.nan] * 4
            if estimate is not None:
                numbers = [estimate.value, estimate.low, estimate.high, row.seed_sd[name]]
            cells += ["n/a" if not np.isfinite(number) else repr(float(number)) for number in numbers]
        out.writerow(cells)
    write_text(folder.path / "tables" / "sweep.csv", text.getvalue())
    for (parameter, part), group in itertools.groupby(rows, key=lambda row: (row.point.parameter, row.part)):
        found = [row for row in group if row.fits]
        if "," in parameter or len(found) < 2:  # a grid has a table alone
            continue
        panels = {
            title: [row.scores.get(name) for row in found]
            for name, title in SCORES.items()
            if any(name in row.scores for row in found)
        }
        who = f"{found[0].patients} {part} patients, {plan.seeds} training{'s' if plan.seeds > 1 else ''} of each value"
        drawn = sweep_figure(
            [row.point.value for row in found],
            panels,
            parameter=parameter.replace("_", " "),
            default=next((i for i, row in enumerate(found) if row.point.is_default), None),
            title=f"{get_method(plan.method).title}: {parameter.replace('_', ' ')}",
            label="; ".join(filter(None, (label, who))),
        )
        write_text(folder.path / "figures" / f"sweep-{parameter}-{part}.svg", figure_svg(drawn))
