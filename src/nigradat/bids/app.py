"""The two levels of the BIDS App: ``participant`` (every visit by itself, in parallel) and ``group`` (the cohort).

A visit that fails is recorded and the others go on. A visit is done when its record says so; a second run with the same
settings and the same files passes over it, so a killed run resumes.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import asdict, dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Final

from nigradat import __version__
from nigradat.anatomy import Side
from nigradat.bids.derivatives import COHORT_FOLDER, RECORDS_FOLDER, describe_dataset, patch_name
from nigradat.bids.layout import Visit, find_visits, read_labels
from nigradat.bids.visit import Settings, VisitRecord, process_visit, write_failure
from nigradat.errors import CohortError, NigradatError, OutputError
from nigradat.io.files import new_file, write_json, write_text
from nigradat.io.manifest import MISSING, PARTICIPANT_COLUMNS, Participant
from nigradat.io.pack import PackedCohort, pack_cohort

Progress = Callable[[int, int], None]
_MANIFEST: Final = "manifest.tsv"


@dataclass(frozen=True)
class Outcome:
    """What the participant level did.

    Attributes:
        records: of all visits asked for, in order.
        fresh: how many of them this run processed; the others were done already.
    """

    records: tuple[VisitRecord, ...]
    fresh: int

    @property
    def failed(self) -> tuple[VisitRecord, ...]:
        """Visits without a result."""
        return tuple(record for record in self.records if record.error)


def run_participants(
    raw: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    participants: Sequence[str] = (),
    settings: Settings | None = None,
    workers: int = 1,
    progress: Progress | None = None,
) -> Outcome:
    """Turn the scans of every visit into derivatives and a page.

    Args:
        raw: BIDS data set; nothing in it is changed.
        out: derivatives data set, new or of an earlier run on the same data set.
        participants: labels to take; all if none is given.
        settings: how; default those of :class:`Settings`. A visit that was processed with others is processed again.
        workers: visits at a time, each in a process of its own that ends with it, so memory does not add up.
        progress: called with (visits done, visits in all).

    Raises:
        ImageError, ConfigError: as :func:`~nigradat.bids.layout.find_visits`.
        OutputError: ``out`` is no derivatives data set, or lies inside ``raw`` where visits are looked for.

    Example:
        >>> run_participants("bids", "derivatives/nigradat", workers=4).failed                  # doctest: +SKIP
    """
    source, target = Path(raw).absolute(), Path(out).absolute()
    settings = settings or Settings()
    visits = find_visits(source, participants)
    _open_output(source, target)
    total = len(visits)
    records: dict[str, VisitRecord] = {}
    todo = []
    for visit in visits:
        record = read_record(target, visit)
        if record is not None and not record.error and record.key == key_of(source, visit, settings):
            records[visit.name] = record
        else:
            todo.append(visit)
    if progress is not None:
        progress(total - len(todo), total)
    for i, (visit, record) in enumerate(_processed(source, target, todo, settings, workers), start=1):
        records[visit.name] = record
        if progress is not None:
            progress(total - len(todo) + i, total)
    return Outcome(tuple(records[visit.name] for visit in visits), len(todo))


def run_group(
    raw: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    allow_mixed: bool = False,
    progress: Progress | None = None,
) -> PackedCohort:
    """Pack the patches of all finished visits, with their labels, into ``OUT/cohort``; an older one is replaced.

    A label is the SBR of ``participants.tsv`` or ``sessions.tsv``; where there is none, the one that was measured on
    the visit's SPECT. Visits without a label are left out and listed in the cohort's folder.

    Raises:
        CohortError: no finished visit with a label.
        ManifestError: a table with faults, or labels from different SPECT programs (``allow_mixed`` accepts them).
    """
    source, target = Path(raw).absolute(), Path(out).absolute()
    visits = find_visits(source)
    labels = read_labels(source, visits)
    lines, without = [], []
    for visit in visits:
        record = read_record(target, visit)
        if record is None or record.error:
            without.append((visit.name, "not processed" if record is None else record.error))
            continue
        participant = _labelled(labels[visit.name], record)
        if not participant.has_sbr:
            without.append((visit.name, "no SBR, neither in the tables nor from a SPECT"))
            continue
        patches = [(visit.folder / "anat" / patch_name(visit, side)).as_posix() for side in Side]
        lines.append([*(_cell(getattr(participant, column)) for column in PARTICIPANT_COLUMNS), *patches])
    if not lines:
        shown = "; ".join(f"{name}: {why}" for name, why in without[:5])
        raise CohortError(f"no visit with patches and labels in {target} ({shown})", "at least one")
    header = [*PARTICIPANT_COLUMNS, *(side.value for side in Side)]
    write_text(target / _MANIFEST, "\n".join("\t".join(line) for line in [header, *lines]) + "\n")
    fresh = target / f".{COHORT_FOLDER}.new"
    shutil.rmtree(fresh, ignore_errors=True)
    try:
        pack_cohort(target / _MANIFEST, fresh, allow_mixed=allow_mixed, progress=progress)
        write_json(fresh / "left_out.json", [{"visit": name, "why": why} for name, why in without])
        shutil.rmtree(target / COHORT_FOLDER, ignore_errors=True)
        fresh.rename(target / COHORT_FOLDER)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    from nigradat.io.pack import load_cohort

    return load_cohort(target / COHORT_FOLDER)


# -- Records ------------------------------------------------------------------------------------------------------


def read_record(out: Path, visit: Visit) -> VisitRecord | None:
    """What an earlier run left about a visit; None where there is nothing whole."""
    try:
        found = json.loads((out / RECORDS_FOLDER / f"{visit.name}.json").read_text(encoding="utf-8"))
        return VisitRecord(**found)
    except (OSError, ValueError, TypeError):
        return None


def key_of(raw: Path, visit: Visit, settings: Settings) -> str:
    """Changes with the settings, with this package's version and with any of the visit's files."""
    files = []
    for path in (visit.gre, visit.smwi, visit.t1w, visit.spect, visit.centres):
        for file in sorted(path.iterdir()) if path is not None and path.is_dir() else [path] if path else []:
            status = file.stat()
            files.append([file.relative_to(raw).as_posix(), status.st_size, status.st_mtime_ns])
    text = json.dumps([__version__, asdict(settings), files], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def _write_record(out: Path, record: VisitRecord) -> None:
    with new_file(out / RECORDS_FOLDER / f"{record.name}.json") as hidden:
        hidden.write_text(json.dumps(asdict(record), indent=1, allow_nan=False) + "\n", encoding="utf-8")


# -- Running ------------------------------------------------------------------------------------------------------


def _processed(
    raw: Path, out: Path, visits: Sequence[Visit], settings: Settings, workers: int
) -> Iterator[tuple[Visit, VisitRecord]]:
    """Each visit as it is done; in this process where one worker is enough."""
    if workers < 2 or len(visits) < 2:
        for visit in visits:
            yield visit, one_visit(raw, out, visit, settings)
        return
    # a fresh process for each visit gives its memory back; 'spawn' because torch and SimpleITK have threads
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn"), max_tasks_per_child=1) as pool:
        waiting: dict[Future[VisitRecord], Visit] = {}
        left = iter(visits)
        for visit in left:
            waiting[pool.submit(one_visit, raw, out, visit, settings)] = visit
            if len(waiting) < 2 * workers:
                continue
            yield from _finished(out, waiting)
        while waiting:
            yield from _finished(out, waiting)


def _finished(out: Path, waiting: dict[Future[VisitRecord], Visit]) -> Iterator[tuple[Visit, VisitRecord]]:
    done, _ = wait(waiting, return_when=FIRST_COMPLETED)
    for future in done:
        visit = waiting.pop(future)
        try:
            yield visit, future.result()
        except Exception as error:  # the process died, for example for want of memory
            record = VisitRecord(visit.name, key="", error=f"its process ended: {error or type(error).__name__}")
            _write_record(out, record)
            yield visit, record


def one_visit(raw: Path, out: Path, visit: Visit, settings: Settings) -> VisitRecord:
    """Process a visit and leave its record; an error that the user can act upon becomes part of the record."""
    key = key_of(raw, visit, settings)
    try:
        record = replace(process_visit(raw, out, visit, settings), key=key)
    except OutputError:
        raise  # the disk is full for all of them
    except NigradatError as error:
        record = VisitRecord(visit.name, key=key, error=str(error))
        write_failure(out, visit, record.error)
    _write_record(out, record)
    return record


def _open_output(raw: Path, out: Path) -> None:
    if out == raw or (out.is_relative_to(raw) and out.relative_to(raw).parts[0].startswith("sub-")):
        raise OutputError(
            f"the output {out} lies among the scans of {raw}", "a folder of its own, derivatives/nigradat"
        )
    if out.is_dir() and any(out.iterdir()) and not (out / "dataset_description.json").is_file():
        raise OutputError(f"{out} holds something else", "a new folder, or one that this command wrote before")
    out.mkdir(parents=True, exist_ok=True)
    description = out / "dataset_description.json"
    if description.is_file():
        try:
            made_by = json.loads(description.read_text(encoding="utf-8"))["GeneratedBy"][0]["Name"]
        except (ValueError, KeyError, IndexError, TypeError):
            made_by = "something else"
        if made_by != "nigradat":
            raise OutputError(f"{out} was made by {made_by}", "a new folder, or one that this command wrote before")
    describe_dataset(out, raw)


def _labelled(participant: Participant, record: VisitRecord) -> Participant:
    """The tables' SBR, or the SPECT's with its provenance."""
    if participant.has_sbr or record.sbr is None:
        return participant
    known: dict[str, Any] = {name: value for name, value in record.sbr_provenance.items() if value is not None}
    return replace(participant, sbr_right=record.sbr["right"], sbr_left=record.sbr["left"], **known)


def _cell(value: str | float | None) -> str:
    return MISSING if value is None else value if isinstance(value, str) else repr(float(value))
