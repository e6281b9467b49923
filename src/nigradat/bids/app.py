"""The two levels of the BIDS App: ``participant`` (every visit by itself, in parallel) and ``group`` (the cohort).

A visit that fails is recorded and the others go on. A visit is done when its record says so; a second run with the same
settings and the same files passes over it, so a killed run resumes.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Final

from nigradat import __version__
from nigradat.anatomy import Side
from nigradat.bids.derivatives import COHORT_FOLDER, RECORDS_FOLDER, describe_dataset, patch_name
from nigradat.bids.layout import Visit, find_visits, read_labels
from nigradat.bids.visit import Settings, VisitRecord, process_visit, without_places, write_failure
from nigradat.errors import NO_ROOM, CohortError, NigradatError, OutputError
from nigradat.io.files import new_file, write_json, write_text
from nigradat.io.manifest import MISSING, PARTICIPANT_COLUMNS, Participant
from nigradat.io.pack import PackedCohort, pack_cohort
from nigradat.report.visit_page import participant_page

Progress = Callable[[int, int], None]
_MANIFEST: Final = "manifest.tsv"
_PATCHES_GONE: Final = "its patches are gone; prepare it again"
_NO_SIDECARS: Final = ("dataset_description.json", "participants.json")


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
    workers: int = 0,
    progress: Progress | None = None,
) -> Outcome:
    """Turn the scans of every visit into derivatives and a page.

    Args:
        raw: BIDS data set; nothing in it is changed.
        out: derivatives data set, new or of an earlier run on the same data set.
        participants: labels to take; all if none is given.
        settings: how; default those of :class:`Settings`. A visit that was processed with others is processed again.
        workers: visits at a time, each in a process of its own that ends with it, so that memory does not add up and
            a visit for which it does not suffice stops no other. 0: one by one in this process, for scripts that
            processes of their own could not import.
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
        if record is not None and _is_whole(target, visit, record) and record.key == key_of(source, visit, settings):
            records[visit.name] = record
        else:
            todo.append(visit)
    if progress is not None:
        progress(total - len(todo), total)
    for i, (visit, record) in enumerate(_processed(source, target, todo, settings, workers), start=1):
        records[visit.name] = record
        if progress is not None:
            progress(total - len(todo) + i, total)
    _write_participants(target, visits, records)
    return Outcome(tuple(records[visit.name] for visit in visits), len(todo))


def _write_participants(out: Path, visits: Sequence[Visit], records: Mapping[str, VisitRecord]) -> None:
    """A page for each participant with sessions; of one without, the visit's page has its name already."""
    cells: dict[str, dict[str, tuple[str, ...]]] = {}
    for visit in visits:
        if visit.session_id != MISSING:
            record = records[visit.name]
            sbr = record.sbr or {}
            confidence = "" if record.confidence is None else f"{record.confidence:.2f}"
            sides = [f"{sbr[side.value]:.2f}" if side.value in sbr else "" for side in (Side.RIGHT, Side.LEFT)]
            remarks = f"not prepared: {record.error}" if record.error else "; ".join(record.flags)
            cells.setdefault(visit.participant_id, {})[visit.name] = (confidence, *sides, remarks)
    for name, mine in cells.items():
        write_text(out / f"{name}.html", participant_page(name, mine))


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
        if visit.error or record is None or not _is_whole(target, visit, record):
            why = visit.error or ("not processed" if record is None else record.error or _PATCHES_GONE)
            without.append((visit.name, why))
            continue
        participant = _labelled(labels[visit.name], record)
        if not participant.has_sbr:
            without.append((visit.name, record.sbr_error or "no SBR in the tables, and no SPECT"))
            continue
        patches = [(visit.folder / "anat" / patch_name(visit, side)).as_posix() for side in Side]
        lines.append([*(_cell(getattr(participant, column)) for column in PARTICIPANT_COLUMNS), *patches])
    if not lines:
        shown = "; ".join(f"{name}: {why}" for name, why in without[:5])
        raise CohortError(f"no visit with patches and labels in {target} ({shown})", "at least one")
    header = [*PARTICIPANT_COLUMNS, *(side.value for side in Side)]
    manifest = target / _MANIFEST
    before = manifest.read_bytes() if manifest.is_file() else None
    fresh = target / f".{COHORT_FOLDER}.new"
    shutil.rmtree(fresh, ignore_errors=True)
    try:
        write_text(manifest, "\n".join("\t".join(line) for line in [header, *lines]) + "\n")
        pack_cohort(manifest, fresh, allow_mixed=allow_mixed, progress=progress)
        write_json(fresh / "left_out.json", [{"visit": name, "why": why} for name, why in without])
        shutil.rmtree(target / COHORT_FOLDER, ignore_errors=True)
        fresh.rename(target / COHORT_FOLDER)
    except BaseException:  # a refused group leaves the older one, manifest and cohort, as it was
        manifest.unlink(missing_ok=True)
        if before is not None:
            manifest.write_bytes(before)
        raise
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    from nigradat.io.pack import load_cohort

    return load_cohort(target / COHORT_FOLDER)


# -- Records ------------------------------------------------------------------------------------------------------


