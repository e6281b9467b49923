"""The weight: published numbers, what is no number, the twin, the echoes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from nigradat.errors import ConfigError, ImageError
from nigradat.smwi.weighting import combine_echoes, smwi, susceptibility_weight

CHI = st.floats(-3, 3, width=32)


@pytest.mark.parametrize(
    ("chi", "threshold", "weight"),
    [(0.05, 0.2, 0.31640625), (0.10, 1, 0.6561), (0.13, 1, 0.5729), (0.20, 1, 0.4096), (1.0, 1, 0.0), (-0.5, 1, 1.0)],
)
def test_reference_numbers_at_power_4(chi, threshold, weight):
    assert susceptibility_weight([chi], threshold)[0] == pytest.approx(weight, abs=5e-5)


def test_what_is_no_number_weighs_nothing():
    chi = np.array([np.nan, np.inf, -np.inf, 0.0])
    for diamagnetic in (False, True):
        assert susceptibility_weight(chi, diamagnetic=diamagnetic).tolist() == [0, 0, 0, 1]


@given(CHI, st.floats(0.01, 2), st.floats(0.5, 8))
def test_the_twin_is_the_weight_of_the_opposite_and_one_of_them_is_1(chi, threshold, m):
    plain, twin = (susceptibility_weight([chi], threshold, m, diamagnetic=d)[0] for d in (False, True))
    assert twin == susceptibility_weight([-chi], threshold, m)[0]
    assert max(plain, twin) == 1
    assert min(plain, twin) >= 0


@given(CHI, CHI)
def test_more_susceptibility_never_weighs_more(a, b):
    low, high = sorted((a, b))
    assert susceptibility_weight([high])[0] <= susceptibility_weight([low])[0]


@pytest.mark.parametrize("bad", [0.0, -1.0, np.nan, np.inf])
def test_a_threshold_or_power_must_be_above_0(bad):
    with pytest.raises(ConfigError, match="threshold"):
        susceptibility_weight([0.1], bad)
    with pytest.raises(ConfigError, match="power"):
        susceptibility_weight([0.1], 1.0, bad)


@given(
    arrays(np.float32, (3, 2, 2, 2), elements=st.floats(0, 100, width=32)),
    arrays(np.float32, (2, 2, 2), elements=CHI),
    st.sampled_from(["rms", "mean"]),
)
def test_one_weight_for_all_echoes_is_the_same_before_and_after_combining(magnitude, chi, combination):
    weighted_first = magnitude * susceptibility_weight(chi)
    before = np.sqrt((weighted_first**2).mean(axis=0)) if combination == "rms" else weighted_first.mean(axis=0)
    assert smwi(magnitude, chi, combination=combination) == pytest.approx(before, rel=1e-5, abs=1e-4)


def test_real_contrast_of_the_nigra_at_1_ppm_and_power_4():
    """TE 14/27/40 ms, R2* 38 against 19 per s, chi .13: the dark-to-tissue ratio of a real patch pair was .40."""
    times = np.array([14, 27, 40]).reshape(3, 1, 1, 1) / 1000
    nigra, tissue = (np.exp(-times * r).astype(np.float32) for r in (38, 19))
    zero = np.zeros((1, 1, 1), np.float32)
    ratio = smwi(nigra, zero + np.float32(0.13)) / smwi(tissue, zero)
    assert 0.36 <= float(ratio.squeeze()) <= 0.41


def test_shapes_must_fit():
    with pytest.raises(ImageError, match=r"shape \(2, 2, 3\)"):
        smwi(np.ones((1, 2, 2, 2), np.float32), np.ones((2, 2, 3), np.float32))
    with pytest.raises(ImageError, match="echoes"):
        combine_echoes(np.ones((2, 2, 2), np.float32))
