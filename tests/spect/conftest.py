"""Heads with known uptake, measured often enough to be made once."""

from __future__ import annotations

import pytest

from nigradat.phantom.striatum import SideUptake, StriatalHead, random_pose, striatal_head
from nigradat.spect.registration import Alignment, register

RIGHT, LEFT = SideUptake(3.0, 2.2, 1.2), SideUptake(1.5, 1.0, 0.5)


@pytest.fixture(scope="session")
def lopsided() -> StriatalHead:
    """Twice as much on the right, in a tilted head."""
    return striatal_head(RIGHT, LEFT, scan_from_mni=random_pose(3))


@pytest.fixture(scope="session")
def aligned(lopsided) -> Alignment:
    """What the registration finds for one draw of it."""
    return register(lopsided.draw(1))
