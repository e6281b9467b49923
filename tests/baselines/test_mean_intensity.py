"""Mean nigral intensity on painted patches; its straight line against scipy."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import linregress

from nigradat.anatomy import PATCH_SHAPE, to_canonical
from nigradat.baselines import RidgeBaseline, fit_line, nigral_intensity
from nigradat.baselines.features import ellipsoid
from nigradat.baselines.intensity import NIGRA_AXES, NIGRA_REGION
from nigradat.errors import CohortError, ImageError


def noise(*leading, seed=0):
    return np.random.default_rng(seed).uniform(0.5, 1.5, (*leading, *PATCH_SHAPE)).astype(np.float32)


def test_an_ellipsoid_has_its_volume_centre_and_axes():
    np.testing.assert_allclose(NIGRA_AXES @ NIGRA_AXES.T, np.eye(3), atol=1e-12)
    inside = ellipsoid((2.0, -1.5, 1.0), (4.0, 3.0, 5.0), NIGRA_AXES)
    assert np.count_nonzero(inside) * 0.25 == pytest.approx(4 / 3 * np.pi * 4 * 3 * 5, rel=0.02)
    centre_mm = (np.argwhere(inside).mean(axis=0) - [24.5, 24.5, 9.5]) * [0.5, 0.5, 1.0]
    np.testing.assert_allclose(centre_mm, [2.0, -1.5, 1.0], atol=0.05)


def test_the_slab_lies_as_it_was_measured():
    along, down, across = NIGRA_AXES
    assert along[1] > 0 > along[0]  # the lateral end is the posterior one
    assert down[2] > 0 > down[0]  # further down lies further back
    assert across[0] > 0


def test_a_painted_nigra_has_its_mean():
    patch = np.full(PATCH_SHAPE, 2.0, dtype=np.float32)
    patch[NIGRA_REGION] = 0.8
    assert nigral_intensity(patch)[0] == pytest.approx(0.8 / patch.mean(), rel=1e-6)


def test_gain_does_not_matter():
    np.testing.assert_allclose(nigral_intensity(noise(3) * 77.0), nigral_intensity(noise(3)), rtol=1e-5)


def test_a_callers_mask_counts_in_any_view():
    patches, masks = noise(4, 2), noise(4, 2, seed=1) > 1.3
    expected = [
        [p[m].mean() / p.mean() for p, m in zip(*pair, strict=True)] for pair in zip(patches, masks, strict=True)
    ]
    np.testing.assert_allclose(nigral_intensity(patches, masks)[..., 0], expected, rtol=1e-5)
    seen = nigral_intensity(np.asarray(to_canonical(patches)), to_canonical(masks))
    np.testing.assert_allclose(seen[..., 0], expected, rtol=1e-5)


def test_the_fixed_region_as_a_mask_is_the_default():
    masks = np.broadcast_to(NIGRA_REGION, (3, *PATCH_SHAPE))
    np.testing.assert_array_equal(nigral_intensity(noise(3), masks), nigral_intensity(noise(3)))


@pytest.mark.parametrize(
    ("patches", "masks"),
    [
        (np.zeros(PATCH_SHAPE), None),
        (np.ones((50, 50, 19)), None),
        (np.ones(PATCH_SHAPE), np.zeros(PATCH_SHAPE)),
        (np.ones((2, *PATCH_SHAPE)), np.ones(PATCH_SHAPE)),
    ],
    ids=["dark", "shape", "empty mask", "one mask"],
)
def test_unusable_patches_and_masks_are_refused(patches, masks):
    with pytest.raises(ImageError):
        nigral_intensity(patches, masks)


@given(st.integers(0, 10_000), st.integers(3, 40), st.floats(-5, 5))
def test_the_line_is_that_of_scipy(seed, n, slope):
    rng = np.random.default_rng(seed)
    x = rng.normal(0.4, 0.1, (n, 2, 1))
    y = 2 + slope * x[..., 0] + rng.normal(0, 0.5, (n, 2))
    line, reference = fit_line(x, y), linregress(x.ravel(), y.ravel())
    np.testing.assert_allclose(line.predict(x).ravel(), reference.intercept + reference.slope * x.ravel(), atol=1e-8)
    assert line.alpha == 0


def test_its_error_is_that_of_refitting_without_each_patient():
    rng = np.random.default_rng(3)
    x, y = rng.normal(size=(12, 2, 1)), rng.normal(2, 1, (12, 2))
    squares = []
    for out in range(12):
        rest = np.arange(12) != out
        fitted = linregress(x[rest].ravel(), y[rest].ravel())
        squares.append((fitted.intercept + fitted.slope * x[out, :, 0] - y[out]) ** 2)
    assert fit_line(x, y).loo_rmse == pytest.approx(np.sqrt(np.mean(squares)))


def test_an_intensity_that_never_varies_predicts_the_mean():
    y = np.arange(10.0).reshape(5, 2)
    line = fit_line(np.full((5, 2, 1), 0.1), y)
    np.testing.assert_allclose(line.predict([[0.1], [0.7]]), 4.5)


def test_unpenalised_twin_features_share_their_weight():
    x = np.repeat(np.random.default_rng(1).normal(size=(20, 2, 1)), 2, axis=-1)
    fitted = RidgeBaseline.fit(x, 1 + 4 * x[..., 0], ("a", "b"), alphas=(0.0,))
    np.testing.assert_allclose(np.array(fitted.coefficients) / fitted.sd, [2, 2])


def test_json_gives_the_same_line_back():
    line = fit_line(np.random.default_rng(0).normal(size=(9, 2, 1)), np.random.default_rng(1).normal(size=(9, 2)))
    assert dataclasses.asdict(RidgeBaseline.from_json(line.to_json())) == dataclasses.asdict(line)


def test_too_few_or_missing_labels_are_refused():
    with pytest.raises(CohortError):
        fit_line(np.ones((2, 2, 1)), np.ones((2, 2)))
    with pytest.raises(CohortError):
        fit_line(np.ones((4, 2, 1)), np.full((4, 2), np.nan))
