"""Many fits against each other: single-fit functions, explicit resampling, planted gains and honest words."""

from __future__ import annotations

import math
import random
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from nigradat import metrics
from nigradat.errors import CohortError, ConfigError
from nigradat.evaluation import draws, published, scoring, weighted
from nigradat.evaluation.comparison import Comparison, compare
from nigradat.evaluation.contrasts import FAMILY, PROPOSED, Pair
from nigradat.evaluation.predictions import PREDICTIONS_NAME, FitRecord, Predictions
from nigradat.evaluation.result import Subjects

SCALE = 6.84
RESAMPLES = 100
SEEDS = st.integers(0, 2**32 - 1)
EVERY = ("right", "left", "average", "pooled", "patient")


class Study:
    """Writes fits of one cohort whose labels are fixed by patient and session."""

    def __init__(self, folder: Path, seed: int = 0) -> None:
        self.folder, self.seed, self.records = folder, seed, list[FitRecord]()

    def labels(self, visits: Sequence[tuple[str, str]], split: str = "") -> np.ndarray:
        drawn = split if split.startswith("draw-") else ""
        out = []
        for patient, session in visits:
            rng = random.Random(f"{self.seed}{drawn}{patient}{session}")
            common = rng.gauss(0, 0.9)
            out.append([round(math.exp(0.6 + 0.55 * (common + rng.gauss(0, 0.3))), 2) for _ in range(2)])
        return np.array(out)

    def fit(
        self,
        method: str,
        visits: Sequence[str | tuple[str, str]],
        *,
        split: str = "split-1",
        seed: int = 1,
        noise: float = 0.5,
        predicted: np.ndarray | None = None,
        modes: Sequence[str] = (),
        role: str = "model",
        shuffled: bool = False,
        n_train: int = 40,
    ) -> Predictions:
        keys = [(v, "n/a") if isinstance(v, str) else v for v in visits]
        y = self.labels(keys, split)
        rng = np.random.default_rng([self.seed, seed, *map(ord, method + split)])
        p = 0.5 + 0.75 * y + rng.normal(0, noise, y.shape) if predicted is None else predicted
        spread = {mode: (p, rng.uniform(0.2, 0.7, y.shape)) for mode in modes}
        interval = {mode: (c - 1.7 * s, c + 1.7 * s) for mode, (c, s) in spread.items()}
        order = rng.permutation(len(keys)) if shuffled else np.arange(len(keys))
        answers = Predictions(
            tuple(keys[i][0] for i in order),
            tuple(keys[i][1] for i in order),
            y[order],
            p[order],
            {m: (a[order], b[order]) for m, (a, b) in spread.items()},
            {m: (a[order], b[order]) for m, (a, b) in interval.items()},
        )
        place = self.folder / split / f"{method}-seed{seed}"
        place.mkdir(parents=True, exist_ok=True)
        answers.save(place / PREDICTIONS_NAME)
        n_test = len({key[0] for key in keys})
        record = FitRecord(method, method.upper(), role, split, seed, place, f"sha {split}", n_train, n_test)  # type: ignore[arg-type]
        self.records.append(record)
        return answers

    def compare(self, **more: object) -> Comparison:
        return compare(self.records, **{"scale": SCALE, "resamples": RESAMPLES, **more})  # type: ignore[arg-type]


@pytest.fixture
def study(tmp_path: Path) -> Study:
    return Study(tmp_path)


def people(n: int, first: int = 0) -> list[str]:
    return [f"sub-{i:03d}" for i in range(first, first + n)]


def value(comparison: Comparison, method: str, score: str, part: str = "average") -> float:
    estimate = getattr(comparison[method].scores[score], part)
    assert estimate is not None
    return float(estimate.value)


# -- One fit against the functions for one fit --------------------------------------------------------------------


@pytest.mark.parametrize("name", [*weighted.ERROR_SCORES, *weighted.AGREEMENT_SCORES])
def test_the_scores_of_one_fit_are_those_of_the_metrics(study: Study, name: str) -> None:
    a = study.fit("ridge", people(31))
    metric, found = getattr(metrics, name), study.compare()["ridge"].scores[name]
    sides = metrics.per_side(metric, a.truth, a.predicted)
    assert [e.value for e in (found.right, found.left, found.average) if e] == pytest.approx(
        [float(v) for v in (sides.right, sides.left, sides.average)], rel=1e-10
    )
    assert found.pooled is not None
    assert found.patient is not None
    assert found.pooled.value == pytest.approx(float(metrics.pooled(metric, a.truth, a.predicted)), rel=1e-10)
    assert found.patient.value == pytest.approx(float(metrics.patient_mean(metric, a.truth, a.predicted)), rel=1e-10)


