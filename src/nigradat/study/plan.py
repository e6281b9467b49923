"""The plan of a study, resolved before any work begins, and its way from a cohort to a folder of fits.

Every method meets the same patients, the same augmentation and the same recipe. What is selected (the epoch, the
fusion, the width of an interval) is selected inside each split's own training, stopping and calibration patients; its
test patients decide nothing. A study that was interrupted, killed included, goes on with the same command.
"""

from __future__ import annotations

import difflib
import json
import math
import os
import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, fields, replace
from importlib import metadata
from pathlib import Path
from typing import Any, Final

import numpy as np

from nigradat import __version__
from nigradat.errors import CohortError, ConfigError, OutputError
from nigradat.evaluation.predictions import FitRecord
from nigradat.io.files import write_json
from nigradat.io.pack import PackedCohort, load_cohort, verify
from nigradat.metrics.conformal import conformal_quantile
from nigradat.models.registry import create_model, get_method, list_models
from nigradat.models.vgg import NARROW_WIDTHS, PAPER_WIDTHS, SMALL_WIDTHS
from nigradat.study.engines import Outcome, Task, check_engine, make_engine, run_tasks
from nigradat.study.folder import (
    FAILED_NAME,
    FIT_NAME,
    FitName,
    StudyFolder,
    read_json,
    read_plan,
    read_record,
    records,
    write_record,
)
from nigradat.study.progress import Tally, Watch
from nigradat.training.config import TrainConfig, make_config
from nigradat.training.split import Split, make_folds, make_split


@dataclass(frozen=True)
class Scale:
    """How large a study is.

    Attributes:
        changes: to the default recipe.
        methods: what is compared when nothing else is asked for; empty: every method there is.
        note: said in the report.
    """

    changes: Mapping[str, Any]
    methods: tuple[str, ...]
    note: str


SCALES = {
    "quick": Scale(
        {"widths": NARROW_WIDTHS},
        ("sym-vgg-plus",),
        "Quick scale: one narrow network, to see the whole way in minutes. Use scale small or full for results.",
    ),
    "laptop": Scale(
        {"widths": NARROW_WIDTHS}, (), "Laptop scale: every method, narrow: a demonstration. Results need scale small."
    ),
    "small": Scale(
        {"widths": SMALL_WIDTHS},
        ("vgg-small", "sym-vgg", "sym-vgg-plus", "sym-vgg-log"),
        "Small scale: the width of the authors' per-side nets, the methods that the paper's claims rest on.",
    ),
    "full": Scale({"widths": PAPER_WIDTHS}, (), "Full scale: the width of the paper's table; made for a GPU."),
}
DESIGNS: Final = {"single": 1, "repeated": 5, "kfold": 5}
"""Designs, and how many splits each has unless it is said."""
PAPER_THRESHOLD: Final = 2.56  # SBR, on the paper's scale only
_SPLIT_SEEDS: Final = 1000  # from one split's training seeds to the next one's
_DRAW_STREAM: Final = 0x6472
_GROWS: Final = ("methods", "seeds", "splits")
ENSEMBLE_OF: Final = "sym-vgg-plus"
LAST_BASELINE: Final = "ridge"  # once it is written, so are the others, the readings and the oracles
USUAL_DISEASE: Final = "PD"


