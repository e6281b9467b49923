"""From a spread to an interval with a promise: multipliers from patients that served for nothing else.

The scores of the calibration patients are kept, so that an interval at any level can be made later. Two ways to choose
the multiplier k, per side:

* ``conformal``: the ``ceil((n + 1) level)``-th smallest score. Promise: averaged over calibration sets, a new patient
  of the same kind is covered with a probability of at least ``level`` per side (Vovk 2005). n is patients, never sides.
* ``nominal-cp``: k at which the calibration patients' own CP curve reaches the level, as the paper traces it. No
  promise beyond those patients.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, cast, get_args

import numpy as np
import numpy.typing as npt

from nigradat.anatomy import Side
from nigradat.errors import CalibrationError, ConfigError
from nigradat.io.files import write_json
from nigradat.io.pack import PackedCohort, load_cohort, verify
from nigradat.metrics.conformal import conformal_quantile, conformal_rank
from nigradat.metrics.intervals import k_at_cp, sharpness_cp_curve
from nigradat.models.weights import LoadedModel, load_model
from nigradat.training.fit import SPLIT_NAME, fingerprints, name_hash
from nigradat.training.split import Split
from nigradat.uncertainty.mc_dropout import Draws, draw_predictions
from nigradat.uncertainty.symmetric_mc import (
    DEFAULT_MODE,
    Fusion,
    Spread,
    SymmetricMode,
    check_mode,
    fit_fusion,
    symmetric_spread,
)

CALIBRATION_NAME = "calibration.json"
Rule = Literal["conformal", "nominal-cp"]
Array = npt.NDArray[np.float64]


def check_rule(rule: str) -> Rule:
    """A rule's name, or a :class:`~nigradat.errors.ConfigError` that lists them."""
    if rule not in get_args(Rule):
        raise ConfigError(f"no rule is called '{rule}'", ", ".join(get_args(Rule)))
    return cast(Rule, rule)


@dataclass(frozen=True, eq=False)
class Calibration:
    """What turns samples into intervals.

    Attributes:
        mode: candidate of :mod:`nigradat.uncertainty.symmetric_mc`.
        samples, seed: of the Monte-Carlo draws; the same ones are used for prediction.
        scores: sorted scores per side, right first; ``(2, n)``, NaN for a side without an answer, inf where a spread
            was 0.
        patients: how many patients calibrated.
        cohort_sha256, weights_sha256: what this belongs to.
        fusion: numbers of ``s7`` or None.
    """

    mode: SymmetricMode
    samples: int
    seed: int
    scores: Array
    patients: int
    cohort_sha256: str
    weights_sha256: str
    fusion: Fusion | None = None

    def multiplier(self, level: float, rule: Rule = "conformal") -> Array:
        """k per side, ``(2,)``; NaN for a side without an answer.

        Raises:
            CalibrationError: too few patients for the level; the number needed is named.
        """
        out = np.full(2, np.nan)
        for side in Side:
            scores = self.scores[side.index]
            if np.isnan(scores).any():
                continue
            if rule == "conformal":
                out[side.index] = conformal_quantile(scores, level)
            else:
                ones = np.ones(len(scores))
                out[side.index] = float(k_at_cp(sharpness_cp_curve(scores, 0 * ones, ones, 1.0), level))
        return out

    def spread(self, drawn: Draws, sbr_max: float) -> Spread:
        """Centre and spread of new predictions, in this calibration's mode."""
        return symmetric_spread(drawn.samples, self.mode, sbr_max, self.fusion, drawn.noise_sd)

    def promise(self, level: float, rule: Rule = "conformal") -> str:
        """What an interval at this level promises, in words."""
        n = self.patients
        if rule == "nominal-cp":
            return (
                f"covers {100 * level:g} % of the {n} calibration patients' values on each side by construction; "
                "no promise for new patients"
            )
        rank = conformal_rank(n, level)
        return (
            f"on each side, at least {100 * level:g} % of new patients like the {n} calibration patients are covered "
            f"on average over such calibrations (split conformal, rank {rank} of {n}); not a promise for subgroups, "
            "for both sides at once or for other scanners"
        )


def calibrate(
    run: str | os.PathLike[str],
    cohort: PackedCohort | str | os.PathLike[str],
    *,
    mode: SymmetricMode = DEFAULT_MODE,
    samples: int = 100,
    seed: int = 0,
    level: float = 0.95,
) -> Calibration:
    """Calibrate a trained run and write ``calibration.json`` into its folder.

    Args:
        run: model folder.
        cohort: the run's own cohort, whose calibration part is taken, or another labelled one, taken whole.
        mode, samples, seed: how the spread is made.
        level: checked to be reachable with these patients; any lower level can be asked for later.

    Raises:
        CalibrationError: no dropout and no log-normal head; too few patients (95 % needs 19); a patient who trained or
            stopped the model.

    Example:
        >>> nigradat.calibrate("run", "cohort").multiplier(0.9)                                 # doctest: +SKIP
    """
    loaded = load_model(run)
    data = cohort if isinstance(cohort, PackedCohort) else load_cohort(cohort)
    rows = calibration_rows(loaded, data)
    n = len(set(np.array(data.patient_ids)[rows]))
    if n != len(rows):
        # one visit a patient, or the scores would not be exchangeable with those of a new patient
        first = {data.patient_ids[i]: i for i in rows[::-1]}
        rows = np.array(sorted(first.values()))
    if conformal_rank(max(n, 1), level) > n:
        conformal_quantile(np.zeros(max(n, 1)), level)  # raises, naming the number needed
    verify(data)
    drawn = _draw(loaded, data, rows, samples, seed)
    fusion = _fit_fusion(loaded, data, samples, seed) if mode == "s7" else None
    spread = symmetric_spread(drawn.samples, mode, loaded.spec.sbr_max, fusion, drawn.noise_sd)
    scores = np.sort(spread.score(data.sbr[rows]), axis=0).T
    calibration = Calibration(
        mode, samples, seed, scores, n, data.sha256, loaded.card["sha256"]["model.safetensors"], fusion
    )
    save_calibration(loaded.folder, calibration, level)
    return calibration