def test_the_intervals_of_one_fit_are_those_of_the_bca_bootstrap(study: Study) -> None:
    a = study.fit("ridge", people(25))
    scores = study.compare(seed=7)["ridge"].scores
    names = ("rmse", "mae", "pearson_r", "spearman", "icc_agreement")
    expected = metrics.bca_per_side(
        {name: getattr(metrics, name) for name in names}, a.truth, a.predicted, seed=7, resamples=RESAMPLES
    )
    for name in names:
        for part in ("right", "left", "average"):
            one, two = getattr(scores[name], part), getattr(expected[name], part)
            assert (one.low, one.high) == pytest.approx((two.low, two.high), rel=1e-9), (name, part)
            assert one.method == two.method == "bca"


def test_spreads_and_intervals_of_one_fit(study: Study) -> None:
    a = study.fit(PROPOSED, people(31), modes=["mc", "s1"])
    result = study.compare(level=0.9)[PROPOSED]
    assert tuple(result.spreads) == tuple(result.intervals) == ("mc", "s1")
    centre, spread = a.spreads["s1"]
    curves = [metrics.sharpness_cp_curve(a.truth[:, i], centre[:, i], spread[:, i], SCALE) for i in range(2)]
    found = result.spreads["s1"]
    for estimate, curve in zip((found.sharpness_at_cp.right, found.sharpness_at_cp.left), curves, strict=True):
        assert estimate is not None
        assert estimate.value == pytest.approx(float(metrics.sharpness_at_cp(curve, 0.9)), rel=1e-12)
    assert found.sharpness_at_cp.pooled is found.sharpness_at_cp.patient is None
    assert found.optimal == metrics.optimal_point(*curves).sides
    low, high = a.intervals["mc"]
    judged = result.intervals["mc"]
    for name, metric in (
        ("mpiw", lambda lo, hi, y: metrics.mpiw(lo, hi)),
        ("sharpness", lambda lo, hi, y: metrics.sharpness(lo, hi, SCALE)),
        ("interval_score", lambda lo, hi, y: metrics.interval_score(lo, hi, y, 0.9).mean()),
    ):
        average = judged.scores[name].average
        assert average is not None
        assert average.value == pytest.approx(float(metrics.per_side(metric, low, high, a.truth).average), rel=1e-12)
    right = judged.coverage.right
    assert right is not None
    k = int(np.count_nonzero((low[:, 0] <= a.truth[:, 0]) & (a.truth[:, 0] <= high[:, 0])))
    assert (right.value, right.low, right.high, right.counted) == (
        k / 31,
        *metrics.clopper_pearson(k, 31),
        (k, 31),
    )


def test_binary_agreement_of_one_fit(study: Study) -> None:
    a = study.fit("ridge", people(40))
    binary = study.compare(threshold=2.2)["ridge"].binary
    assert binary is not None
    for i, side in enumerate(("right", "left")):
        table = metrics.binary_agreement(a.truth[:, i], a.predicted[:, i], 2.2)
        for name in ("accuracy", "sensitivity", "specificity"):
            share = getattr(getattr(binary, name), side)
            assert share.value == pytest.approx(getattr(table, name))
            assert share.method == "wilson"
        sensitivity = getattr(binary.sensitivity, side)
        assert (sensitivity.low, sensitivity.high) == metrics.wilson(table.tp, table.tp + table.fn)
        auc = getattr(binary.auc, side)
        exact = metrics.delong_auc(a.truth[:, i] < 2.2, -a.predicted[:, i])
        assert (auc.value, auc.low, auc.high) == pytest.approx((exact.value, exact.low, exact.high))
        assert auc.method == "delong"
        assert binary.prevalence[i] == pytest.approx(table.prevalence)
    clustered = metrics.clustered_auc(a.truth < 2.2, -a.predicted)
    assert binary.auc.pooled is not None
    found = binary.auc.pooled
    assert (found.value, found.low, found.high) == pytest.approx((clustered.value, clustered.low, clustered.high))
    assert binary.auc.patient is None
    assert study.compare()["ridge"].binary is None


def test_limits_of_agreement_are_those_of_each_fit(study: Study) -> None:
    visits = people(30)
    a, b = study.fit("ridge", visits, split="split-1"), study.fit("ridge", visits, split="split-2")
    (one, two) = study.compare()["ridge"].limits
    assert one == metrics.bland_altman_clustered(a.truth, a.predicted)
    assert two == metrics.bland_altman_clustered(b.truth, b.predicted)


def test_asymmetry_and_the_worse_side(study: Study) -> None:
    a = study.fit("ridge", people(30))
    scores = study.compare()["ridge"].scores
    for name in weighted.PAIR_SCORES:
        assert scores[name].right is scores[name].average is scores[name].pooled is None
        assert scores[name].headline is scores[name].patient
        assert value(study.compare(), "ridge", name, "patient") == pytest.approx(
            float(getattr(metrics, name)(a.truth, a.predicted))
        )


