"""Hand-made features on painted patches; ridge against scikit-learn and against refitting."""

import dataclasses
import json

import numpy as np
import pytest
from sklearn.linear_model import Ridge

from nigradat.anatomy import PATCH_SHAPE, to_canonical
from nigradat.baselines import FEATURE_NAMES, RidgeBaseline, hand_made_features
from nigradat.errors import CohortError, ImageError, WeightsError
from nigradat.phantom import render_patient, sample_latents


def painted(n1=1.0, nigra=1.0, background=1.0, red_nucleus=1.0):
    """The canonical view: medial (the red nucleus) at low indices of axis 1, superior at low ones of axis 2."""
    patch = np.full(PATCH_SHAPE, background, dtype=np.float32)
    patch[19:33, 8:18, 3:9] = red_nucleus
    patch[20:42, 18:36, 3:12] = nigra
    patch[21:29, 21:29, 8:12] = n1
    return patch


def by_name(patch):
    return dict(zip(FEATURE_NAMES, hand_made_features(patch), strict=True))


def test_a_uniform_patch_has_known_features():
    assert by_name(painted(7.0, 7.0, 7.0, 7.0)) == pytest.approx(
        {
            "n1_site_mean": 1.0,
            "n1_site_p25": 1.0,
            "nigra_dark_mean": 1.0,
            "red_nucleus_median": 1.0,
            "dark_volume_mm3": 0.0,
            "patch_p10": 1.0,
        }
    )


def test_features_answer_to_what_they_are_named_after():
    healthy, lost = by_name(painted(n1=0.8, nigra=0.4)), by_name(painted(n1=0.4, nigra=0.4))
    assert healthy["n1_site_mean"] > 1.8 * lost["n1_site_mean"]
    assert lost["dark_volume_mm3"] == pytest.approx(22 * 18 * 9 * 0.25)  # voxels of .25 mm3
    assert lost["dark_volume_mm3"] - healthy["dark_volume_mm3"] == pytest.approx(8 * 8 * 4 * 0.25)
    darker = by_name(painted(n1=0.4, nigra=0.3))
    assert darker["nigra_dark_mean"] < lost["nigra_dark_mean"]
    ironed = by_name(painted(n1=0.8, nigra=0.4, red_nucleus=0.3))
    assert ironed["red_nucleus_median"] < 0.4 * healthy["red_nucleus_median"]
    # the other side's view has no red nucleus there
    assert by_name(painted(n1=0.8, red_nucleus=0.3)[:, ::-1])["red_nucleus_median"] > 1


def test_gain_does_not_matter_and_the_input_is_left_alone():
    patch = np.random.default_rng(0).uniform(0.2, 1.8, PATCH_SHAPE).astype(np.float32)
    kept = patch.copy()
    np.testing.assert_allclose(hand_made_features(patch * 321.0), hand_made_features(patch), rtol=1e-5)
    np.testing.assert_array_equal(patch, kept)


def test_mirrored_sides_have_equal_features():
    left = np.random.default_rng(1).uniform(0.2, 1.8, PATCH_SHAPE).astype(np.float32)
    pair = np.stack([left[:, ::-1], left])  # a perfectly symmetric patient
    features = hand_made_features(to_canonical(pair[None]))
    assert features.shape == (1, 2, 6)
    np.testing.assert_array_equal(features[0, 0], features[0, 1])


def test_a_memory_mapped_cohort_gives_the_same(tmp_path):
    patches = np.random.default_rng(2).uniform(0.2, 1.8, (3, 2, *PATCH_SHAPE)).astype(np.float32)
    np.save(tmp_path / "patches.npy", patches)
    mapped = np.load(tmp_path / "patches.npy", mmap_mode="r")
    np.testing.assert_array_equal(hand_made_features(mapped), hand_made_features(patches))


@pytest.mark.parametrize("patch", [np.ones((50, 50, 19)), np.zeros(PATCH_SHAPE), np.full(PATCH_SHAPE, np.nan)])
def test_unusable_patches_are_refused(patch):
    with pytest.raises(ImageError):
        hand_made_features(patch)


@pytest.fixture
def training():
    rng = np.random.default_rng(3)
    features = rng.normal(size=(40, 2, 6)) * [1, 2, 3, 4, 5, 6] + rng.normal(size=(40, 1, 6))
    sbr = 2 + features @ [0.5, -0.2, 0, 0, 0.1, 0] + rng.normal(0, 0.7, (40, 1)) + rng.normal(0, 0.3, (40, 2))
    return features, sbr


