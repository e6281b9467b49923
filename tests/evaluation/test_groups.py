"""Coverage by group: counted by hand, and the promise of Mondrian intervals in their own thirds."""

from __future__ import annotations

import numpy as np
import pytest

from nigradat.anatomy import Side
from nigradat.evaluation.groups import (
    Conditions,
    Grouping,
    coverage_by_group,
    groupings,
    phantom_conditions,
    worst_gap,
)
from nigradat.evaluation.result import Subjects
from nigradat.io.manifest import Participant
from nigradat.metrics.conformal import beta_binomial_range, clopper_pearson
from nigradat.phantom.cohort import patient_nuisance, simulate
from nigradat.phantom.latents import sample_latents
from nigradat.phantom.oracle import oracle_predict
from nigradat.uncertainty.calibration import Calibration
from nigradat.uncertainty.symmetric_mc import Spread


def subjects_of(truth, patient_of_visit=None, **fields) -> Subjects:
    """Visits with these labels; a field is a list with one entry a visit."""
    y = np.asarray(truth, dtype=float)
    people = tuple(
        Participant(f"sub-{i}", "n/a", *y[i], **{name: values[i] for name, values in fields.items()})
        for i in range(len(y))
    )
    who = np.arange(len(y)) if patient_of_visit is None else np.asarray(patient_of_visit)
    return Subjects(np.arange(len(y)), people, y, who)


def by_name(divisions):
    return {d.name: d for d in divisions}


def test_groups_by_hand():
    truth = [[1, 1], [2, 3], [3, 2], [4, 1], [5, 5.5], [6, 6]]
    subjects = subjects_of(truth, sex=["F", "M", "M", None, "F", "F"], age=[50, 60, 70, 55, 65, None])
    found = by_name(groupings(subjects, np.asarray(truth)[::-1], Conditions(np.arange(6.0), np.ones((6, 2)))))
    assert list(found) == ["all", "true SBR", "predicted SBR", "asymmetry of the true SBR", "age", "sex", "SNR"]
    assert found["true SBR"].member[:, 0].tolist() == [0, 0, 1, 1, 2, 2]
    assert found["true SBR"].member[:, 1].tolist() == [0, 1, 1, 0, 2, 2]
    assert found["predicted SBR"].member[:, 0].tolist() == [2, 2, 1, 1, 0, 0]
    assert found["asymmetry of the true SBR"].member[:, 0].tolist() == [0, 1, 1, 1, 0, 0]  # 0, 40, 40, 120, 10, 0 %
    assert found["sex"].categories == ("women", "men")
    assert found["sex"].member[:, 1].tolist() == [0, 1, 1, -1, 0, 0]
    assert found["age"].member[5].tolist() == [-1, -1]
    assert found["SNR"].member[:, 0].tolist() == [0, 0, 1, 1, 2, 2]
    assert found["SNR"].categories == ("up to 1.7", "1.7 to 3.3", "above 3.3")


def test_a_division_of_one_category_is_left_out():
    found = by_name(groupings(subjects_of([[1, 1], [2, 2], [3, 3]], sex=["F"] * 3), np.ones((3, 2))))
    assert "sex" not in found
    assert "asymmetry of the true SBR" not in found
    assert "age" not in found


def test_coverage_by_hand():
    # right covered: yes, no, yes, yes; left: no, no, yes, -; the third visit is the second of patient 1
    truth = np.array([[1.0, 3.0], [3.0, 3.0], [1.0, 1.0], [1.5, 1.0]])
    subjects = subjects_of(truth, patient_of_visit=[0, 1, 1, 2])
    lower, upper = np.ones((4, 2)), np.full((4, 2), 2.0)
    lower[3, 1] = upper[3, 1] = np.nan
    halves = Grouping("half", ("first", "second", "none"), np.array([[0, 0], [0, 1], [1, 1], [1, 1]]))
    first, second, nobody = coverage_by_group(lower, upper, subjects, [halves])
    assert {side: (c.covered, c.patients) for side, c in first.coverage.items()} == {
        Side.RIGHT: (1, 2),
        Side.LEFT: (0, 1),
    }
    assert {side: (c.covered, c.patients) for side, c in second.coverage.items()} == {
        Side.RIGHT: (1, 1),
        Side.LEFT: (0, 1),
    }
    assert nobody.coverage == {}
    assert (first.coverage[Side.RIGHT].low, first.coverage[Side.RIGHT].high) == clopper_pearson(1, 2)


