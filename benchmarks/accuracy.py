"""The numbers of docs/results.md: train on phantom cohorts, test on fresh phantom patients, one seed at a time.

Cohort seed and training seed change together. The command goes on where it was interrupted, and ends by printing the
tables of docs/results.md.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from nigradat.cli.console import progress_bar, training_bar
from nigradat.evaluation.evaluate import evaluate
from nigradat.io.files import write_json
from nigradat.models.registry import get_method
from nigradat.phantom.cohort import simulate
from nigradat.report.page import write_evaluation
from nigradat.training.config import make_config
from nigradat.training.fit import train
from nigradat.uncertainty.calibration import CALIBRATION_NAME, calibrate


def cohort(folder: Path, patients: int, preset: str, seed: int) -> Path:
    """Render unless it is there."""
    if not (folder / "cohort.json").is_file():
        with progress_bar(folder.name, "patients") as progress:
            simulate(folder, patients=patients, preset=preset, seed=seed, progress=progress)
    return folder


def one_seed(out: Path, args: argparse.Namespace, seed: int) -> dict[str, Any]:
    """Train, calibrate and test one seed; the outcome is kept as ``seed-N.json``."""
    kept = out / f"seed-{seed}.json"
    if kept.is_file():
        return dict(json.loads(kept.read_text()))
    own = cohort(out / f"cohort-{seed}", args.patients, args.preset, seed)
    config = make_config(
        args.recipe, changes={"model": args.model, "widths": [int(w) for w in args.widths.split(",")], "seed": seed}
    )
    run = out / f"run-{seed}"
    with training_bar(f"{get_method(args.model).title}, seed {seed}") as report:
        train(own, run, config, report=report)
    if not (run / CALIBRATION_NAME).is_file():
        calibrate(run, own)
    fresh = cohort(out / f"fresh-{seed}", args.test, args.preset, 100_000 + seed)
    with progress_bar("testing", "patients") as progress:
        result = evaluate(run, fresh, trained_on=own, progress=progress)
    write_evaluation([result], run / "fresh")
    summary = result.to_json()
    write_json(kept, summary)
    return dict(json.loads(kept.read_text()))


ROWS = (
    ("R, Sym. VGG+", "{m}/pearson_r/average"),
    ("R, ridge on six features", "ridge/pearson_r/average"),
    ("R, oracle of one side", "oracle-single/pearson_r/average"),
    ("R / R of that oracle", "{m}/skill/r_ratio/average"),
    ("R less ridge, paired", "{m}-less-ridge/pearson_r/average"),
    ("RMSE, SBR", "{m}/rmse/average"),
    ("MAE, SBR", "{m}/mae/average"),
    ("RMSE of the ridge, SBR", "ridge/rmse/average"),
    ("Sharpness @ CP .95, MC", "{m}/mc/sharpness_at_cp/average"),
    ("Sharpness @ CP .95, symmetric MC (s1)", "{m}/s1/sharpness_at_cp/average"),
    ("Coverage of the 95 % conformal interval, right", "{m}/interval/coverage/right"),
    ("Coverage of the 95 % conformal interval, left", "{m}/interval/coverage/left"),
    ("Allowed: central 99.9 % beta-binomial range", "{m}/interval/coverage_range"),
    ("Full width of that interval, SBR", "{m}/interval/mpiw/average"),
)


def table(found: dict[int, dict[str, Any]], model: str) -> str:
    """All seeds side by side, as Markdown."""
    lines = ["| | " + " | ".join(f"seed {seed}" for seed in found) + " |", "|---" * (len(found) + 1) + "|"]
    for title, key in ROWS:
        cells = []
        for summary in found.values():
            number = summary["numbers"].get(key.format(m=model))
            if number is None:
                cells.append("n/a")
            elif key.endswith("coverage_range"):
                cells.append(f"{number['low']:.3f} to {number['high']:.3f}")
            elif number.get("low") is None:
                cells.append(f"{number['value']:.3f}")
            else:
                cells.append(f"{number['value']:.3f} ({number['low']:.3f} to {number['high']:.3f})")
        lines.append(f"| {title} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--patients", type=int, default=367)
    parser.add_argument("--test", type=int, default=2000)
    parser.add_argument("--preset", default="paper")
    parser.add_argument("--model", default="sym-vgg-plus")
    parser.add_argument("--widths", default="16,32,64,128")
    parser.add_argument("--recipe", default="default")
    args = parser.parse_args()
    print(table({seed: one_seed(args.out, args, seed) for seed in args.seeds}, args.model))


if __name__ == "__main__":
    sys.exit(main())
