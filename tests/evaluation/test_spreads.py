"""Spread models side by side: who calibrates whom, scores against their definitions, and what is refused."""

from __future__ import annotations

from dataclasses import astuple
from pathlib import Path

import numpy as np
import pytest

from nigradat import metrics
from nigradat.anatomy import Side
from nigradat.errors import CalibrationError, CohortError, ConfigError
from nigradat.evaluation import spread_scores
from nigradat.evaluation.spread_tables import spread_tables, summary, to_json
from nigradat.evaluation.spreads import SpreadComparison, compare_spreads
from nigradat.evaluation.validity import noise_share, strangers, validity
from nigradat.evaluation.weighted import patient_weights
from nigradat.io.pack import PackedCohort
from nigradat.metrics import scores as sc
from nigradat.models.weights import load_model
from nigradat.phantom import simulate
from nigradat.phantom.oracle import oracle_predict, read_truth
from nigradat.training.split import Split
from nigradat.uncertainty.calibration import calibrate
from nigradat.uncertainty.mc_dropout import draw_predictions
from nigradat.uncertainty.symmetric_mc import MODES
from small_runs import write_cohort, write_run

LEVEL, SAMPLES, RESAMPLES = 0.8, 12, 200


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> PackedCohort:
    return write_cohort(tmp_path_factory.mktemp("cohort") / "home", 46, twice=3)


@pytest.fixture(scope="module")
def split(cohort: PackedCohort) -> Split:
    ids = sorted(set(cohort.patient_ids), reverse=True)  # patients with two visits come last: they are tested
    return Split(tuple(ids[:6]), tuple(ids[6:12]), tuple(ids[12:24]), tuple(ids[24:]), seed=0, scheme="by hand")