@dataclass(frozen=True)
class StudyPlan:
    """Everything that decides what a study computes; what does not (engine, workers, device, paths) is not here.

    Attributes:
        cohort: its ``sha256``, ``patients``, ``visits``, ``kind``, and a phantom's ``preset`` and ``seed``.
        scale: a name of :data:`SCALES`.
        methods: registry names.
        design: ``single`` (the paper's 70/15/15), ``repeated`` (drawn again and again) or ``kfold``.
        splits: how many; folds of ``kfold``.
        seeds: trainings of each method on each split, which differ in nothing but their seed.
        fresh: 0, or test patients of each freshly drawn phantom cohort.
        seed: of splits and trainings.
        level: of the calibrated intervals.
        threshold: SBR below which uptake counts as low; None where no threshold is known for the labels' scale.
        samples: Monte-Carlo draws.
        recipe: the training recipe, but for method and seed.
        versions: of what computes.
        disease: diagnoses that readings of the hyperintensity are held against, everybody else's being a control's;
            empty for no such comparison.
    """

    cohort: Mapping[str, Any]
    scale: str
    methods: tuple[str, ...]
    design: str
    splits: int
    seeds: int
    fresh: int
    seed: int
    level: float
    threshold: float | None
    samples: int
    recipe: Mapping[str, Any]
    versions: Mapping[str, str]
    disease: tuple[str, ...] = ()

    @property
    def split_names(self) -> tuple[str, ...]:
        """``split-1``, ``fold-1`` or, for cohorts of their own, ``draw-1`` and so on."""
        kind = "draw" if self.fresh else "fold" if self.design == "kfold" else "split"
        return tuple(f"{kind}-{i + 1}" for i in range(self.splits))

    def fits(self) -> Iterator[FitName]:
        """All trainings: first every method on every split with its first seed, then with the next."""
        for k in range(self.seeds):
            for number, split in enumerate(self.split_names):
                for method in self.methods:
                    yield FitName(split, method, self.seed + _SPLIT_SEEDS * number + k)

    def config(self, method: str, seed: int) -> TrainConfig:
        """The training configuration of one fit."""
        return make_config(changes={**self.recipe, "model": method, "seed": seed})

    @property
    def draw_sizes(self) -> tuple[int, int]:
        """Patients of a fresh draw that train and validate (as many as the given cohort's split has), and that test."""
        patients = int(self.cohort["patients"])
        return patients - int(0.15 * patients + 1e-9), self.fresh

    def draw_seed(self, number: int) -> int:
        """Seed of a fresh draw's phantom, from 0; far from the given cohort's own seed for every number."""
        words = np.random.SeedSequence([int(self.cohort["seed"]), _DRAW_STREAM, number])
        return int(words.generate_state(1, np.uint32)[0] >> 1)

    def to_json(self) -> dict[str, Any]:
        """Plain values, with what follows from them."""
        plain: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        derived: dict[str, Any] = {"split_names": list(self.split_names), "note": SCALES[self.scale].note}
        if self.fresh:
            derived["draw_seeds"] = [self.draw_seed(i) for i in range(self.splits)]
        return plain | derived

    @classmethod
    def load(cls, folder: StudyFolder) -> StudyPlan:
        """The plan of a study folder.

        Raises:
            OutputError: none there, or a damaged one.
        """
        values = read_plan(folder)
        try:
            known = {f.name: values[f.name] for f in fields(cls) if f.name in values or f.default is MISSING}
        except KeyError as error:
            raise OutputError(f"{folder.plan} lacks {error}", "the plan as it was written") from error
        return cls(**{**known, "methods": tuple(known["methods"]), "disease": tuple(known.get("disease", ()))})


