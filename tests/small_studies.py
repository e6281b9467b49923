"""A study folder whose fits were made up: predictions of known quality, with the files that training would leave."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nigradat.evaluation.predictions import PREDICTIONS_NAME, FitRecord, Predictions
from nigradat.io.files import write_json, write_text
from nigradat.models.registry import get_method
from nigradat.training.config import make_config

QUALITY = {"vgg16": 1.4, "vgg-small": 0.9, "vgg-left": 0.9, "sym-vgg": 0.7, "sym-vgg-plus": 0.5}
FAILURE = "training diverged in epoch 2 (the error is no number). Expected <a finite error> & no more"
EPOCHS = 10


@dataclass(frozen=True)
class Time:
    """A row of computation time."""

    title: str
    epoch_s: float | None = 1.25
    training_s: float | None = 12.5
    one_prediction_ms: float | None = 4.5
    samples_prediction_ms: float | None = None
    samples: int = 100
    hardware: str = "a made-up machine"


def write_fits(
    folder: Path,
    *,
    patients: int = 30,
    splits: int = 2,
    seeds: int = 2,
    kind: str = "phantom",
    methods: Mapping[str, float] = QUALITY,
    fresh: int = 0,
) -> tuple[tuple[FitRecord, ...], dict[str, Any]]:
    """Records and plan; the first fit of vgg16, where there is one, has failed."""
    rng = np.random.default_rng(3)
    records = []
    for number in range(splits):
        split = f"{'draw' if fresh else 'split'}-{number + 1}"
        truth = np.exp(0.6 + 0.5 * (rng.normal(size=(patients, 1)) + 0.3 * rng.normal(size=(patients, 2)))).clip(
            0.43, 6.8
        )
        ids = tuple(f"sub-{i:03d}" for i in rng.permutation(2 * patients)[:patients])

        drawn = _Split(folder / "fits" / split, split, f"{number:064x}", ids, truth, rng)
        for seed in range(1, seeds + 1):
            for method, spread in methods.items():
                title = get_method(method).title
                if method == "vgg16" and (number, seed) == (0, 1):
                    failed = FitRecord(
                        method, title, "model", split, seed, None, drawn.sha256, 70, patients, failed=FAILURE
                    )
                    records.append(failed)
                    continue
                best = EPOCHS if seed == 1 else EPOCHS // 2
                more = {"epochs": EPOCHS, "best_epoch": best, "seconds": 9.0, "parameters": 1234}
                records.append(_fit(drawn, method, title, "model", seed, spread, **more))
                _leave_run_files(records[-1], kind)
        records.append(_fit(drawn, "ridge", "Ridge, 6 hand-made features", "baseline", 0, 0.8))
        if kind == "phantom":
            records.append(_fit(drawn, "oracle-single", "Oracle, sees own side", "oracle", 0, 0.3))
            records.append(_fit(drawn, "oracle-pair", "Oracle, sees both sides", "oracle", 0, 0.2))
    plan = {
        "cohort": {"sha256": "c" * 64, "patients": 100, "visits": 100, "kind": kind}
        | ({"preset": {"name": "easy"}, "seed": 7} if kind == "phantom" else {}),
        "scale": "quick",
        "methods": list(methods),
        "design": "repeated",
        "splits": splits,
        "seeds": seeds,
        "fresh": fresh,
        "seed": 1,
        "level": 0.9,
        "threshold": 2.56,
        "samples": 50,
        "recipe": make_config().to_json(),
        "versions": {"nigradat": "0.1.0", "torch": "2.0"},
        "note": "Quick scale.",
    }
    return tuple(records), plan


@dataclass(frozen=True)
class _Split:
    place: Path
    name: str
    sha256: str
    ids: tuple[str, ...]
    truth: np.ndarray
    rng: np.random.Generator


def _fit(on: _Split, method: str, title: str, role: Any, seed: int, error: float, **more: Any) -> FitRecord:
    """Predictions with an error of their own, modes of spread as the method would have them."""
    folder, truth = on.place / f"{method}-seed{seed}", on.truth
    predicted = 0.7 * truth + 0.6 + error * on.rng.normal(size=truth.shape)
    if method == "vgg-left":
        predicted[:, 0] = np.nan
    sd = 0.2 + 0.1 * np.abs(predicted)
    modes = {} if role == "baseline" else {"oracle" if role == "oracle" else "mc": (predicted, sd)}
    if role == "model" and method != "vgg-left":
        pooled = np.repeat(sd.mean(axis=1, keepdims=True), 2, axis=1)
        modes |= {"s1": (predicted, pooled), "s6": (predicted, 1.1 * pooled)}
    ends = {mode: (centre - 3 * spread, centre + 3 * spread) for mode, (centre, spread) in modes.items()}
    folder.mkdir(parents=True, exist_ok=True)
    Predictions(on.ids, ("n/a",) * len(on.ids), truth, predicted, modes, ends).save(folder / PREDICTIONS_NAME)
    return FitRecord(method, title, role, on.name, seed, folder, on.sha256, 70, len(on.ids), **more)


def _leave_run_files(record: FitRecord, kind: str) -> None:
    assert record.folder is not None
    config = make_config(changes={"model": record.method, "seed": record.seed, "widths": (2, 2, 4, 4)}).to_json()
    training = {
        "kind": kind,
        "patients": {"train": 70, "stop": 8, "calibration": 7, "test": record.test_patients},
        "hardware": {"machine": "x86_64", "cores": 2, "threads": 1, "gpu": None},
    }
    write_json(record.folder / "config.json", {"config": config})
    write_json(record.folder / "card.json", {"training": training, "sbr_scale": {"min": 0.43, "max": 6.8}})
    lines = (f"{e},{0.05 / (1 + e):.4f},{1.0 / (1 + e) + 0.3:.4f},0.5\n" for e in range(EPOCHS))
    write_text(record.folder / "log.csv", "epoch,train_loss,stop_mse,stop_r\n" + "".join(lines))
