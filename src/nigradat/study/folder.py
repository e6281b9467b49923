"""The study folder: where everything lies, who works on what, and what has ended.

    STUDY/study.json                           the resolved plan, written before any work
    STUDY/splits/split-1.json                  who trains, stops, calibrates and tests
    STUDY/cohorts/draw-1/                      freshly drawn phantom cohorts; kept
    STUDY/fits/split-1/sym-vgg-plus-seed1/     a run folder with calibration.json, predictions.tsv and, last, fit.json;
                                               failed.json instead of that where the fit failed
    STUDY/fits/split-1/ridge/                  a baseline, an oracle or a derived predictor
    STUDY/fits/split-1/readings.json           present or absent, as read, against what it is compared with
    STUDY/locks/                               what is being worked on at this moment

Nothing here needs torch: what a study found can be read anywhere.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path
from typing import Any, Final, NamedTuple

from nigradat.errors import OutputError
from nigradat.evaluation.predictions import FitRecord
from nigradat.io.files import write_json
from nigradat.metrics.binary import BinaryAgreement

PLAN_NAME, FIT_NAME, FAILED_NAME, TIMES_NAME = "study.json", "fit.json", "failed.json", "times.csv"
CALIBRATION_TABLE: Final = "calibration.tsv"
READINGS_NAME: Final = "readings.json"
_HEARTBEAT_S: Final = 10.0
_SILENCE_S: Final = 120.0  # a holder that has not been heard of for so long is dead
_ROLES: Final = ("model", "derived", "baseline", "oracle")


class FitName(NamedTuple):
    """One method on one split with one seed of weights and training."""

    split: str
    method: str
    seed: int

    @property
    def key(self) -> str:
        """As in messages and paths: ``split-1/sym-vgg-plus-seed1``."""
        return f"{self.split}/{self.method}-seed{self.seed}"


@dataclass(frozen=True)
class StudyFolder:
    """Where things lie."""

    path: Path

    @property
    def plan(self) -> Path:
        """The resolved plan."""
        return self.path / PLAN_NAME

    def split(self, name: str) -> Path:
        """A split's file."""
        return self.path / "splits" / f"{name}.json"

    def cohort(self, name: str) -> Path:
        """The phantom cohort that was drawn for a split."""
        return self.path / "cohorts" / name

    def fit(self, key: str) -> Path:
        """The folder of a fit, a baseline, an oracle or a derived predictor."""
        return self.path / "fits" / key

    @contextmanager
    def locked(self, key: str) -> Iterator[bool]:
        """Whether this process alone may work on ``key`` while the block lasts.

        Each contender first leaves a file and then looks for others', so that of two at once at most one goes on. A
        holder that was killed is recognised by its process, on another machine by its silence of two minutes; one that
        was merely suspended for longer may find that somebody else has begun, with the same result.
        """
        folder = self.path / "locks"
        folder.mkdir(parents=True, exist_ok=True)
        stem = key.replace("/", "+")
        own = folder / f"{stem}@{uuid.uuid4().hex}@{os.getpid()}@{socket.gethostname()}"
        own.touch()
        over = threading.Event()
        try:
            others = [path for path in folder.iterdir() if path.name.startswith(f"{stem}@") and path != own]
            now = own.stat().st_mtime  # the clock of the disk, which may be another machine's
            if any(_is_held(path, now) for path in others):
                yield False
                return
            for path in others:
                path.unlink(missing_ok=True)
            threading.Thread(target=_beat, args=(own, over), daemon=True).start()
            yield True
        finally:
            over.set()
            own.unlink(missing_ok=True)


def _beat(own: Path, over: threading.Event) -> None:
    while not over.wait(_HEARTBEAT_S):
        try:
            os.utime(own)
        except OSError:  # taken away, by the end of the work or by somebody else
            return


def _is_held(lock: Path, now: float) -> bool:
    try:
        if now - lock.stat().st_mtime > _SILENCE_S:
            return False
    except FileNotFoundError:
        return False
    _, _, pid, host = lock.name.split("@", 3)
    return host != socket.gethostname() or os.name == "nt" or _is_running(int(pid))


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    try:  # ended, but not yet collected by its parent
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return True


