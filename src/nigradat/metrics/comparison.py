"""Is one method better than another? Tests of paired differences, of repeated splits and of dependent correlations.

Differences are of one number a patient (``|error|`` of the first method less that of the second, averaged over the
sides), because patients are what was drawn. A result that is not defined (no variance, too few values, a nan among
the inputs) is nan.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy import optimize, stats

from nigradat.errors import CohortError, ConfigError
from nigradat.metrics.cases import Array, cases, centred, check_level

_BLOCK: Final = 2_000_000  # signs per call: a block's float64 array stays at 16 MB
Flips = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class PermutationTest:
    """A sign-flip test of paired differences.

    Attributes:
        mean: mean difference.
        p: two-sided p-value, never 0.
        n: patients.
        exact: every assignment of signs was counted, not a sample of them.
    """

    mean: float
    p: float
    n: int
    exact: bool


@dataclass(frozen=True)
class CorrectedT:
    """A t test and interval over repeated splits, corrected for the patients that they share.

    Attributes:
        mean: mean difference over the splits.
        low, high: ends of its interval.
        t, p: statistic and two-sided p-value, ``replicates - 1`` degrees of freedom.
        replicates: splits.
    """

    mean: float
    low: float
    high: float
    t: float
    p: float
    replicates: int


@dataclass(frozen=True)
class DependentR:
    """A t test of two correlations with the same truth.

    Attributes:
        t: positive where the first correlation is the higher one.
        p: two-sided p-value.
        df: degrees of freedom.
    """

    t: float
    p: float
    df: int


def paired_permutation(differences: npt.ArrayLike, *, seed: int, permutations: int = 9999) -> PermutationTest:
    """Two-sided test that paired differences are symmetric about 0: the signs of whole patients are flipped.

    All ``2^n`` assignments are counted where half of them are no more than ``permutations`` (up to 14 patients by
    default; a mean and its mirror image count alike). Otherwise ``p = (b + 1) / (m + 1)`` with ``b`` of ``m`` random
    assignments at least as extreme as the one observed.

    Source: Fisher, The Design of Experiments, 1935; the added 1: Phipson and Smyth, Stat Appl Genet Mol Biol 2010,
    9, 39.

    Args:
        differences: shape ``(n,)``, one a patient.
        seed: of the random assignments.
        permutations: how many of them.

    Raises:
        CohortError: another shape, or no patients.
        ConfigError: fewer than one permutation.

    Example:
        >>> paired_permutation([0.1, 0.2, 0.3, 0.4], seed=0).p    # 2 of 16: all signs alike
        0.125
    """
    d = _one_each(differences)
    if permutations < 1:
        raise ConfigError(f"{permutations} permutations", "at least 1 (9999 for a table)")
    n, total = d.size, float(d.sum())
    exact = 2 ** (n - 1) <= permutations
    if not np.isfinite(d).all():
        return PermutationTest(total / n, math.nan, n, exact)
    # sums of the same numbers in another order differ by rounding; ties must not
    least = abs(total) - 1e-12 * float(np.abs(d).sum())
    blocks = _all_flips(n) if exact else _random_flips(n, permutations, seed)
    extreme = sum(int(np.count_nonzero(np.abs(total - 2 * (flips @ d)) >= least)) for flips in blocks)
    p = extreme / 2 ** (n - 1) if exact else (extreme + 1) / (permutations + 1)
    return PermutationTest(total / n, p, n, exact)


def nadeau_bengio(differences: npt.ArrayLike, n_train: int, n_test: int, level: float = 0.95) -> CorrectedT:
    """Corrected resampled t test of the differences of ``J`` splits of one cohort.

    Splits of one cohort share patients, so the variance of their mean is more than ``s^2 / J``. It is taken as
    ``s^2 (1/J + n_test/n_train)``. In k-fold cross-validation ``n_test/n_train`` is ``1/(k - 1)``. Cohorts drawn
    independently share nothing: ``n_test = 0`` gives the ordinary t test.

    Source: Nadeau and Bengio, Machine Learning 2003, 52, 239.

    Args:
        differences: shape ``(J,)``, one a split: the score of the first method less that of the second.
        n_train, n_test: patients in the training and in the test part of a split.
        level: confidence level of the interval.

    Returns:
        The test; nan but for the mean where there is one split only, or no variance about a mean of 0.

    Raises:
        CohortError: another shape, or no splits.
        ConfigError: parts of impossible sizes, or a level outside 0..1.
    """
    d = _one_each(differences)
    check_level(level)
    if n_train < 1 or n_test < 0:
        raise ConfigError(f"{n_train} training and {n_test} test patients", "n_train >= 1 and n_test >= 0")
    replicates, mean = d.size, float(np.mean(d))
    if replicates < 2:
        return CorrectedT(mean, math.nan, math.nan, math.nan, math.nan, replicates)
    df = replicates - 1
    se = math.sqrt(float(np.sum(centred(d) ** 2)) / df * (1 / replicates + n_test / n_train))
    half_width = float(stats.t.ppf((1 + level) / 2, df)) * se
    t = _ratio(mean, se)
    return CorrectedT(mean, mean - half_width, mean + half_width, t, _two_sided(t, df), replicates)


def holm(p: Mapping[str, float]) -> dict[str, float]:
    """P-values adjusted by Holm's step-down method, which holds the family-wise error whatever their dependence.

    Source: Holm, Scand J Stat 1979, 6, 65.

    Args:
        p: by name; nan marks a test that could not be made: it stays nan and does not count.

    Returns:
        Adjusted p-values in the same order.

    Raises:
        ConfigError: a number outside 0..1.

    Example:
        >>> holm({"a": 0.01, "b": 0.04, "c": float("nan"), "d": 0.03})
        {'a': 0.03, 'b': 0.06, 'c': nan, 'd': 0.06}
    """
    impossible = {name: value for name, value in p.items() if not (math.isnan(value) or 0 <= value <= 1)}
    if impossible:
        raise ConfigError(f"p-values of {impossible}", "numbers from 0 to 1, or nan for a test that was not made")
    adjusted = dict.fromkeys(p, math.nan)
    made = sorted((name for name in p if not math.isnan(p[name])), key=lambda name: p[name])
    largest = 0.0
    for rank, name in enumerate(made):
        largest = max(largest, min(1.0, (len(made) - rank) * p[name]))
        adjusted[name] = largest
    return adjusted


def minimum_detectable_difference(sd: float, n: int, *, power: float = 0.8, level: float = 0.95) -> float:
    """The mean paired difference that ``n`` patients show with the given power in a two-sided paired t test.

    Solved with the noncentral t distribution, both tails counted; the normal approximation
    ``(1.96 + 0.84) sd / sqrt(n)`` is too small when patients are few.

    Source: Cohen, Statistical Power Analysis for the Behavioral Sciences, 1988, chapter 2.

    Args:
        sd: standard deviation of the patients' differences, in their unit.
        n: patients.
        power: probability of a significant result.
        level: 1 less the significance level.

    Returns:
        The difference in the unit of ``sd``; nan for fewer than two patients or an ``sd`` that is nan.

    Raises:
        ConfigError: a negative ``sd``, a level outside 0..1, or a power not between ``1 - level`` and 1.

    Example:
        >>> round(minimum_detectable_difference(0.3, 55), 3)
        0.115
    """
    check_level(level)
    if not 1 - level < power < 1:
        raise ConfigError(f"a power of {power}", f"a number between {1 - level:g} (met by chance alone) and 1")
    if sd < 0:
        raise ConfigError(f"a standard deviation of {sd}", "a number >= 0")
    if n < 2 or math.isnan(sd):
        return math.nan
    df = n - 1
    critical = float(stats.t.ppf((1 + level) / 2, df))

    def excess_power(shift: float) -> float:
        # scipy's far tail on the other side turns to nan where it is below 1e-15
        wrong_side = np.nan_to_num(stats.nct.cdf(-critical, df, shift))
        return float(stats.nct.sf(critical, df, shift) + wrong_side) - power

    high = critical
    while excess_power(high) < 0:
        high *= 2
    return sd * float(optimize.brentq(excess_power, 0.0, high, xtol=1e-12)) / math.sqrt(n)


def williams(r_first: float, r_second: float, r_between: float, n: int) -> DependentR:
    """Williams' t test of two predictors' correlations with one truth, the same cases for both.

    Source: Williams, J R Stat Soc B 1959, 21, 396; recommended by Steiger, Psychol Bull 1980, 87, 245.

    Args:
        r_first, r_second: correlation of each predictor with the truth.
        r_between: correlation of the predictors with each other.
        n: independent cases: patients, not sides.

    Returns:
        The test with ``n - 3`` degrees of freedom; nan for fewer than four cases, a nan correlation, or two
        predictors that are one and the same.

    Raises:
        ConfigError: numbers that cannot be the correlations of three variables.
    """
    r = (r_first, r_second, r_between)
    determinant = 1 - sum(x * x for x in r) + 2 * math.prod(r)
    if any(abs(x) > 1 + 1e-12 for x in r) or determinant < -1e-9:
        raise ConfigError(f"correlations of {r}", "three correlations that can occur together")
    df = n - 3
    if df < 1:
        return DependentR(math.nan, math.nan, df)
    mean = (r_first + r_second) / 2
    spread = 2 * (n - 1) / df * max(determinant, 0.0) + mean**2 * (1 - r_between) ** 3
    t = _ratio((r_first - r_second) * math.sqrt((n - 1) * (1 + r_between)), math.sqrt(max(spread, 0.0)))
    return DependentR(t, _two_sided(t, df), df)


def _one_each(differences: npt.ArrayLike) -> Array:
    (d,) = cases(differences)
    if d.ndim != 1:
        raise CohortError(f"differences of shape {d.shape}", "shape (n,), one number each")
    return d


def _all_flips(n: int) -> Iterator[Flips]:
    """Every assignment of signs but for the mirror images: the first sign stays."""
    rows = max(1, _BLOCK // n)
    for start in range(0, 2 ** (n - 1), rows):
        code = np.arange(start, min(start + rows, 2 ** (n - 1)))[:, None]
        yield ((code >> np.arange(n)) & 1).astype(np.uint8)


def _random_flips(n: int, permutations: int, seed: int) -> Iterator[Flips]:
    rng = np.random.default_rng(seed)
    rows, row_bytes = max(1, _BLOCK // n), -(-n // 8)
    for start in range(0, permutations, rows):
        count = min(rows, permutations - start)
        random = np.frombuffer(rng.bytes(count * row_bytes), dtype=np.uint8)
        yield np.unpackbits(random.reshape(count, row_bytes), axis=1, count=n)


def _ratio(numerator: float, denominator: float) -> float:
    """``numerator / denominator`` with the limits of a t statistic: 0/0 is nan, anything else over 0 infinite."""
    if denominator == 0:
        return math.nan if numerator == 0 else math.copysign(math.inf, numerator)
    return numerator / denominator


def _two_sided(t: float, df: int) -> float:
    return 2 * float(stats.t.sf(abs(t), df))
