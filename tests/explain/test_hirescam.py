"""HiResCAM against plain autograd, closed forms and the geometry of strides."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from nigradat.anatomy import PATCH_SHAPE, Side, mirror, mirror_pair, nominal_affine
from nigradat.cli import main
from nigradat.errors import ConfigError, OutputError
from nigradat.explain.attribution import Attribution, CellGrid
from nigradat.explain.figures import PLANES, attribution_figure, write_attributions
from nigradat.explain.hirescam import (
    BLOCKS,
    LayerMaps,
    attributions,
    captured,
    gradient_maps,
    hirescam,
    layer_grids,
    layer_in_words,
)
from nigradat.models.symmetric import ModelSpec, TowerName, build, build_tower
from nigradat.models.weights import LoadedModel, load_model, save_model
from nigradat.pair import NigralPair
from nigradat.uncertainty.mc_dropout import predict_sbr

WIDTHS = (4, 4, 6, 6)
COMPLETE = 1e-5  # SBR
TOWERS: tuple[TowerName, ...] = ("vgg", "vgg16", "resnet18", "mobilenetv3")


def model(seed: int = 1, **changes: object) -> LoadedModel:
    """Fresh weights with biases that are not zero, as after training."""
    network = build(ModelSpec(**{"widths": WIDTHS, **changes}), seed).eval()  # type: ignore[arg-type]
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in network.named_parameters():
        if name.endswith("bias"):
            parameter.data.uniform_(-0.2, 0.3, generator=generator)
    return LoadedModel(network, {}, Path("model"))


@pytest.fixture(scope="module")
def patches() -> np.ndarray:
    return np.random.default_rng(0).uniform(0.3, 1.7, (3, 2, *PATCH_SHAPE)).astype(np.float32)


@pytest.fixture
def pair(patches) -> NigralPair:
    return NigralPair.from_arrays(*patches[0], "sub-1")


def hooks(loaded: LoadedModel) -> int:
    return sum(len(module._forward_hooks) for module in loaded.model.modules())


# -- A tower that is called twice ---------------------------------------------------------------------------------


def test_each_call_of_a_shared_layer_is_kept_by_itself():
    """Left and right through one convolution: the map of each side is known in closed form."""
    torch.manual_seed(0)
    shared = nn.Conv3d(1, 3, 3, padding=1)
    heads = torch.randn(2, 3, 4, 4, 2)
    left, right = torch.randn(2, 1, 1, 4, 4, 2)
    with captured({"conv": shared}) as calls:
        activations = [functional.relu_(shared(x)) for x in (left, right)]  # in place: must not reach what is kept
        outputs = [(head * a).sum() for head, a in zip(heads, activations, strict=True)]
    assert len(calls["conv"]) == 2
    for x, head, kept, y in zip((left, right), heads, calls["conv"], outputs, strict=True):
        expected = shared(x).detach()
        assert torch.equal(kept.detach(), expected)
        (gradient,) = torch.autograd.grad(y, kept)
        found = (kept * gradient).sum(dim=1)
        assert torch.allclose(found, (head * expected.clamp(min=0)).sum(dim=1), atol=1e-6)
        assert found.sum().item() == pytest.approx(y.item(), abs=1e-5)
    assert not shared._forward_hooks


@pytest.mark.parametrize("sharing", ["shared", "separate"])
def test_a_side_is_explained_by_its_own_patch(sharing, patches):
    loaded = model(sharing=sharing)
    other = patches.copy()
    other[:, Side.RIGHT.index] = other[::-1, Side.RIGHT.index] * 2 + 1
    before, after = (attributions(loaded, x, ["last", "third", "voxels"]) for x in (patches, other))
    for name, maps in before.items():
        left, right = Side.LEFT.index, Side.RIGHT.index
        np.testing.assert_allclose(after[name].values[:, left], maps.values[:, left], rtol=0, atol=1e-6)
        assert np.abs(after[name].values[:, right] - maps.values[:, right]).max() > 1e-4


def test_nothing_stays_behind_after_a_fault(patches, monkeypatch):
    loaded = model(head_dropout=0.3)
    loaded.model.train()
    frozen = next(loaded.model.parameters())
    frozen.requires_grad_(False)

    def fault(*_: object) -> None:
        raise RuntimeError("fault inside the network")

    monkeypatch.setattr(loaded.model.nets["both"].head, "forward", fault)
    with pytest.raises(RuntimeError, match="fault inside"):
        attributions(loaded, patches)
    with pytest.raises(ZeroDivisionError), captured({"tower": loaded.model.nets["both"].tower}):
        raise ZeroDivisionError
    monkeypatch.undo()
    for _ in range(2):  # after the faults, and after a success
        assert hooks(loaded) == 0
        assert all(module.training for module in loaded.model.modules())
        assert [p for p in loaded.model.parameters() if not p.requires_grad] == [frozen]
        assert all(p.grad is None for p in loaded.model.parameters())
        attributions(loaded, patches)


# -- The numbers --------------------------------------------------------------------------------------------------


def by_hand(loaded: LoadedModel, patch: np.ndarray) -> np.ndarray:
    """The last block's map of a left patch, written out with torch's functions."""
    net = loaded.model.net(Side.LEFT)
    x = torch.from_numpy(patch.copy())[None, None]
    x = x / x.mean() - 1
    for i, block in enumerate(net.tower.blocks):
        x = functional.relu(functional.conv3d(x, block.conv1.weight, block.conv1.bias, padding=1))
        x = functional.relu(functional.conv3d(x, block.conv2.weight, block.conv2.bias, padding=1))
        if i < 3:
            x = functional.max_pool3d(x, 2)
    weight = net.head.weight.reshape(1, -1, 3, 3, 1)
    # each pooled value is one cell's: that cell takes the weight of it, the seven others nothing
    pooled, where = functional.max_pool3d(x, 2, return_indices=True)
    share = torch.zeros_like(x).flatten(2)
    share.scatter_(2, where.flatten(2), (pooled * weight).flatten(2))
    return share.reshape(x.shape).sum(dim=1)[0].detach().numpy() * loaded.spec.sbr_max


@pytest.mark.parametrize("sharing", ["shared", "separate", "left"])
def test_the_last_block_by_hand(sharing, patches):
    loaded = model(sharing=sharing)
    maps = attributions(loaded, patches, ["last"])["blocks.3.relu2"]
    for values, patch in zip(maps.values, patches, strict=True):
        np.testing.assert_allclose(values[1], by_hand(loaded, patch[1]), atol=COMPLETE)


@pytest.mark.parametrize("sharing", ["shared", "separate"])
def test_complete_where_all_that_follows_is_linear_or_pooling(sharing, patches):
    loaded = model(sharing=sharing, centred=False)
    for layer in ("last", "blocks.3.conv2", "blocks.3.pool", "blocks.3"):
        (maps,) = attributions(loaded, patches, [layer]).values()
        if layer != "blocks.3.conv2":  # a ReLU follows: complete, too, for it is linear through the origin
            assert (np.abs(maps.values) > 1e-3).any()
        assert np.abs(maps.residual).max() < COMPLETE
        head = loaded.model.net(Side.LEFT).head
        assert maps.baseline[1] == pytest.approx(head.bias.item() * 6.84, rel=1e-6)


def test_the_residual_of_an_earlier_block_is_what_the_biases_after_it_add(patches):
    """A network of ReLUs is piecewise linear: Y = sum A dY/dA + sum over later biases of b dY/db."""
    loaded = model()
    found = attributions(loaded, patches[:1], ["third", "voxels"])
    net = loaded.model.net(Side.LEFT)
    x = torch.from_numpy(patches[:1, 1].copy())[:, None]
    biases = {name: p for name, p in net.named_parameters() if name.endswith("bias") and name != "head.bias"}
    gradients = torch.autograd.grad(net(x)[0, 0] * 6.84, list(biases.values()))
    added = {name: float((b.detach() * g).sum()) for (name, b), g in zip(biases.items(), gradients, strict=True)}
    after_third = sum(value for name, value in added.items() if "blocks.3" in name)
    assert abs(after_third) > 1e-3
    assert found["blocks.2.relu2"].residual[0, 1] == pytest.approx(after_third, abs=COMPLETE)
    assert found["voxels"].residual[0, 1] == pytest.approx(sum(added.values()), abs=2 * COMPLETE)


@pytest.mark.parametrize("tower", TOWERS)
@pytest.mark.parametrize("output", ["sbr", "log-normal"])
def test_every_tower_says_its_prediction_and_what_is_left(tower, output, patches):
    loaded = model(tower=tower, output=output, widths=(8, 8, 8, 8))
    found = attributions(loaded, patches[:2])
    assert list(found) == [BLOCKS[tower]["last"], BLOCKS[tower]["third"]]
    for maps in found.values():
        np.testing.assert_allclose(maps.prediction, predict_sbr(loaded.model, patches[:2]), rtol=1e-5)
        np.testing.assert_allclose(maps.baseline + maps.values.sum(axis=(2, 3, 4)) + maps.residual, maps.prediction)
        assert maps.values.min() < 0 < maps.values.max()  # signed
    last = found[BLOCKS[tower]["last"]]
    complete = output == "sbr" and tower in ("vgg", "resnet18")  # a mean over voxels is linear; hidden layers are not
    assert (np.abs(last.residual).max() < COMPLETE) == complete


def test_many_pairs_are_as_one(patches):
    loaded = model()
    together, apart = (attributions(loaded, patches, chunk=chunk) for chunk in (3, 1))
    before = patches.copy()
    for name, maps in together.items():
        np.testing.assert_allclose(apart[name].values, maps.values, atol=1e-6)
    assert np.array_equal(patches, before)


def test_the_scale_of_a_patch_does_not_count(patches):
    loaded = model()
    for name, maps in attributions(loaded, patches * np.float32(40), ["last", "voxels"]).items():
        np.testing.assert_allclose(maps.values, attributions(loaded, patches, [name])[name].values, atol=1e-4)


def test_a_side_without_an_answer_has_no_map(patches, pair):
    loaded = model(sharing="left")
    maps = attributions(loaded, patches)["blocks.3.relu2"]
    assert np.isnan(maps.values[:, 0]).all()
    assert np.isnan(maps.residual[:, 0]).all()
    assert np.isfinite(maps.values[:, 1]).all()
    assert {m.side for m in hirescam(loaded, pair)} == {Side.LEFT}
    assert hirescam(loaded, pair, sides=[Side.RIGHT]) == []


@pytest.mark.parametrize(("layer", "same_as"), [("net.layer4.1.act", "net.layer4"), ("net.layer4.1", "net.layer4")])
def test_an_activation_used_twice_stands_for_its_blocks_output(layer, same_as, patches):
    loaded = model(tower="resnet18", widths=(8, 8, 8, 8))
    (found,), (expected,) = (attributions(loaded, patches[:1], [name]).values() for name in (layer, same_as))
    np.testing.assert_allclose(found.values, expected.values, atol=1e-6)


# -- Gradient maps ------------------------------------------------------------------------------------------------


def test_input_times_gradient_on_the_voxels(patches, pair):
    loaded = model()
    right, left = gradient_maps(loaded, pair)
    net = loaded.model.net(Side.LEFT)
    for m, native in ((left, patches[0, 1]), (right, mirror(patches[0, 0]))):
        x = net.preprocess(torch.from_numpy(native.copy())[None, None]).requires_grad_()
        (gradient,) = torch.autograd.grad(net.head(net.tower(x)).sum() * 6.84, x)
        seen = (x * gradient)[0, 0].detach().numpy()
        np.testing.assert_allclose(m.values, seen if m.side is Side.LEFT else mirror(seen), atol=1e-6)
        assert m.method == "gradient"
        assert m.layer is None
        np.testing.assert_allclose(m.affine, pair.affines[m.side.index], atol=1e-9)


def test_a_transformer_is_explained_on_its_tokens(patches, pair):
    """With no bias in the embedding a token's value is the sum over its voxels of input x gradient."""
    loaded = model(tower="vit", widths=(8, 8, 8, 8))
    loaded.model.nets["both"].tower.tokens.bias.data.zero_()
    found = attributions(loaded, patches[:1], ["tokens", "voxels"])
    sums = found["voxels"].values.reshape(1, 2, 5, 10, 5, 10, 4, 5).sum(axis=(3, 5, 7))
    np.testing.assert_allclose(found["tokens"].values, sums, atol=1e-5)
    assert {m.layer for m in gradient_maps(loaded, pair)} == {"tokens"}
    grid = layer_grids("vit", (8, 8, 8, 8))["tokens"]
    assert grid == CellGrid((5, 5, 4), (4.5, 4.5, 2.0), (10.0, 10.0, 5.0))
    with pytest.raises(ConfigError, match="no convolutional blocks"):
        hirescam(loaded, pair)


