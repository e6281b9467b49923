"""What a BIDS data set holds for us: visits with their scans and labels.

Source: Brain Imaging Data Structure 1.10 (names, entities, ``participants.tsv``, ``sessions.tsv``). BIDS has no data
type for SPECT yet: ``_spect`` (its proposal) and ``_pet`` images are taken as DaT-SPECT.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from nigradat.errors import ConfigError, ImageError, ManifestError
from nigradat.io.manifest import MISSING, Participant, format_faults, parse_participant, read_table

NIFTI: Final = (".nii.gz", ".nii")
OWN_SMWI: Final = "desc-smwi"
OWN_CENTRES: Final = "desc-nigrosome1"
_ECHOES: Final = ("MEGRE", "GRE")
_PART: Final = re.compile(r"_part-(mag|phase|real|imag)_")
_WITH_PHASE: Final = re.compile(r"_part-(phase|imag)_")
_SMWI: Final = ("SMWI", "smwi", "T2starw")  # the last as this App writes it
_SPECT: Final = ("spect", "pet")
_CENTRES: Final = ("centres", "centers")
_POINTS: Final = (".tsv", ".fcsv", ".mrk.json", ".annot", *NIFTI)
_CHI: Final = ("Chimap",)
_LABEL: Final = re.compile(r"(sub|ses)-[a-zA-Z0-9+]+")


@dataclass(frozen=True)
class Visit:
    """One visit of one patient: where its scans lie, ``None`` for what is not there.

    Attributes:
        participant_id, session_id: ``sub-01``; ``ses-1``, or ``n/a`` where the data set has no sessions.
        gre: folder with the echoes of a gradient-echo scan, magnitude and phase.
        chi: a susceptibility map in ppm, which weighs the magnitude of ``gre``.
        smwi: an SMWI, which is taken as it is.
        t1w: T1-weighted image, for the registration.
        spect: reconstructed DaT-SPECT.
        centres: nigrosome-1 centres that a reader has set.
        error: why the visit cannot be prepared, for example two scans where one is needed; empty otherwise.
    """

    participant_id: str
    session_id: str = MISSING
    gre: Path | None = None
    chi: Path | None = None
    smwi: Path | None = None
    t1w: Path | None = None
    spect: Path | None = None
    centres: Path | None = None
    error: str = ""

    @property
    def name(self) -> str:
        """The entities that every file of the visit begins with."""
        return self.participant_id if self.session_id == MISSING else f"{self.participant_id}_{self.session_id}"

    @property
    def folder(self) -> Path:
        """Of the visit, relative to a data set."""
        return Path(self.participant_id, *(() if self.session_id == MISSING else (self.session_id,)))


def find_visits(root: str | os.PathLike[str], participants: Sequence[str] = ()) -> tuple[Visit, ...]:
    """The visits of a data set, in order.

    Args:
        root: folder with ``sub-*``.
        participants: labels to take, with or without ``sub-``; all if none is given.

    Raises:
        ImageError: no ``sub-*`` folder.
        ConfigError: a participant that is not there.
    """
    source = Path(root)
    folders = _labelled(source, "sub")
    if not folders:
        raise ImageError(f"{source}: no folder named sub-...", "a BIDS data set", "Is the path that of its top folder?")
    wanted = {f"sub-{label.removeprefix('sub-')}" for label in participants}
    if missing := sorted(wanted - {folder.name for folder in folders}):
        there = ", ".join(folder.name for folder in folders[:10])
        raise ConfigError(f"no participant {', '.join(missing)} in {source}", f"one of {there}")
    visits = []
    for folder in folders:
        if not wanted or folder.name in wanted:
            sessions = _labelled(folder, "ses")
            visits += [_visit(s, folder.name, s.name) for s in sessions] or [_visit(folder, folder.name, MISSING)]
    return tuple(visits)


def read_labels(root: str | os.PathLike[str], visits: Iterable[Visit]) -> dict[str, Participant]:
    """What ``participants.tsv`` and the participants' ``sessions.tsv`` say, by :attr:`Visit.name`.

    Columns are those of a manifest (``sbr_right``, ``sbr_left``, ``age``, ...); others are passed over. A session's own
    value goes before the participant's.

    Raises:
        ManifestError: every fault of every line.
    """
    source = Path(root)
    everyone = _table(source / "participants.tsv", "participant_id")
    found = {}
    faults: list[tuple[int, str]] = []
    for visit in visits:
        line, record = everyone.get(visit.participant_id, (0, {}))
        own = source / visit.participant_id / f"{visit.participant_id}_sessions.tsv"
        sessions = _table(own, "session_id") if visit.session_id != MISSING else {}
        merged = record | {k: v for k, v in sessions.get(visit.session_id, (0, {}))[1].items() if v != MISSING}
        if "sex" in merged:
            merged["sex"] = _SEX.get(merged["sex"].lower(), merged["sex"])
        merged |= {"participant_id": visit.participant_id, "session_id": visit.session_id}
        participant, wrong = parse_participant(merged)
        faults += [(line, f"{visit.name}: {fault}") for fault in wrong]
        found[visit.name] = dataclasses.replace(
            participant, participant_id=visit.participant_id, session_id=visit.session_id
        )
    if faults:
        raise ManifestError(str(source / "participants.tsv"), format_faults(faults))
    return found


_SEX: Final = {"male": "M", "m": "M", "female": "F", "f": "F", "other": "O", "o": "O"}  # as BIDS allows them


def _table(path: Path, key: str) -> dict[str, tuple[int, dict[str, str]]]:
    """Line number and cells of each line by its key; nothing where the file is not there."""
    if not path.is_file():
        return {}
    table = read_table(path)
    if key not in table.columns:
        raise ManifestError(str(path), [f"the column '{key}' is missing"])
    out = {}
    for line, cells in table.lines:
        record = dict(zip(table.columns, cells, strict=False))
        out[record[key]] = (line, record)
    return out


def _labelled(folder: Path, entity: str) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(
        path
        for path in folder.iterdir()
        if path.is_dir() and path.name.startswith(f"{entity}-") and _LABEL.fullmatch(path.name)
    )


def _visit(folder: Path, participant_id: str, session_id: str) -> Visit:
    """One that cannot be told is no reason to refuse the others."""
    try:
        return _found(folder, participant_id, session_id)
    except ImageError as error:
        return Visit(participant_id, session_id, error=str(error))


def _found(folder: Path, participant_id: str, session_id: str) -> Visit:
    files = [path for path in sorted(folder.glob("*/*")) if path.is_file() or path.is_symlink()]
    echoes = echoes_of(files)
    scans = sorted({path.parent for path in echoes})
    if len(scans) > 1:
        raise ImageError(
            f"echoes in {len(scans)} folders: {', '.join(scan.name for scan in scans)}",
            "one scan a visit",
            "Move the others out of the data set",
        )
    visit = Visit(
        participant_id,
        session_id,
        gre=next(iter(scans), None),
        chi=_one(files, _CHI, NIFTI),
        smwi=_one([path for path in files if not _is_t2starw(path) or OWN_SMWI in _entities(path)], _SMWI, NIFTI),
        t1w=_one(files, ("T1w",), NIFTI),
        spect=_one(files, _SPECT, NIFTI),
        # those that this App found itself are no reader's
        centres=_one([path for path in files if OWN_CENTRES not in _entities(path)], _CENTRES, _POINTS),
    )
    used = (*echoes, visit.chi, visit.smwi, visit.t1w, visit.spect, visit.centres)
    if gone := [path.name for path in used if path is not None and not path.exists()]:
        # a data set under git-annex has links where files were not fetched; without them it would be another visit
        raise ImageError(
            f"{len(gone)} files are links to nothing: {', '.join(gone[:5])}",
            "the files themselves",
            "Fetch them (datalad get, git annex get), or remove the links",
        )
    return visit


def echoes_of(files: Iterable[Path]) -> list[Path]:
    """The images of a gradient-echo scan among the files of a folder.

    Older data sets call the echoes ``T2starw``. These count where phase is among them; without it they are images.
    """
    images = sorted(path for path in files if path.name.endswith(NIFTI))
    parts = [path for path in images if _is_t2starw(path) and _PART.search(path.name)]
    with_phase = {path.parent for path in parts if _WITH_PHASE.search(path.name)}
    return [path for path in images if suffix_of(path) in _ECHOES or (path in parts and path.parent in with_phase)]


def _is_t2starw(path: Path) -> bool:
    return suffix_of(path) == "T2starw"


def _entities(path: Path) -> list[str]:
    return path.name.split("_")[:-1]


def _one(files: Sequence[Path], suffixes: Sequence[str], endings: Sequence[str]) -> Path | None:
    fitting = [path for path in files if suffix_of(path) in suffixes and path.name.endswith(tuple(endings))]
    if len(fitting) > 1:
        raise ImageError(
            f"{len(fitting)} files that could be the {suffixes[0]}: {', '.join(p.name for p in fitting[:5])}",
            "one a visit",
            "Move the others out of the data set",
        )
    return fitting[0] if fitting else None


def suffix_of(path: Path) -> str:
    """The last part of a BIDS name: ``MEGRE`` of ``sub-01_echo-1_part-mag_MEGRE.nii.gz``."""
    return path.name.split(".", 1)[0].rsplit("_", 1)[-1]
