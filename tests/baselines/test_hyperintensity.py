"""The hyperintensity index on painted nigrae; cuts and agreement against explicit counting and published values."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from sklearn.metrics import roc_curve

from nigradat.anatomy import PATCH_SHAPE, PATCH_SPACING_MM, Side, mirror_pair, to_canonical
from nigradat.baselines import (
    Cut,
    ReadingMeans,
    Readings,
    agreement_with_diagnosis,
    agreement_with_sbr,
    index_readings,
    n1_index,
    observer_readings,
    youden_cut,
)
from nigradat.baselines.features import ellipsoid
from nigradat.baselines.hyperintensity import _places
from nigradat.baselines.intensity import NIGRA_AXES, NIGRA_REGION
from nigradat.errors import CohortError, ConfigError, ImageError
from nigradat.io.manifest import HYPERINTENSITY, Participant
from nigradat.metrics.binary import BinaryAgreement
from nigradat.phantom import render_patient

NIGROSOME = ellipsoid((0.0, 0.0, 0.0), (3.3, 3.0, 1.2), NIGRA_AXES)


def painted(n1, dark=0.4, tissue=1.0):
    patch = np.full(PATCH_SHAPE, tissue, dtype=np.float32)
    patch[NIGRA_REGION] = dark
    patch[NIGROSOME] = n1
    return patch


# -- The index ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dose", [0.0, 0.25, 0.5, 1.0, 1.2])
def test_a_painted_nigrosome_has_the_index_of_its_brightness(dose):
    assert n1_index(painted(0.4 + 0.6 * dose))[0] == pytest.approx(dose, abs=1e-5)


@pytest.mark.parametrize("shift", [(3, 0, 0), (0, -3, 0), (0, 0, 1), (-1, 1, -1), (1, -2, 1)])
def test_a_centre_that_is_off_by_at_most_1_5_mm_does_not_matter(shift):
    moved = np.roll(painted(0.7), shift, axis=(0, 1, 2))
    assert np.linalg.norm(np.multiply(shift, PATCH_SPACING_MM)) <= 1.5
    assert n1_index(moved)[0] == pytest.approx(0.5, abs=1e-5)


def test_a_centre_that_is_far_off_does():
    assert n1_index(np.roll(painted(0.4), 8, axis=0))[0] > 0.5


@given(st.floats(0.01, 1000), st.integers(0, 100))
def test_gain_does_not_matter(gain, seed):
    patch = painted(0.8) + np.random.default_rng(seed).normal(0, 0.05, PATCH_SHAPE).astype(np.float32)
    assert n1_index(patch * np.float32(gain))[0] == pytest.approx(n1_index(patch)[0], abs=1e-4)


def test_more_nigrosome_gives_more_index_in_a_rendered_nigra():
    lost = np.asarray(to_canonical(render_patient(31, 0, 70.0, (0.95, 0.95)).patches))
    soft = NIGROSOME * np.float32(0.1)
    doses = np.stack([lost + dose * soft for dose in range(8)])
    index = n1_index(doses)[..., 0]
    assert (np.diff(index, axis=0) > 0).all()


def test_the_darker_half_of_the_nigra_is_what_counts_as_dark():
    patch = painted(0.7)
    brighter = np.random.default_rng(0).random(PATCH_SHAPE) < 0.4
    patch[NIGRA_REGION & ~NIGROSOME & brighter] = 0.5
    assert n1_index(patch)[0] == pytest.approx(0.5, abs=1e-5)


def test_the_nigrosome_has_no_say_in_where_the_nigra_is():
    places = _places()
    for site, slab, around in zip(places.site, places.slab, places.around, strict=True):
        assert not np.intersect1d(site, np.concatenate([slab, around])).size


def test_no_nigra_in_sight_is_no_loss():
    assert n1_index(np.full(PATCH_SHAPE, 3.0))[0] == pytest.approx(1.0)


def test_exchanged_sides_exchange_the_index():
    patches = np.random.default_rng(5).uniform(0.5, 1.5, (3, 2, *PATCH_SHAPE)).astype(np.float32)
    there = n1_index(np.asarray(to_canonical(patches)))
    exchanged = n1_index(np.asarray(to_canonical(np.stack([mirror_pair(pair) for pair in patches]))))
    np.testing.assert_array_equal(exchanged, there[:, ::-1])


def test_no_place_of_the_search_wraps_around_the_patch():
    places = _places()
    for region in (places.site, places.slab, places.around):
        corners = np.stack(np.unravel_index(region, PATCH_SHAPE))
        extent = np.ptp(corners, axis=2)
        assert (extent == extent[:, :1]).all()  # the same size at every place


@pytest.mark.parametrize("patch", [np.ones((50, 50, 19)), np.zeros(PATCH_SHAPE), np.full(PATCH_SHAPE, np.nan)])
def test_unusable_patches_are_refused(patch):
    with pytest.raises(ImageError):
        n1_index(patch)


# -- The cut ------------------------------------------------------------------------------------------------------


@given(st.integers(0, 10_000), st.integers(4, 60), st.booleans())
def test_the_cut_is_the_best_of_the_roc_curve(seed, sides, ties):
    rng = np.random.default_rng(seed)
    sbr = rng.uniform(0.5, 5, sides)
    index = sbr + rng.normal(0, 1, sides)
    index = index.round() if ties else index
    low = sbr < 2.56
    assume(0 < low.sum() < sides and np.ptp(index) > 0)
    cut = youden_cut(index, sbr, 2.56)
    false, true, _ = roc_curve(low, -index, drop_intermediate=False)
    assert cut.youden == pytest.approx((true - false)[1:-1].max())  # the ends say the same of everybody
    below = index < cut.value
    assert cut.youden == pytest.approx(below[low].mean() - below[~low].mean())


@pytest.mark.parametrize(
    ("index", "sbr"),
    [([1, 2, 3], [1, 1, 2]), ([1, 2, 3], [3, 4, 5]), ([2, 2, 2], [1, 2, 5])],
    ids=["low", "normal", "flat"],
)
def test_without_two_classes_or_values_there_is_no_cut(index, sbr):
    assert youden_cut(index, sbr, 2.56) is None


def test_unusable_cuts_are_refused():
    with pytest.raises(CohortError):
        youden_cut([1, 2, np.nan], [1, 2, 3], 2.0)
    with pytest.raises(CohortError):
        youden_cut([1, 2], [1, 2, 3], 2.0)
    with pytest.raises(ConfigError):
        youden_cut([1, 2, 3], [1, 2, 3], np.nan)


def test_an_index_is_read_at_its_cut():
    readings = index_readings([[0.2, 0.3], [np.nan, 0.1]], Cut(0.2, 2.56, 0.5))
    assert readings.findings.tolist() == [["present", "present"], ["n/a", "absent"]]


# -- Readings -----------------------------------------------------------------------------------------------------

READ = [("present", "absent"), ("absent", "unsure"), (None, "present"), ("unsure", None), ("absent", "absent")]
DIAGNOSES = ["PD", "control", None, "PD", "MSA"]
SBR = np.array([[3.0, 1.0], [1.0, 2.0], [3.0, 3.0], [2.0, 3.0], [3.0, 1.5]])


@pytest.fixture
def participants():
    return [
        Participant(f"sub-{i}", hyperintensity_right=right, hyperintensity_left=left, diagnosis=diagnosis)
        for i, ((right, left), diagnosis) in enumerate(zip(READ, DIAGNOSES, strict=True))
    ]


def test_readings_come_from_the_table(participants):
    readings = observer_readings(participants)
    assert readings.findings.tolist() == [[right or "n/a", left or "n/a"] for right, left in READ]
    assert (readings.count("unsure"), readings.count("n/a"), len(readings)) == ((1, 1), (1, 1), 5)


def test_nobody_has_read():
    assert observer_readings([Participant("sub-1"), Participant("sub-2", diagnosis="PD")]) is None
    assert observer_readings([]) is None


@pytest.mark.parametrize(
    ("unsure", "right", "left"),
    [
        ("left-out", BinaryAgreement(1, 1, 1, 0), BinaryAgreement(2, 0, 1, 0)),
        ("absent", BinaryAgreement(2, 1, 1, 0), BinaryAgreement(3, 0, 1, 0)),
        ("present", BinaryAgreement(1, 1, 1, 1), BinaryAgreement(2, 0, 1, 1)),
    ],
)
def test_agreement_with_the_sbr(participants, unsure, right, left):
    agreement = agreement_with_sbr(observer_readings(participants), SBR, 2.56, unsure)
    assert (agreement.right, agreement.left) == (right, left)
    assert (agreement[Side.RIGHT], agreement[Side.LEFT]) == (right, left)
    assert (agreement.n_unsure, agreement.n_unread, agreement.unsure) == ((1, 1), (1, 1), unsure)
    assert agreement.n_without_reference == (0, 0)


def test_a_side_without_sbr_is_counted_as_such(participants):
    sbr = SBR.copy()
    sbr[0] = np.nan
    agreement = agreement_with_sbr(observer_readings(participants), sbr, 2.56)
    assert agreement.n_without_reference == (1, 1)
    assert (agreement.right.n, agreement.left.n) == (2, 2)


def test_agreement_with_the_diagnosis(participants):
    readings = observer_readings(participants)
    every_other = agreement_with_diagnosis(readings, participants, ["pd"])
    assert every_other.right == BinaryAgreement(tp=0, fp=2, tn=0, fn=1)
    assert every_other.left == BinaryAgreement(tp=1, fp=1, tn=0, fn=0)
    assert every_other.n_without_reference == (0, 1)
    chosen = agreement_with_diagnosis(readings, participants, ["PD"], ["Control"], unsure="absent")
    assert chosen.right == BinaryAgreement(tp=1, fp=1, tn=0, fn=1)
    assert chosen.n_without_reference == (1, 2)


def test_the_published_observation_row_comes_out():
    # Bae 2021 as the paper prints its right side: accuracy .652, sensitivity .587, specificity .897 of 138 patients
    def visits(n, diagnosis, finding):
        return [Participant("sub", diagnosis=diagnosis, hyperintensity_right=finding) for _ in range(n)]

    people = visits(64, "PD", "absent") + visits(45, "PD", "present")
    people += visits(3, "control", "absent") + visits(26, "control", "present")
    agreement = agreement_with_diagnosis(observer_readings(people), people, ["PD"])
    table = agreement.right
    rounded = [round(value, 3) for value in (table.accuracy, table.sensitivity, table.specificity, table.prevalence)]
    assert rounded == [0.652, 0.587, 0.897, 0.79]
    assert agreement.left == BinaryAgreement(0, 0, 0, 0)
    assert agreement.n_unread == (0, 138)


def test_without_any_diagnosis_there_is_nothing_to_agree_with():
    people = [Participant("sub-1", hyperintensity_right="absent")]
    assert agreement_with_diagnosis(observer_readings(people), people, ["PD"]) is None


def test_unusable_questions_are_refused(participants):
    readings = observer_readings(participants)
    with pytest.raises(ConfigError, match="MSA, PD, control"):
        agreement_with_diagnosis(readings, participants, ["Parkinson"])
    with pytest.raises(ConfigError, match="as control"):
        agreement_with_diagnosis(readings, participants, ["PD"], ["pd"])
    with pytest.raises(ConfigError, match="left-out, absent, present"):
        agreement_with_sbr(readings, SBR, 2.56, "maybe")
    with pytest.raises(ConfigError):
        agreement_with_sbr(readings, SBR, np.inf)
    with pytest.raises(CohortError):
        agreement_with_sbr(readings, SBR[:4], 2.56)
    with pytest.raises(CohortError, match="bright"):
        Readings(np.array([["bright", "absent"]]))


@given(st.lists(st.tuples(*[st.sampled_from((*HYPERINTENSITY, "n/a"))] * 2, *[st.floats(0.4, 6)] * 2), min_size=1))
def test_every_side_is_counted_once(rows):
    readings, sbr = Readings(np.array([row[:2] for row in rows])), np.array([row[2:] for row in rows])
    for unsure in ("left-out", "absent", "present"):
        agreement = agreement_with_sbr(readings, sbr, 2.56, unsure)
        for side in Side:
            left_out = agreement.n_unsure[side.index] if unsure == "left-out" else 0
            assert agreement[side].n + left_out + agreement.n_unread[side.index] == len(rows)


def test_a_reading_predicts_the_mean_of_its_like():
    training = Readings(np.array([["present", "absent"], ["absent", "n/a"]]))
    means = ReadingMeans.fit(training, [[3.0, 1.0], [2.0, 9.0]])
    assert (means.mean_sbr, means.sides) == ({"present": 3.0, "absent": 1.5}, {"present": 1, "absent": 2})
    predicted = means.predict(Readings(np.array([["absent", "present"], ["unsure", "n/a"]])))
    np.testing.assert_array_equal(predicted, [[1.5, 3.0], [np.nan, np.nan]])
    with pytest.raises(CohortError):
        ReadingMeans.fit(training, [[3.0, np.nan], [2.0, 1.0]])
