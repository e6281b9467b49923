"""What every candidate for the symmetric interval must do, asked of a whole network: patches in, intervals out.

Numbers in brackets are those of the reconstruction's list of validity tests. (1), (4) and (10) hold for every
candidate, (2) and (3) for s1, s3 and s6. What only data can say is measured by ``nigradat intervals``.
"""

from __future__ import annotations

import numpy as np
import pytest

from nigradat.anatomy import PATCH_SHAPE, mirror, mirror_pair
from nigradat.metrics.conformal import beta_binomial_range, conformal_quantile
from nigradat.metrics.intervals import coverage
from nigradat.models.symmetric import ModelSpec, PairRegressor, build
from nigradat.phantom.latents import sample_latents
from nigradat.phantom.oracle import oracle_predict
from nigradat.uncertainty.mc_dropout import draw_predictions
from nigradat.uncertainty.symmetric_mc import MODES, Fusion, Spread, fit_fusion, symmetric_spread

FUSION = Fusion(a=0.1, b=0.7, c=0.2, s0=0.3, s1=0.1)
K = np.array([1.3, 2.1])  # right and left have multipliers of their own
ROUNDING = {"rel": 1e-5, "abs": 1e-4}  # float32, and an untrained net's outputs are tens of SBR


def a_model(p: float = 0.3, output: str = "sbr") -> PairRegressor:
    spec = ModelSpec(widths=(2, 3, 3, 4), sharing="shared", head_dropout=p, output=output)  # type: ignore[arg-type]
    return build(spec, seed=6).eval()


def spread_of(
    model: PairRegressor, patches: np.ndarray, mode: str, samples: int = 9, seed: int = 2, chunk: int = 8
) -> Spread:
    drawn = draw_predictions(model, patches, samples=samples, seed=seed, chunk=chunk)
    return symmetric_spread(drawn.samples, mode, 6.84, FUSION, drawn.noise_sd)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def patches() -> np.ndarray:
    return np.random.default_rng(11).uniform(0.4, 1.6, (5, 2, *PATCH_SHAPE)).astype(np.float32)


@pytest.mark.parametrize("output", ["sbr", "log-normal"])
@pytest.mark.parametrize("mode", MODES)
def test_1_the_mirrored_patient_has_the_exchanged_intervals(mode: str, output: str, patches: np.ndarray) -> None:
    model = a_model(output=output)
    own, mirrored = (spread_of(model, p, mode) for p in (patches, mirror_pair(patches)))
    for end, exchanged in zip(own.interval(K), mirrored.interval(K[::-1]), strict=True):
        assert exchanged[:, ::-1] == pytest.approx(end, **ROUNDING)
    assert not np.allclose(own.interval(K)[0][:, 0], own.interval(K)[0][:, 1], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("mode", ["s1", "s3", "s6"])
def test_2_equal_patches_have_equal_intervals_and_the_spread_of_plain_mc(mode: str, patches: np.ndarray) -> None:
    left = patches[:, 1]
    twins = np.stack([mirror(left), left], axis=1).astype(np.float32)
    symmetric, plain = (spread_of(a_model(), twins, m) for m in (mode, "mc"))
    for end in symmetric.interval(1.7):
        assert end[:, 0] == pytest.approx(end[:, 1], **ROUNDING)
    assert symmetric.spread == pytest.approx(plain.spread, **ROUNDING)
    assert (plain.spread > 1e-3).all()


@pytest.mark.parametrize("mode", ["s1", "s3", "s6"])
def test_3_coverage_and_width_rise_with_k_and_vanish_with_the_rate(mode: str, patches: np.ndarray) -> None:
    spread = spread_of(a_model(), patches, mode)
    truth = spread.centre + np.random.default_rng(0).normal(size=spread.centre.shape) * spread.spread
    ends = [spread.interval(k) for k in np.linspace(0, 3, 31)]
    widths = np.array([(high - low).mean() for low, high in ends])
    shares = np.array([float(coverage(low.ravel(), high.ravel(), truth.ravel())) for low, high in ends])
    assert (np.diff(widths) > 0).all()
    assert (np.diff(shares) >= 0).all()
    assert (widths[0], shares[0], shares[-1]) == (0, 0, 1)
    wide, narrow, none = (spread_of(a_model(p), patches, mode, seed=4).spread.max() for p in (0.5, 0.1, 1e-3))
    assert wide > narrow > none
    assert none < 0.1 * wide


@pytest.mark.parametrize("mode", MODES)
def test_4_the_same_seed_gives_the_same_intervals_whatever_the_batch(mode: str, patches: np.ndarray) -> None:
    model = a_model()
    ends = spread_of(model, patches, mode).interval(K)
    for again, end in zip(spread_of(model, patches, mode).interval(K), ends, strict=True):
        assert np.array_equal(again, end)
    for chunk in (1, 3):
        for other, end in zip(spread_of(model, patches, mode, chunk=chunk).interval(K), ends, strict=True):
            assert other == pytest.approx(end, **ROUNDING)
    alone = spread_of(model, patches[3:4], mode).interval(K)
    assert alone[0][0] == pytest.approx(ends[0][3], **ROUNDING)
    assert not np.allclose(spread_of(model, patches, mode, seed=3).interval(K)[0], ends[0], atol=1e-3)


def phantom_samples(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Draws of a predictor that sees the phantom's latents with some noise, and the labels: no images, so quick."""
    rng = np.random.default_rng(seed)
    latents = sample_latents(n, "paper", seed)
    m = latents.m + rng.normal(0, 0.4, latents.m.shape)
    centre = oracle_predict(m, "paper").mean
    sd = 0.1 * centre * rng.gamma(9, 1 / 9, centre.shape)  # hardly related to the error, as that of a trained net
    return centre + sd * rng.normal(size=(15, 1, 1)) + 0.5 * sd * rng.normal(size=(15, *centre.shape)), latents.sbr


@pytest.mark.parametrize("calibrating", [28, 400])
@pytest.mark.parametrize("mode", MODES)
def test_10_conformal_coverage_of_2000_fresh_phantom_patients_is_in_the_valid_range(
    mode: str, calibrating: int
) -> None:
    samples, truth = phantom_samples(calibrating + 2000, seed=77)
    fusion = fit_fusion(*phantom_samples(28, seed=78)) if mode == "s7" else None
    spread = symmetric_spread(samples, mode, 6.84, fusion)  # type: ignore[arg-type]
    score = spread.score(truth)[:calibrating]
    low, high = spread.interval([conformal_quantile(score[:, side], 0.95) for side in (0, 1)])
    share = ((low <= truth) & (truth <= high))[calibrating:].mean(axis=0)
    least, most = beta_binomial_range(calibrating, 2000, 0.95, 0.999)
    assert (share >= least).all()
    if mode != "s5":  # its hull may cover below the score, so it may cover more than it must
        assert (share <= most).all()
    # what would be seen if the multiplier were not calibrated
    low, high = spread.interval(1.0)
    assert (((low <= truth) & (truth <= high))[calibrating:].mean(axis=0) < least).all()
