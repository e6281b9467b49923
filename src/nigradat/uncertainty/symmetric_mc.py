"""Symmetric MC prediction intervals: candidates for the paper's Algorithm 1, whose body is not known to us.

Every candidate here is a RECONSTRUCTION of "Symmetric MC prediction interval" (Applied Sciences 2025, 15, 10977),
except ``mc``, which is plain MC dropout, and ``s7``, which is an extension. From T samples of both sides under the same
network draws, each makes a centre ``c`` and a spread ``S`` per side; the interval is ``c +- k S`` with ``k`` from
calibration patients. The spread itself is no interval.

========  ==============================================================================================
mode      centre and squared spread of side s (mu, sigma: mean and SD over the samples; o: the other side)
========  ==============================================================================================
mc        mu_s; sigma_s^2
s1        mu_s; (sigma_R^2 + sigma_L^2) / 2: pooled variance (default)
s2        mean of both sides' samples; s1 + (mu_R - mu_L)^2 / 4: pooled samples, one interval for both sides
s2b       mu_s; mean squared distance of both sides' samples from mu_s
s3        mean and variance weighted by w_t ~ exp(-max(0, (r_t - l_t)^2 - eps^2) / (2 h^2)), h = .06
s4        mu_s; sigma_s^2 + g max(0, (mu_R - mu_L)^2 - eps^2), g = .1
s5        plain interval of s cut with that of o widened by eps; their hull where the cut is empty
s6        mu_s; max(sigma_R, sigma_L)^2
s7        a + b mu_s + c mu_o; s0^2 + (s1 c_s)^2, fitted on the stopping patients (extension, not the paper)
========  ==============================================================================================

A model with a noise of its own (log-normal head, an extension) adds it by the law of total variance: wherever a
variance sigma^2 over the samples stands above, sigma^2 + noise^2 of that side stands for it; in s3, whose weights are
those of draws, after the weighing. s7 is fitted to whole errors, so the noise is in it already.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, cast, get_args

import numpy as np
import numpy.typing as npt

from nigradat.errors import ConfigError
from nigradat.training.loss import PAPER_EPS

Array = npt.NDArray[np.float64]
SymmetricMode = Literal["mc", "s1", "s2", "s2b", "s3", "s4", "s5", "s6", "s7"]
MODES: tuple[str, ...] = get_args(SymmetricMode)
DEFAULT_MODE: SymmetricMode = "s1"

_EPS, _BANDWIDTH, _DISAGREEMENT = PAPER_EPS, 0.06, 0.1  # in units of SBR / sbr_max, as in the loss


def check_mode(mode: str) -> SymmetricMode:
    """A mode's name, or a :class:`~nigradat.errors.ConfigError` that lists them."""
    if mode not in MODES:
        raise ConfigError(f"no symmetric mode is called '{mode}'", ", ".join(MODES))
    return cast(SymmetricMode, mode)


@dataclass(frozen=True)
class Fusion:
    """The numbers of s7, in SBR: centre ``a + b mu_s + c mu_o``, spread ``sqrt(s0^2 + (s1 centre)^2)``."""

    a: float
    b: float
    c: float
    s0: float
    s1: float


@dataclass(frozen=True, eq=False)
class Spread:
    """Centres and spreads ``(n, 2)`` in SBR, right first.

    Attributes:
        centre, spread: see the module.
        cut_with_other: 0 or the widening (SBR) with which the other side's interval cuts this one (s5).
    """

    centre: Array
    spread: Array
    cut_with_other: float | None = None

    def score(self, truth: npt.ArrayLike) -> Array:
        """Smallest ``k`` from which on the interval covers the truth; ``(n, 2)``, inf where the spread is 0.

        For s5 this is the multiplier from which the cut itself covers; its hull may cover earlier, which makes a
        calibration by these scores err on the safe side.
        """
        y = np.asarray(truth, dtype=np.float64)
        own = _ratio(np.abs(y - self.centre), self.spread)
        if self.cut_with_other is None:
            return own
        distance = np.maximum(np.abs(y - self.centre[:, ::-1]) - self.cut_with_other, 0.0)
        return np.maximum(own, _ratio(distance, self.spread[:, ::-1]))

    def interval(self, k: npt.ArrayLike) -> tuple[Array, Array]:
        """Lower and upper ends ``(n, 2)`` at multipliers ``k`` (one, or one per side); not clipped.

        A side's own ``k`` also widens the other side's interval that cuts it, as in :meth:`score`; otherwise
        calibration side by side would not hold.
        """
        k = np.broadcast_to(np.asarray(k, dtype=np.float64), self.centre.shape)
        low, high = self.centre - k * self.spread, self.centre + k * self.spread
        if self.cut_with_other is None:
            return low, high
        other_low = self.centre[:, ::-1] - k * self.spread[:, ::-1] - self.cut_with_other
        other_high = self.centre[:, ::-1] + k * self.spread[:, ::-1] + self.cut_with_other
        cut_low, cut_high = np.maximum(low, other_low), np.minimum(high, other_high)
        empty = cut_low > cut_high
        return (
            np.where(empty, np.minimum(low, other_low), cut_low),
            np.where(empty, np.maximum(high, other_high), cut_high),
        )


def _ratio(distance: Array, spread: Array) -> Array:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(distance == 0, 0.0, distance / spread)


