"""SHAP maps: they add up, sit where the image differs, on the right side, and leave nothing on the model."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torch import nn

from nigradat.anatomy import PATCH_SHAPE, Side, mirror_pair
from nigradat.errors import ConfigError, ImageError
from nigradat.explain.shap import METHODS, _MaxPool, _rescaled, shap_attributions
from nigradat.models.symmetric import ModelSpec, build
from nigradat.models.weights import LoadedModel
from nigradat.pair import NigralPair
from nigradat.uncertainty.mc_dropout import predict_sbr

EXACT = {
    "vgg": {},
    "vgg16": {"tower": "vgg16"},
    "resnet18": {"tower": "resnet18"},
    "log-normal": {"output": "log-normal"},
    "one side": {"sharing": "left"},
}


def make(double: bool = True, **changes) -> LoadedModel:
    model = build(ModelSpec(**({"widths": (2, 3, 4, 5), "head_dropout": 0.3} | changes)), seed=5).eval()
    return LoadedModel(model.double() if double else model, {}, Path("model"))


@pytest.fixture(scope="module")
def background() -> np.ndarray:
    return np.random.default_rng(1).uniform(0.5, 1.5, (3, 2, *PATCH_SHAPE)).astype(np.float32)


@pytest.mark.parametrize("name", EXACT)
def test_a_deepshap_map_adds_up_exactly(name, random_pair, background):
    if name == "resnet18":
        pytest.importorskip("monai")
    loaded = make(**EXACT[name])
    maps = shap_attributions(loaded, random_pair, background, method="deepshap", chunk=2)
    assert [m.side for m in maps] == list(loaded.model.sides)
    for m in maps:
        assert m.values.shape == PATCH_SHAPE
        assert np.array_equal(m.affine, random_pair.affines[m.side.index])
        assert np.abs(m.values).sum() > 0
        assert abs(m.residual) < 1e-11


def test_prediction_and_baseline_are_those_of_the_model(random_pair, background):
    loaded = make(double=False)
    sbr, others = predict_sbr(loaded.model, random_pair.patches[None])[0], predict_sbr(loaded.model, background)
    for method in METHODS:
        for m in shap_attributions(loaded, random_pair, background, method=method, draws=3):
            assert m.prediction == pytest.approx(sbr[m.side.index], abs=1e-5)
            assert m.baseline == pytest.approx(others[:, m.side.index].mean(), abs=1e-5)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "changes", [{}, {"mirrored": False}, {"sharing": "separate"}], ids=["shared", "unmirrored", "separate"]
)
def test_only_what_differs_from_the_background_is_in_the_map(method, changes):
    """Two voxels exchange a little, so that the patch's mean stays: all else in the native map is zero."""
    rng = np.random.default_rng(3)
    patches = rng.uniform(0.5, 1.5, (2, *PATCH_SHAPE)).astype(np.float32)
    other = patches.copy()
    places = {Side.RIGHT: ((11, 9, 4), (12, 11, 6)), Side.LEFT: ((30, 40, 12), (33, 38, 14))}
    for side, (up, down) in places.items():
        other[side.index][up] += 0.25
        other[side.index][down] -= 0.25
    pair = NigralPair.from_arrays(*patches)
    loaded = make(double=method == "deepshap", **changes)
    for m in shap_attributions(loaded, pair, other[None], method=method, draws=3):
        found = {tuple(map(int, place)) for place in np.argwhere(np.abs(m.values) > 1e-4 * np.abs(m.values).max())}
        assert found
        assert found <= set(places[m.side])


def test_where_the_net_is_linear_both_methods_are_the_gradient():
    rng = np.random.default_rng(7)
    patches = rng.uniform(0.5, 1.5, (2, *PATCH_SHAPE))
    near = patches + 1e-5 * rng.normal(size=(2, 2, *PATCH_SHAPE))
    loaded, pair = make(), NigralPair.from_arrays(*patches)
    net = loaded.model.net(Side.LEFT)
    with torch.no_grad():
        x, refs = (
            net.preprocess(torch.from_numpy(p.astype(np.float32)).double()[:, None]) for p in (patches[1:], near[:, 1])
        )
    point = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(net.head(net.tower(point)).sum(), point)
    truth = 6.84 * (gradient * (x - refs)).mean(dim=0)[0].numpy()
    for method in METHODS:
        _, left = shap_attributions(loaded, pair, near.astype(np.float32), method=method, draws=2)
        assert np.abs(left.values - truth).max() < 0.02 * np.abs(truth).max()
        assert np.corrcoef(left.values.ravel(), truth.ravel())[0, 1] > 0.9999


