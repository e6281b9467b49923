"""How long a method takes: its training as the fits noted it, its prediction as measured here and now.

Times of training are those of the machines that trained; times of prediction are those of the shortest of several
calls in this process, which other work disturbed least, after warming up, for one patient (both sides) at a time. They
compare methods within one table; between machines they compare machines.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from nigradat.anatomy import PATCH_SHAPE
from nigradat.evaluation.predictions import FitRecord
from nigradat.models.weights import LoadedModel, load_model
from nigradat.study.progress import epoch_seconds
from nigradat.uncertainty.mc_dropout import draw_predictions, has_spread, predict_sbr

_WARM_UP, _CALLS = 2, 15


@dataclass(frozen=True)
class TimingRow:
    """What one method costs.

    Attributes:
        method, title: as in the records.
        epoch_s: median over all epochs of its fits.
        training_s: mean over its fits.
        one_prediction_ms: both sides of one patient, without samples.
        samples_prediction_ms: the same with ``samples`` Monte-Carlo samples; None without dropout.
        samples: T.
        hardware: where the predictions were timed, and in short where the first fit was trained.
    """

    method: str
    title: str
    epoch_s: float | None
    training_s: float | None
    one_prediction_ms: float
    samples_prediction_ms: float | None
    samples: int
    hardware: str


def measure(records: Sequence[FitRecord], *, samples: int = 100, device: str = "auto") -> tuple[TimingRow, ...]:
    """A row for each method that has a finished fit, in the order of the records.

    Args:
        records: of a study; what is no trained model is passed over.
        samples: T.
        device: ``cpu``, ``gpu``, or ``auto`` for a GPU where there is one.

    Raises:
        WeightsError: a model that cannot be read.
    """
    methods: dict[str, list[tuple[FitRecord, Path]]] = {}
    for record in records:
        if record.role == "model" and record.folder is not None:
            methods.setdefault(record.method, []).append((record, record.folder))
    return tuple(_row(fits, samples, device) for fits in methods.values())


def describe_hardware(device: str = "auto") -> str:
    """CPU, cores, threads and GPU of this process in a line."""
    parts = [_cpu_name(), f"{os.cpu_count()} cores", f"{torch.get_num_threads()} torch threads"]
    if _on_gpu(device):
        parts.append(torch.cuda.get_device_name())
    return ", ".join(parts)


def _row(fits: Sequence[tuple[FitRecord, Path]], samples: int, device: str) -> TimingRow:
    first, folder = fits[0]
    loaded = load_model(folder)
    if _on_gpu(device):
        loaded.model.to("cuda")
    patches = np.random.default_rng(0).uniform(0.5, 1.5, (1, 2, *PATCH_SHAPE)).astype(np.float32)
    epochs = [seconds for _, run in fits for seconds in epoch_seconds(run)]
    totals = [record.seconds for record, _ in fits if record.seconds is not None]
    spread = has_spread(loaded.model)
    return TimingRow(
        method=first.method,
        title=first.title,
        epoch_s=float(np.median(epochs)) if epochs else None,
        training_s=float(np.mean(totals)) if totals else None,
        one_prediction_ms=_shortest_ms(lambda: predict_sbr(loaded.model, patches)),
        samples_prediction_ms=_shortest_ms(lambda: draw_predictions(loaded.model, patches, samples=samples))
        if spread
        else None,
        samples=samples,
        hardware=f"{describe_hardware(device)}; trained on {_training_hardware(loaded)}",
    )


def _shortest_ms(call: Callable[[], object]) -> float:
    taken = []
    for _ in range(_WARM_UP + _CALLS):
        before = time.perf_counter()
        call()
        taken.append(time.perf_counter() - before)
    return 1000 * min(taken[_WARM_UP:])


def _training_hardware(loaded: LoadedModel) -> str:
    there = loaded.card.get("training", {}).get("hardware", {})
    parts = [f"{there.get('machine')}", f"{there.get('cores')} cores", f"{there.get('threads')} threads"]
    return ", ".join([*parts, *([there["gpu"]] if there.get("gpu") else [])])


def _on_gpu(device: str) -> bool:
    return device != "cpu" and torch.cuda.is_available()


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, "") or platform.processor() or platform.machine()