def symmetric_spread(
    samples: npt.ArrayLike,
    mode: SymmetricMode = DEFAULT_MODE,
    sbr_max: float = 6.84,
    fusion: Fusion | None = None,
    noise_sd: npt.ArrayLike | None = None,
) -> Spread:
    """Centre and spread of both sides from Monte-Carlo samples.

    Args:
        samples: ``(T, n, 2)`` SBR, right first, the same network draw for both sides of a sample.
        mode: a row of the module's table.
        sbr_max: the model's scale; eps and h are in its units.
        fusion: needed for ``s7``, see :func:`fit_fusion`.
        noise_sd: ``(n, 2)`` SBR, what the model itself says about the noise of a label; None for a model that does not.

    Raises:
        ConfigError: unknown mode, or one that needs both sides where the model answers for one.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> samples = rng.normal(2.0, [0.3, 0.5], size=(1000, 1, 2))
        >>> symmetric_spread(samples, "mc").spread.round(1).tolist()
        [[0.3, 0.5]]
        >>> symmetric_spread(samples, "s1").spread.round(2).tolist()
        [[0.41, 0.41]]
    """
    s = np.asarray(samples, dtype=np.float64)
    if s.ndim != 3 or s.shape[2] != 2 or len(s) < 2:
        raise ConfigError(f"samples of shape {s.shape}", "(T, n, 2) with T >= 2")
    check_mode(mode)
    one_sided = bool(np.isnan(s).all(axis=(0, 1)).any())
    if one_sided and mode != "mc":
        raise ConfigError(f"mode '{mode}' needs both sides, this model answers for one", "--symmetric-mode mc")
    noise = np.zeros(s.shape[1:]) if noise_sd is None else np.square(np.asarray(noise_sd, dtype=np.float64))
    if noise.shape != s.shape[1:]:
        raise ConfigError(f"noise of shape {noise.shape}", f"{s.shape[1:]}, one number a visit and side")
    mu, var = s.mean(axis=0), s.var(axis=0, ddof=1) + noise
    other = mu[:, ::-1]
    eps = _EPS * sbr_max
    disagreement = ((mu - other) ** 2).mean(axis=1, keepdims=True)
    pooled = np.repeat(var.mean(axis=1, keepdims=True), 2, axis=1)
    if mode == "mc":
        return Spread(mu, np.sqrt(var))
    if mode == "s1":
        return Spread(mu, np.sqrt(pooled))
    if mode == "s2":
        return Spread(np.repeat(mu.mean(axis=1, keepdims=True), 2, axis=1), np.sqrt(pooled + disagreement / 4))
    if mode == "s2b":
        # half of the samples are the side's own, half lie around the other side's mean
        return Spread(mu, np.sqrt(pooled + disagreement / 2))
    if mode == "s3":
        excess = np.maximum(0.0, (s[:, :, 1] - s[:, :, 0]) ** 2 - eps**2)
        logit = -excess / (2 * (_BANDWIDTH * sbr_max) ** 2)
        w = np.exp(logit - logit.max(axis=0))
        w = (w / w.sum(axis=0))[:, :, None]
        centre = (w * s).sum(axis=0)
        # reliability weights: the unbiased form, equal to ddof=1 for equal weights
        free = np.maximum(1 - (w**2).sum(axis=0), 1e-9)
        return Spread(centre, np.sqrt((w * (s - centre) ** 2).sum(axis=0) / free + noise))
    if mode == "s4":
        return Spread(mu, np.sqrt(var + _DISAGREEMENT * np.maximum(0.0, disagreement - eps**2)))
    if mode == "s5":
        return Spread(mu, np.sqrt(var), cut_with_other=eps)
    if mode == "s6":
        return Spread(mu, np.repeat(np.sqrt(var.max(axis=1, keepdims=True)), 2, axis=1))
    if fusion is None:
        raise ConfigError("mode 's7' without its fitted numbers", "fit_fusion on the stopping patients")
    centre = fusion.a + fusion.b * mu + fusion.c * other
    return Spread(centre, np.sqrt(fusion.s0**2 + (fusion.s1 * centre) ** 2))


def fit_fusion(samples: npt.ArrayLike, truth: npt.ArrayLike) -> Fusion:
    """The five numbers of s7 from patients that neither trained the weights nor calibrate.

    Least squares for the centre, maximum likelihood of a normal error for the spread.

    Args:
        samples: ``(T, n, 2)`` SBR.
        truth: ``(n, 2)`` SBR.

    Raises:
        ConfigError: fewer than 4 patients.
    """
    from scipy import optimize

    mu, y = np.asarray(samples, dtype=np.float64).mean(axis=0), np.asarray(truth, dtype=np.float64)
    if len(mu) < 4:
        raise ConfigError(f"{len(mu)} patients for the fusion", "at least 4")
    design = np.stack([np.ones(mu.size), mu.ravel(), mu[:, ::-1].ravel()], axis=1)
    a, b, c = np.linalg.lstsq(design, y.ravel(), rcond=None)[0]
    centre = design @ np.array([a, b, c])
    squared = (y.ravel() - centre) ** 2

    def nll(log_numbers: Array) -> float:
        s0, s1 = np.exp(log_numbers)
        var = s0**2 + (s1 * centre) ** 2
        return float(np.mean(np.log(var) + squared / var))

    start = np.log([0.5 * np.sqrt(squared.mean()), 0.5 * np.sqrt(squared.mean()) / max(abs(centre).mean(), 1e-6)])
    found = optimize.minimize(nll, start, method="Nelder-Mead").x
    return Fusion(float(a), float(b), float(c), *(float(v) for v in np.exp(found)))
