"""ResNet-18 in 3D: MONAI's, without its classifier.

Source: He et al., CVPR 2016 (18 layers, basic blocks, projection shortcuts); MONAI's network is the 3D form of it that
Hara et al. (2018) used. What is chosen here: one input channel; the original's first stride of 2 (MONAI's default is
1); no bias in the projections, whose batch normalisation would cancel it. The patch shrinks from 50 x 50 x 20 to
2 x 2 x 1 voxels, whose mean is the features.

MONAI is an optional part (extra ``monai``) and takes seconds to import, so it is imported when a net is built.
"""

from __future__ import annotations

from torch import Tensor, nn

from nigradat.errors import MissingExtraError

BLOCKS = (2, 2, 2, 2)


class ResNetTower(nn.Module):
    """Patch to features.

    Args:
        widths: channels of the four stages; the first layer has those of the first stage.

    Raises:
        MissingExtraError: MONAI is not installed.
    """

    def __init__(self, widths: tuple[int, ...]) -> None:
        super().__init__()
        try:
            from monai.networks.nets.resnet import ResNet
        except ModuleNotFoundError as error:
            raise MissingExtraError(error.name or "monai", "monai") from error
        self.net = ResNet(
            "basic",
            list(BLOCKS),
            list(widths),
            spatial_dims=3,
            n_input_channels=1,
            conv1_t_size=7,
            conv1_t_stride=2,
            bias_downsample=False,
            feed_forward=False,
        )
        self.n_features = widths[-1]

    def forward(self, x: Tensor) -> Tensor:
        """``(B, 1, 50, 50, 20)`` to ``(B, n_features)``."""
        features: Tensor = self.net(x)
        return features
