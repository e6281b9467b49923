"""Coverage where it may differ: by side, SBR, asymmetry, age, sex, image quality; exact intervals, and the worst gap.

An interval that covers 95 % of all patients may cover fewer of those who matter. Each side is counted by itself, one
visit a patient, so that every share is binomial (never both sides of a patient as two). But for thirds of the
*prediction* under Mondrian calibration none of these groups is promised anything: this is a description.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from nigradat.anatomy import Side
from nigradat.evaluation.result import Array, Coverage, Rows, Subjects
from nigradat.metrics import asymmetry_index, clopper_pearson
from nigradat.phantom.cohort import patient_nuisance
from nigradat.phantom.oracle import read_truth

ASYMMETRIC: Final = 30.0
"""Asymmetry index, % of the mean, above which a patient counts as asymmetric: about the phantom's mean and one SD."""
ABOVE: Final = f"index above {ASYMMETRIC:g} %"
FEWEST: Final = 20  # patients in a group from which on it can be the worst one
_NOWHERE: Final = -1


@dataclass(frozen=True, eq=False)
class Grouping:
    """A way to divide visits, for each side by itself.

    Attributes:
        name: what they are divided by.
        categories: in words, with the cuts.
        member: ``(n, 2)``, right first: position in ``categories``, -1 for a visit that is in none.
    """

    name: str
    categories: tuple[str, ...]
    member: Rows


@dataclass(frozen=True, eq=False)
class Conditions:
    """How the images of phantom patients were made.

    Attributes:
        snr: ``(n,)``, tissue magnitude over the SD of the noise.
        centring_mm: ``(n, 2)``, right first: distance of the patch's centre from nigrosome-1.
    """

    snr: Array
    centring_mm: Array


@dataclass(frozen=True)
class GroupCoverage:
    """Covered patients of one category, by side; a side without patients there is missing."""

    grouping: str
    category: str
    coverage: Mapping[Side, Coverage]


@dataclass(frozen=True)
class WorstGap:
    """The category with the lowest coverage.

    Attributes:
        grouping, category, side: which.
        coverage: of it; its ends hold for all looked-at groups together (Bonferroni).
        gap: level less coverage; below 0 where every group is covered more often than promised.
        looked_at: groups of at least :data:`FEWEST` patients; the lowest of many is low by chance, too.
    """

    grouping: str
    category: str
    side: Side
    coverage: Coverage
    gap: float
    looked_at: int


def groupings(subjects: Subjects, predicted: npt.ArrayLike, conditions: Conditions | None = None) -> list[Grouping]:
    """Every division that the data allow: thirds of true and of predicted SBR, asymmetry, age, sex, scanner and, on a
    phantom, SNR and centring error. Thirds are those of the visits at hand, each side's own.

    Args:
        subjects: who was predicted.
        predicted: ``(n, 2)`` SBR.
        conditions: of a phantom's images, see :func:`phantom_conditions`.
    """
    people, y = subjects.participants, subjects.truth
    age = np.array([np.nan if p.age is None else p.age for p in people], dtype=np.float64)
    index = np.abs(asymmetry_index(y[:, 0], y[:, 1]))
    found = [
        Grouping("all", ("all",), np.zeros(y.shape, dtype=int)),
        _thirds("true SBR", y, 2),
        _thirds("predicted SBR", np.asarray(predicted, dtype=np.float64), 2),
        Grouping(
            "asymmetry of the true SBR",
            (f"index up to {ASYMMETRIC:g} %", ABOVE),
            _both(np.where(np.isfinite(index), index > ASYMMETRIC, _NOWHERE)).astype(int),
        ),
        _thirds("age", _both(age), 0, " years"),
        _named("sex", [p.sex for p in people], {"F": "women", "M": "men"}),
        _named("scanner", [p.scanner for p in people]),
    ]
    if conditions is not None:
        found += [
            _thirds("SNR", _both(conditions.snr), 1),
            _thirds("centring error", conditions.centring_mm, 2, " mm"),
        ]
    # a division with one category is the whole again
    return [g for g in found if g.name == "all" or len(np.unique(g.member[g.member >= 0])) > 1]