def run_study(
    cohort: PackedCohort | str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    scale: str = "quick",
    methods: Sequence[str] = (),
    design: str = "single",
    splits: int | None = None,
    seeds: int = 1,
    fresh: int = 0,
    seed: int = 1,
    level: float = 0.95,
    threshold: float | None = None,
    disease: Sequence[str] | None = None,
    samples: int = 100,
    changes: Mapping[str, Any] | None = None,
    engine: str = "processes",
    workers: int | None = None,
    address: str | None = None,
    device: str = "auto",
    retry_failed: bool = False,
    progress: Callable[[Tally], None] = lambda _: None,
    say: Callable[[str], None] = lambda _: None,
) -> tuple[Path, tuple[FitRecord, ...]]:
    """Train, calibrate and test methods on the same patients, with the earlier approaches and the oracles beside them.

    Args:
        cohort: packed and labelled. With ``fresh`` it says only which phantom (preset, size) to draw.
        out: study folder. The same call goes on where it was interrupted; more methods, seeds or repeated splits may be
            asked for later when everything else is equal.
        scale, methods, design, splits, seeds, fresh, seed, level, samples: see :class:`StudyPlan`; methods by default
            those of the scale.
        threshold: by default the paper's 2.56 on a phantom, whose labels are on the paper's scale, and none elsewhere.
        disease: what the column ``diagnosis`` says of the ill, upper and lower case alike; by default PD where anybody
            has it, and else no comparison of readings with the diagnosis.
        changes: to the recipe, on top of the scale's.
        engine, workers, address, device: see :func:`nigradat.study.engines.make_engine`.
        retry_failed: try fits again that are recorded as failed.
        progress: told where the study stands.
        say: told in words what is done.

    Returns:
        The folder, and a record of everything that ended; a fit that failed says why.

    Raises:
        ConfigError: an unknown scale, method, design or engine, options that contradict each other, or a disease that
            nobody has.
        CohortError, CalibrationError: too few patients for the splits or for intervals at the level, labels missing or
            beyond ``sbr_max``, or ``fresh`` without a phantom. Nothing was written.
        OutputError: a folder of another study, or of something else.

    Example:
        >>> run_study("cohort", "study", scale="small", seeds=3)                                # doctest: +SKIP
    """
    check_engine(engine, workers, address)
    data = cohort if isinstance(cohort, PackedCohort) else load_cohort(cohort)
    verify(data)
    asked = resolve_plan(
        data,
        scale=scale,
        methods=methods,
        design=design,
        splits=splits,
        seeds=seeds,
        fresh=fresh,
        seed=seed,
        level=level,
        threshold=threshold,
        disease=disease,
        samples=samples,
        changes=changes,
    )
    make_splits(asked, data)  # refuses before anything is written
    folder = StudyFolder(Path(out))
    plan = claim(folder, asked, say)
    if not plan.fresh:
        _save_splits(folder, make_splits(plan, data))
    if disease is None and not plan.disease and (others := _diagnoses(data)):
        say(
            f"Readings are not held against the diagnosis: nobody has {USUAL_DISEASE}. Say --disease; there is "
            f"{', '.join(others[:8])}{' and so on' if len(others) > 8 else ''}"
        )
    if retry_failed:
        for fit in plan.fits():
            (folder.fit(fit.key) / FAILED_NAME).unlink(missing_ok=True)
    watch = Watch(folder, tuple(plan.fits()), int(plan.recipe["epochs"]))
    waiting = study_tasks(folder, plan, data, device)

    planned = {fit.key: fit for fit in plan.fits()}

    def ended(outcome: Outcome) -> None:
        watch.ended(outcome.key)
        if outcome.state == "died" and outcome.key in planned:
            note_death(folder, planned[outcome.key], outcome.note)
        if outcome.state in ("failed", "died"):
            say(f"{outcome.key} failed: {outcome.note}")

    if waiting:
        with make_engine(engine, tasks=len(waiting), workers=workers, address=address, device=device) as (place, cpus):
            ready = [replace(task, arguments={**task.arguments, "threads": cpus}) for task in waiting]
            run_tasks(ready, place, ended=ended, tick=lambda keys: progress(watch.look(keys, place.slots)))
    progress(watch.look((), 1))
    return folder.path, records(folder.path)


