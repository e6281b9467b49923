"""The symmetric loss, for an SBR and for a log-normal distribution of it. Needs torch alone, so that it runs wherever a
GPU box has just that."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from nigradat.models.head import log_normal_mean

PAPER_EPS = 0.04  # read off the published graph: max(d^2, 0.0016) - 0.0016
BETA = 0.5  # Seitzer 2022's recommendation
TYPICAL_SD = 0.33  # of log SBR
# At a typical label (0.32 of the scale) with that SD the scaled likelihood has the slope of the
# squared error in mu, 2 y^2 (mu - log y), so that learning rate, clipping and lambda serve both losses.
LIKELIHOOD_SCALE = 2 * 0.32**2 * TYPICAL_SD


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
    sides = _answered(predicted)
    errors = (predicted[:, sides] - target[:, sides]) ** 2
    return errors.mean(dim=0).sum() + _asymmetry(predicted[:, sides], weight, eps)


def log_normal_nll(mu: Tensor, sd: Tensor, target: Tensor) -> Tensor:
    """Minus the log density of ``target`` where ``log target ~ N(mu, sd^2)``, element by element.

    Args:
        mu, sd, target: of one shape; ``sd`` and ``target`` above 0.
    """
    z = torch.log(target)
    return z + torch.log(sd) + 0.5 * math.log(2 * math.pi) + 0.5 * ((z - mu) / sd) ** 2


def log_normal_loss(
    mu: Tensor, sd: Tensor, target: Tensor, weight: float, eps: float = PAPER_EPS, beta: float = BETA
) -> Tensor:
    """The symmetric loss with the likelihood of a log-normal SBR in place of the squared error (an extension).

    ``c mean(sd^(2 beta) nll)`` of each side, the factor ``sd^(2 beta)`` without gradient (beta-NLL; Seitzer et al.,
    ICLR 2022): with the plain likelihood (``beta = 0``) cases that are thought noisy hardly teach the mean any more.
    The symmetric term is that of :func:`symmetric_loss`, on the conditional means.

    Args:
        mu, sd: ``(B, 2)`` mean and SD of ``log(SBR / sbr_max)``, right first; NaN as in :func:`symmetric_loss`.
        target: ``(B, 2)``, SBR / sbr_max, above 0.
        weight, eps: see :func:`symmetric_loss`.
        beta: from 0 (likelihood) to 1 (the mean learns as from a squared error).

    Returns:
        A scalar, ``c`` being :data:`LIKELIHOOD_SCALE`; it may be negative.
    """
    sides = _answered(mu)
    mu, sd, target = mu[:, sides], sd[:, sides], target[:, sides]
    errors = LIKELIHOOD_SCALE * sd.detach() ** (2 * beta) * log_normal_nll(mu, sd, target)
    loss = errors.mean(dim=0).sum()
    return loss + _asymmetry(log_normal_mean(mu, sd), weight, eps) if weight else loss


def stop_errors(predicted: Tensor, target: Tensor) -> dict[str, float]:
    """``stop_mse``, ``stop_mae`` and ``stop_r`` over all cases at once (never a mean of batch values).

    Args:
        predicted, target: ``(n, 2)`` SBR; NaN predictions belong to a side without an answer and are left out.
    """
    p, t = predicted.double().cpu().numpy(), target.double().cpu().numpy()
    answered = ~np.isnan(p)
    p, t = p[answered], t[answered]
    varied = len(p) > 1 and np.ptp(p) > 0 and np.ptp(t) > 0  # a correlation needs that
    return {
        "stop_mse": float(np.mean((p - t) ** 2)) if len(p) else float("nan"),
        "stop_mae": float(np.mean(np.abs(p - t))) if len(p) else float("nan"),
        "stop_r": float(np.corrcoef(p, t)[0, 1]) if varied else float("nan"),
    }


def _answered(predicted: Tensor) -> slice:
    """The one side that a one-sided model answers for, or both, also where both are NaN: that one has diverged."""
    right, left = (~torch.isnan(predicted.detach()).all(dim=0)).tolist()
    return slice(None) if right == left else slice(0, 1) if right else slice(1, 2)


def _asymmetry(predicted: Tensor, weight: float, eps: float) -> Tensor | float:
    if not weight or predicted.shape[1] == 1:
        return 0.0
    d = predicted[:, 1] - predicted[:, 0]
    return weight * (torch.clamp(d**2, min=eps**2) - eps**2).mean()
