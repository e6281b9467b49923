"""What is behind the gain of a shared tower on the phantom: ``python benchmarks/sharing.py OUT --draws 3``.

One tower for both sides sees two patches of every patient, a tower of its own one. So the gain may come from the larger
sample, the longer training or the coupling of the sides, and our warm-up may take it away. Each guess is one more
training on the same patients with one thing changed; 2,000 fresh patients per draw test them all. ``OUT`` keeps every
fit: the same command goes on where it was interrupted, and ``--only 2`` makes one draw alone, for several at a time.
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
QUESTIONS = [
    ("a shared tower", "sym-vgg", "vgg-small"),
    ("twice the patients instead", "vgg-small-doubled", "vgg-small"),
    ("a shared tower, against towers that had twice the patients", "sym-vgg", "vgg-small-doubled"),
    ("twice the epochs instead", "vgg-small-longer", "vgg-small"),
    ("a shared tower, both without warm-up", "sym-vgg-plain", "vgg-small-plain"),
    ("the symmetric term, lambda .1", "sym-vgg-plus", "sym-vgg"),
    ("the symmetric term, lambda 1", "lambda-1", "sym-vgg"),
    ("shared tower and term: the paper's claim", "sym-vgg-plus", "vgg-small"),
]


def make_draw(out: Path, number: int, fresh: int, threads: int) -> None:
    """Draw, train and predict what is not there yet."""
    seed = FIRST_SEED + 2 * (number - 1)
    for name, patients, of in (("cohort", PATIENTS, seed), ("fresh", fresh, seed + 1)):
        if not (out / name).exists():
            nigradat.simulate(out / name, patients=patients, preset="paper", seed=of, workers=threads)
    cohort, tested = nigradat.load_cohort(out / "cohort"), nigradat.load_cohort(out / "fresh")
    whole = nigradat.make_split(cohort, seed)
    half = replace(whole, train=whole.train[::2], scheme="half of the training patients")
    for name, fit in FITS.items():
        if (out / f"{name}.npy").exists():
            continue
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
    truth = [np.asarray(nigradat.load_cohort(d / "fresh").sbr, dtype=np.float64) for d in draws]
    predicted = {name: [np.load(d / f"{name}.npy") for d in draws] for name in FITS}
    print(f"\n{sum(map(len, truth)):,} fresh patients of {len(draws)} draws, averages of both sides\n")
    print("| training | MAE, SBR | R |\n|---|---|---|")
    for name, answers in predicted.items():
        errors = [_average(mae, t, p) for t, p in zip(truth, answers, strict=True)]
        r = [_average(pearson_r, t, p) for t, p in zip(truth, answers, strict=True)]
        print(f"| {name} | {np.mean(errors):.3f} | {np.mean(r):.3f} |")
    print("\n| what is changed | MAE less (95 % over patients) | each draw |\n|---|---|---|")
    for question, first, second in QUESTIONS:
        pairs = list(zip(truth, predicted[first], predicted[second], strict=True))
        whole = less_error(*(np.concatenate(part) for part in zip(*pairs, strict=True)))
        each = ", ".join(f"{less_error(*pair).value:.1%}" for pair in pairs)
        print(f"| {question} | {whole.value:.1%} ({whole.low:.1%} to {whole.high:.1%}) | {each} |")
    low, high = in_small_samples(*(np.concatenate(part) for part in zip(*pairs, strict=True)))
    print(f"\nThe last line with {PAPERS_TEST_PATIENTS} tested patients: {low:.1%} to {high:.1%}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path, help="folder for cohorts and fits")
    parser.add_argument("--draws", type=int, default=3, help="phantom cohorts, each with its own fits")
    parser.add_argument("--only", type=int, help="make this draw alone, and no report")
    parser.add_argument("--fresh", type=int, default=2000, help="test patients of a draw")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    asked = parser.parse_args()
    draws = {n: asked.out / f"draw-{n}" for n in range(1, asked.draws + 1)}
    for number, folder in draws.items():
        if asked.only in (None, number):
            folder.mkdir(parents=True, exist_ok=True)
            make_draw(folder, number, asked.fresh, asked.threads)
    if asked.only is None:
        report(list(draws.values()))


if __name__ == "__main__":
    main()
