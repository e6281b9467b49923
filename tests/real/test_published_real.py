"""The authors' published net on the published patch pair, against what TensorFlow computes with it."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from torch.nn import functional

from nigradat.anatomy import PATCH_SHAPE, Side, to_canonical
from nigradat.io.files import sha256_of
from nigradat.io.mat import read_mat_pair
from nigradat.models.published import import_published, read_saved_model
from nigradat.models.weights import load_model


@pytest.fixture(scope="module")
def published(shared_data):
    return shared_data / "published"


@pytest.fixture(scope="module")
def expected(published):
    return json.loads((published / "expected_net_vgg_left.json").read_text())


@pytest.fixture(scope="module")
def net(published):
    return read_saved_model(published / "net_vgg_left")


@pytest.fixture(scope="module")
def pair(published):
    return read_mat_pair(published / "nigral_patch_example.mat")


def layers_of(net, patch):
    """Output of every layer by name, with torch's functions alone."""
    x = torch.from_numpy(np.array(patch, np.float32))[None, None]
    for i, (weight, bias) in enumerate(net.convolutions):
        x = functional.relu(functional.conv3d(x, torch.from_numpy(weight), torch.from_numpy(bias), padding=1))
        yield "conv3d" + (f"_{i}" if i else ""), x
        if i % 2:
            x = functional.max_pool3d(x, 2)
            yield "max_pooling3d" + (f"_{i // 2}" if i // 2 else ""), x
    x = x.flatten(1)
    yield "flatten", x
    yield "dense", functional.linear(x, torch.from_numpy(net.head_weight), torch.from_numpy(net.head_bias))


def raw(net, patch):
    return float(dict(layers_of(net, patch))["dense"])


def test_the_pair_is_the_one_that_tensorflow_saw(published, expected, pair):
    assert sha256_of(published / expected["input_file"]) == expected["input_sha256"]
    assert pair.affine_is_nominal
    np.testing.assert_allclose(pair.patches.mean(axis=(1, 2, 3)), 1, atol=1e-4)


def test_the_published_axes_are_those_of_the_patch_grid(pair):
    """A brain is nearly symmetric: flipped along the right-left axis alone, one side looks like the other."""
    right, left = pair.patches
    similarity = {axis: np.corrcoef(np.flip(right, axis).ravel(), left.ravel())[0, 1] for axis in range(3)}
    similarity[None] = np.corrcoef(right.ravel(), left.ravel())[0, 1]
    assert similarity[1] == pytest.approx(0.735, abs=5e-3)
    assert max(similarity, key=similarity.get) == 1


def test_the_weights_are_complete(net):
    assert net.side is Side.LEFT
    total = sum(v.size for v in net.tower_state().values()) + net.head_weight.size + net.head_bias.size
    assert total == 879_889


def test_every_layer_agrees_with_tensorflow(net, pair, expected):
    patch = pair.patch(Side.LEFT)
    layers = list(layers_of(net, patch / patch.mean()))
    assert [name for name, _ in layers] == [row["name"] for row in expected["net_vgg_left"]["layers_on_left_patch"]]
    for (name, values), row in zip(layers, expected["net_vgg_left"]["layers_on_left_patch"], strict=True):
        assert values.numel() == math.prod(row["shape"]), name
        found = [float(values.mean()), float(values.std(correction=0)), float(values.max())]
        np.testing.assert_allclose(found, [row["mean"], row["std"], row["max"]], atol=1e-4, err_msg=name)


def test_every_output_agrees_with_tensorflow(net, pair, expected):
    canonical = to_canonical(pair.patches[None])[0]
    inputs = {
        "left_patch": pair.patch(Side.LEFT),
        "right_patch_mirrored": canonical[0],
        "right_patch_not_mirrored": pair.patch(Side.RIGHT),
    }
    for name, patch in inputs.items():
        assert raw(net, patch / patch.mean()) == pytest.approx(expected["net_vgg_left"][name]["raw"], abs=1e-5), name
    for name, patch in (("all_ones", np.ones(PATCH_SHAPE)), ("all_zeros", np.zeros(PATCH_SHAPE))):
        assert raw(net, patch) == pytest.approx(expected["net_vgg_left"][name]["raw"], abs=1e-5), name


def predict_raw(folders, out, pair, side=None):
    model = load_model(import_published(folders, out, side)).model
    with torch.no_grad():
        return model(torch.from_numpy(to_canonical(pair.patches[None]))[:, :, None]).numpy()[0]


def test_the_imported_model_gives_tensorflows_sbr(published, tmp_path, pair, expected):
    before = pair.patches.copy()
    right, left = predict_raw([published / "net_vgg_left"], tmp_path / "model", pair)
    assert np.isnan(right)
    assert left == pytest.approx(expected["net_vgg_left"]["left_patch"]["raw"], abs=1e-5)
    assert left * expected["sbr_max"] == pytest.approx(1.0205, abs=5e-5)
    assert np.array_equal(pair.patches, before)


def test_a_right_net_sees_the_mirrored_right_patch(published, tmp_path, pair, expected):
    """The right net is not here; the left one in its place shows that side and mirroring are those of the release."""
    as_right = tmp_path / "net_vgg_right"
    as_right.symlink_to(published / "net_vgg_left", target_is_directory=True)
    mirrored = pytest.approx(expected["net_vgg_left"]["right_patch_mirrored"]["raw"], abs=1e-5)
    right, left = predict_raw([published / "net_vgg_left"], tmp_path / "right", pair, Side.RIGHT)
    assert right == mirrored
    assert np.isnan(left)
    right, left = predict_raw([published / "net_vgg_left", as_right], tmp_path / "both", pair)
    assert right == mirrored
    assert left == pytest.approx(expected["net_vgg_left"]["left_patch"]["raw"], abs=1e-5)
