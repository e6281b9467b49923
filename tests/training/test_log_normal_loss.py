"""The loss of the log-normal head against SciPy's density, finite differences and a distribution that is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats

from nigradat.models.head import log_normal, log_normal_mean, start_values
from nigradat.training.loss import BETA, LIKELIHOOD_SCALE, log_normal_loss, log_normal_nll, symmetric_loss

NAN = float("nan")


def pairs(low: float, high: float) -> st.SearchStrategy[np.ndarray]:
    return hnp.arrays(np.float64, (5, 2), elements=st.floats(low, high))


@given(pairs(-4, 1), pairs(0.02, 1.5), pairs(0.01, 2))
def test_the_likelihood_is_scipys(mu: np.ndarray, sd: np.ndarray, target: np.ndarray) -> None:
    found = log_normal_nll(*map(torch.from_numpy, (mu, sd, target))).numpy()
    assert found == pytest.approx(-stats.lognorm.logpdf(target, s=sd, scale=np.exp(mu)), rel=1e-10, abs=1e-10)


@given(pairs(-4, 1), pairs(0.02, 1.5), pairs(0.01, 2), st.floats(0, 2), st.floats(0, 0.5), st.floats(0, 1))
def test_the_whole_loss_written_out(
    mu: np.ndarray, sd: np.ndarray, target: np.ndarray, weight: float, eps: float, beta: float
) -> None:
    nll = -stats.lognorm.logpdf(target, s=sd, scale=np.exp(mu))
    d = np.subtract(*stats.lognorm.mean(s=sd, scale=np.exp(mu)).T)
    expected = LIKELIHOOD_SCALE * (sd ** (2 * beta) * nll).mean(axis=0).sum()
    expected += weight * np.mean(np.maximum(d**2, eps**2) - eps**2)
    found = log_normal_loss(*map(torch.from_numpy, (mu, sd, target)), weight, eps, beta)
    assert float(found) == pytest.approx(expected, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("weight", [0.0, 0.7])
def test_the_gradient_of_the_likelihood_by_finite_differences(weight: float) -> None:
    generator = torch.Generator().manual_seed(3)
    mu, raw = torch.randn(2, 4, 2, generator=generator, dtype=torch.float64)
    sd, target = 0.1 + torch.sigmoid(raw), torch.rand(4, 2, generator=generator, dtype=torch.float64) + 0.1
    assert torch.autograd.gradcheck(
        lambda mu, sd: log_normal_loss(mu, sd, target, weight, beta=0.0),
        (mu.requires_grad_(), sd.detach().requires_grad_()),
    )


def test_beta_changes_the_weight_of_a_case_and_nothing_else() -> None:
    sd = torch.tensor([[0.1, 0.8]], dtype=torch.float64)
    gradients = []
    for beta in (0.0, BETA, 1.0):
        mu = torch.tensor([[-1.0, -1.5]], dtype=torch.float64, requires_grad=True)
        own = sd.clone().requires_grad_()
        log_normal_loss(mu, own, torch.full((1, 2), 0.3, dtype=torch.float64), 0.0, beta=beta).backward()
        gradients.append(torch.stack([mu.grad, own.grad]))  # type: ignore[list-item]
    for beta, gradient in zip((BETA, 1.0), gradients[1:], strict=True):
        assert gradient.numpy() == pytest.approx((gradients[0] * sd ** (2 * beta)).numpy())


def test_at_a_typical_label_the_slope_is_that_of_the_squared_error() -> None:
    """``d / d mu`` of both losses, where the predicted mean is a little wrong."""
    target = torch.full((1, 2), 0.32, dtype=torch.float64)
    mu = (target.log() + 1e-4).requires_grad_()
    log_normal_loss(mu, torch.full_like(target, 0.33), target, 0.0).backward()
    other = (target.log() + 1e-4).requires_grad_()
    symmetric_loss(other.exp(), target, 0.0).backward()
    assert mu.grad is not None
    assert other.grad is not None
    assert mu.grad.numpy() == pytest.approx(other.grad.numpy(), rel=1e-3)


def test_the_symmetric_term_is_that_of_the_mean_predictions() -> None:
    generator = torch.Generator().manual_seed(5)
    mu, sd = torch.randn(6, 2, generator=generator) - 1, torch.rand(6, 2, generator=generator) + 0.1
    target = torch.full((6, 2), 0.3)
    mean = log_normal_mean(mu, sd)
    gain = log_normal_loss(mu, sd, target, 0.4) - log_normal_loss(mu, sd, target, 0.0)
    assert float(gain) == pytest.approx(float(symmetric_loss(mean, mean, 0.4)), rel=1e-4)


def test_exchanged_sides_have_the_same_loss() -> None:
    generator = torch.Generator().manual_seed(6)
    mu, sd, target = torch.rand(3, 5, 2, generator=generator, dtype=torch.float64) + 0.1
    swapped = log_normal_loss(mu.flip(1), sd.flip(1), target.flip(1), 0.3)
    assert float(swapped) == pytest.approx(float(log_normal_loss(mu, sd, target, 0.3)))


def test_a_side_without_an_answer_is_left_out_and_a_diverged_network_is_not() -> None:
    mu, sd = torch.tensor([[NAN, -1.0], [NAN, -1.2]], requires_grad=True), torch.tensor([[NAN, 0.3], [NAN, 0.4]])
    target = torch.full((2, 2), 0.3)
    loss = log_normal_loss(mu, sd, target, 0.5)
    alone = log_normal_loss(mu[:, 1:].detach().expand(2, 2), sd[:, 1:].expand(2, 2), target, 0.0)
    assert float(loss.detach()) == pytest.approx(float(alone) / 2)
    loss.backward()
    assert mu.grad is not None
    assert mu.grad[:, 1].isfinite().all()
    assert torch.isnan(log_normal_loss(torch.full((2, 2), NAN), sd.nan_to_num(0.3), target, 0.0))
    assert torch.isnan(log_normal_loss(torch.tensor([[NAN, 0.1], [0.0, 0.1]]), torch.ones(2, 2), target, 0.0))


@pytest.mark.parametrize("raw", [-40.0, -3.0, 0.0, 3.0, 40.0])
@pytest.mark.parametrize("mu", [-30.0, 0.0, 30.0, 300.0])
def test_no_output_however_wild_makes_the_loss_or_its_gradient_infinite(mu: float, raw: float) -> None:
    outputs = torch.tensor([[[mu, raw], [-mu, raw]]], requires_grad=True)
    loss = log_normal_loss(*log_normal(outputs), torch.tensor([[0.06, 0.9]]), 0.5)
    loss.backward()
    assert loss.isfinite()
    assert outputs.grad is not None
    assert outputs.grad.isfinite().all()
    assert (outputs.grad[..., 0] != 0).all()  # there is a way back


@pytest.mark.parametrize("beta", [0.0, BETA])
def test_noise_that_depends_on_the_input_is_found(beta: float) -> None:
    """``log y = -1 + .5 x + sd(x) e`` with an SD from .12 to .6: a linear head of two numbers learns both."""
    rng = np.random.default_rng(8)
    x = rng.uniform(-1, 1, (4000, 2))
    true_sd = 0.27 * np.exp(0.8 * x)
    target = torch.from_numpy(np.exp(-1 + 0.5 * x + true_sd * rng.normal(size=x.shape)))
    design = torch.from_numpy(np.stack([x, x**2], axis=-1))
    head = torch.nn.Linear(2, 2, dtype=torch.float64)
    head.weight.data.zero_()
    head.bias.data = torch.tensor(start_values(target, "log-normal"), dtype=torch.float64)
    optimiser = torch.optim.Adam(head.parameters(), lr=0.03)
    for _ in range(400):
        optimiser.zero_grad()
        log_normal_loss(*log_normal(head(design)), target, 0.0, beta=beta).backward()
        optimiser.step()
    mu, sd = (value.detach().numpy() for value in log_normal(head(design)))
    assert np.abs(mu - (-1 + 0.5 * x)).max() < 0.05
    assert np.abs(np.log(sd / true_sd)).max() < 0.12


def test_a_fresh_head_starts_from_the_labels_own_distribution() -> None:
    labels = torch.from_numpy(np.random.default_rng(2).lognormal(-1.2, 0.55, (3000, 2)))
    mu, sd = log_normal(torch.tensor(start_values(labels, "log-normal"), dtype=torch.float64))
    logs = np.log(labels.numpy())
    assert float(mu) == pytest.approx(logs.mean())
    assert float(sd) == pytest.approx(logs.std())
    assert start_values(labels, "sbr") == [pytest.approx(float(labels.mean()))]
    alike = torch.tensor(start_values(torch.full((4, 2), 0.3), "log-normal"))
    assert 0.02 < float(log_normal(alike)[1]) < 0.05  # equal labels: a small SD that can still grow
