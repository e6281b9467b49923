"""The layer table against the paper's and against a count of multiplications written out here."""

from __future__ import annotations

import pytest
import torch

from nigradat.models.cost import layer_table
from nigradat.models.symmetric import SideRegressor
from nigradat.models.vgg import PAPER_WIDTHS, SMALL_WIDTHS, VggTower

GRIDS = [(50, 50, 20), (25, 25, 10), (12, 12, 5), (6, 6, 2), (3, 3, 1)]


def expected_table(widths: tuple[int, ...]) -> list[tuple[tuple[int, ...], int, int]]:
    """(output shape, parameters, multiply-accumulates) of each layer with channels last, as the paper prints them."""
    rows: list[tuple[tuple[int, ...], int, int]] = [((*GRIDS[0], 1), 0, 0)]
    previous = 1
    for width, grid, pooled in zip(widths, GRIDS, GRIDS[1:], strict=False):
        voxels = grid[0] * grid[1] * grid[2]
        for channels_in in (previous, width):
            rows.append(((*grid, width), 27 * channels_in * width + width, 27 * channels_in * width * voxels))
        rows.append(((*pooled, width), 0, 0))
        previous = width
    rows += [((9 * widths[-1],), 0, 0), ((1,), 9 * widths[-1] + 1, 9 * widths[-1])]
    return rows


@pytest.mark.parametrize(
    ("widths", "flat", "gmac"), [(SMALL_WIDTHS, 1152, 0.8), (PAPER_WIDTHS, 4608, 12.4), ((3, 5, 2, 4), 36, None)]
)
def test_layer_table(widths: tuple[int, ...], flat: int, gmac: float | None) -> None:
    net = SideRegressor(VggTower(widths))
    table = layer_table(net)
    assert [(row.output, row.parameters, row.macs) for row in table] == expected_table(widths)
    assert [row.output for row in table if row.kind == "Flatten"] == [(flat,)]
    assert sum(row.parameters for row in table) == sum(p.numel() for p in net.parameters())
    if gmac is not None:  # the published orders of cost
        assert sum(row.macs for row in table) / 1e9 == pytest.approx(gmac, rel=0.05)


def test_dropout_is_shown_where_it_acts() -> None:
    net = SideRegressor(VggTower((2, 2, 2, 2), block_dropout=0.2), head_dropout=0.5)
    kinds = [row.kind.split()[0] for row in layer_table(net)]
    block = ["Conv3D", "Conv3D", "MaxPool3D", "Dropout"]
    assert kinds == ["Input", *block * 4, "Flatten", "Dropout", "Dense"]
    assert [row.kind for row in layer_table(net)][-2] == "Dropout 0.5"


def test_the_network_is_left_as_it_was() -> None:
    net = SideRegressor(VggTower((2, 2, 2, 2)), head_dropout=0.5).train()
    layer_table(net)
    assert net.training
    assert net.tower.training
    assert all(not m._forward_hooks for m in net.modules())
    assert all(p.grad is None for p in net.parameters())
    assert net.eval()(torch.ones(1, 1, 50, 50, 20)).requires_grad  # gradients are on again
