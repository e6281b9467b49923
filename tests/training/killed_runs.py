"""A script of its own: train until a chosen moment and die there, without any chance to tidy up.

Usage: ``killed_runs.py COHORT OUT``. Each moment gets a run folder of its own below OUT; a forked process trains in it.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import nigradat.training.fit as fit
import nigradat.training.module as module
from nigradat.io import files
from nigradat.training.config import Hardware, TrainConfig, make_config

PLAIN = {"widths": (2, 2, 2, 2), "epochs": 4, "batch_size": 8, "seed": 3}
STOPPED = {**PLAIN, "epochs": 30, "patience": 1, "learning_rate": 0.02, "schedule": "constant", "average_decay": 0.0}


def config_of(moment: str) -> TrainConfig:
    """``stopped``: patience ends this one long before its last epoch."""
    return make_config(changes=STOPPED if moment == "stopped" else PLAIN)


def die(*_: object) -> NoReturn:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


def dying_at_call(function: Callable[..., Any], number: int) -> Callable[..., Any]:
    calls = 0

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == number:
            die()
        return function(*args, **kwargs)

    return wrapped


def train_until(moment: str, cohort: Path, out: Path) -> None:
    """Two steps an epoch (16 training patients, 8 a step)."""
    report = None
    if moment == "start":  # the split is there, the configuration is not
        fit.write_json = die  # type: ignore[assignment]
    elif moment == "first-step":
        module.symmetric_loss = dying_at_call(module.symmetric_loss, 1)
    elif moment == "mid-epoch":
        module.symmetric_loss = dying_at_call(module.symmetric_loss, 6)
    elif moment == "epoch":

        def report(history: list[dict[str, float]], best: int, epochs: int) -> None:
            if len(history) == 2:
                die()

    elif moment == "half-written":  # the second resume file lies beside the first, not yet renamed
        names: list[str] = []
        replace = os.replace

        def dying_replace(source: Any, target: Any) -> None:
            names.append(Path(target).name)
            if names.count(fit.RESUME_NAME) == 2:
                die()
            replace(source, target)

        files.os.replace = dying_replace  # type: ignore[assignment]
    else:  # all epochs are done, the model is not saved
        fit.save_model = die  # type: ignore[assignment]
    fit.train(cohort, out, config_of(moment), hardware=Hardware(accelerator="cpu", threads=1), report=report)


MOMENTS = ("start", "first-step", "mid-epoch", "epoch", "half-written", "end", "stopped")


def main(cohort: Path, out: Path) -> None:
    """Print ``moment signal`` for each."""
    import pytorch_lightning  # noqa: F401  # once, before the forks

    for moment in MOMENTS:
        child = os.fork()
        if child == 0:
            train_until(moment, cohort, out / moment)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        print(moment, os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0, flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