def read_record(out: Path, visit: Visit) -> VisitRecord | None:
    """What an earlier run left about a visit; None where there is nothing whole."""
    try:
        found = json.loads(_record_of(out, visit).read_text(encoding="utf-8"))
        return VisitRecord(**found)
    except (OSError, ValueError, TypeError):
        return None


def key_of(raw: Path, visit: Visit, settings: Settings) -> str:
    """Changes with the settings, with this package's version and with any of the visit's files and their sidecars."""
    every = visit.gre, visit.chi, visit.smwi, visit.t1w, visit.spect, visit.centres
    scans = [path for path in every if path is not None]
    used = {file for path in scans for file in (path.iterdir() if path.is_dir() else (path,))}
    # a sidecar may also lie higher up, where it holds for many scans
    above = {folder for path in scans for folder in path.parents if folder.is_relative_to(raw)}
    used |= {file for folder in above for file in folder.glob("*.json")} - {raw / name for name in _NO_SIDECARS}
    files = []
    for file in sorted(used):
        name = file.relative_to(raw).as_posix()
        try:
            status = file.stat()
            files.append([name, status.st_size, status.st_mtime_ns])
        except OSError:  # a link to nothing, or gone since: whoever reads it says so
            files.append([name, None, None])
    text = json.dumps([__version__, asdict(settings), files], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def _record_of(out: Path, visit: Visit) -> Path:
    return out / RECORDS_FOLDER / f"{visit.name}.json"


def _is_whole(out: Path, visit: Visit, record: VisitRecord) -> bool:
    """Whether there is a result, and it is still there."""
    anat = out / visit.folder / "anat"
    return not record.error and all((anat / patch_name(visit, side)).is_file() for side in Side)


def _write_record(out: Path, record: VisitRecord) -> None:
    with new_file(out / RECORDS_FOLDER / f"{record.name}.json") as hidden:
        hidden.write_text(json.dumps(asdict(record), indent=1, allow_nan=False) + "\n", encoding="utf-8")


# -- Running ------------------------------------------------------------------------------------------------------


def _processed(
    raw: Path, out: Path, visits: Sequence[Visit], settings: Settings, workers: int
) -> Iterator[tuple[Visit, VisitRecord]]:
    """Each visit as it is done."""
    if workers < 2 or len(visits) < 2:
        for visit in visits:
            yield visit, _alone(raw, out, visit, settings) if workers else one_visit(raw, out, visit, settings)
        return
    left = deque(visits)
    while left:
        suspects = yield from _together(raw, out, left, settings, workers)
        for visit in suspects:  # one of them took the others' processes with it
            yield visit, _alone(raw, out, visit, settings)


def _together(
    raw: Path, out: Path, left: deque[Visit], settings: Settings, workers: int
) -> Generator[tuple[Visit, VisitRecord], None, list[Visit]]:
    """Take visits from ``left`` until none is left or a process dies; then those that were under way are returned."""
    waiting: dict[Future[VisitRecord], Visit] = {}
    with _processes(workers) as pool:
        while left or waiting:
            try:
                while left and len(waiting) < 2 * workers:
                    future = pool.submit(one_visit, raw, out, left[0], settings)
                    waiting[future] = left.popleft()
            except BrokenProcessPool:
                if not waiting:
                    return []
            done, _ = wait(waiting, return_when=FIRST_COMPLETED)
            for future in sorted(done, key=lambda f: isinstance(f.exception(), BrokenProcessPool)):
                if isinstance(future.exception(), BrokenProcessPool):
                    return list(waiting.values())
                yield waiting.pop(future), future.result()
    return []


def _alone(raw: Path, out: Path, visit: Visit, settings: Settings) -> VisitRecord:
    """In a process that nothing else can end."""
    try:
        with _processes(1) as pool:
            return pool.submit(one_visit, raw, out, visit, settings).result()
    except BrokenProcessPool:
        return _failed(out, visit, "", "its process ended, for example for want of memory")


def _processes(workers: int) -> ProcessPoolExecutor:
    """A fresh one for each visit gives its memory back; 'spawn' because torch and SimpleITK have threads."""
    return ProcessPoolExecutor(workers, mp_context=get_context("spawn"), max_tasks_per_child=1)


def one_visit(raw: Path, out: Path, visit: Visit, settings: Settings) -> VisitRecord:
    """Process a visit and leave its record. Whatever goes wrong with it becomes part of the record.

    Raises:
        OutputError, OSError: nothing can be written, which would stop all of them.
    """
    key = key_of(raw, visit, settings)
    _record_of(out, visit).unlink(missing_ok=True)  # no old one may speak for what is half done
    if visit.error:
        return _failed(out, visit, key, visit.error)
    try:
        record = replace(process_visit(raw, out, visit, settings), key=key)
    except NigradatError as error:
        if isinstance(error, OutputError):
            raise
        return _failed(out, visit, key, without_places(str(error), raw, out))
    except Exception as error:
        if isinstance(error, OSError) and error.errno in NO_ROOM:
            raise  # the disk is full for all of them
        return _failed(out, visit, key, without_places(f"unexpected {type(error).__name__}: {error}", raw, out))
    _write_record(out, record)
    return record


def _failed(out: Path, visit: Visit, key: str, error: str) -> VisitRecord:
    record = VisitRecord(visit.name, key=key, error=error)
    write_failure(out, visit, error)
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
