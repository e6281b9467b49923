"""Distances in feature space against an explicit covariance and a search by brute force."""

from __future__ import annotations

import numpy as np
import pytest

from nigradat.errors import CalibrationError
from nigradat.models.symmetric import ModelSpec, build
from nigradat.quality.features import DIRECTIONS, NEIGHBOURS, FeatureSpace, tower_features


def draws(n: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, 60)) * np.linspace(3, 0.2, 60) + rng.uniform(-1, 1, 60)


def test_mahalanobis_is_that_of_the_shrunk_covariance():
    x = draws(200, 1)
    space, new = FeatureSpace.fit(x), draws(9, 2)
    values, vectors = np.linalg.eigh(np.cov(x.T))
    values, vectors = values[::-1], vectors[:, ::-1]
    shrunk = values.copy()
    shrunk[DIRECTIONS:] = values[DIRECTIONS:].mean()
    covariance = vectors @ np.diag(shrunk) @ vectors.T
    off = new - x.mean(axis=0)
    expected = np.sqrt(np.einsum("ni,ij,nj->n", off, np.linalg.inv(covariance), off) / 60)
    assert space.distances(new)[:, 0] == pytest.approx(expected, rel=1e-4)


def test_neighbours_are_the_nearest():
    neighbors = pytest.importorskip("sklearn.neighbors")
    x, new = draws(80, 3), draws(7, 4)
    space = FeatureSpace.fit(x)
    white_bank, white = ((y - x.mean(axis=0)) @ space.axes.T.astype(float) for y in (x, new))
    found, _ = neighbors.NearestNeighbors(n_neighbors=NEIGHBOURS).fit(white_bank).kneighbors(white)
    assert space.distances(new)[:, 1] == pytest.approx(found.mean(axis=1) / np.sqrt(len(space.axes)), rel=1e-4)


def test_few_patches_keep_few_directions():
    assert len(FeatureSpace.fit(draws(16, 5)).axes) == 4
    assert len(FeatureSpace.fit(draws(500, 5)).axes) == DIRECTIONS


def test_features_that_cannot_be_used_are_refused():
    with pytest.raises(CalibrationError, match="at least 6 patches"):
        FeatureSpace.fit(draws(5, 0))
    with pytest.raises(CalibrationError, match="60 values of them no number"):
        FeatureSpace.fit(np.concatenate([draws(9, 0), np.full((1, 60), np.nan)]))
    with pytest.raises(CalibrationError, match="same for every patch"):
        FeatureSpace.fit(np.ones((10, 60)))


@pytest.mark.parametrize("sharing", ["shared", "separate", "left"])
def test_the_features_are_the_towers(sharing):
    import torch

    model = build(ModelSpec(widths=(2, 2, 2, 4), sharing=sharing), seed=1).eval()
    patches = np.random.default_rng(0).uniform(0.5, 1.5, (3, 2, 50, 50, 20)).astype(np.float32)
    found = tower_features(model, patches)
    net = model.nets["both" if sharing == "shared" else "left"]
    with torch.inference_mode():
        left = net.features(torch.from_numpy(patches[:, 1]).unsqueeze(1)).numpy()
    assert found[:, 1] == pytest.approx(left, abs=1e-6)
    assert np.isnan(found[:, 0]).all() == (sharing == "left")
