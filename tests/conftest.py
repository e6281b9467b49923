"""Fixtures that several layers share."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings

from nigradat.anatomy import PATCH_SHAPE
from nigradat.pair import NigralPair

# no test is timed, so neither are the examples of a property
settings.register_profile("nigradat", deadline=None)
settings.load_profile("nigradat")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real data beside the checkout; nothing of it is in the repository."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "data"
    if not (folder / "README.md").is_file():
        pytest.skip(f"no real data here: {folder / 'README.md'} is missing")
    return folder


@pytest.fixture
def random_pair() -> NigralPair:
    """A valid pair of noise on the patch grid; the two sides differ."""
    rng = np.random.default_rng(20251)
    right, left = rng.uniform(0.5, 1.5, (2, *PATCH_SHAPE))
    return NigralPair.from_arrays(right, left, "sub-0001")
