"""The candidates for the symmetric interval: by hand on tiny samples, and by what each of them has to satisfy."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from nigradat.errors import ConfigError
from nigradat.metrics.conformal import conformal_quantile
from nigradat.uncertainty.symmetric_mc import MODES, Fusion, Spread, fit_fusion, symmetric_spread

FUSION = Fusion(a=0.1, b=0.7, c=0.2, s0=0.3, s1=0.1)
EPS = 0.04 * 6.84
# one patient, two draws: right 1, 3 (mean 2, variance 2), left 4, 5 (mean 4.5, variance 1/2)
TINY = np.array([[[1.0, 4.0]], [[3.0, 5.0]]])
D2 = 2.5**2
# s3 by hand: draw 1 has d = 3, draw 2 has d = 2; weights exp(-(d^2 - eps^2) / (2 h^2)), h = .06 * 6.84
W1 = math.exp(-(3**2 - 2**2) / (2 * (0.06 * 6.84) ** 2))
W = (W1 / (1 + W1), 1 / (1 + W1))
FREE = 1 - W[0] ** 2 - W[1] ** 2
MU3 = (W[0] * 1 + W[1] * 3, W[0] * 4 + W[1] * 5)
VAR3 = (
    (W[0] * (1 - MU3[0]) ** 2 + W[1] * (3 - MU3[0]) ** 2) / FREE,
    (W[0] * (4 - MU3[1]) ** 2 + W[1] * (5 - MU3[1]) ** 2) / FREE,
)
BY_HAND: dict[str, tuple[tuple[float, float], tuple[float, float]]] = {
    "mc": ((2, 4.5), (2, 0.5)),
    "s1": ((2, 4.5), (1.25, 1.25)),
    "s2": ((3.25, 3.25), (1.25 + D2 / 4, 1.25 + D2 / 4)),
    "s2b": ((2, 4.5), (1.25 + D2 / 2, 1.25 + D2 / 2)),
    "s3": (MU3, VAR3),
    "s4": ((2, 4.5), (2 + 0.1 * (D2 - EPS**2), 0.5 + 0.1 * (D2 - EPS**2))),
    "s5": ((2, 4.5), (2, 0.5)),
    "s6": ((2, 4.5), (2, 2)),
    "s7": (
        (0.1 + 0.7 * 2 + 0.2 * 4.5, 0.1 + 0.7 * 4.5 + 0.2 * 2),
        (0.3**2 + (0.1 * 2.4) ** 2, 0.3**2 + (0.1 * 3.65) ** 2),
    ),
}


def spread_of(samples: np.ndarray, mode: str) -> Spread:
    return symmetric_spread(samples, mode, fusion=FUSION)  # type: ignore[arg-type]


def simulate(rng: np.random.Generator, n: int, draws: int = 12) -> tuple[np.ndarray, np.ndarray]:
    """Exchangeable patients: samples around predictions that err; the left side errs more than its spread says."""
    severity = rng.gamma(4, 0.6, (n, 1))
    truth = severity + rng.normal(0, 0.25, (n, 2))
    sigma = rng.gamma(4, 0.06, (n, 2)) * (0.5 + 0.3 * severity)
    predicted = truth + sigma * rng.normal(0, [1.0, 3.0], (n, 2)) + rng.normal(0, 0.2, (n, 1))
    return predicted + sigma * rng.normal(0, 1, (draws, n, 2)), truth


some_samples = hnp.arrays(
    np.float64, st.tuples(st.integers(2, 8), st.integers(1, 4), st.just(2)), elements=st.floats(0, 7, width=16)
)


def test_every_mode_is_tested_here() -> None:
    assert set(MODES) == BY_HAND.keys()


@pytest.mark.parametrize("mode", MODES)
def test_by_hand(mode: str) -> None:
    spread = spread_of(TINY, mode)
    centre, squared = BY_HAND[mode]
    assert spread.centre[0] == pytest.approx(centre)
    assert spread.spread[0] ** 2 == pytest.approx(squared)
    low, high = spread.interval(1.0)
    if mode != "s5":
        assert low[0] == pytest.approx(np.array(centre) - np.sqrt(squared))
        assert high[0] == pytest.approx(np.array(centre) + np.sqrt(squared))


def test_s5_by_hand() -> None:
    s = spread_of(TINY, "s5")
    r, left = math.sqrt(2), math.sqrt(0.5)
    low, high = s.interval(2.0)  # right 2 +- 2.83, left 4.5 +- 1.41, each widened by eps where it cuts
    assert low[0] == pytest.approx([max(2 - 2 * r, 4.5 - 2 * left - EPS), max(4.5 - 2 * left, 2 - 2 * r - EPS)])
    assert high[0] == pytest.approx([min(2 + 2 * r, 4.5 + 2 * left + EPS), min(4.5 + 2 * left, 2 + 2 * r + EPS)])
    low, high = s.interval(0.5)  # they do not meet: the hull
    assert low[0] == pytest.approx([2 - r / 2, 2 - r / 2 - EPS])
    assert high[0] == pytest.approx([4.5 + left / 2 + EPS, 4.5 + left / 2])


@pytest.mark.parametrize("mode", MODES)
@given(samples=some_samples, k=st.floats(0, 5), other_k=st.floats(0, 5))
@settings(max_examples=15)
def test_exchange_of_the_sides_exchanges_everything(mode: str, samples: np.ndarray, k: float, other_k: float) -> None:
    one, two = spread_of(samples, mode), spread_of(samples[:, :, ::-1], mode)
    assert two.centre[:, ::-1] == pytest.approx(one.centre)
    assert two.spread[:, ::-1] == pytest.approx(one.spread, abs=1e-9)
    ends, exchanged = one.interval([k, other_k]), two.interval([other_k, k])
    wide = np.ptp(samples) + 1
    for a, b in zip(ends, exchanged, strict=True):
        near = np.isclose(a, b[:, ::-1], atol=1e-9 * wide)
        if mode == "s5":  # a cut that is empty by a rounding error may fall either way
            cut_low = np.maximum(*_s5_ends(one, [k, other_k])[0])
            cut_high = np.minimum(*_s5_ends(one, [k, other_k])[1])
            near |= np.abs(cut_low - cut_high) < 1e-9 * wide
        assert near.all()


def _s5_ends(s: Spread, k: list[float]) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    own, other = (s.centre, s.spread), (s.centre[:, ::-1], s.spread[:, ::-1])
    return (
        (own[0] - np.array(k) * own[1], other[0] - np.array(k) * other[1] - EPS),
        (own[0] + np.array(k) * own[1], other[0] + np.array(k) * other[1] + EPS),
    )


@pytest.mark.parametrize("mode", MODES)
@given(samples=some_samples)
@settings(max_examples=15)
def test_a_patient_does_not_depend_on_the_others(mode: str, samples: np.ndarray) -> None:
    together = spread_of(samples, mode)
    for i in range(samples.shape[1]):
        alone = spread_of(samples[:, i : i + 1], mode)
        assert alone.centre[0] == pytest.approx(together.centre[i])
        assert alone.spread[0] == pytest.approx(together.spread[i], abs=1e-9)


@pytest.mark.parametrize("mode", ["s1", "s2", "s2b", "s3", "s4", "s5", "s6"])
@given(samples=some_samples, k=st.floats(0, 4))
@settings(max_examples=15)
def test_equal_sides_have_what_plain_dropout_has(mode: str, samples: np.ndarray, k: float) -> None:
    twins = np.repeat(samples[:, :, :1], 2, axis=2)
    plain, symmetric = spread_of(twins, "mc"), spread_of(twins, mode)
    assert symmetric.centre == pytest.approx(plain.centre)
    assert symmetric.spread == pytest.approx(plain.spread, abs=1e-9)
    low, high = symmetric.interval(k)
    assert low[:, 0] == pytest.approx(low[:, 1])
    assert high[:, 0] == pytest.approx(high[:, 1])


@pytest.mark.parametrize("mode", ["mc", "s1", "s2", "s2b", "s3", "s4", "s6", "s7"])
@given(samples=some_samples, ks=st.lists(st.floats(0, 10), min_size=2, max_size=5))
@settings(max_examples=15)
def test_intervals_grow_with_k(mode: str, samples: np.ndarray, ks: list[float]) -> None:
    spread = spread_of(samples, mode)
    ends = [spread.interval(k) for k in sorted(ks)]
    for (low, high), (lower, higher) in pairwise(ends):
        assert (lower <= low).all()
        assert (higher >= high).all()
    low, high = spread.interval(0.0)
    assert np.array_equal(low, high)


@pytest.mark.parametrize("mode", ["mc", "s1", "s3", "s6"])
def test_widths_vanish_with_the_dropout_rate(mode: str) -> None:
    """Closed form of head dropout: the spread goes as sqrt(p / (1 - p)), whatever the mode makes of it."""
    rng = np.random.default_rng(0)
    noise, centre = rng.normal(size=(50, 3, 2)), rng.uniform(1, 3, (3, 2))
    widths = [spread_of(centre + math.sqrt(p / (1 - p)) * noise, mode).spread.max() for p in (0.5, 0.1, 1e-3, 1e-9)]
    assert widths == sorted(widths, reverse=True)
    assert widths[-1] < 1e-3
    assert spread_of(np.broadcast_to(centre, noise.shape), mode).spread.max() < 1e-9


@pytest.mark.parametrize("mode", MODES)
@given(samples=some_samples, truth=st.floats(0, 7), extra=st.floats(0, 3), other_k=st.floats(0, 9))
@settings(max_examples=25)
def test_from_its_score_on_the_truth_is_covered(
    mode: str, samples: np.ndarray, truth: float, extra: float, other_k: float
) -> None:
    """For every k of the side from its score on, whatever the other side's k is."""
    spread = spread_of(samples, mode)
    y = np.full(spread.centre.shape, truth)
    score = spread.score(y)
    for i in range(len(y)):
        for side in (0, 1):
            if not np.isfinite(score[i, side]):
                continue
            k = np.full(2, other_k)
            k[side] = score[i, side] + extra
            low, high = spread.interval(k)
            assert low[i, side] - 1e-6 <= truth <= high[i, side] + 1e-6
            if mode != "s5" and score[i, side] > 1e-3:  # and for none below it
                k[side] = 0.999 * score[i, side]
                low, high = spread.interval(k)
                assert not low[i, side] + 1e-9 < truth < high[i, side] - 1e-9


