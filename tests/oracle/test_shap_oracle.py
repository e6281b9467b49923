"""Our DeepSHAP against the package shap, whose DeepExplainer is exact through max pooling (captum's is not)."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from nigradat.anatomy import PATCH_SHAPE, Side, to_canonical
from nigradat.explain.shap import shap_attributions
from nigradat.models.symmetric import ModelSpec, SideRegressor, build
from nigradat.models.weights import LoadedModel
from nigradat.pair import NigralPair

pytestmark = pytest.mark.oracle


def plain_network(net: SideRegressor) -> nn.Module:
    """The same layers in a row, each with a ReLU of its own that writes to a place of its own, as shap needs them."""
    layers = [
        m for m in net.tower.modules() if isinstance(m, nn.Conv3d | nn.ReLU | nn.MaxPool3d | nn.Flatten | nn.Linear)
    ]
    fresh = [nn.ReLU() if isinstance(layer, nn.ReLU) else layer for layer in layers]
    return nn.Sequential(*fresh, net.head)


@pytest.mark.parametrize("tower", ["vgg", "vgg16"])
def test_deepshap_equals_shap(tower):
    shap = import_module("shap")
    rng = np.random.default_rng(12)
    # images of a few intensities tie in the poolings, as the constant margin of a real patch does
    patches = (rng.integers(4, 13, (4, 2, *PATCH_SHAPE)) / 8 + rng.normal(0, 1e-2, (4, 2, *PATCH_SHAPE))).astype(
        np.float32
    )
    patches[:, :, :, :5] = 1.0
    model = build(ModelSpec(widths=(2, 3, 4, 5), tower=tower), seed=4).double().eval()
    pair, background = NigralPair.from_arrays(*patches[0]), patches[1:]
    maps = shap_attributions(LoadedModel(model, {}, Path("model")), pair, background, method="deepshap", chunk=2)

    net, scale = model.net(Side.RIGHT), model.spec.sbr_max
    seen = torch.from_numpy(to_canonical(patches)).double().unsqueeze(2)
    for ours in maps:
        with torch.no_grad():
            x = net.preprocess(seen[:, ours.side.index])
        theirs = shap.DeepExplainer(plain_network(net), x[1:]).shap_values(x[:1])[0, 0, ..., 0] * scale
        native = np.flip(theirs, axis=1) if ours.side is Side.RIGHT else theirs
        assert np.abs(ours.values).max() > 1e-4
        np.testing.assert_allclose(ours.values, native, rtol=0, atol=1e-9)