# -- Where the cells lie ------------------------------------------------------------------------------------------


def test_the_cells_of_the_last_block_end_before_the_patch_does(pair):
    m = hirescam(model(), pair, ["last"])[Side.LEFT.index]
    assert m.values.shape == (6, 6, 2)
    np.testing.assert_allclose(np.linalg.norm(m.affine[:3, :3], axis=0), (4, 4, 8))
    patch = pair.affines[Side.LEFT.index]
    centre = patch @ (3.5, 3.5, 3.5, 1)  # of voxels 0 to 7
    np.testing.assert_allclose(m.affine @ (0, 0, 0, 1), centre)
    painted = m.on_voxels(patch)
    assert painted.sum() == pytest.approx(m.values.sum())
    assert not painted[48:].any()
    assert not painted[:, 48:].any()
    assert not painted[:, :, 16:].any()
    np.testing.assert_allclose(painted[16:24, 8:16, 8:16], m.values[2, 1, 1] / 512)


def test_the_cells_of_a_mirrored_side_end_before_its_other_edge(pair):
    """The right patch was seen mirrored: in its own view the columns 0 and 1 are those that no cell covers."""
    m = hirescam(model(), pair, ["last"])[Side.RIGHT.index]
    painted = m.on_voxels(pair.affines[Side.RIGHT.index])
    assert painted.sum() == pytest.approx(m.values.sum())
    assert not painted[:, :2].any()
    assert painted[:, 2].any()
    assert painted[:, 49].any()


