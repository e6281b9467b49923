"""The 3D VGG of the paper: four blocks of two 3x3x3 convolutions, each followed by a pooling.

Source: the layer table of Applied Sciences 2025, 15, 10977 and the graphs of the authors' release, which hold widths
64, 128, 256, 512 (14,053,441 parameters with the linear output) and 16, 32, 64, 128 (879,889). Dropout is in neither;
its places here are ours.
"""

from __future__ import annotations

import math
from collections import OrderedDict

import torch
from torch import Tensor, nn

from nigradat.anatomy import PATCH_SHAPE
from nigradat.models.dropout import SeededDropout

PAPER_WIDTHS = (64, 128, 256, 512)
SMALL_WIDTHS = (16, 32, 64, 128)
NARROW_WIDTHS = (8, 16, 32, 64)


def vgg_block(
    channels_in: int, channels_out: int, dropout: float, *, convolutions: int = 2, pool: int | tuple[int, int, int] = 2
) -> nn.Sequential:
    """Convolutions of 3 x 3 x 3 with ReLU, a pooling, and dropout as the last layer (also where its rate is 0)."""
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for i in range(1, convolutions + 1):
        layers[f"conv{i}"] = nn.Conv3d(channels_in if i == 1 else channels_out, channels_out, 3, padding=1)
        layers[f"relu{i}"] = nn.ReLU(inplace=True)
    layers["pool"] = nn.MaxPool3d(pool)
    layers["dropout"] = SeededDropout(dropout)
    return nn.Sequential(layers)


def before_dropout(blocks: nn.Sequential, x: Tensor) -> Tensor:
    """Run the part of VGG blocks that no dropout reaches: the first block up to its pooling, most of the cost."""
    first = blocks[0]
    assert isinstance(first, nn.Sequential)
    for layer in list(first)[:-1]:
        x = layer(x)
    return x


def from_dropout(blocks: nn.Sequential, x: Tensor) -> Tensor:
    """Run what :func:`before_dropout` left: the first block's dropout and all blocks after it."""
    first, *others = blocks
    assert isinstance(first, nn.Sequential)
    x = first[-1](x)
    for block in others:
        x = block(x)
    return x


class VggTower(nn.Module):
    """Patch to features.

    Args:
        widths: channels of the blocks.
        block_dropout: rate after each pooling.
    """

    def __init__(self, widths: tuple[int, ...] = SMALL_WIDTHS, block_dropout: float = 0.0) -> None:
        super().__init__()
        channels = (1, *widths)
        self.blocks = nn.Sequential(*(vgg_block(a, b, block_dropout) for a, b in zip(channels, widths, strict=False)))
        self.flatten = nn.Flatten()
        self.n_features = widths[-1] * math.prod(n // 2 ** len(widths) for n in PATCH_SHAPE)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, 1, 50, 50, 20)`` to ``(B, n_features)``, channels first when flattened."""
        features: Tensor = self.flatten(self.blocks(x))
        return features

    def stem(self, x: Tensor) -> Tensor:
        """What comes before the first dropout; ``rest(stem(x))`` is ``forward(x)``."""
        return before_dropout(self.blocks, x)

    def rest(self, x: Tensor) -> Tensor:
        """From the first dropout to the features."""
        return torch.flatten(from_dropout(self.blocks, x), 1)
