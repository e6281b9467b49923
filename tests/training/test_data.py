"""Batches straight from the file."""

from __future__ import annotations

import resource
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nigradat.anatomy import PATCH_SHAPE
from nigradat.io.manifest import Participant
from nigradat.io.pack import PackedCohort
from nigradat.training.data import PairBatches, Place, canonical_tensor, mix
from nigradat.training.fit import fingerprints


def test_batches_are_the_rows_in_order_and_canonical(small_cohort: PackedCohort) -> None:
    rows = np.array([3, 7, 8, 1, 20])
    batches = list(PairBatches(small_cohort, rows, 2))
    assert [len(x) for x, _, _ in batches] == [2, 2, 1]
    assert [place for _, _, place in batches] == [Place(0, 2), Place(1, 2), Place(2, 1)]
    x = torch.cat([x for x, _, _ in batches]).numpy()
    assert x.shape == (5, 2, 1, *PATCH_SHAPE)
    native = np.asarray(small_cohort.patches)[rows]
    assert np.array_equal(x[:, 0, 0], native[:, 0, :, ::-1])  # right: mirrored along the right-left axis
    assert np.array_equal(x[:, 1, 0], native[:, 1])  # left: as it is
    assert torch.cat([y for _, y, _ in batches]).numpy()[..., 0] == pytest.approx(small_cohort.sbr[rows])


@given(n=st.integers(1, 12), size=st.integers(1, 5), processes=st.integers(1, 3), seed=st.integers(0, 99))
def test_every_pair_once_an_epoch_whatever_the_shares(
    small_cohort: PackedCohort, n: int, size: int, processes: int, seed: int
) -> None:
    rows = np.arange(n)
    shares = [list(PairBatches(small_cohort, rows, size, seed, (i, processes))) for i in range(processes)]
    assert len({len(share) for share in shares}) == 1  # every process takes as many steps
    assert len(shares[0]) == len(PairBatches(small_cohort, rows, size)) == -(-n // size)
    met = {tuple(y) for share in shares for _, labels, _ in share for y in labels[..., 0].tolist()}
    assert met == {tuple(y) for y in torch.from_numpy(small_cohort.sbr[rows]).float().tolist()}
    for places in zip(*([place for *_, place in share] for share in shares), strict=True):
        assert sum(place.weight for place in places) == pytest.approx(processes)
    if processes == 1:
        assert sum(len(x) for x, _, _ in shares[0]) == n


def test_the_order_follows_the_seed(small_cohort: PackedCohort) -> None:
    def order(seed: int | None) -> list[list[float]]:
        return [
            y for _, labels, _ in PairBatches(small_cohort, np.arange(10), 4, seed) for y in labels[..., 0].tolist()
        ]

    assert order(1) == order(1) != order(2)
    assert sorted(order(1)) == sorted(order(None))


def test_features_stand_behind_the_labels(small_cohort: PackedCohort) -> None:
    features = torch.arange(len(small_cohort) * 6.0).reshape(-1, 2, 3)
    rows = np.array([4, 0, 9])
    targets = torch.cat([y for _, y, _ in PairBatches(small_cohort, rows, 2, features=features)])
    assert targets.shape == (3, 2, 4)
    assert torch.equal(targets[..., 1:], features[rows])


def test_a_batch_is_a_copy(small_cohort: PackedCohort) -> None:
    x, _, _ = next(iter(PairBatches(small_cohort, np.arange(2), 2)))
    before = np.array(small_cohort.patches[0])
    x.zero_()
    assert np.array_equal(small_cohort.patches[0], before)


def test_canonical_tensor_leaves_its_input() -> None:
    native = np.random.default_rng(0).random((2, 2, *PATCH_SHAPE), dtype=np.float32)
    before = native.copy()
    canonical_tensor(native).zero_()
    assert np.array_equal(native, before)


def test_seeds_differ() -> None:
    seeds = {mix(seed, stream, step) for seed in range(10) for stream in range(3) for step in range(50)}
    assert len(seeds) == 1500
    assert all(0 <= s < 2**63 for s in seeds)
    assert mix(1, 2, 3) == mix(1, 2, 3) != mix(3, 2, 1)


def _resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="resident memory is read from /proc")
def test_memory_stays_flat_over_a_cohort_of_50000(tmp_path: Path) -> None:
    """20 GB on paper, in a sparse file; 600 rows of it are 240 MB, of which no more than a few batches may stay."""
    n, taken = 50_000, 600
    shape = (n, 2, *PATCH_SHAPE)
    patches = np.lib.format.open_memmap(tmp_path / "patches.npy", mode="w+", dtype=np.float32, shape=shape)
    if (tmp_path / "patches.npy").stat().st_blocks * 512 > 10**9:
        pytest.skip("this disk has no sparse files")
    rows = np.random.default_rng(0).choice(n, taken, replace=False)
    patches[rows[-1]] = 1.5
    people = tuple(Participant(f"p{i}", sbr_right=i / n, sbr_left=1.0) for i in range(n))
    affines = np.zeros(0)
    cohort = PackedCohort(tmp_path, patches, affines, people, {"kind": "phantom"}, {}, {})  # type: ignore[arg-type]
    batches = PairBatches(cohort, rows, 8)
    next(iter(batches))
    before, highest, total = _resident_bytes(), 0, 0.0
    for x, sbr, _ in batches:
        total += float(x.sum())
        assert sbr.shape == (len(x), 2, 1)
        highest = max(highest, _resident_bytes())
    assert total == 1.5 * 2 * np.prod(PATCH_SHAPE)  # the painted row was met
    assert len(set(fingerprints(cohort, rows))) == 2  # the painted row, and all the empty ones
    assert max(highest, _resident_bytes()) - before < 60e6
