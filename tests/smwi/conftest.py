"""One made-up head for all tests of this folder."""

from __future__ import annotations

import pytest

from forward_model import Head, make_head
from nigradat.smwi.chain import SmwiResult, make_smwi
from nigradat.smwi.recipe import SmwiRecipe


@pytest.fixture(scope="session")
def head() -> Head:
    """Tilted slab, scalp behind a skull, air cavity, coil phase, noise."""
    return make_head((96, 112, 40), (1.25, 1.25, 1.5), tilt_deg=20, snr=30, seed=3, skull=True)


@pytest.fixture(scope="session")
def made(head: Head) -> SmwiResult:
    """Of that head by the default recipe."""
    return make_smwi(head.gre)


@pytest.fixture(scope="session")
def by_tkd(head: Head) -> SmwiResult:
    return make_smwi(head.gre, SmwiRecipe(inversion="tkd"))
