"""All earlier approaches through their common interface, on small cohorts."""

import numpy as np
import pytest

from nigradat.anatomy import mirror_pair
from nigradat.baselines import BASELINES, fit_baselines, predict_baselines, read_features
from nigradat.errors import CohortError, ConfigError
from nigradat.io.pack import CohortWriter, PackedCohort, load_cohort
from nigradat.phantom import oracle_predict, read_truth, simulate
from small_runs import write_cohort

TRAIN, TEST = range(20), np.arange(20, 30)
IMAGED = ("ridge", "mean-intensity", "n1-index")


def read_by_somebody(fields):
    """Every reading occurs, and the last visit has none."""
    number = int(fields["participant_id"][-3:])
    if number < 29:
        fields["hyperintensity_right"] = ("present", "absent", "unsure")[number % 3]
        fields["hyperintensity_left"] = ("absent", "present")[number % 2]


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    return write_cohort(tmp_path_factory.mktemp("read") / "cohort", 30, change=read_by_somebody)


@pytest.fixture(scope="module")
def phantom(tmp_path_factory):
    return load_cohort(
        simulate(tmp_path_factory.mktemp("phantom") / "c", patients=24, preset="easy", seed=77, workers=2)
    )


def test_every_approach_is_fitted_and_answers(cohort):
    fitted = fit_baselines(cohort, TRAIN, threshold_sbr=2.56)
    assert list(fitted) == list(BASELINES) == [*IMAGED, "observer"]
    predicted = predict_baselines(fitted, cohort, TEST)
    for name in IMAGED:
        assert predicted[name].shape == (10, 2)
        assert np.isfinite(predicted[name]).all()
    unread = np.zeros((10, 2), dtype=bool)
    unread[9] = True
    np.testing.assert_array_equal(np.isnan(predicted["observer"]), unread)


def test_one_by_one_gives_the_same_as_together(cohort):
    together = predict_baselines(fit_baselines(cohort, TRAIN), cohort, TEST)
    for name, baseline in BASELINES.items():
        np.testing.assert_array_equal(baseline.fit(cohort, TRAIN).predict(cohort, TEST), together[name])


def test_each_visit_is_read_once_for_all(cohort, monkeypatch):
    read, rows = PackedCohort.read, []
    monkeypatch.setattr(PackedCohort, "read", lambda self, row: rows.append(row) or read(self, row))
    fitted = fit_baselines(cohort, TRAIN)
    assert rows == list(TRAIN)
    predict_baselines(fitted, cohort, TEST)
    assert rows[len(TRAIN) :] == list(TEST)
    rows.clear()
    fit_baselines(cohort, TRAIN, ["observer"])
    assert rows == []


def test_the_labels_of_other_patients_decide_nothing(cohort, tmp_path):
    def relabel(fields):
        read_by_somebody(fields)
        if int(fields["participant_id"][-3:]) in TEST:
            fields |= {"sbr_right": 6.5, "sbr_left": 0.5}

    relabelled = write_cohort(tmp_path / "relabelled", 30, change=relabel)
    assert (relabelled.sbr[TEST] == [6.5, 0.5]).all()
    first, second = (fit_baselines(c, TRAIN, threshold_sbr=2.56) for c in (cohort, relabelled))
    assert first == second
    answers = predict_baselines(second, relabelled, TEST)
    for name, expected in predict_baselines(first, cohort, TEST).items():
        np.testing.assert_array_equal(answers[name], expected)


def test_exchanged_sides_exchange_the_answers(cohort, tmp_path):
    exchanged = []
    with CohortWriter(tmp_path / "exchanged", len(cohort), {"kind": "patients"}) as writer:
        for i, p in enumerate(cohort.participants):
            writer.patches[i] = mirror_pair(cohort.read(i))
            fields = {**vars(p), "hyperintensity_right": p.hyperintensity_left}
            exchanged.append(type(p)(**{**fields, "hyperintensity_left": p.hyperintensity_right}))
        writer.finish(exchanged)
    fitted = fit_baselines(cohort, TRAIN)
    there, back = (predict_baselines(fitted, c, TEST) for c in (cohort, load_cohort(tmp_path / "exchanged")))
    for name, values in there.items():
        np.testing.assert_array_equal(back[name], values[:, ::-1], err_msg=name)


def test_without_a_reader_there_is_no_observer(phantom):
    assert "observer" not in fit_baselines(phantom, TRAIN, ["observer", "mean-intensity"])
    assert BASELINES["observer"].fit(phantom, TRAIN) is None


def test_a_reader_of_others_only_leaves_these_without_an_answer(cohort, phantom):
    observer = BASELINES["observer"].fit(cohort, TRAIN)
    assert np.isnan(observer.predict(phantom, [0, 1])).all()


def test_the_phantoms_degeneration_shows_with_the_oracles_sign(phantom):
    truth = read_truth(phantom.folder)
    best = oracle_predict(truth.latents.m, truth.preset).mean.ravel()
    d = truth.latents.d.ravel()
    assert np.corrcoef(best, d)[0, 1] < 0
    features = read_features(phantom, range(24))
    for name in ("mean-intensity", "n1-index"):
        x = features[name].ravel()
        assert np.corrcoef(x, d)[0, 1] < -0.36, name  # p = .01 of 48 sides that tell nothing
        assert np.corrcoef(x, best)[0, 1] > 0.36, name


def test_the_index_is_read_at_a_cut_of_the_training_patients(cohort):
    index = BASELINES["n1-index"]
    assert index.fit(cohort, TRAIN).readings(cohort, TEST) is None
    fitted = index.fit(cohort, TRAIN, threshold_sbr=2.0)
    values = read_features(cohort, TEST, ["n1-index"])["n1-index"][..., 0]
    present = fitted.readings(cohort, TEST).findings == "present"
    np.testing.assert_array_equal(present, values >= fitted.cut.value)
    assert BASELINES["mean-intensity"].fit(cohort, TRAIN, threshold_sbr=2.0).cut is None


def test_each_says_what_was_fitted(cohort):
    said = {name: one.describe() for name, one in fit_baselines(cohort, TRAIN, threshold_sbr=2.0).items()}
    assert "6 features" in said["ridge"]
    slope = fit_baselines(cohort, TRAIN, ["mean-intensity"])["mean-intensity"].regression
    assert f"{abs(slope.coefficients[0] / slope.sd[0]):.2f} nigra_mean" in said["mean-intensity"]
    assert "20 training visits" in said["mean-intensity"]
    assert "SBR below 2 among" in said["n1-index"]
    assert all(finding in said["observer"] for finding in ("present", "absent", "unsure"))


def test_unusable_questions_are_refused(cohort):
    with pytest.raises(ConfigError, match="mean-intensity"):
        fit_baselines(cohort, TRAIN, ["mean-intensty"])
    with pytest.raises(CohortError, match="3"):
        fit_baselines(cohort, [0, 1], ["ridge"])
    with pytest.raises(CohortError, match="these rows"):
        BASELINES["ridge"].fit(cohort, TRAIN, features=read_features(cohort, TEST, ["ridge"]))
