"""Data-parallel training on two processes of this machine."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from nigradat.io.pack import PackedCohort
from nigradat.models.symmetric import build
from nigradat.models.weights import load_model

SCRIPT = """
import json
import sys
from nigradat.training.config import Hardware, make_config
from nigradat.training.fit import train

if __name__ == "__main__":
    changes = {"widths": (2, 2, 2, 2), "epochs": 4, "batch_size": 3, "seed": 3, **json.loads(sys.argv[4])}
    hardware = Hardware(accelerator="cpu", devices=int(sys.argv[3]), threads=1)
    train(
        sys.argv[1],
        sys.argv[2],
        make_config(changes=changes),
        hardware=hardware,
        report=lambda h, best, n: print("told", len(h), best, n),
    )
"""


def fit(cohort: PackedCohort, run: Path, processes: int, **changes: object) -> list[list[str]]:
    """Train; what was told after each epoch: its number, the best one, how many are planned."""
    script = run.with_suffix(".py")
    script.write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, str(script), str(cohort.folder), str(run), str(processes), json.dumps(changes)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [line.split()[1:] for line in done.stdout.splitlines() if line.startswith("told")]


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.skipif(not torch.distributed.is_available(), reason="torch without distributed training")
@pytest.mark.parametrize("blocks", [0.0, 0.2])
def test_two_processes_train_what_one_trains(small_cohort: PackedCohort, tmp_path: Path, blocks: float) -> None:
    """Augmentation, noise, dropout, uneven batches and the last step included; only sums in another order differ."""
    told = [fit(small_cohort, tmp_path / f"run-{n}", n, block_dropout=blocks) for n in (1, 2)]
    assert told[0] == told[1]
    assert [(int(n), int(planned)) for n, _, planned in told[1]] == [(n, 4) for n in range(1, 5)]  # once each
    one, two = (load_model(tmp_path / f"run-{n}") for n in (1, 2))
    start = build(one.spec, seed=3).state_dict()
    assert not torch.allclose(two.model.state_dict()["nets.both.head.weight"], start["nets.both.head.weight"])
    for name, value in one.model.state_dict().items():
        assert torch.allclose(value, two.model.state_dict()[name], rtol=1e-3, atol=1e-4), name
    logs = [list(csv.DictReader((tmp_path / f"run-{n}" / "log.csv").open())) for n in (1, 2)]
    for line, other in zip(*logs, strict=True):
        numbers = ({name: float(value) for name, value in row.items()} for row in (line, other))
        assert next(numbers) == pytest.approx(next(numbers), rel=1e-3, nan_ok=True)
    errors = ([v for v in m.card["metrics"].values() if isinstance(v, float)] for m in (one, two))
    assert next(errors) == pytest.approx(next(errors), rel=1e-3)
