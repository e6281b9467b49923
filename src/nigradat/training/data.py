"""Batches of pairs straight from the packed cohort's memory map: what is not in the batch is not in memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from nigradat.anatomy import to_canonical
from nigradat.io.pack import PackedCohort


def mix(*numbers: int) -> int:
    """One 63-bit seed from several numbers; far apart even for neighbouring inputs."""
    return int(np.random.SeedSequence(list(numbers)).generate_state(1, np.uint64)[0] >> 1)


def canonical_tensor(patches: np.ndarray) -> Tensor:
    """Native patches ``(n, 2, 50, 50, 20)`` to ``(n, 2, 1, 50, 50, 20)`` float32 in canonical view; a copy."""
    return torch.from_numpy(to_canonical(np.asarray(patches, dtype=np.float32))).unsqueeze(2)


class Place(NamedTuple):
    """Where the pairs of a process stand in the whole batch (data-parallel training).

    Attributes:
        number: of the batch.
        whole: its pairs in all processes together.
        first, step: every ``step``-th pair is here, from ``first`` on.
    """

    number: int
    whole: int
    first: int = 0
    step: int = 1

    @property
    def positions(self) -> range:
        """In the whole batch; the first pair where none is left, as every process must take part in the step."""
        return range(self.first, self.whole, self.step) or range(1)

    @property
    def weight(self) -> float:
        """What makes the processes' mean of mean losses that of the whole batch, however it was shared."""
        return len(range(self.first, self.whole, self.step)) * self.step / self.whole


@dataclass(frozen=True, eq=False)
class PairBatches:
    """An iterable of ``(patches, targets, place)`` over some rows of a cohort.

    The targets are ``(B, 2, 1 + k)``: SBR, then what ``features`` holds.

    Attributes:
        cohort: packed.
        rows: which visits.
        batch_size: pairs a batch; the last one may be smaller.
        order_seed: shuffles; None keeps the order.
        share: ``(i, n)`` takes every n-th pair of each batch from the i-th on (data-parallel training).
        features: ``(len(cohort), 2, k)`` by row of the cohort, or None for k = 0.
    """

    cohort: PackedCohort
    rows: np.ndarray
    batch_size: int
    order_seed: int | None = None
    share: tuple[int, int] = (0, 1)
    features: Tensor | None = None

    def __len__(self) -> int:
        return -(-len(self.rows) // self.batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor, Place]]:
        rows = self.rows
        if self.order_seed is not None:
            rows = np.random.default_rng(self.order_seed).permutation(rows)
        sbr = self.cohort.sbr
        for number in range(len(self)):
            batch = rows[number * self.batch_size : (number + 1) * self.batch_size]
            place = Place(number, len(batch), *self.share)
            taken = batch[list(place.positions)]
            patches = canonical_tensor(np.stack([self.cohort.read(int(i)) for i in taken]))
            targets = torch.from_numpy(sbr[taken]).float().unsqueeze(2)
            if self.features is not None:
                targets = torch.cat([targets, self.features[taken]], dim=2)
            yield patches, targets, place