# -- What has ended -----------------------------------------------------------------------------------------------


def write_record(folder: Path, record: FitRecord, **more: Any) -> None:
    """Leave word that a fit ended: ``failed.json`` where it failed, else ``fit.json``, the last file of its folder."""
    facts = {name: value for name, value in vars(record).items() if name != "folder"}
    write_json(folder / (FAILED_NAME if record.failed else FIT_NAME), {**facts, **more})


def read_record(folder: Path) -> FitRecord | None:
    """How the fit in a folder ended; None where it has not.

    Raises:
        OutputError: its record is damaged.
    """
    for name in (FIT_NAME, FAILED_NAME):
        path = folder / name
        if not path.is_file():
            continue
        facts = read_json(path)
        try:
            # what has a default may be younger than the file
            stored = [f for f in fields(FitRecord) if f.name != "folder"]
            known = {f.name: facts[f.name] for f in stored if f.name in facts or f.default is MISSING}
        except KeyError as error:
            raise OutputError(f"{path} lacks {error}", "the file as it was written", f"Remove {folder}") from error
        return FitRecord(**known, folder=None if name == FAILED_NAME else folder)
    return None


def records(study: str | os.PathLike[str]) -> tuple[FitRecord, ...]:
    """What a study has found so far, read from its folder alone.

    Order: by split, then models, derived predictors, baselines and oracles, the models in the plan's order, by seed.

    Raises:
        OutputError: no study folder, or a damaged one.
    """
    folder = StudyFolder(Path(study))
    plan = read_plan(folder)
    methods = {name: i for i, name in enumerate(plan["methods"])}
    found = []
    for number, split in enumerate(plan["split_names"]):
        place = folder.path / "fits" / split
        for run in sorted(place.iterdir()) if place.is_dir() else ():
            record = read_record(run)
            if record is not None and record.split == split:
                rank = (number, _ROLES.index(record.role), methods.get(record.method, len(methods)))
                found.append(((*rank, record.method, record.seed), record))
    return tuple(record for _, record in sorted(found, key=lambda item: item[0]))


# -- Readings -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Reading:
    """How an approach's readings of a split's test visits agree with one reference on one side.

    Attributes:
        split: its name.
        method, title: of the approach, for programs and for people.
        reference: in words, what counts as positive.
        side: ``right`` or ``left``.
        counts: of the visits that were read and have the reference; an absent hyperintensity is the positive finding.
        unsure, unread: visits that are not among them for that reason.
        without_reference: visits that were read and lack the reference.
    """

    split: str
    method: str
    title: str
    reference: str
    side: str
    counts: BinaryAgreement
    unsure: int
    unread: int
    without_reference: int


def write_readings(folder: StudyFolder, split: str, found: Sequence[Reading]) -> None:
    """Leave the readings of a split."""
    write_json(folder.fit(split) / READINGS_NAME, {"readings": [asdict(reading) for reading in found]})


def read_readings(folder: StudyFolder, splits: Iterable[str]) -> tuple[Reading, ...]:
    """The readings of these splits; none of a split where nothing was read or there is nothing to compare with.

    Raises:
        OutputError: a damaged file.
    """
    found = []
    for split in splits:
        path = folder.fit(split) / READINGS_NAME
        if not path.is_file():
            continue
        try:
            rows = read_json(path)["readings"]
            found += [Reading(**{**row, "counts": BinaryAgreement(**row["counts"])}) for row in rows]
        except (KeyError, TypeError) as error:
            raise OutputError(f"{path} is damaged ({error!r})", "the file as it was written") from error
    return tuple(found)


def read_plan(folder: StudyFolder) -> dict[str, Any]:
    """``study.json`` as plain values.

    Raises:
        OutputError: no study there, or a damaged one.
    """
    if not folder.plan.is_file():
        raise OutputError(f"{folder.path} holds no {PLAN_NAME}", "a folder that 'nigradat study' wrote")
    return read_json(folder.plan)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object of our own.

    Raises:
        OutputError: it is none.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise OutputError(f"{path} cannot be read ({error})", "the file as it was written") from error
    if not isinstance(data, dict):
        raise OutputError(f"{path} holds a {type(data).__name__}", "the JSON object that was written")
    return data
