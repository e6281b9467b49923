"""From a spread to an interval with a promise: multipliers from patients that served for nothing else.

The scores of the calibration patients are kept, so that an interval at any level can be made later. A rule chooses the
multiplier k; each promises something else. n is patients, never sides.

* ``conformal``: per side, the ``ceil((n + 1) level)``-th smallest score. Promise: averaged over calibration sets, a new
  patient of the same kind is covered with a probability of at least ``level`` on each side (Vovk 2005).
* ``mondrian``: the same within each third of the predictions, per side. The promise then holds within each third.
* ``joint``: both sides at once, by the patient's larger score. Promise: both intervals cover together.
* ``cv+``: for cohorts too small to spare calibration patients; see :mod:`nigradat.uncertainty.cross_validation`.
* ``nominal-cp``: k at which the calibration patients' own CP curve reaches the level, as the paper traces it. No
  promise beyond those patients.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Final, Literal, get_args

import numpy as np
import numpy.typing as npt

from nigradat.anatomy import Side
from nigradat.errors import CalibrationError, ConfigError
from nigradat.io.files import write_json
from nigradat.io.pack import PackedCohort, load_cohort, verify
from nigradat.metrics.conformal import conformal_quantile, conformal_rank, patients_needed
from nigradat.metrics.intervals import k_at_cp, sharpness_cp_curve
from nigradat.models.weights import LoadedModel, load_model
from nigradat.training.fit import SPLIT_NAME, fingerprints, identities, name_hash
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
Rule = Literal["conformal", "mondrian", "joint", "cv+", "nominal-cp"]
RULES: Final[tuple[Rule, ...]] = get_args(Rule)
THIRDS: Final = ("low", "middle", "high")  # of the predictions
Array = npt.NDArray[np.float64]


def check_rule(rule: str) -> Rule:
    """A rule's name, or a :class:`~nigradat.errors.ConfigError` that lists them."""
    if rule not in RULES:
        raise ConfigError(f"no rule is called '{rule}'", ", ".join(RULES))
    return rule