@pytest.fixture(scope="module")
def runs(cohort: PackedCohort, split: Split, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("runs")
    made = {"run": {}, "other": {"seed": 2}, "beside": {"seed": 3, "method": "vgg-small"}}
    return {name: write_run(folder / name, cohort, split=split, **how)[0] for name, how in made.items()}


@pytest.fixture(scope="module")
def compared(runs: dict[str, Path], cohort: PackedCohort) -> SpreadComparison:
    return compare_spreads(
        runs["run"],
        cohort,
        ensemble=[runs["other"]],
        beside=[runs["beside"]],
        level=LEVEL,
        samples=SAMPLES,
        resamples=RESAMPLES,
    )


# -- who


def test_the_own_cohort_is_taken_by_its_parts(compared: SpreadComparison, cohort: PackedCohort, split: Split) -> None:
    people = compared.patients
    assert {p.participant_id for p in people.subjects.participants} == set(split.test)
    assert len(people.subjects.participants) == len(split.test) + 3  # second visits are tested, too
    first = [cohort.patient_ids.index(p) for p in split.calibration]
    assert people.calibrating.tolist() == cohort.sbr[sorted(first)].tolist()
    assert [j.name for j in compared.judged] == [
        "beside-1",
        *MODES,
        "ensemble-mc",
        "ensemble-s1",
        "constant",
        "proportional",
    ]
    assert compared.label == ""


def test_half_of_another_cohort_calibrates(runs: dict[str, Path], tmp_path: Path) -> None:
    other = write_cohort(
        tmp_path / "other", 11, seed=5, twice=2, change=lambda f: f.update(participant_id="x" + f["participant_id"])
    )
    found = compare_spreads(runs["run"], other, level=0.7, samples=4, resamples=RESAMPLES)
    tested = {p.participant_id for p in found.patients.subjects.participants}
    assert (len(tested), len(found.patients.calibrating)) == (6, 5)
    assert any("No s7" in note for note in found.notes)
    assert "s7" not in found
    again = compare_spreads(runs["run"], other, level=0.7, samples=4, resamples=RESAMPLES)
    assert to_json(again) == to_json(found)


def test_another_cohort_is_calibrated_on_the_run_s_own(
    runs: dict[str, Path], cohort: PackedCohort, compared: SpreadComparison, tmp_path: Path
) -> None:
    other = write_cohort(
        tmp_path / "other", 8, seed=5, change=lambda f: f.update(participant_id="x" + f["participant_id"])
    )
    found = compare_spreads(runs["run"], other, calibrate_on=cohort, level=LEVEL, samples=SAMPLES, resamples=RESAMPLES)
    assert len(found.patients.subjects.participants) == 8
    assert found["s1"].k["conformal"] == pytest.approx(compared["s1"].k["conformal"], rel=1e-4)
    assert found["s7"].k["nominal-cp"] == pytest.approx(compared["s7"].k["nominal-cp"], rel=1e-4)


def test_the_cohort_that_trained_the_run_fits_s7_wherever_else_is_tested(
    runs: dict[str, Path], cohort: PackedCohort, compared: SpreadComparison, tmp_path: Path
) -> None:
    other = write_cohort(
        tmp_path / "other", 11, seed=5, change=lambda f: f.update(participant_id="x" + f["participant_id"])
    )
    few = {"level": 0.7, "samples": SAMPLES, "resamples": RESAMPLES}
    found = compare_spreads(runs["run"], other, trained_on=cohort, **few)  # type: ignore[arg-type]
    assert "s7" in found
    assert found.fusion is not None
    assert compared.fusion is not None
    assert astuple(found.fusion) == pytest.approx(astuple(compared.fusion), rel=1e-4)
    with pytest.raises(CohortError, match="did not train this model"):
        compare_spreads(runs["run"], other, trained_on=other, **few)  # type: ignore[arg-type]


# -- multipliers and scores


def test_conformal_multipliers_are_those_of_calibrate(
    compared: SpreadComparison, runs: dict[str, Path], cohort: PackedCohort, split: Split, tmp_path: Path
) -> None:
    copy, _ = write_run(tmp_path / "copy", cohort, split=split)
    for mode in ("mc", "s5", "s6"):
        made = calibrate(copy, cohort, mode=mode, samples=SAMPLES, level=LEVEL)  # type: ignore[arg-type]
        assert compared[mode].k["conformal"] == pytest.approx(made.multiplier(LEVEL), rel=1e-4)
        assert compared[mode].k["nominal-cp"] == pytest.approx(made.multiplier(LEVEL, "nominal-cp"), rel=1e-4)


def test_draws_are_those_of_the_network(
    compared: SpreadComparison, runs: dict[str, Path], cohort: PackedCohort
) -> None:
    rows = compared.patients.subjects.rows
    loaded = load_model(runs["run"])
    drawn = draw_predictions(loaded.model, np.stack([cohort.read(int(i)) for i in rows]), samples=SAMPLES, seed=0)
    assert compared.draws.samples == pytest.approx(drawn.samples, rel=1e-4, abs=1e-4)
    pooled = drawn.samples.var(axis=0, ddof=1).mean(axis=1)
    assert compared["s1"].model.tested.spread[:, 0] == pytest.approx(np.sqrt(pooled), rel=1e-3)


def test_the_ensemble_is_the_equal_mixture(
    compared: SpreadComparison, runs: dict[str, Path], cohort: PackedCohort
) -> None:
    rows = compared.patients.subjects.rows
    patches = np.stack([cohort.read(int(i)) for i in rows])
    members = [
        draw_predictions(load_model(runs[name]).model, patches, samples=SAMPLES, seed=0).samples
        for name in ("run", "other")
    ]
    means, variances = (np.stack([getattr(m, what)(axis=0) for m in members]) for what in ("mean", "var"))
    found = compared["ensemble-mc"].model.tested
    assert found.centre == pytest.approx(means.mean(axis=0), rel=1e-4)
    t = 2 * SAMPLES
    total = variances.mean(axis=0) + means.var(axis=0)  # law of total variance
    assert found.spread**2 == pytest.approx(total * t / (t - 1), rel=1e-3)


@pytest.mark.parametrize("name", ["mc", "s1", "s2", "s6", "constant", "beside-1"])
def test_scores_are_those_of_the_pure_functions(compared: SpreadComparison, name: str) -> None:
    judged, y = compared[name], compared.patients.subjects.truth
    spread = judged.model.tested
    k = judged.k["nominal-cp"]
    low, high = spread.centre - k * spread.spread, spread.centre + k * spread.spread
    assert judged.ends["nominal-cp"][0] == pytest.approx(low)
    distribution = judged.distribution
    assert distribution is not None
    for side in Side:
        i = side.index
        of = {
            "cp": metrics.coverage(low[:, i], high[:, i], y[:, i]),
            "mpiw": metrics.mpiw(low[:, i], high[:, i]),
            "nmpiw": metrics.nmpiw(low[:, i], high[:, i], y[:, i]),
            "sharpness": metrics.sharpness(low[:, i], high[:, i], 6.84),
            "interval_score": metrics.interval_score(low[:, i], high[:, i], y[:, i], LEVEL).mean(),
            "crps": metrics.crps_gaussian(y[:, i], spread.centre[:, i], distribution.scale[:, i]).mean(),
            "nll": sc.nll_gaussian(y[:, i], spread.centre[:, i], distribution.scale[:, i]).mean(),
            "rmsce": sc.rmsce(sc.pit_gaussian(y[:, i], spread.centre[:, i], distribution.scale[:, i])),
            "sharpness_at_cp": metrics.sharpness_at_cp(
                metrics.sharpness_cp_curve(y[:, i], spread.centre[:, i], spread.spread[:, i], 6.84), LEVEL
            ),
        }
        if name != "constant":
            error = y[:, i] - spread.centre[:, i]
            of["width_error_correlation"] = sc.width_error_correlation(high[:, i] - low[:, i], error)
            of["aurc"] = sc.aurc(np.abs(error), spread.spread[:, i])
            of["ence"] = sc.ence(error, distribution.scale[:, i], bins=2)
        for score, value in of.items():
            assert judged.scores[score][side].value == pytest.approx(float(value)), score
    assert ("aurc" in judged.scores) == (name != "constant")


def test_the_scale_of_a_distribution_is_the_likeliest_one(compared: SpreadComparison) -> None:
    judged, y = compared["s1"], compared.patients.calibrating
    calibrating, distribution = judged.model.calibrating, judged.distribution
    assert calibrating is not None
    assert distribution is not None
    t = (distribution.scale / judged.model.tested.spread)[0]

    def likelihood(factor: float) -> float:
        return float(sc.nll_gaussian(y, calibrating.centre, factor * t * calibrating.spread).sum())

    assert likelihood(1.0) < min(likelihood(0.97), likelihood(1.03))


def test_an_interval_that_is_cut_has_no_curve_and_no_distribution(compared: SpreadComparison) -> None:
    judged = compared["s5"]
    assert judged.curves == {}
    assert judged.optimal is None
    assert judged.distribution is None
    assert "crps" not in judged.scores
    assert "wis" in judged.scores


def test_weighted_scores_agree_with_drawn_resamples() -> None:
    rng = np.random.default_rng(0)
    n = 23
    sd, group = rng.uniform(0.5, 2, n).round(1), np.arange(n)
    error = sd * rng.normal(size=n)
    pit = sc.pit_gaussian(error, 0 * error, sd)
    index = rng.integers(0, n, (6, n))
    weights = patient_weights(index, group)
    calibration = spread_scores.calibration(pit)(weights)
    found = {
        "rmsce": (calibration["rmsce"], lambda i: sc.rmsce(pit[i])),
        "area": (calibration["miscalibration_area"], lambda i: sc.miscalibration_area(pit[i])),
        "aurc": (spread_scores.aurc(np.abs(error), sd)(weights)["aurc"], lambda i: sc.aurc(np.abs(error[i]), sd[i])),
        "ence": (spread_scores.ence(error, sd, 4)(weights)["ence"], lambda i: sc.ence(error[i], sd[i], 4)),
        "correlation": (
            spread_scores.width_error_correlation(sd, error)(weights)["width_error_correlation"],
            lambda i: sc.width_error_correlation(sd[i], error[i]),
        ),
    }
    for name, (together, one) in found.items():
        # in the order in which the weighted cases stand: equal SDs are cut in that order
        assert together == pytest.approx([float(one(np.sort(row))) for row in index]), name


# -- validity


def test_validity_compares_with_plain_mc(compared: SpreadComparison) -> None:
    found = {v.name: v for v in validity(compared)}
    assert list(found) == list(MODES)
    assert found["mc"].gain == {}
    for mode in ("s1", "s6", "s7"):
        gain = (
            compared[mode].scores["sharpness_at_cp"].average.value
            - compared["mc"].scores["sharpness_at_cp"].average.value
        )
        assert found[mode].gain["gain"].average.value == pytest.approx(gain)
        difference = (
            compared[mode].scores["interval_score"].left.value - compared["mc"].scores["interval_score"].left.value
        )
        assert found[mode].interval_score["interval_score"].left.value == pytest.approx(difference)
    assert found["s1"].coverage == compared["s1"].coverage["conformal"]


def test_the_gain_of_cut_intervals_is_read_where_they_cover_often_enough(compared: SpreadComparison) -> None:
    cut, plain = compared["s5"].model.tested, compared["mc"]
    truth, settings = compared.patients.subjects.truth, compared.settings
    gain = next(v for v in validity(compared) if v.name == "s5").gain["gain"]
    for side, measured in ((Side.RIGHT, gain.right), (Side.LEFT, gain.left)):
        # as traced for c +- k S: linear between the multipliers from which one case more is covered
        nodes = np.concatenate([[0.0], np.sort(cut.score(truth)[:, side.index])])
        k = np.interp(settings.level * len(truth), np.arange(len(nodes)), nodes)
        low, high = cut.interval(k)
        sharpness = 1 - float(np.mean(high - low, axis=0)[side.index]) / 2 / settings.scale
        of_plain = plain.scores["sharpness_at_cp"]
        there = (of_plain.right if side is Side.RIGHT else of_plain.left).value
        assert measured.value == pytest.approx(sharpness - there)


def test_a_fusion_is_tried_with_strangers_too(compared: SpreadComparison) -> None:
    fusion, drawn = compared.fusion, compared.draws
    assert fusion is not None
    found = next(v for v in validity(compared) if v.name == "s7")
    mean = drawn.samples.mean(axis=0)
    partner = strangers(compared.patients.subjects, compared.settings.seed)
    centre = fusion.a + fusion.b * mean[:, 0] + fusion.c * mean[partner, 1]
    spread = np.sqrt(fusion.s0**2 + (fusion.s1 * centre) ** 2)
    curve = metrics.sharpness_cp_curve(compared.patients.subjects.truth[:, 0], centre, spread, compared.settings.scale)
    expected = float(metrics.sharpness_at_cp(curve, compared.settings.level))
    plain = compared["mc"].scores["sharpness_at_cp"].right.value
    assert found.gain_of_strangers["gain"].right.value == pytest.approx(expected - plain)


def test_a_stranger_is_never_oneself_and_everybody_is_one(compared: SpreadComparison) -> None:
    subjects = compared.patients.subjects
    partner = strangers(subjects, 3)
    who = subjects.patient_of_visit
    assert (who[partner] != who).all()
    assert sorted(set(who[partner])) == sorted(set(who))
    assert strangers(subjects, 3).tolist() == partner.tolist()


def test_noise_share_of_draws_whose_sd_is_known() -> None:
    """log S of T normal draws varies by 1 / (2 (T - 1)) about log sigma, and log sigma by v over patients."""
    rng = np.random.default_rng(1)
    draws, v = 40, 0.05
    sigma = np.exp(rng.normal(0, np.sqrt(v), (3000, 2)))
    samples = 2 + sigma * rng.normal(size=(draws, 3000, 2))
    expected = 1 / (2 * (draws - 1)) / (v + 1 / (2 * (draws - 1)))
    found = noise_share(samples, "mc", 6.84)
    assert list(found.values()) == pytest.approx([expected] * 2, abs=0.03)
    assert all(share > 0.9 for share in noise_share(2 + rng.normal(size=(draws, 300, 2)), "mc", 6.84).values())


# -- phantom


@pytest.fixture(scope="module")
def phantom(runs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, SpreadComparison]:
    place = tmp_path_factory.mktemp("phantom")
    folder = simulate(place / "fresh", patients=14, preset="easy", seed=3, workers=1)
    of_phantoms = dict.fromkeys(("tracer", "spect_device", "spect_software"), "digital phantom")
    home = write_cohort(place / "home", 14, kind="phantom", change=lambda f: f.update(of_phantoms))
    run, _ = write_run(place / "run", home)
    return folder, compare_spreads(run, folder, level=LEVEL, samples=4, resamples=RESAMPLES)


def test_the_oracle_stands_beside_and_is_the_measure(phantom: tuple[Path, SpreadComparison]) -> None:
    folder, found = phantom
    truth = read_truth(folder)
    rows, y = found.patients.subjects.rows, found.patients.subjects.truth
    assert found.label == "digital phantom, not patients"
    for sides in ("single", "pair"):
        best = oracle_predict(truth.latents.m[rows], truth.preset, sides, LEVEL)  # type: ignore[arg-type]
        judged = found[f"oracle-{sides}"]
        assert judged.ends["conformal"][0] == pytest.approx(best.lower)
        assert judged.ends["nominal-cp"][1] == pytest.approx(best.upper)
        expected = sc.crps_log_normal(y[:, 0], np.log(best.median[:, 0]), np.full(len(y), best.log_sd)).mean()
        assert judged.scores["crps"].right.value == pytest.approx(expected)
    own, oracle = found["mc"].scores["sharpness_at_cp"].left, found["oracle-single"].scores["sharpness_at_cp"].left
    assert found["mc"].efficiency["single"].left.value == pytest.approx((1 - oracle.value) / (1 - own.value))
    assert found["oracle-single"].efficiency["single"].average.value == pytest.approx(1)
    assert {"SNR", "centring error"} <= {d.name for d in found.divisions}


def test_every_table_of_a_phantom_says_so(phantom: tuple[Path, SpreadComparison]) -> None:
    _, found = phantom
    tables = spread_tables(found, validity(found))
    assert {"paper", "scores", "efficiency", "groups", "validity"} <= {table.name for table in tables}
    for table in tables:
        assert table.label == ("other patients, as published" if table.name == "published" else found.label)
        assert table.to_csv().count(table.label) == len(table.rows)
    assert "say nothing about patients" in summary(found)


# -- refusals


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"level": 0.99}, CalibrationError, "at least 99 patients"),
        ({"run": "left"}, ConfigError, "answers for one side"),
        ({"run": "no dropout"}, CalibrationError, "no dropout"),
        ({"calibrate_on": "itself"}, ConfigError, "to be tested and to calibrate"),
    ],
)
def test_what_cannot_be_judged_is_refused(arguments, error, words, runs, cohort, split, tmp_path) -> None:
    named = dict(arguments)
    run, tested = runs["run"], cohort
    match named.pop("run", None):
        case "left":
            run, _ = write_run(tmp_path / "left", cohort, split=split, sharing="left")
        case "no dropout":
            run, _ = write_run(tmp_path / "plain", cohort, split=split, head_dropout=0.0)
    if named.pop("calibrate_on", None):
        tested = write_cohort(
            tmp_path / "other", 10, seed=8, change=lambda f: f.update(participant_id="y" + f["participant_id"])
        )
        named["calibrate_on"] = tested
    with pytest.raises(error, match=words):
        compare_spreads(run, tested, **{"level": LEVEL, "samples": 4, "resamples": RESAMPLES} | named)