def test_the_worst_gap_is_found_among_groups_that_are_large_enough():
    truth = np.full((100, 2), 1.5)
    truth[:10, 0] = 9  # of 30 in the first group, right: 20 covered
    truth[95:, 1] = 9  # a small group that is not covered at all
    member = np.repeat(np.where(np.arange(100) < 30, 0, np.where(np.arange(100) < 95, 1, 2))[:, None], 2, axis=1)
    division = Grouping("g", ("a", "b", "c"), member)
    subjects = subjects_of(truth)
    found = coverage_by_group(np.ones((100, 2)), np.full((100, 2), 2.0), subjects, [division])
    worst = worst_gap(found, 0.95)
    assert worst is not None
    assert (worst.category, worst.side, worst.coverage.covered, worst.looked_at) == ("a", Side.RIGHT, 20, 4)
    assert worst.gap == pytest.approx(0.95 - 2 / 3)
    assert (worst.coverage.low, worst.coverage.high) == clopper_pearson(20, 30, 1 - 0.05 / 4)
    small = coverage_by_group(
        *np.ones((2, 3, 2)), subjects_of(np.ones((3, 2))), groupings(subjects_of(np.eye(3)[:, :2] + 1), np.ones((3, 2)))
    )
    assert worst_gap(small, 0.95) is None


def test_conditions_are_those_that_the_images_were_made_with(tmp_path):
    folder = simulate(tmp_path / "phantom", patients=3, preset="easy", seed=5, workers=1)
    age = sample_latents(3, "easy", 5).age
    found = phantom_conditions(folder, np.array([2, 0]))
    made = [patient_nuisance(5, i, age[i]) for i in (2, 0)]
    assert found.snr.tolist() == [n.snr for n in made]
    assert found.centring_mm[0, 1] == pytest.approx(np.linalg.norm(made[0].left.centring_mm))
    assert found.centring_mm[1, 0] == pytest.approx(np.linalg.norm(made[1].right.centring_mm))


@pytest.mark.parametrize("seed", [1, 2])
def test_mondrian_keeps_its_promise_in_each_of_its_thirds(seed):
    """Constant widths on phantom labels: they cover the low third too often and the high one too rarely."""
    calibrating, tested, level = 2410, 2000, 0.95
    latents = sample_latents(calibrating + tested, "paper", seed)
    centre = oracle_predict(latents.m, "paper").mean
    spread = Spread(centre, np.ones_like(centre))
    score, old, new = spread.score(latents.sbr), slice(calibrating), slice(calibrating, None)
    calibration = Calibration("mc", 2, 0, score[old].T, centre[old].T, calibrating, "", "")
    subjects = subjects_of(latents.sbr[new])
    cuts = {side: calibration.thirds(side)[0] for side in Side}
    member = np.stack([np.searchsorted(cuts[side], centre[new, side.index]) for side in Side], axis=1)
    thirds = [Grouping("third", ("low", "middle", "high"), member)]

    def shares(k):
        low, high = Spread(centre[new], np.ones((tested, 2))).interval(k)
        return [g.coverage[side] for g in coverage_by_group(low, high, subjects, thirds) for side in Side]

    for c in shares(calibration.multiplier(level, "mondrian", centre[new])):
        least, most = beta_binomial_range(calibrating // 3 - 1, c.patients, level, 0.999)
        assert least <= c.share <= most
    # one multiplier for all does not
    plain = [c.share for c in shares(calibration.multiplier(level, "conformal"))]
    assert min(plain) < 0.92
    assert max(plain) > 0.98