def resolve_plan(
    cohort: PackedCohort,
    *,
    scale: str = "quick",
    methods: Sequence[str] = (),
    design: str = "single",
    splits: int | None = None,
    seeds: int = 1,
    fresh: int = 0,
    seed: int = 1,
    level: float = 0.95,
    threshold: float | None = None,
    disease: Sequence[str] | None = None,
    samples: int = 100,
    changes: Mapping[str, Any] | None = None,
) -> StudyPlan:
    """A plan from what was asked for; see :func:`run_study`.

    Raises:
        ConfigError, CohortError, MissingExtraError: see :func:`run_study`; a method whose package is not installed.
    """
    _check_word("scale", scale, tuple(SCALES))
    _check_word("design", design, tuple(DESIGNS))
    wanted = {get_method(name).name for name in methods} or SCALES[scale].methods or list_models()
    names = tuple(name for name in list_models() if name in wanted)
    count = DESIGNS[design] if splits is None else splits
    for what, number in (("splits", count), ("seeds", seeds)):
        if not 1 <= number <= _SPLIT_SEEDS:
            raise ConfigError(f"{number} {what}", f"1 to {_SPLIT_SEEDS}")
    if design == "single" and count > 1:
        raise ConfigError(f"{count} splits in the design 'single'", "one", "Say --design repeated or --design kfold")
    if threshold is not None and not 0 < threshold < math.inf:
        raise ConfigError(f"a threshold of {threshold}", "an SBR above 0")
    if samples < 2:
        raise ConfigError(f"{samples} Monte-Carlo samples", "at least 2 (100 is usual)")
    if fresh < 0:
        raise ConfigError(f"{fresh} fresh test patients", "at least 1, or 0 for none")
    phantom = _phantom(cohort)
    if fresh and "seed" not in phantom:
        raise CohortError(
            f"{fresh} fresh test patients beside {cohort.folder.name}, which cannot be drawn again",
            "a phantom cohort that 'nigradat simulate' made",
            "Leave --fresh out: the test part of each split is tested",
        )
    if fresh and design == "kfold":
        raise ConfigError(
            "fresh patients in the design 'kfold'", "single or repeated: each draw tests its own patients"
        )
    base, *others = (
        make_config(changes={**SCALES[scale].changes, **(changes or {}), "model": name, "seed": seed}) for name in names
    )
    for config in (base, *others):
        create_model(config.model, replace(config.spec, widths=NARROW_WIDTHS))  # what it needs is installed
    recipe = {key: value for key, value in base.to_json().items() if key not in ("model", "seed")}
    if threshold is None and cohort.is_phantom:
        threshold = PAPER_THRESHOLD
    facts = {
        "sha256": cohort.sha256,
        "patients": len(set(cohort.patient_ids)),
        "visits": len(cohort),
        "kind": cohort.provenance["kind"],
        "preset": phantom.get("preset"),
        "seed": phantom.get("seed"),
    }
    versions = {name: metadata.version(name) for name in ("torch", "numpy", "scipy")}
    versions = {"nigradat": __version__, "python": platform.python_version(), **versions}
    ill = _disease(cohort, disease)
    plan = StudyPlan(
        facts, scale, names, design, count, seeds, fresh, seed, level, threshold, samples, recipe, versions, ill
    )
    check_labels(cohort, base.sbr_max)
    return plan


def _phantom(cohort: PackedCohort) -> dict[str, Any]:
    """Preset and seed of a phantom cohort; nothing where it has none."""
    there = cohort.provenance
    return {"preset": there["preset"], "seed": there["seed"]} if {"preset", "seed"} <= set(there) else {}


def _disease(cohort: PackedCohort, asked: Sequence[str] | None) -> tuple[str, ...]:
    known = _diagnoses(cohort)
    folded = {name.casefold() for name in known}
    if asked is None:
        return (USUAL_DISEASE,) if USUAL_DISEASE.casefold() in folded else ()
    for name in asked:
        if name.casefold() not in folded:
            raise ConfigError(
                f"nobody has the diagnosis '{name}'",
                f"one of {', '.join(known)}" if known else "a cohort with a column diagnosis",
                "" if known else "Leave --disease out",
            )
    return tuple(sorted(set(asked)))


def _diagnoses(cohort: PackedCohort) -> list[str]:
    return sorted({p.diagnosis for p in cohort.participants if p.diagnosis})


def _check_word(what: str, word: str, known: Sequence[str]) -> None:
    if word not in known:
        near = difflib.get_close_matches(word, known, n=1)
        raise ConfigError(
            f"no {what} is called '{word}'", ", ".join(known), f"Did you mean '{near[0]}'?" if near else ""
        )


