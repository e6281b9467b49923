"""Resamples of patients who are tested in several splits, and scores as vectors over them."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt

from nigradat.evaluation.weighted import Array, Weighted, patient_weights
from nigradat.metrics import Estimate
from nigradat.metrics.resampling import interval_of

JACKKNIFE_PATIENTS: Final = 1000
"""Up to so many patients BCa is affordable; with more its correction is small and the percentile interval serves."""
_BLOCK: Final = 100_000  # weights at once: a block's arrays stay near the caches


@dataclass(frozen=True, eq=False)
class Group:
    """Patients who are drawn among themselves: a cohort, however often it was split.

    Attributes:
        patients: who they are, sorted; a patient's place is their number.
        start: number of the first one where all groups are counted through.
        counts: how often each is in each resample, ``(n, resamples)``.
    """

    patients: tuple[str, ...]
    start: int
    counts: npt.NDArray[np.uint16]

    def numbers(self, patients: Sequence[str]) -> npt.NDArray[np.intp]:
        """The place of each of ``patients``."""
        return np.searchsorted(np.array(self.patients), np.array(patients))


@dataclass(frozen=True, eq=False)
class Draws:
    """Resamples of patients who may be tested in several splits: each is drawn once for all of them.

    A score becomes a vector: its value, its value in each resample, and (up to :data:`JACKKNIFE_PATIENTS` patients)
    its value without each patient. Means over fits, differences and ratios of scores are then those of vectors.

    Attributes:
        groups: patients by group, sorted; groups are drawn independently and keep their sizes.
        resamples, seed: a group's draws depend on seed and name alone; those of the group "" are the draws of
            :func:`nigradat.metrics.bca_many`.
    """

    groups: Mapping[str, tuple[str, ...]]
    resamples: int
    seed: int

    @property
    def n_patients(self) -> int:
        """Of all groups."""
        return sum(map(len, self.groups.values()))

    @property
    def with_jackknife(self) -> bool:
        """Vectors hold the values without each patient as well."""
        return self.n_patients <= JACKKNIFE_PATIENTS

    def group(self, name: str) -> Group:
        """Draw the resamples of one group."""
        patients = self.groups[name]
        n, names = len(patients), list(self.groups)
        rng = np.random.default_rng([self.seed, zlib.crc32(name.encode())] if name else self.seed)
        counts = np.empty((n, self.resamples), dtype=np.uint16)
        rows = max(1, _BLOCK // n)
        for first in range(0, self.resamples, rows):
            index = rng.integers(0, n, (min(rows, self.resamples - first), n))
            counts[:, first : first + rows] = patient_weights(index, np.arange(n))
        return Group(patients, sum(len(self.groups[other]) for other in names[: names.index(name)]), counts)

    def vectors(self, scores: Weighted, group: Group, patient_of_case: npt.NDArray[np.intp]) -> dict[str, Array]:
        """Named scores as vectors.

        Args:
            scores: of the cases.
            group: to which the cases' patients belong.
            patient_of_case: ``(n,)``, numbers in the group.
        """
        tested = np.unique(patient_of_case)
        found: dict[str, list[Array]] = {}
        with np.errstate(divide="ignore", invalid="ignore"):
            for weights in self._weights(group, patient_of_case, tested):
                for name, values in scores(weights).items():
                    found.setdefault(name, []).append(values)
        return {name: self._vector(np.concatenate(parts), group.start + tested) for name, parts in found.items()}

    def _weights(
        self, group: Group, patient_of_case: npt.NDArray[np.intp], tested: npt.NDArray[np.intp]
    ) -> Iterator[Array]:
        n = len(patient_of_case)
        columns = max(1, _BLOCK // n)
        yield np.ones((n, 1))
        for first in range(0, self.resamples, columns):
            yield group.counts[patient_of_case, first : first + columns].astype(np.float64)
        if self.with_jackknife:
            for first in range(0, len(tested), columns):
                yield (patient_of_case[:, None] != tested[first : first + columns]).astype(np.float64)

    def _vector(self, values: Array, tested: npt.NDArray[np.intp]) -> Array:
        """With the values without patients who are not tested here: nothing changes without them."""
        drawn = 1 + self.resamples
        if not self.with_jackknife:
            return values
        out = np.full(drawn + self.n_patients, values[0])
        out[:drawn] = values[:drawn]
        out[drawn + tested] = values[drawn:]
        return out

    def estimate(self, vector: Array, tested: npt.NDArray[np.bool_], level: float) -> Estimate:
        """A vector's value with its interval.

        Args:
            vector: from :meth:`vectors`, or made of several.
            tested: ``(n_patients,)``, the patients that it rests on.
            level: confidence level.
        """
        drawn = 1 + self.resamples
        jackknife = vector[drawn:][tested] if self.with_jackknife else np.full(2, vector[0])
        return interval_of(float(vector[0]), vector[1:drawn], jackknife, level, int(np.count_nonzero(tested)))


@dataclass
class Means:
    """Running means of named vectors."""

    sums: dict[str, Array] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)

    def add(self, vectors: Mapping[str, Array]) -> None:
        """Count one more of each."""
        for name, vector in vectors.items():
            self.sums[name] = self.sums[name] + vector if name in self.sums else vector
            self.counts[name] = self.counts.get(name, 0) + 1

    def means(self) -> dict[str, Array]:
        """Of each name over as many vectors as it had."""
        return {name: total / self.counts[name] for name, total in self.sums.items()}
