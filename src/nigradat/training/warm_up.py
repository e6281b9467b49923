"""What a network learns before it sees a label, and keeps while it learns them.

A plain tower without normalisation that starts from random weights and a few hundred labels, with a third of their
variance noise, predicts the mean for many epochs and then learns the noise. Two measures against that, both ours and
not the paper's: each layer starts with outputs of unit variance on the training patches, and the tower first learns to
name six hand-made features of each patch, whose values cost nothing and carry no noise.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Final

import numpy as np
import torch
from torch import Tensor, nn

from nigradat.anatomy import Side
from nigradat.baselines import FEATURE_NAMES, read_features
from nigradat.io.pack import PackedCohort
from nigradat.models.head import start_values
from nigradat.models.symmetric import PairRegressor, SideRegressor

N_FEATURES: Final = len(FEATURE_NAMES)
_START_SD: Final = 0.25  # of predictions before the first label, in SDs of the labels
_MOST_DEAD: Final = 0.5  # of a tower's features; seen on the phantom: .83 and 1 in dead ones, up to .37 in others
_NORMALISATIONS = (nn.BatchNorm3d, nn.LayerNorm)


def unit_activations(model: PairRegressor, x: Tensor) -> None:
    """Scale and shift each convolution so that its output has mean 0 and variance 1 per channel on some patches.

    One pass from the first layer to the last. A tower with normalisation layers does it by itself and is left alone.
    Source: Mishkin & Matas 2016 (LSUV), Kraehenbuehl et al. 2016 (data-dependent initialisation).

    Args:
        model: fresh; changed in place.
        x: training patches in canonical view, ``(B, 2, 1, 50, 50, 20)``.
    """

    def standardise(module: nn.Conv3d, _: object, out: Tensor) -> Tensor:
        sd, mean = torch.std_mean(out, dim=(0, 2, 3, 4))
        sd = sd.clamp(min=1e-6)
        assert module.bias is not None
        module.weight /= sd[:, None, None, None, None]
        module.bias.copy_((module.bias - mean) / sd)
        return (out - mean[:, None, None, None]) / sd[:, None, None, None]

    for net, columns in nets_of(model):
        if any(isinstance(m, _NORMALISATIONS) for m in net.modules()):
            continue
        convolutions = [m for m in net.modules() if isinstance(m, nn.Conv3d)]
        handles = [c.register_forward_hook(standardise) for c in convolutions]
        try:
            _features(model, net, x, columns)
        finally:
            for handle in handles:
                handle.remove()


def start_heads(model: PairRegressor, x: Tensor | None, labels: np.ndarray, at_mean: bool) -> None:
    """Output layers that begin near the labels.

    Args:
        model: its tower as it is when the labels begin; changed in place.
        x: training patches in canonical view, ``(B, 2, 1, 50, 50, 20)``, on which the predictions are to have a quarter
            of the labels' SD: what random weights say is nothing but noise; None leaves the weights as they are.
        labels: of the training visits, ``(n, 2)`` in units of SBR / sbr_max.
        at_mean: begin at their mean, and not at 0.
    """
    for net, columns in nets_of(model):
        own = labels[:, columns]
        if at_mean:
            net.head.bias.data.copy_(torch.tensor(start_values(torch.from_numpy(own), model.spec.output)))
        if x is None:
            continue
        wanted = _START_SD * float((np.log(own) if model.spec.output == "log-normal" else own).std())
        with torch.no_grad():
            # the first output is the prediction itself, a second one its SD
            answer = _features(model, net, x, columns) @ net.head.weight[0]
            scale = wanted / answer.std().clamp(min=1e-6)
            net.head.weight[0] *= scale
            net.head.bias[0] -= scale * answer.mean()


def has_dead_tower(model: PairRegressor, x: Tensor) -> bool:
    """Whether some net says the same of every patch, as ReLUs do that the first steps of a warm-up have pushed below 0.

    No gradient brings such a tower back: it would learn labels with what little is left of it.

    Args:
        model: its tower as it is at the end of the warm-up.
        x: training patches in canonical view, ``(B, 2, 1, 50, 50, 20)``, ``B > 1``.
    """
    for net, columns in nets_of(model):
        features = _features(model, net, x, columns)
        if float((features == features[0]).all(dim=0).float().mean()) > _MOST_DEAD:
            return True
    return False


def nets_of(model: PairRegressor) -> Iterator[tuple[SideRegressor, list[int]]]:
    """Each net with the columns of the side axis that it answers for."""
    for name, net in model.nets.items():
        assert isinstance(net, SideRegressor)
        yield net, [side.index for side in Side if name in ("both", side.value)]


def _features(model: PairRegressor, net: SideRegressor, x: Tensor, columns: list[int]) -> Tensor:
    """Of the patches of these columns, as in training but without dropout and without gradients."""
    was_training, seen = net.training, model.as_seen(x)
    statistics = [(buffer, buffer.clone()) for buffer in net.buffers()]
    net.eval()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm3d):
            module.train()  # a fresh one has no statistics of its own yet
    with torch.no_grad():
        features = net.features(torch.cat([seen[:, i] for i in columns]))
        for buffer, before in statistics:
            buffer.copy_(before)
    net.train(was_training)
    return features


class FeatureNaming(nn.Module):
    """Linear layers from a model's features to the hand-made ones, zero to begin with; no part of the finished model.

    Args:
        model: one layer for each of its nets.
    """

    def __init__(self, model: PairRegressor) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=()):
            self.layers = nn.ModuleList(nn.Linear(net.tower.n_features, N_FEATURES) for net, _ in nets_of(model))
        for parameter in self.parameters():
            nn.init.zeros_(parameter)
        self.columns = [columns for _, columns in nets_of(model)]

    def forward(self, features: Tensor, target: Tensor) -> Tensor:
        """Mean squared error over the answered sides.

        Args:
            features: ``(B, 2, n_features)`` of the model.
            target: ``(B, 2, 6)``, standardised.
        """
        errors = [
            (layer(features[:, columns]) - target[:, columns]) ** 2
            for layer, columns in zip(self.layers, self.columns, strict=True)
        ]
        return torch.cat(errors, dim=1).mean()


def feature_targets(cohort: PackedCohort, rows: np.ndarray) -> Tensor:
    """The hand-made features of training visits, standardised over them and their sides.

    Args:
        cohort: patches are read one visit at a time.
        rows: training visits.

    Returns:
        ``(len(cohort), 2, 6)`` float32 by row of the cohort, NaN for all other visits.
    """
    found = read_features(cohort, rows, ["ridge"])["ridge"]
    flat = found.reshape(-1, N_FEATURES)
    sd = np.where(np.ptp(flat, axis=0) > 0, flat.std(axis=0), 1.0)
    out = np.full((len(cohort), 2, N_FEATURES), np.nan, dtype=np.float32)
    out[rows] = (found - flat.mean(axis=0)) / sd
    return torch.from_numpy(out)


def one_cycle(step: int, steps: int, rising: float = 0.2) -> float:
    """Learning rate at a step as a share of its peak: cosine from 1/25 up in the first part, and down to 4e-6.

    The shape of torch's ``OneCycleLR`` (Smith 2018) with its defaults, as a closed form so that two cycles can follow
    each other.
    """
    start, end = 1 / 25, 1 / 25e4
    top = rising * steps - 1

    def between(a: float, b: float, share: float) -> float:
        return b + (a - b) / 2 * (1 + math.cos(math.pi * share))

    if step <= top:
        return between(start, 1.0, step / top) if top > 0 else 1.0
    return between(1.0, end, min(1.0, (step - top) / (steps - 1 - top)))
