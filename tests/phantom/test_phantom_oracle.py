"""The oracle: closed forms against regression on the latents, and against the numbers of the project's reference."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from nigradat.errors import CohortError, ConfigError
from nigradat.phantom import PRESETS, ceilings, oracle_predict, read_truth, sample_latents
from nigradat.phantom.oracle import Sides, regression_weights

# R, RMSE, MAE and Sharpness of the central 95 % interval, computed apart from this package on 400,000 draws
REFERENCE = {
    ("paper", "single"): (0.753, 0.727, 0.536, 0.797),
    ("paper", "pair"): (0.811, 0.645, 0.470, 0.824),
    ("hard", "single"): (0.721, 0.768, 0.570, 0.784),
    ("hard", "pair"): (0.788, 0.683, 0.500, 0.812),
    ("easy", "single"): (0.894, 0.494, 0.355, 0.870),
    ("easy", "pair"): (0.916, 0.443, 0.317, 0.884),
    ("uncoupled", "single"): (0.756, 0.733, 0.539, 0.797),
    ("uncoupled", "pair"): (0.767, 0.717, 0.526, 0.803),
}


@pytest.mark.parametrize(("name", "sides"), sorted(REFERENCE))
def test_ceilings_of_the_presets(name: str, sides: Sides) -> None:
    found = ceilings(name)[sides]
    scores = (found.r, found.rmse, found.mae, found.sharpness)
    np.testing.assert_allclose(scores, REFERENCE[name, sides], atol=0.006)
    assert found.mae_median < found.mae
    assert found.coverage == pytest.approx(0.954, abs=0.004)


def test_conditional_spread_of_the_paper_preset() -> None:
    both = ceilings("paper")
    assert both.single.log_sd == pytest.approx(0.333, abs=5e-4)
    assert both.pair.log_sd == pytest.approx(0.290, abs=5e-4)


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_weights_are_those_of_a_regression(name: str) -> None:
    p = replace(PRESETS[name], sbr_min=1e-9, sbr_max=1e9)
    x = sample_latents(100_000, p, seed=8)
    own, other, z = x.m.ravel(), x.m[:, ::-1].ravel(), x.z.ravel()
    for design, sides in ((own[:, None], "single"), (np.column_stack([own, other]), "pair")):
        beta, residual, *_ = np.linalg.lstsq(design, z, rcond=None)
        expected = regression_weights(p, sides)  # type: ignore[arg-type]
        np.testing.assert_allclose(beta, expected[: len(beta)], atol=0.01)
        assert residual[0] / len(z) == pytest.approx(expected[2], abs=0.006)


def test_pair_gains_little_where_the_sides_are_uncoupled() -> None:
    def gain(name: str) -> float:
        found = ceilings(name)
        return found.pair.r - found.single.r

    assert gain("paper") > 4 * gain("uncoupled") > 0


def test_prediction_is_the_log_normal_of_the_closed_form() -> None:
    m = np.array([[0.0, 1.0], [-1.0, 0.5]])
    w, v, residual = regression_weights("paper", "pair")
    found = oracle_predict(m, "paper", "pair", level=0.9)
    mu = 0.60 + 0.55 * (w * m + v * m[:, ::-1])
    sd = 0.55 * np.sqrt(residual)
    np.testing.assert_allclose(found.median, np.exp(mu))
    np.testing.assert_allclose(found.mean, np.exp(mu + sd**2 / 2))
    np.testing.assert_allclose(found.upper / found.median, np.exp(1.6448536269514722 * sd))
    np.testing.assert_allclose(found.lower * found.upper, found.median**2)


def test_interval_covers_what_it_says() -> None:
    x = sample_latents(40_000, replace(PRESETS["paper"], sbr_min=1e-9, sbr_max=1e9), seed=2)
    for level in (0.5, 0.8, 0.95):
        found = oracle_predict(x.m, "paper", "pair", level)
        inside = (found.lower <= x.sbr) & (x.sbr <= found.upper)
        assert inside.mean() == pytest.approx(level, abs=0.008)


def test_exchange_of_the_sides_exchanges_the_answer() -> None:
    m = np.random.default_rng(0).normal(size=(7, 2))
    np.testing.assert_allclose(
        oracle_predict(m[:, ::-1], "hard", "pair").mean, oracle_predict(m, "hard", "pair").mean[:, ::-1]
    )


def test_what_the_oracle_refuses() -> None:
    with pytest.raises(ConfigError, match=r"\(n, 2\)"):
        oracle_predict(np.zeros(4), "paper")
    with pytest.raises(ConfigError, match="level"):
        oracle_predict(np.zeros((1, 2)), "paper", level=95)
    with pytest.raises(ConfigError, match="'single' or 'pair'"):
        oracle_predict(np.zeros((1, 2)), "paper", "both")  # type: ignore[arg-type]


def test_a_folder_without_truth(tmp_path: Path) -> None:
    with pytest.raises(CohortError, match="no truth"):
        read_truth(tmp_path)
