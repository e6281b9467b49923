"""``train``: a packed cohort to a model folder that explains itself."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import logging
import multiprocessing
import multiprocessing.queues
import os
import platform
import threading
import time
import warnings
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nigradat import __version__
from nigradat.errors import CohortError, ConfigError, MissingExtraError, NigradatError, OutputError
from nigradat.io.files import sha256_of, write_json, write_text
from nigradat.io.pack import PHANTOM, PackedCohort, load_cohort, verify
from nigradat.models.registry import get_method
from nigradat.models.symmetric import PairRegressor, build
from nigradat.models.weights import CARD_NAME, WEIGHTS_NAME, load_model, save_model
from nigradat.training.config import Hardware, TrainConfig
from nigradat.training.data import PairBatches, mix
from nigradat.training.loss import stop_errors
from nigradat.training.output_layer import solve_output_layer
from nigradat.training.split import Split, make_split

CONFIG_NAME, SPLIT_NAME, LOG_NAME, RESUME_NAME = "config.json", "split.json", "log.csv", "resume.ckpt"

_STARTS = 5  # warm-ups of one fit; the next one begins where the tower of the one before it died

Report = Callable[[list[dict[str, float]], int, int], None]


def train(
    cohort: PackedCohort | str | os.PathLike[str],
    out: str | os.PathLike[str],
    config: TrainConfig | None = None,
    *,
    hardware: Hardware | None = None,
    split: Split | None = None,
    init: str | os.PathLike[str] | None = None,
    report: Report | None = None,
) -> Path:
    """Train one model on a packed cohort, or go on with a run that was interrupted.

    Args:
        cohort: packed cohort or its folder, labelled.
        out: run folder. A folder with the same configuration and cohort is resumed (or, when finished, left alone).
        config: recipe; default ``TrainConfig()``.
        hardware: where to compute.
        split: who trains and who stops; default the paper's 70/15/15 drawn with ``config.seed``.
        init: a model folder to start from (fine-tuning); its network must be the configuration's. There is no warm-up
            then.
        report: called after each epoch with (history, best epoch, planned epochs), in this process whatever the
            number of devices.

    Returns:
        The run folder: ``config.json``, ``split.json``, ``log.csv``, ``model.safetensors``, ``card.json``.

    Raises:
        OutputError: ``out`` holds another run.
        CohortError, ConfigError, WeightsError, MissingExtraError: as their names say.

    Example:
        >>> import nigradat
        >>> nigradat.simulate("cohort", patients=60, preset="easy", seed=1)                    # doctest: +SKIP
        >>> nigradat.train("cohort", "run", nigradat.make_config(changes={"epochs": 5}))       # doctest: +SKIP
    """
    config, hardware, out = config or TrainConfig(), hardware or Hardware(), Path(out)
    data = cohort if isinstance(cohort, PackedCohort) else load_cohort(cohort)
    verify(data)
    if split is None:
        split = make_split(data, config.seed)
    split.check(data)
    if not np.isfinite(data.sbr).all():
        raise CohortError("a cohort with missing labels", "both SBR values for every visit")
    if float(np.max(data.sbr)) > config.sbr_max + 1e-9:
        raise CohortError(
            f"the largest SBR of the cohort is {float(np.max(data.sbr)):.2f}",
            f"at most {config.sbr_max:g}, the scale of the network's output",
            f"Set sbr_max (--sbr-max {np.ceil(float(np.max(data.sbr))):g}) for labels of another software",
        )
    _check_logs(config, data.sbr[split.rows(data, "train")])
    if hardware.accelerator == "gpu" and not (torch.cuda.is_available() or torch.backends.mps.is_available()):
        raise ConfigError("accelerator 'gpu' and no GPU that torch can use", "auto or cpu here")
    model = build(config.spec, config.seed)
    if init is not None:
        _start_from(model, init)  # before anything is written
        # the tower knows more than a warm-up could teach it, and the head is where it should be
        config = replace(
            config, warm_up=0.0, feature_weight=0.0, unit_activations=False, start_at_mean=False, output_penalty=0.0
        )
    plan = {
        "config": config.to_json(),
        "cohort": {"patients": len(set(data.patient_ids)), "sha256": data.sha256},
        "split_sha256": split.sha256,
        "init_sha256": None if init is None else sha256_of(Path(init) / CARD_NAME),
        "nigradat": __version__,
    }
    if _claim(out, plan, split):
        return out
    start, seconds = 0, 0.0
    while True:
        kept, took = _fit(out, model, data, split, config, hardware, report, start)
        seconds += took
        if not kept["died"]:
            break
        start = kept["start"] + 1  # a run that is gone on with may have been at a later one
        if start == _STARTS:
            raise NigradatError(
                f"the tower died in each of {_STARTS} warm-ups: most of its features are the same for every patch",
                "a tower that tells patches apart",
                "Check that the patches differ from patient to patient, or lower warm_up_rate",
            )
        (out / RESUME_NAME).unlink()
        model = build(config.spec, mix(config.seed, start))
    state, history, best = kept["best_state"], kept["history"], kept["best_epoch"]
    if kept["diverged"]:
        raise NigradatError(
            f"training diverged in epoch {len(history)} (the error is no number)",
            "a finite error",
            "Lower the learning rate, or check patches and labels",
        )
    model.load_state_dict(state)
    errors = {name: history[best][name] for name in ("stop_mse", "stop_mae", "stop_r")}
    if config.output_penalty:
        errors = _end_with_solved_layer(model, data, split, config, hardware)
    write_text(out / LOG_NAME, _csv(history))
    save_model(out, model, _card(data, split, config, history, best, seconds, kept["start"] + 1, init, errors))
    for left in (out / RESUME_NAME, *_half_written(out)):
        left.unlink(missing_ok=True)
    return out


def _check_logs(config: TrainConfig, labels: np.ndarray) -> None:
    """Refuse training labels that the method cannot take.

    Raises:
        CohortError: labels without a logarithm, where the method predicts one.
    """
    if config.spec.output == "log-normal" and not (labels > 0).all():
        raise CohortError(
            f"{int((labels <= 0).sum())} training labels of SBR 0 or below (lowest: {labels.min():.2f})",
            f"SBR above 0 for the log-normal head of '{config.model}'",
            "Check those labels, or train a method without that head (sym-vgg-plus)",
        )


def _claim(out: Path, plan: dict[str, Any], split: Split) -> bool:
    """Make or recognise the run folder; True where the run is finished already."""
    path = out / CONFIG_NAME
    if path.is_file():
        try:
            there = json.loads(path.read_text(encoding="utf-8"))
        except ValueError:
            there = None
        if there != json.loads(json.dumps(plan)):
            odd = _difference(there, plan) if isinstance(there, dict) else "an unreadable plan"
            raise OutputError(
                f"{out} holds another run ({odd})", "the same configuration and cohort", "Choose another output folder"
            )
        return (out / CARD_NAME).is_file()
    if out.exists() and (not out.is_dir() or any(not _is_own_start(p) for p in out.iterdir())):
        raise OutputError(f"{out} exists and is no run folder", "a new or empty folder", "Choose another name")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{out} cannot be made ({error.strerror})", "a place that can be written to") from error
    split.save(out / SPLIT_NAME)
    write_json(path, plan)
    return False


def _is_own_start(path: Path) -> bool:
    """What a run that was killed in its first moment leaves: all but its configuration, which is written last."""
    return path.name == SPLIT_NAME or path in _half_written(path.parent)


def _half_written(out: Path) -> list[Path]:
    """Hidden files of a process that was killed while it wrote them."""
    names = (CONFIG_NAME, SPLIT_NAME, LOG_NAME, RESUME_NAME, WEIGHTS_NAME, CARD_NAME)
    return [path for name in names for path in out.glob(f".{Path(name).stem}.*{Path(name).suffix}")]


def _difference(there: dict[str, Any], plan: dict[str, Any]) -> str:
    old, new = (_flat(json.loads(json.dumps(x))) for x in (there, plan))
    odd = [f"{k}: {old.get(k)!r} there, {new.get(k)!r} here" for k in sorted(old | new) if old.get(k) != new.get(k)]
    return "; ".join(odd[:8]) + (f"; {len(odd) - 8} more" if len(odd) > 8 else "")


def _flat(value: Any, name: str = "") -> dict[str, Any]:
    if not isinstance(value, dict):
        return {name: value}
    return {k2: v2 for k, v in value.items() for k2, v2 in _flat(v, f"{name}.{k}".lstrip(".")).items()}


def _fit(
    out: Path,
    model: PairRegressor,
    data: PackedCohort,
    split: Split,
    config: TrainConfig,
    hardware: Hardware,
    report: Report | None,
    start: int,
) -> tuple[dict[str, Any], float]:
    """What :class:`nigradat.training.module.BestAndLast` remembers at the end, and the seconds that it took."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import pytorch_lightning as pl
            from lightning_fabric.utilities.exceptions import MisconfigurationException

            from nigradat.training.module import BestAndLast, FitModule
    except ModuleNotFoundError as error:
        raise MissingExtraError(error.name or "pytorch-lightning", "train") from error
    for name in ("pytorch_lightning", "lightning.pytorch", "pytorch_lightning.utilities.rank_zero"):
        logging.getLogger(name).setLevel(logging.ERROR)

    if hardware.threads:
        torch.set_num_threads(hardware.threads)
    resume = out / RESUME_NAME
    keeper = BestAndLast(resume, config.patience, config.warm_up_epochs, _Reporter(out, report, config.epochs), start)
    logger: Any = False
    if hardware.tensorboard:
        try:
            from pytorch_lightning.loggers import TensorBoardLogger

            logger = TensorBoardLogger(str(out), name="tensorboard", version="")
        except ModuleNotFoundError as error:
            raise MissingExtraError("tensorboard", "tb") from error
    began = time.perf_counter()
    with warnings.catch_warnings(), _across_processes(report if hardware.devices > 1 else None) as passed_on:
        if passed_on is not None:
            keeper.report = _Reporter(out, passed_on, config.epochs)
        warnings.simplefilter("ignore")  # Lightning's advice on workers and logging steps does not fit these batches
        try:
            trainer = pl.Trainer(
                accelerator=hardware.accelerator,
                devices=hardware.devices,
                strategy="ddp_spawn" if hardware.devices > 1 else "auto",
                max_epochs=config.epochs,
                callbacks=[keeper],
                logger=logger,
                default_root_dir=str(out),
                enable_checkpointing=False,
                enable_progress_bar=False,
                enable_model_summary=False,
                num_sanity_val_steps=0,
                gradient_clip_val=config.gradient_clip or None,
                use_distributed_sampler=False,
                reload_dataloaders_every_n_epochs=1,
            )
        except (ValueError, MisconfigurationException) as error:
            raise ConfigError(
                f"accelerator '{hardware.accelerator}' with {hardware.devices} device(s): {error}",
                "auto, cpu or gpu, and as many devices as there are",
            ) from error
        trainer.fit(
            FitModule(model, config, data, split),
            ckpt_path=str(resume) if resume.is_file() else None,
            weights_only=True,
        )
    if trainer.interrupted:
        raise KeyboardInterrupt
    # read back from the file: with DDP the first process is not this one
    kept = torch.load(resume, map_location="cpu", weights_only=True)["callbacks"]
    mine = next(v for k, v in kept.items() if k.startswith("BestAndLast"))
    return mine, time.perf_counter() - began