def test_the_third_block(pair):
    grid = hirescam(model(), pair, ["third"])[1].grid(pair.affines[1])
    assert grid.shape == (12, 12, 5)
    np.testing.assert_allclose(grid.first, (1.5, 1.5, 1.5))
    np.testing.assert_allclose(grid.step, (4, 4, 4))


@pytest.mark.parametrize("tower", ["vgg", "resnet18"])
def test_a_cell_lies_at_the_middle_of_what_it_sees(tower):
    """Measured on the network itself: all weights equal and means in place of maxima, so that only geometry is left."""
    network = build_tower(tower, (2, 2, 2, 2)).eval()
    for parameter in network.parameters():
        nn.init.constant_(parameter, 0.01 if parameter.ndim > 1 else 1.0)
    for module in list(network.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.MaxPool3d):
                mean = nn.AvgPool3d(child.kernel_size, child.stride, child.padding)
                setattr(module, name, mean)
    layers = ["blocks.0.relu2", "blocks.1.relu2"] if tower == "vgg" else ["net.conv1", "net.maxpool"]
    for layer, grid in ((name, layer_grids(tower, (2, 2, 2, 2))[name]) for name in layers):
        x = torch.ones(1, 1, *PATCH_SHAPE, requires_grad=True)
        with captured({layer: network.get_submodule(layer)}) as calls:
            network(x)
        middle = tuple(n // 2 for n in grid.shape)
        (gradient,) = torch.autograd.grad(calls[layer][0][0, 0][middle], x)
        weight = gradient[0, 0].numpy().astype(float)
        seen = [(np.indices(PATCH_SHAPE)[axis] * weight).sum() / weight.sum() for axis in range(3)]
        np.testing.assert_allclose(seen, np.array(grid.first) + np.array(grid.step) * middle, atol=1e-3)


@pytest.mark.parametrize("tower", TOWERS)
def test_cells_start_inside_the_patch_and_do_not_run_out_of_it(tower):
    for name, grid in layer_grids(tower, (8, 8, 8, 8)).items():
        last = np.array(grid.first) + np.array(grid.step) * (np.array(grid.shape) - 1)
        assert (np.array(grid.first) >= 0).all(), name
        assert (last <= np.array(PATCH_SHAPE) - 1).all(), name


@pytest.mark.parametrize("mirrored", [True, False])
@pytest.mark.parametrize("side", list(Side))
def test_a_bright_spot_is_found_where_it_is_in_the_patient(mirrored, side):
    """The strongest cell covers the spot's true place in mm, whatever the network was shown."""
    loaded = model(mirrored=mirrored, centred=False)
    for name, parameter in loaded.model.named_parameters():
        parameter.data.zero_()
        if name.endswith("weight"):  # kernels that pass each voxel on, so that nothing spreads
            (parameter.data[..., 1, 1, 1] if parameter.ndim == 5 else parameter.data).fill_(0.3)
    at = np.array([10, 6, 4])  # near the anterior edge, the patient's right and the upper edge
    both = np.random.default_rng(0).uniform(0.99, 1.01, (2, *PATCH_SHAPE)).astype(np.float32)
    both[side.index][tuple(at)] = 50
    found = NigralPair.from_arrays(*both)
    spot = (found.affines[side.index] @ (*at, 1))[:3]
    for m in hirescam(loaded, found, ["last", "third"], [side]):
        strongest = np.unravel_index(m.values.argmax(), m.values.shape)
        off = np.abs((m.affine @ (*strongest, 1))[:3] - spot)
        size = np.abs(m.affine[:3, :3]).sum(axis=1)
        assert (off <= size / 2).all()
        painted = m.on_voxels(found.affines[side.index])
        assert painted[:25, :25, :10].sum() > 0.5 * painted.sum()


@pytest.mark.parametrize("layer", ["last", "voxels"])
def test_the_mirrored_patient_has_the_mirrored_maps(layer, patches):
    loaded = model()
    (plain,), (turned,) = (attributions(loaded, x, [layer]).values() for x in (patches, mirror_pair(patches)))
    np.testing.assert_allclose(turned.values[:, ::-1], plain.values, atol=1e-6)
    for side in Side:
        affine = nominal_affine(side)
        here = turned.attribution(0, side, affine).on_voxels(affine)
        there = plain.attribution(0, side.other, nominal_affine(side.other)).on_voxels(nominal_affine(side.other))
        np.testing.assert_allclose(here, mirror(there), atol=1e-7)


def test_the_canonical_maps_of_a_model_that_undoes_the_mirroring(patches):
    loaded = model(mirrored=False)
    (maps,) = attributions(loaded, patches, ["last"]).values()
    right, left = maps.grids
    assert left.first == (3.5, 3.5, 3.5)
    assert right.first == (3.5, 5.5, 3.5)
    affine = nominal_affine(Side.RIGHT)
    native = maps.attribution(1, Side.RIGHT, affine)
    np.testing.assert_allclose(native.grid(affine).first, (3.5, 3.5, 3.5))
    np.testing.assert_allclose(mirror(native.on_voxels(affine)), maps.on_voxels()[1, 0], atol=1e-9)


@st.composite
def grids(draw: st.DrawFn) -> CellGrid:
    """Cells whose centres lie on the patch, as those of every layer do."""
    shape = draw(st.tuples(*[st.integers(1, 6)] * 3))
    first = [draw(st.floats(0, 10)) for _ in shape]
    room = [(n - 1 - f) / max(cells - 1, 1) for n, f, cells in zip(PATCH_SHAPE, first, shape, strict=True)]
    step = [draw(st.floats(0.5, min(16.0, most))) for most in room]
    return CellGrid(shape, (first[0], first[1], first[2]), (step[0], step[1], step[2]))


@settings(max_examples=30)
@given(grids(), st.integers(0, 1000))
def test_painting_keeps_the_sum_and_mirrors_with_the_values(grid, seed):
    values = np.random.default_rng(seed).normal(size=(2, *grid.shape))
    painted = grid.shared_out(values)
    np.testing.assert_allclose(painted.sum(axis=(1, 2, 3)), values.sum(axis=(1, 2, 3)), atol=1e-9)
    np.testing.assert_allclose(grid.mirrored().shared_out(mirror(values)), mirror(painted), atol=1e-9)
    np.testing.assert_allclose(grid.mirrored().mirrored().first, grid.first, atol=1e-9)
    assert grid.shown(np.ones(grid.shape)).max() <= 1 + 1e-9


def test_a_grid_is_found_again_from_its_affine():
    turn = np.deg2rad(20)
    patch = nominal_affine(Side.LEFT)
    patch[:3, :3] = (
        np.array([[1, 0, 0], [0, np.cos(turn), -np.sin(turn)], [0, np.sin(turn), np.cos(turn)]]) @ patch[:3, :3]
    )
    grid = CellGrid((6, 6, 2), (3.5, 5.5, 3.5), (8.0, 8.0, 8.0))
    again = CellGrid.of(grid.shape, grid.affine(patch), patch)
    np.testing.assert_allclose((again.first, again.step), (grid.first, grid.step), atol=1e-9)


# -- Layers by name -----------------------------------------------------------------------------------------------


def test_a_missing_layer_names_those_there_are(pair, patches):
    with pytest.raises(ConfigError) as fault:
        hirescam(model(), pair, ["blocks.4.relu2"])
    assert all(word in str(fault.value) for word in ("'blocks.4.relu2'", "third, last", "blocks.3.relu2", "voxels"))
    with pytest.raises(ConfigError, match=r"layers\.12, or a layer inside these"):
        attributions(model(tower="mobilenetv3", widths=(8, 8, 8, 8)), patches, ["blocks.3.relu2"])
    with pytest.raises(ConfigError, match="'flatten' with a place"):
        attributions(model(), patches, ["flatten"])


def test_a_layer_may_be_called_as_show_prints_it(patches):
    found = attributions(model(), patches[:1], ["tower.blocks.1.pool", "last", "blocks.3.relu2"])
    assert list(found) == ["blocks.1.pool", "blocks.3.relu2"]
    assert found["blocks.1.pool"].values.shape == (1, 2, 12, 12, 5)
    assert layer_in_words("vgg", "blocks.3.relu2") == "last block (blocks.3.relu2)"
    assert layer_in_words("vgg", "blocks.1.pool") == "layer blocks.1.pool"
    assert layer_in_words("vgg", None) == "voxels"


@pytest.mark.parametrize("shape", [(2, *PATCH_SHAPE), (0, 2, *PATCH_SHAPE), (1, 2, 50, 50, 21)])
def test_a_wrong_shape_is_refused(shape):
    with pytest.raises(ConfigError, match="patches of shape"):
        attributions(model(), np.ones(shape, np.float32))


# -- Figures and files --------------------------------------------------------------------------------------------


def test_planes_show_the_patient_from_the_front_and_from_below():
    """One bright corner: anterior, left, inferior."""
    volume = np.zeros(PATCH_SHAPE)
    volume[40:, 40:, 15:] = 1  # anterior, left, inferior
    for plane, corner in zip(PLANES, ((0, -1), (-1, -1), (-1, 0)), strict=True):
        filled = np.where(np.indices(PATCH_SHAPE)[plane.across] >= 0, volume.max(axis=plane.across, keepdims=True), 0)
        cut = plane.cut(filled)
        assert cut[corner] == 1
        assert cut.sum() == cut[cut > 0].size
        opposite = tuple(-1 if i == 0 else 0 for i in corner)
        assert cut[opposite] == 0
        left, right, bottom, top = plane.extent_mm
        assert (top - bottom) / (right - left) == pytest.approx((20 if plane.across < 2 else 25) / 25)
    assert [plane.edges for plane in PLANES] == [("R", "L", "A", "P"), ("R", "L", "S", "I"), ("A", "P", "S", "I")]


def test_a_figure_marks_sides_unit_and_phantom(pair):
    maps = hirescam(model(), pair, ["last"])
    figure = attribution_figure(maps, pair, "last block", "digital phantom, not patients")
    words = [t.get_text() for axes in figure.axes for t in axes.texts]
    assert words.count("R") == words.count("L") == 4
    assert [axes.get_ylabel().split("\n")[0] for axes in figure.axes[::3][:2]] == ["right", "left"]
    assert "digital phantom" in figure.get_supxlabel()
    (scale,) = [axes for axes in figure.axes if "SBR that 4 x 4 x 8 mm" in axes.get_ylabel()]
    low, high = scale.get_ylim()
    assert low == -high


def test_a_flat_map_has_a_figure(pair):
    flat = Attribution("gradient", Side.LEFT, np.zeros(PATCH_SHAPE), pair.affines[1], 2.0, 2.0)
    assert attribution_figure([flat], pair, "voxels", "").axes


def test_files_hold_the_maps_at_their_place(tmp_path, pair):
    loaded = model()
    maps = hirescam(loaded, pair, ["last"]) + gradient_maps(loaded, pair)
    data = write_attributions(tmp_path / "out", maps, pair, loaded, "label")
    stored = json.loads((tmp_path / "out" / "maps.json").read_text())
    assert stored["label"] == "label"
    assert len(stored["maps"]) == len(data["maps"]) == 4
    for m, entry in zip(maps, stored["maps"], strict=True):
        image = nib.load(tmp_path / "out" / entry["file"])
        assert image.shape == PATCH_SHAPE
        np.testing.assert_allclose(image.affine, pair.affines[m.side.index], atol=1e-5)
        assert image.get_fdata().sum() == pytest.approx(entry["sum"], abs=1e-4)
        assert entry["prediction"] == pytest.approx(entry["baseline"] + entry["sum"] + entry["residual"])
        assert entry["side"] == m.side.value
    assert stored["maps"][0]["cell_mm"] == [4, 4, 8]
    assert len({entry["file"] for entry in stored["maps"]}) == 4
    pictures = sorted(path.name for path in (tmp_path / "out").glob("*.png"))
    assert pictures == ["gradient.png", "hirescam_blocks-3-relu2.png"]
    with pytest.raises(OutputError):
        write_attributions(tmp_path / "out", maps, pair, loaded, "")


# -- Command line -------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path) -> Path:
    loaded = model(sharing="left")
    return save_model(tmp_path / "model", loaded.model, {"training": {"kind": "phantom"}})


def test_explain_from_the_command_line(tmp_path, folder, small_cohort, capsys):
    where = [str(folder), str(small_cohort.folder), str(tmp_path / "out")]
    visit = small_cohort.visit_ids[7]
    assert main(["explain", *where, "--visit", visit, "--layer", "last", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert [(m["side"], m["layer"]) for m in printed["maps"]] == [("left", "blocks.3.relu2")]
    assert printed["label"] == "digital phantom, not patients"
    (expected,) = hirescam(load_model(folder), small_cohort.pair(7), ["last"])
    assert printed["maps"][0]["sum"] == pytest.approx(expected.values.sum())
    where[2] = str(tmp_path / "table")
    assert main(["explain", *where, "--visit", visit, "--layer", "third"]) == 0
    text = capsys.readouterr().out
    assert "residual:" in text
    assert "digital phantom" in text


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ([], ["24 visits", "--visit"]),
        (["--visit", "sub-999"], ["no visit 'sub-999'"]),
        (["--visit", "VISIT", "--layer", "nowhere"], ["no layer 'nowhere'", "blocks.3.relu2"]),
        (["--visit", "VISIT", "--side", "right"], ["--side right", "left"]),
        (["--visit", "VISIT", "--side", "up"], ["--side up"]),
        (["--visit", "VISIT", "--method", "guess"], ["--method guess", "hirescam"]),
        (["--visit", "VISIT", "--method", "gradient", "--layer", "last"], ["--layer with --method gradient"]),
        (["--visit", "VISIT", "--draws", "5"], ["--draws with --method hirescam"]),
        (["--visit", "VISIT", "--method", "deepshap"], ["without --background"]),
        (["--visit", "VISIT", "--method", "deepshap", "--background", "COHORT"], ["did not train this model"]),
    ],
)
def test_explain_refuses_and_leaves_nothing(words, found, tmp_path, folder, small_cohort, capsys):
    names = {"VISIT": small_cohort.visit_ids[0], "COHORT": str(small_cohort.folder)}
    out = tmp_path / "out"
    assert main(["explain", str(folder), names["COHORT"], str(out), *(names.get(w, w) for w in words)]) == 2
    message = capsys.readouterr().err
    assert all(word in message for word in found), message
    assert not out.exists()


def test_explain_takes_a_folder_with_one_pair_of_patches(tmp_path, folder, random_pair, capsys):
    from nigradat.io.nifti import write_volume

    for side in Side:
        write_volume(
            tmp_path / "in" / f"x_{side.value}.nii.gz", random_pair.patch(side), random_pair.affines[side.index]
        )
    assert main(["explain", str(folder), str(tmp_path / "in"), str(tmp_path / "out"), "--method", "gradient"]) == 0
    assert "model trained on a digital phantom" in capsys.readouterr().out
    image = nib.load(tmp_path / "out" / "left_gradient.nii.gz")
    np.testing.assert_allclose(image.affine, random_pair.affines[1], atol=1e-4)


def test_shap_goes_through_explain(tmp_path, small_cohort, small_run, capsys):
    where = [str(small_run), str(small_cohort.folder), str(tmp_path / "out")]
    more = ["--method", "expected-gradients", "--background", where[1], "--background-visits", "2", "--draws", "3"]
    assert main(["explain", *where, "--visit", small_cohort.visit_ids[0], "--side", "right", *more, "--json"]) == 0
    (m,) = json.loads(capsys.readouterr().out)["maps"]
    assert m["method"] == "expected-gradients"
    assert m["side"] == "right"
    assert (tmp_path / "out" / "right_expected-gradients.nii.gz").is_file()


def test_layer_maps_know_their_residual():
    values = np.ones((1, 2, 2, 2, 2))
    grid = CellGrid((2, 2, 2), (3.5, 3.5, 3.5), (8.0, 8.0, 8.0))
    maps = LayerMaps("x", values, (grid, grid), np.array([[10.0, 9.0]]), np.array([1.0, 0.5]))
    assert maps.residual.tolist() == [[1.0, 0.5]]
    m = replace(maps.attribution(0, Side.LEFT, np.eye(4)), baseline=2.0)
    assert m.residual == -1.0
