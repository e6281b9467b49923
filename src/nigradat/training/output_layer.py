"""The last step of a fit: the output layer moves half way to its closed form on the features of the finished tower.

Steps of gradient descent with dropout leave an output layer that still carries their noise. Given the tower, the
symmetric loss with a ridge penalty is quadratic but for its dead zone (differences up to eps are free, 0.04 of the
scale), which is left out here; so its minimum is one linear system. The layer that is kept is the mean of the trained
one and that minimum: it predicts as well as the minimum alone, whose dropout spread no longer knows where errors are.
OUR step, not the paper's; what it is worth stands in ``docs/explanation/recipe.md``.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import torch
from torch import Tensor

from nigradat.io.pack import PackedCohort
from nigradat.models.symmetric import PairRegressor
from nigradat.training.augment import Augmentation, apply_augmentation, draw_augmentation
from nigradat.training.config import TrainConfig
from nigradat.training.data import PairBatches, mix
from nigradat.training.loss import TYPICAL_SD
from nigradat.training.warm_up import nets_of

SHARE: Final = 0.5  # of the way from the trained layer to the solved one
PASSES: Final = 4  # over the training patients, each moved anew: as many labels, four times the positions
_BATCH: Final = 16
_LEAST: Final = 1e-12  # a tower that is dead has features without energy, and its weights are 0
_STREAM: Final = 4  # of random numbers; 1 to 3 are those of the fit


def solve_output_layer(model: PairRegressor, cohort: PackedCohort, rows: np.ndarray, config: TrainConfig) -> None:
    """Move a model's output layers half way to the best ones for these training visits, in place.

    With a log-normal head the mean of log SBR is solved, each case weighted as its likelihood weights it (by the SD
    that the trained layer gives, which stays), without the symmetric term: that one is not quadratic in logs.

    Args:
        model: trained, on the device that computes; in evaluation mode afterwards.
        cohort: the patches are read batch by batch.
        rows: training visits.
        config: of the fit. ``output_penalty`` times the mean squared length of a patch's features (about their mean)
            is the price of the weights' squared length, beside the sum of squared errors over the patches.
    """
    model.eval()
    recipe = Augmentation(**{**config.to_json()["augmentation"], "ramp_epochs": 0})
    device = next(model.parameters()).device
    system = _System(model, config)
    with torch.inference_mode():
        for turn in range(PASSES):
            for x, target, place in PairBatches(cohort, rows, _BATCH):
                draw = draw_augmentation(recipe, len(x), mix(config.seed, _STREAM, turn, place.number))
                x, target = apply_augmentation(x.to(device), target.to(device), draw)
                system.add(model.features(x), target[..., 0] / config.sbr_max)
    system.solve(config.output_penalty)


class _System:
    """The normal equations of all output layers at once, in double precision: a symmetric term ties separate nets."""

    def __init__(self, model: PairRegressor, config: TrainConfig) -> None:
        self.model = model
        self.nets = list(nets_of(model))
        self.is_log = model.spec.output == "log-normal"
        both = len(model.sides) == 2
        self.symmetry = config.resolved_symmetry_weight if both and not self.is_log else 0.0
        lengths = [net.tower.n_features + 1 for net, _ in self.nets]  # weights, then the bias
        self.parts = [slice(end - length, end) for end, length in zip(np.cumsum(lengths), lengths, strict=True)]
        size = sum(lengths)
        self.left, self.tie = (torch.zeros(size, size, dtype=torch.float64) for _ in range(2))
        self.right = torch.zeros(size, dtype=torch.float64)

    def add(self, features: Tensor, target: Tensor) -> None:
        """Some pairs: ``(B, 2, n_features)`` and ``(B, 2)`` in units of SBR / sbr_max."""
        weight = torch.ones_like(target)
        if self.is_log:
            weight = TYPICAL_SD / self.model.distribution(features)[1]  # beta-NLL with beta = 1/2
            target = target.log()
        seen = torch.zeros(len(features), 2, len(self.right), dtype=torch.float64)
        for (_, columns), part in zip(self.nets, self.parts, strict=True):
            with_bias = torch.nn.functional.pad(features[:, columns], (0, 1), value=1.0)
            seen[:, columns, part] = with_bias.double().cpu()
        sides = [side.index for side in self.model.sides]
        rows, wanted = seen[:, sides].flatten(0, 1), target[:, sides].double().cpu().flatten()
        weighted = rows * weight[:, sides].double().cpu().flatten()[:, None]
        self.left += weighted.T @ rows
        self.right += weighted.T @ wanted
        if self.symmetry:
            difference = seen[:, 1] - seen[:, 0]
            self.tie += self.symmetry * difference.T @ difference

    def solve(self, penalty: float) -> None:
        """Move the layers of the model half way there."""
        system = self.left / PASSES
        for part in self.parts:
            block = system[part, part]
            count, mean = block[-1, -1], block[:-1, -1] / block[-1, -1]
            energy = block[:-1, :-1].diagonal().sum() / count - mean @ mean  # of one patch, about the mean patch
            block[:-1, :-1].diagonal().add_(max(penalty * float(energy), _LEAST))
        found = torch.linalg.solve(system + self.tie / PASSES, self.right / PASSES)
        for (net, _), part in zip(self.nets, self.parts, strict=True):
            net.head.weight.data[0].lerp_(found[part][:-1].to(net.head.weight), SHARE)
            net.head.bias.data[0].lerp_(found[part][-1].to(net.head.bias), SHARE)