def _end_with_solved_layer(
    model: PairRegressor, data: PackedCohort, split: Split, config: TrainConfig, hardware: Hardware
) -> dict[str, float]:
    """The last step, and the errors of the stopping patients after it."""
    on_gpu = hardware.accelerator != "cpu" and torch.cuda.is_available()
    device = torch.device("cuda" if on_gpu else "cpu")
    model.to(device)
    solve_output_layer(model, data, split.rows(data, "train"), config)
    rows = split.rows(data, "stop")
    with torch.inference_mode():
        batches = [(model(x.to(device)), y[..., 0]) for x, y, _ in PairBatches(data, rows, config.batch_size)]
    model.cpu()
    return stop_errors(torch.cat([p for p, _ in batches]) * config.sbr_max, torch.cat([y for _, y in batches]))


@contextmanager
def _across_processes(report: Report | None) -> Iterator[Report | None]:
    """A stand-in for ``report`` that may be sent to another process: what it is told there, ``report`` is told here."""
    if report is None:
        yield None
        return
    told = multiprocessing.get_context("spawn").SimpleQueue()

    def pass_on(report: Report) -> None:
        while (words := told.get()) is not None:
            report(*words)

    listener = threading.Thread(target=pass_on, args=(report,), daemon=True)
    listener.start()
    try:
        yield _Sender(told)
    finally:
        told.put(None)
        listener.join()


