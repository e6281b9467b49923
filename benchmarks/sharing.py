"""What is behind the gain of a shared tower on the phantom: ``python benchmarks/sharing.py OUT --draws 3``.

One tower for both sides sees two patches of every patient, a tower of its own one. So the gain may come from the larger
sample, the longer training or the coupling of the sides, and our warm-up may take it away. Each guess is one more
training on the same patients with one thing changed; 2,000 fresh patients per draw test them all. ``OUT`` keeps every
fit: the same command goes on where it was interrupted. ``--fits`` makes some of them only, and the report says of how
many draws each line is.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import nigradat
from nigradat.metrics.cases import per_side
from nigradat.metrics.error import mae, pearson_r
from nigradat.metrics.resampling import Estimate, bca
from nigradat.models.vgg import NARROW_WIDTHS
from nigradat.uncertainty.mc_dropout import predict_sbr

Array = npt.NDArray[np.float64]

PATIENTS = 734  # 70 % of them are twice the paper's training patients
FIRST_SEED = 31
PAPERS_TEST_PATIENTS = 55


@dataclass(frozen=True)
class Fit:
    """One training: of whom, and what differs from the default recipe."""

    model: str
    doubled: bool = False
    changes: dict[str, Any] = field(default_factory=dict)


NO_WARM_UP = {"warm_up": 0.0, "feature_weight": 0.0}
FITS = {
    "vgg-small": Fit("vgg-small"),
    "sym-vgg": Fit("sym-vgg"),
    "vgg-small-doubled": Fit("vgg-small", doubled=True),
    "sym-vgg-plus": Fit("sym-vgg-plus"),
    "lambda-1": Fit("sym-vgg-plus", changes={"symmetry_weight": 1.0}),
    "vgg-small-plain": Fit("vgg-small", changes=NO_WARM_UP),
    "sym-vgg-plain": Fit("sym-vgg", changes=NO_WARM_UP),
    "vgg-small-longer": Fit("vgg-small", changes={"epochs": 80, "patience": 80}),
}
SHARED = "a shared tower"
QUESTIONS = [
    (SHARED, "sym-vgg", "vgg-small"),
    ("twice the patients instead", "vgg-small-doubled", "vgg-small"),
    ("a shared tower, against towers that had twice the patients", "sym-vgg", "vgg-small-doubled"),
    ("twice the epochs instead", "vgg-small-longer", "vgg-small"),
    ("a shared tower, both without warm-up", "sym-vgg-plain", "vgg-small-plain"),
    ("the symmetric term, lambda .1", "sym-vgg-plus", "sym-vgg"),
    ("the symmetric term, lambda 1", "lambda-1", "sym-vgg"),
    ("shared tower and term: the paper's claim", "sym-vgg-plus", "vgg-small"),
]


def make_draw(out: Path, number: int, fits: list[str], fresh: int, threads: int) -> None:
    """Draw, train and predict what is not there yet."""
    seed = FIRST_SEED + 2 * (number - 1)
    for name, patients, of in (("cohort", PATIENTS, seed), ("fresh", fresh, seed + 1)):
        if not (out / name).exists():
            nigradat.simulate(out / name, patients=patients, preset="paper", seed=of, workers=threads)
    cohort, tested = nigradat.load_cohort(out / "cohort"), nigradat.load_cohort(out / "fresh")
    whole = nigradat.make_split(cohort, seed)
    half = replace(whole, train=whole.train[::2], test=whole.test + whole.train[1::2], scheme="half of them train")
    for name in fits:
        if (out / f"{name}.npy").exists():
            continue
        fit = FITS[name]
        config = nigradat.make_config(
            changes={"widths": NARROW_WIDTHS, "model": fit.model, "seed": number, **fit.changes}
        )
        run = nigradat.train(
            cohort,
            out / name,
            config,
            split=whole if fit.doubled else half,
            hardware=nigradat.Hardware(threads=threads),
        )
        model = nigradat.load(run).model
        predicted = [predict_sbr(model, tested.patches[i : i + 200]) for i in range(0, len(tested), 200)]
        np.save(out / f"{name}.npy", np.concatenate(predicted))
        print(f"{out.name}: {name} done", flush=True)


def _average(metric: Callable[..., Array], truth: Array, predicted: Array) -> Array:
    return np.asarray(per_side(metric, truth, predicted).average)


def less_error(truth: Array, first: Array, second: Array) -> Estimate:
    """By which share of its MAE the second errs more; both sides averaged, interval over patients."""

    def share(i: npt.NDArray[np.intp]) -> Array:
        return 1 - _average(mae, truth[i], first[i]) / _average(mae, truth[i], second[i])

    return bca(share, len(truth), seed=1)


def in_small_samples(truth: Array, first: Array, second: Array) -> tuple[float, float]:
    """Central 95 % of that share where so few patients are tested as in the paper."""
    rng = np.random.default_rng(1)
    errors = [np.abs(p - truth).mean(axis=1) for p in (first, second)]
    rows = [rng.choice(len(truth), PAPERS_TEST_PATIENTS, replace=False) for _ in range(10_000)]
    shares = [1 - errors[0][i].mean() / errors[1][i].mean() for i in rows]
    low, high = np.quantile(shares, [0.025, 0.975])
    return float(low), float(high)


def report(draws: list[Path]) -> None:
    truth = {d: np.asarray(nigradat.load_cohort(d / "fresh").sbr, dtype=np.float64) for d in draws}
    predicted = {(n, d): np.load(d / f"{n}.npy") for n in FITS for d in draws if (d / f"{n}.npy").exists()}
    print("\nAverages of both sides, fresh phantom patients\n")
    print("| training | draws | MAE, SBR | R |\n|---|---|---|---|")
    for name in FITS:
        there = [d for d in draws if (name, d) in predicted]
        if there:
            errors, r = (
                [float(_average(metric, truth[d], predicted[name, d])) for d in there] for metric in (mae, pearson_r)
            )
            print(f"| {name} | {len(there)} | {np.mean(errors):.3f} | {np.mean(r):.3f} |")
    print("\n| what is changed | patients | MAE less (95 % over patients) | each draw |\n|---|---|---|---|")
    for question, first, second in QUESTIONS:
        pairs = [
            (truth[d], predicted[first, d], predicted[second, d])
            for d in draws
            if (first, d) in predicted and (second, d) in predicted
        ]
        if pairs:
            y, one, other = (np.concatenate(part) for part in zip(*pairs, strict=True))
            whole = less_error(y, one, other)
            each = ", ".join(f"{less_error(*pair).value:.1%}" for pair in pairs)
            print(f"| {question} | {len(y):,} | {whole.value:.1%} ({whole.low:.1%} to {whole.high:.1%}) | {each} |")
            if question == SHARED:
                low, high = in_small_samples(y, one, other)
                print(f"| the same of {PAPERS_TEST_PATIENTS} patients each | {len(y):,} | {low:.1%} to {high:.1%} | |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path, help="folder for cohorts and fits")
    parser.add_argument("--draws", type=int, default=3, help="phantom cohorts, each with its own fits")
    parser.add_argument("--fits", default=",".join(FITS), help="what is trained, comma-separated")
    parser.add_argument("--fresh", type=int, default=2000, help="test patients of a draw")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    asked = parser.parse_args()
    fits = asked.fits.split(",")
    if unknown := set(fits) - set(FITS):
        parser.error(f"no fit is called {', '.join(sorted(unknown))}; there are {', '.join(FITS)}")
    for number in range(1, asked.draws + 1):
        folder = asked.out / f"draw-{number}"
        folder.mkdir(parents=True, exist_ok=True)
        make_draw(folder, number, fits, asked.fresh, asked.threads)
    report(sorted(asked.out.glob("draw-*")))


if __name__ == "__main__":
    main()
