"""The stress test as tables: what is found, by which score, and what withholding answers costs and saves."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Final

import numpy as np

from nigradat.evaluation.table import Cell, Column, Row, Table
from nigradat.io.files import new_folder, write_json
from nigradat.metrics.binary import Auc
from nigradat.metrics.resampling import RESAMPLES, Estimate
from nigradat.quality.suite import (
    COMBINED,
    FAULTS,
    FAULTY,
    ORDINARY,
    SuiteScores,
    detection,
    flagged_share,
    policies,
    separation,
)

LABEL: Final = "digital phantom, not patients"


def detection_table(found: SuiteScores, *, seed: int = 0, resamples: int = RESAMPLES) -> Table:
    """How well all flags together tell each fault from an ordinary pair, and what the fault does to the answer."""
    rows = [Row("None (ordinary)", (Cell(), Cell(), _share(found, ORDINARY), _rmse(found, ORDINARY)), "ordinary")]
    for fault in FAULTS:
        seen = detection(found, fault.name, seed=seed, resamples=resamples)
        cells = (_auc(seen.auc), _fpr(seen.fpr95), _share(found, fault.name), _rmse(found, fault.name))
        rows.append(Row(fault.title, cells, "fault"))
    return Table(
        "detection",
        f"What the quality flags of {found.model_title} find",
        "Fault",
        (
            Column("AUROC"),
            Column("FPR at 95 %"),
            Column(f"Flagged (alarm {found.alarm:.3g})"),
            Column("RMSE of the answers (SBR)"),
        ),
        tuple(rows),
        (
            _who(found),
            "AUROC of the combined score (the most unusual measure), with intervals for patients as clusters "
            "(Obuchowski 1997); there is none at 0 and 1. FPR at 95 %: share of ordinary pairs above the value that "
            "95 % of the faulty ones reach, bootstrap of patients. Flagged: Wilson's intervals.",
            "A head that was mirrored as a whole is as likely as the head itself: no image shows it.",
        ),
        LABEL,
    )


def score_table(found: SuiteScores) -> Table:
    """AUROC of every single score for every fault."""
    rows = tuple(
        Row(fault.title, tuple(_auc(separation(found, fault.name, score)) for score in found.scores), "fault")
        for fault in FAULTS
    )
    return Table(
        "scores",
        f"AUROC of each score, {found.model_title}",
        "Fault",
        tuple(Column(name) for name in found.scores),
        rows,
        (
            _who(found),
            f"'{COMBINED}' is the largest of the measures' deviations; 'spread', the raw SD over dropout samples (the "
            "larger of both sides), is no part of it.",
        ),
        LABEL,
    )


def policy_table(found: SuiteScores, *, seed: int = 0, resamples: int = RESAMPLES) -> Table:
    """Yield and error of each policy on visits of which some are faulty."""
    results = policies(found, seed=seed, resamples=resamples)
    rows = tuple(
        Row(
            "none" if r.alarm is None else f"{r.alarm:.3g}",
            tuple(Cell.of(e) for e in (r.answered, r.answered_ordinary, r.answered_faulty, r.rmse)),
            "policy",
        )
        for r in results
    )
    return Table(
        "policies",
        "Error and yield of --abstain",
        "Withheld of ordinary pairs, at most",
        (
            Column("all", "Answered"),
            Column("ordinary", "Answered"),
            Column("faulty", "Answered"),
            Column("RMSE of the answers (SBR)"),
        ),
        rows,
        (
            _who(found),
            f"{100 * FAULTY:g} % of the visits have one of the {len(FAULTS)} faults, each as often as any other; the "
            f"one that no image shows is among them. '--abstain flagged' is the row of {found.alarm:.3g}.",
        ),
        LABEL,
    )


def write_suite(out: Path, found: SuiteScores, *, seed: int = 0, resamples: int = RESAMPLES) -> tuple[Table, ...]:
    """``detection``, ``scores`` and ``policies`` as CSV and ``stress-test.json`` with all of them, in a new folder.

    Raises:
        OutputError: the folder is in use, or the disk does not take it.
    """
    tables = (
        detection_table(found, seed=seed, resamples=resamples),
        score_table(found),
        policy_table(found, seed=seed, resamples=resamples),
    )
    with new_folder(out) as hidden:
        for table in tables:
            (hidden / f"{table.name}.csv").write_text(table.to_csv(), encoding="utf-8")
        write_json(
            hidden / "stress-test.json",
            {
                "data": LABEL,
                "model": found.model_title,
                "patients": found.patients,
                "preset": found.preset,
                "seed": found.seed,
                "alarm": found.alarm,
                "held_out_patients": found.held_out,
                "tables": tables,
            },
        )
    return tables


def _who(found: SuiteScores) -> str:
    return (
        f"{found.patients} fresh phantom patients (preset {found.preset}, seed {found.seed}), each as he is and with "
        f"every fault; the rate of alarms rests on {found.held_out} held-out patients."
    )


def _auc(found: Auc) -> Cell:
    if math.isnan(found.value):
        return Cell()
    if math.isnan(found.low):
        return Cell(found.value)
    return Cell(found.value, found.low, found.high)


def _fpr(found: Estimate) -> Cell:
    return Cell(found.value) if found.low == found.high else Cell.of(found)


def _share(found: SuiteScores, name: str) -> Cell:
    return Cell(*flagged_share(found, name))


def _rmse(found: SuiteScores, name: str) -> Cell:
    return Cell(float(np.sqrt(found.squared_error[found.names.index(name)].mean())), digits=2)
