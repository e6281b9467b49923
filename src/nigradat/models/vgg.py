"""The 3D VGG of the paper: four blocks of two 3x3x3 convolutions, and one linear output.

Source: the layer table of Applied Sciences 2025, 15, 10977 and the graphs of the authors' release, which hold widths
64, 128, 256, 512 (14,053,441 parameters) and 16, 32, 64, 128 (879,889). Dropout is in neither; its places here are
ours.
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


def _block(channels_in: int, channels_out: int, dropout: float) -> nn.Sequential:
    return nn.Sequential(
        OrderedDict(
            conv1=nn.Conv3d(channels_in, channels_out, 3, padding=1),
            relu1=nn.ReLU(inplace=True),
            conv2=nn.Conv3d(channels_out, channels_out, 3, padding=1),
            relu2=nn.ReLU(inplace=True),
            pool=nn.MaxPool3d(2),
            dropout=SeededDropout(dropout),
        )
    )


class VggTower(nn.Module):
    """Patch to features.

    Args:
        widths: channels of the blocks.
        block_dropout: rate after each pooling.
    """

    def __init__(self, widths: tuple[int, ...] = SMALL_WIDTHS, block_dropout: float = 0.0) -> None:
        super().__init__()
        channels = (1, *widths)
        self.blocks = nn.Sequential(*(_block(a, b, block_dropout) for a, b in zip(channels, widths, strict=False)))
        self.n_features = widths[-1] * math.prod(n // 2 ** len(widths) for n in PATCH_SHAPE)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, 1, 50, 50, 20)`` to ``(B, n_features)``, channels first when flattened."""
        return torch.flatten(self.blocks(x), 1)


class VggRegressor(nn.Module):
    """One side's regressor: own-mean normalisation, tower, head dropout, linear output (normalised SBR).

    Args:
        widths, block_dropout: see :class:`VggTower`.
        head_dropout: rate before the linear layer.
        centred: subtract 1 after the division by the mean. The published nets do not; learning from scratch needs it.
    """

    def __init__(
        self,
        widths: tuple[int, ...] = SMALL_WIDTHS,
        *,
        head_dropout: float = 0.0,
        block_dropout: float = 0.0,
        centred: bool = True,
    ) -> None:
        super().__init__()
        self.centred = centred
        self.tower = VggTower(widths, block_dropout)
        self.dropout = SeededDropout(head_dropout)
        self.head = nn.Linear(self.tower.n_features, 1)

    def preprocess(self, x: Tensor) -> Tensor:
        """Each patch divided by its own mean (a new tensor), minus 1 where ``centred``."""
        x = x / x.mean(dim=(-3, -2, -1), keepdim=True)
        return x - 1.0 if self.centred else x

    def features(self, x: Tensor) -> Tensor:
        """``(B, 1, 50, 50, 20)`` raw patches in canonical view to ``(B, n_features)``, before the head's dropout."""
        x = self.preprocess(x).contiguous(memory_format=torch.channels_last_3d)
        features: Tensor = self.tower(x)
        return features

    def forward(self, x: Tensor) -> Tensor:
        """``(B, 1, 50, 50, 20)`` raw patches in canonical view to ``(B,)`` normalised SBR."""
        out: Tensor = self.head(self.dropout(self.features(x)))
        return out.squeeze(1)


def initialise(model: nn.Module, kind: str, seed: int) -> None:
    """Fresh weights from a seed: ``he`` (normal, for ReLU; He 2015) or ``glorot`` (uniform; as in the published graph).

    Biases are zero and the output layer is Glorot-uniform in both.
    """
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.Conv3d) and kind == "he":
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu", generator=generator)
        elif isinstance(module, nn.Conv3d | nn.Linear):
            nn.init.xavier_uniform_(module.weight, generator=generator)
        if isinstance(module, nn.Conv3d | nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)
