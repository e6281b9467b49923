"""What was done: computation time, every fit, and the splits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol

from nigradat.evaluation.comparison import Comparison
from nigradat.evaluation.predictions import FitRecord
from nigradat.evaluation.study_tables.parts import finite, whole
from nigradat.evaluation.table import Cell, Column, Row, Table

LATE_SHARE: Final = 0.9  # of a fit's epochs
LATE_MEANS: Final = (
    "With a schedule whose rate falls to nothing at the end this is usual, and says that training was cut short only "
    "where the curve still falls steeply."
)


class TimingRow(Protocol):
    """What the table of computation time needs of a method; None where it was not measured."""

    @property
    def title(self) -> str:
        """As a table prints it."""

    @property
    def epoch_s(self) -> float | None:
        """Training, seconds an epoch."""

    @property
    def training_s(self) -> float | None:
        """Training of one fit, seconds."""

    @property
    def one_prediction_ms(self) -> float | None:
        """Both sides of one patient, one pass, milliseconds."""

    @property
    def samples_prediction_ms(self) -> float | None:
        """The same with Monte-Carlo samples, milliseconds."""

    @property
    def samples(self) -> int:
        """How many."""

    @property
    def hardware(self) -> str:
        """Where it was measured."""


def time_table(timing: Sequence[TimingRow], label: str = "") -> Table:
    """Training and prediction by method, with the hardware."""
    rows = tuple(
        Row(
            t.title,
            (
                Cell(finite(t.epoch_s), digits=2),
                Cell(finite(t.training_s), digits=1),
                Cell(finite(t.one_prediction_ms), digits=1),
                Cell(finite(t.samples_prediction_ms), digits=1),
                Cell(t.hardware),
            ),
        )
        for t in timing
    )
    samples = " or ".join(dict.fromkeys(str(t.samples) for t in timing))
    return Table(
        "time",
        "Computation time",
        "Method",
        (
            Column("an epoch (s)", "Training"),
            Column("one fit (s)", "Training"),
            Column("one pass (ms)", "One patient, both sides"),
            Column(f"{samples} samples (ms)", "One patient, both sides"),
            Column("Hardware"),
        ),
        rows,
        ("For orientation: the machine may have had other work. Times compare methods within this table only.",),
        label,
    )


def fit_table(comparison: Comparison, records: Sequence[FitRecord], label: str = "") -> Table:
    """Every fit: split, seed, epochs, time, scores; failed ones with their reason."""
    scores = {(f.record.method, f.record.split, f.record.seed): f for m in comparison.methods for f in m.fits}
    rows = []
    for r in records:
        found = scores.get((r.method, r.split, r.seed))
        is_net = r.role == "model"  # a derived predictor has no training of its own
        own = r.epochs, r.best_epoch, r.starts, r.seconds, r.parameters
        epochs, best, starts, seconds, parameters = own if is_net else (None,) * len(own)
        rows.append(
            Row(
                r.title,
                (
                    Cell(r.split),
                    whole(r.seed if is_net or r.role == "derived" else None),
                    whole(r.train_patients),
                    whole(r.test_patients),
                    whole(epochs),
                    whole(best),
                    Cell(None if epochs is None or best is None else "yes" if is_late(r) else "no"),
                    whole(starts),
                    Cell(finite(seconds), digits=0),
                    whole(parameters),
                    *(Cell(finite(getattr(found, name, None))) for name in ("rmse", "mae", "pearson_r")),
                    Cell(f"failed: {r.failed}" if r.failed else "ended"),
                ),
                r.role,
            )
        )
    trained = [r for r in records if r.role == "model" and r.best_epoch is not None]
    return Table(
        "fits",
        "Every fit",
        "Method",
        (
            *(Column(name) for name in ("Split", "Seed")),
            *(Column(name, "Patients") for name in ("train", "test")),
            *(Column(name, "Epochs") for name in ("all", "best", "late", "starts")),
            *(Column(name) for name in ("Seconds", "Parameters")),
            *(Column(name, "Average of both sides") for name in ("RMSE", "MAE", "R")),
            Column("Outcome"),
        ),
        tuple(rows),
        (
            f"late: the kept epoch is among the last {100 * (1 - LATE_SHARE):.0f} % of the fit's epochs: "
            f"{sum(map(is_late, trained))} of {len(trained)} trained fits. {LATE_MEANS}",
            "starts: above 1 where most of a tower died in its warm-up and the fit began anew from other weights.",
        ),
        label,
    )


def is_late(record: FitRecord) -> bool:
    """Whether the best epoch lies so near the last that training may have been stopped early."""
    if record.epochs is None or record.best_epoch is None:
        return False
    return record.best_epoch > LATE_SHARE * record.epochs


def split_table(comparison: Comparison, records: Sequence[FitRecord], label: str = "") -> Table:
    """The splits with their hashes and sizes."""
    first = {r.split: r for r in reversed(records) if not r.failed} or {r.split: r for r in records}
    rows = tuple(
        Row(
            name,
            (
                whole(first[name].train_patients if name in first else None),
                whole(first[name].test_patients if name in first else None),
                Cell(sha256),
            ),
            "split",
        )
        for name, sha256 in comparison.splits.items()
    )
    return Table(
        "splits",
        "Splits",
        "Split",
        (Column("train", "Patients"), Column("test", "Patients"), Column("SHA-256")),
        rows,
        ("The hash is over the patients of each part; every method was fitted and tested on these.",),
        label,
    )