@pytest.mark.parametrize("method", METHODS)
def test_a_mirrored_patient_has_mirrored_maps(method, random_pair, background):
    loaded = make()
    turned = NigralPair.from_arrays(*mirror_pair(random_pair.patches))
    right, left = shap_attributions(loaded, random_pair, background, method=method, draws=2)
    other_right, other_left = shap_attributions(loaded, turned, mirror_pair(background), method=method, draws=2)
    np.testing.assert_allclose(other_left.values, np.flip(right.values, axis=1), atol=1e-12)
    np.testing.assert_allclose(other_right.values, np.flip(left.values, axis=1), atol=1e-12)


@pytest.mark.parametrize("method", METHODS)
def test_the_other_side_and_the_chunks_change_nothing(method, random_pair, background):
    loaded = make()
    noise = np.random.default_rng(9).uniform(1, 2, PATCH_SHAPE)
    other = NigralPair.from_arrays(random_pair.patch(Side.RIGHT), noise)
    right, left = shap_attributions(loaded, random_pair, background, method=method, draws=3, chunk=8)
    same, changed = shap_attributions(loaded, other, background, method=method, draws=3, chunk=2)
    np.testing.assert_allclose(same.values, right.values, atol=1e-13)
    assert np.abs(changed.values - left.values).max() > 1e-3


@pytest.mark.parametrize("tower", ["mobilenetv3", "vit"])
def test_expected_gradients_add_up_in_every_tower(tower, random_pair):
    """A background so near that the gradient hardly turns on the way: the sum is right after two draws."""
    near = random_pair.patches[None] * np.random.default_rng(2).normal(1, 1e-3, (1, 2, *PATCH_SHAPE))
    loaded = make(tower=tower, widths=(4, 4, 8, 8))
    maps = shap_attributions(loaded, random_pair, near.astype(np.float32), method="expected-gradients", draws=2)
    for m in maps:
        assert abs(m.residual) < 0.02 * abs(m.prediction - m.baseline)


@pytest.mark.slow
def test_the_residual_of_expected_gradients_shrinks_with_the_draws(random_pair, background):
    loaded, near = make(double=False), 0.9 * random_pair.patches + 0.1 * background
    few, many = (
        np.mean(
            [
                abs(m.residual)
                for seed in range(4)
                for m in shap_attributions(
                    loaded, random_pair, near, method="expected-gradients", seed=seed, draws=draws
                )
            ]
        )
        for draws in (2, 50)
    )
    assert many < 0.5 * few


def test_the_seed_decides_the_draws(random_pair, background):
    loaded = make(double=False, sharing="left")
    first, again, other = (
        shap_attributions(loaded, random_pair, background, method="expected-gradients", draws=2, seed=seed)[0].values
        for seed in (1, 1, 2)
    )
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_a_background_of_the_patient_alone_gives_an_empty_map(random_pair):
    for method in METHODS:
        for m in shap_attributions(make(), random_pair, random_pair.patches[None], method=method, draws=2):
            assert not m.values.any()
            assert abs(m.residual) < 1e-14


# -- Rules --------------------------------------------------------------------------------------------------------


def multipliers(function, patch, reference) -> np.ndarray:
    """Of each number of ``reference`` for the sum of what ``function`` makes of it."""
    x = torch.tensor(np.stack([patch, reference])[:, None], dtype=torch.float64, requires_grad=True)
    (found,) = torch.autograd.grad(function(x)[1:].sum(), x)
    assert not found[0].any()
    return found[1, 0].numpy()


def test_the_rescale_rule_by_hand():
    # relu(3) - relu(-1) = 3 over a difference of 4; both above 0: 1; both below: 0; no difference: the slope
    found = multipliers(lambda x: _rescaled(x, torch.relu), [3.0, 2.0, -1.0, 5.0], [-1.0, 1.0, -2.0, 5.0])
    assert found.tolist() == [0.75, 1.0, 0.0, 1.0]


def test_the_rule_of_max_pooling_by_hand():
    """Windows of two: a maximum that rose at the patch's own largest, one that fell at the reference's, one alike."""

    def pool(x):
        return _MaxPool.apply(x, nn.MaxPool3d((1, 1, 2)))

    patch = [[[5.0, 1.0, 2.0, 1.0, 4.0, 0.0]]]
    reference = [[[2.0, 3.0, 0.0, 6.0, 4.0, 1.0]]]
    # 5 - 3 = 2 at the first (difference 3); 2 - 6 = -4 at the fourth (difference -5); nothing at the last two
    assert multipliers(pool, patch, reference)[0, 0].tolist() == pytest.approx([2 / 3, 0, 0, 4 / 5, 0, 0])


