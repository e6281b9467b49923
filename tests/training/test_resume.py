"""A run that is killed at any moment goes on and ends with the very weights of one that was not."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from killed_runs import MOMENTS, config_of

from nigradat.errors import OutputError
from nigradat.io.pack import PackedCohort
from nigradat.models.weights import load_model
from nigradat.training.config import Hardware, make_config
from nigradat.training.fit import train

ONE = Hardware(accelerator="cpu", threads=1)

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="the killed processes are forked"),
    pytest.mark.timeout(1200),  # on a busy machine
]


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def killed(small_cohort: PackedCohort, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders of runs that were killed, one for each moment."""
    out = tmp_path_factory.mktemp("killed")
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("killed_runs.py")), str(small_cohort.folder), str(out)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=250,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [word for m in MOMENTS for word in (m, str(int(signal.SIGKILL)))], done.stderr
    return out


@pytest.fixture(scope="module")
def whole(small_cohort: PackedCohort, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same configurations, never interrupted."""
    out = tmp_path_factory.mktemp("whole")
    return {m: train(small_cohort, out / m, config_of(m), hardware=ONE) for m in ("end", "stopped")}


@pytest.mark.parametrize("moment", MOMENTS)
def test_it_ends_as_if_nothing_had_happened(
    moment: str, small_cohort: PackedCohort, killed: Path, whole: dict[str, Path], tmp_path: Path
) -> None:
    run = shutil.copytree(killed / moment, tmp_path / "run")
    assert not (run / "card.json").exists()  # nothing there could be taken for a finished run
    epochs: list[int] = []
    train(small_cohort, run, config_of(moment), hardware=ONE, report=lambda h, *_: epochs.append(len(h)))
    reference = whole["stopped" if moment == "stopped" else "end"]
    for name in ("model.safetensors", "log.csv", "split.json", "config.json"):
        assert (run / name).read_bytes() == (reference / name).read_bytes(), name
    assert {p.name for p in run.iterdir()} == {p.name for p in reference.iterdir()}  # nothing half-written is left
    first = {"start": 1, "first-step": 1, "mid-epoch": 3, "epoch": 3, "half-written": 2}.get(moment)
    assert epochs == ([] if first is None else list(range(first, 5)))  # no epoch is trained twice


def test_patience_ended_early(whole: dict[str, Path]) -> None:
    """Otherwise the moment ``stopped`` would show nothing."""
    assert load_model(whole["stopped"]).card["training"]["epochs"] < 30


def test_a_killed_run_is_not_resumed_with_another_configuration(
    small_cohort: PackedCohort, killed: Path, tmp_path: Path
) -> None:
    run = shutil.copytree(killed / "epoch", tmp_path / "run")
    before = {p.name: p.read_bytes() for p in run.iterdir()}
    other = make_config(changes={**config_of("epoch").to_json(), "epochs": 9})
    with pytest.raises(OutputError, match="epochs: 4 there, 9 here"):
        train(small_cohort, run, other, hardware=ONE)
    assert {p.name: p.read_bytes() for p in run.iterdir()} == before


def test_an_interruption_by_hand_resumes_too(
    small_cohort: PackedCohort, whole: dict[str, Path], tmp_path: Path
) -> None:
    def interrupt(history: list[dict[str, float]], *_: object) -> None:
        if len(history) == 2:
            raise KeyboardInterrupt

    with pytest.raises((KeyboardInterrupt, SystemExit)):
        train(small_cohort, tmp_path / "run", config_of("end"), hardware=ONE, report=interrupt)
    train(small_cohort, tmp_path / "run", config_of("end"), hardware=ONE)
    name = "model.safetensors"
    assert (tmp_path / "run" / name).read_bytes() == (whole["end"] / name).read_bytes()