@dataclass(frozen=True, eq=False)
class Calibration:
    """What turns samples into intervals.

    Attributes:
        mode: candidate of :mod:`nigradat.uncertainty.symmetric_mc`.
        samples, seed: of the Monte-Carlo draws; the same ones are used for prediction.
        scores: one a patient and side, right first; ``(2, n)``, NaN for a side without an answer, inf where a spread
            was 0.
        centres: what the scores are distances from, ``(2, n)`` SBR, in the same order of patients.
        patients: how many patients calibrated.
        cohort_sha256, weights_sha256: what this belongs to.
        met: by what the patients are known again (:func:`nigradat.training.fit.identities`): they are no test.
        fusion: numbers of ``s7`` or None.
    """

    mode: SymmetricMode
    samples: int
    seed: int
    scores: Array
    centres: Array
    patients: int
    cohort_sha256: str
    weights_sha256: str
    met: tuple[str, ...] = ()
    fusion: Fusion | None = None

    def multiplier(self, level: float, rule: Rule = "conformal", centre: npt.ArrayLike | None = None) -> Array:
        """k of the interval ``centre +- k S``.

        Args:
            level: to be promised.
            rule: see the module.
            centre: ``(m, 2)`` SBR, the centres of the new predictions; ``mondrian`` needs them, the others do not.

        Returns:
            ``(2,)``, one a side, NaN for a side without an answer; for ``mondrian`` ``(m, 2)``, one a prediction.

        Raises:
            CalibrationError: too few patients for the level; the number needed is named.
            ConfigError: ``mondrian`` without centres, or ``cv+``, whose intervals have no one k.
        """
        if rule == "cv+":
            raise ConfigError("a multiplier of cv+", "conformal, mondrian, joint or nominal-cp")
        if rule == "mondrian":
            if centre is None:
                raise ConfigError("mondrian without the predictions' centres", "centre of shape (m, 2)")
            new = np.asarray(centre, dtype=np.float64)
            return np.stack([self._by_third(side, new[:, side.index], level) for side in Side], axis=1)
        answered = ~np.isnan(self.scores).any(axis=1)
        out = np.full(2, np.nan)
        if rule == "joint":
            out[answered] = conformal_quantile(self.scores[answered].max(axis=0), level)
            return out
        for i in np.flatnonzero(answered):
            if rule == "conformal":
                out[i] = conformal_quantile(self.scores[i], level)
            else:
                ones = np.ones(self.patients)
                out[i] = float(k_at_cp(sharpness_cp_curve(self.scores[i], 0 * ones, ones, 1.0), level))
        return out

    def thirds(self, side: Side) -> tuple[Array, tuple[Array, Array, Array]]:
        """How ``mondrian`` divides the predictions of a side: two cuts in SBR, and the scores of each third.

        A new patient's third is that of its rank among itself and the n calibration patients, which treats all n + 1
        alike, as the promise needs. The patients at the cuts therefore belong to neither side of them.
        """
        order = np.argsort(self.centres[side.index], kind="stable")
        ends = [-(-t * (self.patients + 1) // 3) for t in range(4)]  # ranks of n + 1, from 0
        low, middle, high = (self.scores[side.index][order[a : b - 1]] for a, b in pairwise(ends))
        return self.centres[side.index][order[[ends[1] - 1, ends[2] - 1]]], (low, middle, high)

    def _by_third(self, side: Side, centre: Array, level: float) -> Array:
        if np.isnan(self.scores[side.index]).any():
            return np.full(len(centre), np.nan)
        self._check_thirds(level)
        cuts, scores = self.thirds(side)
        k = np.array([conformal_quantile(third, level) for third in scores])
        return np.where(np.isnan(centre), np.nan, k[np.searchsorted(cuts, centre, side="left")])

    def _check_thirds(self, level: float) -> None:
        if (needed := patients_needed(level)) > (self.patients + 1) // 3 - 1:
            raise CalibrationError(
                f"{self.patients} calibration patients, of which a third counts, for an interval at level {level:g}",
                f"at least {3 * needed + 2} patients",
                "Calibrate on more patients, ask for a lower level or take the rule conformal",
            )

    def spread(self, drawn: Draws, sbr_max: float) -> Spread:
        """Centre and spread of new predictions, in this calibration's mode."""
        return symmetric_spread(drawn.samples, self.mode, sbr_max, self.fusion, drawn.noise_sd)

    def promise(self, level: float, rule: Rule = "conformal") -> str:
        """What an interval at this level promises, in words.

        Raises:
            CalibrationError: too few patients for ``mondrian``.
            ConfigError: ``cv+``, whose promise is that of its own calibration.
        """
        n, share = self.patients, f"{100 * level:g} %"
        if rule == "cv+":
            raise ConfigError("the promise of cv+", "the one of its own calibration")
        if rule == "nominal-cp":
            return (
                f"covers {share} of the {n} calibration patients' values on each side by construction; "
                "no promise for new patients"
            )
        like = f"new patients like the {n} calibration patients"
        average = "on average over such calibrations"
        answered = [side for side in Side if not np.isnan(self.scores[side.index]).any()]
        each, rest = "on each side", "for both sides at once or for other scanners"
        if len(answered) == 1:
            each, rest = f"on the {answered[0].value} side", "or for other scanners"
        if rule == "joint" and len(answered) == 2:
            return (
                f"for at least {share} of {like} both sides' intervals cover together, {average} (split conformal "
                f"on the larger score, rank {conformal_rank(n, level)} of {n}); not a promise for subgroups or for "
                "other scanners"
            )
        if rule == "mondrian":
            self._check_thirds(level)
            sizes = sorted({len(scores) for scores in self.thirds(answered[0])[1]})
            return (
                f"{each}, and in each third of the predictions, at least {share} of {like} are covered {average} "
                f"(Mondrian split conformal, {' or '.join(map(str, sizes))} patients a third); not a promise for "
                f"thirds of the true SBR, which nobody knows beforehand, {rest}"
            )
        return (
            f"{each}, at least {share} of {like} are covered {average} (split conformal, rank "
            f"{conformal_rank(n, level)} of {n}); not a promise for subgroups, {rest}"
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
    calibration = Calibration(
        mode,
        samples,
        seed,
        spread.score(data.sbr[rows]).T,
        spread.centre.T,
        n,
        data.sha256,
        loaded.card["sha256"]["model.safetensors"],
        who(data, rows),
        fusion,
    )
    save_calibration(loaded.folder, calibration, level)
    return calibration


def who(data: PackedCohort, rows: npt.NDArray[np.int_]) -> tuple[str, ...]:
    """By what the patients of these rows are known again; see :func:`nigradat.training.fit.identities`."""
    return tuple(sorted(frozenset().union(*identities(data, rows))))


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
    if len(loaded.model.sides) < 2:
        raise ConfigError("mode 's7' of a model that answers for one side", "a model of both sides", "Take mode 'mc'")
    if loaded.card.get("training", {}).get("cohort_sha256") != data.sha256:
        raise CalibrationError(
            "mode 's7' with another cohort",
            "the cohort of the run, whose stopping patients fit it",
            "Calibrate on that cohort, or take another mode",
        )
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
            **{k: v for k, v in vars(calibration).items() if k not in ("scores", "centres", "fusion")},
            "fusion": None if calibration.fusion is None else asdict(calibration.fusion),
            "scores": {side.value: [score_to_json(v) for v in calibration.scores[side.index]] for side in Side},
            "centres": {side.value: [score_to_json(v) for v in calibration.centres[side.index]] for side in Side},
            "level": level,
            "multiplier": dict(zip([s.value for s in Side], calibration.multiplier(level), strict=True)),
            "promise": calibration.promise(level),
            "reconstruction": "the symmetric MC interval is a reconstruction of the paper's Algorithm 1",
        },
    )


def score_to_json(score: float) -> float | str | None:
    """JSON has no infinity: it is written as text, apart from NaN, which is null."""
    return None if np.isnan(score) else "inf" if np.isinf(score) else float(score)


def score_from_json(value: float | str | None) -> float:
    """What :func:`score_to_json` wrote."""
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
        scores, centres = (
            np.array([[score_from_json(v) for v in data[what][side.value]] for side in Side])
            for what in ("scores", "centres")
        )
        calibration = Calibration(
            check_mode(data["mode"]),
            int(data["samples"]),
            int(data["seed"]),
            scores,
            centres,
            int(data["patients"]),
            data["cohort_sha256"],
            data["weights_sha256"],
            tuple(map(str, data["met"])),
            Fusion(**data["fusion"]) if data["fusion"] else None,
        )
        if scores.shape != (2, calibration.patients) or centres.shape != scores.shape:
            raise ValueError(f"scores of shape {scores.shape} for {calibration.patients} patients")
    except (ValueError, KeyError, TypeError, ConfigError) as error:
        raise CalibrationError(f"{path} is damaged ({error})", "the file that 'nigradat calibrate' wrote") from error
    if calibration.weights_sha256 != loaded.card["sha256"]["model.safetensors"]:
        raise CalibrationError(f"{path} was made for other weights", "a calibration of this model", "Calibrate again")
    return calibration