def test_a_spread_of_zero_covers_its_centre_alone() -> None:
    spread = symmetric_spread(np.full((3, 1, 2), 2.0), "mc")
    assert spread.score([[2.0, 2.5]]).tolist() == [[0.0, math.inf]]


@pytest.mark.parametrize("mode", MODES)
def test_conformal_intervals_keep_their_promise(mode: str) -> None:
    """Exchangeable patients, scores without ties: a new one is covered with probability rank / (n + 1), per side."""
    n, tested, level, repeats = 30, 60, 0.9, 250
    rng = np.random.default_rng(sum(map(ord, mode)))
    fusion = fit_fusion(*simulate(rng, 100)) if mode == "s7" else None
    covered = np.zeros((repeats, 2))
    for i in range(repeats):
        samples, truth = simulate(rng, n + tested)
        spread = symmetric_spread(samples, mode, fusion=fusion)  # type: ignore[arg-type]
        scores = spread.score(truth)[:n]
        low, high = spread.interval([conformal_quantile(scores[:, side], level) for side in (0, 1)])
        covered[i] = ((low <= truth) & (truth <= high))[n:].mean(axis=0)
    rank = math.ceil((n + 1) * level)
    error = 4 * covered.std(axis=0) / math.sqrt(repeats)
    assert level <= rank / (n + 1) <= level + 1 / (n + 1)
    assert (covered.mean(axis=0) >= rank / (n + 1) - error).all()
    if mode != "s5":  # its hull may cover below the score, so it promises more than it must
        assert (covered.mean(axis=0) <= rank / (n + 1) + error).all()


