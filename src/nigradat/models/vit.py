"""Vision Transformer in 3D, at its full width the Base size (12 layers, dimension 768, 12 heads).

Source: Dosovitskiy et al., ICLR 2021: pre-norm blocks, GELU, an MLP four times as wide, learned positions. A token is
10 x 10 x 5 voxels, a cube of 5 mm, which makes 5 x 5 x 4 = 100 tokens. The features are the mean of the last layer's
normalised tokens; there is no class token (the two do equally well in the source's appendix D.3).

Ours, of torch alone: MONAI's ViT needs a further package and holds layers that never receive a gradient.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nigradat.anatomy import PATCH_SHAPE

TOKEN = (10, 10, 5)  # voxels
N_TOKENS = math.prod(n // t for n, t in zip(PATCH_SHAPE, TOKEN, strict=True))
DEPTH = 12
HEAD_DIMENSION = 64


def dimensions(widths: tuple[int, ...]) -> tuple[int, int]:
    """Dimension of a token (768 for a last width of 512) and the number of heads, of 64 dimensions or nearly so."""
    dimension = round(1.5 * widths[-1])
    heads = max(1, round(dimension / HEAD_DIMENSION))
    while dimension % heads:
        heads -= 1
    return dimension, heads


class VitTower(nn.Module):
    """Patch to features.

    Args:
        widths: the last one alone sets the size: a token has ``1.5 * widths[-1]`` dimensions.
    """

    def __init__(self, widths: tuple[int, ...]) -> None:
        super().__init__()
        self.n_features, heads = dimensions(widths)
        self.tokens = nn.Conv3d(1, self.n_features, TOKEN, stride=TOKEN)
        self.positions = Positions(self.n_features)
        self.blocks = nn.Sequential(*(_Block(self.n_features, heads) for _ in range(DEPTH)))
        self.norm = nn.LayerNorm(self.n_features)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, 1, 50, 50, 20)`` to ``(B, n_features)``."""
        tokens = self.positions(self.tokens(x).flatten(2).transpose(1, 2))
        features: Tensor = self.norm(self.blocks(tokens)).mean(dim=1)
        return features


class Positions(nn.Module):
    """A learned vector for each place, added to the token that comes from there; zero until it is initialised."""

    def __init__(self, dimension: int) -> None:
        super().__init__()
        self.vectors = nn.Parameter(torch.zeros(N_TOKENS, dimension))

    def forward(self, x: Tensor) -> Tensor:
        """``(B, n, dimension)`` to the same shape."""
        return x + self.vectors


class _Block(nn.Module):
    def __init__(self, dimension: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dimension)
        self.attention = SelfAttention(dimension, heads)
        self.norm2 = nn.LayerNorm(dimension)
        self.mlp = nn.Sequential(
            nn.Linear(dimension, 4 * dimension),
            nn.GELU(),
            nn.Linear(4 * dimension, dimension),
        )

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        out: Tensor = x + self.mlp(self.norm2(x))
        return out


class SelfAttention(nn.Module):
    """Scaled dot-product attention of every token to every token, ``(B, n, dimension)`` to the same shape."""

    def __init__(self, dimension: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dimension, 3 * dimension)
        self.out = nn.Linear(dimension, dimension)

    def forward(self, x: Tensor) -> Tensor:
        """Queries, keys and values of all heads in one product."""
        q, k, v = self.qkv(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        mixed: Tensor = self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        return mixed
