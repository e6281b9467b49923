"""Who trains, who stops the training, who calibrates, who tests: by patient, stratified by SBR, seeded, as a file."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

from nigradat.errors import CohortError
from nigradat.io.files import write_json
from nigradat.io.pack import PackedCohort

PARTS = ("train", "stop", "calibration", "test")


@dataclass(frozen=True)
class Split:
    """Patient identifiers of the four parts; visits of one patient are never divided.

    Attributes:
        train: fits the weights.
        stop: half of the validation patients; decides when training ends.
        calibration: the other half; used for nothing but intervals.
        test: decides nothing.
        seed, scheme: how it was drawn.

    Raises:
        CohortError: a patient in two parts, or an empty training or stopping part.
    """

    train: tuple[str, ...]
    stop: tuple[str, ...]
    calibration: tuple[str, ...]
    test: tuple[str, ...]
    seed: int
    scheme: str = "70/15/15"

    def __post_init__(self) -> None:
        seen: dict[str, str] = {}
        for part in PARTS:
            for patient in getattr(self, part):
                if patient in seen:
                    raise CohortError(
                        f"patient {patient} is in '{seen[patient]}' and in '{part}'",
                        "every patient once",
                        "Make the split again with nigradat.make_split",
                    )
                seen[patient] = part
        if not self.train or not self.stop:
            raise CohortError(
                f"a split with {len(self.train)} training and {len(self.stop)} stopping patients", "at least one each"
            )

    @property
    def validation(self) -> tuple[str, ...]:
        """Stopping and calibration patients together: the paper's 15 %."""
        return self.stop + self.calibration

    @property
    def sha256(self) -> str:
        """Identity of the split: a hash over its parts."""
        text = json.dumps({part: list(getattr(self, part)) for part in PARTS})
        return hashlib.sha256(text.encode()).hexdigest()

    def rows(self, cohort: PackedCohort, part: str) -> np.ndarray:
        """Row numbers (visits) of a part, ascending; ``part`` is one of train, stop, calibration, validation, test."""
        wanted = set(getattr(self, part))
        return np.array([i for i, patient in enumerate(cohort.patient_ids) if patient in wanted], dtype=int)

    def check(self, cohort: PackedCohort) -> None:
        """Refuse a split that does not belong to a cohort.

        Raises:
            CohortError: a patient of the split is not in the cohort, or the other way round.
        """
        here, there = set(cohort.patient_ids), {p for part in PARTS for p in getattr(self, part)}
        if here != there:
            odd = sorted(here ^ there)
            raise CohortError(
                f"split and cohort differ in {len(odd)} patients, {odd[0]} among them",
                "the split that was made for this cohort",
            )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write as JSON."""
        write_json(path, {**{f.name: getattr(self, f.name) for f in fields(self)}, "sha256": self.sha256})

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Split:
        """Read and check; disjointness is asserted here.

        Raises:
            CohortError: not a split file, altered, or not disjoint.
        """
        try:
            data = json.loads(Path(path).read_text(encoding="utf-8"))
            split = cls(
                **{part: tuple(map(str, data[part])) for part in PARTS},
                seed=int(data["seed"]),
                scheme=str(data["scheme"]),
            )
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise CohortError(f"{path} is no split file ({error})", "one that nigradat wrote") from error
        if data.get("sha256") != split.sha256:
            raise CohortError(f"{path} was changed after it was written", "the patients that its hash names")
        return split


def make_split(
    cohort: PackedCohort, seed: int, *, validation: float = 0.15, test: float = 0.15, calibration: float = 0.5
) -> Split:
    """The paper's split, stratified by the patient's mean SBR.

    Args:
        cohort: labelled.
        seed: same seed, same split.
        validation, test: shares of the patients. Training and test shares are rounded down as in the paper
            (367 patients: 256 / 56 / 55).
        calibration: share of the validation patients that calibrates; the others stop the training.

    Raises:
        CohortError: too few patients, or labels missing.

    Example:
        >>> make_split(nigradat.load_cohort("cohort"), seed=1).save("split.json")               # doctest: +SKIP
    """
    ids = _patients_by_sbr(cohort)
    n = len(ids)
    n_train, n_test = int((1 - validation - test) * n + 1e-9), int(test * n + 1e-9)
    n_validation = n - n_train - n_test
    n_calibration = int(calibration * n_validation + 1e-9)  # the odd one stops the training
    if min(n_train, n_validation - n_calibration) < 2 or (test > 0 and n_test < 1):
        raise CohortError(
            f"{n} patients are too few to divide into training, validation and test", "at least 20 patients"
        )
    rng = np.random.default_rng([seed, 1])
    tested, rest = _stratified_pick(ids, n_test, rng)
    validated, trained = _stratified_pick(rest, n_validation, rng)
    calibrating, stopping = _stratified_pick(validated, n_calibration, rng)
    scheme = "/".join(f"{100 * share:g}" for share in (1 - validation - test, validation, test))
    return _split((trained, stopping, calibrating, tested), seed, scheme)


def make_folds(cohort: PackedCohort, k: int, seed: int, *, validation: float = 0.15) -> list[Split]:
    """``k`` splits whose test parts cover every patient once; each holds back its own validation patients.

    Raises:
        CohortError: fewer than 2 folds, or too few patients for ``k``.

    Example:
        >>> folds = make_folds(nigradat.load_cohort("cohort"), k=5, seed=1)                     # doctest: +SKIP
    """
    ids = _patients_by_sbr(cohort)
    if not 2 <= k <= len(ids) // 4:
        raise CohortError(f"{k} folds for {len(ids)} patients", f"2 to {len(ids) // 4} folds")
    rng = np.random.default_rng([seed, 2])
    # neighbours in SBR go to different folds
    neighbours = [ids[i : i + k] for i in range(0, len(ids), k)]
    fold_of = {p: int(f) for group in neighbours for p, f in zip(group, rng.permutation(k), strict=False)}
    splits = []
    for fold in range(k):
        rest = [p for p in ids if fold_of[p] != fold]
        n_validation = round(validation * len(ids))
        validated, trained = _stratified_pick(rest, n_validation, rng)
        calibrating, stopping = _stratified_pick(validated, n_validation // 2, rng)
        tested = [p for p in ids if fold_of[p] == fold]
        splits.append(_split((trained, stopping, calibrating, tested), seed, f"fold {fold + 1} of {k}"))
    return splits


def _split(parts: Sequence[Sequence[str]], seed: int, scheme: str) -> Split:
    """Parts in the order of ``PARTS``."""
    train, stop, calibration, test = (tuple(sorted(part)) for part in parts)
    return Split(train, stop, calibration, test, seed, scheme)


def _patients_by_sbr(cohort: PackedCohort) -> list[str]:
    sbr = cohort.sbr
    if not np.isfinite(sbr).all():
        raise CohortError("a cohort with missing labels", "both SBR values for every visit")
    by_patient: dict[str, list[float]] = {}
    for patient, value in zip(cohort.patient_ids, sbr.mean(axis=1), strict=True):
        by_patient.setdefault(patient, []).append(float(value))
    return sorted(by_patient, key=lambda p: (float(np.mean(by_patient[p])), p))


def _stratified_pick(ordered: Sequence[str], n: int, rng: np.random.Generator) -> tuple[list[str], list[str]]:
    """``n`` of an ordered sequence, one from each of ``n`` equal stretches; and the others, still in order."""
    stretches = np.array_split(np.arange(len(ordered)), n) if n else []
    picked = {ordered[int(rng.choice(stretch))] for stretch in stretches}
    return [p for p in ordered if p in picked], [p for p in ordered if p not in picked]
