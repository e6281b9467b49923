"""What an evaluation is made of: small frozen values that tables, figures and pages read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from nigradat.anatomy import Side
from nigradat.io.manifest import Participant
from nigradat.metrics import Estimate, OptimalPoint, PerSide, SharpnessCurve

Array = npt.NDArray[np.float64]
Rows = npt.NDArray[np.int_]
Role = Literal["model", "baseline", "oracle"]
Estimates = Mapping[str, PerSide[Estimate | None]]
"""Scores by name; None for a side that the method does not answer for (and then for the average)."""


@dataclass(frozen=True, eq=False)
class Subjects:
    """The visits on which everything in one evaluation is scored.

    Attributes:
        rows: in the cohort.
        participants: the visits, in that order.
        truth: ``(n, 2)`` SBR, right first.
        patient_of_visit: ``(n,)``, patients counted from 0; visits of one patient are resampled together.
    """

    rows: Rows
    participants: tuple[Participant, ...]
    truth: Array
    patient_of_visit: Rows

    @property
    def n_patients(self) -> int:
        """Patients, the unit of every interval."""
        return int(self.patient_of_visit.max()) + 1

    @property
    def first_visits(self) -> Rows:
        """One visit a patient: coverage counts patients."""
        return np.unique(self.patient_of_visit, return_index=True)[1]


@dataclass(frozen=True, eq=False)
class Trace:
    """Centre and spread of one way to look at the samples, and the sharpness-CP curve that they trace.

    The curve is that of the tested patients themselves, as in the paper's table; it promises nothing.

    Attributes:
        name: mode of :mod:`nigradat.uncertainty.symmetric_mc`, or ``oracle``.
        title: as a table prints it.
        centre, spread: ``(n, 2)`` SBR.
        curves: by answered side.
        optimal: None unless both sides are answered for.
        scores: ``sharpness_at_cp`` at ``cp``.
        cp: coverage at which Sharpness is read off.
    """

    name: str
    title: str
    centre: Array
    spread: Array
    curves: Mapping[Side, SharpnessCurve]
    optimal: OptimalPoint | None
    scores: Estimates
    cp: float


@dataclass(frozen=True)
class Coverage:
    """Covered patients of one side, with the exact binomial interval of their share."""

    covered: int
    patients: int
    low: float
    high: float

    @property
    def share(self) -> float:
        """Covered patients of all patients."""
        return self.covered / self.patients


@dataclass(frozen=True)
class KeptPromise:
    """How a promise about more than each side by itself fared.

    Attributes:
        about: whom, in words.
        coverage: of those patients.
        calibrated_on: patients that the promise rests on.
        expected: central 99.9 % range of the coverage of as many patients, for a valid interval.
    """

    about: str
    coverage: Coverage
    calibrated_on: int
    expected: tuple[float, float]


@dataclass(frozen=True, eq=False)
class Intervals:
    """Intervals that were fixed before the tested patients were looked at, and how they fared.

    Attributes:
        title: how they were made.
        level: nominal.
        lower, upper: ``(n, 2)`` SBR, not clipped at 0.
        coverage: by answered side, one visit a patient.
        expected: central 99.9 % range of the coverage on as many patients for a valid split-conformal interval from
            ``calibrated_on`` patients; None where the rule promises none.
        calibrated_on: calibration patients; None for the oracle.
        multiplier: k, right and left; None for the oracle.
        promise: in words.
        scores: ``mpiw`` (full width), ``sharpness`` and ``interval_score``, means over visits.
        promises: both sides together for ``joint``, thirds of the predictions for ``mondrian``; else none.
    """

    title: str
    level: float
    lower: Array
    upper: Array
    coverage: Mapping[Side, Coverage]
    expected: tuple[float, float] | None
    calibrated_on: int | None
    multiplier: tuple[float, float] | None
    promise: str
    scores: Estimates
    promises: tuple[KeptPromise, ...] = ()


@dataclass(frozen=True, eq=False)
class Scored:
    """One method on the tested patients: a row of the tables.

    Attributes:
        name: for files and machines.
        title: for people.
        role: trained model, baseline or oracle.
        predicted: ``(n, 2)`` SBR; nan for a side without an answer.
        scores: see :data:`nigradat.evaluation.weighted.ERROR_SCORES`.
        traces, intervals: empty for a method without them.
    """

    name: str
    title: str
    role: Role
    predicted: Array
    scores: Estimates
    traces: tuple[Trace, ...] = ()
    intervals: tuple[Intervals, ...] = ()

    @property
    def sides(self) -> tuple[Side, ...]:
        """The sides that it answers for."""
        return tuple(side for side in Side if np.isfinite(self.predicted[:, side.index]).all())


@dataclass(frozen=True)
class TestedOn:
    """Which patients, and what must be said about them.

    Attributes:
        cohort: name of its folder.
        sha256: of the cohort.
        provenance: as its card has it.
        own: it is the cohort of the training run, of which one part was tested.
        part: ``test``, another part of the split, or ``whole``.
        seen: a warning where these patients served in training, stopping or calibration; else empty.
    """

    __test__ = False  # the name begins like a test case, to pytest

    cohort: str
    sha256: str
    provenance: Mapping[str, Any]
    own: bool
    part: str
    seen: str = ""

    @property
    def is_phantom(self) -> bool:
        """The images are simulated."""
        return bool(self.provenance.get("kind") == "phantom")


@dataclass(frozen=True)
class Settings:
    """How the evaluation was made."""

    level: float
    rule: str
    confidence: float
    resamples: int
    seed: int


@dataclass(frozen=True, eq=False)
class Evaluation:
    """A trained model on patients, with what it is compared with.

    Attributes:
        run: the model's folder.
        card: the model's card.
        history: the training log, one mapping an epoch; empty for imported weights.
        tested: which patients, and what must be said about them.
        subjects: the visits.
        model: the model's row.
        baselines: the ridge regression on hand-made features, where its training patients were at hand.
        oracles: on a phantom, the best prediction from one side and from both.
        gains: by baseline name: model less baseline (``pearson_r``, ``rmse``), paired over patients.
        skill: on a phantom: the model against the oracle of one side; see :func:`nigradat.evaluation.scoring.skill`.
        parts: participants by part of the split (or ``tested``), for the cohort table.
        notes: remarks that the reader must know.
        settings: how it was made.
    """

    run: Path
    card: Mapping[str, Any]
    history: tuple[Mapping[str, float], ...]
    tested: TestedOn
    subjects: Subjects
    model: Scored
    baselines: tuple[Scored, ...]
    oracles: tuple[Scored, ...]
    gains: Mapping[str, Estimates]
    skill: Estimates
    parts: Mapping[str, tuple[Participant, ...]]
    notes: tuple[str, ...]
    settings: Settings
    made_with: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_phantom_trained(self) -> bool:
        """The model's training material was simulated."""
        return bool(self.card.get("training", {}).get("kind") == "phantom")

    @property
    def label(self) -> str:
        """What stands on every table and figure about the data; empty for patients throughout."""
        if self.tested.is_phantom:
            return "digital phantom, not patients"
        return "model trained on a digital phantom" if self.is_phantom_trained else ""

    @property
    def methods(self) -> tuple[Scored, ...]:
        """Model, baselines, oracles."""
        return (self.model, *self.baselines, *self.oracles)

    def summary(self) -> str:
        """A few lines for a terminal; see :mod:`nigradat.evaluation.summary`."""
        from nigradat.evaluation.summary import summary

        return summary(self)

    def to_json(self) -> dict[str, Any]:
        """Plain values for machines; see :mod:`nigradat.evaluation.summary`."""
        from nigradat.evaluation.summary import to_json

        return to_json(self)