def phantom_conditions(folder: Path, rows: Rows) -> Conditions:
    """SNR and centring error of some patients of a phantom cohort, from the seed in its truth.

    Raises:
        CohortError: the truth is not beside the cohort, or damaged.
    """
    truth = read_truth(folder)
    made = [patient_nuisance(truth.seed, int(i), float(truth.latents.age[i])) for i in rows]
    misses = np.array([[n.side(side).centring_mm for side in Side] for n in made], dtype=np.float64)
    return Conditions(np.array([n.snr for n in made]), np.linalg.norm(misses, axis=-1))


def coverage_by_group(
    lower: npt.ArrayLike,
    upper: npt.ArrayLike,
    subjects: Subjects,
    divisions: Sequence[Grouping],
    confidence: float = 0.95,
) -> tuple[GroupCoverage, ...]:
    """Covered patients of each category and side, with Clopper-Pearson intervals; one visit a patient.

    Args:
        lower, upper: ``(n, 2)`` SBR; NaN for a side without an answer, which is then left out.
        subjects: who was predicted.
        divisions: see :func:`groupings`.
        confidence: of the binomial intervals.
    """
    low, high = np.asarray(lower, dtype=np.float64), np.asarray(upper, dtype=np.float64)
    answered = np.isfinite(low) & np.isfinite(high)
    inside = (low <= subjects.truth) & (subjects.truth <= high)
    first = np.zeros(len(subjects.truth), dtype=bool)
    first[subjects.first_visits] = True

    def of(side: Side, is_member: npt.NDArray[np.bool_]) -> Iterator[tuple[Side, Coverage]]:
        counted = is_member & first & answered[:, side.index]
        n, covered = int(counted.sum()), int(inside[counted, side.index].sum())
        if n:
            yield side, Coverage(covered, n, *clopper_pearson(covered, n, confidence))

    return tuple(
        GroupCoverage(
            division.name,
            category,
            dict(pair for side in Side for pair in of(side, division.member[:, side.index] == i)),
        )
        for division in divisions
        for i, category in enumerate(division.categories)
    )


def worst_gap(found: Sequence[GroupCoverage], level: float, confidence: float = 0.95) -> WorstGap | None:
    """The category and side that fall furthest short of ``level``; None where every group is too small to tell.

    Args:
        found: from :func:`coverage_by_group`.
        level: nominal.
        confidence: that the ends have for all groups together.
    """
    looked_at = [(group, side, c) for group in found for side, c in group.coverage.items() if c.patients >= FEWEST]
    if not looked_at:
        return None
    group, side, c = min(looked_at, key=lambda item: item[2].share)
    together = 1 - (1 - confidence) / len(looked_at)
    ends = clopper_pearson(c.covered, c.patients, together)
    worst = Coverage(c.covered, c.patients, *ends)
    return WorstGap(group.grouping, group.category, side, worst, level - c.share, len(looked_at))


def _both(values: npt.ArrayLike) -> npt.NDArray[np.generic]:
    """What belongs to a visit, ``(n,)``, for both of its sides."""
    return np.repeat(np.asarray(values)[:, None], 2, axis=1)


def _thirds(name: str, values: npt.NDArray[np.generic], digits: int, unit: str = "") -> Grouping:
    """Thirds of ``(n, 2)``, each side's own; the words name the cuts of both sides where they differ."""
    v = np.asarray(values, dtype=np.float64)
    member = np.full(v.shape, _NOWHERE)
    cuts = np.full((2, 2), np.nan)
    for side in range(2):
        known = np.isfinite(v[:, side])
        if known.any():
            cuts[side] = np.quantile(v[known, side], (1 / 3, 2 / 3))
            member[known, side] = np.searchsorted(cuts[side], v[known, side])
    low, high = (_cut(cuts[:, i], digits) for i in (0, 1))
    return Grouping(name, (f"up to {low}{unit}", f"{low} to {high}{unit}", f"above {high}{unit}"), member)


def _cut(values: Array, digits: int) -> str:
    """A cut of both sides; where they round differently, right / left."""
    shown = [f"{v:.{digits}f}" for v in values]
    return shown[0] if shown[0] == shown[1] else " / ".join(shown)


def _named(name: str, values: Sequence[str | None], words: Mapping[str, str] | None = None) -> Grouping:
    known = sorted({v for v in values if v is not None})
    member = np.array([_NOWHERE if v is None else known.index(v) for v in values], dtype=int)
    return Grouping(name, tuple((words or {}).get(v, v) for v in known), _both(member).astype(int))