class _Sender:
    """The other end of :func:`_across_processes`."""

    def __init__(self, told: multiprocessing.queues.SimpleQueue[Any]) -> None:
        self.told = told

    def __call__(self, history: list[dict[str, float]], best: int, epochs: int) -> None:
        self.told.put((history, best, epochs))


class _Reporter:
    """Log file after each epoch, then the caller's own report."""

    def __init__(self, out: Path, report: Report | None, epochs: int) -> None:
        self.out, self.report, self.epochs = out, report, epochs

    def __call__(self, history: list[dict[str, float]], best: int) -> None:
        write_text(self.out / LOG_NAME, _csv(history))
        if self.report is not None:
            self.report(history, best, self.epochs)


def _start_from(model: PairRegressor, init: str | os.PathLike[str]) -> None:
    other = load_model(init)
    if replace(other.spec, head_dropout=0, block_dropout=0, init="he") != replace(
        model.spec, head_dropout=0, block_dropout=0, init="he"
    ):
        raise ConfigError(
            f"{init} holds a network of {other.spec.to_json()}",
            f"the network of this configuration, {model.spec.to_json()}",
            "Give --model, --widths and --sbr-max of that model (centred inputs, too)",
        )
    model.load_state_dict(other.model.state_dict())


def _csv(history: list[dict[str, float]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(history[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows({k: int(v) if k == "epoch" else f"{v:.6g}" for k, v in row.items()} for row in history)
    return text.getvalue()


def name_hash(patient: str) -> str:
    """A short hash of a patient's name: a card that is passed on must know whom it met, but need not say it."""
    return hashlib.sha256(patient.encode()).hexdigest()[:16]


def fingerprints(cohort: PackedCohort, rows: np.ndarray) -> list[str]:
    """A short hash of each visit's patches: the same images are known again under another name."""
    return [hashlib.sha256(cohort.read(int(i)).tobytes()).hexdigest()[:16] for i in rows]


def identities(cohort: PackedCohort, rows: np.ndarray) -> list[frozenset[str]]:
    """By what each visit is known again: the hash of its patches, and for patients that of the name (phantom cohorts
    share theirs)."""
    prints = fingerprints(cohort, rows)
    if cohort.is_phantom:
        return [frozenset([one]) for one in prints]
    return [frozenset([one, name_hash(cohort.patient_ids[i])]) for i, one in zip(rows, prints, strict=True)]


def known_again(cohort: PackedCohort, rows: np.ndarray, met: Collection[str]) -> list[str]:
    """Names of the visits among ``rows`` whose images or patients are among the :func:`identities` ``met``."""
    if not met:
        return []
    there = set(met)
    found = zip(rows, identities(cohort, rows), strict=True)
    return [cohort.participants[i].visit_id for i, mine in found if mine & there]


def _card(
    data: PackedCohort,
    split: Split,
    config: TrainConfig,
    history: list[dict[str, float]],
    best: int,
    seconds: float,
    starts: int,
    init: str | os.PathLike[str] | None,
    errors: dict[str, float],
) -> dict[str, Any]:
    method = get_method(config.model)
    used = np.concatenate([split.rows(data, "train"), split.rows(data, "stop")])
    # a model that was tuned has met whom the model before it met; phantoms' names say nothing
    earlier = {} if init is None else load_model(init).card.get("training", {})
    names = set() if earlier.get("kind") == PHANTOM else set(earlier.get("seen_names", ()))
    return {
        "name": config.model,
        "title": method.title,
        "source": method.source,
        "training": {
            "kind": data.provenance.get("kind", "patients"),
            "provenance": data.provenance,
            "cohort_sha256": data.sha256,
            "patients": {part: len(getattr(split, part)) for part in ("train", "stop", "calibration", "test")},
            "split_sha256": split.sha256,
            "seen_names": sorted(names | set(map(name_hash, {*split.train, *split.stop}))),
            "seen_fingerprints": sorted({*earlier.get("seen_fingerprints", ()), *fingerprints(data, used)}),
            "started_from": None if init is None else str(Path(init).name),
            "epochs": len(history),
            "best_epoch": best,
            "seconds": round(seconds, 1),
            "starts": starts,
            "hardware": {
                "machine": platform.machine(),
                "cores": os.cpu_count(),
                "threads": torch.get_num_threads(),
                "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
            },
        },
        "config": config.to_json(),
        "sbr_scale": data.sbr_scale,
        "smwi_recipe": data.smwi_recipe,
        "metrics": {
            "on": "the stopping patients (selected on them, so optimistic)",
            "epoch": history[best]["epoch"],
            **errors,
        },
        "reconstruction": "lambda, the place and rate of dropout, and the recipe are ours; the paper's are not known",
        "licence": "weights follow the licence of the training data",
    }