def test_log_scores_leave_out_and_count_what_has_no_logarithm(study: Study) -> None:
    visits = people(20)
    p = study.labels([(v, "n/a") for v in visits]) * 1.1
    p[3, 0], p[4, 0], p[5, 1] = -0.2, 0.0, -1.0
    study.fit("ridge", visits, predicted=p)
    result = study.compare()["ridge"]
    assert result.log_left_out == (2, 1)
    # all that is left is 10 % too high
    assert value(study.compare(), "ridge", "log_rmse") == pytest.approx(math.log(1.1))
    assert value(study.compare(), "ridge", "log_pearson_r") == pytest.approx(1.0)


@given(seed=SEEDS, n=st.integers(3, 30), digits=st.integers(0, 2))
@settings(max_examples=40)
def test_weighted_agreement_and_binary_scores_of_resamples(seed: int, n: int, digits: int) -> None:
    rng = np.random.default_rng(seed)
    y = rng.uniform(0.5, 6, n).round(digits)
    p = (0.6 * y + rng.normal(0.8, 0.7, n)).round(digits)
    index = rng.integers(0, n, (7, n))
    weights = weighted.patient_weights(index, np.arange(n))
    varied = (np.ptp(y[index], axis=1) > 0) & (np.ptp(p[index], axis=1) > 0)
    found = weighted.moment_errors(y, p)(weights)
    for name in weighted.AGREEMENT_SCORES:
        expected = getattr(metrics, name)(y[index], p[index])
        np.testing.assert_allclose(found[name][varied], expected[varied], rtol=1e-8, atol=1e-8, err_msg=name)
    binary = weighted.binary(y, p, 3.0)(weights)
    for i, drawn in enumerate(index):
        table = metrics.binary_agreement(y[drawn], p[drawn], 3.0)
        for name in ("accuracy", "sensitivity", "specificity"):
            assert binary[name][i] == pytest.approx(getattr(table, name), nan_ok=True)
        assert binary["auc"][i] == pytest.approx(float(metrics.auc(y[drawn] < 3, -p[drawn])), nan_ok=True)


# -- Many fits: explicit resampling -------------------------------------------------------------------------------


def overlapping(study: Study) -> dict[str, list[Predictions]]:
    """Three splits of one cohort, two seeds; some patients are in several splits, some come twice."""
    cohort = [(patient, "ses-1") for patient in people(18)]
    cohort += [(patient, "ses-2") for patient in people(5)]
    fits: dict[str, list[Predictions]] = {"vgg-small": [], PROPOSED: []}
    for i in range(3):
        chosen = set(random.Random(i).sample(people(18), 12))
        visits = [visit for visit in cohort if visit[0] in chosen]
        for method, noise in (("vgg-small", 0.7), (PROPOSED, 0.4)):
            for seed in (1, 2):
                fits[method].append(
                    study.fit(method, visits, split=f"split-{i}", seed=seed, noise=noise, modes=["mc"], shuffled=True)
                )
    return fits


def drawn_rows(fit: Predictions, patients: Sequence[str], index: np.ndarray) -> list[int]:
    """Rows of the drawn patients, written out as often as they were drawn."""
    return [row for i in index for row, patient in enumerate(fit.patients) if patient == patients[i]]


def mean_rmse(fits: Sequence[Predictions], patients: Sequence[str], index: np.ndarray) -> float:
    out = []
    for fit in fits:
        rows = drawn_rows(fit, patients, index)
        out.append(float(metrics.per_side(metrics.rmse, fit.truth[rows], fit.predicted[rows]).average))
    return float(np.mean(out))


def test_intervals_over_many_fits_are_those_of_explicit_resampling(study: Study) -> None:
    fits = overlapping(study)
    patients = sorted({p for several in fits.values() for fit in several for p in fit.patients})
    comparison = study.compare(seed=3)
    assert comparison.n_patients == len(patients) == comparison["vgg-small"].n_patients

    def check(found: metrics.Estimate | None, statistic: object) -> None:
        expected = metrics.bca(metrics.one_at_a_time(statistic), len(patients), seed=3, resamples=RESAMPLES)  # type: ignore[arg-type]
        assert found is not None
        for name in ("value", "low", "high"):
            assert getattr(found, name) == pytest.approx(getattr(expected, name), rel=1e-9), name
        assert (found.method, found.n_patients) == (expected.method, expected.n_patients)

    small, plus = fits["vgg-small"], fits[PROPOSED]
    check(comparison["vgg-small"].scores["rmse"].average, lambda i: mean_rmse(small, patients, i))
    contrast = comparison.contrast("sym-vgg-plus vs vgg-small")
    assert contrast is not None
    check(
        contrast.differences["rmse"].average,
        lambda i: mean_rmse(plus, patients, i) - mean_rmse(small, patients, i),
    )