def check_labels(cohort: PackedCohort, sbr_max: float) -> None:
    """What would refuse every single fit refuses the study."""
    if not np.isfinite(cohort.sbr).all():
        raise CohortError("a cohort with missing labels", "both SBR values for every visit")
    if float(cohort.sbr.max()) > sbr_max + 1e-9:
        raise CohortError(
            f"the largest SBR of the cohort is {float(cohort.sbr.max()):.2f}",
            f"at most {sbr_max:g}, the scale of the networks' output",
            f"Say --sbr-max {np.ceil(float(cohort.sbr.max())):g} for labels of another software",
        )


# -- Splits -------------------------------------------------------------------------------------------------------


def make_splits(plan: StudyPlan, cohort: PackedCohort) -> dict[str, Split]:
    """The splits of a plan by name. With fresh draws, whose patients are not there yet, one that has their sizes.

    Raises:
        CohortError: too few patients to divide.
        CalibrationError: too few calibration patients for the level; the number needed is named.
    """
    if plan.design == "kfold":
        found = make_folds(cohort, plan.splits, plan.seed)
    else:
        found = [make_split(cohort, plan.seed + i) for i in range(1 if plan.fresh else plan.splits)]
    for split in found:
        conformal_quantile(np.zeros(max(1, len(split.calibration))), plan.level)
        if not split.test:
            raise CohortError("a split without test patients", "at least one")
    return dict(zip(plan.split_names, found, strict=False))


def split_draw(plan: StudyPlan, cohort: PackedCohort, number: int) -> Split:
    """The split of a fresh draw: its first patients divided as the paper's, the others test.

    Args:
        plan: with ``fresh``.
        cohort: the draw, of ``sum(plan.draw_sizes)`` patients.
        number: of the draw, from 0.
    """
    own, fresh = plan.draw_sizes
    patients = int(plan.cohort["patients"])
    train = int(0.7 * patients + 1e-9)
    view = replace(cohort, participants=cohort.participants[:own])  # who tests must not even stratify
    split = make_split(view, plan.seed + number, validation=1 - train / own, test=0.0)
    tested = tuple(cohort.patient_ids[own:])
    return replace(split, test=tested, scheme=f"a fresh draw: {own} patients and {fresh} to test")


def _save_splits(folder: StudyFolder, splits: Mapping[str, Split]) -> None:
    for name, split in splits.items():
        path = folder.split(name)
        if not path.is_file():
            split.save(path)
        elif Split.load(path).sha256 != split.sha256:
            raise OutputError(f"{path} is another split", "the one of this study's plan", "Choose another folder")


# -- The folder ---------------------------------------------------------------------------------------------------


def claim(folder: StudyFolder, asked: StudyPlan, say: Callable[[str], None] = lambda _: None) -> StudyPlan:
    """Make the study folder, or recognise it and add to its plan.

    Methods, seeds and (but for k-fold) splits may grow; nothing is ever taken away.

    Raises:
        OutputError: it holds another study (what differs is named), or something else.
    """
    if not folder.plan.is_file():
        if folder.path.exists() and (not folder.path.is_dir() or any(folder.path.iterdir())):
            raise OutputError(f"{folder.path} exists and is no study folder", "a new or empty folder")
        write_json(folder.plan, asked.to_json())
        return asked
    there = StudyPlan.load(folder)
    old, new = (_comparable(plan) for plan in (there, asked))
    odd = [f"{k}: {old.get(k)!r} there, {new.get(k)!r} here" for k in sorted(old | new) if old.get(k) != new.get(k)]
    if odd:
        more = f"; {len(odd) - 6} more" if len(odd) > 6 else ""
        raise OutputError(
            f"{folder.path} holds another study ({'; '.join(odd[:6])}{more})",
            "the same plan, to which methods and seeds may be added",
            "Choose another folder; nothing was changed in this one",
        )
    every = dict.fromkeys((*there.methods, *asked.methods))
    plan = replace(
        there,
        methods=tuple(name for name in list_models() if name in every),
        seeds=max(there.seeds, asked.seeds),
        splits=max(there.splits, asked.splits),
    )
    grown = [name for name in _GROWS if getattr(plan, name) != getattr(there, name)]
    if grown:
        write_json(folder.plan, plan.to_json())
        added = (f"{name} {_said(getattr(there, name))} -> {_said(getattr(plan, name))}" for name in grown)
        say(f"The study in {folder.path} grows: {', '.join(added)}")
    elif larger := [name for name in _GROWS if getattr(plan, name) != getattr(asked, name)]:
        kept = ", ".join(f"{name} {_said(getattr(plan, name))}" for name in larger)
        say(f"The study in {folder.path} has more than was asked for ({kept}); all of it is kept")
    return plan


