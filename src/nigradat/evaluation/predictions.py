"""The predictions of one fit on its test patients, as a table on disk: all that a comparison of methods needs."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from nigradat.anatomy import Side
from nigradat.errors import CohortError
from nigradat.io.files import write_text

Array = npt.NDArray[np.float64]
PREDICTIONS_NAME = "predictions.tsv"
_ENDS = ("right", "left")


@dataclass(frozen=True, eq=False)
class Predictions:
    """What one fit answers on the visits that it is tested on.

    Attributes:
        patients: participant identifiers, ``(n,)``; a patient with several visits stands in several rows.
        sessions: session identifiers, ``n/a`` where there is none.
        truth: ``(n, 2)`` SBR, right first.
        predicted: ``(n, 2)`` SBR; nan for a side without an answer.
        spreads: by symmetric mode: centre and spread, ``(n, 2)`` SBR each.
        intervals: by symmetric mode: calibrated lower and upper ends at the study's level, ``(n, 2)`` SBR each.
    """

    patients: tuple[str, ...]
    sessions: tuple[str, ...]
    truth: Array
    predicted: Array
    spreads: Mapping[str, tuple[Array, Array]] = field(default_factory=dict)
    intervals: Mapping[str, tuple[Array, Array]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        n = len(self.patients)
        pairs = [*self.spreads.values(), *self.intervals.values()]
        arrays = [self.truth, self.predicted, *(array for pair in pairs for array in pair)]
        if len(self.sessions) != n or any(a.shape != (n, 2) for a in arrays):
            raise CohortError(f"predictions of shapes {sorted({a.shape for a in arrays})}", f"({n}, 2) for {n} visits")

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write as TSV; every number survives bit for bit."""
        columns = {f"sbr_{end}": self.truth[:, i] for i, end in enumerate(_ENDS)}
        columns |= {f"predicted_{end}": self.predicted[:, i] for i, end in enumerate(_ENDS)}
        for kind, names, table in (
            ("spread", ("centre", "spread"), self.spreads),
            ("interval", ("lower", "upper"), self.intervals),
        ):
            for mode, pair in table.items():
                for name, values in zip(names, pair, strict=True):
                    columns |= {f"{kind}:{mode}:{name}_{end}": values[:, i] for i, end in enumerate(_ENDS)}
        text = io.StringIO()
        out = csv.writer(text, delimiter="\t", lineterminator="\n")
        out.writerow(["participant_id", "session_id", *columns])
        for i, (patient, session) in enumerate(zip(self.patients, self.sessions, strict=True)):
            out.writerow([patient, session, *(_cell(values[i]) for values in columns.values())])
        write_text(path, text.getvalue())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Predictions:
        """Read what :meth:`save` wrote.

        Raises:
            CohortError: not such a table, or a damaged one.
        """
        try:
            with open(path, encoding="utf-8", newline="") as file:
                header, *rows = csv.reader(file, delimiter="\t")
            table = {name: [row[i] for row in rows] for i, name in enumerate(header)}
            pairs: dict[str, dict[str, dict[str, Array]]] = {"spread": {}, "interval": {}}
            for name in header:
                if name.count(":") == 2 and name.endswith("_right"):
                    kind, mode, what = name.removesuffix("_right").split(":")
                    pairs[kind].setdefault(mode, {})[what] = _both(table, f"{kind}:{mode}:{what}")
            return cls(
                tuple(table["participant_id"]),
                tuple(table["session_id"]),
                _both(table, "sbr"),
                _both(table, "predicted"),
                {mode: (p["centre"], p["spread"]) for mode, p in pairs["spread"].items()},
                {mode: (p["lower"], p["upper"]) for mode, p in pairs["interval"].items()},
            )
        except (OSError, ValueError, KeyError, IndexError) as error:
            raise CohortError(
                f"{Path(path)} is no table of predictions ({error!r})", "the file that the study wrote", "Remove it"
            ) from error

    @property
    def sides(self) -> tuple[Side, ...]:
        """The sides that are answered for."""
        return tuple(side for side in Side if np.isfinite(self.predicted[:, side.index]).all())


@dataclass(frozen=True)
class FitRecord:
    """One fit, or one baseline or oracle on the same split, as a comparison of methods sees it.

    Attributes:
        method: registry name of a model, or the name of a baseline, oracle or derived predictor.
        title: for people.
        role: trained model, baseline (no net), derived (made of other fits' answers) or oracle (phantom only).
        split: name of the split; fits of one split are tested on the same visits.
        seed: of weights and training; 0 where nothing is random.
        folder: holds ``predictions.tsv``; None for a fit that failed.
        split_sha256: identity of the split.
        train_patients, test_patients: how many.
        epochs, best_epoch: passes made, and the one that was kept (from 1); None for what has none.
        starts: how often it began: anew after each tower that died in its warm-up; None for what has none.
        seconds: of the training, every start of it; None for what has none.
        parameters: trainable numbers.
        failed: why there are no predictions; empty where there are.
    """

    method: str
    title: str
    role: Literal["model", "baseline", "derived", "oracle"]
    split: str
    seed: int
    folder: Path | None
    split_sha256: str
    train_patients: int
    test_patients: int
    epochs: int | None = None
    best_epoch: int | None = None
    starts: int | None = None
    seconds: float | None = None
    parameters: int | None = None
    failed: str = ""

    def predictions(self) -> Predictions:
        """Read from disk each time, so that a study of hundreds of fits stays small in memory.

        Raises:
            CohortError: the fit failed, or its table is missing or damaged.
        """
        if self.folder is None:
            raise CohortError(f"{self.method} on {self.split} has no predictions", "a fit that ended", self.failed)
        return Predictions.load(self.folder / PREDICTIONS_NAME)


def _cell(value: float) -> str:
    return "n/a" if np.isnan(value) else repr(float(value))


def _both(table: Mapping[str, list[str]], name: str) -> Array:
    columns = [[np.nan if cell == "n/a" else float(cell) for cell in table[f"{name}_{end}"]] for end in _ENDS]
    return np.array(columns, dtype=np.float64).T.reshape(-1, 2)
