"""Monte-Carlo dropout: the closed form of its variance, and draws that depend on nothing but (seed, t)."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from nigradat.anatomy import PATCH_SHAPE, mirror
from nigradat.errors import CalibrationError
from nigradat.models.dropout import SeededDropout, one_network_draw, seed_dropout
from nigradat.models.symmetric import ModelSpec, PairRegressor, build
from nigradat.training.data import canonical_tensor
from nigradat.uncertainty.mc_dropout import draw_seeds, mc_samples, predict_sbr

TINY = (2, 3, 3, 4)
ROUNDING = {"rel": 4e-6, "abs": 2e-5}  # float32, and an untrained net's outputs are tens of SBR
KINDS = {
    "head": {"head_dropout": 0.3},
    "blocks": {"block_dropout": 0.2},
    "both": {"head_dropout": 0.5, "block_dropout": 0.2},
}


def a_model(sharing: str = "shared", **options: float) -> PairRegressor:
    model = build(ModelSpec(widths=TINY, sharing=sharing, **options), seed=6).eval()  # type: ignore[arg-type]
    for parameter in model.parameters():
        if parameter.ndim == 1:
            parameter.data.fill_(0.05)
    return model


@pytest.fixture(scope="module")
def patches() -> np.ndarray:
    return np.random.default_rng(11).uniform(0.4, 1.6, (3, 2, *PATCH_SHAPE)).astype(np.float32)


def test_variance_and_covariance_of_head_dropout_have_a_closed_form(patches: np.ndarray) -> None:
    """``cov(w.h, w.h') = p / (1 - p) sum w_i^2 h_i h'_i``, and the mean is the plain prediction."""
    p, draws = 0.3, 4000
    model = a_model(head_dropout=p)
    net = model.nets["both"]
    with torch.no_grad():
        h = model.features(canonical_tensor(patches)).double().numpy().reshape(6, -1)
        w = net.head.weight.double().numpy()[0]  # type: ignore[union-attr]
        plain = model(canonical_tensor(patches)).double().numpy() * 6.84
    expected = p / (1 - p) * (w * h) @ (w * h).T * 6.84**2
    samples = mc_samples(model, patches, samples=draws, seed=1)
    found = np.cov(samples.reshape(draws, 6), rowvar=False)  # patients and sides meet the same masks
    sd = np.sqrt(np.diag(expected))
    assert (expected > 0.3 * np.outer(sd, sd)).all()  # there is a covariance to be found
    assert np.abs(found - expected).max() < 6 * np.outer(sd, sd).max() / np.sqrt(draws)
    assert np.diag(found) == pytest.approx(np.diag(expected), rel=0.1)
    assert np.abs(samples.mean(axis=0) - plain).max() < 5 * sd.max() / np.sqrt(draws)


@pytest.mark.parametrize("sharing", ["shared", "separate", "left"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_quick_way_equals_the_whole_network(kind: str, sharing: str, patches: np.ndarray) -> None:
    model = a_model(sharing, **KINDS[kind])
    samples = mc_samples(model, patches, samples=5, seed=9)
    for t, draw in enumerate(draw_seeds(9, 5)):
        with one_network_draw(model, draw), torch.no_grad():
            whole = model(canonical_tensor(patches)).double().numpy() * 6.84
        assert samples[t] == pytest.approx(whole, nan_ok=True, **ROUNDING)
    assert (np.ptp(samples[:, :, model.sides[0].index], axis=0) > 1e-3).all()
    assert np.isnan(samples[:, :, 0]).all() == (sharing == "left")


@pytest.mark.parametrize("kind", KINDS)
def test_both_sides_meet_the_same_networks(kind: str, patches: np.ndarray) -> None:
    """A patient whose right patch mirrors the left one has equal samples on both sides, draw by draw."""
    twin = np.stack([mirror(patches[0, 1]), patches[0, 1]])[None]
    samples = mc_samples(a_model(**KINDS[kind]), twin, samples=8)
    assert samples[:, :, 0] == pytest.approx(samples[:, :, 1], **ROUNDING)
    assert samples[:, 0, 0].std() > 1e-3


@pytest.mark.parametrize("kind", KINDS)
def test_samples_do_not_depend_on_company(kind: str, patches: np.ndarray) -> None:
    model = a_model(**KINDS[kind])
    reference = mc_samples(model, patches, samples=12, seed=4)
    for chunk in (1, 2):
        assert mc_samples(model, patches, samples=12, seed=4, chunk=chunk) == pytest.approx(reference, **ROUNDING)
    alone = mc_samples(model, patches[1:2], samples=12, seed=4)
    assert alone == pytest.approx(reference[:, 1:2], **ROUNDING)
    assert mc_samples(model, patches, samples=7, seed=4) == pytest.approx(reference[:7], **ROUNDING)
    assert np.array_equal(mc_samples(model, patches, samples=12, seed=4), reference)  # bit-equal at equal size
    assert not np.allclose(mc_samples(model, patches, samples=12, seed=5), reference, atol=1e-3)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("training", [True, False])
def test_the_model_is_left_as_it_was(kind: str, training: bool, patches: np.ndarray) -> None:
    model = a_model(**KINDS[kind]).train(training)
    model.nets["both"].tower.blocks[1].train(not training)  # type: ignore[union-attr, index]
    seed_dropout(model, 3)
    modes = [m.training for m in model.modules()]
    dropouts = [m for m in model.modules() if isinstance(m, SeededDropout)]
    before = [(m.generator, m.sampling, m.mask) for m in dropouts]
    weights = {k: v.clone() for k, v in model.state_dict().items()}
    plain, copy = predict_sbr(model, patches), patches.copy()
    torch.manual_seed(1)
    state = torch.get_rng_state()

    mc_samples(model, patches, samples=3)
    with pytest.raises(RuntimeError):  # an error on the way
        mc_samples(model, patches[:, :, :10, :10, :2], samples=3)

    assert [m.training for m in model.modules()] == modes
    after = [(m.generator, m.sampling, m.mask) for m in dropouts]
    assert all(x is y for a, b in zip(before, after, strict=True) for x, y in zip(a, b, strict=True))
    assert all(torch.equal(v, weights[k]) for k, v in model.state_dict().items())
    assert np.array_equal(predict_sbr(model, patches), plain)
    assert np.array_equal(patches, copy)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.is_grad_enabled()
    assert not torch.is_inference_mode_enabled()


def test_the_plain_prediction_is_the_networks_own(patches: np.ndarray) -> None:
    model = a_model(head_dropout=0.5).train()
    prediction = predict_sbr(model, patches)
    model.eval()
    with torch.no_grad():
        own = model(canonical_tensor(patches)).double().numpy() * 6.84
    assert prediction == pytest.approx(own, abs=1e-6)
    assert predict_sbr(model, patches, chunk=1) == pytest.approx(prediction, abs=1e-5)


def test_a_model_without_dropout_is_refused(patches: np.ndarray) -> None:
    with pytest.raises(CalibrationError, match="no dropout"):
        mc_samples(a_model(head_dropout=0.0), patches)


def test_dropout_that_does_nothing_is_noticed(patches: np.ndarray) -> None:
    model = a_model(head_dropout=0.5)
    model.nets["both"].head.weight.data.zero_()  # type: ignore[union-attr, operator]
    with pytest.raises(CalibrationError, match="did not change"):
        mc_samples(model, patches, samples=4)


def test_seeds_of_draws_do_not_depend_on_their_number() -> None:
    many = draw_seeds(3, 500)
    assert draw_seeds(3, 10) == many[:10]
    assert len({*many, *draw_seeds(4, 500)}) == 1000
    assert all(0 <= s < 2**63 for s in many)


def test_one_sample_is_no_spread(patches: np.ndarray) -> None:
    with pytest.raises(CalibrationError, match="at least 2"):
        mc_samples(a_model(head_dropout=0.5), patches, samples=1)
