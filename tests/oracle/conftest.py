"""Predictions that every score is computed on."""

import numpy as np
import pytest


@pytest.fixture
def predictions():
    """``(y, mean, sd)`` of 80 cases whose errors have heavier tails than their SD says."""
    rng = np.random.default_rng(21)
    mean, sd = rng.uniform(0.5, 5, 80), rng.uniform(0.1, 1.2, 80)
    return mean + sd * rng.standard_t(4, 80), mean, sd