@given(
    hnp.arrays(np.float64, (2, 5, 6, 4), elements=st.floats(-3, 3, width=16)),
    st.sampled_from([nn.MaxPool3d(2), nn.MaxPool3d(3, 2, 1), nn.MaxPool3d((2, 2, 1)), nn.MaxPool3d(2, 1)]),
)
def test_max_pooling_adds_up_with_ties_and_overlaps(volumes, layer):
    patch, reference = volumes
    found = multipliers(lambda x: _MaxPool.apply(x, layer), patch, reference)
    pooled = [float(layer(torch.from_numpy(v)[None, None]).sum()) for v in volumes]
    assert float((found * (patch - reference)).sum()) == pytest.approx(pooled[0] - pooled[1], abs=1e-9)


# -- The model stays as it is -------------------------------------------------------------------------------------


def state(model) -> list[object]:
    return [(m.training, len(m._forward_hooks), len(m._backward_hooks), sorted(vars(m))) for m in model.modules()] + [
        p.grad for p in model.parameters()
    ]


@pytest.mark.parametrize("method", METHODS)
def test_nothing_is_left_on_the_model(method, random_pair, background):
    loaded = make(tower="mobilenetv3", widths=(4, 4, 8, 8))
    loaded.model.train()
    loaded.model.nets["both"].dropout.eval()
    before, weights = state(loaded.model), {k: v.clone() for k, v in loaded.model.state_dict().items()}
    if method == "deepshap":
        with pytest.raises(ConfigError):
            shap_attributions(loaded, random_pair, background, method=method)
    else:
        shap_attributions(loaded, random_pair, background, method=method, draws=2)
    assert state(loaded.model) == before
    assert all(torch.equal(v, weights[k]) for k, v in loaded.model.state_dict().items())


def test_dropout_is_off_and_stays_as_it_was(random_pair, background):
    loaded, background = make(block_dropout=0.5, sharing="left"), background[:1]
    plain = shap_attributions(loaded, random_pair, background, method="deepshap")[0].values
    loaded.model.train()
    assert np.array_equal(shap_attributions(loaded, random_pair, background, method="deepshap")[0].values, plain)
    assert loaded.model.training


# -- What is refused ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tower", "layer"),
    [("mobilenetv3", r"Hardswish \(tower.layers.0.2\)"), ("vit", r"LayerNorm \(tower.blocks.0.norm1\)")],
)
def test_a_layer_without_a_rule_is_named(tower, layer, random_pair, background):
    with pytest.raises(ConfigError, match=f"{layer}.*expected-gradients"):
        shap_attributions(make(tower=tower), random_pair, background, method="deepshap")


def test_impossible_wishes_are_refused(random_pair, background):
    def ask(pairs=background, method="expected-gradients", **more):
        shap_attributions(make(), random_pair, pairs, method=method, **more)

    with pytest.raises(ConfigError, match=r"'kernelshap'.*deepshap or expected-gradients"):
        ask(method="kernelshap")
    for wrong in (background[:0], background[0], background[:, :1]):
        with pytest.raises(ConfigError, match="background of shape"):
            ask(wrong)
    with pytest.raises(ConfigError, match="chunk = 0"):
        ask(chunk=0)
    with pytest.raises(ConfigError, match="draws = 0"):
        ask(draws=0)
    with pytest.raises(ImageError, match="left patch of background pair 2"):
        ask(np.concatenate([background[:2], np.stack([background[2:3, 0], 0 * background[2:3, 0]], axis=1)]))


# -- Memory -------------------------------------------------------------------------------------------------------

PEAK = """
import json, resource, sys
from pathlib import Path
import numpy as np
from nigradat.explain.shap import shap_attributions
from nigradat.models.symmetric import ModelSpec, build
from nigradat.models.weights import LoadedModel
from nigradat.pair import NigralPair
widths, method, times, others = json.loads(sys.argv[1])
rng = np.random.default_rng(0)
loaded = LoadedModel(build(ModelSpec(widths=tuple(widths))), {}, Path("model"))
pair = NigralPair.from_arrays(*rng.uniform(0.5, 1.5, (2, 50, 50, 20)))
background = rng.uniform(0.5, 1.5, (others, 2, 50, 50, 20)).astype(np.float32)
maps = [m for seed in range(times) for m in shap_attributions(loaded, pair, background, method=method, seed=seed)]
print(json.dumps([len(maps), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024]))
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("widths", "method", "times", "others", "maps"),
    [
        ((16, 32, 64, 128), "deepshap", 50, 8, 100),
        ((16, 32, 64, 128), "deepshap", 1, 100, 2),
        ((16, 32, 64, 128), "expected-gradients", 1, 100, 2),
        ((64, 128, 256, 512), "deepshap", 1, 8, 2),
    ],
)
@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in kilobytes on Linux alone")
def test_a_hundred_maps_of_a_pair_fit_into_two_gigabytes(widths, method, times, others, maps):
    asked = json.dumps([widths, method, times, others])
    done = subprocess.run([sys.executable, "-c", PEAK, asked], capture_output=True, text=True, check=True)
    made, megabytes = json.loads(done.stdout)
    assert made == maps
    assert megabytes < 2048