def test_patients_losses_are_averaged_over_sides_visits_and_fits(study: Study) -> None:
    fits = overlapping(study)
    found = study.compare().contrast("sym-vgg-plus vs vgg-small")
    assert found is not None
    losses: dict[str, list[float]] = {}
    for first, second in zip(fits[PROPOSED], fits["vgg-small"], strict=True):
        keys = [list(zip(f.patients, f.sessions, strict=True)) for f in (first, second)]
        for row, key in enumerate(keys[0]):
            a = np.abs(first.predicted[row] - first.truth[row]).mean()
            other = keys[1].index(key)
            losses.setdefault(key[0], []).append(a - np.abs(second.predicted[other] - second.truth[other]).mean())
    differences = [np.mean(losses[patient]) for patient in sorted(losses)]
    expected = metrics.paired_permutation(differences, seed=0)
    assert found.permutation is not None
    assert found.permutation.p == expected.p
    assert found.permutation.mean == pytest.approx(expected.mean)
    assert found.permuted == "absolute_error"
    assert found.sd == pytest.approx(np.std(differences, ddof=1))
    assert found.detectable == pytest.approx(metrics.minimum_detectable_difference(found.sd, len(differences)))


def test_replicates_are_corrected_for_overlap_but_not_where_cohorts_are_drawn_anew(tmp_path: Path) -> None:
    for name in ("split", "draw"):
        study = Study(tmp_path / name)
        mae: dict[str, list[float]] = {PROPOSED: [], "vgg-small": []}
        for i in range(4):
            for method, several in mae.items():
                a = study.fit(method, people(10, first=5 * i), split=f"{name}-{i}")
                several.append(float(metrics.per_side(metrics.mae, a.truth, a.predicted).average))
        contrast = study.compare().contrast("sym-vgg-plus vs vgg-small")
        assert contrast is not None
        assert contrast.replicates is not None
        differences = np.subtract(mae[PROPOSED], mae["vgg-small"])
        if name == "split":
            expected = metrics.nadeau_bengio(differences, 40, 10)
            assert (contrast.replicates.low, contrast.replicates.high) == pytest.approx((expected.low, expected.high))
            assert contrast.replicates_are == "overlapping"
        else:
            t = stats.ttest_1samp(differences, 0)
            assert contrast.replicates.p == pytest.approx(t.pvalue)
            assert contrast.replicates_are == "independent"
        assert contrast.n_splits == 4


def test_a_drawn_cohort_has_other_patients_whatever_they_are_called(study: Study) -> None:
    for i in range(3):
        study.fit("ridge", people(12), split=f"draw-{i}")
    comparison = study.compare()
    assert comparison.n_patients == comparison["ridge"].n_patients == 36
    assert comparison.settings.independent
    # independent draws: the variance of the mean is that of the fits over 9
    alone = [compare([r], scale=SCALE, resamples=400)["ridge"].scores["mae"].average for r in study.records]
    together = compare(study.records, scale=SCALE, resamples=400)["ridge"].scores["mae"].average
    width = [e.high - e.low for e in alone if e]
    assert together is not None
    assert together.high - together.low == pytest.approx(math.sqrt(sum(w**2 for w in width)) / 3, rel=0.2)


def test_seeds_do_not_make_more_patients(study: Study) -> None:
    a = study.fit("ridge", people(20), seed=1, modes=["mc"])
    alone = study.compare(threshold=2.2)["ridge"]
    for seed in (2, 3):
        study.fit("ridge", people(20), seed=seed, predicted=a.predicted)
    together = study.compare(threshold=2.2)["ridge"]
    for name, found in alone.scores.items():
        for part in EVERY:
            one, two = getattr(found, part), getattr(together.scores[name], part)
            assert (one is None) == (two is None)
            if one is not None:
                assert (one.value, one.low, one.high) == pytest.approx((two.value, two.low, two.high)), (name, part)
    assert together.n_patients == 20
    assert together.binary is not None
    assert together.binary.accuracy.right is not None
    assert together.binary.accuracy.right.method != "wilson"
    assert together.variation["mae"].sd == pytest.approx(0.0, abs=1e-12)


def test_coverage_of_several_fits_counts_patients_once(study: Study) -> None:
    for seed in (1, 2, 3):
        study.fit(PROPOSED, people(20), seed=seed, modes=["mc"])
    right = study.compare()[PROPOSED].intervals["mc"].coverage.right
    assert right is not None
    assert right.n_patients == 20
    assert right.counted is None
    narrower = metrics.clopper_pearson(round(60 * right.value), 60)
    assert right.high - right.low > 1.3 * (narrower[1] - narrower[0])
    assert right.low < right.value < right.high


def test_coverage_counts_first_visits(study: Study) -> None:
    visits = [(p, session) for p in people(6) for session in ("ses-1", "ses-2")]
    a = study.fit(PROPOSED, visits, modes=["mc"])
    low, high = a.intervals["mc"]
    first = [i for i, session in enumerate(a.sessions) if session == "ses-1"]
    k = int(np.count_nonzero(((low <= a.truth) & (a.truth <= high))[first, 1]))
    left = study.compare()[PROPOSED].intervals["mc"].coverage.left
    assert left is not None
    assert left.counted == (k, 6)


