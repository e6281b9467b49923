"""The symmetric loss. Imports torch alone, so that it runs wherever a GPU box has just that."""

from __future__ import annotations

import torch
from torch import Tensor

PAPER_EPS = 0.04  # read off the published graph: max(d^2, 0.0016) - 0.0016


def symmetric_loss(predicted: Tensor, target: Tensor, weight: float, eps: float = PAPER_EPS) -> Tensor:
    """``MSE_R + MSE_L + weight * mean(max(d^2, eps^2) - eps^2)`` with ``d = f_L - f_R``.

    The form is that of the published graph, where the weight is 0 (Sym. VGG). The weight of the proposed model
    (Sym. VGG+) is not known; any value above 0 is a reconstruction.

    Args:
        predicted, target: ``(B, 2)`` in units of SBR / sbr_max, right first. A side whose predictions are all NaN,
            because the model does not answer for it, is left out; any other NaN makes the loss NaN.
        weight: lambda, >= 0.
        eps: side differences up to this are free.

    Returns:
        A scalar.
    """
    answered = ~torch.isnan(predicted.detach()).all(dim=0)
    if answered.sum() == 1:
        return ((predicted - target)[:, answered] ** 2).mean()
    loss = ((predicted - target) ** 2).mean(dim=0).sum()
    if weight:
        d = predicted[:, 1] - predicted[:, 0]
        loss = loss + weight * (torch.clamp(d**2, min=eps**2) - eps**2).mean()
    return loss