def _said(value: Any) -> str:
    return ", ".join(value) if isinstance(value, tuple) else str(value)


def model_record(name: FitName, parts: Split, **more: Any) -> FitRecord:
    """The record of a fit, with what is known of it before it begins; ``more`` are fields of the record."""
    facts: dict[str, Any] = {"title": get_method(name.method).title, "role": "model", **more}
    return FitRecord(
        method=name.method,
        split=name.split,
        seed=name.seed,
        folder=None,
        split_sha256=parts.sha256,
        train_patients=len(parts.train),
        test_patients=len(parts.test),
        **facts,
    )


def note_death(folder: StudyFolder, fit: FitName, note: str) -> None:
    """A killed worker leaves no record, so its caller does: the fit must not be missing from the tables."""
    run, split = folder.fit(fit.key), folder.split(fit.split)
    if read_record(run) is None and split.is_file():
        write_record(run, model_record(fit, Split.load(split), failed=note))


def _comparable(plan: StudyPlan) -> dict[str, Any]:
    """What must be equal: all but what may grow, and of the versions our own."""
    values = {k: v for k, v in asdict(plan).items() if k not in _GROWS or (k == "splits" and plan.design == "kfold")}
    values["versions"] = {"nigradat": plan.versions["nigradat"]}
    return _flat(json.loads(json.dumps(values)))


def _flat(value: Any, name: str = "") -> dict[str, Any]:
    if not isinstance(value, dict):
        return {name: value}
    return {k2: v2 for k, v in value.items() for k2, v2 in _flat(v, f"{name}.{k}".lstrip(".")).items()}


def study_tasks(folder: StudyFolder, plan: StudyPlan, cohort: PackedCohort, device: str = "auto") -> list[Task]:
    """What is left to do. A fit that is recorded as failed is left alone."""
    study = str(folder.path)

    def task(key: str, function: str, after: Sequence[str] = (), **arguments: Any) -> Task:
        return Task(key, f"nigradat.study.tasks:{function}", {"study": study, **arguments}, tuple(after))

    found = []
    for number, split in enumerate(plan.split_names):
        if plan.fresh and not folder.split(split).is_file():
            found.append(task(f"{split}/draw", "draw", number=number))
    for fit in plan.fits():
        run = folder.fit(fit.key)
        if not any((run / name).is_file() for name in (FIT_NAME, FAILED_NAME)):
            here = {"split": fit.split, "cohort": str(_cohort_of(folder, plan, cohort, fit.split)), "device": device}
            found.append(task(fit.key, "fit", [f"{fit.split}/draw"], method=fit.method, seed=fit.seed, **here))
    for split in plan.split_names:
        here = {"split": split, "cohort": str(_cohort_of(folder, plan, cohort, split))}
        if not (folder.fit(f"{split}/{LAST_BASELINE}") / FIT_NAME).is_file():
            found.append(task(f"{split}/baselines", "baselines", [f"{split}/draw"], **here))
        members = [fit for fit in plan.fits() if (fit.split, fit.method) == (split, ENSEMBLE_OF)]
        if len(members) > 1 and _members(folder, split) != [m.seed for m in members]:
            found.append(task(f"{split}/ensemble", "ensemble", [m.key for m in members], split=split))
    return found


def _members(folder: StudyFolder, split: str) -> list[int]:
    path = folder.fit(f"{split}/ensemble") / FIT_NAME
    return list(read_json(path).get("members", [])) if path.is_file() else []


def _cohort_of(folder: StudyFolder, plan: StudyPlan, cohort: PackedCohort, split: str) -> Path:
    return folder.cohort(split) if plan.fresh else cohort.folder.resolve()