def test_visits_of_a_patient_move_together(tmp_path: Path) -> None:
    once, twice = Study(tmp_path / "once"), Study(tmp_path / "twice")
    a = once.fit("ridge", [(p, "ses-1") for p in people(15)])
    record = once.records[0]
    assert record.folder is not None
    for session in ("ses-1", "ses-2"):
        twice.fit("ridge", [(p, session) for p in people(15)])
    doubled = Predictions(
        a.patients * 2,
        a.sessions + ("ses-2",) * 15,
        np.concatenate([a.truth] * 2),
        np.concatenate([a.predicted] * 2),
    )
    place = tmp_path / "doubled"
    place.mkdir()
    doubled.save(place / PREDICTIONS_NAME)
    one = once.compare()["ridge"].scores
    two = compare([replace(record, folder=place)], scale=SCALE, resamples=RESAMPLES)["ridge"].scores
    for name in ("rmse", "mae", "pearson_r", "spearman", "median_ae", "ccc"):
        for part in EVERY:
            first, second = getattr(one[name], part), getattr(two[name], part)
            assert (first.value, first.low, first.high) == pytest.approx(
                (second.value, second.low, second.high), rel=1e-9
            ), (name, part)


def test_the_order_of_records_and_visits_decides_nothing(tmp_path: Path) -> None:
    study = Study(tmp_path / "a")
    overlapping(study)
    expected = study.compare(threshold=2.2)
    shuffled = list(study.records)
    random.Random(1).shuffle(shuffled)
    for record in shuffled:
        answers = record.predictions()
        order = np.random.default_rng(9).permutation(len(answers.patients))
        assert record.folder is not None
        Predictions(
            tuple(answers.patients[i] for i in order),
            tuple(answers.sessions[i] for i in order),
            answers.truth[order],
            answers.predicted[order],
            {m: (a[order], b[order]) for m, (a, b) in answers.spreads.items()},
            {m: (a[order], b[order]) for m, (a, b) in answers.intervals.items()},
        ).save(record.folder / PREDICTIONS_NAME)
    assert repr(compare(shuffled, threshold=2.2, scale=SCALE, resamples=RESAMPLES)) == repr(expected)


def test_with_many_patients_the_interval_is_of_percentiles(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    a = study.fit("ridge", people(25))
    monkeypatch.setattr(draws, "JACKKNIFE_PATIENTS", 24)
    found = study.compare(seed=5)["ridge"].scores["mae"].right
    assert found is not None
    assert found.method == "percentile"
    index = np.random.default_rng(5).integers(0, 25, (RESAMPLES, 25))
    resampled = np.abs(a.predicted - a.truth)[:, 0][index].mean(axis=1)
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(resampled, [0.025, 0.975])))


