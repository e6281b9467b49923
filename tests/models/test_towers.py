"""Parameters and costs of the towers against counts from their sources' tables.

Each count is written for any number of image axes, and first shown to give the published number of the 2D network.
"""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from nigradat.anatomy import PATCH_SHAPE, Side
from nigradat.models.cost import layer_table
from nigradat.models.mobilenet import rounded
from nigradat.models.symmetric import ModelSpec, SideRegressor, Tower, TowerName, build, build_tower
from nigradat.models.vgg import NARROW_WIDTHS, PAPER_WIDTHS, SMALL_WIDTHS
from nigradat.models.vit import SelfAttention, dimensions

WIDTHS = [NARROW_WIDTHS, SMALL_WIDTHS, PAPER_WIDTHS, (3, 5, 7, 9)]
TOWERS: tuple[TowerName, ...] = ("vgg", "vgg16", "resnet18", "mobilenetv3", "vit")


def count(tower: Tower) -> int:
    return sum(p.numel() for p in tower.parameters())


def dense(n_in: int, n_out: int) -> int:
    return n_in * n_out + n_out


def vgg16_count(widths: tuple[int, ...], axes: int, inputs: int, flat: int, hidden: tuple[int, ...]) -> int:
    a, b, c, d = widths
    channels = [inputs, a, a, b, b, c, c, c, d, d, d, d, d, d]
    convolutions = sum(3**axes * i * o + o for i, o in pairwise(channels))
    units = [flat, *hidden]
    return convolutions + sum(dense(i, o) for i, o in pairwise(units))


def resnet18_count(widths: tuple[int, ...], axes: int, inputs: int) -> int:
    def normed(n_in: int, n_out: int, kernel: int) -> int:
        return kernel**axes * n_in * n_out + 2 * n_out

    total, before = normed(inputs, widths[0], 7), widths[0]
    for stage, width in enumerate(widths):
        total += normed(before, width, 3) + 3 * normed(width, width, 3)
        total += normed(before, width, 1) if stage else 0
        before = width
    return total


# kernel, expanded, out, squeeze and excitation: Howard 2019, Table 2
MOBILENET_SMALL = [
    (3, 16, 16, True),
    (3, 72, 24, False),
    (3, 88, 24, False),
    (5, 96, 40, True),
    (5, 240, 40, True),
    (5, 240, 40, True),
    (5, 120, 48, True),
    (5, 144, 48, True),
    (5, 288, 96, True),
    (5, 576, 96, True),
    (5, 576, 96, True),
]


def mobilenet_count(multiplier: float, axes: int, inputs: int) -> int:
    def scaled(n: float) -> int:
        near = max(8, 8 * math.floor(n * multiplier / 8 + 0.5))
        return near if near >= 0.9 * n * multiplier else near + 8

    before = scaled(16)
    total = 3**axes * inputs * before + 2 * before
    for kernel, expanded, out, squeeze in MOBILENET_SMALL:
        e, o = scaled(expanded), scaled(out)
        total += before * e + 2 * e if e != before else 0
        total += kernel**axes * e + 2 * e
        if squeeze:
            hidden = max(8, 8 * math.floor(e / 4 / 8 + 0.5))
            hidden += 8 if hidden < 0.9 * e / 4 else 0
            total += dense(e, hidden) + dense(hidden, e)
        total += e * o + 2 * o
        before = o
    last = scaled(576)
    return total + before * last + 2 * last + dense(last, scaled(1024))


def vit_count(dimension: int, token_values: int, tokens: int) -> int:
    attention = dense(dimension, 3 * dimension) + dense(dimension, dimension)
    mlp = dense(dimension, 4 * dimension) + dense(4 * dimension, dimension)
    norm = 2 * dimension
    return dense(token_values, dimension) + tokens * dimension + 12 * (attention + mlp + 2 * norm) + norm


def test_the_counts_are_right_for_the_published_2d_networks() -> None:
    """With 1,000 classes: VGG-16, ResNet-18, MobileNetV3-Small and ViT-B/16 (with its class token) on 224 pixels."""
    assert vgg16_count(PAPER_WIDTHS, 2, 3, 7 * 7 * 512, (4096, 4096, 1000)) == 138_357_544
    assert resnet18_count(PAPER_WIDTHS, 2, 3) + dense(512, 1000) == 11_689_512
    assert mobilenet_count(1.0, 2, 3) + dense(1024, 1000) == 2_542_856
    assert vit_count(768, 16 * 16 * 3, 14 * 14 + 1) + 768 + dense(768, 1000) == 86_567_656


@pytest.mark.parametrize("widths", WIDTHS)
def test_parameters(widths: tuple[int, ...]) -> None:
    last = widths[-1]
    with torch.device("meta"):  # no values are needed
        towers = {name: count(build_tower(name, widths)) for name in TOWERS}
    assert towers["vgg16"] == vgg16_count(widths, 3, 1, last, (last, last))
    assert towers["resnet18"] == resnet18_count(widths, 3, 1)
    assert towers["mobilenetv3"] == mobilenet_count(widths[0] / 64, 3, 1)
    assert towers["vit"] == vit_count(dimensions(widths)[0], 10 * 10 * 5, 5 * 5 * 4)


