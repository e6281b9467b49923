"""The tower against its published numbers, and against the same network written with torch.nn.functional."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from nigradat.anatomy import PATCH_SHAPE
from nigradat.models.symmetric import Initialisation, SideRegressor, initialise
from nigradat.models.vgg import NARROW_WIDTHS, PAPER_WIDTHS, SMALL_WIDTHS, VggTower

TINY = (2, 3, 4, 5)


def a_regressor(seed: int = 0, **options: object) -> SideRegressor:
    net = SideRegressor(VggTower(TINY), **options)  # type: ignore[arg-type]
    initialise(net, "he", seed)
    g = torch.Generator().manual_seed(seed + 1)
    for name, parameter in net.named_parameters():
        if name.endswith("bias"):  # a bias of zero would hide one that is left out
            parameter.data = 0.1 * torch.randn(parameter.shape, generator=g)
    return net.eval()


def patches(n: int, seed: int = 0) -> Tensor:
    return 0.5 + torch.rand((n, 1, *PATCH_SHAPE), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("widths", "parameters"), [(SMALL_WIDTHS, 879_889), (PAPER_WIDTHS, 14_053_441)])
def test_published_parameter_counts(widths: tuple[int, ...], parameters: int) -> None:
    assert sum(p.numel() for p in SideRegressor(VggTower(widths)).parameters()) == parameters


@given(st.tuples(*[st.integers(1, 12)] * 4))
@settings(max_examples=25)
def test_parameters_of_any_width(widths: tuple[int, int, int, int]) -> None:
    a, b, c, d = widths
    convolutions = [(1, a), (a, a), (a, b), (b, b), (b, c), (c, c), (c, d), (d, d)]
    # 50 -> 25 -> 12 -> 6 -> 3 and 20 -> 10 -> 5 -> 2 -> 1 by pooling without padding
    expected = sum(27 * i * o + o for i, o in convolutions) + 3 * 3 * 1 * d + 1
    net = SideRegressor(VggTower(widths))
    assert sum(p.numel() for p in net.parameters()) == expected
    assert net.tower.n_features == 9 * d


@pytest.mark.parametrize("centred", [True, False])
def test_forward_equals_functional_form(centred: bool) -> None:
    net = a_regressor(centred=centred)
    x = patches(2)
    state = net.state_dict()
    h = x / x.flatten(1).mean(dim=1)[:, None, None, None, None] - (1.0 if centred else 0.0)
    for block in range(4):
        for conv in (1, 2):
            name = f"tower.blocks.{block}.conv{conv}"
            h = F.relu(F.conv3d(h, state[f"{name}.weight"], state[f"{name}.bias"], padding=1))
        h = F.max_pool3d(h, 2)
    features = h.reshape(2, -1)
    expected = features @ state["head.weight"][0] + state["head.bias"]
    with torch.no_grad():
        assert torch.allclose(net.features(x), features, atol=1e-5)
        assert torch.allclose(net(x)[:, 0], expected, atol=1e-5)
    assert net(x).shape == (2, 1)
    assert expected.std() > 1e-3  # the two patches can be told apart


@given(gain=st.floats(1e-3, 1e4))
@settings(max_examples=10)
def test_gain_does_not_matter(gain: float) -> None:
    net, x = a_regressor(), patches(1)
    with torch.no_grad():
        assert torch.allclose(net(gain * x), net(x), rtol=1e-4, atol=1e-5)


def test_an_offset_matters() -> None:
    """The division by the mean undoes a gain, not an offset; a test of gains alone would pass for a constant."""
    net, x = a_regressor(), patches(1)
    with torch.no_grad():
        assert not torch.allclose(net(x + 1), net(x), rtol=1e-3)


def test_input_is_left_as_it_was() -> None:
    net, x = a_regressor(), patches(2)
    before = x.clone()
    net(x)
    assert torch.equal(x, before)


def test_preprocessing_gives_mean_one_or_zero() -> None:
    x = 37 * patches(3)
    for centred, mean in ((True, 0.0), (False, 1.0)):
        out = a_regressor(centred=centred).preprocess(x)
        assert torch.allclose(out.mean(dim=(1, 2, 3, 4)), torch.full((3,), mean), atol=1e-5)


def test_he_initialisation_statistics() -> None:
    tower = VggTower(SMALL_WIDTHS)
    initialise(tower, "he", 3)
    for block, fan_in in ((1, 27 * 16), (2, 27 * 32), (3, 27 * 64)):
        w = tower.blocks[block].conv1.weight.detach().double()  # type: ignore[union-attr]
        expected = math.sqrt(2 / fan_in)
        # the SD of n normal draws has a relative error of 1 / sqrt(2 n); 5 of them
        assert abs(float(w.std()) / expected - 1) < 5 / math.sqrt(2 * w.numel())
        assert abs(float(w.mean())) < 5 * expected / math.sqrt(w.numel())
        assert float(w.abs().max()) > 3 * expected  # normal, not uniform


@pytest.mark.parametrize("kind", ["he", "glorot"])
def test_glorot_is_uniform_and_biases_are_zero(kind: Initialisation) -> None:
    net = SideRegressor(VggTower(NARROW_WIDTHS))
    initialise(net, kind, 5)
    uniform = {"head": (9 * 64, 1)}
    if kind == "glorot":
        uniform["tower.blocks.3.conv2"] = (27 * 64, 27 * 64)
    modules = dict(net.named_modules())
    for name, (fan_in, fan_out) in uniform.items():
        w = modules[name].weight.detach().double()  # type: ignore[union-attr]
        limit = math.sqrt(6 / (fan_in + fan_out))
        assert 0.98 * limit < float(w.abs().max()) <= limit * (1 + 1e-6)
        assert abs(float(w.std()) * math.sqrt(3) / limit - 1) < 5 / math.sqrt(w.numel())
    assert all(float(p.detach().abs().max()) == 0 for n, p in net.named_parameters() if n.endswith("bias"))


def test_initialisation_depends_on_the_seed_alone() -> None:
    nets = [SideRegressor(VggTower(TINY)) for _ in range(3)]
    for net, seed in zip(nets, (1, 1, 2), strict=True):
        torch.rand(1)  # torch's own random state moves on and plays no part
        initialise(net, "he", seed)
    first, same, other = (net.state_dict() for net in nets)
    assert all(torch.equal(first[k], same[k]) for k in first)
    assert any(not torch.equal(first[k], other[k]) for k in first)