def test_one_table_of_predictions_is_in_memory_at_a_time(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    for i in range(4):
        for seed in range(3):
            study.fit("ridge", people(6), split=f"split-{i}", seed=seed)
    alive: weakref.WeakSet[Predictions] = weakref.WeakSet()
    most = 0
    read = FitRecord.predictions

    def watched(record: FitRecord) -> Predictions:
        nonlocal most
        answers = read(record)
        alive.add(answers)
        most = max(most, len(alive))
        return answers

    monkeypatch.setattr(FitRecord, "predictions", watched)
    study.compare()
    assert most <= 2


# -- Contrasts ----------------------------------------------------------------------------------------------------


def test_a_method_does_not_differ_from_itself(study: Study) -> None:
    study.fit("ridge", people(20), modes=["mc"])
    (found,) = study.compare(pairs=[Pair("ridge", "ridge", "nothing")]).contrasts
    for difference in found.differences.values():
        for part in EVERY:
            estimate = getattr(difference, part)
            if estimate is not None:
                assert estimate.value == estimate.low == estimate.high == 0.0
    assert (found.answer, found.better, found.sd, found.detectable) == ("unclear", False, 0.0, 0.0)
    assert found.verdict.startswith("Not shown: difference in MAE 0.000")


def test_a_planted_gain_is_found_and_said_in_its_direction(study: Study) -> None:
    for method, noise in ((PROPOSED, 0.3), ("vgg-small", 0.9)):
        study.fit(method, people(40), noise=noise, modes=["mc", "s1"])
    found = study.compare().contrast("sym-vgg-plus vs vgg-small")
    assert found is not None
    assert found.primary is not None
    assert found.primary.high < 0
    assert (found.answer, found.better) == ("lower", True)
    assert found.verdict.startswith("MAE lower by ")
    assert "the paper: 12.1 % lower" in found.verdict
    relative = found.relative_mae.average
    assert relative is not None
    first, second = (value(study.compare(), method, "mae") for method in (PROPOSED, "vgg-small"))
    assert relative.value == pytest.approx((first - second) / second)
    turned = study.compare(pairs=[Pair("vgg-small", PROPOSED, "the other way round")]).contrasts[0]
    assert (turned.answer, turned.better) == ("higher", False)
    assert turned.primary is not None
    assert turned.primary.value == -found.primary.value


def test_a_null_is_rarely_called_a_difference(tmp_path: Path) -> None:
    called = 0
    for seed in range(20):
        study = Study(tmp_path / str(seed), seed)
        for method in (PROPOSED, "vgg-small"):
            study.fit(method, people(30))
        (found,) = study.compare(pairs=[FAMILY[0]]).contrasts
        assert found.primary is not None
        called += found.answer != "unclear"
        assert (found.answer == "lower") <= (found.primary.high < 0)
        assert (found.answer == "higher") <= (found.primary.low > 0)
    assert called <= 4  # 1 expected; more than 4 of 20 has a probability of .003 at a level of .05


def test_a_sharpness_contrast_compares_modes_and_permutes_interval_scores(study: Study) -> None:
    a = study.fit(PROPOSED, people(30), modes=["mc", "s1"])
    study.fit("vgg-small", people(30), modes=["mc"])
    comparison = study.compare()
    claim = comparison.contrast("sym-vgg-plus/s1 vs vgg-small/mc")
    assert claim is not None
    assert claim.titles == ("Symmetric MC + SYM-VGG-PLUS", "MC + VGG-SMALL")
    sharpness = claim.differences["sharpness_at_cp"].average
    both = comparison[PROPOSED].spreads["s1"].sharpness_at_cp.average
    other = comparison["vgg-small"].spreads["mc"].sharpness_at_cp.average
    assert sharpness is not None
    assert both is not None
    assert other is not None
    assert sharpness.value == pytest.approx(both.value - other.value)
    same = comparison.contrast("sym-vgg-plus/s1 vs sym-vgg-plus/mc")
    assert same is not None
    assert same.permuted == "interval_score"
    score = {mode: metrics.interval_score(*a.intervals[mode], a.truth).mean(axis=1) for mode in ("mc", "s1")}
    assert same.permutation is not None
    assert same.permutation.mean == pytest.approx(float(np.mean(score["s1"] - score["mc"])))
    assert same.differences["mae"].average is not None
    assert same.differences["mae"].average.value == 0.0


def test_holm_is_over_the_contrasts_that_could_be_made(study: Study) -> None:
    for method in (PROPOSED, "vgg-small", "sym-vgg", "ridge"):
        study.fit(method, people(20), noise=0.4 if method == PROPOSED else 0.6)
    found = {c.pair.name: c for c in study.compare().contrasts}
    assert set(found) == {
        "sym-vgg-plus vs vgg-small",
        "sym-vgg-plus vs sym-vgg",
        "sym-vgg vs vgg-small",
        "sym-vgg-plus vs ridge",
    }
    raw = {name: c.permutation.p for name, c in found.items() if c.permutation}
    assert {name: c.p_holm for name, c in found.items()} == pytest.approx(metrics.holm(raw))


def test_a_verdict_is_not_stronger_than_holm_or_the_replicates_allow(tmp_path: Path) -> None:
    family = [FAMILY[0], *(Pair("ridge", "ridge", f"idle {i}") for i in range(40))]
    study = Study(tmp_path / "holm")
    for method, noise in ((PROPOSED, 0.4), ("vgg-small", 0.7), ("ridge", 0.5)):
        study.fit(method, people(30), noise=noise)
    alone, crowded = (study.compare(pairs=pairs).contrasts[0] for pairs in (family[:1], family))
    assert alone.answer == "lower"
    assert (crowded.answer, crowded.better) == ("unclear", False)
    assert crowded.verdict.startswith("MAE lower by ")
    assert ", but not shown: p is " in crowded.verdict

    study = Study(tmp_path / "splits")
    for split, noise in (("split-1", 1.2), ("split-2", 0.32)):
        study.fit(PROPOSED, people(30), split=split, noise=0.3)
        study.fit("vgg-small", people(30), split=split, noise=noise)
    found = study.compare(pairs=family[:1]).contrasts[0]
    assert found.primary is not None
    assert found.primary.high < 0
    assert found.replicates is not None
    assert found.replicates.low < 0 < found.replicates.high
    assert found.answer == "unclear"
    assert "over 2 splits the interval is" in found.verdict


def test_only_splits_with_both_methods_are_compared(study: Study) -> None:
    for split in ("split-1", "split-2"):
        study.fit("vgg-small", people(20), split=split)
    study.fit(PROPOSED, people(20), split="split-1")
    study.records.append(
        replace(study.records[-1], split="split-2", split_sha256="sha split-2", folder=None, failed="it diverged")
    )
    comparison = study.compare()
    found = comparison.contrast("sym-vgg-plus vs vgg-small")
    assert found is not None
    assert found.n_splits == 1
    assert found.replicates is None
    only = compare([r for r in study.records if r.split == "split-1"], scale=SCALE, resamples=RESAMPLES)
    assert found.differences == only.contrasts[0].differences
    (failed,) = comparison.failed
    assert (failed.method, failed.split, failed.reason) == (PROPOSED, "split-2", "it diverged")
    assert comparison[PROPOSED].n_splits == 1


def test_extensions_earn_their_place_by_the_interval_of_their_gain(study: Study) -> None:
    visits = people(60)
    y = study.labels([(v, "n/a") for v in visits])
    rng = np.random.default_rng(4)
    plus = y + rng.normal(0, 0.9, y.shape)
    study.fit(PROPOSED, visits, predicted=plus, modes=["s1"])
    study.fit("fused", visits, predicted=(plus + y) / 2, modes=["s7"], role="derived")
    study.fit("ensemble", visits, predicted=plus + rng.normal(0, 0.8, y.shape), role="derived")
    earned = {e.method: e for e in study.compare().earned}
    fused, ensemble = earned["fused"], earned["ensemble"]
    assert fused.earned
    assert fused.wanted_reached
    assert fused.gain.low > 0
    assert fused.score == "pearson_r"
    assert fused.reason.startswith("Earned its place on these patients.")
    assert not ensemble.earned
    assert ensemble.wanted_reached is None
    assert ensemble.gain.value < 0
    assert ensemble.reason.startswith("Not shown to help")


def test_skill_is_that_of_one_evaluation(study: Study) -> None:
    visits = people(40)
    methods = {"ridge": 0.7, "oracle-single": 0.5, "oracle-pair": 0.35}
    a = {m: study.fit(m, visits, noise=n, role="oracle" if "or" in m else "baseline") for m, n in methods.items()}
    found = study.compare(seed=2)
    assert set(found.skill) == {"ridge"}
    subjects = Subjects(np.arange(40), (), a["ridge"].truth, np.arange(40))
    how = scoring.Resampling(RESAMPLES, 2)
    expected = scoring.skill(*(a[m].predicted for m in methods), subjects, how)
    for name in ("r_ratio", "excess_mse", "headroom"):
        for part in ("right", "left", "average"):
            one, two = getattr(getattr(found.skill["ridge"], name), part), getattr(expected[name], part)
            assert (one.value, one.low, one.high) == pytest.approx((two.value, two.low, two.high), rel=1e-9)
    headroom = found.skill["ridge"].headroom.average
    assert headroom is not None
    assert headroom.value < 0


# -- Sides without an answer, and variation -----------------------------------------------------------------------


def test_a_one_sided_method_has_no_average(study: Study) -> None:
    visits = people(20)
    p = study.labels([(v, "n/a") for v in visits]) + 0.1
    p[:, 0] = np.nan
    study.fit("vgg-left", visits, predicted=p)
    study.fit(PROPOSED, visits)
    comparison = study.compare(threshold=2.2, pairs=[Pair("vgg-left", PROPOSED, "left only")])
    result = comparison["vgg-left"]
    mae = result.scores["mae"]
    assert mae.right is mae.average is mae.pooled is mae.patient is None
    assert mae.headline is mae.left
    assert result.unanswered == (20, 0)
    assert "asymmetry_error" not in result.scores
    assert result.fits[0].mae == pytest.approx(0.1)
    assert result.binary is not None
    assert result.binary.accuracy.right is result.binary.accuracy.average is None
    (contrast,) = comparison.contrasts
    assert contrast.differences["mae"].average is None
    assert contrast.primary is contrast.differences["mae"].left


def test_an_observer_is_scored_on_the_answered_visits(study: Study) -> None:
    visits = people(20)
    y = study.labels([(v, "n/a") for v in visits])
    p = y + np.linspace(-0.5, 0.5, 40).reshape(20, 2)
    p[:4, 0] = np.nan
    study.fit("observer", visits, predicted=p, role="baseline")
    result = study.compare()["observer"]
    assert result.unanswered == (4, 0)
    mae = result.scores["mae"]
    assert mae.right is not None
    assert mae.patient is not None
    assert mae.right.value == pytest.approx(float(np.abs(p - y)[4:, 0].mean()))
    assert mae.patient.value == pytest.approx(float(np.abs((p - y).mean(axis=1))[4:].mean()))


def test_variation_between_splits_and_seeds(study: Study) -> None:
    offset = {("split-1", 1): 0.1, ("split-1", 2): 0.3, ("split-2", 1): 0.6, ("split-2", 2): 0.8}
    for (split, seed), off in offset.items():
        visits = people(10)
        y = study.labels([(v, "n/a") for v in visits])
        study.fit("ridge", visits, split=split, seed=seed, predicted=y + off)
    found = study.compare()["ridge"].variation["mae"]
    assert found.n_fits == 4
    assert found.sd == pytest.approx(np.std([0.1, 0.3, 0.6, 0.8], ddof=1))
    assert found.sd_splits == pytest.approx(np.std([0.2, 0.7], ddof=1))
    assert found.sd_seeds == pytest.approx(np.std([0.1, 0.3], ddof=1))
    assert study.compare()["ridge"].n_seeds == study.compare()["ridge"].n_splits == 2


def test_methods_stand_in_the_order_of_the_tables(study: Study) -> None:
    roles: Mapping[str, str] = {"ridge": "baseline", "fused": "derived", PROPOSED: "model", "vit": "model"}
    for method, role in roles.items():
        study.fit(method, people(8), role=role)
    assert [m.method for m in study.compare().methods] == ["vit", PROPOSED, "fused", "ridge"]


# -- What cannot be compared --------------------------------------------------------------------------------------


def test_fits_of_one_split_on_other_visits_are_refused(study: Study) -> None:
    study.fit("ridge", people(10))
    study.fit("vit", people(10, first=1))
    with pytest.raises(CohortError, match="other visits"):
        study.compare()


def test_a_fit_that_comes_twice_is_refused(study: Study) -> None:
    study.fit("ridge", people(10))
    with pytest.raises(CohortError, match="two fits of ridge"):
        compare([*study.records, *study.records], scale=SCALE)


def test_two_splits_of_one_name_are_refused(study: Study) -> None:
    study.fit("ridge", people(10))
    other = replace(study.records[0], method="vit", split_sha256="another")
    with pytest.raises(CohortError, match="two different splits"):
        compare([*study.records, other], scale=SCALE)


def test_nothing_to_score_is_said_and_a_method_that_failed_throughout_is_listed(study: Study) -> None:
    study.fit("ridge", people(10))
    failed = replace(study.records[0], method="vit", role="model", folder=None, failed="the loss is no number")
    with pytest.raises(CohortError, match="no fit with predictions"):
        compare([failed], scale=SCALE)
    with pytest.raises(CohortError, match="no fit with predictions"):
        compare([], scale=SCALE)
    result = compare([failed, *study.records], scale=SCALE, threshold=2.0, resamples=100)["vit"]
    assert (result.scores, result.fits, result.n_patients, result.binary) == ({}, (), 0, None)
    assert result.failed[0].reason == "the loss is no number"


def test_one_patient_is_not_enough(study: Study) -> None:
    study.fit("ridge", [("sub-1", "ses-1"), ("sub-1", "ses-2")])
    with pytest.raises(CohortError, match="1 tested patients"):
        study.compare()


@pytest.mark.parametrize("wrong", [{"level": 1.0}, {"scale": 0.0}, {"resamples": 10}, {"confidence": 95.0}])
def test_impossible_settings_are_refused(study: Study, wrong: Mapping[str, float]) -> None:
    study.fit("ridge", people(10))
    with pytest.raises(ConfigError):
        study.compare(**wrong)


def test_the_published_agreement_is_as_inconsistent_as_it_is_said_to_be() -> None:
    regressor, proposed = published.AGREEMENT[1:]
    for row in (regressor, proposed):
        for accuracy, sensitivity, specificity in (row.right, row.left):
            assert not min(sensitivity, specificity) <= accuracy <= max(sensitivity, specificity)
    right, left = (43, 12), (41, 14)
    assert proposed.right[1:] == pytest.approx((37 / right[0], 10 / right[1]), abs=5e-4)
    assert proposed.left[1:] == pytest.approx((35 / left[0], 11 / left[1]), abs=5e-4)
    assert regressor.right[1:] == pytest.approx((31 / right[0], 9 / right[1]), abs=5e-4)
    assert regressor.left[:0:-1] == pytest.approx((31 / left[0], 11 / left[1]), abs=5e-4)
    said = published.AGREEMENT_INCONSISTENCIES[0]
    for accuracy in (40 / 55, 42 / 55, 47 / 55, 46 / 55):
        assert f"{accuracy:.3f}".removeprefix("0") in said


def test_the_published_claims_are_those_of_the_published_tables() -> None:
    mae = {row.method: row.mae[2] for row in published.ACCURACY}
    assert mae["Sym. VGG+"] / mae["VGG-small"] - 1 == pytest.approx(published.MAE_REDUCTION, abs=1e-3)
    sharpness = {row.method: row.sharpness_at_cp[2] for row in published.UNCERTAINTY}
    gain = sharpness["Symmetric MC + Proposed"] - sharpness["MC + VGG"]
    assert gain == pytest.approx(published.SHARPNESS_GAIN)
    assert [pair.published for pair in FAMILY if pair.claim] == [published.MAE_REDUCTION, published.SHARPNESS_GAIN]
