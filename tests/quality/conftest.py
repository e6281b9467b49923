"""A small phantom cohort, a net with fresh weights, and what is usual to it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from nigradat.io.pack import PackedCohort, load_cohort
from nigradat.models.weights import LoadedModel, load_model
from nigradat.phantom.cohort import simulate
from nigradat.quality.reference import Quality, fit_quality
from small_runs import write_run

SEED = 9301


@pytest.fixture(scope="session")
def phantom(tmp_path_factory: pytest.TempPathFactory) -> PackedCohort:
    """40 patients: 28 train, 3 stop, 3 calibrate, 6 test."""
    return load_cohort(simulate(tmp_path_factory.mktemp("phantom") / "cohort", patients=40, seed=SEED, workers=1))


@pytest.fixture(scope="session")
def fitted_run(phantom: PackedCohort, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder with a quality reference; copy it before writing into it."""
    folder, _ = write_run(tmp_path_factory.mktemp("run") / "run", phantom)
    fit_quality(folder, phantom)
    return folder


@pytest.fixture(scope="session")
def loaded(fitted_run: Path) -> LoadedModel:
    return load_model(fitted_run)


@pytest.fixture(scope="session")
def quality(loaded: LoadedModel) -> Quality:
    from nigradat.quality.reference import require_quality

    return require_quality(loaded)


@pytest.fixture
def own_run(fitted_run: Path, tmp_path: Path) -> Path:
    """A copy of the run that may be spoilt."""
    return Path(shutil.copytree(fitted_run, tmp_path / "own"))
