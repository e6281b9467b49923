"""Splits: by patient, stratified, seeded, kept as a file that is checked."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nigradat.errors import CohortError
from nigradat.io.manifest import Participant
from nigradat.io.pack import PackedCohort
from nigradat.training.split import PARTS, Split, make_folds, make_split


def labelled(n: int, seed: int = 0, visits: int = 1) -> PackedCohort:
    """A cohort of which only the table matters; ``visits`` rows a patient, in no particular order."""
    rng = np.random.default_rng(seed)
    sbr = rng.gamma(4.0, 0.6, (n, 1)) + rng.normal(0, 0.1, (n, 2)).clip(-0.2)
    rows = [
        Participant(f"p{i:04d}", f"s{v}", sbr_right=float(r), sbr_left=float(left))
        for i, (r, left) in enumerate(np.abs(sbr))
        for v in range(visits)
    ]
    rng.shuffle(rows)  # type: ignore[arg-type]
    nothing = np.zeros(0)
    return PackedCohort(Path(), nothing, nothing, tuple(rows), {"kind": "phantom"}, {}, {})  # type: ignore[arg-type]


def sizes(split: Split) -> tuple[int, ...]:
    return tuple(len(getattr(split, part)) for part in PARTS)


def test_the_papers_numbers() -> None:
    split = make_split(labelled(367), seed=1)
    assert sizes(split) == (256, 28, 28, 55)
    assert len(split.validation) == 56
    assert split.scheme == "70/15/15"


@given(n=st.integers(20, 150), seed=st.integers(0, 10**6), visits=st.integers(1, 3))
@settings(max_examples=40)
def test_every_patient_is_in_one_part_with_all_visits(n: int, seed: int, visits: int) -> None:
    cohort = labelled(n, seed, visits)
    split = make_split(cohort, seed)
    parts = [set(getattr(split, part)) for part in PARTS]
    assert sum(map(len, parts)) == n == len(set.union(*parts))
    rows = [split.rows(cohort, part) for part in PARTS]
    assert sorted(np.concatenate(rows)) == list(range(n * visits))
    ids = np.array(cohort.patient_ids)
    assert [set(ids[r]) for r in rows] == parts
    assert all((np.diff(r) > 0).all() for r in rows)
    # as the paper rounds: training and test down, validation takes the rest, half of it calibrates
    n_train, n_test = n * 70 // 100, n * 15 // 100
    half = (n - n_train - n_test) // 2
    assert sizes(split) == (n_train, n - n_train - n_test - half, half, n_test)


@given(n=st.integers(60, 200), seed=st.integers(0, 10**6))
@settings(max_examples=25)
def test_parts_are_alike_in_sbr(n: int, seed: int) -> None:
    """One patient from each of m equal stretches of the sorted labels: the mean is off by at most range / m or so."""
    cohort = labelled(n, seed)
    split = make_split(cohort, seed)
    sbr = cohort.sbr.mean(axis=1)
    spread = np.ptp(sbr)
    for part in ("test", "validation"):
        rows = split.rows(cohort, part)
        assert abs(sbr[rows].mean() - sbr.mean()) < 2 * spread / len(rows)
        assert sbr[rows].min() < np.quantile(sbr, 3 / len(rows))
        assert sbr[rows].max() > np.quantile(sbr, 1 - 3 / len(rows))


def test_stratified_parts_are_more_alike_than_random_ones() -> None:
    cohort = labelled(367)
    sbr = cohort.sbr.mean(axis=1)
    means = [sbr[make_split(cohort, seed).rows(cohort, "test")].mean() for seed in range(60)]
    rng = np.random.default_rng(0)
    random = [rng.choice(sbr, 55, replace=False).mean() for _ in range(60)]
    assert np.std(means) < 0.5 * np.std(random)


def test_the_seed_decides_and_the_order_of_rows_does_not() -> None:
    cohort = labelled(80)
    shuffled = labelled(80)
    object.__setattr__(shuffled, "participants", shuffled.participants[::-1])
    split = make_split(cohort, 4)
    assert make_split(cohort, 4) == make_split(shuffled, 4) == split
    assert make_split(cohort, 5).test != split.test
    tested = {p for seed in range(40) for p in make_split(cohort, seed).test}
    assert len(tested) > 75  # over the seeds, everyone is tested some time


def test_a_file_comes_back(tmp_path: Path) -> None:
    split = make_split(labelled(40), 2)
    split.save(tmp_path / "split.json")
    assert Split.load(tmp_path / "split.json") == split


def test_a_changed_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "split.json"
    make_split(labelled(40), 2).save(path)
    data = json.loads(path.read_text())

    def refused(change: dict[str, object], words: str) -> None:
        path.write_text(json.dumps({**data, **change}))
        with pytest.raises(CohortError, match=words):
            Split.load(path)

    refused({"train": data["train"][1:]}, "changed")
    refused({"train": data["train"] + data["test"][:1]}, "in 'train' and in 'test'")
    refused({"test": data["calibration"], "calibration": data["test"]}, "changed")
    refused({"sha256": None}, "changed")
    refused({"seed": "x"}, "no split")
    path.write_text(json.dumps({k: v for k, v in data.items() if k != "stop"}))
    with pytest.raises(CohortError, match="no split"):
        Split.load(path)


@pytest.mark.parametrize("text", ["", "[]", "3", "{"])
def test_other_files_are_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(CohortError, match="no split"):
        Split.load(tmp_path / "x.json")
    with pytest.raises(CohortError, match="no split"):
        Split.load(tmp_path / "nothing.json")


def test_a_patient_twice_is_refused() -> None:
    with pytest.raises(CohortError, match="p1"):
        Split(train=("p1", "p2"), stop=("p3",), calibration=("p1",), test=(), seed=0)
    with pytest.raises(CohortError, match="p1"):
        Split(train=("p1", "p1"), stop=("p3",), calibration=(), test=(), seed=0)


@pytest.mark.parametrize(("train", "stop"), [((), ("a",)), (("a",), ())])
def test_training_and_stopping_patients_are_needed(train: tuple[str, ...], stop: tuple[str, ...]) -> None:
    with pytest.raises(CohortError, match="at least one"):
        Split(train=train, stop=stop, calibration=(), test=(), seed=0)


def test_a_split_of_another_cohort_is_refused() -> None:
    split = make_split(labelled(40), 1)
    split.check(labelled(40))
    for other in (labelled(39), labelled(41)):
        with pytest.raises(CohortError, match="differ in 1 patients"):
            split.check(other)


@given(n=st.integers(8, 90), k=st.integers(2, 10), seed=st.integers(0, 10**6))
@settings(max_examples=40)
def test_folds_test_everyone_once(n: int, k: int, seed: int) -> None:
    cohort = labelled(n, seed, visits=2)
    if k > n // 4:
        with pytest.raises(CohortError, match="folds"):
            make_folds(cohort, k, seed)
        return
    folds = make_folds(cohort, k, seed)
    assert len(folds) == k
    tested = [p for fold in folds for p in fold.test]
    assert sorted(tested) == sorted(set(cohort.patient_ids))
    assert np.ptp([len(fold.test) for fold in folds]) <= 1
    for fold in folds:
        fold.check(cohort)  # disjointness is asserted when a split is made
    assert make_folds(cohort, k, seed) == folds


@pytest.mark.parametrize("n", [1, 5, 8])
def test_too_few_patients(n: int) -> None:
    with pytest.raises(CohortError, match="too few"):
        make_split(labelled(n), 1)


def test_missing_labels() -> None:
    cohort = labelled(30)
    rows = (Participant("odd"), *cohort.participants)
    object.__setattr__(cohort, "participants", rows)
    with pytest.raises(CohortError, match="labels"):
        make_split(cohort, 1)