def test_an_uncalibrated_multiplier_does_not() -> None:
    """What the test above would miss if it could not fail: k = 1.96 on the side that errs more than its spread says."""
    samples, truth = simulate(np.random.default_rng(1), 2000)
    low, high = symmetric_spread(samples, "mc").interval(1.96)
    assert ((low <= truth) & (truth <= high))[:, 1].mean() < 0.7


def test_fusion_finds_the_numbers_of_a_simulation() -> None:
    rng = np.random.default_rng(3)
    mu = rng.uniform(0.5, 5, (20_000, 2))
    centre = 0.2 + 0.6 * mu + 0.3 * mu[:, ::-1]
    truth = centre + np.sqrt(0.2**2 + (0.1 * centre) ** 2) * rng.normal(size=mu.shape)
    found = fit_fusion(mu + np.array([-0.1, 0.1])[:, None, None], truth)
    assert vars(found) == pytest.approx({"a": 0.2, "b": 0.6, "c": 0.3, "s0": 0.2, "s1": 0.1}, abs=0.02)


def test_fusion_needs_patients() -> None:
    with pytest.raises(ConfigError, match="at least 4"):
        fit_fusion(np.ones((5, 3, 2)), np.ones((3, 2)))


def test_what_cannot_be_done_is_refused() -> None:
    with pytest.raises(ConfigError, match="s2b"):
        symmetric_spread(TINY, "s9")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="fit_fusion"):
        symmetric_spread(TINY, "s7")
    for shape in [(1, 3, 2), (4, 3), (4, 3, 1)]:
        with pytest.raises(ConfigError, match="shape"):
            symmetric_spread(np.ones(shape))


@pytest.mark.parametrize("mode", MODES)
def test_one_sided_models_have_plain_dropout_only(mode: str) -> None:
    samples = np.array(TINY)
    samples[:, :, 0] = np.nan
    if mode != "mc":
        with pytest.raises(ConfigError, match="needs both sides"):
            spread_of(samples, mode)
        return
    spread = spread_of(samples, mode)
    assert np.isnan(spread.spread[0, 0])
    assert spread.spread[0, 1] ** 2 == pytest.approx(0.5)
