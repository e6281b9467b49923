"""What the numbers of an output layer mean: one a side is the SBR itself, two are a log-normal distribution of it.

The log-normal head is an EXTENSION, not the paper's: the error of an SBR grows with the SBR, on a log scale it hardly
does. So ``log y ~ N(mu(x), sd(x)^2)`` with ``y = SBR / sbr_max`` (heteroscedastic regression: Nix and Weigend 1994,
Kendall and Gal 2017). Imports torch alone, as the loss does.
"""

from __future__ import annotations

import math
from typing import Final, Literal

import torch
from torch import Tensor

Output = Literal["sbr", "log-normal"]
N_OUTPUTS: Final[dict[Output, int]] = {"sbr": 1, "log-normal": 2}  # numbers a side

SD_MIN, SD_MAX = 0.02, 1.5  # of log SBR: labels are stored to 0.01 SBR; all patients together have an SD near 0.55
_LOG_MAX = 3.0  # exponent at which a mean is held: 20 times the largest label, met by an untrained net only


def log_normal(raw: Tensor) -> tuple[Tensor, Tensor]:
    """``(..., 2)`` outputs to mean and SD of ``log(SBR / sbr_max)``, each ``(...)``.

    The SD is a sigmoid between :data:`SD_MIN` and :data:`SD_MAX`, so that neither the likelihood nor ``exp(sd^2)`` can
    run away.
    """
    return raw[..., 0], SD_MIN + (SD_MAX - SD_MIN) * torch.sigmoid(raw[..., 1])


def log_normal_mean(mu: Tensor, sd: Tensor) -> Tensor:
    """``E[y] = exp(mu + sd^2 / 2)``; the exponent is held at 3, where float32 is far from its end."""
    return torch.exp(torch.clamp(mu + sd**2 / 2, max=_LOG_MAX))


def log_normal_variance(mu: Tensor, sd: Tensor) -> Tensor:
    """``Var[y] = (exp(sd^2) - 1) exp(2 mu + sd^2)``."""
    return torch.expm1(sd**2) * log_normal_mean(mu, sd) ** 2


def expected(raw: Tensor, output: Output) -> Tensor:
    """``(..., k)`` outputs to the predicted SBR / sbr_max, ``(...)``: the number itself, or the conditional mean."""
    return log_normal_mean(*log_normal(raw)) if output == "log-normal" else raw[..., 0]


def start_values(labels: Tensor, output: Output) -> list[float]:
    """Biases from which an output layer that knows nothing answers with the training labels' own distribution.

    Args:
        labels: SBR / sbr_max of the training patients, any shape; above 0 for ``log-normal``.
        output: of the model.

    Returns:
        One number, the mean; or two, which :func:`log_normal` turns into the mean and SD of the log labels.
    """
    if output == "sbr":
        return [float(labels.mean())]
    logs = labels.double().log()
    share = (float(logs.std(correction=0)) - SD_MIN) / (SD_MAX - SD_MIN)
    share = min(max(share, 0.01), 0.99)  # equal labels, or absurd ones, still leave the SD a slope to learn on
    return [float(logs.mean()), math.log(share / (1 - share))]
