"""CV+: intervals for a cohort too small to spare calibration patients.

Every patient is scored by the one of K models that never met it (its fold's test part), so all n patients calibrate.
With the model f of patient i's fold, its centre and spread on a new pair x, and the score
``R_i = |y_i - c_f(x_i)| / S_f(x_i)``, the interval runs from the ``floor((n + 1)(1 - level))``-th smallest of
``c_f(x) - R_i S_f(x)`` to the ``ceil((n + 1) level)``-th smallest of ``c_f(x) + R_i S_f(x)``.

Source: Barber, Candes, Ramdas, Tibshirani, "Predictive inference with the jackknife+", Ann. Stat. 2021, section 3.2 and
theorem 4 (n patients in K folds), here with normalised scores.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from nigradat.anatomy import Side
from nigradat.errors import CalibrationError, ConfigError
from nigradat.io.files import new_folder, write_json
from nigradat.io.pack import PackedCohort, load_cohort, verify
from nigradat.metrics.conformal import conformal_quantile, conformal_rank
from nigradat.models.weights import CARD_NAME, WEIGHTS_NAME, LoadedModel, load_model
from nigradat.training.fit import SPLIT_NAME
from nigradat.training.split import Split
from nigradat.uncertainty.calibration import check_unseen, score_from_json, score_to_json
from nigradat.uncertainty.mc_dropout import draw_predictions
from nigradat.uncertainty.symmetric_mc import DEFAULT_MODE, Spread, SymmetricMode, check_mode, symmetric_spread

CV_PLUS_NAME: Final = "cv-plus.json"
FOLDS_NAME: Final = "folds"
_BLOCK: Final = 64  # visits in memory at a time
Array = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class CrossCalibration:
    """K models and what each patient's error was under the one that never met it.

    Attributes:
        models: of the folds.
        mode, samples, seed: how a spread is made; see :class:`~nigradat.uncertainty.calibration.Calibration`.
        scores: ``(n, 2)``, right first.
        fold: ``(n,)``, which model scored a patient.
        cohort_sha256: whose patients.
    """

    models: tuple[LoadedModel, ...]
    mode: SymmetricMode
    samples: int
    seed: int
    scores: Array
    fold: npt.NDArray[np.int_]
    cohort_sha256: str

    @property
    def patients(self) -> int:
        """How many patients the interval rests on."""
        return len(self.scores)

    def interval(self, patches: npt.NDArray[np.float32], level: float) -> tuple[Array, Array]:
        """Lower and upper ends ``(m, 2)`` SBR for patches ``(m, 2, 50, 50, 20)``; not clipped.

        Raises:
            CalibrationError: too few patients for the level; the number needed is named.
        """
        self.check(level)
        made = [_spread(model, patches, self.mode, self.samples, self.seed) for model in self.models]
        centre, spread = (np.stack([getattr(s, what) for s in made]) for what in ("centre", "spread"))  # (K, m, 2)
        half = self.scores[:, None] * spread[self.fold]  # (n, m, 2)
        rank = conformal_rank(self.patients, level)
        low = np.sort(centre[self.fold] - half, axis=0)[self.patients - rank]  # rank n + 1 - rank from below
        high = np.sort(centre[self.fold] + half, axis=0)[rank - 1]
        return low, high

    def check(self, level: float) -> None:
        """Refuse a level that these patients cannot carry.

        Raises:
            CalibrationError: with the number of patients needed; a level below 0.5, where the ends of the interval
                may change places.
        """
        if level < 0.5:
            raise CalibrationError(f"level {level:g} for CV+", "0.5 or more", "Take another rule for so low a level")
        conformal_quantile(np.zeros(self.patients), level)

    def guaranteed(self, level: float) -> float:
        """The coverage that theorem 4 guarantees, below the nominal level."""
        n, k = self.patients, len(self.models)
        excess = min(2 * (1 - 1 / k) / (n / k + 1), (1 - k / n) / (k + 1))
        return max(0.0, 1 - 2 * (1 - level) - excess)

    def promise(self, level: float) -> str:
        """What an interval at this level promises, in words."""
        sure = self.guaranteed(level)
        return (
            f"on each side, about {100 * level:g} % of new patients like the {self.patients} patients are covered, and "
            f"at least {100 * sure:.1f} % for certain, on average over such cohorts (CV+ with {len(self.models)} "
            "models, folds of about equal size); not a promise for subgroups, for both sides at once or for other "
            "scanners"
        )


def calibrate_folds(
    run: str | os.PathLike[str],
    folds: Sequence[str | os.PathLike[str]],
    cohort: PackedCohort | str | os.PathLike[str],
    *,
    mode: SymmetricMode = DEFAULT_MODE,
    samples: int = 100,
    seed: int = 0,
    level: float = 0.95,
) -> CrossCalibration:
    """Prepare CV+ intervals for a model and write them, with the folds' models, into its folder.

    Args:
        run: folder of the model that gives the point prediction; its weights play no part in the interval.
        folds: run folders trained on ``cohort`` with one fold's split each, as ``nigradat study --design kfold`` leaves
            them in its folder ``fits``.
        cohort: of all folds.
        mode, samples, seed: how the spread is made; ``s5`` cuts with the other side and ``s7`` is fitted to one model,
            so neither carries over.
        level: checked to be reachable with these patients; any lower one can be asked for later.

    Returns:
        What is written to ``run/cv-plus.json``, with the folds' models in ``run/folds``.

    Raises:
        CalibrationError: fewer than two folds, one of another cohort or model, a patient tested twice, or too few.
        ConfigError: mode ``s5`` or ``s7``.

    Example:
        >>> fits = [f"study/fits/fold-{k + 1}/sym-vgg-plus-seed{1 + 1000 * k}" for k in range(5)]
        >>> nigradat.calibrate_folds("run", fits, "cohort").promise(0.95)                       # doctest: +SKIP
    """
    if check_mode(mode) in ("s5", "s7"):
        raise ConfigError(
            f"cv+ with mode '{mode}'", "a mode with one centre and one spread: mc, s1, s2, s2b, s3, s4, s6"
        )
    if len(folds) < 2:
        raise CalibrationError(f"{len(folds)} fold", "the runs of at least 2 folds", "Name each with --fold")
    home, models = load_model(run), tuple(load_model(fold) for fold in folds)
    data = cohort if isinstance(cohort, PackedCohort) else load_cohort(cohort)
    rows, fold = _tested(models, data)
    for model in models:
        if model.spec != home.spec:
            raise CalibrationError(f"{model.folder} is another model than {home.folder}", "folds of the same model")
    verify(data)
    scores = np.concatenate(
        [
            _spread_of_rows(model, data, rows[fold == k], mode, samples, seed).score(data.sbr[rows[fold == k]])
            for k, model in enumerate(models)
        ]
    )
    made = CrossCalibration(models, mode, samples, seed, scores, np.sort(fold), data.sha256)
    made.check(level)
    _save(home.folder, made, level)
    return made


def load_cross_calibration(loaded: LoadedModel) -> CrossCalibration | None:
    """The CV+ calibration of a model, or None where there is none.

    Raises:
        CalibrationError: damaged.
        WeightsError: a fold's weights that are missing or altered.
    """
    path = loaded.folder / CV_PLUS_NAME
    if not path.is_file():
        return None
    try:
        data: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        models = tuple(load_model(loaded.folder / FOLDS_NAME / name) for name in data["models"])
        made = CrossCalibration(
            models,
            check_mode(data["mode"]),
            int(data["samples"]),
            int(data["seed"]),
            np.array([[score_from_json(v) for v in data["scores"][side.value]] for side in Side]).T,
            np.array(data["fold"], dtype=int),
            data["cohort_sha256"],
        )
        if made.scores.shape != (len(made.fold), 2) or not set(made.fold) <= set(range(len(models))):
            raise ValueError(f"scores of shape {made.scores.shape} for {len(made.fold)} patients")
    except (ValueError, KeyError, TypeError, ConfigError) as error:
        raise CalibrationError(f"{path} is damaged ({error})", "the file that 'nigradat calibrate' wrote") from error
    for model in models:
        if _name_of(model) != model.folder.name:
            raise CalibrationError(f"{model.folder} holds other weights", "those of the calibration", "Calibrate again")
    return made


def _tested(models: Sequence[LoadedModel], data: PackedCohort) -> tuple[npt.NDArray[np.int_], npt.NDArray[np.int_]]:
    """Rows of one visit a patient and the fold that tested it."""
    if not np.isfinite(data.sbr).all():
        raise CalibrationError("calibration patients without labels", "both SBR values for every visit")
    rows, fold = [], []
    met: set[str] = set()
    for k, model in enumerate(models):
        if model.card.get("training", {}).get("cohort_sha256") != data.sha256:
            raise CalibrationError(f"{model.folder} was trained on another cohort", "the cohort of all folds")
        tested = Split.load(model.folder / SPLIT_NAME).rows(data, "test")
        first = {data.patient_ids[i]: int(i) for i in tested[::-1]}
        if twice := met & set(first):
            raise CalibrationError(
                f"{len(twice)} patients are tested in two folds ({', '.join(sorted(twice)[:5])})",
                "folds whose test parts do not overlap",
                "Take the fits of one k-fold design: one run a fold",
            )
        met |= set(first)
        mine = np.array(sorted(first.values()), dtype=int)
        if not len(mine):
            raise CalibrationError(f"{model.folder} has no test patients", "the run of a fold")
        check_unseen(model, data, mine, "calibration")
        rows.append(mine)
        fold.append(np.full(len(mine), k))
    return np.concatenate(rows), np.concatenate(fold)


def _spread(
    model: LoadedModel, patches: npt.NDArray[np.float32], mode: SymmetricMode, samples: int, seed: int
) -> Spread:
    drawn = draw_predictions(model.model, patches, samples=samples, seed=seed)
    return symmetric_spread(drawn.samples, mode, model.spec.sbr_max, noise_sd=drawn.noise_sd)


def _spread_of_rows(
    model: LoadedModel, data: PackedCohort, rows: npt.NDArray[np.int_], mode: SymmetricMode, samples: int, seed: int
) -> Spread:
    made = [
        _spread(model, np.stack([data.read(int(i)) for i in block]), mode, samples, seed)
        for block in np.array_split(rows, -(-len(rows) // _BLOCK))
    ]
    return Spread(np.concatenate([s.centre for s in made]), np.concatenate([s.spread for s in made]))


def _save(folder: Path, made: CrossCalibration, level: float) -> None:
    """The folds' models are copied into the run's own folder, so that it can be moved. The table comes last."""
    names = [_name_of(model) for model in made.models]
    for name, model in zip(names, made.models, strict=True):
        if not (folder / FOLDS_NAME / name).exists():
            with new_folder(folder / FOLDS_NAME / name) as hidden:
                for part in (WEIGHTS_NAME, CARD_NAME):
                    shutil.copyfile(model.folder / part, hidden / part)
    write_json(
        folder / CV_PLUS_NAME,
        {
            "models": names,
            "mode": made.mode,
            "samples": made.samples,
            "seed": made.seed,
            "patients": made.patients,
            "fold": made.fold,
            "scores": {side.value: [score_to_json(v) for v in made.scores[:, side.index]] for side in Side},
            "cohort_sha256": made.cohort_sha256,
            "level": level,
            "guaranteed": made.guaranteed(level),
            "promise": made.promise(level),
        },
    )
    for left_over in (folder / FOLDS_NAME).iterdir():
        if left_over.name not in names:
            shutil.rmtree(left_over, ignore_errors=True)


def _name_of(model: LoadedModel) -> str:
    """By content, so that calibrating again with the same folds copies nothing."""
    return str(model.card["sha256"][WEIGHTS_NAME])[:16]
