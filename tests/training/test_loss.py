"""The symmetric loss against closed forms and against the published graph's formula written out in NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from nigradat.training.loss import PAPER_EPS, symmetric_loss

NAN = float("nan")


def published(predicted: np.ndarray, target: np.ndarray, weight: float, eps: float) -> float:
    """``mean((yL - fL)^2) + mean((yR - fR)^2) + weight * mean(max((fL - fR)^2, eps^2) - eps^2)``."""
    f_right, f_left = predicted.T
    y_right, y_left = target.T
    mse = np.mean((y_left - f_left) ** 2) + np.mean((y_right - f_right) ** 2)
    return float(mse + weight * np.mean(np.maximum((f_left - f_right) ** 2, eps * eps) - eps * eps))


@given(
    st.integers(1, 9).flatmap(
        lambda n: hnp.arrays(np.float64, (2, n, 2), elements=st.floats(-2, 2, allow_subnormal=False))
    ),
    st.floats(0, 3),
    st.floats(0, 0.5),
)
def test_the_published_formula(values: np.ndarray, weight: float, eps: float) -> None:
    predicted, target = values
    loss = symmetric_loss(torch.from_numpy(predicted), torch.from_numpy(target), weight, eps)
    assert float(loss) == pytest.approx(published(predicted, target, weight, eps), abs=1e-12)


def test_the_papers_margin() -> None:
    assert pytest.approx(0.0016) == PAPER_EPS**2


@pytest.mark.parametrize(("d", "term"), [(0.0, 0.0), (0.04, 0.0), (-0.03, 0.0), (0.05, 0.0009), (-0.5, 0.2484)])
def test_side_differences_up_to_the_margin_are_free(d: float, term: float) -> None:
    predicted = torch.tensor([[0.2, 0.2 + d]], dtype=torch.float64)
    assert float(symmetric_loss(predicted, predicted, 1.0)) == pytest.approx(term, abs=1e-12)
    assert float(symmetric_loss(predicted, predicted, 0.0)) == 0


def test_each_side_counts_once() -> None:
    predicted, target = torch.zeros(4, 2), torch.tensor([[1.0, 2.0]]).expand(4, 2)
    assert float(symmetric_loss(predicted, target, 0.0)) == pytest.approx(1 + 4)


def test_the_gradient_draws_the_sides_together_beyond_the_margin_only() -> None:
    predicted = torch.tensor([[0.1, 0.4], [0.30, 0.32]], dtype=torch.float64, requires_grad=True)
    symmetric_loss(predicted, predicted.detach(), 0.5).backward()
    # d(0.5 * mean d^2) / d left = 0.5 * 2 d / 2
    assert predicted.grad is not None
    assert predicted.grad[0].tolist() == pytest.approx([-0.15, 0.15])
    assert predicted.grad[1].tolist() == [0, 0]


def test_a_side_without_an_answer_is_left_out() -> None:
    predicted = torch.tensor([[NAN, 0.5], [NAN, 0.1]], requires_grad=True)
    loss = symmetric_loss(predicted, torch.zeros(2, 2), 1.0)
    assert float(loss.detach()) == pytest.approx((0.25 + 0.01) / 2)
    loss.backward()
    assert predicted.grad is not None
    assert predicted.grad[:, 1].tolist() == pytest.approx([0.5, 0.1])


@pytest.mark.parametrize("predicted", [[[NAN, 0.5], [0.2, 0.1]], [[NAN, NAN], [NAN, NAN]]])
def test_a_network_that_diverged_is_not_taken_for_one_that_does_not_answer(predicted: list[list[float]]) -> None:
    assert np.isnan(float(symmetric_loss(torch.tensor(predicted), torch.zeros(2, 2), 0.1)))