def test_the_same_images_cannot_calibrate_and_test(runs: dict[str, Path], tmp_path: Path) -> None:
    tested, again = (
        write_cohort(
            tmp_path / name, 10, seed=8, change=lambda f, name=name: f.update(participant_id=name + f["participant_id"])
        )
        for name in ("y", "z")
    )
    with pytest.raises(CalibrationError, match=r"10 of the 10 visits for testing .* for calibration"):
        compare_spreads(runs["run"], tested, calibrate_on=again, level=LEVEL, samples=4, resamples=RESAMPLES)


def test_patients_that_a_run_beside_has_met_are_refused(
    runs: dict[str, Path], cohort: PackedCohort, tmp_path: Path
) -> None:
    ids = sorted(set(cohort.patient_ids))
    turned = Split(tuple(ids[:6]), tuple(ids[6:12]), tuple(ids[12:24]), tuple(ids[24:]), seed=0, scheme="other")
    met, _ = write_run(tmp_path / "met", cohort, split=turned)
    with pytest.raises(CalibrationError, match="used in training"):
        compare_spreads(runs["run"], cohort, beside=[met], level=LEVEL, samples=4, resamples=RESAMPLES)


def test_unlabelled_visits_are_refused(runs: dict[str, Path], tmp_path: Path) -> None:
    other = write_cohort(
        tmp_path / "other",
        6,
        seed=5,
        change=lambda f: f.update(sbr_left=None, sbr_right=None, participant_id="z" + f["participant_id"]),
    )
    with pytest.raises(CohortError, match="no SBR label"):
        compare_spreads(runs["run"], other, level=LEVEL, samples=4, resamples=RESAMPLES)
