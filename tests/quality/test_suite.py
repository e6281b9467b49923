"""Spoilt pairs are what they are called, and the tables say what the scores say."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace

import numpy as np
import pytest

from nigradat.anatomy import mirror, mirror_pair
from nigradat.errors import CalibrationError, CohortError, ConfigError
from nigradat.evaluation.quality_tables import LABEL, detection_table, policy_table, score_table, write_suite
from nigradat.phantom.latents import sample_latents
from nigradat.quality.reference import scores_of
from nigradat.quality.suite import (
    FAULTS,
    ORDINARY,
    SuiteScores,
    detection,
    flagged_share,
    fpr_at_95,
    policies,
    run_suite,
    separation,
    spoil,
)


@pytest.fixture(scope="module")
def spoilt() -> dict[str, np.ndarray]:
    return spoil(9303, 1, sample_latents(2, "paper", 9303))


def test_the_ordinary_pair_is_the_cohorts(phantom):
    first = spoil(9301, 0, sample_latents(1, "paper", 9301))
    assert np.array_equal(first[ORDINARY], phantom.read(0))


def test_every_fault_changes_what_it_says(spoilt):
    ordinary = spoilt[ORDINARY]
    assert list(spoilt) == [ORDINARY, *(fault.name for fault in FAULTS)]
    sides = {name: [not np.array_equal(image[i], ordinary[i]) for i in (0, 1)] for name, image in spoilt.items()}
    one_sided = [name for name in sides if name == "missing-mirror" or name.startswith("shift-")]
    assert len(one_sided) == 10
    assert len({tuple(sides[name]) for name in one_sided}) == 1
    assert all(sum(sides[name]) == (1 if name in one_sided else 0 if name == ORDINARY else 2) for name in sides)
    changed = sides["missing-mirror"].index(True)
    assert np.array_equal(spoilt["missing-mirror"][changed], mirror(ordinary[changed]))
    assert np.array_equal(spoilt["exchanged"], ordinary[::-1])
    assert np.array_equal(spoilt["flipped-head"], mirror_pair(ordinary))
    assert all(np.isfinite(image).all() and image.mean() > 0 for image in spoilt.values())


def test_a_moved_centre_moves_the_patch(spoilt, quality):
    from nigradat.anatomy import to_canonical
    from nigradat.quality.measures import best_shift, normalised

    ordinary = normalised(to_canonical(spoilt[ORDINARY]))
    for axis, name in enumerate(("anterior-posterior", "lateral", "up-down")):
        moved = normalised(to_canonical(spoilt[f"shift-{name}-3mm"]))
        side = int(np.abs(moved - ordinary).mean(axis=(1, 2, 3)).argmax())
        before, after = (best_shift(quality.template.correlate(x[side])[0])[0] for x in (ordinary, moved))
        off = np.abs(after - before)
        assert off[axis] == pytest.approx(3.0, abs=0.5), name
        assert np.delete(off, axis).max() < 0.6, name


def test_magnitude_and_thresholds_change_the_contrast_in_their_order(spoilt):
    from nigradat.baselines.features import RED_NUCLEUS_BOX

    def darkness(name: str) -> float:
        left = spoilt[name][1]
        return float(np.median(left[RED_NUCLEUS_BOX]) / left.mean())

    assert darkness("threshold-0.5") < darkness(ORDINARY) < darkness("threshold-2") < darkness("magnitude")


@pytest.mark.parametrize(
    ("ordinary", "faulty", "expected"),
    [
        (range(20), range(100, 120), 0.0),
        (range(20), range(20), 19 / 20),
        (range(20), [0, *range(100, 119)], 0.0),  # one of twenty may be missed
        (range(20), [0, 0, *range(100, 118)], 1.0),
    ],
)
def test_fpr_at_95(ordinary, faulty, expected):
    assert fpr_at_95(np.array(ordinary, float), np.array(faulty, float)) == pytest.approx(expected)


def made_up(n: int = 40) -> SuiteScores:
    """Ordinary scores 0..n-1; the first half of the faults lie far above, the others among them."""
    ordinary = np.arange(float(n))
    far, near = ordinary + 1000, ordinary
    half = len(FAULTS) // 2
    combined = np.stack([ordinary, *[far] * half, *[near] * (len(FAULTS) - half)])
    p = np.where(combined >= 1000, 1 / 200, (n - combined) / (n + 1.0))
    error = np.stack([np.ones(n), *[np.full(n, 9.0)] * half, *[np.ones(n)] * (len(FAULTS) - half)])
    names = (ORDINARY, *(fault.name for fault in FAULTS))
    return SuiteScores(names, {"combined": combined}, p, error, 0.05, 199, "phantom", "paper", 1, "A model")


def test_detection_of_what_is_apart_and_of_what_is_not():
    found = made_up()
    assert separation(found, FAULTS[0].name).value == 1
    same = detection(found, FAULTS[-1].name, resamples=200)
    assert same.auc.value == pytest.approx(0.5)
    assert same.fpr95.value == pytest.approx(38 / 40)
    assert flagged_share(found, FAULTS[0].name)[0] == 1
    assert flagged_share(found, ORDINARY)[0] == pytest.approx(2 / 40)  # p of 1/41 and 2/41


def test_policies_weigh_ordinary_and_faulty_visits():
    found = made_up()
    results = policies(found, faulty=0.2, resamples=200)
    assert [r.alarm for r in results] == [None, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5]
    far = len(FAULTS) // 2 / len(FAULTS)
    everything, first = results[0], results[1]
    assert everything.answered.value == pytest.approx(1)
    assert everything.rmse.value == pytest.approx(np.sqrt(0.2 * far * 9 + (1 - 0.2 * far) * 1))
    assert first.answered_ordinary.value == pytest.approx(1)
    assert first.answered_faulty.value == pytest.approx(1 - far)
    assert first.answered.value == pytest.approx(1 - 0.2 * far)
    assert first.rmse.value == pytest.approx(1)
    with pytest.raises(ConfigError, match="faulty visits"):
        policies(found, faulty=1.0)


def test_alarms_that_nobody_can_promise_are_left_out():
    assert [r.alarm for r in policies(replace(made_up(), held_out=10, alarm=1 / 11), resamples=100)] == [
        None,
        1 / 11,
        0.1,
        0.2,
        0.5,
    ]


def test_every_table_says_that_it_is_of_a_phantom(tmp_path):
    found = made_up()
    tables = (detection_table(found, resamples=100), score_table(found), policy_table(found, resamples=100))
    for table in tables:
        assert LABEL in table.caption
        lines = list(csv.DictReader(io.StringIO(table.to_csv())))
        assert {line["data"] for line in lines} == {LABEL}
    write_suite(tmp_path / "out", found, resamples=100)
    names = {"detection.csv", "scores.csv", "policies.csv", "stress-test.json"}
    assert {path.name for path in (tmp_path / "out").iterdir()} == names
    assert json.loads((tmp_path / "out" / "stress-test.json").read_text())["data"] == LABEL


def test_what_the_suite_refuses(loaded, quality):
    with pytest.raises(ConfigError, match="at least 10"):
        run_suite(loaded, quality, patients=9, seed=1)
    with pytest.raises(CalibrationError, match="fitted on patients"):
        run_suite(loaded, replace(quality, kind="patients"), seed=1)
    with pytest.raises(CohortError, match="trained the model"):
        run_suite(loaded, quality, seed=9301)
    with pytest.raises(CohortError, match="trained the model"):  # presets share their random numbers
        run_suite(loaded, quality, preset="uncoupled", seed=9301)
    with pytest.raises(ConfigError, match="no preset"):
        run_suite(loaded, quality, preset="gentle", seed=1)


@pytest.mark.slow
def test_gross_faults_are_found_and_a_flipped_head_is_not(loaded, quality):
    found = run_suite(loaded, quality, patients=20, seed=9304)
    for name in ("missing-mirror", "exchanged", "noise", "magnitude", "constant", "upside-down", "turned"):
        assert separation(found, name).value >= 0.95, name
    for axis in ("anterior-posterior", "lateral", "up-down"):
        assert separation(found, f"shift-{axis}-4mm").value >= 0.9, axis
    assert separation(found, "flipped-head").value == pytest.approx(0.5, abs=0.05)
    assert found.scores["spread"].shape == (len(FAULTS) + 1, 20)


def test_the_faults_that_need_no_rendering_are_found(loaded, quality, spoilt):
    names = ("missing-mirror", "exchanged", "upside-down", "back-to-front", "turned", "magnitude", "noise", "constant")
    scores = scores_of(quality.deviations(quality.measure(loaded, np.stack([spoilt[name] for name in names]))))
    assert dict(zip(names, scores > quality.cut, strict=True)) == dict.fromkeys(names, True)
