"""Fixtures that several layers share."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings

from nigradat.anatomy import PATCH_SHAPE
from nigradat.io.manifest import Participant
from nigradat.io.pack import CohortWriter, PackedCohort, load_cohort
from nigradat.pair import NigralPair

MakeCohort = Callable[..., PackedCohort]

# No test is timed, so neither are the examples of a property. The check before a landing draws the same examples each
# time (HYPOTHESIS_PROFILE=nigradat-ci): it judges the change, not the draw.
settings.register_profile("nigradat", deadline=None)
settings.register_profile("nigradat-ci", deadline=None, derandomize=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "nigradat"))


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


@pytest.fixture(scope="session")
def make_cohort(tmp_path_factory: pytest.TempPathFactory) -> MakeCohort:
    """Write small cohorts of noise in which a bright block in the middle of each patch tells the SBR.

    A patient's images and labels depend on (seed, position) alone. ``visits`` rows in a row belong to one patient.
    """

    def make(n: int, *, seed: int = 0, kind: str = "phantom", name: str = "sub", visits: int = 1) -> PackedCohort:
        folder = tmp_path_factory.mktemp("cohort") / "packed"
        participants = []
        with CohortWriter(folder, patients=n, provenance={"kind": kind}) as writer:
            for i in range(n):
                rng = np.random.default_rng([seed, i])
                sbr = np.clip(rng.uniform(0.5, 5) + rng.normal(0, 0.3, 2), 0.43, 6.8).round(2)
                patches = rng.normal(1, 0.2, (2, *PATCH_SHAPE)).clip(0.01)
                patches[:, 20:30, 20:30, 5:15] += 0.1 * sbr[:, None, None, None]
                writer.patches[i] = patches
                patient, visit = divmod(i, visits)
                participants.append(
                    Participant(
                        f"{name}-{patient:03d}",
                        f"ses-{visit}" if visits > 1 else "n/a",
                        sbr_right=float(sbr[0]),
                        sbr_left=float(sbr[1]),
                    )
                )
            writer.finish(participants)
        return load_cohort(folder)

    return make


@pytest.fixture(scope="session")
def small_cohort(make_cohort: MakeCohort) -> PackedCohort:
    """24 patients, of whom two calibrate."""
    return make_cohort(24)


@pytest.fixture(scope="session")
def small_run(small_cohort: PackedCohort, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny shared net with head dropout, after two epochs on ``small_cohort``; copy it before writing into it."""
    from nigradat.training.config import make_config
    from nigradat.training.fit import train

    plain = {"widths": (2, 2, 2, 2), "epochs": 2, "batch_size": 8, "learning_rate": 1e-3, "seed": 3}
    config = make_config(changes=plain)
    return train(small_cohort, tmp_path_factory.mktemp("run") / "run", config)
