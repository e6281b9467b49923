"""A script of its own: a study of one fit, to be killed. Usage: ``killed_study.py COHORT OUT``."""

from __future__ import annotations

import os
import sys
from typing import Any

from nigradat.study.plan import run_study

STUDY: dict[str, Any] = {
    "methods": ["vgg-left"],
    "level": 0.5,
    "samples": 4,
    "changes": {"widths": (2, 2, 2, 2), "epochs": 6, "batch_size": 16},
    "workers": 1,
    "device": "cpu",
}

if __name__ == "__main__":
    os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])  # one thread, as in the test's own process
    run_study(sys.argv[1], sys.argv[2], **STUDY)
