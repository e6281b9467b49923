"""Small cohorts and untrained runs, so that evaluation and pages can be tested in a second."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from nigradat.io.manifest import Participant
from nigradat.io.pack import CohortWriter, PackedCohort, load_cohort
from nigradat.models.registry import get_method
from nigradat.models.symmetric import ModelSpec, Sharing, build
from nigradat.models.weights import save_model
from nigradat.training.fit import SPLIT_NAME, fingerprints, name_hash
from nigradat.training.split import Split, make_split


def write_cohort(
    folder: Path,
    patients: int = 60,
    *,
    seed: int = 0,
    kind: str = "patients",
    twice: int = 0,
    change: Callable[[dict[str, Any]], None] = lambda fields: None,
) -> PackedCohort:
    """Noise whose centre is the brighter the higher the SBR; the first ``twice`` patients have two visits."""
    rng = np.random.default_rng(seed)
    ids = [(f"sub-{i:03d}", s) for i in range(patients) for s in (("ses-1", "ses-2") if i < twice else ("n/a",))]
    severity = {name: rng.uniform(0.6, 5.0) for name, _ in ids}
    rows = []
    with CohortWriter(folder, len(ids), {"kind": kind}) as writer:
        for i, (name, session) in enumerate(ids):
            sbr = np.clip(severity[name] + rng.normal(0, 0.4, 2), 0.43, 6.8).round(2)
            patches = rng.normal(1, 0.1, (2, 50, 50, 20)).clip(0.2)
            patches[:, 20:30, 20:30, 5:15] *= (0.4 + 0.1 * sbr + rng.normal(0, 0.08, 2)).clip(0.2)[:, None, None, None]
            writer.patches[i] = patches
            fields: dict[str, Any] = {
                "participant_id": name,
                "session_id": session,
                "sbr_right": float(sbr[0]),
                "sbr_left": float(sbr[1]),
                "age": 60.0 + i % 20,
                "sex": "FM"[i % 2],
                "mri_spect_days": float(i % 3),
                "tracer": "123I-FP-CIT",
                "spect_software": "software A",
            }
            change(fields)
            rows.append(Participant(**fields))
        writer.finish(rows)
    return load_cohort(folder)


def write_run(
    folder: Path,
    cohort: PackedCohort,
    *,
    method: str = "sym-vgg-plus",
    sharing: Sharing | None = None,
    head_dropout: float = 0.2,
    seed: int = 0,
    split: Split | None = None,
) -> tuple[Path, Split]:
    """A run folder as training would leave it, but with fresh weights."""
    split = split or make_split(cohort, seed=1)
    spec = ModelSpec(
        widths=(2, 2, 2, 4), sharing=sharing or get_method(method).sharing, head_dropout=head_dropout, sbr_max=6.84
    )
    used = np.concatenate([split.rows(cohort, "train"), split.rows(cohort, "stop")])
    card = {
        "name": method,
        "title": get_method(method).title,
        "training": {
            "kind": cohort.provenance["kind"],
            "provenance": dict(cohort.provenance),
            "cohort_sha256": cohort.sha256,
            "split_sha256": split.sha256,
            "patients": {part: len(getattr(split, part)) for part in ("train", "stop", "calibration", "test")},
            "seen_names": sorted(map(name_hash, {*split.train, *split.stop})),
            "seen_fingerprints": sorted(fingerprints(cohort, used)),
            "best_epoch": 1,
        },
        "config": {"model": method, "widths": [2, 2, 2, 4], "symmetry_weight": None, "augmentation": {"noise": 0.03}},
        "sbr_scale": cohort.sbr_scale,
    }
    save_model(folder, build(spec, seed), card)
    split.save(folder / SPLIT_NAME)
    (folder / "log.csv").write_text(
        "epoch,train_loss,stop_mse,stop_mae,stop_r,learning_rate\n0,0.1,1.5,0.9,0.2,0.001\n1,0.05,1.2,0.8,0.4,0.001\n"
    )
    return folder, split