def calibration_rows(loaded: LoadedModel, data: PackedCohort) -> npt.NDArray[np.int_]:
    """Rows that may calibrate: the run's calibration part in its own cohort, or all of another cohort.

    Raises:
        CalibrationError: none there, or one of them was used in training, early stopping or selection.
    """
    training = loaded.card.get("training", {})
    if training.get("cohort_sha256") == data.sha256:
        split = Split.load(loaded.folder / SPLIT_NAME)
        rows = split.rows(data, "calibration")
    else:
        rows = np.arange(len(data))
    if not np.isfinite(data.sbr[rows]).all():
        raise CalibrationError("calibration patients without labels", "both SBR values for every visit")
    if len(rows) == 0:
        raise CalibrationError("no calibration patients", "at least 19 patients for a 95 % interval")
    check_unseen(loaded, data, rows, "calibration")
    return rows


def check_unseen(loaded: LoadedModel, data: PackedCohort, rows: npt.NDArray[np.int_], purpose: str) -> None:
    """Refuse rows whose images, or whose patients, trained or stopped the model.

    Images are compared by hash. Names are compared where both cohorts are patients (two phantom cohorts share names).

    Raises:
        CalibrationError: with how many and which.
    """
    training = loaded.card.get("training", {})
    seen = set(training.get("seen_fingerprints", ()))
    known = [data.participants[i].visit_id for i, f in zip(rows, fingerprints(data, rows), strict=True) if f in seen]
    if not loaded.is_phantom_trained and not data.is_phantom:
        names = set(training.get("seen_names", ()))
        known += [data.patient_ids[i] for i in rows if name_hash(data.patient_ids[i]) in names]
    if known:
        raise CalibrationError(
            f"{len(set(known))} of the {len(rows)} patients for {purpose} were used in training or early stopping "
            f"({', '.join(sorted(set(known))[:5])})",
            "patients that the model has not met",
            "Take them out of the cohort, or use the cohort of the training itself (its parts are kept apart)",
        )


def _fit_fusion(loaded: LoadedModel, data: PackedCohort, samples: int, seed: int) -> Fusion:
    if loaded.card.get("training", {}).get("cohort_sha256") != data.sha256:
        raise CalibrationError("mode 's7' with another cohort", "the cohort of the run, whose stopping patients fit it")
    rows = Split.load(loaded.folder / SPLIT_NAME).rows(data, "stop")
    return fit_fusion(_draw(loaded, data, rows, samples, seed).samples, data.sbr[rows])


def _draw(loaded: LoadedModel, data: PackedCohort, rows: npt.NDArray[np.int_], samples: int, seed: int) -> Draws:
    """A few rows of the cohort in memory at a time."""
    return Draws.joined(
        [
            draw_predictions(loaded.model, np.stack([data.read(int(i)) for i in block]), samples=samples, seed=seed)
            for block in np.array_split(rows, -(-len(rows) // 64))
        ]
    )


def save_calibration(folder: Path, calibration: Calibration, level: float) -> None:
    """Write ``calibration.json``, with the promise in words."""
    write_json(
        folder / CALIBRATION_NAME,
        {
            **{k: v for k, v in vars(calibration).items() if k not in ("scores", "fusion")},
            "fusion": None if calibration.fusion is None else asdict(calibration.fusion),
            "scores": {side.value: [_score_to_json(v) for v in calibration.scores[side.index]] for side in Side},
            "level": level,
            "multiplier": dict(zip([s.value for s in Side], calibration.multiplier(level), strict=True)),
            "promise": calibration.promise(level),
            "reconstruction": "the symmetric MC interval is a reconstruction of the paper's Algorithm 1",
        },
    )


def _score_to_json(score: float) -> float | str | None:
    """JSON has no infinity: it is written as text, apart from NaN, which is null."""
    return None if np.isnan(score) else "inf" if np.isinf(score) else float(score)


def _score_from_json(value: float | str | None) -> float:
    return np.nan if value is None else float(value)


def load_calibration(loaded: LoadedModel) -> Calibration | None:
    """The calibration of a model, or None where there is none.

    Raises:
        CalibrationError: damaged, or made for other weights.
    """
    path = loaded.folder / CALIBRATION_NAME
    if not path.is_file():
        return None
    try:
        data: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        scores = np.array([[_score_from_json(v) for v in data["scores"][side.value]] for side in Side])
        calibration = Calibration(
            check_mode(data["mode"]),
            int(data["samples"]),
            int(data["seed"]),
            scores,
            int(data["patients"]),
            data["cohort_sha256"],
            data["weights_sha256"],
            Fusion(**data["fusion"]) if data["fusion"] else None,
        )
        if scores.ndim != 2 or scores.shape != (2, calibration.patients):
            raise ValueError(f"scores of shape {scores.shape} for {calibration.patients} patients")
    except (ValueError, KeyError, TypeError, ConfigError) as error:
        raise CalibrationError(f"{path} is damaged ({error})", "the file that 'nigradat calibrate' wrote") from error
    if calibration.weights_sha256 != loaded.card["sha256"]["model.safetensors"]:
        raise CalibrationError(f"{path} was made for other weights", "a calibration of this model", "Calibrate again")
    return calibration
