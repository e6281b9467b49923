"""Evaluation end to end on a small cohort: who is tested, what is scored, and what is refused."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nigradat import metrics
from nigradat.anatomy import Side, to_canonical
from nigradat.baselines import RidgeBaseline, hand_made_features
from nigradat.errors import CalibrationError, CohortError, ConfigError
from nigradat.evaluation.evaluate import evaluate
from nigradat.evaluation.result import Evaluation
from nigradat.evaluation.scoring import Resampling, skill
from nigradat.evaluation.tables import result_tables
from nigradat.io.pack import PackedCohort
from nigradat.models.weights import load_model
from nigradat.phantom import oracle_predict, read_truth, simulate
from nigradat.training.split import Split
from nigradat.uncertainty.calibration import calibrate
from nigradat.uncertainty.mc_dropout import predict_sbr
from nigradat.uncertainty.predict import predict
from small_runs import write_cohort, write_run

RESAMPLES = 200


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> PackedCohort:
    return write_cohort(tmp_path_factory.mktemp("cohort") / "home", 80)


@pytest.fixture(scope="module")
def run(cohort: PackedCohort, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, _ = write_run(tmp_path_factory.mktemp("run") / "run", cohort)
    calibrate(folder, cohort, level=0.8)
    return folder


@pytest.fixture(scope="module")
def split(run: Path) -> Split:
    return Split.load(run / "split.json")


@pytest.fixture(scope="module")
def evaluated(run: Path, cohort: PackedCohort) -> Evaluation:
    return evaluate(run, cohort, level=0.8, resamples=RESAMPLES)


def test_only_the_test_part_is_scored(evaluated: Evaluation, cohort: PackedCohort, split: Split) -> None:
    assert {p.participant_id for p in evaluated.subjects.participants} == set(split.test)
    assert evaluated.subjects.truth.tolist() == cohort.sbr[split.rows(cohort, "test")].tolist()
    assert evaluated.tested.own
    assert not evaluated.tested.seen
    assert evaluated.label == ""


def test_predictions_are_the_model_s(evaluated: Evaluation, run: Path, cohort: PackedCohort) -> None:
    patches = np.stack([cohort.read(int(i)) for i in evaluated.subjects.rows])
    expected = predict_sbr(load_model(run).model, patches)
    np.testing.assert_allclose(evaluated.model.predicted, expected, atol=1e-5)


def test_scores_and_intervals_agree_with_the_metrics(evaluated: Evaluation) -> None:
    y, p = evaluated.subjects.truth, evaluated.model.predicted
    names = ("rmse", "mae", "median_ae", "pearson_r", "spearman", "ccc")
    expected = metrics.bca_per_side({name: getattr(metrics, name) for name in names}, y, p, seed=0, resamples=RESAMPLES)
    for name in names:
        for part in ("right", "left", "average"):
            mine, other = getattr(evaluated.model.scores[name], part), getattr(expected[name], part)
            assert (mine.value, mine.low, mine.high) == pytest.approx((other.value, other.low, other.high)), name


def test_calibrated_intervals_are_those_of_predict(evaluated: Evaluation, run: Path, cohort: PackedCohort) -> None:
    (intervals,) = evaluated.model.intervals
    pairs = [cohort.pair(int(i)) for i in evaluated.subjects.rows]
    predicted = predict(pairs, run, level=0.8)
    for side in Side:
        ends = [answer.interval for p in predicted if (answer := p[side]) is not None and answer.interval is not None]
        low, high = np.array(ends).T
        np.testing.assert_allclose(np.maximum(intervals.lower[:, side.index], 0), low, atol=1e-5)
        np.testing.assert_allclose(intervals.upper[:, side.index], high, atol=1e-5)
        truth = evaluated.subjects.truth[:, side.index]
        coverage = intervals.coverage[side]
        assert (coverage.covered, coverage.patients) == (int(np.sum((low <= truth) & (truth <= high))), len(truth))
        assert coverage.low <= coverage.share <= coverage.high
        width = intervals.upper[:, side.index] - intervals.lower[:, side.index]
        right_or_left = intervals.scores["mpiw"][side]
        assert right_or_left is not None
        assert right_or_left.value == pytest.approx(width.mean())
    assert intervals.expected == metrics.beta_binomial_range(intervals.calibrated_on or 0, len(pairs), 0.8)
    assert "80 %" in intervals.promise


def test_traces_are_the_curves_of_the_paper(evaluated: Evaluation) -> None:
    assert [t.name for t in evaluated.model.traces] == ["mc", "s1"]
    y = evaluated.subjects.truth
    for traced in evaluated.model.traces:
        values = []
        for side in Side:
            i = side.index
            curve = metrics.sharpness_cp_curve(y[:, i], traced.centre[:, i], traced.spread[:, i], 6.84)
            values.append(float(metrics.sharpness_at_cp(curve, 0.8)))
            estimate = traced.scores["sharpness_at_cp"][side]
            assert estimate is not None
            assert estimate.value == pytest.approx(values[-1])
        average = traced.scores["sharpness_at_cp"].average
        assert average is not None
        assert average.value == pytest.approx(np.mean(values))
        assert traced.optimal is not None


def test_the_ridge_knows_the_training_patients_alone(evaluated: Evaluation, cohort: PackedCohort, split: Split) -> None:
    features = hand_made_features(to_canonical(np.stack([cohort.read(i) for i in range(len(cohort))])))
    train, test = split.rows(cohort, "train"), split.rows(cohort, "test")
    expected = RidgeBaseline.fit(features[train], cohort.sbr[train]).predict(features[test])
    (ridge,) = evaluated.baselines
    np.testing.assert_allclose(ridge.predicted, expected)
    gain = evaluated.gains["ridge"]["pearson_r"].average
    mine, other = evaluated.model.scores["pearson_r"].average, ridge.scores["pearson_r"].average
    assert gain is not None
    assert mine is not None
    assert other is not None
    assert gain.value == pytest.approx(mine.value - other.value)


@pytest.mark.parametrize(
    ("subset", "word"),
    [("train", "TRAINED"), ("stop", "STOPPED"), ("calibration", "CALIBRATED"), ("validation", "CALIBRATED")],
)
def test_patients_that_were_seen_are_marked(
    run: Path, cohort: PackedCohort, split: Split, subset: str, word: str
) -> None:
    found = evaluate(run, cohort, subset=subset, level=0.8, resamples=100)
    assert {p.participant_id for p in found.subjects.participants} == set(getattr(split, subset))
    assert word in found.tested.seen
    assert word in found.summary()


def test_another_cohort_is_taken_whole(run: Path, cohort: PackedCohort, tmp_path: Path) -> None:
    other = write_cohort(
        tmp_path / "other", 12, seed=7, change=lambda f: f.update(participant_id=f"x-{f['participant_id']}")
    )
    done: list[tuple[int, int]] = []
    found = evaluate(run, other, trained_on=cohort, level=0.8, resamples=100, progress=lambda i, n: done.append((i, n)))
    assert len(found.subjects.rows) == 12
    assert done[-1] == (12, 12)
    assert set(found.parts) == {"train", "stop", "calibration", "tested"}
    assert [b.name for b in found.baselines] == ["ridge"]
    alone = evaluate(run, other, level=0.8, resamples=100)
    assert alone.baselines == ()
    assert any("ridge" in note for note in alone.notes)
    with pytest.raises(ConfigError, match="taken whole"):
        evaluate(run, other, subset="train")
    with pytest.raises(CohortError, match="did not train"):
        evaluate(run, other, trained_on=other)


def test_calibration_patients_under_another_roof_are_marked(run: Path, cohort: PackedCohort, tmp_path: Path) -> None:
    mine = shutil.copytree(run, tmp_path / "run")

    def renamed(facts: dict[str, str]) -> None:
        facts.update(participant_id=f"y-{facts['participant_id']}")

    others = write_cohort(tmp_path / "others", 12, seed=7, change=renamed)
    few = write_cohort(tmp_path / "few", 9, seed=7, change=renamed)  # the first nine of the others
    calibrate(mine, few, level=0.8)
    assert others.sha256 != few.sha256
    found = evaluate(mine, others, level=0.8, resamples=100)
    assert found.tested.seen.startswith("9 of these 12 visits are of patients who CALIBRATED the intervals")
    assert "CALIBRATED" in found.summary()
    assert evaluate(mine, few, level=0.8, resamples=100).tested.seen.startswith("These patients CALIBRATED")


def test_patients_of_the_training_under_another_roof_are_refused(
    run: Path, cohort: PackedCohort, tmp_path: Path
) -> None:
    # the same images and names as in the home cohort, so some of them trained
    copy = write_cohort(tmp_path / "copy", 79)
    assert copy.sha256 != cohort.sha256
    with pytest.raises(CalibrationError, match="training or early stopping"):
        evaluate(run, copy)


@pytest.mark.parametrize(
    ("column", "value", "words"),
    [
        ("spect_software", "B", "spect_software: software A in training, B here"),
        ("sbr_method", "southampton", "sbr_method: unknown in training, southampton here"),
    ],
)
def test_another_scale_is_refused_until_it_is_allowed(
    column: str, value: str, words: str, run: Path, tmp_path: Path
) -> None:
    other = write_cohort(
        tmp_path / "other", 8, seed=8, change=lambda f: f.update({"participant_id": f"y{f['age']}", column: value})
    )
    with pytest.raises(CohortError, match=words):
        evaluate(run, other)
    assert evaluate(run, other, level=0.8, resamples=100, allow_other_scale=True).subjects.n_patients == 8


def test_missing_labels_are_refused(run: Path, tmp_path: Path) -> None:
    def unlabelled(fields: dict[str, object]) -> None:
        fields["participant_id"] = f"z-{fields['participant_id']}"
        if fields["participant_id"] == "z-sub-003":
            fields.update(sbr_right=None, sbr_left=None)

    with pytest.raises(CohortError, match="1 of 6 visits"):
        evaluate(run, write_cohort(tmp_path / "other", 6, seed=9, change=unlabelled))


def test_an_unknown_subset_and_a_foreign_split_are_refused(run: Path, cohort: PackedCohort, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="training"):
        evaluate(run, cohort, subset="training")
    other, _ = write_run(tmp_path / "run", cohort)
    split = Split.load(other / "split.json")
    Split(split.train, split.stop, split.test, split.calibration, split.seed).save(other / "split.json")
    with pytest.raises(CohortError, match="not the split"):
        evaluate(other, cohort)


def test_a_level_out_of_reach_leaves_the_points(run: Path, cohort: PackedCohort) -> None:
    found = evaluate(run, cohort, level=0.95, resamples=100)
    assert found.model.intervals == ()
    assert any("19 patients" in note for note in found.notes)


def test_a_model_of_one_side_answers_for_one(cohort: PackedCohort, tmp_path: Path) -> None:
    folder, _ = write_run(tmp_path / "left", cohort, sharing="left", head_dropout=0.0)
    found = evaluate(folder, cohort, resamples=100)
    assert found.model.sides == (Side.LEFT,)
    rmse = found.model.scores["rmse"]
    assert rmse.right is None
    assert rmse.left is not None
    assert rmse.average is None
    assert found.model.traces == ()
    assert any("no dropout" in note for note in found.notes)
    one_sided, _ = write_run(tmp_path / "mc", cohort, sharing="left")
    calibrate(one_sided, cohort, mode="mc", level=0.8)
    (traced,) = (done := evaluate(one_sided, cohort, level=0.8, resamples=100)).model.traces
    assert set(traced.curves) == {Side.LEFT}
    assert traced.optimal is None
    assert set(done.model.intervals[0].coverage) == {Side.LEFT}


def test_what_a_rule_promises_about_both_sides_and_about_thirds_is_held_against_it(run: Path, tmp_path: Path) -> None:
    def new(name: str, patients: int, seed: int) -> PackedCohort:
        def rename(fields: dict[str, Any]) -> None:
            fields["participant_id"] = name + fields["participant_id"]

        return write_cohort(tmp_path / name, patients, seed=seed, change=rename)

    run = Path(shutil.copytree(run, tmp_path / "run"))
    calibrate(run, new("c", 40, 5), level=0.6)
    fresh = new("n", 60, 9)
    for rule in ("joint", "mondrian"):
        found = evaluate(run, fresh, level=0.6, rule=rule, resamples=100)
        (made,) = found.model.intervals
        inside = (made.lower <= found.subjects.truth) & (found.subjects.truth <= made.upper)
        kept = {k.about: k for k in made.promises}
        if rule == "joint":
            (k,) = made.promises
            assert k.about == "both sides together"
            assert (k.coverage.covered, k.coverage.patients) == (inside.all(axis=1).sum(), 60)
            assert k.expected == metrics.beta_binomial_range(k.calibrated_on, 60, 0.6, 0.999)
        else:
            for side in Side:
                thirds = [k for about, k in kept.items() if about.startswith(side.value)]
                assert sum(k.coverage.patients for k in thirds) == 60
                assert sum(k.coverage.covered for k in thirds) == inside[:, side.index].sum()
        table = next(t for t in result_tables([found]) if t.name == "promises")
        assert len(table.rows) == len(made.promises)
        for k in made.promises:
            assert f"Covered, {k.about}: {k.coverage.covered} of {k.coverage.patients}" in found.summary()
    (plain,) = evaluate(run, fresh, level=0.6, resamples=100).model.intervals
    assert plain.promises == ()


def test_visits_of_a_patient_count_once(tmp_path: Path) -> None:
    cohort = write_cohort(tmp_path / "cohort", 40, twice=20)
    folder, split = write_run(tmp_path / "run", cohort)
    calibrate(folder, cohort, level=0.7)
    found = evaluate(folder, cohort, level=0.7, resamples=100)
    visits = len(split.rows(cohort, "test"))
    assert visits > len(split.test)
    assert found.subjects.n_patients == len(split.test)
    assert found.model.intervals[0].coverage[Side.RIGHT].patients == len(split.test)
    rmse = found.model.scores["rmse"].right
    assert rmse is not None
    assert rmse.n_patients == len(split.test)
    # the value is that of all visits
    assert rmse.value == pytest.approx(float(metrics.rmse(found.subjects.truth[:, 0], found.model.predicted[:, 0])))


def test_a_phantom_is_compared_with_its_oracle(run: Path, tmp_path: Path) -> None:
    folder = simulate(tmp_path / "phantom", patients=8, preset="easy", seed=77, workers=1)
    found = evaluate(run, folder, level=0.8, resamples=100, allow_other_scale=True)
    assert found.label == "digital phantom, not patients"
    truth = read_truth(folder)
    for oracle, sides in zip(found.oracles, ("single", "pair"), strict=True):
        best = oracle_predict(truth.latents.m, truth.preset, "single" if sides == "single" else "pair", 0.8)
        np.testing.assert_array_equal(oracle.predicted, best.mean)
        np.testing.assert_array_equal(oracle.intervals[0].lower, best.lower)
    y, p = found.subjects.truth[:, 0], found.model.predicted[:, 0]
    ratio = found.skill["r_ratio"].right
    assert ratio is not None
    assert ratio.value == pytest.approx(
        float(metrics.pearson_r(y, p) / metrics.pearson_r(y, found.oracles[0].predicted[:, 0]))
    )


def test_skill_of_known_predictions(evaluated: Evaluation) -> None:
    subjects = evaluated.subjects
    rng = np.random.default_rng(0)
    single, pair = (subjects.truth + rng.normal(0, sd, subjects.truth.shape) for sd in (0.9, 0.3))
    found = skill(pair, single, pair, subjects, Resampling(100))
    for part in ("right", "left", "average"):
        # the oracle of both sides uses the whole headroom, in every resample
        headroom = getattr(found["headroom"], part)
        assert (headroom.value, headroom.low, headroom.high) == pytest.approx((1.0, 1.0, 1.0))
        assert getattr(found["excess_mse"], part).value < 0
    average = found["r_ratio"].average
    assert average is not None
    r = [float(metrics.per_side(metrics.pearson_r, subjects.truth, p).average) for p in (pair, single)]
    assert average.value == pytest.approx(r[0] / r[1])


def test_the_same_seed_gives_the_same_numbers(run: Path, cohort: PackedCohort, evaluated: Evaluation) -> None:
    again = evaluate(run, cohort, level=0.8, resamples=RESAMPLES)
    assert again.to_json() == evaluated.to_json()
    assert again.summary() == evaluated.summary()
