"""MobileNetV3-Small in 3D.

Source: Howard et al., ICCV 2019, Table 2 and section 5: inverted residuals with depthwise convolutions, squeeze and
excitation at a quarter of the expanded width, hard-swish, channels rounded to multiples of 8. Adapted to the patch:

- Every kernel has a third axis of the same length. The first convolution keeps its resolution (the original halves 224
  pixels five times, to 7; 50 voxels halved four times are 4): 50 x 50 x 20 to 4 x 4 x 2.
- Batch normalisation forgets with torch's default momentum of 0.1. The original's 0.01 takes hundreds of steps to
  forget its start, and a run on 256 patients has few.
- The last hidden layer gives the features; the classifier's dropout is the head's dropout.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

FULL_WIDTH = 64  # the first of four widths at which the multiplier is 1
STEM, LAST, HIDDEN = 16, 576, 1024


@dataclass(frozen=True)
class Bottleneck:
    """A row of the paper's Table 2: kernel length, expanded and output channels, SE, hard-swish or ReLU, stride."""

    kernel: int
    expanded: int
    out: int
    squeeze: bool
    hard_swish: bool
    stride: int


SMALL = (
    Bottleneck(3, 16, 16, True, False, 2),
    Bottleneck(3, 72, 24, False, False, 2),
    Bottleneck(3, 88, 24, False, False, 1),
    Bottleneck(5, 96, 40, True, True, 2),
    Bottleneck(5, 240, 40, True, True, 1),
    Bottleneck(5, 240, 40, True, True, 1),
    Bottleneck(5, 120, 48, True, True, 1),
    Bottleneck(5, 144, 48, True, True, 1),
    Bottleneck(5, 288, 96, True, True, 2),
    Bottleneck(5, 576, 96, True, True, 1),
    Bottleneck(5, 576, 96, True, True, 1),
)


def rounded(channels: float) -> int:
    """The nearest multiple of 8, at least 8, and never more than a tenth below ``channels``."""
    near = max(8, int(channels + 4) // 8 * 8)
    return near + 8 if near < 0.9 * channels else near


class MobileNetTower(nn.Module):
    """Patch to features.

    Args:
        widths: the first one alone sets the size: the width multiplier is ``widths[0] / 64``.
    """

    def __init__(self, widths: tuple[int, ...]) -> None:
        super().__init__()
        multiplier = widths[0] / FULL_WIDTH

        def scaled(channels: int) -> int:
            return rounded(channels * multiplier)

        outputs = (scaled(STEM), *(scaled(row.out) for row in SMALL))
        self.layers = nn.Sequential(
            _convolution(1, outputs[0], 3, nn.Hardswish()),
            *(_InvertedResidual(outputs[i], scaled(row.expanded), outputs[i + 1], row) for i, row in enumerate(SMALL)),
            _convolution(outputs[-1], scaled(LAST), 1, nn.Hardswish()),
            nn.AdaptiveAvgPool3d(1),
            nn.Flatten(),
            nn.Linear(scaled(LAST), scaled(HIDDEN)),
            nn.Hardswish(),
        )
        self.n_features = scaled(HIDDEN)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, 1, 50, 50, 20)`` to ``(B, n_features)``."""
        features: Tensor = self.layers(x)
        return features


class _InvertedResidual(nn.Module):
    """Expand, filter each channel by itself, weigh the channels, project; added to the input where shapes allow."""

    def __init__(self, channels_in: int, expanded: int, channels_out: int, row: Bottleneck) -> None:
        super().__init__()

        def activation() -> nn.Module:
            return nn.Hardswish() if row.hard_swish else nn.ReLU()

        layers: list[nn.Module] = []
        if expanded != channels_in:
            layers.append(_convolution(channels_in, expanded, 1, activation()))
        layers.append(_convolution(expanded, expanded, row.kernel, activation(), row.stride, groups=expanded))
        if row.squeeze:
            layers.append(_SqueezeExcitation(expanded))
        layers.append(_convolution(expanded, channels_out, 1, None))
        self.layers = nn.Sequential(*layers)
        self.residual = row.stride == 1 and channels_in == channels_out

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layers(x)
        return x + out if self.residual else out


class _SqueezeExcitation(nn.Module):
    """A weight for each channel from the means of all (Hu et al. 2018), with the paper's hard sigmoid."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = rounded(channels / 4)
        self.gate = nn.Sequential(
            nn.AdaptiveAvgPool3d(1),
            nn.Conv3d(channels, hidden, 1),
            nn.ReLU(),
            nn.Conv3d(hidden, channels, 1),
            nn.Hardsigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        weighted: Tensor = x * self.gate(x)
        return weighted


def _convolution(
    channels_in: int, channels_out: int, kernel: int, activation: nn.Module | None, stride: int = 1, groups: int = 1
) -> nn.Sequential:
    convolution = nn.Conv3d(channels_in, channels_out, kernel, stride, padding=kernel // 2, groups=groups, bias=False)
    layers = [convolution, nn.BatchNorm3d(channels_out), activation]
    return nn.Sequential(*(layer for layer in layers if layer is not None))
