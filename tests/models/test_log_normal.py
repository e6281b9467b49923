"""The log-normal head: what its two numbers are, against SciPy, and the network around it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor

from nigradat.anatomy import PATCH_SHAPE, Side, mirror_pair, to_canonical
from nigradat.errors import ConfigError
from nigradat.models.head import (
    SD_MAX,
    SD_MIN,
    expected,
    log_normal,
    log_normal_mean,
    log_normal_variance,
)
from nigradat.models.symmetric import ModelSpec, PairRegressor, Sharing, build
from nigradat.models.weights import CARD_NAME, load_model, save_model

TINY = (2, 2, 3, 3)
NATIVE = np.random.default_rng(7).uniform(0.5, 1.5, (3, 2, *PATCH_SHAPE)).astype(np.float32)


def a_model(sharing: Sharing = "shared", output: str = "log-normal") -> PairRegressor:
    """Fresh weights, but with an SD that depends on the patch, as after training."""
    model = build(ModelSpec(widths=TINY, sharing=sharing, output=output), seed=4).eval()  # type: ignore[arg-type]
    if output == "log-normal":
        for side in model.sides:
            model.net(side).head.weight.data[1] = 0.5 * model.net(side).head.weight.data[0].flip(0)  # type: ignore[union-attr]
    return model


def features_of(model: PairRegressor, native: np.ndarray = NATIVE) -> Tensor:
    with torch.no_grad():
        return model.features(torch.from_numpy(to_canonical(native)).unsqueeze(2))


@given(st.floats(-5, 0.5), st.floats(-20, 20))
def test_mean_and_variance_are_those_of_the_distribution(mu: float, raw: float) -> None:
    found_mu, sd = log_normal(torch.tensor([mu, raw], dtype=torch.float64))
    assert float(found_mu) == mu
    assert SD_MIN <= float(sd) <= SD_MAX
    truth = stats.lognorm(s=float(sd), scale=np.exp(mu))
    assert float(log_normal_mean(found_mu, sd)) == pytest.approx(truth.mean(), rel=1e-9)
    assert float(log_normal_variance(found_mu, sd)) == pytest.approx(truth.var(), rel=1e-9)


@given(st.floats(-1e30, 1e30), st.floats(-1e30, 1e30))
def test_no_output_makes_a_prediction_infinite(mu: float, raw: float) -> None:
    outputs = torch.tensor([mu, raw])
    assert 0 <= float(expected(outputs, "log-normal")) < 21
    assert 0 <= float(log_normal_variance(*log_normal(outputs))) < 5000


def test_one_number_is_the_prediction_itself() -> None:
    outputs = torch.randn(4, 2, 1, generator=torch.Generator().manual_seed(1))
    assert torch.equal(expected(outputs, "sbr"), outputs[..., 0])


def test_the_prediction_is_the_conditional_mean() -> None:
    model = a_model()
    features = features_of(model)
    with torch.no_grad():
        mu, sd = model.distribution(features)
        out = model(torch.from_numpy(to_canonical(NATIVE)).unsqueeze(2))
    assert mu.shape == sd.shape == out.shape == (3, 2)
    assert np.ptp(sd.numpy()) > 1e-3
    truth = stats.lognorm.mean(s=sd.double().numpy(), scale=np.exp(mu.double().numpy()))
    assert out.numpy() == pytest.approx(np.minimum(truth, np.exp(3)), rel=1e-5)


def test_exchanged_sides_exchange_everything() -> None:
    model = a_model()
    with torch.no_grad():
        here, there = (model.distribution(features_of(model, x)) for x in (NATIVE, mirror_pair(NATIVE)))
    for one, other in zip(here, there, strict=True):
        assert torch.allclose(other, one.flip(1), atol=1e-6)
        assert not torch.allclose(one, one.flip(1), atol=1e-4)


def test_one_regressor_per_side_and_one_side_alone() -> None:
    both = a_model("separate")
    with torch.no_grad():
        mu, sd = both.distribution(features_of(both))
    assert mu.isfinite().all()
    assert sd.isfinite().all()
    left = a_model("left")
    with torch.no_grad():
        values = (*left.distribution(features_of(left)), left.heads(features_of(left)))
    for value in values:
        assert value[:, Side.RIGHT.index].isnan().all()
        assert value[:, Side.LEFT.index].isfinite().all()


@pytest.mark.parametrize("sharing", ["shared", "separate"])
def test_it_costs_one_more_linear_output_per_net(sharing: Sharing) -> None:
    plain, model = a_model(sharing, "sbr"), a_model(sharing)
    more = sum(p.numel() for p in model.parameters()) - sum(p.numel() for p in plain.parameters())
    assert more == len(model.nets) * (features_of(model).shape[-1] + 1)


def test_the_tower_begins_as_without_it_and_all_patients_share_one_sd() -> None:
    specs = [ModelSpec(widths=TINY, output=output) for output in ("sbr", "log-normal")]  # type: ignore[arg-type]
    plain, model = (build(spec, seed=4).eval() for spec in specs)
    assert torch.equal(features_of(plain), features_of(model))
    with torch.no_grad():
        mu, sd = model.distribution(features_of(model))
    assert len(sd.unique()) == 1
    assert len(mu.unique()) == mu.numel()


def test_a_gradient_reaches_every_number() -> None:
    model = a_model()
    mu, sd = model.distribution(model.features(torch.from_numpy(to_canonical(NATIVE)).unsqueeze(2)))
    (mu.square().sum() + sd.sum()).backward()
    head = model.nets["both"].head.weight.grad  # type: ignore[union-attr]
    assert all(p.grad is not None and (p.grad != 0).any() for p in model.parameters())
    assert (head != 0).any(dim=1).all()  # type: ignore[union-attr]


def test_what_was_saved_comes_back_and_the_card_says_what_it_is(tmp_path: Path) -> None:
    model = a_model()
    loaded = load_model(save_model(tmp_path / "m", model, {"training": {"kind": "phantom"}}))
    assert loaded.spec == model.spec
    assert "log(SBR / 6.84)" in loaded.card["output"]
    with torch.no_grad():
        for one, other in zip(*(m.distribution(features_of(m)) for m in (model, loaded.model)), strict=True):
            assert torch.equal(one, other)


def test_a_card_from_before_there_was_a_choice_is_read_as_plain_sbr(tmp_path: Path) -> None:
    folder = save_model(tmp_path / "m", a_model(output="sbr"), {})
    card = json.loads((folder / CARD_NAME).read_text())
    assert card["output"] == "SBR / 6.84"
    del card["spec"]["output"]
    (folder / CARD_NAME).write_text(json.dumps(card))
    assert load_model(folder).spec.output == "sbr"


def test_a_model_without_the_head_has_no_distribution() -> None:
    model = a_model(output="sbr")
    with pytest.raises(ConfigError, match="log-normal"):
        model.distribution(features_of(model))
    with pytest.raises(ConfigError, match="output 'gamma'"):
        ModelSpec(output="gamma")  # type: ignore[arg-type]
