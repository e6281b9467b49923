"""The plan of a study and its one-machine run: train, calibrate and evaluate each method on one split, then report.

Every step is left alone where it is done already, so a study that was interrupted goes on with the same command.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from nigradat.errors import ConfigError
from nigradat.evaluation.evaluate import evaluate
from nigradat.io.pack import PackedCohort, load_cohort
from nigradat.models.registry import get_method
from nigradat.models.vgg import NARROW_WIDTHS, PAPER_WIDTHS, SMALL_WIDTHS
from nigradat.training.config import Hardware, make_config
from nigradat.training.fit import Report, train
from nigradat.training.split import make_split
from nigradat.uncertainty.calibration import CALIBRATION_NAME, calibrate


@dataclass(frozen=True)
class Scale:
    """How large a study is.

    Attributes:
        changes: to the default recipe.
        methods: what is compared when nothing else is asked for.
        note: said in the report.
    """

    changes: dict[str, Any]
    methods: tuple[str, ...]
    note: str


ALL_METHODS = ("vgg-small", "sym-vgg", "sym-vgg-plus")
SCALES = {
    "quick": Scale(
        {"widths": NARROW_WIDTHS},
        ("sym-vgg-plus",),
        "Quick scale: a narrow tower, to see the whole way in minutes. Use scale small or full for results.",
    ),
    "small": Scale({"widths": SMALL_WIDTHS}, ALL_METHODS, "Small scale: the width of the authors' per-side nets."),
    "full": Scale({"widths": PAPER_WIDTHS}, ALL_METHODS, "Full scale: the width of the paper's table; made for a GPU."),
}

TrainingBar = Callable[[str], AbstractContextManager[Report]]


def run_study(
    cohort: PackedCohort | str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    scale: str = "quick",
    methods: Sequence[str] = (),
    changes: dict[str, Any] | None = None,
    seed: int = 1,
    hardware: Hardware | None = None,
    bar: TrainingBar | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> tuple[Path, list[Any]]:
    """Train, calibrate and evaluate methods on one split of one cohort.

    Args:
        cohort: packed and labelled.
        out: study folder; one run folder a method in it. The same command goes on where it was interrupted.
        scale: ``quick``, ``small`` or ``full``.
        methods: names; default those of the scale.
        changes: to the recipe, on top of the scale's.
        seed: of split, weights and training.
        hardware: where to compute.
        bar: makes a progress report for a title.
        say: told what begins.

    Returns:
        The folder and the evaluations, in the order of ``methods``.

    Raises:
        ConfigError: unknown scale or method.
        OutputError: a run folder there has another configuration.
    """
    if scale not in SCALES:
        raise ConfigError(f"no scale is called '{scale}'", ", ".join(SCALES))
    names = tuple(methods) or SCALES[scale].methods
    for name in names:
        get_method(name)
    data = cohort if isinstance(cohort, PackedCohort) else load_cohort(cohort)
    out = Path(out)
    base = make_config(changes={**SCALES[scale].changes, **(changes or {}), "seed": seed})
    split = make_split(data, seed)
    results = []
    for name in names:
        config, run = replace(base, model=name), out / name
        title = get_method(name).title
        say(f"{title}: training on {len(split.train)} patients, {len(split.stop)} decide when to stop")
        if bar is None:
            train(data, run, config, hardware=hardware, split=split)
        else:
            with bar(title) as report:
                train(data, run, config, hardware=hardware, split=split, report=report)
        if not (run / CALIBRATION_NAME).is_file():
            say(f"{title}: calibrating on {len(split.calibration)} patients kept for it")
            calibrate(run, data)
        say(f"{title}: testing on {len(split.test)} patients")
        results.append(evaluate(run, data))
    return out, results