@pytest.mark.parametrize("name", TOWERS)
@pytest.mark.parametrize("widths", [NARROW_WIDTHS, (3, 5, 7, 9)])
def test_costs_are_what_torch_counts(name: TowerName, widths: tuple[int, ...]) -> None:
    net = SideRegressor(build_tower(name, widths)).eval()
    table = layer_table(net)
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH), torch.no_grad():
        net(torch.ones(1, 1, *PATCH_SHAPE))
    assert sum(row.macs for row in table) == counter.get_total_flops() / 2
    assert sum(row.parameters for row in table) == sum(p.numel() for p in net.parameters())
    assert len({row.name for row in table}) == len(table)


GRIDS = {
    "vgg": [(25, 25, 10), (12, 12, 5), (6, 6, 2), (3, 3, 1)],
    "vgg16": [(25, 25, 10), (12, 12, 5), (6, 6, 2), (3, 3, 1), (1, 1, 1)],
    "resnet18": [(25, 25, 10), (13, 13, 5), (7, 7, 3), (4, 4, 2), (2, 2, 1)],
    "mobilenetv3": [(25, 25, 10), (13, 13, 5), (7, 7, 3), (4, 4, 2)],
    "vit": [(5, 5, 4)],
}


@pytest.mark.parametrize("name", TOWERS)
def test_grids(name: TowerName) -> None:
    """The patch shrinks as documented, down to the features (mean over voxels apart)."""
    table = layer_table(SideRegressor(build_tower(name, (3, 5, 7, 9))))
    seen = [
        row.output[:3] for row in table if len(row.output) == 4 and "Mean" not in row.kind and ".gate." not in row.name
    ]
    assert [after for before, after in pairwise(seen) if after != before] == GRIDS[name]


def test_channels_are_rounded_as_published() -> None:
    """Multiples of 8, the nearest, and never more than a tenth below."""
    for channels in [*range(1, 700), 7.5, 11.9, 12.0, 18.0]:
        out = rounded(channels)
        assert out % 8 == 0
        assert out >= max(8, 0.9 * channels)
        assert out <= max(8, channels + 8)
    assert [rounded(c) for c in (16, 72, 576, 12, 20, 18.5)] == [16, 72, 576, 16, 24, 24]


@pytest.mark.parametrize(
    ("last", "expected"), [(512, (768, 12)), (128, (192, 3)), (64, (96, 2)), (8, (12, 1)), (1, (2, 1)), (85, (128, 2))]
)
def test_heads_of_about_64_dimensions(last: int, expected: tuple[int, int]) -> None:
    """768 with 12 heads is ViT-Base; 192 with 3 is DeiT-Tiny."""
    assert dimensions((1, 1, 1, last)) == expected


def test_attention_is_that_of_torch() -> None:
    """Against torch's own multi-head attention with the same weights."""
    torch.manual_seed(0)
    ours, theirs = SelfAttention(24, 3), torch.nn.MultiheadAttention(24, 3, batch_first=True)
    theirs.load_state_dict(
        {
            "in_proj_weight": ours.qkv.weight,
            "in_proj_bias": ours.qkv.bias,
            "out_proj.weight": ours.out.weight,
            "out_proj.bias": ours.out.bias,
        }
    )
    x = torch.randn(2, 10, 24)
    with torch.no_grad():
        assert torch.allclose(ours(x), theirs(x, x, x, need_weights=False)[0], atol=1e-5)


@pytest.mark.parametrize("name", ["vgg", "vgg16"])
def test_stem_and_rest_are_the_tower(name: TowerName) -> None:
    tower = build_tower(name, (2, 3, 4, 5), 0.2).eval()
    x = torch.rand(2, 1, *PATCH_SHAPE)
    with torch.no_grad():
        assert torch.equal(tower.rest(tower.stem(x)), tower(x))  # type: ignore[union-attr]
        assert tower.stem(x).shape == (2, 2, 25, 25, 10)  # type: ignore[union-attr]


def test_a_shared_normalisation_sees_both_sides() -> None:
    """In training the statistics of a shared tower are those of right and left patches together."""
    x = torch.rand((3, 2, 1, *PATCH_SHAPE), generator=torch.Generator().manual_seed(1))
    x[:, 1] = x[:, 1] ** 3
    model = build(ModelSpec(widths=(4, 4, 4, 4), tower="resnet18", head_dropout=0.0), seed=1).train()
    model(x)
    net = model.net(Side.LEFT)
    assert net is not None
    first = net.tower.net  # type: ignore[union-attr]
    with torch.no_grad():
        seen = first.conv1(net.preprocess(x.flatten(0, 1)))
    expected = 0.1 * seen.mean(dim=(0, 2, 3, 4))
    assert torch.allclose(first.bn1.running_mean, expected, rtol=1e-4, atol=1e-7)
    assert not torch.allclose(0.1 * seen[1::2].mean(dim=(0, 2, 3, 4)), expected, rtol=1e-2)
