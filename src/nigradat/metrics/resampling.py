"""Confidence intervals by resampling PATIENTS: both sides of a patient go together.

A statistic is a function of patient indices: it takes an integer array ``(..., n)`` and returns an array ``(...)``.
The metrics of this package reduce the last axis, so ``lambda i: rmse(truth[i], predicted[i])`` is one already, and a
block of resamples costs one call. Wrap a function that can do only one sample with :func:`one_at_a_time`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import numpy.typing as npt
from scipy import special

from nigradat.errors import CohortError, ConfigError
from nigradat.metrics.cases import Array, Metric, PerSide, cases, check_level, per_side, reduced

Indices = npt.NDArray[np.intp]
Statistic = Callable[[Indices], npt.ArrayLike]
Statistics = Callable[[Indices], Mapping[str, npt.ArrayLike]]

RESAMPLES: Final = 2000
_BLOCK: Final = 500_000  # indices per call: a block's float64 arrays stay near the caches


@dataclass(frozen=True)
class Estimate:
    """A value with its bootstrap interval over patients.

    Attributes:
        value: the statistic of the patients as they are.
        low, high: ends of the interval; nan where it is undefined.
        level: confidence level.
        method: ``bca``; ``delong`` for an area under the ROC curve whose standard error has a closed form;
            ``percentile`` where the acceleration or bias correction is degenerate (a jackknife
            without variance, or all resamples on one side of the value); ``undefined`` where the value is not
            finite or fewer than half of the resamples have one.
        n_patients, resamples: what it rests on.
        undefined: resamples left out because the statistic was not finite there.
    """

    value: float
    low: float
    high: float
    level: float
    method: Literal["bca", "percentile", "delong", "undefined"]
    n_patients: int
    resamples: int
    undefined: int = 0


def bca(
    statistic: Statistic, n_patients: int, *, seed: int, level: float = 0.95, resamples: int = RESAMPLES
) -> Estimate:
    """Bias-corrected and accelerated bootstrap interval over patients; acceleration from the patient jackknife.

    Source: Efron, J Am Stat Assoc 1987, 82, 171.

    Args:
        statistic: takes patient indices ``(..., n)``, returns ``(...)``.
        n_patients: how many patients there are.
        seed: the same seed gives the same resamples, for whatever statistic.
        level: confidence level.
        resamples: bootstrap resamples.

    Raises:
        CohortError: fewer than two patients, or a statistic that returns another shape.
        ConfigError: a level outside 0..1, or fewer than 100 resamples.

    Example:
        >>> import numpy as np
        >>> from nigradat.metrics.error import mae
        >>> rng = np.random.default_rng(0)
        >>> truth = rng.uniform(1, 4, 55)
        >>> predicted = truth + rng.normal(0, 0.5, 55)
        >>> estimate = bca(lambda i: mae(truth[i], predicted[i]), 55, seed=1)
        >>> estimate.method, estimate.low < estimate.value < estimate.high
        ('bca', True)
    """
    return bca_many(lambda i: {"": statistic(i)}, n_patients, seed=seed, level=level, resamples=resamples)[""]


def bca_many(
    statistics: Statistics, n_patients: int, *, seed: int, level: float = 0.95, resamples: int = RESAMPLES
) -> dict[str, Estimate]:
    """:func:`bca` for several statistics on the same resamples: one function returns them all by name, so that a
    block's arrays are gathered once.

    Raises:
        CohortError, ConfigError: as :func:`bca`.
    """
    check_level(level)
    if n_patients < 2:
        raise CohortError(f"{n_patients} patients", "at least 2 to resample")
    if resamples < 100:
        raise ConfigError(f"{resamples} bootstrap resamples", "at least 100 (2000 for a table)")
    value = _evaluate(statistics, iter([np.arange(n_patients)[None]]))
    boot = _evaluate(statistics, _bootstrap_blocks(n_patients, resamples, seed))
    jack = _evaluate(statistics, _jackknife_blocks(n_patients))
    return {name: interval_of(float(value[name][0]), boot[name], jack[name], level, n_patients) for name in value}


def paired_difference(
    first: Statistic, second: Statistic, n_patients: int, *, seed: int, level: float = 0.95, resamples: int = RESAMPLES
) -> Estimate:
    """``first - second`` of two predictors of the same patients, each resample drawn once for both.

    Raises:
        CohortError, ConfigError: as :func:`bca`.
    """
    return bca(
        lambda i: reduced(first(i)) - reduced(second(i)), n_patients, seed=seed, level=level, resamples=resamples
    )


def bca_per_side(
    metrics: Mapping[str, Metric],
    *arrays: npt.ArrayLike,
    seed: int,
    level: float = 0.95,
    resamples: int = RESAMPLES,
) -> dict[str, PerSide[Estimate]]:
    """Metrics of right, left and their average with intervals: one row each of the paper's table.

    Args:
        metrics: by name; each takes as many arrays ``(..., n)`` as are given here.
        arrays: shape ``(n, 2)`` each, right first.
        seed, level, resamples: as :func:`bca`.

    Raises:
        CohortError, ConfigError: as :func:`bca`; arrays that are not ``(n, 2)``.
    """
    both = cases(*arrays)
    if both[0].ndim != 2 or both[0].shape[1] != 2:
        raise CohortError(f"arrays of shape {both[0].shape}", "shape (n, 2), right first")

    def statistics(index: Indices) -> dict[str, Array]:
        drawn = [a[index] for a in both]
        out: dict[str, Array] = {}
        for name, metric in metrics.items():
            values = per_side(metric, *drawn)
            out |= {f"{name}/right": values.right, f"{name}/left": values.left, f"{name}/average": values.average}
        return out

    done = bca_many(statistics, len(both[0]), seed=seed, level=level, resamples=resamples)
    return {name: PerSide(*(done[f"{name}/{part}"] for part in ("right", "left", "average"))) for name in metrics}


def one_at_a_time(function: Callable[[Indices], float]) -> Statistic:
    """A statistic from a function that takes the indices ``(n,)`` of ONE sample."""

    def statistic(index: Indices) -> Array:
        return reduced([function(row) for row in index.reshape(-1, index.shape[-1])]).reshape(index.shape[:-1])

    return statistic


def _bootstrap_blocks(n: int, resamples: int, seed: int) -> Iterator[Indices]:
    rng = np.random.default_rng(seed)
    rows = max(1, _BLOCK // n)
    for start in range(0, resamples, rows):
        yield rng.integers(0, n, (min(rows, resamples - start), n))


def _jackknife_blocks(n: int) -> Iterator[Indices]:
    everyone = np.arange(n - 1)
    rows = max(1, _BLOCK // n)
    for start in range(0, n, rows):
        left_out = np.arange(start, min(start + rows, n))[:, None]
        yield everyone + (everyone >= left_out)


def _evaluate(statistics: Statistics, blocks: Iterator[Indices]) -> dict[str, Array]:
    """The named statistics of every row of every block."""
    collected: dict[str, list[Array]] = {}
    for index in blocks:
        for name, values in statistics(index).items():
            row_values = reduced(values)
            if row_values.shape != index.shape[:-1]:
                raise CohortError(
                    f"a statistic that gives shape {row_values.shape} for indices of shape {index.shape}",
                    "one value for each row of indices",
                    "Wrap a function of one sample with one_at_a_time",
                )
            collected.setdefault(name, []).append(row_values)
    return {name: np.concatenate(parts) for name, parts in collected.items()}


def interval_of(value: float, boot: Array, jackknife: Array, level: float, n: int) -> Estimate:
    """An estimate from a statistic's value, its values in each resample and without each of ``n`` patients."""
    defined = boot[np.isfinite(boot)]
    undefined = boot.size - defined.size
    if not np.isfinite(value) or 2 * defined.size < boot.size:
        return Estimate(value, np.nan, np.nan, level, "undefined", n, boot.size, undefined)
    tails = np.array([(1 - level) / 2, (1 + level) / 2])
    adjusted = _bca_tails(value, defined, jackknife, tails)
    method: Literal["bca", "percentile"] = "percentile" if adjusted is None else "bca"
    low, high = np.quantile(defined, tails if adjusted is None else adjusted)
    return Estimate(value, float(low), float(high), level, method, n, boot.size, undefined)


def _bca_tails(value: float, boot: Array, jackknife: Array, tails: Array) -> Array | None:
    """The percentiles that BCa reads off instead of the nominal ``tails``; None where they are not defined."""
    below = (np.mean(boot < value) + np.mean(boot <= value)) / 2  # ties count half
    with np.errstate(invalid="ignore"):  # a statistic without a finite value for some left-out patient
        deviation = jackknife.mean() - jackknife
    square = np.sum(deviation**2)
    # deviations that are nothing but rounding have no skewness to speak of
    rounding = jackknife.size * (np.finfo(float).eps * np.abs(jackknife).max()) ** 2
    if not 0 < below < 1 or not np.isfinite(square) or square <= rounding:
        return None
    acceleration = np.sum(deviation**3) / (6 * square**1.5)
    z = special.ndtri(below) + special.ndtri(tails)
    shrink = 1 - acceleration * z
    if (shrink <= 0).any():  # beyond its pole the correction turns round
        return None
    return reduced(special.ndtr(special.ndtri(below) + z / shrink))
