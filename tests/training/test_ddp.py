"""Data-parallel training on two processes of this machine."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from nigradat.io.pack import PackedCohort
from nigradat.models.weights import load_model
from nigradat.training.split import Split
from nigradat.uncertainty.mc_dropout import predict_sbr

SCRIPT = """
import sys
from nigradat.training.config import Hardware, make_config
from nigradat.training.fit import train

if __name__ == "__main__":
    config = make_config(changes={"widths": (2, 2, 2, 2), "epochs": 2, "seed": 3, "output_penalty": 0})
    hardware = Hardware(accelerator="cpu", devices=2, threads=1)
    train(sys.argv[1], sys.argv[2], config, hardware=hardware, report=lambda h, best, n: print("told", len(h), best, n))
"""


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.skipif(not torch.distributed.is_available(), reason="torch without distributed training")
def test_two_processes_train_one_model(small_cohort: PackedCohort, tmp_path: Path) -> None:
    script, run = tmp_path / "script.py", tmp_path / "run"
    script.write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, str(script), str(small_cohort.folder), str(run)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    told = [line.split()[1:] for line in done.stdout.splitlines() if line.startswith("told")]
    assert [(int(n), int(planned)) for n, _, planned in told] == [(1, 2), (2, 2)]  # in the calling process, once each
    with (run / "log.csv").open() as stream:
        log = list(csv.DictReader(stream))
    loaded = load_model(run)
    rows = Split.load(run / "split.json").rows(small_cohort, "stop")
    predicted = predict_sbr(loaded.model, np.asarray(small_cohort.patches[rows]))
    best = loaded.card["training"]["best_epoch"]
    assert np.mean((predicted - small_cohort.sbr[rows]) ** 2) == pytest.approx(float(log[best]["stop_mse"]), rel=1e-4)
