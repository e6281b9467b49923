"""Latents and labels: marginals of the generative model, and which patient depends on what."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from nigradat.errors import ConfigError
from nigradat.phantom import PRESETS, Latents, Preset, get_preset, sample_latents


@pytest.fixture(scope="module")
def paper() -> Latents:
    return sample_latents(40_000, "paper", seed=12)


def test_labels_have_the_published_marginals(paper: Latents) -> None:
    y = paper.sbr
    index = 100 * np.abs(y[:, 0] - y[:, 1]) / y.mean(axis=1)
    assert y.mean() == pytest.approx(2.07, abs=0.03)
    assert y.std() == pytest.approx(1.10, abs=0.03)
    assert np.median(y) == pytest.approx(1.82, abs=0.03)
    assert np.mean(y < 2.56) == pytest.approx(0.740, abs=0.01)
    assert np.corrcoef(y.T)[0, 1] == pytest.approx(0.906, abs=0.006)
    assert index.mean() == pytest.approx(16.4, abs=0.4)
    assert index.std() == pytest.approx(12.3, abs=0.4)


def test_extremes_of_cohorts_of_the_papers_size(paper: Latents) -> None:
    cohorts = paper.sbr[: 367 * 100].reshape(100, -1)
    assert cohorts.min(axis=1).mean() == pytest.approx(0.46, abs=0.01)
    assert cohorts.max(axis=1).mean() == pytest.approx(6.56, abs=0.06)
    assert paper.sbr.min() >= 0.43
    assert paper.sbr.max() <= 6.84


def test_labels_are_stored_to_two_decimals(paper: Latents) -> None:
    np.testing.assert_array_equal(paper.sbr, np.round(paper.sbr, 2))


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_second_moments_are_those_of_the_preset(name: str) -> None:
    # without truncation the latents are Gaussian with known moments
    p = replace(PRESETS[name], sbr_min=1e-9, sbr_max=1e9)
    x = sample_latents(60_000, p, seed=3)
    noise_m = (x.m - x.u) / np.sqrt(p.tau2)
    noise_z = (x.z - np.sqrt(p.rel) * x.u) / np.sqrt(1 - p.rel)
    for value, rho in ((x.u, p.rho_u), (noise_m, p.rho_eta), (noise_z, p.rho_e)):
        np.testing.assert_allclose(value.mean(axis=0), 0, atol=0.02)
        np.testing.assert_allclose(value.std(axis=0), 1, atol=0.012)
        assert np.corrcoef(value.T)[0, 1] == pytest.approx(rho, abs=0.02)
    np.testing.assert_allclose(np.log(x.sbr), p.log_mean + p.log_sd * x.z, atol=0.2)
    # d is uniform: the probability integral transform of m
    assert stats.kstest(x.d[:, 0], "uniform").pvalue > 1e-3


def test_age_and_sex_act_inside_the_unit_variance() -> None:
    x = sample_latents(60_000, replace(PRESETS["paper"], sbr_min=1e-9, sbr_max=1e9), seed=4)
    woman = (x.sex == "F").astype(float)
    design = np.column_stack([np.ones(len(x)), (x.age - 65) / 10, woman])
    beta = np.linalg.lstsq(design, x.u.mean(axis=1), rcond=None)[0]
    assert beta[1] == pytest.approx(-0.09, abs=0.015)
    assert beta[2] == pytest.approx(0.10, abs=0.03)
    assert woman.mean() == pytest.approx(0.5, abs=0.01)
    assert x.age.mean() == pytest.approx(65, abs=0.2)
    assert x.age.std() == pytest.approx(10, abs=0.2)


@settings(max_examples=20)
@given(n=st.integers(1, 700), more=st.integers(1, 700), seed=st.integers(0, 2**40))
def test_a_patient_does_not_depend_on_the_number_of_patients(n: int, more: int, seed: int) -> None:
    few, many = sample_latents(n, "paper", seed), sample_latents(n + more, "paper", seed)
    for name in ("u", "m", "d", "z", "sbr", "age", "sex"):
        np.testing.assert_array_equal(getattr(few, name), getattr(many, name)[:n])


def test_seeds_differ_and_repeat() -> None:
    np.testing.assert_array_equal(sample_latents(5, "hard", 1).m, sample_latents(5, "hard", 1).m)
    assert not np.allclose(sample_latents(5, "hard", 1).m, sample_latents(5, "hard", 2).m)


def test_an_unknown_preset_is_named_with_those_there_are() -> None:
    with pytest.raises(ConfigError, match=r"'papper'.*paper, hard, easy, uncoupled"):
        get_preset("papper")
    assert get_preset(PRESETS["easy"]) is PRESETS["easy"]


@pytest.mark.parametrize(
    "wrong", [{"rho_u": 1.2}, {"rho_u": 0.0}, {"tau2": -0.1}, {"rel": 0.0}, {"rho_e": 1.5}, {"sbr_min": 7.0}]
)
def test_a_preset_that_cannot_be(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="own"):
        Preset("own", **wrong)


@pytest.mark.parametrize(("n", "seed"), [(0, 1), (-3, 1), (4, -1)])
def test_numbers_that_make_no_cohort(n: int, seed: int) -> None:
    with pytest.raises(ConfigError, match="patient"):
        sample_latents(n, "paper", seed)
