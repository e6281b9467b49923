"""VGG-16 in 3D: configuration D of Simonyan and Zisserman (ICLR 2015), thirteen convolutions and three dense layers.

Three things are adapted to the patch and to a few hundred patients:

- Kernels, strides and poolings have a third axis. The patch is 20 slices deep, and 20 can be halved four times
  (10, 5, 2, 1): the fifth pooling acts in plane only (3 x 3 x 1 to 1 x 1 x 1).
- The two hidden dense layers have as many units as the last block has channels. The original's 4,096 take 25,088
  inputs; here one voxel of ``widths[-1]`` channels is left, and at full width 4,096 units would add 19 million
  parameters to the convolutions' 44 million without adding anything to be seen.
- The third dense layer is the regressor's linear output, and the original's dropout before it is the head's dropout.

No batch normalisation, as in the original.
"""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn

from nigradat.models.vgg import before_dropout, from_dropout, vgg_block

CONVOLUTIONS = (2, 2, 3, 3, 3)
POOLS: tuple[tuple[int, int, int], ...] = ((2, 2, 2),) * 4 + ((2, 2, 1),)


class Vgg16Tower(nn.Module):
    """Patch to features.

    Args:
        widths: channels of the first four blocks; the fifth is as wide as the fourth, as in the original.
        block_dropout: rate after each pooling.
    """

    def __init__(self, widths: tuple[int, ...], block_dropout: float = 0.0) -> None:
        super().__init__()
        channels = (1, *widths, widths[-1])
        self.blocks = nn.Sequential(
            *(
                vgg_block(channels[i], channels[i + 1], block_dropout, convolutions=n, pool=POOLS[i])
                for i, n in enumerate(CONVOLUTIONS)
            )
        )
        self.n_features = widths[-1]
        self.dense = nn.Sequential(
            OrderedDict(
                flatten=nn.Flatten(),
                dense1=nn.Linear(widths[-1], widths[-1]),
                relu1=nn.ReLU(inplace=True),
                dense2=nn.Linear(widths[-1], widths[-1]),
                relu2=nn.ReLU(inplace=True),
            )
        )

    def forward(self, x: Tensor) -> Tensor:
        """``(B, 1, 50, 50, 20)`` to ``(B, n_features)``."""
        features: Tensor = self.dense(self.blocks(x))
        return features

    def stem(self, x: Tensor) -> Tensor:
        """What comes before the first dropout; ``rest(stem(x))`` is ``forward(x)``."""
        return before_dropout(self.blocks, x)

    def rest(self, x: Tensor) -> Tensor:
        """From the first dropout to the features."""
        features: Tensor = self.dense(from_dropout(self.blocks, x))
        return features