def test_ridge_equals_sklearn(training):
    features, sbr = training
    model = RidgeBaseline.fit(features, sbr)
    flat = (features.reshape(-1, 6) - np.array(model.mean)) / np.array(model.sd)
    reference = Ridge(alpha=model.alpha).fit(flat, sbr.ravel())
    np.testing.assert_allclose(model.coefficients, reference.coef_, rtol=1e-9)
    np.testing.assert_allclose(model.predict(features).ravel(), reference.predict(flat), rtol=1e-9)


def test_penalty_is_the_best_by_refitting_without_each_patient(training):
    features, sbr = training
    alphas = (0.1, 10.0, 1000.0)
    model = RidgeBaseline.fit(features, sbr, alphas=alphas)
    standard = (features - np.array(model.mean)) / np.array(model.sd)

    def refitted(alpha):
        squares = []
        for out in range(len(sbr)):
            rest = np.arange(len(sbr)) != out
            other = Ridge(alpha=alpha).fit(standard[rest].reshape(-1, 6), sbr[rest].ravel())
            squares.append((other.predict(standard[out]) - sbr[out]) ** 2)
        return np.sqrt(np.mean(squares))

    errors = [refitted(alpha) for alpha in alphas]
    assert model.alpha == alphas[int(np.argmin(errors))]
    assert model.loo_rmse == pytest.approx(min(errors))


def test_noise_is_shrunk_and_signal_is_not():
    rng = np.random.default_rng(4)
    features = rng.normal(size=(60, 2, 6))
    noise = RidgeBaseline.fit(features, rng.normal(2, 1, (60, 2)))
    signal = RidgeBaseline.fit(features, 2 + features[..., 0])
    assert noise.alpha > 10 * signal.alpha
    assert np.abs(noise.coefficients).max() < 0.2
    assert signal.coefficients[0] == pytest.approx(signal.sd[0], rel=1e-3)


def test_a_feature_that_never_varies_does_no_harm(training):
    features, sbr = training
    features[..., 2] = 0.1
    model = RidgeBaseline.fit(features, sbr)
    assert np.isfinite(model.predict(features)).all()
    assert model.coefficients[2] == pytest.approx(0.0, abs=1e-9)


def test_one_side_alone_can_be_fitted(training):
    features, sbr = training
    model = RidgeBaseline.fit(features[:, 1], sbr[:, 1])
    assert (model.n_patients, model.predict(features).shape) == (40, (40, 2))


def test_json_gives_the_same_model_back(training):
    model = RidgeBaseline.fit(*training)
    again = RidgeBaseline.from_json(model.to_json())
    assert again == model
    assert dataclasses.asdict(again).keys() == json.loads(model.to_json()).keys()


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[:-20],
        lambda text: "[1, 2]",
        lambda text: text.replace('"alpha"', '"alfa"'),
        lambda text: text.replace('"patch_p10"', '"patch_p10", "one_more"'),
        lambda text: json.dumps(json.loads(text) | {"intercept": "NaN"}),
        lambda text: json.dumps(json.loads(text) | {"sd": [0.0] * 6}),
        lambda text: json.dumps(json.loads(text) | {"mean": [1.0]}),
        lambda text: json.dumps(json.loads(text) | {"names": None}),
    ],
)
def test_damaged_json_is_refused(training, damage):
    with pytest.raises(WeightsError):
        RidgeBaseline.from_json(damage(RidgeBaseline.fit(*training).to_json()))


@pytest.mark.parametrize(
    ("features", "sbr"),
    [
        (np.ones((4, 2, 6)), np.ones((4,))),
        (np.ones((4, 2, 5)), np.ones((4, 2))),
        (np.full((4, 2, 6), np.nan), np.ones((4, 2))),
        (np.ones((2, 2, 6)), np.ones((2, 2))),
    ],
    ids=["labels", "names", "nan", "few"],
)
def test_unusable_training_data_are_refused(features, sbr):
    with pytest.raises(CohortError):
        RidgeBaseline.fit(features, sbr)


def test_prediction_wants_all_features(training):
    with pytest.raises(CohortError):
        RidgeBaseline.fit(*training).predict(np.ones((3, 5)))


@pytest.mark.slow
def test_phantom_patches_tell_their_uptake():
    # preset easy: the ceiling's RMSE is about .45 of the labels' SD; the mean alone is at 1
    latents = sample_latents(40, "easy", seed=4242)
    pairs = [render_patient(4242, i, latents.age[i], latents.d[i]).patches for i in range(40)]
    model = RidgeBaseline.fit(hand_made_features(to_canonical(np.stack(pairs))), latents.sbr)
    assert model.loo_rmse < 0.8 * latents.sbr.std()
